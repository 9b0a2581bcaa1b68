//! Everything that can go wrong between a model file and its results.

use std::path::PathBuf;

/// An error of the compiler or of a run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is of no kind that tcc reads.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected.
        reason: String,
    },
    /// An ONNX model that cannot be imported.
    #[error(transparent)]
    Onnx(#[from] tcc_frontend::onnx::OnnxError),
    /// A language model that cannot be imported.
    #[error(transparent)]
    LanguageModel(#[from] tcc_frontend::language_model::LanguageModelError),
    /// A `.tir` file that does not parse or verify.
    #[error("{0}")]
    Ir(String),
    /// An unknown target or one that this build lacks.
    #[error("target '{name}': {reason}")]
    Target {
        /// As asked for.
        name: String,
        /// Why not.
        reason: String,
    },
    /// An optimization pass.
    #[error(transparent)]
    Passes(#[from] tcc_passes::Error),
    /// Building the program.
    #[error(transparent)]
    Program(#[from] tcc_passes::program::ProgramError),
    /// Making kernels ready for a backend: a bug of tcc.
    #[error("kernel passes: {0}")]
    Kernel(#[from] tcc_kernel::passes::Error),
    /// Code generation: a bug of tcc, or a machine that lacks something.
    #[error("code generation: {0}")]
    Codegen(String),
    /// A static library that cannot be written.
    #[error(transparent)]
    StaticLibrary(#[from] crate::staticlib::StaticLibraryError),
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] tcc_runtime::Error),
    /// A design for an FPGA.
    #[error("hls: {0}")]
    Hardware(#[from] tcc_hls::Error),
    /// The reference interpreter.
    #[error("reference interpreter: {0}")]
    Interpret(#[from] tcc_interpret::Error),
    /// The machine model of this host.
    #[error("machine model: {0}")]
    MachineModel(#[from] tcc_passes::cost::MeasuredError),
    /// An input value that does not fit the model.
    #[error("input '{name}': {reason}")]
    Input {
        /// Name of the input.
        name: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Generation of text.
    #[error(transparent)]
    Generate(#[from] crate::generate::GenerateError),
    /// The page of `tcc inspect --html` cannot be written: a bug of tcc.
    #[error("report: {0}")]
    Report(String),
    /// No small sizes satisfy what a model needs of its symbolic dimensions.
    #[error("no sizes up to a few thousand suit the model ({reason}); give them with --dim NAME=N for {}", names.join(", "))]
    Sizes {
        /// The dimensions that have no size.
        names: Vec<String>,
        /// What the sizes must satisfy.
        reason: String,
    },
    /// Compiled and reference results differ.
    #[error("{0}")]
    Mismatch(String),
}

impl Error {
    /// True where tcc itself is at fault, not the model or the input.
    pub fn is_bug(&self) -> bool {
        match self {
            Error::Kernel(_) | Error::Codegen(_) | Error::Report(_) | Error::Mismatch(_) => true,
            Error::StaticLibrary(error) => error.is_bug(),
            _ => false,
        }
    }
}
