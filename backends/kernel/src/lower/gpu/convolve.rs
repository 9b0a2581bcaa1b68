//! Convolutions as products: rows are positions of the result, columns its channels, the depth runs over taps and channels.
//!
//! The left matrix is never built: its elements are read from the image where they are, and are zero outside of it.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Scalar, ScalarExpr, ScalarOp};
use tcc_ir::types::TensorType;

use super::Gpu;
use super::matrix::{CHUNK, fragment, matrix_product};
use super::product::{Extents, Part, Places, Side, assigned, product};
use crate::ir::{Expr, Stmt};
use crate::lower::{Argument, LowerError, Lowering, PackedLayout, Packing};

/// Channels of the result below which tiles are mostly empty.
const SMALL: i64 = 4;

/// A channels-last convolution in one group.
pub struct Convolution<'c> {
    /// Steps of the window along each spatial axis.
    pub strides: &'c [i64],
    /// Distances of its taps.
    pub dilations: &'c [i64],
    /// Padding before the image.
    pub low: &'c [i64],
    /// What becomes of sums.
    pub epilogue: &'c ScalarExpr,
    /// The filter with the depth innermost, where it is packed.
    pub packed: Option<Argument>,
}

impl Convolution<'_> {
    fn spatial(&self) -> usize {
        self.strides.len()
    }

    /// True where positions in the image and along the depth are known to fit 32 bits.
    fn is_narrow(&self, lowering: &Lowering) -> bool {
        let spatial = self.spatial();
        let small = |extents: &[Dim]| {
            let known = extents.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>();
            let product = known.and_then(|extents| {
                extents.iter().try_fold(1i64, |product, extent| product.checked_mul(*extent))
            });
            product.is_some_and(|product| product < 1 << 30)
        };
        let reach =
            |(size, dilation): (&Dim, &i64)| size.as_const().and_then(|size| size.checked_mul(*dilation));
        let [image, filter] = [0, 1].map(|operand: usize| &lowering.operands[operand].shape);
        let mut taps = filter.iter().zip(self.dilations).map(reach);
        small(&image[1..spatial + 1])
            && small(&filter[..spatial + 1])
            && taps.all(|reach| reach.is_some_and(|reach| reach < 1 << 30))
            && self.low.iter().all(|low| *low < 1 << 30)
    }

    /// True where each position of the result is a product of the channels at the same position of the image.
    fn is_pointwise(&self, lowering: &Lowering) -> bool {
        let spatial = self.spatial();
        let [image, filter] = [0, 1].map(|operand: usize| &lowering.operands[operand].shape);
        filter[..spatial].iter().all(|extent| extent.is(1))
            && self.strides.iter().all(|stride| *stride == 1)
            && self.low.iter().all(|low| *low == 0)
            && image[..spatial + 1] == lowering.results[0].shape[..spatial + 1]
    }
}

/// Coordinates of a position of 32 bits among constant extents.
fn decode_narrow(
    lowering: &mut Lowering,
    stmts: &mut Vec<Stmt>,
    position: Expr,
    extents: &[Dim],
) -> Vec<Expr> {
    let mut rest = position;
    let mut at = Vec::new();
    for (axis, extent) in extents.iter().enumerate().rev() {
        if axis == 0 {
            at.push(rest.clone());
            break;
        }
        let extent = Expr::Const(Scalar::integer(DType::I32, extent.as_const().unwrap_or(1)));
        let digit = Expr::call(Function::Rem, vec![rest.clone(), extent.clone()]);
        at.push(assigned(lowering, stmts, "digit", digit));
        rest = assigned(lowering, stmts, "rest", Expr::call(Function::Div, vec![rest, extent]));
    }
    at.reverse();
    at
}

