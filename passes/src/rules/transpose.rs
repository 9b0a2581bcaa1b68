//! Transposes: merged, cancelled, and moved from producers towards consumers until two of them meet.
//!
//! Every rule here moves a transpose from an operand to the result, never back, so that a chain ends.

use egg::Id;
use tcc_ir::contraction::ContractionSpec;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::{Operator, OperatorKind};
use tcc_ir::scalar::{Function, ScalarOp};

use super::permutation;
use crate::egraph::analysis::{Graph, Lookup};
use crate::egraph::language::{Head, Node};
use crate::egraph::rule::{Match, Rule};
use crate::egraph::term::Term;

/// The permutation that an attribute variable holds.
fn perm<'a>(m: &'a Match, variable: &str) -> Option<&'a [usize]> {
    match m.operator(variable)? {
        Operator::Transpose { perm } => Some(perm),
        _ => None,
    }
}

/// The rules of this topic.
pub fn rules() -> Vec<Rule> {
    use OperatorKind as K;
    vec![
        // transpose(identity, x) == x
        Rule::new("transpose-none", "(transpose ?a ?x)", "?x")
            .when(|m| perm(m, "?a").is_some_and(permutation::is_identity)),
        // transpose(a, transpose(b, x)) == transpose(a after b, x), or x
        Rule::new("transpose-transpose", "(transpose ?a (transpose ?b ?x))", "?y").with("?y", |m| {
            let merged = permutation::compose(perm(m, "?a")?, perm(m, "?b")?);
            Some(Term::transpose(merged, m.term("?x")?))
        }),
        // a transpose that moves only axes of extent 1 is a reshape
        Rule::new("transpose-unit-axes", "(transpose ?a ?x)", "(reshape ?shape ?x)")
            .when(|m| {
                perm(m, "?a")
                    .zip(m.shape("?x"))
                    .is_some_and(|(perm, shape)| permutation::keeps_order(perm, shape))
            })
            .attributes("?shape", |m| Some(Operator::Reshape { shape: m.result()?.shape.clone() })),
        Rule::on_heads(
            "map-transpose",
            "(f (transpose ?a ?x) ?y) => (transpose ?a (f ?x (transpose ?inverse ?y)))",
            scalar_heads(),
            through_map,
        ),
        Rule::on_nodes(
            "reduce-transpose",
            "(reduce ?r (transpose ?a ?x)) => (transpose ?b (reduce ?s ?x))",
            &[K::Reduce],
            through_reduce,
        ),
        Rule::on_nodes(
            "axis-transpose",
            "(softmax ?s (transpose ?a ?x)) => (transpose ?a (softmax ?t ?x)), scan and normalize alike",
            &[K::Softmax, K::Scan, K::Normalize],
            through_axis,
        ),
        Rule::on_nodes(
            "concat-transpose",
            "(concat ?c (transpose ?a ?x) ?y) => (transpose ?a (concat ?d ?x (transpose ?inverse ?y)))",
            &[K::Concat],
            through_concat,
        ),
        Rule::on_nodes(
            "movement-transpose",
            "(pad ?p (transpose ?a ?x) ?v) => (transpose ?a (pad ?q ?x ?v)), slice, resize and broadcast alike",
            &[K::Pad, K::Slice, K::Resize, K::Broadcast],
            through_movement,
        ),
        Rule::on_nodes(
            "contract-transpose",
            "(contract ?c (transpose ?a ?x) ?y) => (contract ?d ?x ?y), on either side",
            &[K::Contract],
            into_contract,
        ),
        Rule::on_nodes(
            "transpose-contract",
            "(transpose ?a (contract ?c ?x ?y)) => (contract ?d ?x ?y)",
            &[K::Transpose],
            out_of_contract,
        ),
    ]
}

fn scalar_heads() -> Vec<Head> {
    let calls = Function::ALL.iter().map(|function| ScalarOp::Call(*function));
    let casts = DType::ALL.iter().flat_map(|dtype| {
        [ScalarOp::Cast(*dtype), ScalarOp::CastAlternate(*dtype), ScalarOp::Bitcast(*dtype)]
    });
    calls.chain(casts).map(Head::Scalar).collect()
}

