//! Scalar functions on every element type.

mod common;

use common::*;
use tcc_interpret::Tensor;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;

fn map(body: &str, operands: &[&Tensor]) -> Tensor {
    eval(&Operator::Map { body: expr(body) }, operands)
}

/// A binary function on vectors of one type.
fn binary(name: &str, dtype: DType, x: &[f64], y: &[f64]) -> Vec<f64> {
    let body = format!("(2) t0 = {name}(a0, a1); t0");
    numbers(&map(&body, &[&t(dtype, &[x.len()], x), &t(dtype, &[y.len()], y)]))
}

fn unary(name: &str, dtype: DType, x: &[f64]) -> Vec<f64> {
    numbers(&map(&format!("(1) t0 = {name}(a0); t0"), &[&t(dtype, &[x.len()], x)]))
}

#[test]
fn operands_broadcast() {
    let sum = map("(2) t0 = add(a0, a1); t0", &[&f(&[2, 1], &[10.0, 20.0]), &f(&[3], &[1.0, 2.0, 3.0])]);
    assert_eq!(sum.shape(), [2, 3]);
    assert_eq!(numbers(&sum), [11.0, 12.0, 13.0, 21.0, 22.0, 23.0]);
    let none = map("(2) t0 = add(a0, a1); t0", &[&f(&[0, 1], &[]), &f(&[3], &[1.0, 2.0, 3.0])]);
    assert_eq!(none.shape(), [0, 3]);
    // More elements than one chunk, broadcast across its border.
    let long = map("(2) t0 = add(a0, a1); t0", &[&counting(&[9001, 1]), &f(&[3], &[0.0, 0.25, 0.5])]);
    assert_eq!(numbers(&long)[3 * 7777..3 * 7777 + 3], [7777.0, 7777.25, 7777.5]);
}

#[test]
fn integers_wrap() {
    assert_eq!(binary("add", DType::I8, &[127.0, -128.0], &[1.0, -1.0]), [-128.0, 127.0]);
    assert_eq!(binary("mul", DType::U8, &[200.0], &[2.0]), [144.0]);
    assert_eq!(binary("sub", DType::U16, &[0.0], &[1.0]), [65535.0]);
    assert_eq!(binary("add", DType::I4, &[7.0], &[1.0]), [-8.0]);
    assert_eq!(binary("mul", DType::U2, &[3.0], &[3.0]), [1.0]);
    assert_eq!(unary("neg", DType::I32, &[-2147483648.0]), [-2147483648.0]);
    assert_eq!(unary("abs", DType::I8, &[-128.0, -3.0]), [-128.0, 3.0]);
    let big = Tensor::from_integers(DType::U64, &[1], &[-1]).unwrap();
    assert_eq!(numbers(&map("(1) t0 = cast<f64>(a0); t0", &[&big])), [18446744073709551615.0]);
    let two = Tensor::from_integers(DType::U64, &[1], &[2]).unwrap();
    assert_eq!(map("(2) t0 = div(a0, a1); t0", &[&big, &two]).integers().unwrap(), [i64::MAX]);
    assert_eq!(map("(2) t0 = lt(a0, a1); t0", &[&two, &big]).integers().unwrap(), [1]);
}

#[test]
fn division_and_remainders() {
    let x = [7.0, -7.0, 7.0, -7.0, 5.0];
    let y = [2.0, 2.0, -2.0, -2.0, 0.0];
    assert_eq!(binary("div", DType::I32, &x, &y), [3.0, -3.0, -3.0, 3.0, 0.0]);
    assert_eq!(binary("mod", DType::I32, &x, &y), [1.0, 1.0, -1.0, -1.0, 0.0]);
    assert_eq!(binary("rem", DType::I32, &x, &y), [1.0, -1.0, 1.0, -1.0, 0.0]);
    assert_close(&binary("mod", DType::F32, &[5.5, -5.5], &[2.0, 2.0]), &[1.5, 0.5], 0.0);
    assert_close(&binary("rem", DType::F32, &[5.5, -5.5], &[2.0, 2.0]), &[1.5, -1.5], 0.0);
    assert_close(&binary("div", DType::F32, &[1.0, 0.0], &[0.0, 0.0]), &[f64::INFINITY, f64::NAN], 0.0);
    assert_eq!(binary("div", DType::I32, &[-2147483648.0], &[-1.0]), [-2147483648.0]);
}

