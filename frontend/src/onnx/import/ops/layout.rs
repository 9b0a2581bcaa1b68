//! Operators that give the same elements another shape or order.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::known::Known;
use super::super::refusal::{Refusal, attribute, operands, unsupported};
use super::super::scope::Binding;
use super::super::sizes::{self, MOST_AXES, SIZE};
use super::super::table::{Entry, between, since};
use tcc_ir::dim::{Dim, Range};
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Function;
use tcc_ir::words::ReduceKind;

pub(super) static TABLE: &[Entry] = &[
    between(1, 4, "Reshape", reshape_by_attribute),
    since(5, "Reshape", reshape),
    since(1, "Transpose", transpose),
    since(1, "Flatten", flatten),
    since(1, "Squeeze", squeeze),
    since(1, "Unsqueeze", unsqueeze),
    since(8, "Expand", expand),
    since(4, "Concat", concat),
    since(1, "DepthToSpace", depth_to_space),
    since(1, "SpaceToDepth", space_to_depth),
];

/// Constant integers from an attribute (old versions) or an operand (new ones).
pub(super) fn list(
    context: &Context<'_>,
    node: &Node,
    name: &'static str,
    operand: usize,
) -> Result<Option<Vec<i64>>, Refusal> {
    match node.ints(name)? {
        Some(list) => Ok(Some(list.to_vec())),
        None => context.integers(node, operand, name),
    }
}

fn reshape_by_attribute(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "data")?;
    let target: Vec<Dim> =
        node.ints("shape")?.unwrap_or_default().iter().map(|&size| Dim::Const(size)).collect();
    reshape_to(context, x, target, false)
}

fn reshape(context: &mut Context<'_>, node: &Node) -> Lowered {
    let zero_is_zero = node.flag("allowzero", false)?;
    if let Some(target) = context.known(node, 1).and_then(|known| known.dims()) {
        let x = context.operand(node, 0, "data")?;
        return reshape_to(context, x, target, zero_is_zero);
    }
    let x = context.operand(node, 0, "data")?;
    let target = context.operand(node, 1, "shape")?;
    let resolved = resolve_target(context, x, target, zero_is_zero)?;
    let shape = context.bind(resolved, 1, "shape", SIZE)?;
    one(context.builder.reshape(x, shape)?)
}

fn reshape_to(context: &mut Context<'_>, x: Value, target: Vec<Dim>, zero_is_zero: bool) -> Lowered {
    let source = context.shape(x)?;
    let mut shape = target;
    for (axis, size) in shape.iter_mut().enumerate() {
        if size.is(0) && !zero_is_zero {
            *size = source.get(axis).cloned().ok_or_else(|| {
                operands(format!("shape copies dimension {axis} of a tensor of rank {}", source.len()))
            })?;
        }
    }
    let open: Vec<usize> = (0..shape.len()).filter(|&axis| shape[axis].is(-1)).collect();
    match open[..] {
        [] => {}
        [axis] => {
            shape[axis] = Dim::Const(1);
            let (count, rest) = (Dim::product(&source), Dim::product(&shape));
            shape[axis] = match count.exact_quotient(&rest) {
                Some(quotient) => quotient,
                None if rest.is(0) => Dim::Const(0),
                None => match (count.as_const(), rest.as_const()) {
                    (Some(count), Some(rest)) => {
                        return Err(operands(format!(
                            "{count} elements cannot be reshaped into rows of {rest}"
                        )));
                    }
                    _ => count.floor_div(&rest),
                },
            };
        }
        _ => return Err(operands("shape has more than one -1")),
    }
    one(context.builder.reshape(x, shape)?)
}

