//! Control flow over shapes that depend on data: growing loop state, branches of different sizes, strings, nesting.

#![allow(clippy::cloned_ref_to_slice_refs)] // Shapes read better as lists.

mod programs;

use programs::*;
use tcc_runtime::manifest::*;
use tcc_runtime::{DType, DimExpr, Error, Session, Tensor, TensorRef};

const UNBOUND: SymbolSource = SymbolSource::Step { bound: None };

fn id(symbol: &DimExpr) -> u32 {
    match symbol {
        DimExpr::Symbol(id) => *id,
        other => panic!("{other} is no symbol"),
    }
}

/// out[0..n] = a, out[n] = n as f32; dims = n
unsafe extern "C" fn append(buffers: *const *mut u8, dims: *const i64, _: *mut u8, _: i64, _: i64) {
    // SAFETY: the buffers are as large as the steps below declare.
    unsafe {
        let (a, out) = ((*buffers).cast::<f32>(), (*buffers.add(1)).cast::<f32>());
        let n = *dims as usize;
        std::ptr::copy_nonoverlapping(a, out, n);
        *out.add(n) = n as f32;
    }
}

/// out = a + dims[0] for one i64
unsafe extern "C" fn increase(buffers: *const *mut u8, dims: *const i64, _: *mut u8, _: i64, _: i64) {
    // SAFETY: the buffers are as large as the steps below declare.
    unsafe {
        let (a, out) = ((*buffers).cast::<i64>(), (*buffers.add(1)).cast::<i64>());
        *out = *a + *dims;
    }
}

fn scalar(value: &[i64; 1]) -> TensorRef<'_> {
    TensorRef::from_slice(&[], value).unwrap()
}

fn floats(tensor: &Tensor) -> &[f32] {
    tensor.elements().unwrap()
}

#[test]
fn loop_state_may_grow() {
    let mut b = Builder::new();
    let n = b.symbol("n", 0, i64::MAX, SymbolSource::Input { input: 0, axis: 0 });
    let size = b.symbol("size", 0, i64::MAX, UNBOUND);
    let start = b.input("start", DType::F32, &[n]);
    let trips = b.input("trips", DType::I64, &[]);
    let state = b.host("state", DType::F32, &[size.clone()]);
    let next = b.host("next", DType::F32, &[size.clone().add(1)]);
    b.result("result", state);
    let append = b.kernel("append", append, &[Access::Read, Access::Write], 1);
    b.call(Step::Loop(LoopStep {
        trip_count: Some(trips),
        carried: vec![Carried { initial: start, state, next }],
        body: vec![run_kernel(append, &[state, next], &[size.clone()], constant(1), 1)],
        binds: vec![id(&size)],
        ..LoopStep::default()
    }));
    let executable = b.finish().unwrap();
    let mut session = Session::new(&executable, 2).unwrap();
    for (n, trips) in [(0usize, 0i64), (0, 4), (3, 0), (3, 200), (2, 5)] {
        let start = vec![7f32; n];
        let trips_value = [trips];
        let inputs = [TensorRef::from_slice(&[n], &start).unwrap(), scalar(&trips_value)];
        let outputs = session.run(&inputs).unwrap();
        let added = (n..n + trips as usize).map(|i| i as f32);
        let expected: Vec<f32> = start.iter().copied().chain(added).collect();
        assert_eq!(outputs[0].shape(), [expected.len()]);
        assert_eq!(floats(&outputs[0]), expected);
    }
}

