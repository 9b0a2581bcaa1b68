//! A persistent thread pool for data-parallel loops.
//!
//! One loop runs at a time: [`ThreadPool::run`] cuts its domain into slices of `grain` points, whose boundaries
//! depend on nothing else. Every participant owns a contiguous part of the slices, so that consecutive loops over
//! the same data meet the same core, and helps the others once its own part is done. The calling thread takes part
//! and never waits for a worker that has not started: a worker that wakes late finds the loop closed.
//!
//! Workers spin for a short time after a loop, because the next one usually follows at once, and then sleep.
//!
//! A loop started inside a loop, or while another thread uses the pool, runs on the calling thread alone.

use crate::error::{Error, Result};
use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a worker without work spins before it sleeps.
const SPIN: Duration = Duration::from_micros(100);

/// How often the caller looks whether the last slices are done before it offers its core to others.
const SPINS_BEFORE_YIELD: u32 = 1000;

/// Largest number of threads of a pool.
pub const MAX_THREADS: usize = 1024;

/// The state word: epoch in the upper half, then one bit that says that the loop can be joined, then the number of
/// workers inside it.
const OPEN: u64 = 1 << 31;
const EPOCH_SHIFT: u32 = 32;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// A loop body: `body(worker, begin, end)`.
type Body<'a> = dyn Fn(usize, i64, i64) + Sync + 'a;

/// What the workers need to know about the loop.
#[derive(Clone, Copy)]
struct Job {
    body: *const Body<'static>,
    tasks: i64,
    grain: i64,
    slices: i64,
    participants: usize,
}

/// A value alone on its cache lines, so that threads do not disturb each other's.
#[repr(align(128))]
struct Padded<T>(T);

struct Worker {
    parked: Padded<AtomicBool>,
}

struct Shared {
    state: Padded<AtomicU64>,
    job: UnsafeCell<Option<Job>>,
    /// Next slice of the part of each participant.
    cursors: Vec<Padded<AtomicI64>>,
    workers: Vec<Worker>,
    stop: AtomicBool,
    /// Workers that have started.
    started: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only while the state word has no `OPEN` bit and no workers inside, and by the one thread
// that holds `busy`; workers read it only after they entered. Everything else is atomic or locked.
unsafe impl Sync for Shared {}
// SAFETY: the pointer inside `job` is used only while the caller that owns the closure waits in `run`.
unsafe impl Send for Shared {}

/// A set of threads that run loops together.
pub struct ThreadPool {
    shared: Arc<Shared>,
    busy: AtomicBool,
    threads: Vec<Thread>,
    handles: Vec<JoinHandle<()>>,
}

impl ThreadPool {
    /// A pool of `threads` threads, the caller of [`run`](Self::run) included; 0 means one for each CPU that the
    /// process may use.
    pub fn new(threads: usize) -> Result<Self> {
        let threads = match threads {
            0 => thread::available_parallelism().map_or(1, |count| count.get()).min(MAX_THREADS),
            threads => threads,
        };
        if threads > MAX_THREADS {
            let source = std::io::Error::other(format!("the limit is {MAX_THREADS}"));
            return Err(Error::Threads { threads, source });
        }
        let shared = Arc::new(Shared {
            state: Padded(AtomicU64::new(0)),
            job: UnsafeCell::new(None),
            cursors: (0..threads).map(|_| Padded(AtomicI64::new(0))).collect(),
            workers: (1..threads).map(|_| Worker { parked: Padded(AtomicBool::new(false)) }).collect(),
            stop: AtomicBool::new(false),
            started: AtomicUsize::new(0),
            panic: Mutex::new(None),
        });
        let mut pool =
            ThreadPool { shared, busy: AtomicBool::new(false), threads: Vec::new(), handles: Vec::new() };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let handle = thread::Builder::new()
                .name(format!("tcc-{index}"))
                .spawn(move || work(&shared, index))
                .map_err(|source| Error::Threads { threads, source })?;
            pool.threads.push(handle.thread().clone());
            pool.handles.push(handle);
        }
        // A thread that starts allocates; once it is in its loop it never does again.
        while pool.shared.started.load(Ordering::Acquire) < threads - 1 {
            thread::yield_now();
        }
        Ok(pool)
    }

    /// Number of threads, the caller included.
    pub fn threads(&self) -> usize {
        self.shared.cursors.len()
    }

