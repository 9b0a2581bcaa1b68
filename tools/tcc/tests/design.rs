//! The worked example of docs/design.md is what the commands beside it print.

#![cfg(feature = "llvm")]

use std::path::{Path, PathBuf};

use tcc::compile::Text;
use tcc::ir::print;
use tcc::{CompileOptions, Model, Target, compile};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// The fenced blocks of a language, in order.
fn blocks(page: &str, language: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(fence) = line.strip_prefix("```").filter(|rest| !rest.is_empty()) {
            let block: Vec<String> =
                lines.by_ref().take_while(|line| *line != "```").map(str::to_string).collect();
            if fence == language {
                found.push(block);
            }
        } else if line == "```" {
            let _ = lines.by_ref().find(|line| *line == "```");
        }
    }
    found
}

/// True where the line has all parts of `shown`, which are divided by `...`, in order, from its first word on.
fn matches(line: &str, shown: &str) -> bool {
    let mut parts = shown.trim().split("...");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.trim_start().strip_prefix(first.trim_end()) else { return false };
    for part in parts.map(str::trim) {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

fn shows(output: &str, block: &[String]) {
    let mut lines = output.lines();
    for shown in block.iter().filter(|line| line.trim() != "...") {
        assert!(
            lines.any(|line| matches(line, shown)),
            "design.md shows\n{shown}\nwhich is not in\n{output}"
        );
    }
}

#[test]
fn the_worked_example_is_what_comes_out() {
    let page = std::fs::read_to_string(docs().join("design.md")).unwrap();
    let model = Model::open(&docs().join("example.tir")).unwrap();
    let options = CompileOptions::new(Target::named("cpu:x86-64-v4").unwrap());
    let compiled = compile(&model, &options).unwrap();

    let mlir = blocks(&page, "mlir");
    shows(&print::module(&model.import(&Default::default()).unwrap()), &mlir[0]);
    shows(&print::module(&compiled.module), &mlir[1]);

    let kernels: String = compiled.kernels.iter().map(|kernel| format!("{kernel}\n")).collect();
    let kernel = blocks(&page, "text").into_iter().find(|block| block[0].contains("task"));
    shows(&kernels, &kernel.unwrap());
    let products = kernels.lines().filter(|line| line.contains("= fma(")).count();
    assert!(page.contains(&format!("{products} accumulators of 16 lanes")), "{products}");

    let assembly = compiled.text(Text::Assembly, &options).unwrap();
    let products =
        assembly.lines().filter(|line| line.contains("vfmadd231ps") && line.contains("zmm")).count();
    assert!(page.contains(&format!("has {products} `vfmadd231ps` on `zmm` registers")), "{products}");
    let arena = compiled.manifest.arena_bytes.unwrap() as f64 / 1024.0;
    assert_eq!(compiled.manifest.steps.len(), 3);
    assert!(page.contains(&format!("arena of {arena:.1} KiB")), "{arena}");
}
