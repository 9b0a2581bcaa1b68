//! Scales and shifts known at compile time move into the weights of convolutions and contractions: batch norm, biases,
//! learned scales. The arithmetic on weights that this leaves is evaluated at compile time.

use egg::Id;
use tcc_ir::contraction::ContractionSpec;
use tcc_ir::dim::Dim;
use tcc_ir::operator::Operator;
use tcc_ir::words::Layout;

use super::permutation;
use crate::egraph::analysis::Lookup;
use crate::egraph::rule::{Match, Rule};
use crate::egraph::term::Term;

/// The rules of this topic.
pub fn rules() -> Vec<Rule> {
    vec![
        // convolve(x, w) * s == convolve(x, w * s), s for each output channel
        Rule::new("convolve-scale", "(mul (convolve ?a ?x ?w) ?s)", "(convolve ?a ?x (mul ?w ?t))")
            .when_constant(&["?w", "?s"])
            .when(|m| one_float_type(m, "?w", "?s"))
            .with("?t", |m| {
                let Operator::Convolve { layout, .. } = m.operator("?a")? else { return None };
                let rank = m.result()?.rank();
                let filter_axis = if *layout == Layout::ChannelsFirst { 0 } else { rank - 1 };
                onto_axis(m, "?s", channel_axis(*layout, rank), rank, filter_axis, rank)
            }),
        // convolve(x * s, w) == convolve(x, w * s), s for each input channel
        Rule::new("scale-convolve", "(convolve ?a (mul ?x ?s) ?w)", "(convolve ?a ?x (mul ?w ?t))")
            .when_constant(&["?w", "?s"])
            .when(|m| one_float_type(m, "?w", "?s") && keeps_shape(m))
            .with("?t", |m| {
                let Operator::Convolve { layout, groups: 1, .. } = m.operator("?a")? else { return None };
                let rank = m.result()?.rank();
                let filter_axis = if *layout == Layout::ChannelsFirst { 1 } else { rank - 2 };
                onto_axis(m, "?s", channel_axis(*layout, rank), rank, filter_axis, rank)
            }),
        // convolve_transpose(x, w) * s == convolve_transpose(x, w * s), s for each output channel
        Rule::new(
            "convolve-transpose-scale",
            "(mul (convolve_transpose ?a ?x ?w) ?s)",
            "(convolve_transpose ?a ?x (mul ?w ?t))",
        )
        .when_constant(&["?w", "?s"])
        .when(|m| one_float_type(m, "?w", "?s"))
        .with("?t", |m| {
            let Operator::ConvolveTranspose { layout, groups: 1, .. } = m.operator("?a")? else {
                return None;
            };
            let rank = m.result()?.rank();
            let filter_axis = if *layout == Layout::ChannelsFirst { 1 } else { rank - 2 };
            onto_axis(m, "?s", channel_axis(*layout, rank), rank, filter_axis, rank)
        }),
        // contract(x, w) * s == contract(x, w * s), s along axes of w
        Rule::new("contract-scale", "(mul (contract ?a ?x ?w) ?s)", "(contract ?a ?x (mul ?w ?t))")
            .when_constant(&["?w", "?s"])
            .when(|m| one_float_type(m, "?w", "?s"))
            .with("?t", |m| {
                let spec = spec(m, "?a")?;
                onto_labels(m, "?s", &spec.out, &spec.rhs)
            }),
        // contract(w, x) * s == contract(w * s, x), s along axes of w
        Rule::new("contract-scale-left", "(mul (contract ?a ?w ?x) ?s)", "(contract ?a (mul ?w ?t) ?x)")
            .when_constant(&["?w", "?s"])
            .when(|m| one_float_type(m, "?w", "?s"))
            .with("?t", |m| {
                let spec = spec(m, "?a")?;
                onto_labels(m, "?s", &spec.out, &spec.lhs)
            }),
        // contract(x * s, w) == contract(x, w * s), s along axes that x and w share
        Rule::new("scale-contract", "(contract ?a (mul ?x ?s) ?w)", "(contract ?a ?x (mul ?w ?t))")
            .when_constant(&["?w", "?s"])
            .when(|m| one_float_type(m, "?w", "?s") && keeps_shape(m))
            .with("?t", |m| {
                let spec = spec(m, "?a")?;
                onto_labels(m, "?s", &spec.lhs, &spec.rhs)
            }),
        // contract(x * s, y) == contract(x, y) * s, one number s
        Rule::new("number-contract", "(contract ?a (mul ?x ?s) ?y)", "(mul (contract ?a ?x ?y) ?s)")
            .when(|m| one_float_type(m, "?x", "?s") && is_number(m) && !m.is_constant("?y")),
        // contract(x, y * s) == contract(x, y) * s, one number s
        Rule::new("contract-number", "(contract ?a ?y (mul ?x ?s))", "(mul (contract ?a ?y ?x) ?s)")
            .when(|m| one_float_type(m, "?x", "?s") && is_number(m) && !m.is_constant("?x")),
        // contract(x + b, w) == contract(x, w) + contract(b, w), b the same in every row
        Rule::new(
            "shift-contract",
            "(contract ?a (add ?x ?b) ?w)",
            "(add (contract ?a ?x ?w) (contract ?a ?row ?w))",
        )
        .when_constant(&["?w", "?b"])
        .when(|m| one_float_type(m, "?w", "?b") && keeps_shape(m))
        .with("?row", |m| {
            let spec = spec(m, "?a")?;
            let (shape, shift) = (m.shape("?x")?, m.shape("?b")?);
            let offset = shape.len().checked_sub(shift.len())?;
            let mut row = Vec::with_capacity(shape.len());
            for (axis, label) in spec.lhs.iter().enumerate() {
                let extent = axis.checked_sub(offset).map_or(Dim::Const(1), |axis| shift[axis].clone());
                if spec.rhs.contains(label) {
                    row.push(shape[axis].clone());
                } else if extent.is(1) {
                    row.push(extent);
                } else {
                    return None;
                }
            }
            Some(Term::apply(Operator::Broadcast { shape: row }, [m.term("?b")?]))
        }),
        // window(x * s) == window(x) * s for sums and means, one s
        Rule::new("scale-window", "(window ?a (mul ?x ?s))", "(mul (window ?a ?x) ?s)")
            .when(|m| {
                let one = m.splat("?s").is_some() && m.shape("?s").is_some_and(|shape| shape.is_empty());
                one && matches!(m.operator("?a"), Some(Operator::Window { kind, .. })
                    if *kind != tcc_ir::words::WindowKind::Max)
            })
            .when(|m| m.dtype("?x").is_some_and(|dtype| dtype.is_float())),
    ]
}

