//! What the machine can do at this moment, for comparison with a program that runs in between.
//!
//! On a machine that others share, rates of a minute ago say little about now. [`Ceilings::sample`] takes a few milliseconds,
//! so that it can alternate with runs of what is compared.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use serde::Serialize;

use super::probes::Chain;
use super::{Running, chain_probe, reading_probe};
use crate::compile::CompileOptions;
use crate::error::Error;
use crate::target::Target;

/// Seconds of one run of a probe.
const RUN_SECONDS: f64 = 2e-4;

/// Runs of each probe, of which the best counts.
const RUNS: usize = 3;

/// Rates on the threads that were asked for, all together.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ceiling {
    /// Multiply-adds of `f32`, two operations each, in billions a second.
    pub f32_gigaflops: f64,
    /// Products of bytes and their sums, two operations each, in billions a second.
    pub int8_gigaops: f64,
    /// Additions of `f32`, in billions a second.
    pub elementwise_gigaops: f64,
    /// Exponentials of `f32`, in billions a second.
    pub transcendental_gigaops: f64,
    /// Reading from memory of the size that was asked for, in gigabytes a second.
    pub read_gigabytes_per_second: f64,
    /// Bytes read and written by a copy within memory of that size by the C library, in gigabytes a second.
    pub copy_gigabytes_per_second: f64,
}

impl Ceiling {
    /// The larger of two measurements of each rate.
    pub fn better(self, other: Ceiling) -> Ceiling {
        Ceiling {
            f32_gigaflops: self.f32_gigaflops.max(other.f32_gigaflops),
            int8_gigaops: self.int8_gigaops.max(other.int8_gigaops),
            elementwise_gigaops: self.elementwise_gigaops.max(other.elementwise_gigaops),
            transcendental_gigaops: self.transcendental_gigaops.max(other.transcendental_gigaops),
            read_gigabytes_per_second: self.read_gigabytes_per_second.max(other.read_gigabytes_per_second),
            copy_gigabytes_per_second: self.copy_gigabytes_per_second.max(other.copy_gigabytes_per_second),
        }
    }
}

/// A time that begins now.
pub struct Lap {
    own: f64,
    start: Instant,
}

impl Lap {
    /// Begins.
    pub fn start() -> Lap {
        Lap { own: own_seconds(), start: Instant::now() }
    }

    /// Seconds since then; where this thread does all the work `alone`, without the time that others had its core.
    pub fn seconds(&self, alone: bool) -> f64 {
        let elapsed = self.start.elapsed().as_secs_f64();
        if alone { elapsed.min(own_seconds() - self.own) } else { elapsed }
    }
}

/// Seconds that this thread had a core.
fn own_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// A running probe and the billions of units of its run.
struct Paced {
    running: Running,
    units: f64,
}

impl Paced {
    fn rate(&mut self, alone: bool) -> Result<f64, Error> {
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            let lap = Lap::start();
            let elapsed = self.running.once()?;
            best = best.min(if alone { elapsed.min(lap.seconds(true)) } else { elapsed });
        }
        Ok(self.units / best)
    }
}

/// Probes that are ready to run.
pub struct Ceilings {
    arithmetic: [Paced; 4],
    reading: Paced,
    copies: Vec<Copy>,
}

impl Ceilings {
    /// Probes for so many threads, and for memory of `bytes`, which the threads divide among themselves.
    pub fn new(threads: usize, bytes: u64) -> Result<Ceilings, Error> {
        let threads = threads.max(1);
        let options = CompileOptions::new(Target::named("cpu")?);
        let chain = |chain: Chain| {
            let (probe, operations) = chain_probe(chain, &options)?;
            let (running, repetitions) = probe.lasting(RUN_SECONDS, &[], threads)?;
            Ok::<_, Error>(Paced {
                running,
                units: operations * (repetitions as usize * threads) as f64 / 1e9,
            })
        };
        let arithmetic = [
            chain(Chain::MultiplyAdd(tcc_ir::dtype::DType::F32))?,
            chain(Chain::Dot)?,
            chain(Chain::Add)?,
            chain(Chain::Exponential)?,
        ];
        let each = bytes / threads as u64;
        let (probe, blocks, read) = reading_probe(each, threads, &options)?;
        let (running, repetitions) = probe.lasting(RUN_SECONDS, &[blocks], threads)?;
        let reading = Paced { running, units: read * repetitions as f64 / 1e9 };
        Ok(Ceilings { arithmetic, reading, copies: (0..threads).map(|_| Copy::new(each)).collect() })
    }

    /// Measures once.
    pub fn sample(&mut self) -> Result<Ceiling, Error> {
        let [multiply_add, dot, add, exponential] = &mut self.arithmetic;
        let alone = self.copies.len() == 1;
        let barrier = Barrier::new(self.copies.len());
        let copied = std::thread::scope(|scope| {
            let (first, rest) = self.copies.split_at_mut(1);
            let threads: Vec<_> = rest.iter_mut().map(|copy| scope.spawn(|| copy.rate(&barrier))).collect();
            let own: f64 = first.iter_mut().map(|copy| copy.rate(&barrier)).sum();
            own + threads.into_iter().filter_map(|thread| thread.join().ok()).sum::<f64>()
        });
        Ok(Ceiling {
            f32_gigaflops: multiply_add.rate(alone)?,
            int8_gigaops: dot.rate(alone)?,
            elementwise_gigaops: add.rate(alone)?,
            transcendental_gigaops: exponential.rate(alone)?,
            read_gigabytes_per_second: self.reading.rate(alone)?,
            copy_gigabytes_per_second: copied,
        })
    }
}

/// Half of a memory that is copied into the other half.
struct Copy {
    from: Vec<u8>,
    to: Vec<u8>,
    /// Copies of one run.
    passes: u32,
}

impl Copy {
    fn new(bytes: u64) -> Copy {
        let half = (bytes as usize / 2).max(64);
        // Written, so that each page is memory of its own.
        let mut copy = Copy { from: vec![1; half], to: vec![2; half], passes: 1 };
        let seconds = (0..RUNS).map(|_| copy.seconds()).fold(f64::INFINITY, f64::min);
        copy.passes = (RUN_SECONDS / seconds).clamp(1.0, 1e6) as u32;
        copy
    }

    fn seconds(&mut self) -> f64 {
        let lap = Lap::start();
        for _ in 0..self.passes {
            black_box(&mut self.to[..]).copy_from_slice(black_box(&self.from[..]));
        }
        lap.seconds(true)
    }

    /// Gigabytes a second, read and written ones together, of the best run.
    fn rate(&mut self, start: &Barrier) -> f64 {
        start.wait();
        let best = (0..RUNS).map(|_| self.seconds()).fold(f64::INFINITY, f64::min);
        2.0 * self.from.len() as f64 * f64::from(self.passes) / best / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ceiling_is_a_rate() {
        let mut ceilings = Ceilings::new(2, 1 << 14).unwrap();
        let found = ceilings.sample().unwrap();
        let rates = [
            found.f32_gigaflops,
            found.int8_gigaops,
            found.elementwise_gigaops,
            found.transcendental_gigaops,
            found.read_gigabytes_per_second,
            found.copy_gigabytes_per_second,
        ];
        assert!(rates.iter().all(|rate| rate.is_finite() && *rate > 0.0), "{found:?}");
    }
}