#[test]
fn loops_nest() {
    // For i in 0..outer: total grows by inner; each total is collected. The body is a loop that adds 1 `inner` times.
    let mut b = Builder::new();
    let count = b.symbol("count", 0, 1000, UNBOUND);
    let outer = b.input("outer", DType::I64, &[]);
    let inner = b.input("inner", DType::I64, &[]);
    let zero = b.weight("zero", DType::I64, &[], vec![0; 8]);
    let total = b.arena("total", DType::I64, &[], 0, 2);
    let state = b.arena("state", DType::I64, &[], 0, 2);
    let next = b.arena("next", DType::I64, &[], 0, 2);
    let all = b.output("all", DType::I64, &[count.clone()]);
    b.result("total", total);
    let increase = b.kernel("increase", increase, &[Access::Read, Access::Write], 1);
    let body = Step::Loop(LoopStep {
        trip_count: Some(inner),
        carried: vec![Carried { initial: total, state, next }],
        body: vec![run_kernel(increase, &[state, next], &[constant(1)], constant(1), 1)],
        ..LoopStep::default()
    });
    b.call(Step::Loop(LoopStep {
        trip_count: Some(outer),
        carried: vec![Carried { initial: zero, state: total, next: state }],
        body: vec![body],
        scans: vec![Scan { element: state, result: all }],
        iterations: Some(id(&count)),
        ..LoopStep::default()
    }));
    let executable = b.finish().unwrap();
    let mut session = Session::new(&executable, 1).unwrap();
    for (outer, inner) in [(0i64, 3i64), (1, 0), (4, 3), (1000, 1)] {
        let (outer_value, inner_value) = ([outer], [inner]);
        let outputs = session.run(&[scalar(&outer_value), scalar(&inner_value)]).unwrap();
        let expected: Vec<i64> = (1..=outer).map(|i| i * inner).collect();
        assert_eq!(outputs[0].elements::<i64>().unwrap(), expected);
        assert_eq!(outputs[1].elements::<i64>().unwrap(), [outer * inner]);
    }
    let (outer, inner) = ([1001i64], [0i64]);
    let error = session.run(&[scalar(&outer), scalar(&inner)]).unwrap_err();
    assert!(matches!(&error, Error::Program { field, .. } if field.contains("`all`")), "{error}");
}

#[test]
fn branches_may_have_different_sizes() {
    let mut b = Builder::new();
    let n = b.symbol("n", 0, i64::MAX, SymbolSource::Input { input: 0, axis: 0 });
    let size = b.symbol("size", 0, i64::MAX, SymbolSource::Step { bound: Some(n.clone().add(1)) });
    let x = b.input("x", DType::F32, &[n.clone()]);
    let flag = b.input("flag", DType::Bool, &[1].map(constant));
    let longer = b.arena("longer", DType::F32, &[n.clone().add(1)], 1, 1);
    let y = b.output("y", DType::F32, &[size.clone()]);
    let append = b.kernel("append", append, &[Access::Read, Access::Write], 1);
    b.call(Step::If(IfStep {
        condition: flag,
        then: Branch {
            steps: vec![run_kernel(append, &[x, longer], &[n.clone()], constant(1), 1)],
            results: vec![Transfer { from: longer, to: y }],
        },
        otherwise: Branch { steps: vec![], results: vec![Transfer { from: x, to: y }] },
        binds: vec![id(&size)],
    }));
    let executable = b.finish().unwrap();
    let mut session = Session::new(&executable, 1).unwrap();
    let x = [5f32, 6.];
    for (flag, expected) in [(1u8, vec![5f32, 6., 2.]), (0, vec![5., 6.])] {
        let flag = [flag];
        let inputs =
            [TensorRef::from_slice(&[2], &x).unwrap(), TensorRef::new(DType::Bool, &[1], &flag).unwrap()];
        assert_eq!(floats(&session.run(&inputs).unwrap()[0]), expected);
    }
}