#[test]
fn powers_and_shifts() {
    assert_eq!(
        binary("pow", DType::I32, &[2.0, -1.0, 2.0, 0.0, 3.0], &[10.0, -3.0, -1.0, 0.0, 21.0]),
        [1024.0, -1.0, 0.0, 1.0, 1870418611.0]
    );
    assert_close(&binary("pow", DType::F32, &[2.0, 9.0], &[-1.0, 0.5]), &[0.5, 3.0], 0.0);
    assert_eq!(binary("shl", DType::U8, &[3.0, 1.0, 1.0], &[1.0, 7.0, 8.0]), [6.0, 128.0, 0.0]);
    assert_eq!(binary("shr", DType::I8, &[-128.0, -128.0, 127.0], &[1.0, 100.0, 8.0]), [-64.0, -1.0, 0.0]);
    assert_eq!(binary("bitand", DType::I8, &[-1.0], &[6.0]), [6.0]);
    assert_eq!(unary("bitnot", DType::U8, &[1.0]), [254.0]);
}

#[test]
fn rounding_functions() {
    let x = [0.5, 1.5, -0.5, -2.5, 2.4];
    assert_close(&unary("round", DType::F32, &x), &[0.0, 2.0, -0.0, -2.0, 2.0], 0.0);
    assert_close(&unary("floor", DType::F32, &x), &[0.0, 1.0, -1.0, -3.0, 2.0], 0.0);
    assert_close(&unary("ceil", DType::F32, &x), &[1.0, 2.0, 0.0, -2.0, 3.0], 0.0);
    assert_close(&unary("trunc", DType::F32, &x), &[0.0, 1.0, 0.0, -2.0, 2.0], 0.0);
    assert_close(&unary("sign", DType::F32, &[-3.0, 0.0, f64::NAN]), &[-1.0, 0.0, f64::NAN], 0.0);
}

#[test]
fn transcendental_functions() {
    let x = 0.37f64;
    let exact = f64::from(x as f32);
    for (name, value) in [
        ("exp", exact.exp()),
        ("log", exact.ln()),
        ("tanh", exact.tanh()),
        ("asin", exact.asin()),
        ("sinh", exact.sinh()),
        ("atanh", exact.atanh()),
        ("sigmoid", 1.0 / (1.0 + (-exact).exp())),
        ("sqrt", exact.sqrt()),
        ("reciprocal", 1.0 / exact),
        ("erf", 0.399_205_984),
        ("expm1", exact.exp_m1()),
        ("log1p", exact.ln_1p()),
    ] {
        assert_close(&unary(name, DType::F32, &[x]), &[value], 1e-6);
        assert_close(&unary(name, DType::F16, &[x]), &[value], 2e-3);
        assert_close(&unary(name, DType::BF16, &[x]), &[value], 2e-2);
    }
    assert_close(&unary("log", DType::F64, &[0.0, -1.0]), &[f64::NEG_INFINITY, f64::NAN], 0.0);
}

#[test]
fn comparisons_and_logic() {
    let nan = f64::NAN;
    assert_eq!(binary("eq", DType::F32, &[1.0, nan], &[1.0, nan]), [1.0, 0.0]);
    assert_eq!(binary("le", DType::F16, &[1.0, nan], &[1.0, 1.0]), [1.0, 0.0]);
    assert_close(&binary("max", DType::F32, &[1.0, nan, 2.0], &[3.0, 1.0, nan]), &[3.0, nan, nan], 0.0);
    assert_close(&binary("min", DType::I8, &[1.0], &[-3.0]), &[-3.0], 0.0);
    assert_eq!(binary("xor", DType::Bool, &[1.0, 1.0], &[1.0, 0.0]), [0.0, 1.0]);
    assert_eq!(unary("not", DType::Bool, &[1.0, 0.0]), [0.0, 1.0]);
    assert_eq!(unary("isnan", DType::F32, &[nan, 1.0]), [1.0, 0.0]);
    assert_eq!(unary("isinf", DType::F32, &[f64::NEG_INFINITY, 1.0]), [1.0, 0.0]);
    let chosen = map(
        "(3) t0 = select(a0, a1, a2); t0",
        &[&t(DType::Bool, &[2], &[1.0, 0.0]), &i(&[1], &[5]), &i(&[2], &[6, 7])],
    );
    assert_eq!(chosen.integers().unwrap(), [5, 7]);
}

