//! Kernel IR to MLIR, LLVM IR, object code and a JIT.
