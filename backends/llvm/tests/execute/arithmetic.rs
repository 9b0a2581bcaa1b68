//! Scalar functions, on scalars and on vectors.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, Expr, Ty};

use super::{Element, address, argument, lanes, run, serial, store, two};

/// Applies a function to arrays of one type, `width` lanes at a time; the length is a multiple of the width.
fn apply<T: Element, R: Element + Default>(
    function: Function,
    dtype: DType,
    result: DType,
    operands: &mut [Vec<T>],
    width: u16,
) -> Vec<R> {
    let count = operands[0].len();
    let mut kernel = Kernel::new("apply");
    let inputs: Vec<_> =
        operands.iter().map(|_| argument(&mut kernel, dtype, count as i64, Access::Read)).collect();
    let output = argument(&mut kernel, result, count as i64, Access::Write);
    let i = kernel.counter("i");
    let at = Expr::from(i).times(Expr::index(i64::from(width)));
    let args = inputs.iter().map(|input| lanes(*input, at.clone(), width)).collect();
    kernel.body = vec![serial(
        i,
        Expr::index((count / usize::from(width)) as i64),
        vec![store(output, at.clone(), Expr::call(function, args))],
    )];
    let mut out = vec![R::default(); count];
    let mut buffers: Vec<*mut u8> = operands.iter_mut().map(|operand| address(operand)).collect();
    buffers.push(address(&mut out));
    run(&kernel, &buffers, &[]);
    out
}

/// A function of one argument and its meaning.
type Unary<T, R> = (Function, fn(T) -> R);
/// A function of two arguments and its meaning.
type Binary<T, R> = (Function, fn(T, T) -> R);

const FLOATS: [f32; 16] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1.5,
    2.5,
    -2.5,
    1e30,
    -1e30,
    1e-40,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    3.7,
    -3.2,
];

/// Every pair of two lists.
fn pairs<T: Copy>(values: &[T]) -> [Vec<T>; 2] {
    let left = values.iter().flat_map(|x| values.iter().map(|_| *x)).collect();
    let right = values.iter().flat_map(|_| values.iter().copied()).collect();
    [left, right]
}

fn same(a: f32, b: f32) -> bool {
    a == b || (a.is_nan() && b.is_nan())
}

#[test]
fn float_functions_of_one_argument() {
    let cases: &[Unary<f32, f32>] = &[
        (Function::Neg, |x| -x),
        (Function::Abs, f32::abs),
        (Function::Floor, f32::floor),
        (Function::Ceil, f32::ceil),
        (Function::Round, f32::round_ties_even),
        (Function::Trunc, f32::trunc),
        (Function::Sqrt, f32::sqrt),
    ];
    for (function, expected) in cases.iter().copied() {
        for width in [1, 4, 8, 16] {
            let out: Vec<f32> = apply(function, DType::F32, DType::F32, &mut [FLOATS.to_vec()], width);
            for (x, y) in FLOATS.iter().zip(out) {
                assert!(same(expected(*x), y), "{}({x}) = {y} with {width} lanes", function.text());
            }
        }
    }
}

#[test]
fn float_functions_of_two_arguments() {
    let nan_max = |x: f32, y: f32| if x.is_nan() || y.is_nan() { f32::NAN } else { x.max(y) };
    let nan_min = |x: f32, y: f32| if x.is_nan() || y.is_nan() { f32::NAN } else { x.min(y) };
    let cases: &[Binary<f32, f32>] = &[
        (Function::Add, |x, y| x + y),
        (Function::Sub, |x, y| x - y),
        (Function::Mul, |x, y| x * y),
        (Function::Div, |x, y| x / y),
        (Function::Rem, |x, y| x % y),
        (Function::Max, nan_max),
        (Function::Min, nan_min),
    ];
    for (function, expected) in cases.iter().copied() {
        for width in [1, 16] {
            let mut operands = pairs(&FLOATS);
            let out: Vec<f32> = apply(function, DType::F32, DType::F32, &mut operands, width);
            for ((x, y), z) in operands[0].iter().zip(&operands[1]).zip(out) {
                assert!(same(expected(*x, *y), z), "{}({x}, {y}) = {z} with {width} lanes", function.text());
            }
        }
    }
}

#[test]
fn comparisons_are_false_for_nan() {
    let cases: &[Binary<f32, bool>] = &[
        (Function::Equal, |x, y| x == y),
        (Function::Less, |x, y| x < y),
        (Function::LessEqual, |x, y| x <= y),
    ];
    for (function, expected) in cases.iter().copied() {
        for width in [1, 8] {
            let mut operands = pairs(&FLOATS);
            let out: Vec<u8> = apply(function, DType::F32, DType::Bool, &mut operands, width);
            for ((x, y), z) in operands[0].iter().zip(&operands[1]).zip(out) {
                assert_eq!(u8::from(expected(*x, *y)), z, "{}({x}, {y})", function.text());
            }
        }
    }
}