impl Places for Convolution<'_> {
    fn dtype(&self, lowering: &Lowering, side: Side) -> DType {
        lowering.operands[side as usize].dtype()
    }

    fn depth_inner(&self, side: Side) -> bool {
        side == Side::Rows || self.packed.is_some()
    }

    fn outer(&self, lowering: &mut Lowering, side: Side, _: &Expr, position: Expr) -> Part {
        if side == Side::Columns {
            return Part { stmts: Vec::new(), at: vec![position] };
        }
        let shape = lowering.results[0].shape.clone();
        let at = lowering.decode(position, &shape[..self.spatial() + 1]);
        let narrow = self.is_narrow(lowering);
        let mut part = Part { stmts: Vec::new(), at: Vec::new() };
        let mut corner = Vec::new();
        for (axis, value) in at.into_iter().enumerate() {
            // Where the window starts, which may be before the image.
            let value = match axis.checked_sub(1) {
                Some(axis) => value.times(Expr::index(self.strides[axis])).minus(Expr::index(self.low[axis])),
                None => value,
            };
            corner.push(assigned(lowering, &mut part.stmts, "start", value));
        }
        for start in &corner {
            let start = if narrow { start.clone().cast(DType::I64, DType::I32) } else { start.clone() };
            part.at.push(assigned(lowering, &mut part.stmts, "start", start));
        }
        corner.push(Expr::index(0));
        let image = lowering.operands[0].shape.clone();
        let place = lowering.linear(&image, &corner);
        part.at.push(assigned(lowering, &mut part.stmts, "corner", place));
        part
    }

    fn depth(&self, lowering: &mut Lowering, side: Side, position: Expr) -> Part {
        if side == Side::Columns {
            return Part { stmts: Vec::new(), at: vec![position] };
        }
        let spatial = self.spatial();
        let filter = lowering.operands[1].shape.clone();
        let narrow = self.is_narrow(lowering);
        let mut part = Part { stmts: Vec::new(), at: Vec::new() };
        let at = if narrow {
            let position =
                assigned(lowering, &mut part.stmts, "narrow", position.cast(DType::I64, DType::I32));
            decode_narrow(lowering, &mut part.stmts, position, &filter[..spatial + 1])
        } else {
            lowering.decode(position, &filter[..spatial + 1])
        };
        for (axis, value) in at.into_iter().enumerate() {
            let value = match self.dilations.get(axis) {
                Some(dilation) if *dilation != 1 => {
                    let dtype = if narrow { DType::I32 } else { DType::I64 };
                    let dilation = Expr::Const(Scalar::integer(dtype, *dilation));
                    Expr::call(Function::Mul, vec![value, dilation])
                }
                _ => value,
            };
            part.at.push(assigned(lowering, &mut part.stmts, "tap", value));
        }
        let wide = |tap: &Expr| match narrow {
            true => tap.clone().cast(DType::I32, DType::I64),
            false => tap.clone(),
        };
        let mut offsets = vec![Expr::index(0)];
        offsets.extend(part.at.iter().map(wide));
        let image = lowering.operands[0].shape.clone();
        let place = lowering.linear(&image, &offsets);
        part.at.push(assigned(lowering, &mut part.stmts, "offset", place));
        part
    }

    fn element(
        &self,
        lowering: &mut Lowering,
        side: Side,
        outer: &[Expr],
        depth: &[Expr],
    ) -> (Expr, Option<Expr>) {
        if side == Side::Columns {
            let shape = lowering.operands[1].shape.clone();
            let columns = lowering.dim(&shape[self.spatial() + 1]);
            if let Some(packed) = self.packed {
                let depth_extent = lowering.dim(&Dim::product(&shape[..self.spatial() + 1]));
                let buffer = lowering.buffer(packed);
                return (
                    Expr::load(buffer, outer[0].clone().times(depth_extent).plus(depth[0].clone())),
                    None,
                );
            }
            let buffer = lowering.buffer(Argument::Operand(1));
            let index = depth[0].clone().times(columns).plus(outer[0].clone());
            return (Expr::load(buffer, index), None);
        }
        // One addition finds the element, as places in the image are linear.
        let spatial = self.spatial();
        let place = outer[spatial + 1].clone().plus(depth[spatial + 1].clone());
        let image = Expr::load(lowering.buffer(Argument::Operand(0)), place);
        // Every position is inside where there is one tap and no padding.
        if self.is_pointwise(lowering) {
            return (image, None);
        }
        let shape = lowering.operands[0].shape.clone();
        let narrow = self.is_narrow(lowering);
        let mut inside: Option<Expr> = None;
        for axis in 0..spatial {
            let position = Expr::call(Function::Add, vec![outer[axis + 1].clone(), depth[axis].clone()]);
            let within = match shape[axis + 1].as_const().filter(|_| narrow) {
                // What is before the image is large without its sign.
                Some(extent) => {
                    let extent = Expr::Const(Scalar::integer(DType::U32, extent));
                    Expr::Call(ScalarOp::Bitcast(DType::U32), vec![position]).less(extent)
                }
                None => {
                    let extent = lowering.dim(&shape[axis + 1]);
                    Expr::index(0).less_equal(position.clone()).both(position.less(extent))
                }
            };
            inside = Some(match inside {
                Some(inside) => inside.both(within),
                None => within,
            });
        }
        (image, inside)
    }

    fn pitch(&self, lowering: &mut Lowering, side: Side) -> Option<Expr> {
        let depth = Dim::product(&lowering.operands[1].shape[..self.spatial() + 1]);
        let is_affine = if side == Side::Rows { self.is_pointwise(lowering) } else { self.packed.is_some() };
        is_affine.then(|| lowering.dim(&depth))
    }

    fn finish(&self, lowering: &mut Lowering, _: &Expr, row: &Expr, column: &Expr, sum: Expr) -> Vec<Stmt> {
        let shape = lowering.results[0].shape.clone();
        let columns = lowering.dim(&shape[self.spatial() + 1]);
        let place = row.clone().times(columns).plus(column.clone());
        let mut stmts = Vec::new();
        let mut inputs = vec![sum];
        for operand in 2..lowering.operands.len() {
            let ty = lowering.operands[operand].clone();
            let argument = Argument::Operand(operand);
            let value = if ty.shape == shape {
                Expr::load(lowering.buffer(argument), place.clone())
            } else {
                let mut at = lowering.decode(row.clone(), &shape[..self.spatial() + 1]);
                at.push(column.clone());
                lowering.load_broadcast(argument, &at)
            };
            inputs.push(value);
        }
        let (epilogue, value) = lowering.scalar(self.epilogue, &inputs);
        stmts.extend(epilogue);
        let buffer = lowering.buffer(Argument::Result(0));
        stmts.push(Stmt::Store { buffer, index: place, value, valid: None });
        stmts
    }
}

