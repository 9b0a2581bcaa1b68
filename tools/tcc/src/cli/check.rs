//! `tcc check`.

use std::path::PathBuf;

use clap::Args;
use tcc::{Error, Model};

use super::Outcome;

#[derive(Args)]
pub struct Arguments {
    /// The model.
    model: PathBuf,
    /// Target whose kernels must exist, too.
    #[arg(long, default_value = "cpu")]
    target: String,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let model = Model::open(&arguments.model)?;
    tcc::Target::named(&arguments.target)?;
    let unsupported = model.check()?;
    if let Some(language_model) = model.language_model() {
        println!("{language_model}");
    }
    if unsupported.is_empty() {
        println!("{}: every node is supported", model.name());
        return Ok(());
    }
    for node in &unsupported {
        println!("{node}");
    }
    let reason = format!("{} unsupported nodes", unsupported.len());
    Err(Error::Format { path: arguments.model.clone(), reason }.into())
}
