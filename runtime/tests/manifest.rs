//! Every rule of the validator, by a manifest that breaks it, and the round trip through JSON.

#![allow(clippy::cloned_ref_to_slice_refs)] // Shapes read better as lists.

mod programs;

use programs::*;
use tcc_runtime::manifest::*;
use tcc_runtime::{DType, DimExpr, Error, Manifest};

const UNBOUND: SymbolSource = SymbolSource::Step { bound: None };

/// x -> product -> y with one weight; see `contraction`.
fn valid() -> Manifest {
    contraction(4, 3).manifest
}

#[track_caller]
fn refused(words: &[&str], change: impl FnOnce(&mut Manifest)) {
    let mut manifest = valid();
    manifest.validate().unwrap();
    change(&mut manifest);
    let message = manifest.validate().unwrap_err().to_string();
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

fn kernel(manifest: &mut Manifest, step: usize) -> &mut KernelStep {
    match &mut manifest.steps[step] {
        Step::Kernel(step) => step,
        other => panic!("{other:?} is no kernel"),
    }
}

fn host_tensor(manifest: &mut Manifest, dtype: DType, shape: &[DimExpr]) -> u32 {
    let shape = shape.to_vec();
    manifest.tensors.push(TensorInfo { name: "more".into(), dtype, shape, storage: Storage::Host });
    manifest.tensors.len() as u32 - 1
}

#[test]
fn manifests_survive_json() {
    let mut manifest = valid();
    manifest.metadata.insert("task".into(), "test".into());
    let text = serde_json::to_string(&manifest).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
    assert!(serde_json::from_str::<Manifest>(&text.replace("\"kernels\"", "\"kernals\"")).is_err());
}

#[test]
fn other_versions_are_refused() {
    let mut manifest = valid();
    manifest.format += 1;
    assert!(matches!(manifest.validate(), Err(Error::Version { what: "manifest", .. })));
}

#[test]
fn symbols_and_ports() {
    refused(&["symbols[0]", "`rows`", "empty"], |m| (m.symbols[0].lo, m.symbols[0].hi) = (5, 4));
    refused(&["symbols[0]", "dimension 1"], |m| {
        m.symbols[0].source = SymbolSource::Input { input: 0, axis: 1 }
    });
    refused(&["symbols[0]", "input 7"], |m| m.symbols[0].source = SymbolSource::Input { input: 7, axis: 0 });
    refused(&["symbols[1]", "bound after it"], |m| {
        let source = SymbolSource::Step { bound: Some(symbol(1)) };
        m.symbols.push(Symbol { name: "late".into(), lo: 0, hi: 9, source });
    });
    refused(&["inputs[0]", "tensor 99"], |m| m.inputs[0].tensor = 99);
    refused(&["inputs[0]", "another storage"], |m| m.inputs[0].tensor = 1);
    refused(&["inputs[1]", "name of another"], |m| m.inputs.push(m.inputs[0].clone()));
    refused(&["inputs[0]", "no value before"], |m| {
        m.symbols.push(Symbol { name: "late".into(), lo: 0, hi: 9, source: UNBOUND });
        m.tensors[0].shape[1] = symbol(1);
    });
    refused(&["constraints[0]", "symbol 5 of 1"], |m| {
        let reason = "test".into();
        m.constraints.push(Constraint {
            left: symbol(5),
            relation: Relation::Equal,
            right: constant(1),
            reason,
        });
    });
}

#[test]
fn tensors() {
    refused(&["tensors[2].shape", "17 dimensions"], |m| m.tensors[2].shape = vec![constant(1); 17]);
    refused(&["tensors[2].shape", "negative"], |m| m.tensors[2].shape[0] = constant(-1));
    refused(&["tensors[2].shape[0]", "symbol 3 of 1"], |m| m.tensors[2].shape[0] = symbol(3));
    refused(&["tensors[2]", "input 0"], |m| m.tensors[2].storage = Storage::Input(0));
    refused(&["tensors[2]", "output 4"], |m| m.tensors[2].storage = Storage::Output(4));
    refused(&["tensors[2]", "strings"], |m| m.tensors[2].dtype = DType::String);
    refused(&["tensors[1]", "weights 3 of 1"], |m| {
        m.tensors[1].storage = Storage::Weight { blob: 3, offset: 0, bytes: 48 };
    });
    refused(&["tensors[1]", "leave `w`"], |m| {
        m.tensors[1].storage = Storage::Weight { blob: 0, offset: 8, bytes: 48 };
    });
    refused(&["tensors[1]", "leave `w`"], |m| {
        m.tensors[1].storage = Storage::Weight { blob: 0, offset: u64::MAX, bytes: 48 };
    });
    refused(&["tensors[1]", "not the size"], |m| m.tensors[1].shape[0] = constant(3));
    refused(&["tensors[1]", "not aligned to 4"], |m| {
        m.tensors[1].storage = Storage::Weight { blob: 0, offset: 2, bytes: 48 };
        m.weights[0].bytes = 100;
    });
    refused(&["weights[0].alignment", "3"], |m| m.weights[0].alignment = 3);
    refused(&["tensors[2]", "5..=4"], |m| {
        m.tensors[2].storage = Storage::Arena { offset: None, first_step: 5, last_step: 4 };
    });
    refused(&["tensors[2]", "of 2 steps"], |m| {
        m.tensors[2].storage = Storage::Arena { offset: None, first_step: 0, last_step: 2 };
    });
    refused(&["tensors[2]", "needs storage `host`"], |m| {
        m.symbols.push(Symbol { name: "late".into(), lo: 0, hi: i64::MAX, source: UNBOUND });
        m.tensors[2].shape[0] = symbol(1);
    });
    refused(&["tensors[3]", "needs storage `host`"], |m| {
        m.symbols.push(Symbol { name: "late".into(), lo: 0, hi: i64::MAX, source: UNBOUND });
        m.tensors[3].shape[0] = symbol(1);
    });
    refused(&["tensors[2]", "does not fix"], |m| m.tensors[2].storage = Storage::State);
    refused(&["tensors[2]", "circle"], |m| {
        m.tensors[2].storage = Storage::Alias { of: 2, byte_offset: constant(0) };
    });
    refused(&["tensors[2]", "tensor 50 of 4"], |m| {
        m.tensors[2].storage = Storage::Alias { of: 50, byte_offset: constant(0) };
    });
}

#[test]
fn arenas() {
    let place = |m: &mut Manifest, tensor: usize, at: Option<u64>| {
        m.tensors[tensor].shape[0] = constant(10);
        m.tensors[tensor].storage = Storage::Arena { offset: at, first_step: 0, last_step: 1 };
    };
    refused(&["tensors[2]", "missing"], |m| m.arena_bytes = Some(1000));
    refused(&["tensors[2]", "`arena_bytes` is not"], |m| place(m, 2, Some(0)));
    refused(&["tensors[2]", "120 bytes at 32"], |m| {
        m.arena_bytes = Some(1000);
        place(m, 2, Some(32));
    });
    refused(&["tensors[2]", "120 bytes at 64", "arena of 183"], |m| {
        m.arena_bytes = Some(183);
        place(m, 2, Some(64));
    });
    refused(&["tensors 2 and 3", "share arena bytes"], |m| {
        m.arena_bytes = Some(1000);
        place(m, 2, Some(0));
        place(m, 3, Some(64));
    });
    refused(&["outputs[1]", "lives to step 0"], |m| {
        m.tensors[2].storage = Storage::Arena { offset: None, first_step: 0, last_step: 0 };
        m.outputs.push(Port { name: "more".into(), tensor: 2 });
    });
    let mut manifest = valid();
    manifest.arena_bytes = Some(1000);
    place(&mut manifest, 2, Some(0));
    place(&mut manifest, 3, Some(128));
    manifest.validate().unwrap();
}

#[test]
fn kernels_and_copies() {
    refused(&["kernels[1].symbol"], |m| m.kernels[1].symbol.clear());
    refused(&["steps[0].kernel", "9 of 2"], |m| kernel(m, 0).kernel = 9);
    refused(&["steps[0]", "`contract` takes 3 buffers"], |m| kernel(m, 0).buffers.truncate(2));
    refused(&["steps[0]", "2 dims"], |m| kernel(m, 0).dims.push(constant(1)));
    refused(&["steps[0].buffers[1]", "tensor 77 of 4"], |m| kernel(m, 0).buffers[1] = 77);
    refused(&["steps[0].buffers[2]", "`x`", "read-only"], |m| kernel(m, 0).buffers[2] = 0);
    refused(&["steps[0].buffers[2]", "`w`", "read-only"], |m| kernel(m, 0).buffers[2] = 1);
    refused(&["steps[0]", "symbol 8"], |m| kernel(m, 0).tasks = symbol(8));
    refused(&["steps[1].buffers[0]", "lives from 0 to 0"], |m| {
        m.tensors[2].storage = Storage::Arena { offset: None, first_step: 0, last_step: 0 };
    });
    refused(&["steps[0].buffers[0]", "strings"], |m| {
        kernel(m, 0).buffers[0] = host_tensor(m, DType::String, &[]);
    });
    refused(&["steps[2]", "copies f32 to i64"], |m| {
        let to = host_tensor(m, DType::I64, &[]);
        m.steps.push(Step::Copy { from: 0, to });
    });
}

#[test]
fn control_flow() {
    refused(&["steps[2].condition", "needs one bool"], |m| {
        m.steps.push(Step::If(IfStep {
            condition: 0,
            then: Branch::default(),
            otherwise: Branch::default(),
            binds: vec![],
        }));
    });
    refused(&["steps[2]", "different results"], |m| {
        let condition = host_tensor(m, DType::Bool, &[]);
        let then = Branch { steps: vec![], results: vec![Transfer { from: 0, to: 3 }] };
        m.steps.push(Step::If(IfStep { condition, then, otherwise: Branch::default(), binds: vec![] }));
    });
    refused(&["steps[2]", "binds `late`, which is no dimension"], |m| {
        m.symbols.push(Symbol { name: "late".into(), lo: 0, hi: 9, source: UNBOUND });
        let condition = host_tensor(m, DType::Bool, &[]);
        let (then, otherwise) = (Branch::default(), Branch::default());
        m.steps.push(Step::If(IfStep { condition, then, otherwise, binds: vec![1] }));
    });
    refused(&["steps[2]", "symbol 0, which is not bound by steps"], |m| {
        let tensor = host_tensor(m, DType::I64, &[]);
        m.steps.push(Step::Bind { symbol: 0, tensor, element: constant(0) });
    });
    refused(&["steps[2]", "no integers"], |m| {
        m.symbols.push(Symbol { name: "late".into(), lo: 0, hi: 9, source: UNBOUND });
        m.steps.push(Step::Bind { symbol: 1, tensor: 3, element: constant(0) });
    });
    refused(&["steps[2].trip_count", "needs one i64"], |m| {
        m.steps.push(Step::Loop(LoopStep { trip_count: Some(0), ..LoopStep::default() }));
    });
    refused(&["steps[2].carried[1]", "writes the memory of another"], |m| {
        let state = host_tensor(m, DType::F32, &[]);
        let carried = Carried { initial: 0, state, next: 0 };
        m.steps.push(Step::Loop(LoopStep { carried: vec![carried.clone(), carried], ..LoopStep::default() }));
    });
    refused(&["steps[2].carried[0]", "reads memory that one of these copies writes"], |m| {
        let (a, b) = (host_tensor(m, DType::F32, &[]), host_tensor(m, DType::F32, &[]));
        let swap = |state, next| Carried { initial: 0, state, next };
        m.steps.push(Step::Loop(LoopStep { carried: vec![swap(a, b), swap(b, a)], ..LoopStep::default() }));
    });
    refused(&["steps[2].scans[0]", "one dimension more"], |m| {
        let result = host_tensor(m, DType::F32, &[]);
        m.steps
            .push(Step::Loop(LoopStep { scans: vec![Scan { element: 0, result }], ..LoopStep::default() }));
    });
    refused(&["steps[2].scans[0]", "lives from 3 to 3"], |m| {
        let element = host_tensor(m, DType::F32, &[]);
        let result = host_tensor(m, DType::F32, &[constant(1)]);
        m.tensors[result as usize].storage = Storage::Arena { offset: None, first_step: 3, last_step: 3 };
        let body = vec![Step::Copy { from: 3, to: element }];
        m.steps.push(Step::Loop(LoopStep {
            body,
            scans: vec![Scan { element, result }],
            ..LoopStep::default()
        }));
    });
    // What a loop body reads must outlive the loop, or the second iteration finds it overwritten.
    refused(&["steps[1].body[0]", "lives from 0 to 2"], |m| {
        m.tensors[2].storage = Storage::Arena { offset: None, first_step: 0, last_step: 2 };
        let add = m.steps.pop().unwrap();
        let other = host_tensor(m, DType::F32, &[symbol(0), constant(3)]);
        let copy = Step::Copy { from: 3, to: other };
        m.steps.push(Step::Loop(LoopStep { body: vec![add, copy], ..LoopStep::default() }));
    });
}

#[test]
fn host_steps() {
    let step = |inputs: &[u32], outputs: &[u32], binds: &[u32]| {
        Step::Host(HostStep {
            function: "nonzero".into(),
            attributes: Default::default(),
            inputs: inputs.iter().map(|&id| Some(id)).collect(),
            outputs: outputs.to_vec(),
            binds: binds.to_vec(),
        })
    };
    refused(&["steps[2]", "shares memory"], |m| {
        let both = host_tensor(m, DType::I64, &[constant(2)]);
        m.steps.push(step(&[both], &[both], &[]));
    });
    refused(&["steps[2]", "shares memory"], |m| {
        let out = host_tensor(m, DType::I64, &[constant(2)]);
        m.steps.push(step(&[0], &[out, out], &[]));
    });
    refused(&["steps[2]", "binds `late`"], |m| {
        m.symbols.push(Symbol { name: "late".into(), lo: 0, hi: 9, source: UNBOUND });
        let out = host_tensor(m, DType::I64, &[constant(2), symbol(1).add(1)]);
        m.steps.push(step(&[0], &[out], &[1]));
    });
    refused(&["steps[2]", "more than 64"], |m| {
        let outputs: Vec<_> = (0..65).map(|_| host_tensor(m, DType::I64, &[])).collect();
        m.steps.push(step(&[0], &outputs, &[]));
    });
}

#[test]
fn functions_and_weights_must_match_the_manifest() {
    let mut builder = contraction(4, 3);
    builder.kernels.pop();
    assert!(builder.finish().unwrap_err().to_string().contains("2 kernels, 1 functions"));
    let mut builder = contraction(4, 3);
    builder.weights.clear();
    assert!(builder.finish().unwrap_err().to_string().contains("1 weights, 0 were given"));
    let mut builder = contraction(4, 3);
    builder.weights[0] = vec![0; 47].into();
    assert!(builder.finish().unwrap_err().to_string().contains("48 bytes, 47 were given"));
}
