//! Products of bytes that a graph widens first, `contract(i32(x) - zero, i32(w))`, on the bytes themselves.
//!
//! The zero point of the data, which may be known only to the run, leaves through sums over the weights.

use egg::Id;
use tcc_ir::contraction::Role;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::{Operator, OperatorKind};
use tcc_ir::scalar::{Function, Scalar, ScalarOp};
use tcc_ir::words::{Layout, PadKind};

use super::fold_affine::labels_onto;
use super::qdq::{cast, has_lone_sums, sum};
use crate::egraph::analysis::{Graph, Lookup};
use crate::egraph::language::Node;
use crate::egraph::rule::Rule;
use crate::egraph::term::Term;

/// The rules of this topic.
pub fn rules() -> Vec<Rule> {
    vec![
        Rule::on_nodes(
            "contract-bytes",
            "(contract ?a (sub (cast<i32> ?x) ?z) (cast<i32> ?w)) => (sub (contract ?a ?x ?w) (mul ?sums ?z))",
            &[OperatorKind::Contract],
            contract,
        ),
        Rule::on_nodes(
            "convolve-bytes",
            "(convolve ?a (sub (cast<i32> ?x) ?z) (cast<i32> ?w)) => (sub (convolve ?a ?x ?w) (mul ?sums ?z))",
            &[OperatorKind::Convolve],
            convolve,
        ),
    ]
}

/// Bytes behind 32-bit integers, and the number subtracted from each.
struct Bytes {
    data: Id,
    zero: Option<Id>,
}

fn bytes(graph: &Graph, class: Id) -> Option<Bytes> {
    let widened = |class: Id| {
        graph[class].nodes.iter().find_map(|node| match node {
            Node::Scalar(ScalarOp::Cast(DType::I32), children) => {
                let narrow = matches!(graph.tensor(children[0])?.dtype(), DType::I8 | DType::U8);
                narrow.then_some(children[0])
            }
            _ => None,
        })
    };
    let plain = widened(class).map(|data| Bytes { data, zero: None });
    plain.or_else(|| {
        graph[class].nodes.iter().find_map(|node| match node {
            Node::Scalar(ScalarOp::Call(Function::Sub), pair) => {
                let one = graph.tensor(pair[1])?.shape.iter().all(|dim| dim.is(1));
                let zero = match graph.values(pair[1])?.splat {
                    Some(splat) if splat.as_i64() == 0 => None,
                    _ => Some(pair[1]),
                };
                let data = widened(pair[0])?;
                // Several zero points are fine where all of them are 0.
                (one || zero.is_none()).then_some(Bytes { data, zero })
            }
            _ => None,
        })
    })
}

/// Weights as signed bytes with zero point 0, where they can be that.
fn weights(graph: &Graph, class: Id) -> Option<(Term, Id)> {
    let found = bytes(graph, class)?;
    if !graph.values(found.data)?.constant {
        return None;
    }
    let Some(zero) = found.zero else { return Some((Term::Class(found.data), found.data)) };
    let centered =
        graph.tensor(found.data)?.dtype() == DType::U8 && graph.values(zero)?.splat?.as_i64() == 128;
    if !centered {
        return None;
    }
    let shift = Term::number(Scalar::integer(DType::I32, 128))?;
    let wide = Term::call(Function::Sub, [cast(DType::I32, Term::Class(found.data)), shift]);
    Some((cast(DType::I8, wide), found.data))
}

/// `product - totals * zero`.
fn corrected(product: Term, totals: Term, zero: Id) -> Term {
    let zero = Term::apply(Operator::Reshape { shape: Vec::new() }, [Term::Class(zero)]);
    Term::call(Function::Sub, [product, Term::call(Function::Mul, [totals, zero])])
}

fn contract(graph: &Graph, _class: Id, node: &Node) -> Vec<Term> {
    contract_bytes(graph, node).into_iter().collect()
}

