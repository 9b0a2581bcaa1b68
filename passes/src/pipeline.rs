//! The pipeline: one list of passes in order, each a function from module to module, each by name.

use std::time::Instant;

use tcc_ir::module::Module;

use crate::context::Context;
use crate::error::Error;
use crate::rules;
use crate::{
    common_subexpressions, constant_folding, dead_code, egraph, inline, kvcache, memory_order, quantize,
};

/// A pass.
#[derive(Clone, Copy)]
pub struct Pass {
    /// Name for `--passes` and logs.
    pub name: &'static str,
    /// One line of documentation.
    pub doc: &'static str,
    /// What it does.
    pub run: fn(&mut Module, &Context) -> Result<(), Error>,
}

/// Every pass, by name.
pub const PASSES: &[Pass] = &[
    Pass { name: "inline", doc: "Replaces calls by the bodies of their callees.", run: inline::run },
    Pass {
        name: "fold",
        doc: "Evaluates operations on compile-time tensors; weights stay as narrow as they are.",
        run: constant_folding::run,
    },
    Pass {
        name: "fold-weights",
        doc: "As `fold`, and widens weights that no kernel takes as narrow as they are.",
        run: constant_folding::run_on_all,
    },
    Pass {
        name: "narrow-floats",
        doc: "Lets contractions read f16 and bf16 weights as they are.",
        run: quantize::narrow_floats::run,
    },
    Pass {
        name: "block-weights",
        doc: "Makes products with block-quantized weights read them packed.",
        run: quantize::block_weights::run,
    },
    Pass {
        name: "neighbours",
        doc: "Brings products of one value with packed weights together.",
        run: quantize::neighbours::run,
    },
    Pass {
        name: "memory-order",
        doc: "Reorders operations where that takes less memory.",
        run: memory_order::run,
    },
    Pass { name: "dce", doc: "Removes operations that nothing needs.", run: dead_code::run },
    Pass { name: "cse", doc: "Merges equal operations.", run: common_subexpressions::run },
    Pass {
        name: "simplify",
        doc: "E-graph: algebra, affine folding, composites, integer lowering.",
        run: simplify,
    },
    Pass { name: "layout", doc: "E-graph: data layouts.", run: layout },
    Pass { name: "fuse", doc: "E-graph: fusion of elementwise operations.", run: fuse },
    Pass { name: "egraph", doc: "E-graph: all of `simplify`, `layout` and `fuse` in one.", run: all },
    Pass {
        name: "kvcache",
        doc: "Chooses format and layout of key-value caches and how attention splits the context.",
        run: kvcache::run,
    },
];

/// The passes that `optimize` runs, in order.
pub const DEFAULT: &[&str] = &[
    "inline",
    "dce",
    "narrow-floats",
    "fold",
    "cse",
    "egraph",
    "block-weights",
    "fold-weights",
    "cse",
    "dce",
    "memory-order",
    "neighbours",
    "kvcache",
];

/// Optimizes a module: the default pipeline.
pub fn optimize(module: &mut Module, context: &Context) -> Result<(), Error> {
    run_passes(module, DEFAULT, context)
}

/// Runs passes by name, in the order given.
pub fn run_passes(module: &mut Module, names: &[&str], context: &Context) -> Result<(), Error> {
    let passes = names.iter().map(|name| find(name)).collect::<Result<Vec<&Pass>, Error>>()?;
    for pass in passes {
        let start = Instant::now();
        if let Some(observer) = &context.observer {
            observer(pass.name, false, module);
        }
        (pass.run)(module, context)?;
        log::info!("pass {}: {:.1} ms", pass.name, start.elapsed().as_secs_f64() * 1e3);
        if let Some(observer) = &context.observer {
            observer(pass.name, true, module);
        }
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static Pass, Error> {
    PASSES.iter().find(|pass| pass.name == name).ok_or_else(|| Error::UnknownPass {
        name: name.to_string(),
        known: PASSES.iter().map(|pass| pass.name).collect::<Vec<_>>().join(", "),
    })
}

fn with_plan(
    module: &mut Module,
    context: &Context,
    phases: &[&[rules::Topic]],
    fuse: bool,
) -> Result<(), Error> {
    let sets: Vec<Vec<egraph::rule::Rule>> =
        phases.iter().map(|topics| topics.iter().flat_map(|topic| (topic.rules)()).collect()).collect();
    let plan = egraph::Plan { phases: sets.iter().map(|rules| rules.iter().collect()).collect(), fuse };
    for function in module.functions.values_mut() {
        egraph::optimize(function, &plan, context)?;
    }
    Ok(())
}

fn simplify(module: &mut Module, context: &Context) -> Result<(), Error> {
    with_plan(module, context, &[rules::SIMPLIFY], false)
}

fn layout(module: &mut Module, context: &Context) -> Result<(), Error> {
    with_plan(module, context, &[rules::LAYOUT], false)
}

fn fuse(module: &mut Module, context: &Context) -> Result<(), Error> {
    with_plan(module, context, &[], true)
}

fn all(module: &mut Module, context: &Context) -> Result<(), Error> {
    with_plan(module, context, &[rules::SIMPLIFY, rules::LAYOUT], true)
}
