//! Measures this machine with kernels that tcc compiles for it: peak rates, bandwidth of each memory level, launch cost.
//!
//! Each figure is the best of many short runs, because everything that disturbs a run makes it slower. All threads means one
//! task on each; their private caches then hold a buffer each, and shared levels are divided among them.

mod caches;
mod ceilings;
mod probes;

use std::time::Instant;

use bytes::Bytes;
use tcc_ir::dtype::DType;
use tcc_ir::module::Module;
use tcc_kernel::Kernel;
use tcc_passes::cost::{Bandwidth, CacheLevel, Machine, MeasuredMachine, Rate};
use tcc_passes::program::element_type;
use tcc_runtime::manifest::{Access, KernelStep, Manifest, Port, Step, Storage, TensorInfo};
use tcc_runtime::{DimExpr, Session, Tensor, TensorMut, TensorRef};

use crate::compile::{CompileOptions, Compiled, generate};
use crate::device::Device;
use crate::error::Error;
use crate::target::Target;
pub use ceilings::{Ceiling, Ceilings, Lap};
use probes::{CHAINS, Chain};

/// Seconds of one timed run: short, so that some run meets nothing that disturbs it.
const RUN_SECONDS: f64 = 5e-4;

/// Timed runs of which the best counts.
const RUNS: usize = 200;

/// Fewer where one run takes long.
const LEAST_RUNS: usize = 25;

/// Seconds that the runs of one figure take at most, beyond [`LEAST_RUNS`].
const MOST_SECONDS: f64 = 0.3;

/// Memory beyond the caches, where the sizes of the caches do not ask for more.
const LEAST_MEMORY_BYTES: u64 = 128 << 20;

/// The most memory that a probe takes.
const MOST_MEMORY_BYTES: u64 = 512 << 20;

/// Kernel calls of the program that measures what one costs.
const LAUNCHES: usize = 200;

/// Work of a task in that program: a few microseconds.
const LAUNCH_STEPS: i64 = 1500;

/// A compiled probe and what it runs on.
struct Probe {
    kernel: Kernel,
    objects: Vec<Vec<u8>>,
    /// Contents of the arguments that it reads.
    inputs: Vec<(DType, Bytes)>,
    output: DType,
    /// Elements that each task writes.
    lanes: usize,
}

/// Code for a probe.
fn compile(
    mut kernel: Kernel,
    inputs: Vec<(DType, Bytes)>,
    output: DType,
    lanes: usize,
    options: &CompileOptions,
) -> Result<Probe, Error> {
    tcc_kernel::passes::finalize(&mut kernel, &options.target.machine)?;
    let objects = generate(std::slice::from_ref(&kernel), options)?;
    Ok(Probe { kernel, objects, inputs, output, lanes })
}

/// A program whose steps call one probe, ready to run.
struct Running {
    session: Session,
    inputs: Vec<(tcc_runtime::DType, usize, Bytes)>,
    output: tcc_runtime::DType,
    results: Vec<Tensor>,
}

