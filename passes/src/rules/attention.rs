//! Scaled dot-product attention written out: two contractions around a softmax.
//!
//! The contractions may name their axes in any order and have up to two batch axes; transposes and views bring their
//! operands into the order of the attention operator, where they cancel against those that exporters write.

use egg::Id;
use tcc_ir::attribute::Real;
use tcc_ir::contraction::{ContractionSpec, Role};
use tcc_ir::dim::Dim;
use tcc_ir::operator::{Operator, OperatorKind};
use tcc_ir::scalar::{Function, ScalarOp};

use super::permutation;
use crate::egraph::analysis::{Graph, Lookup};
use crate::egraph::language::Node;
use crate::egraph::rule::Rule;
use crate::egraph::term::Term;

/// The rules of this topic.
pub fn rules() -> Vec<Rule> {
    vec![Rule::on_nodes(
        "attention",
        "(contract ?b (softmax ?s (add (mul (contract ?a ?q ?k) ?scale) ?mask)) ?v) => (attention ?c ?q ?k ?v ?mask)",
        &[OperatorKind::Contract],
        attention,
    )]
}

/// Nodes of a class that are plain contractions.
fn contractions(graph: &Graph, class: Id) -> impl Iterator<Item = (&ContractionSpec, Id, Id)> {
    graph[class].nodes.iter().filter_map(move |node| match node {
        Node::Apply(OperatorKind::Contract, children) if children.len() == 3 => {
            match graph.operator(children[0])? {
                Operator::Contract { spec, epilogue, .. } if epilogue.is_identity() => {
                    Some((spec, children[1], children[2]))
                }
                _ => None,
            }
        }
        _ => None,
    })
}

/// Scores before the softmax: a contraction, scaled, and a mask added.
struct Scores<'a> {
    spec: &'a ContractionSpec,
    q: Id,
    k: Id,
    scale: f64,
    mask: Option<Id>,
}

fn scores(graph: &Graph, class: Id) -> Vec<Scores<'_>> {
    let mut found = scaled(graph, class, None);
    for node in &graph[class].nodes {
        if let Node::Scalar(ScalarOp::Call(Function::Add), pair) = node {
            for (product, mask) in [(pair[0], pair[1]), (pair[1], pair[0])] {
                found.extend(scaled(graph, product, Some(mask)));
            }
        }
    }
    found
}

fn scaled(graph: &Graph, class: Id, mask: Option<Id>) -> Vec<Scores<'_>> {
    let plain = |class: Id, scale: f64| {
        contractions(graph, class)
            .map(move |(spec, q, k)| Scores { spec, q, k, scale, mask })
            .collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    // The scaled form first: a number on an operand also moves behind the contraction.
    for node in &graph[class].nodes {
        if let Node::Scalar(ScalarOp::Call(function @ (Function::Mul | Function::Div)), pair) = node
            && let Some(number) = graph.values(pair[1]).and_then(|values| values.splat)
        {
            let number = number.as_f64();
            let scale = if *function == Function::Mul { number } else { 1.0 / number };
            if scale.is_finite() {
                found.extend(plain(pair[0], scale));
            }
        }
    }
    found.extend(plain(class, 1.0));
    found
}

fn attention(graph: &Graph, _class: Id, node: &Node) -> Vec<Term> {
    let Node::Apply(_, children) = node else { return Vec::new() };
    let Some(Operator::Contract { spec, epilogue, .. }) = graph.operator(children[0]) else {
        return Vec::new();
    };
    if children.len() != 3 || !epilogue.is_identity() {
        return Vec::new();
    }
    let swapped = ContractionSpec { lhs: spec.rhs.clone(), rhs: spec.lhs.clone(), out: spec.out.clone() };
    for (spec, weights, v) in [(spec, children[1], children[2]), (&swapped, children[2], children[1])] {
        for inner in &graph[weights].nodes {
            let Node::Apply(OperatorKind::Softmax, softmax) = inner else { continue };
            let Some(Operator::Softmax { axis, log: false }) = graph.operator(softmax[0]) else { continue };
            for scores in scores(graph, softmax[1]) {
                if let Some(term) = recognized(graph, &scores, *axis, spec, v) {
                    return vec![term];
                }
            }
        }
    }
    Vec::new()
}

