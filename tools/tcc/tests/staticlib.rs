//! Static libraries linked into C programs, whose results are those of the reference interpreter.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tcc::inputs::Inputs;
use tcc::ir::data::Data;
use tcc::ir::dtype::DType;
use tcc::staticlib::RuntimeLibrary;
use tcc::{CompileOptions, Compiled, Error, Model, Target, compile, verify};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/c")
}

fn compiled(model: &str, target: &str) -> Compiled {
    let model = Model::open(&examples().join(model)).unwrap();
    compile(&model, &CompileOptions::new(Target::named(target).unwrap())).unwrap()
}

/// Targets of this machine in this build.
fn targets() -> Vec<&'static str> {
    if cfg!(feature = "llvm") { vec!["cranelift", "cpu"] } else { vec!["cranelift"] }
}

/// Runs a compiler; none where this machine has none, which a message says.
fn compiler(program: &str, arguments: &[&str], folder: &Path) -> Option<Output> {
    match Command::new(program).args(arguments).current_dir(folder).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("skipped: no compiler {program} ({error})");
            None
        }
    }
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What a program prints after a name.
fn printed(output: &Output, name: &str) -> Data {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{text}"));
    values(&line.split_whitespace().map(|word| word.parse().unwrap()).collect::<Vec<f32>>(), None)
}

fn values(values: &[f32], shape: Option<&[usize]>) -> Data {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Data::new(DType::F32, shape.unwrap_or(&[values.len()]), bytes.into()).unwrap()
}

fn reference(model: &str, name: &str, input: Data) -> Data {
    let module = Model::open(&examples().join(model)).unwrap().import(&Default::default()).unwrap();
    verify::reference(&module, &Inputs::from([(name.to_string(), input)])).unwrap().remove(0)
}

/// The same elements in one row.
fn flat(data: &Data) -> Data {
    Data::new(data.dtype(), &[data.count()], data.bytes().to_vec().into()).unwrap()
}

fn close(name: &str, found: &Data, expected: &Data) {
    let difference = verify::compare(name, found, &flat(expected)).unwrap();
    assert!(difference.worst <= 1.0, "{difference:?}");
}

#[test]
fn the_c_example_computes_what_the_interpreter_does() {
    let runtime = RuntimeLibrary::find().unwrap();
    for target in targets() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for name in ["perceptron", "likelihood"] {
            let library = folder.join(format!("lib{name}.a"));
            compiled(&format!("{name}.tir"), target).write_library(&library, &runtime).unwrap();
        }
        let source = examples().join("example.c");
        let arguments =
            ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wl,--fatal-warnings", "-I."];
        let arguments =
            [&arguments[..], &[source.to_str().unwrap(), "libperceptron.a", "liblikelihood.a"]].concat();
        let arguments = [&arguments[..], &["-lm", "-lpthread", "-o", "example"]].concat();
        let Some(output) = compiler("cc", &arguments, folder) else { return };
        succeeded(&output);
        let output = Command::new(folder.join("example")).output().unwrap();
        succeeded(&output);

        let scores = reference("perceptron.tir", "features", values(&[0.5, -1.0, 0.25, 2.0], None));
        close("scores", &printed(&output, "scores"), &scores);
        let row = Data::new(DType::F32, &[1, 3], scores.bytes().to_vec().into()).unwrap();
        let probabilities = reference("likelihood.tir", "scores", row);
        close("probabilities", &printed(&output, "probabilities"), &probabilities);
    }
}

#[test]
fn the_rust_example_computes_what_the_interpreter_does() {
    let runtime = RuntimeLibrary::find().unwrap();
    for (target, ending) in targets().into_iter().flat_map(|target| [(target, "a"), (target, "so")]) {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        if ending == "so" && compiler("cc", &["--version"], folder).is_none() {
            return;
        }
        for name in ["perceptron", "likelihood"] {
            let library = folder.join(format!("lib{name}.{ending}"));
            compiled(&format!("{name}.tir"), target).write_library(&library, &runtime).unwrap();
        }
        std::fs::copy(examples().join("example.rs"), folder.join("example.rs")).unwrap();
        let arguments = ["--edition=2024", "-Dwarnings", "-L.", "-Clink-arg=-Wl,-rpath,.", "example.rs"];
        let Some(output) = compiler("rustc", &arguments, folder) else { return };
        succeeded(&output);
        let output = Command::new("./example").current_dir(folder).output().unwrap();
        succeeded(&output);

        let scores = reference("perceptron.tir", "features", values(&[0.5, -1.0, 0.25, 2.0], None));
        close("scores", &printed(&output, "scores"), &scores);
        let row = Data::new(DType::F32, &[1, 3], scores.bytes().to_vec().into()).unwrap();
        let probabilities = reference("likelihood.tir", "scores", row);
        close("probabilities", &printed(&output, "probabilities"), &probabilities);
    }
}