/// A run-time target with its zeros and its -1 replaced by sizes.
fn resolve_target(
    context: &mut Context<'_>,
    x: Value,
    target: Value,
    zero_is_zero: bool,
) -> Result<Value, Refusal> {
    let source = context.shape(x)?;
    let extents = context.shape(target)?;
    let [length] = &extents[..] else { return Err(operands("shape is no vector")) };
    let length = length.as_const().ok_or(Refusal::RunTime { operand: 1, name: "shape" })?;
    let length = usize::try_from(length).ok().filter(|&length| length <= MOST_AXES);
    let length = length.ok_or_else(|| operands("shape has too many entries"))?;
    let mut sizes = context.builder.cast(target, DType::I64)?;
    if !zero_is_zero {
        let copied = (0..length).map(|axis| source.get(axis).cloned().unwrap_or(Dim::Const(0))).collect();
        let copied = context.materialize(&Binding::Known(Known::sizes(copied)))?;
        let zero = context.map_constant(sizes, Function::Equal, 0.0)?;
        sizes = context.call(Function::Select, &[zero, copied, sizes])?;
    }
    let count = context.materialize(&Binding::Known(Known::size(Dim::product(&source))))?;
    let open = context.map_constant(sizes, Function::Equal, -1.0)?;
    let one = context.integer(1)?;
    let rest = context.call(Function::Select, &[open, one, sizes])?;
    let rest = context.builder.reduce(ReduceKind::Prod, rest, vec![0], false)?;
    let filled = context.call(Function::Div, &[count, rest])?;
    context.call(Function::Select, &[open, filled, sizes])
}

fn transpose(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "data")?;
    let rank = context.shape(x)?.len();
    let perm = match node.ints("perm")? {
        Some(perm) => sizes::axes(perm, rank)?,
        None => (0..rank).rev().collect(),
    };
    one(context.builder.transpose(x, perm)?)
}

fn flatten(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "input")?;
    let shape = context.shape(x)?;
    let axis = node.int("axis")?.unwrap_or(1);
    // The axis may equal the rank, so that everything is in the first dimension.
    let axis = if axis == shape.len() as i64 { shape.len() } else { sizes::axis(axis, shape.len())? };
    let flat = vec![Dim::product(&shape[..axis]), Dim::product(&shape[axis..])];
    one(context.builder.reshape(x, flat)?)
}

fn squeeze(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "data")?;
    let shape = context.shape(x)?;
    let axes = match list(context, node, "axes", 1)? {
        Some(axes) => sizes::axes(&axes, shape.len())?,
        None => (0..shape.len()).filter(|&axis| shape[axis].is(1)).collect(),
    };
    for &axis in &axes {
        match shape[axis].as_const() {
            Some(1) => {}
            Some(size) => {
                return Err(operands(format!("dimension {axis} is {size}, only 1 can be squeezed")));
            }
            None => context.require_equal(shape[axis].clone(), Dim::Const(1), "a squeezed extent")?,
        }
    }
    let rest = shape.into_iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, size)| size);
    let rest = rest.collect();
    one(context.builder.reshape(x, rest)?)
}

fn unsqueeze(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "data")?;
    let mut shape = context.shape(x)?;
    let axes = list(context, node, "axes", 1)?.ok_or_else(|| operands("axes are missing"))?;
    let mut axes = sizes::axes(&axes, shape.len() + axes.len())?;
    axes.sort_unstable();
    for axis in axes {
        shape.insert(axis, Dim::Const(1));
    }
    one(context.builder.reshape(x, shape)?)
}

/// Broadcast in both directions: a target of 1 keeps the operand's extent.
fn expand(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "input")?;
    let target = context.sizes(node, 1, "shape", SIZE)?;
    let source = context.shape(x)?;
    let rank = source.len().max(target.len());
    let aligned = |dims: &[Dim], axis: usize| {
        (axis + dims.len()).checked_sub(rank).map_or(Dim::Const(1), |index| dims[index].clone())
    };
    let mut shape = Vec::with_capacity(rank);
    for axis in 0..rank {
        let (have, want) = (aligned(&source, axis), aligned(&target, axis));
        shape.push(if have.is(1) {
            want
        } else if want.is(1) || have == want {
            have
        } else if want.as_const().is_none() && have.as_const().is_some() {
            // A run-time target of 1 or of the extent itself leaves the extent.
            have
        } else if have.as_const().is_some() {
            return Err(operands(format!("an extent of {have} cannot be expanded to {want}")));
        } else {
            context.require_equal(have.clone(), want, "element counts")?;
            have
        });
    }
    one(context.builder.broadcast(x, shape)?)
}

fn concat(context: &mut Context<'_>, node: &Node) -> Lowered {
    let values = context.operands(node)?;
    let Some(&first) = values.first() else { return Err(operands("at least one operand is needed")) };
    let axis = node.int("axis")?.ok_or_else(|| attribute("axis", "missing"))?;
    let axis = sizes::axis(axis, context.shape(first)?.len())?;
    if values.len() == 1 {
        return one(first);
    }
    one(context.builder.op1(Operator::Concat { axis }, &values)?)
}

