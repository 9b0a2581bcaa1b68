//! Elementwise arithmetic, comparison and logic with NumPy broadcasting.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::dtype_of_number;
use super::super::refusal::{Refusal, attribute, operands, unsupported};
use super::super::sizes;
use super::super::table::{Entry, between, custom, since};
use super::scalar::Body;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::scalar::{Arg, Function, ScalarExpr, ScalarOp};

macro_rules! unary {
    ($function:ident) => {
        |context, node| unary(context, node, Function::$function)
    };
}

macro_rules! binary {
    ($function:ident) => {
        |context, node| binary(context, node, Function::$function)
    };
}

macro_rules! variadic {
    ($function:ident) => {
        |context, node| variadic(context, node, Function::$function, false)
    };
}

pub(super) static TABLE: &[Entry] = &[
    since(6, "Abs", unary!(Abs)),
    since(6, "Neg", unary!(Neg)),
    since(9, "Sign", unary!(Sign)),
    since(6, "Floor", unary!(Floor)),
    since(6, "Ceil", unary!(Ceil)),
    since(11, "Round", unary!(Round)),
    since(6, "Sqrt", unary!(Sqrt)),
    since(6, "Reciprocal", unary!(Reciprocal)),
    since(6, "Exp", unary!(Exp)),
    since(6, "Log", unary!(Log)),
    since(7, "Sin", unary!(Sin)),
    since(7, "Cos", unary!(Cos)),
    since(7, "Tan", unary!(Tan)),
    since(7, "Asin", unary!(Asin)),
    since(7, "Acos", unary!(Acos)),
    since(7, "Atan", unary!(Atan)),
    since(9, "Sinh", unary!(Sinh)),
    since(9, "Cosh", unary!(Cosh)),
    since(9, "Asinh", unary!(Asinh)),
    since(9, "Acosh", unary!(Acosh)),
    since(9, "Atanh", unary!(Atanh)),
    since(9, "Erf", unary!(Erf)),
    since(9, "IsNaN", unary!(IsNan)),
    since(10, "IsInf", is_infinite),
    since(1, "Not", unary!(Not)),
    since(18, "BitwiseNot", unary!(BitNot)),
    since(1, "Add", binary!(Add)),
    since(1, "Sub", binary!(Sub)),
    since(1, "Mul", binary!(Mul)),
    since(1, "Div", binary!(Div)),
    between(1, 6, "Pow", binary!(Pow)),
    since(7, "Pow", power),
    since(10, "Mod", modulo),
    since(1, "And", binary!(And)),
    since(1, "Or", binary!(Or)),
    since(1, "Xor", binary!(Xor)),
    since(18, "BitwiseAnd", binary!(BitAnd)),
    since(18, "BitwiseOr", binary!(BitOr)),
    since(18, "BitwiseXor", binary!(BitXor)),
    since(11, "BitShift", shift),
    since(1, "Equal", equal),
    since(1, "Less", binary!(Less)),
    since(1, "Greater", |context, node| swapped(context, node, Function::Less)),
    since(12, "LessOrEqual", binary!(LessEqual)),
    since(12, "GreaterOrEqual", |context, node| swapped(context, node, Function::LessEqual)),
    since(6, "Min", variadic!(Min)),
    since(6, "Max", variadic!(Max)),
    since(6, "Sum", variadic!(Add)),
    since(6, "Mean", |context, node| variadic(context, node, Function::Add, true)),
    since(9, "Where", choose),
    since(6, "Cast", cast),
    since(15, "CastLike", cast_like),
    since(26, "BitCast", bit_cast),
    custom("ai.onnx.ml", "Binarizer", binarize),
    since(1, "Identity", |context, node| one(context.operand(node, 0, "input")?)),
];

fn unary(context: &mut Context<'_>, node: &Node, function: Function) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    one(context.call(function, &[x])?)
}

