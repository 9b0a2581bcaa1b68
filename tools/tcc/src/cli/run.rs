//! `tcc run`.

use std::path::PathBuf;

use clap::Args;
use tcc::inputs::{ordered, to_data};
use tcc::ir::convert::{element, texts};
use tcc::ir::data::Data;
use tcc::runtime::Session;
use tcc::{Error, npz};

use super::common::{CompileArguments, InputArguments, load};
use super::{Failure, Outcome, design};

#[derive(Args)]
pub struct Arguments {
    /// The model or artifact.
    model: PathBuf,
    /// Write the outputs here, under their names in the model.
    #[arg(short, long, value_name = "OUT.npz")]
    output: Option<PathBuf>,
    #[command(flatten)]
    inputs: InputArguments,
    #[command(flatten)]
    compile: CompileArguments,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let named = match design::part(&arguments.compile.target) {
        Some(part) => design::run(&arguments.model, part, &arguments.compile, &arguments.inputs)?,
        None => outputs(arguments)?,
    };
    for (name, data) in &named {
        println!("{name}: {} {:?} {}", data.dtype(), data.shape(), preview(data));
    }
    if let Some(path) = &arguments.output {
        npz::write_npz(path, named.iter().map(|(name, data)| (name.as_str(), data)))
            .map_err(|error| Error::Format { path: path.clone(), reason: error.to_string() })?;
    }
    Ok(())
}

/// The outputs of a program by name.
fn outputs(arguments: &Arguments) -> Result<Vec<(String, Data)>, Failure> {
    let loaded = load(&arguments.model, &arguments.compile)?;
    let values = arguments.inputs.values(&loaded.manifest, &arguments.compile.dims()?)?;
    let ordered = ordered(&loaded.manifest, &values)?;
    let inputs = ordered.tensors()?;
    let mut session =
        Session::new(&loaded.executable, arguments.compile.run_threads()).map_err(Error::from)?;
    let results = session.run(&inputs).map_err(Error::from)?;
    let mut named: Vec<(String, Data)> = Vec::new();
    for (port, tensor) in loaded.manifest.outputs.iter().zip(&results) {
        named.push((port.name.clone(), to_data(tensor)?));
    }
    Ok(named)
}

/// The first elements.
fn preview(data: &Data) -> String {
    const SHOWN: usize = 8;
    if let Some(texts) = texts(data) {
        let dots = if texts.len() > SHOWN { ", ..." } else { "" };
        let shown: Vec<String> = texts.iter().take(SHOWN).map(|text| format!("{text:?}")).collect();
        return format!("[{}{dots}]", shown.join(", "));
    }
    let mut parts: Vec<String> = (0..data.count().min(SHOWN))
        .filter_map(|index| element(data, index))
        .map(|scalar| {
            if scalar.dtype.is_float() {
                format!("{:.6}", scalar.as_f64())
            } else {
                scalar.as_i64().to_string()
            }
        })
        .collect();
    if data.count() > SHOWN {
        parts.push("...".into());
    }
    format!("[{}]", parts.join(", "))
}
