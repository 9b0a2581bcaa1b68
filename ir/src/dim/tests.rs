use proptest::prelude::*;

use super::*;

fn n() -> Dim {
    Dim::named("n")
}

#[test]
fn arithmetic_is_canonical() {
    let a = (n() + 1.into()) * (n() - 1.into());
    assert_eq!(a, n() * n() - 1.into());
    assert_eq!(a.to_string(), "n*n-1");
    assert_eq!(n() - n(), Dim::Const(0));
}

#[test]
fn division_splits_off_what_divides() {
    let d = (n() * 4.into() + 7.into()).floor_div(&4.into());
    assert_eq!(d, n() + 1.into());
    assert_eq!((n() * Dim::named("m")).floor_div(&n()), Dim::named("m"));
    assert_eq!(Dim::Const(-7).floor_div(&2.into()), Dim::Const(-4));
    let sum = n() + Dim::named("m");
    assert_eq!((sum.clone() * 3.into()).floor_div(&sum), Dim::Const(3));
}

#[test]
fn evaluation_reports_what_is_missing() {
    let d = (n() + 6.into()).floor_div(&2.into());
    assert_eq!(d.evaluate(&|_| Some(5)), Ok(5));
    assert_eq!(d.evaluate(&|_| None), Err(DimError::Unbound(Symbol::new("n"))));
    assert!(matches!((n() * n()).evaluate(&|_| Some(i64::MAX)), Err(DimError::Overflow(_))));
}

#[test]
fn bounds_follow_ranges() {
    let d = n() * 2.into() + 3.into();
    assert_eq!(d.bounds(&|_| Range { low: 1, high: 8 }), Range { low: 5, high: 19 });
    assert_eq!(d.bounds(&|_| Range::default()).high, i64::MAX);
}

/// An expression that is evaluated without [`Dim`].
#[derive(Clone, Debug)]
enum Expr {
    Number(i64),
    Symbol(&'static str),
    Binary(&'static str, Box<Expr>, Box<Expr>),
}

impl Expr {
    fn dim(&self) -> Dim {
        match self {
            Expr::Number(value) => Dim::Const(*value),
            Expr::Symbol(name) => Dim::named(name),
            Expr::Binary(operator, a, b) => {
                let (a, b) = (a.dim(), b.dim());
                match *operator {
                    "+" => a + b,
                    "-" => a - b,
                    "*" => a * b,
                    "floordiv" => a.floor_div(&b),
                    "mod" => a.modulo(&b),
                    "min" => a.minimum(&b),
                    _ => a.maximum(&b),
                }
            }
        }
    }

    /// `None` where a division by zero occurs anywhere.
    fn value(&self, n: i64, m: i64) -> Option<i64> {
        Some(match self {
            Expr::Number(value) => *value,
            Expr::Symbol(name) => {
                if *name == "n" {
                    n
                } else {
                    m
                }
            }
            Expr::Binary(operator, a, b) => {
                let (a, b) = (a.value(n, m)?, b.value(n, m)?);
                match *operator {
                    "+" => a + b,
                    "-" => a - b,
                    "*" => a * b,
                    "floordiv" | "mod" if b == 0 => return None,
                    "floordiv" => (a as f64 / b as f64).floor() as i64,
                    "mod" => a - b * (a as f64 / b as f64).floor() as i64,
                    "min" => a.min(b),
                    _ => a.max(b),
                }
            }
        })
    }
}

fn expressions() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        (-6i64..7).prop_map(Expr::Number),
        prop::sample::select(vec!["n", "m"]).prop_map(Expr::Symbol)
    ];
    leaf.prop_recursive(4, 12, 2, |inner| {
        let operator = prop::sample::select(vec!["+", "-", "*", "floordiv", "mod", "min", "max"]);
        (operator, inner.clone(), inner).prop_map(|(op, a, b)| Expr::Binary(op, Box::new(a), Box::new(b)))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn canonical_forms_keep_their_value(expr in expressions(), n in 0i64..9, m in 0i64..9) {
        let dim = expr.dim();
        prop_assert_eq!(crate::parse::dim(&dim.to_string()), Ok(dim.clone()));
        let bind = |symbol: &Symbol| Some(if symbol.name() == "n" { n } else { m });
        let Some(value) = expr.value(n, m) else { return Ok(()) };
        prop_assert_eq!(dim.evaluate(&bind), Ok(value), "{}", dim);
        let constant = dim.substitute(&|symbol| bind(symbol).map(Dim::Const));
        prop_assert_eq!(constant, Dim::Const(value), "{}", dim);
        let range = dim.bounds(&|_| Range { low: 0, high: 8 });
        prop_assert!(range.low <= value && value <= range.high, "{} is {} in {:?}", dim, value, range);
    }
}