/// The two operands of a binary operator. Before version 7 the second one was aligned at `axis` of the first, and only
/// where `broadcast` asked for it; it then gets trailing axes of extent 1, which is NumPy's way to say the same.
fn pair(context: &mut Context<'_>, node: &Node) -> Result<(Value, Value), Refusal> {
    let (a, b) = (context.operand(node, 0, "A")?, context.operand(node, 1, "B")?);
    let axis = node.int("axis")?;
    let (true, Some(axis)) = (node.id.opset < 7 && node.flag("broadcast", false)?, axis) else {
        return Ok((a, b));
    };
    let (rank, mut shape) = (context.shape(a)?.len(), context.shape(b)?);
    let end = sizes::axis(axis, rank)? + shape.len();
    if end > rank {
        return Err(operands(format!("the second operand does not fit at axis {axis}")));
    }
    shape.resize(shape.len() + rank - end, Dim::Const(1));
    Ok((a, context.builder.reshape(b, shape)?))
}

fn binary(context: &mut Context<'_>, node: &Node, function: Function) -> Lowered {
    let (a, b) = pair(context, node)?;
    one(context.call(function, &[a, b])?)
}

/// `a > b` is `b < a`.
fn swapped(context: &mut Context<'_>, node: &Node, function: Function) -> Lowered {
    let (a, b) = pair(context, node)?;
    one(context.call(function, &[b, a])?)
}

/// Equality; where it compares two sizes the context remembers which.
fn equal(context: &mut Context<'_>, node: &Node) -> Lowered {
    let size = |context: &Context<'_>, index| context.known(node, index).and_then(|known| known.dims());
    let sizes = size(context, 0).zip(size(context, 1));
    let (a, b) = pair(context, node)?;
    if context.dtype(a)? == DType::String {
        return one(context.equal_texts(a, b)?);
    }
    let result = context.call(Function::Equal, &[a, b])?;
    if let Some((a, b)) = sizes
        && let ([a], [b]) = (&a[..], &b[..])
    {
        context.conditions.insert(result, (a.clone(), b.clone()));
    }
    one(result)
}

fn variadic(context: &mut Context<'_>, node: &Node, function: Function, mean: bool) -> Lowered {
    let values = context.operands(node)?;
    let Some(&first) = values.first() else { return Err(operands("at least one operand is needed")) };
    if values.len() == 1 {
        return one(first);
    }
    let mut body = Body::new(values.len(), context.dtype(first)?);
    let mut total = body.operand(0);
    for index in 1..values.len() {
        let next = body.operand(index);
        total = body.call(function, &[total, next]);
    }
    if mean {
        total = body.with(Function::Div, total, values.len() as f64);
    }
    one(context.builder.map(body.finish(total), &values)?)
}

/// The exponent may have another type; the result has the base's, computed in the wider kind of arithmetic.
fn power(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (base, exponent) = (context.operand(node, 0, "X")?, context.operand(node, 1, "Y")?);
    let (base_type, exponent_type) = (context.dtype(base)?, context.dtype(exponent)?);
    let compute = if base_type == exponent_type {
        base_type
    } else if base_type.is_float() {
        super::scalar::compute_type(base_type)
    } else if exponent_type.is_float() {
        DType::F64
    } else {
        base_type
    };
    if compute == base_type && compute == exponent_type {
        return one(context.call(Function::Pow, &[base, exponent])?);
    }
    let mut body = ScalarExpr::with_inputs(2);
    let args = [(Arg::Input(0), base_type), (Arg::Input(1), exponent_type)]
        .map(|(arg, from)| if from == compute { arg } else { body.push(ScalarOp::Cast(compute), &[arg]) });
    let result = body.apply(Function::Pow, &args);
    body.result = if compute == base_type { result } else { body.push(ScalarOp::Cast(base_type), &[result]) };
    one(context.builder.map(body, &[base, exponent])?)
}

fn modulo(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (a, b) = pair(context, node)?;
    let as_c = node.flag("fmod", false)?;
    if !as_c && node.id.opset < 28 && context.dtype(a)?.is_float() {
        return Err(attribute("fmod", "0, which is defined for integers only"));
    }
    one(context.call(if as_c { Function::Rem } else { Function::Mod }, &[a, b])?)
}

