//! Every core function on every core type, scalar and vector, over special values.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;
use tcc_kernel::ir::Expr;

use super::harness::{constant, map_rows, oldest};
use super::reference::{self, CORE, same, specials};
use crate::Target;

const UNARY: &[Function] = &[
    Function::Neg,
    Function::Abs,
    Function::Floor,
    Function::Ceil,
    Function::Round,
    Function::Trunc,
    Function::Sqrt,
    Function::BitNot,
    Function::Not,
];

const BINARY: &[Function] = &[
    Function::Add,
    Function::Sub,
    Function::Mul,
    Function::Div,
    Function::Rem,
    Function::Mod,
    Function::Max,
    Function::Min,
    Function::BitAnd,
    Function::BitOr,
    Function::BitXor,
    Function::ShiftLeft,
    Function::ShiftRight,
    Function::And,
    Function::Or,
    Function::Xor,
    Function::Equal,
    Function::Less,
    Function::LessEqual,
];

/// Scalars, parts of a register, whole ones, and several with a partial last one.
const LANES: &[u16] = &[1, 2, 3, 4, 7, 8, 16, 19];

fn takes(function: Function, dtype: DType) -> bool {
    use tcc_ir::scalar::Rule;
    match function.rule() {
        Rule::Number if matches!(function, Function::Rem | Function::Mod) => dtype.is_integer(),
        Rule::Number => dtype.is_integer() || dtype.is_float(),
        Rule::Float => dtype.is_float(),
        Rule::Integer => dtype.is_integer(),
        Rule::Logic => dtype == DType::Bool,
        _ => true,
    }
}

fn result_of(function: Function, dtype: DType) -> DType {
    if function.rule() == tcc_ir::scalar::Rule::Compare { DType::Bool } else { dtype }
}

fn check(
    name: &str,
    dtype: DType,
    output: DType,
    lanes: u16,
    rows: &[Vec<u64>],
    results: &[u64],
    expected: &[u64],
) {
    for ((row, result), expected) in rows.iter().zip(results).zip(expected) {
        assert!(
            same(output, *result, *expected),
            "{name} of {dtype} x {lanes} at {row:x?}: got {result:x}, expected {expected:x}"
        );
    }
}

#[test]
fn functions_of_one_argument() {
    for &dtype in CORE {
        let rows: Vec<Vec<u64>> = specials(dtype).into_iter().map(|x| vec![x]).collect();
        for &function in UNARY.iter().filter(|function| takes(**function, dtype)) {
            let expected: Vec<u64> =
                rows.iter().map(|row| reference::function(function, dtype, row)).collect();
            for &lanes in LANES {
                let results = map_rows(&Target::host(), &[dtype], dtype, lanes, &rows, &|args| {
                    Expr::call(function, args.to_vec())
                });
                check(function.text(), dtype, dtype, lanes, &rows, &results, &expected);
            }
        }
    }
}

#[test]
fn functions_of_two_arguments() {
    for target in [Target::host(), oldest()] {
        for &dtype in CORE {
            let values = specials(dtype);
            let rows: Vec<Vec<u64>> =
                values.iter().flat_map(|x| values.iter().map(move |y| vec![*x, *y])).collect();
            for &function in BINARY.iter().filter(|function| takes(**function, dtype)) {
                let output = result_of(function, dtype);
                let expected: Vec<u64> =
                    rows.iter().map(|row| reference::function(function, dtype, row)).collect();
                for &lanes in LANES {
                    let results = map_rows(&target, &[dtype, dtype], output, lanes, &rows, &|args| {
                        Expr::call(function, args.to_vec())
                    });
                    check(function.text(), dtype, output, lanes, &rows, &results, &expected);
                }
            }
        }
    }
}

