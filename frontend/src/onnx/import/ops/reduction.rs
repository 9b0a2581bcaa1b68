//! Reductions, positions of extremes and running sums.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::refusal::{Refusal, operands};
use super::super::sizes;
use super::super::table::{Entry, between, since};
use super::layout::list;
use super::scalar::{Body, compute_type};
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Function, ScalarExpr};
use tcc_ir::words::ReduceKind;

macro_rules! reduction {
    ($kind:ident) => {
        |context, node| {
            reduce_with(context, node, |context, x, axes, keep| {
                context.reduce_wide(ReduceKind::$kind, x, axes, keep)
            })
        }
    };
}

pub(super) static TABLE: &[Entry] = &[
    since(1, "ReduceSum", reduction!(Sum)),
    since(1, "ReduceProd", reduction!(Prod)),
    since(1, "ReduceMax", reduction!(Max)),
    since(1, "ReduceMin", reduction!(Min)),
    since(1, "ReduceMean", |context, node| {
        reduce_with(context, node, |c, x, axes, keep| c.mean(x, axes, keep))
    }),
    since(1, "ReduceL1", |context, node| {
        reduce_with(context, node, |c, x, axes, keep| c.norm(x, axes, keep, 1))
    }),
    since(1, "ReduceL2", |context, node| {
        reduce_with(context, node, |c, x, axes, keep| c.norm(x, axes, keep, 2))
    }),
    since(1, "ReduceSumSquare", |context, node| reduce_with(context, node, sum_of_squares)),
    since(1, "ReduceLogSum", |context, node| reduce_with(context, node, logarithm_of_sum)),
    since(1, "ReduceLogSumExp", |context, node| reduce_with(context, node, logarithm_of_exponentials)),
    since(1, "ArgMax", |context, node| arg_reduce(context, node, ReduceKind::Max)),
    since(1, "ArgMin", |context, node| arg_reduce(context, node, ReduceKind::Min)),
    between(11, i64::MAX, "CumSum", |context, node| running(context, node, ReduceKind::Sum)),
    since(26, "CumProd", |context, node| running(context, node, ReduceKind::Prod)),
    since(1, "GlobalAveragePool", |context, node| {
        global_pool(context, node, |c, x, axes| c.mean(x, axes, true))
    }),
    since(1, "GlobalMaxPool", |context, node| {
        global_pool(context, node, |c, x, axes| c.reduce_wide(ReduceKind::Max, x, axes, true))
    }),
    since(2, "GlobalLpPool", global_lp_pool),
];

