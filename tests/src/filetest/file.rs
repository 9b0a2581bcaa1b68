//! A file test: its parts, how it runs and how it is blessed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use tcc_ir::data::Data;

use super::directive::{Directive, DirectiveError, RunLine, TestKind};
use super::{Executor, Hooks};
use crate::compare::{Tolerance, compare_tensors};

/// The line between a module and the text that is expected.
const EXPECT: &str = "// expect:";

/// A file test that was read.
#[derive(Clone, PartialEq, Debug)]
pub struct FileTest {
    /// What is compared with the expected text, if anything is.
    pub kind: Option<TestKind>,
    /// The `run` lines.
    pub runs: Vec<RunLine>,
    /// Executors that do not run this file, with the reason.
    pub skips: BTreeMap<String, String>,
    /// Everything up to the expected text.
    head: String,
    /// The module.
    pub module: String,
    /// The expected text; empty where there is none.
    pub expected: String,
}

/// How a file test ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// All of it passed.
    Passed,
    /// This is the whole file with the expected text as it came out.
    Blessed(String),
}

/// Why a file test failed.
#[derive(Debug)]
pub enum Failure {
    /// A directive cannot be read.
    Directive(DirectiveError),
    /// The file says nothing to test.
    Nothing,
    /// The module was refused, or accepted where the file expects an error.
    Transform(String),
    /// The text differs from what is expected; a diff.
    Text(String),
    /// A `run` line failed.
    Run {
        /// Line in the file.
        line: usize,
        /// The executor.
        executor: String,
        /// The text that ran: as written, or after the passes.
        after_passes: bool,
        /// What went wrong.
        message: String,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Directive(error) => write!(f, "{error}"),
            Failure::Nothing => write!(f, "the file has neither a `test:` nor a `run:` line"),
            Failure::Transform(message) => write!(f, "{message}"),
            Failure::Text(diff) => write!(f, "the text differs (TCC_BLESS=1 accepts it):\n{diff}"),
            Failure::Run { line, executor, after_passes, message } => {
                let when = if *after_passes { " after the passes" } else { "" };
                write!(f, "line {line}, {executor}{when}: {message}")
            }
        }
    }
}

impl FileTest {
    /// Reads a file test.
    ///
    /// # Errors
    /// A directive cannot be read, or there is none.
    pub fn parse(text: &str) -> Result<FileTest, Failure> {
        let (head, expected) =
            match text.find(EXPECT).filter(|&at| at == 0 || text.as_bytes()[at - 1] == b'\n') {
                Some(at) => (&text[..at], text[at + EXPECT.len()..].trim_start_matches('\n')),
                None => (text, ""),
            };
        let mut test = FileTest {
            kind: None,
            runs: Vec::new(),
            skips: BTreeMap::new(),
            head: head.to_owned(),
            module: head.to_owned(),
            expected: expected.to_owned(),
        };
        for (index, line) in head.lines().enumerate() {
            match (Directive::parse(index + 1, line).map_err(Failure::Directive)?, &mut test.kind) {
                (Some(Directive::Test(TestKind::Pass(more))), Some(TestKind::Pass(passes))) => {
                    passes.extend(more)
                }
                (Some(Directive::Test(_)), Some(_)) => {
                    let message = "only `pass` may be given twice".to_owned();
                    return Err(Failure::Directive(DirectiveError { line: index + 1, message }));
                }
                (Some(Directive::Test(kind)), None) => test.kind = Some(kind),
                (Some(Directive::Run(run)), _) => test.runs.push(run),
                (Some(Directive::Skip { executor, reason }), _) => {
                    test.skips.insert(executor, reason);
                }
                (None, _) => {}
            }
        }
        if test.kind.is_none() && test.runs.is_empty() { Err(Failure::Nothing) } else { Ok(test) }
    }

