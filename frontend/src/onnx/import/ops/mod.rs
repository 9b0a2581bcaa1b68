//! Lowerings of ONNX operators, one topic a file.

mod activation;
mod convolution;
mod elementwise;
mod gather;
mod generation;
mod layout;
mod matmul;
mod normalization;
mod pooling;
mod quantize;
mod reduction;
mod scalar;
mod slicing;

use super::table::Entry;

/// The tables of all topics.
pub(super) static TABLES: &[&[Entry]] = &[
    activation::TABLE,
    convolution::TABLE,
    elementwise::TABLE,
    gather::TABLE,
    generation::TABLE,
    layout::TABLE,
    matmul::TABLE,
    normalization::TABLE,
    pooling::TABLE,
    quantize::TABLE,
    reduction::TABLE,
    slicing::TABLE,
];
