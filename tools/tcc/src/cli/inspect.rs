//! `tcc inspect`.

use std::path::{Path, PathBuf};

use clap::Args;
use tcc::Error;
use tcc::runtime::Bundle;
use tcc::runtime::manifest::{Manifest, Step, Storage};

use super::Outcome;
use super::common::CompileArguments;

#[derive(Args)]
pub struct Arguments {
    /// The model or artifact.
    model: PathBuf,
    #[command(flatten)]
    compile: CompileArguments,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let manifest = manifest(&arguments.model, &arguments.compile)?;
    for (title, ports) in [("inputs", &manifest.inputs), ("outputs", &manifest.outputs)] {
        println!("{title}:");
        for port in ports {
            let info = &manifest.tensors[port.tensor as usize];
            println!("  {}: {:?} {}", port.name, info.dtype, manifest.describe_shape(&info.shape));
        }
    }
    println!("steps:");
    print_steps(&manifest, &manifest.steps, 1);
    match manifest.arena_bytes {
        Some(bytes) => println!("arena peak: {bytes} bytes"),
        None => println!("arena peak: follows from the input shapes"),
    }
    let weights: u64 = manifest.weights.iter().map(|blob| blob.bytes).sum();
    println!("weights: {weights} bytes in {} blobs", manifest.weights.len());
    Ok(())
}

fn manifest(path: &Path, compile: &CompileArguments) -> Result<Manifest, super::Failure> {
    if path.extension().is_some_and(|extension| extension == "tcc") {
        return Ok(Bundle::open(path).map_err(Error::from)?.manifest().clone());
    }
    Ok(compile.compile(path)?.manifest)
}

fn print_steps(manifest: &Manifest, steps: &[Step], depth: usize) {
    let indent = "  ".repeat(depth);
    let tensor = |id: u32| {
        let info = &manifest.tensors[id as usize];
        let place = match &info.storage {
            Storage::Input(_) => "input".to_string(),
            Storage::Output(_) => "output".to_string(),
            Storage::Weight { .. } => "weight".to_string(),
            Storage::Arena { offset: Some(offset), .. } => format!("arena+{offset}"),
            Storage::Arena { .. } => "arena".to_string(),
            Storage::Alias { of, .. } => format!("view of {of}"),
            Storage::State | Storage::Host => "host".to_string(),
        };
        format!("{id}:{}{place}", manifest.describe_shape(&info.shape))
    };
    for step in steps {
        match step {
            Step::Kernel(step) => {
                let buffers: Vec<String> = step.buffers.iter().map(|id| tensor(*id)).collect();
                let kernel = &manifest.kernels[step.kernel as usize];
                let tasks = manifest.describe_dim(&step.tasks);
                println!("{indent}{} tasks={tasks} {}", kernel.symbol, buffers.join(" "));
            }
            Step::Host(step) => println!("{indent}host {}", step.function),
            Step::Copy { from, to } => println!("{indent}copy {} -> {}", tensor(*from), tensor(*to)),
            Step::Bind { symbol, tensor: id, .. } => {
                println!("{indent}bind {} from {}", manifest.symbols[*symbol as usize].name, tensor(*id));
            }
            Step::Require(constraint) => println!("{indent}require {}", constraint.reason),
            Step::If(step) => {
                println!("{indent}if {}", tensor(step.condition));
                print_steps(manifest, &step.then.steps, depth + 1);
                println!("{indent}else");
                print_steps(manifest, &step.otherwise.steps, depth + 1);
            }
            Step::Loop(step) => {
                println!("{indent}loop");
                print_steps(manifest, &step.body, depth + 1);
            }
        }
    }
}
