//! Affine quantization: `dequantize -> float operator -> quantize` becomes an integer operator with one requantization.
//!
//! By the definition of ONNX, `dequantize(q) = (q - zero) * scale` and `quantize(x) = saturate(round(x / scale) + zero)`.
//! Sums of products of dequantized tensors are products of scales times integer sums, which are exact; zero points of
//! the data leave through sums over the weights, known at compile time.

use egg::Id;
use tcc_ir::contraction::{ContractionSpec, Role};
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::{Operator, OperatorKind};
use tcc_ir::scalar::{Function, Scalar, ScalarExpr, ScalarOp};
use tcc_ir::words::{Layout, PadKind, ReduceKind, WindowKind};

use super::fold_affine::labels_onto;
use super::integers::explicit_padding;
use crate::egraph::analysis::{Graph, Lookup};
use crate::egraph::language::{Head, Node};
use crate::egraph::rule::{Match, Rule};
use crate::egraph::term::Term;

/// The rules of this topic.
pub fn rules() -> Vec<Rule> {
    use OperatorKind as K;
    vec![
        // dequantize(q, s, z) == (q - z) * s
        Rule::new("dequantize-scalars", "(dequantize ?a ?x ?s ?z)", "?y").with("?y", dequantize_scalars),
        // quantize(x, s, z) == saturate(round(x / s) + z)
        Rule::new("quantize-scalars", "(quantize ?a ?x ?s ?z)", "?y").with("?y", quantize_scalars),
        // quantize(dequantize(q, s, z), s, z) == q
        Rule::new("quantize-dequantize", "(quantize ?a (dequantize ?b ?x ?s ?z) ?s ?z)", "?x").when(|m| {
            let narrow = m.dtype("?x").is_some_and(|dtype| dtype.is_integer() && dtype.bits() <= 16);
            let axes = match (m.operator("?a"), m.operator("?b")) {
                (
                    Some(Operator::Quantize { axis, block, .. }),
                    Some(Operator::Dequantize { axis: b, block: c, .. }),
                ) => axis == b && block == c,
                _ => false,
            };
            narrow && axes && scale_is_positive(m, "?s")
        }),
        Rule::on_nodes(
            "dequantize-late",
            "(f ?a (dequantize ?b ?x ?s ?z)) => (dequantize ?b (f ?a ?x) ?s ?z), f moves elements, one scale",
            &[K::Transpose, K::Reshape, K::Slice, K::Broadcast],
            dequantize_late,
        ),
        // max(dequantize(q)) == dequantize(max(q)), for a positive scale
        Rule::new(
            "window-dequantize",
            "(window ?w (dequantize ?b ?x ?s ?z))",
            "(dequantize ?b (window ?w ?x) ?s ?z)",
        )
        .when(|m| {
            let max = matches!(m.operator("?w"), Some(Operator::Window { kind: WindowKind::Max, .. }));
            max && is_one(m.graph, m.id("?s")) && scale_is_positive(m, "?s")
        }),
        // convolve(dequantize(q), dequantize(w)) == (convolve(q, w) - zero * sum(w)) * scales
        Rule::new(
            "convolve-integers",
            "(convolve ?a (dequantize ?b ?x ?s ?z) (dequantize ?c ?w ?t ?u))",
            "?y",
        )
        .when_constant(&["?w", "?s", "?t"])
        .with("?y", convolve_integers),
        // contract(dequantize(q), dequantize(w)) == (contract(q, w) - zero * sum(w)) * scales
        Rule::new(
            "contract-integers",
            "(contract ?a (dequantize ?b ?x ?s ?z) (dequantize ?c ?w ?t ?u))",
            "?y",
        )
        .when_constant(&["?s", "?t"])
        .with("?y", contract_integers),
        Rule::on_heads(
            "requantize",
            "(round (div (add (mul (cast<f32> ?i) ?m) ?b) ?s)) => (round (add (mul (cast<f32> ?i) (div ?m ?s)) (div ?b ?s)))",
            vec![Head::Scalar(ScalarOp::Call(Function::Round))],
            requantize,
        ),
    ]
}

/// True where a parameter has one element.
fn is_one(graph: &Graph, id: Option<Id>) -> bool {
    id.and_then(|id| graph.tensor(id)).is_some_and(|ty| ty.shape.iter().all(|dim| dim.is(1)))
}

fn scale_is_positive(m: &Match, variable: &str) -> bool {
    m.splat(variable).is_some_and(|scale| scale.as_f64() > 0.0 && scale.as_f64().is_finite())
}

