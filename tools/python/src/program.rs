//! Programs: compiled models, artifacts, sessions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use tcc::ir::dim::Range;
use tcc::runtime::manifest::{Manifest, Port as ManifestPort};
use tcc::runtime::program::Executable;
use tcc::runtime::{Bundle, LoadOptions, TensorRef};
use tcc::{CompileOptions, Compiled, Device, Model, Target};

use crate::array::{Input, input, numpy_name, output};
use crate::failed;

/// A lock whose holder may have panicked: nothing here is left half-changed by that.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As many threads as there are CPUs.
pub fn all_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get())
}

/// One input or output of a program.
#[pyclass(frozen, module = "tcc", get_all)]
pub struct Port {
    /// Name in the model.
    name: String,
    /// Name of the element type in NumPy, or in ml_dtypes where NumPy has no such type.
    dtype: String,
    /// Extents: a number, or the text of an expression over symbolic dimensions.
    shape: Py<PyList>,
}

#[pymethods]
impl Port {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let shape = self.shape.bind(py).repr()?;
        Ok(format!("Port(name={:?}, dtype={:?}, shape={shape})", self.name, self.dtype))
    }
}

fn ports(py: Python<'_>, manifest: &Manifest, ports: &[ManifestPort]) -> PyResult<Vec<Port>> {
    ports
        .iter()
        .map(|port| {
            let tensor = &manifest.tensors[port.tensor as usize];
            let shape = PyList::empty(py);
            for dim in &tensor.shape {
                match dim.as_const() {
                    Some(extent) => shape.append(extent)?,
                    None => shape.append(manifest.describe_dim(dim))?,
                }
            }
            let dtype = numpy_name(tensor.dtype).to_owned();
            Ok(Port { name: port.name.clone(), dtype, shape: shape.unbind() })
        })
        .collect()
}

/// A compiled model, ready to run in any number of sessions.
#[pyclass(frozen, module = "tcc")]
pub struct Program {
    executable: Arc<Executable>,
    /// What can be saved; a program from a bundle is a file already.
    compiled: Option<Compiled>,
}

#[pymethods]
impl Program {
    /// The inputs, in order.
    #[getter]
    fn inputs(&self, py: Python<'_>) -> PyResult<Vec<Port>> {
        let manifest = self.executable.manifest();
        ports(py, manifest, &manifest.inputs)
    }

    /// The outputs, in order.
    #[getter]
    fn outputs(&self, py: Python<'_>) -> PyResult<Vec<Port>> {
        let manifest = self.executable.manifest();
        ports(py, manifest, &manifest.outputs)
    }

    /// Name of the model.
    #[getter]
    fn name(&self) -> &str {
        &self.executable.manifest().name
    }

    /// Number of kernels.
    #[getter]
    fn kernels(&self) -> usize {
        self.executable.manifest().kernels.len()
    }

    /// Writes a bundle for `load` and for other programs, all at once or not at all.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let reason = "a program from a bundle is saved already: copy the file";
        let compiled = self.compiled.as_ref().ok_or_else(|| failed(reason))?;
        py.detach(|| compiled.write_bundle(&path)).map_err(failed)
    }

    /// The memory and the threads to run it, all CPUs by default; one caller at a time.
    #[pyo3(signature = (threads=None))]
    fn session(&self, py: Python<'_>, threads: Option<usize>) -> PyResult<Session> {
        let threads = threads.unwrap_or_else(all_threads);
        let session = py.detach(|| tcc::runtime::Session::new(&self.executable, threads)).map_err(failed)?;
        Ok(Session { session: Mutex::new(session), executable: Arc::clone(&self.executable) })
    }

    fn __repr__(&self) -> String {
        let manifest = self.executable.manifest();
        format!("Program({:?}, {} kernels)", manifest.name, manifest.kernels.len())
    }
}

/// A program with the memory and the threads to run it.
#[pyclass(frozen, module = "tcc")]
pub struct Session {
    session: Mutex<tcc::runtime::Session>,
    executable: Arc<Executable>,
}

impl Session {
    /// The inputs in order, from a dictionary or a sequence.
    fn inputs<'py>(&self, values: &Bound<'py, PyAny>) -> PyResult<Vec<Input<'py>>> {
        let manifest = self.executable.manifest();
        let names: Vec<&str> = manifest.inputs.iter().map(|port| port.name.as_str()).collect();
        let mut given: Vec<Bound<'py, PyAny>> = Vec::with_capacity(names.len());
        if let Ok(values) = values.cast::<PyDict>() {
            for (key, _) in values {
                let key: String = key.extract()?;
                if !names.contains(&key.as_str()) {
                    let list = names.join(", ");
                    return Err(failed(format!(
                        "input '{key}': the model has no such input; it takes {list}"
                    )));
                }
            }
            for name in &names {
                let value = values.get_item(name)?;
                given.push(value.ok_or_else(|| failed(format!("input '{name}' is missing")))?);
            }
        } else {
            given.extend(values.try_iter()?.collect::<PyResult<Vec<_>>>()?);
            if given.len() != names.len() {
                let (count, list) = (given.len(), names.join(", "));
                return Err(failed(format!(
                    "{count} inputs are given, the model takes {}: {list}",
                    names.len()
                )));
            }
        }
        let types = manifest.inputs.iter().map(|port| manifest.tensors[port.tensor as usize].dtype);
        given.iter().zip(types).zip(&names).map(|((value, dtype), name)| input(value, dtype, name)).collect()
    }
}

