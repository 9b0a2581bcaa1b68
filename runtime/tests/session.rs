//! Programs in memory: results, symbolic shapes, threads, messages for wrong inputs.

#![allow(clippy::cloned_ref_to_slice_refs)] // Shapes read better as lists.

mod programs;

use programs::*;
use std::sync::Arc;
use tcc_runtime::manifest::*;
use tcc_runtime::{DType, Error, Session, SessionOptions, TensorMut, TensorRef, ThreadPool};

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 1009) as f32 / 31.0 - 16.0).collect()
}

fn expected(x: &[f32], rows: usize, k: usize, n: usize) -> Vec<f32> {
    let mut y = Vec::new();
    for row in 0..rows {
        for column in 0..n {
            let sum: f32 = (0..k)
                .map(|inner| x[row * k + inner] * (((inner * n + column) % 17) as f32 - 8.3))
                .fold(0.0, |sum, term| sum + term);
            y.push(sum + sum);
        }
    }
    y
}

#[test]
fn every_row_count_gives_the_right_bits_with_any_number_of_threads() {
    let (k, n) = (13, 29);
    let executable = contraction(k, n).finish().unwrap();
    for threads in 1..=4 {
        let mut session = Session::new(&executable, threads).unwrap();
        for rows in [0, 1, 2, 3, 7, 64, 101, 2] {
            let x = numbers(rows * k);
            let outputs = session.run(&[TensorRef::from_slice(&[rows, k], &x).unwrap()]).unwrap();
            assert_eq!(outputs[0].shape(), [rows, n]);
            assert_eq!(
                outputs[0].elements::<f32>().unwrap(),
                expected(&x, rows, k, n),
                "{threads} threads, {rows} rows"
            );
            assert!(session.memory_use().arena >= (rows * n * 4) as u64);
        }
    }
}

#[test]
fn the_arena_is_planned_again_only_when_it_is_too_small() {
    let executable = contraction(4, 16).finish().unwrap();
    let mut session = Session::new(&executable, 1).unwrap();
    let mut arena_after = |rows: usize| {
        session.prepare(&[&[rows, 4]]).unwrap();
        session.memory_use().arena
    };
    assert_eq!(arena_after(16), 1024, "the first plan is exact");
    assert_eq!(arena_after(3), 1024);
    assert_eq!(arena_after(17), 1088 + 1088 / 8 / 64 * 64 + 64, "later ones leave room");
    let sizes: std::collections::BTreeSet<u64> = (17..500).map(&mut arena_after).collect();
    assert!(sizes.len() < 32, "{sizes:?}");
}

#[test]
fn callers_may_lend_the_output_memory() {
    let executable = contraction(5, 3).finish().unwrap();
    let mut session = Session::new(&executable, 2).unwrap();
    let x = numbers(20);
    let mut y = [f32::NAN; 14];
    {
        let mut outputs = [TensorMut::from_slice(&mut y)];
        session.run_into(&[TensorRef::from_slice(&[4, 5], &x).unwrap()], &mut outputs).unwrap();
        assert_eq!(outputs[0].shape(), [4, 3]);
    }
    assert_eq!(y[..12], expected(&x, 4, 5, 3));
    assert!(y[12..].iter().all(|y| y.is_nan()), "only the output is written");
    assert_eq!(session.output_bytes(), [48]);

    let inputs = [TensorRef::from_slice(&[4, 5], &x).unwrap()];
    let mut small = [0f32; 11];
    let error = session.run_into(&inputs, &mut [TensorMut::from_slice(&mut small)]).unwrap_err();
    assert!(matches!(&error, Error::OutputBuffer { output, .. } if output == "y"), "{error}");
    let mut wrong = [0f64; 100];
    let error = session.run_into(&inputs, &mut [TensorMut::from_slice(&mut wrong)]).unwrap_err();
    assert!(matches!(error, Error::OutputType { .. }));
    assert!(matches!(session.run_into(&inputs, &mut []), Err(Error::OutputCount { .. })));
}

