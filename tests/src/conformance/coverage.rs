//! The page that says which ONNX operators work, from the tables of results.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::case;
use super::table::Results;

/// The operator that a case is about: the only one of its graph, or for a case whose operator was expanded into its
/// function body, the one of the case before the expansion. The rest are about several operators.
///
/// # Errors
/// A model is unreadable.
pub fn operator_of_cases(folder: &Path, names: &[String]) -> Result<BTreeMap<String, String>, String> {
    let mut operators = BTreeMap::new();
    for name in names {
        let original = name.find("_expanded").map_or(name.as_str(), |at| &name[..at]);
        let source = if folder.join(original).is_dir() { original } else { name };
        let found = case::operators(&folder.join(source).join("model.onnx"))?;
        let mut found: Vec<String> = found.into_iter().filter(|operator| operator != "Constant").collect();
        let operator = if found.len() == 1 { found.remove(0) } else { "(several)".to_owned() };
        operators.insert(name.clone(), operator);
    }
    Ok(operators)
}

/// The page, from the operator of each case and the results of each runner.
pub fn page(operators: &BTreeMap<String, String>, runners: &[(&str, &Results)]) -> String {
    let mut rows: BTreeMap<&str, (usize, Vec<usize>)> = BTreeMap::new();
    for (case, operator) in operators {
        let row = rows.entry(operator).or_insert_with(|| (0, vec![0; runners.len()]));
        row.0 += 1;
        for (count, (_, results)) in row.1.iter_mut().zip(runners) {
            *count += usize::from(matches!(results.get(case), Some(None)));
        }
    }
    let mut text = String::from(
        "# ONNX operators\n\nHow many node cases of the ONNX 1.17 backend suite pass, by operator. `tests/conformance/` names \
         each case and the\nreason where it does not pass yet. This page is written by the tests under `TCC_BLESS=1`.\n\n",
    );
    let total = operators.len();
    let header: Vec<String> = runners.iter().map(|(name, _)| format!(" {name} |")).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "| operator | cases |{}", header.concat());
    let _ = writeln!(text, "|---|---:|{}", "---:|".repeat(runners.len()));
    let sums: String = (0..runners.len())
        .map(|column| format!(" **{}** |", rows.values().map(|(_, counts)| counts[column]).sum::<usize>()))
        .collect();
    let _ = writeln!(text, "| **all** | **{total}** |{sums}");
    for (operator, (count, passing)) in rows {
        let cells: String = passing.iter().map(|passing| format!(" {} |", share(*passing, count))).collect();
        let _ = writeln!(text, "| {operator} | {count} |{cells}");
    }
    text
}

fn share(passing: usize, count: usize) -> String {
    match passing {
        0 => "-".to_owned(),
        passing if passing == count => "all".to_owned(),
        passing => passing.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_counts_by_operator_and_runner() {
        let operators: BTreeMap<String, String> = [("a", "Abs"), ("b", "Add"), ("c", "Add"), ("d", "Zz")]
            .map(|(case, operator)| (case.to_owned(), operator.to_owned()))
            .into();
        let results: Results =
            [("a", None), ("b", None), ("c", Some("x".to_owned()))].map(|(n, r)| (n.to_owned(), r)).into();
        let page = page(&operators, &[("interpret", &results)]);
        for line in ["| **all** | **4** | **2** |", "| Abs | 1 | all |", "| Add | 2 | 1 |", "| Zz | 1 | - |"]
        {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