/// Lowers a convolution to a tiled product; false where the plain lowering serves it better.
pub fn convolve(
    lowering: &mut Lowering,
    gpu: &Gpu,
    accumulator: DType,
    mut convolution: Convolution,
) -> Result<bool, LowerError> {
    let spatial = convolution.spatial();
    let (filter, result) = (lowering.operands[1].clone(), lowering.results[0].clone());
    let packed = lowering.operands[..2].iter().any(|operand| operand.dtype().is_packed());
    let few = filter.shape[spatial + 1].as_const().is_some_and(|channels| channels < SMALL);
    if packed || few || !matches!(accumulator, DType::F32 | DType::F64 | DType::I32) {
        return Ok(false);
    }
    let rows = lowering.dim(&Dim::product(&result.shape[..spatial + 1]));
    let columns = lowering.dim(&result.shape[spatial + 1]);
    let depth = lowering.dim(&Dim::product(&filter.shape[..spatial + 1]));
    let extents = Extents { batch: Expr::index(1), rows, columns, depth };
    // Runs of 16 bytes of channels are in one piece, and inside or outside together.
    let lanes = CHUNK / lowering.operands[0].dtype().size() as i64;
    let whole = filter.shape[spatial].as_const().is_some_and(|channels| channels % lanes == 0);
    if gpu.tensor_cores
        && whole
        && lowering.constant[1]
        && filter.static_shape().is_some()
        && let Some(fragment) = fragment(lowering.operands[0].dtype(), filter.dtype(), accumulator)
    {
        let order = std::iter::once(spatial + 1).chain(0..spatial + 1).collect();
        let layout = PackedLayout { order, lane_axis: spatial, width: lanes as usize, group: None };
        let packed = TensorType::new(filter.dtype(), layout.shape(&filter.shape));
        let source = filter.shape.clone();
        convolution.packed =
            Some(lowering.packed(Packing { operand: 1, source, layout, packed, winograd: None }));
        if matrix_product(lowering, gpu, &extents, (fragment, accumulator), &convolution)? {
            return Ok(true);
        }
        convolution.packed = None;
    }
    product(lowering, gpu, &extents, accumulator, &convolution)?;
    Ok(true)
}
