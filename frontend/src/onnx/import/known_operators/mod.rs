//! Operators evaluated on known values at import time: the arithmetic on shapes that exporters leave in graphs.
//!
//! Each evaluation gives exactly what the operator gives, for every value of the symbols in their declared ranges, or
//! nothing; then the node is imported as an operation like any other.

mod arithmetic;
mod layout;

use super::super::graph::Node;
use super::context::Context;
use super::known::Known;
use super::refusal::Refusal;

/// The results of a node, where they are known.
pub(super) fn evaluate(context: &Context<'_>, node: &Node) -> Result<Option<Vec<Known>>, Refusal> {
    if !node.id.domain.is_empty() {
        return Ok(None);
    }
    let one = |known: Option<Known>| known.map(|known| vec![known]);
    Ok(match node.id.operator.as_str() {
        "Shape" => one(layout::shape(context, node)?),
        "Size" => one(layout::size(context, node)),
        _ => {
            let Some(first) = context.known(node, 0) else { return Ok(None) };
            match layout::evaluate(context, node, &first)? {
                Some(results) => Some(results),
                None => one(arithmetic::evaluate(context, node, first)?),
            }
        }
    })
}
