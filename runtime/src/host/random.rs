//! ONNX `RandomUniform`, `RandomNormal`, `Bernoulli` and `Multinomial` over [`Philox`].
//!
//! Attributes of all: `seed` (an integer) and `stream` (an integer, default 0), which the compiler makes different for
//! each operator. With a seed other than 0 the sequence is that of seed and stream, in every run. Without one it is that
//! of seed 0, stream 0 and epoch `e + stream`, where `e` is the epoch of the session: a program gives the same results in
//! every run until the session's epoch changes. Element i of the output, in row-major order, uses number i of the
//! sequence.

use super::numeric::{Numeric, for_dtype};
use super::philox::Philox;
use super::{HostCall, HostFunction, Signature};
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::Element;

/// What to draw.
#[derive(Clone, Copy)]
enum Distribution {
    Uniform { low: f64, high: f64 },
    Normal { mean: f64, scale: f64 },
}

type Draw = fn(&Random, &mut HostCall<'_>) -> Result<()>;

struct Random {
    seed: u64,
    stream: u32,
    distribution: Distribution,
    run: Draw,
}

/// The sequence of an operator in this run.
fn generator(seed: u64, stream: u32, call: &HostCall<'_>) -> Philox {
    match seed {
        0 => Philox { seed, stream: 0, epoch: call.random_epoch().wrapping_add(stream) },
        seed => Philox { seed, stream, epoch: 0 },
    }
}

fn sequence(signature: &Signature<'_>) -> Result<(u64, u32), String> {
    let stream = signature.integer("stream", 0)?;
    let stream = u32::try_from(stream).map_err(|_| format!("attribute `stream` is {stream}"))?;
    Ok((signature.integer("seed", 0)? as u64, stream))
}

/// `low + u * (high - low)`, computed in double precision. No inputs; the output's shape has its values before.
pub(super) fn build_uniform(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(0..=0, 1..=1, &["seed", "stream", "low", "high"])?;
    let (low, high) = (signature.float("low", 0.0)?, signature.float("high", 1.0)?);
    build(signature, Distribution::Uniform { low, high })
}

/// `mean + n * scale`, computed in double precision.
pub(super) fn build_normal(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(0..=0, 1..=1, &["seed", "stream", "mean", "scale"])?;
    let (mean, scale) = (signature.float("mean", 0.0)?, signature.float("scale", 1.0)?);
    build(signature, Distribution::Normal { mean, scale })
}

fn build(signature: &Signature<'_>, distribution: Distribution) -> Result<Box<dyn HostFunction>, String> {
    let (seed, stream) = sequence(signature)?;
    let dtype = signature.output(0)?.dtype;
    if !matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::Bf16) {
        return Err(format!("element type {dtype} is not supported"));
    }
    Ok(Box::new(Random { seed, stream, distribution, run: for_dtype!(dtype, draw as Draw)? }))
}

impl HostFunction for Random {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        (self.run)(self, call)
    }
}

fn draw<T: Numeric>(random: &Random, call: &mut HostCall<'_>) -> Result<()> {
    let generator = generator(random.seed, random.stream, call);
    let shape = call.declared_shape(0)?;
    for (position, element) in call.output::<T>(0, &shape)?.iter_mut().enumerate() {
        *element = T::from_f64(match random.distribution {
            Distribution::Uniform { low, high } => low + generator.uniform(position as u64) * (high - low),
            Distribution::Normal { mean, scale } => mean + generator.normal(position as u64) * scale,
        });
    }
    Ok(())
}

