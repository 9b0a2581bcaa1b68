//! State that several programs share, and what cannot be made.

mod programs;

use programs::*;
use tcc_runtime::manifest::{Access, Storage, SymbolSource};
use tcc_runtime::{DType, Error, Executable, Session, SessionOptions, State, TensorRef};

use std::sync::Arc;

/// `sum += x` over `slots` elements, and the sum as output.
fn accumulator(name: &str, elements: DType) -> Arc<Executable> {
    let mut b = Builder::new();
    let slots = b.symbol("slots", 1, 1 << 40, SymbolSource::State);
    let n = b.symbol("n", 0, i64::MAX, SymbolSource::Input { input: 0, axis: 0 });
    let x = b.input("x", DType::F32, &[n]);
    let state = b.tensor(name, elements, std::slice::from_ref(&slots), Storage::State);
    b.result("y", state);
    let add = b.kernel("add", add, &[Access::Read, Access::Read, Access::ReadWrite], 0);
    b.call(run_kernel(add, &[x, state, state], &[], slots, 1));
    b.finish().unwrap()
}

fn session(executable: &Arc<Executable>, state: &Arc<State>) -> Session {
    let options = SessionOptions { threads: 1, state: Some(state.clone()), ..SessionOptions::default() };
    Session::with_options(executable, &options).unwrap()
}

#[test]
fn programs_share_tensors_by_name() {
    let (first, second) = (accumulator("sum", DType::F32), accumulator("sum", DType::F32));
    let state = State::new(&[first.manifest(), second.manifest()], &[("slots", 3)], None).unwrap();
    assert_eq!((state.bytes(), state.symbol("slots")), (12, Some(3)));
    let (mut a, mut b) = (session(&first, &state), session(&second, &state));
    let x = [1f32, 2.0, 3.0];
    let run = |session: &mut Session| {
        let outputs = session.run(&[TensorRef::from_slice(&[3], &x).unwrap()]).unwrap();
        outputs[0].elements::<f32>().unwrap().to_vec()
    };
    assert_eq!(run(&mut a), [1.0, 2.0, 3.0]);
    assert_eq!(run(&mut b), [2.0, 4.0, 6.0]);
    assert_eq!(a.memory_use().state, 12);
    state.reset();
    assert_eq!(run(&mut a), [1.0, 2.0, 3.0]);
    drop((a, b));
    let other = State::new(&[first.manifest()], &[("slots", 3)], None).unwrap();
    assert_eq!(run(&mut session(&first, &other)), [1.0, 2.0, 3.0], "another state is another memory");
}

#[test]
fn what_does_not_fit_is_refused() {
    let sum = accumulator("sum", DType::F32);
    let error = State::new(&[sum.manifest()], &[], None).unwrap_err();
    assert!(matches!(&error, Error::StateSymbol { symbol } if symbol == "slots"), "{error}");
    assert!(matches!(State::new(&[sum.manifest()], &[("slots", 0)], None), Err(Error::SymbolRange { .. })));
    assert!(matches!(Session::new(&sum, 1), Err(Error::StateSymbol { .. })));
    let wide = accumulator("sum", DType::F64);
    let both = State::new(&[sum.manifest(), wide.manifest()], &[("slots", 3)], None);
    assert!(matches!(both, Err(Error::StateMismatch { .. })));
    let state = State::new(&[wide.manifest()], &[("slots", 3)], None).unwrap();
    let options = SessionOptions { threads: 1, state: Some(state.clone()), ..SessionOptions::default() };
    assert!(matches!(Session::with_options(&sum, &options), Err(Error::StateMismatch { .. })));
    let other = accumulator("other", DType::F32);
    assert!(matches!(Session::with_options(&other, &options), Err(Error::StateMismatch { .. })));
}

#[test]
fn too_long_a_context_names_its_bytes() {
    let sum = accumulator("sum", DType::F32);
    let manifests = [sum.manifest()];
    let error = State::new(&manifests, &[("slots", 1000)], Some(3999)).unwrap_err();
    assert!(matches!(error, Error::StateMemory { needed: 4000, limit: 3999, .. }), "{error}");
    assert!(error.to_string().contains("slots = 1000"), "{error}");
    // A tebi of elements is more than the machine has; nothing is allocated.
    let error = State::new(&manifests, &[("slots", 1 << 40)], None).unwrap_err();
    assert!(matches!(error, Error::StateMemory { needed, .. } if needed == 4 << 40), "{error}");
    assert_eq!(State::bytes_needed(&manifests, &[("slots", 1 << 40)]).unwrap(), 4 << 40);
}
