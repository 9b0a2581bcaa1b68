//! Targets whose code does not run in this process: HLS projects.

use std::path::Path;

use tcc_ir::module::Module;
use tcc_kernel::lower::Tuning;
use tcc_passes::program::{Program, ProgramOptions, build};
use tcc_runtime::manifest;

use crate::error::Error;
use crate::model::{Dims, Model};

/// The program of a model, optimized by the default pipeline, with kernels scheduled by `tuning`.
fn program(model: &Model, dims: &Dims, tuning: Tuning) -> Result<Program, Error> {
    let mut module: Module = model.import(dims)?;
    tcc_passes::optimize(&mut module, &tcc_passes::Context::default())?;
    let target = manifest::Target::host_baseline();
    Ok(build(&module, &ProgramOptions { tuning, name: model.name(), target })?)
}

/// Writes the HLS C++ project of a model for an FPGA part such as `zcu104`; `numbers` is `float` or `fixed<W,I>`.
pub fn hls(model: &Model, part: &str, numbers: &str, dims: &Dims, output: &Path) -> Result<(), Error> {
    let fail = |reason: String| Error::Target { name: format!("hls:{part}"), reason };
    let part = tcc_hls::Part::named(part).map_err(|error| fail(error.to_string()))?;
    let numbers = numbers.parse().map_err(|error: tcc_hls::Error| fail(error.to_string()))?;
    let program = program(model, dims, tcc_hls::tuning())?;
    let options = tcc_hls::Options { numbers, ..tcc_hls::Options::default() };
    let project = tcc_hls::project(&program, &part, &options).map_err(|error| fail(error.to_string()))?;
    project.write(output).map_err(|error| fail(error.to_string()))
}
