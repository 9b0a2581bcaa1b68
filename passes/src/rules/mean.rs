//! Finding means in the e-graph: sums over axes divided by the number of elements, however that is written.

use egg::Id;
use tcc_ir::dim::Dim;
use tcc_ir::operator::{Operator, OperatorKind};
use tcc_ir::scalar::{Function, ScalarOp};
use tcc_ir::words::ReduceKind;

use crate::egraph::analysis::{Graph, Lookup};
use crate::egraph::language::Node;
use crate::egraph::rule::is_number;

/// A mean of `x` over `axes`, the axes kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mean {
    /// What is averaged.
    pub x: Id,
    /// Over which axes, ascending.
    pub axes: Vec<usize>,
}

/// The means that a class holds.
pub fn means(graph: &Graph, class: Id) -> Vec<Mean> {
    let mut found = Vec::new();
    for node in &graph[class].nodes {
        let Node::Scalar(ScalarOp::Call(function), children) = node else { continue };
        if !matches!(function, Function::Mul | Function::Div) || children.len() != 2 {
            continue;
        }
        for (mean, count) in sums(graph, children[0]) {
            let divides = match function {
                Function::Div => is_count(graph, children[1], &count),
                _ => is_inverse_count(graph, children[1], &count),
            };
            if divides && !found.contains(&mean) {
                found.push(mean);
            }
        }
    }
    // A mean without its axes that a reshape gives back.
    for node in &graph[class].nodes {
        if let Node::Apply(OperatorKind::Reshape, children) = node {
            let (Some(outer), Some(inner)) = (graph.tensor(class), graph.tensor(children[1])) else {
                continue;
            };
            if inner.rank() >= outer.rank() {
                continue;
            }
            for mean in means_without_axes(graph, children[1]) {
                let Some(x) = graph.tensor(mean.x) else { continue };
                let kept = x.shape.iter().enumerate().map(|(axis, dim)| match mean.axes.contains(&axis) {
                    true => Dim::Const(1),
                    false => dim.clone(),
                });
                if outer.shape.iter().cloned().eq(kept) && !found.contains(&mean) {
                    found.push(mean);
                }
            }
        }
    }
    found
}

fn means_without_axes(graph: &Graph, class: Id) -> Vec<Mean> {
    let mut found = Vec::new();
    for node in &graph[class].nodes {
        let Node::Scalar(ScalarOp::Call(function), children) = node else { continue };
        if !matches!(function, Function::Mul | Function::Div) || children.len() != 2 {
            continue;
        }
        for (mean, count) in reductions(graph, children[0], false) {
            let divides = match function {
                Function::Div => is_count(graph, children[1], &count),
                _ => is_inverse_count(graph, children[1], &count),
            };
            if divides {
                found.push(mean);
            }
        }
    }
    found
}

/// Sums with kept axes, each with the number of elements summed.
fn sums(graph: &Graph, class: Id) -> Vec<(Mean, Dim)> {
    reductions(graph, class, true)
}

fn reductions(graph: &Graph, class: Id, wanted: bool) -> Vec<(Mean, Dim)> {
    let mut found = Vec::new();
    for node in &graph[class].nodes {
        if let Node::Apply(OperatorKind::Reduce, children) = node
            && let Some(Operator::Reduce { kind: ReduceKind::Sum, axes, keep, prologue, epilogue }) =
                graph.operator(children[0])
            && *keep == wanted
            && prologue.is_identity()
            && epilogue.is_identity()
            && let Some(x) = graph.tensor(children[1])
        {
            let mut axes = axes.clone();
            axes.sort_unstable();
            let count = Dim::product(axes.iter().map(|axis| &x.shape[*axis]));
            found.push((Mean { x: graph.find(children[1]), axes }, count));
        }
    }
    found
}

/// True where every element of a class is `count`, as a constant or as a dimension cast to a number.
fn is_count(graph: &Graph, class: Id, count: &Dim) -> bool {
    if let (Some(splat), Some(count)) =
        (graph.values(class).and_then(|values| values.splat), count.as_const())
    {
        return is_number(splat, count as f64);
    }
    let mut at = class;
    // Casts and reshapes between the dimension and its use.
    for _ in 0..6 {
        let mut next = None;
        for node in &graph[at].nodes {
            match node {
                Node::Apply(OperatorKind::Dims, children) => {
                    return matches!(graph.operator(children[0]), Some(Operator::Dims { dims }) if dims[..] == [count.clone()]);
                }
                Node::Scalar(ScalarOp::Cast(_), children) => next = Some(children[0]),
                Node::Apply(OperatorKind::Reshape | OperatorKind::Broadcast, children) => {
                    next = Some(children[1])
                }
                _ => {}
            }
        }
        match next {
            Some(id) => at = id,
            None => return false,
        }
    }
    false
}

fn is_inverse_count(graph: &Graph, class: Id, count: &Dim) -> bool {
    if let (Some(splat), Some(count)) =
        (graph.values(class).and_then(|values| values.splat), count.as_const())
        && count > 0
    {
        return is_number(splat, 1.0 / count as f64);
    }
    graph[class].nodes.iter().any(|node| match node {
        Node::Scalar(ScalarOp::Call(Function::Reciprocal), children) => is_count(graph, children[0], count),
        _ => false,
    })
}
