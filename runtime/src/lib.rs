//! Loads and runs what tcc compiles: bundle reader, arena, thread pool, C ABI. Knows no compiler crate.
