//! Vectors: a register for each lane. Only accesses to memory move several lanes at once.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarOp};
use tcc_ir::words::ReduceKind;
use tcc_kernel::ir::Expr;

use super::Emitter;
use super::register::{Class, Value};
use crate::error::Error;

impl Emitter<'_> {
    /// Code that computes an expression: a value for each lane.
    pub(super) fn lanes(&mut self, expr: &Expr) -> Result<Vec<Value>, Error> {
        let ty = self.kernel.type_of(expr);
        let count = usize::from(ty.lanes);
        match expr {
            Expr::Var(var) => self.registers(var.0 as usize),
            Expr::Load { buffer, index, lanes, valid } if *lanes > 1 => {
                self.load_lanes(*buffer, index, count, valid.as_deref())
            }
            Expr::Splat(value, _) => Ok(vec![self.value(value)?; count]),
            Expr::Ramp { base, stride, .. } => {
                let base = self.value(base)?;
                let offsets = (0..count as i64).map(|lane| Value::integer(lane * stride));
                let offsets: Vec<Value> = offsets.collect();
                Ok(offsets
                    .iter()
                    .map(|by| self.instruction(Class::Bits64, "add.s64", &[&base, by]))
                    .collect())
            }
            Expr::Call(op, args) if count > 1 => {
                let dtypes: Vec<DType> = args.iter().map(|arg| self.kernel.type_of(arg).dtype).collect();
                let args = args.iter().map(|arg| self.lanes(arg)).collect::<Result<Vec<_>, Error>>()?;
                (0..count)
                    .map(|lane| {
                        let args: Vec<Value> =
                            args.iter().map(|arg| arg[lane.min(arg.len() - 1)].clone()).collect();
                        self.operate(*op, &dtypes, &args)
                    })
                    .collect()
            }
            Expr::Fma(a, b, c) if count > 1 => {
                let (a, b, c) = (self.lanes(a)?, self.lanes(b)?, self.lanes(c)?);
                (0..count).map(|lane| self.fused(ty.dtype, &a[lane], &b[lane], &c[lane])).collect()
            }
            Expr::ReduceLanes(kind, value) => {
                let mut values = self.lanes(value)?;
                let function = match kind {
                    ReduceKind::Sum => Function::Add,
                    ReduceKind::Prod => Function::Mul,
                    ReduceKind::Max => Function::Max,
                    ReduceKind::Min => Function::Min,
                };
                while values.len() > 1 {
                    let upper = values.split_off(values.len() / 2);
                    for (low, high) in values.iter_mut().zip(&upper) {
                        let args = [low.clone(), high.clone()];
                        *low = self.operate(ScalarOp::Call(function), &[ty.dtype; 2], &args)?;
                    }
                }
                Ok(values)
            }
            Expr::Shuffle(a, b, picks) => {
                let values = [self.lanes(a)?, self.lanes(b)?].concat();
                let pick = |number: &u16| values.get(usize::from(*number)).cloned();
                match picks.iter().map(pick).collect() {
                    Some(picked) => Ok(picked),
                    None => self.unsupported("a lane that is not there"),
                }
            }
            scalar => Ok(vec![self.value(scalar)?]),
        }
    }
}

/// A power of two, up to 16, that divides an index whatever its variables are.
pub(super) fn divisor(index: &Expr) -> u64 {
    1 << zeros(index).min(4)
}

/// Trailing zero bits that are certain.
fn zeros(index: &Expr) -> u32 {
    match index {
        Expr::Const(scalar) => scalar.as_i64().trailing_zeros(),
        Expr::Call(ScalarOp::Call(function), args) => {
            let least = || args.iter().map(zeros).min().unwrap_or(0);
            match function {
                Function::Mul => args.iter().map(zeros).fold(0, u32::saturating_add),
                Function::Add
                | Function::Sub
                | Function::Min
                | Function::Max
                | Function::BitXor
                | Function::BitOr => least(),
                Function::BitAnd => args.iter().map(zeros).max().unwrap_or(0),
                Function::Select => args[1..].iter().map(zeros).min().unwrap_or(0),
                Function::ShiftLeft => {
                    let by = args[1].as_index().and_then(|by| u32::try_from(by).ok());
                    zeros(&args[0]).saturating_add(by.unwrap_or(0))
                }
                _ => 0,
            }
        }
        _ => 0,
    }
}
