//! Matrix instructions: fragments of `mma.sync` and `ldmatrix` as the PTX ISA lays them out over the lanes of a warp.
//!
//! With `group = lane / 4` and `place = lane % 4`, a 32-bit register of `A` or `B` holds `n` elements side by side along `k`
//! (two of 16 bits, four of 8, one of 32). Registers of `A` (16 x 4n, row major) hold the elements from `k = n * place` on of
//! the rows `group`, `group + 8`, and of the same rows half of `k` further. Registers of `B` (4n x 8, column major) hold
//! column `group`, the second one half of `k` further. Registers of `C` and `D` (16 x 8) hold row `group`, columns
//! `2 * place` and `2 * place + 1`, then the same of row `group + 8`.

use half::{bf16, f16};

use super::execute::Words;
use super::instruction::Matrix;
use super::machine::WARP;

/// Largest `k` of an instruction.
const DEPTH: usize = 32;

/// `A * B + C`. Products of floats are exact; sums go in f64 along `k` and are rounded once, so they are at least as exact as
/// those of hardware, whose order the ISA leaves open.
pub fn multiply(kind: Matrix, a: [Words; 4], b: [Words; 2], c: [Words; 4]) -> [Words; 4] {
    match kind {
        Matrix::Integer(a_signed, b_signed) => {
            let a = rows(&a, 4, |word, part| byte(word, part, a_signed));
            let b = columns(&b, 4, |word, part| byte(word, part, b_signed));
            spread(
                |row, column, c| {
                    let sum = (0..32)
                        .fold(c as i32, |sum, k| sum.wrapping_add(a[row][k].wrapping_mul(b[column][k])));
                    sum as u32
                },
                &c,
            )
        }
        Matrix::Half => {
            float(&a, &b, &c, 2, |word, part| f16::from_bits((word >> (16 * part)) as u16).to_f64())
        }
        Matrix::Bfloat => {
            float(&a, &b, &c, 2, |word, part| bf16::from_bits((word >> (16 * part)) as u16).to_f64())
        }
        // The low 13 bits are not read.
        Matrix::Tf32 => float(&a, &b, &c, 1, |word, _| f64::from(f32::from_bits(word & !0x1fff))),
    }
}

fn byte(word: u32, part: usize, signed: bool) -> i32 {
    let byte = (word >> (8 * part)) as u8;
    if signed { i32::from(byte as i8) } else { i32::from(byte) }
}

fn float(
    a: &[Words; 4],
    b: &[Words; 2],
    c: &[Words; 4],
    pack: usize,
    element: impl Fn(u32, usize) -> f64 + Copy,
) -> [Words; 4] {
    let (a, b) = (rows(a, pack, element), columns(b, pack, element));
    let result = |row: usize, column: usize, c: u32| {
        let sum: f64 = (0..8 * pack).map(|k| a[row][k] * b[column][k]).sum();
        ((sum + f64::from(f32::from_bits(c))) as f32).to_bits()
    };
    spread(result, c)
}

/// The rows of `A`.
fn rows<T: Copy + Default>(
    a: &[Words; 4],
    pack: usize,
    element: impl Fn(u32, usize) -> T,
) -> [[T; DEPTH]; 16] {
    let mut rows = [[T::default(); DEPTH]; 16];
    for (register, words) in a.iter().enumerate() {
        for (lane, word) in words.iter().enumerate() {
            let row = lane / 4 + 8 * (register % 2);
            let k = lane % 4 * pack + 4 * pack * (register / 2);
            for part in 0..pack {
                rows[row][k + part] = element(*word, part);
            }
        }
    }
    rows
}

/// The columns of `B`.
fn columns<T: Copy + Default>(
    b: &[Words; 2],
    pack: usize,
    element: impl Fn(u32, usize) -> T,
) -> [[T; DEPTH]; 8] {
    let mut columns = [[T::default(); DEPTH]; 8];
    for (register, words) in b.iter().enumerate() {
        for (lane, word) in words.iter().enumerate() {
            let k = lane % 4 * pack + 4 * pack * register;
            for part in 0..pack {
                columns[lane / 4][k + part] = element(*word, part);
            }
        }
    }
    columns
}

/// Results by row and column.
fn spread(result: impl Fn(usize, usize, u32) -> u32, c: &[Words; 4]) -> [Words; 4] {
    let mut d = [[0; WARP]; 4];
    for register in 0..4 {
        for lane in 0..WARP {
            let (row, column) = (lane / 4 + 8 * (register / 2), lane % 4 * 2 + register % 2);
            d[register][lane] = result(row, column, c[register][lane]);
        }
    }
    d
}

/// The register that `ldmatrix` makes of an 8 x 8 matrix of 16-bit elements, given by rows.
pub fn fragment(rows: &[[u8; 16]], transposed: bool) -> Words {
    let element = |row: usize, column: usize| {
        let (row, column) = if transposed { (column, row) } else { (row, column) };
        u32::from(u16::from_le_bytes([rows[row][2 * column], rows[row][2 * column + 1]]))
    };
    std::array::from_fn(|lane| {
        let (row, column) = (lane / 4, lane % 4 * 2);
        element(row, column) | element(row, column + 1) << 16
    })
}
