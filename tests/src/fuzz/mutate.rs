//! Changes to bytes that know nothing of a format.

use arbitrary::{Arbitrary, Result, Unstructured};

/// A change at one place.
#[derive(Arbitrary, Debug)]
enum Change {
    /// Flips a bit.
    Flip(u8),
    /// Another byte.
    Replace(u8),
    /// A number that sizes and offsets go wrong at.
    Extreme(Extreme),
    /// Takes bytes out.
    Remove(u16),
    /// Writes bytes twice.
    Repeat(u8),
    /// Nothing from here on.
    Truncate,
}

/// Numbers at the ends of their ranges, least significant byte first.
#[derive(Arbitrary, Debug)]
pub enum Extreme {
    /// All bits clear.
    Zero,
    /// All bits set: -1.
    Ones,
    /// The largest of so many bytes with a sign.
    Largest,
    /// The smallest of so many bytes with a sign.
    Smallest,
}

impl Extreme {
    /// The number.
    pub fn value(&self) -> i64 {
        match self {
            Extreme::Zero => 0,
            Extreme::Ones => -1,
            Extreme::Largest => i64::MAX,
            Extreme::Smallest => i64::MIN,
        }
    }
}

/// Changes one place.
pub fn bytes(file: &[u8], source: &mut Unstructured) -> Result<Vec<u8>> {
    let mut changed = file.to_vec();
    if file.is_empty() {
        return Ok(changed);
    }
    let at = source.choose_index(file.len())?;
    match Change::arbitrary(source)? {
        Change::Flip(bit) => changed[at] ^= 1 << (bit % 8),
        Change::Replace(byte) => changed[at] = byte,
        Change::Extreme(extreme) => {
            let width = 1 << source.int_in_range(0..=3u8)?;
            let number = extreme.value() >> (64 - 8 * width);
            for (to, from) in changed[at..].iter_mut().zip(&number.to_le_bytes()[..width]) {
                *to = *from;
            }
        }
        Change::Remove(count) => {
            let end = at.saturating_add(usize::from(count)).min(changed.len());
            changed.drain(at..end);
        }
        Change::Repeat(count) => {
            let end = at.saturating_add(usize::from(count)).min(changed.len());
            let copy = changed[at..end].to_vec();
            changed.splice(at..at, copy);
        }
        Change::Truncate => changed.truncate(at),
    }
    Ok(changed)
}

/// The start of one file and the end of another.
pub fn splice(file: &[u8], other: &[u8], source: &mut Unstructured) -> Result<Vec<u8>> {
    let head = source.int_in_range(0..=file.len())?;
    let tail = source.int_in_range(0..=other.len())?;
    Ok([&file[..head], &other[tail..]].concat())
}
