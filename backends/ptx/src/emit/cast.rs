//! Conversions, as `ScalarOp::Cast` and `ScalarOp::Bitcast` define them.
//!
//! PTX saturates a float that becomes a 32- or 64-bit integer. Its result for NaN depends on the types, so NaN is sent to
//! zero in code wherever source or destination has 64 bits (PTX ISA, `cvt`).

use tcc_ir::dtype::{Class as Kind, DType};
use tcc_kernel::ir::Ty;

use super::Emitter;
use super::call::suffix;
use super::register::{Class, Value};
use crate::error::Error;

impl Emitter<'_> {
    /// Conversion of a value.
    pub(super) fn cast(&mut self, value: Value, from: DType, to: DType) -> Result<Value, Error> {
        if from == to {
            return Ok(value);
        }
        self.class(Ty::scalar(to))?;
        let (zero, one) = (Value::integer(0), Value::integer(1));
        match (from.class(), to.class()) {
            (Kind::Bool, Kind::Float) => {
                let number = self.instruction(Class::Bits32, "selp.b32", &[&one, &zero, &value]);
                self.integer_to_float(number, DType::I32, to)
            }
            (Kind::Bool, _) => {
                let class = self.class(Ty::scalar(to))?;
                Ok(self.select(class, &value, &one, &zero))
            }
            (Kind::Float, Kind::Bool) => match from {
                DType::F64 => Ok(self.test("neu", "f64", &value, &Value::double(0.0))),
                DType::F32 => Ok(self.test("neu", "f32", &value, &Value::single(0.0))),
                _ => {
                    let wide = self.float_to_float(value, from, DType::F32)?;
                    Ok(self.test("neu", "f32", &wide, &Value::single(0.0)))
                }
            },
            (_, Kind::Bool) => Ok(self.test("ne", suffix(from), &value, &zero)),
            (Kind::Float, Kind::Float) => self.float_to_float(value, from, to),
            (Kind::Float, _) => self.float_to_integer(value, from, to),
            (_, Kind::Float) => self.integer_to_float(value, from, to),
            _ => self.integer_to_integer(value, from, to),
        }
    }

    fn float_to_float(&mut self, value: Value, from: DType, to: DType) -> Result<Value, Error> {
        let value = self.in_register(&value, from)?;
        Ok(match (from, to) {
            (DType::F32, DType::F64) => self.instruction(Class::Double, "cvt.f64.f32", &[&value]),
            (DType::F64, DType::F32) => self.instruction(Class::Single, "cvt.rn.f32.f64", &[&value]),
            (DType::F16, DType::F32) => self.instruction(Class::Single, "cvt.f32.f16", &[&value]),
            (DType::F16, DType::F64) => self.instruction(Class::Double, "cvt.f64.f16", &[&value]),
            (DType::F32, DType::F16) => self.instruction(Class::Bits16, "cvt.rn.f16.f32", &[&value]),
            (DType::F64, DType::F16) => self.instruction(Class::Bits16, "cvt.rn.f16.f64", &[&value]),
            (DType::F32, DType::BF16) => self.instruction(Class::Bits16, "cvt.rn.bf16.f32", &[&value]),
            (DType::BF16, DType::F32) => {
                // bfloat16 is the upper half of f32; older targets lack the conversion.
                let code = self.instruction(Class::Bits32, "cvt.u32.u16", &[&value]);
                let code = self.instruction(Class::Bits32, "shl.b32", &[&code, &Value::integer(16)]);
                self.instruction(Class::Single, "mov.b32", &[&code])
            }
            (DType::BF16, DType::F64 | DType::F16) => {
                let wide = self.float_to_float(value, from, DType::F32)?;
                return self.float_to_float(wide, DType::F32, to);
            }
            (DType::F16, DType::BF16) => {
                let wide = self.float_to_float(value, from, DType::F32)?;
                return self.float_to_float(wide, DType::F32, to);
            }
            // Through f32 it would round twice.
            _ => return Err(self.type_error(format!("conversion of {from} to {to}"))),
        })
    }

    fn float_to_integer(&mut self, value: Value, from: DType, to: DType) -> Result<Value, Error> {
        let (value, from) = match from {
            DType::F32 | DType::F64 => (self.in_register(&value, from)?, from),
            _ => (self.float_to_float(value, from, DType::F32)?, DType::F32),
        };
        let class = self.class(Ty::scalar(to))?;
        let short = to.bits() < 32;
        let ty = if short { "s32" } else { suffix(to) };
        let mut result = self.instruction(class, &format!("cvt.rzi.{ty}.{}", suffix(from)), &[&value]);
        if from == DType::F64 || to.bits() == 64 {
            let number = self.test("num", suffix(from), &value, &value);
            result = self.select(class, &number, &result, &Value::integer(0));
        }
        if let (true, Some((low, high))) = (short, to.integer_range()) {
            result = self.instruction(class, "max.s32", &[&result, &Value::integer(low as i64)]);
            result = self.instruction(class, "min.s32", &[&result, &Value::integer(high as i64)]);
        }
        Ok(result)
    }

    fn integer_to_float(&mut self, value: Value, from: DType, to: DType) -> Result<Value, Error> {
        let value = self.in_register(&value, from)?;
        let (to, narrow) = if to == DType::BF16 { (DType::F32, true) } else { (to, false) };
        if narrow && from.bits() > 16 {
            return Err(self.type_error(format!("conversion of {from} to bf16")));
        }
        let class = self.class(Ty::scalar(to))?;
        let name = if to == DType::F16 { "f16" } else { suffix(to) };
        let result = self.instruction(class, &format!("cvt.rn.{name}.{}", suffix(from)), &[&value]);
        if narrow { self.float_to_float(result, DType::F32, DType::BF16) } else { Ok(result) }
    }

    fn integer_to_integer(&mut self, value: Value, from: DType, to: DType) -> Result<Value, Error> {
        let value = self.in_register(&value, from)?;
        let result = match (from.bits() == 64, to.bits() == 64) {
            (false, true) if from.is_signed() => self.instruction(Class::Bits64, "cvt.s64.s32", &[&value]),
            (false, true) => self.instruction(Class::Bits64, "cvt.u64.u32", &[&value]),
            (true, false) => self.instruction(Class::Bits32, "cvt.u32.u64", &[&value]),
            _ => value,
        };
        Ok(self.wrapped(to, result))
    }

    /// The same bits as another type.
    pub(super) fn bitcast(&mut self, value: Value, from: DType, to: DType) -> Result<Value, Error> {
        let (old, new) = (self.class(Ty::scalar(from))?, self.class(Ty::scalar(to))?);
        if from == DType::Bool || to == DType::Bool {
            return self.cast(value, from, to);
        }
        let value = self.in_register(&value, from)?;
        Ok(match (old, new) {
            (Class::Bits16, Class::Bits32) => {
                let wide = self.instruction(new, "cvt.u32.u16", &[&value]);
                self.wrapped(to, wide)
            }
            (Class::Bits32, Class::Bits16) => self.instruction(new, "cvt.u16.u32", &[&value]),
            _ if old == new => self.wrapped(to, value),
            _ => {
                let opcode = if from.bits() == 64 { "mov.b64" } else { "mov.b32" };
                self.instruction(new, opcode, &[&value])
            }
        })
    }
}
