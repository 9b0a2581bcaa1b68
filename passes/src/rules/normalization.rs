//! Layer normalization and root-mean-square normalization written out.

use egg::Id;
use tcc_ir::attribute::Real;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Function, ScalarExpr, ScalarOp};

use super::mean::means;
use crate::egraph::analysis::{Graph, Lookup};
use crate::egraph::language::{Head, Node};
use crate::egraph::rule::Rule;
use crate::egraph::term::Term;

/// The rules of this topic.
pub fn rules() -> Vec<Rule> {
    let heads = [Function::Div, Function::Mul].map(|function| Head::Scalar(ScalarOp::Call(function)));
    vec![Rule::on_heads(
        "normalize",
        "(div ?d (sqrt (add (mean (mul ?d ?d)) ?epsilon))) => (normalize ?a ?x), ?d is ?x or ?x minus its mean",
        heads.to_vec(),
        normalize,
    )]
}

fn calls(graph: &Graph, class: Id, wanted: Function) -> impl Iterator<Item = &[Id]> {
    graph[class].nodes.iter().filter_map(move |node| match node {
        Node::Scalar(ScalarOp::Call(function), children) if *function == wanted => Some(&children[..]),
        _ => None,
    })
}

fn normalize(graph: &Graph, _class: Id, node: &Node) -> Vec<Term> {
    let Node::Scalar(ScalarOp::Call(function), children) = node else { return Vec::new() };
    let mut found = Vec::new();
    let mut consider = |deviation: Id, root: Id| {
        for term in normalized(graph, graph.find(deviation), root) {
            if found.is_empty() {
                found.push(term);
            }
        }
    };
    match function {
        Function::Div => consider(children[0], children[1]),
        _ => {
            for (deviation, factor) in [(children[0], children[1]), (children[1], children[0])] {
                for inverse in calls(graph, factor, Function::Reciprocal) {
                    consider(deviation, inverse[0]);
                }
            }
        }
    }
    found
}

/// `deviation / root` as a normalization, where `root` is the square root of the mean square of `deviation` and epsilon.
fn normalized(graph: &Graph, deviation: Id, root: Id) -> Vec<Term> {
    let mut found = Vec::new();
    for square_root in calls(graph, root, Function::Sqrt) {
        for sum in calls(graph, square_root[0], Function::Add) {
            for (variance, epsilon) in [(sum[0], sum[1]), (sum[1], sum[0])] {
                let Some(epsilon) = graph.values(epsilon).and_then(|values| values.splat) else { continue };
                for mean in means(graph, variance) {
                    let squares = calls(graph, mean.x, Function::Mul)
                        .any(|pair| graph.find(pair[0]) == deviation && graph.find(pair[1]) == deviation);
                    if !squares {
                        continue;
                    }
                    let (x, centered) = match centered(graph, deviation, &mean.axes) {
                        Some(x) => (x, true),
                        None => (deviation, false),
                    };
                    let operator = Operator::Normalize {
                        axes: mean.axes.clone(),
                        epsilon: Real::from(epsilon.as_f64()),
                        centered,
                        epilogue: ScalarExpr::identity(),
                    };
                    found.push(Term::apply(operator, [Term::Class(x)]));
                }
            }
        }
    }
    found
}

/// The tensor that `deviation` is without its mean over `axes`.
fn centered(graph: &Graph, deviation: Id, axes: &[usize]) -> Option<Id> {
    calls(graph, deviation, Function::Sub).find_map(|pair| {
        let x = graph.find(pair[0]);
        means(graph, pair[1]).iter().any(|mean| mean.x == x && mean.axes == axes).then_some(x)
    })
}

#[cfg(test)]
mod tests {
    use crate::rules::{SIMPLIFY, testing::*};
    use tcc_ir::builder::Builder;
    use tcc_ir::module::Value;
    use tcc_ir::scalar::Function as Scalar;
    use tcc_ir::words::ReduceKind;

    fn mean(b: &mut Builder, x: Value, axis: usize, count: f64) -> Value {
        let sum = b.reduce(ReduceKind::Sum, x, vec![axis], true).unwrap();
        b.call_with(Scalar::Div, sum, count).unwrap()
    }

    fn layer_norm(shape: &[i64], axis: usize, count: f64, power: bool) -> tcc_ir::module::Function {
        function(|b| {
            let x = input(b, "x", shape);
            let average = mean(b, x, axis, count);
            let deviation = b.call(Scalar::Sub, &[x, average]).unwrap();
            let squares = match power {
                true => b.call_with(Scalar::Pow, deviation, 2.0).unwrap(),
                false => b.call(Scalar::Mul, &[deviation, deviation]).unwrap(),
            };
            let variance = mean(b, squares, axis, count);
            let variance = b.call_with(Scalar::Add, variance, 1e-5).unwrap();
            let root = b.call(Scalar::Sqrt, &[variance]).unwrap();
            vec![b.call(Scalar::Div, &[deviation, root]).unwrap()]
        })
    }

    #[test]
    fn layer_norm_in_its_variants() {
        for (shape, axis) in [(vec![3, 7], 1), (vec![2, 5, 4], 1), (vec![1, 1, 8], 2)] {
            for power in [false, true] {
                let before = layer_norm(&shape, axis, shape[axis] as f64, power);
                let after = rewritten(&before, SIMPLIFY, false);
                assert_eq!(operators(&after), ["normalize"]);
                assert_equivalent(&before, &after);
            }
        }
    }

    #[test]
    fn division_by_another_count_is_no_mean() {
        let before = layer_norm(&[3, 7], 1, 6.0, false);
        let after = rewritten(&before, SIMPLIFY, false);
        assert!(!operators(&after).contains(&"normalize"));
        assert_equivalent(&before, &after);
    }

    #[test]
    fn rms_norm() {
        let before = function(|b| {
            let x = input(b, "x", &[2, 3, 16]);
            let squares = b.call_with(Scalar::Pow, x, 2.0).unwrap();
            let average = mean(b, squares, 2, 16.0);
            let average = b.call_with(Scalar::Add, average, 1e-6).unwrap();
            let root = b.call(Scalar::Sqrt, &[average]).unwrap();
            let inverse = b.call(Scalar::Reciprocal, &[root]).unwrap();
            let gain = weights(b, 3, &[16]);
            let y = b.call(Scalar::Mul, &[x, inverse]).unwrap();
            vec![b.call(Scalar::Mul, &[y, gain]).unwrap()]
        });
        let after = rewritten(&before, SIMPLIFY, true);
        assert_eq!(operators(&after), ["normalize"]);
        assert_equivalent(&before, &after);
    }
}
