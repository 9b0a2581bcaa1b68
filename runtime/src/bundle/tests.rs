use super::*;
use crate::dtype::DType;
use crate::manifest::{
    Access, Kernel, KernelStep, Port, Step, Storage, Symbol, SymbolSource, TensorInfo, WeightBlob,
};
use crate::session::Session;
use crate::tensor::TensorRef;
use crate::{DimExpr, Shape};
use proptest::prelude::*;
use std::process::Command;
use std::sync::OnceLock;

const SOURCE: &str = r#"
void add_bias(void **buffers, const long *dims, void *scratch, long begin, long end) {
    const float *x = buffers[0], *bias = buffers[1];
    float *y = buffers[2];
    for (long i = begin; i < end; i++) y[i] = x[i] + bias[i % dims[0]];
}
"#;

fn object() -> &'static Vec<u8> {
    static OBJECT: OnceLock<Vec<u8>> = OnceLock::new();
    OBJECT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("code.c"), folder.path().join("code.o"));
        std::fs::write(&input, SOURCE).unwrap();
        let options = ["-O2", "-fPIC", "-c", "-o"];
        let status = Command::new("cc").args(options).arg(&output).arg(&input).status().unwrap();
        assert!(status.success());
        std::fs::read(output).unwrap()
    })
}

/// y[n, 5] = x[n, 5] + bias[5]
fn manifest() -> Manifest {
    let mut manifest = Manifest::new("bias", "tests");
    let source = SymbolSource::Input { input: 0, axis: 0 };
    manifest.symbols.push(Symbol { name: "n".into(), lo: 0, hi: 1000, source });
    let shape = vec![DimExpr::Symbol(0), DimExpr::Const(5)];
    let mut tensor = |name: &str, shape: &[DimExpr], storage| {
        let (name, shape) = (name.to_owned(), shape.to_vec());
        manifest.tensors.push(TensorInfo { name, dtype: DType::F32, shape, storage });
    };
    tensor("x", &shape, Storage::Input(0));
    tensor("bias", &shape[1..], Storage::Weight { blob: 1, offset: 0, bytes: 20 });
    tensor("y", &shape, Storage::Output(0));
    manifest.inputs.push(Port { name: "x".into(), tensor: 0 });
    manifest.outputs.push(Port { name: "y".into(), tensor: 2 });
    let buffers = vec![Access::Read, Access::Read, Access::Write];
    manifest.kernels.push(Kernel { symbol: "add_bias".into(), buffers, dims: 1 });
    manifest.steps.push(Step::Kernel(KernelStep {
        kernel: 0,
        buffers: vec![0, 1, 2],
        dims: vec![DimExpr::Const(5)],
        tasks: DimExpr::Symbol(0).mul(5),
        grain: DimExpr::Const(7),
        scratch_bytes: DimExpr::Const(0),
    }));
    for (name, bytes, alignment) in [("unused", 3, 64), ("bias", 20, 4096)] {
        manifest.weights.push(WeightBlob {
            name: name.into(),
            bytes,
            alignment,
            offset: 0,
            hash: None,
            fill: None,
        });
    }
    manifest
}

fn writer() -> BundleWriter {
    let bias: Vec<u8> = (1..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    BundleWriter::new(manifest())
        .code(object().clone())
        .library(vec![7; 100])
        .metadata(b"a tokenizer".to_vec())
        .weight(vec![1, 2, 3])
        .weight(bias)
}

fn bytes() -> &'static Vec<u8> {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| writer().to_bytes().unwrap())
}

fn read(bytes: Vec<u8>) -> Result<Bundle> {
    Bundle::from_source(Arc::new(bytes))
}

