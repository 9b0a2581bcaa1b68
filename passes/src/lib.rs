//! Rewrites, fusion, cost model, memory plan and the pipeline from tensor IR to a program of kernels.
//!
//! | module | holds |
//! |---|---|
//! | [`pipeline`] | the passes in order, each by name |
//! | [`inline`], [`constant_folding`], [`dead_code`], [`common_subexpressions`] | passes that need no alternatives |
//! | [`egraph`], [`rules`] | the e-graph and what is rewritten in it |
//! | [`quantize`] | weights that stay packed in memory |
//! | [`kvcache`] | format and layout of key-value caches |
//! | [`cost`] | machine models and the cost of each operator |

pub mod common_subexpressions;
pub mod constant_folding;
pub mod context;
pub mod cost;
pub mod dead_code;
pub mod egraph;
pub mod error;
pub mod inline;
pub mod kvcache;
pub mod memory_order;
pub mod pipeline;
pub mod program;
pub mod quantize;
pub mod rules;

pub use context::Context;
pub use error::Error;
pub use pipeline::{optimize, run_passes};
