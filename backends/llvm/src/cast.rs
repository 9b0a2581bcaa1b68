//! Conversions between element types.

use melior::ir::Type;
use tcc_ir::dtype::{Class, DType};
use tcc_kernel::ir::Ty;

use crate::builder::{Order, Ssa, shaped};
use crate::error::Error;
use crate::half::Half;
use crate::lower::{Lowering, Typed};

impl<'c> Lowering<'c, '_> {
    /// A conversion by the rules of [`tcc_ir::scalar::ScalarOp::Cast`].
    pub(crate) fn cast(&self, from: Typed<'c>, to: DType) -> Result<Ssa<'c>, Error> {
        if from.ty.dtype == to {
            return Ok(from.value);
        }
        match (from.ty.dtype.class(), to.class()) {
            (Class::Float, Class::Float) => self.float_to_float(from, to),
            (Class::Float, Class::Signed | Class::Unsigned) => self.float_to_integer(from, to),
            (Class::Signed | Class::Unsigned | Class::Bool, Class::Float) => self.integer_to_float(from, to),
            (_, Class::Bool) => self.to_bool(from),
            _ => self.integer_to_integer(from, to),
        }
    }

    /// A conversion by the rules of [`tcc_ir::scalar::ScalarOp::CastAlternate`]: integers saturate.
    pub(crate) fn cast_alternate(&self, from: Typed<'c>, to: DType) -> Result<Ssa<'c>, Error> {
        let (Some((low, high)), Some((to_low, to_high))) =
            (from.ty.dtype.integer_range(), to.integer_range())
        else {
            return self.cast(from, to);
        };
        let r#type = self.register_type(from.ty)?;
        let signed = from.ty.dtype.is_signed();
        let mut value = from.value;
        // The bounds fit the source type, since each is applied only where it lies inside the source's range.
        if to_low > low {
            let bound = self.integer(from.ty, to_low as i64)?;
            value = self.builder.same_type("arith.maxsi", &[value, bound], r#type)?;
        }
        if to_high < high {
            let bound = self.integer(from.ty, to_high as i64)?;
            value = self.builder.same_type(
                if signed { "arith.minsi" } else { "arith.minui" },
                &[value, bound],
                r#type,
            )?;
        }
        self.cast(Typed { value, ty: from.ty }, to)
    }

    /// The same bits as another type of equal width.
    pub(crate) fn bitcast(&self, from: Typed<'c>, to: DType) -> Result<Ssa<'c>, Error> {
        let to_type = self.register_type(from.ty.with(to))?;
        if from.ty.dtype == DType::Bool && to != DType::Bool {
            return self.builder.same_type("arith.extui", &[from.value], to_type);
        }
        if to == DType::Bool {
            return self.to_bool(from);
        }
        if self.register_type(from.ty)? == to_type {
            return Ok(from.value);
        }
        self.builder.same_type("arith.bitcast", &[from.value], to_type)
    }

    fn float_to_float(&self, from: Typed<'c>, to: DType) -> Result<Ssa<'c>, Error> {
        let lanes = u32::from(from.ty.lanes);
        let half = Half::new(&self.builder, lanes);
        let f32 = self.register_type(from.ty.with(DType::F32))?;
        let f64 = self.register_type(from.ty.with(DType::F64))?;
        let single = match from.ty.dtype {
            DType::F32 => from.value,
            DType::F64 if to == DType::F32 => {
                return self.builder.same_type("arith.truncf", &[from.value], f32);
            }
            DType::F64 => self.round_to_odd(from)?,
            DType::BF16 => half.extend_bfloat(from.value)?,
            DType::F16 if self.target.converts_half() => {
                let bits = self.builder.same_type("arith.bitcast", &[from.value], self.half_type(lanes))?;
                self.builder.same_type("arith.extf", &[bits], f32)?
            }
            DType::F16 => half.extend_half(from.value)?,
            other => return Err(self.unsupported(format!("a cast from {other}"))),
        };
        match to {
            DType::F32 => Ok(single),
            DType::F64 => self.builder.same_type("arith.extf", &[single], f64),
            DType::BF16 => half.truncate_bfloat(single),
            DType::F16 if self.target.converts_half() => {
                let narrow = self.builder.same_type("arith.truncf", &[single], self.half_type(lanes))?;
                let bits = self.register_type(from.ty.with(DType::F16))?;
                self.builder.same_type("arith.bitcast", &[narrow], bits)
            }
            DType::F16 => half.truncate_half(single),
            other => Err(self.unsupported(format!("a cast to {other}"))),
        }
    }

    fn half_type(&self, lanes: u32) -> Type<'c> {
        shaped(self.builder.f16_type(), lanes)
    }

    /// An `f64` as `f32`, rounded to the neighbour with an odd last bit where it is inexact, so that rounding it again to a
    /// 16-bit format gives what rounding once would have given (Boldo and Melquiond, 2008).
    fn round_to_odd(&self, from: Typed<'c>) -> Result<Ssa<'c>, Error> {
        let lanes = u32::from(from.ty.lanes);
        let single = from.ty.with(DType::F32);
        let bits_ty = from.ty.with(DType::U32);
        let [f32, f64, u32] =
            [self.register_type(single)?, self.register_type(from.ty)?, self.register_type(bits_ty)?];
        let nearest = self.builder.same_type("arith.truncf", &[from.value], f32)?;
        let back = self.builder.same_type("arith.extf", &[nearest], f64)?;
        let bits = self.builder.same_type("arith.bitcast", &[nearest], u32)?;
        let one = self.integer(bits_ty, 1)?;
        let zero = self.integer(bits_ty, 0)?;

        let magnitudes = [
            self.builder.same_type("math.absf", &[back], f64)?,
            self.builder.same_type("math.absf", &[from.value], f64)?,
        ];
        let away = self.builder.compare_floats(Order::Greater, magnitudes, lanes)?;
        let step = self.builder.select(away, one, zero, u32)?;
        let truncated = self.builder.same_type("arith.subi", &[bits, step], u32)?;
        let odd = self.builder.same_type("arith.ori", &[truncated, one], u32)?;
        let inexact = self.builder.compare_floats(Order::NotEqual, [back, from.value], lanes)?;
        let bits = self.builder.select(inexact, odd, bits, u32)?;
        self.builder.same_type("arith.bitcast", &[bits], f32)
    }

    /// Towards zero, saturating; NaN gives zero.
    fn float_to_integer(&self, from: Typed<'c>, to: DType) -> Result<Ssa<'c>, Error> {
        let from = self.widen(from)?;
        if matches!(self.target.architecture(), "aarch64" | "riscv64") {
            // Their conversions saturate by themselves.
            let name = if to.is_signed() { "llvm.fptosi.sat" } else { "llvm.fptoui.sat" };
            return self.builder.intrinsic(name, &[from.value], self.register_type(from.ty.with(to))?);
        }
        let Some((low, high)) = to.integer_range() else {
            return Err(self.malformed(format!("{to} is no integer type")));
        };
        let lanes = u32::from(from.ty.lanes);
        let element = self.element_type(from.ty.dtype)?;
        let float = self.register_type(from.ty)?;
        let constant = |value: f64| self.builder.float(element, lanes, value);

        // Everything is brought into the range first: a conversion that does not fit has no defined result. A lower bound of
        // zero takes NaN along; the other bounds would turn it into themselves.
        let mut value = from.value;
        if low < 0 {
            let is_nan = self.builder.compare_floats(Order::Unordered, [value, value], lanes)?;
            value = self.builder.select(is_nan, constant(0.0)?, value, float)?;
        }
        let inside = largest_within(from.ty.dtype, high);
        for (order, bound) in [(Order::Greater, low as f64), (Order::Less, inside)] {
            let bound = constant(bound)?;
            let keeps = self.builder.compare_floats(order, [value, bound], lanes)?;
            value = self.builder.select(keeps, value, bound, float)?;
        }

        let wide = if to.bits() < 32 { DType::I32 } else { to };
        let name = if wide.is_signed() { "arith.fptosi" } else { "arith.fptoui" };
        let converted = self.builder.same_type(name, &[value], self.register_type(from.ty.with(wide))?)?;
        if inside as i128 == high {
            return self.integer_to_integer(Typed { value: converted, ty: from.ty.with(wide) }, to);
        }
        // The largest integer is no float: what reaches past it is put in place afterwards.
        let limit = constant(high as f64)?;
        let beyond = self.builder.compare_floats(Order::UnsignedGreaterEqual, [from.value, limit], lanes)?;
        let largest = self.integer(from.ty.with(to), high as i64)?;
        self.builder.select(beyond, largest, converted, self.register_type(from.ty.with(to))?)
    }

    fn integer_to_float(&self, from: Typed<'c>, to: DType) -> Result<Ssa<'c>, Error> {
        let name = if from.ty.dtype.is_signed() { "arith.sitofp" } else { "arith.uitofp" };
        match to {
            DType::F32 | DType::F64 => {
                self.builder.same_type(name, &[from.value], self.register_type(from.ty.with(to))?)
            }
            _ => {
                // f64 holds all but the largest 64-bit integers, which overflow or lose far more in 16 bits.
                let wide = from.ty.with(DType::F64);
                let value = self.builder.same_type(name, &[from.value], self.register_type(wide)?)?;
                self.float_to_float(Typed { value, ty: wide }, to)
            }
        }
    }

    fn integer_to_integer(&self, from: Typed<'c>, to: DType) -> Result<Ssa<'c>, Error> {
        let r#type = self.register_type(from.ty.with(to))?;
        let width = |dtype: DType| if dtype == DType::Bool { 1 } else { dtype.bits() };
        let name = match width(to).cmp(&width(from.ty.dtype)) {
            std::cmp::Ordering::Less => "arith.trunci",
            std::cmp::Ordering::Equal => return Ok(from.value),
            std::cmp::Ordering::Greater if from.ty.dtype.is_signed() => "arith.extsi",
            std::cmp::Ordering::Greater => "arith.extui",
        };
        self.builder.same_type(name, &[from.value], r#type)
    }

    /// True for everything but zero; NaN is true.
    fn to_bool(&self, from: Typed<'c>) -> Result<Ssa<'c>, Error> {
        let lanes = u32::from(from.ty.lanes);
        if from.ty.dtype.is_float() {
            let from = self.widen(from)?;
            let zero = self.builder.float(self.element_type(from.ty.dtype)?, lanes, 0.0)?;
            return self.builder.compare_floats(Order::NotEqual, [from.value, zero], lanes);
        }
        let zero = self.integer(from.ty, 0)?;
        self.builder.compare_integers(Order::NotEqual, [from.value, zero], lanes)
    }

    /// A 16-bit float as `f32`; others as they are.
    fn widen(&self, from: Typed<'c>) -> Result<Typed<'c>, Error> {
        if !matches!(from.ty.dtype, DType::F16 | DType::BF16) {
            return Ok(from);
        }
        Ok(Typed { value: self.float_to_float(from, DType::F32)?, ty: Ty { dtype: DType::F32, ..from.ty } })
    }
}

/// The largest number of a floating-point type that is not above an integer of the form `2^n - 1`.
fn largest_within(dtype: DType, integer: i128) -> f64 {
    let digits = if dtype == DType::F32 { f32::MANTISSA_DIGITS } else { f64::MANTISSA_DIGITS };
    let width = i128::BITS - integer.leading_zeros();
    let dropped = width.saturating_sub(digits);
    ((integer >> dropped) << dropped) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_conversions_are_exact() {
        assert_eq!(largest_within(DType::F32, 127), 127.0);
        assert_eq!(largest_within(DType::F32, i128::from(i32::MAX)), 2147483520.0);
        assert_eq!(largest_within(DType::F64, i128::from(i32::MAX)), 2147483647.0);
        assert_eq!(largest_within(DType::F64, i128::from(u64::MAX)), 18446744073709549568.0);
    }
}
