//! Multiplication and addition with one rounding, by instruction and without.

use tcc_ir::dtype::DType;
use tcc_kernel::ir::Expr;

use super::harness::{Random, map_rows, oldest};
use super::reference::{same, specials};
use crate::Target;

fn rows(dtype: DType) -> Vec<Vec<u64>> {
    let values = specials(dtype);
    let mut rows: Vec<Vec<u64>> = Vec::new();
    for x in &values {
        for y in values.iter().step_by(2) {
            rows.extend(values.iter().step_by(3).map(|z| vec![*x, *y, *z]));
        }
    }
    // Cancellation: the addend is near the negated product, and products that vanish or overflow.
    let mut random = Random(99);
    for _ in 0..20_000 {
        let mut row = [random.next(), random.next(), random.next()];
        if dtype == DType::F32 {
            row = row.map(|bits| bits >> 32);
            let [x, y, _] = row.map(|bits| f32::from_bits(bits as u32));
            if random.below(3) > 0 {
                row[2] = u64::from((-(x * y)).to_bits()) ^ (random.next() & 3);
            }
        } else {
            let [x, y, _] = row.map(f64::from_bits);
            if random.below(3) > 0 {
                row[2] = (-(x * y)).to_bits() ^ (random.next() & 3);
            } else if random.below(2) == 0 {
                // Exponents near each other, so that parts overlap.
                row = row.map(|bits| (bits & !(0x7ff << 52)) | ((1000 + (bits >> 20) % 48) << 52));
            }
        }
        rows.push(row.to_vec());
    }
    rows
}

#[test]
fn one_rounding() {
    for dtype in [DType::F32, DType::F64] {
        let rows = rows(dtype);
        for target in [Target::host(), oldest()] {
            for lanes in [1, 4, 5] {
                let results = map_rows(&target, &[dtype; 3], dtype, lanes, &rows, &|args| {
                    let [a, b, c] = [0, 1, 2].map(|number| Box::new(args[number].clone()));
                    Expr::Fma(a, b, c)
                });
                for (row, result) in rows.iter().zip(results) {
                    let expected = match dtype {
                        DType::F32 => {
                            let [x, y, z] = [0, 1, 2].map(|n| f32::from_bits(row[n] as u32));
                            u64::from(x.mul_add(y, z).to_bits())
                        }
                        _ => {
                            let [x, y, z] = [0, 1, 2].map(|n| f64::from_bits(row[n]));
                            x.mul_add(y, z).to_bits()
                        }
                    };
                    assert!(
                        same(dtype, result, expected),
                        "fma of {dtype} x {lanes} at {row:x?}: got {result:x}, expected {expected:x}"
                    );
                }
            }
        }
    }
}
