//! Elementwise arithmetic, comparison, selection and reduction of known values.

use super::super::super::graph::Node;
use super::super::context::Context;
use super::super::dtype_of_number;
use super::super::known::{Element, Known, LIMIT, broadcast_shape};
use super::super::refusal::Refusal;
use half::{bf16, f16};
use std::cmp::Ordering;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;

/// The result of an elementwise operator or full reduction, where it is known.
pub(super) fn evaluate(context: &Context<'_>, node: &Node, first: Known) -> Result<Option<Known>, Refusal> {
    let arithmetic = Arithmetic { context, dtype: first.dtype };
    let second = || context.known(node, 1);
    Ok(match node.id.operator.as_str() {
        "Add" | "Sub" | "Mul" | "Div" if node.id.opset >= 7 => {
            let operator = node.id.operator.as_bytes()[0];
            second().and_then(|b| zip(&first, &b, first.dtype, |a, b| arithmetic.binary(operator, a, b)))
        }
        "Mod" if first.dtype.is_integer() && !node.flag("fmod", false)? => {
            second().and_then(|b| zip(&first, &b, first.dtype, |a, b| arithmetic.modulo(a, b)))
        }
        "Min" | "Max" => {
            let smaller = node.id.operator == "Min";
            let mut result = Some(first);
            for index in 1..node.inputs.len() {
                result = match (result, context.known(node, index)) {
                    (Some(a), Some(b)) => zip(&a, &b, a.dtype, |a, b| arithmetic.extreme(smaller, a, b)),
                    _ => None,
                };
            }
            result
        }
        "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" if node.id.opset >= 7 => {
            let operator = node.id.operator.as_str();
            second().and_then(|b| zip(&first, &b, DType::Bool, |a, b| arithmetic.compare(operator, a, b)))
        }
        "And" | "Or" | "Xor" if node.id.opset >= 7 => second().and_then(|b| {
            zip(&first, &b, DType::Bool, |a, b| {
                let (a, b) = (a.as_f64()? != 0.0, b.as_f64()? != 0.0);
                Some(truth(match node.id.operator.as_str() {
                    "And" => a && b,
                    "Or" => a || b,
                    _ => a != b,
                }))
            })
        }),
        "Not" => map(&first, |a| Some(truth(a.as_f64()? == 0.0))),
        "Neg" => map(&first, |a| arithmetic.binary(b'S', &Element::Dim(Dim::Const(0)), a)),
        "Abs" => map(&first, |a| match a {
            Element::Dim(dim) if context.bounds(dim).low >= 0 => Some(a.clone()),
            _ => arithmetic.real(a.as_f64()?.abs()),
        }),
        "Floor" | "Ceil" | "Round" => map(&first, |a| match a {
            Element::Dim(_) => Some(a.clone()),
            Element::Real(value) => Some(Element::real(match node.id.operator.as_str() {
                "Floor" => value.floor(),
                "Ceil" => value.ceil(),
                _ => value.round_ties_even(),
            })),
        }),
        "Sqrt" => map(&first, |a| arithmetic.real(a.as_f64()?.sqrt())),
        "Reciprocal" => map(&first, |a| arithmetic.real(1.0 / a.as_f64()?)),
        "Where" => select(context, node, &first),
        "Cast" => match node.int("to")? {
            Some(to) => cast(&first, dtype_of_number("to", to)?),
            None => None,
        },
        "CastLike" => {
            let like = node.input(1).and_then(|name| context.scopes.get(name));
            let like = like.and_then(|(_, binding)| context.binding_dtype(binding));
            like.and_then(|dtype| cast(&first, dtype))
        }
        "Range" => range(context, node, &first),
        "ReduceSum" | "ReduceProd" | "ReduceMin" | "ReduceMax" => reduce(&arithmetic, node, &first)?,
        _ => None,
    })
}

fn truth(value: bool) -> Element {
    Element::Dim(Dim::Const(i64::from(value)))
}

fn map(x: &Known, f: impl Fn(&Element) -> Option<Element>) -> Option<Known> {
    let elements = x.elements.iter().map(f).collect::<Option<_>>()?;
    Some(Known { dtype: x.dtype, shape: x.shape.clone(), elements })
}

fn zip(
    a: &Known,
    b: &Known,
    dtype: DType,
    f: impl Fn(&Element, &Element) -> Option<Element>,
) -> Option<Known> {
    if a.dtype != b.dtype {
        return None;
    }
    let shape = broadcast_shape(&a.shape, &b.shape)?;
    let (a, b) = (a.broadcast(&shape)?, b.broadcast(&shape)?);
    let elements = a.elements.iter().zip(&b.elements).map(|(a, b)| f(a, b)).collect::<Option<_>>()?;
    Some(Known { dtype, shape, elements })
}

/// Arithmetic in one element type.
struct Arithmetic<'c, 'o> {
    context: &'c Context<'o>,
    dtype: DType,
}