fn check_runs(executable: Executable) {
    let executable = Arc::new(executable);
    let mut session = Session::new(&executable, 2).unwrap();
    for n in [0, 1, 3, 40] {
        let x = vec![0.5f32; n * 5];
        let outputs = session.run(&[TensorRef::from_slice(&[n, 5], &x).unwrap()]).unwrap();
        let expected: Vec<f32> = (0..n * 5).map(|i| 1.5 + (i % 5) as f32).collect();
        assert_eq!(outputs[0].elements::<f32>().unwrap(), expected);
    }
}

#[test]
fn what_is_written_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.tcc");
    writer().write(&path).unwrap();
    assert_eq!(&std::fs::read(&path).unwrap(), bytes(), "the same bytes every time");
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["model.tcc"], "nothing else is left");
    check_runs(Executable::load(&path).unwrap());
    let options = LoadOptions { verify_weights: true, ..LoadOptions::default() };
    check_runs(Executable::load_with(&path, &options).unwrap());
    let bundle = Bundle::open(&path).unwrap();
    assert_eq!(bundle.library().unwrap(), Some([7; 100].as_slice()));
    assert_eq!(bundle.metadata().unwrap(), Some(b"a tokenizer".as_slice()));
    let weights = bundle.weights()[1].bytes();
    assert_eq!(weights.as_ptr() as usize % 4096, 0, "mapped, aligned, not copied");
}

#[test]
fn weights_that_repeat_an_element_are_filled_in_on_load() {
    let mut repeated = manifest();
    repeated.weights[1].fill = Some(1f32.to_le_bytes().to_vec());
    let write = |manifest: Manifest| {
        BundleWriter::new(manifest).code(object().clone()).weight(vec![1, 2, 3]).weight(vec![]).to_bytes()
    };
    let bundle = read(write(repeated.clone()).unwrap()).unwrap();
    assert_eq!(bundle.weights()[1].bytes().len(), 0);
    bundle.verify_weights().unwrap();
    let executable = Arc::new(bundle.load(&LoadOptions::default()).unwrap());
    let mut session = Session::new(&executable, 1).unwrap();
    let outputs = session.run(&[TensorRef::from_slice(&[2, 5], &[0.5f32; 10]).unwrap()]).unwrap();
    assert_eq!(outputs[0].elements::<f32>().unwrap(), [1.5; 10]);

    for (fill, bytes) in [(vec![], 20), (vec![0; 3], 20), (vec![0; 20], 20), (vec![0; 4], 1 << 40)] {
        let mut wrong = repeated.clone();
        wrong.weights[1].fill = Some(fill);
        wrong.weights[1].bytes = bytes;
        assert!(matches!(write(wrong), Err(Error::Manifest { .. })), "{bytes}");
    }
}

#[test]
fn a_bundle_in_memory_runs_wherever_it_lies() {
    for shift in 0..3 {
        let mut shifted = vec![0; shift];
        shifted.extend(bytes());
        let source: &'static [u8] = shifted.leak();
        let bundle = Bundle::from_source(Arc::new(&source[shift..])).unwrap();
        check_runs(bundle.load(&LoadOptions::default()).unwrap());
    }
}

#[test]
fn nothing_is_left_when_writing_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing").join("model.tcc");
    assert!(matches!(writer().write(&path), Err(Error::Io { action: "write", .. })));
    // A folder in the way makes the last step fail.
    let path = folder.path().join("occupied");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("file"), "x").unwrap();
    assert!(matches!(writer().write(&path), Err(Error::Io { .. })));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let missing_weight = BundleWriter::new(manifest()).code(object().clone());
    assert!(matches!(missing_weight.to_bytes(), Err(Error::Manifest { .. })));
}