/// Block size, and the four dimensions of the operand.
fn blocks(context: &mut Context<'_>, node: &Node) -> Result<(Value, Dim, [Dim; 4]), Refusal> {
    let x = context.operand(node, 0, "input")?;
    let block = node.int("blocksize")?.filter(|&block| block > 0);
    let block = block.ok_or_else(|| attribute("blocksize", "missing or not positive"))?;
    let shape = context.shape(x)?;
    let dims =
        <[Dim; 4]>::try_from(shape).map_err(|shape| operands(format!("rank {}, expected 4", shape.len())))?;
    Ok((x, Dim::Const(block), dims))
}

fn divided(dim: &Dim, by: &Dim, what: &str) -> Result<Dim, Refusal> {
    match dim.exact_quotient(by) {
        Some(quotient) => Ok(quotient),
        None if dim.as_const().is_some() => Err(operands(format!("{what} {dim} is no multiple of {by}"))),
        None => Ok(dim.floor_div(by)),
    }
}

fn depth_to_space(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, b, [n, c, h, w]) = blocks(context, node)?;
    let inner = divided(&c, &(b.clone() * b.clone()), "the channel count")?;
    let (split, perm) = match node.string("mode")?.unwrap_or("DCR") {
        "DCR" => ([n.clone(), b.clone(), b.clone(), inner.clone(), h.clone(), w.clone()], [0, 3, 4, 1, 5, 2]),
        "CRD" => ([n.clone(), inner.clone(), b.clone(), b.clone(), h.clone(), w.clone()], [0, 1, 4, 2, 5, 3]),
        other => return Err(attribute("mode", format!("'{other}', expected DCR or CRD"))),
    };
    let x = context.builder.reshape(x, split.to_vec())?;
    let x = context.builder.transpose(x, perm.to_vec())?;
    one(context.builder.reshape(x, vec![n, inner, h * b.clone(), w * b])?)
}

fn space_to_depth(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, b, [n, c, h, w]) = blocks(context, node)?;
    let (rows, columns) = (divided(&h, &b, "the height")?, divided(&w, &b, "the width")?);
    let split = vec![n.clone(), c.clone(), rows.clone(), b.clone(), columns.clone(), b.clone()];
    let x = context.builder.reshape(x, split)?;
    let perm = match node.string("mode")?.unwrap_or("DCR") {
        "DCR" => vec![0, 3, 5, 1, 2, 4],
        "CRD" => vec![0, 1, 3, 5, 2, 4],
        other => return Err(attribute("mode", format!("'{other}', expected DCR or CRD"))),
    };
    let x = context.builder.transpose(x, perm)?;
    one(context.builder.reshape(x, vec![n, c * b.clone() * b, rows, columns])?)
}

impl Context<'_> {
    /// An `i64` scalar.
    pub(crate) fn integer(&mut self, value: i64) -> Result<Value, Refusal> {
        Ok(self.builder.scalar(tcc_ir::scalar::Scalar::integer(DType::I64, value))?)
    }

    /// A function of a value and a constant of its type.
    pub(crate) fn map_constant(
        &mut self,
        x: Value,
        function: Function,
        constant: f64,
    ) -> Result<Value, Refusal> {
        Ok(self.builder.call_with(function, x, constant)?)
    }

    /// A vector of sizes as an `i64` tensor.
    pub(crate) fn size_vector(&mut self, dims: Vec<Dim>) -> Result<Value, Refusal> {
        self.materialize(&Binding::Known(Known::sizes(dims)))
    }

    /// A size as an `i64` scalar.
    pub(crate) fn size_scalar(&mut self, dim: Dim) -> Result<Value, Refusal> {
        self.materialize(&Binding::Known(Known::size(dim)))
    }
}

/// A constant count from the file, in the range that lists of it stay sensible.
pub(super) fn constant_size(dim: &Dim, what: &str) -> Result<usize, Refusal> {
    match dim.as_const() {
        Some(size) => usize::try_from(size).map_err(|_| operands(format!("{what} is {size}"))),
        None => Err(unsupported(format!("{what} is not known at compile time"))),
    }
}

/// Any signed value.
pub(super) const SIGNED: Range = Range { low: i64::MIN, high: i64::MAX };
