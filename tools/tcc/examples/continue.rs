//! Continues a text in two ways: `continue MODEL TEXT [COUNT]`.
//!
//! The whole use of language models from Rust: load, create a sequence, extend it by the prompt, fork it, sample from both,
//! and drop them. MODEL is a .gguf file, a folder with config.json and safetensors, or a bundle from `tcc compile`.

use std::path::Path;

use tcc::generate::model::Room;
use tcc::generate::{CompiledLanguageModel, LoadedLanguageModel, Sampler, Sampling};
use tcc::{CompileOptions, Target};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, text, count @ ..] = arguments.as_slice() else {
        return Err("usage: continue MODEL TEXT [COUNT]".into());
    };
    let count: usize = count.first().map_or(Ok(16), |count| count.parse())?;
    let path = Path::new(path);

    let loaded = match path.extension().is_some_and(|extension| extension == "tcc") {
        true => LoadedLanguageModel::open_bundle(path)?,
        false => {
            CompiledLanguageModel::new(path, &CompileOptions::new(Target::named("cpu")?), None)?.load()?
        }
    };
    let prompt = loaded.tokenizer().encode(text)?;
    let room = Room { context: Some(prompt.len() + count), sequences: 2 };
    let mut generator = loaded.generator(room, 1)?;

    let likely = generator.create();
    generator.extend(likely, &prompt)?;
    // The prompt is read once: both sequences share its pages.
    let drawn = generator.fork(likely)?;
    for (sequence, temperature) in [(likely, 0.0), (drawn, 1.0)] {
        let mut sampler = Sampler::new(&Sampling { temperature, min_p: 0.05, ..Sampling::default() })?;
        for _ in 0..count {
            let token = generator.sample(sequence, &mut sampler)?;
            if generator.tokenizer().is_stop(token) {
                break;
            }
            generator.extend(sequence, &[token])?;
        }
        println!("{temperature}: {}", generator.tokenizer().decode(generator.tokens(sequence)?));
        generator.remove(sequence)?;
    }
    Ok(())
}
