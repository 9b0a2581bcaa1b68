//! Reshapes, broadcasts and slices that merge, cancel or do nothing.

use egg::Id;
use tcc_ir::dim::Dim;
use tcc_ir::operator::{Operator, OperatorKind};

use super::transpose::scalar_heads;
use crate::egraph::analysis::{Graph, Lookup};
use crate::egraph::language::Node;
use crate::egraph::rule::{Match, Rule};
use crate::egraph::term::Term;

fn same_type(m: &Match) -> bool {
    m.tensor("?x").is_some() && m.tensor("?x") == m.result()
}

/// The rules of this topic.
pub fn rules() -> Vec<Rule> {
    vec![
        // reshape to the same shape == x
        Rule::new("reshape-none", "(reshape ?a ?x)", "?x").when(same_type),
        // reshape(a, reshape(b, x)) == reshape(a, x)
        Rule::new("reshape-reshape", "(reshape ?a (reshape ?b ?x))", "(reshape ?a ?x)").also_on_constants(),
        // broadcast to the same shape == x
        Rule::new("broadcast-none", "(broadcast ?a ?x)", "?x").when(same_type),
        // broadcast(a, broadcast(b, x)) == broadcast(a, x)
        Rule::new("broadcast-broadcast", "(broadcast ?a (broadcast ?b ?x))", "(broadcast ?a ?x)"),
        // a broadcast that only adds leading ones is a reshape
        Rule::new("broadcast-leading-ones", "(broadcast ?a ?x)", "(reshape ?shape ?x)")
            .when(|m| {
                m.result().zip(m.shape("?x")).is_some_and(|(result, shape)| {
                    let added = result.rank().saturating_sub(shape.len());
                    added > 0
                        && result.shape[added..] == *shape
                        && result.shape[..added].iter().all(|dim| dim.is(1))
                })
            })
            .attributes("?shape", |m| Some(Operator::Reshape { shape: m.result()?.shape.clone() })),
        // slice of everything == x
        Rule::new("slice-none", "(slice ?a ?x)", "?x").when(|m| {
            same_type(m)
                && matches!(m.operator("?a"), Some(Operator::Slice { starts, steps, .. })
                    if starts.iter().all(|start| start.is(0)) && steps.iter().all(|step| *step == 1))
        }),
        // slice(a, slice(b, x)) == slice(c, x)
        Rule::new("slice-slice", "(slice ?a (slice ?b ?x))", "(slice ?c ?x)").attributes("?c", |m| {
            let (
                Operator::Slice { starts, sizes, steps },
                Operator::Slice { starts: inner, steps: strides, .. },
            ) = (m.operator("?a")?, m.operator("?b")?)
            else {
                return None;
            };
            let starts = starts
                .iter()
                .zip(inner)
                .zip(strides)
                .map(|((outer, inner), stride)| inner.clone() + outer.clone() * Dim::Const(*stride))
                .collect();
            let steps = steps.iter().zip(strides).map(|(a, b)| a.checked_mul(*b)).collect::<Option<_>>()?;
            Some(Operator::Slice { starts, sizes: sizes.clone(), steps })
        }),
        // concat of one tensor == x
        Rule::new("concat-one", "(concat ?a ?x)", "?x"),
        Rule::on_heads(
            "map-reshape",
            "(f (reshape ?a ?x) (reshape ?a ?y)) => (reshape ?a (f ?x ?y)), single elements aside",
            scalar_heads(),
            through_map,
        ),
        // pad by nothing == x
        Rule::new("pad-none", "(pad ?a ?x ?v)", "?x").when(|m| {
            matches!(m.operator("?a"), Some(Operator::Pad { low, high, .. })
                if low.iter().chain(high).all(|amount| amount.is(0)))
        }),
    ]
}

/// Where every operand of the full shape is a reshape from one other shape, the map may come first.
fn through_map(graph: &Graph, class: Id, node: &Node) -> Vec<Term> {
    let Node::Scalar(op, children) = node else { return Vec::new() };
    let Some(result) = graph.tensor(class) else { return Vec::new() };
    let full = |id: Id| graph.tensor(id).is_some_and(|ty| ty.shape == result.shape);
    let single = |id: Id| graph.tensor(id).is_some_and(|ty| ty.shape.is_empty());
    let Some(main) = children.iter().copied().find(|id| full(*id) && !single(*id)) else { return Vec::new() };
    let mut found = Vec::new();
    for (source, _) in reshaped(graph, main) {
        let Some(shape) = graph.tensor(source).map(|ty| ty.shape.clone()) else { continue };
        let operand = |id: Id| {
            if single(id) {
                return Some(Term::Class(id));
            }
            let sources = if full(id) { reshaped(graph, id) } else { Vec::new() };
            sources.into_iter().find(|(_, from)| *from == shape).map(|(source, _)| Term::Class(source))
        };
        if let Some(operands) = children.iter().map(|id| operand(*id)).collect::<Option<Vec<Term>>>() {
            let reshape = Operator::Reshape { shape: result.shape.clone() };
            found.push(Term::apply(reshape, [Term::Scalar(*op, operands)]));
        }
    }
    found
}

/// What the reshapes of a class start from, with its shape.
fn reshaped(graph: &Graph, class: Id) -> Vec<(Id, Vec<Dim>)> {
    let sources = graph[class].nodes.iter().filter_map(|node| match node {
        Node::Apply(OperatorKind::Reshape, children) => {
            Some((children[1], graph.tensor(children[1])?.shape.clone()))
        }
        _ => None,
    });
    sources.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{SIMPLIFY, testing::*};
    use tcc_ir::scalar::Function as Scalar;

    #[test]
    fn views_of_views_merge() {
        let before = function(|b| {
            let x = input(b, "x", &[2, 3, 4]);
            let y = b.reshape(x, vec![6.into(), 4.into()]).unwrap();
            let y = b.call(Scalar::Exp, &[y]).unwrap();
            let y = b.reshape(y, vec![24.into()]).unwrap();
            let slice = |start: i64, size: i64, step: i64| Operator::Slice {
                starts: vec![start.into()],
                sizes: vec![size.into()],
                steps: vec![step],
            };
            let y = b.op1(slice(20, 7, -3), &[y]).unwrap();
            vec![b.op1(slice(1, 3, 2), &[y]).unwrap()]
        });
        let after = rewritten(&before, SIMPLIFY, false);
        assert_eq!(operators(&after), ["map", "reshape", "slice"]);
        assert_equivalent(&before, &after);
    }

    #[test]
    fn a_slice_that_drops_elements_stays() {
        let before = function(|b| {
            let x = input(b, "x", &[5]);
            let slice = Operator::Slice { starts: vec![0.into()], sizes: vec![5.into()], steps: vec![1] };
            let y = b.op1(slice, &[x]).unwrap();
            let slice = Operator::Slice { starts: vec![1.into()], sizes: vec![4.into()], steps: vec![1] };
            vec![b.op1(slice, &[y]).unwrap()]
        });
        let after = rewritten(&before, SIMPLIFY, false);
        assert_eq!(operators(&after), ["slice"]);
        assert_equivalent(&before, &after);
    }

    #[test]
    fn broadcasts_that_maps_do_themselves_go() {
        let before = function(|b| {
            let x = input(b, "x", &[4, 3]);
            let y = input(b, "y", &[3]);
            let y = b.broadcast(y, vec![4.into(), 3.into()]).unwrap();
            vec![b.call(Scalar::Mul, &[x, y]).unwrap()]
        });
        let after = rewritten(&before, SIMPLIFY, false);
        assert_eq!(operators(&after), ["map"]);
        assert_equivalent(&before, &after);
    }
}
