//! What it takes to hand a loop to the threads of the pool: `cargo bench -p tcc-runtime --bench pool`.
//!
//! For loops that follow each other at once and for loops after a pause in which the workers went to sleep: the time of a
//! whole loop of two empty slices a thread, and the time until a worker begins its first slice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tcc_runtime::ThreadPool;

const ROUNDS: usize = 2000;

/// Long enough for every worker to fall asleep.
const PAUSE: Duration = Duration::from_millis(1);

/// Work of a slice, so that the loop is still open when a worker arrives.
const SLICE: Duration = Duration::from_micros(30);

fn median(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 9 / 10])
}

fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Microseconds of whole loops of empty slices.
fn whole(pool: &ThreadPool, pause: Duration, rounds: usize) -> Vec<f64> {
    let tasks = 2 * pool.threads() as i64;
    let once = |_| {
        std::thread::sleep(pause);
        let start = Instant::now();
        pool.run(tasks, 1, &|_, begin, end| {
            std::hint::black_box((begin, end));
        });
        start.elapsed().as_secs_f64() * 1e6
    };
    (0..rounds).map(once).collect()
}

/// Microseconds until a worker begins, in the rounds in which one came before the loop was over.
fn arrival(pool: &ThreadPool, pause: Duration, rounds: usize) -> Vec<f64> {
    let first = AtomicU64::new(u64::MAX);
    let mut times = Vec::new();
    for _ in 0..rounds {
        std::thread::sleep(pause);
        first.store(u64::MAX, Ordering::Relaxed);
        let start = Instant::now();
        pool.run(2 * pool.threads() as i64, 1, &|worker, _, _| {
            if worker > 0 {
                first.fetch_min(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            }
            spin(SLICE);
        });
        match first.load(Ordering::Relaxed) {
            u64::MAX => {}
            nanoseconds => times.push(nanoseconds as f64 / 1e3),
        }
    }
    times
}

fn main() {
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    for threads in 2..=cores.max(2) {
        let pool = match ThreadPool::new(threads) {
            Ok(pool) => pool,
            Err(error) => return eprintln!("{error}"),
        };
        for (name, pause, rounds) in [("at once", Duration::ZERO, ROUNDS), ("asleep", PAUSE, ROUNDS / 4)] {
            let (half, most) = median(&mut whole(&pool, pause, rounds));
            print!("{threads} threads, {name}: whole loop {half:.2} us (90 % within {most:.2})");
            match &mut arrival(&pool, pause, rounds)[..] {
                [] => println!(", no worker came in time"),
                times => {
                    let (half, most) = median(times);
                    println!(", first worker after {half:.2} us (90 % within {most:.2})");
                }
            }
        }
    }
}
