//! Padding of convolutions as scratch memory: a task copies the lines of the input that its line of the result reads, with
//! what surrounds them, and its inner loops read from there without conditions.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::words::Layout;

use super::convolve::Geometry;
use super::movement::PaddedLine;
use super::{Argument, Lowering};
use crate::ir::{Access, BufferId, Expr, LoopKind, Space, Stmt, Var};

/// The padded lines of the input that a line of the result reads, one for each tap of the axes before the last:
/// `[taps.., width with padding, channels]`.
pub struct Window {
    buffer: BufferId,
    dtype: DType,
    /// Taps of all axes but the last.
    taps: Vec<Dim>,
    /// The last spatial extent of the input, and with padding.
    width: Dim,
    padded: Dim,
    channels: Dim,
}

/// Most bytes of a window: it is read again for each tile of channels.
const MOST_BYTES: i64 = 256 << 10;

impl Window {
    /// True where the result has lines, and the window of one of them stays in a cache. Circuits, which have no vectors, pad in
    /// a stage of their own.
    pub fn fits(lowering: &Lowering, geometry: &Geometry) -> bool {
        let input = &lowering.operands[0];
        let out_extents = geometry.extents(&lowering.results[0]);
        let lines = geometry.spatial > 1 && !out_extents[geometry.spatial - 1].is(1);
        let taps = geometry.filter_extents(&lowering.operands[1]);
        let shape =
            [Dim::product(&taps[..geometry.spatial - 1]), Dim::product(&input.shape[geometry.spatial..])];
        let bytes = Dim::product(&shape).as_const().map(|count| count * input.dtype().size() as i64);
        geometry.layout == Layout::ChannelsLast
            && lowering.tuning.gpu.is_none()
            && lowering.tuning.lanes(input.dtype()) > 1
            && !input.dtype().is_packed()
            && lines
            && bytes.is_some_and(|bytes| bytes <= MOST_BYTES.min(lowering.tuning.l2_bytes as i64 / 4))
    }

    /// Declares the window of a channels-last convolution.
    pub fn new(lowering: &mut Lowering, geometry: &Geometry) -> Window {
        let input = lowering.operands[0].clone();
        let last = geometry.spatial - 1;
        let taps = geometry.filter_extents(&lowering.operands[1])[..last].to_vec();
        let width = input.shape[last + 1].clone();
        let padded = width.clone() + Dim::Const(geometry.low[last] + geometry.high[last]);
        let channels = geometry.channels(&input);
        let count = Dim::product(&taps) * padded.clone() * channels.clone();
        let count = lowering.dim(&count);
        let buffer =
            lowering.kernel.buffer("window", input.dtype(), Space::Scratch, count, Access::ReadWrite);
        Window { buffer, dtype: input.dtype(), taps, width, padded, channels }
    }

    /// The element of a channel that taps read from a padded position of the last axis.
    pub fn load(&self, lowering: &mut Lowering, taps: &[Var], position: Expr, channel: Expr) -> Expr {
        let mut at: Vec<Expr> = taps[..self.taps.len()].iter().map(|tap| Expr::Var(*tap)).collect();
        at.extend([position, channel]);
        let shape = [&self.taps[..], &[self.padded.clone(), self.channels.clone()]].concat();
        Expr::load(self.buffer, lowering.linear(&shape, &at))
    }

    /// Fills the window of a line of the result, given by batch and all positions but the last.
    pub fn fill(&self, lowering: &mut Lowering, geometry: &Geometry, line: &[Expr]) -> Vec<Stmt> {
        let input = lowering.operands[0].clone();
        let extents = geometry.extents(&input);
        let (width, padded) =
            (self.width.clone() * self.channels.clone(), self.padded.clone() * self.channels.clone());
        let before = Dim::Const(geometry.low[self.taps.len()]) * self.channels.clone();
        let (length, padded, before) = (lowering.dim(&width), lowering.dim(&padded), lowering.dim(&before));
        let lanes = lowering.tuning.lanes(self.dtype);
        let lines = lowering.dim(&Dim::product(&self.taps));
        vec![lowering.for_loop("line", lines, LoopKind::Serial, |this, number| {
            let taps = this.decode(number.clone(), &self.taps);
            let mut row = line[0].clone();
            let mut conditions = Vec::new();
            for (axis, tap) in taps.into_iter().enumerate() {
                let extent = this.dim(&extents[axis]);
                let position = line[axis + 1].clone().times(Expr::index(geometry.strides[axis]));
                let position = position.plus(tap.times(Expr::index(geometry.dilations[axis])));
                let position = position.minus(Expr::index(geometry.low[axis]));
                if geometry.low[axis] != 0 || geometry.high[axis] != 0 {
                    conditions.push(Expr::index(0).less_equal(position.clone()));
                    conditions.push(position.clone().less(extent.clone()));
                }
                row = row.times(extent).plus(position);
            }
            let line = PaddedLine {
                read: this.buffer(Argument::Operand(0)),
                from: row.times(length.clone()),
                length: length.clone(),
                write: self.buffer,
                to: number.times(padded.clone()),
                padded: padded.clone(),
                before: before.clone(),
                value: Expr::constant(self.dtype, 0.0),
                lanes,
            };
            line.copy(this, conditions.into_iter().reduce(Expr::both))
        })]
    }
}
