//! Building, running and observing kernels.

use tcc_ir::dtype::DType;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, BufferId, Expr, LoopKind, Stmt};

use crate::{Jit, Target};

/// Bytes before and after each buffer that no kernel may touch.
const GUARD: usize = 64;
const GUARD_BYTE: u8 = 0xa5;

/// Memory of an argument between guards.
#[derive(Clone)]
pub struct Memory {
    bytes: Vec<u8>,
}

impl Memory {
    pub fn new(contents: &[u8]) -> Memory {
        let guard = [GUARD_BYTE; GUARD];
        Memory { bytes: [&guard[..], contents, &guard[..]].concat() }
    }

    /// Elements by their bits.
    pub fn of(dtype: DType, elements: &[u64]) -> Memory {
        let bytes: Vec<u8> =
            elements.iter().flat_map(|element| element.to_le_bytes()[..dtype.size()].to_vec()).collect();
        Memory::new(&bytes)
    }

    pub fn filled(dtype: DType, count: usize, byte: u8) -> Memory {
        Memory::new(&vec![byte; count * dtype.size()])
    }

    pub fn contents(&self) -> &[u8] {
        for (guard, side) in
            [(&self.bytes[..GUARD], "before"), (&self.bytes[self.bytes.len() - GUARD..], "after")]
        {
            assert!(guard.iter().all(|byte| *byte == GUARD_BYTE), "memory {side} the buffer was written");
        }
        &self.bytes[GUARD..self.bytes.len() - GUARD]
    }

    pub fn elements(&self, dtype: DType) -> Vec<u64> {
        self.contents()
            .chunks(dtype.size())
            .map(|chunk| {
                let mut bytes = [0; 8];
                bytes[..chunk.len()].copy_from_slice(chunk);
                u64::from_le_bytes(bytes)
            })
            .collect()
    }
}

/// Calls a kernel of a JIT on arguments in order of their positions.
pub fn call(
    jit: &Jit,
    name: &str,
    memory: &mut [Memory],
    dims: &[i64],
    scratch: usize,
    begin: i64,
    end: i64,
) {
    call_at(jit.symbol(name).expect("the kernel is there"), memory, dims, scratch, begin, end);
}

/// Calls the code of a kernel.
pub fn call_at(symbol: *const u8, memory: &mut [Memory], dims: &[i64], scratch: usize, begin: i64, end: i64) {
    let pointers: Vec<*mut u8> = memory.iter_mut().map(|memory| memory.bytes[GUARD..].as_mut_ptr()).collect();
    let mut scratch_memory = vec![0u8; scratch + 64];
    let misaligned = scratch_memory.as_ptr() as usize % 64;
    let scratch = scratch_memory[(64 - misaligned) % 64..].as_mut_ptr();
    type Function = unsafe extern "C" fn(*const *mut u8, *const i64, *mut u8, i64, i64);
    // SAFETY: the symbol is a compiled kernel, which has this signature, and the tests' kernels stay inside their buffers.
    unsafe {
        let function: Function = std::mem::transmute(symbol);
        function(pointers.as_ptr(), dims.as_ptr(), scratch, begin, end);
    }
}

/// Compiles for the host and runs all of a kernel once.
pub fn run(kernel: &Kernel, memory: &mut [Memory], dims: &[i64]) {
    run_on(&Target::host(), kernel, memory, dims);
}

/// The oldest processor that is supported; the host has all of it.
pub fn oldest() -> Target {
    Target::new(&Target::host().triple, &["sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16"])
}

/// Compiles for a target and runs all of a kernel once.
pub fn run_on(target: &Target, kernel: &Kernel, memory: &mut [Memory], dims: &[i64]) {
    let jit = Jit::for_target(std::slice::from_ref(kernel), target)
        .unwrap_or_else(|error| panic!("{error}\n{}", kernel.name));
    // The other processor must at least get code.
    crate::compile(std::slice::from_ref(kernel), &Target::new("aarch64-unknown-linux-gnu", &["dotprod"]))
        .unwrap_or_else(|error| panic!("aarch64: {error}"));
    call(&jit, &kernel.name, memory, dims, 1 << 16, 0, i64::MAX);
}

