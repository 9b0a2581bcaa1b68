//! Reads ONNX models and prints how many nodes each has, or what is wrong with it.
//!
//! `cargo run -p tcc-frontend --example onnx_graph -- MODEL...`

use std::path::Path;
use tcc_frontend::onnx::Model;

fn main() {
    for path in std::env::args().skip(1) {
        match Model::open(Path::new(&path)).and_then(|model| model.graph()) {
            Ok(graph) => {
                println!("{path}: {} nodes, {} constants", graph.nodes.len(), graph.initializers.len())
            }
            Err(error) => println!("{path}: {error}"),
        }
    }
}
