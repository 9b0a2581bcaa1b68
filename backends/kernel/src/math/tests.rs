//! Accuracy over dense sweeps, and special values, with and without a fused multiply-add.
//!
//! The reference is the f64 function of the standard library or `libm`; for f64 that makes a bound of some units in the last
//! place the sum of two errors.

use super::*;
use crate::evaluate::evaluate;
use crate::fold;
use crate::ir::{Access, LoopKind};
use crate::machine::Machine;
use crate::passes::finalize;

fn kernel_of(function: Function, dtype: DType, count: usize) -> Kernel {
    let mut kernel = Kernel::new("map");
    let count = Expr::index(count as i64);
    let i = kernel.counter("i");
    let mut args = Vec::new();
    for _ in 0..function.arity() {
        let buffer = kernel.argument("x", dtype, count.clone(), Access::Read);
        args.push(Expr::load(buffer, i.into()));
    }
    let result = if function.rule() == tcc_ir::scalar::Rule::Test { DType::Bool } else { dtype };
    let y = kernel.argument("y", result, count.clone(), Access::Write);
    let value = Expr::call(function, args);
    let store = Stmt::Store { buffer: y, index: i.into(), value, valid: None };
    kernel.body = vec![Stmt::For { var: i, extent: count, kind: LoopKind::Serial, body: vec![store] }];
    kernel
}

fn encode(dtype: DType, values: &[f64]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| fold::to_bits(Scalar::of(dtype, *value)).to_le_bytes()[..dtype.size()].to_vec())
        .collect()
}

fn decode(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    bytes
        .chunks(dtype.size())
        .map(|chunk| {
            let mut wide = [0; 8];
            wide[..chunk.len()].copy_from_slice(chunk);
            fold::from_bits(dtype, u64::from_le_bytes(wide)).as_f64()
        })
        .collect()
}

fn run(function: Function, dtype: DType, fma: bool, args: &[Vec<f64>]) -> Vec<f64> {
    let mut kernel = kernel_of(function, dtype, args[0].len());
    finalize(&mut kernel, &Machine { fma, ..Machine::BASELINE }).unwrap();
    let mut buffers: Vec<Vec<u8>> = args.iter().map(|values| encode(dtype, values)).collect();
    buffers.push(vec![0; args[0].len() * dtype.size()]);
    let mut slices: Vec<&mut [u8]> = buffers.iter_mut().map(|bytes| &mut bytes[..]).collect();
    evaluate(&kernel, &mut slices, &[], 0, 1).unwrap();
    decode(dtype, &buffers.pop().unwrap())
}

/// Distance of a result from the exact one, in units of the last place.
fn ulps(dtype: DType, exact: f64, found: f64) -> f64 {
    if exact.is_nan() || found.is_nan() {
        return if exact.is_nan() && found.is_nan() { 0.0 } else { f64::INFINITY };
    }
    let rounded = fold::round(dtype, exact).as_f64();
    if rounded == found {
        return 0.0;
    }
    if rounded.is_infinite() || found.is_infinite() {
        // Overflow one step early or late.
        let largest = if dtype == DType::F32 { f64::from(f32::MAX) } else { f64::MAX };
        return if rounded.abs().min(found.abs()) >= largest * 0.9999998 { 1.0 } else { f64::INFINITY };
    }
    let (digits, lowest) = if dtype == DType::F32 { (23, -126) } else { (52, -1022) };
    let exponent = if exact == 0.0 { lowest } else { (exact.abs().log2().floor() as i32).max(lowest) };
    (found - exact).abs() / 2f64.powi(exponent - digits)
}

/// Evenly spaced numbers, and their logarithms' images, so that small magnitudes are covered as densely as large ones.
fn sweep(dtype: DType, low: f64, high: f64, count: usize) -> Vec<f64> {
    let step = (high - low) / count as f64;
    let mut values: Vec<f64> = (0..=count).map(|index| low + step * index as f64).collect();
    for index in 0..count {
        let magnitude = (-90.0 + 180.0 * index as f64 / count as f64).exp();
        values.extend([magnitude, -magnitude].into_iter().filter(|value| (low..=high).contains(value)));
    }
    values.iter().map(|value| fold::round(dtype, *value).as_f64()).collect()
}

const SPECIALS: [f64; 18] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.0,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
    1e-40,
    -1e-40,
    1e-300,
    3e38,
    -3e38,
    1e300,
    -1e300,
    1.5,
];

