use tcc_ir::scalar::Function;

use super::functions::{quotient, unary};
use super::{Exact, Fixed, Table};

const FORMAT: Fixed = Fixed { width: 40, integer: 20 };

fn number(value: f64) -> Exact {
    Exact::nearest(value, FORMAT)
}

#[test]
fn the_range_is_that_of_twos_complement() {
    assert_eq!(Fixed { width: 8, integer: 4 }.range(), (-8.0, 7.9375));
    assert_eq!(Fixed { width: 8, integer: -1 }.fraction(), 9);
    for (magnitude, bits) in [(0.9, 1), (1.0, 2), (7.9, 4), (8.0, 5), (0.1, -2), (0.0, 1)] {
        assert_eq!(Fixed::integer_bits(magnitude), bits, "{magnitude}");
    }
}

#[test]
fn rounding_takes_halves_to_even_and_saturates() {
    let format = Fixed { width: 6, integer: 4 };
    for (value, expected) in
        [(0.125, 0.0), (0.375, 0.5), (-0.125, 0.0), (-0.375, -0.5), (100.0, 7.75), (-9.0, -8.0)]
    {
        assert_eq!(number(value).rounded(format).to_f64(), expected, "{value}");
        assert_eq!(Exact::nearest(value, format).to_f64(), expected, "{value}");
    }
}

#[test]
fn interpolation_is_accurate() {
    for function in [Function::Exp, Function::Sigmoid, Function::Tanh, Function::Erf, Function::Log] {
        let table = Table::of(function).unwrap();
        assert!(table.error(FORMAT) < 1e-4, "{function:?}: {}", table.error(FORMAT));
    }
    assert_eq!(Table::of(Function::Pow), None);
}

#[test]
fn functions_are_near_those_of_real_numbers() {
    let value = |function, x| unary(function, number(x), FORMAT).unwrap().unwrap().to_f64();
    for x in [0.001, 0.3, 1.0, 1.9, 2.0, 7.7, 1000.0, 5000.5] {
        assert!((value(Function::Sqrt, x) - x.sqrt()).abs() < 2e-4, "sqrt {x}");
        assert!((value(Function::Log, x) - x.ln()).abs() < 1e-3, "log {x}");
        // The divisor is rounded to half a step, which counts by the slope of 1 / x, and the quotient is cut off.
        let step = f64::exp2(-f64::from(FORMAT.fraction()));
        let bound = step + 1.001 * step / 2.0 / (x * x);
        let found = quotient(number(1.0), number(x), FORMAT).unwrap().to_f64();
        assert!((found - 1.0 / x).abs() < bound, "1 / {x}: {found}");
    }
    for x in [-3.5, -2.5, -0.5, 0.5, 1.5, 2.25] {
        assert_eq!(value(Function::Floor, x), x.floor());
        assert_eq!(value(Function::Ceil, x), x.ceil());
        assert_eq!(value(Function::Round, x), x.round_ties_even());
        assert_eq!(value(Function::Trunc, x), x.trunc());
    }
    assert_eq!(quotient(number(-1.0), number(0.0), FORMAT).unwrap().to_f64(), FORMAT.range().0);
    assert!(unary(Function::Pow, number(1.0), FORMAT).is_none());
}