#[test]
fn strings_pass_through_branches_loops_and_scans() {
    // text = text + suffix, `trips` times; all intermediate texts are collected.
    let mut b = Builder::new();
    let count = b.symbol("count", 0, i64::MAX, UNBOUND);
    let text = b.input("text", DType::String, &[constant(2)]);
    let suffix = b.input("suffix", DType::String, &[constant(1)]);
    let trips = b.input("trips", DType::I64, &[]);
    let state = b.host("state", DType::String, &[constant(2)]);
    let next = b.host("next", DType::String, &[constant(2)]);
    let all = b.host("all", DType::String, &[count.clone(), constant(2)]);
    let copy = b.output("copy", DType::String, &[constant(2)]);
    b.result("all", all);
    b.call(Step::Loop(LoopStep {
        trip_count: Some(trips),
        carried: vec![Carried { initial: text, state, next }],
        body: vec![Step::Host(HostStep {
            function: "string_concat".into(),
            attributes: Default::default(),
            inputs: vec![Some(state), Some(suffix)],
            outputs: vec![next],
            binds: vec![],
        })],
        scans: vec![Scan { element: next, result: all }],
        iterations: Some(id(&count)),
        ..LoopStep::default()
    }));
    b.call(Step::Copy { from: state, to: copy });
    let executable = b.finish().unwrap();
    let mut session = Session::new(&executable, 1).unwrap();
    let (text, suffix) = (["a".to_owned(), "b".to_owned()], ["!".to_owned()]);
    for trips in [3i64, 0, 1] {
        let trips_value = [trips];
        let inputs = [
            TensorRef::from_strings(&[2], &text).unwrap(),
            TensorRef::from_strings(&[1], &suffix).unwrap(),
            scalar(&trips_value),
        ];
        let outputs = session.run(&inputs).unwrap();
        let marks = "!".repeat(trips as usize);
        assert_eq!(outputs[0].strings().unwrap(), [format!("a{marks}"), format!("b{marks}")]);
        assert_eq!(outputs[1].shape(), [trips as usize, 2]);
        if trips == 3 {
            assert_eq!(outputs[1].strings().unwrap(), ["a!", "b!", "a!!", "b!!", "a!!!", "b!!!"]);
        }
    }
}

#[test]
fn values_become_dimensions() {
    // y = the first `size` rows of x, where `size` is an element of an input; it must not exceed the rows.
    let mut b = Builder::new();
    let n = b.symbol("n", 0, i64::MAX, SymbolSource::Input { input: 0, axis: 0 });
    let size = b.symbol("size", 0, 50, SymbolSource::Step { bound: Some(n.clone()) });
    let x = b.input("x", DType::F32, &[n.clone(), constant(2)]);
    let sizes = b.input("sizes", DType::I32, &[constant(3)]);
    let head = b.tensor(
        "head",
        DType::F32,
        &[size.clone(), constant(2)],
        Storage::Alias { of: x, byte_offset: constant(0) },
    );
    let y = b.output("y", DType::F32, &[size.clone(), constant(2)]);
    b.call(Step::Bind { symbol: id(&size), tensor: sizes, element: constant(1) });
    b.call(Step::Require(Constraint {
        left: size.clone(),
        relation: Relation::MultipleOf,
        right: constant(2),
        reason: "node `Reshape_7`".into(),
    }));
    b.call(Step::Copy { from: head, to: y });
    let executable = b.finish().unwrap();
    let mut session = Session::new(&executable, 1).unwrap();
    let x: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let mut run = |size: i32| {
        let sizes = [-9, size, 99];
        session
            .run(&[TensorRef::from_slice(&[6, 2], &x).unwrap(), TensorRef::from_slice(&[3], &sizes).unwrap()])
    };
    for size in [0, 2, 4, 6, 2] {
        let outputs = run(size).unwrap();
        assert_eq!(outputs[0].shape(), [size as usize, 2]);
        assert_eq!(floats(&outputs[0]), &x[..size as usize * 2]);
    }
    assert!(matches!(run(8), Err(Error::SymbolRange { value: 8, hi: 6, .. })));
    assert!(matches!(run(-2), Err(Error::SymbolRange { value: -2, lo: 0, .. })));
    let message = run(3).unwrap_err().to_string();
    assert!(message.contains("Reshape_7") && message.contains("size = 3"), "{message}");
}

#[test]
fn a_symbol_without_a_value_is_an_error_that_names_it() {
    let mut b = Builder::new();
    let late = b.symbol("late", 0, i64::MAX, UNBOUND);
    let x = b.input("x", DType::F32, &[constant(1)]);
    let y = b.host("y", DType::F32, &[late]);
    b.result("y", y);
    b.call(Step::Copy { from: x, to: y });
    let executable = b.finish().unwrap();
    let x = [1f32];
    let error =
        Session::new(&executable, 1).unwrap().run(&[TensorRef::from_slice(&[1], &x).unwrap()]).unwrap_err();
    let message = error.to_string();
    assert!(
        matches!(error, Error::Dim { .. }) && message.contains("`y`") && message.contains("late"),
        "{message}"
    );
}
