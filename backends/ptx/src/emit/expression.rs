//! Expressions.

use half::{bf16, f16};
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Scalar, ScalarOp};
use tcc_kernel::fold;
use tcc_kernel::ir::{Expr, Ty};

use super::Emitter;
use super::register::{Class, Value};
use crate::error::Error;

impl Emitter<'_> {
    /// Code that computes an expression of one lane; the result is a register or a constant.
    pub(super) fn value(&mut self, expr: &Expr) -> Result<Value, Error> {
        let ty = self.kernel.type_of(expr);
        self.class(ty)?;
        match expr {
            Expr::Const(scalar) => self.constant(*scalar),
            Expr::Var(var) => self.scalar(var.0 as usize),
            Expr::Dim(number) => match self.dims.get(*number as usize) {
                Some(dim) => Ok(dim.clone()),
                None => self.unsupported(format!("dimension {number}, which is not declared")),
            },
            Expr::Load { buffer, index, lanes: 1, valid } => self.load(*buffer, index, valid.as_deref()),
            Expr::Call(op, args) => {
                let dtypes: Vec<DType> = args.iter().map(|arg| self.kernel.type_of(arg).dtype).collect();
                let args = args.iter().map(|arg| self.value(arg)).collect::<Result<Vec<_>, Error>>()?;
                self.operate(*op, &dtypes, &args)
            }
            Expr::Fma(a, b, c) => {
                let (a, b, c) = (self.value(a)?, self.value(b)?, self.value(c)?);
                self.fused(ty.dtype, &a, &b, &c)
            }
            Expr::Splat(..) | Expr::Ramp { .. } | Expr::ReduceLanes(..) | Expr::Shuffle(..) => {
                match &self.lanes(expr)?[..] {
                    [value] => Ok(value.clone()),
                    _ => self.unsupported(format!("the vector expression {expr:?}")),
                }
            }
            other => self.unsupported(format!("the vector expression {other:?}")),
        }
    }

    /// A scalar function of values of these types.
    pub(super) fn operate(&mut self, op: ScalarOp, dtypes: &[DType], args: &[Value]) -> Result<Value, Error> {
        match (op, dtypes, args) {
            (ScalarOp::Call(function), _, _) => {
                self.call(function, dtypes.last().copied().unwrap_or(DType::I64), args)
            }
            (ScalarOp::Cast(to), [from], [value]) => self.cast(value.clone(), *from, to),
            (ScalarOp::Bitcast(to), [from], [value]) => self.bitcast(value.clone(), *from, to),
            _ => self.unsupported(format!("the function {op:?}")),
        }
    }

    /// `a * b + c` with one rounding.
    pub(super) fn fused(&mut self, dtype: DType, a: &Value, b: &Value, c: &Value) -> Result<Value, Error> {
        let opcode = match dtype {
            DType::F32 => "fma.rn.f32",
            DType::F64 => "fma.rn.f64",
            other => return Err(self.type_error(format!("fused multiply-add of {other}"))),
        };
        let class = self.class(Ty::scalar(dtype))?;
        Ok(self.instruction(class, opcode, &[a, b, c]))
    }

    fn constant(&mut self, scalar: Scalar) -> Result<Value, Error> {
        let scalar = fold::canonical(scalar);
        Ok(match scalar.dtype {
            DType::F32 => Value::single(scalar.as_f64() as f32),
            DType::F64 => Value::double(scalar.as_f64()),
            DType::F16 => {
                let bits = f16::from_f64(scalar.as_f64()).to_bits();
                self.instruction(Class::Bits16, "mov.b16", &[&Value::integer(bits.into())])
            }
            DType::BF16 => {
                let bits = bf16::from_f64(scalar.as_f64()).to_bits();
                self.instruction(Class::Bits16, "mov.b16", &[&Value::integer(bits.into())])
            }
            DType::Bool => {
                self.instruction(Class::Predicate, "mov.pred", &[&Value::integer(scalar.bits as i64)])
            }
            _ => Value::integer(scalar.bits as i64),
        })
    }

    /// The value in a register, for instructions that take no constants.
    pub(super) fn in_register(&mut self, value: &Value, dtype: DType) -> Result<Value, Error> {
        if value.is_register() {
            return Ok(value.clone());
        }
        let class = match self.class(Ty::scalar(dtype))? {
            Class::Predicate => Class::Bits32,
            class => class,
        };
        Ok(self.instruction(class, &format!("mov.{}", class.bits_type()), &[value]))
    }
}
