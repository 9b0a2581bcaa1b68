//! A prepared run allocates nothing, and a damaged file never makes the reader take more memory than the file justifies.
//! Runs without the test harness, whose threads allocate when they like.

mod programs;

use programs::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tcc_runtime::manifest::*;
use tcc_runtime::{Bundle, BundleWriter, DType, Executable, Session, TensorMut, TensorRef};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        let live = LIVE.fetch_add(layout.size() as u64, Ordering::Relaxed) + layout.size() as u64;
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs a program some times, then checks that more runs allocate nothing.
fn check(name: &str, executable: &Arc<Executable>, inputs: &[TensorRef], warm_up: usize) {
    for threads in 1..=3 {
        let mut session = Session::new(executable, threads).unwrap();
        let outputs = &executable.manifest().outputs;
        let mut buffers = vec![[0u64; 1000]; outputs.len()];
        let mut lent: Vec<_> = outputs
            .iter()
            .zip(&mut buffers)
            .map(|(port, buffer)| {
                let dtype = executable.manifest().tensors[port.tensor as usize].dtype;
                TensorMut::new(dtype, bytemuck::cast_slice_mut(buffer))
            })
            .collect();
        let shapes: Vec<_> = inputs.iter().map(|input| input.shape()).collect();
        session.prepare(&shapes).unwrap();
        (0..warm_up).for_each(|_| session.run_into(inputs, &mut lent).unwrap());
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (0..100).for_each(|_| session.run_into(inputs, &mut lent).unwrap());
        let count = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(count, 0, "{name} with {threads} threads");
    }
}

/// Sorts, takes the largest, finds the different ones, and those that are not zero.
fn host_functions() -> Builder {
    let mut b = Builder::new();
    let x = b.input("x", DType::F32, &[constant(40)]);
    let k = b.weight("k", DType::I64, &[], 3i64.to_le_bytes().to_vec());
    let sources =
        [("top_k", vec![x, k], 2), ("sort", vec![x], 1), ("unique", vec![x], 4), ("nonzero", vec![x], 1)];
    for (function, inputs, outputs) in sources {
        let first = b.manifest.symbols.len() as u32;
        let mut ids = Vec::new();
        for output in 0..outputs {
            let bound = SymbolSource::Step { bound: Some(constant(40)) };
            let dim = b.symbol(function, 0, i64::MAX, bound);
            let is_index = output > 0 || function == "nonzero";
            let dtype = if is_index { DType::I64 } else { DType::F32 };
            let shape = if function == "nonzero" { vec![constant(1), dim] } else { vec![dim] };
            ids.push(b.output(&format!("{function}{output}"), dtype, &shape));
        }
        b.call(Step::Host(HostStep {
            function: function.into(),
            attributes: Default::default(),
            inputs: inputs.into_iter().map(Some).collect(),
            outputs: ids,
            binds: (first..first + outputs).collect(),
        }));
    }
    b
}

fn runs_allocate_nothing() {
    let floats = vec![1.5f32; 50 * 16];
    let x = TensorRef::from_slice(&[50, 16], &floats).unwrap();
    // Without host tensors, not even the first run after a preparation allocates.
    check("contraction", &contraction(16, 24).finish().unwrap(), &[x], 0);
    let x = TensorRef::from_slice(&[9], &floats[..9]).unwrap();
    for flag in [[0u8], [1]] {
        let flag = TensorRef::new(DType::Bool, &[], &flag).unwrap();
        check("choice", &choice().finish().unwrap(), &[x, flag], 1);
    }
    let x = TensorRef::from_slice(&[4], &floats[..4]).unwrap();
    let counts = [20i64, 100];
    let trips = TensorRef::from_slice(&[], &counts[..1]).unwrap();
    let stop = TensorRef::from_slice(&[], &counts[1..]).unwrap();
    check("repetition", &repetition().finish().unwrap(), &[x, trips, stop], 1);
    let x: Vec<f32> = (0..40).map(|i| (i * 7 % 11) as f32).collect();
    let x = TensorRef::from_slice(&[40], &x).unwrap();
    check("host functions", &host_functions().finish().unwrap(), &[x], 1);
}

/// The most memory that reading these bytes takes on top of what is there.
fn peak_of_reading(bytes: &[u8]) -> u64 {
    let source: Arc<Vec<u8>> = Arc::new(bytes.to_vec());
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    drop(Bundle::from_source(source));
    PEAK.load(Ordering::Relaxed) - before
}

fn damaged_files_take_no_memory() {
    let mut builder = contraction(16, 24);
    builder.manifest.metadata.insert("padding".into(), "x".repeat(1000));
    let weight = builder.weights[0].clone();
    let whole = BundleWriter::new(builder.manifest).weight(weight).to_bytes().unwrap();
    let limit = 20 * whole.len() as u64;
    assert!(peak_of_reading(&whole) < limit);
    for position in 0..whole.len().min(3000) {
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = whole.clone();
            damaged[position] = value;
            assert!(peak_of_reading(&damaged) < limit, "byte {position} = {value}");
        }
    }
    // Lengths that a hostile writer declares, with a hash that matches.
    for (position, bytes) in [(16, 8), (64 + 8, 8), (64 + 16, 8), (12, 4)] {
        for value in [u64::MAX, 1 << 62, 1 << 40, 255, 1 << 31] {
            let mut forged = whole.clone();
            forged[position..position + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
            let sections = u32::from_le_bytes(forged[12..16].try_into().unwrap()) as usize;
            let head = sections.saturating_mul(64).saturating_add(64).min(forged.len());
            forged[32..64].fill(0);
            let hash = blake3::hash(&forged[..head]);
            forged[32..64].copy_from_slice(hash.as_bytes());
            assert!(peak_of_reading(&forged) < limit, "{value} at {position}");
        }
    }
}

fn main() {
    runs_allocate_nothing();
    damaged_files_take_no_memory();
}
