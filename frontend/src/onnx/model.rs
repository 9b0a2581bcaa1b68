//! A model file: the decoded message, its operator sets and the files beside it.

use super::error::OnnxError;
use super::external::ExternalFiles;
use super::graph::{self, Graph};
use super::proto::{FunctionProto, ModelProto, OperatorSetIdProto};
use super::wire;
use crate::map::map_file;
use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;
use std::path::Path;

/// Oldest and newest version of the standard operator set that tcc reads. Each operator says for itself from which
/// version on it is imported; before version 7 most are refused, because broadcasting was another one.
pub const OPSETS: std::ops::RangeInclusive<i64> = 1..=28;

/// Versions of operator sets by domain; the standard domain is the empty string.
pub type OperatorSets = BTreeMap<String, i64>;

/// A decoded model. Its weights are slices of the memory map, which lives as long as any of them.
#[derive(Debug)]
pub struct Model {
    /// The message as stored.
    pub proto: ModelProto,
    /// Versions from `opset_import`.
    pub operator_sets: OperatorSets,
    pub(super) files: ExternalFiles,
}

impl Model {
    /// Reads a model file. External data is looked for in its folder, and nowhere else.
    ///
    /// # Errors
    /// The file is unreadable, empty, not ONNX, or written for operator sets that tcc does not read.
    pub fn open(path: &Path) -> Result<Self, OnnxError> {
        let refused = |source| OnnxError::Read { path: path.to_owned(), source };
        let buffer = map_file(path).map_err(refused)?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        Self::decode(buffer, ExternalFiles::in_folder(folder).map_err(refused)?)
    }

    /// Reads a model from memory; external data is refused.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(buffer: Bytes) -> Result<Self, OnnxError> {
        Self::decode(buffer, ExternalFiles::default())
    }

    /// Takes a message built in memory; external data is refused.
    ///
    /// # Errors
    /// The operator sets are contradictory or out of range.
    pub fn from_proto(proto: ModelProto) -> Result<Self, OnnxError> {
        Self::check(proto, ExternalFiles::default())
    }

    fn decode(buffer: Bytes, files: ExternalFiles) -> Result<Self, OnnxError> {
        if buffer.is_empty() {
            return Err(OnnxError::Empty);
        }
        wire::check_expansion(wire::Message::Model, &buffer)?;
        let proto = ModelProto::decode(buffer)
            .map_err(|error| OnnxError::Malformed { message: "model", reason: error.to_string() })?;
        Self::check(proto, files)
    }

    fn check(proto: ModelProto, files: ExternalFiles) -> Result<Self, OnnxError> {
        let graph = proto.graph.as_ref().ok_or(OnnxError::NoGraph)?;
        let mut operator_sets = operator_sets(&proto.opset_import)?;
        // IR versions 1 and 2 had no opset_import and meant version 1; a graph without nodes needs none.
        let version = *operator_sets.entry(String::new()).or_insert(1);
        let standard = |node: &super::proto::NodeProto| matches!(node.domain(), "" | "ai.onnx");
        if !OPSETS.contains(&version) && graph.node.iter().any(standard) {
            return Err(OnnxError::OpsetVersion { version, oldest: *OPSETS.start(), newest: *OPSETS.end() });
        }
        Ok(Model { proto, operator_sets, files })
    }

    /// Resolves the main graph: tensors read, local functions inlined, every name defined once and before its use.
    ///
    /// # Errors
    /// The graph is not a well-formed program; the error names the node or value.
    pub fn graph(&self) -> Result<Graph, OnnxError> {
        graph::resolve(self)
    }

    /// Local functions of the model.
    pub fn functions(&self) -> &[FunctionProto] {
        &self.proto.functions
    }
}

/// Collects `opset_import`, with `ai.onnx` written as the empty string.
pub(super) fn operator_sets(imports: &[OperatorSetIdProto]) -> Result<OperatorSets, OnnxError> {
    let mut sets = OperatorSets::new();
    for import in imports {
        let domain = graph::canonical_domain(import.domain());
        let second = import.version();
        match sets.insert(domain.to_owned(), second) {
            Some(first) if first != second => {
                return Err(OnnxError::OpsetConflict { domain: domain.to_owned(), first, second });
            }
            _ => {}
        }
    }
    Ok(sets)
}
