//! Test support shared by the file tests, the conformance runner and the model zoo.
//!
//! | module | holds |
//! |---|---|
//! | [`cache`] | where fetched models and reference outputs lie |
//! | [`value`] | values at the border of a model |
//! | [`inputs`] | deterministic inputs from a line of text |
//! | [`compare`] | comparison under a stated tolerance |
//! | [`conformance`] | the node cases of the ONNX backend suite |
//! | [`runners`], [`compiler`], [`interpret`], [`compiled`] | what runs models and file tests |
//! | [`filetest`] | tests written as text IR |
//! | [`fuzz`] | mutated files for every reader |
//! | [`hostile`], [`program`] | bad input, one file a diagnostic |
//! | [`zoo`] | the real models, their cases and reference outputs |

pub mod cache;
pub mod compare;
pub mod compiled;
pub mod compiler;
pub mod conformance;
pub mod filetest;
pub mod fuzz;
pub mod hostile;
pub mod inputs;
pub mod interpret;
pub mod program;
pub mod runners;
pub mod value;
pub mod zoo;