#[test]
fn foreign_and_truncated_files_are_refused() {
    for foreign in [&b""[..], b"t", b"\x7fELF", b"not a bundle at all", &[0; 200]] {
        assert!(read(foreign.to_vec()).is_err());
    }
    for length in (0..bytes().len()).step_by(37).chain([63, 64, 65, bytes().len() - 1]) {
        assert!(read(bytes()[..length].to_vec()).is_err(), "{length}");
    }
    let mut longer = bytes().clone();
    longer.push(0);
    assert!(matches!(read(longer), Err(Error::Damaged { .. })));
    let mut future = bytes().clone();
    future[8] = 9;
    assert!(matches!(read(future), Err(Error::Version { what: "bundle", found: 9, .. })));
    assert!(matches!(Bundle::open("/"), Err(Error::NotABundle { .. })));
    assert!(matches!(Bundle::open("/missing.tcc"), Err(Error::Io { action: "read", .. })));
}

#[test]
fn every_changed_byte_is_noticed() {
    let options = LoadOptions { verify_weights: true, ..LoadOptions::default() };
    let original = read(bytes().clone()).unwrap();
    let weights = original.sections.iter().find(|section| section.kind == SectionKind::Weights).unwrap();
    let library = original.sections.iter().find(|section| section.kind == SectionKind::Library).unwrap();
    for position in (0..bytes().len()).step_by(3) {
        let mut changed = bytes().clone();
        changed[position] ^= 1 << (position % 8);
        let outcome = read(changed).and_then(|bundle| {
            bundle.library()?;
            bundle.metadata()?;
            bundle.load(&options)
        });
        // Between weights are zeros that nobody reads.
        let inside = position as u64 - weights.range.start.min(position as u64);
        let read_by_nobody = weights.range.contains(&(position as u64)) && (3..4096).contains(&inside);
        assert_eq!(outcome.is_ok(), read_by_nobody, "byte {position}, library at {:?}", library.range);
    }
}

#[test]
fn programs_for_other_machines_are_refused() {
    let mut other = manifest();
    other.target.arch = "vax".into();
    let refused = |manifest| {
        let writer =
            BundleWriter::new(manifest).code(object().clone()).weight(vec![1, 2, 3]).weight(vec![0; 20]);
        read(writer.to_bytes().unwrap()).unwrap().load(&LoadOptions::default()).unwrap_err()
    };
    assert!(matches!(refused(other), Error::WrongArchitecture { .. }));
    let mut other = manifest();
    other.target.features.push("quantum".into());
    assert!(matches!(refused(other), Error::MissingCpuFeatures { .. }));
    let mut other = manifest();
    other.kernels[0].symbol = "absent".into();
    assert!(refused(other).to_string().contains("`absent`"));
}

/// A bundle of this manifest text with hashes that match, as a hostile writer would make it.
fn forge(manifest: &[u8]) -> Vec<u8> {
    let parts: [(SectionKind, &[u8]); 2] = [(SectionKind::Manifest, manifest), (SectionKind::Code, object())];
    let (starts, length) = format::lay_out(&parts.map(|(kind, bytes)| (kind, bytes.len() as u64)));
    let sections: Vec<_> = parts
        .iter()
        .zip(&starts)
        .map(|((kind, bytes), &start)| Section {
            kind: *kind,
            entry: 0,
            range: start..start + bytes.len() as u64,
            hash: *blake3::hash(bytes).as_bytes(),
        })
        .collect();
    let mut file = format::encode(&sections, length);
    for ((_, bytes), start) in parts.iter().zip(starts) {
        file.resize(start as usize, 0);
        file.extend(*bytes);
    }
    file
}

/// The numbers of a JSON document, in order.
fn numbers<'a>(value: &'a mut serde_json::Value, found: &mut Vec<&'a mut serde_json::Value>) {
    match value {
        serde_json::Value::Number(_) => found.push(value),
        serde_json::Value::Array(list) => list.iter_mut().for_each(|item| numbers(item, found)),
        serde_json::Value::Object(map) => map.values_mut().for_each(|item| numbers(item, found)),
        _ => {}
    }
}

