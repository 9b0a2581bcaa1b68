//! Half precision in integer arithmetic: the same code for scalars and vectors, and no need of F16C.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use tcc_ir::dtype::DType;

use super::Lowering;
use super::lanes::{Lanes, lane_type};
use super::width::Narrow;

/// 2^112: the ratio of a half's exponent, placed in a single, to what it means.
const REBIAS: u32 = (127 + 112) << 23;
/// Adding 0.5 puts the last bit of a half's subnormal at the last bit of a single.
const SUBNORMAL: u32 = ((127 - 15) + (23 - 10) + 1) << 23;
/// Bit pattern of the smallest single that is a normal half.
const SMALLEST_NORMAL: u32 = 113 << 23;
/// Bit pattern of the smallest power of two that no half reaches.
const OVERFLOW: u32 = (127 + 16) << 23;
/// Bit pattern of infinity as a single.
const INFINITY: u32 = 255 << 23;

/// Bit pattern of the half nearest to a double, ties to even.
///
/// By way of a single that is rounded to odd, as [`Lowering::double_to_odd_single`] does at run time.
pub(super) fn nearest_half(value: f64) -> u16 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    let bits = nearest.to_bits();
    let odd = if back == value || value.is_nan() || bits & 1 == 1 {
        bits
    } else if value.abs() > back.abs() {
        bits + 1
    } else {
        bits - 1
    };
    half::f16::from_f32(f32::from_bits(odd)).to_bits()
}

impl Lowering<'_, '_> {
    /// A lane's constant for a value of `u32` bits, as register or scalar.
    fn word(&mut self, like: &Lanes, dtype: DType, bits: u32) -> Value {
        let lane = lane_type(dtype);
        if like.is_scalar() {
            self.scalar_bits(lane, u64::from(bits))
        } else {
            self.register_bits(lane, u64::from(bits))
        }
    }

    /// Exact. Exponent and fraction go to their places in a single, and a multiplication repairs the bias, subnormals
    /// included; infinity and NaN get the largest exponent instead.
    pub fn half_to_single(&mut self, a: &Lanes) -> Lanes {
        let raw = self.reinterpret(a, DType::U16, types::I16);
        let wide = self.cast(&raw, DType::U32);
        let magnitude_mask = self.word(a, DType::U32, 0x7fff);
        let sign_mask = self.word(a, DType::U32, 0x8000);
        let rebias = self.word(a, DType::F32, REBIAS);
        let largest = self.word(a, DType::U32, 0x7c00 << 13);
        let infinity = self.word(a, DType::U32, INFINITY);
        let (thirteen, sixteen) = (self.int(types::I32, 13), self.int(types::I32, 16));
        let bits = self.map(&wide, |this, x| {
            let magnitude = this.builder.ins().band(x, magnitude_mask);
            let placed = this.builder.ins().ishl(magnitude, thirteen);
            let float = this.as_single(placed);
            let scaled = this.builder.ins().fmul(float, rebias);
            let finite = this.float_bits(scaled);
            let special = this.builder.ins().bor(placed, infinity);
            // Magnitudes are below 2^31, so that a signed comparison serves.
            let is_finite = this.builder.ins().icmp(IntCC::SignedLessThan, placed, largest);
            let magnitude = this.pick(is_finite, finite, special);
            let sign = this.builder.ins().band(x, sign_mask);
            let sign = this.builder.ins().ishl(sign, sixteen);
            this.builder.ins().bor(magnitude, sign)
        });
        self.reinterpret(&bits, DType::F32, types::F32)
    }

