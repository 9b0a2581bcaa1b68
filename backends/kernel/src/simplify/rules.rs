//! Rules for calls that are no index arithmetic. Each keeps every bit of the result, NaN payloads aside.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Scalar, ScalarOp};

use crate::fold;
use crate::ir::Expr;

/// The truth value that an expression certainly has.
pub(super) fn truth(expr: &Expr) -> Option<bool> {
    uniform(expr).filter(|scalar| scalar.dtype == DType::Bool).map(|scalar| scalar.bits != 0)
}

/// The complement of a truth value.
pub(super) fn not(expr: Expr) -> Expr {
    match expr {
        // !!a => a
        Expr::Call(ScalarOp::Call(Function::Not), mut args) if args.len() == 1 => args.remove(0),
        other => Expr::call(Function::Not, vec![other]),
    }
}

/// A constant in every lane.
pub(super) fn splat(scalar: Scalar, lanes: u16) -> Expr {
    if lanes == 1 { Expr::Const(scalar) } else { Expr::Splat(Box::new(Expr::Const(scalar)), lanes) }
}

/// The constant that all lanes have.
fn uniform(expr: &Expr) -> Option<Scalar> {
    match expr {
        Expr::Const(scalar) => Some(*scalar),
        Expr::Splat(value, _) => uniform(value),
        _ => None,
    }
}

fn is_number(expr: &Expr, value: f64) -> bool {
    uniform(expr).is_some_and(|scalar| {
        scalar.dtype != DType::Bool
            && if scalar.dtype.is_float() {
                scalar.as_f64().to_bits() == value.to_bits()
            } else {
                scalar.as_i64() as f64 == value && scalar.as_i64() == value as i64
            }
    })
}

/// An expression equal to the call of `op` on simplified arguments with so many lanes.
pub(super) fn call(op: ScalarOp, args: Vec<Expr>, lanes: u16) -> Expr {
    if let Some(scalars) = args.iter().map(uniform).collect::<Option<Vec<Scalar>>>()
        && is_exact(op)
        && let Ok(value) = fold::apply(op, &scalars)
    {
        return splat(value, lanes);
    }
    match op {
        ScalarOp::Call(function) => apply(function, args),
        ScalarOp::Bitcast(to) | ScalarOp::Cast(to) => match &args[..] {
            // A value that is a constant is folded above; casts of casts stay, since the first may round.
            [Expr::Call(ScalarOp::Bitcast(_), inner)] if op == ScalarOp::Bitcast(to) && inner.len() == 1 => {
                Expr::Call(op, inner.clone())
            }
            _ => Expr::Call(op, args),
        },
        ScalarOp::CastAlternate(_) => Expr::Call(op, args),
    }
}

/// True for operators whose result does not depend on how a machine approximates.
fn is_exact(op: ScalarOp) -> bool {
    use Function::*;
    !matches!(
        op,
        ScalarOp::Call(
            Exp | Log
                | Log1p
                | Expm1
                | Sin
                | Cos
                | Tan
                | Asin
                | Acos
                | Atan
                | Sinh
                | Cosh
                | Tanh
                | Asinh
                | Acosh
                | Atanh
                | Erf
                | Sigmoid
                | Pow
        )
    )
}

fn apply(function: Function, mut args: Vec<Expr>) -> Expr {
    let integer = |expr: &Expr| uniform(expr).is_some_and(|scalar| scalar.dtype.is_integer());
    match (function, &mut args[..]) {
        // x * 1 => x
        (Function::Mul, [_, b]) if is_number(b, 1.0) => args.swap_remove(0),
        (Function::Mul, [a, _]) if is_number(a, 1.0) => args.swap_remove(1),
        // x * 0 => 0, integers only
        (Function::Mul, [_, b]) if integer(b) && is_number(b, 0.0) => args.swap_remove(1),
        (Function::Mul, [a, _]) if integer(a) && is_number(a, 0.0) => args.swap_remove(0),
        // x / 1 => x
        (Function::Div, [_, b]) if is_number(b, 1.0) => args.swap_remove(0),
        // x + 0 => x for integers, x + -0.0 => x for floats
        (Function::Add, [_, b]) if is_zero_of_sum(b) => args.swap_remove(0),
        (Function::Add, [a, _]) if is_zero_of_sum(a) => args.swap_remove(1),
        // x - 0 => x
        (Function::Sub, [_, b]) if is_number(b, 0.0) => args.swap_remove(0),
        // --x => x
        (Function::Neg, [Expr::Call(ScalarOp::Call(Function::Neg), inner)]) => inner.swap_remove(0),
        (Function::Not, [_]) => not(args.swap_remove(0)),
        (Function::And, [a, b]) => match (truth(a), truth(b)) {
            (Some(true), _) | (_, Some(false)) => args.swap_remove(1),
            (_, Some(true)) | (Some(false), _) => args.swap_remove(0),
            _ if a == b => args.swap_remove(0),
            _ => Expr::call(function, args),
        },
        (Function::Or, [a, b]) => match (truth(a), truth(b)) {
            (Some(false), _) | (_, Some(true)) => args.swap_remove(1),
            (_, Some(false)) | (Some(true), _) => args.swap_remove(0),
            _ if a == b => args.swap_remove(0),
            _ => Expr::call(function, args),
        },
        (Function::Xor, [a, b]) => match (truth(a), truth(b)) {
            (Some(false), _) => args.swap_remove(1),
            (_, Some(false)) => args.swap_remove(0),
            (Some(true), _) => not(args.swap_remove(1)),
            (_, Some(true)) => not(args.swap_remove(0)),
            _ => Expr::call(function, args),
        },
        (Function::Select, [condition, a, b]) => match truth(condition) {
            Some(true) => args.swap_remove(1),
            Some(false) => args.swap_remove(2),
            None if a == b => args.swap_remove(1),
            None => Expr::call(function, args),
        },
        _ => Expr::call(function, args),
    }
}

fn is_zero_of_sum(expr: &Expr) -> bool {
    uniform(expr).is_some_and(|scalar| match scalar.dtype {
        DType::Bool => false,
        dtype if dtype.is_float() => scalar.as_f64().to_bits() == (-0.0f64).to_bits(),
        _ => scalar.bits == 0,
    })
}