/// Axes of a reduction: from the attribute (old versions) or the second operand; none given means all, or none where
/// `noop_with_empty_axes` says so.
fn reduce_with(
    context: &mut Context<'_>,
    node: &Node,
    reduce: impl FnOnce(&mut Context<'_>, Value, Vec<usize>, bool) -> Result<Value, Refusal>,
) -> Lowered {
    let x = context.operand(node, 0, "data")?;
    let rank = context.shape(x)?.len();
    let given = match empty_vector(context, node) {
        true => None,
        false => list(context, node, "axes", 1)?.filter(|axes| !axes.is_empty()),
    };
    let axes = match given {
        Some(axes) => sizes::axes(&axes, rank)?,
        None if node.flag("noop_with_empty_axes", false)? => Vec::new(),
        None => (0..rank).collect(),
    };
    let keep = node.flag("keepdims", true)?;
    one(reduce(context, x, axes, keep)?)
}

/// A second operand that holds no axes, whatever its values are.
fn empty_vector(context: &Context<'_>, node: &Node) -> bool {
    let shape = node.input(1).and_then(|name| context.shape_of(name));
    shape.is_some_and(|shape| shape.iter().any(|dim| dim.is(0)))
}

fn sum_of_squares(
    context: &mut Context<'_>,
    x: Value,
    axes: Vec<usize>,
    keep: bool,
) -> Result<Value, Refusal> {
    let dtype = context.dtype(x)?;
    let mut body = Body::new(1, dtype);
    let value = body.operand(0);
    let square = body.call(Function::Mul, &[value, value]);
    let prologue = body.finish_as_is(square);
    let epilogue = narrowing(dtype);
    Ok(context
        .builder
        .op1(Operator::Reduce { kind: ReduceKind::Sum, axes, keep, prologue, epilogue }, &[x])?)
}

fn logarithm_of_sum(
    context: &mut Context<'_>,
    x: Value,
    axes: Vec<usize>,
    keep: bool,
) -> Result<Value, Refusal> {
    let sum = context.reduce_wide(ReduceKind::Sum, x, axes, keep)?;
    in_float(context, sum, |context, sum| context.call(Function::Log, &[sum]))
}

/// Applies a floating-point function to a tensor of any numeric type, by way of `f64` for integers.
fn in_float(
    context: &mut Context<'_>,
    x: Value,
    f: impl FnOnce(&mut Context<'_>, Value) -> Result<Value, Refusal>,
) -> Result<Value, Refusal> {
    let dtype = context.dtype(x)?;
    if dtype.is_float() {
        return f(context, x);
    }
    let wide = context.builder.cast(x, DType::F64)?;
    let result = f(context, wide)?;
    Ok(context.builder.cast(result, dtype)?)
}

/// `m + log(sum(exp(x - m)))` with the maximum `m`, or 0 where that is infinite.
fn logarithm_of_exponentials(
    context: &mut Context<'_>,
    x: Value,
    axes: Vec<usize>,
    keep: bool,
) -> Result<Value, Refusal> {
    in_float(context, x, |context, x| {
        let dtype = context.dtype(x)?;
        let most = context.builder.reduce(ReduceKind::Max, x, axes.clone(), true)?;
        let most = context.map1(most, |body, most| {
            let infinite = body.call(Function::IsInf, &[most]);
            let zero = body.constant(0.0);
            body.select(infinite, zero, most)
        })?;
        let mut body = Body::new(2, dtype);
        let (value, center) = (body.operand(0), body.operand(1));
        let difference = body.call(Function::Sub, &[value, center]);
        let term = body.call(Function::Exp, &[difference]);
        let terms = context.builder.map(body.finish(term), &[x, most])?;
        let sum = context.reduce_wide(ReduceKind::Sum, terms, axes, keep)?;
        let shape = context.shape(sum)?;
        let most = context.builder.reshape(most, shape)?;
        let mut body = Body::new(2, dtype);
        let (sum_of, center) = (body.operand(0), body.operand(1));
        let log = body.call(Function::Log, &[sum_of]);
        let result = body.call(Function::Add, &[log, center]);
        Ok(context.builder.map(body.finish(result), &[sum, most])?)
    })
}

fn arg_reduce(context: &mut Context<'_>, node: &Node, kind: ReduceKind) -> Lowered {
    let x = context.operand(node, 0, "data")?;
    let axis = sizes::axis(node.int("axis")?.unwrap_or(0), context.shape(x)?.len())?;
    let (keep, last) = (node.flag("keepdims", true)?, node.flag("select_last_index", false)?);
    one(context.builder.op1(Operator::ArgReduce { kind, axis, keep, last }, &[x])?)
}

fn running(context: &mut Context<'_>, node: &Node, kind: ReduceKind) -> Lowered {
    let x = context.operand(node, 0, "x")?;
    let axis = context.integers(node, 1, "axis")?.ok_or_else(|| operands("the axis is missing"))?;
    let [axis] = axis[..] else { return Err(operands("the axis is no scalar")) };
    let axis = sizes::axis(axis, context.shape(x)?.len())?;
    let (exclusive, reverse) = (node.flag("exclusive", false)?, node.flag("reverse", false)?);
    one(context.builder.op1(Operator::Scan { kind, axis, exclusive, reverse }, &[x])?)
}

fn global_pool(
    context: &mut Context<'_>,
    node: &Node,
    reduce: impl FnOnce(&mut Context<'_>, Value, Vec<usize>) -> Result<Value, Refusal>,
) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let rank = context.shape(x)?.len();
    if rank < 3 {
        return Err(operands(format!("the input has rank {rank}, expected at least 3")));
    }
    one(reduce(context, x, (2..rank).collect())?)
}

fn global_lp_pool(context: &mut Context<'_>, node: &Node) -> Lowered {
    let p = node.int("p")?.unwrap_or(2);
    global_pool(context, node, |context, x, axes| {
        context.power_norm(x, p, |context, powers| context.reduce_wide(ReduceKind::Sum, powers, axes, true))
    })
}

/// The epilogue that rounds a wide sum to its element type.
fn narrowing(dtype: DType) -> ScalarExpr {
    if compute_type(dtype) == dtype { ScalarExpr::identity() } else { ScalarExpr::cast(dtype) }
}

impl Context<'_> {
    /// A reduction in the type that the operand is computed in; truth values are reduced as numbers.
    pub(super) fn reduce_wide(
        &mut self,
        kind: ReduceKind,
        x: Value,
        axes: Vec<usize>,
        keep: bool,
    ) -> Result<Value, Refusal> {
        let dtype = self.dtype(x)?;
        if dtype == DType::Bool {
            let number = self.builder.cast(x, DType::U8)?;
            let reduced = self.builder.reduce(kind, number, axes, keep)?;
            return Ok(self.builder.cast(reduced, DType::Bool)?);
        }
        let compute = compute_type(dtype);
        let prologue = if compute == dtype { ScalarExpr::identity() } else { ScalarExpr::cast(compute) };
        let epilogue = narrowing(dtype);
        Ok(self.builder.op1(Operator::Reduce { kind, axes, keep, prologue, epilogue }, &[x])?)
    }

    /// `(sum of |x|^p)^(1/p)` where `sum` adds up the powers.
    pub(super) fn power_norm(
        &mut self,
        x: Value,
        p: i64,
        sum: impl FnOnce(&mut Self, Value) -> Result<Value, Refusal>,
    ) -> Result<Value, Refusal> {
        let p = p as f64;
        let powers = self.map1(x, |body, x| {
            let magnitude = body.call(Function::Abs, &[x]);
            body.with(Function::Pow, magnitude, p)
        })?;
        let total = sum(self, powers)?;
        self.map1(total, |body, total| body.with(Function::Pow, total, 1.0 / p))
    }
}
