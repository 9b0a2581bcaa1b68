//! ONNX models: reading, structural checks and import into tensor IR.
//!
//! The way of a file, one module a step:
//!
//! | step | module |
//! |---|---|
//! | memory map, limits on what the wire format may expand to, protobuf | [`wire`], [`proto`], [`model`] |
//! | tensor payloads, referenced from the map; external data confined to the model's folder | [`tensor`], [`external`] |
//! | local functions inlined, names resolved, single assignment, topological order | [`graph`], [`function`], [`order`] |
//! | decomposition into tensor IR operators with symbolic shapes | [`import`](mod@import) |
//!
//! The schema is `proto/onnx/` of this crate, taken unchanged from the ONNX project (Apache-2.0).

pub mod attribute;
pub mod element;
pub mod error;
pub mod external;
pub mod function;
pub mod graph;
pub mod import;
pub mod model;
pub mod order;
pub mod tensor;
pub mod test_data;
pub mod value;
pub mod wire;

/// Message types generated from the public ONNX schema.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

pub use error::OnnxError;
pub use graph::{Attribute, Graph, Node};
pub use import::{ImportOptions, Unsupported, check, import};
pub use model::Model;
pub use tensor::Tensor;
pub use value::{Dimension, ValueInfo, ValueType};