    /// Runs the test. With `bless`, a text that differs is no failure but comes back as the new file.
    ///
    /// # Errors
    /// The first thing that failed.
    pub fn run(&self, hooks: &Hooks<'_>, bless: bool) -> Result<Outcome, Failure> {
        let found = self.transformed(hooks)?;
        for run in &self.runs {
            let results = self.execute(hooks, run, &self.module, None)?;
            if let (Some(TestKind::Pass(_)), Some(text)) = (&self.kind, &found) {
                self.execute(hooks, run, text, Some(&results))?;
            }
        }
        match found {
            Some(found) if found.trim_end() != self.expected.trim_end() => {
                if bless {
                    let head = self.head.trim_end();
                    Ok(Outcome::Blessed(format!("{head}\n{EXPECT}\n{}\n", found.trim_end())))
                } else {
                    Err(Failure::Text(diff(&self.expected, &found)))
                }
            }
            _ => Ok(Outcome::Passed),
        }
    }

    /// The text to compare with the expected one; `None` for files of `run` lines alone.
    fn transformed(&self, hooks: &Hooks<'_>) -> Result<Option<String>, Failure> {
        let transform = |text: &str, passes: &[String]| hooks.transform.transform(text, passes);
        match &self.kind {
            None => Ok(None),
            Some(TestKind::Pass(passes)) => {
                transform(&self.module, passes).map(Some).map_err(Failure::Transform)
            }
            Some(TestKind::RoundTrip) => {
                let once = transform(&self.module, &[]).map_err(Failure::Transform)?;
                let twice = transform(&once, &[]).map_err(Failure::Transform)?;
                if once == twice { Ok(Some(once)) } else { Err(Failure::Text(diff(&once, &twice))) }
            }
            Some(TestKind::Error) => match transform(&self.module, &[]) {
                Err(message) => Ok(Some(message)),
                Ok(_) => {
                    Err(Failure::Transform("the module is accepted, the file expects an error".to_owned()))
                }
            },
        }
    }

    /// Runs one line on every executor and returns the results of the reference. `before` holds what it computed before
    /// the passes, which must not change it.
    fn execute(
        &self,
        hooks: &Hooks<'_>,
        run: &RunLine,
        module: &str,
        before: Option<&[Data]>,
    ) -> Result<Vec<Data>, Failure> {
        let failure = |executor: &dyn Executor, message| Failure::Run {
            line: run.line,
            executor: executor.name().to_owned(),
            after_passes: before.is_some(),
            message,
        };
        let results = |executor: &dyn Executor| {
            executor
                .execute(module, &run.function, &run.arguments)
                .map_err(|message| failure(executor, message))
        };
        let check = |executor: &dyn Executor, expected: &[Data], found: &[Data], tolerance| {
            compare_all(expected, found, &tolerance).map_err(|message| failure(executor, message))
        };
        let reference = results(hooks.reference)?;
        if let Some(before) = before {
            check(hooks.reference, before, &reference, run.executor_tolerance())?;
        }
        if let Some(expected) = &run.expected {
            check(hooks.reference, expected, &reference, run.stated_tolerance())?;
        }
        for &executor in hooks.executors.iter().filter(|executor| !self.skips.contains_key(executor.name())) {
            check(executor, &reference, &results(executor)?, run.executor_tolerance())?;
        }
        Ok(reference)
    }
}

fn compare_all(expected: &[Data], found: &[Data], tolerance: &Tolerance) -> Result<(), String> {
    if expected.len() != found.len() {
        return Err(format!("expected {} results, found {}", expected.len(), found.len()));
    }
    for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
        compare_tensors(expected, found, tolerance)
            .map_err(|difference| format!("result {index}: {difference}"))?;
    }
    Ok(())
}

