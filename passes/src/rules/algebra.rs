//! Identities of arithmetic on tensors, after broadcasts are out of the way.

use tcc_ir::operator::{Operator, OperatorKind};
use tcc_ir::scalar::{Function, Scalar, ScalarOp};

use crate::egraph::analysis::{Graph, Lookup};
use crate::egraph::language::{Head, Node};
use crate::egraph::rule::{Match, Rule};
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
        Rule::new("div-constant", "(div ?x ?c)", "(mul ?x (reciprocal ?c))")
            .when(float)
            .when_constant(&["?c"]),
        // x - y == x + -y, y known
        Rule::new("sub-constant", "(sub ?x ?c)", "(add ?x (neg ?c))")
            .when_constant(&["?c"])
            .when(|m| m.dtype("?c").is_some_and(|dtype| dtype.is_float() || dtype.is_signed())),
        // (x + a) + b == x + (a + b), a and b known
        Rule::new("add-constants", "(add (add ?x ?a) ?b)", "(add ?x (add ?a ?b))")
            .when_constant(&["?a", "?b"]),
        // (x * a) * b == x * (a * b), a and b known
        Rule::new("mul-constants", "(mul (mul ?x ?a) ?b)", "(mul ?x (mul ?a ?b))")
            .when_constant(&["?a", "?b"]),
        // (x + a) * b == x*b + a*b, a and b known
        Rule::new("distribute", "(mul (add ?x ?a) ?b)", "(add (mul ?x ?b) (mul ?a ?b))")
            .when(float)
            .when_constant(&["?a", "?b"]),
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
