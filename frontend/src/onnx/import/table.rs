//! The ONNX operators that tcc imports, by domain, name and operator set version.
//!
//! Each file under `ops/` declares the operators of its topic in a table of entries; this module joins them, finds the
//! entry for a node, and lists all of them for the documentation.

use super::super::error::NodeId;
use super::super::graph::Node;
use super::context::{Context, Lowered};
use super::ops;
use super::refusal::{Refusal, unsupported};
use std::collections::HashMap;
use std::sync::LazyLock;

/// Appends the operations of one node and returns what its outputs are bound to.
pub(crate) type Lowering = fn(&mut Context<'_>, &Node) -> Lowered;

/// An operator over a range of operator set versions with one meaning.
pub(crate) struct Entry {
    pub(crate) domain: &'static str,
    pub(crate) operator: &'static str,
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) lowering: Lowering,
}

/// A standard operator from version `first` on.
pub(crate) const fn since(first: i64, operator: &'static str, lowering: Lowering) -> Entry {
    Entry { domain: "", operator, first, last: i64::MAX, lowering }
}

/// A standard operator in versions `first` to `last`.
pub(crate) const fn between(first: i64, last: i64, operator: &'static str, lowering: Lowering) -> Entry {
    Entry { domain: "", operator, first, last, lowering }
}

/// An operator of another domain, in every version.
pub(crate) const fn custom(domain: &'static str, operator: &'static str, lowering: Lowering) -> Entry {
    Entry { domain, operator, first: 1, last: i64::MAX, lowering }
}

static INDEX: LazyLock<HashMap<(&str, &str), Vec<&Entry>>> = LazyLock::new(|| {
    let mut index: HashMap<_, Vec<&Entry>> = HashMap::new();
    for entry in ops::TABLES.iter().flat_map(|table| table.iter()) {
        index.entry((entry.domain, entry.operator)).or_default().push(entry);
    }
    index
});

/// The lowering of a node's operator in its operator set version.
pub(crate) fn find(id: &NodeId) -> Result<Lowering, Refusal> {
    let Some(entries) = INDEX.get(&(id.domain.as_str(), id.operator.as_str())) else {
        return Err(unsupported("the operator is not supported"));
    };
    let covered = |entry: &&&Entry| (entry.first..=entry.last).contains(&id.opset);
    entries.iter().find(covered).map(|entry| entry.lowering).ok_or_else(|| {
        let versions: Vec<String> = entries.iter().map(|entry| versions(entry.first, entry.last)).collect();
        unsupported(format!("the operator is supported in opset {} only", versions.join(", ")))
    })
}

fn versions(first: i64, last: i64) -> String {
    if last == i64::MAX { format!("{first} and later") } else { format!("{first} to {last}") }
}

/// One line of the coverage table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Coverage {
    /// Domain; empty for the standard operators.
    pub domain: &'static str,
    /// Operator type.
    pub operator: &'static str,
    /// First operator set version that is imported.
    pub first: i64,
    /// Last one; `None` where it is open.
    pub last: Option<i64>,
}

/// All operators that are imported, sorted; neighbouring version ranges of one operator are joined.
pub fn coverage() -> Vec<Coverage> {
    let mut lines: Vec<Coverage> = INDEX
        .values()
        .flatten()
        .map(|entry| Coverage {
            domain: entry.domain,
            operator: entry.operator,
            first: entry.first,
            last: (entry.last != i64::MAX).then_some(entry.last),
        })
        .collect();
    lines.sort();
    lines.dedup_by(|next, line| {
        let adjacent = (line.domain, line.operator) == (next.domain, next.operator)
            && line.last.is_some_and(|last| last + 1 == next.first);
        if adjacent {
            line.last = next.last;
        }
        adjacent
    });
    lines
}

/// The coverage table as Markdown, for `docs/onnx-operators.md`.
pub fn coverage_page() -> String {
    let mut page = String::from(
        "# ONNX operators\n\nGenerated from the operator tables in `frontend/src/onnx/import/ops`; do not edit.\n\n\
         | domain | operator | opset |\n|---|---|---|\n",
    );
    for line in coverage() {
        let domain = if line.domain.is_empty() { "ai.onnx" } else { line.domain };
        let range = versions(line.first, line.last.unwrap_or(i64::MAX));
        page += &format!("| {domain} | {} | {range} |\n", line.operator);
    }
    page
}
