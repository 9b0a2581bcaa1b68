//! Mutated files through every reader, as many as `TCC_FUZZ` says or else a few: see `tcc_tests::fuzz`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs};

use libtest_mimic::{Arguments, Failed, Trial};
use tcc_tests::fuzz::{READERS, Reader};

/// No file of a few kilobytes takes longer to read, on the slowest machine and build.
const LONGEST: Duration = Duration::from_secs(20);

/// Files for each reader where nothing is said, which take seconds.
const FILES: u64 = 200;

/// Random choices for one file.
const CHOICES: usize = 96;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let files = env::var("TCC_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(FILES);
    let trial = |reader: &'static Reader| Trial::test(reader.name, move || run(reader, files));
    libtest_mimic::run(&arguments, READERS.iter().map(trial).collect()).exit_code()
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn run(reader: &Reader, files: u64) -> Result<(), Failed> {
    let seeds = (reader.seeds)();
    if seeds.is_empty() {
        return Err("no seeds".into());
    }
    seeds.iter().try_for_each(|seed| read(reader, seed, "a seed"))?;
    for number in 0..files {
        let mut state = number;
        let choices: Vec<u8> = (0..CHOICES / 8).flat_map(|_| random(&mut state).to_le_bytes()).collect();
        read(reader, &reader.file(&seeds, &choices), &format!("file {number}"))?;
    }
    Ok(())
}

fn read(reader: &Reader, file: &[u8], what: &str) -> Result<(), Failed> {
    let start = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (reader.read)(file)));
    let late = start.elapsed() > LONGEST;
    if outcome.is_ok() && !late {
        return Ok(());
    }
    let kept = env::temp_dir().join(format!("tcc-fuzz-{}", reader.name));
    fs::write(&kept, file).map_err(|error| error.to_string())?;
    let reason = if late { "takes too long" } else { "panics" };
    Err(format!("{what} {reason}; it is kept in {}", kept.display()).into())
}
