//! What the targets share.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use tcc_tests::fuzz::Reader;

type Seeds = &'static [Vec<u8>];

/// Seeds by reader, made on first use.
static SEEDS: LazyLock<Mutex<HashMap<&'static str, Seeds>>> = LazyLock::new(Mutex::default);

/// Reads the input as a file, and the file that it makes of the seeds where it is taken for choices.
pub fn run(name: &str, input: &[u8]) {
    let reader = Reader::named(name);
    let seeds = {
        let mut all = SEEDS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *all.entry(reader.name).or_insert_with(|| (reader.seeds)().leak())
    };
    (reader.read)(input);
    (reader.read)(&reader.file(seeds, input));
}
