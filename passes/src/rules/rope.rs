//! Rotary position embedding written out with `rotate_half`: `x * cos + concat(-x2, x1) * sin`.
//!
//! Exporters give `cos` and `sin` over the whole last axis, the second half equal to the first; the rule needs to see
//! that: a concatenation of a tensor with itself, possibly behind elementwise functions and views.

use egg::Id;
use tcc_ir::dim::Dim;
use tcc_ir::operator::{Operator, OperatorKind};
use tcc_ir::scalar::Function;

use crate::egraph::analysis::{Graph, Lookup};
use crate::egraph::language::{Head, Node};
use crate::egraph::rule::{Match, Rule};
use crate::egraph::term::Term;

/// The rules of this topic.
pub fn rules() -> Vec<Rule> {
    let unary = Function::ALL.iter().filter(|function| function.arity() == 1);
    let calls: Vec<Head> =
        unary.map(|function| Head::Scalar(tcc_ir::scalar::ScalarOp::Call(*function))).collect();
    vec![
        // f(concat(x, x)) == concat(f(x), f(x)): the two halves stay visible
        Rule::on_heads("unary-doubled", "(f (concat ?c ?x ?x)) => (concat ?c (f ?x) (f ?x))", calls, through_unary),
        Rule::on_nodes(
            "view-doubled",
            "(reshape ?a (concat ?c ?x ?x)) => (concat ?d (reshape ?b ?x) (reshape ?b ?x)), last axis kept",
            &[OperatorKind::Reshape],
            through_view,
        ),
        // x * concat(c, c) + concat(-x2, x1) * concat(s, s) == rope(x, c, s)
        Rule::new(
            "rope",
            "(add (mul ?x (concat ?c ?cos ?cos)) (mul (concat ?d (neg (slice ?high ?x)) (slice ?low ?x)) (concat ?e ?sin ?sin)))",
            "(rope ?r ?x ?cos ?sin)",
        )
        .when(|m| is_rotation(m).is_some())
        .attributes("?r", |_| Some(Operator::Rope { interleaved: false })),
    ]
}

/// Operands of doubled concatenations along the last axis in a class.
fn doubled(graph: &Graph, class: Id) -> Vec<Id> {
    let halves = graph[class].nodes.iter().filter_map(|node| match node {
        Node::Apply(OperatorKind::Concat, children)
            if children.len() == 3 && graph.find(children[1]) == graph.find(children[2]) =>
        {
            let rank = graph.tensor(children[1])?.rank();
            match graph.operator(children[0])? {
                Operator::Concat { axis } if axis + 1 == rank => Some(children[1]),
                _ => None,
            }
        }
        _ => None,
    });
    halves.collect()
}

fn double(rank: usize, half: Term) -> Term {
    Term::apply(Operator::Concat { axis: rank - 1 }, [half.clone(), half])
}

fn through_unary(graph: &Graph, class: Id, node: &Node) -> Vec<Term> {
    let Node::Scalar(op, children) = node else { return Vec::new() };
    let Some(rank) = graph.tensor(class).map(|ty| ty.rank()) else { return Vec::new() };
    let halves = doubled(graph, children[0]).into_iter();
    halves.map(|half| double(rank, Term::Scalar(*op, vec![Term::Class(half)]))).collect()
}

fn through_view(graph: &Graph, class: Id, node: &Node) -> Vec<Term> {
    let Node::Apply(_, children) = node else { return Vec::new() };
    let (Some(result), Some(x)) = (graph.tensor(class), graph.tensor(children[1])) else { return Vec::new() };
    if result.rank() == 0 || result.shape.last() != x.shape.last() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for half in doubled(graph, children[1]) {
        let Some(extent) = graph.tensor(half).and_then(|ty| ty.shape.last()) else { continue };
        let mut shape = result.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = extent.clone();
        }
        found.push(double(result.rank(), Term::reshape(graph, shape, half)));
    }
    found
}

