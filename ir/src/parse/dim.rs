//! Dimension expressions: sums of products of integers, symbols and calls of `floordiv`, `mod`, `min`, `max`.

use super::ParseError;
use super::cursor::Cursor;
use crate::dim::{Dim, Symbol};

type Result<T> = std::result::Result<T, ParseError>;

/// Products of sums grow with the product of their lengths; beyond this the text is refused.
const MAX_TERMS: usize = 1024;

/// A sum.
pub(super) fn dim(cursor: &mut Cursor) -> Result<Dim> {
    cursor.nested(|cursor| {
        let mut sum = product(cursor)?;
        loop {
            if cursor.eat("+") {
                sum = sum + product(cursor)?;
            } else if cursor.looking_at("-") {
                // `product` reads the sign.
                sum = sum + product(cursor)?;
            } else {
                return Ok(sum);
            }
            check_size(cursor, sum.term_count())?;
        }
    })
}

/// A product with an optional sign.
fn product(cursor: &mut Cursor) -> Result<Dim> {
    // The sign belongs to an integer that follows it, so that the smallest integer can be written.
    let negative = !starts_negative_integer(cursor) && cursor.eat("-");
    let mut product = factor(cursor)?;
    while cursor.eat("*") {
        let next = factor(cursor)?;
        check_size(cursor, product.term_count().saturating_mul(next.term_count()))?;
        product = product * next;
    }
    Ok(if negative { -product } else { product })
}

fn starts_negative_integer(cursor: &mut Cursor) -> bool {
    let mut ahead = cursor.clone();
    ahead.eat("-") && ahead.peek().is_some_and(|byte| byte.is_ascii_digit())
}

fn factor(cursor: &mut Cursor) -> Result<Dim> {
    cursor.skip_space();
    match cursor.peek() {
        Some(byte) if byte.is_ascii_digit() || byte == b'-' => cursor.integer().map(Dim::Const),
        Some(b'(') => {
            cursor.expect("(")?;
            let inner = dim(cursor)?;
            cursor.expect(")")?;
            Ok(inner)
        }
        _ => {
            let start = cursor.clone();
            let name = cursor.identifier()?;
            if !cursor.looking_at("(") {
                return if Symbol::is_valid_name(name) {
                    Ok(Dim::named(name))
                } else {
                    start.error(format!("'{name}' is no name of a symbol"))
                };
            }
            cursor.expect("(")?;
            let a = dim(cursor)?;
            cursor.expect(",")?;
            let b = dim(cursor)?;
            cursor.expect(")")?;
            match name {
                "floordiv" => Ok(a.floor_div(&b)),
                "mod" => Ok(a.modulo(&b)),
                "min" => Ok(a.minimum(&b)),
                "max" => Ok(a.maximum(&b)),
                _ => start.error(format!("unknown function '{name}' in a dimension")),
            }
        }
    }
}

fn check_size(cursor: &Cursor, terms: usize) -> Result<()> {
    if terms > MAX_TERMS { cursor.error("the dimension has too many terms") } else { Ok(()) }
}
