//! Reading and writing at indices, one-hot encodings, selection of the largest, and what is not a loop nest for its
//! number of results.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::refusal::{Refusal, attribute, operands};
use super::super::scope::Binding;
use super::super::sizes::{self, SIZE};
use super::super::table::{Entry, between, custom, since};
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Function;
use tcc_ir::types::Type;
use tcc_ir::words::ScatterKind;

pub(super) static TABLE: &[Entry] = &[
    since(1, "Gather", gather),
    since(11, "GatherElements", gather_elements),
    since(11, "GatherND", gather_nd),
    between(9, 10, "Scatter", scatter_elements),
    since(11, "Scatter", scatter_elements),
    since(11, "ScatterElements", scatter_elements),
    since(11, "ScatterND", scatter_nd),
    since(9, "OneHot", one_hot),
    since(1, "TopK", top_k),
    since(9, "Compress", compress),
    since(9, "NonZero", non_zero),
    custom("ai.onnx.ml", "ArrayFeatureExtractor", array_feature_extractor),
];

fn indices(context: &mut Context<'_>, node: &Node) -> Result<(Value, Value), Refusal> {
    Ok((context.operand(node, 0, "data")?, context.operand(node, 1, "indices")?))
}

fn gather(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, at) = indices(context, node)?;
    let shape = context.shape(x)?;
    let axis = sizes::axis(node.int("axis")?.unwrap_or(0), shape.len())?;
    context.require_filled(&shape[axis], &Dim::product(&context.shape(at)?))?;
    let outside = |index: &i64, extent: i64| *index >= extent || *index < -extent;
    if let (Some(extent), Some(known)) = (shape[axis].as_const(), context.known(node, 1))
        && let Some(index) = known.integers().unwrap_or_default().iter().find(|index| outside(index, extent))
    {
        return Err(operands(format!("index {index} is outside of axis {axis}, which has extent {extent}")));
    }
    one(context.builder.op1(Operator::Gather { axis }, &[x, at])?)
}

fn gather_elements(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, at) = indices(context, node)?;
    let shape = context.shape(x)?;
    let axis = sizes::axis(node.int("axis")?.unwrap_or(0), shape.len())?;
    context.require_filled(&shape[axis], &Dim::product(&context.shape(at)?))?;
    one(context.builder.op1(Operator::GatherElements { axis }, &[x, at])?)
}

fn gather_nd(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, at) = indices(context, node)?;
    let batch_dims = node.int("batch_dims")?.unwrap_or(0);
    let batch_dims =
        usize::try_from(batch_dims).map_err(|_| attribute("batch_dims", format!("{batch_dims}")))?;
    let (shape, picks) = (context.shape(x)?, context.shape(at)?);
    if let (Some(length), Some(rows)) = (picks.last().and_then(Dim::as_const), picks.split_last())
        && let Some(addressed) =
            usize::try_from(length).ok().and_then(|length| shape.get(batch_dims..batch_dims + length))
    {
        let rows = Dim::product(rows.1);
        addressed.iter().try_for_each(|extent| context.require_filled(extent, &rows))?;
    }
    one(context.builder.op1(Operator::GatherNd { batch_dims }, &[x, at])?)
}

fn reduction(node: &Node) -> Result<ScatterKind, Refusal> {
    Ok(match node.string("reduction")?.unwrap_or("none") {
        "none" => ScatterKind::Replace,
        "add" => ScatterKind::Add,
        "mul" => ScatterKind::Mul,
        "max" => ScatterKind::Max,
        "min" => ScatterKind::Min,
        other => return Err(attribute("reduction", format!("'{other}'"))),
    })
}

fn scatter_elements(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, at) = indices(context, node)?;
    let updates = context.operand(node, 2, "updates")?;
    let axis = sizes::axis(node.int("axis")?.unwrap_or(0), context.shape(x)?.len())?;
    one(context.builder.op1(Operator::ScatterElements { axis, kind: reduction(node)? }, &[x, at, updates])?)
}

fn scatter_nd(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, at) = indices(context, node)?;
    let updates = context.operand(node, 2, "updates")?;
    one(context.builder.op1(Operator::ScatterNd { kind: reduction(node)? }, &[x, at, updates])?)
}

