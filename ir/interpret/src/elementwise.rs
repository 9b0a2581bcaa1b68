//! `map`, prologues and epilogues: scalar expressions on tensors.

use std::ops::Range;

use tcc_ir::dtype::{Class, DType};
use tcc_ir::scalar::{Arg, Function, Rule, Scalar, ScalarExpr, ScalarOp};

use crate::error::{Error, Result};
use crate::indexing::{Walk, count, pick};
use crate::number;
use crate::tensor::{Contents, Tensor, map_contents, zip_contents};

/// Elements that go through an expression together, so that intermediate results stay small.
const CHUNK: usize = 4096;

/// `body` on every element of the operands broadcast to `shape`.
pub(crate) fn map(body: &ScalarExpr, operands: &[&Tensor], shape: &[usize]) -> Result<Tensor> {
    let dtypes: Vec<DType> = operands.iter().map(|operand| operand.dtype()).collect();
    let (node_types, dtype) = body.infer(&dtypes).map_err(|error| Error::operands(error.to_string()))?;
    if body.is_identity() && operands[0].shape() == shape {
        return Ok(operands[0].clone());
    }
    let mut readers = Vec::new();
    for operand in operands {
        if operand.shape().len() > shape.len() {
            return Err(Error::operands(format!("{:?} does not broadcast to {shape:?}", operand.shape())));
        }
        readers.push(Reader::new(operand, shape));
    }
    let total = count(shape);
    let mut out = empty(dtype, total);
    let mut start = 0;
    while start < total {
        let range = start..(start + CHUNK).min(total);
        let inputs: Vec<Contents> = readers.iter_mut().map(|reader| reader.read(range.clone())).collect();
        let result = chunk(body, &dtypes, &node_types, &inputs, range.len())?;
        append(&mut out, result)?;
        start = range.end;
    }
    Tensor::new(dtype, shape, out)
}

/// Yields an operand chunk by chunk.
struct Reader<'a> {
    tensor: &'a Tensor,
    /// `None` where the operand has the full shape.
    walk: Option<Walk>,
}