impl Running {
    /// Seconds of one run.
    fn once(&mut self) -> Result<f64, Error> {
        let inputs = (self.inputs.iter())
            .map(|(dtype, count, bytes)| TensorRef::new(*dtype, &[*count], bytes))
            .collect::<Result<Vec<_>, _>>()?;
        let mut outputs = [TensorMut::new(self.output, self.results[0].bytes_mut())];
        let start = Instant::now();
        self.session.run_into(&inputs, &mut outputs)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Seconds of the best of at most `runs` runs.
    fn best(&mut self, runs: usize) -> Result<f64, Error> {
        let mut best = f64::INFINITY;
        let begin = Instant::now();
        for run in 0..runs {
            if run >= LEAST_RUNS && begin.elapsed().as_secs_f64() > MOST_SECONDS {
                break;
            }
            best = best.min(self.once()?);
        }
        Ok(best)
    }
}

impl Probe {
    /// A program of `calls` kernel steps with these dimensions, the first of which is the number of tasks.
    fn prepare(&self, dims: &[i64], calls: usize, threads: usize) -> Result<Running, Error> {
        let tasks = dims[0];
        let mut manifest = Manifest::new("probe", concat!("tcc ", env!("CARGO_PKG_VERSION")));
        let mut tensor = |dtype: DType, count: usize, storage: Storage| {
            let dtype = element_type(dtype).unwrap_or(tcc_runtime::DType::U8);
            let shape = vec![DimExpr::Const(count as i64)];
            manifest.tensors.push(TensorInfo { name: String::new(), dtype, shape, storage });
            manifest.tensors.len() as u32 - 1
        };
        let mut ports = Vec::new();
        for (index, (dtype, bytes)) in self.inputs.iter().enumerate() {
            ports.push(tensor(*dtype, bytes.len() / dtype.size(), Storage::Input(index as u32)));
        }
        let count = CHAINS * self.lanes * tasks as usize;
        let output = tensor(self.output, count, Storage::Output(0));
        let port = |tensor: u32| Port { name: format!("p{tensor}"), tensor };
        manifest.inputs = ports.iter().copied().map(port).collect();
        manifest.outputs = vec![port(output)];
        let buffers: Vec<u32> = ports.into_iter().chain([output]).collect();
        let access = std::iter::repeat_n(Access::Read, self.inputs.len()).chain([Access::Write]).collect();
        let (symbol, count_of_dims) = (self.kernel.name.clone(), dims.len() as u32);
        manifest.kernels =
            vec![tcc_runtime::manifest::Kernel { symbol, buffers: access, dims: count_of_dims }];
        let step = KernelStep {
            kernel: 0,
            buffers,
            dims: dims.iter().copied().map(DimExpr::Const).collect(),
            tasks: DimExpr::Const(tasks),
            grain: DimExpr::Const(1),
            scratch_bytes: DimExpr::Const(0),
        };
        manifest.steps = vec![Step::Kernel(step); calls];
        let compiled = Compiled {
            manifest,
            objects: self.objects.clone(),
            ptx: None,
            device: Device::Cpu,
            weights: Vec::new(),
            module: Module::default(),
            kernels: vec![self.kernel.clone()],
        };
        let executable = compiled.executable()?;
        let mut session = Session::new(&executable, threads)?;
        let manifest = executable.manifest();
        let inputs: Vec<_> = (self.inputs.iter().zip(&manifest.inputs))
            .map(|((_, bytes), port)| {
                let info = &manifest.tensors[port.tensor as usize];
                (info.dtype, info.shape[0].as_const().unwrap_or(0) as usize, bytes.clone())
            })
            .collect();
        let output = manifest.tensors[output as usize].dtype;
        let lent = inputs
            .iter()
            .map(|(dtype, count, bytes)| TensorRef::new(*dtype, &[*count], bytes))
            .collect::<Result<Vec<_>, _>>()?;
        let results = session.run(&lent)?;
        Ok(Running { session, inputs, output, results })
    }

    /// Seconds of the best run.
    fn seconds(&self, dims: &[i64], calls: usize, threads: usize, runs: usize) -> Result<f64, Error> {
        self.prepare(dims, calls, threads)?.best(runs)
    }

    /// A program that takes about `seconds` on these threads, and the repetitions in it, which dimension 1 counts.
    fn lasting(&self, seconds: f64, rest: &[i64], threads: usize) -> Result<(Running, i64), Error> {
        let dims = |repetitions: i64| [&[threads as i64, repetitions], rest].concat();
        let mut repetitions = 1i64;
        // Longer until a run is long enough to be timed, then scale to the length wanted.
        let once = loop {
            let found = self.seconds(&dims(repetitions), 1, threads, 2)?;
            if found > seconds / 8.0 || repetitions > 1 << 40 {
                break found / repetitions as f64;
            }
            repetitions *= 4;
        };
        let repetitions = ((seconds / once) as i64).max(1);
        Ok((self.prepare(&dims(repetitions), 1, threads)?, repetitions))
    }

