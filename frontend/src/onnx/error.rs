//! What can be wrong with an ONNX model, in terms of its nodes, values and fields.

use super::import::Unsupported;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where in a model an error was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeId {
    /// The node's name, or `Operator#index` where the file gives none.
    pub name: String,
    /// Operator type.
    pub operator: String,
    /// Operator domain; empty for the standard operators.
    pub domain: String,
    /// Version of the domain's operator set that the node is written in.
    pub opset: i64,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domain = if self.domain.is_empty() { "ai.onnx" } else { &self.domain };
        let (name, operator, domain) = (shortened(&self.name), shortened(&self.operator), shortened(domain));
        write!(f, "node '{name}' ({operator}, {domain} opset {})", self.opset)
    }
}

/// A name from a file, cut where nobody would read on.
fn shortened(name: &str) -> Cow<'_, str> {
    const MOST: usize = 200;
    match name.char_indices().nth(MOST) {
        Some((end, _)) => Cow::Owned(format!("{}... ({} bytes)", &name[..end], name.len())),
        None => Cow::Borrowed(name),
    }
}

/// Why a model cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The file system refused.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// Not a protobuf message of the expected schema.
    #[error("not an ONNX {message} (damaged, truncated or another format): {reason}")]
    Malformed {
        /// The message that was expected.
        message: &'static str,
        /// What the decoder found.
        reason: String,
    },
    /// Decoding would take far more memory than the file has bytes.
    #[error(
        "the file declares messages that would take {needed} bytes of memory but holds only {length} bytes"
    )]
    Oversized {
        /// Memory that the decoded messages would take.
        needed: u64,
        /// Length of the file.
        length: u64,
    },
    /// `ModelProto.graph` is missing.
    #[error("the model has no graph")]
    NoGraph,
    /// `GraphProto.output` is empty.
    #[error(
        "graph '{graph}' has no output, so nothing in it would be computed; name what it gives as an output"
    )]
    NoOutput {
        /// Name of the graph.
        graph: String,
    },
    /// An operator set is imported twice with different versions.
    #[error("opset_import names domain '{domain}' with versions {first} and {second}")]
    OpsetConflict {
        /// The domain.
        domain: String,
        /// Version that came first.
        first: i64,
        /// The other version.
        second: i64,
    },
    /// A version of the standard operators outside of what tcc reads.
    #[error("opset {version} of ai.onnx is not supported: tcc reads {oldest} to {newest}; convert the model")]
    OpsetVersion {
        /// Version that the model asks for.
        version: i64,
        /// Oldest version read.
        oldest: i64,
        /// Newest version read.
        newest: i64,
    },
    /// A node uses a domain that the model does not import.
    #[error("{node} uses domain '{}', which opset_import does not name", node.domain)]
    OpsetMissing {
        /// The node.
        node: Box<NodeId>,
    },
    /// A stored tensor is inconsistent.
    #[error("tensor '{tensor}': {source}")]
    Tensor {
        /// Name of the tensor, or of the node and attribute that holds it.
        tensor: String,
        /// What is wrong with it.
        source: TensorError,
    },
    /// A name is assigned twice in one graph.
    #[error("value '{value}' is defined twice in graph '{graph}': by {first} and by {second}")]
    DefinedTwice {
        /// The value.
        value: String,
        /// The graph.
        graph: String,
        /// First definition.
        first: String,
        /// Second definition.
        second: String,
    },
    /// A name is read and never assigned.
    #[error("{user} reads '{value}', which is no input, no initializer and no node's output")]
    Undefined {
        /// The value.
        value: String,
        /// Who reads it.
        user: String,
    },
    /// Nodes that wait for each other.
    #[error("the graph has a cycle: {}", nodes.join(" -> "))]
    Cycle {
        /// Names of the nodes on it, in order of data flow; the first one is repeated at the end.
        nodes: Vec<String>,
    },
    /// A local function calls itself.
    #[error("local function {} calls itself: {}", calls[0], calls.join(" -> "))]
    Recursion {
        /// Functions on the call path.
        calls: Vec<String>,
    },
    /// Subgraphs and calls of local functions nest too deeply.
    #[error("subgraphs and local functions nest more than {limit} levels deep")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// Inlining local functions exceeds the limit on nodes.
    #[error("inlining local functions gives more than {limit} nodes")]
    TooManyNodes {
        /// The limit.
        limit: usize,
    },
    /// A graph input, output or constant of a type that cannot be imported.
    #[error("value '{value}': {reason}")]
    Value {
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A dimension that the caller wants to fix and that no input has.
    #[error("no input has a dimension '{name}'; {}", known_dimensions(known))]
    UnknownDimension {
        /// The name that was given.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// Nodes that tcc does not support, all of them.
    #[error("{} of the model's nodes are not supported:{}", nodes.len(), list(nodes))]
    Unsupported {
        /// The nodes with reasons.
        nodes: Vec<Unsupported>,
    },
    /// Something is wrong with one node.
    #[error("{node}: {source}")]
    Node {
        /// The node.
        node: Box<NodeId>,
        /// What is wrong with it.
        source: NodeError,
    },
}

/// What is wrong with a stored tensor.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// The type number is not in the schema.
    #[error("data_type {0} is not in the ONNX schema")]
    UnknownType(i32),
    /// A type of the schema that tcc does not read.
    #[error("data_type {0} is not supported")]
    UnsupportedType(&'static str),
    /// A negative dimension.
    #[error("dimension {axis} is {size}")]
    NegativeDimension {
        /// Its position.
        axis: usize,
        /// Its value.
        size: i64,
    },
    /// More elements than 64 bits count.
    #[error("the shape {0:?} has too many elements")]
    TooLarge(Vec<i64>),
    /// Stored bytes and shape disagree.
    #[error("the shape takes {expected} {unit} but {field} holds {found}")]
    Length {
        /// Field of the message.
        field: &'static str,
        /// Unit of the numbers: bytes or entries.
        unit: &'static str,
        /// What the shape takes.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// A value that its element type does not hold.
    #[error("{field} holds {value}, which {element} does not hold")]
    Value {
        /// Field of the message.
        field: &'static str,
        /// The value.
        value: i64,
        /// Element type.
        element: &'static str,
    },
    /// Data in segments, a field of the schema that no exporter writes.
    #[error("segmented tensors are not supported")]
    Segmented,
    /// External data without a usable place.
    #[error(transparent)]
    External(#[from] ExternalError),
}

/// Why external data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// The model did not come from a file.
    #[error("external data in a model that was not read from a folder")]
    NoFolder,
    /// `external_data` has no `location`.
    #[error("external_data has no location")]
    NoLocation,
    /// The location is absolute, has `..`, or leads out of the folder through a link.
    #[error("external data '{location}' is outside of the model's folder")]
    Outside {
        /// The location as written.
        location: String,
    },
    /// A number that does not parse.
    #[error("external_data {key} is '{text}', which is no size")]
    Number {
        /// `offset` or `length`.
        key: &'static str,
        /// What the file says.
        text: String,
    },
    /// The file system refused.
    #[error("cannot read external data '{location}': {source}")]
    Read {
        /// The location as written.
        location: String,
        /// What the system said.
        source: io::Error,
    },
    /// The range ends after the file does.
    #[error(
        "external data '{location}' has {file_length} bytes, but bytes {offset} to {offset} + {length} are asked for"
    )]
    Range {
        /// The location as written.
        location: String,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
        /// Length of the file.
        file_length: u64,
    },
}

