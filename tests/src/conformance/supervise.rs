//! Runs cases in worker processes.
//!
//! A worker reads one case folder a line from its input and answers one line of JSON a case behind a mark, so that
//! anything else that is printed does no harm. A worker that dies or is silent for too long is replaced, and the case
//! it was at is the one to blame.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::case::Case;
use super::table::{self, Results};
use crate::runners;

/// Begins every line of the protocol.
const MARK: &str = "\u{1}case ";
/// Node cases take milliseconds.
pub const CASE_TIME: Duration = Duration::from_secs(30);
/// Address space of a worker; node cases hold kilobytes, compilers map generously.
const WORKER_MEMORY: u64 = 16 << 30;

/// Runs the cases `names` below `folder`, each for at most `time`, and returns how each ended.
///
/// # Errors
/// A worker cannot be started.
pub fn run_all(
    worker: &Path,
    runner: &str,
    folder: &Path,
    names: &[String],
    time: Duration,
) -> Result<Results, String> {
    let queue: Mutex<VecDeque<&String>> = Mutex::new(names.iter().collect());
    let results = Mutex::new(Results::new());
    let threads = thread::available_parallelism().map_or(1, |n| n.get()).min(8);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || -> Result<(), String> {
        let mut process: Option<Worker> = None;
        while let Some(name) = next() {
            let mut running = match process.take() {
                Some(running) => running,
                None => Worker::start(worker, runner)?,
            };
            let result = match running.answer(&folder.join(name), time) {
                Ok(result) => {
                    process = Some(running);
                    result
                }
                Err(end) => Some(running.end(end, time)),
            };
            let reason = result.map(|reason| table::reason(&reason));
            results.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), reason);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a supervisor panicked".to_owned())?)
    })?;
    Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner))
}

struct Worker {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Worker {
    fn start(program: &Path, runner: &str) -> Result<Worker, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", program.display());
        let mut command = Command::new(program);
        command.arg(runner).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(failed)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the worker has no pipes".to_owned());
        };
        let (sender, lines) = channel();
        // Ends with the worker's output, at the latest when the worker is killed.
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        Ok(Worker { child, input, lines })
    }

    /// `None` for a pass, the reason otherwise; an error means that the worker is of no more use.
    fn answer(&mut self, case: &Path, time: Duration) -> Result<Option<String>, RecvTimeoutError> {
        if writeln!(self.input, "{}", case.display()).and_then(|()| self.input.flush()).is_err() {
            return Err(RecvTimeoutError::Disconnected);
        }
        loop {
            let line = self.lines.recv_timeout(time)?;
            // A runner may have printed text without a line end before the answer.
            if let Some(at) = line.find(MARK) {
                let answer = serde_json::from_str(&line[at + MARK.len()..]);
                return Ok(
                    answer.unwrap_or_else(|error| Some(format!("the worker's answer is damaged: {error}")))
                );
            }
        }
    }

    /// Stops the worker and says how it ended.
    fn end(mut self, end: RecvTimeoutError, time: Duration) -> String {
        if end == RecvTimeoutError::Timeout {
            // Failure means that it is gone already.
            let _ = self.child.kill();
            let _ = self.child.wait();
            return format!("timed out after {} s", time.as_secs_f32());
        }
        drop(self.input);
        match self.child.wait() {
            Ok(status) => format!("crashed: {status}"),
            Err(error) => format!("crashed: {error}"),
        }
    }
}

/// The main loop of a worker.
///
/// # Errors
/// The runner does not exist, or the pipes broke.
pub fn serve(runner: &str) -> Result<(), String> {
    let runner = runners::by_name(runner).ok_or_else(|| format!("no runner is called {runner}"))?;
    let (soft, hard) = rlimit::getrlimit(rlimit::Resource::AS).map_err(|error| error.to_string())?;
    let limit = WORKER_MEMORY.min(soft).min(hard);
    rlimit::setrlimit(rlimit::Resource::AS, limit, hard).map_err(|error| error.to_string())?;
    for line in std::io::stdin().lock().lines() {
        let folder = PathBuf::from(line.map_err(|error| error.to_string())?);
        let result = Case::read(&folder)
            .map_err(|error| format!("unreadable: {error}"))
            .and_then(|case| case.run(&*runner));
        let answer = serde_json::to_string(&result.err()).map_err(|error| error.to_string())?;
        let mut output = std::io::stdout().lock();
        writeln!(output, "{MARK}{answer}")
            .and_then(|()| output.flush())
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_crash_or_a_hang_costs_one_case() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("worker");
        let text = "#!/bin/sh\nwhile read -r case; do case $case in\n\
            *crash) kill -SEGV $$;; *hang) exec sleep 60;;\n\
            *wrong) printf 'noise \\001case \"off by one\"\\n';; *) printf '\\001case null\\n';;\nesac; done\n";
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let names = ["a", "crash", "b", "hang", "wrong", "c", "d"].map(str::to_owned);
        let results = run_all(&script, "none", folder.path(), &names, Duration::from_millis(500)).unwrap();
        for passing in ["a", "b", "c", "d"] {
            assert_eq!(results[passing], None, "{passing}");
        }
        assert_eq!(results["wrong"].as_deref(), Some("off by one"));
        assert!(results["crash"].as_ref().unwrap().starts_with("crashed: signal: 11"), "{results:?}");
        assert_eq!(results["hang"].as_deref(), Some("timed out after 0.5 s"));
    }

    #[test]
    fn a_worker_that_cannot_start_is_an_error() {
        let missing = Path::new("/no/such/worker");
        assert!(run_all(missing, "none", Path::new("/"), &["a".to_owned()], CASE_TIME).is_err());
    }
}
