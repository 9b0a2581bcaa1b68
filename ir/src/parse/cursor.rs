//! A position in the text, and the lexical elements that start there.

use super::{MAX_DEPTH, ParseError};

type Result<T> = std::result::Result<T, ParseError>;

/// Reads from the front of a text.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    position: usize,
    depth: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Cursor<'a> {
        Cursor { text, position: 0, depth: 0 }
    }

    /// An error at the current position.
    pub(super) fn error<T>(&self, message: impl Into<String>) -> Result<T> {
        let before = &self.text.as_bytes()[..self.position];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        Err(ParseError { line, column: self.position - line_start + 1, message: message.into() })
    }

    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.position..]
    }

    /// The next byte, if there is one.
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    /// Skips white space and `//` comments.
    pub(super) fn skip_space(&mut self) {
        loop {
            match self.rest() {
                [byte, ..] if byte.is_ascii_whitespace() => self.position += 1,
                [b'/', b'/', line @ ..] => {
                    let length = line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len());
                    self.position += 2 + length;
                }
                _ => return,
            }
        }
    }

    /// Takes `token` if it comes next, after white space.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        self.skip_space();
        self.eat_here(token)
    }

    /// Takes `token` if it comes next, without skipping white space.
    pub(super) fn eat_here(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token.as_bytes());
        if found {
            self.position += token.len();
        }
        found
    }

    /// True where `token` comes next, after white space.
    pub(super) fn looking_at(&mut self, token: &str) -> bool {
        self.skip_space();
        self.rest().starts_with(token.as_bytes())
    }

    pub(super) fn expect(&mut self, token: &str) -> Result<()> {
        if self.eat(token) { Ok(()) } else { self.unexpected(&format!("'{token}'")) }
    }

    pub(super) fn expect_end(&mut self) -> Result<()> {
        self.skip_space();
        if self.rest().is_empty() { Ok(()) } else { self.unexpected("the end") }
    }

    /// An error that says what was expected and what is there.
    pub(super) fn unexpected<T>(&self, expected: &str) -> Result<T> {
        match self.text[self.position..].chars().next() {
            Some(found) => self.error(format!("expected {expected}, found '{}'", found.escape_debug())),
            None => self.error(format!("expected {expected}, found the end of the text")),
        }
    }

    /// Takes bytes while they satisfy `accept`; only ASCII bytes may.
    pub(super) fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.iter().position(|byte| !byte.is_ascii() || !accept(*byte)).unwrap_or(rest.len());
        let taken = &self.text[self.position..self.position + length];
        self.position += length;
        taken
    }

    /// A bare identifier: a letter or `_`, then letters, digits, `_`, `.` and `$`.
    pub(super) fn identifier(&mut self) -> Result<&'a str> {
        self.skip_space();
        match self.peek() {
            Some(byte) if byte.is_ascii_alphabetic() || byte == b'_' => {
                Ok(self.take_while(|byte| byte.is_ascii_alphanumeric() || b"_.$".contains(&byte)))
            }
            _ => self.unexpected("a name"),
        }
    }

    /// The characters after a sigil such as `%` or `^`.
    pub(super) fn suffix_identifier(&mut self) -> Result<&'a str> {
        let name = self.take_while(|byte| byte.is_ascii_alphanumeric() || b"_.$-".contains(&byte));
        if name.is_empty() { self.unexpected("a name") } else { Ok(name) }
    }

    /// A decimal integer with an optional sign.
    pub(super) fn integer(&mut self) -> Result<i64> {
        self.skip_space();
        let start = self.clone();
        let negative = self.eat_here("-");
        let digits = self.take_while(|byte| byte.is_ascii_digit());
        if digits.is_empty() {
            return start.unexpected("an integer");
        }
        let text = if negative { format!("-{digits}") } else { digits.to_string() };
        match text.parse() {
            Ok(value) => Ok(value),
            Err(_) => start.error(format!("{text} does not fit 64 bits")),
        }
    }

    /// An index or count.
    pub(super) fn count(&mut self) -> Result<usize> {
        let start = self.clone();
        match usize::try_from(self.integer()?) {
            Ok(count) => Ok(count),
            Err(_) => start.error("expected a count, found a negative integer"),
        }
    }

    /// The characters of a number or word literal: `-1.5e-3`, `0x7F`, `true`.
    pub(super) fn literal(&mut self) -> Result<&'a str> {
        self.skip_space();
        let start = self.position;
        self.eat_here("-");
        let mut previous = 0;
        while let Some(byte) = self.peek() {
            let exponent_sign = b"+-".contains(&byte)
                && (previous == b'e' || previous == b'E')
                && !self.text[start..].starts_with("0x");
            if !byte.is_ascii_alphanumeric() && byte != b'.' && !exponent_sign {
                break;
            }
            previous = byte;
            self.position += 1;
        }
        if previous == 0 { self.unexpected("a number") } else { Ok(&self.text[start..self.position]) }
    }

    /// A quoted string with MLIR's escapes.
    pub(super) fn string(&mut self) -> Result<String> {
        self.skip_space();
        let start = self.clone();
        if !self.eat_here("\"") {
            return self.unexpected("a string");
        }
        let mut bytes = Vec::new();
        loop {
            match self.rest() {
                [b'"', ..] => {
                    self.position += 1;
                    break;
                }
                [b'\\', escape @ ..] => {
                    let (byte, length) = match escape {
                        [b'"', ..] => (b'"', 2),
                        [b'\\', ..] => (b'\\', 2),
                        [b'n', ..] => (b'\n', 2),
                        [b't', ..] => (b'\t', 2),
                        [high, low, ..] => match (hex_digit(*high), hex_digit(*low)) {
                            (Some(high), Some(low)) => (high * 16 + low, 3),
                            _ => return self.error("unknown escape in a string"),
                        },
                        _ => return self.error("unknown escape in a string"),
                    };
                    bytes.push(byte);
                    self.position += length;
                }
                [b'\n', ..] | [] => return start.error("the string has no end on its line"),
                [byte, ..] => {
                    bytes.push(*byte);
                    self.position += 1;
                }
            }
        }
        String::from_utf8(bytes).or_else(|_| start.error("the string is not UTF-8"))
    }

    /// The digits of `"0x..."` where that comes next; the usual form of large constants, so they are not copied.
    pub(super) fn hex_string(&mut self) -> Option<&'a str> {
        self.skip_space();
        let rest = self.rest();
        let body = rest.strip_prefix(b"\"0x")?;
        let length = body.iter().position(|byte| !byte.is_ascii_hexdigit())?;
        if body[length] != b'"' {
            return None;
        }
        let start = self.position + 3;
        self.position = start + length + 1;
        Some(&self.text[start..start + length])
    }

    /// Runs `read` one level deeper; an error beyond [`MAX_DEPTH`].
    pub(super) fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MAX_DEPTH {
            return self.error(format!("nested more than {MAX_DEPTH} deep"));
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    /// Items separated by commas up to `close`, which is taken.
    pub(super) fn list(&mut self, close: &str, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        if self.eat(close) {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.eat(close) {
                return Ok(());
            }
            if !self.eat(",") {
                return self.unexpected(&format!("',' or '{close}'"));
            }
        }
    }
}

/// The value of a hexadecimal digit.
pub(super) fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}
