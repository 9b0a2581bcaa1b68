//! Result types of operators.
//!
//! Extents are symbolic. Where two extents must agree and are not known to, inference takes the simpler one and reports
//! the pair, so that the run can check it.

mod blocks;
mod cache;
mod shape;
mod spatial;

use crate::block_format::BlockOperands;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::operator::Operator;
use crate::scalar::ScalarExpr;
use crate::types::{TensorType, Type};
use crate::words::{CellKind, ReduceKind};

pub use spatial::window_extent;

/// Why an operator does not take its operands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct InferError(pub String);

impl InferError {
    /// An error with this text.
    pub fn new(text: impl Into<String>) -> InferError {
        InferError(text.into())
    }
}

/// What inference finds out.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Inferred {
    /// Types of the results.
    pub results: Vec<Type>,
    /// Extents that must be equal at run time.
    pub equalities: Vec<(Dim, Dim)>,
}

type Result<T> = std::result::Result<T, InferError>;

fn fail<T>(text: impl Into<String>) -> Result<T> {
    Err(InferError::new(text))
}

/// Collects equalities while extents are matched.
#[derive(Default)]
pub(crate) struct Matcher {
    equalities: Vec<(Dim, Dim)>,
}

impl Matcher {
    /// One extent for two that must be equal.
    pub(crate) fn same(&mut self, a: &Dim, b: &Dim, what: &str) -> Result<Dim> {
        if a == b {
            return Ok(a.clone());
        }
        if let (Some(a), Some(b)) = (a.as_const(), b.as_const()) {
            return fail(format!("{what}: extents {a} and {b} differ"));
        }
        self.equalities.push((a.clone(), b.clone()));
        Ok(
            if b.as_const().is_some()
                || (a.as_const().is_none() && b.as_symbol().is_some() && a.as_symbol().is_none())
            {
                b.clone()
            } else {
                a.clone()
            },
        )
    }

    /// One extent for two that broadcast: a constant 1 gives way.
    pub(crate) fn broadcast(&mut self, a: &Dim, b: &Dim) -> Result<Dim> {
        if a.is(1) {
            Ok(b.clone())
        } else if b.is(1) {
            Ok(a.clone())
        } else {
            self.same(a, b, "broadcast")
        }
    }

    /// The common shape of several operands, aligned at the last axis.
    pub(crate) fn broadcast_shapes<'a>(
        &mut self,
        shapes: impl IntoIterator<Item = &'a [Dim]>,
    ) -> Result<Vec<Dim>> {
        let mut out: Vec<Dim> = Vec::new();
        for shape in shapes {
            while out.len() < shape.len() {
                out.insert(0, Dim::Const(1));
            }
            let offset = out.len() - shape.len();
            for (axis, dim) in shape.iter().enumerate() {
                out[offset + axis] = self.broadcast(&out[offset + axis], dim)?;
            }
        }
        Ok(out)
    }
}

/// Tensor operand `index`.
fn tensor<'a>(operands: &[&'a Type], index: usize) -> Result<&'a TensorType> {
    match operands.get(index) {
        Some(Type::Tensor(tensor)) => Ok(tensor),
        Some(other) => fail(format!("operand {index} is {other}, expected a tensor")),
        None => fail(format!("operand {index} is missing")),
    }
}

fn check_axis(axis: usize, rank: usize) -> Result<()> {
    if axis < rank { Ok(()) } else { fail(format!("axis {axis} is outside rank {rank}")) }
}

/// Type of `expr` on an element of type `first` and the elements of further operands, which broadcast against `shape`.
fn epilogue(
    matcher: &mut Matcher,
    expr: &ScalarExpr,
    first: DType,
    rest: &[&Type],
    shape: &[Dim],
) -> Result<DType> {
    let mut dtypes = vec![first];
    for index in 0..rest.len() {
        let operand = tensor(rest, index)?;
        if operand.rank() > shape.len() {
            return fail(format!(
                "epilogue operand of rank {} for a result of rank {}",
                operand.rank(),
                shape.len()
            ));
        }
        let offset = shape.len() - operand.rank();
        for (axis, dim) in operand.shape.iter().enumerate() {
            if !dim.is(1) {
                matcher.same(&shape[offset + axis], dim, "epilogue operand")?;
            }
        }
        dtypes.push(operand.dtype());
    }
    infer_scalar(expr, &dtypes)
}