/// The transposes in a class, as permutation and operand.
fn transposes(graph: &Graph, class: Id) -> Vec<(Vec<usize>, Id)> {
    let mut found = Vec::new();
    for node in &graph[class].nodes {
        if let Node::Apply(OperatorKind::Transpose, children) = node
            && let Some(Operator::Transpose { perm }) = graph.operator(children[0])
        {
            found.push((perm.clone(), children[1]));
        }
    }
    found
}

/// An operand of a map seen through the inverse of `perm`, where the result has `perm.len()` axes.
fn seen_before(graph: &Graph, id: Id, perm: &[usize]) -> Option<Term> {
    let shape = &graph.tensor(id)?.shape;
    let rank = perm.len();
    if shape.iter().all(|dim| dim.is(1)) && shape.len() <= rank {
        // One element broadcasts the same way from everywhere.
        return Some(Term::Class(id));
    }
    let mut full = vec![Dim::Const(1); rank - shape.len()];
    full.extend(shape.iter().cloned());
    Some(Term::transpose(permutation::inverse(perm), Term::reshape(graph, full, id)))
}

fn through_map(graph: &Graph, class: Id, node: &Node) -> Vec<Term> {
    let Node::Scalar(op, children) = node else { return Vec::new() };
    let Some(result) = graph.tensor(class) else { return Vec::new() };
    if graph.values(class).is_some_and(|values| values.constant) {
        return Vec::new();
    }
    let mut perms: Vec<Vec<usize>> = Vec::new();
    for child in children {
        for (perm, _) in transposes(graph, *child) {
            if perm.len() == result.rank() && !perms.contains(&perm) {
                perms.push(perm);
            }
        }
    }
    let through = |perm: Vec<usize>| {
        let operands =
            children.iter().map(|child| seen_before(graph, *child, &perm)).collect::<Option<Vec<Term>>>()?;
        Some(Term::transpose(perm, Term::Scalar(*op, operands)))
    };
    perms.into_iter().filter_map(through).collect()
}

fn through_reduce(graph: &Graph, _class: Id, node: &Node) -> Vec<Term> {
    let Node::Apply(_, children) = node else { return Vec::new() };
    let Some(Operator::Reduce { kind, axes, keep, prologue, epilogue }) = graph.operator(children[0]) else {
        return Vec::new();
    };
    if children.len() != 2 {
        return Vec::new();
    }
    let through = |(perm, x): (Vec<usize>, Id)| {
        let mut moved: Vec<usize> = axes.iter().map(|axis| perm[*axis]).collect();
        moved.sort_unstable();
        let kept: Vec<usize> = if *keep {
            perm.clone()
        } else {
            // Positions among the axes that stay, before and after.
            let before: Vec<usize> = (0..perm.len()).filter(|axis| !moved.contains(axis)).collect();
            let after = (0..perm.len()).filter(|axis| !axes.contains(axis)).map(|axis| perm[axis]);
            after.filter_map(|axis| before.iter().position(|candidate| *candidate == axis)).collect()
        };
        let reduce = Operator::Reduce {
            kind: *kind,
            axes: moved,
            keep: *keep,
            prologue: prologue.clone(),
            epilogue: epilogue.clone(),
        };
        Term::transpose(kept, Term::apply(reduce, [Term::Class(x)]))
    };
    transposes(graph, children[1]).into_iter().map(through).collect()
}

fn through_axis(graph: &Graph, _class: Id, node: &Node) -> Vec<Term> {
    let Node::Apply(_, children) = node else { return Vec::new() };
    let Some(operator) = graph.operator(children[0]) else { return Vec::new() };
    if children.len() != 2 {
        return Vec::new();
    }
    let through = |(perm, x): (Vec<usize>, Id)| {
        let mut operator = operator.clone();
        match &mut operator {
            Operator::Softmax { axis, .. } | Operator::Scan { axis, .. } => *axis = perm[*axis],
            Operator::Normalize { axes, .. } => {
                axes.iter_mut().for_each(|axis| *axis = perm[*axis]);
                axes.sort_unstable();
            }
            _ => return None,
        }
        Some(Term::transpose(perm, Term::apply(operator, [Term::Class(x)])))
    };
    transposes(graph, children[1]).into_iter().filter_map(through).collect()
}

