//! Imports ONNX models and prints, for each, its size as tensor IR, or what is wrong with it.
//!
//! `cargo run -p tcc-frontend --example onnx_import -- MODEL...`

use std::path::Path;
use tcc_frontend::onnx::{ImportOptions, Model, import};

fn main() {
    for path in std::env::args().skip(1) {
        let module =
            Model::open(Path::new(&path)).and_then(|model| import(&model, &ImportOptions::default()));
        match module {
            Ok(module) => {
                let mut count = 0;
                if let Some(function) = module.entry() {
                    function.body.visit(&mut |_| count += 1);
                }
                match tcc_ir::verify::verify(&module) {
                    Ok(()) => println!("{path}: {count} operations"),
                    Err(error) => println!("{path}: does not verify: {error}"),
                }
            }
            Err(error) => println!("{path}: {error}"),
        }
    }
}
