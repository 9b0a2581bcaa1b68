//! The reference interpreter of the tensor IR: slow, plain, and the oracle for every rewrite and backend.
//!
//! It executes the doc lines of the operator table directly and shares no code with any kernel. One file holds one
//! topic; [`evaluate`] is an exhaustive match over the operators, so a new operator does not compile without semantics.
//!
//! | use | for |
//! |---|---|
//! | [`Interpreter`] | running the entry function of a module on inputs |
//! | [`evaluate()`] | one operation on known operands: constant folding |
//! | [`State`] | caches that runs of several modules share |
//!
//! # Numbers
//!
//! Every value has its declared element type: after each scalar function the result is rounded to it. Floating-point
//! functions are computed in `f64` and rounded once; integers wrap as the table says. Sums (reductions, contractions,
//! convolutions, windows, normalizations) run in `f64` over the whole sum and are rounded once to the element or
//! accumulator type, so this is what a kernel's shorter accumulation is compared with, not what it must equal bit by
//! bit. Integer accumulators wrap to their type.
//!
//! # Symbols
//!
//! The first input that shows a symbol binds it; all further places, ranges and equalities are checked. Every result is
//! checked against its declared type, and a symbol that stands alone there and has no value yet is bound by it. Symbols
//! bound inside a region lose their values when it ends, so that a loop may see another size in each iteration.

mod accumulate;
mod attention;
mod block_contract;
mod block_format;
mod cache;
mod context;
mod contract;
mod control;
mod convolve;
mod elementwise;
mod error;
mod evaluate;
mod gather;
mod grid_sample;
mod host;
mod indexing;
mod interpreter;
mod movement;
mod normalize;
mod number;
mod parallel;
mod quantize;
mod random;
mod recurrent;
mod reduce;
mod resize;
mod sort;
mod symbols;
mod tensor;
mod value;
mod window;

pub use cache::State;
pub use context::DEFAULT_LIMIT;
pub use error::Error;
pub use evaluate::evaluate;
pub use interpreter::{Interpreter, Observer};
pub use tensor::{Contents, Tensor};
pub use value::Value;