proptest! {
    #[test]
    fn damaged_bundles_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..10)) {
        let mut changed = bytes().clone();
        for (position, value) in changes {
            let position = position.index(changed.len());
            changed[position] = value;
        }
        if let Ok(bundle) = read(changed) {
            drop(bundle.load(&LoadOptions::default()));
        }
    }

    #[test]
    fn forged_manifests_never_panic(
        position in any::<prop::sample::Index>(),
        value in prop_oneof![any::<i64>(), -3i64..70, Just(i64::MAX), Just(1 << 40)],
        n in 0usize..4,
    ) {
        let mut json = serde_json::to_value(manifest()).unwrap();
        json["hashes"]["code"] = code_hash(&[object().clone()]).into();
        // The forged file has no weights, so that the bias comes from memory of the session.
        json["weights"] = serde_json::json!([]);
        json["tensors"][1]["storage"] = serde_json::json!({"arena": {"first_step": 0, "last_step": 0}});
        let mut found = Vec::new();
        numbers(&mut json, &mut found);
        let position = position.index(found.len());
        *found[position] = value.into();
        let forged = forge(&serde_json::to_vec(&json).unwrap());
        let loaded = read(forged).and_then(|bundle| bundle.load(&LoadOptions::default()));
        if let Ok(executable) = loaded {
            // Preparing evaluates every size, and takes no more memory than it may.
            let options = crate::SessionOptions {
                threads: 1,
                memory_limit: Some(1 << 24),
                ..crate::SessionOptions::default()
            };
            let mut session = Session::with_options(&Arc::new(executable), &options).unwrap();
            let shape = Shape::new(&[n, 5]).unwrap();
            drop(session.prepare(&[&shape]));
        }
    }

    #[test]
    fn forged_text_never_panics(text in "\\PC*") {
        prop_assert!(read(forge(text.as_bytes())).is_err());
    }
}

/// `bias` twice over the same weights, under two names, and then the first again with other ones.
fn entries() -> BundleWriter {
    let named = |name: &str| Manifest { entry: name.to_owned(), ..manifest() };
    let bias: Vec<u8> = (1..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    BundleWriter::new(named("decode"))
        .code(object().clone())
        .weight(vec![1, 2, 3])
        .weight(bias.clone())
        .entry(named("prefill"))
        .code(object().clone())
        .weight(vec![1, 2, 3])
        .weight(bias)
        .entry(named("zero"))
        .code(object().clone())
        .weight(vec![1, 2, 4])
        .weight(vec![0; 20])
}

#[test]
fn entries_share_weights() {
    let bundle = read(entries().to_bytes().unwrap()).unwrap();
    let names: Vec<&str> = bundle.entries().iter().map(|entry| entry.manifest().entry.as_str()).collect();
    assert_eq!(names, ["decode", "prefill", "zero"]);
    let address = |entry: usize| bundle.entries()[entry].weights()[1].bytes().as_ptr();
    assert_eq!(address(0), address(1));
    assert_ne!(address(0), address(2));
    let options = LoadOptions { verify_weights: true, ..LoadOptions::default() };
    check_runs(bundle.load_entry("prefill", &options).unwrap());
    let zero = Arc::new(bundle.load_entry("zero", &options).unwrap());
    let outputs =
        Session::new(&zero, 1).unwrap().run(&[TensorRef::from_slice(&[1, 5], &[2f32; 5]).unwrap()]).unwrap();
    assert_eq!(outputs[0].elements::<f32>().unwrap(), [2.0; 5]);
    let error = bundle.load_entry("train", &options).unwrap_err().to_string();
    assert!(error.contains("`train`") && error.contains("decode, prefill, zero"), "{error}");
    check_runs(bundle.load(&options).unwrap());
    let twice = BundleWriter::new(manifest()).entry(manifest()).to_bytes();
    assert!(twice.is_err(), "weights are missing");
    let named = Manifest { entry: "a".into(), ..Manifest::new("a", "tests") };
    let same = BundleWriter::new(named.clone()).entry(named).to_bytes();
    assert!(same.unwrap_err().to_string().contains("entry `a`"));
}