type Probabilities = fn(&HostCall<'_>, &mut dyn FnMut(usize, f64)) -> Result<()>;

type Toss = fn(&Bernoulli, &mut HostCall<'_>) -> Result<()>;

struct Bernoulli {
    seed: u64,
    stream: u32,
    probability: Probabilities,
    run: Toss,
}

/// 1 where `u` is below the probability at the same position of input 0, else 0.
pub(super) fn build_bernoulli(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(1..=1, 1..=1, &["seed", "stream"])?;
    let (seed, stream) = sequence(signature)?;
    let (input, output) = (signature.input(0)?, signature.output(0)?);
    if input.rank != output.rank {
        return Err(format!("the input has rank {}, the output {}", input.rank, output.rank));
    }
    let probability = for_dtype!(input.dtype, probabilities as Probabilities)?;
    Ok(Box::new(Bernoulli { seed, stream, probability, run: for_dtype!(output.dtype, toss as Toss)? }))
}

impl HostFunction for Bernoulli {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        (self.run)(self, call)
    }
}

fn probabilities<T: Numeric>(call: &HostCall<'_>, visit: &mut dyn FnMut(usize, f64)) -> Result<()> {
    let input = call.input(0)?;
    for (position, probability) in call.elements::<T>(&input)?.iter().enumerate() {
        visit(position, probability.to_f64());
    }
    Ok(())
}

fn toss<T: Numeric>(bernoulli: &Bernoulli, call: &mut HostCall<'_>) -> Result<()> {
    let generator = generator(bernoulli.seed, bernoulli.stream, call);
    let input = call.input(0)?;
    let output = call.output::<T>(0, input.shape())?;
    (bernoulli.probability)(call, &mut |position, probability| {
        let hit = generator.uniform(position as u64) < probability;
        output[position] = T::from_f64(f64::from(u8::from(hit)));
    })
}

type Sample = fn(&Multinomial, &mut HostCall<'_>) -> Result<()>;

struct Multinomial {
    seed: u64,
    stream: u32,
    run: Sample,
}

/// Input 0: logarithms of weights, `[batches, classes]`; output: a class for each sample, `[batches, samples]`, `i32`
/// or `i64`. The class is the first whose running sum of weights exceeds `u` times the whole sum, the sums taken in
/// double precision over `exp(x - max)`.
pub(super) fn build_multinomial(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(1..=1, 1..=1, &["seed", "stream"])?;
    let (seed, stream) = sequence(signature)?;
    let (input, output) = (signature.input(0)?, signature.output(0)?);
    if input.rank != 2 || output.rank != 2 {
        return Err("input and output must have rank 2".into());
    }
    let run = match output.dtype {
        DType::I32 => for_dtype!(input.dtype, sample_i32 as Sample)?,
        DType::I64 => for_dtype!(input.dtype, sample_i64 as Sample)?,
        other => return Err(format!("the output must be i32 or i64, found {other}")),
    };
    Ok(Box::new(Multinomial { seed, stream, run }))
}

impl HostFunction for Multinomial {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        (self.run)(self, call)
    }
}

fn sample_i32<T: Numeric>(multinomial: &Multinomial, call: &mut HostCall<'_>) -> Result<()> {
    sample::<T, i32>(multinomial, call, |class| class as i32)
}

fn sample_i64<T: Numeric>(multinomial: &Multinomial, call: &mut HostCall<'_>) -> Result<()> {
    sample::<T, i64>(multinomial, call, |class| class as i64)
}

fn sample<T: Numeric, I: Element>(
    multinomial: &Multinomial,
    call: &mut HostCall<'_>,
    convert: fn(usize) -> I,
) -> Result<()> {
    let generator = generator(multinomial.seed, multinomial.stream, call);
    let input = call.input(0)?;
    let logits = call.elements::<T>(&input)?;
    let (batches, classes) = (input.shape()[0], input.shape()[1]);
    let shape = call.declared_shape(0)?;
    if shape[0] != batches || (classes == 0 && shape[1] > 0 && batches > 0) {
        return Err(
            call.fail(format!("{batches} batches of {classes} classes cannot give {shape:?} samples"))
        );
    }
    let output = call.output::<I>(0, &shape)?;
    let samples = shape[1];
    let mut sums = std::mem::take(&mut call.scratch().floats);
    for batch in 0..batches {
        let logits = &logits[batch * classes..][..classes];
        let largest = logits.iter().map(|logit| logit.to_f64()).fold(f64::NEG_INFINITY, f64::max);
        sums.clear();
        let mut sum = 0.0;
        for logit in logits {
            sum += (logit.to_f64() - largest).exp();
            sums.push(sum);
        }
        let first = batch * samples;
        for (position, slot) in output[first..first + samples].iter_mut().enumerate() {
            let target = generator.uniform((first + position) as u64) * sum;
            let class = sums.partition_point(|&sum| sum <= target).min(classes - 1);
            *slot = convert(class);
        }
    }
    call.scratch().floats = sums;
    Ok(())
}
