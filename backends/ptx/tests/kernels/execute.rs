//! Runs kernels in the simulator and in the kernel interpreter.

use tcc_ir::dtype::DType;
use tcc_kernel::Kernel;
use tcc_kernel::evaluate::evaluate;
use tcc_kernel::fold;
use tcc_ptx::launch::{LaunchDescription, Parameter};
use tcc_ptx::sim::{Counts, Grid, Launch, Memory, Module, SimError, Use, Window, run};

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

/// Executes one kernel of a module on buffers, in place.
pub fn simulate(
    module: &Module,
    launch: &LaunchDescription,
    buffers: &mut [Vec<u8>],
    dim: &dyn Fn(&str) -> Option<i64>,
    seed: u64,
) -> Result<Counts, SimError> {
    simulate_blocks(module, launch, buffers, dim, (seed, u64::MAX))
}

/// Executes the first blocks of a kernel.
pub fn simulate_blocks(
    module: &Module,
    launch: &LaunchDescription,
    buffers: &mut [Vec<u8>],
    dim: &dyn Fn(&str) -> Option<i64>,
    (seed, most): (u64, u64),
) -> Result<Counts, SimError> {
    let mut dims = Vec::new();
    let mut uses = Vec::new();
    for parameter in &launch.parameters {
        match parameter {
            Parameter::Dim(name) => dims.push(dim(name).unwrap_or_else(|| panic!("{name} is not known"))),
            Parameter::Buffer { access, .. } if access == "read" => uses.push(Use::Read),
            Parameter::Buffer { .. } => uses.push(Use::Write),
            Parameter::Scratch => {}
        }
    }
    let Some(resolved) = launch.resolve(&dims).expect("dimensions are known") else {
        return Ok(Counts::default());
    };
    let mut memory = Memory::new();
    let addresses: Vec<u64> = buffers.iter().map(|bytes| memory.allocate(bytes.clone())).collect();
    let mut windows: Vec<Window> = addresses
        .iter()
        .zip(buffers.iter())
        .zip(uses)
        .map(|((address, bytes), usage)| Window { address: *address, bytes: bytes.len() as u64, usage })
        .collect();
    let scratch = memory.allocate(vec![0xa5; resolved.scratch_bytes as usize]);
    windows.push(Window { address: scratch, bytes: resolved.scratch_bytes, usage: Use::Scratch });
    let arguments = launch.arguments(&addresses, scratch, &dims);
    let [x, y, z] = resolved.blocks;
    let grid = Grid { blocks: [x.min(most), y, z], threads: resolved.threads };
    let (kernel, arguments, windows) = (&launch.kernel[..], &arguments[..], &windows[..]);
    let shared_bytes = launch.dynamic_shared_bytes;
    let counts = run(module, &Launch { kernel, grid, arguments, shared_bytes, windows, seed }, &mut memory)?;
    for (bytes, address) in buffers.iter_mut().zip(addresses) {
        let found = memory.bytes(address, bytes.len()).expect("it is allocated").to_vec();
        *bytes = found;
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

/// Fails where f32 values differ by more than a share of the largest, or of themselves.
pub fn assert_close(what: &str, share: f32, expected: &[u8], found: &[u8]) {
    let numbers = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect()
    };
    let (expected, found) = (numbers(expected), numbers(found));
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    for (index, (a, b)) in expected.iter().zip(&found).enumerate() {
        let same = (a - b).abs() <= share * largest || a.is_nan() && b.is_nan();
        assert!(same, "{what}: element {index} is {b}, expected {a}");
    }
}