impl Arithmetic<'_, '_> {
    /// A number rounded to the element type; `None` for integers, whose results are exact or refused.
    fn real(&self, value: f64) -> Option<Element> {
        Some(Element::real(match self.dtype {
            DType::F64 => value,
            DType::F32 => f64::from(value as f32),
            DType::F16 => f16::from_f64(value).to_f64(),
            DType::BF16 => bf16::from_f64(value).to_f64(),
            dtype if dtype.is_integer() && value.fract() == 0.0 => {
                let (low, high) = dtype.integer_range()?;
                (low..=high).contains(&(value as i128)).then_some(value)?
            }
            _ => return None,
        }))
    }

    /// A size, where it stays in the range of the element type (a wrapped result is not followed).
    fn dim(&self, dim: Dim) -> Option<Element> {
        if self.dtype.is_float() {
            return match dim.as_const() {
                Some(value) => self.real(value as f64),
                None => Some(Element::Dim(dim)),
            };
        }
        let (low, high) = self.dtype.integer_range()?;
        match dim.as_const() {
            // Saturated arithmetic ends at these bounds.
            Some(i64::MIN | i64::MAX) => None,
            Some(value) => (low..=high).contains(&i128::from(value)).then_some(Element::Dim(dim)),
            None => Some(Element::Dim(dim)),
        }
    }

    fn binary(&self, operator: u8, a: &Element, b: &Element) -> Option<Element> {
        if let (Element::Dim(a), Element::Dim(b)) = (a, b) {
            let (x, y) = (a.clone(), b.clone());
            return match operator {
                b'A' => self.dim(x + y),
                b'S' => self.dim(x - y),
                b'M' => self.dim(x * y),
                _ => self.quotient(a, b),
            };
        }
        if self.dtype.is_integer() {
            return None;
        }
        let (x, y) = (a.as_f64(), b.as_f64());
        if operator == b'M' && (x == Some(1.0) || y == Some(1.0)) {
            return Some(if x == Some(1.0) { b.clone() } else { a.clone() });
        }
        let (x, y) = (x?, y?);
        self.real(match operator {
            b'A' => x + y,
            b'S' => x - y,
            b'M' => x * y,
            _ => x / y,
        })
    }

    fn quotient(&self, a: &Dim, b: &Dim) -> Option<Element> {
        if let (Some(x), Some(y)) = (a.as_const(), b.as_const()) {
            if self.dtype.is_float() {
                return self.real(x as f64 / y as f64);
            }
            return Some(Element::Dim(Dim::Const(x.checked_div(y)?)));
        }
        if let Some(exact) = a.exact_quotient(b) {
            return self.dim(exact);
        }
        // Truncation is rounding down only where nothing is negative.
        let positive = self.context.bounds(a).low >= 0 && self.context.bounds(b).low > 0;
        (self.dtype.is_integer() && positive).then(|| Element::Dim(a.floor_div(b)))
    }

    fn modulo(&self, a: &Element, b: &Element) -> Option<Element> {
        let (a, b) = (a.as_dim()?, b.as_dim()?);
        (self.context.bounds(b).low > 0).then(|| Element::Dim(a.modulo(b)))
    }

    /// Sign of `a - b` over all values of the symbols, if it is the same for all.
    fn order(&self, a: &Element, b: &Element) -> Option<Ordering> {
        match (a, b) {
            (Element::Dim(a), Element::Dim(b)) => {
                let difference = self.context.bounds(&(a.clone() - b.clone()));
                match (difference.low.cmp(&0), difference.high.cmp(&0)) {
                    (Ordering::Equal, Ordering::Equal) => Some(Ordering::Equal),
                    (Ordering::Greater, _) => Some(Ordering::Greater),
                    (_, Ordering::Less) => Some(Ordering::Less),
                    _ => None,
                }
            }
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        }
    }

    fn extreme(&self, smaller: bool, a: &Element, b: &Element) -> Option<Element> {
        match self.order(a, b) {
            Some(order) => Some(if smaller == order.is_le() { a.clone() } else { b.clone() }),
            None => {
                let (a, b) = (a.as_dim()?, b.as_dim()?);
                Some(Element::Dim(if smaller { a.minimum(b) } else { a.maximum(b) }))
            }
        }
    }

    fn compare(&self, operator: &str, a: &Element, b: &Element) -> Option<Element> {
        if let (Element::Dim(a), Element::Dim(b)) = (a, b) {
            let difference = self.context.bounds(&(a.clone() - b.clone()));
            return Some(truth(match operator {
                "Equal" if difference.low > 0 || difference.high < 0 => false,
                "Equal" if (difference.low, difference.high) == (0, 0) => true,
                "Less" | "GreaterOrEqual" if difference.high < 0 => operator == "Less",
                "Less" | "GreaterOrEqual" if difference.low >= 0 => operator != "Less",
                "Greater" | "LessOrEqual" if difference.low > 0 => operator == "Greater",
                "Greater" | "LessOrEqual" if difference.high <= 0 => operator != "Greater",
                _ => return None,
            }));
        }
        let (a, b) = (a.as_f64()?, b.as_f64()?);
        Some(truth(match operator {
            "Equal" => a == b,
            "Less" => a < b,
            "Greater" => a > b,
            "LessOrEqual" => a <= b,
            _ => a >= b,
        }))
    }
}