/// A parameter of one element, or one for each index of `axis`, so that it broadcasts against `rank` axes.
fn aligned(graph: &Graph, id: Id, axis: usize, rank: usize) -> Option<Term> {
    let shape = &graph.tensor(id)?.shape;
    match &shape[..] {
        [] => Some(Term::Class(id)),
        [extent] if extent.is(1) => {
            Some(Term::apply(Operator::Reshape { shape: Vec::new() }, [Term::Class(id)]))
        }
        [extent] if axis < rank => {
            let mut full = vec![Dim::Const(1); rank - axis];
            full[0] = extent.clone();
            Some(Term::reshape(graph, full, id))
        }
        _ => None,
    }
}

pub(super) fn cast(dtype: DType, x: Term) -> Term {
    Term::Scalar(ScalarOp::Cast(dtype), vec![x])
}

fn dequantize_scalars(m: &Match) -> Option<Term> {
    let Operator::Dequantize { dtype, axis, block: 0 } = m.operator("?a")? else { return None };
    let stored = m.dtype("?x")?;
    if !stored.is_integer() || *dtype != DType::F32 || m.dtype("?s")? != *dtype {
        return None;
    }
    let rank = m.tensor("?x")?.rank();
    let zero = m.splat("?z").is_some_and(|zero| zero.as_f64() == 0.0);
    if !zero && stored.bits() > 16 {
        return None;
    }
    let mut x = cast(*dtype, m.term("?x")?);
    if !zero {
        x = Term::call(Function::Sub, [x, cast(*dtype, aligned(m.graph, m.id("?z")?, *axis, rank)?)]);
    }
    Some(Term::call(Function::Mul, [x, aligned(m.graph, m.id("?s")?, *axis, rank)?]))
}

fn quantize_scalars(m: &Match) -> Option<Term> {
    let Operator::Quantize { dtype, axis, block: 0, .. } = m.operator("?a")? else { return None };
    if !dtype.is_integer() || dtype.bits() > 16 || dtype.is_packed() || m.dtype("?x")? != DType::F32 {
        return None;
    }
    if m.dtype("?s")? != DType::F32 {
        return None;
    }
    let rank = m.tensor("?x")?.rank();
    let scaled = Term::call(Function::Div, [m.term("?x")?, aligned(m.graph, m.id("?s")?, *axis, rank)?]);
    let mut rounded = Term::call(Function::Round, [scaled]);
    if m.splat("?z").is_none_or(|zero| zero.as_f64() != 0.0) {
        let zero = cast(DType::F32, aligned(m.graph, m.id("?z")?, *axis, rank)?);
        rounded = Term::call(Function::Add, [rounded, zero]);
    }
    Some(cast(*dtype, rounded))
}

/// Moving elements before they are dequantized moves fewer bytes.
fn dequantize_late(graph: &Graph, _class: Id, node: &Node) -> Vec<Term> {
    let Node::Apply(_, children) = node else { return Vec::new() };
    let Some(operator) = graph.operator(children[0]) else { return Vec::new() };
    let mut found = Vec::new();
    for inner in &graph[children[1]].nodes {
        if let Node::Apply(OperatorKind::Dequantize, inner) = inner
            && let Some(dequantize @ Operator::Dequantize { block: 0, .. }) = graph.operator(inner[0])
            && is_one(graph, Some(inner[2]))
            && !graph.values(inner[1]).is_some_and(|values| values.constant)
        {
            let moved = Term::apply(operator.clone(), [Term::Class(inner[1])]);
            found
                .push(Term::apply(dequantize.clone(), [moved, Term::Class(inner[2]), Term::Class(inner[3])]));
        }
    }
    found
}

/// A stored weight as signed integers with zero point 0; `None` where its zero points differ or do not go away.
fn centered(m: &Match, weight: &str, zero: &str) -> Option<Term> {
    let dtype = m.dtype(weight)?;
    let zero = m.splat(zero)?.as_f64();
    match (dtype, zero) {
        (_, 0.0) => m.term(weight),
        // Unsigned bytes around 128 are signed bytes around 0.
        (DType::U8, 128.0) if m.is_constant(weight) => {
            let shift = Term::number(Scalar::integer(DType::I32, 128))?;
            Some(cast(DType::I8, Term::call(Function::Sub, [cast(DType::I32, m.term(weight)?), shift])))
        }
        _ => None,
    }
}

