//! Runs conformance cases, one folder a line of input. See `tcc_tests::conformance::supervise`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(runner) = std::env::args().nth(1) else {
        eprintln!("usage: conformance-worker RUNNER");
        return ExitCode::from(2);
    };
    match tcc_tests::conformance::supervise::serve(&runner) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conformance-worker: {error}");
            ExitCode::FAILURE
        }
    }
}
