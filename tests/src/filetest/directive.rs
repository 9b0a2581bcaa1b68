//! The comment lines at the head of a file test.

use tcc_ir::convert::push_scalar;
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::Scalar;

use crate::compare::Tolerance;
use crate::inputs::{Dims, InputSpec, parse_type};

/// A directive that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct DirectiveError {
    /// Line in the file, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

/// What a file checks against its expected text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TestKind {
    /// These passes produce the expected text.
    Pass(Vec<String>),
    /// Printing gives the expected text, and printing that gives it again.
    RoundTrip,
    /// The module is refused with the expected message.
    Error,
}

/// One `run:` line.
#[derive(Clone, PartialEq, Debug)]
pub struct RunLine {
    /// Line in the file, from 1.
    pub line: usize,
    /// Name of the function, without `@`.
    pub function: String,
    /// Arguments.
    pub arguments: Vec<Data>,
    /// Results, if the line states them.
    pub expected: Option<Vec<Data>>,
    /// Absolute tolerance, if the line states one.
    pub within: Option<f64>,
}

/// A directive.
#[derive(Clone, PartialEq, Debug)]
pub enum Directive {
    /// `test:`
    Test(TestKind),
    /// `run:`
    Run(RunLine),
    /// `skip: EXECUTOR: REASON`
    Skip {
        /// The executor.
        executor: String,
        /// Why it cannot run the file.
        reason: String,
    },
}

impl Directive {
    /// Reads a line; `None` for lines that are no directive.
    ///
    /// # Errors
    /// It begins like a directive and cannot be read.
    pub fn parse(line: usize, text: &str) -> Result<Option<Directive>, DirectiveError> {
        let Some((keyword, rest)) =
            text.strip_prefix("//").and_then(|text| text.trim_start().split_once(':'))
        else {
            return Ok(None);
        };
        let rest = rest.trim();
        let directive = match keyword {
            "test" => test_kind(rest).map(Directive::Test),
            "run" => run_line(line, rest).map(Directive::Run),
            "skip" => skip(rest),
            _ => return Ok(None),
        };
        directive.map(Some).map_err(|message| DirectiveError { line, message })
    }
}

fn test_kind(text: &str) -> Result<TestKind, String> {
    match (text, text.strip_prefix("pass=")) {
        ("round-trip", _) => Ok(TestKind::RoundTrip),
        ("error", _) => Ok(TestKind::Error),
        (_, Some(passes)) => {
            let passes: Vec<String> = passes.split(',').map(|pass| pass.trim().to_owned()).collect();
            if passes.iter().any(String::is_empty) {
                return Err("a pass has no name".to_owned());
            }
            Ok(TestKind::Pass(passes))
        }
        _ => Err(format!("`{text}` is no test: expected `pass=NAME`, `round-trip` or `error`")),
    }
}

fn skip(text: &str) -> Result<Directive, String> {
    let (executor, reason) = text.split_once(':').ok_or("`skip` needs EXECUTOR: REASON")?;
    if reason.trim().is_empty() {
        return Err("`skip` needs a reason".to_owned());
    }
    Ok(Directive::Skip { executor: executor.trim().to_owned(), reason: reason.trim().to_owned() })
}

/// `@f(ARGUMENTS) [== RESULTS] [within TOLERANCE] [with NAME=SIZE,...]`
fn run_line(line: usize, text: &str) -> Result<RunLine, String> {
    let (text, dims) = match text.rsplit_once(" with ") {
        Some((text, dims)) => (text, parse_dims(dims)?),
        None => (text, Dims::new()),
    };
    let (text, within) = match text.rsplit_once(" within ") {
        Some((text, within)) => {
            (text, Some(within.trim().parse().map_err(|_| format!("`{within}` is no tolerance"))?))
        }
        None => (text, None),
    };
    let (call, results) = match text.split_once("==") {
        Some((call, results)) => (call, Some(results)),
        None => (text, None),
    };
    let call = call.trim();
    let (function, arguments) = call
        .strip_prefix('@')
        .and_then(|call| call.strip_suffix(')'))
        .and_then(|call| call.split_once('('))
        .ok_or_else(|| format!("`{call}` is not @FUNCTION(ARGUMENTS)"))?;
    let tensors = |text: &str, role: &str| -> Result<Vec<Data>, String> {
        let items = text.split(';').map(str::trim).filter(|item| !item.is_empty());
        items
            .enumerate()
            .map(|(position, item)| tensor(item, &dims, &format!("{function}/{role}/{position}")))
            .collect()
    };
    Ok(RunLine {
        line,
        function: function.to_owned(),
        arguments: tensors(arguments, "argument")?,
        expected: results.map(|results| tensors(results, "result")).transpose()?,
        within,
    })
}