impl<'a> Reader<'a> {
    fn new(tensor: &'a Tensor, shape: &[usize]) -> Reader<'a> {
        let walk = (count(tensor.shape()) != count(shape)).then(|| Walk::broadcast(tensor.shape(), shape));
        Reader { tensor, walk }
    }

    fn read(&mut self, range: Range<usize>) -> Contents {
        let contents = self.tensor.contents();
        match &mut self.walk {
            None => map_contents!(contents, values => values[range].to_vec()),
            Some(walk) => {
                let offsets = walk.by_ref().take(range.len());
                map_contents!(contents, values => pick(values, offsets))
            }
        }
    }
}

fn empty(dtype: DType, capacity: usize) -> Contents {
    match dtype.class() {
        Class::Text => Contents::Text(Vec::with_capacity(capacity)),
        Class::Float if dtype == DType::F64 => Contents::F64(Vec::with_capacity(capacity)),
        Class::Float => Contents::F32(Vec::with_capacity(capacity)),
        _ => Contents::Integer(Vec::with_capacity(capacity)),
    }
}

fn append(out: &mut Contents, chunk: Contents) -> Result<()> {
    match (out, chunk) {
        (Contents::F32(out), Contents::F32(chunk)) => out.extend(chunk),
        (Contents::F64(out), Contents::F64(chunk)) => out.extend(chunk),
        (Contents::Integer(out), Contents::Integer(chunk)) => out.extend(chunk),
        (Contents::Text(out), Contents::Text(chunk)) => out.extend(chunk),
        _ => return Err(Error::operands("a scalar expression changed its element type")),
    }
    Ok(())
}

/// The whole expression on one chunk.
fn chunk(
    body: &ScalarExpr,
    dtypes: &[DType],
    node_types: &[DType],
    inputs: &[Contents],
    length: usize,
) -> Result<Contents> {
    let mut nodes: Vec<Contents> = Vec::with_capacity(body.nodes.len());
    for (node, dtype) in body.nodes.iter().zip(node_types) {
        let constants: Vec<Option<Contents>> = node.args.iter().map(|arg| constant(arg, length)).collect();
        let mut args = Vec::with_capacity(node.args.len());
        for (arg, constant) in node.args.iter().zip(&constants) {
            args.push(match (arg, constant) {
                (_, Some(constant)) => constant,
                (Arg::Input(index), None) => &inputs[usize::from(*index)],
                (Arg::Node(index), None) => &nodes[usize::from(*index)],
                (Arg::Const(_), None) => return Err(Error::operands("text in a scalar expression")),
            });
        }
        let from = match node.args.first() {
            Some(Arg::Input(index)) => dtypes[usize::from(*index)],
            Some(Arg::Node(index)) => node_types[usize::from(*index)],
            Some(Arg::Const(scalar)) => scalar.dtype,
            None => return Err(Error::operands("a scalar function without arguments")),
        };
        let result = match node.op {
            ScalarOp::Cast(to) => cast(args[0], from, to, false)?,
            ScalarOp::CastAlternate(to) => cast(args[0], from, to, true)?,
            ScalarOp::Bitcast(to) => bitcast(args[0], from, to)?,
            ScalarOp::Call(function) => {
                // The type of a selection or comparison is that of its last argument.
                let operand_type = if function.rule() == Rule::Select { *dtype } else { from };
                call(function, operand_type, &args)?
            }
        };
        nodes.push(result);
    }
    Ok(match body.result {
        Arg::Input(index) => inputs[usize::from(index)].clone(),
        Arg::Node(index) => nodes.swap_remove(usize::from(index)),
        Arg::Const(_) => {
            constant(&body.result, length).ok_or_else(|| Error::operands("text in a scalar expression"))?
        }
    })
}

/// A constant, repeated; `None` for what is no constant.
fn constant(arg: &Arg, length: usize) -> Option<Contents> {
    let Arg::Const(Scalar { dtype, .. }) = arg else { return None };
    let Arg::Const(scalar) = arg else { return None };
    match dtype.class() {
        Class::Text => None,
        Class::Float if *dtype == DType::F64 => Some(Contents::F64(vec![scalar.as_f64(); length])),
        Class::Float => Some(Contents::F32(vec![number::round(*dtype, scalar.as_f64()) as f32; length])),
        _ => Some(Contents::Integer(vec![number::wrap(*dtype, i128::from(scalar.bits as i64)); length])),
    }
}

/// One scalar function on operands of element type `dtype`.
fn call(function: Function, dtype: DType, args: &[&Contents]) -> Result<Contents> {
    let wrong = || Error::operands(format!("{} does not take {dtype}", function.text()));
    if function == Function::Select {
        return select(args);
    }
    match (args[0], args.get(1)) {
        (Contents::F32(x), None) => float_unary(function, dtype, x.iter().map(|x| f64::from(*x))),
        (Contents::F64(x), None) => float_unary(function, dtype, x.iter().copied()),
        (Contents::Integer(x), None) => {
            let f = integer_unary(function).ok_or_else(wrong)?;
            let apply = |x: &i64| number::wrap(dtype, f(number::widen(dtype, *x)));
            Ok(Contents::Integer(x.iter().map(apply).collect()))
        }
        (Contents::F32(x), Some(Contents::F32(y))) => {
            let pairs = x.iter().zip(y).map(|(x, y)| (f64::from(*x), f64::from(*y)));
            float_binary(function, dtype, pairs)
        }
        (Contents::F64(x), Some(Contents::F64(y))) => {
            float_binary(function, dtype, x.iter().copied().zip(y.iter().copied()))
        }
        (Contents::Integer(x), Some(Contents::Integer(y))) => {
            let wide = |(x, y): (&i64, &i64)| (number::widen(dtype, *x), number::widen(dtype, *y));
            let pairs = x.iter().zip(y).map(wide);
            if let Some(compare) = comparison::<i128>(function) {
                return Ok(Contents::Integer(pairs.map(|(x, y)| i64::from(compare(&x, &y))).collect()));
            }
            let f = integer_binary(function).ok_or_else(wrong)?;
            Ok(Contents::Integer(pairs.map(|(x, y)| number::wrap(dtype, f(x, y, dtype))).collect()))
        }
        _ => Err(wrong()),
    }
}

fn select(args: &[&Contents]) -> Result<Contents> {
    let [Contents::Integer(condition), x, y] = args else {
        return Err(Error::operands("select takes a truth value and two values"));
    };
    zip_contents!(x, y, (x, y) => choose(condition, x, y))
}

/// For each element, that of `x` where the condition holds, else that of `y`.
fn choose<T: Clone>(condition: &[i64], x: &[T], y: &[T]) -> Vec<T> {
    let pairs = condition.iter().zip(x.iter().zip(y));
    pairs.map(|(condition, (x, y))| if *condition != 0 { x.clone() } else { y.clone() }).collect()
}

fn comparison<T: PartialOrd>(function: Function) -> Option<fn(&T, &T) -> bool> {
    match function {
        Function::Equal => Some(|x, y| x == y),
        Function::Less => Some(|x, y| x < y),
        Function::LessEqual => Some(|x, y| x <= y),
        _ => None,
    }
}

fn float_unary(function: Function, dtype: DType, x: impl Iterator<Item = f64>) -> Result<Contents> {
    match function {
        Function::IsNan => return Ok(Contents::Integer(x.map(|x| i64::from(x.is_nan())).collect())),
        Function::IsInf => return Ok(Contents::Integer(x.map(|x| i64::from(x.is_infinite())).collect())),
        _ => {}
    }
    let Some(f) = float_function(function) else {
        return Err(Error::operands(format!("{} does not take {dtype}", function.text())));
    };
    Ok(Contents::from_numbers(dtype, x.map(f)))
}

fn float_function(function: Function) -> Option<fn(f64) -> f64> {
    use Function as F;
    Some(match function {
        F::Neg => |x| -x,
        F::Abs => f64::abs,
        F::Sign => |x| {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x
            }
        },
        F::Floor => f64::floor,
        F::Ceil => f64::ceil,
        F::Round => f64::round_ties_even,
        F::Trunc => f64::trunc,
        F::Sqrt => f64::sqrt,
        F::Reciprocal => f64::recip,
        F::Exp => f64::exp,
        F::Log => f64::ln,
        F::Log1p => f64::ln_1p,
        F::Expm1 => f64::exp_m1,
        F::Sin => f64::sin,
        F::Cos => f64::cos,
        F::Tan => f64::tan,
        F::Asin => f64::asin,
        F::Acos => f64::acos,
        F::Atan => f64::atan,
        F::Sinh => f64::sinh,
        F::Cosh => f64::cosh,
        F::Tanh => f64::tanh,
        F::Asinh => libm::asinh,
        F::Acosh => libm::acosh,
        F::Atanh => libm::atanh,
        F::Erf => libm::erf,
        F::Sigmoid => |x| 1.0 / (1.0 + (-x).exp()),
        F::Add
        | F::Sub
        | F::Mul
        | F::Div
        | F::Mod
        | F::Rem
        | F::Pow
        | F::Max
        | F::Min
        | F::BitAnd
        | F::BitOr
        | F::BitXor
        | F::BitNot
        | F::ShiftLeft
        | F::ShiftRight
        | F::And
        | F::Or
        | F::Xor
        | F::Not
        | F::Equal
        | F::Less
        | F::LessEqual
        | F::IsNan
        | F::IsInf
        | F::Select => return None,
    })
}