fn infer_scalar(expr: &ScalarExpr, dtypes: &[DType]) -> Result<DType> {
    expr.infer(dtypes).map(|(_, dtype)| dtype).map_err(|error| InferError::new(error.to_string()))
}

/// Checks the operand count against the declaration.
pub(crate) fn check_arity(operator: &Operator, count: usize) -> Result<()> {
    let declared = operator.describe().operands;
    let variadic = declared.last().is_some_and(|name| name.ends_with('*'));
    let fixed = declared.len() - usize::from(variadic);
    if count < fixed || (!variadic && count > fixed) {
        return fail(format!("tir.{} takes {declared:?}, got {count} operands", operator.name()));
    }
    Ok(())
}

/// The result types of `operator` on operands of these types.
///
/// `if`, `loop` and `call` depend on regions or other functions, so their builder states the types; they are refused here.
pub fn infer(operator: &Operator, operands: &[&Type]) -> Result<Inferred> {
    check_arity(operator, operands.len())?;
    let mut matcher = Matcher::default();
    let results = results(operator, operands, &mut matcher)?;
    Ok(Inferred { results, equalities: matcher.equalities })
}

fn results(operator: &Operator, operands: &[&Type], matcher: &mut Matcher) -> Result<Vec<Type>> {
    use Operator as O;
    let one = |dtype: DType, shape: Vec<Dim>| Ok(vec![Type::tensor(dtype, shape)]);
    match operator {
        O::Constant { data } => one(data.dtype(), data.shape().iter().map(|dim| Dim::from(*dim)).collect()),
        O::Iota { dtype, shape, axis } => {
            check_axis(*axis, shape.len())?;
            one(*dtype, shape.clone())
        }
        O::Dims { dims } => one(DType::I64, vec![Dim::from(dims.len())]),
        O::Bind { symbols } => {
            let x = tensor(operands, 0)?;
            if !x.dtype().is_integer() || x.rank() != 1 {
                return fail(format!("bind takes a one-dimensional integer tensor, got {x}"));
            }
            matcher.same(&x.shape[0], &Dim::from(symbols.len()), "bind")?;
            Ok(vec![])
        }
        O::Map { body } => {
            let types =
                (0..operands.len()).map(|index| tensor(operands, index)).collect::<Result<Vec<_>>>()?;
            let shape = matcher.broadcast_shapes(types.iter().map(|ty| &ty.shape[..]))?;
            one(infer_scalar(body, &types.iter().map(|ty| ty.dtype()).collect::<Vec<_>>())?, shape)
        }
        O::Reduce { axes, keep, prologue, epilogue: after, .. } => {
            let x = tensor(operands, 0)?;
            let shape = shape::reduced(&x.shape, axes, *keep)?;
            let split = (prologue.inputs as usize).clamp(1, operands.len());
            let dtype = epilogue(matcher, prologue, x.dtype(), &operands[1..split], &x.shape)?;
            one(epilogue(matcher, after, dtype, &operands[split..], &shape)?, shape)
        }
        O::ArgReduce { kind, .. } if !matches!(kind, ReduceKind::Max | ReduceKind::Min) => {
            fail("arg_reduce finds a maximum or minimum")
        }
        O::ArgReduce { axis, keep, .. } => {
            one(DType::I64, shape::reduced(&tensor(operands, 0)?.shape, &[*axis], *keep)?)
        }
        O::Scan { axis, .. } | O::Softmax { axis, .. } => {
            let x = tensor(operands, 0)?;
            check_axis(*axis, x.rank())?;
            Ok(vec![operands[0].clone()])
        }
        O::Contract { spec, accumulator, epilogue: after } => {
            let shape = shape::contract(matcher, spec, tensor(operands, 0)?, tensor(operands, 1)?)?;
            one(epilogue(matcher, after, *accumulator, &operands[2..], &shape)?, shape)
        }
        O::Convolve { layout, groups, strides, dilations, pads, accumulator, epilogue: after } => {
            let (x, w) = (tensor(operands, 0)?, tensor(operands, 1)?);
            let shape = spatial::convolve(matcher, x, w, *layout, *groups, strides, dilations, pads)?;
            one(epilogue(matcher, after, *accumulator, &operands[2..], &shape)?, shape)
        }
        O::ConvolveTranspose {
            layout,
            groups,
            strides,
            dilations,
            pads,
            output_pads,
            accumulator,
            epilogue: after,
        } => {
            let (x, w) = (tensor(operands, 0)?, tensor(operands, 1)?);
            let shape = spatial::convolve_transpose(
                matcher,
                x,
                w,
                *layout,
                *groups,
                strides,
                dilations,
                pads,
                output_pads,
            )?;
            one(epilogue(matcher, after, *accumulator, &operands[2..], &shape)?, shape)
        }
        O::Window { layout, size, strides, dilations, pads, ceil, .. } => {
            let x = tensor(operands, 0)?;
            one(x.dtype(), spatial::window(x, *layout, size, strides, dilations, pads, *ceil)?)
        }
        O::WindowArgMax { size, strides, dilations, pads, ceil, .. } => {
            let x = tensor(operands, 0)?;
            let layout = crate::words::Layout::ChannelsFirst;
            let shape = spatial::window(x, layout, size, strides, dilations, pads, *ceil)?;
            Ok(vec![Type::tensor(x.dtype(), shape.clone()), Type::tensor(DType::I64, shape)])
        }
        O::Normalize { axes, epilogue: after, .. } => {
            let x = tensor(operands, 0)?;
            axes.iter().try_for_each(|axis| check_axis(*axis, x.rank()))?;
            if !x.dtype().is_float() {
                return fail(format!("normalize takes floating point, got {x}"));
            }
            one(epilogue(matcher, after, x.dtype(), &operands[1..], &x.shape)?, x.shape.clone())
        }
        O::Attention { .. } => shape::attention(matcher, operands),
        O::Rope { .. } => {
            let x = tensor(operands, 0)?;
            match x.shape.last() {
                Some(last) if x.rank() >= 2 && last.modulo(&Dim::Const(2)).as_const().unwrap_or(0) == 0 => {}
                _ => return fail(format!("rope takes [..., seq, even d], got {x}")),
            }
            Ok(vec![operands[0].clone()])
        }
        O::Recurrent { cell, .. } => shape::recurrent(matcher, operands, *cell),
        O::Reshape { shape } => {
            let x = tensor(operands, 0)?;
            matcher.same(&x.count(), &Dim::product(shape), "reshape: element counts")?;
            one(x.dtype(), shape.clone())
        }
        O::Transpose { perm } => {
            let x = tensor(operands, 0)?;
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            if !sorted.iter().copied().eq(0..x.rank()) {
                return fail(format!("{perm:?} is no permutation of the axes of {x}"));
            }
            one(x.dtype(), perm.iter().map(|axis| x.shape[*axis].clone()).collect())
        }
        O::Broadcast { shape } => {
            let x = tensor(operands, 0)?;
            if x.rank() > shape.len() {
                return fail(format!("broadcast of {x} to fewer axes"));
            }
            let offset = shape.len() - x.rank();
            for (axis, dim) in x.shape.iter().enumerate() {
                if !dim.is(1) {
                    matcher.same(&shape[offset + axis], dim, "broadcast")?;
                }
            }
            one(x.dtype(), shape.clone())
        }
        O::Slice { starts, sizes, steps } => {
            let x = tensor(operands, 0)?;
            if [starts.len(), sizes.len(), steps.len()] != [x.rank(); 3] || steps.contains(&0) {
                return fail(format!("slice of {x} takes a start, a size and a non-zero step for each axis"));
            }
            one(x.dtype(), sizes.clone())
        }
        O::Concat { axis } => shape::concat(matcher, operands, *axis),
        O::Pad { low, high, .. } => {
            let x = tensor(operands, 0)?;
            if low.len() != x.rank() || high.len() != x.rank() {
                return fail(format!("pad of {x} takes an amount for each side of each axis"));
            }
            if tensor(operands, 1)?.rank() != 0 || tensor(operands, 1)?.dtype() != x.dtype() {
                return fail("the pad value is a scalar tensor of the operand's element type");
            }
            let sum = |axis: usize| x.shape[axis].clone() + low[axis].clone() + high[axis].clone();
            one(x.dtype(), (0..x.rank()).map(sum).collect())
        }
        O::Gather { axis } => {
            let (x, indices) = (tensor(operands, 0)?, tensor(operands, 1)?);
            check_axis(*axis, x.rank())?;
            shape::check_indices(indices)?;
            one(x.dtype(), [&x.shape[..*axis], &indices.shape, &x.shape[axis + 1..]].concat())
        }
        O::GatherElements { axis } => {
            let (x, indices) = (tensor(operands, 0)?, tensor(operands, 1)?);
            check_axis(*axis, x.rank())?;
            shape::check_indices(indices)?;
            if indices.rank() != x.rank() {
                return fail("gather_elements: ranks differ");
            }
            one(x.dtype(), indices.shape.clone())
        }
        O::GatherNd { batch_dims } => {
            let (x, indices) = (tensor(operands, 0)?, tensor(operands, 1)?);
            let depth = shape::index_depth(indices)?;
            if *batch_dims >= indices.rank() || batch_dims + depth > x.rank() {
                return fail(format!("gather_nd: {batch_dims} batch axes and depth {depth} do not fit {x}"));
            }
            one(x.dtype(), [&indices.shape[..indices.rank() - 1], &x.shape[batch_dims + depth..]].concat())
        }
        O::ScatterElements { axis, .. } => {
            let (x, updates) = (tensor(operands, 0)?, tensor(operands, 2)?);
            check_axis(*axis, x.rank())?;
            shape::check_indices(tensor(operands, 1)?)?;
            if updates.dtype() != x.dtype() {
                return fail("scatter: updates have another element type");
            }
            Ok(vec![operands[0].clone()])
        }
        O::ScatterNd { .. } => {
            let (x, indices, updates) = (tensor(operands, 0)?, tensor(operands, 1)?, tensor(operands, 2)?);
            if shape::index_depth(indices)? > x.rank() || updates.dtype() != x.dtype() {
                return fail(format!("scatter_nd: indices {indices} and updates {updates} do not fit {x}"));
            }
            Ok(vec![operands[0].clone()])
        }
        O::Resize { shape, .. } => {
            let x = tensor(operands, 0)?;
            if shape.len() != x.rank() {
                return fail("resize: the target has another rank");
            }
            one(x.dtype(), shape.clone())
        }
        O::GridSample { .. } => {
            let (x, grid) = (tensor(operands, 0)?, tensor(operands, 1)?);
            if x.rank() < 3 || grid.rank() != x.rank() {
                return fail(format!("grid_sample: {x} and {grid} do not fit"));
            }
            one(x.dtype(), [&x.shape[..2], &grid.shape[1..grid.rank() - 1]].concat())
        }
        O::TopK { axis, k, .. } => {
            let x = tensor(operands, 0)?;
            check_axis(*axis, x.rank())?;
            let mut shape = x.shape.clone();
            shape[*axis] = k.clone();
            Ok(vec![Type::tensor(x.dtype(), shape.clone()), Type::tensor(DType::I64, shape)])
        }
        O::Host { types, .. } => {
            types.iter().map(|text| crate::parse::ty(text).map_err(InferError::new)).collect()
        }
        O::Random { dtype, shape, .. } => one(*dtype, shape.clone()),
        O::Quantize { dtype, axis, block, .. } => {
            let x = tensor(operands, 0)?;
            shape::check_quantization(matcher, x, tensor(operands, 1)?, tensor(operands, 2)?, *axis, *block)?;
            one(*dtype, x.shape.clone())
        }
        O::Dequantize { dtype, axis, block } => {
            let x = tensor(operands, 0)?;
            shape::check_quantization(matcher, x, tensor(operands, 1)?, tensor(operands, 2)?, *axis, *block)?;
            one(*dtype, x.shape.clone())
        }
        O::DecodeBlocks { format, dtype } => {
            let x = tensor(operands, 0)?;
            one(*dtype, blocks::decode_blocks(x, *format, *dtype)?)
        }
        O::QuantizeRows { group, sum, rows } => {
            blocks::quantize_rows(tensor(operands, 0)?, *group, *sum, *rows)
        }
        O::BlockContract { weights, rows, experts, epilogue: after } => {
            let places = BlockOperands::of(*weights, *rows, *experts);
            let shape = blocks::block_contract(matcher, operands, *weights, &places)?;
            one(epilogue(matcher, after, DType::F32, &operands[places.rest..], &shape)?, shape)
        }
        O::If {} | O::Loop { .. } | O::Call { .. } => {
            fail(format!("the result types of tir.{} do not follow from its operands", operator.name()))
        }
        O::KvState { shape, storage, .. } => cache::state(shape, storage),
        O::KvAppend { storage } => cache::append(matcher, operands, storage),
        O::KvAttend { page, k_storage, v_storage, .. } => {
            cache::attend(matcher, operands, *page, [k_storage, v_storage])
        }
    }
}

/// Number of gates of a recurrent cell.
pub fn gates(cell: CellKind) -> i64 {
    match cell {
        CellKind::Rnn => 1,
        CellKind::Gru => 3,
        CellKind::Lstm => 4,
    }
}

#[cfg(test)]
mod tests;
