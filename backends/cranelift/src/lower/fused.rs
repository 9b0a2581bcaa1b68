//! `a * b + c` with one rounding on processors without an instruction for it.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{AbiParam, Function, InstBuilder, MemFlagsData, Signature, Value, types};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use tcc_ir::dtype::DType;
use tcc_kernel::Kernel;
use tcc_kernel::ir::Expr;

use super::Lowering;
use super::lanes::Lanes;

/// Bits of the fraction of a double.
const FRACTION: i64 = 52;
/// Exponent field of infinity and NaN.
const SPECIAL: i64 = 0x7ff;
/// Distance of the exponent field from the power of two of a significand taken as an integer.
const BIAS: i64 = 1075;

/// True where a kernel multiplies and adds in double precision.
pub(crate) fn needs_fma_double(kernel: &Kernel) -> bool {
    let mut found = false;
    for stmt in &kernel.body {
        stmt.visit_exprs(&mut |expr| {
            expr.visit(&mut |part| {
                found |= matches!(part, Expr::Fma(_, _, c) if kernel.type_of(c).dtype == DType::F64);
            });
        });
    }
    found
}

/// `double fma(double, double, double)`.
pub(crate) fn fma_double_signature(call_conv: CallConv) -> Signature {
    let mut signature = Signature::new(call_conv);
    signature.params.extend([AbiParam::new(types::F64); 3]);
    signature.returns.push(AbiParam::new(types::F64));
    signature
}

impl Lowering<'_, '_> {
    /// In double precision the product is exact; the sum is rounded to odd, so that rounding it again is exact.
    ///
    /// S. Boldo, G. Melquiond, "Emulation of a FMA and correctly rounded sums" (2008).
    pub fn fma_single(&mut self, a: Value, b: Value, c: Value) -> Value {
        let [a, b, c] = [a, b, c].map(|x| self.builder.ins().fpromote(types::F64, x));
        let product = self.builder.ins().fmul(a, b);
        let sum = self.builder.ins().fadd(product, c);
        // Knuth's two-sum: `sum + error` is the exact sum.
        let c_part = self.builder.ins().fsub(sum, product);
        let product_part = self.builder.ins().fsub(sum, c_part);
        let c_error = self.builder.ins().fsub(c, c_part);
        let product_error = self.builder.ins().fsub(product, product_part);
        let error = self.builder.ins().fadd(product_error, c_error);
        let zero = self.builder.ins().f64const(0.0);
        // Ordered: false where infinities or NaN made the error NaN.
        let inexact = self.builder.ins().fcmp(FloatCC::OrderedNotEqual, error, zero);
        let bits = self.float_bits(sum);
        let one = self.int(types::I64, 1);
        let odd = self.builder.ins().band(bits, one);
        let even = self.builder.ins().bxor(odd, one);
        // Towards the exact sum: away from zero where the error has the sign of the sum.
        let error_bits = self.float_bits(error);
        let signs = self.builder.ins().bxor(bits, error_bits);
        let shrinks = self.builder.ins().icmp_imm_s(IntCC::SignedLessThan, signs, 0);
        let minus_one = self.int(types::I64, -1);
        let step = self.builder.ins().select(shrinks, minus_one, one);
        let step = self.builder.ins().imul(step, even);
        let moved = self.builder.ins().iadd(bits, step);
        let bits = self.builder.ins().select(inexact, moved, bits);
        let odd_sum = self.bitcast(types::F64, bits);
        self.builder.ins().fdemote(types::F32, odd_sum)
    }

    /// A call of the function that [`fma_double`] makes.
    pub fn fma_double(&mut self, a: Value, b: Value, c: Value) -> Value {
        match self.fma_double {
            Some(function) => {
                let call = self.builder.ins().call(function, &[a, b, c]);
                self.builder.inst_results(call)[0]
            }
            // It is declared wherever `needs_fma_double` holds.
            None => self.zero(Lanes::scalar(DType::F64, c).ty).parts[0],
        }
    }
}

/// A finite number other than zero as `significand * 2^exponent`, with 53 significant bits.
struct Number {
    sign: Value,
    significand: Value,
    exponent: Value,
}

struct Fma<'f> {
    builder: FunctionBuilder<'f>,
}

/// Fills in `fma` for doubles in 128-bit integer arithmetic.
///
/// Product and addend are aligned with a sticky bit for what is shifted out, added, and rounded once to nearest even.
pub(crate) fn fma_double(
    config: TargetFrontendConfig,
    function: &mut Function,
    context: &mut FunctionBuilderContext,
) {
    let mut builder = FunctionBuilder::new(function, context);
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    builder.seal_block(entry);
    let [a, b, c] = *builder.block_params(entry) else { unreachable!("fma has three arguments") };
    let mut fma = Fma { builder };
    fma.body(a, b, c);
    fma.builder.finalize(config);
}

