//! C simulation: builds a project's testbench with a C++ compiler and runs it.
//!
//! The `ap_types` headers are looked for in the folder `TCC_AP_INCLUDE` and in the user's cache, into which they are
//! fetched from their Python package where they are missing.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tcc_ir::dtype::Class;
use tcc_ir::scalar::Scalar;

use crate::design::Port;
use crate::error::Error;
use crate::project::Project;
use crate::reference::Vector;
use crate::testbench;

/// Puts the headers into a folder.
const FETCH: &str = include_str!("support/fetch_ap_types");

/// C++ compilers that are tried in this order.
pub const COMPILERS: [&str; 2] = ["g++", "clang++"];

/// The compilers of [`COMPILERS`] that are installed.
pub fn compilers() -> &'static [&'static str] {
    static FOUND: OnceLock<Vec<&'static str>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let runs = |name: &&str| {
            let version = Command::new(name).arg("--version").stdout(Stdio::null()).status();
            version.is_ok_and(|status| status.success())
        };
        COMPILERS.into_iter().filter(runs).collect()
    })
}

/// The folder of `ap_int.h` and `ap_fixed.h`.
pub fn ap_include() -> Result<PathBuf, Error> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOLDER.get_or_init(|| {
        if let Some(folder) = std::env::var_os("TCC_AP_INCLUDE") {
            return Some(PathBuf::from(folder));
        }
        let cache = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
            (Some(cache), _) => PathBuf::from(cache),
            (None, Some(home)) => Path::new(&home).join(".cache"),
            (None, None) => return None,
        };
        let folder = cache.join("tcc").join("ap_types-hls4ml-1.3.0");
        let mut shell =
            Command::new("sh").args(["-s", "--"]).arg(&folder).stdin(Stdio::piped()).spawn().ok()?;
        shell.stdin.take()?.write_all(FETCH.as_bytes()).ok()?;
        shell.wait().ok()?.success().then_some(folder)
    });
    found.clone().ok_or_else(|| {
        Error::Simulation(
            "the ap_types headers cannot be fetched; name their folder in TCC_AP_INCLUDE".into(),
        )
    })
}

/// A project that is built for simulation.
#[derive(Debug)]
pub struct Simulation {
    folder: PathBuf,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// Seconds of compilation.
    pub build_seconds: f64,
}

/// What a simulation computed.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// By vector and output: the elements.
    pub outputs: Vec<Vec<Vec<Scalar>>>,
    /// Seconds in the top function.
    pub seconds: f64,
}

impl Simulation {
    /// Writes the project as `folder` and builds it with a compiler.
    pub fn build(project: &Project, folder: &Path, compiler: &str) -> Result<Simulation, Error> {
        project.write(folder)?;
        let mut make = Command::new("make");
        make.current_dir(folder).arg("build/csim").arg(format!("CXX={compiler}"));
        if project.design.uses_ap_types() {
            make.arg(format!("AP_INCLUDE={}", ap_include()?.display()));
        }
        let start = std::time::Instant::now();
        run(&mut make)?;
        let (inputs, outputs) = (project.design.inputs.clone(), project.design.outputs.clone());
        let build_seconds = start.elapsed().as_secs_f64();
        Ok(Simulation { folder: folder.to_path_buf(), inputs, outputs, build_seconds })
    }

    /// Runs the testbench with its own vectors, which fails where a result is not the expected one.
    pub fn check(&self) -> Result<String, Error> {
        run(Command::new("./build/csim").current_dir(&self.folder).arg("tb"))
    }

    /// Runs the design on other inputs: for each vector the bytes of each input.
    pub fn run(&self, vectors: &[Vec<Vec<u8>>]) -> Result<Outcome, Error> {
        let scratch = tempfile::tempdir_in(&self.folder).map_err(|source| self.failed(source))?;
        let vectors: Vec<Vector> =
            vectors.iter().map(|inputs| Vector { inputs: inputs.clone(), outputs: Vec::new() }).collect();
        for (position, port) in self.inputs.iter().enumerate() {
            let text = testbench::inputs(port, position, &vectors)?;
            let path = scratch.path().join(format!("{}.txt", port.name));
            std::fs::write(path, text).map_err(|source| self.failed(source))?;
        }
        let mut program = Command::new("./build/csim");
        let report = run(program.current_dir(&self.folder).arg(scratch.path()).arg("run"))?;
        let words = report.lines().find_map(|line| line.strip_prefix("time: "));
        let seconds = words.and_then(|words| words.split(' ').next()).and_then(|word| word.parse().ok());
        let mut outputs = vec![Vec::new(); vectors.len()];
        for port in &self.outputs {
            let path = scratch.path().join(format!("{}.actual.txt", port.name));
            let text = std::fs::read_to_string(path).map_err(|source| self.failed(source))?;
            let values: Option<Vec<Scalar>> = text.lines().skip(1).map(|line| parsed(port, line)).collect();
            let size = port.elements as usize;
            let values = values.filter(|values| values.len() == size * vectors.len());
            let values =
                values.ok_or_else(|| Error::Simulation(format!("'{}' was not written", port.name)))?;
            for (vector, results) in outputs.iter_mut().enumerate() {
                results.push(values[vector * size..(vector + 1) * size].to_vec());
            }
        }
        Ok(Outcome { outputs, seconds: seconds.unwrap_or(0.0) })
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::Write { path: self.folder.display().to_string(), source }
    }
}

fn parsed(port: &Port, line: &str) -> Option<Scalar> {
    Some(match port.dtype.class() {
        Class::Float => Scalar::float(port.dtype, line.parse().ok()?),
        Class::Unsigned | Class::Bool => Scalar { dtype: port.dtype, bits: line.parse().ok()? },
        _ => Scalar::integer(port.dtype, line.parse().ok()?),
    })
}

/// Runs a program; its standard output, or all that it printed as an error.
fn run(command: &mut Command) -> Result<String, Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| Error::Simulation(format!("{name}: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(Error::Simulation(format!("{name} failed:\n{text}{}", String::from_utf8_lossy(&output.stderr))))
}