#[test]
fn signed_integer_functions_wrap_and_never_trap() {
    let values = [0, 1, -1, 2, -7, 31, 32, 33, i32::MAX, i32::MIN, i32::MIN + 1, 1000, -1000, 64, 5, -5];
    let shift_left = |x: i32, y: i32| if (0..32).contains(&y) { x << y } else { 0 };
    let shift_right = |x: i32, y: i32| if (0..32).contains(&y) { x >> y } else { x >> 31 };
    let cases: &[Binary<i32, i32>] = &[
        (Function::Add, i32::wrapping_add),
        (Function::Sub, i32::wrapping_sub),
        (Function::Mul, i32::wrapping_mul),
        (Function::Div, |x, y| if y == 0 { 0 } else { x.wrapping_div(y) }),
        (Function::Rem, |x, y| if y == 0 { 0 } else { x.wrapping_rem(y) }),
        (Function::Max, i32::max),
        (Function::Min, i32::min),
        (Function::BitAnd, |x, y| x & y),
        (Function::BitOr, |x, y| x | y),
        (Function::BitXor, |x, y| x ^ y),
        (Function::ShiftLeft, shift_left),
        (Function::ShiftRight, shift_right),
    ];
    for (function, expected) in cases.iter().copied() {
        for width in [1, 16] {
            let mut operands = pairs(&values);
            let out: Vec<i32> = apply(function, DType::I32, DType::I32, &mut operands, width);
            for ((x, y), z) in operands[0].iter().zip(&operands[1]).zip(out) {
                assert_eq!(expected(*x, *y), z, "{}({x}, {y}) with {width} lanes", function.text());
            }
        }
    }
    for (function, expected) in [
        (Function::Neg, i32::wrapping_neg as fn(i32) -> i32),
        (Function::Abs, i32::wrapping_abs),
        (Function::BitNot, |x| !x),
    ] {
        let out: Vec<i32> = apply(function, DType::I32, DType::I32, &mut [values.to_vec()], 16);
        assert_eq!(out, values.map(expected), "{}", function.text());
    }
}

#[test]
fn unsigned_bytes_compare_and_divide_without_sign() {
    let values = [0u8, 1, 2, 7, 8, 9, 100, 127, 128, 129, 200, 254, 255, 3, 4, 5];
    let cases: &[Binary<u8, u8>] = &[
        (Function::Div, |x, y| x.checked_div(y).unwrap_or(0)),
        (Function::Rem, |x, y| x.checked_rem(y).unwrap_or(0)),
        (Function::Max, u8::max),
        (Function::Min, u8::min),
        (Function::ShiftRight, |x, y| if y < 8 { x >> y } else { 0 }),
        (Function::ShiftLeft, |x, y| if y < 8 { x << y } else { 0 }),
    ];
    for (function, expected) in cases.iter().copied() {
        let mut operands = pairs(&values);
        let out: Vec<u8> = apply(function, DType::U8, DType::U8, &mut operands, 16);
        for ((x, y), z) in operands[0].iter().zip(&operands[1]).zip(out) {
            assert_eq!(expected(*x, *y), z, "{}({x}, {y})", function.text());
        }
    }
    let mut operands = pairs(&values);
    let out: Vec<u8> = apply(Function::Less, DType::U8, DType::Bool, &mut operands, 16);
    for ((x, y), z) in operands[0].iter().zip(&operands[1]).zip(out) {
        assert_eq!(u8::from(x < y), z, "{x} < {y}");
    }
}

#[test]
fn truth_values_are_bytes_in_memory() {
    let mut operands = pairs(&[0u8, 1, 1, 0]);
    for (function, expected) in [
        (Function::And, (|x, y| x & y) as fn(u8, u8) -> u8),
        (Function::Or, |x, y| x | y),
        (Function::Xor, |x, y| x ^ y),
        (Function::Equal, |x, y| u8::from(x == y)),
        (Function::Less, |x, y| u8::from(x < y)),
        (Function::LessEqual, |x, y| u8::from(x <= y)),
    ] {
        for width in [1, 8] {
            let out: Vec<u8> = apply(function, DType::Bool, DType::Bool, &mut operands, width);
            for ((x, y), z) in operands[0].iter().zip(&operands[1]).zip(out) {
                assert_eq!(expected(*x, *y), z, "{}({x}, {y}) with {width} lanes", function.text());
            }
        }
    }
    let out: Vec<u8> = apply(Function::Not, DType::Bool, DType::Bool, &mut [vec![0u8, 1, 1, 0]], 4);
    assert_eq!(out, [1, 0, 0, 1]);
}

#[test]
fn select_fma_splat_and_constants() {
    let mut kernel = Kernel::new("clip");
    let input = argument(&mut kernel, DType::F32, 16, Access::Read);
    let output = argument(&mut kernel, DType::F32, 16, Access::Write);
    let value = kernel.variable("value", Ty::vector(DType::F32, 16));
    let splat = |x: f64| Expr::Splat(Box::new(Expr::constant(DType::F32, x)), 16);
    let fused = Expr::Fma(
        Box::new(lanes(input, Expr::index(0), 16)),
        Box::new(splat(2.0)),
        Box::new(Expr::Splat(Box::new(Expr::load(input, Expr::index(3))), 16)),
    );
    let clipped = two(Function::Less, Expr::Var(value), splat(0.25)).choose(splat(0.25), Expr::Var(value));
    kernel.body = vec![
        tcc_kernel::ir::Stmt::Assign { var: value, value: fused },
        store(output, Expr::index(0), clipped),
    ];
    let mut x: Vec<f32> = (0..16).map(|i| i as f32 * 0.3 - 2.0).collect();
    let mut y = vec![0f32; 16];
    run(&kernel, &[address(&mut x), address(&mut y)], &[]);
    let expected: Vec<f32> = x.iter().map(|v| v.mul_add(2.0, x[3]).max(0.25)).collect();
    assert_eq!(y, expected);
}
