//! What runs whole ONNX models and file tests: the reference interpreter and each executable target.

use crate::conformance::Runner;
use crate::filetest::Executor;
use crate::interpret::Interpret;

/// The runners of this build, the reference first.
pub const NAMES: &[&str] = &["interpret", "optimized"];

/// The runner of this name.
pub fn by_name(name: &str) -> Option<Box<dyn Runner>> {
    match name {
        "interpret" => Some(Box::new(Interpret { optimize: false })),
        "optimized" => Some(Box::new(Interpret { optimize: true })),
        _ => None,
    }
}

/// Executors of file tests, the reference first.
pub fn executors() -> Vec<Box<dyn Executor>> {
    vec![Box::new(Interpret { optimize: false }), Box::new(Interpret { optimize: true })]
}