fn through_concat(graph: &Graph, _class: Id, node: &Node) -> Vec<Term> {
    let Node::Apply(_, children) = node else { return Vec::new() };
    let Some(Operator::Concat { axis }) = graph.operator(children[0]) else { return Vec::new() };
    let mut perms: Vec<Vec<usize>> = Vec::new();
    for child in &children[1..] {
        for (perm, _) in transposes(graph, *child) {
            if !perms.contains(&perm) {
                perms.push(perm);
            }
        }
    }
    let through = |perm: Vec<usize>| {
        let operands: Vec<Term> = children[1..]
            .iter()
            .map(|child| Term::transpose(permutation::inverse(&perm), Term::Class(*child)))
            .collect();
        let concat = Operator::Concat { axis: perm[*axis] };
        Term::transpose(perm, Term::Apply(concat, operands))
    };
    perms.into_iter().map(through).collect()
}

fn through_movement(graph: &Graph, _class: Id, node: &Node) -> Vec<Term> {
    let Node::Apply(_, children) = node else { return Vec::new() };
    let Some(operator) = graph.operator(children[0]) else { return Vec::new() };
    let through = |(perm, x): (Vec<usize>, Id)| {
        let back = permutation::inverse(&perm);
        let mut operator = operator.clone();
        match &mut operator {
            Operator::Pad { low, high, .. } => {
                *low = permutation::apply(&back, low);
                *high = permutation::apply(&back, high);
            }
            Operator::Slice { starts, sizes, steps } => {
                *starts = permutation::apply(&back, starts);
                *sizes = permutation::apply(&back, sizes);
                *steps = permutation::apply(&back, steps);
            }
            Operator::Resize { shape, scales, region, antialias: false, .. } => {
                *shape = permutation::apply(&back, shape);
                if !scales.is_empty() {
                    *scales = permutation::apply(&back, scales);
                }
                if !region.is_empty() {
                    let (starts, ends) = region.split_at(back.len());
                    *region = [permutation::apply(&back, starts), permutation::apply(&back, ends)].concat();
                }
            }
            Operator::Broadcast { shape } if shape.len() == perm.len() => {
                *shape = permutation::apply(&back, shape);
            }
            _ => return None,
        }
        let operands = std::iter::once(x).chain(children[2..].iter().copied()).map(Term::Class);
        Some(Term::transpose(perm, Term::apply(operator, operands)))
    };
    transposes(graph, children[1]).into_iter().filter_map(through).collect()
}

fn into_contract(graph: &Graph, _class: Id, node: &Node) -> Vec<Term> {
    let Node::Apply(_, children) = node else { return Vec::new() };
    let Some(Operator::Contract { spec, accumulator, epilogue }) = graph.operator(children[0]) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for side in 0..2 {
        for (perm, x) in transposes(graph, children[1 + side]) {
            let labels = if side == 0 { &spec.lhs } else { &spec.rhs };
            // Axis i of the transposed operand is axis perm[i] of x.
            let moved = permutation::apply(&permutation::inverse(&perm), labels);
            let spec = match side {
                0 => ContractionSpec { lhs: moved, ..spec.clone() },
                _ => ContractionSpec { rhs: moved, ..spec.clone() },
            };
            let operator = Operator::Contract { spec, accumulator: *accumulator, epilogue: epilogue.clone() };
            let mut operands: Vec<Term> = children[1..].iter().map(|id| Term::Class(*id)).collect();
            operands[side] = Term::Class(x);
            found.push(Term::Apply(operator, operands));
        }
    }
    found
}

fn out_of_contract(graph: &Graph, _class: Id, node: &Node) -> Vec<Term> {
    let Node::Apply(_, children) = node else { return Vec::new() };
    let Some(Operator::Transpose { perm }) = graph.operator(children[0]) else { return Vec::new() };
    let mut found = Vec::new();
    for inner in &graph[children[1]].nodes {
        if let Node::Apply(OperatorKind::Contract, inner) = inner
            && inner.len() == 3
            && let Some(Operator::Contract { spec, accumulator, epilogue }) = graph.operator(inner[0])
        {
            let spec = ContractionSpec { out: permutation::apply(perm, &spec.out), ..spec.clone() };
            let operator = Operator::Contract { spec, accumulator: *accumulator, epilogue: epilogue.clone() };
            found.push(Term::apply(operator, inner[1..].iter().map(|id| Term::Class(*id))));
        }
    }
    found
}
