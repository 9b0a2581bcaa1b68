//! Reading the text form.
//!
//! A hand-written recursive-descent parser over the bytes of the text. It accepts what [`crate::print`] writes and what
//! `mlir-opt --mlir-print-local-scope` makes of it (`module` or `"builtin.module"`, `%3:2` result groups, splats,
//! locations on block parameters). It builds operations with their stated types and checks syntax, names and nesting;
//! the invariants of a module are [`crate::verify`]'s. No input makes it panic, recurse without bound or allocate more
//! than the text justifies: nesting is at most [`MAX_DEPTH`] deep, and splats stay one element, or, of types
//! that have no such form, expand to at most [`MAX_SPLAT`].

mod attribute;
mod cursor;
mod data;
mod dim;
mod operation;
mod types;

use crate::dim::Dim;
use crate::module::Module;
use crate::types::Type;

use cursor::Cursor;

/// How deep regions, types, lists and dimension expressions may nest.
pub const MAX_DEPTH: usize = 64;

/// How many elements a constant written as one number may have.
pub const MAX_SPLAT: usize = 1 << 24;

/// What is wrong with a text, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column in bytes, from 1.
    pub column: usize,
    /// What was expected or found.
    pub message: String,
}

/// A whole module. The invariants beyond syntax are checked by [`crate::verify::verify`].
pub fn module(text: &str) -> Result<Module, ParseError> {
    let mut cursor = Cursor::new(text);
    let module = operation::module(&mut cursor)?;
    cursor.expect_end()?;
    Ok(module)
}

/// A dimension expression such as `2*seq+floordiv(n, 2)-1`.
pub fn dim(text: &str) -> Result<Dim, String> {
    whole(text, dim::dim).map_err(|error| format!("'{text}' is not a dimension: {error}"))
}

/// A type such as `tensor<?x3xf32, "batch; 3">`.
pub fn ty(text: &str) -> Result<Type, String> {
    whole(text, types::ty).map_err(|error| format!("'{text}' is not a type: {error}"))
}

/// All of `text` as one thing.
fn whole<'a, T>(
    text: &'a str,
    read: impl FnOnce(&mut Cursor<'a>) -> Result<T, ParseError>,
) -> Result<T, ParseError> {
    let mut cursor = Cursor::new(text);
    let value = read(&mut cursor)?;
    cursor.expect_end()?;
    Ok(value)
}

#[cfg(test)]
mod tests;
