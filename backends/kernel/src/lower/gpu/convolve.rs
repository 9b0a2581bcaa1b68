//! Convolutions as products: rows are positions of the result, columns its channels, the depth runs over taps and channels.
//!
//! The left matrix is never built: its elements are read from the image where they are, and are zero outside of it.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::ScalarExpr;
use tcc_ir::types::TensorType;

use super::Gpu;
use super::matrix::{CHUNK, fragment, matrix_product};
use super::product::{Extents, Part, Places, Side, product};
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
        let mut part = Part { stmts: Vec::new(), at: Vec::new() };
        for (axis, value) in at.into_iter().enumerate() {
            // Where the window starts, which may be before the image.
            let value = match axis.checked_sub(1) {
                Some(axis) => value.times(Expr::index(self.strides[axis])).minus(Expr::index(self.low[axis])),
                None => value,
            };
            let (var, stmt) = lowering.assign("start", value);
            part.stmts.push(stmt);
            part.at.push(Expr::Var(var));
        }
        part
    }

    fn depth(&self, lowering: &mut Lowering, side: Side, position: Expr) -> Part {
        if side == Side::Columns {
            return Part { stmts: Vec::new(), at: vec![position] };
        }
        let shape = lowering.operands[1].shape.clone();
        let at = lowering.decode(position, &shape[..self.spatial() + 1]);
        let mut part = Part { stmts: Vec::new(), at: Vec::new() };
        for (axis, value) in at.into_iter().enumerate() {
            let value = match self.dilations.get(axis) {
                Some(dilation) => value.times(Expr::index(*dilation)),
                None => value,
            };
            let (var, stmt) = lowering.assign("tap", value);
            part.stmts.push(stmt);
            part.at.push(Expr::Var(var));
        }
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
        let shape = lowering.operands[0].shape.clone();
        let mut at = vec![outer[0].clone()];
        let mut inside: Option<Expr> = None;
        for axis in 0..self.spatial() {
            let position = outer[axis + 1].clone().plus(depth[axis].clone());
            let extent = lowering.dim(&shape[axis + 1]);
            let within = Expr::index(0).less_equal(position.clone()).both(position.clone().less(extent));
            inside = Some(match inside {
                Some(inside) => inside.both(within),
                None => within,
            });
            at.push(position);
        }
        at.push(depth[self.spatial()].clone());
        // Every position is inside where there is one tap and no padding.
        let inside = inside.filter(|_| !self.is_pointwise(lowering));
        (lowering.load(Argument::Operand(0), &at), inside)
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
