//! The logistic function written out, and with it SiLU, `x * sigmoid(x)`.

use crate::egraph::rule::Rule;

/// The rules of this topic.
pub fn rules() -> Vec<Rule> {
    vec![
        // 1 / (exp(-x) + 1) == sigmoid(x)
        Rule::new("sigmoid", "(reciprocal (add (exp (neg ?x)) 1))", "(sigmoid ?x)"),
        // y / (exp(-x) + 1) == y * sigmoid(x)
        Rule::new("sigmoid-quotient", "(div ?y (add (exp (neg ?x)) 1))", "(mul ?y (sigmoid ?x))"),
        // exp(x) / (exp(x) + 1) == sigmoid(x)
        Rule::new("sigmoid-exponentials", "(div (exp ?x) (add (exp ?x) 1))", "(sigmoid ?x)"),
    ]
}

#[cfg(test)]
mod tests {
    use crate::rules::{SIMPLIFY, testing::*};
    use tcc_ir::operator::Operator;
    use tcc_ir::scalar::Function as Scalar;

    fn logistic(one: f64) -> tcc_ir::module::Function {
        function(|b| {
            let x = input(b, "x", &[3, 5]);
            let negative = b.call(Scalar::Neg, &[x]).unwrap();
            let power = b.call(Scalar::Exp, &[negative]).unwrap();
            let sum = b.call_with(Scalar::Add, power, one).unwrap();
            vec![b.call(Scalar::Div, &[x, sum]).unwrap()]
        })
    }

    fn bodies(function: &tcc_ir::module::Function) -> String {
        let bodies = function.body.operations.iter().filter_map(|operation| match &operation.operator {
            Operator::Map { body } => Some(body.to_string()),
            _ => None,
        });
        bodies.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_quotient_becomes_silu() {
        let before = logistic(1.0);
        let after = rewritten(&before, SIMPLIFY, true);
        assert_eq!(bodies(&after), "(1) t0 = sigmoid(a0); t1 = mul(a0, t0); t1");
        assert_equivalent(&before, &after);
    }

    #[test]
    fn another_addend_stays() {
        let before = logistic(2.0);
        let after = rewritten(&before, SIMPLIFY, true);
        assert!(!bodies(&after).contains("sigmoid"));
        assert_equivalent(&before, &after);
    }
}
