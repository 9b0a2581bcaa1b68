//! The checked-in table of what passes: one line a case, `NAME pass` or `NAME not yet: REASON`.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Longest reason kept; the table is for reading.
const REASON_LENGTH: usize = 100;

/// The result of each case: `None` for a pass, the reason otherwise.
pub type Results = BTreeMap<String, Option<String>>;

/// What differs between the table and a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Passed before, with the reason why no longer.
    pub regressed: Vec<(String, String)>,
    /// Did not pass before.
    pub newly_passing: Vec<String>,
    /// In neither state before.
    pub unlisted: Vec<String>,
}

impl Changes {
    /// True where a test may pass.
    pub fn is_empty(&self) -> bool {
        self == &Changes::default()
    }
}

/// Reads a table; `#` begins a comment line.
///
/// # Errors
/// The line that cannot be read.
pub fn parse(text: &str) -> Result<Results, String> {
    let mut results = Results::new();
    for (index, line) in
        text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
    {
        let result = match line.split_once(' ').map(|(name, rest)| (name, rest.trim())) {
            Some((name, "pass")) => Some((name, None)),
            Some((name, rest)) => {
                rest.strip_prefix("not yet: ").map(|reason| (name, Some(reason.to_owned())))
            }
            None => None,
        };
        let (name, result) = result.ok_or_else(|| format!("line {}: `{line}` is no result", index + 1))?;
        if results.insert(name.to_owned(), result).is_some() {
            return Err(format!("line {}: {name} stands twice", index + 1));
        }
    }
    Ok(results)
}

/// Writes a table.
pub fn print(title: &str, results: &Results) -> String {
    let passing = results.values().filter(|result| result.is_none()).count();
    let mut text = format!("# {title}: {passing} of {} pass. TCC_BLESS=1 writes this file.\n", results.len());
    let width = results.keys().map(String::len).max().unwrap_or(0);
    for (name, result) in results {
        match result {
            None => writeln!(text, "{name:width$} pass"),
            Some(reason) => writeln!(text, "{name:width$} not yet: {reason}"),
        }
        .unwrap_or_default();
    }
    text
}

/// A reason as the table keeps it: one short line.
pub fn reason(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no reason given");
    match line.char_indices().nth(REASON_LENGTH) {
        Some((end, _)) => format!("{}...", line[..end].trim_end()),
        None => line.to_owned(),
    }
}

/// What a run changed, among the cases that ran.
pub fn changes(table: &Results, run: &Results) -> Changes {
    let mut changes = Changes::default();
    for (name, result) in run {
        match (table.get(name), result) {
            (None, _) => changes.unlisted.push(name.clone()),
            (Some(None), Some(reason)) => changes.regressed.push((name.clone(), reason.clone())),
            (Some(Some(_)), None) => changes.newly_passing.push(name.clone()),
            (Some(None), None) | (Some(Some(_)), Some(_)) => {}
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(lines: &[(&str, Option<&str>)]) -> Results {
        lines.iter().map(|(name, reason)| ((*name).to_owned(), reason.map(str::to_owned))).collect()
    }

    #[test]
    fn tables_survive_a_round_trip() {
        let table = results(&[("test_abs", None), ("test_zz_long", Some("refused: no operator Zz"))]);
        let text = print("interpret", &table);
        assert!(text.starts_with("# interpret: 1 of 2 pass."));
        assert_eq!(parse(&text).unwrap(), table);
        assert!(parse("test_abs maybe").unwrap_err().contains("line 1"));
        assert!(parse("a pass\na pass").unwrap_err().contains("twice"));
    }

    #[test]
    fn both_directions_are_changes_and_another_reason_is_none() {
        let table = results(&[("a", None), ("b", Some("x")), ("c", Some("x")), ("not run", None)]);
        let run = results(&[("a", Some("y")), ("b", None), ("c", Some("z")), ("d", None)]);
        let found = changes(&table, &run);
        assert_eq!(found.regressed, [("a".to_owned(), "y".to_owned())]);
        assert_eq!((found.newly_passing, found.unlisted), (vec!["b".to_owned()], vec!["d".to_owned()]));
        assert!(changes(&table, &results(&[("a", None), ("c", Some("other"))])).is_empty());
    }

    #[test]
    fn reasons_are_one_short_line() {
        assert_eq!(reason("\n  first\nsecond"), "first");
        assert_eq!(reason(""), "no reason given");
        assert!(reason(&"ä".repeat(500)).chars().count() <= REASON_LENGTH + 3);
    }
}