#[test]
fn sessions_share_a_program_and_a_pool() {
    let executable = contraction(8, 8).finish().unwrap();
    let pool = Arc::new(ThreadPool::new(3).unwrap());
    std::thread::scope(|scope| {
        for rows in 1..5 {
            let options = SessionOptions { pool: Some(Arc::clone(&pool)), ..SessionOptions::default() };
            let mut session = Session::with_options(&executable, &options).unwrap();
            scope.spawn(move || {
                let x = numbers(rows * 8);
                for _ in 0..50 {
                    let outputs = session.run(&[TensorRef::from_slice(&[rows, 8], &x).unwrap()]).unwrap();
                    assert_eq!(outputs[0].elements::<f32>().unwrap(), expected(&x, rows, 8, 8));
                }
            });
        }
    });
}

#[test]
fn wrong_inputs_are_named() {
    let executable = contraction(5, 3).finish().unwrap();
    let mut session = Session::new(&executable, 1).unwrap();
    let message = |session: &mut Session, inputs: &[TensorRef]| session.run(inputs).unwrap_err().to_string();
    let x = numbers(20);
    let good = TensorRef::from_slice(&[4, 5], &x).unwrap();

    let text = message(&mut session, &[]);
    assert!(text.contains("1 inputs (x), found 0"), "{text}");
    let text = message(&mut session, &[good, good]);
    assert!(text.contains("found 2"), "{text}");
    let text = message(&mut session, &[TensorRef::from_slice(&[4, 5], &[0i32; 20]).unwrap()]);
    assert!(text.contains("`x`") && text.contains("f32") && text.contains("i32"), "{text}");
    let text = message(&mut session, &[TensorRef::from_slice(&[20], &x).unwrap()]);
    assert!(text.contains("[rows, 5]") && text.contains("[20]") && text.contains("rank"), "{text}");
    let text = message(&mut session, &[TensorRef::from_slice(&[5, 4], &x).unwrap()]);
    assert!(text.contains("axis 1 is 4, expected 5"), "{text}");
    let many = numbers(1001 * 5);
    let text = message(&mut session, &[TensorRef::from_slice(&[1001, 5], &many).unwrap()]);
    assert!(text.contains("`rows`") && text.contains("0..=1000"), "{text}");
    let words = [0f32; 21];
    let bytes: &[u8] = bytemuck::cast_slice(&words);
    let text = message(&mut session, &[TensorRef::new(DType::F32, &[4, 5], &bytes[1..81]).unwrap()]);
    assert!(text.contains("not aligned to 4 bytes"), "{text}");
    // The session still works.
    assert_eq!(session.run(&[good]).unwrap()[0].elements::<f32>().unwrap(), expected(&x, 4, 5, 3));
}

#[test]
fn a_symbol_that_occurs_twice_is_checked() {
    let mut b = Builder::new();
    let n = b.symbol("n", 1, i64::MAX, SymbolSource::Input { input: 0, axis: 0 });
    let x = b.input("x", DType::F32, &[n.clone()]);
    let z = b.input("z", DType::F32, &[n.clone().add(1)]);
    let y = b.output("y", DType::F32, &[n.clone()]);
    b.manifest.constraints.push(Constraint {
        left: n.clone(),
        relation: Relation::MultipleOf,
        right: constant(2),
        reason: "node `Split_3`".into(),
    });
    let add = b.kernel("add", add, &[Access::Read, Access::Read, Access::Write], 0);
    b.call(run_kernel(add, &[x, z, y], &[], n, 2));
    let executable = b.finish().unwrap();
    let mut session = Session::new(&executable, 2).unwrap();
    let data = numbers(10);
    let tensor = |count: usize| TensorRef::from_slice(&[count], &data[..count]).unwrap();
    let outputs = session.run(&[tensor(4), tensor(5)]).unwrap();
    let twice: Vec<f32> = data[..4].iter().map(|x| x + x).collect();
    assert_eq!(outputs[0].elements::<f32>().unwrap(), twice);
    let text = session.run(&[tensor(4), tensor(4)]).unwrap_err().to_string();
    assert!(text.contains("`z`") && text.contains("expected 5"), "{text}");
    let text = session.run(&[tensor(3), tensor(4)]).unwrap_err().to_string();
    assert!(text.contains("Split_3") && text.contains("n = 3"), "{text}");
    let text = session.run(&[tensor(0), tensor(1)]).unwrap_err().to_string();
    assert!(text.contains("at least 1"), "{text}");
}