/// Checks that the slices are the halves of `x` along the last axis and that every concatenation is along that axis.
fn is_rotation(m: &Match) -> Option<()> {
    let shape = m.shape("?x")?;
    let rank = shape.len();
    let half = shape.last()?.exact_quotient(&Dim::Const(2))?;
    for (variable, operand) in [("?c", "?cos"), ("?e", "?sin")] {
        let own = m.shape(operand)?;
        let Operator::Concat { axis } = m.operator(variable)? else { return None };
        if *axis + 1 != own.len() || *own.last()? != half || own.len() > rank {
            return None;
        }
    }
    let Operator::Concat { axis } = m.operator("?d")? else { return None };
    let is_half = |variable: &str, start: Dim| match m.operator(variable) {
        Some(Operator::Slice { starts, sizes, steps }) => {
            starts[..rank - 1].iter().all(|start| start.is(0))
                && starts[rank - 1] == start
                && sizes[..rank - 1] == shape[..rank - 1]
                && sizes[rank - 1] == half
                && steps.iter().all(|step| *step == 1)
        }
        _ => false,
    };
    (*axis + 1 == rank && is_half("?low", Dim::Const(0)) && is_half("?high", half.clone())).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{SIMPLIFY, testing::*};
    use tcc_ir::builder::Builder;
    use tcc_ir::module::{Function as Body, Value};

    fn half(b: &mut Builder, x: Value, shape: &[i64], start: i64) -> Value {
        let mut sizes: Vec<Dim> = shape.iter().map(|extent| (*extent).into()).collect();
        let mut starts = vec![Dim::Const(0); shape.len()];
        let last = shape.len() - 1;
        sizes[last] = (shape[last] / 2).into();
        starts[last] = start.into();
        b.op1(Operator::Slice { starts, sizes, steps: vec![1; shape.len()] }, &[x]).unwrap()
    }

    /// Rotates `x` of `[heads, tokens, d]` by angles over half of the last axis; `swapped` takes the halves the wrong way.
    fn rotated(shape: [i64; 3], swapped: bool) -> Body {
        function(|b| {
            let x = input(b, "x", &shape);
            let angles = input(b, "angles", &[shape[1], shape[2] / 2]);
            let both = b.op1(Operator::Concat { axis: 1 }, &[angles, angles]).unwrap();
            let (cos, sin) =
                (b.call(Function::Cos, &[both]).unwrap(), b.call(Function::Sin, &[both]).unwrap());
            let view = vec![1.into(), shape[1].into(), shape[2].into()];
            let (cos, sin) = (b.reshape(cos, view.clone()).unwrap(), b.reshape(sin, view).unwrap());
            let (low, high) = (half(b, x, &shape, 0), half(b, x, &shape, shape[2] / 2));
            let (low, high) = if swapped { (high, low) } else { (low, high) };
            let negative = b.call(Function::Neg, &[high]).unwrap();
            let turned = b.op1(Operator::Concat { axis: 2 }, &[negative, low]).unwrap();
            let straight = b.call(Function::Mul, &[x, cos]).unwrap();
            let across = b.call(Function::Mul, &[turned, sin]).unwrap();
            vec![b.call(Function::Add, &[straight, across]).unwrap()]
        })
    }

    #[test]
    fn rotate_half_is_rope() {
        for shape in [[3, 5, 8], [1, 1, 2], [2, 0, 4]] {
            let before = rotated(shape, false);
            let after = rewritten(&before, SIMPLIFY, true);
            assert!(operators(&after).contains(&"rope"), "{:?}", operators(&after));
            assert!(!operators(&after).contains(&"concat"), "{:?}", operators(&after));
            assert_equivalent(&before, &after);
        }
    }

    #[test]
    fn halves_in_another_order_are_no_rope() {
        let before = rotated([3, 5, 8], true);
        let after = rewritten(&before, SIMPLIFY, true);
        assert!(!operators(&after).contains(&"rope"));
        assert_equivalent(&before, &after);
    }
}
