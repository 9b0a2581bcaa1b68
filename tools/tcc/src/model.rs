//! Model files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tcc_frontend::language_model::{self, LanguageModel};
use tcc_frontend::onnx::{self, ImportOptions, Unsupported};
use tcc_ir::dim::{Dim, Range};
use tcc_ir::module::Module;

use crate::error::Error;

/// A model that has been read and not yet imported.
#[derive(Debug)]
pub struct Model {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Onnx(Box<onnx::Model>),
    Language(Box<LanguageModel>),
    Tir(Module),
}

/// Ranges of symbolic dimensions by name.
pub type Dims = BTreeMap<String, Range>;

impl Model {
    /// Reads a model file; the kind follows from its extension.
    pub fn open(path: &Path) -> Result<Model, Error> {
        let format = |reason: &str| Error::Format { path: path.to_owned(), reason: reason.to_string() };
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if !path.exists() {
            return Err(format("no such file"));
        }
        let kind = match extension {
            "onnx" => Kind::Onnx(Box::new(onnx::Model::open(path)?)),
            "tir" | "mlir" => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| Error::Io { path: path.to_owned(), source })?;
                Kind::Tir(parse(&text, path)?)
            }
            "gguf" => Kind::Language(Box::new(LanguageModel::open(path)?)),
            _ if path.is_dir() => Kind::Language(Box::new(LanguageModel::open(path)?)),
            _ => {
                return Err(format("expected an .onnx, .gguf or .tir file, or a folder with config.json"));
            }
        };
        Ok(Model { path: path.to_owned(), kind })
    }

    /// An ONNX model in memory, which has no folder to keep external data in.
    pub fn from_onnx(bytes: Bytes) -> Result<Model, Error> {
        let kind = Kind::Onnx(Box::new(onnx::Model::from_bytes(bytes)?));
        Ok(Model { path: PathBuf::from("model"), kind })
    }

    /// A module built in memory.
    pub fn from_module(module: Module) -> Model {
        Model { path: PathBuf::from("module"), kind: Kind::Tir(module) }
    }

    /// Name for messages and artifacts: the file name without extension.
    pub fn name(&self) -> String {
        self.path.file_stem().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
    }

    /// The language model, if it is one.
    pub fn language_model(&self) -> Option<&LanguageModel> {
        match &self.kind {
            Kind::Language(model) => Some(model),
            Kind::Onnx(_) | Kind::Tir(_) => None,
        }
    }

    /// The tensor IR of the model, with dimensions fixed or bounded by name.
    pub fn import(&self, dims: &Dims) -> Result<Module, Error> {
        match &self.kind {
            Kind::Onnx(model) => {
                let options = ImportOptions { dims: dims.clone(), ..ImportOptions::default() };
                Ok(onnx::import(model, &options)?)
            }
            Kind::Language(model) => {
                let mut module = model.import(&language_model::ImportOptions::default())?;
                if let Some(function) = module.entry_mut() {
                    restrict(function, dims)?;
                }
                Ok(module)
            }
            Kind::Tir(module) => {
                let mut module = module.clone();
                if let Some(function) = module.entry_mut() {
                    restrict(function, dims)?;
                }
                Ok(module)
            }
        }
    }

    /// Every node that cannot be imported.
    pub fn check(&self) -> Result<Vec<Unsupported>, Error> {
        match &self.kind {
            Kind::Onnx(model) => Ok(onnx::check(model, &ImportOptions::default())?),
            // Importing checks the weights against the description, and finds no nodes that are not supported.
            Kind::Language(model) => {
                model.import(&language_model::ImportOptions::default())?;
                Ok(Vec::new())
            }
            Kind::Tir(_) => Ok(Vec::new()),
        }
    }
}

fn parse(text: &str, path: &Path) -> Result<Module, Error> {
    let module =
        tcc_ir::parse::module(text).map_err(|error| Error::Ir(format!("{}:{error}", path.display())))?;
    tcc_ir::verify::verify(&module).map_err(|error| Error::Ir(format!("{}: {error}", path.display())))?;
    Ok(module)
}

/// Applies `--dim` to a function that is already in the IR.
fn restrict(function: &mut tcc_ir::module::Function, dims: &Dims) -> Result<(), Error> {
    for (name, range) in dims {
        let symbol = tcc_ir::dim::Symbol::new(name);
        let Some(known) = function.symbols.get(&symbol).copied() else {
            return Err(Error::Ir(format!("--dim {name}: the module has no such dimension")));
        };
        if range.low < known.low || range.high > known.high {
            return Err(Error::Ir(format!("--dim {name}: the module takes {}..{}", known.low, known.high)));
        }
        if range.low == range.high {
            let value = Dim::Const(range.low);
            function.substitute(&|candidate| (*candidate == symbol).then(|| value.clone()));
        } else {
            function.symbols.insert(symbol, *range);
        }
    }
    Ok(())
}
