//! GELU in all its spellings becomes `x * (0.5 * f(y) + 0.5)`, with `f` the error function or its tanh approximation.

use tcc_ir::scalar::Scalar;

use crate::egraph::rule::{Match, Rule};
use crate::egraph::term::Term;

fn half(m: &Match) -> Option<Term> {
    Term::number(Scalar::float(m.result()?.dtype(), 0.5))
}

/// The rules of this topic.
pub fn rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for (names, function) in [
        (["gelu-last", "gelu-first", "gelu-middle"], "erf"),
        (["gelu-tanh-last", "gelu-tanh-first", "gelu-tanh-middle"], "tanh"),
    ] {
        let cumulative = format!("(mul ?x (add (mul ({function} ?y) ?half) ?half))");
        let spellings = [
            // x * (f(y) + 1) * 0.5
            format!("(mul (mul ?x (add ({function} ?y) 1)) 0.5)"),
            // (x * 0.5) * (f(y) + 1)
            format!("(mul (mul ?x 0.5) (add ({function} ?y) 1))"),
            // x * ((f(y) + 1) * 0.5)
            format!("(mul ?x (mul (add ({function} ?y) 1) 0.5))"),
        ];
        for (name, spelling) in names.into_iter().zip(spellings) {
            rules.push(Rule::new(name, &spelling, &cumulative).with("?half", half));
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use crate::rules::{SIMPLIFY, testing::*};
    use tcc_ir::builder::Builder;
    use tcc_ir::module::{Function, Value};
    use tcc_ir::operator::Operator;
    use tcc_ir::scalar::Function as Scalar;

    fn cumulative(b: &mut Builder, x: Value, one: f64) -> Value {
        let y = b.call_with(Scalar::Div, x, std::f64::consts::SQRT_2).unwrap();
        let y = b.call(Scalar::Erf, &[y]).unwrap();
        b.call_with(Scalar::Add, y, one).unwrap()
    }

    fn spelled(order: usize, one: f64) -> Function {
        function(|b| {
            let x = input(b, "x", &[3, 7]);
            let c = cumulative(b, x, one);
            let y = match order {
                0 => {
                    let product = b.call(Scalar::Mul, &[x, c]).unwrap();
                    b.call_with(Scalar::Mul, product, 0.5).unwrap()
                }
                1 => {
                    let half = b.call_with(Scalar::Mul, x, 0.5).unwrap();
                    b.call(Scalar::Mul, &[half, c]).unwrap()
                }
                _ => {
                    let half = b.call_with(Scalar::Mul, c, 0.5).unwrap();
                    b.call(Scalar::Mul, &[x, half]).unwrap()
                }
            };
            vec![y]
        })
    }

    fn body(function: &Function) -> String {
        let found = function.body.operations.iter().find_map(|operation| match &operation.operator {
            Operator::Map { body } => Some(body.to_string()),
            _ => None,
        });
        found.unwrap()
    }

    #[test]
    fn spellings_meet() {
        let bodies: Vec<String> = (0..3)
            .map(|order| {
                let before = spelled(order, 1.0);
                let after = rewritten(&before, SIMPLIFY, true);
                assert_equivalent(&before, &after);
                assert_eq!(operators(&after), ["map"]);
                body(&after)
            })
            .collect();
        assert_eq!(bodies[0], bodies[1]);
        assert_eq!(bodies[1], bodies[2]);
    }

    #[test]
    fn another_constant_is_kept() {
        let before = spelled(1, 2.0);
        let after = rewritten(&before, SIMPLIFY, true);
        assert!(body(&after) != body(&rewritten(&spelled(1, 1.0), SIMPLIFY, true)));
        assert_equivalent(&before, &after);
    }
}
