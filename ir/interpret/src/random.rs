//! Random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, 2011).
//!
//! The key is the seed, low word first; the counter of block `b` is `b`, low word first, then 0, then the epoch of the
//! run (0 for operations with a seed). The words w0..w3 of a block give two uniform numbers of 53 bits,
//! `((w0 << 32 | w1) >> 11) / 2^53` and the same of w2 and w3; elements `2b` and `2b + 1` of a uniform tensor use one each,
//! those of a normal one `r cos(2 pi v)` and `r sin(2 pi v)` with `r = sqrt(-2 ln(1 - u))` (Box and Muller, 1958).

use std::f64::consts::TAU;

use tcc_ir::dtype::DType;
use tcc_ir::words::RandomKind;

use crate::error::{Error, Result};
use crate::indexing::count;
use crate::tensor::{Contents, Tensor};

/// The two uniform numbers of a block.
fn uniform_pair(seed: u64, epoch: u32, block: u64) -> [f64; 2] {
    let (mut c0, mut c1, mut c2, mut c3) = (block as u32, (block >> 32) as u32, 0u32, epoch);
    let (mut k0, mut k1) = (seed as u32, (seed >> 32) as u32);
    for _ in 0..10 {
        let first = u64::from(c0) * 0xD251_1F53;
        let second = u64::from(c2) * 0xCD9E_8D57;
        (c0, c1, c2, c3) =
            ((second >> 32) as u32 ^ c1 ^ k0, second as u32, (first >> 32) as u32 ^ c3 ^ k1, first as u32);
        (k0, k1) = (k0.wrapping_add(0x9E37_79B9), k1.wrapping_add(0xBB67_AE85));
    }
    [[c0, c1], [c2, c3]].map(|[high, low]| {
        let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
        bits as f64 / (1u64 << 53) as f64
    })
}

/// Where a random operation draws from.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    /// The seed of the operation.
    pub seed: u64,
    /// Differs from run to run and operation to operation where the operation has no seed.
    pub epoch: u32,
}

/// A tensor drawn from `kind`: uniform on `a..b`, or normal with mean `a` and deviation `b`.
pub(crate) fn random(
    kind: RandomKind,
    dtype: DType,
    shape: &[usize],
    a: f64,
    b: f64,
    stream: Stream,
) -> Result<Tensor> {
    if !dtype.is_float() {
        return Err(Error::operands(format!("random numbers are floating point, not {dtype}")));
    }
    let draw = |index: u64| {
        let [u, v] = uniform_pair(stream.seed, stream.epoch, index / 2);
        let even = index.is_multiple_of(2);
        match kind {
            RandomKind::Uniform => a + (b - a) * if even { u } else { v },
            RandomKind::Normal => {
                let radius = (-2.0 * (1.0 - u).ln()).sqrt();
                a + b * radius * if even { (TAU * v).cos() } else { (TAU * v).sin() }
            }
        }
    };
    Tensor::new(dtype, shape, Contents::from_numbers(dtype, (0..count(shape) as u64).map(draw)))
}
