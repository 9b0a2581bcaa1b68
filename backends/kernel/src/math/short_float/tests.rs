//! Every code and many values in both directions, against the conversions of the tensor IR.

use tcc_ir::minifloat;

use super::*;
use crate::evaluate::evaluate;
use crate::ir::Access;
use crate::machine::Machine;
use crate::passes::finalize;

const SHORT: [DType; 8] = [
    DType::F16,
    DType::BF16,
    DType::F8E4M3FN,
    DType::F8E4M3FNUZ,
    DType::F8E5M2,
    DType::F8E5M2FNUZ,
    DType::F8E8M0FNU,
    DType::F4E2M1FN,
];

/// Runs a cast over whole arrays.
fn cast(from: DType, to: DType, alternate: bool, input: &[u8], count: usize) -> Vec<u8> {
    let mut kernel = Kernel::new("cast");
    let extent = Expr::index(count as i64);
    let x = kernel.argument("x", from, extent.clone(), Access::Read);
    let y = kernel.argument("y", to, extent.clone(), Access::Write);
    let i = kernel.counter("i");
    let op = if alternate { ScalarOp::CastAlternate(to) } else { ScalarOp::Cast(to) };
    let value = Expr::Call(op, vec![Expr::load(x, i.into())]);
    let store = Stmt::Store { buffer: y, index: i.into(), value, valid: None };
    let kind = crate::ir::LoopKind::Serial;
    kernel.body = vec![Stmt::For { var: i, extent, kind, body: vec![store] }];
    finalize(&mut kernel, &Machine::BASELINE).unwrap();
    let mut input = input.to_vec();
    let mut output = vec![0; to.bytes_for(count).unwrap()];
    evaluate(&kernel, &mut [&mut input, &mut output], &[], 0, 1).unwrap();
    output
}

fn codes(dtype: DType) -> Vec<u8> {
    match dtype.bits() {
        16 => (0..=u16::MAX).flat_map(u16::to_le_bytes).collect(),
        8 => (0..=u8::MAX).collect(),
        _ => (0..8).map(|pair| (pair * 2) | ((pair * 2 + 1) << 4)).collect(),
    }
}

#[test]
fn every_code_decodes() {
    for dtype in SHORT {
        let count = 1 << dtype.bits();
        let found = cast(dtype, DType::F32, false, &codes(dtype), count);
        for (code, bytes) in found.chunks(4).enumerate() {
            let found = f32::from_le_bytes(bytes.try_into().unwrap());
            let expected = crate::fold::from_bits(dtype, code as u64).as_f64() as f32;
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(same, "{dtype} {code:#x}: {found} for {expected}");
        }
    }
}

/// Values around every code: the code's own, its neighbours in f32, and the middle between it and the next.
fn interesting(dtype: DType) -> Vec<f32> {
    let step = if dtype.bits() == 16 { 7 } else { 1 };
    let mut values = vec![0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e38, -1e38, 1e-45, 70000.0];
    for code in (0..1u64 << dtype.bits()).step_by(step) {
        let value = crate::fold::from_bits(dtype, code).as_f64() as f32;
        let next = crate::fold::from_bits(dtype, code + 1).as_f64() as f32;
        let middle = (f64::from(value) / 2.0 + f64::from(next) / 2.0) as f32;
        for value in [value, middle] {
            let bits = value.to_bits();
            values.extend([bits, bits.wrapping_add(1), bits.wrapping_sub(1)].map(f32::from_bits));
        }
    }
    values
}

fn expected_code(dtype: DType, value: f32, saturate: bool) -> u64 {
    match dtype {
        DType::F16 => half::f16::from_f32(value).to_bits().into(),
        DType::BF16 => half::bf16::from_f32(value).to_bits().into(),
        _ => minifloat::encode(dtype, value, saturate).into(),
    }
}

#[test]
fn values_round_to_the_nearest_code() {
    for dtype in SHORT {
        let values = interesting(dtype);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        for alternate in [false, true] {
            let found = cast(DType::F32, dtype, alternate, &bytes, values.len());
            for (index, value) in values.iter().enumerate() {
                let size = dtype.size();
                let code = match dtype.bits() {
                    4 => u64::from(found[index / 2] >> (index % 2 * 4) & 15),
                    16 => u64::from(u16::from_le_bytes(found[index * size..][..2].try_into().unwrap())),
                    _ => u64::from(found[index]),
                };
                let expected = expected_code(dtype, *value, !alternate);
                let nan = |code| crate::fold::from_bits(dtype, code).as_f64().is_nan();
                assert!(
                    code == expected || nan(code) && nan(expected),
                    "{dtype} alternate={alternate} {value:e} {:#x}: {code:#x} for {expected:#x}",
                    value.to_bits()
                );
            }
        }
    }
}

#[test]
fn doubles_round_once() {
    // Just above the middle of two f16, by less than an f32 shows.
    let values =
        [1.0 + 2f64.powi(-11) + 2f64.powi(-40), 1.0 + 2f64.powi(-11), 1.0 + 2f64.powi(-11) - 2f64.powi(-40)];
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let found = cast(DType::F64, DType::F16, false, &bytes, values.len());
    let expected = [0x3c01u16, 0x3c00, 0x3c00].map(u16::to_le_bytes).concat();
    assert_eq!(found, expected);
}