/// True where `?s` is one number of rank 0.
fn is_number(m: &Match) -> bool {
    m.splat("?s").is_some() && m.shape("?s").is_some_and(|shape| shape.is_empty())
}

fn channel_axis(layout: Layout, rank: usize) -> usize {
    match layout {
        Layout::ChannelsFirst => 1,
        Layout::ChannelsLast => rank - 1,
    }
}

fn spec<'a>(m: &'a Match, variable: &str) -> Option<&'a ContractionSpec> {
    match m.operator(variable)? {
        Operator::Contract { spec, .. } => Some(spec),
        _ => None,
    }
}

fn one_float_type(m: &Match, a: &str, b: &str) -> bool {
    m.dtype(a).is_some_and(|dtype| dtype.is_float()) && m.dtype(a) == m.dtype(b)
}

/// True where `?x` alone has the shape of the operand, so that the constant only broadcasts.
fn keeps_shape(m: &Match) -> bool {
    let constant = m.shape("?s").or_else(|| m.shape("?b"));
    match (m.shape("?x"), constant) {
        (Some(x), Some(constant)) => {
            constant.len() <= x.len()
                && constant.iter().rev().zip(x.iter().rev()).all(|(c, x)| c.is(1) || c == x)
        }
        _ => false,
    }
}

/// A constant that varies along `axis` of `rank` at most, as a tensor that varies along `to_axis` of `to_rank`.
fn onto_axis(
    m: &Match,
    variable: &str,
    axis: usize,
    rank: usize,
    to_axis: usize,
    to_rank: usize,
) -> Option<Term> {
    let shape = m.shape(variable)?;
    let offset = rank.checked_sub(shape.len())?;
    let mut extent = Dim::Const(1);
    for (position, dim) in shape.iter().enumerate() {
        if position + offset == axis {
            extent = dim.clone();
        } else if !dim.is(1) {
            return None;
        }
    }
    let mut moved = vec![Dim::Const(1); to_rank];
    moved[to_axis] = extent;
    Some(Term::reshape(m.graph, moved, m.id(variable)?))
}

/// A constant that broadcasts against axes `from`, seen from axes `to`; `None` where it varies along other ones.
fn onto_labels(m: &Match, variable: &str, from: &[u8], to: &[u8]) -> Option<Term> {
    let id: Id = m.id(variable)?;
    let shape = &m.graph.tensor(id)?.shape;
    let mut full = vec![Dim::Const(1); from.len().checked_sub(shape.len())?];
    full.extend(shape.iter().cloned());
    labels_onto(Term::reshape(m.graph, full.clone(), id), &full, from, to)
}

