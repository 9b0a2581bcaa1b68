//! `tcc verify`.

use std::path::PathBuf;

use clap::Args;
use tcc::inputs::{ordered, to_data};
use tcc::runtime::Session;
use tcc::verify::{compare, reference};
use tcc::{Error, Model};

use super::Outcome;
use super::common::{CompileArguments, InputArguments};

#[derive(Args)]
pub struct Arguments {
    /// The model.
    model: PathBuf,
    #[command(flatten)]
    inputs: InputArguments,
    #[command(flatten)]
    compile: CompileArguments,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let options = arguments.compile.options()?;
    let model = Model::open(&arguments.model)?;
    let module = model.import(&options.dims)?;
    let compiled = arguments.compile.compile(&arguments.model)?;
    let executable = compiled.executable()?;
    let mut inputs = arguments.inputs.clone();
    inputs.random = inputs.random.or(Some(0));
    let values = inputs.values(&compiled.manifest, &options.dims)?;
    let ordered_inputs = ordered(&compiled.manifest, &values)?;
    let mut session = Session::new(&executable, arguments.compile.run_threads()).map_err(Error::from)?;
    let results = session.run(&ordered_inputs).map_err(Error::from)?;
    let expected = reference(&module, &values)?;
    let mut worst = None;
    for ((port, tensor), expected) in compiled.manifest.outputs.iter().zip(&results).zip(&expected) {
        let difference = compare(&port.name, &to_data(tensor)?, expected)?;
        println!("{}: {:.3} of the tolerance", difference.name, difference.worst);
        if worst.as_ref().is_none_or(|known: &tcc::verify::Difference| known.worst < difference.worst) {
            worst = Some(difference);
        }
    }
    match worst {
        Some(worst) if worst.worst > 1.0 => Err(Error::Mismatch(format!(
            "output '{}' differs most: element {} is {} compiled and {} in the reference, {:.3} times the tolerance",
            worst.name, worst.index, worst.compiled, worst.reference, worst.worst
        ))
        .into()),
        _ => Ok(()),
    }
}
