//! Kernel IR to Cranelift: milliseconds to compile, no LLVM needed.
