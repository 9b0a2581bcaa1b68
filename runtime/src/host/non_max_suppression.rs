//! ONNX `NonMaxSuppression`.
//!
//! For each batch and class the boxes are taken by falling score (of equal scores the lower index first); a box
//! that overlaps a selected one by more than `iou_threshold` is dropped, until `max_output_boxes_per_class` are
//! selected. The result lists batch, class and box of each, in that order.

use super::{HostCall, HostFunction, Signature};
use crate::dtype::DType;
use crate::error::Result;

struct NonMaxSuppression {
    center_point_box: bool,
}

/// Inputs: boxes `[batches, boxes, 4]`, scores `[batches, classes, boxes]`, then optional: the most boxes for each
/// class (`i64`, default 0), the overlap threshold (default 0), the score threshold (default none).
pub(super) fn build(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(2..=5, 1..=1, &["center_point_box"])?;
    for (index, dtype) in [DType::F32, DType::F32, DType::I64, DType::F32, DType::F32].into_iter().enumerate()
    {
        signature.expect_input(index, dtype)?;
    }
    if signature.input(0)?.rank != 3 || signature.input(1)?.rank != 3 {
        return Err("boxes and scores must have rank 3".into());
    }
    signature.expect_output(0, DType::I64, Some(2))?;
    Ok(Box::new(NonMaxSuppression { center_point_box: signature.flag("center_point_box", false)? }))
}

/// A box by its corners.
#[derive(Clone, Copy)]
struct Corners {
    low: [f32; 2],
    high: [f32; 2],
}

impl Corners {
    fn new(raw: &[f32], center: bool) -> Self {
        if center {
            // x, y of the center, width, height.
            let (half_width, half_height) = (raw[2] / 2.0, raw[3] / 2.0);
            let low = [raw[1] - half_height, raw[0] - half_width];
            let high = [raw[1] + half_height, raw[0] + half_width];
            return Corners { low, high };
        }
        // Any two opposite corners: y1, x1, y2, x2.
        let low = [raw[0].min(raw[2]), raw[1].min(raw[3])];
        let high = [raw[0].max(raw[2]), raw[1].max(raw[3])];
        Corners { low, high }
    }

    fn area(&self) -> f32 {
        (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])
    }

    /// Whether intersection over union exceeds the threshold; boxes without area overlap nothing.
    fn overlaps(&self, other: &Corners, threshold: f32) -> bool {
        let low = [self.low[0].max(other.low[0]), self.low[1].max(other.low[1])];
        let high = [self.high[0].min(other.high[0]), self.high[1].min(other.high[1])];
        if high[0] <= low[0] || high[1] <= low[1] {
            return false;
        }
        let intersection = (high[0] - low[0]) * (high[1] - low[1]);
        let (mine, theirs) = (self.area(), other.area());
        let union = mine + theirs - intersection;
        mine > 0.0 && theirs > 0.0 && union > 0.0 && intersection / union > threshold
    }
}

impl HostFunction for NonMaxSuppression {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        let (box_tensor, score_tensor) = (call.input(0)?, call.input(1)?);
        let (boxes, scores) = (call.elements::<f32>(&box_tensor)?, call.elements::<f32>(&score_tensor)?);
        let (box_shape, score_shape) = (box_tensor.shape(), score_tensor.shape());
        let [batches, classes, count] = [score_shape[0], score_shape[1], score_shape[2]];
        if box_shape != [batches, count, 4] {
            let reason = format!("boxes {box_shape:?} do not go with scores {score_shape:?}");
            return Err(call.fail(reason));
        }
        let most = usize::try_from(call.integer_input(2, 0)?).unwrap_or(0);
        let overlap = call.float_input(3, 0.0)?;
        let least_score = call.optional_input(4)?.map(|_| call.float_input(4, 0.0)).transpose()?;
        let corners = |batch: usize, index: usize| {
            Corners::new(&boxes[(batch * count + index) * 4..][..4], self.center_point_box)
        };

        let mut order = std::mem::take(&mut call.scratch().indices);
        // Batch, class and box of each, one after the other.
        let mut selected = std::mem::take(&mut call.scratch().selected);
        selected.clear();
        for batch in 0..batches {
            for class in 0..classes {
                let scores = &scores[(batch * classes + class) * count..][..count];
                order.clear();
                order.extend(
                    (0..count).filter(|&index| least_score.is_none_or(|least| scores[index] > least)),
                );
                order.sort_unstable_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
                let start = selected.len();
                for &candidate in &order {
                    if (selected.len() - start) / 3 >= most {
                        break;
                    }
                    let mut kept = selected[start..].chunks_exact(3).map(|triple| corners(batch, triple[2]));
                    let this = corners(batch, candidate);
                    if !kept.any(|other| this.overlaps(&other, overlap)) {
                        selected.extend([batch, class, candidate]);
                    }
                }
            }
        }
        let output = call.output::<i64>(0, &[selected.len() / 3, 3])?;
        output.iter_mut().zip(&selected).for_each(|(to, &from)| *to = from as i64);
        call.scratch().indices = order;
        call.scratch().selected = selected;
        Ok(())
    }
}
