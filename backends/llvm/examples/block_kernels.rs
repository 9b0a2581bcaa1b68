//! Speed of the kernels for block-quantized weights, beside what the machine can do.
//!
//! ```text
//! cargo run --release -p tcc-llvm --example block_kernels [--asm] [FORMAT...]
//! ```
//!
//! One row (decoding): bytes of packed weights a second, and their share of a plain read loop's in the same run, on one and
//! two threads. 256 rows (prefill): billions of operations a second on one thread. Figures are the best of several runs.
//! `--asm` prints the assembly of the kernels instead.

use std::time::Instant;

use bytes::Bytes;
use tcc_ir::block_format::{BlockFormat, RowForm, WeightForm};
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::ScalarExpr;
use tcc_ir::types::TensorType;
use tcc_kernel::Kernel;
use tcc_kernel::lower::{Argument, Tuning, lower};
use tcc_kernel::passes::finalize;
use tcc_llvm::{Jit, Options, Target, Text, compile, emit_text};

/// The machine form of a kernel.
type Entry = unsafe extern "C" fn(*const *const u8, *const i64, *mut u8, i64, i64);

/// Seconds of the fastest of several runs.
fn best(runs: usize, mut work: impl FnMut()) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..runs {
        let start = Instant::now();
        work();
        least = least.min(start.elapsed().as_secs_f64());
    }
    least
}

/// Bytes a second of a plain read loop.
fn read_rate(threads: usize) -> f64 {
    let memory = vec![1u64; 32 << 20];
    let seconds = best(5, || {
        std::thread::scope(|scope| {
            for part in memory.chunks(memory.len() / threads) {
                scope.spawn(move || {
                    let mut sums = [0u64; 32];
                    for line in part.chunks_exact(32) {
                        sums.iter_mut().zip(line).for_each(|(sum, value)| *sum = sum.wrapping_add(*value));
                    }
                    std::hint::black_box(sums);
                });
            }
        });
    });
    memory.len() as f64 * 8.0 / seconds
}

struct Compiled {
    jit: Jit,
    kernel: Kernel,
    buffers: Vec<Vec<u8>>,
    packed_bytes: usize,
    tasks: i64,
}

impl Compiled {
    /// A product with `rows` rows of activations in a form.
    fn new(
        format: BlockFormat,
        form: RowForm,
        [rows, outputs, depth]: [usize; 3],
    ) -> Result<Compiled, Box<dyn std::error::Error>> {
        let target = Target::host()?;
        let machine = target.machine_description();
        let tuning = Tuning {
            vector_bits: machine.vector_bits,
            vector_registers: if machine.vector_bits == 512 { 32 } else { 16 },
            l1_bytes: 32 << 10,
            l2_bytes: 1 << 20,
            dot: machine.dot.unsigned_signed,
            gpu: None,
        };
        let row_bytes = format.row_bytes(depth).ok_or("the depth is no whole number of blocks")?;
        let sum =
            if matches!(format, BlockFormat::Q2K | BlockFormat::Q3K | BlockFormat::Q6K) { 16 } else { 32 };
        let tensor =
            |dtype, shape: &[usize]| TensorType::new(dtype, shape.iter().map(|dim| (*dim).into()).collect());
        let codes = tensor(DType::I8, &[rows, depth]);
        let parts = [tensor(DType::F32, &[rows, depth / 32]), tensor(DType::F32, &[rows, depth / sum])];
        let mut operands = match form {
            RowForm::Float => vec![tensor(DType::F32, &[rows, depth])],
            RowForm::Int8 => [vec![codes], parts.to_vec()].concat(),
            RowForm::Int16 => [vec![codes.clone()], parts.to_vec(), vec![codes]].concat(),
        };
        let place = operands.len();
        operands.push(tensor(DType::U8, &[outputs, row_bytes]));
        let constant: Vec<bool> = (0..operands.len()).map(|index| index == place).collect();
        let operator = Operator::BlockContract {
            weights: WeightForm::Blocks(format),
            rows: form,
            experts: false,
            epilogue: ScalarExpr::identity(),
        };
        let result = tensor(DType::F32, &[rows, outputs]);
        let lowered =
            lower(&operator, &operands, std::slice::from_ref(&result), &constant, "product", &tuning)?;
        // Small scales, all alike: what the numbers are does not matter here.
        let raw = Bytes::from(vec![0x11u8; outputs * row_bytes]);
        let weights = Data::new(DType::U8, &[outputs, row_bytes], raw)?;
        let [launch] = &lowered.launches[..] else { return Err("one kernel multiplies".into()) };
        let mut kernel = launch.kernel.clone();
        finalize(&mut kernel, &machine)?;
        let bytes = |ty: &TensorType| {
            ty.static_shape().unwrap_or_default().iter().product::<usize>() * ty.dtype().size()
        };
        let mut packed_bytes = 0;
        let mut buffers = Vec::new();
        for argument in &launch.arguments {
            buffers.push(match argument {
                Argument::Operand(index) => vec![1u8; bytes(&operands[*index])],
                Argument::Block(index) => {
                    let packed = lowered.blocks[*index].apply(std::slice::from_ref(&weights))?;
                    packed_bytes += packed.bytes().len();
                    packed.bytes().to_vec()
                }
                _ => vec![0u8; bytes(&result)],
            });
        }
        let object = compile(std::slice::from_ref(&kernel), &target, Options::default())?;
        let jit = Jit::load(&object)?;
        let tasks = kernel.tasks().as_index().unwrap_or(1);
        Ok(Compiled { jit, kernel, buffers, packed_bytes, tasks })
    }