fn contract_bytes(graph: &Graph, node: &Node) -> Option<Term> {
    let Node::Apply(_, children) = node else { return None };
    let operator = graph.operator(children[0])?;
    let Operator::Contract { spec, accumulator: DType::I32, epilogue } = operator else { return None };
    if children.len() != 3 || !epilogue.is_identity() {
        return None;
    }
    let x = bytes(graph, children[1])?;
    let (w, stored) = match bytes(graph, children[2])? {
        // The sums over weights that only the run knows cost little beside the products.
        Bytes { data, zero: None } => (Term::Class(data), data),
        _ => weights(graph, children[2])?,
    };
    let product = Term::apply(operator.clone(), [Term::Class(x.data), w.clone()]);
    let Some(zero) = x.zero else { return Some(product) };
    if has_lone_sums(spec) {
        return None;
    }
    let summed: Vec<usize> =
        (0..spec.rhs.len()).filter(|axis| spec.role(spec.rhs[*axis]) == Role::Summed).collect();
    let mut shape = graph.tensor(stored)?.shape.clone();
    summed.iter().for_each(|axis| shape[*axis] = Dim::Const(1));
    let totals = labels_onto(sum(summed, cast(DType::I32, w)), &shape, &spec.rhs, &spec.out)?;
    Some(corrected(product, totals, zero))
}

fn convolve(graph: &Graph, class: Id, node: &Node) -> Vec<Term> {
    convolve_bytes(graph, class, node).into_iter().collect()
}

fn convolve_bytes(graph: &Graph, class: Id, node: &Node) -> Option<Term> {
    let Node::Apply(_, children) = node else { return None };
    let mut operator = graph.operator(children[0])?.clone();
    let Operator::Convolve { layout, pads, accumulator: DType::I32, epilogue, .. } = &mut operator else {
        return None;
    };
    if children.len() != 3 || !epilogue.is_identity() {
        return None;
    }
    let x = bytes(graph, children[1])?;
    let (w, stored) = weights(graph, children[2])?;
    let Some(zero) = x.zero else { return Some(Term::apply(operator, [Term::Class(x.data), w])) };
    let rank = graph.tensor(class)?.rank();
    let first = *layout == Layout::ChannelsFirst;
    let (channels, out_axis) = if first { (1, 0) } else { (rank - 1, rank - 1) };
    let mut data = Term::Class(x.data);
    if pads.iter().any(|pad| *pad != 0) {
        let (low, high) = explicit_padding(pads, rank, first);
        let scalar = Term::apply(Operator::Reshape { shape: Vec::new() }, [Term::Class(zero)]);
        let value = cast(graph.tensor(x.data)?.dtype(), scalar);
        data = Term::apply(Operator::Pad { kind: PadKind::Constant, low, high }, [data, value]);
        pads.iter_mut().for_each(|pad| *pad = 0);
    }
    let mut shape = vec![Dim::Const(1); rank - channels];
    shape[0] = graph.tensor(stored)?.shape.get(out_axis)?.clone();
    let axes = (0..rank).filter(|axis| *axis != out_axis).collect();
    let totals = Term::apply(Operator::Reshape { shape }, [sum(axes, cast(DType::I32, w.clone()))]);
    Some(corrected(Term::apply(operator, [data, w]), totals, zero))
}

