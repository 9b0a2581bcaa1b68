//! Tells the types of files from their bytes, with the Magika model: `identify MODEL_FOLDER FILE...`.
//!
//! The whole use of tcc as a library: open a model, compile it for this machine, make a session, run it on a borrowed
//! tensor, read the result.

use std::path::Path;
use std::time::Instant;

use serde::Deserialize;
use tcc::runtime::{Session, TensorRef};
use tcc::{CompileOptions, Model, Target, compile};

/// The part of the model's `config.min.json` that says how bytes become features.
#[derive(Deserialize)]
struct Config {
    beg_size: usize,
    end_size: usize,
    padding_token: i32,
    block_size: usize,
    target_labels_space: Vec<String>,
}

/// Magika's features: the first bytes after leading white space, the last ones before trailing white space, padded.
fn features(bytes: &[u8], config: &Config) -> Vec<i32> {
    let block = config.block_size.min(bytes.len());
    let head = bytes[..block].trim_ascii_start();
    let tail = bytes[bytes.len() - block..].trim_ascii_end();
    let mut tokens = vec![config.padding_token; config.beg_size + config.end_size];
    for (token, byte) in tokens[..config.beg_size].iter_mut().zip(head) {
        *token = i32::from(*byte);
    }
    let last = &tail[tail.len().saturating_sub(config.end_size)..];
    let start = tokens.len() - last.len();
    for (token, byte) in tokens[start..].iter_mut().zip(last) {
        *token = i32::from(*byte);
    }
    tokens
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: identify MODEL_FOLDER FILE...")?;
    let folder = Path::new(&folder);
    let config: Config = serde_json::from_str(&std::fs::read_to_string(folder.join("config.min.json"))?)?;

    let start = Instant::now();
    let model = Model::open(&folder.join("model.onnx"))?;
    let compiled = compile(&model, &CompileOptions::new(Target::named("cpu")?))?;
    let mut session = Session::new(&compiled.executable()?, 1)?;
    eprintln!("compiled {} kernels in {:.0?}", compiled.kernels.len(), start.elapsed());

    for file in arguments {
        let tokens = features(&std::fs::read(&file)?, &config);
        let start = Instant::now();
        let results = session.run(&[TensorRef::from_slice(&[1, tokens.len()], &tokens)?])?;
        let elapsed = start.elapsed();
        let scores: &[f32] = results[0].elements().ok_or("the model's result is not f32")?;
        let (best, score) =
            scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).ok_or("the model has no labels")?;
        let label = config.target_labels_space.get(best).map_or("?", String::as_str);
        println!("{file}: {label} ({:.1} %, {elapsed:.1?})", score * 100.0);
    }
    Ok(())
}
