//! Sequences and optional values, which live on the host.
//!
//! A sequence type holds one element type. Elements may differ in extents, so an extent that is not the same constant
//! for all of them is a symbol that says nothing about a single element; what is taken out gets symbols of its own.

use super::super::super::graph::{Attribute, Node};
use super::super::context::{Context, Lowered, one};
use super::super::dtype_of_number;
use super::super::known::{Element, Known};
use super::super::refusal::{Refusal, operands, unsupported};
use super::super::scope::Binding;
use super::super::sizes;
use super::super::table::{Entry, since};
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::types::{TensorType, Type};

pub(super) static TABLE: &[Entry] = &[
    since(11, "SequenceConstruct", construct),
    since(11, "SequenceEmpty", empty),
    since(11, "SequenceInsert", insert),
    since(11, "SequenceErase", |context, node| {
        let ty = sequence_type(context, node, 0)?;
        context.host_operator(node, &[Type::Sequence(Box::new(ty))])
    }),
    since(11, "SequenceAt", |context, node| {
        let ty = sequence_type(context, node, 0)?;
        let ty = context.element_of(&ty);
        context.host_operator(node, &[ty])
    }),
    since(11, "SequenceLength", |context, node| {
        context.host_operator(node, &[Type::tensor(DType::I64, vec![])])
    }),
    since(11, "ConcatFromSequence", concatenate),
    since(11, "SplitToSequence", split),
    since(15, "Optional", optional),
    since(15, "OptionalHasElement", has_element),
    since(15, "OptionalGetElement", |context, node| {
        let value = context.operand(node, 0, "input")?;
        match context.builder.type_of(value).clone() {
            Type::Optional(inner) => {
                let ty = context.element_of(&inner);
                context.host_operator(node, &[ty])
            }
            // From version 18 on a value that cannot be absent is its own element.
            _ => one(value),
        }
    }),
];

/// The element type of a sequence operand.
fn sequence_type(context: &mut Context<'_>, node: &Node, index: usize) -> Result<Type, Refusal> {
    let value = context.operand(node, index, "input_sequence")?;
    match context.builder.type_of(value) {
        Type::Sequence(element) => Ok((**element).clone()),
        other => Err(operands(format!("operand {index} is {other}, expected a sequence"))),
    }
}

impl Context<'_> {
    /// The type of one element: its symbolic extents are symbols of its own.
    pub(super) fn element_of(&mut self, ty: &Type) -> Type {
        match ty {
            Type::Tensor(tensor) => {
                let mut own = tensor.clone();
                for extent in &mut own.shape {
                    if extent.as_const().is_none() {
                        *extent = self.open_extent("element");
                    }
                }
                Type::Tensor(own)
            }
            other => other.clone(),
        }
    }

    /// The type of elements that may be of either type.
    fn common_element(&mut self, a: &Type, b: &Type) -> Result<Type, Refusal> {
        match (a, b) {
            (Type::Tensor(a), Type::Tensor(b)) if a.element == b.element && a.rank() == b.rank() => {
                let mut common = a.clone();
                for (extent, other) in common.shape.iter_mut().zip(&b.shape) {
                    if extent != other {
                        *extent = self.open_extent("element");
                    }
                }
                Ok(Type::Tensor(common))
            }
            _ if a == b => Ok(a.clone()),
            _ => Err(unsupported(format!("a sequence of {a} and {b}"))),
        }
    }
}

fn construct(context: &mut Context<'_>, node: &Node) -> Lowered {
    let values = context.operands(node)?;
    let mut types =
        values.iter().map(|&value| context.builder.type_of(value).clone()).collect::<Vec<_>>().into_iter();
    let mut element = types.next().ok_or_else(|| operands("a sequence of nothing"))?;
    for ty in types {
        element = context.common_element(&element, &ty)?;
    }
    context.host_operator(node, &[Type::Sequence(Box::new(element))])
}

/// An empty sequence; the rank of what will be put in is not stated anywhere, so a scalar stands for it until then.
fn empty(context: &mut Context<'_>, node: &Node) -> Lowered {
    let dtype = dtype_of_number("dtype", node.int("dtype")?.unwrap_or(1))?;
    context.host_operator(node, &[Type::Sequence(Box::new(Type::tensor(dtype, vec![])))])
}

fn insert(context: &mut Context<'_>, node: &Node) -> Lowered {
    let element = sequence_type(context, node, 0)?;
    let value = context.operand(node, 1, "tensor")?;
    let ty = context.builder.type_of(value).clone();
    let element = match (&element, &ty) {
        (Type::Tensor(TensorType { shape, element: old }), Type::Tensor(new))
            if shape.is_empty() && *old == new.element =>
        {
            ty
        }
        _ => context.common_element(&element, &ty)?,
    };
    context.host_operator(node, &[Type::Sequence(Box::new(element))])
}

fn concatenate(context: &mut Context<'_>, node: &Node) -> Lowered {
    let Type::Tensor(mut ty) = sequence_type(context, node, 0)? else {
        return Err(operands("a sequence of tensors is needed"));
    };
    let axis = node.int("axis")?.ok_or_else(|| super::super::refusal::attribute("axis", "missing"))?;
    let joined = context.open_extent("joined");
    for extent in &mut ty.shape {
        if extent.as_const().is_none() {
            *extent = context.open_extent("element");
        }
    }
    if node.flag("new_axis", false)? {
        let axis = sizes::axis(axis, ty.rank() + 1)?;
        ty.shape.insert(axis, joined);
    } else {
        let axis = sizes::axis(axis, ty.rank())?;
        ty.shape[axis] = joined;
    }
    context.host_operator(node, &[Type::Tensor(ty)])
}

fn split(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "input")?;
    let (mut shape, dtype) = (context.shape(x)?, context.dtype(x)?);
    let axis = sizes::axis(node.int("axis")?.unwrap_or(0), shape.len())?;
    if node.input(1).is_none() {
        // Without lengths each element is one slice, whose axis `keepdims` keeps.
        if node.flag("keepdims", true)? {
            shape[axis] = Dim::Const(1);
        } else {
            shape.remove(axis);
        }
    } else {
        shape[axis] = context.open_extent("element");
    }
    context.host_operator(node, &[Type::Sequence(Box::new(Type::tensor(dtype, shape)))])
}

fn optional(context: &mut Context<'_>, node: &Node) -> Lowered {
    let inner = match context.optional(node, 0)? {
        Some(value) => context.builder.type_of(value).clone(),
        None => match node.attributes.get("type") {
            Some(Attribute::Type(declared)) => {
                context.declared_type("optional", declared).map_err(unsupported)?
            }
            _ => return Err(operands("an absent value without a type")),
        },
    };
    context.host_operator(node, &[Type::Optional(Box::new(inner))])
}

/// Known for operands that cannot be absent and for one that is left out.
fn has_element(context: &mut Context<'_>, node: &Node) -> Lowered {
    let there = match context.optional(node, 0)? {
        None => false,
        Some(value) => match context.builder.type_of(value) {
            Type::Optional(_) => return context.host_operator(node, &[Type::tensor(DType::Bool, vec![])]),
            _ => true,
        },
    };
    let element = Element::Dim(Dim::Const(i64::from(there)));
    Ok(vec![Binding::Known(Known { dtype: DType::Bool, shape: Vec::new(), elements: vec![element] })])
}
