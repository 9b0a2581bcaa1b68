//! Why a run fails.

use tcc_ir::data::DataError;
use tcc_ir::dim::{DimError, Symbol};
use tcc_ir::infer::InferError;

/// Why a run or an evaluation fails.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Error {
    /// An input does not fit the function.
    #[error("input '{name}': {message}")]
    Input {
        /// Name of the input.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// The number of inputs is another.
    #[error("the function takes {expected} inputs, got {found}")]
    InputCount {
        /// How many the function takes.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// A dimension has no value.
    #[error(transparent)]
    Dim(#[from] DimError),
    /// A symbol is outside its declared range.
    #[error("dimension '{symbol}' is {value}, outside {low}..={high}")]
    Range {
        /// The symbol.
        symbol: Symbol,
        /// Its value.
        value: i64,
        /// Smallest value allowed.
        low: i64,
        /// Largest value allowed.
        high: i64,
    },
    /// Two dimensions that must be equal are not.
    #[error("dimensions '{left}' = {left_value} and '{right}' = {right_value} must be equal")]
    Equality {
        /// One dimension.
        left: String,
        /// Its value.
        left_value: i64,
        /// The other dimension.
        right: String,
        /// Its value.
        right_value: i64,
    },
    /// An index operand addresses nothing.
    #[error("index {index} is outside an axis of extent {extent}")]
    Index {
        /// The index as given.
        index: i64,
        /// Extent of the axis.
        extent: usize,
    },
    /// The operands do not fit the operator or the attributes do not fit the operands.
    #[error("{0}")]
    Operands(String),
    /// A tensor would have more elements than the interpreter may allocate.
    #[error("a tensor of shape {shape:?} is above the limit of {limit} elements")]
    TooLarge {
        /// Shape of the tensor.
        shape: Vec<i64>,
        /// Largest number of elements allowed.
        limit: usize,
    },
    /// The operation cannot be evaluated by itself.
    #[error("tir.{0} cannot be evaluated by itself")]
    NotEvaluable(&'static str),
    /// A host function is unknown or fails.
    #[error("host function '{function}': {message}")]
    Host {
        /// Its name.
        function: String,
        /// What is wrong.
        message: String,
    },
    /// The module is not well formed; the verifier says so too.
    #[error("malformed module: {0}")]
    Malformed(String),
    /// A result does not have its declared type.
    #[error("result {index} is {found}, declared {declared}")]
    Result {
        /// Position of the result.
        index: usize,
        /// What it is.
        found: String,
        /// What it should be.
        declared: String,
    },
    /// Another error, with the operation where it happened.
    #[error("tir.{operator} at '{location}': {source}")]
    At {
        /// The operator.
        operator: &'static str,
        /// The source node.
        location: String,
        /// What happened.
        source: Box<Error>,
    },
}

impl Error {
    /// Operands that do not fit.
    pub(crate) fn operands(message: impl Into<String>) -> Error {
        Error::Operands(message.into())
    }
}

impl From<InferError> for Error {
    fn from(error: InferError) -> Error {
        Error::Operands(error.0)
    }
}

impl From<DataError> for Error {
    fn from(error: DataError) -> Error {
        Error::Operands(error.to_string())
    }
}

/// What most functions of the interpreter return.
pub(crate) type Result<T> = std::result::Result<T, Error>;
