//! Reshapes, broadcasts and slices that merge, cancel or do nothing.

use tcc_ir::dim::Dim;
use tcc_ir::operator::Operator;

use crate::egraph::rule::{Match, Rule};

fn same_type(m: &Match) -> bool {
    m.tensor("?x").is_some() && m.tensor("?x") == m.result()
}

/// The rules of this topic.
pub fn rules() -> Vec<Rule> {
    vec![
        // reshape to the same shape == x
        Rule::new("reshape-none", "(reshape ?a ?x)", "?x").when(same_type),
        // reshape(a, reshape(b, x)) == reshape(a, x)
        Rule::new("reshape-reshape", "(reshape ?a (reshape ?b ?x))", "(reshape ?a ?x)"),
        // broadcast to the same shape == x
        Rule::new("broadcast-none", "(broadcast ?a ?x)", "?x").when(same_type),
        // broadcast(a, broadcast(b, x)) == broadcast(a, x)
        Rule::new("broadcast-broadcast", "(broadcast ?a (broadcast ?b ?x))", "(broadcast ?a ?x)"),
        // a broadcast that only adds leading ones is a reshape
        Rule::new("broadcast-leading-ones", "(broadcast ?a ?x)", "(reshape ?shape ?x)")
            .when(|m| {
                m.result().zip(m.shape("?x")).is_some_and(|(result, shape)| {
                    let added = result.rank().saturating_sub(shape.len());
                    added > 0
                        && result.shape[added..] == *shape
                        && result.shape[..added].iter().all(|dim| dim.is(1))
                })
            })
            .attributes("?shape", |m| Some(Operator::Reshape { shape: m.result()?.shape.clone() })),
        // slice of everything == x
        Rule::new("slice-none", "(slice ?a ?x)", "?x").when(|m| {
            same_type(m)
                && matches!(m.operator("?a"), Some(Operator::Slice { starts, steps, .. })
                    if starts.iter().all(|start| start.is(0)) && steps.iter().all(|step| *step == 1))
        }),
        // slice(a, slice(b, x)) == slice(c, x)
        Rule::new("slice-slice", "(slice ?a (slice ?b ?x))", "(slice ?c ?x)").attributes("?c", |m| {
            let (
                Operator::Slice { starts, sizes, steps },
                Operator::Slice { starts: inner, steps: strides, .. },
            ) = (m.operator("?a")?, m.operator("?b")?)
            else {
                return None;
            };
            let starts = starts
                .iter()
                .zip(inner)
                .zip(strides)
                .map(|((outer, inner), stride)| inner.clone() + outer.clone() * Dim::Const(*stride))
                .collect();
            let steps = steps.iter().zip(strides).map(|(a, b)| a.checked_mul(*b)).collect::<Option<_>>()?;
            Some(Operator::Slice { starts, sizes: sizes.clone(), steps })
        }),
        // concat of one tensor == x
        Rule::new("concat-one", "(concat ?a ?x)", "?x"),
        // pad by nothing == x
        Rule::new("pad-none", "(pad ?a ?x ?v)", "?x").when(|m| {
            matches!(m.operator("?a"), Some(Operator::Pad { low, high, .. })
                if low.iter().chain(high).all(|amount| amount.is(0)))
        }),
    ]
}
