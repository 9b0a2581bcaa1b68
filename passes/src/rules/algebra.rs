//! Identities of arithmetic on tensors, after broadcasts are out of the way.

use tcc_ir::operator::{Operator, OperatorKind};
use tcc_ir::scalar::{Function, Scalar, ScalarOp};

use crate::egraph::analysis::{Graph, Lookup};
use crate::egraph::language::{Head, Node};
use crate::egraph::rule::{Match, Rule, is_number};
use crate::egraph::term::Term;

/// The rules of this topic.
pub fn rules() -> Vec<Rule> {
    let float = |m: &Match| m.result().is_some_and(|ty| ty.dtype().is_float());
    let integer = |m: &Match| m.result().is_some_and(|ty| ty.dtype().is_integer());
    vec![
        // x + 0 == x, where the zero adds no axes
        Rule::new("add-zero", "(add ?x 0)", "?x"),
        // x - 0 == x
        Rule::new("sub-zero", "(sub ?x 0)", "?x"),
        // x * 1 == x
        Rule::new("mul-one", "(mul ?x 1)", "?x"),
        // x / 1 == x
        Rule::new("div-one", "(div ?x 1)", "?x"),
        // x^1 == x
        Rule::new("pow-one", "(pow ?x 1)", "?x"),
        // x^2 == x*x
        Rule::new("pow-two", "(pow ?x 2)", "(mul ?x ?x)"),
        // x^3 == x*x*x
        Rule::new("pow-three", "(pow ?x 3)", "(mul ?x (mul ?x ?x))"),
        // x^0.5 == sqrt(x)
        Rule::new("pow-half", "(pow ?x 0.5)", "(sqrt ?x)").when(float),
        // x^-1 == 1/x
        Rule::new("pow-minus-one", "(pow ?x -1)", "(reciprocal ?x)").when(float),
        // x^-0.5 == 1/sqrt(x)
        Rule::new("pow-minus-half", "(pow ?x -0.5)", "(reciprocal (sqrt ?x))").when(float),
        // 1 / x == reciprocal(x)
        Rule::new("one-over", "(div 1 ?x)", "(reciprocal ?x)").when(float),
        // x / y == x * (1/y), y known
        // except before a rounding: there the last bit of the quotient decides, as quantization defines it
        Rule::new("div-constant", "(div ?x ?c)", "(mul ?x (reciprocal ?c))")
            .when(float)
            .when_constant(&["?c"])
            .when(|m| !is_rounded(m.graph, m.class)),
        // x - y == x + -y, y known
        Rule::new("sub-constant", "(sub ?x ?c)", "(add ?x (neg ?c))")
            .when_constant(&["?c"])
            .when(|m| m.dtype("?c").is_some_and(|dtype| dtype.is_float() || dtype.is_signed())),
        // (x + a) + b == x + (a + b), a and b known
        Rule::new("add-constants", "(add (add ?x ?a) ?b)", "(add ?x (add ?a ?b))")
            .when_constant(&["?a", "?b"])
            .when(|m| changes(m, 0.0)),
        // (x * a) * b == x * (a * b), a and b known
        Rule::new("mul-constants", "(mul (mul ?x ?a) ?b)", "(mul ?x (mul ?a ?b))")
            .when_constant(&["?a", "?b"])
            .when(|m| changes(m, 1.0)),
        // (x + a) * b == x*b + a*b, a and b known
        // except for whole x and a: their sum is exact, so that the product is rounded once, as dequantization defines it
        Rule::new("distribute", "(mul (add ?x ?a) ?b)", "(add (mul ?x ?b) (mul ?a ?b))")
            .when(float)
            .when_constant(&["?a", "?b"])
            .when(|m| !is_whole(m)),
        // -(-x) == x
        Rule::new("neg-neg", "(neg (neg ?x))", "?x"),
        // x + -y == x - y
        Rule::new("add-neg", "(add ?x (neg ?y))", "(sub ?x ?y)").when(|m| !m.is_constant("?y")),
        // min(max(x, a), b) with a >= b is b: left alone; max(max(x, a), a) == max(x, a)
        Rule::new("max-max", "(max (max ?x ?a) ?b)", "(max ?x (max ?a ?b))").when_constant(&["?a", "?b"]),
        Rule::new("min-min", "(min (min ?x ?a) ?b)", "(min ?x (min ?a ?b))").when_constant(&["?a", "?b"]),
        // max(x, x) == x
        Rule::new("max-same", "(max ?x ?x)", "?x"),
        Rule::new("min-same", "(min ?x ?x)", "?x"),
        // x - x == 0 for integers (floats have NaN)
        Rule::new("sub-same", "(sub ?x ?x)", "?zero").when(integer).with("?zero", |m| {
            let ty = m.result()?;
            ty.shape.is_empty().then(|| Term::number(Scalar::integer(ty.dtype(), 0)))?
        }),
        // select(c, x, x) == x
        Rule::new("select-same", "(select ?c ?x ?x)", "?x"),
        // x and true == x, x or false == x, x and x == x, x or x == x
        Rule::new("and-true", "(and ?x 1)", "?x"),
        Rule::new("or-false", "(or ?x 0)", "?x"),
        Rule::new("and-same", "(and ?x ?x)", "?x"),
        Rule::new("or-same", "(or ?x ?x)", "?x"),
        // not(not(x)) == x
        Rule::new("not-not", "(not (not ?x))", "?x"),
        // sqrt(x) then reciprocal twice: 1/(1/x) == x
        Rule::new("reciprocal-reciprocal", "(reciprocal (reciprocal ?x))", "?x").when(float),
        Rule::on_heads(
            "cast-none",
            "(cast<t> ?x) => ?x where ?x has type t",
            tcc_ir::dtype::DType::ALL.iter().map(|dtype| Head::Scalar(ScalarOp::Cast(*dtype))).collect(),
            cast_to_same,
        ),
        Rule::on_heads(
            "map-broadcast",
            "(f ?x (broadcast ?a ?y)) => (f ?x ?y) where ?x has the shape already",
            Function::ALL.iter().map(|function| Head::Scalar(ScalarOp::Call(*function))).collect(),
            drop_broadcast,
        ),
    ]
}

