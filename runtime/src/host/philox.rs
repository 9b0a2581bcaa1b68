//! The random numbers of compiled programs: a counter-based generator, so that every element can be computed alone and
//! the result depends on nothing but seed, stream, epoch and position.
//!
//! Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011). The key is
//! the seed, low word first. The counter of block `b` is `b` (64 bits, low word first), the stream, the epoch. A block
//! gives four words w0..w3, which make two uniform numbers of 53 bits:
//!
//! ```text
//! u(2 b)     = ((w0 << 32 | w1) >> 11) / 2^53
//! u(2 b + 1) = ((w2 << 32 | w3) >> 11) / 2^53
//! ```
//!
//! Normal numbers come in pairs by the method of Box and Muller, `r = sqrt(-2 ln(1 - u(2 b)))`:
//!
//! ```text
//! n(2 b)     = r cos(2 pi u(2 b + 1))
//! n(2 b + 1) = r sin(2 pi u(2 b + 1))
//! ```

use std::f64::consts::TAU;

/// A sequence of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Philox {
    /// The seed.
    pub seed: u64,
    /// Distinguishes sequences of one seed, one for each operator.
    pub stream: u32,
    /// Distinguishes runs.
    pub epoch: u32,
}

impl Philox {
    /// The four words of a block.
    pub fn block(&self, block: u64) -> [u32; 4] {
        let mut counter = [block as u32, (block >> 32) as u32, self.stream, self.epoch];
        let mut key = [self.seed as u32, (self.seed >> 32) as u32];
        for _ in 0..10 {
            let left = u64::from(counter[0]) * 0xD251_1F53;
            let right = u64::from(counter[2]) * 0xCD9E_8D57;
            counter = [
                (right >> 32) as u32 ^ counter[1] ^ key[0],
                right as u32,
                (left >> 32) as u32 ^ counter[3] ^ key[1],
                left as u32,
            ];
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        counter
    }

    fn pair(&self, block: u64) -> [f64; 2] {
        let words = self.block(block);
        let uniform = |high: u32, low: u32| {
            let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
            bits as f64 / (1u64 << 53) as f64
        };
        [uniform(words[0], words[1]), uniform(words[2], words[3])]
    }

    /// The uniform number at a position, at least 0 and below 1.
    pub fn uniform(&self, position: u64) -> f64 {
        self.pair(position / 2)[(position % 2) as usize]
    }

    /// The normal number at a position, of mean 0 and variance 1.
    pub fn normal(&self, position: u64) -> f64 {
        let [first, second] = self.pair(position / 2);
        let radius = (-2.0 * (1.0 - first).ln()).sqrt();
        let (sine, cosine) = (TAU * second).sin_cos();
        radius * if position.is_multiple_of(2) { cosine } else { sine }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_reference_implementation() {
        let zero = Philox { seed: 0, stream: 0, epoch: 0 };
        assert_eq!(zero.block(0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = Philox { seed: u64::MAX, stream: u32::MAX, epoch: u32::MAX };
        assert_eq!(ones.block(u64::MAX), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let digits = Philox { seed: 0x299f_31d0_a409_3822, stream: 0x1319_8a2e, epoch: 0x0370_7344 };
        assert_eq!(digits.block(0x85a3_08d3_243f_6a88), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn moments_are_right() {
        let generator = Philox { seed: 42, stream: 1, epoch: 0 };
        let count = 100_000;
        let mean = |f: &dyn Fn(u64) -> f64| (0..count).map(f).sum::<f64>() / count as f64;
        assert!((mean(&|i| generator.uniform(i)) - 0.5).abs() < 0.005);
        assert!((mean(&|i| generator.uniform(i).powi(2)) - 1.0 / 3.0).abs() < 0.005);
        assert!(mean(&|i| generator.normal(i)).abs() < 0.02);
        assert!((mean(&|i| generator.normal(i).powi(2)) - 1.0).abs() < 0.02);
        assert!(
            (0..count).all(|i| (0.0..1.0).contains(&generator.uniform(i)) && generator.normal(i).is_finite())
        );
    }
}
