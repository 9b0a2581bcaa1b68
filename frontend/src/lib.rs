//! Model readers: ONNX, Hugging Face folders and GGUF become tensor IR.
//!
//! Every reader works on a read-only memory map of the file ([`map`]), so weights are referenced and never copied,
//! and checks every size that a file declares against the bytes that are there before it allocates anything.

pub mod gguf;
pub mod language_model;
pub mod map;
pub mod onnx;
pub mod safetensors;
