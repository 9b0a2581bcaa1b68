//! Scalar functions of fixed-point numbers in the local format.

use tcc_ir::scalar::Function;

use super::{Exact, Fixed, Table};

/// The quotient, cut off after the last bit; a division by zero saturates. None where it needs too many bits.
pub(super) fn quotient(a: Exact, b: Exact, format: Fixed) -> Option<Exact> {
    let (a, b) = (a.rounded(format), b.rounded(format));
    let fraction = format.fraction();
    if b.is_zero() {
        let limit = 1i128 << (format.width - 1).min(126);
        return Some(Exact { mantissa: if a.mantissa < 0 { -limit } else { limit - 1 }, fraction });
    }
    let numerator = Exact { mantissa: a.mantissa, fraction: 0 }
        .times(Exact { mantissa: power(fraction)?, fraction: 0 })?;
    Some(Exact { mantissa: numerator.mantissa / b.mantissa, fraction }.rounded(format))
}

fn power(exponent: u32) -> Option<i128> {
    (exponent <= 126).then(|| 1i128 << exponent)
}

/// The square root, cut off after the last bit; 0 of negative numbers.
fn square_root(x: Exact, format: Fixed) -> Option<Exact> {
    let x = x.rounded(format);
    let fraction = format.fraction();
    let square = x.mantissa.max(0).checked_mul(power(fraction)?)?;
    Some(Exact { mantissa: square.isqrt(), fraction }.rounded(format))
}

/// The natural logarithm; the smallest number of the format for arguments that are not positive.
fn logarithm(x: Exact, format: Fixed) -> Option<Exact> {
    let x = x.rounded(format);
    let fraction = format.fraction();
    if x.mantissa <= 0 {
        return Some(Exact { mantissa: -(1i128 << (format.width - 1).min(126)), fraction });
    }
    // x = octave * 2^(highest - fraction) with 1 <= octave < 2.
    let highest = x.mantissa.ilog2();
    let octave = Exact { mantissa: x.mantissa, fraction: highest };
    // Wide enough for one octave, with the fraction of the format.
    let octave = octave.rounded(Fixed { width: fraction + 4, integer: 4 });
    let table = Table::of(Function::Log)?;
    let whole = Exact::whole(i64::from(highest) - i64::from(fraction));
    let two = Exact::nearest(std::f64::consts::LN_2, format);
    Some(table.look_up(octave, format)?.plus(whole.times(two)?)?.rounded(format))
}

/// A function of one argument, rounded to the format; an outer none where fixed point does not have it, an inner one where
/// it needs too many bits.
pub(super) fn unary(function: Function, x: Exact, format: Fixed) -> Option<Option<Exact>> {
    let local = x.rounded(format);
    let whole = |value: i128| Some(Exact { mantissa: value, fraction: 0 }.rounded(format));
    Some(match function {
        Function::Neg => x.negated(),
        Function::Abs => {
            if local.mantissa < 0 {
                local.negated().map(|x| x.rounded(format))
            } else {
                Some(local)
            }
        }
        Function::Sign => whole(local.mantissa.signum()),
        Function::Floor => whole(local.floor()),
        Function::Ceil => local.negated().map(|x| -x.floor()).and_then(whole),
        Function::Round => {
            let wide =
                Fixed { width: (format.integer + 2).max(2) as u32, integer: (format.integer + 2).max(2) };
            Some(local.rounded(wide).rounded(format))
        }
        Function::Trunc => whole(local.truncated()),
        Function::Reciprocal => quotient(Exact::whole(1), x, format),
        Function::Sqrt => square_root(x, format),
        Function::Log => logarithm(x, format),
        _ => Table::of(function)?.look_up(local, format),
    })
}
