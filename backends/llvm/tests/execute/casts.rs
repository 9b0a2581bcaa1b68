//! Conversions between every pair of core types, and the 16-bit formats exhaustively.

use half::{bf16, f16};
use tcc_ir::dtype::DType;
use tcc_ir::scalar::ScalarOp;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, Expr};
use tcc_llvm::{Options, Target, compile};

use super::{Element, address, argument, lanes, run, serial, store};

/// A kernel that applies a conversion to `count` elements.
fn converting(op: ScalarOp, from: DType, to: DType, count: usize, width: u16) -> Kernel {
    let mut kernel = Kernel::new("convert");
    let input = argument(&mut kernel, from, count as i64, Access::Read);
    let output = argument(&mut kernel, to, count as i64, Access::Write);
    let i = kernel.counter("i");
    let at = Expr::from(i).times(Expr::index(i64::from(width)));
    let value = Expr::Call(op, vec![lanes(input, at.clone(), width)]);
    kernel.body =
        vec![serial(i, Expr::index((count / usize::from(width)) as i64), vec![store(output, at, value)])];
    kernel
}

fn convert<T: Element, R: Element + Default>(
    op: ScalarOp,
    from: DType,
    to: DType,
    values: &[T],
    width: u16,
) -> Vec<R> {
    let mut input = values.to_vec();
    let mut output = vec![R::default(); values.len()];
    run(&converting(op, from, to, values.len(), width), &[address(&mut input), address(&mut output)], &[]);
    output
}

#[test]
fn every_half_extends_exactly() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    for width in [1, 16] {
        let out: Vec<f32> = convert(ScalarOp::Cast(DType::F32), DType::F16, DType::F32, &all, width);
        for (bits, value) in all.iter().zip(&out) {
            let expected = f16::from_bits(*bits).to_f32();
            assert!(expected == *value || (expected.is_nan() && value.is_nan()), "{bits:#x}: {value}");
        }
        let out: Vec<f32> = convert(ScalarOp::Cast(DType::F32), DType::BF16, DType::F32, &all, width);
        for (bits, value) in all.iter().zip(&out) {
            let expected = bf16::from_bits(*bits).to_f32();
            assert!(expected == *value || (expected.is_nan() && value.is_nan()), "{bits:#x}: {value}");
        }
    }
}

/// Floats around every point at which a 16-bit format rounds.
fn near_halves() -> Vec<f32> {
    let mut values = Vec::new();
    for bits in (0..=u16::MAX).step_by(7) {
        for exact in [f16::from_bits(bits).to_f32(), bf16::from_bits(bits).to_f32()] {
            let exact = exact.to_bits();
            for offset in [0u32, 1, 0x7fff, 0x8000, 0x8001, 0x0fff, 0x1000, 0x1001] {
                values.push(f32::from_bits(exact.wrapping_add(offset)));
            }
        }
    }
    values.truncate(values.len() / 16 * 16);
    values
}

#[test]
fn truncation_rounds_to_even() {
    let values = near_halves();
    for width in [1, 8, 16] {
        let out: Vec<u16> = convert(ScalarOp::Cast(DType::F16), DType::F32, DType::F16, &values, width);
        for (value, bits) in values.iter().zip(&out) {
            let expected = f16::from_f32(*value);
            let got = f16::from_bits(*bits);
            assert!(expected == got || (expected.is_nan() && got.is_nan()), "{value}: {got}, not {expected}");
        }
        let out: Vec<u16> = convert(ScalarOp::Cast(DType::BF16), DType::F32, DType::BF16, &values, width);
        for (value, bits) in values.iter().zip(&out) {
            let expected = bf16::from_f32(*value);
            let got = bf16::from_bits(*bits);
            assert!(expected == got || (expected.is_nan() && got.is_nan()), "{value}: {got}, not {expected}");
        }
    }
}

