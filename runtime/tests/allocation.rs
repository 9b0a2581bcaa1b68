//! A prepared run allocates nothing. Runs without the test harness, whose threads allocate when they like.

mod programs;

use programs::contraction;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use tcc_runtime::{Session, TensorMut, TensorRef};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() {
    let executable = contraction(16, 24).finish().unwrap();
    for threads in 1..=3 {
        let mut session = Session::new(&executable, threads).unwrap();
        let x = vec![1.5f32; 50 * 16];
        let mut y = vec![0f32; 50 * 24];
        session.prepare(&[&[50, 16]]).unwrap();
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for _ in 0..100 {
            let input = TensorRef::from_slice(&[50, 16], &x).unwrap();
            session.run_into(&[input], &mut [TensorMut::from_slice(&mut y)]).unwrap();
        }
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0, "{threads} threads");
        assert!(y.iter().all(|y| *y != 0.0));
    }
}