fn is_byte(m: &Match, variable: &str) -> bool {
    matches!(m.dtype(variable), Some(DType::I8 | DType::U8))
}

/// The sum of `x` over axes that stay.
pub(super) fn sum(axes: Vec<usize>, x: Term) -> Term {
    let (prologue, epilogue) = (ScalarExpr::identity(), ScalarExpr::identity());
    Term::apply(Operator::Reduce { kind: ReduceKind::Sum, axes, keep: true, prologue, epilogue }, [x])
}

fn convolve_integers(m: &Match) -> Option<Term> {
    let Operator::Convolve { layout, groups, strides, dilations, pads, accumulator: DType::F32, epilogue } =
        m.operator("?a")?
    else {
        return None;
    };
    let (
        Operator::Dequantize { dtype: DType::F32, block: 0, .. },
        Operator::Dequantize { axis, block: 0, .. },
    ) = (m.operator("?b")?, m.operator("?c")?)
    else {
        return None;
    };
    if !epilogue.is_identity() || !is_byte(m, "?x") || !is_byte(m, "?w") || !is_one(m.graph, m.id("?s")) {
        return None;
    }
    let rank = m.result()?.rank();
    let first = *layout == Layout::ChannelsFirst;
    let (channels, out_axis) = if first { (1, 0) } else { (rank - 1, rank - 1) };
    if !is_one(m.graph, m.id("?t")) && *axis != out_axis {
        return None;
    }
    let zero = m.splat("?z")?.as_i64();
    let mut x = m.term("?x")?;
    let mut pads = pads.clone();
    if zero != 0 && pads.iter().any(|pad| *pad != 0) {
        // Outside of the data lies the number 0, which the zero point stands for.
        let (low, high) = explicit_padding(&pads, rank, first);
        let value = Term::apply(Operator::Reshape { shape: Vec::new() }, [m.term("?z")?]);
        x = Term::apply(Operator::Pad { kind: PadKind::Constant, low, high }, [x, value]);
        pads.iter_mut().for_each(|pad| *pad = 0);
    }
    let w = centered(m, "?w", "?u")?;
    let convolve = Operator::Convolve {
        layout: *layout,
        groups: *groups,
        strides: strides.clone(),
        dilations: dilations.clone(),
        pads,
        accumulator: DType::I32,
        epilogue: ScalarExpr::identity(),
    };
    let mut y = Term::apply(convolve, [x, w.clone()]);
    let channel_shape = |extent: Dim| {
        let mut shape = vec![Dim::Const(1); rank - channels];
        shape[0] = extent;
        shape
    };
    let outputs = m.shape("?w")?[out_axis].clone();
    if zero != 0 {
        let axes = (0..rank).filter(|axis| *axis != out_axis).collect();
        let total = sum(axes, cast(DType::I32, w));
        let total = Term::apply(Operator::Reshape { shape: channel_shape(outputs.clone()) }, [total]);
        let correction = Term::call(Function::Mul, [total, Term::number(Scalar::integer(DType::I32, zero))?]);
        y = Term::call(Function::Sub, [y, correction]);
    }
    let one = |id: Id| Term::apply(Operator::Reshape { shape: Vec::new() }, [Term::Class(id)]);
    let weight_scale = m.id("?t")?;
    let scale = if is_one(m.graph, Some(weight_scale)) {
        one(weight_scale)
    } else {
        Term::reshape(m.graph, channel_shape(outputs), weight_scale)
    };
    let scale = Term::call(Function::Mul, [scale, one(m.id("?s")?)]);
    Some(Term::call(Function::Mul, [cast(DType::F32, y), scale]))
}