/// True where a user of the class rounds it to integers.
fn is_rounded(graph: &Graph, class: egg::Id) -> bool {
    graph[class].parents().any(|parent| {
        matches!(
            graph.id_to_node(parent),
            Node::Scalar(
                ScalarOp::Call(Function::Round | Function::Floor | Function::Ceil | Function::Trunc),
                _
            )
        )
    })
}

fn cast_to_same(graph: &Graph, class: egg::Id, node: &Node) -> Vec<Term> {
    match (graph.tensor(class), graph.tensor(node.operands()[0])) {
        (Some(to), Some(from)) if to == from => vec![Term::Class(node.operands()[0])],
        _ => Vec::new(),
    }
}

/// Maps broadcast by themselves, so a broadcast operand is read as it was where another operand has the full shape.
fn drop_broadcast(graph: &Graph, class: egg::Id, node: &Node) -> Vec<Term> {
    let Node::Scalar(op, children) = node else { return Vec::new() };
    let Some(result) = graph.tensor(class) else { return Vec::new() };
    let mut found = Vec::new();
    for (place, child) in children.iter().enumerate() {
        let full = children.iter().enumerate().any(|(other, id)| {
            other != place && graph.tensor(*id).is_some_and(|ty| ty.shape == result.shape)
        });
        if !full {
            continue;
        }
        for inner in &graph[*child].nodes {
            if let Node::Apply(OperatorKind::Broadcast, inner) = inner
                && matches!(graph.operator(inner[0]), Some(Operator::Broadcast { .. }))
            {
                let mut operands: Vec<Term> = children.iter().map(|id| Term::Class(*id)).collect();
                operands[place] = Term::Class(inner[1]);
                found.push(Term::Scalar(*op, operands));
            }
        }
    }
    found
}

/// True where neither constant is the identity of the function. A class that `x + 0` has joined would otherwise meet
/// itself, and gain a sum of zeros from every pair of zeros that it has.
fn changes(m: &Match, identity: f64) -> bool {
    ["?a", "?b"].iter().all(|variable| m.splat(variable).is_none_or(|splat| !is_number(splat, identity)))
}