/// The amounts of a `pad` that stands before a convolution instead of its own padding.
pub(super) fn explicit_padding(pads: &[i64], rank: usize, channels_first: bool) -> (Vec<Dim>, Vec<Dim>) {
    let (mut low, mut high) = (vec![Dim::Const(0); rank], vec![Dim::Const(0); rank]);
    let spatial = pads.len() / 2;
    for position in 0..spatial {
        let place = if channels_first { position + 2 } else { position + 1 };
        low[place] = Dim::Const(pads[position]);
        high[place] = Dim::Const(pads[position + spatial]);
    }
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{SIMPLIFY, testing::*};
    use tcc_ir::module::Function as Body;
    use tcc_ir::scalar::ScalarExpr;
    use tcc_ir::types::Type;

    /// A widened product with a zero point known to the run; `per_row` gives each row its own.
    fn product(per_row: bool) -> Body {
        function(|b| {
            let x = b.input("x", Type::tensor(DType::U8, vec![3.into(), 64.into()]));
            let zero = if per_row { vec![3.into(), 1.into()] } else { Vec::new() };
            let zero = b.input("zero", Type::tensor(DType::U8, zero));
            let w = b.constant(Numbers::new(5).tensor(DType::I8, &[64, 70])).unwrap();
            let (x, zero) = (b.cast(x, DType::I32).unwrap(), b.cast(zero, DType::I32).unwrap());
            let x = b.call(Function::Sub, &[x, zero]).unwrap();
            let w = b.cast(w, DType::I32).unwrap();
            vec![b.contract("mk,kn->mn".parse().unwrap(), x, w).unwrap()]
        })
    }

    fn takes_bytes(function: &Body) -> bool {
        function.body.operations.iter().any(|operation| {
            matches!(operation.operator, Operator::Contract { .. } | Operator::Convolve { .. })
                && function
                    .type_of(operation.operands[0])
                    .as_tensor()
                    .is_some_and(|ty| ty.dtype() == DType::U8)
        })
    }

    #[test]
    fn widened_products_run_on_bytes() {
        let before = product(false);
        let after = rewritten(&before, SIMPLIFY, true);
        assert!(takes_bytes(&after), "{:?}", operators(&after));
        assert_equivalent(&before, &after);
    }

    #[test]
    fn widened_products_of_two_inputs_run_on_bytes() {
        // Large enough that the sums over the weights, which a zero point asks for, cost less than they save.
        for (zero, depth) in [(false, 64i64), (true, 256), (true, 251)] {
            let before = function(|b| {
                let x = b.input("x", Type::tensor(DType::U8, vec![150.into(), depth.into()]));
                let w = b.input("w", Type::tensor(DType::I8, vec![depth.into(), 190.into()]));
                let (mut x, w) = (b.cast(x, DType::I32).unwrap(), b.cast(w, DType::I32).unwrap());
                if zero {
                    let zero = b.input("zero", Type::tensor(DType::U8, Vec::new()));
                    let zero = b.cast(zero, DType::I32).unwrap();
                    x = b.call(Function::Sub, &[x, zero]).unwrap();
                }
                vec![b.contract("mk,kn->mn".parse().unwrap(), x, w).unwrap()]
            });
            let after = rewritten(&before, SIMPLIFY, true);
            assert!(takes_bytes(&after), "zero {zero}, depth {depth}: {:?}", operators(&after));
            assert_equivalent(&before, &after);
        }
    }

    #[test]
    fn zero_points_of_rows_stay_wide() {
        let before = product(true);
        let after = rewritten(&before, SIMPLIFY, true);
        assert!(!takes_bytes(&after));
        assert_equivalent(&before, &after);
    }

    #[test]
    fn widened_convolutions_run_on_bytes() {
        for pad in [0, 1] {
            let before = function(|b| {
                let shape = [2i64, 8, 20, 20].map(Dim::Const).to_vec();
                let x = b.input("x", Type::tensor(DType::U8, shape));
                let zero = b.input("zero", Type::tensor(DType::U8, Vec::new()));
                let w = b.constant(Numbers::new(5).tensor(DType::I8, &[64, 8, 3, 3])).unwrap();
                let (x, zero) = (b.cast(x, DType::I32).unwrap(), b.cast(zero, DType::I32).unwrap());
                let x = b.call(Function::Sub, &[x, zero]).unwrap();
                let w = b.cast(w, DType::I32).unwrap();
                let operator = Operator::Convolve {
                    layout: Layout::ChannelsFirst,
                    groups: 1,
                    strides: vec![1; 2],
                    dilations: vec![1; 2],
                    pads: vec![pad; 4],
                    accumulator: DType::I32,
                    epilogue: ScalarExpr::identity(),
                };
                vec![b.op1(operator, &[x, w]).unwrap()]
            });
            let after = rewritten(&before, SIMPLIFY, true);
            assert!(takes_bytes(&after), "{:?}", operators(&after));
            assert_equivalent(&before, &after);
        }
    }
}
