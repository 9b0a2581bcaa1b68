//! Compiles a C program against `tcc.h`, links it with the static and the shared library, and runs it.

use std::path::{Path, PathBuf};
use std::process::Command;
use tcc_runtime::manifest::*;
use tcc_runtime::{BundleWriter, DType, DimExpr};
use tcc_runtime_c as _;

const KERNEL: &str = r#"
void add_bias(void **buffers, const long *dims, void *scratch, long begin, long end) {
    const float *x = buffers[0], *bias = buffers[1];
    float *y = buffers[2];
    for (long i = begin; i < end; i++) y[i] = x[i] + bias[i % dims[0]];
}
"#;

fn cc(arguments: &[&Path]) {
    let output = Command::new("cc").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// y[n, 5] = x[n, 5] + bias[5]
fn write_bundle(folder: &Path) -> PathBuf {
    let (source, object) = (folder.join("kernel.c"), folder.join("kernel.o"));
    std::fs::write(&source, KERNEL).unwrap();
    cc(&["-O2", "-fPIC", "-c", "-o"]
        .map(Path::new)
        .into_iter()
        .chain([&*object, &*source])
        .collect::<Vec<_>>());

    let mut manifest = Manifest::new("bias", "tests");
    let symbol = SymbolSource::Input { input: 0, axis: 0 };
    manifest.symbols.push(Symbol { name: "n".into(), lo: 0, hi: 1000, source: symbol });
    let shape = vec![DimExpr::Symbol(0), DimExpr::Const(5)];
    let tensor = |name: &str, shape: &[DimExpr], storage| TensorInfo {
        name: name.into(),
        dtype: DType::F32,
        shape: shape.to_vec(),
        storage,
    };
    manifest.tensors = vec![
        tensor("x", &shape, Storage::Input(0)),
        tensor("bias", &shape[1..], Storage::Weight { blob: 0, offset: 0, bytes: 20 }),
        tensor("y", &shape, Storage::Output(0)),
    ];
    manifest.inputs = vec![Port { name: "x".into(), tensor: 0 }];
    manifest.outputs = vec![Port { name: "y".into(), tensor: 2 }];
    let buffers = vec![Access::Read, Access::Read, Access::Write];
    manifest.kernels = vec![Kernel { symbol: "add_bias".into(), buffers, dims: 1 }];
    manifest.steps = vec![Step::Kernel(KernelStep {
        kernel: 0,
        buffers: vec![0, 1, 2],
        dims: vec![DimExpr::Const(5)],
        tasks: DimExpr::Symbol(0).mul(5),
        grain: DimExpr::Const(3),
        scratch_bytes: DimExpr::Const(0),
    })];
    manifest.weights =
        vec![WeightBlob { name: "bias".into(), bytes: 20, alignment: 64, offset: 0, hash: None, fill: None }];
    let bias: Vec<u8> = (1..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let path = folder.join("bias.tcc");
    BundleWriter::new(manifest).code(std::fs::read(object).unwrap()).weight(bias).write(&path).unwrap();
    path
}

/// words[n, most], counts[n] = split(text[n])
fn write_splitter(folder: &Path) -> PathBuf {
    let mut manifest = Manifest::new("split", "tests");
    let symbol = |name: &str, source| Symbol { name: name.into(), lo: 0, hi: i64::MAX, source };
    manifest.symbols = vec![
        symbol("n", SymbolSource::Input { input: 0, axis: 0 }),
        symbol("most", SymbolSource::Step { bound: None }),
    ];
    let mut tensor = |name: &str, dtype, shape: &[u32], storage| {
        let shape = shape.iter().map(|&id| DimExpr::Symbol(id)).collect();
        manifest.tensors.push(TensorInfo { name: name.into(), dtype, shape, storage });
        Port { name: name.into(), tensor: manifest.tensors.len() as u32 - 1 }
    };
    let text = tensor("text", DType::String, &[0], Storage::Input(0));
    let words = tensor("words", DType::String, &[0, 1], Storage::Output(0));
    let counts = tensor("counts", DType::I64, &[0], Storage::Output(1));
    manifest.inputs = vec![text];
    manifest.outputs = vec![words, counts];
    manifest.steps = vec![Step::Host(HostStep {
        function: "string_split".into(),
        attributes: Default::default(),
        inputs: vec![Some(0)],
        outputs: vec![1, 2],
        binds: vec![1],
    })];
    let path = folder.join("split.tcc");
    BundleWriter::new(manifest).write(&path).unwrap();
    path
}

/// Libraries of this crate beside the test program, newest first.
fn library(extension: &str) -> PathBuf {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let mut found: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("libtcc_runtime_c") && name.ends_with(extension)
        })
        .collect();
    found.sort_by_key(|path| std::fs::metadata(path).unwrap().modified().unwrap());
    found.pop().unwrap_or_else(|| panic!("no {extension} library in {}", folder.display()))
}

#[test]
fn the_c_example_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (bundle, splitter) = (write_bundle(folder.path()), write_splitter(folder.path()));
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (example, include) = (here.join("tests/example.c"), here.join("../include"));
    for extension in [".a", ".so"] {
        let library = library(extension);
        let program = folder.path().join(format!("example{extension}"));
        let mut arguments: Vec<&Path> =
            ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"].map(Path::new).to_vec();
        arguments.extend([&*include, Path::new("-o"), &program, &example, &library]);
        arguments.extend(["-lpthread", "-lm", "-ldl"].map(Path::new));
        cc(&arguments);
        let output = Command::new(&program)
            .args([&bundle, &splitter])
            .env("LD_LIBRARY_PATH", library.parent().unwrap())
            .output()
            .unwrap();
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{extension}: {messages}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "all checks passed");
    }
}

#[test]
fn the_header_is_c_plus_plus_too() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("header.cc");
    std::fs::write(&source, "#include \"tcc.h\"\nint main() { return tcc_version()[0] == 0; }\n").unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../include");
    // A machine without a C++ compiler cannot check this.
    let Ok(output) = Command::new("c++")
        .args(["-fsyntax-only", "-Wall", "-Werror", "-I"])
        .arg(include)
        .arg(source)
        .output()
    else {
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_header_has_the_same_numbers_as_the_runtime() {
    let header = include_str!("../../include/tcc.h");
    for (code, dtype) in DType::ALL.iter().enumerate() {
        let line = format!("TCC_{} = {code}", dtype.name().to_uppercase());
        assert!(header.contains(&line), "{line}");
    }
    assert!(header.contains(&format!("TCC_MAX_RANK {MAX_RANK}")));
}
