//! Lowerings of ONNX operators, one topic a file.

mod activation;
mod convolution;
mod elementwise;
mod generation;
mod layout;
mod matmul;
mod normalization;
mod reduction;
mod scalar;

use super::table::Entry;

/// The tables of all topics.
pub(super) static TABLES: &[&[Entry]] = &[
    activation::TABLE,
    convolution::TABLE,
    elementwise::TABLE,
    generation::TABLE,
    layout::TABLE,
    matmul::TABLE,
    normalization::TABLE,
    reduction::TABLE,
];