    /// Units a second: one repetition is `units` of them.
    fn rate(&self, units: f64, rest: &[i64], threads: usize) -> Result<f64, Error> {
        let (mut running, repetitions) = self.lasting(RUN_SECONDS, rest, threads)?;
        Ok(units * repetitions as f64 / running.best(RUNS)?)
    }
}

/// The probe of a chain of operations, and the operations of one repetition on one thread.
fn chain_probe(chain: Chain, options: &CompileOptions) -> Result<(Probe, f64), Error> {
    let bits = options.target.machine.vector_bits;
    let lanes = usize::from(chain.lanes(bits));
    // Small numbers keep sums finite and normal however often they are added.
    let element = match chain.operand() {
        DType::F64 => 1e-9f64.to_le_bytes().to_vec(),
        DType::F32 => 1e-4f32.to_le_bytes().to_vec(),
        _ => vec![1],
    };
    let bytes = Bytes::from(element.repeat(lanes * chain.accumulator().size() / element.len()));
    let mut inputs = vec![(chain.operand(), bytes.clone())];
    if chain == Chain::Dot {
        inputs.push((DType::I8, bytes));
    }
    let probe = compile(probes::arithmetic(chain, bits), inputs, chain.accumulator(), lanes, options)?;
    Ok((probe, (chain.operations() * (CHAINS * lanes) as u64) as f64))
}

fn arithmetic(chain: Chain, options: &CompileOptions, threads: [usize; 2]) -> Result<[f64; 2], Error> {
    let (probe, operations) = chain_probe(chain, options)?;
    let rate = |threads: usize| probe.rate(operations * threads as f64, &[], threads);
    Ok([rate(threads[0])? / 1e9, rate(threads[1])? / 1e9])
}

/// The probe that reads `each` bytes a thread, its last dimension, and the bytes of one repetition on all threads.
fn reading_probe(each: u64, threads: usize, options: &CompileOptions) -> Result<(Probe, i64, f64), Error> {
    let bits = options.target.machine.vector_bits;
    let lanes = usize::from(Chain::Add.lanes(bits));
    let block = (CHAINS * lanes * 4) as u64;
    let blocks = (each / block).max(1);
    let bytes = blocks * block * threads as u64;
    // Written, so that each page is memory of its own.
    let data = Bytes::from(1f32.to_le_bytes().repeat(bytes as usize / 4));
    let probe = compile(probes::reading(bits), vec![(DType::F32, data)], DType::F32, lanes, options)?;
    Ok((probe, blocks as i64, bytes as f64))
}

/// Gigabytes a second out of `each` bytes a thread.
fn reading(each: u64, threads: usize, options: &CompileOptions) -> Result<f64, Error> {
    let (probe, blocks, bytes) = reading_probe(each, threads, options)?;
    Ok(probe.rate(bytes, &[blocks], threads)? / 1e9)
}

/// Microseconds that a kernel step on all threads takes beyond the work of one thread.
fn launching(threads: usize, options: &CompileOptions) -> Result<f64, Error> {
    let bits = options.target.machine.vector_bits;
    let lanes = usize::from(Chain::Add.lanes(bits));
    let data = Bytes::from(1e-4f32.to_le_bytes().repeat(lanes));
    let inputs = vec![(DType::F32, data)];
    let probe = compile(probes::arithmetic(Chain::Add, bits), inputs, DType::F32, lanes, options)?;
    // Long enough for the other threads to take their part.
    let alone = probe.seconds(&[1, LAUNCH_STEPS], LAUNCHES, 1, RUNS)?;
    let nothing = probe.seconds(&[1, 0], LAUNCHES, 1, RUNS)?;
    let together = probe.seconds(&[threads as i64, LAUNCH_STEPS], LAUNCHES, threads, RUNS)?;
    Ok((together - alone).max(0.0) * 1e6 / LAUNCHES as f64 + nothing * 1e6 / LAUNCHES as f64)
}

/// Measures this machine; `progress` hears what comes next. Takes some seconds, and wants an idle machine.
pub fn measure(progress: &mut dyn FnMut(&str)) -> Result<MeasuredMachine, Error> {
    let options = CompileOptions::new(Target::named("cpu")?);
    let shipped = Machine::host();
    let threads = [1, shipped.cores];
    let mut rates = Vec::new();
    let mut measured = |name: &str, unit: &str, chain: Chain| -> Result<f64, Error> {
        progress(name);
        let [one_thread, all_threads] = arithmetic(chain, &options, threads)?;
        rates.push(Rate { name: name.to_string(), unit: unit.to_string(), one_thread, all_threads });
        Ok(one_thread)
    };
    let f32_gigaflops = measured("f32 multiply-add", "GFLOP/s", Chain::MultiplyAdd(DType::F32))?;
    measured("f64 multiply-add", "GFLOP/s", Chain::MultiplyAdd(DType::F64))?;
    let int8_gigaops = measured("u8 x s8 dot product", "GOP/s", Chain::Dot)?;
    let elementwise_gigaops = measured("f32 addition", "G/s", Chain::Add)?;
    let transcendental_gigaops = measured("f32 exponential", "G/s", Chain::Exponential)?;

    let mut found = caches::of_this_host();
    if found.is_empty() {
        found = shipped.caches.iter().map(|c| caches::Cache { bytes: c.bytes, shared: c.shared }).collect();
    }
    let mut bandwidths = Vec::new();
    let mut inner = 0u64;
    for (index, cache) in found.iter().enumerate() {
        let level = format!("L{}", index + 1);
        progress(&format!("reading from {level}"));
        // Beyond what the level inside holds, and well within this one.
        let each = (cache.bytes / 2).max((2 * inner).min(cache.bytes * 3 / 4));
        let share = if cache.shared { (each / threads[1] as u64).max(2 * inner) } else { each };
        let (one_thread, all_threads) = (reading(each, 1, &options)?, reading(share, threads[1], &options)?);
        bandwidths.push(Bandwidth { level, bytes: Some(cache.bytes), one_thread, all_threads });
        inner = cache.bytes;
    }
    progress("reading from memory");
    let size = (4 * inner).clamp(LEAST_MEMORY_BYTES, MOST_MEMORY_BYTES);
    let (one_thread, all_threads) =
        (reading(size, 1, &options)?, reading(size / threads[1] as u64, threads[1], &options)?);
    bandwidths.push(Bandwidth { level: "memory".into(), bytes: None, one_thread, all_threads });
    progress("launching kernels");
    let launch_microseconds = launching(threads[1], &options)?;

    let levels = found.iter().zip(&bandwidths).map(|(cache, level)| CacheLevel {
        bytes: cache.bytes,
        gigabytes_per_second: level.one_thread,
        shared: cache.shared,
    });
    let machine = Machine {
        f32_gigaflops,
        int8_gigaops,
        elementwise_gigaops,
        transcendental_gigaops,
        caches: levels.collect(),
        memory_gigabytes_per_second: one_thread,
        total_memory_gigabytes_per_second: all_threads,
        launch_microseconds,
        ..shipped
    };
    Ok(MeasuredMachine::new(rates, bandwidths, launch_microseconds, machine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_compiles_and_gives_a_rate() {
        let options = CompileOptions::new(Target::named("cpu").unwrap());
        for chain in [
            Chain::MultiplyAdd(DType::F32),
            Chain::MultiplyAdd(DType::F64),
            Chain::Dot,
            Chain::Add,
            Chain::Exponential,
        ] {
            let [one, two] = arithmetic(chain, &options, [1, 2]).unwrap();
            assert!(one > 0.01 && two > 0.01, "{chain:?}: {one}, {two}");
        }
        assert!(reading(16 << 10, 1, &options).unwrap() > 0.1);
        assert!(launching(2, &options).unwrap() > 0.0);
    }
}
