//! Softmax written out: exponentials over their sum, with or without subtraction of the maximum.

use tcc_ir::operator::Operator;
use tcc_ir::words::ReduceKind;

use crate::egraph::rule::{Match, Rule};

/// The single axis of a plain reduction of `kind` that keeps its axes.
fn axis(m: &Match, variable: &str, kind: ReduceKind) -> Option<usize> {
    match m.operator(variable)? {
        Operator::Reduce { kind: found, axes, keep: true, prologue, epilogue }
            if *found == kind && prologue.is_identity() && epilogue.is_identity() && axes.len() == 1 =>
        {
            Some(axes[0])
        }
        _ => None,
    }
}

fn softmax(m: &Match) -> Option<Operator> {
    let axis_of_sum = axis(m, "?s", ReduceKind::Sum)?;
    if m.id("?m").is_some() && axis(m, "?m", ReduceKind::Max)? != axis_of_sum {
        return None;
    }
    Some(Operator::Softmax { axis: axis_of_sum, log: false })
}

/// The rules of this topic.
pub fn rules() -> Vec<Rule> {
    let stable = "(exp (sub ?x (reduce ?m ?x)))";
    vec![
        // exp(x - max) / sum(exp(x - max)) == softmax(x)
        Rule::new("softmax", &format!("(div {stable} (reduce ?s {stable}))"), "(softmax ?a ?x)")
            .attributes("?a", softmax),
        Rule::new(
            "softmax-product",
            &format!("(mul {stable} (reciprocal (reduce ?s {stable})))"),
            "(softmax ?a ?x)",
        )
        .attributes("?a", softmax),
        // exp(x) / sum(exp(x)) == softmax(x)
        Rule::new("softmax-plain", "(div (exp ?x) (reduce ?s (exp ?x)))", "(softmax ?a ?x)")
            .attributes("?a", softmax),
        // log(softmax(x)) == log_softmax(x)
        Rule::new("log-softmax", "(log (softmax ?a ?x))", "(softmax ?b ?x)").attributes("?b", |m| {
            match m.operator("?a")? {
                Operator::Softmax { axis, log: false } => Some(Operator::Softmax { axis: *axis, log: true }),
                _ => None,
            }
        }),
        // (x - max) - log(sum(exp(x - max))) == log_softmax(x)
        Rule::new(
            "log-softmax-sums",
            &format!("(sub (sub ?x (reduce ?m ?x)) (log (reduce ?s {stable})))"),
            "(softmax ?a ?x)",
        )
        .attributes("?a", |m| match softmax(m)? {
            Operator::Softmax { axis, .. } => Some(Operator::Softmax { axis, log: true }),
            _ => None,
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{SIMPLIFY, testing::*};
    use tcc_ir::builder::Builder;
    use tcc_ir::module::Value;
    use tcc_ir::scalar::Function as Scalar;

    fn written_out(b: &mut Builder, x: Value, axis: usize) -> Value {
        let largest = b.reduce(ReduceKind::Max, x, vec![axis], true).unwrap();
        let shifted = b.call(Scalar::Sub, &[x, largest]).unwrap();
        let powers = b.call(Scalar::Exp, &[shifted]).unwrap();
        let sum = b.reduce(ReduceKind::Sum, powers, vec![axis], true).unwrap();
        b.call(Scalar::Div, &[powers, sum]).unwrap()
    }

    #[test]
    fn exponentials_over_their_sum_are_a_softmax() {
        for shape in [[1i64, 1, 7], [2, 3, 5], [3, 0, 4]] {
            let before = function(|b| {
                let x = input(b, "x", &shape);
                vec![written_out(b, x, 2)]
            });
            let after = rewritten(&before, SIMPLIFY, false);
            assert_eq!(operators(&after), ["softmax"]);
            assert_equivalent(&before, &after);
        }
    }

    #[test]
    fn a_sum_over_more_axes_is_no_softmax() {
        let before = function(|b| {
            let x = input(b, "x", &[2, 3, 5]);
            let powers = b.call(Scalar::Exp, &[x]).unwrap();
            let sum = b.reduce(ReduceKind::Sum, powers, vec![1, 2], true).unwrap();
            vec![b.call(Scalar::Div, &[powers, sum]).unwrap()]
        });
        let after = rewritten(&before, SIMPLIFY, false);
        assert!(!operators(&after).contains(&"softmax"));
        assert_equivalent(&before, &after);
    }

    #[test]
    fn the_logarithm_joins() {
        let before = function(|b| {
            let x = input(b, "x", &[4, 6]);
            let y = written_out(b, x, 1);
            vec![b.call(Scalar::Log, &[y]).unwrap()]
        });
        let after = rewritten(&before, SIMPLIFY, false);
        assert_eq!(operators(&after), ["softmax"]);
        assert_equivalent(&before, &after);
    }
}