/// A load of so many lanes from consecutive elements.
pub fn load(buffer: BufferId, index: Expr, lanes: u16) -> Expr {
    Expr::Load { buffer, index: Box::new(index), lanes, valid: None }
}

/// A store of consecutive elements.
pub fn store(buffer: BufferId, index: Expr, value: Expr) -> Stmt {
    Stmt::Store { buffer, index, value, valid: None }
}

/// `for var in 0..extent`.
pub fn serial(var: tcc_kernel::ir::Var, extent: Expr, body: Vec<Stmt>) -> Stmt {
    Stmt::For { var, extent, kind: LoopKind::Serial, body }
}

/// A constant vector or scalar from bits.
pub fn constant(dtype: DType, bits: u64, lanes: u16) -> Expr {
    let value = match dtype {
        DType::F32 => tcc_ir::scalar::Scalar::float(dtype, f64::from(f32::from_bits(bits as u32))),
        DType::F16 => tcc_ir::scalar::Scalar::float(dtype, half::f16::from_bits(bits as u16).to_f64()),
        DType::F64 => tcc_ir::scalar::Scalar { dtype, bits },
        _ if dtype.is_signed() => {
            let unused = 64 - dtype.bits();
            tcc_ir::scalar::Scalar::integer(dtype, ((bits << unused) as i64) >> unused)
        }
        _ => tcc_ir::scalar::Scalar { dtype, bits },
    };
    if lanes == 1 { Expr::Const(value) } else { Expr::Splat(Box::new(Expr::Const(value)), lanes) }
}

/// A kernel that maps blocks of lanes: `out[i] = body(arguments[i], ...)`. All buffers have `dims[0]` elements.
pub fn elementwise(inputs: &[DType], output: DType, lanes: u16, body: &dyn Fn(&[Expr]) -> Expr) -> Kernel {
    let mut kernel = Kernel::new("elementwise");
    kernel.dims.push("n".to_owned());
    let inputs: Vec<BufferId> =
        inputs.iter().map(|dtype| kernel.argument("x", *dtype, Expr::Dim(0), Access::Read)).collect();
    let out = kernel.argument("y", output, Expr::Dim(0), Access::Write);
    let block = kernel.counter("block");
    let index = Expr::from(block).times(Expr::index(i64::from(lanes)));
    let args: Vec<Expr> = inputs.iter().map(|buffer| load(*buffer, index.clone(), lanes)).collect();
    let statement = store(out, index, body(&args));
    kernel.body.push(serial(block, Expr::Dim(0).over(Expr::index(i64::from(lanes))), vec![statement]));
    kernel
}

/// Runs an elementwise kernel over rows of argument bits, repeating rows until they fill whole blocks; one result a row.
pub fn map_rows(
    target: &Target,
    inputs: &[DType],
    output: DType,
    lanes: u16,
    rows: &[Vec<u64>],
    body: &dyn Fn(&[Expr]) -> Expr,
) -> Vec<u64> {
    let kernel = elementwise(inputs, output, lanes, body);
    let count = rows.len().next_multiple_of(usize::from(lanes));
    let mut memory: Vec<Memory> = inputs
        .iter()
        .enumerate()
        .map(|(number, dtype)| {
            let column: Vec<u64> = (0..count).map(|row| rows[row % rows.len()][number]).collect();
            Memory::of(*dtype, &column)
        })
        .collect();
    memory.push(Memory::filled(output, count, 0x5a));
    run_on(target, &kernel, &mut memory, &[count as i64]);
    let mut results = memory[inputs.len()].elements(output);
    results.truncate(rows.len());
    results
}

/// A small generator of test data (xorshift).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }
}
