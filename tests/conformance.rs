//! The 1,288 node cases of the ONNX 1.17 backend suite, on every runner.
//!
//! `TCC_SHARD=2/4` runs the second quarter; `TCC_BLESS=1` writes the tables and `docs/onnx-coverage.md`.

use std::path::{Path, PathBuf};
use std::{env, fs};

use tcc_tests::cache;
use tcc_tests::conformance::table::{Results, changes, parse, print};
use tcc_tests::conformance::{case, coverage, supervise};
use tcc_tests::runners;

fn table_path(runner: &str) -> PathBuf {
    cache::tests_folder().join("conformance").join(format!("onnx-1.17-{runner}.txt"))
}

fn read_table(runner: &str) -> Results {
    match fs::read_to_string(table_path(runner)) {
        Ok(text) => parse(&text).unwrap_or_else(|error| panic!("{}: {error}", table_path(runner).display())),
        Err(_) => Results::new(),
    }
}

/// `TCC_SHARD=INDEX/COUNT`, from 1.
fn shard() -> (usize, usize) {
    let Ok(text) = env::var("TCC_SHARD") else { return (0, 1) };
    let parts =
        text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
    match parts {
        Some((index, count)) if (1..=count).contains(&index) => (index - 1, count),
        _ => panic!("TCC_SHARD={text} is not INDEX/COUNT"),
    }
}

#[test]
fn node_cases() {
    let folder = match cache::folder("onnx-node") {
        Ok(folder) => folder.join("node"),
        Err(absent) => return eprintln!("skipped: {absent}"),
    };
    let (index, count) = shard();
    let bless = env::var_os("TCC_BLESS").is_some();
    let all = case::names(&folder).unwrap();
    let names: Vec<String> = all.iter().skip(index).step_by(count).cloned().collect();
    let mut failures = Vec::new();
    let mut tables = Vec::new();
    for &runner in runners::NAMES {
        let worker = Path::new(env!("CARGO_BIN_EXE_conformance-worker"));
        let results = supervise::run_all(worker, runner, &folder, &names, supervise::CASE_TIME).unwrap();
        assert_eq!(results.len(), names.len());
        let passing = results.values().filter(|result| result.is_none()).count();
        println!("{runner}: {passing} of {} node cases pass", names.len());
        let mut table = read_table(runner);
        let found = changes(&table, &results);
        if bless {
            table.extend(results);
            fs::write(table_path(runner), print(&format!("ONNX 1.17 node cases, {runner}"), &table)).unwrap();
        } else if !found.is_empty() {
            for (name, reason) in &found.regressed {
                println!("regressed: {name}: {reason}");
            }
            for name in &found.newly_passing {
                println!("passes now: {name}");
            }
            for name in &found.unlisted {
                println!("not in the table: {name}");
            }
            failures.push(format!(
                "{runner}: {} regressed, {} pass now, {} are not in the table (TCC_BLESS=1 accepts)",
                found.regressed.len(),
                found.newly_passing.len(),
                found.unlisted.len()
            ));
        }
        tables.push((runner, table));
    }
    let operators = coverage::operator_of_cases(&folder, &all).unwrap();
    let columns: Vec<(&str, &Results)> = tables.iter().map(|(runner, table)| (*runner, table)).collect();
    let page = coverage::page(&operators, &columns);
    let page_path = cache::tests_folder().join("../docs/onnx-coverage.md");
    if bless {
        fs::write(&page_path, &page).unwrap();
    } else if fs::read_to_string(&page_path).unwrap_or_default() != page {
        failures.push("docs/onnx-coverage.md is not what the tables say (TCC_BLESS=1 writes it)".to_owned());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_case_can_be_read() {
    let folder = match cache::folder("onnx-node") {
        Ok(folder) => folder.join("node"),
        Err(absent) => return eprintln!("skipped: {absent}"),
    };
    let names = case::names(&folder).unwrap();
    assert_eq!(names.len(), 1288);
    let unreadable: Vec<String> =
        names.iter().filter_map(|name| case::Case::read(&folder.join(name)).err()).collect();
    assert!(unreadable.is_empty(), "{}", unreadable.join("\n"));
}
