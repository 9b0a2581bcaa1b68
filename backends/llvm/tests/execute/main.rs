//! Kernels built by hand, compiled for this machine and run against plain Rust loops.

mod arithmetic;
mod casts;
mod coverage;
mod dots;
mod gemm;
mod loops;
mod memory;
mod operators;
mod refusals;
mod targets;

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, BufferId, Expr, LoopKind, Stmt, Var};
use tcc_llvm::{Jit, Options, Target, compile};

/// The machine form of a kernel.
type Entry = unsafe extern "C" fn(*const *mut u8, *const i64, *mut u8, i64, i64);

/// Plain numbers whose bytes may be read and written freely.
trait Element: Copy {}
impl Element for u8 {}
impl Element for i8 {}
impl Element for u16 {}
impl Element for i32 {}
impl Element for u32 {}
impl Element for i64 {}
impl Element for u64 {}
impl Element for f32 {}
impl Element for f64 {}

/// The address of a slice for a list of buffers.
fn address<T: Element>(values: &mut [T]) -> *mut u8 {
    values.as_mut_ptr().cast()
}

/// Compiles a kernel for this machine and runs tasks `0..tasks`.
fn run_tasks(kernel: &Kernel, buffers: &[*mut u8], dims: &[i64], tasks: i64) {
    let object = compile(std::slice::from_ref(kernel), &Target::host().unwrap(), Options::default()).unwrap();
    run_object(&Jit::load(&object).unwrap(), &kernel.name, buffers, dims, 0, tasks);
}

/// Runs a part of the tasks of a loaded kernel.
fn run_object(jit: &Jit, name: &str, buffers: &[*mut u8], dims: &[i64], begin: i64, end: i64) {
    call(jit.symbol(name).unwrap(), buffers, dims, begin, end);
}

/// Calls a kernel at an address.
fn call(symbol: *const (), buffers: &[*mut u8], dims: &[i64], begin: i64, end: i64) {
    let mut scratch = vec![0u8; 1 << 20];
    // SAFETY: kernels have this signature, and every test passes buffers as large as its kernel's accesses.
    unsafe {
        let entry = std::mem::transmute::<*const (), Entry>(symbol);
        entry(buffers.as_ptr(), dims.as_ptr(), scratch.as_mut_ptr(), begin, end);
    }
}

/// Runs a kernel without a parallel loop.
fn run(kernel: &Kernel, buffers: &[*mut u8], dims: &[i64]) {
    run_tasks(kernel, buffers, dims, 1);
}

/// An argument of `count` elements.
fn argument(kernel: &mut Kernel, dtype: DType, count: i64, access: Access) -> BufferId {
    let name = format!("b{}", kernel.buffers.len());
    kernel.argument(&name, dtype, Expr::index(count), access)
}

/// `for var in 0..extent`, serially.
fn serial(var: Var, extent: Expr, body: Vec<Stmt>) -> Stmt {
    Stmt::For { var, extent, kind: LoopKind::Serial, body }
}

/// Consecutive elements.
fn lanes(buffer: BufferId, index: Expr, lanes: u16) -> Expr {
    Expr::Load { buffer, index: Box::new(index), lanes, valid: None }
}

/// The leading `valid` of consecutive elements.
fn partial(buffer: BufferId, index: Expr, lanes: u16, valid: Expr) -> Expr {
    Expr::Load { buffer, index: Box::new(index), lanes, valid: Some(Box::new(valid)) }
}

/// A whole store.
fn store(buffer: BufferId, index: Expr, value: Expr) -> Stmt {
    Stmt::Store { buffer, index, value, valid: None }
}

/// A function of two arguments.
fn two(function: Function, a: Expr, b: Expr) -> Expr {
    Expr::call(function, vec![a, b])
}

/// Numbers that look arbitrary and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Between -1 and 1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }
}
