//! Generated code against plain Rust.

mod casts;
mod control;
mod finalized;
mod functions;
mod fused;
mod harness;
mod memory;
mod objects;
mod rearrange;
mod reference;
