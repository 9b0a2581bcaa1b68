//! Random numbers from a counter-based generator.
//!
//! Word `i` of a stream is the SplitMix64 output function of `seed + (i + 1) * 0x9E3779B97F4A7C15` (Steele, Lea, Flood:
//! Fast splittable pseudorandom number generators, 2014); its 24 upper bits are a fraction in [0, 1). Element `i` of a
//! uniform tensor uses word `i`; element `i` of a normal one uses words `2i` and `2i + 1` by the Box-Muller transform
//! `sqrt(-2 ln(1 - u)) cos(2 pi v)`.

use tcc_ir::dtype::DType;
use tcc_ir::words::RandomKind;

use crate::error::{Error, Result};
use crate::indexing::count;
use crate::tensor::{Contents, Tensor};

/// The fraction in [0, 1) that word `index` of a stream stands for.
fn fraction(seed: u64, index: u64) -> f64 {
    let mut word = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^= word >> 31;
    (word >> 40) as f64 / f64::from(1 << 24)
}

/// A tensor drawn from `kind`: uniform on `a..b`, or normal with mean `a` and deviation `b`.
pub(crate) fn random(
    kind: RandomKind,
    dtype: DType,
    shape: &[usize],
    a: f64,
    b: f64,
    seed: u64,
) -> Result<Tensor> {
    if !dtype.is_float() {
        return Err(Error::operands(format!("random numbers are floating point, not {dtype}")));
    }
    let draw = |index: u64| match kind {
        RandomKind::Uniform => a + (b - a) * fraction(seed, index),
        RandomKind::Normal => {
            let (u, v) = (fraction(seed, 2 * index), fraction(seed, 2 * index + 1));
            a + b * (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
        }
    };
    Tensor::new(dtype, shape, Contents::from_numbers(dtype, (0..count(shape) as u64).map(draw)))
}