#[pymethods]
impl Session {
    /// Runs the program: inputs as a dictionary by name or a sequence in order, outputs as a dictionary in order.
    ///
    /// The memory of the inputs is read while Python's lock is free: do not write to them meanwhile.
    fn run<'py>(&self, py: Python<'py>, inputs: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
        let inputs = self.inputs(inputs)?;
        let tensors: Vec<TensorRef<'_>> = inputs.iter().map(Input::tensor).collect::<PyResult<_>>()?;
        let results = py.detach(|| locked(&self.session).run(&tensors)).map_err(failed)?;
        let named = PyDict::new(py);
        for (port, tensor) in self.executable.manifest().outputs.iter().zip(&results) {
            named.set_item(&port.name, output(py, tensor)?)?;
        }
        Ok(named)
    }

    /// Bytes that the last run took: `arena`, `scratch`, `state`.
    fn memory(&self, py: Python<'_>) -> BTreeMap<&'static str, u64> {
        let used = py.detach(|| locked(&self.session).memory_use());
        BTreeMap::from([("arena", used.arena), ("scratch", used.scratch), ("state", used.state)])
    }

    /// Forgets what runs have left in the state, such as key-value caches.
    fn reset(&self, py: Python<'_>) {
        py.detach(|| locked(&self.session).reset_state());
    }
}

/// A fixed size, or the smallest and the largest one.
#[derive(FromPyObject)]
pub enum Extent {
    /// The size.
    Fixed(i64),
    /// The smallest and the largest size.
    Between(i64, i64),
}

/// Ranges of dimensions by name.
fn ranges(given: BTreeMap<String, Extent>) -> PyResult<tcc::model::Dims> {
    let range = |(name, extent): (String, Extent)| {
        let (low, high) = match extent {
            Extent::Fixed(size) => (size, size),
            Extent::Between(low, high) => (low, high),
        };
        if low < 0 || high < low {
            return Err(failed(format!(
                "dims[{name:?}]: expected a size, or a pair of the smallest and the largest"
            )));
        }
        Ok((name, Range { low, high }))
    };
    given.into_iter().map(range).collect()
}

/// Where a model is from.
pub enum Source {
    /// An ONNX model as bytes.
    Bytes(Bytes),
    /// A file or a folder.
    Path(PathBuf),
}

impl Source {
    fn new(value: &Bound<'_, PyAny>) -> PyResult<Source> {
        match value.cast::<PyBytes>() {
            Ok(bytes) => Ok(Source::Bytes(Bytes::copy_from_slice(bytes.as_bytes()))),
            Err(_) => Ok(Source::Path(value.extract()?)),
        }
    }

    fn open(self) -> Result<Model, tcc::Error> {
        match self {
            Source::Bytes(bytes) => Model::from_onnx(bytes),
            Source::Path(path) => Model::open(&path),
        }
    }
}

/// Compiles a model: a path, or an ONNX model as bytes.
///
/// `dims` fixes symbolic dimensions by name or bounds them: `{"batch": 1, "sequence": (1, 512)}`. `threads` generate code.
#[pyfunction]
#[pyo3(signature = (model, *, target="cpu", dims=None, device=None, threads=None, opt_level=2))]
pub fn compile(
    py: Python<'_>,
    #[pyo3(from_py_with = Source::new)] model: Source,
    target: &str,
    dims: Option<BTreeMap<String, Extent>>,
    device: Option<&str>,
    threads: Option<usize>,
    opt_level: u8,
) -> PyResult<Program> {
    let mut options = CompileOptions::new(Target::named(target).map_err(failed)?);
    options.dims = ranges(dims.unwrap_or_default())?;
    options.threads = threads.unwrap_or_else(all_threads).max(1);
    if opt_level > 3 {
        return Err(failed(format!("opt_level {opt_level}: expected 0 to 3")));
    }
    options.level = opt_level;
    if let Some(device) = device {
        options.device = device.parse::<Device>().map_err(failed)?;
        options.device.check(&options.target).map_err(failed)?;
    }
    if options.device == Device::Cpu && !options.target.is_native() {
        return Err(failed(format!("code for {target} does not run on this machine")));
    }
    let built = py.detach(|| {
        let compiled = tcc::compile(&model.open()?, &options)?;
        Ok::<_, tcc::Error>((compiled.executable()?, compiled))
    });
    let (executable, compiled) = built.map_err(failed)?;
    Ok(Program { executable, compiled: Some(compiled) })
}

/// Loads a bundle.
#[pyfunction]
pub fn load(py: Python<'_>, path: PathBuf) -> PyResult<Program> {
    let executable = py.detach(|| Bundle::open(&path)?.load(&LoadOptions::default())).map_err(failed)?;
    Ok(Program { executable: Arc::new(executable), compiled: None })
}

/// What cannot be compiled of a model: a line for each node, with its name, operator and the reason. Empty where all can.
#[pyfunction]
pub fn check(py: Python<'_>, #[pyo3(from_py_with = Source::new)] model: Source) -> PyResult<Vec<String>> {
    let missing = py.detach(|| model.open()?.check()).map_err(failed)?;
    Ok(missing.iter().map(ToString::to_string).collect())
}