#[test]
fn memory_can_be_limited() {
    let executable = contraction(4, 100).finish().unwrap();
    let options = SessionOptions { threads: 1, memory_limit: Some(10_000), ..SessionOptions::default() };
    let mut session = Session::with_options(&executable, &options).unwrap();
    assert!(session.prepare(&[&[10, 4]]).is_ok());
    let error = session.prepare(&[&[100, 4]]).unwrap_err();
    assert!(matches!(error, Error::MemoryLimit { needed: 40_000.., limit: 10_000 }), "{error}");
    assert!(session.prepare(&[&[10, 4]]).is_ok());
    assert!(session.prepare(&[&[10]]).is_err());
    assert!(session.prepare(&[]).is_err());
}

#[test]
fn state_lives_from_run_to_run() {
    let mut b = Builder::new();
    let x = b.input("x", DType::F32, &[constant(3)]);
    let state = b.tensor("sum", DType::F32, &[constant(3)], Storage::State);
    b.result("y", state);
    b.result("x again", x);
    let add = b.kernel("add", add, &[Access::Read, Access::Read, Access::ReadWrite], 0);
    b.call(run_kernel(add, &[x, state, state], &[], constant(3), 1));
    let executable = b.finish().unwrap();
    let mut session = Session::new(&executable, 1).unwrap();
    let x = [1f32, 2., 3.];
    for round in 1..4 {
        let outputs = session.run(&[TensorRef::from_slice(&[3], &x).unwrap()]).unwrap();
        assert_eq!(outputs[0].elements::<f32>().unwrap(), x.map(|x| x * round as f32));
        assert_eq!(outputs[1].elements::<f32>().unwrap(), x);
    }
    session.reset_state();
    let outputs = session.run(&[TensorRef::from_slice(&[3], &x).unwrap()]).unwrap();
    assert_eq!(outputs[0].elements::<f32>().unwrap(), x);
}

#[test]
fn if_takes_one_branch() {
    let executable = choice().finish().unwrap();
    let mut session = Session::new(&executable, 2).unwrap();
    let x = numbers(9);
    for (condition, factor) in [(1, 2.0), (0, 5.0)] {
        let condition = [condition];
        let c = TensorRef::new(DType::Bool, &[], &condition).unwrap();
        let outputs = session.run(&[TensorRef::from_slice(&[9], &x).unwrap(), c]).unwrap();
        let expected: Vec<f32> = x.iter().map(|x| x * factor).collect();
        assert_eq!(outputs[0].elements::<f32>().unwrap(), expected);
    }
}

#[test]
fn loops_carry_scan_and_stop() {
    let executable = repetition().finish().unwrap();
    let mut session = Session::new(&executable, 2).unwrap();
    let x = [1f32, 2., 3., 4.];
    for (trips, stop, count) in [(5i64, 100i64, 5usize), (0, 100, 0), (100, 6, 7), (1, 100, 1), (-3, 9, 10)] {
        let (trips, stop) = ([trips], [stop]);
        let outputs = session
            .run(&[
                TensorRef::from_slice(&[4], &x).unwrap(),
                TensorRef::from_slice(&[], &trips).unwrap(),
                TensorRef::from_slice(&[], &stop).unwrap(),
            ])
            .unwrap();
        assert_eq!(outputs[0].elements::<f32>().unwrap(), x.map(|x| x * count as f32));
        assert_eq!(outputs[1].shape(), [count, 4]);
        let sums: Vec<f32> = (1..=count).flat_map(|i| x.map(|x| x * i as f32)).collect();
        assert_eq!(outputs[1].elements::<f32>().unwrap(), sums);
        let rows: Vec<f32> = (0..count).flat_map(|i| x.map(|x| x * 2.0 * i as f32)).collect();
        assert_eq!(outputs[2].elements::<f32>().unwrap(), rows);
    }
}

