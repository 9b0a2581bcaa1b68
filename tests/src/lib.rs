//! Test support shared by the file tests, the conformance runner and the model zoo.
//!
//! | module | holds |
//! |---|---|
//! | [`cache`] | where fetched models and reference outputs lie |
//! | [`value`], [`npz`] | values at the border of a model, and the files that hold them |
//! | [`inputs`] | deterministic inputs from a line of text |
//! | [`compare`] | comparison under a stated tolerance |
//! | [`conformance`], [`runners`] | the node cases of the ONNX backend suite, and what runs them |
//! | [`filetest`] | tests written as text IR |
//! | [`hostile`], [`program`] | bad input, one file a diagnostic |
//! | [`zoo`] | the real models, their cases and reference outputs |

pub mod cache;
pub mod compare;
pub mod compiler;
pub mod conformance;
pub mod filetest;
pub mod hostile;
pub mod inputs;
pub mod interpret;
pub mod npz;
pub mod program;
pub mod runners;
pub mod value;
pub mod zoo;
