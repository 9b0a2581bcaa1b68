//! Designs for FPGAs: HLS projects, and their C simulation.

use std::path::Path;

use tcc_hls::csim::compilers;
use tcc_hls::{Choice, Numbers, Objective, Options, Part, Project, Simulation};
use tcc_ir::convert::push_scalar;
use tcc_ir::data::Data;
use tcc_ir::module::Module;
use tcc_ir::scalar::Scalar;
use tcc_passes::program::{Program, ProgramOptions, build};
use tcc_runtime::manifest;

use crate::error::Error;
use crate::inputs::Inputs;
use crate::model::{Dims, Model};

/// What a design is made for.
#[derive(Clone, Debug, Default)]
pub struct DesignOptions {
    /// Name of a part such as `zcu104`, or a JSON file that describes one.
    pub part: String,
    /// Number format.
    pub numbers: Numbers,
    /// Inputs of one or several runs, one after the other along the first axis.
    pub calibration: Inputs,
    /// What the search for architecture and parallelism makes small.
    pub objective: Objective,
    /// Ranges and values of symbolic dimensions.
    pub dims: Dims,
}

/// A design with what it was made from.
#[derive(Debug)]
pub struct Hardware {
    /// The module as imported.
    pub module: Module,
    /// The program that the design computes.
    pub program: Program,
    /// The project.
    pub project: Project,
}

/// The part of this name, or that a `.json` file describes.
fn part(name: &str) -> Result<Part, Error> {
    if !name.ends_with(".json") {
        return Ok(Part::named(name)?);
    }
    let text = std::fs::read_to_string(name)
        .map_err(|source| Error::Io { path: Path::new(name).to_path_buf(), source })?;
    Ok(Part::from_json(&text)?)
}

/// The vectors that arrays of one or several runs hold: for each the bytes of each input.
fn vectors(program: &Program, arrays: &Inputs) -> Result<Vec<Vec<Vec<u8>>>, Error> {
    let manifest = &program.manifest;
    let mut vectors: Vec<Vec<Vec<u8>>> = Vec::new();
    if arrays.is_empty() {
        return Ok(vectors);
    }
    for (position, port) in manifest.inputs.iter().enumerate() {
        let fail = |reason: String| Error::Input { name: port.name.clone(), reason };
        let data = arrays.get(&port.name).ok_or_else(|| fail("is missing in the calibration data".into()))?;
        let dtype = tcc_hls::design::ir_type(manifest.tensors[port.tensor as usize].dtype)?;
        if data.dtype() != dtype {
            return Err(fail(format!(
                "is {} in the calibration data, and {dtype} in the model",
                data.dtype()
            )));
        }
        let size = usize::try_from(tcc_hls::design::elements(manifest, port.tensor)?).unwrap_or(usize::MAX);
        let bytes = dtype.bytes_for(size).filter(|bytes| *bytes > 0);
        let bytes = bytes.filter(|bytes| data.bytes().len() % bytes == 0 && !data.bytes().is_empty());
        let bytes = bytes.ok_or_else(|| {
            fail(format!("has {} elements in the calibration data, no multiple of {size}", data.count()))
        })?;
        let runs = data.bytes().len() / bytes;
        if position > 0 && runs != vectors.len() {
            return Err(fail(format!("is given for {runs} runs, other inputs for {}", vectors.len())));
        }
        vectors.resize(runs, Vec::new());
        for (vector, part) in vectors.iter_mut().zip(data.bytes().chunks(bytes)) {
            vector.push(part.to_vec());
        }
    }
    Ok(vectors)
}

/// Makes the design of a model, optimized by the default pipeline.
pub fn design(model: &Model, options: &DesignOptions) -> Result<Hardware, Error> {
    let part = part(&options.part)?;
    let module: Module = model.import(&options.dims)?;
    let mut optimized = module.clone();
    tcc_passes::optimize(&mut optimized, &tcc_passes::Context::default())?;
    let target = manifest::Target::host_baseline();
    let program =
        build(&optimized, &ProgramOptions { tuning: tcc_hls::tuning(), name: model.name(), target })?;
    // Open dimensions have no number of elements.
    tcc_hls::design::check(&program.manifest)?;
    let calibration = vectors(&program, &options.calibration)?;
    let choice = Choice::Search(options.objective);
    let options = Options { numbers: options.numbers, choice, calibration, ..Options::default() };
    let project = tcc_hls::project(&program, &part, &options)?;
    Ok(Hardware { module, program, project })
}

impl Hardware {
    /// Builds the C simulation in a folder, with the first compiler that is installed.
    pub fn simulation(&self, folder: &Path) -> Result<Simulation, Error> {
        let compiler = compilers().first().ok_or_else(|| {
            tcc_hls::Error::Simulation(
                "neither g++ nor clang++ is installed; tools/setup installs one".into(),
            )
        })?;
        Ok(Simulation::build(&self.project, folder, compiler)?)
    }

    /// The outputs of a run in the interpreter's fixed-point mode, or in floating point where the design computes in it.
    pub fn interpret(&self, vector: &[Vec<u8>]) -> Result<Vec<Vec<Scalar>>, Error> {
        let Project { design, formats, .. } = &self.project;
        Ok(tcc_hls::reference::run_design(&self.program, formats, design, vector)?)
    }

    /// The bytes of each input of one run.
    pub fn vector(&self, inputs: &Inputs) -> Result<Vec<Vec<u8>>, Error> {
        let ordered = crate::inputs::ordered(&self.program.manifest, inputs)?;
        // Checks the shapes as the runtime would.
        ordered.tensors()?;
        let ports = self.program.manifest.inputs.iter();
        Ok(ports.filter_map(|port| inputs.get(&port.name)).map(|data| data.bytes().to_vec()).collect())
    }

    /// The outputs of a run by name.
    pub fn outputs(&self, values: &[Vec<Scalar>]) -> Result<Vec<(String, Data)>, Error> {
        let manifest = &self.program.manifest;
        let mut named = Vec::new();
        for (port, values) in manifest.outputs.iter().zip(values) {
            let tensor = &manifest.tensors[port.tensor as usize];
            let shape: Vec<usize> =
                tensor.shape.iter().map(|dim| dim.as_const().unwrap_or(0).max(0) as usize).collect();
            let mut bytes = Vec::new();
            values.iter().for_each(|value| push_scalar(*value, &mut bytes));
            let dtype = tcc_hls::design::ir_type(tensor.dtype)?;
            let data =
                Data::new(dtype, &shape, bytes.into()).map_err(|error| Error::Ir(error.to_string()))?;
            named.push((port.name.clone(), data));
        }
        Ok(named)
    }
}