/// The nearest half, ties to even: `f16::from_f64` looks at the upper bits only, so its neighbours are tried too.
fn nearest_half(value: f64) -> f16 {
    let near = f16::from_f64(value);
    if !value.is_finite() {
        return near;
    }
    // For rounding, infinity stands for the number that would follow the largest one.
    let size = |bits: u16| if bits == 0x7c00 { 65536.0 } else { f16::from_bits(bits).to_f64() };
    let magnitude = near.to_bits() & 0x7fff;
    let candidates = magnitude.saturating_sub(1)..=(magnitude + 1).min(0x7c00);
    let distance = |bits: u16| ((size(bits) - value.abs()).abs(), bits & 1);
    let best = candidates.min_by(|x, y| distance(*x).partial_cmp(&distance(*y)).unwrap()).unwrap();
    f16::from_bits(best | near.to_bits() & 0x8000)
}

#[test]
fn doubles_round_once_on_their_way_to_half() {
    let mut values: Vec<f64> = Vec::new();
    for value in near_halves().iter().step_by(5) {
        for offset in [0i64, 1, -1] {
            values.push(f64::from_bits(f64::from(*value).to_bits().wrapping_add_signed(offset)));
        }
    }
    values.truncate(values.len() / 8 * 8);
    let out: Vec<u16> = convert(ScalarOp::Cast(DType::F16), DType::F64, DType::F16, &values, 8);
    for (value, bits) in values.iter().zip(&out) {
        let expected = nearest_half(*value);
        let got = f16::from_bits(*bits);
        assert!(expected == got || (expected.is_nan() && got.is_nan()), "{value:e}: {got}, not {expected}");
    }
}

/// The conversions of a machine without them, run on this one: x86-64 without F16C.
#[test]
fn soft_half_conversions_agree() {
    if std::env::consts::ARCH != "x86_64" {
        return;
    }
    let baseline = Target::named("x86-64-v1").unwrap();
    assert!(!baseline.has("f16c"));
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let values = near_halves();
    let extend = converting(ScalarOp::Cast(DType::F32), DType::F16, DType::F32, all.len(), 4);
    let mut truncate = converting(ScalarOp::Cast(DType::F16), DType::F32, DType::F16, values.len(), 4);
    truncate.name = "truncate".to_owned();
    let object = compile(&[extend, truncate], &baseline, Options::default()).unwrap();
    let jit = tcc_llvm::Jit::load(&object).unwrap();

    let mut extended = vec![0f32; all.len()];
    super::run_object(&jit, "convert", &[address(&mut all.clone()), address(&mut extended)], &[], 0, 1);
    for (bits, value) in all.iter().zip(&extended) {
        let expected = f16::from_bits(*bits).to_f32();
        assert!(expected == *value || (expected.is_nan() && value.is_nan()), "{bits:#x}: {value}");
    }
    let mut truncated = vec![0u16; values.len()];
    super::run_object(&jit, "truncate", &[address(&mut values.clone()), address(&mut truncated)], &[], 0, 1);
    for (value, bits) in values.iter().zip(&truncated) {
        let (expected, got) = (f16::from_f32(*value), f16::from_bits(*bits));
        assert!(expected == got || (expected.is_nan() && got.is_nan()), "{value}: {got}, not {expected}");
    }
}

