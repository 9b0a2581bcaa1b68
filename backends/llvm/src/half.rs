//! Conversions between 32-bit floats and the 16-bit formats, in integer arithmetic.
//!
//! 16-bit floats live in registers as `i16`: no target has all the operations on them, and an operation that a target lacks
//! would become a call into a compiler support library that nobody links. Both directions round to nearest, ties to even,
//! keep infinities, and map NaN to a quiet NaN, as IEEE 754 and ONNX `Cast` ask. They rely on subnormal `f32` values being
//! honoured, so the runtime must not switch on flush-to-zero.

use melior::ir::Type;

use crate::builder::{Builder, Order, Ssa, shaped};
use crate::error::Error;

/// A builder for `lanes` parallel conversions.
pub(crate) struct Half<'b, 'c> {
    builder: &'b Builder<'c>,
    lanes: u32,
    i16: Type<'c>,
    i32: Type<'c>,
    f32: Type<'c>,
}

impl<'b, 'c> Half<'b, 'c> {
    pub(crate) fn new(builder: &'b Builder<'c>, lanes: u32) -> Self {
        let of = |element| shaped(element, lanes);
        Self {
            builder,
            lanes,
            i16: of(builder.integer_type(16)),
            i32: of(builder.integer_type(32)),
            f32: of(builder.f32_type()),
        }
    }

    /// `bf16` bits to `f32`: exact, the format is the upper half.
    pub(crate) fn extend_bfloat(&self, bits: Ssa<'c>) -> Result<Ssa<'c>, Error> {
        let wide = self.builder.same_type("arith.extui", &[bits], self.i32)?;
        let shifted = self.binary("arith.shli", wide, self.constant(16)?)?;
        self.builder.same_type("arith.bitcast", &[shifted], self.f32)
    }

    /// `f32` to `bf16` bits.
    pub(crate) fn truncate_bfloat(&self, value: Ssa<'c>) -> Result<Ssa<'c>, Error> {
        let bits = self.builder.same_type("arith.bitcast", &[value], self.i32)?;
        let upper = self.binary("arith.shrui", bits, self.constant(16)?)?;
        let odd = self.binary("arith.andi", upper, self.constant(1)?)?;
        let bias = self.binary("arith.addi", odd, self.constant(0x7fff)?)?;
        let rounded = self.binary("arith.addi", bits, bias)?;
        let rounded = self.binary("arith.shrui", rounded, self.constant(16)?)?;
        // Rounding could carry a NaN with a small payload into infinity.
        let magnitude = self.binary("arith.andi", bits, self.constant(0x7fff_ffff)?)?;
        let is_nan = self.compare(Order::UnsignedGreater, magnitude, 0x7f80_0000)?;
        let quiet = self.binary("arith.ori", upper, self.constant(0x40)?)?;
        let result = self.select(is_nan, quiet, rounded)?;
        self.builder.same_type("arith.trunci", &[result], self.i16)
    }

    /// `f16` bits to `f32`: exact. Multiplying by 2^112 rebiases the exponent and normalizes subnormals in one step.
    pub(crate) fn extend_half(&self, bits: Ssa<'c>) -> Result<Ssa<'c>, Error> {
        let wide = self.builder.same_type("arith.extui", &[bits], self.i32)?;
        let sign = self.binary("arith.andi", wide, self.constant(0x8000)?)?;
        let sign = self.binary("arith.shli", sign, self.constant(16)?)?;
        let magnitude = self.binary("arith.andi", wide, self.constant(0x7fff)?)?;
        let magnitude = self.binary("arith.shli", magnitude, self.constant(13)?)?;
        let small = self.builder.same_type("arith.bitcast", &[magnitude], self.f32)?;
        let scale = self.builder.float(self.builder.f32_type(), self.lanes, 2f64.powi(112))?;
        let scaled = self.builder.same_type("arith.mulf", &[small, scale], self.f32)?;
        let finite = self.builder.same_type("arith.bitcast", &[scaled], self.i32)?;
        let special = self.binary("arith.ori", magnitude, self.constant(0x7f80_0000)?)?;
        let is_special = self.compare(Order::UnsignedGreaterEqual, magnitude, 0x0f80_0000)?;
        let result = self.select(is_special, special, finite)?;
        let result = self.binary("arith.ori", result, sign)?;
        self.builder.same_type("arith.bitcast", &[result], self.f32)
    }

    /// `f32` to `f16` bits. Adding 0.5 lets the float unit round results that are subnormal in the short format.
    pub(crate) fn truncate_half(&self, value: Ssa<'c>) -> Result<Ssa<'c>, Error> {
        let bits = self.builder.same_type("arith.bitcast", &[value], self.i32)?;
        let sign = self.binary("arith.andi", bits, self.constant(0x8000_0000)?)?;
        let magnitude = self.binary("arith.xori", bits, sign)?;

        let nan = self.constant(0x7e00)?;
        let infinity = self.constant(0x7c00)?;
        let is_nan = self.compare(Order::UnsignedGreater, magnitude, 0x7f80_0000)?;
        let overflow = self.select(is_nan, nan, infinity)?;

        let half = self.builder.float(self.builder.f32_type(), self.lanes, 0.5)?;
        let absolute = self.builder.same_type("arith.bitcast", &[magnitude], self.f32)?;
        let aligned = self.builder.same_type("arith.addf", &[absolute, half], self.f32)?;
        let aligned = self.builder.same_type("arith.bitcast", &[aligned], self.i32)?;
        let subnormal = self.binary("arith.subi", aligned, self.constant(0x3f00_0000)?)?;

        let odd = self.binary("arith.shrui", magnitude, self.constant(13)?)?;
        let odd = self.binary("arith.andi", odd, self.constant(1)?)?;
        // Rebias by 15 - 127 and add just under half a unit in the last place.
        let bias = i64::from((15i32 - 127) << 23) + 0xfff;
        let normal = self.binary("arith.addi", magnitude, self.constant(bias)?)?;
        let normal = self.binary("arith.addi", normal, odd)?;
        let normal = self.binary("arith.shrui", normal, self.constant(13)?)?;

        let is_subnormal = self.compare(Order::UnsignedLess, magnitude, 0x3880_0000)?;
        let result = self.select(is_subnormal, subnormal, normal)?;
        let is_overflow = self.compare(Order::UnsignedGreaterEqual, magnitude, 0x4780_0000)?;
        let result = self.select(is_overflow, overflow, result)?;
        let sign = self.binary("arith.shrui", sign, self.constant(16)?)?;
        let result = self.binary("arith.ori", result, sign)?;
        self.builder.same_type("arith.trunci", &[result], self.i16)
    }

    /// A 32-bit constant, given by its bits.
    fn constant(&self, bits: i64) -> Result<Ssa<'c>, Error> {
        self.builder.integer(self.builder.integer_type(32), self.lanes, i64::from(bits as u32 as i32))
    }

    fn binary(&self, name: &str, left: Ssa<'c>, right: Ssa<'c>) -> Result<Ssa<'c>, Error> {
        self.builder.same_type(name, &[left, right], self.i32)
    }

    fn compare(&self, order: Order, left: Ssa<'c>, right: i64) -> Result<Ssa<'c>, Error> {
        self.builder.compare_integers(order, [left, self.constant(right)?], self.lanes)
    }

    fn select(&self, condition: Ssa<'c>, yes: Ssa<'c>, no: Ssa<'c>) -> Result<Ssa<'c>, Error> {
        self.builder.select(condition, yes, no, self.i32)
    }
}