fn check_unary(function: Function, dtype: DType, low: f64, high: f64, limit: f64) {
    let mut values = sweep(dtype, low, high, 3000);
    let periodic = matches!(function, Function::Sin | Function::Cos | Function::Tan);
    values.extend(
        SPECIALS
            .iter()
            .map(|value| fold::round(dtype, *value).as_f64())
            .filter(|value| !periodic || value.abs() < 1e3 || !value.is_finite()),
    );
    for fma in [true, false] {
        let results = run(function, dtype, fma, &[values.clone()]);
        let mut worst = (0.0, 0.0, 0.0, 0.0);
        for (x, found) in values.iter().zip(&results) {
            let exact =
                fold::apply(ScalarOp::Call(function), &[Scalar::float(DType::F64, *x)]).unwrap().as_f64();
            let distance = ulps(dtype, exact, *found);
            if distance > worst.0 {
                worst = (distance, *x, exact, *found);
            }
            let zero = exact == 0.0 && *found == 0.0;
            assert!(
                !zero || exact.is_sign_negative() == found.is_sign_negative(),
                "{} {dtype} fma={fma}: sign of zero at {x:?}",
                function.text()
            );
        }
        let (distance, x, exact, found) = worst;
        println!("{:10} {dtype} fma={fma}: {distance:.2} ulp at {x:e}", function.text());
        assert!(
            distance <= limit,
            "{} {dtype} fma={fma}: {distance} ulp at {x:e}: {found:e} for {exact:e}",
            function.text()
        );
    }
}

macro_rules! accuracy {
    ($($name:ident $function:ident ($low:expr, $high:expr) $single:expr, $double:expr;)*) => {$(
        #[test]
        fn $name() {
            check_unary(Function::$function, DType::F32, $low, $high, $single);
            check_unary(Function::$function, DType::F64, $low, $high, $double);
        }
    )*};
}

accuracy! {
    exp_is_accurate Exp (-110.0, 90.0) 1.5, 2.0;
    expm1_is_accurate Expm1 (-50.0, 90.0) 1.5, 2.0;
    log_is_accurate Log (-1.0, 1e30) 1.5, 2.0;
    log_is_accurate_near_one Log (0.4, 2.5) 1.5, 2.0;
    log1p_is_accurate Log1p (-1.5, 3.0) 1.5, 2.0;
    erf_is_accurate Erf (-7.0, 7.0) 1.5, 2.0;
    sigmoid_is_accurate Sigmoid (-95.0, 40.0) 2.0, 4.0;
    tanh_is_accurate Tanh (-25.0, 25.0) 2.0, 4.0;
    sin_is_accurate Sin (-4096.0, 4096.0) 2.0, 4.0;
    cos_is_accurate Cos (-4096.0, 4096.0) 2.0, 4.0;
    tan_is_accurate Tan (-4096.0, 4096.0) 3.0, 4.0;
    asin_is_accurate Asin (-1.1, 1.1) 3.0, 4.0;
    acos_is_accurate Acos (-1.1, 1.1) 2.0, 4.0;
    atan_is_accurate Atan (-20.0, 20.0) 2.0, 4.0;
    sinh_is_accurate Sinh (-91.0, 91.0) 2.0, 4.0;
    cosh_is_accurate Cosh (-91.0, 91.0) 2.0, 4.0;
    asinh_is_accurate Asinh (-100.0, 1e30) 2.0, 4.0;
    acosh_is_accurate Acosh (0.5, 100.0) 2.0, 4.0;
    atanh_is_accurate Atanh (-1.1, 1.1) 2.0, 4.0;
    reciprocal_is_exact Reciprocal (-10.0, 10.0) 0.5, 0.5;
    sign_is_exact Sign (-2.0, 2.0) 0.0, 0.0;
}

#[test]
fn tests_of_floats_are_exact() {
    for dtype in [DType::F32, DType::F64] {
        for function in [Function::IsNan, Function::IsInf] {
            let mut kernel = kernel_of(function, dtype, SPECIALS.len());
            finalize(&mut kernel, &Machine::BASELINE).unwrap();
            let (mut x, mut y) = (encode(dtype, &SPECIALS), [0; SPECIALS.len()]);
            evaluate(&kernel, &mut [&mut x, &mut y], &[], 0, 1).unwrap();
            for (value, found) in decode(dtype, &x).into_iter().zip(y) {
                let expected = if function == Function::IsNan { value.is_nan() } else { value.is_infinite() };
                assert_eq!(found != 0, expected, "{} of {value}", function.text());
            }
        }
    }
}

#[test]
fn waves_stay_in_range() {
    let values: Vec<f64> =
        (0..60).map(|index| f64::from(index).exp2() * 1.3).chain([1e30, 3e38, -2e20]).collect();
    for dtype in [DType::F32, DType::F64] {
        for function in [Function::Sin, Function::Cos] {
            for fma in [false, true] {
                for (x, y) in values.iter().zip(run(function, dtype, fma, std::slice::from_ref(&values))) {
                    assert!(y.abs() <= 1.0, "{}({x}) is {y}", function.text());
                }
            }
        }
    }
}