fn contract_integers(m: &Match) -> Option<Term> {
    let Operator::Contract { spec, accumulator: DType::F32, epilogue } = m.operator("?a")? else {
        return None;
    };
    let (
        Operator::Dequantize { dtype: DType::F32, block: 0, .. },
        Operator::Dequantize { axis, block: 0, .. },
    ) = (m.operator("?b")?, m.operator("?c")?)
    else {
        return None;
    };
    if !epilogue.is_identity() || !is_byte(m, "?x") || !is_byte(m, "?w") || !is_one(m.graph, m.id("?s")) {
        return None;
    }
    let per_channel = !is_one(m.graph, m.id("?t"));
    let label = *spec.rhs.get(*axis)?;
    if per_channel && !matches!(spec.role(label), Role::Column | Role::Batch) {
        return None;
    }
    let zero = m.splat("?z")?.as_i64();
    if zero != 0 && (!m.is_constant("?w") || has_lone_sums(spec)) {
        return None;
    }
    let w = centered(m, "?w", "?u")?;
    let contract =
        Operator::Contract { spec: spec.clone(), accumulator: DType::I32, epilogue: ScalarExpr::identity() };
    let mut y = Term::apply(contract, [m.term("?x")?, w.clone()]);
    let shape = m.shape("?w")?;
    if zero != 0 {
        let summed: Vec<usize> =
            (0..spec.rhs.len()).filter(|axis| spec.role(spec.rhs[*axis]) == Role::Summed).collect();
        let reduced: Vec<Dim> = (0..shape.len())
            .map(|axis| if summed.contains(&axis) { Dim::Const(1) } else { shape[axis].clone() })
            .collect();
        let total = labels_onto(sum(summed, cast(DType::I32, w)), &reduced, &spec.rhs, &spec.out)?;
        let correction = Term::call(Function::Mul, [total, Term::number(Scalar::integer(DType::I32, zero))?]);
        y = Term::call(Function::Sub, [y, correction]);
    }
    let one = |id: Id| Term::apply(Operator::Reshape { shape: Vec::new() }, [Term::Class(id)]);
    let weight_scale = m.id("?t")?;
    let scale = if per_channel {
        let mut along = vec![Dim::Const(1); shape.len()];
        along[*axis] = shape[*axis].clone();
        labels_onto(Term::reshape(m.graph, along.clone(), weight_scale), &along, &spec.rhs, &spec.out)?
    } else {
        one(weight_scale)
    };
    let scale = Term::call(Function::Mul, [scale, one(m.id("?s")?)]);
    Some(Term::call(Function::Mul, [cast(DType::F32, y), scale]))
}

/// True where a label is summed over in one operand only: such a sum counts zero points more than once.
pub(super) fn has_lone_sums(spec: &ContractionSpec) -> bool {
    spec.labels().iter().any(|label| {
        spec.role(*label) == Role::Summed && !(spec.lhs.contains(label) && spec.rhs.contains(label))
    })
}

/// Depth to which a division is pushed through the affine steps of a requantization.
const DEPTH: usize = 8;

fn requantize(graph: &Graph, _class: Id, node: &Node) -> Vec<Term> {
    let Node::Scalar(op, children) = node else { return Vec::new() };
    let mut found = Vec::new();
    for inner in &graph[children[0]].nodes {
        if let Node::Scalar(ScalarOp::Call(Function::Div), quotient) = inner
            && let Some(scale) = graph.values(quotient[1]).and_then(|values| values.splat)
            && scale.as_f64() > 0.0
        {
            found.extend(
                divided(graph, quotient[0], quotient[1], DEPTH).map(|term| Term::Scalar(*op, vec![term])),
            );
        }
    }
    found
}

/// `x / scale` with the division applied to constants only, where `x` is an affine function of an integer, clamped.
fn divided(graph: &Graph, x: Id, scale: Id, depth: usize) -> Option<Term> {
    let depth = depth.checked_sub(1)?;
    let quotient = |id: Id| {
        graph.values(id)?.constant.then(|| Term::call(Function::Div, [Term::Class(id), Term::Class(scale)]))
    };
    for node in &graph[x].nodes {
        let Node::Scalar(ScalarOp::Call(function), children) = node else { continue };
        match function {
            Function::Mul if is_integer_cast(graph, children[0]) => {
                let splat = |id: Id| graph.values(id).and_then(|values| values.splat);
                let moves_ties = match (splat(children[1]), splat(scale)) {
                    (Some(factor), Some(scale)) => !ties_stay(factor.as_f64(), scale.as_f64()),
                    _ => false,
                };
                if let (false, Some(factor)) = (moves_ties, quotient(children[1])) {
                    return Some(Term::call(Function::Mul, [Term::Class(children[0]), factor]));
                }
            }
            Function::Add | Function::Max | Function::Min => {
                if let Some(constant) = quotient(children[1])
                    && let Some(rest) = divided(graph, children[0], scale, depth)
                {
                    return Some(Term::call(*function, [rest, constant]));
                }
            }
            _ => {}
        }
    }
    None
}