#[test]
fn the_c_example_links_with_shared_libraries() {
    let runtime = RuntimeLibrary::find().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    if compiler("cc", &["--version"], folder).is_none() {
        return;
    }
    for name in ["perceptron", "likelihood"] {
        let library = folder.join(format!("lib{name}.so"));
        compiled(&format!("{name}.tir"), "cranelift").write_library(&library, &runtime).unwrap();
    }
    let source = examples().join("example.c");
    let arguments = ["-Wall", "-Wextra", "-Werror", "-I.", source.to_str().unwrap(), "-L."];
    let arguments =
        [&arguments[..], &["-lperceptron", "-llikelihood", "-Wl,-rpath,.", "-o", "example"]].concat();
    let Some(output) = compiler("cc", &arguments, folder) else { return };
    succeeded(&output);
    let output = Command::new("./example").current_dir(folder).output().unwrap();
    succeeded(&output);
    let scores = reference("perceptron.tir", "features", values(&[0.5, -1.0, 0.25, 2.0], None));
    close("scores", &printed(&output, "scores"), &scores);
}

/// Twice the same model, whose kernels have the same names, in one program.
const TWINS: &str = r#"
#include "left.h"
#include "right.h"
#include <stdio.h>
int main(void) {
    const float features[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    float a[3], b[3];
    tcc_session *left, *right;
    if (left_create(1, &left) != TCC_OK || right_create(1, &right) != TCC_OK) return 1;
    if (left_run(left, features, a) != TCC_OK || right_run(right, features, b) != TCC_OK) return 2;
    left_free(left);
    right_free(right);
    if (left_features_bytes != sizeof features || tcc_load_linked(NULL, NULL) != TCC_ERROR_ARGUMENT) return 3;
    return memcmp(a, b, sizeof a) == 0 ? 0 : 4;
}
"#;

#[test]
fn models_with_the_same_kernels_fit_into_one_program() {
    let runtime = RuntimeLibrary::find().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let model = compiled("perceptron.tir", "cranelift");
    for name in ["libleft.a", "libright.a"] {
        model.write_library(&folder.join(name), &runtime).unwrap();
    }
    std::fs::write(folder.join("twins.c"), TWINS).unwrap();
    let arguments = ["-Wall", "-Wextra", "-Werror", "twins.c", "libleft.a", "libright.a", "-lm", "-lpthread"];
    let Some(output) = compiler("cc", &[&arguments[..], &["-o", "twins"]].concat(), folder) else { return };
    succeeded(&output);
    succeeded(&Command::new(folder.join("twins")).output().unwrap());

    // The header is C++, too.
    let arguments = ["-x", "c++", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "twins.c"];
    if let Some(output) = compiler("c++", &arguments, folder) {
        succeeded(&output);
    }
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    let runtime = RuntimeLibrary::find().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libmodel.a");
    let write = || {
        let written = compiled("perceptron.tir", "cranelift").write_library(&path, &runtime).unwrap();
        (std::fs::read(written.library).unwrap(), std::fs::read(written.header).unwrap())
    };
    let (first, second) = (write(), write());
    assert!(first == second, "two archives of one model differ");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "temporary files are left");
}

#[test]
fn what_cannot_be_linked_is_refused() {
    let runtime = RuntimeLibrary::find().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libmodel.a");
    let mut model = compiled("perceptron.tir", "cranelift");
    let refused = |model: &Compiled, path: &Path, runtime: &RuntimeLibrary, part: &str| {
        let error: Error = model.write_library(path, runtime).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert!(!error.is_bug(), "{error}");
    };
    refused(&model, &folder.path().join("libtcc.a"), &runtime, "belong to the runtime");
    refused(&model, &folder.path().join("missing/libmodel.a"), &runtime, "missing");
    let other = folder.path().join("other.a");
    std::fs::write(&other, "!<arch>\n").unwrap();
    refused(&model, &path, &RuntimeLibrary::open(&other).unwrap(), "tcc_load_linked");
    std::fs::write(&other, "no archive").unwrap();
    refused(&model, &path, &RuntimeLibrary::open(&other).unwrap(), "other.a");
    model.manifest.target.arch = "wasm32".into();
    refused(&model, &path, &runtime, "wasm32");
    model.manifest.target.arch = "riscv64".into();
    refused(&model, &path, &runtime, "is not for riscv64");
    assert!(!path.exists(), "a refused library was written");
}
