//! Runs kernels in the simulator and in the kernel interpreter.

use tcc_ir::dtype::DType;
use tcc_kernel::Kernel;
use tcc_kernel::evaluate::evaluate;
use tcc_kernel::fold;
use tcc_ptx::launch::{LaunchDescription, Parameter};
use tcc_ptx::sim::{Counts, Grid, Memory, Module, SimError, run};

/// Numbers in no obvious order, the same for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// The grid for given dimensions; none where there is nothing to do.
pub fn grid(launch: &LaunchDescription, dim: &dyn Fn(&str) -> Option<i64>) -> Option<Grid> {
    let mut blocks = [0; 3];
    for (blocks, size) in blocks.iter_mut().zip(&launch.grid) {
        *blocks =
            u64::try_from(size.evaluate(dim).expect("dimensions are known")).ok().filter(|size| *size > 0)?;
    }
    Some(Grid { blocks, threads: launch.block })
}

/// Executes one kernel of a module on buffers, in place.
pub fn simulate(
    module: &Module,
    launch: &LaunchDescription,
    buffers: &mut [Vec<u8>],
    dim: &dyn Fn(&str) -> Option<i64>,
    seed: u64,
) -> Result<Counts, SimError> {
    let Some(grid) = grid(launch, dim) else { return Ok(Counts::default()) };
    let mut memory = Memory::new();
    let addresses: Vec<u64> = buffers.iter().map(|bytes| memory.allocate(bytes.clone())).collect();
    let threads: u64 = grid.blocks.iter().chain(&grid.threads).product();
    let scratch = launch.scratch_bytes_per_thread.evaluate(dim).expect("dimensions are known") as u64;
    let scratch = memory.allocate_uninitialized((scratch * threads) as usize);
    let mut next = addresses.iter();
    let arguments: Vec<u64> = launch
        .parameters
        .iter()
        .map(|parameter| match parameter {
            Parameter::Buffer { .. } => *next.next().expect("a buffer for each parameter"),
            Parameter::Scratch => scratch,
            Parameter::Dim(name) => dim(name).unwrap_or_else(|| panic!("{name} is not known")) as u64,
        })
        .collect();
    let counts = run(module, &launch.kernel, grid, &arguments, &mut memory, seed)?;
    for (bytes, address) in buffers.iter_mut().zip(addresses) {
        bytes.copy_from_slice(memory.bytes(address));
    }
    Ok(counts)
}

/// The same in the kernel interpreter.
pub fn interpret(kernel: &Kernel, buffers: &mut [Vec<u8>], dim: &dyn Fn(&str) -> Option<i64>) {
    let dims: Vec<i64> =
        kernel.dims.iter().map(|name| dim(name).unwrap_or_else(|| panic!("{name} is not known"))).collect();
    let mut slices: Vec<&mut [u8]> = buffers.iter_mut().map(|bytes| &mut bytes[..]).collect();
    evaluate(kernel, &mut slices, &dims, 0, i64::MAX).unwrap_or_else(|error| panic!("{error}\n{kernel}"));
}

/// Fails where the bits differ; any NaN equals any other.
pub fn assert_same(what: &str, dtype: DType, expected: &[u8], found: &[u8]) {
    assert_eq!(expected.len(), found.len(), "{what}");
    let size = dtype.size();
    for (index, (x, y)) in expected.chunks(size).zip(found.chunks(size)).enumerate() {
        let number = |chunk: &[u8]| {
            let mut wide = [0; 8];
            wide[..size].copy_from_slice(chunk);
            fold::from_bits(dtype, u64::from_le_bytes(wide))
        };
        let (a, b) = (number(x), number(y));
        let same = x == y
            || dtype.is_float() && (a.as_f64() == b.as_f64() || a.as_f64().is_nan() && b.as_f64().is_nan());
        assert!(same, "{what}: element {index} is {b}, expected {a}");
    }
}