/// True where multiplying integers by the rounded quotient of two positive `f32` leaves every half where it is, as dividing
/// their product does: the quotient is exact, or it has no integer multiple that ends in a half and is small enough for a
/// byte as the result.
fn ties_stay(factor: f64, scale: f64) -> bool {
    // Products of two 24-bit numbers are exact in f64.
    if f64::from((factor / scale) as f32) * scale == factor {
        return true;
    }
    let odd = |value: f64| {
        let fraction = (value.to_bits() & ((1 << 52) - 1)) | 1 << 52;
        fraction >> fraction.trailing_zeros()
    };
    let (mut a, mut b) = (odd(factor), odd(scale));
    while b != 0 {
        (a, b) = (b, a % b);
    }
    // Only multiples of this turn the quotient into a number with a finite binary fraction.
    let period = (odd(scale) / a) as f64;
    period * (factor / scale) > LARGEST_QUANTIZED
}

/// Beyond the difference of any byte and its zero point.
const LARGEST_QUANTIZED: f64 = 512.0;

/// True for a 32-bit integer as a float: an accumulator.
fn is_integer_cast(graph: &Graph, class: Id) -> bool {
    graph[class].nodes.iter().any(|node| match node {
        Node::Scalar(ScalarOp::Cast(DType::F32), children) => {
            graph.tensor(children[0]).is_some_and(|ty| ty.dtype() == DType::I32)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{SIMPLIFY, fusion_tests::convolve, testing::*};
    use tcc_ir::builder::Builder;
    use tcc_ir::data::Data;
    use tcc_ir::module::{Function as Body, Value};
    use tcc_ir::types::Type;

    fn parameters(b: &mut Builder, scale: &[f32], zero: i64, dtype: DType, vector: bool) -> (Value, Value) {
        let shape: Vec<usize> = if vector { vec![scale.len()] } else { Vec::new() };
        let scales = b.constant(Data::from_f32(&shape, scale).unwrap()).unwrap();
        let zeros = vec![zero as u8; scale.len()];
        let zeros = b.constant(Data::new(dtype, &shape, zeros.into()).unwrap()).unwrap();
        (scales, zeros)
    }

    fn dequantize(b: &mut Builder, x: Value, (scale, zero): (Value, Value), axis: usize) -> Value {
        b.op1(Operator::Dequantize { dtype: DType::F32, axis, block: 0 }, &[x, scale, zero]).unwrap()
    }

    fn quantize(b: &mut Builder, x: Value, (scale, zero): (Value, Value)) -> Value {
        let operator = Operator::Quantize { dtype: DType::U8, axis: 0, block: 0, saturate: true };
        b.op1(operator, &[x, scale, zero]).unwrap()
    }

    /// A quantized convolution with padding and bias; `zero` is the zero point of the data, `weight_zero` of the filter.
    fn quantized_convolution(zero: i64, weight_zero: i64, groups: usize, pad: i64) -> Body {
        function(|b| {
            let shape = [1i64, 4, 5, 6].iter().map(|extent| (*extent).into()).collect();
            let x = b.input("x", Type::tensor(DType::U8, shape));
            let p = parameters(b, &[0.05], zero, DType::U8, false);
            let x = dequantize(b, x, p, 0);
            let dtype = if weight_zero == 0 { DType::I8 } else { DType::U8 };
            let w = b.constant(Numbers::new(7).tensor(dtype, &[8, 4 / groups, 3, 3])).unwrap();
            let scales: Vec<f32> = (0..8).map(|channel| 0.01 + 0.003 * channel as f32).collect();
            let p = parameters(b, &scales, weight_zero, dtype, true);
            let w = dequantize(b, w, p, 0);
            let y = convolve(b, x, w, 1, pad, groups);
            let bias = weights(b, 3, &[8, 1, 1]);
            let y = b.call(Function::Add, &[y, bias]).unwrap();
            let y = b.call_with(Function::Max, y, 0.0).unwrap();
            let p = parameters(b, &[0.07], 3, DType::U8, false);
            vec![quantize(b, y, p)]
        })
    }

    fn is_integer_convolution(function: &Body) -> bool {
        function
            .body
            .operations
            .iter()
            .any(|operation| matches!(operation.operator, Operator::Convolve { accumulator: DType::I32, .. }))
    }

    #[test]
    fn quantized_convolutions_become_integer_convolutions() {
        for (zero, weight_zero, groups, pad) in [(0, 0, 1, 1), (131, 0, 1, 0), (7, 128, 1, 0), (9, 0, 4, 0)] {
            let before = quantized_convolution(zero, weight_zero, groups, pad);
            let after = rewritten(&before, SIMPLIFY, true);
            assert!(is_integer_convolution(&after), "{:?}", operators(&after));
            assert!(!operators(&after).contains(&"map"), "{:?}", operators(&after));
            assert_equivalent_within(&before, &after, 1.0);
        }
    }

    #[test]
    fn padding_holds_the_zero_point() {
        // Whether the explicit padding pays is a matter of cost; the number is the same.
        let before = quantized_convolution(131, 0, 1, 1);
        let mut graph = crate::egraph::encode::encode(&before, &before.body, &Default::default()).graph;
        let all: Vec<Rule> = rules();
        crate::egraph::saturate::saturate(&mut graph, &all.iter().collect::<Vec<_>>(), &Default::default());
        assert!(
            graph.classes_for_op(&Head::Apply(OperatorKind::Pad)).is_some_and(|classes| classes.len() > 0)
        );
        assert_equivalent_within(&before, &rewritten(&before, SIMPLIFY, true), 1.0);
    }

    #[test]
    fn filters_with_other_zero_points_stay_float() {
        let before = quantized_convolution(5, 100, 1, 0);
        let after = rewritten(&before, SIMPLIFY, true);
        assert!(!is_integer_convolution(&after));
        assert_equivalent_within(&before, &after, 1.0);
    }

    #[test]
    fn quantized_products_become_integer_products() {
        for zero in [0, 120] {
            let before = function(|b| {
                let shape = vec![2.into(), 3.into(), 5.into()];
                let x = b.input("x", Type::tensor(DType::U8, shape));
                let p = parameters(b, &[0.05], zero, DType::U8, false);
                let x = dequantize(b, x, p, 0);
                let w = b.constant(Numbers::new(7).tensor(DType::I8, &[5, 4])).unwrap();
                let p = parameters(b, &[0.01, 0.02, 0.04, 0.03], 0, DType::I8, true);
                let w = dequantize(b, w, p, 1);
                let y = b.contract("amk,kn->amn".parse().unwrap(), x, w).unwrap();
                let p = parameters(b, &[0.11], 100, DType::U8, false);
                vec![quantize(b, y, p)]
            });
            let after = rewritten(&before, SIMPLIFY, true);
            assert_eq!(operators(&after), ["contract"]);
            let integer = after.body.operations.iter().any(|operation| {
                matches!(operation.operator, Operator::Contract { accumulator: DType::I32, .. })
            });
            assert!(integer);
            assert_equivalent_within(&before, &after, 1.0);
        }
    }

    #[test]
    fn halves_stay_where_they_are() {
        // Exact quotients, and scales whose odd parts are large.
        assert!(ties_stay(0.25, 2.0) && ties_stay(0.75, 0.5));
        assert!(ties_stay(f64::from(0.000_512_3f32), f64::from(0.061_7f32)));
        // 21 / 6 is a half, which the rounded sixth misses.
        assert!(!ties_stay(1.0, 6.0));
        assert!(!ties_stay(3.0, 10.0));
    }

    #[test]
    fn quantized_sums_are_one_map() {
        let before = function(|b| {
            let shape = || vec![3.into(), 7.into()];
            let x = b.input("x", Type::tensor(DType::U8, shape()));
            let y = b.input("y", Type::tensor(DType::U8, shape()));
            let p = parameters(b, &[0.05], 9, DType::U8, false);
            let q = parameters(b, &[0.08], 100, DType::U8, false);
            let (x, y) = (dequantize(b, x, p, 0), dequantize(b, y, q, 0));
            let sum = b.call(Function::Add, &[x, y]).unwrap();
            let p = parameters(b, &[0.1], 30, DType::U8, false);
            vec![quantize(b, sum, p)]
        });
        let after = rewritten(&before, SIMPLIFY, true);
        assert_eq!(operators(&after), ["map"]);
        // The sum is rounded as its definition says, ties included.
        assert_equivalent(&before, &after);
    }

    #[test]
    fn quantizing_what_was_dequantized_is_nothing() {
        let same = |zero: i64| {
            function(|b| {
                let x = b.input("x", Type::tensor(DType::U8, vec![4.into(), 4.into()]));
                let p = parameters(b, &[0.05], 9, DType::U8, false);
                let y = dequantize(b, x, p, 0);
                let p = parameters(b, &[0.05], zero, DType::U8, false);
                vec![quantize(b, y, p)]
            })
        };
        assert!(operators(&rewritten(&same(9), SIMPLIFY, true)).is_empty());
        assert!(!operators(&rewritten(&same(8), SIMPLIFY, true)).is_empty());
        assert_equivalent_within(&same(8), &rewritten(&same(8), SIMPLIFY, true), 1.0);
    }
}
