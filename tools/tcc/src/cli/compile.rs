//! `tcc compile`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tcc::ir::print;
use tcc::output::write;
use tcc::staticlib::{LibraryName, RuntimeLibrary};
use tcc::{Compiled, Error};

use super::common::CompileArguments;
use super::design;
use super::language::{self, is_language_model};
use super::{Failure, Outcome};

#[derive(Args)]
pub struct Arguments {
    /// The model: an .onnx, .gguf or .tir file, or a folder with config.json and safetensors.
    model: PathBuf,
    /// Where to write; the model's name with the extension of the kind by default.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// What to write.
    #[arg(long, value_enum, default_value_t = Kind::Bundle)]
    emit: Kind,
    /// Most tokens of a text, for a bundle of a language model.
    #[arg(long, value_name = "TOKENS")]
    context: Option<usize>,
    /// The runtime as a C library for the target, for --emit staticlib and so; the one of this installation by default.
    #[arg(long, value_name = "FILE")]
    runtime_library: Option<PathBuf>,
    #[command(flatten)]
    compile: CompileArguments,
}

/// Kinds of output.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// One file that the runtime loads.
    Bundle,
    /// An archive to link into C and Rust programs, with a header and a Rust module beside it.
    Staticlib,
    /// The same as a shared library; needs a C compiler.
    So,
    /// Relocatable object files.
    Obj,
    /// The optimized tensor IR.
    Tir,
    /// The kernel IR.
    Kernels,
    /// MLIR of the kernels.
    Mlir,
    /// LLVM IR of the kernels.
    Llvm,
    /// Assembly of the kernels.
    Asm,
    /// One PTX module, and its launch plan beside it; what ptx targets write.
    Ptx,
    /// A folder with an HLS C++ project; what hls targets write.
    Hls,
}

impl Kind {
    fn extension(self) -> &'static str {
        match self {
            Kind::Bundle => "tcc",
            Kind::Staticlib => "a",
            Kind::So => "so",
            Kind::Obj => "o",
            Kind::Tir => "tir",
            Kind::Kernels => "kernels",
            Kind::Mlir => "mlir",
            Kind::Llvm => "ll",
            Kind::Asm => "s",
            Kind::Ptx => "ptx",
            Kind::Hls => "hls",
        }
    }
}

pub fn run(arguments: &Arguments) -> Outcome {
    let gpu = arguments.compile.target.starts_with("ptx:");
    if let Some(part) = design::part(&arguments.compile.target) {
        return hls(arguments, part);
    }
    if gpu && !matches!(arguments.emit, Kind::Bundle | Kind::Ptx | Kind::Tir | Kind::Kernels) {
        let (target, kind) = (&arguments.compile.target, arguments.emit.extension());
        return Err(Failure::Usage(format!("target {target} does not write --emit {kind}")));
    }
    let emit = if gpu && arguments.emit == Kind::Bundle { Kind::Ptx } else { arguments.emit };
    if matches!(emit, Kind::Hls) || emit == Kind::Ptx && !gpu {
        let kind = arguments.emit.extension();
        return Err(Failure::Usage(format!("--emit {kind} takes a target such as ptx:sm_80 or hls:zcu104")));
    }
    let library = matches!(arguments.emit, Kind::Staticlib | Kind::So);
    if library {
        // What is going to fail does so before the work.
        runtime_library(arguments)?.check(&arguments.compile.options()?.target.requirements().arch)?;
        if let Some(output) = &arguments.output {
            let shared = LibraryName::of(output)?.is_shared();
            if shared != (arguments.emit == Kind::So) {
                let (kind, ending) = if shared { ("staticlib", ".a") } else { ("so", ".so") };
                return Err(Failure::Usage(format!("--emit {kind}: the name of OUT ends in {ending}")));
            }
        }
    }
    if arguments.emit == Kind::Bundle && is_language_model(&arguments.model)? {
        return language_model(arguments);
    }
    let compiled = arguments.compile.compile(&arguments.model)?;
    let output = match &arguments.output {
        Some(path) => path.clone(),
        None if library => {
            PathBuf::from(format!("lib{}.{}", compiled.manifest.name, arguments.emit.extension()))
        }
        None => PathBuf::from(format!("{}.{}", compiled.manifest.name, emit.extension())),
    };
    match emit {
        Kind::Bundle => compiled.write_bundle(&output)?,
        Kind::Staticlib | Kind::So => {
            compiled.write_library(&output, &runtime_library(arguments)?)?;
        }
        Kind::Tir => write(&output, print::module(&compiled.module).as_bytes())?,
        Kind::Kernels => {
            let text: String = compiled.kernels.iter().map(|kernel| format!("{kernel}\n")).collect();
            write(&output, text.as_bytes())?;
        }
        Kind::Obj => match &compiled.objects[..] {
            [object] => write(&output, object)?,
            objects => {
                for (index, object) in objects.iter().enumerate() {
                    write(&output.with_extension(format!("{index}.o")), object)?;
                }
            }
        },
        Kind::Mlir | Kind::Llvm | Kind::Asm => {
            write(&output, text(arguments, &compiled)?.as_bytes())?;
        }
        Kind::Ptx => {
            write(&output, compiled.ptx.as_ref().map_or("", |ptx| &ptx.text).as_bytes())?;
            write(&output.with_extension("launch.json"), compiled.launch_plan()?.as_bytes())?;
        }
        // Refused above: it follows from the target.
        Kind::Hls => {}
    }
    report(&compiled);
    Ok(())
}

