//! The tensor IR of tcc.
//!
//! A module holds functions over values with symbolic shapes; each operation applies one [`operator::Operator`] of a
//! small table into which every frontend decomposes its models. The text form is MLIR's generic syntax.
//!
//! | module | holds |
//! |---|---|
//! | [`operator`], [`words`], [`contraction`], [`cache`] | the operator table and its attribute types |
//! | [`scalar`] | scalar functions of elementwise operators and epilogues |
//! | [`block_format`] | storage of block-quantized weights |
//! | [`dtype`], [`dim`], [`types`], [`data`] | element types, symbolic dimensions, value types, tensor contents |
//! | [`module`], [`builder`], [`infer`] | functions and how to build them |
//! | [`mod@print`], [`parse`], [`verify`] | text form and invariants |

pub mod attribute;
pub mod block_format;
pub mod builder;
pub mod cache;
pub mod contraction;
pub mod convert;
pub mod data;
pub mod dim;
pub mod dtype;
pub mod infer;
pub mod minifloat;
pub mod module;
pub mod operator;
pub mod parse;
pub mod print;
pub mod scalar;
pub mod types;
pub mod verify;
pub mod words;
