//! Lowerings of ONNX operators, one topic a file.

mod activation;
mod attention;
mod control;
mod convolution;
mod elementwise;
mod gather;
mod generation;
mod host;
mod layout;
mod loss;
mod matmul;
mod microsoft;
mod microsoft_cache;
mod microsoft_quantized;
mod normalization;
mod pooling;
mod qonnx;
mod quantize;
mod recurrent;
mod reduction;
mod region;
mod resize;
mod scalar;
mod sequence;
mod signal;
mod slicing;
mod training;

use super::table::Entry;

/// The tables of all topics.
pub(super) static TABLES: &[&[Entry]] = &[
    activation::TABLE,
    attention::TABLE,
    control::TABLE,
    convolution::TABLE,
    elementwise::TABLE,
    gather::TABLE,
    generation::TABLE,
    host::TABLE,
    layout::TABLE,
    loss::TABLE,
    matmul::TABLE,
    microsoft::TABLE,
    microsoft_cache::TABLE,
    microsoft_quantized::TABLE,
    normalization::TABLE,
    pooling::TABLE,
    qonnx::TABLE,
    quantize::TABLE,
    recurrent::TABLE,
    reduction::TABLE,
    region::TABLE,
    resize::TABLE,
    sequence::TABLE,
    signal::TABLE,
    slicing::TABLE,
    training::TABLE,
];