fn shift(context: &mut Context<'_>, node: &Node) -> Lowered {
    let function = match node.string("direction")? {
        Some("LEFT") => Function::ShiftLeft,
        Some("RIGHT") => Function::ShiftRight,
        other => return Err(attribute("direction", format!("{other:?}, expected LEFT or RIGHT"))),
    };
    binary(context, node, function)
}

fn is_infinite(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let (negative, positive) = (node.flag("detect_negative", true)?, node.flag("detect_positive", true)?);
    let mut body = Body::new(1, context.dtype(x)?);
    let operand = body.operand(0);
    let infinite = body.call(Function::IsInf, &[operand]);
    let zero = body.constant(0.0);
    let sign = match (negative, positive) {
        (true, true) => None,
        (true, false) => Some(body.call(Function::Less, &[operand, zero])),
        (false, true) => Some(body.call(Function::Less, &[zero, operand])),
        (false, false) => Some(body.call(Function::Less, &[operand, operand])),
    };
    let result = sign.map_or(infinite, |sign| body.call(Function::And, &[infinite, sign]));
    one(context.builder.map(body.finish_as_is(result), &[x])?)
}

fn choose(context: &mut Context<'_>, node: &Node) -> Lowered {
    let condition = context.operand(node, 0, "condition")?;
    let (yes, no) = (context.operand(node, 1, "X")?, context.operand(node, 2, "Y")?);
    one(context.call(Function::Select, &[condition, yes, no])?)
}

fn cast(context: &mut Context<'_>, node: &Node) -> Lowered {
    let to = node
        .int("to")?
        .ok_or_else(|| super::super::super::error::NodeError::MissingAttribute("to".into()))?;
    let x = context.operand(node, 0, "input")?;
    convert(context, node, x, dtype_of_number("to", to)?)
}

fn cast_like(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "input")?;
    let like = context.operand(node, 1, "target_type")?;
    let dtype = context.dtype(like)?;
    convert(context, node, x, dtype)
}

fn convert(context: &mut Context<'_>, node: &Node, x: Value, to: DType) -> Lowered {
    let from = context.dtype(x)?;
    if from == to {
        return one(x);
    }
    if from == DType::String || to == DType::String {
        return one(context.cast_text(x, to)?);
    }
    if to == DType::F8E8M0FNU && node.string("round_mode")?.unwrap_or("up") != "nearest" {
        return Err(unsupported("conversion to a power of two by another rule than to the nearest"));
    }
    let mut body = ScalarExpr::identity();
    // `saturate` speaks of 8-bit floating-point targets alone.
    let narrow = to.is_float() && to.bits() == 8;
    let saturate = !narrow || node.flag("saturate", true)?;
    let mut value = Arg::Input(0);
    if node.id.opset >= 25 && from.is_float() && to.is_integer() && to.bits() < 8 {
        // Numbers outside of a narrow integer type wrap around as they do between integers; before version 25 the
        // specification left them open and its reference saturated.
        value = body.push(ScalarOp::Cast(DType::I32), &[value]);
    }
    let conversion = if saturate { ScalarOp::Cast(to) } else { ScalarOp::CastAlternate(to) };
    body.result = body.push(conversion, &[value]);
    one(context.builder.map(body, &[x])?)
}

/// The same bits as another type of the same width.
fn bit_cast(context: &mut Context<'_>, node: &Node) -> Lowered {
    let to = node
        .int("to")?
        .ok_or_else(|| super::super::super::error::NodeError::MissingAttribute("to".into()))?;
    let x = context.operand(node, 0, "input")?;
    let mut body = ScalarExpr::identity();
    body.result = body.push(ScalarOp::Bitcast(dtype_of_number("to", to)?), &[Arg::Input(0)]);
    one(context.builder.map(body, &[x])?)
}

/// 1 where the element is above the threshold.
fn binarize(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let threshold = node.float("threshold")?.unwrap_or(0.0);
    let mut body = Body::new(1, context.dtype(x)?);
    let (operand, limit) = (body.operand(0), body.constant(threshold.into()));
    let above = body.call(Function::Less, &[limit, operand]);
    let (one_of, zero) = (body.constant(1.0), body.constant(0.0));
    let result = body.select(above, one_of, zero);
    one(context.builder.map(body.finish(result), &[x])?)
}
