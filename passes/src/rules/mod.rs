//! The rewrite rules, one topic a file.

pub mod algebra;
pub mod attention;
pub mod fold_affine;
pub mod gelu;
pub mod integers;
pub mod layout;
pub mod mean;
pub mod merge;
pub mod normalization;
pub mod permutation;
pub mod qdq;
pub mod reshape;
pub mod rope;
pub mod silu;
pub mod softmax;
pub mod transpose;

#[cfg(test)]
pub(crate) mod testing;

use crate::egraph::rule::Rule;

/// A file of rules.
#[derive(Clone, Copy)]
pub struct Topic {
    /// Name of the file.
    pub name: &'static str,
    /// Its rules.
    pub rules: fn() -> Vec<Rule>,
}

/// Rules that hold for every target: algebra, composites, integer lowering.
pub const SIMPLIFY: &[Topic] = &[
    Topic { name: "algebra", rules: algebra::rules },
    Topic { name: "transpose", rules: transpose::rules },
    Topic { name: "reshape", rules: reshape::rules },
    Topic { name: "fold_affine", rules: fold_affine::rules },
    Topic { name: "qdq", rules: qdq::rules },
    Topic { name: "integers", rules: integers::rules },
    Topic { name: "softmax", rules: softmax::rules },
    Topic { name: "normalization", rules: normalization::rules },
    Topic { name: "silu", rules: silu::rules },
    Topic { name: "gelu", rules: gelu::rules },
    Topic { name: "rope", rules: rope::rules },
    Topic { name: "attention", rules: attention::rules },
    Topic { name: "merge", rules: merge::rules },
];

/// Rules that move data layouts.
pub const LAYOUT: &[Topic] = &[
    Topic { name: "layout", rules: layout::rules },
    Topic { name: "transpose", rules: transpose::rules },
    Topic { name: "reshape", rules: reshape::rules },
];

#[cfg(test)]
mod fusion_tests;
