//! Every real model of `zoo.toml`, on every runner, against the stored reference outputs.
//!
//! What is not in the cache is ignored by name. `TCC_ZOO=all` adds the models that are too heavy for every run.

use std::collections::BTreeMap;
use std::env;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use tcc_ir::data::Data;
use tcc_tests::conformance::RunError;
use tcc_tests::runners;
use tcc_tests::value::Value;
use tcc_tests::zoo::{self, Case};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let all = env::var("TCC_ZOO").is_ok_and(|value| value == "all");
    let mut trials = Vec::new();
    for case in zoo::cases().expect("tests/zoo.toml can be read") {
        for &runner in runners::NAMES {
            let absent = case.model.path().err();
            if let Some(reason) = absent.as_ref().filter(|_| !arguments.list) {
                eprintln!("ignored {runner}::{}: {reason}", case.name);
            }
            let ignored = absent.is_some() || (case.model.heavy && !all);
            let case = case.clone();
            let trial = Trial::test(format!("{runner}::{}", case.name), move || {
                run(runner, &case).map_err(Failed::from)
            });
            trials.push(trial.with_ignored_flag(ignored));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run(runner: &str, case: &Case) -> Result<(), String> {
    let runner = runners::by_name(runner).ok_or_else(|| format!("no runner is called {runner}"))?;
    let inputs: Vec<(String, Value)> =
        case.inputs()?.into_iter().map(|(name, data)| (name, Value::Tensor(data))).collect();
    let outputs = runner.run(&case.model.path()?, &inputs).map_err(|error| match error {
        RunError::Refused(message) => format!("refused: {message}"),
        RunError::Failed(message) => format!("failed: {message}"),
    })?;
    let tensor = |(name, value)| match value {
        Value::Tensor(data) => Ok((name, data)),
        other => Err(format!("output {name} is {}", other.describe())),
    };
    let outputs: BTreeMap<String, Data> = outputs.into_iter().map(tensor).collect::<Result<_, String>>()?;
    case.check(&outputs)
}
