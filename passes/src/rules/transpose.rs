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
        Rule::new("transpose-transpose", "(transpose ?a (transpose ?b ?x))", "?y")
            .with("?y", |m| {
                let merged = permutation::compose(perm(m, "?a")?, perm(m, "?b")?);
                Some(Term::transpose(merged, m.term("?x")?))
            })
            .also_on_constants(),
        // a transpose that moves only axes of extent 1 is a reshape
        Rule::new("transpose-unit-axes", "(transpose ?a ?x)", "(reshape ?shape ?x)")
            .when(|m| {
                perm(m, "?a")
                    .zip(m.shape("?x"))
                    .is_some_and(|(perm, shape)| permutation::keeps_order(perm, shape))
            })
            .attributes("?shape", |m| Some(Operator::Reshape { shape: m.result()?.shape.clone() }))
            .also_on_constants(),
        // transpose(merge axes(x)) == merge axes(transpose(x))
        Rule::new("transpose-merged", "(transpose ?a (reshape ?b ?x))", "?y").with("?y", merged_transpose),
        // split axes(transpose(x)) == transpose(split axes(x))
        Rule::new("split-transposed", "(reshape ?a (transpose ?b ?x))", "?y").with("?y", split_transpose),
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

/// For each axis of `merged`, the run of axes of `shape` that it is the product of; `None` where axes are split.
fn merged_axes(shape: &[Dim], merged: &[Dim]) -> Option<Vec<Vec<usize>>> {
    let mut groups = Vec::with_capacity(merged.len());
    let mut next = 0;
    for extent in merged {
        let mut group = Vec::new();
        let mut product = Dim::Const(1);
        while product != *extent || (group.is_empty() && next < shape.len() && shape[next].is(1)) {
            product = product * shape.get(next)?.clone();
            group.push(next);
            next += 1;
        }
        groups.push(group);
    }
    // Unit axes at the end belong to the last group.
    while next < shape.len() {
        if !shape[next].is(1) {
            return None;
        }
        groups.last_mut()?.push(next);
        next += 1;
    }
    Some(groups)
}

fn merged_transpose(m: &Match) -> Option<Term> {
    let (shape, Operator::Reshape { shape: merged }) = (m.shape("?x")?, m.operator("?b")?) else {
        return None;
    };
    // Extents of 0 make every grouping look right.
    if shape.len() <= merged.len() || shape.iter().any(|dim| dim.is(0)) {
        return None;
    }
    let groups = merged_axes(shape, merged)?;
    let moved: Vec<usize> = perm(m, "?a")?.iter().flat_map(|axis| groups[*axis].clone()).collect();
    let reshape = Operator::Reshape { shape: m.result()?.shape.clone() };
    Some(Term::apply(reshape, [Term::transpose(moved, m.term("?x")?)]))
}

fn split_transpose(m: &Match) -> Option<Term> {
    let (perm, shape, result) = (perm(m, "?b")?, m.shape("?x")?, m.result()?);
    let transposed = permutation::apply(perm, shape);
    if result.rank() <= transposed.len() || shape.iter().any(|dim| dim.is(0)) {
        return None;
    }
    // Axes of the result that each transposed axis splits into; x has them in the order of its own axes.
    let groups = merged_axes(&result.shape, &transposed)?;
    let order: Vec<usize> =
        permutation::inverse(perm).iter().flat_map(|axis| groups[*axis].clone()).collect();
    let split = Operator::Reshape { shape: permutation::apply(&order, &result.shape) };
    Some(Term::transpose(permutation::inverse(&order), Term::apply(split, [m.term("?x")?])))
}