/// True where `?x` is an integer of at most 16 bits as a float.
fn is_whole(m: &Match) -> bool {
    m.id("?x").is_some_and(|x| {
        m.graph[x].nodes.iter().any(|node| match node {
            Node::Scalar(ScalarOp::Cast(_), children) => m
                .graph
                .tensor(children[0])
                .is_some_and(|ty| ty.dtype().is_integer() && ty.dtype().bits() <= 16),
            _ => false,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use crate::egraph::encode::encode;
    use crate::egraph::saturate::{Limits, saturate};
    use crate::rules::{SIMPLIFY, testing::*};
    use tcc_ir::builder::Builder;
    use tcc_ir::data::Data;
    use tcc_ir::module::{Function, Value};
    use tcc_ir::operator::Operator;
    use tcc_ir::scalar::Function as Scalar;

    /// The body of the only map that is left of `apply` on a small tensor; empty where nothing is left.
    fn body(apply: impl FnOnce(&mut Builder, Value) -> Value) -> String {
        let before: Function = function(|b| {
            let x = input(b, "x", &[3, 5]);
            vec![apply(b, x)]
        });
        let after = rewritten(&before, SIMPLIFY, true);
        assert_equivalent(&before, &after);
        let bodies: Vec<String> = after
            .body
            .operations
            .iter()
            .filter_map(|operation| match &operation.operator {
                Operator::Map { body } => Some(body.to_string()),
                _ => None,
            })
            .collect();
        assert!(bodies.len() <= 1, "{bodies:?}");
        bodies.join("")
    }

    #[test]
    fn neutral_elements_go() {
        for (function, number) in
            [(Scalar::Add, 0.0), (Scalar::Sub, 0.0), (Scalar::Mul, 1.0), (Scalar::Div, 1.0)]
        {
            assert_eq!(body(|b, x| b.call_with(function, x, number).unwrap()), "");
            assert_ne!(body(|b, x| b.call_with(function, x, 2.0).unwrap()), "");
        }
        assert_eq!(body(|b, x| b.call_with(Scalar::Pow, x, 1.0).unwrap()), "");
    }

    #[test]
    fn a_neutral_element_that_broadcasts_stays() {
        let before = function(|b| {
            let x = input(b, "x", &[5]);
            let zeros = b.constant(tcc_ir::data::Data::from_f32(&[3, 1], &[0.0; 3]).unwrap()).unwrap();
            vec![b.call(Scalar::Add, &[x, zeros]).unwrap()]
        });
        let after = rewritten(&before, SIMPLIFY, true);
        assert!(!operators(&after).is_empty());
        assert_equivalent(&before, &after);
    }

    #[test]
    fn powers_become_products_and_roots() {
        assert_eq!(body(|b, x| b.call_with(Scalar::Pow, x, 2.0).unwrap()), "(1) t0 = mul(a0, a0); t0");
        let root = body(|b, x| {
            let x = b.call(Scalar::Abs, &[x]).unwrap();
            b.call_with(Scalar::Pow, x, 0.5).unwrap()
        });
        assert_eq!(root, "(1) t0 = abs(a0); t1 = sqrt(t0); t1");
        assert!(body(|b, x| b.call_with(Scalar::Pow, x, 4.0).unwrap()).contains("pow"));
    }

    #[test]
    fn constants_gather() {
        let text = body(|b, x| {
            let x = b.call_with(Scalar::Add, x, 1.5).unwrap();
            let x = b.call_with(Scalar::Mul, x, 2.0).unwrap();
            let x = b.call_with(Scalar::Sub, x, 4.0).unwrap();
            b.call_with(Scalar::Div, x, 4.0).unwrap()
        });
        assert_eq!(text, "(1) t0 = mul(a0, f32:0.5); t1 = add(t0, f32:-0.25); t1");
    }

    #[test]
    fn a_quotient_that_is_rounded_stays_a_quotient() {
        let text = body(|b, x| {
            let x = b.call_with(Scalar::Div, x, 0.3).unwrap();
            b.call(Scalar::Round, &[x]).unwrap()
        });
        assert!(text.contains("div"), "{text}");
    }

    #[test]
    fn negations_cancel() {
        let text = body(|b, x| {
            let y = b.call(Scalar::Neg, &[x]).unwrap();
            b.call(Scalar::Neg, &[y]).unwrap()
        });
        assert_eq!(text, "");
    }

    #[test]
    fn zeros_that_are_too_large_to_evaluate_do_not_multiply() {
        let before = function(|b| {
            let mut x = input(b, "x", &[4, 700]);
            for _ in 0..4 {
                let zero = b.constant(Data::from_f32(&[4, 700], &[0.0; 2800]).unwrap()).unwrap();
                x = b.call(Scalar::Add, &[x, zero]).unwrap();
            }
            vec![x]
        });
        let mut encoding = encode(&before, &before.body, &HashMap::new());
        let rules = super::rules();
        let report = saturate(&mut encoding.graph, &rules.iter().collect::<Vec<_>>(), &Limits::default());
        assert!(!report.limited && report.nodes < 20, "{report:?}");
    }
}
