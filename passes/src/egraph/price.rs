//! What a node costs on the target.

use egg::{Id, Language};
use tcc_ir::operator::{Operator, OperatorKind};
use tcc_ir::types::Type;

use super::analysis::{Graph, Lookup, scalar_map};
use super::language::Node;
use crate::cost::{self, Machine, Sizes};

/// Work at compile time is nearly free; the rest prefers less of it.
const COMPILE_TIME_SECONDS: f64 = 1e-12;

/// True where a node is evaluated at compile time.
pub fn is_compile_time(graph: &Graph, class: Id, node: &Node) -> bool {
    graph.values(class).is_some_and(|values| values.constant)
        && node.operands().iter().all(|id| graph.values(*id).is_some_and(|values| values.constant))
}

/// Share of the cost of a single scalar function that counts before fusion: most of them end up inside other kernels.
const SCALAR_BEFORE_FUSION: f64 = 0.05;

/// Share of the cost of a composite that counts before fusion, where the scalar functions that it replaces look cheap.
const COMPOSITE_BEFORE_FUSION: f64 = 0.5;

/// As [`price`], for a selection that fusion starts from.
pub fn price_before_fusion(graph: &Graph, machine: &Machine, sizes: &Sizes, class: Id, node: &Node) -> f64 {
    let seconds = price(graph, machine, sizes, class, node);
    match node {
        Node::Scalar(..) => SCALAR_BEFORE_FUSION * seconds,
        Node::Apply(OperatorKind::Normalize | OperatorKind::Softmax | OperatorKind::Rope, _) => {
            COMPOSITE_BEFORE_FUSION * seconds
        }
        _ => seconds,
    }
}

/// Seconds for one node of a class; infinite where its operands do not fit.
pub fn price(graph: &Graph, machine: &Machine, sizes: &Sizes, class: Id, node: &Node) -> f64 {
    if node.is_leaf() || matches!(node, Node::Result(..)) {
        return 0.0;
    }
    if is_compile_time(graph, class, node) {
        return COMPILE_TIME_SECONDS;
    }
    let Some(results) = graph.values(class) else { return f64::INFINITY };
    let operands: Option<Vec<&Type>> =
        node.operands().iter().map(|id| graph.values(*id).and_then(|values| values.types.first())).collect();
    let scalar;
    let operator: Option<&Operator> = match node {
        Node::Apply(_, children) => graph.operator(children[0]),
        Node::Scalar(op, children) => {
            scalar = scalar_map(*op, children.len());
            Some(&scalar)
        }
        _ => None,
    };
    match (operator, operands) {
        (Some(operator), Some(operands)) => {
            cost::seconds(machine, sizes, operator, &operands, &results.types)
        }
        _ => f64::INFINITY,
    }
}
