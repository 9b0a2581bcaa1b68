//! Two models in one program: one of constant shapes on plain arrays, one of any shape on tensors.
//!
//!   tcc compile perceptron.tir --emit staticlib -o libperceptron.a
//!   tcc compile likelihood.tir --emit staticlib -o liblikelihood.a
//!   rustc --edition 2024 -L. example.rs

mod likelihood;
mod perceptron;

/// The number of `f32` among element types.
const F32: i32 = 0;

fn print(name: &str, values: &[f32]) {
    let values: Vec<String> = values.iter().map(f32::to_string).collect();
    println!("{name} {}", values.join(" "));
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut scores = [0f32; 3];
    perceptron::Session::new(1)?.run(&[0.5, -1.0, 0.25, 2.0], &mut scores)?;
    print("scores", &scores);

    let bytes: Vec<u8> = scores.iter().flat_map(|score| score.to_le_bytes()).collect();
    let row = likelihood::Input { dtype: F32, shape: &[1, 3], bytes: &bytes };
    let outputs = likelihood::Session::new(2)?.run_tensors(&[row])?;
    let numbers = outputs[0].bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    print("probabilities", &numbers.collect::<Vec<f32>>());
    Ok(())
}