    /// Rounds to nearest even.
    pub fn single_to_half(&mut self, a: &Lanes) -> Lanes {
        let word = |this: &mut Self, bits: u32| this.word(a, DType::U32, bits);
        let sign_mask = word(self, 0x8000_0000);
        let magnitude_mask = word(self, 0x7fff_ffff);
        let subnormal = self.word(a, DType::F32, SUBNORMAL);
        let subnormal_bits = word(self, SUBNORMAL);
        let smallest_normal = word(self, SMALLEST_NORMAL);
        let overflow = word(self, OVERFLOW);
        let infinity = word(self, INFINITY);
        let half_infinity = word(self, 0x7c00);
        let quiet = word(self, 0x7e00);
        // The change of bias, and just below half of the last place that stays.
        let round = word(self, (15u32.wrapping_sub(127) << 23).wrapping_add(0xfff));
        let one = word(self, 1);
        let (thirteen, sixteen) = (self.int(types::I32, 13), self.int(types::I32, 16));
        let bits = self.reinterpret(a, DType::U32, types::I32);
        let halves = self.map(&bits, |this, x| {
            let magnitude = this.builder.ins().band(x, magnitude_mask);
            let shifted = this.builder.ins().ushr(magnitude, thirteen);
            // Normal: add the rounding constant and the parity of the last place that stays, then drop the rest.
            let parity = this.builder.ins().band(shifted, one);
            let rounded = this.builder.ins().iadd(magnitude, round);
            let rounded = this.builder.ins().iadd(rounded, parity);
            let normal = this.builder.ins().ushr(rounded, thirteen);
            // Subnormal: let an addition of floats round at the right place.
            let float = this.as_single(magnitude);
            let aligned = this.builder.ins().fadd(float, subnormal);
            let aligned = this.float_bits(aligned);
            let small = this.builder.ins().isub(aligned, subnormal_bits);
            let is_small = this.builder.ins().icmp(IntCC::SignedLessThan, magnitude, smallest_normal);
            let finite = this.pick(is_small, small, normal);
            // NaN keeps the upper bits of its payload.
            let is_nan = this.builder.ins().icmp(IntCC::SignedGreaterThan, magnitude, infinity);
            let payload_mask = this.word(a, DType::U32, 0x3ff);
            let payload = this.builder.ins().band(shifted, payload_mask);
            let nan = this.builder.ins().bor(payload, quiet);
            let special = this.pick(is_nan, nan, half_infinity);
            let is_finite = this.builder.ins().icmp(IntCC::SignedLessThan, magnitude, overflow);
            let half = this.pick(is_finite, finite, special);
            let sign = this.builder.ins().band(x, sign_mask);
            let sign = this.builder.ins().ushr(sign, sixteen);
            this.builder.ins().bor(half, sign)
        });
        if a.is_scalar() {
            return Lanes::scalar(DType::F16, self.builder.ins().ireduce(types::I16, halves.parts[0]));
        }
        // The lanes hold 16 bits already: no masks are needed, only an unsigned narrowing.
        let parts = self.narrow(&halves.parts, types::I32, types::I16, Narrow::Unsigned);
        Lanes::vector(a.ty.with(DType::F16), types::I16, parts)
    }

    /// Rounds to single precision towards the neighbour with an odd last bit, so that rounding again is exact.
    ///
    /// S. Boldo, G. Melquiond, "When double rounding is odd" (2005).
    pub fn double_to_odd_single(&mut self, a: &Lanes) -> Lanes {
        self.each_lane(DType::F32, &[a], |this, args| {
            let nearest = this.builder.ins().fdemote(types::F32, args[0]);
            let back = this.builder.ins().fpromote(types::F64, nearest);
            // Ordered: false for NaN, which stays as it is.
            let inexact = this.builder.ins().fcmp(FloatCC::OrderedNotEqual, back, args[0]);
            let bits = this.float_bits(nearest);
            let one = this.int(types::I32, 1);
            let odd = this.builder.ins().band(bits, one);
            let even = this.builder.ins().bxor(odd, one);
            // An even result moves one place towards the exact value: away from zero if that is larger in magnitude.
            let (exact_size, back_size) = {
                let exact = this.builder.ins().fabs(args[0]);
                (exact, this.builder.ins().fabs(back))
            };
            let grows = this.builder.ins().fcmp(FloatCC::GreaterThan, exact_size, back_size);
            let minus_one = this.int(types::I32, -1);
            let step = this.builder.ins().select(grows, one, minus_one);
            let step = this.builder.ins().imul(step, even);
            let moved = this.builder.ins().iadd(bits, step);
            let result = this.builder.ins().select(inexact, moved, bits);
            this.as_single(result)
        })
    }

    /// Integer lanes as singles.
    fn as_single(&mut self, value: Value) -> Value {
        let ty = self.builder.func.dfg.value_type(value);
        let float = if ty.is_vector() { types::F32X4 } else { types::F32 };
        self.bitcast(float, value)
    }
}