/// What is wrong with a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// An attribute is given twice.
    #[error("attribute '{0}' is given twice")]
    DuplicateAttribute(String),
    /// A required attribute is missing.
    #[error("attribute '{0}' is missing")]
    MissingAttribute(String),
    /// An attribute has another type than the operator defines.
    #[error("attribute '{attribute}' is not {expected}")]
    AttributeType {
        /// The attribute.
        attribute: String,
        /// The type that was expected.
        expected: &'static str,
    },
    /// An attribute has a value that the operator does not define.
    #[error("attribute '{attribute}' is {value}")]
    AttributeValue {
        /// The attribute.
        attribute: String,
        /// What it is and what it may be.
        value: String,
    },
    /// Types, shapes or values of the operands do not fit the operator's definition.
    #[error("{0}")]
    Operands(String),
    /// A required input is missing.
    #[error("input {index} ({input}) is missing")]
    MissingInput {
        /// Position.
        index: usize,
        /// Its name in the operator's definition.
        input: &'static str,
    },
    /// More or fewer inputs or outputs than the operator has.
    #[error("{found} {what}, but the operator takes {expected}")]
    Count {
        /// Inputs or outputs.
        what: &'static str,
        /// How many the node has.
        found: usize,
        /// How many are allowed.
        expected: String,
    },
}

fn list(nodes: &[Unsupported]) -> String {
    nodes.iter().map(|node| format!("\n  {node}")).collect()
}

fn known_dimensions(known: &[String]) -> String {
    if known.is_empty() {
        "all of them are numbers".into()
    } else {
        format!("their names are {}", known.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::NodeId;

    #[test]
    fn endless_names_are_cut() {
        let (name, operator) = ("é".repeat(100_000), "Add".to_owned());
        let text = NodeId { name, operator, domain: String::new(), opset: 17 }.to_string();
        assert!(
            text.len() < 500 && text.contains("200000 bytes") && text.ends_with("(Add, ai.onnx opset 17)"),
            "{text}"
        );
    }
}
