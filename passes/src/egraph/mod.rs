//! The e-graph: where fusion, layout, integer lowering and algebra meet as alternatives, and cost decides.
//!
//! A region becomes an e-graph ([`encode`]), rules add alternatives ([`rule`], [`saturate`]), fused versions of the best
//! selection so far join them ([`fuse`]), and the cheapest selection ([`extract`]) becomes the region again ([`decode`]).
//! Regions of control flow are optimized as functions of their own, inner ones first.

pub mod analysis;
pub mod decode;
pub mod encode;
pub mod extract;
pub mod fuse;
pub mod language;
pub mod price;
pub mod rule;
pub mod saturate;
pub mod term;

use std::collections::HashMap;
use std::sync::Arc;

use egg::{Id, Language};
use tcc_ir::data::Data;
use tcc_ir::module::{Function, Region, Value};
use tcc_ir::operator::Operator;

use crate::context::Context;
use crate::cost::Sizes;
use crate::error::Error;
use decode::Locations;
use language::Node;
use rule::Rule;

/// What one run over the e-graph does.
pub struct Plan<'a> {
    /// Rule sets, saturated one after the other in the same e-graph.
    pub phases: Vec<Vec<&'a Rule>>,
    /// Whether fused alternatives are added before the last extraction.
    pub fuse: bool,
}

/// Optimizes every region of a function.
pub fn optimize(function: &mut Function, plan: &Plan, context: &Context) -> Result<(), Error> {
    let body = std::mem::take(&mut function.body);
    let body = optimize_region(function, body, &HashMap::new(), plan, context)?;
    function.body = body;
    Ok(())
}

fn optimize_region(
    function: &mut Function,
    mut region: Region,
    outer: &HashMap<Value, Data>,
    plan: &Plan,
    context: &Context,
) -> Result<Region, Error> {
    let mut constants = outer.clone();
    for operation in &region.operations {
        if let (Operator::Constant { data }, [value]) = (&operation.operator, &operation.results[..]) {
            constants.insert(*value, data.clone());
        }
    }
    for operation in &mut region.operations {
        for nested in &mut operation.regions {
            *nested = optimize_region(function, std::mem::take(nested), &constants, plan, context)?;
        }
    }
    let mut encoding = encode::encode(function, &region, outer);
    let roots = encoding.roots();
    for rules in &plan.phases {
        let report = saturate::saturate(&mut encoding.graph, rules, &context.limits);
        log::debug!("e-graph of {}: {report:?}", function.name);
    }
    let no_selection = || Error::internal("the e-graph has a needed class without an acyclic node");
    let sizes = Sizes::of(function);
    let graph = &encoding.graph;
    let machine = &context.machine;
    let cost = |class: Id, node: &Node| match plan.fuse {
        true => price::price_before_fusion(graph, machine, &sizes, class, node),
        false => price::price(graph, machine, &sizes, class, node),
    };
    let mut selection = extract::extract(graph, &roots, &cost).ok_or_else(no_selection)?;
    let mut fused = Vec::new();
    if plan.fuse {
        let alternatives = fuse::alternatives(&encoding.graph, &selection, &roots);
        fused = add_fused(&mut encoding.graph, alternatives);
        let graph = &encoding.graph;
        let cost = |class: Id, node: &Node| price::price(graph, machine, &sizes, class, node);
        selection = extract::extract(graph, &roots, &cost).ok_or_else(no_selection)?;
    }
    let mut locations = Locations::new(&encoding);
    for (mut node, absorbed) in fused {
        node.children_mut().iter_mut().for_each(|child| *child = encoding.graph.find(*child));
        locations.fused(&encoding.graph, &node, &absorbed);
    }
    let mut region = decode::decode(function, &region.params, encoding, &selection, &locations)?;
    decode::name_by_users(&mut region);
    Ok(region)
}

/// Adds fused operations to their classes; returns the nodes with the classes that each computes.
fn add_fused(graph: &mut analysis::Graph, alternatives: Vec<fuse::Fused>) -> Vec<(Node, Vec<Id>)> {
    let mut added = Vec::new();
    for fuse::Fused { class, operator, operands, absorbed } in alternatives {
        let kind = operator.kind();
        let attributes = graph.add(Node::Attributes(Arc::new(operator)));
        let node = Node::apply(kind, attributes, operands);
        if let Some(id) = term::add_checked(graph, node.clone()) {
            term::unite(graph, class, id);
            added.push((node, absorbed));
        }
    }
    graph.rebuild();
    added
}