    fn run(&self, threads: i64) {
        let pointers: Vec<usize> = self.buffers.iter().map(|buffer| buffer.as_ptr() as usize).collect();
        let Some(symbol) = self.jit.symbol(&self.kernel.name) else { return };
        let address = symbol as usize;
        let part = |begin: i64, end: i64| {
            let pointers: Vec<*const u8> = pointers.iter().map(|address| *address as *const u8).collect();
            // SAFETY: kernels have this signature and the buffers have the sizes that the lowering declares; tasks write
            // disjoint parts of the result.
            unsafe {
                let entry = std::mem::transmute::<usize, Entry>(address);
                entry(pointers.as_ptr(), [].as_ptr(), std::ptr::null_mut(), begin, end);
            }
        };
        if threads == 1 {
            return part(0, self.tasks);
        }
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let part = &part;
                scope.spawn(move || part(thread * self.tasks / threads, (thread + 1) * self.tasks / threads));
            }
        });
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (flags, wanted): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let assembly = flags.iter().any(|flag| flag == "--asm");
    println!(
        "{:<8} {:<6} {:>9} {:>16} {:>16} {:>18}",
        "format", "x", "bits", "1 thread GB/s", "2 threads GB/s", "prefill GOP/s"
    );
    for format in BlockFormat::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == format.text()) {
            continue;
        }
        for form in RowForm::ALL.iter().rev().copied() {
            if assembly {
                for rows in [1, 256] {
                    let kernel = Compiled::new(*format, form, [rows, 64, 512])?.kernel;
                    let options = Options::default();
                    let text = emit_text(&[kernel], Text::Assembly, &Target::host()?, options)?;
                    println!("# {} x {rows} rows of {}\n{text}", format.text(), form.text());
                }
                continue;
            }
            let decode = Compiled::new(*format, form, [1, 12288, 8192])?;
            let bits = decode.packed_bytes as f64 * 8.0 / (12288.0 * 8192.0);
            let mut shares = Vec::new();
            for threads in [1, 2] {
                let probed = read_rate(threads as usize);
                let rate = decode.packed_bytes as f64 / best(5, || decode.run(threads));
                shares.push(format!("{:.1} ({:.0} %)", rate / 1e9, 100.0 * rate / probed));
            }
            let (rows, outputs, depth) = (256, 576, 1536);
            let prefill = Compiled::new(*format, form, [rows, outputs, depth])?;
            let rate = 2.0 * (rows * outputs * depth) as f64 / best(20, || prefill.run(1));
            println!(
                "{:<8} {:<6} {:>9.2} {:>16} {:>16} {:>18.0}",
                format.text(),
                form.text(),
                bits,
                shares[0],
                shares[1],
                rate / 1e9
            );
        }
    }
    Ok(())
}
