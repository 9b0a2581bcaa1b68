//! `tcc opt`.

use std::path::PathBuf;

use clap::Args;
use tcc::ir::print;
use tcc::model::Dims;
use tcc::{Error, Model};

use super::Outcome;

#[derive(Args)]
pub struct Arguments {
    /// The module.
    file: PathBuf,
    /// Passes in order, by name.
    #[arg(long, value_delimiter = ',')]
    passes: Vec<String>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let mut module = Model::open(&arguments.file)?.import(&Dims::new())?;
    let passes: Vec<&str> = arguments.passes.iter().map(String::as_str).collect();
    tcc_passes::run_passes(&mut module, &passes, &tcc_passes::Context::default()).map_err(Error::from)?;
    print!("{}", print::module(&module));
    Ok(())
}