    /// Calls `body(worker, begin, end)` for slices that cover `0..tasks`, and returns when all are done.
    ///
    /// `worker` is below [`threads`](Self::threads) and no two calls at one time get the same. Each slice has `grain`
    /// points (at least 1) except the last, which may have fewer; alone, the calling thread takes the whole domain as
    /// one slice. A panic in `body` is passed on once the other slices have stopped.
    pub fn run(&self, tasks: i64, grain: i64, body: &Body<'_>) {
        if tasks <= 0 {
            return;
        }
        let grain = grain.max(1);
        let slices = (tasks - 1) / grain + 1;
        let participants = self.threads().min(usize::try_from(slices).unwrap_or(usize::MAX));
        if participants <= 1 || INSIDE.get() || self.busy.swap(true, Ordering::Acquire) {
            body(0, 0, tasks);
            return;
        }

        let shared = &*self.shared;
        for (index, cursor) in shared.cursors.iter().take(participants).enumerate() {
            cursor.0.store(part_start(index, slices, participants), Ordering::Relaxed);
        }
        // SAFETY: only the lifetime changes. Workers use the pointer only between entering and leaving the loop, and
        // `run` does not return before all have left.
        let body = unsafe { std::mem::transmute::<*const Body<'_>, *const Body<'static>>(body) };
        let job = Job { body, tasks, grain, slices, participants };
        // SAFETY: `busy` is ours, the loop before is closed and empty, so that no worker reads.
        unsafe { *shared.job.get() = Some(job) };
        let epoch = (shared.state.0.load(Ordering::Relaxed) >> EPOCH_SHIFT) + 1;
        // The order with the `parked` flags is what makes sure that no worker falls asleep over an open loop.
        shared.state.0.store(epoch << EPOCH_SHIFT | OPEN, Ordering::SeqCst);
        for (worker, thread) in shared.workers.iter().zip(&self.threads).take(participants - 1) {
            if worker.parked.0.load(Ordering::SeqCst) {
                thread.unpark();
            }
        }

        let outcome = participate(shared, &job, 0);
        shared.state.0.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while shared.state.0.load(Ordering::Acquire) & (OPEN - 1) != 0 {
            spins += 1;
            if spins < SPINS_BEFORE_YIELD { std::hint::spin_loop() } else { thread::yield_now() }
        }
        let theirs = shared.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        self.busy.store(false, Ordering::Release);
        if let Some(payload) = outcome.err().or(theirs) {
            resume_unwind(payload);
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for (thread, handle) in self.threads.iter().zip(self.handles.drain(..)) {
            thread.unpark();
            // A worker catches panics of loop bodies, so there is nothing to learn from its result.
            drop(handle.join());
        }
    }
}

impl std::fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ThreadPool({} threads)", self.threads())
    }
}

/// First slice of a participant's part.
fn part_start(index: usize, slices: i64, participants: usize) -> i64 {
    (i128::from(slices) * index as i128 / participants as i128) as i64
}

/// Runs slices until none is left: first the own part, then what the others have not begun.
fn participate(shared: &Shared, job: &Job, own: usize) -> std::thread::Result<()> {
    let was_inside = INSIDE.replace(true);
    // SAFETY: the caller of `ThreadPool::run` waits until this participant has left, so the closure is alive.
    let body = unsafe { &*job.body };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for step in 0..job.participants {
            let part = (own + step) % job.participants;
            let end = part_start(part + 1, job.slices, job.participants);
            let cursor = &shared.cursors[part].0;
            // Look before taking, so that a finished part costs no write.
            while cursor.load(Ordering::Relaxed) < end {
                let slice = cursor.fetch_add(1, Ordering::Relaxed);
                if slice >= end {
                    break;
                }
                let begin = slice * job.grain;
                body(own, begin, begin.saturating_add(job.grain).min(job.tasks));
            }
        }
    }));
    if outcome.is_err() {
        // Nobody needs the rest any more.
        for cursor in &shared.cursors {
            cursor.0.store(i64::MAX / 2, Ordering::Relaxed);
        }
    }
    INSIDE.set(was_inside);
    outcome
}

/// A worker's life.
fn work(shared: &Shared, index: usize) {
    let parked = &shared.workers[index - 1].parked.0;
    let mut seen = 0;
    shared.started.fetch_add(1, Ordering::Release);
    loop {
        let Some(state) = wait(shared, parked, seen) else { return };
        let entered = shared.state.0.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
        if entered.is_err() {
            continue;
        }
        seen = state >> EPOCH_SHIFT;
        // SAFETY: this worker is counted as inside, so that the job stays as it is until it leaves.
        let job = unsafe { *shared.job.get() };
        if let Some(job) = job.filter(|job| index < job.participants)
            && let Err(payload) = participate(shared, &job, index)
        {
            *shared.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(payload);
        }
        shared.state.0.fetch_sub(1, Ordering::Release);
    }
}

/// Waits for an open loop that this worker has not seen and returns the state word, `None` when the pool stops.
fn wait(shared: &Shared, parked: &AtomicBool, seen: u64) -> Option<u64> {
    let ready = || {
        let state = shared.state.0.load(Ordering::SeqCst);
        (state & OPEN != 0 && state >> EPOCH_SHIFT != seen).then_some(state)
    };
    let mut start: Option<Instant> = None;
    loop {
        for _ in 0..64 {
            if shared.stop.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(state) = ready() {
                return Some(state);
            }
            std::hint::spin_loop();
        }
        let now = Instant::now();
        if now.duration_since(*start.get_or_insert(now)) < SPIN {
            continue;
        }
        parked.store(true, Ordering::SeqCst);
        // A loop opened before the flag was seen is noticed here, one opened after it unparks this thread.
        if ready().is_none() && !shared.stop.load(Ordering::SeqCst) {
            thread::park();
        }
        parked.store(false, Ordering::SeqCst);
        start = None;
    }
}

#[cfg(test)]
mod tests;