/// A bundle of a language model: its entries, tokenizer and chat template.
fn language_model(arguments: &Arguments) -> Outcome {
    let compiled = language::compile(&arguments.model, &arguments.compile, arguments.context)?;
    let output = arguments
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{}.tcc", compiled.data.facts.name)));
    compiled.write_bundle(&output)?;
    compiled.entries.iter().for_each(report);
    Ok(())
}

/// Refuses kinds that a target does not write.
fn only(arguments: &Arguments, kind: Kind) -> Result<(), Failure> {
    if arguments.emit == Kind::Bundle || arguments.emit == kind {
        return Ok(());
    }
    let (target, kind) = (&arguments.compile.target, kind.extension());
    Err(Failure::Usage(format!("target {target} writes --emit {kind} only")))
}

fn hls(arguments: &Arguments, part: &str) -> Outcome {
    only(arguments, Kind::Hls)?;
    let hardware = design::make(&arguments.model, part, &arguments.compile)?;
    let name = &hardware.program.manifest.name;
    let output = arguments.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}_hls")));
    hardware.project.write(&output).map_err(Error::from)?;
    eprintln!("{}", hardware.project.report);
    Ok(())
}

/// The runtime that goes into a static library.
fn runtime_library(arguments: &Arguments) -> Result<RuntimeLibrary, Error> {
    match &arguments.runtime_library {
        Some(path) => RuntimeLibrary::open(path),
        None => RuntimeLibrary::find(),
    }
}

#[cfg(feature = "llvm")]
fn text(arguments: &Arguments, compiled: &Compiled) -> Result<String, Failure> {
    let kind = match arguments.emit {
        Kind::Mlir => tcc::compile::Text::Mlir,
        Kind::Llvm => tcc::compile::Text::LlvmIr,
        _ => tcc::compile::Text::Assembly,
    };
    Ok(compiled.text(kind, &arguments.compile.options()?)?)
}

#[cfg(not(feature = "llvm"))]
fn text(arguments: &Arguments, compiled: &Compiled) -> Result<String, Failure> {
    let _ = compiled;
    Err(Failure::Usage(format!("--emit {}: this build has no LLVM", arguments.emit.extension())))
}

/// What a user wants to know of the result: on the error stream, so that pipes stay clean.
fn report(compiled: &Compiled) {
    let manifest = &compiled.manifest;
    let weights: usize = compiled.weights.iter().map(|weight| weight.len()).sum();
    let arena = manifest.arena_bytes.map_or("planned when shapes are known".to_string(), |bytes| {
        format!("{:.1} KiB", bytes as f64 / 1024.0)
    });
    eprintln!(
        "{}: {} kernels in {} steps, weights {:.1} KiB, arena peak {arena}",
        manifest.name,
        manifest.kernels.len(),
        manifest.steps.len(),
        weights as f64 / 1024.0
    );
}
