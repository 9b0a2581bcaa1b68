//! Generated projects, built by g++ and run against the kernel interpreter.
//!
//! Tests are skipped by name where there is no g++, and those with integers or fixed point where the `ap_types` headers
//! can neither be found nor fetched.

mod dataflow;
mod fixed;
mod integer;
mod models;
mod networks;
mod operators;
mod refusals;
mod simulate;
mod transformer;
