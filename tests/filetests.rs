//! Every file below `filetests/`. See `tcc_tests::filetest` for the directives; `TCC_BLESS=1` accepts changed text.

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use libtest_mimic::{Arguments, Failed, Trial};
use tcc_tests::cache::tests_folder;
use tcc_tests::compiler::Compiler;
use tcc_tests::filetest::{FileTest, Hooks, Outcome, collect};
use tcc_tests::runners;

fn main() -> ExitCode {
    let folder = tests_folder().join("filetests");
    let files = collect(&folder).expect("the folder tests/filetests can be read");
    let trial = |path: std::path::PathBuf| {
        let name = path.strip_prefix(&folder).unwrap_or(&path).with_extension("").display().to_string();
        Trial::test(name, move || run(&path).map_err(Failed::from))
    };
    libtest_mimic::run(&Arguments::from_args(), files.into_iter().map(trial).collect()).exit_code()
}

fn run(path: &Path) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let executors = runners::executors();
    let [reference, others @ ..] = &executors[..] else {
        return Err("there is no reference executor".to_owned());
    };
    let hooks = Hooks {
        transform: &Compiler,
        reference: &**reference,
        executors: others.iter().map(|executor| &**executor).collect(),
    };
    let test = FileTest::parse(&text).map_err(|failure| failure.to_string())?;
    match test.run(&hooks, env::var_os("TCC_BLESS").is_some()).map_err(|failure| failure.to_string())? {
        Outcome::Passed => Ok(()),
        Outcome::Blessed(text) => fs::write(path, text).map_err(|error| error.to_string()),
    }
}
