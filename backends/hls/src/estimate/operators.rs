//! Latency and resources of one operator.
//!
//! Figures are those usual for the operators of the vendor's library at 100 to 250 MHz; they stand in until measurements do.

use std::collections::BTreeMap;

use tcc_ir::dtype::{Class, DType};
use tcc_ir::scalar::{Function, ScalarOp};
use tcc_kernel::fixed::Table;
use tcc_kernel::ir::{Expr, Kernel, Space, Stmt};

use super::is_spatial;
use crate::numbers::Types;
use crate::part::Resources;

/// Cycles and units of an operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Cycles from operands to result.
    pub latency: u64,
    /// One unit.
    pub resources: Resources,
}

const fn cost(latency: u64, dsp: u64, lut: u64, ff: u64) -> Cost {
    Cost { latency, resources: Resources { dsp, lut, ff, bram18: 0, uram: 0 } }
}

/// An operator with all that its cost depends on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Operator {
    /// Address arithmetic.
    Index,
    /// Floating point; true for double precision.
    Float(Function, bool),
    /// A conversion between floating point and integers.
    Convert,
    /// A product of integers of these widths.
    Product(u32, u32),
    /// A product with a constant of an integer of this width.
    Scaled(u32),
    /// A table lookup in fixed point of this width.
    Lookup(u32),
    /// Another operation on integers of this width.
    Integer(Function, u32),
}

impl Operator {
    /// What one unit costs.
    pub fn cost(self) -> Cost {
        use Function::*;
        match self {
            Operator::Index => cost(0, 0, 16, 0),
            Operator::Convert => cost(4, 0, 180, 200),
            Operator::Float(function, double) => {
                let single = match function {
                    Add | Sub => cost(4, 2, 220, 230),
                    Mul => cost(3, 3, 90, 150),
                    Div | Reciprocal => cost(12, 0, 770, 900),
                    Sqrt => cost(12, 0, 460, 500),
                    Exp => cost(12, 7, 900, 600),
                    Sigmoid => cost(30, 9, 1900, 1800),
                    Neg | Abs | Select => cost(0, 0, 32, 0),
                    Equal | Less | LessEqual | IsNan | IsInf => cost(1, 0, 60, 20),
                    Max | Min | Sign => cost(2, 0, 120, 70),
                    Floor | Ceil | Round | Trunc => cost(3, 0, 200, 100),
                    _ => cost(25, 20, 2500, 2500),
                };
                match double {
                    true => Cost { latency: single.latency * 3 / 2, resources: single.resources.times(3) },
                    false => single,
                }
            }
            Operator::Product(a, b) => product(a.max(b).into(), a.min(b).into()),
            Operator::Scaled(width) => cost(1, 0, u64::from(width) * 2, width.into()),
            Operator::Lookup(width) => {
                let multiply = product(width.into(), width.into());
                let table = Resources { bram18: 4, ..Resources::default() };
                Cost { latency: multiply.latency + 4, resources: multiply.resources.plus(table) }
            }
            Operator::Integer(function, width) => {
                let width = u64::from(width);
                match function {
                    Add | Sub | Neg | Abs | Max | Min => cost(1, 0, width, width),
                    Div | Rem | Mod | Reciprocal => cost(width, 0, width * width / 2, width * width),
                    ShiftLeft | ShiftRight => cost(1, 0, width * 3, width),
                    Equal | Less | LessEqual => cost(0, 0, width.div_ceil(2), 0),
                    Floor | Ceil | Round | Trunc => cost(1, 0, width, width),
                    _ => cost(0, 0, width, 0),
                }
            }
        }
    }
}

/// A product in multiplier blocks of 25 by 18 bits, or in look-up tables where it is small.
fn product(wide: u64, narrow: u64) -> Cost {
    if wide * narrow <= 36 {
        return cost(1, 0, wide * narrow, wide + narrow);
    }
    let blocks = wide.saturating_sub(1).div_ceil(24).max(1) * narrow.saturating_sub(1).div_ceil(17).max(1);
    cost(if blocks == 1 { 2 } else { 4 }, blocks, if blocks == 1 { 0 } else { wide + narrow }, wide + narrow)
}

