//! Convolutions and windows with channels last: transposes around them meet and cancel between operators, and those on
//! filters happen at compile time. Where too few cancel, the cost of the rest keeps channels first.

use tcc_ir::operator::Operator;
use tcc_ir::words::Layout;

use super::permutation;
use crate::egraph::rule::{Match, Rule};
use crate::egraph::term::Term;

/// The rules of this topic.
pub fn rules() -> Vec<Rule> {
    let rank = |m: &Match| m.tensor("?x").map(|ty| ty.rank());
    vec![
        // convolve(first, x, w) == to_first(convolve(last, to_last(x), filter_to_last(w)))
        Rule::new("convolve-channels-last", "(convolve ?a ?x ?w)", "?y").with("?y", move |m| {
            let rank = rank(m)?;
            around(
                m,
                channels_last(m.operator("?a")?)?,
                [to_last(m, "?x", rank)?, filter_to_last(m, "?w", rank)?],
            )
        }),
        // convolve_transpose(first, x, w) == to_first(convolve_transpose(last, to_last(x), filter_to_last(w)))
        Rule::new("convolve-transpose-channels-last", "(convolve_transpose ?a ?x ?w)", "?y").with(
            "?y",
            move |m| {
                let rank = rank(m)?;
                around(
                    m,
                    channels_last(m.operator("?a")?)?,
                    [to_last(m, "?x", rank)?, filter_to_last(m, "?w", rank)?],
                )
            },
        ),
        // window(first, x) == to_first(window(last, to_last(x)))
        Rule::new("window-channels-last", "(window ?a ?x)", "?y")
            .with("?y", move |m| around(m, channels_last(m.operator("?a")?)?, [to_last(m, "?x", rank(m)?)?])),
    ]
}

fn to_last(m: &Match, variable: &str, rank: usize) -> Option<Term> {
    Some(Term::transpose(permutation::to_channels_last(rank), m.term(variable)?))
}

/// `[out, in/groups, spatial...]` to `[spatial..., in/groups, out]`.
fn filter_to_last(m: &Match, variable: &str, rank: usize) -> Option<Term> {
    let perm: Vec<usize> = (2..rank).chain([1, 0]).collect();
    Some(Term::transpose(perm, m.term(variable)?))
}

fn around(m: &Match, operator: Operator, operands: impl IntoIterator<Item = Term>) -> Option<Term> {
    Some(Term::transpose(permutation::to_channels_first(m.result()?.rank()), Term::apply(operator, operands)))
}

/// The operator with channels last; `None` where it has that already.
fn channels_last(operator: &Operator) -> Option<Operator> {
    let mut changed = operator.clone();
    match &mut changed {
        Operator::Convolve { layout, .. }
        | Operator::ConvolveTranspose { layout, .. }
        | Operator::Window { layout, .. }
            if *layout == Layout::ChannelsFirst =>
        {
            *layout = Layout::ChannelsLast;
            Some(changed)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{LAYOUT, fusion_tests::convolve, testing::*};
    use tcc_ir::dtype::DType;
    use tcc_ir::module::Function;
    use tcc_ir::scalar::{Function as Scalar, ScalarExpr};
    use tcc_ir::words::{ReduceKind, WindowKind};

    fn count(function: &Function, name: &str) -> usize {
        operators(function).iter().filter(|found| **found == name).count()
    }

    #[test]
    fn transposes_between_convolutions_cancel() {
        let before = function(|b| {
            let x = input(b, "x", &[1, 16, 19, 23]);
            let w = weights(b, 1, &[32, 16, 3, 3]);
            let y = convolve(b, x, w, 1, 1, 1);
            let y = b.call_with(Scalar::Max, y, 0.0).unwrap();
            let operator = Operator::Window {
                kind: WindowKind::Max,
                layout: Layout::ChannelsFirst,
                size: vec![2, 2],
                strides: vec![2, 2],
                dilations: vec![1, 1],
                pads: vec![0, 0, 1, 1],
                ceil: false,
            };
            let y = b.op1(operator, &[y]).unwrap();
            let v = weights(b, 2, &[16, 32, 1, 1]);
            let z = convolve(b, y, v, 1, 0, 1);
            let joined = b.op1(Operator::Concat { axis: 1 }, &[y, z]).unwrap();
            let u = weights(b, 3, &[8, 48, 3, 3]);
            let out = convolve(b, joined, u, 1, 1, 1);
            let pooled = b.reduce(ReduceKind::Max, out, vec![2, 3], true).unwrap();
            vec![b.reshape(pooled, vec![1.into(), 8.into()]).unwrap()]
        });
        let after = rewritten(&before, LAYOUT, true);
        assert!(count(&after, "transpose") <= 1, "{:?}", operators(&after));
        let last = after.body.operations.iter().filter(|operation| {
            matches!(&operation.operator,
                Operator::Convolve { layout, .. } | Operator::Window { layout, .. } if *layout == Layout::ChannelsLast)
        });
        assert_eq!(last.count(), 4);
        assert_equivalent(&before, &after);
    }

    #[test]
    fn transposed_convolutions_too() {
        let before = function(|b| {
            let x = input(b, "x", &[1, 8, 9, 7]);
            let w = weights(b, 1, &[8, 12, 2, 2]);
            let operator = Operator::ConvolveTranspose {
                layout: Layout::ChannelsFirst,
                groups: 1,
                strides: vec![2, 2],
                dilations: vec![1, 1],
                pads: vec![0, 1, 0, 1],
                output_pads: vec![0, 0],
                accumulator: DType::F32,
                epilogue: ScalarExpr::identity(),
            };
            let y = b.op1(operator, &[x, w]).unwrap();
            vec![b.reduce(ReduceKind::Sum, y, vec![1, 2, 3], false).unwrap()]
        });
        let after = rewritten(&before, LAYOUT, false);
        assert_equivalent(&before, &after);
    }

    #[test]
    fn a_lone_window_on_little_data_is_left_alone() {
        let before = function(|b| {
            let x = input(b, "x", &[1, 1, 3, 3]);
            let operator = Operator::Window {
                kind: WindowKind::Sum,
                layout: Layout::ChannelsFirst,
                size: vec![2, 2],
                strides: vec![1, 1],
                dilations: vec![1, 1],
                pads: vec![0; 4],
                ceil: false,
            };
            vec![b.op1(operator, &[x]).unwrap()]
        });
        let after = rewritten(&before, LAYOUT, false);
        assert_eq!(count(&after, "transpose"), 0);
        assert_equivalent(&before, &after);
    }
}
