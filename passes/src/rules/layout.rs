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
