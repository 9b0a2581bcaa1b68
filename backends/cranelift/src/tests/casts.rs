//! Every pair of types, scalar and vector.

use half::f16;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::ScalarOp;
use tcc_kernel::ir::Expr;

use super::harness::{Random, map_rows, oldest};
use super::reference::{self, CORE, same, specials};
use crate::Target;

fn compare(target: &Target, from: DType, to: DType, lanes: u16, values: &[u64], saturating: bool) {
    let rows: Vec<Vec<u64>> = values.iter().map(|x| vec![*x]).collect();
    let op = if saturating { ScalarOp::CastAlternate(to) } else { ScalarOp::Cast(to) };
    let results = map_rows(target, &[from], to, lanes, &rows, &|args| Expr::Call(op, args.to_vec()));
    for (x, result) in values.iter().zip(results) {
        let expected = reference::cast(from, to, *x, saturating);
        assert!(
            same(to, result, expected),
            "{op} of {from}:{x:x} x {lanes}: got {result:x}, expected {expected:x}"
        );
    }
}

fn types() -> Vec<DType> {
    CORE.iter().copied().chain([DType::F16]).collect()
}

#[test]
fn every_pair_of_types() {
    let mut random = Random(7);
    for from in types() {
        let mask = if from == DType::Bool { 1 } else { u64::MAX >> (64 - from.bits()) };
        let mut values = specials(from);
        values.extend((0..100).map(|_| random.next() & mask));
        for to in types() {
            for lanes in [1, 2, 3, 4, 8, 13, 16] {
                compare(&Target::host(), from, to, lanes, &values, false);
            }
            compare(&oldest(), from, to, 8, &values, false);
            if from.is_integer() && to.is_integer() {
                compare(&Target::host(), from, to, 1, &values, true);
                compare(&Target::host(), from, to, 11, &values, true);
            }
        }
    }
}

#[test]
fn every_half() {
    let all: Vec<u64> = (0..=u64::from(u16::MAX)).collect();
    compare(&Target::host(), DType::F16, DType::F32, 4, &all, false);
    compare(&Target::host(), DType::F16, DType::F32, 1, &all, false);
    // Every half, its neighbours, and the points half way between halves.
    let singles: Vec<u64> = all
        .iter()
        .flat_map(|bits| {
            let half = f16::from_bits(*bits as u16).to_f32();
            let next = f16::from_bits((*bits as u16).wrapping_add(1)).to_f32();
            let middle = (half + next) / 2.0;
            [
                half,
                middle,
                f32::from_bits(middle.to_bits() ^ 1),
                f32::from_bits(half.to_bits().wrapping_add(1)),
            ]
        })
        .map(|single| u64::from(single.to_bits()))
        .collect();
    compare(&Target::host(), DType::F32, DType::F16, 4, &singles, false);
    compare(&Target::host(), DType::F32, DType::F16, 1, &singles, false);
    let doubles: Vec<u64> = singles
        .iter()
        .step_by(5)
        .flat_map(|bits| {
            let double = f64::from(f32::from_bits(*bits as u32)).to_bits();
            [double, double + 1, double.saturating_sub(1)]
        })
        .collect();
    compare(&Target::host(), DType::F64, DType::F16, 4, &doubles, false);
}

#[test]
fn bitcasts_keep_bits() {
    for from in types() {
        for to in types().into_iter().filter(|to| to.bits() == from.bits()) {
            for lanes in [1, 3, 8] {
                let values = specials(from);
                let rows: Vec<Vec<u64>> = values.iter().map(|x| vec![*x]).collect();
                let results = map_rows(&Target::host(), &[from], to, lanes, &rows, &|args| {
                    Expr::Call(ScalarOp::Bitcast(to), args.to_vec())
                });
                for (x, result) in values.iter().zip(results) {
                    let expected = if to == DType::Bool { u64::from(*x != 0) } else { *x };
                    assert_eq!(result, expected, "bitcast of {from}:{x:x} to {to}");
                }
            }
        }
    }
}
