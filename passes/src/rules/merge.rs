//! Contractions of one tensor with several weights become one contraction with the weights side by side: query, key and
//! value projections, gate and up projections. The parts are slices of the result; whether that pays, cost decides.

use std::collections::BTreeMap;

use egg::Id;
use tcc_ir::contraction::{ContractionSpec, Role};
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::{Operator, OperatorKind};

use crate::egraph::analysis::{Graph, Lookup};
use crate::egraph::language::{Head, Node};
use crate::egraph::rule::Rule;
use crate::egraph::term::Term;

/// The rules of this topic.
pub fn rules() -> Vec<Rule> {
    vec![Rule::on_graph(
        "merge-contractions",
        "(contract ?a ?x ?v), (contract ?a ?x ?w) => slices of (contract ?a ?x (concat ?c ?v ?w))",
        merge,
    )]
}

/// Contractions that may merge: equal attributes and left operand, weights of equal shape but for one column axis.
type Key = (ContractionSpec, DType, Id, DType, Vec<Dim>);

fn merge(graph: &Graph) -> Vec<(Id, Term)> {
    let mut groups: BTreeMap<Key, Vec<(Id, Id)>> = BTreeMap::new();
    let Some(classes) = graph.classes_for_op(&Head::Apply(OperatorKind::Contract)) else { return Vec::new() };
    let mut classes: Vec<Id> = classes.collect();
    classes.sort_unstable();
    for class in classes {
        for node in &graph[class].nodes {
            if let Some((key, weight)) = mergeable(graph, node) {
                let group = groups.entry(key).or_default();
                if group.iter().all(|(known, _)| *known != class) {
                    group.push((class, weight));
                }
            }
        }
    }
    groups
        .into_iter()
        .filter(|(_, group)| group.len() > 1)
        .flat_map(|(key, group)| merged(graph, &key, &group))
        .collect()
}

/// The column label whose axis the weights are joined along: the only one, last in the result.
fn column(spec: &ContractionSpec) -> Option<u8> {
    let columns: Vec<u8> =
        spec.out.iter().copied().filter(|label| spec.role(*label) == Role::Column).collect();
    match columns[..] {
        [label] if spec.out.last() == Some(&label) => Some(label),
        _ => None,
    }
}

fn mergeable(graph: &Graph, node: &Node) -> Option<(Key, Id)> {
    let Node::Apply(OperatorKind::Contract, children) = node else { return None };
    let Operator::Contract { spec, accumulator, epilogue } = graph.operator(children[0])? else {
        return None;
    };
    let (x, weight) = (graph.find(children[1]), graph.find(*children.get(2)?));
    let values = graph.values(weight)?;
    if children.len() != 3 || !epilogue.is_identity() || !values.constant || graph.values(x)?.constant {
        return None;
    }
    let label = column(spec)?;
    let axis = spec.rhs.iter().position(|known| *known == label)?;
    let ty = graph.tensor(weight)?;
    ty.static_shape()?;
    // What was merged is itself wide; merging it again would not end.
    if graph[weight].nodes.iter().any(|node| matches!(node, Node::Apply(OperatorKind::Concat, _))) {
        return None;
    }
    let mut shape = ty.shape.clone();
    shape[axis] = Dim::Const(0);
    Some(((spec.clone(), *accumulator, x, ty.dtype(), shape), weight))
}

fn merged(graph: &Graph, key: &Key, group: &[(Id, Id)]) -> Vec<(Id, Term)> {
    let (spec, accumulator, x, _, _) = key;
    let Some(label) = column(spec) else { return Vec::new() };
    let Some(axis) = spec.rhs.iter().position(|known| *known == label) else { return Vec::new() };
    let weights =
        Term::apply(Operator::Concat { axis }, group.iter().map(|(_, weight)| Term::Class(*weight)));
    let operator = Operator::Contract {
        spec: spec.clone(),
        accumulator: *accumulator,
        epilogue: tcc_ir::scalar::ScalarExpr::identity(),
    };
    let product = Term::apply(operator, [Term::Class(*x), weights]);
    let mut start = Dim::Const(0);
    let mut found = Vec::new();
    for (class, _) in group {
        let Some(ty) = graph.tensor(*class) else { continue };
        let mut starts = vec![Dim::Const(0); ty.rank()];
        if let (Some(last), Some(extent)) = (starts.last_mut(), ty.shape.last()) {
            *last = start.clone();
            start = start + extent.clone();
        }
        let slice = Operator::Slice { starts, sizes: ty.shape.clone(), steps: vec![1; ty.rank()] };
        found.push((*class, Term::apply(slice, [product.clone()])));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{SIMPLIFY, testing::*};
    use tcc_ir::module::Function;

    fn projections(rows: i64, outputs: [usize; 3], shared: bool) -> Function {
        function(|b| {
            let x = input(b, "x", &[rows, 64]);
            let mut results = Vec::new();
            for (index, columns) in outputs.into_iter().enumerate() {
                let x = if shared { x } else { input(b, &format!("x{index}"), &[rows, 64]) };
                let w = weights(b, index as u64 + 1, &[64, columns]);
                results.push(b.contract("mk,kn->mn".parse().unwrap(), x, w).unwrap());
            }
            results
        })
    }

    /// The e-graph of a function holds a contraction of this width.
    fn has_width(function: &Function, width: i64) -> bool {
        let mut graph = crate::egraph::encode::encode(function, &function.body, &Default::default()).graph;
        let rules = rules();
        crate::egraph::saturate::saturate(&mut graph, &rules.iter().collect::<Vec<_>>(), &Default::default());
        let Some(mut classes) = graph.classes_for_op(&Head::Apply(OperatorKind::Contract)) else {
            return false;
        };
        classes.any(|class| {
            graph.tensor(class).is_some_and(|ty| ty.shape.last().is_some_and(|dim| dim.is(width)))
        })
    }

    #[test]
    fn weights_stand_side_by_side() {
        for outputs in [[32, 32, 32], [7, 1, 16]] {
            let before = projections(1, outputs, true);
            assert!(has_width(&before, outputs.iter().sum::<usize>() as i64));
            assert_equivalent(&before, &rewritten(&before, SIMPLIFY, true));
        }
    }

    #[test]
    fn other_operands_do_not_merge() {
        let before = projections(3, [8, 8, 8], false);
        assert!(!has_width(&before, 24) && !has_width(&before, 16));
    }
}
