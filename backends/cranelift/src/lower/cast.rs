//! Conversions between the core types.
//!
//! Vectors of up to 32-bit lanes convert as vectors; what involves 64-bit lanes, apart from widening and narrowing, goes
//! lane by lane: 128-bit machines have no instructions for it.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Scalar};

use super::Lowering;
use super::lanes::{Lanes, Origin, Parts, bits_of, bits_type, lane_type, register};
use super::width::Narrow;

impl Lowering<'_, '_> {
    /// [`tcc_ir::scalar::ScalarOp::Cast`].
    pub fn cast(&mut self, a: &Lanes, to: DType) -> Lanes {
        let from = a.ty.dtype;
        match (from, to) {
            _ if from == to => return a.clone(),
            (_, DType::Bool) => return self.test(a),
            (DType::Bool, _) => return self.number_of_truth(a, to),
            (DType::F16, DType::F32) => return self.half_to_single(a),
            (DType::F16, _) => {
                let single = self.half_to_single(a);
                return self.cast(&single, to);
            }
            (DType::F32, DType::F16) => return self.single_to_half(a),
            (DType::F64, DType::F16) => {
                let odd = self.double_to_odd_single(a);
                return self.single_to_half(&odd);
            }
            (_, DType::F16) => {
                // Integers that f32 does not hold exactly are above the range of f16 by far.
                let single = self.cast(a, DType::F32);
                return self.single_to_half(&single);
            }
            _ => {}
        }
        if from.is_integer() && to.is_integer() {
            return self.integer_to_integer(a, to);
        }
        if !a.is_scalar() {
            let parts = match (from, to) {
                (DType::F32, DType::F64) => Some(self.promote(a)),
                (DType::F64, DType::F32) => Some(self.demote(a)),
                (DType::F32, _) if to.bits() <= 32 => Some(self.single_to_integer(a, to)),
                (_, DType::F32) if from.bits() <= 32 => Some(self.integer_to_single(a)),
                _ => None,
            };
            if let Some(parts) = parts {
                return Lanes::vector(a.ty.with(to), lane_type(to), parts);
            }
        }
        self.each_lane(to, &[a], |this, args| this.cast_scalar(args[0], from, to))
    }

    /// [`tcc_ir::scalar::ScalarOp::CastAlternate`]: integers saturate.
    pub fn cast_saturating(&mut self, a: &Lanes, to: DType) -> Lanes {
        let from = a.ty.dtype;
        if !(from.is_integer() && to.is_integer()) {
            return self.cast(a, to);
        }
        let ((low, high), (to_low, to_high)) = match (from.integer_range(), to.integer_range()) {
            (Some(from), Some(to)) => (from, to),
            _ => unreachable!("integers have ranges"),
        };
        let mut value = a.clone();
        let limit = |bound: i128| Scalar { dtype: from, bits: bound as u64 };
        if to_low > low {
            let bound = self.constant(limit(to_low), a.ty.lanes);
            value = self.binary(Function::Max, &value, &bound);
        }
        if to_high < high {
            let bound = self.constant(limit(to_high), a.ty.lanes);
            value = self.binary(Function::Min, &value, &bound);
        }
        self.cast(&value, to)
    }

    /// [`tcc_ir::scalar::ScalarOp::Bitcast`]; truth values are bytes, of which all but zero are true.
    pub fn bitcast_lanes(&mut self, a: &Lanes, to: DType) -> Lanes {
        match (a.ty.dtype, to) {
            (DType::Bool, DType::Bool) => a.clone(),
            (DType::Bool, _) => {
                let byte = self.cast(a, DType::U8);
                self.bitcast_lanes(&byte, to)
            }
            (_, DType::Bool) => self.test(a),
            _ => self.reinterpret(a, to, lane_type(to)),
        }
    }

    /// True where a number is not zero.
    fn test(&mut self, a: &Lanes) -> Lanes {
        if a.ty.dtype == DType::F16 {
            let single = self.half_to_single(a);
            return self.test(&single);
        }
        let zero = self.zero(a.ty);
        let parts = a
            .parts
            .iter()
            .map(|x| {
                if a.ty.dtype.is_float() {
                    self.builder.ins().fcmp(FloatCC::NotEqual, *x, zero.parts[0])
                } else {
                    self.builder.ins().icmp(IntCC::NotEqual, *x, zero.parts[0])
                }
            })
            .collect();
        let lane = if a.is_scalar() { types::I8 } else { bits_type(a.lane) };
        Lanes { ty: a.ty.with(DType::Bool), lane, parts, origin: Origin::Any }
    }

    /// One where true, zero where false.
    fn number_of_truth(&mut self, a: &Lanes, to: DType) -> Lanes {
        let lane = lane_type(to);
        let one = bits_of(Scalar::of(to, 1.0));
        if a.is_scalar() {
            let (yes, no) = (self.scalar_bits(lane, one), self.scalar_bits(lane, 0));
            return Lanes::scalar(to, self.builder.ins().select(a.parts[0], yes, no));
        }
        let masks = self.mask_of(a, lane);
        let one = self.register_bits(bits_type(lane), one);
        let parts = masks
            .iter()
            .map(|mask| {
                let bits = self.builder.ins().band(*mask, one);
                self.bitcast(register(lane), bits)
            })
            .collect();
        Lanes::vector(a.ty.with(to), lane, parts)
    }