pub(super) fn scalar_heads() -> Vec<Head> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{SIMPLIFY, testing::*};
    use tcc_ir::builder::Builder;
    use tcc_ir::module::{Function as Body, Value};
    use tcc_ir::scalar::Scalar;
    use tcc_ir::types::Type;
    use tcc_ir::words::{PadKind, ReduceKind};

    /// `apply` between a transpose and its inverse, so that both go where the rule holds.
    fn between(shape: &[i64], perm: &[usize], apply: impl FnOnce(&mut Builder, Value) -> Value) -> Body {
        function(|b| {
            let x = input(b, "x", shape);
            let y = b.transpose(x, perm.to_vec()).unwrap();
            let y = apply(b, y);
            vec![b.transpose(y, permutation::inverse(perm)).unwrap()]
        })
    }

    fn check(before: &Body, expected: &[&str]) {
        let after = rewritten(before, SIMPLIFY, false);
        assert_eq!(operators(&after), expected);
        assert_equivalent(before, &after);
    }

    #[test]
    fn transposes_pass_through_what_keeps_axes() {
        let (shape, perm) = ([2, 3, 4, 5], [0, 2, 3, 1]);
        check(&between(&shape, &perm, |b, x| b.call_with(Function::Max, x, 0.0).unwrap()), &["map"]);
        check(
            &between(&shape, &perm, |b, x| {
                let bias = weights(b, 1, &[3]);
                b.call(Function::Add, &[x, bias]).unwrap()
            }),
            &["map"],
        );
        check(
            &between(&shape, &perm, |b, x| b.reduce(ReduceKind::Sum, x, vec![3], true).unwrap()),
            &["reduce"],
        );
        check(
            &between(&shape, &perm, |b, x| b.op1(Operator::Softmax { axis: 3, log: false }, &[x]).unwrap()),
            &["softmax"],
        );
        check(
            &between(&shape, &perm, |b, x| b.op1(Operator::Concat { axis: 1 }, &[x, x]).unwrap()),
            &["concat"],
        );
        check(&between(&shape, &perm, |b, x| b.normalize(x, vec![3], 1e-5, true).unwrap()), &["normalize"]);
        let pad = |b: &mut Builder, x: Value| {
            let value = b.scalar(Scalar::float(DType::F32, 0.5)).unwrap();
            let dims = |numbers: [i64; 4]| numbers.map(Dim::Const).to_vec();
            let (low, high) = (dims([0, 1, 2, 0]), dims([0, 0, 3, 1]));
            b.op1(Operator::Pad { kind: PadKind::Constant, low, high }, &[x, value]).unwrap()
        };
        check(&between(&shape, &perm, pad), &["pad"]);
    }

    #[test]
    fn reductions_may_drop_axes() {
        let before = function(|b| {
            let x = input(b, "x", &[2, 3, 4, 5]);
            let y = b.transpose(x, vec![3, 1, 0, 2]).unwrap();
            vec![b.reduce(ReduceKind::Max, y, vec![1, 2], false).unwrap()]
        });
        let after = rewritten(&before, SIMPLIFY, false);
        assert_equivalent(&before, &after);
    }

    #[test]
    fn contractions_take_transposes_in() {
        let before = function(|b| {
            let x = input(b, "x", &[4, 2, 3]);
            let y = input(b, "y", &[2, 5, 4]);
            let x = b.transpose(x, vec![1, 2, 0]).unwrap();
            let y = b.transpose(y, vec![0, 2, 1]).unwrap();
            let z = b.contract("bmk,bkn->bmn".parse().unwrap(), x, y).unwrap();
            vec![b.transpose(z, vec![0, 2, 1]).unwrap()]
        });
        check(&before, &["contract"]);
    }

    #[test]
    fn merged_axes_move_together() {
        let before = function(|b| {
            let x = input(b, "x", &[2, 3, 4, 5]);
            let y = b.reshape(x, vec![6.into(), 4.into(), 5.into()]).unwrap();
            let y = b.transpose(y, vec![0, 2, 1]).unwrap();
            let y = b.reshape(y, vec![2.into(), 3.into(), 5.into(), 4.into()]).unwrap();
            vec![b.transpose(y, vec![0, 1, 3, 2]).unwrap()]
        });
        check(&before, &[]);
    }

    #[test]
    fn a_channel_shuffle_is_one_transpose_in_the_other_layout() {
        let before = function(|b| {
            let x = input(b, "x", &[2, 3, 5, 8]);
            let y = b.transpose(x, vec![0, 3, 1, 2]).unwrap();
            let y = b.reshape(y, [2i64, 2, 4, 3, 5].map(Dim::Const).to_vec()).unwrap();
            let y = b.transpose(y, vec![0, 2, 1, 3, 4]).unwrap();
            let y = b.reshape(y, [2i64, 8, 3, 5].map(Dim::Const).to_vec()).unwrap();
            vec![b.transpose(y, vec![0, 2, 3, 1]).unwrap()]
        });
        check(&before, &["reshape", "transpose", "reshape"]);
    }

    #[test]
    fn a_single_transpose_stays() {
        let before = function(|b| {
            let x = input(b, "x", &[3, 4]);
            vec![b.transpose(x, vec![1, 0]).unwrap()]
        });
        check(&before, &["transpose"]);
    }

    #[test]
    fn symbolic_extents_are_the_normal_case() {
        let before = function(|b| {
            let (n, m) = (Dim::named("n"), Dim::named("m"));
            b.declare(&tcc_ir::dim::Symbol::new("n"), Default::default());
            b.declare(&tcc_ir::dim::Symbol::new("m"), Default::default());
            let x = b.input("x", Type::tensor(DType::F32, vec![n.clone(), m.clone(), 3.into()]));
            let y = b.reshape(x, vec![n.clone() * m.clone(), 3.into()]).unwrap();
            let y = b.transpose(y, vec![1, 0]).unwrap();
            let y = b.call(Function::Exp, &[y]).unwrap();
            let y = b.transpose(y, vec![1, 0]).unwrap();
            vec![b.reshape(y, vec![n, m, 3.into()]).unwrap()]
        });
        check(&before, &["map"]);
    }

    #[test]
    fn empty_tensors_keep_their_shape() {
        let before = between(&[2, 0, 3, 1], &[0, 2, 3, 1], |b, x| b.call(Function::Abs, &[x]).unwrap());
        let after = rewritten(&before, SIMPLIFY, false);
        assert_equivalent(&before, &after);
    }
}