/// The attention of these scores and values, if the axes are those of an attention.
fn recognized(graph: &Graph, scores: &Scores, axis: usize, spec: &ContractionSpec, v: Id) -> Option<Term> {
    let first = scores.spec;
    let keys = *first.out.get(axis)?;
    // Scores are [batch..., queries, keys]: then a mask broadcasts as attention says.
    let rank = first.out.len();
    if axis + 1 != rank || rank < 2 || spec.lhs.len() != rank {
        return None;
    }
    let (q, k, swap) = match first.role(keys) {
        Role::Column => (scores.q, scores.k, false),
        Role::Row => (scores.k, scores.q, true),
        _ => return None,
    };
    let (q_labels, k_labels) = if swap { (&first.rhs, &first.lhs) } else { (&first.lhs, &first.rhs) };
    let queries = first.out[rank - 2];
    let batch = &first.out[..rank - 2];
    let summed: Vec<u8> = first.labels().into_iter().filter(|label| !first.out.contains(label)).collect();
    let [inner] = summed[..] else { return None };
    let is = |labels: &[u8], wanted: &[u8]| {
        labels.len() == wanted.len() && wanted.iter().all(|label| labels.contains(label))
    };
    let q_order = [batch, &[queries, inner]].concat();
    let k_order = [batch, &[keys, inner]].concat();
    if batch.len() > 2 || !is(q_labels, &q_order) || !is(k_labels, &k_order) {
        return None;
    }
    // The second contraction calls the axes of the scores by its own labels.
    let own = |label: u8| spec.lhs[first.out.iter().position(|known| *known == label).unwrap_or(0)];
    let values: Vec<u8> =
        spec.rhs.iter().copied().filter(|label| spec.role(*label) == Role::Column).collect();
    let [width] = values[..] else { return None };
    let batch_own: Vec<u8> = batch.iter().map(|label| own(*label)).collect();
    let v_order = [&batch_own[..], &[own(keys), width]].concat();
    let out_order = [&batch_own[..], &[own(queries), width]].concat();
    let roles_fit = spec.role(own(keys)) == Role::Summed
        && spec.role(own(queries)) == Role::Row
        && batch_own.iter().all(|label| spec.role(*label) == Role::Batch);
    if !roles_fit || !is(&spec.rhs, &v_order) || !is(&spec.out, &out_order) {
        return None;
    }
    let operand = |id: Id, labels: &[u8], order: &[u8]| in_order(graph, id, labels, order);
    let (q_term, k_term, v_term) =
        (operand(q, q_labels, &q_order)?, operand(k, k_labels, &k_order)?, operand(v, &spec.rhs, &v_order)?);
    let mut operands = vec![q_term.0, k_term.0, v_term.0];
    if let Some(mask) = scores.mask {
        let ty = graph.tensor(mask)?;
        if !ty.dtype().is_float() || ty.rank() > rank {
            return None;
        }
        operands.push(Term::Class(mask));
    }
    let operator = Operator::Attention {
        scale: Real::from(scores.scale),
        softcap: Real::from(0.0),
        causal: false,
        window: 0,
    };
    let y = Term::Apply(operator, operands);
    // Back from [batch, heads, queries, width].
    let shape: Vec<Dim> = [&q_term.1[..rank - 1], &v_term.1[rank - 1..]].concat();
    let y = if rank < 4 { Term::apply(Operator::Reshape { shape }, [y]) } else { y };
    let perm: Vec<usize> = spec
        .out
        .iter()
        .map(|label| out_order.iter().position(|known| known == label))
        .collect::<Option<Vec<usize>>>()?;
    Some(Term::transpose(perm, y))
}