/// As [`onto_labels`], for a term of a shape with as many axes as `from`.
pub(super) fn labels_onto(x: Term, shape: &[Dim], from: &[u8], to: &[u8]) -> Option<Term> {
    if from.iter().zip(shape).any(|(label, dim)| !dim.is(1) && !to.contains(label)) {
        return None;
    }
    let place = |label: &u8| from.iter().position(|candidate| candidate == label);
    // Bring the axes into the order of `to`, those without a place there (all of extent 1) last.
    let mut perm: Vec<usize> = to.iter().filter_map(place).collect();
    perm.extend((0..from.len()).filter(|axis| !to.contains(&from[*axis])));
    let target: Vec<Dim> =
        to.iter().map(|label| place(label).map_or(Dim::Const(1), |axis| shape[axis].clone())).collect();
    let ordered = if permutation::is_identity(&perm) { x } else { Term::transpose(perm, x) };
    Some(Term::apply(Operator::Reshape { shape: target }, [ordered]))
}

#[cfg(test)]
mod tests {
    use crate::rules::{SIMPLIFY, fusion_tests::convolve, testing::*};
    use tcc_ir::scalar::Function as Scalar;

    #[test]
    fn scales_of_output_channels_move_into_filters() {
        for (groups, shape) in [(1usize, [1i64, 3, 5, 4]), (3, [2, 3, 3, 7])] {
            let before = function(|b| {
                let x = input(b, "x", &shape);
                let w = weights(b, 1, &[6, 3 / groups, 2, 3]);
                let y = convolve(b, x, w, 1, 1, groups);
                let s = weights(b, 2, &[6, 1, 1]);
                vec![b.call(Scalar::Mul, &[y, s]).unwrap()]
            });
            let after = rewritten(&before, SIMPLIFY, false);
            assert_eq!(operators(&after), ["convolve"]);
            assert_equivalent(&before, &after);
        }
    }

    #[test]
    fn scales_along_other_axes_stay() {
        let before = function(|b| {
            let x = input(b, "x", &[1, 2, 5, 5]);
            let w = weights(b, 1, &[5, 2, 3, 3]);
            let y = convolve(b, x, w, 1, 1, 1);
            let s = weights(b, 2, &[5]);
            vec![b.call(Scalar::Mul, &[y, s]).unwrap()]
        });
        let after = rewritten(&before, SIMPLIFY, false);
        assert_eq!(operators(&after), ["convolve", "map"]);
        assert_equivalent(&before, &after);
    }

    #[test]
    fn scales_around_contractions_move_into_weights() {
        let before = function(|b| {
            let x = input(b, "x", &[2, 3, 5]);
            let gain = weights(b, 1, &[5]);
            let x = b.call(Scalar::Mul, &[x, gain]).unwrap();
            let w = weights(b, 2, &[7, 5]);
            let y = b.contract("amk,nk->amn".parse().unwrap(), x, w).unwrap();
            let s = weights(b, 3, &[1, 7]);
            vec![b.call(Scalar::Mul, &[y, s]).unwrap()]
        });
        let after = rewritten(&before, SIMPLIFY, false);
        assert_eq!(operators(&after), ["contract"]);
        assert_equivalent(&before, &after);
    }

    #[test]
    fn scales_of_rows_stay() {
        let before = function(|b| {
            let x = input(b, "x", &[3, 5]);
            let w = weights(b, 2, &[5, 3]);
            let y = b.contract("mk,kn->mn".parse().unwrap(), x, w).unwrap();
            let s = weights(b, 3, &[3, 1]);
            vec![b.call(Scalar::Mul, &[y, s]).unwrap()]
        });
        let after = rewritten(&before, SIMPLIFY, false);
        assert_eq!(operators(&after), ["contract", "map"]);
        assert_equivalent(&before, &after);
    }

    #[test]
    fn shifts_before_contractions_become_biases() {
        let before = function(|b| {
            let x = input(b, "x", &[2, 3, 5]);
            let shift = weights(b, 1, &[5]);
            let x = b.call(Scalar::Add, &[x, shift]).unwrap();
            let w = weights(b, 2, &[5, 4]);
            vec![b.contract("amk,kn->amn".parse().unwrap(), x, w).unwrap()]
        });
        let after = rewritten(&before, SIMPLIFY, true);
        assert_eq!(operators(&after), ["contract"]);
        assert_equivalent(&before, &after);
    }

    #[test]
    fn filters_that_only_the_run_knows_keep_their_scale() {
        let before = function(|b| {
            let x = input(b, "x", &[1, 2, 4, 4]);
            let w = input(b, "w", &[3, 2, 3, 3]);
            let y = convolve(b, x, w, 1, 0, 1);
            let s = weights(b, 2, &[3, 1, 1]);
            vec![b.call(Scalar::Mul, &[y, s]).unwrap()]
        });
        let after = rewritten(&before, SIMPLIFY, false);
        assert_eq!(operators(&after), ["convolve", "map"]);
        assert_equivalent(&before, &after);
    }
}