#[test]
fn casts_round_saturate_and_wrap() {
    let cast = |to: &str, x: &Tensor| numbers(&map(&format!("(1) t0 = cast<{to}>(a0); t0"), &[x]));
    let alternate =
        |to: &str, x: &Tensor| numbers(&map(&format!("(1) t0 = cast_alternate<{to}>(a0); t0"), &[x]));
    let x = f(&[5], &[300.7, -300.7, f64::NAN, 1.9, -1.9]);
    assert_eq!(cast("i8", &x), [127.0, -128.0, 0.0, 1.0, -1.0]);
    assert_eq!(cast("ui8", &x), [255.0, 0.0, 0.0, 1.0, 0.0]);
    assert_eq!(cast("i1", &f(&[3], &[0.0, 0.5, f64::NAN])), [0.0, 1.0, 1.0]);
    assert_eq!(cast("i8", &i(&[2], &[300, -129])), [44.0, 127.0]);
    assert_eq!(alternate("i8", &i(&[2], &[300, -129])), [127.0, -128.0]);
    assert_eq!(cast("i64", &f(&[2], &[1e30, f64::NEG_INFINITY])), [i64::MAX as f64, i64::MIN as f64]);
    // 2049 lies between two f16 numbers, 2051 above the middle; 65520 is the first that overflows.
    assert_eq!(
        cast("f16", &f(&[4], &[2049.0, 2051.0, 65519.0, 65520.0])),
        [2048.0, 2052.0, 65504.0, f64::INFINITY]
    );
    assert_eq!(cast("bf16", &f(&[2], &[257.0, 259.0])), [256.0, 260.0]);
    // The smallest f16, and half of it, which rounds to even.
    assert_eq!(cast("f16", &t(DType::F64, &[2], &[2f64.powi(-24), 2f64.powi(-25)])), [2f64.powi(-24), 0.0]);
    // A double just above the middle of two f16 numbers must not be rounded to `f32` first.
    assert_eq!(
        cast("f16", &t(DType::F64, &[1], &[1.0 + 2f64.powi(-11) + 2f64.powi(-40)])),
        [1.0 + 2f64.powi(-10)]
    );
    assert_eq!(cast("f8E4M3FN", &f(&[2], &[1e6, 0.3])), [448.0, 0.3125]);
    assert!(alternate("f8E4M3FN", &f(&[1], &[1e6]))[0].is_nan());
    let infinite = f64::INFINITY;
    assert_eq!(alternate("f8E5M2", &f(&[2], &[1e6, -infinite])), [infinite, -infinite]);
    assert_eq!(cast("f8E5M2", &f(&[2], &[1e6, -infinite])), [57344.0, -57344.0]);
    assert_eq!(cast("f4E2M1FN", &f(&[3], &[0.2, 2.6, -9.0])), [0.0, 3.0, -6.0]);
    assert_eq!(cast("f32", &Tensor::from_integers(DType::I64, &[1], &[16777217]).unwrap()), [16777216.0]);
}

#[test]
fn bits_are_reinterpreted() {
    let bits = map("(1) t0 = bitcast<i32>(a0); t0", &[&f(&[2], &[1.0, -0.0])]);
    assert_eq!(bits.integers().unwrap(), [0x3f80_0000, i64::from(i32::MIN)]);
    let back = map("(1) t0 = bitcast<f16>(a0); t0", &[&t(DType::U16, &[1], &[f64::from(0x3c00)])]);
    assert_eq!(numbers(&back), [1.0]);
}

#[test]
fn every_numeric_type_survives_the_identity() {
    for &dtype in DType::ALL.iter().filter(|dtype| **dtype != DType::String) {
        let x = t(dtype, &[3], &[0.0, 1.0, 1.0]);
        let y = map("(2) t0 = select(a0, a1, a1); t0", &[&t(DType::Bool, &[], &[1.0]), &x]);
        assert_eq!((y.dtype(), numbers(&y)), (dtype, numbers(&x)));
    }
}

#[test]
fn unfit_operands_are_errors() {
    let add = Operator::Map { body: expr("(2) t0 = add(a0, a1); t0") };
    assert!(eval_all(&add, &[&f(&[2], &[1.0, 2.0]), &f(&[3], &[1.0, 2.0, 3.0])]).is_err());
    assert!(eval_all(&add, &[&f(&[1], &[1.0]), &i(&[1], &[1])]).is_err());
    assert!(eval_all(&add, &[&f(&[1], &[1.0])]).is_err());
    let broken = Operator::Map { body: expr("(1) t0 = exp(t5); t0") };
    assert!(eval_all(&broken, &[&f(&[1], &[1.0])]).is_err());
}