#[test]
fn aliases_are_slices_of_their_tensor() {
    let mut b = Builder::new();
    let n = b.symbol("n", 1, i64::MAX, SymbolSource::Input { input: 0, axis: 0 });
    let x = b.input("x", DType::F32, &[n.clone(), constant(3)]);
    let first_row = Storage::Alias { of: x, byte_offset: constant(0) };
    let first = b.tensor("first", DType::F32, &[constant(3)], first_row);
    let last_row = Storage::Alias { of: x, byte_offset: n.clone().sub(1).mul(12) };
    let last = b.tensor("last", DType::F32, &[constant(3)], last_row);
    let y = b.output("y", DType::F32, &[constant(3)]);
    let add = b.kernel("add", add, &[Access::Read, Access::Read, Access::Write], 0);
    b.call(run_kernel(add, &[first, last, y], &[], constant(3), 1));
    let executable = b.finish().unwrap();
    let mut session = Session::new(&executable, 1).unwrap();
    for rows in [1, 2, 5] {
        let x = numbers(rows * 3);
        let outputs = session.run(&[TensorRef::from_slice(&[rows, 3], &x).unwrap()]).unwrap();
        let expected: Vec<f32> = (0..3).map(|i| x[i] + x[rows * 3 - 3 + i]).collect();
        assert_eq!(outputs[0].elements::<f32>().unwrap(), expected);
    }
}

#[test]
fn an_alias_beyond_its_tensor_is_refused() {
    let mut b = Builder::new();
    let n = b.symbol("n", 1, i64::MAX, SymbolSource::Input { input: 0, axis: 0 });
    let x = b.input("x", DType::F32, &[n.clone()]);
    let part =
        b.tensor("part", DType::F32, &[constant(4)], Storage::Alias { of: x, byte_offset: constant(8) });
    let y = b.output("y", DType::F32, &[constant(4)]);
    b.call(Step::Copy { from: part, to: y });
    let scale = b.kernel("scale", scale, &[Access::Read, Access::Write], 1);
    b.call(run_kernel(scale, &[part, y], &[constant(2)], constant(4), 4));
    let executable = b.finish().unwrap();
    let mut session = Session::new(&executable, 1).unwrap();
    let x = numbers(6);
    assert!(session.run(&[TensorRef::from_slice(&[6], &x).unwrap()]).is_ok());
    let error = session.run(&[TensorRef::from_slice(&[5], &x[..5]).unwrap()]).unwrap_err();
    assert!(matches!(&error, Error::Program { field, .. } if field.contains("`part`")), "{error}");
}

#[test]
fn steps_are_measured_on_demand() {
    let executable = repetition().finish().unwrap();
    let mut session = Session::new(&executable, 1).unwrap();
    let (x, trips, stop) = ([1f32; 4], [5i64], [100i64]);
    let inputs = [
        TensorRef::from_slice(&[4], &x).unwrap(),
        TensorRef::from_slice(&[], &trips).unwrap(),
        TensorRef::from_slice(&[], &stop).unwrap(),
    ];
    session.run(&inputs).unwrap();
    assert!(session.step_times().is_empty());
    session.measure_steps(true);
    session.run(&inputs).unwrap();
    session.run(&inputs).unwrap();
    let times = session.step_times();
    assert_eq!(times.iter().map(|time| time.calls).collect::<Vec<_>>(), [2, 10, 10, 10]);
    assert!(times[0].total >= times[1..].iter().map(|time| time.total).sum());
    session.measure_steps(false);
    assert!(session.step_times().is_empty());
}
