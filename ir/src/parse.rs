//! Reading the text form.

use crate::dim::Dim;

/// A dimension expression such as `2*seq+1`.
pub fn dim(text: &str) -> Result<Dim, String> {
    Err(format!("'{text}' is not a dimension"))
}

/// A type such as `tensor<?x3xf32, "batch; 3">`.
pub fn ty(text: &str) -> Result<crate::types::Type, String> {
    Err(format!("'{text}' is not a type"))
}