    fn integer_to_integer(&mut self, a: &Lanes, to: DType) -> Lanes {
        let (from, lane) = (a.ty.dtype, lane_type(to));
        if a.is_scalar() {
            return Lanes::scalar(to, self.cast_scalar(a.parts[0], from, to));
        }
        let parts = if a.lane.bits() < lane.bits() {
            self.widen(&a.parts, a.lane, lane, a.ty.lanes, from.is_signed())
        } else {
            self.narrow(&a.parts, a.lane, lane, Narrow::Wrap)
        };
        Lanes::vector(a.ty.with(to), lane, parts)
    }

    fn single_to_integer(&mut self, a: &Lanes, to: DType) -> Parts {
        let words = a
            .parts
            .iter()
            .map(|x| {
                if to == DType::U32 {
                    self.builder.ins().fcvt_to_uint_sat(types::I32X4, *x)
                } else {
                    self.builder.ins().fcvt_to_sint_sat(types::I32X4, *x)
                }
            })
            .collect();
        // Saturating again on the way down is what saturating to the narrow type means.
        let how = if to.is_signed() { Narrow::Signed } else { Narrow::Unsigned };
        self.narrow(&words, types::I32, lane_type(to), how)
    }

    fn integer_to_single(&mut self, a: &Lanes) -> Parts {
        let words = self.widen(&a.parts, a.lane, types::I32, a.ty.lanes, a.ty.dtype.is_signed());
        words
            .iter()
            .map(|x| {
                if a.ty.dtype == DType::U32 {
                    self.builder.ins().fcvt_from_uint(types::F32X4, *x)
                } else {
                    self.builder.ins().fcvt_from_sint(types::F32X4, *x)
                }
            })
            .collect()
    }

    fn promote(&mut self, a: &Lanes) -> Parts {
        let mut parts = Parts::new();
        let upper: Vec<u8> = (8..16).chain(8..16).collect();
        for (number, part) in a.parts.iter().enumerate() {
            parts.push(self.builder.ins().fvpromote_low(*part));
            if usize::from(a.ty.lanes) > number * 4 + 2 {
                let bytes = self.shuffle_bytes(*part, *part, &upper);
                let high = self.bitcast(types::F32X4, bytes);
                parts.push(self.builder.ins().fvpromote_low(high));
            }
        }
        parts
    }

    fn demote(&mut self, a: &Lanes) -> Parts {
        let joined: Vec<u8> = (0..8).chain(16..24).collect();
        a.parts
            .chunks(2)
            .map(|pair| {
                let low = self.builder.ins().fvdemote(pair[0]);
                let Some(high) = pair.get(1) else { return low };
                let high = self.builder.ins().fvdemote(*high);
                let bytes = self.shuffle_bytes(low, high, &joined);
                self.bitcast(types::F32X4, bytes)
            })
            .collect()
    }

    /// Conversion of one number; neither type is a truth value or f16.
    fn cast_scalar(&mut self, x: Value, from: DType, to: DType) -> Value {
        let target = lane_type(to);
        match (from.is_float(), to.is_float()) {
            (true, true) if to == DType::F64 => self.builder.ins().fpromote(types::F64, x),
            (true, true) => self.builder.ins().fdemote(types::F32, x),
            (false, true) => {
                let x = if from.bits() < 32 { self.extend(x, from, DType::I32) } else { x };
                if from.is_signed() {
                    self.builder.ins().fcvt_from_sint(target, x)
                } else {
                    self.builder.ins().fcvt_from_uint(target, x)
                }
            }
            (false, false) if from.bits() < to.bits() => self.extend(x, from, to),
            (false, false) if from.bits() > to.bits() => self.builder.ins().ireduce(target, x),
            (false, false) => x,
            (true, false) => self.float_to_integer(x, to),
        }
    }

    fn extend(&mut self, x: Value, from: DType, to: DType) -> Value {
        if from.is_signed() {
            self.builder.ins().sextend(lane_type(to), x)
        } else {
            self.builder.ins().uextend(lane_type(to), x)
        }
    }

    /// Towards zero, saturating, NaN to zero.
    fn float_to_integer(&mut self, x: Value, to: DType) -> Value {
        let wide = if to.bits() == 64 { types::I64 } else { types::I32 };
        if !to.is_signed() {
            let x = self.builder.ins().fcvt_to_uint_sat(wide, x);
            if to.bits() >= 32 {
                return x;
            }
            let limit = self.int(wide, (1 << to.bits()) - 1);
            let x = self.builder.ins().umin(x, limit);
            return self.builder.ins().ireduce(lane_type(to), x);
        }
        let x = self.builder.ins().fcvt_to_sint_sat(wide, x);
        if to.bits() >= 32 {
            return x;
        }
        let high = self.int(wide, (1 << (to.bits() - 1)) - 1);
        let low = self.int(wide, -(1 << (to.bits() - 1)));
        let x = self.builder.ins().smin(x, high);
        let x = self.builder.ins().smax(x, low);
        self.builder.ins().ireduce(lane_type(to), x)
    }
}
