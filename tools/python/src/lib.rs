//! tcc as a Python module: the classes and functions below `tcc`, on NumPy arrays.
//!
//! Values cross over as bytes: an input lends its memory to a run, a result is copied once into an array of its own. Python's
//! lock is released while a model compiles or runs.
//!
//! | module | holds |
//! |---|---|
//! | `array` | NumPy arrays and tensors |
//! | `program` | `compile`, `load`, `Program`, `Session` |
//! | `language` | `LanguageModel`, `Sequence`, `Completion` |

mod array;
mod language;
mod program;

use std::fmt::Display;

use pyo3::prelude::*;

pyo3::create_exception!(
    tcc,
    Error,
    pyo3::exceptions::PyException,
    "A model, an input or an option that tcc cannot take; the text says which, and what to do."
);

/// An error of tcc in Python.
fn failed(error: impl Display) -> PyErr {
    Error::new_err(error.to_string())
}

/// The compiled half of the package `tcc`.
#[pymodule]
fn _tcc(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("Error", module.py().get_type::<Error>())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<program::Port>()?;
    module.add_class::<program::Program>()?;
    module.add_class::<program::Session>()?;
    module.add_class::<language::LanguageModel>()?;
    module.add_class::<language::Sequence>()?;
    module.add_class::<language::Completion>()?;
    module.add_function(wrap_pyfunction!(program::compile, module)?)?;
    module.add_function(wrap_pyfunction!(program::load, module)?)?;
    module.add_function(wrap_pyfunction!(program::check, module)?)?;
    Ok(())
}