/// Bits of the value of an integer or fixed-point expression, where widening conversions add none.
fn width(kernel: &Kernel, types: &Types, expr: &Expr) -> u32 {
    let dtype = kernel.type_of(expr).dtype;
    let own = types.local_bits(dtype);
    match expr {
        Expr::Load { buffer, .. } if kernel.buffer_of(*buffer).space != Space::Register => {
            types.buffer_bits(kernel, *buffer)
        }
        Expr::Call(ScalarOp::Cast(_) | ScalarOp::CastAlternate(_), args) => {
            args.first().map_or(own, |inner| width(kernel, types, inner).min(own))
        }
        _ => own,
    }
}

/// The operators at the root of an expression; none for accesses, constants and variables.
pub fn of(kernel: &Kernel, types: &Types, expr: &Expr) -> Vec<Operator> {
    let float = |dtype: DType| dtype.is_float() && !types.is_fixed();
    match expr {
        Expr::Fma(a, b, c) => {
            let dtype = kernel.type_of(c).dtype;
            if float(dtype) {
                let double = dtype == DType::F64;
                return vec![Operator::Float(Function::Mul, double), Operator::Float(Function::Add, double)];
            }
            let sum = Operator::Integer(Function::Add, width(kernel, types, c));
            vec![multiply(kernel, types, a, b), sum]
        }
        Expr::Call(ScalarOp::Call(function), args) => {
            let Some(last) = args.last() else { return Vec::new() };
            let dtype = kernel.type_of(last).dtype;
            if is_address(kernel, expr) {
                return vec![Operator::Index];
            }
            if float(dtype) {
                return vec![Operator::Float(*function, dtype == DType::F64)];
            }
            let bits = args.iter().map(|arg| width(kernel, types, arg)).max().unwrap_or(1);
            match (function, &args[..]) {
                (Function::Mul, [a, b]) => vec![multiply(kernel, types, a, b)],
                (function, _) if dtype.is_float() && Table::of(*function).is_some() => {
                    vec![Operator::Lookup(bits)]
                }
                (function, _) => vec![Operator::Integer(*function, bits)],
            }
        }
        Expr::Call(_, args) => {
            let from = args.first().map_or(Class::Bool, |arg| kernel.type_of(arg).dtype.class());
            let to = kernel.type_of(expr).dtype.class();
            let converts = (from == Class::Float) != (to == Class::Float) && !types.is_fixed();
            if converts { vec![Operator::Convert] } else { Vec::new() }
        }
        _ => Vec::new(),
    }
}

fn multiply(kernel: &Kernel, types: &Types, a: &Expr, b: &Expr) -> Operator {
    let (wide, narrow) = (width(kernel, types, a), width(kernel, types, b));
    match (a, b) {
        (Expr::Const(_), _) => Operator::Scaled(narrow),
        (_, Expr::Const(_)) => Operator::Scaled(wide),
        _ => Operator::Product(wide, narrow),
    }
}

/// True for 64-bit arithmetic that reads no memory: addresses and loop bounds.
fn is_address(kernel: &Kernel, expr: &Expr) -> bool {
    let mut pure = true;
    expr.visit(&mut |part| {
        pure &= !matches!(part, Expr::Load { .. }) && kernel.type_of(part).dtype == DType::I64;
    });
    pure
}

/// Counts the operators of statements, copies in unrolled loops included.
pub fn count(
    kernel: &Kernel,
    types: &Types,
    block: &[Stmt],
    copies: u64,
    counts: &mut BTreeMap<Operator, u64>,
) {
    let add = |expr: &Expr, counts: &mut BTreeMap<Operator, u64>| {
        expr.visit(&mut |part| {
            for operator in of(kernel, types, part) {
                let entry = counts.entry(operator).or_default();
                *entry = entry.saturating_add(copies);
            }
        });
    };
    for stmt in block {
        match stmt {
            Stmt::For { extent, kind, body, .. } => {
                let trips = if is_spatial(*kind) { extent.as_index().unwrap_or(1).max(0) as u64 } else { 1 };
                count(kernel, types, body, copies.saturating_mul(trips), counts);
            }
            Stmt::If { condition, then, otherwise } => {
                add(condition, counts);
                count(kernel, types, then, copies, counts);
                count(kernel, types, otherwise, copies, counts);
            }
            stmt => stmt.visit_exprs(&mut |expr| add(expr, counts)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_take_as_many_blocks_as_their_widths_ask_for() {
        let dsp = |a, b| Operator::Product(a, b).cost().resources.dsp;
        assert_eq!(dsp(4, 8), 0);
        assert_eq!(dsp(8, 8), 1);
        assert_eq!(dsp(16, 16), 1);
        assert_eq!(dsp(32, 32), 4);
        assert_eq!(dsp(8, 32), 2);
    }
}