/// `values[1]` at the index along a new axis, `values[0]` elsewhere; indices from `-depth` on count from the end.
fn one_hot(context: &mut Context<'_>, node: &Node) -> Lowered {
    let at = context.operand(node, 0, "indices")?;
    let depth = context.sizes(node, 1, "depth", SIZE)?;
    let [depth] = &depth[..] else { return Err(operands("the depth is no scalar")) };
    let values = context.operand(node, 2, "values")?;
    let shape = context.shape(at)?;
    let axis = sizes::axis(node.int("axis")?.unwrap_or(-1), shape.len() + 1)?;
    let at = context.builder.cast(at, DType::I64)?;
    let mut expanded = shape;
    expanded.insert(axis, Dim::Const(1));
    let rank = expanded.len();
    let at = context.builder.reshape(at, expanded)?;
    let negative = context.map_constant(at, Function::Less, 0.0)?;
    let extent = context.size_scalar(depth.clone())?;
    let from_end = context.call(Function::Add, &[at, extent])?;
    let at = context.call(Function::Select, &[negative, from_end, at])?;
    let mut extents = vec![Dim::Const(1); rank];
    extents[axis] = depth.clone();
    let place = context.builder.op1(Operator::Iota { dtype: DType::I64, shape: extents, axis }, &[])?;
    let hit = context.call(Function::Equal, &[at, place])?;
    let mut scalars = Vec::new();
    for index in [1, 0] {
        let value = context.slice_axis(values, 0, Dim::Const(index), Dim::Const(1))?;
        scalars.push(context.builder.reshape(value, Vec::new())?);
    }
    one(context.call(Function::Select, &[hit, scalars[0], scalars[1]])?)
}

fn top_k(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let axis = sizes::axis(node.int("axis")?.unwrap_or(-1), context.shape(x)?.len())?;
    let k = match node.int("k")? {
        Some(k) if k >= 0 => Dim::Const(k),
        Some(k) => return Err(attribute("k", format!("{k}"))),
        None => match &context.sizes(node, 1, "k", SIZE)?[..] {
            [k] => k.clone(),
            _ => return Err(operands("k is no scalar")),
        },
    };
    let extent = context.shape(x)?[axis].clone();
    if let (Some(k), Some(extent)) = (k.as_const(), extent.as_const())
        && k > extent
    {
        return Err(operands(format!("{k} elements are asked for, but axis {axis} has {extent}")));
    }
    let largest = node.flag("largest", true)?;
    let results = context.builder.op(Operator::TopK { axis, k, largest }, &[x])?;
    Ok(results.into_iter().map(Binding::Value).collect())
}

impl Context<'_> {
    /// Coordinates of the non-zero elements, `[rank, count]`, in row-major order.
    pub(super) fn non_zero(&mut self, x: Value) -> Result<Value, Refusal> {
        let rank = self.shape(x)?.len();
        let count = Dim::symbol(&self.builder.fresh_symbol("nonzero", SIZE));
        let ty = Type::tensor(DType::I64, vec![Dim::from(rank), count]);
        Ok(self.host("NonZero", "{}", &[ty], &[x])?[0])
    }
}

fn non_zero(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    one(context.non_zero(x)?)
}

/// The entries along an axis (or of the flattened tensor) where the condition holds.
fn compress(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "input")?;
    let condition = context.operand(node, 1, "condition")?;
    let shape = context.shape(x)?;
    let (x, axis) = match node.int("axis")? {
        Some(axis) => (x, sizes::axis(axis, shape.len())?),
        None => (context.builder.reshape(x, vec![Dim::product(&shape)])?, 0),
    };
    let at = context.non_zero(condition)?;
    let count = context.shape(at)?[1].clone();
    let at = context.builder.reshape(at, vec![count])?;
    one(context.builder.op1(Operator::Gather { axis }, &[x, at])?)
}

fn array_feature_extractor(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, at) = indices(context, node)?;
    let (rank, count) = (context.shape(x)?.len(), Dim::product(&context.shape(at)?));
    if rank == 0 {
        return Err(operands("the input is a scalar"));
    }
    let at = context.builder.reshape(at, vec![count])?;
    let picked = context.builder.op1(Operator::Gather { axis: rank - 1 }, &[x, at])?;
    let shape = context.shape(picked)?;
    let shape = if rank == 1 { [vec![Dim::Const(1)], shape].concat() } else { shape };
    one(context.builder.reshape(picked, shape)?)
}
