//! The model of this host as `tcc targets --measure` found it.
//!
//! Having measured is opting in: where the file is, the target `cpu` is compiled for what it says, and the same file gives
//! the same bytes. Without it the shipped table counts. [`MeasuredMachine::origin`] goes into the artifact, so that two
//! artifacts of one model that differ tell why.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Machine;

/// Version of the file's format.
const FORMAT: u32 = 1;

/// What was measured of one arithmetic operation.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Rate {
    /// What was counted, such as `f32 multiply-add`.
    pub name: String,
    /// Unit of the rates.
    pub unit: String,
    /// Billions a second on one thread.
    pub one_thread: f64,
    /// Billions a second on all threads together.
    pub all_threads: f64,
}

/// What was measured of one memory level.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Bandwidth {
    /// `L1`, `L2`, `L3` or `memory`.
    pub level: String,
    /// Capacity that one core sees; none for memory.
    pub bytes: Option<u64>,
    /// Gigabytes a second that one thread reads.
    pub one_thread: f64,
    /// Gigabytes a second that all threads read together.
    pub all_threads: f64,
}

/// A measured machine: what the cost model uses, and what it follows from.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MeasuredMachine {
    /// Version of this format.
    pub format: u32,
    /// The processor as the system names it; a model of another processor is not used.
    pub processor: String,
    /// Threads of `all_threads`.
    pub threads: usize,
    /// Peak rates.
    pub rates: Vec<Rate>,
    /// Memory levels, innermost first.
    pub bandwidths: Vec<Bandwidth>,
    /// Microseconds from one kernel on all threads to the next.
    pub launch_microseconds: f64,
    /// The model that follows.
    pub machine: Machine,
}

/// Why a measured model is not used.
#[derive(Debug, thiserror::Error)]
pub enum MeasuredError {
    /// The file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not a machine model for this machine.
    #[error("{}: {reason}; measure again with `tcc targets --measure`", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The processor's name in `/proc/cpuinfo`, the architecture elsewhere.
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_string(), |(_, name)| name.trim().to_string())
}

impl MeasuredMachine {
    /// A measurement of this machine.
    pub fn new(
        rates: Vec<Rate>,
        bandwidths: Vec<Bandwidth>,
        launch_microseconds: f64,
        machine: Machine,
    ) -> Self {
        let (format, processor, threads) = (FORMAT, processor(), machine.cores);
        MeasuredMachine { format, processor, threads, rates, bandwidths, launch_microseconds, machine }
    }

    /// Where the model of this host is kept: `machine.json` in `$TCC_CACHE_DIR`, else in `tcc` of the user's cache folder.
    pub fn path() -> Option<PathBuf> {
        let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        Some(folder("TCC_CACHE_DIR").or_else(|| Some(cache()?.join("tcc")))?.join("machine.json"))
    }

    /// Reads a model and checks that it is one of this machine.
    pub fn read(path: &Path) -> Result<MeasuredMachine, MeasuredError> {
        let bytes =
            std::fs::read(path).map_err(|source| MeasuredError::Io { path: path.to_owned(), source })?;
        let fail = |reason: String| MeasuredError::Content { path: path.to_owned(), reason };
        let measured: MeasuredMachine =
            serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))?;
        if measured.format != FORMAT {
            return Err(fail(format!("format {}, expected {FORMAT}", measured.format)));
        }
        let (found, here) = (&measured.processor, processor());
        if *found != here {
            return Err(fail(format!("is of the processor '{found}', this is '{here}'")));
        }
        match measured.machine.fault() {
            Some(fault) => Err(fail(fault)),
            None => Ok(measured),
        }
    }

    /// Writes the model, all at once.
    pub fn write(&self, path: &Path) -> Result<(), MeasuredError> {
        let fail = |source| MeasuredError::Io { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(fail)?;
        }
        let text = serde_json::to_string_pretty(self).map_err(|error| fail(error.into()))?;
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        std::fs::write(&temporary, text).map_err(fail)?;
        std::fs::rename(&temporary, path).map_err(fail)
    }

    /// Which model this is, for the metadata of artifacts: a hash of what the compiler reads of it.
    pub fn origin(&self) -> String {
        let text = serde_json::to_string(&self.machine).unwrap_or_default();
        format!("measured {}", &blake3::hash(text.as_bytes()).to_hex()[..16])
    }
}

impl Machine {
    /// The model of this host and where it is from: measured where the user has measured, else the shipped table.
    pub fn of_this_host() -> (Machine, String) {
        let path = MeasuredMachine::path().filter(|path| path.exists());
        match path.map(|path| MeasuredMachine::read(&path)) {
            Some(Ok(measured)) => {
                let origin = measured.origin();
                return (measured.machine, origin);
            }
            Some(Err(error)) => log::warn!("the measured machine model is not used: {error}"),
            None => {}
        }
        let machine = Machine::host();
        (machine, "shipped table".to_string())
    }

    /// What makes this model unusable, if anything: rates and sizes are positive and finite.
    fn fault(&self) -> Option<String> {
        let rates = [
            self.f32_gigaflops,
            self.int8_gigaops,
            self.elementwise_gigaops,
            self.transcendental_gigaops,
            self.memory_gigabytes_per_second,
            self.total_memory_gigabytes_per_second,
            self.channels_first_factor,
        ];
        let caches = self.caches.iter().map(|cache| cache.gigabytes_per_second);
        let positive = |rate: f64| rate.is_finite() && rate > 0.0;
        let launch = self.launch_microseconds;
        if self.cores == 0 || self.vector_bytes == 0 || self.caches.iter().any(|cache| cache.bytes == 0) {
            return Some("a size is zero".into());
        }
        let fine = rates.into_iter().chain(caches).all(positive) && launch.is_finite() && launch >= 0.0;
        (!fine).then(|| "a rate is not positive".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> MeasuredMachine {
        MeasuredMachine::new(Vec::new(), Vec::new(), 1.0, Machine::host())
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/machine.json");
        example().write(&path).unwrap();
        let found = MeasuredMachine::read(&path).unwrap();
        assert_eq!(found, example());
        assert_eq!(found.origin(), example().origin());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn models_that_are_damaged_or_foreign_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machine.json");
        let refused = |measured: &MeasuredMachine, part: &str| {
            measured.write(&path).unwrap();
            let error = MeasuredMachine::read(&path).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        refused(&MeasuredMachine { processor: "another".into(), ..example() }, "another");
        refused(&MeasuredMachine { format: 0, ..example() }, "format 0");
        let mut broken = example();
        broken.machine.f32_gigaflops = 0.0;
        refused(&broken, "rate");
        broken = example();
        broken.machine.cores = 0;
        refused(&broken, "size");
        std::fs::write(&path, "{").unwrap();
        assert!(MeasuredMachine::read(&path).is_err());
        assert!(MeasuredMachine::read(folder.path()).is_err());
    }
}