fn parse_dims(text: &str) -> Result<Dims, String> {
    let pair = |item: &str| {
        let (name, size) = item.split_once('=')?;
        Some((name.trim().to_owned(), size.trim().parse().ok()?))
    };
    text.split(',').map(|item| pair(item).ok_or_else(|| format!("`{item}` is not NAME=SIZE"))).collect()
}

/// `TYPE[SHAPE] VALUE...` or `TYPE[SHAPE] GENERATOR`.
fn tensor(text: &str, dims: &Dims, seed: &str) -> Result<Data, String> {
    let (dtype, shape, rest) = parse_type(text, dims)?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let literal = |word: &&str| word.parse::<f64>().is_ok() || matches!(*word, "true" | "false");
    if let [word] = words[..]
        && !literal(&word)
    {
        return InputSpec::parse(text, dims)?.generate(seed);
    }
    let count: usize = shape.iter().product();
    if words.len() != count {
        return Err(format!("`{text}` has {} values, its shape takes {count}", words.len()));
    }
    let mut bytes = Vec::new();
    for word in words {
        push_scalar(scalar(dtype, word)?, &mut bytes);
    }
    Data::new(dtype, &shape, bytes.into()).map_err(|error| error.to_string())
}

fn scalar(dtype: DType, word: &str) -> Result<Scalar, String> {
    let word = match (dtype, word) {
        (DType::Bool, "true") => "1",
        (DType::Bool, "false") => "0",
        _ => word,
    };
    format!("{dtype}:{word}").parse()
}

impl RunLine {
    /// How far from a stated result a floating-point result may be; stated results are exact unless the line says so.
    pub fn stated_tolerance(&self) -> Tolerance {
        Tolerance { absolute: self.within.unwrap_or(0.0), ..Tolerance::EXACT }
    }

    /// How far from the reference executor another may be.
    pub fn executor_tolerance(&self) -> Tolerance {
        match self.within {
            Some(absolute) => Tolerance { absolute, ..Tolerance::EXACT },
            None => {
                let terms = self.arguments.iter().map(Data::count).max().unwrap_or(1);
                let dtype = self
                    .arguments
                    .iter()
                    .map(Data::dtype)
                    .find(|dtype| dtype.is_float())
                    .unwrap_or(DType::F32);
                Tolerance::accumulated(dtype, terms)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<RunLine, DirectiveError> {
        match Directive::parse(3, &format!("// run: {text}"))? {
            Some(Directive::Run(run)) => Ok(run),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_run_line_has_arguments_results_and_tolerance() {
        let line = run("@f(f32[2] 1 -2.5; i64[] 7) == f32[2] nan inf; i1[1] true within 1e-6").unwrap();
        assert_eq!((line.function.as_str(), line.line, line.within), ("f", 3, Some(1e-6)));
        assert_eq!(line.arguments[0].to_f32().unwrap(), [1.0, -2.5]);
        let expected = line.expected.unwrap();
        assert!(expected[0].to_f32().unwrap()[0].is_nan());
        assert_eq!((expected[1].dtype(), expected[1].to_integers().unwrap()), (DType::Bool, vec![1]));
    }

    #[test]
    fn generators_take_dimensions_from_the_line() {
        let line = run("@g(f32[n,3] uniform(0,1); i64[n] integers(0,9)) with n=5").unwrap();
        assert_eq!((line.arguments[0].shape(), line.arguments[1].shape()), (&[5, 3][..], &[5][..]));
        assert_eq!(line.expected, None);
        assert_eq!(run("@g()").unwrap().arguments, vec![]);
        assert_eq!(run("@g(f32[0])").unwrap().arguments[0].count(), 0);
    }

    #[test]
    fn tests_and_skips() {
        let parse = |text| Directive::parse(1, text).unwrap();
        let passes = TestKind::Pass(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(parse("// test: pass=a, b"), Some(Directive::Test(passes)));
        assert_eq!(parse("// test: round-trip"), Some(Directive::Test(TestKind::RoundTrip)));
        assert!(matches!(parse("// skip: cranelift: no f16"), Some(Directive::Skip { .. })));
        assert_eq!(parse("// A remark: not a directive"), None);
        assert_eq!(parse("\"tir.add\"() // run: no"), None);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_line() {
        let error = |text: &str| Directive::parse(9, text).unwrap_err().to_string();
        assert!(error("// test: pas=x").starts_with("line 9: `pas=x`"));
        assert!(error("// test: pass=a,,b").contains("no name"));
        assert!(error("// skip: cranelift").contains("REASON"));
        assert!(error("// run: f(1)").contains("@FUNCTION"));
        assert!(error("// run: @f(f32[3] 1 2)").contains("2 values, its shape takes 3"));
        assert!(error("// run: @f(i8[1] 300)").contains("300"));
        assert!(error("// run: @f(i8[1] 3) within x").contains("tolerance"));
    }
}