fn check_binary(function: Function, dtype: DType, pairs: &[(f64, f64)], limit: f64) {
    let round = |value: f64| fold::round(dtype, value).as_f64();
    let args = [
        pairs.iter().map(|pair| round(pair.0)).collect::<Vec<f64>>(),
        pairs.iter().map(|pair| round(pair.1)).collect::<Vec<f64>>(),
    ];
    for fma in [true, false] {
        let results = run(function, dtype, fma, &args);
        for ((x, y), found) in args[0].iter().zip(&args[1]).zip(&results) {
            let float = |value| Scalar::float(DType::F64, value);
            let exact = fold::apply(ScalarOp::Call(function), &[float(*x), float(*y)]).unwrap().as_f64();
            let distance = ulps(dtype, exact, *found);
            assert!(
                distance <= limit,
                "{}({x:e}, {y:e}) {dtype} fma={fma}: {found:e} for {exact:e}, {distance} ulp",
                function.text()
            );
        }
    }
}

fn special_pairs() -> Vec<(f64, f64)> {
    let values = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.0,
        -2.0,
        3.0,
        0.5,
        -0.5,
        1e20,
        -1e20,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ];
    values.iter().flat_map(|x| values.iter().map(|y| (*x, *y))).collect()
}

#[test]
fn powers_are_accurate() {
    let mut pairs = special_pairs();
    for index in 0..4000 {
        let x = (-20.0 + 40.0 * f64::from(index) / 4000.0).exp();
        let y = -4.0 + 8.0 * f64::from(index * 7919 % 4001) / 4001.0;
        pairs.extend([(x, y), (-x, y.round()), (1.0 + x * 1e-10, y * 1e3)]);
    }
    check_binary(Function::Pow, DType::F32, &pairs, 4.0);
    check_binary(Function::Pow, DType::F64, &pairs, 32.0);
}

#[test]
fn remainders_are_exact() {
    let mut pairs = special_pairs();
    for index in 0..300 {
        let x = (-40.0 + 80.0 * f64::from(index) / 300.0).exp();
        let y = (-30.0 + 60.0 * f64::from(index * 77 % 301) / 301.0).exp();
        pairs.extend([(x, y), (-x, y), (x, -y), (y * 6.0, y)]);
    }
    pairs.extend([(1e-40, 3e-42), (5.3, 1e-40), (3e38, 1e-45), (3e38, 0.3), (7.5, 2.0), (-7.5, 2.0)]);
    check_binary(Function::Rem, DType::F32, &pairs, 0.0);
    check_binary(Function::Rem, DType::F64, &pairs, 0.0);
    check_binary(Function::Mod, DType::F32, &pairs, 0.5);
    check_binary(Function::Mod, DType::F64, &pairs, 0.5);
}

#[test]
fn integer_functions_match_the_reference() {
    for dtype in [DType::I8, DType::U8, DType::I32, DType::I64, DType::U64] {
        let values = [-128i64, -7, -3, -2, -1, 0, 1, 2, 3, 5, 100, 127];
        let scalars: Vec<Scalar> = values.iter().map(|value| fold::wrap(dtype, *value)).collect();
        for function in [Function::Mod, Function::Pow, Function::Sign] {
            let pairs: Vec<Vec<Scalar>> = match function.arity() {
                1 => scalars.iter().map(|x| vec![*x]).collect(),
                _ => scalars.iter().flat_map(|x| scalars.iter().map(|y| vec![*x, *y])).collect(),
            };
            let mut kernel = kernel_of(function, dtype, pairs.len());
            finalize(&mut kernel, &Machine::BASELINE).unwrap();
            let column = |argument: usize| -> Vec<u8> {
                pairs
                    .iter()
                    .flat_map(|pair| fold::to_bits(pair[argument]).to_le_bytes()[..dtype.size()].to_vec())
                    .collect()
            };
            let mut buffers: Vec<Vec<u8>> = (0..function.arity()).map(column).collect();
            buffers.push(vec![0; pairs.len() * dtype.size()]);
            let mut slices: Vec<&mut [u8]> = buffers.iter_mut().map(|bytes| &mut bytes[..]).collect();
            evaluate(&kernel, &mut slices, &[], 0, 1).unwrap();
            for (pair, bytes) in pairs.iter().zip(buffers.last().unwrap().chunks(dtype.size())) {
                let exact = fold::apply(ScalarOp::Call(function), pair).unwrap();
                let bits = fold::to_bits(exact).to_le_bytes();
                assert_eq!(bytes, &bits[..dtype.size()], "{} {dtype} {pair:?}", function.text());
            }
        }
    }
}
