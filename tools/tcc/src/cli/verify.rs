//! `tcc verify`.

use std::path::PathBuf;

use clap::Args;
use tcc::inputs::{ordered, to_data};
use tcc::runtime::Session;
use tcc::verify::{Difference, compare, perturbed, reference, root_mean_square};
use tcc::{Error, Model};

use super::common::{CompileArguments, InputArguments};
use super::{Outcome, design};

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
    if let Some(part) = design::part(&arguments.compile.target) {
        return design::verify(&arguments.model, part, &arguments.compile, &arguments.inputs);
    }
    let options = arguments.compile.options()?;
    let model = Model::open(&arguments.model)?;
    let module = model.import(&options.dims)?;
    let compiled = arguments.compile.compile(&arguments.model)?;
    let executable = compiled.executable()?;
    let mut inputs = arguments.inputs.clone();
    inputs.random = inputs.random.or(Some(0));
    let values = inputs.values(&compiled.manifest, &options.dims)?;
    let ordered = ordered(&compiled.manifest, &values)?;
    let ordered_inputs = ordered.tensors()?;
    let mut session = Session::new(&executable, arguments.compile.run_threads()).map_err(Error::from)?;
    let results = session.run(&ordered_inputs).map_err(Error::from)?;
    let expected = reference(&module, &values)?;
    let mut outside: Vec<(usize, Difference)> = Vec::new();
    let mut compiled_values = Vec::new();
    for (index, ((port, tensor), expected)) in
        compiled.manifest.outputs.iter().zip(&results).zip(&expected).enumerate()
    {
        let data = to_data(tensor)?;
        let difference = compare(&port.name, &data, expected)?;
        println!("{}: {:.3} of the tolerance", difference.name, difference.worst);
        if difference.worst > 1.0 {
            outside.push((index, difference));
        }
        compiled_values.push(data);
    }
    if outside.is_empty() {
        return Ok(());
    }
    // Rounding may move a sensitive model further than the tolerance says: as far as rounding errors in its weights and sums
    // move the reference itself.
    let moved = reference(&perturbed(&module)?, &values)?;
    outside.retain(|(index, difference)| {
        let error = root_mean_square(&compiled_values[*index], &expected[*index]);
        let sensitivity = moved.get(*index).and_then(|moved| root_mean_square(moved, &expected[*index]));
        let (Some(error), Some(sensitivity)) = (error, sensitivity) else { return true };
        println!(
            "{}: root mean square error {error:.3e}; rounding errors in weights and sums give {sensitivity:.3e}",
            difference.name
        );
        error > SENSITIVITY_FACTOR * sensitivity
    });
    match outside.into_iter().map(|(_, difference)| difference).max_by(|a, b| a.worst.total_cmp(&b.worst)) {
        Some(worst) => Err(Error::Mismatch(format!(
            "output '{}' differs most: element {} is {} compiled and {} in the reference, {:.3} times the tolerance",
            worst.name, worst.index, worst.compiled, worst.reference, worst.worst
        ))
        .into()),
        None => Ok(()),
    }
}

/// A compiled model rounds in every operation, the perturbed reference in weights and sums only: so many times its error
/// is allowed.
const SENSITIVITY_FACTOR: f64 = 4.0;