/// An operand with its axes in `order`, leading axes of extent 1 added to make four; and its shape without those.
fn in_order(graph: &Graph, id: Id, labels: &[u8], order: &[u8]) -> Option<(Term, Vec<Dim>)> {
    let perm: Vec<usize> =
        order.iter().map(|label| labels.iter().position(|known| known == label)).collect::<Option<_>>()?;
    let shape = permutation::apply(&perm, &graph.tensor(id)?.shape);
    let ordered = Term::transpose(perm, Term::Class(id));
    if shape.len() == 4 {
        return Some((ordered, shape));
    }
    let mut full = vec![Dim::Const(1); 4usize.checked_sub(shape.len())?];
    full.extend(shape.iter().cloned());
    Some((Term::apply(Operator::Reshape { shape: full }, [ordered]), shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{SIMPLIFY, testing::*};
    use tcc_ir::scalar::Function as Scalar;

    fn written_out(
        first: &str,
        second: &str,
        shapes: [&[i64]; 3],
        axis: usize,
        mask: Option<&[i64]>,
    ) -> tcc_ir::module::Function {
        function(|b| {
            let q = input(b, "q", shapes[0]);
            let k = input(b, "k", shapes[1]);
            let v = input(b, "v", shapes[2]);
            let mut s = b.contract(first.parse().unwrap(), q, k).unwrap();
            s = b.call_with(Scalar::Div, s, 2.5).unwrap();
            if let Some(shape) = mask {
                let mask = input(b, "mask", shape);
                s = b.call(Scalar::Add, &[s, mask]).unwrap();
            }
            let p = b.op1(Operator::Softmax { axis, log: false }, &[s]).unwrap();
            vec![b.contract(second.parse().unwrap(), p, v).unwrap()]
        })
    }

    #[test]
    fn two_contractions_around_a_softmax() {
        let before = written_out(
            "bhmd,bhnd->bhmn",
            "bhmn,bhne->bhme",
            [&[2, 3, 5, 4], &[2, 3, 7, 4], &[2, 3, 7, 6]],
            3,
            None,
        );
        let after = rewritten(&before, SIMPLIFY, false);
        assert_eq!(operators(&after), ["attention"]);
        assert_equivalent(&before, &after);
    }

    #[test]
    fn axes_in_other_orders_and_a_mask() {
        let before = written_out(
            "bmhd,bnhd->bhmn",
            "bhmn,bnhe->bmhe",
            [&[2, 5, 3, 4], &[2, 1, 3, 4], &[2, 1, 3, 4]],
            3,
            Some(&[2, 1, 1, 1]),
        );
        let after = rewritten(&before, SIMPLIFY, false);
        assert!(operators(&after).contains(&"attention"), "{:?}", operators(&after));
        assert_equivalent(&before, &after);
    }

    #[test]
    fn one_batch_axis_or_none() {
        let before =
            written_out("bmd,bnd->bmn", "bmn,bne->bme", [&[3, 5, 4], &[3, 7, 4], &[3, 7, 6]], 2, None);
        let after = rewritten(&before, SIMPLIFY, false);
        assert!(operators(&after).contains(&"attention"));
        assert_equivalent(&before, &after);
        let before = written_out("md,nd->mn", "mn,ne->me", [&[5, 4], &[7, 4], &[7, 6]], 1, None);
        let after = rewritten(&before, SIMPLIFY, false);
        assert!(operators(&after).contains(&"attention"));
        assert_equivalent(&before, &after);
    }

    #[test]
    fn a_softmax_over_queries_is_no_attention() {
        let before =
            written_out("bmd,bnd->bmn", "bmn,bne->bme", [&[3, 5, 4], &[3, 7, 4], &[3, 7, 6]], 1, None);
        let after = rewritten(&before, SIMPLIFY, false);
        assert!(!operators(&after).contains(&"attention"));
        assert_equivalent(&before, &after);
    }
}