/// Constants take paths of their own: division, shifts, limits.
#[test]
fn functions_with_a_constant_argument() {
    for &dtype in CORE {
        let values = specials(dtype);
        for &function in BINARY.iter().filter(|function| takes(**function, dtype)) {
            let output = result_of(function, dtype);
            for &second in values.iter().step_by(3).chain(values.first()) {
                let rows: Vec<Vec<u64>> = values.iter().map(|x| vec![*x]).collect();
                let expected: Vec<u64> =
                    values.iter().map(|x| reference::function(function, dtype, &[*x, second])).collect();
                for lanes in [1, 4, 19] {
                    let results = map_rows(&Target::host(), &[dtype], output, lanes, &rows, &|args| {
                        Expr::call(function, vec![args[0].clone(), constant(dtype, second, lanes)])
                    });
                    let name = format!("{} by constant {second:x}", function.text());
                    check(&name, dtype, output, lanes, &rows, &results, &expected);
                }
            }
        }
    }
}

/// A shift of a vector by the same run-time amount in every lane.
#[test]
fn shifts_by_a_splat() {
    for &dtype in CORE.iter().filter(|dtype| dtype.is_integer()) {
        let values = specials(dtype);
        for function in [Function::ShiftLeft, Function::ShiftRight] {
            for &amount in &values {
                // The kernel sees no constant: the amount comes from memory, the same in every lane of a block.
                let rows: Vec<Vec<u64>> = values.iter().map(|x| vec![*x, amount]).collect();
                let expected: Vec<u64> =
                    rows.iter().map(|row| reference::function(function, dtype, row)).collect();
                let results = map_rows(&Target::host(), &[dtype, dtype], dtype, 8, &rows, &|args| {
                    let Expr::Load { buffer, index, .. } = &args[1] else { panic!("arguments are loads") };
                    let scalar = Expr::load(*buffer, (**index).clone());
                    Expr::call(function, vec![args[0].clone(), Expr::Splat(Box::new(scalar), 8)])
                });
                check(function.text(), dtype, dtype, 8, &rows, &results, &expected);
            }
        }
    }
}

#[test]
fn selections_by_masks_of_other_widths() {
    for &compared in CORE {
        for &selected in CORE.iter().chain(&[DType::F16]) {
            let (keys, values) = (specials(compared), specials(selected));
            let rows: Vec<Vec<u64>> = (0..60)
                .map(|n| {
                    vec![
                        keys[n % keys.len()],
                        keys[n * 7 % keys.len()],
                        values[n % values.len()],
                        values[n * 5 % values.len()],
                    ]
                })
                .collect();
            let expected: Vec<u64> = rows
                .iter()
                .map(|row| {
                    let less = reference::function(Function::Less, compared, &row[..2]) == 1;
                    let equal =
                        reference::function(Function::Equal, selected_key(selected), &[row[2], row[3]]) == 1;
                    if less && !equal { row[2] } else { row[3] }
                })
                .collect();
            for lanes in [1, 4, 8, 19] {
                let inputs = [compared, compared, selected, selected];
                let results = map_rows(&Target::host(), &inputs, selected, lanes, &rows, &|args| {
                    let less = Expr::call(Function::Less, vec![args[0].clone(), args[1].clone()]);
                    let bits = |x: &Expr| {
                        Expr::Call(tcc_ir::scalar::ScalarOp::Bitcast(selected_key(selected)), vec![x.clone()])
                    };
                    let equal = Expr::call(Function::Equal, vec![bits(&args[2]), bits(&args[3])]);
                    let differ = Expr::call(Function::Not, vec![equal]);
                    less.both(differ).choose(args[2].clone(), args[3].clone())
                });
                check("select", selected, selected, lanes, &rows, &results, &expected);
            }
        }
    }
}

/// An unsigned type of the same width, whose comparison looks at bits.
fn selected_key(dtype: DType) -> DType {
    match dtype.bits() {
        8 => DType::U8,
        16 => DType::U16,
        32 => DType::U32,
        _ => DType::U64,
    }
}