/// Every `.tir` file below a folder, sorted.
///
/// # Errors
/// A folder cannot be read.
pub fn collect(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(collect(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "tir") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The lines that differ, with two lines around them; `-` is what was expected.
pub fn diff(expected: &str, found: &str) -> String {
    similar::TextDiff::from_lines(expected.trim_end(), found.trim_end())
        .unified_diff()
        .context_radius(2)
        .missing_newline_hint(false)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filetest::Transform;

    /// Upper case is the only pass; `bad` does not verify.
    struct Upper;

    impl Transform for Upper {
        fn transform(&self, module: &str, passes: &[String]) -> Result<String, String> {
            let body: Vec<&str> = module.lines().filter(|line| !line.starts_with("//")).collect();
            let body = body.join("\n");
            match passes {
                _ if body.contains("bad") => Err("bad is bad".to_owned()),
                [] => Ok(body),
                passes if passes.iter().all(|pass| pass == "upper") => Ok(body.to_uppercase()),
                passes => Err(format!("no pass is called {passes:?}")),
            }
        }
    }

    /// Adds a constant to its argument.
    struct Adder(&'static str, f32);

    impl Executor for Adder {
        fn name(&self) -> &str {
            self.0
        }

        fn execute(&self, _: &str, function: &str, arguments: &[Data]) -> Result<Vec<Data>, String> {
            if function != "f" {
                return Err(format!("no function @{function}"));
            }
            let values: Vec<f32> =
                arguments[0].to_f32().unwrap().iter().map(|value| value + self.1).collect();
            Ok(vec![Data::from_f32(arguments[0].shape(), &values).unwrap()])
        }
    }

    fn run(text: &str, bless: bool) -> Result<Outcome, Failure> {
        let (reference, wrong) = (Adder("interpret", 1.0), Adder("wrong", 2.0));
        let hooks = Hooks { transform: &Upper, reference: &reference, executors: vec![&wrong] };
        FileTest::parse(text)?.run(&hooks, bless)
    }

    #[test]
    fn blessing_writes_a_file_that_passes() {
        let text = "// test: pass=upper\nabc\n";
        assert!(matches!(run(text, false), Err(Failure::Text(diff)) if diff.contains("+ABC")));
        let Ok(Outcome::Blessed(file)) = run(text, true) else { panic!() };
        assert_eq!(file, "// test: pass=upper\nabc\n// expect:\nABC\n");
        assert_eq!(run(&file, false).unwrap(), Outcome::Passed);
        assert!(
            matches!(run(&file.replace("ABC", "ABD"), true), Ok(Outcome::Blessed(again)) if again == file)
        );
    }

    #[test]
    fn expected_errors_are_compared_too() {
        assert_eq!(run("// test: error\nbad\n// expect:\nbad is bad\n", false).unwrap(), Outcome::Passed);
        assert!(matches!(run("// test: error\ngood\n", true), Err(Failure::Transform(_))));
        assert!(matches!(run("// test: pass=upper\nbad\n", true), Err(Failure::Transform(_))));
    }

    #[test]
    fn run_lines_check_every_executor_that_is_not_skipped() {
        let stated = "// run: @f(f32[2] 1 2) == f32[2] 2 3\n";
        assert!(matches!(run(stated, false), Err(Failure::Run { executor, .. }) if executor == "wrong"));
        let skipped = format!("// skip: wrong: it adds two\n{stated}");
        assert_eq!(run(&skipped, false).unwrap(), Outcome::Passed);
        let other = skipped.replace("2 3", "2 4");
        assert!(
            matches!(run(&other, true), Err(Failure::Run { executor, line: 2, .. }) if executor == "interpret")
        );
        let unstated = "// skip: wrong: it adds two\n// run: @f(f32[3] uniform(0,1))\n";
        assert_eq!(run(unstated, false).unwrap(), Outcome::Passed);
        assert!(
            run(&unstated.replace("@f", "@g"), false).unwrap_err().to_string().contains("no function @g")
        );
    }

    #[test]
    fn a_pass_that_changes_a_result_fails() {
        struct Shouting;
        impl Executor for Shouting {
            fn name(&self) -> &str {
                "interpret"
            }

            fn execute(&self, module: &str, _: &str, arguments: &[Data]) -> Result<Vec<Data>, String> {
                Adder("", if module.contains("ABC") { 2.0 } else { 1.0 }).execute(module, "f", arguments)
            }
        }
        let hooks = Hooks { transform: &Upper, reference: &Shouting, executors: vec![] };
        let test =
            FileTest::parse("// test: pass=upper\n// run: @f(f32[1] 1)\nabc\n// expect:\nABC\n").unwrap();
        assert!(matches!(test.run(&hooks, false), Err(Failure::Run { after_passes: true, .. })));
    }

    #[test]
    fn a_file_without_a_test_fails() {
        assert!(matches!(run("abc\n", false), Err(Failure::Nothing)));
        assert!(matches!(run("// test: error\n// test: round-trip\n", false), Err(Failure::Directive(_))));
    }

    #[test]
    fn files_are_found_in_folders() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        for name in ["b.tir", "inner/a.tir", "notes.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = collect(folder.path()).unwrap();
        assert_eq!(found, [folder.path().join("b.tir"), folder.path().join("inner/a.tir")]);
    }
}