fn float_binary(
    function: Function,
    dtype: DType,
    pairs: impl Iterator<Item = (f64, f64)>,
) -> Result<Contents> {
    if let Some(compare) = comparison::<f64>(function) {
        return Ok(Contents::Integer(pairs.map(|(x, y)| i64::from(compare(&x, &y))).collect()));
    }
    use Function as F;
    let f: fn(f64, f64) -> f64 = match function {
        F::Add => |x, y| x + y,
        F::Sub => |x, y| x - y,
        F::Mul => |x, y| x * y,
        F::Div => |x, y| x / y,
        F::Rem => |x, y| x % y,
        F::Mod => |x, y| {
            let remainder = x % y;
            if remainder != 0.0 && (remainder < 0.0) != (y < 0.0) { remainder + y } else { remainder }
        },
        F::Pow => f64::powf,
        F::Max => maximum,
        F::Min => minimum,
        _ => return Err(Error::operands(format!("{} does not take {dtype}", function.text()))),
    };
    Ok(Contents::from_numbers(dtype, pairs.map(|(x, y)| f(x, y))))
}

/// The larger; NaN if either is.
pub(crate) fn maximum(x: f64, y: f64) -> f64 {
    if x.is_nan() || y.is_nan() { f64::NAN } else { x.max(y) }
}

/// The smaller; NaN if either is.
pub(crate) fn minimum(x: f64, y: f64) -> f64 {
    if x.is_nan() || y.is_nan() { f64::NAN } else { x.min(y) }
}