#[test]
fn floats_saturate_to_integers() {
    let values = [
        0.0f32,
        -0.0,
        0.9,
        -0.9,
        1.5,
        -1.5,
        127.0,
        128.0,
        -128.9,
        255.9,
        256.0,
        -1.0,
        2147483648.0,
        -2147483904.0,
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        1e19,
        -1e19,
        65504.0,
        9.2e18,
        1.8e19,
        300.0,
        -300.0,
        0.5,
        -0.5,
        32767.5,
        -32768.5,
        4294967040.0,
        4294967296.0,
        1e-30,
        -1e-30,
    ];
    for width in [1, 16] {
        let cast = |to| ScalarOp::Cast(to);
        let bytes: Vec<i8> = convert(cast(DType::I8), DType::F32, DType::I8, &values, width);
        let unsigned: Vec<u8> = convert(cast(DType::U8), DType::F32, DType::U8, &values, width);
        let words: Vec<i32> = convert(cast(DType::I32), DType::F32, DType::I32, &values, width);
        let longs: Vec<i64> = convert(cast(DType::I64), DType::F32, DType::I64, &values, width);
        let unsigned_longs: Vec<u64> = convert(cast(DType::U64), DType::F32, DType::U64, &values, width);
        let truth: Vec<u8> = convert(cast(DType::Bool), DType::F32, DType::Bool, &values, width);
        let unsigned_words: Vec<u32> = convert(cast(DType::U32), DType::F32, DType::U32, &values, width);
        let doubles = values.map(f64::from);
        let of_doubles: Vec<i64> = convert(cast(DType::I64), DType::F64, DType::I64, &doubles, width);
        let words_of_doubles: Vec<i32> = convert(cast(DType::I32), DType::F64, DType::I32, &doubles, width);
        for (lane, value) in values.iter().enumerate() {
            assert_eq!(unsigned_words[lane], *value as u32, "{value} to u32");
            assert_eq!(of_doubles[lane], *value as i64, "{value} as f64 to i64");
            assert_eq!(words_of_doubles[lane], *value as i32, "{value} as f64 to i32");
            assert_eq!(bytes[lane], *value as i8, "{value} to i8");
            assert_eq!(unsigned[lane], *value as u8, "{value} to u8");
            assert_eq!(words[lane], *value as i32, "{value} to i32");
            assert_eq!(longs[lane], *value as i64, "{value} to i64");
            assert_eq!(unsigned_longs[lane], *value as u64, "{value} to u64");
            assert_eq!(truth[lane], u8::from(*value != 0.0), "{value} to bool");
        }
    }
}

#[test]
fn integers_wrap_or_saturate_as_asked() {
    let values =
        [0i32, 1, -1, 127, 128, -128, -129, 255, 256, i32::MAX, i32::MIN, 65535, 65536, 300, -300, 77];
    for width in [1, 16] {
        let wrapped: Vec<i8> = convert(ScalarOp::Cast(DType::I8), DType::I32, DType::I8, &values, width);
        let saturated: Vec<i8> =
            convert(ScalarOp::CastAlternate(DType::I8), DType::I32, DType::I8, &values, width);
        let positive: Vec<u8> =
            convert(ScalarOp::CastAlternate(DType::U8), DType::I32, DType::U8, &values, width);
        let wide: Vec<u64> =
            convert(ScalarOp::CastAlternate(DType::U64), DType::I32, DType::U64, &values, width);
        let floats: Vec<f32> = convert(ScalarOp::Cast(DType::F32), DType::I32, DType::F32, &values, width);
        let halves: Vec<u16> = convert(ScalarOp::Cast(DType::F16), DType::I32, DType::F16, &values, width);
        for (lane, value) in values.iter().enumerate() {
            assert_eq!(wrapped[lane], *value as i8);
            assert_eq!(saturated[lane], (*value).clamp(-128, 127) as i8);
            assert_eq!(positive[lane], (*value).clamp(0, 255) as u8);
            assert_eq!(wide[lane], (*value).max(0) as u64);
            assert_eq!(floats[lane], *value as f32);
            assert_eq!(f16::from_bits(halves[lane]), f16::from_f64(f64::from(*value)));
        }
    }
    let bytes: Vec<u8> = (0..=255).collect();
    let extended: Vec<i32> = convert(ScalarOp::Cast(DType::I32), DType::U8, DType::I32, &bytes, 16);
    assert!(extended.iter().zip(&bytes).all(|(wide, byte)| *wide == i32::from(*byte)));
    let reread: Vec<i32> = convert(ScalarOp::Cast(DType::I32), DType::I8, DType::I32, &bytes, 16);
    assert!(reread.iter().zip(&bytes).all(|(wide, byte)| *wide == i32::from(*byte as i8)));
}

#[test]
fn bitcasts_keep_the_bits() {
    let values: Vec<f32> = near_halves().into_iter().take(64).collect();
    let bits: Vec<u32> = convert(ScalarOp::Bitcast(DType::U32), DType::F32, DType::U32, &values, 16);
    assert!(bits.iter().zip(&values).all(|(bits, value)| *bits == value.to_bits()));
    let back: Vec<f64> =
        convert(ScalarOp::Bitcast(DType::F64), DType::U64, DType::F64, &[1.5f64.to_bits(); 8], 8);
    assert_eq!(back, [1.5; 8]);
}
