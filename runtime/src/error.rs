//! Every way in which loading or running can fail.

use crate::dim::DimError;
use crate::dtype::DType;
use std::path::PathBuf;
use thiserror::Error;

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, with the name of the file, field, tensor or input at fault and what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {action} `{path}`: {source}", path = path.display())]
    Io {
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("this is not a tcc bundle: {reason}; compile the model to get one")]
    NotABundle {
        /// What it has instead.
        reason: String,
    },
    /// The file comes from another version of tcc.
    #[error(
        "the {what} has format version {found}, this runtime reads version {supported}; compile the model again"
    )]
    Version {
        /// `bundle` or `manifest`.
        what: &'static str,
        /// The version in the file.
        found: u32,
        /// The version that is understood.
        supported: u32,
    },
    /// The file is truncated or has changed since it was written.
    #[error("the bundle is damaged, {field}: {reason}; copy it again or compile the model again")]
    Damaged {
        /// The part of the file at fault.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The manifest contradicts itself or what comes with it.
    #[error("the manifest is not valid, {field}: {reason}; compile the model again")]
    Manifest {
        /// Path of the field, such as `steps[3].buffers[0]`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A bundle has no entry of a name.
    #[error("the bundle has no entry `{entry}`; it has {names}")]
    NoEntry {
        /// The name asked for.
        entry: String,
        /// Names that there are.
        names: String,
    },
    /// The code is for another architecture.
    #[error("the program is compiled for {needed}, this machine is {host}; compile it for this machine")]
    WrongArchitecture {
        /// Architecture of the code.
        needed: String,
        /// Architecture of this machine.
        host: String,
    },
    /// The CPU lacks instructions that the code uses.
    #[error(
        "the program needs CPU features that this machine lacks: {}; compile it for this machine",
        missing.join(", ")
    )]
    MissingCpuFeatures {
        /// The features.
        missing: Vec<String>,
    },
    /// The object file cannot be loaded.
    #[error("the code cannot be loaded, {field}: {reason}; compile the model again")]
    Code {
        /// Section or symbol at fault.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A host step names a function that the registry lacks.
    #[error(
        "{field} needs host function `{function}`, which this runtime does not have; update the runtime or register the function"
    )]
    UnknownHostFunction {
        /// Path of the step.
        field: String,
        /// The name.
        function: String,
    },
    /// A host step is not what the function accepts.
    #[error("{field} does not fit host function `{function}`: {reason}; compile the model again")]
    HostStep {
        /// Path of the step.
        field: String,
        /// The function.
        function: String,
        /// What is wrong.
        reason: String,
    },
    /// A host function failed while the program ran.
    #[error("host function `{function}` ({field}): {reason}")]
    Host {
        /// Path of the step.
        field: String,
        /// The function.
        function: String,
        /// What is wrong.
        reason: String,
    },
    /// Too many or too few inputs.
    #[error(
        "the program takes {expected} inputs ({names}), found {found}; pass one tensor for each, in this order"
    )]
    InputCount {
        /// How many it takes.
        expected: usize,
        /// Their names.
        names: String,
        /// How many were passed.
        found: usize,
    },
    /// An input has another element type.
    #[error("input `{input}`: expected element type {expected}, found {found}; convert it")]
    InputType {
        /// Name of the input.
        input: String,
        /// The type in the manifest.
        expected: DType,
        /// The type passed.
        found: DType,
    },
    /// An input has another shape.
    #[error("input `{input}`: expected shape {expected}, found {found:?}: {reason}")]
    InputShape {
        /// Name of the input.
        input: String,
        /// The shape in the manifest.
        expected: String,
        /// The shape passed.
        found: Vec<usize>,
        /// Which axis is at fault and why.
        reason: String,
    },
    /// The data of a tensor does not go with its type and shape.
    #[error("a tensor of type {dtype} and shape {shape:?} {reason}")]
    TensorData {
        /// Element type.
        dtype: DType,
        /// Shape.
        shape: Vec<usize>,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// An input is not aligned to its element type.
    #[error(
        "input `{input}`: the data is not aligned to {alignment} bytes, which {dtype} needs; pass a copy"
    )]
    InputAlignment {
        /// Name of the input.
        input: String,
        /// Element type.
        dtype: DType,
        /// Alignment of the type.
        alignment: usize,
    },
    /// Too many or too few output buffers.
    #[error("the program has {expected} outputs, found {found} output buffers; pass one for each")]
    OutputCount {
        /// How many it has.
        expected: usize,
        /// How many were passed.
        found: usize,
    },
    /// An output buffer has another element type.
    #[error(
        "output `{output}`: the buffer is for {found}, the output is {expected}; pass a buffer of that type"
    )]
    OutputType {
        /// Name of the output.
        output: String,
        /// The type in the manifest.
        expected: DType,
        /// The type of the buffer.
        found: DType,
    },
    /// An output buffer is too small or not aligned.
    #[error("output `{output}`: {reason}; pass a larger buffer or let the session allocate it")]
    OutputBuffer {
        /// Name of the output.
        output: String,
        /// What is wrong.
        reason: String,
    },
    /// A dimension took a value outside its declared range.
    #[error(
        "dimension `{symbol}` is {value}, outside its range {lo}..={hi}; compile with a wider range or change the input"
    )]
    SymbolRange {
        /// Name of the symbol.
        symbol: String,
        /// The value.
        value: i64,
        /// Smallest value allowed.
        lo: i64,
        /// Largest value allowed.
        hi: i64,
    },
    /// A relation between dimensions does not hold.
    #[error("{reason}, but {left} is not {relation} {right}; change the input shapes")]
    Constraint {
        /// What needs the relation.
        reason: String,
        /// Left side: expression and value.
        left: String,
        /// The relation in words.
        relation: &'static str,
        /// Right side: expression and value.
        right: String,
    },
    /// A dimension expression has no value.
    #[error("{field}: {expression}: {source}")]
    Dim {
        /// The place of the expression.
        field: String,
        /// The expression.
        expression: String,
        /// Why.
        source: DimError,
    },
    /// A tensor would leave the memory that belongs to it, or another invariant of a running program fails.
    #[error("{field}: {reason}; this is a fault of the compiler that wrote the program")]
    Program {
        /// The step or tensor.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// A device refused memory or work.
    #[error("device {device}: {reason}")]
    Device {
        /// The device.
        device: String,
        /// What is wrong.
        reason: String,
    },
    /// Memory for a buffer cannot be had.
    #[error("cannot allocate {bytes} bytes for {what}; use smaller inputs")]
    OutOfMemory {
        /// What the memory is for.
        what: String,
        /// How much.
        bytes: u64,
    },
    /// The session would need more memory than its options allow.
    #[error("the session needs {needed} bytes, its limit is {limit}; raise the limit or use smaller inputs")]
    MemoryLimit {
        /// How much it needs.
        needed: u64,
        /// How much it may take.
        limit: u64,
    },
    /// A state would need more memory than there is.
    #[error("the state takes {needed} bytes ({symbols}), {limit} may be used; ask for a shorter context")]
    StateMemory {
        /// How much it needs.
        needed: u64,
        /// How much may be used.
        limit: u64,
        /// Values of the symbols in its shapes.
        symbols: String,
    },
    /// A symbol of a state tensor has no value.
    #[error("the state needs a value for `{symbol}`; give it when the state is made")]
    StateSymbol {
        /// The symbol.
        symbol: String,
    },
    /// A state does not have what a program takes.
    #[error("state `{tensor}` {reason}; make one state for all entries that share it")]
    StateMismatch {
        /// Name of the tensor.
        tensor: String,
        /// What does not fit.
        reason: String,
    },
    /// A thread cannot be started.
    #[error("cannot start {threads} threads: {source}; ask for fewer")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The reason.
        source: std::io::Error,
    },
    /// An argument of the C interface is wrong.
    #[error("argument `{argument}`: {reason}")]
    Argument {
        /// Name of the parameter in `tcc.h`.
        argument: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    pub(crate) fn manifest(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Manifest { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn damaged(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Damaged { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn code(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Code { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn program(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Program { field: field.into(), reason: reason.into() }
    }
}