fn integer_unary(function: Function) -> Option<fn(i128) -> i128> {
    Some(match function {
        Function::Neg => |x| -x,
        Function::Abs => i128::abs,
        Function::Sign => i128::signum,
        Function::BitNot => |x| !x,
        Function::Not => |x| i128::from(x == 0),
        _ => return None,
    })
}

/// Functions of two integers before they are wrapped to their type.
fn integer_binary(function: Function) -> Option<fn(i128, i128, DType) -> i128> {
    use Function as F;
    Some(match function {
        F::Add => |x, y, _| x + y,
        F::Sub => |x, y, _| x - y,
        // The product of two 64-bit unsigned numbers may pass 127 bits; its low bits stay right.
        F::Mul => |x, y, _| x.wrapping_mul(y),
        F::Div => |x, y, _| if y == 0 { 0 } else { x / y },
        F::Rem => |x, y, _| if y == 0 { 0 } else { x % y },
        F::Mod => |x, y, _| match y {
            0 => 0,
            _ if x % y != 0 && (x % y < 0) != (y < 0) => x % y + y,
            _ => x % y,
        },
        F::Pow => |x, y, _| integer_power(x, y),
        F::Max => |x, y, _| x.max(y),
        F::Min => |x, y, _| x.min(y),
        F::BitAnd | F::And => |x, y, _| x & y,
        F::BitOr | F::Or => |x, y, _| x | y,
        F::BitXor | F::Xor => |x, y, _| x ^ y,
        F::ShiftLeft => |x, y, dtype| if (0..dtype.bits() as i128).contains(&y) { x << y } else { 0 },
        F::ShiftRight => |x, y, dtype| {
            let limit = dtype.bits() as i128;
            if (0..limit).contains(&y) { x >> y } else { x >> limit }
        },
        _ => return None,
    })
}

/// `x^y` modulo 2^128; negative exponents give the truncated reciprocal, 0 for the base 0.
fn integer_power(x: i128, y: i128) -> i128 {
    if y < 0 {
        return match x {
            1 => 1,
            -1 if y % 2 == 0 => 1,
            -1 => -1,
            _ => 0,
        };
    }
    let (mut power, mut base, mut exponent) = (1i128, x, y);
    while exponent > 0 {
        if exponent % 2 == 1 {
            power = power.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        exponent /= 2;
    }
    power
}

/// Converts elements; `alternate` as [`ScalarOp::CastAlternate`].
pub(crate) fn cast(x: &Contents, from: DType, to: DType, alternate: bool) -> Result<Contents> {
    let float = |value: f64| {
        if alternate { number::round_overflowing(to, value) } else { number::round(to, value) }
    };
    let from_floats = |values: &mut dyn Iterator<Item = f64>| match to {
        DType::F64 => Contents::F64(values.collect()),
        _ if to.is_float() => Contents::F32(values.map(|value| float(value) as f32).collect()),
        _ => Contents::Integer(values.map(|value| number::to_integer(to, value)).collect()),
    };
    match x {
        Contents::F32(values) => Ok(from_floats(&mut values.iter().map(|value| f64::from(*value)))),
        Contents::F64(values) => Ok(from_floats(&mut values.iter().copied())),
        Contents::Integer(values) => {
            let mut wide = values.iter().map(|value| number::widen(from, *value));
            Ok(match to {
                DType::F64 => Contents::F64(wide.map(|value| value as f64).collect()),
                // Straight to `f32`: a detour over `f64` would round twice.
                DType::F32 => Contents::F32(wide.map(|value| value as f32).collect()),
                _ if to.is_float() => from_floats(&mut wide.map(|value| value as f64)),
                _ if alternate => {
                    Contents::Integer(wide.by_ref().map(|value| number::saturate(to, value)).collect())
                }
                _ => Contents::Integer(wide.by_ref().map(|value| number::wrap(to, value)).collect()),
            })
        }
        Contents::Text(_) => Err(Error::operands("text has no scalar casts")),
    }
}

/// The same bits under another type of the same width.
fn bitcast(x: &Contents, from: DType, to: DType) -> Result<Contents> {
    let length = x.len();
    let tensor = Tensor::new(from, &[length], x.clone())?;
    let data = tensor.to_data()?;
    let data = tcc_ir::data::Data::new(to, &[length], data.bytes().clone())?;
    Ok(Tensor::from(&data).contents().clone())
}
