//! Model readers: ONNX, Hugging Face folders and GGUF become tensor IR.