fn select(context: &Context<'_>, node: &Node, condition: &Known) -> Option<Known> {
    let (yes, no) = (context.known(node, 1)?, context.known(node, 2)?);
    let shape = broadcast_shape(&broadcast_shape(&condition.shape, &yes.shape)?, &no.shape)?;
    let (condition, yes, no) = (condition.broadcast(&shape)?, yes.broadcast(&shape)?, no.broadcast(&shape)?);
    let elements = condition.elements.iter().zip(yes.elements.iter().zip(&no.elements)).map(|(c, (a, b))| {
        if a == b {
            return Some(a.clone());
        }
        Some(if c.as_f64()? != 0.0 { a.clone() } else { b.clone() })
    });
    Some(Known { dtype: yes.dtype, shape, elements: elements.collect::<Option<_>>()? })
}

fn cast(x: &Known, dtype: DType) -> Option<Known> {
    let convert = |element: &Element| match element {
        Element::Dim(dim) => match (dim.as_const(), dtype) {
            (Some(value), DType::Bool) => Some(truth(value != 0)),
            (None, DType::Bool) => None,
            (Some(value), _) if dtype.is_integer() => {
                let (low, high) = dtype.integer_range()?;
                (low..=high).contains(&i128::from(value)).then(|| element.clone())
            }
            (Some(value), DType::F32) => Some(Element::real(f64::from(value as f32))),
            // A size that goes through f32 or a narrow integer is taken to fit; its range is far below.
            (_, DType::F32 | DType::F64) => Some(element.clone()),
            (None, _) => (dtype.is_integer() && dtype.bits() >= 32).then(|| element.clone()),
            (Some(_), _) => None,
        },
        Element::Real(value) => match dtype {
            DType::F64 => Some(element.clone()),
            DType::F32 => Some(Element::real(f64::from(*value as f32))),
            DType::Bool => Some(truth(*value != 0.0)),
            _ if dtype.is_integer() && value.is_finite() => {
                let whole = value.trunc();
                let (low, high) = dtype.integer_range()?;
                (low..=high).contains(&(whole as i128)).then_some(Element::Dim(Dim::Const(whole as i64)))
            }
            _ => None,
        },
    };
    let elements = x.elements.iter().map(convert).collect::<Option<_>>()?;
    Some(Known { dtype, shape: x.shape.clone(), elements })
}

fn range(context: &Context<'_>, node: &Node, start: &Known) -> Option<Known> {
    let integer = |known: &Known| Some(*known.integers()?.first()?);
    let (start_at, limit) = (integer(start)?, integer(&context.known(node, 1)?)?);
    let delta = integer(&context.known(node, 2)?)?;
    if delta == 0 || !start.dtype.is_integer() {
        return None;
    }
    let count = (i128::from(limit) - i128::from(start_at) + i128::from(delta) - i128::from(delta.signum()))
        / i128::from(delta);
    let count = usize::try_from(count.max(0)).ok().filter(|&count| count <= LIMIT)?;
    let elements =
        (0..count as i64).map(|index| Element::Dim(Dim::Const(start_at + index * delta))).collect();
    Some(Known { dtype: start.dtype, shape: vec![count], elements })
}

/// Reduction of a vector to one element.
fn reduce(arithmetic: &Arithmetic<'_, '_>, node: &Node, x: &Known) -> Result<Option<Known>, Refusal> {
    let axes = match node.ints("axes")? {
        Some(axes) => Some(axes.to_vec()),
        None if node.input(1).is_none() => None,
        None => match arithmetic.context.known(node, 1).and_then(|axes| axes.integers()) {
            Some(axes) => Some(axes),
            None => return Ok(None),
        },
    };
    let all = match axes.as_deref() {
        None | Some([]) => !node.flag("noop_with_empty_axes", false)?,
        Some([0 | -1]) => true,
        _ => false,
    };
    let [first, rest @ ..] = &x.elements[..] else { return Ok(None) };
    if x.shape.len() != 1 || !all {
        return Ok(None);
    }
    let total = rest.iter().try_fold(first.clone(), |a, b| match node.id.operator.as_str() {
        "ReduceSum" => arithmetic.binary(b'A', &a, b),
        "ReduceProd" => arithmetic.binary(b'M', &a, b),
        operator => arithmetic.extreme(operator == "ReduceMin", &a, b),
    });
    let shape = if node.flag("keepdims", true)? { vec![1] } else { Vec::new() };
    Ok(total.map(|element| Known { dtype: x.dtype, shape, elements: vec![element] }))
}