impl Fma<'_> {
    fn bits(&mut self, x: Value) -> Value {
        self.builder.ins().bitcast(types::I64, MemFlagsData::new(), x)
    }

    fn word(&mut self, value: i64) -> Value {
        self.builder.ins().iconst(types::I64, value)
    }

    fn wide(&mut self, low: Value) -> Value {
        self.builder.ins().uextend(types::I128, low)
    }

    /// True where the exponent field is neither that of infinity and NaN nor the value is zero.
    fn is_ordinary(&mut self, bits: Value) -> Value {
        let finite = self.is_finite(bits);
        let magnitude = self.builder.ins().ishl_imm_u(bits, 1);
        let nonzero = self.builder.ins().icmp_imm_s(IntCC::NotEqual, magnitude, 0);
        self.builder.ins().band(finite, nonzero)
    }

    fn is_finite(&mut self, bits: Value) -> Value {
        let field = self.builder.ins().ushr_imm_u(bits, FRACTION);
        let field = self.builder.ins().band_imm_s(field, SPECIAL);
        self.builder.ins().icmp_imm_s(IntCC::NotEqual, field, SPECIAL)
    }

    fn unpack(&mut self, bits: Value) -> Number {
        let sign = self.builder.ins().ushr_imm_u(bits, 63);
        let field = self.builder.ins().ushr_imm_u(bits, FRACTION);
        let field = self.builder.ins().band_imm_s(field, SPECIAL);
        let fraction = self.builder.ins().band_imm_s(bits, (1 << FRACTION) - 1);
        let normal = self.builder.ins().icmp_imm_s(IntCC::NotEqual, field, 0);
        let hidden = self.word(1 << FRACTION);
        let zero = self.word(0);
        let hidden = self.builder.ins().select(normal, hidden, zero);
        let significand = self.builder.ins().bor(fraction, hidden);
        let one = self.word(1);
        let field = self.builder.ins().smax(field, one);
        // Subnormal numbers move up to 53 significant bits.
        let zeros = self.builder.ins().clz(significand);
        let shift = self.builder.ins().iadd_imm_s(zeros, -(63 - FRACTION));
        let significand = self.builder.ins().ishl(significand, shift);
        let exponent = self.builder.ins().isub(field, shift);
        let exponent = self.builder.ins().iadd_imm_s(exponent, -BIAS);
        Number { sign, significand, exponent }
    }

    /// `value >> by` for `0 <= by`, with the last bit set where a set bit was shifted out. `value` is below 2^127.
    fn shift_sticky(&mut self, value: Value, by: Value) -> Value {
        let limit = self.word(127);
        let by = self.builder.ins().umin(by, limit);
        let shifted = self.builder.ins().ushr(value, by);
        let back = self.builder.ins().ishl(shifted, by);
        let lost = self.builder.ins().icmp(IntCC::NotEqual, back, value);
        let lost = self.builder.ins().uextend(types::I128, lost);
        self.builder.ins().bor(shifted, lost)
    }

    fn body(&mut self, a: Value, b: Value, c: Value) {
        let (a_bits, b_bits, c_bits) = (self.bits(a), self.bits(b), self.bits(c));
        let ordinary = [a_bits, b_bits, c_bits].map(|bits| self.is_ordinary(bits));
        let both = self.builder.ins().band(ordinary[0], ordinary[1]);
        let all = self.builder.ins().band(both, ordinary[2]);
        let (special, exact) = (self.builder.create_block(), self.builder.create_block());
        self.builder.ins().brif(all, exact, &[], special, &[]);

        self.builder.switch_to_block(special);
        self.builder.seal_block(special);
        let product = self.builder.ins().fmul(a, b);
        let sum = self.builder.ins().fadd(product, c);
        // A product of ordinary numbers may overflow or vanish; then a special `c`, and only it, decides: infinity and NaN
        // are the result, and zero leaves the product, rounded once.
        let c_finite = self.is_finite(c_bits);
        let of_ordinary = self.builder.ins().select(c_finite, product, c);
        let result = self.builder.ins().select(both, of_ordinary, sum);
        self.builder.ins().return_(&[result]);

        self.builder.switch_to_block(exact);
        self.builder.seal_block(exact);
        let (x, y, z) = (self.unpack(a_bits), self.unpack(b_bits), self.unpack(c_bits));
        // Both get their leading bit at 124 or 125: the sum stays below 2^127.
        let low = self.builder.ins().imul(x.significand, y.significand);
        let high = self.builder.ins().umulhi(x.significand, y.significand);
        let product = self.builder.ins().iconcat(low, high);
        let up = self.word(20);
        let product = self.builder.ins().ishl(product, up);
        let product_exponent = self.builder.ins().iadd(x.exponent, y.exponent);
        let product_exponent = self.builder.ins().iadd_imm_s(product_exponent, -20);
        let product_sign = self.builder.ins().bxor(x.sign, y.sign);
        let addend = self.wide(z.significand);
        let up = self.word(72);
        let addend = self.builder.ins().ishl(addend, up);
        let addend_exponent = self.builder.ins().iadd_imm_s(z.exponent, -72);

        let distance = self.builder.ins().isub(product_exponent, addend_exponent);
        let back = self.builder.ins().ineg(distance);
        let zero = self.word(0);
        let addend_down = self.builder.ins().smax(distance, zero);
        let product_down = self.builder.ins().smax(back, zero);
        let addend = self.shift_sticky(addend, addend_down);
        let product = self.shift_sticky(product, product_down);
        let exponent = self.builder.ins().smax(product_exponent, addend_exponent);

        let subtract = self.builder.ins().icmp(IntCC::NotEqual, product_sign, z.sign);
        let larger = self.builder.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, product, addend);
        let total = self.builder.ins().iadd(product, addend);
        let difference = self.builder.ins().isub(product, addend);
        let reverse = self.builder.ins().isub(addend, product);
        let difference = self.builder.ins().select(larger, difference, reverse);
        let difference_sign = self.builder.ins().select(larger, product_sign, z.sign);
        let sum = self.builder.ins().select(subtract, difference, total);
        let sign = self.builder.ins().select(subtract, difference_sign, product_sign);
        let result = self.round(sum, exponent, sign);
        self.builder.ins().return_(&[result]);
    }

    /// The double nearest to `sum * 2^exponent`, ties to even; `sum` is below 2^127 and zero is positive.
    fn round(&mut self, sum: Value, exponent: Value, sign: Value) -> Value {
        let (low, high) = self.builder.ins().isplit(sum);
        let any = self.builder.ins().bor(low, high);
        let is_zero = self.builder.ins().icmp_imm_s(IntCC::Equal, any, 0);
        // Leading bit to 125. A sum of numbers with it at 124 or 125 has it at 126 at most.
        let zeros_high = self.builder.ins().clz(high);
        let zeros_low = self.builder.ins().clz(low);
        let zeros_low = self.builder.ins().iadd_imm_s(zeros_low, 64);
        let high_empty = self.builder.ins().icmp_imm_s(IntCC::Equal, high, 0);
        let zeros = self.builder.ins().select(high_empty, zeros_low, zeros_high);
        // Down by two with a sticky bit first, so that the move that follows is always up.
        let two = self.word(2);
        let sum = self.shift_sticky(sum, two);
        let limit = self.word(127);
        let zeros = self.builder.ins().umin(zeros, limit);
        let sum = self.builder.ins().ishl(sum, zeros);
        let exponent = self.builder.ins().isub(exponent, zeros);
        let exponent = self.builder.ins().iadd_imm_s(exponent, 2);
        // Weight of the result's last place: 52 below the leading bit, but not below that of subnormal numbers.
        let place = self.builder.ins().iadd_imm_s(exponent, 125 - FRACTION);
        let smallest = self.word(1 - BIAS);
        let place = self.builder.ins().smax(place, smallest);
        let shift = self.builder.ins().isub(place, exponent);
        let limit = self.word(127);
        let shift = self.builder.ins().umin(shift, limit);
        let kept = self.builder.ins().ushr(sum, shift);
        let back = self.builder.ins().ishl(kept, shift);
        let rest = self.builder.ins().isub(sum, back);
        let one = self.word(1);
        let one_wide = self.wide(one);
        let half_shift = self.builder.ins().iadd_imm_s(shift, -1);
        let half = self.builder.ins().ishl(one_wide, half_shift);
        let above = self.builder.ins().icmp(IntCC::UnsignedGreaterThan, rest, half);
        let tie = self.builder.ins().icmp(IntCC::Equal, rest, half);
        let kept = self.builder.ins().ireduce(types::I64, kept);
        let odd = self.builder.ins().band_imm_s(kept, 1);
        let odd = self.builder.ins().ireduce(types::I8, odd);
        let tie_up = self.builder.ins().band(tie, odd);
        let up = self.builder.ins().bor(above, tie_up);
        let up = self.builder.ins().uextend(types::I64, up);
        let rounded = self.builder.ins().iadd(kept, up);
        // The hidden bit, and a carry out of the significand, add one to the exponent field.
        let field = self.builder.ins().iadd_imm_s(place, BIAS - 1);
        let field = self.builder.ins().ishl_imm_u(field, FRACTION);
        let magnitude = self.builder.ins().iadd(rounded, field);
        let infinity = self.word(SPECIAL << FRACTION);
        let magnitude = self.builder.ins().umin(magnitude, infinity);
        let sign = self.builder.ins().ishl_imm_u(sign, 63);
        let bits = self.builder.ins().bor(magnitude, sign);
        let zero = self.word(0);
        let bits = self.builder.ins().select(is_zero, zero, bits);
        self.builder.ins().bitcast(types::F64, MemFlagsData::new(), bits)
    }
}
