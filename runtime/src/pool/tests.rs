use super::*;
use std::sync::atomic::AtomicU32;

fn covers_once(pool: &ThreadPool, tasks: i64, grain: i64) {
    let counts: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
    pool.run(tasks, grain, &|worker, begin, end| {
        assert!(worker < pool.threads());
        assert!(begin < end && (begin % grain == 0 || begin == 0));
        for task in begin..end {
            counts[task as usize].fetch_add(1, Ordering::Relaxed);
        }
    });
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "tasks {tasks} grain {grain}");
}

#[test]
fn every_task_runs_exactly_once() {
    for threads in 1..=5 {
        let pool = ThreadPool::new(threads).unwrap();
        assert_eq!(pool.threads(), threads);
        for tasks in [0, 1, 2, 3, 7, 64, 1009] {
            for grain in [1, 2, 5, 64, 10_000] {
                covers_once(&pool, tasks, grain);
            }
        }
    }
}

#[test]
fn many_short_loops_follow_each_other() {
    let pool = ThreadPool::new(4).unwrap();
    for round in 0..3000 {
        covers_once(&pool, 1 + round % 17, 1);
    }
}

#[test]
fn sleeping_workers_wake() {
    let pool = ThreadPool::new(3).unwrap();
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(3));
        covers_once(&pool, 100, 3);
    }
}

#[test]
fn workers_take_part() {
    let pool = ThreadPool::new(2).unwrap();
    let used = [const { AtomicBool::new(false) }; 2];
    // Slices wait for each other, so that one thread alone could not finish.
    pool.run(2, 1, &|worker, _, _| {
        used[worker].store(true, Ordering::SeqCst);
        while !used.iter().all(|used| used.load(Ordering::SeqCst)) {
            thread::yield_now();
        }
    });
}

#[test]
fn a_loop_inside_a_loop_runs_inline() {
    let pool = ThreadPool::new(3).unwrap();
    let other = ThreadPool::new(2).unwrap();
    let total = AtomicI64::new(0);
    pool.run(8, 1, &|_, _, _| {
        pool.run(5, 1, &|worker, begin, end| {
            assert_eq!((worker, begin, end), (0, 0, 5));
            total.fetch_add(end - begin, Ordering::Relaxed);
        });
        other.run(5, 1, &|_, begin, end| {
            total.fetch_add(end - begin, Ordering::Relaxed);
        });
    });
    assert_eq!(total.into_inner(), 80);
}

#[test]
fn one_pool_serves_many_callers() {
    let pool = ThreadPool::new(2).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).for_each(|round| covers_once(&pool, 50 + round % 7, 3)));
        }
    });
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_stays_usable() {
    let pool = ThreadPool::new(3).unwrap();
    for bad in [0, 50, 99] {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.run(100, 1, &|_, begin, _| assert_ne!(begin, bad, "expected by the test"));
        }));
        assert!(outcome.is_err());
        covers_once(&pool, 100, 7);
    }
}

#[test]
fn too_many_threads_are_refused() {
    assert!(matches!(ThreadPool::new(MAX_THREADS + 1), Err(Error::Threads { .. })));
}
