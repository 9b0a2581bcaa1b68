//! Imports language models and prints, for each, its description and the size of its function, or what is wrong with it.
//!
//! `cargo run -p tcc-frontend --example language_model -- MODEL...`

use std::path::Path;
use tcc_frontend::language_model::{ImportOptions, LanguageModel};

fn main() {
    for path in std::env::args().skip(1) {
        let model = LanguageModel::open(Path::new(&path));
        match model.and_then(|model| Ok((model.import(&ImportOptions::default())?, model))) {
            Ok((module, model)) => {
                let count = module.entry().map_or(0, |function| function.body.operations.len());
                println!("{path}: {model}\n  special tokens: {:?}", model.tokens.special);
                match tcc_ir::verify::verify(&module) {
                    Ok(()) => println!("  function: {count} operations"),
                    Err(error) => println!("  does not verify: {error}"),
                }
            }
            Err(error) => println!("{path}: {error}"),
        }
    }
}
