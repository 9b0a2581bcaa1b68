//! A bound on the memory that decoding takes, from one allocation-free walk over the wire format.
//!
//! Two bytes on the wire (an empty submessage) become a Rust struct of hundreds. A file made of nothing else would
//! take a hundred times its length in memory, so the messages are counted before protobuf decoding starts.

use super::error::OnnxError;
use super::proto;
use bytes::Buf;

/// The messages of the schema, as far as their fields nest or repeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    ValueInfo,
    Type,
    TensorType,
    WrapperType,
    MapType,
    Shape,
    Dimension,
    Function,
    Training,
    Annotation,
    Pair,
    OperatorSet,
    /// A sequence or an optional value: the fields that hold values have the same numbers.
    Sequence,
    Other,
}

/// Memory that a file may always take.
const ALLOWANCE: u64 = 64 << 20;
/// Memory per byte of the file beyond that. Real models stay below 4: their bytes are weights and long names.
const EXPANSION: u64 = 16;
/// prost refuses deeper nesting by itself.
const DEPTH: usize = 100;

impl Message {
    fn memory(self) -> u64 {
        let bytes = match self {
            Message::Model => size_of::<proto::ModelProto>(),
            Message::Graph => size_of::<proto::GraphProto>(),
            Message::Node => size_of::<proto::NodeProto>(),
            Message::Attribute => size_of::<proto::AttributeProto>(),
            Message::Tensor => size_of::<proto::TensorProto>(),
            Message::SparseTensor => size_of::<proto::SparseTensorProto>(),
            Message::ValueInfo => size_of::<proto::ValueInfoProto>(),
            Message::Type | Message::TensorType | Message::WrapperType | Message::MapType => {
                size_of::<proto::TypeProto>()
            }
            Message::Shape => size_of::<proto::TensorShapeProto>(),
            Message::Dimension => size_of::<proto::tensor_shape_proto::Dimension>(),
            Message::Function => size_of::<proto::FunctionProto>(),
            Message::Training => size_of::<proto::TrainingInfoProto>(),
            Message::Annotation => size_of::<proto::TensorAnnotation>(),
            Message::Pair => size_of::<proto::StringStringEntryProto>(),
            Message::OperatorSet => size_of::<proto::OperatorSetIdProto>(),
            Message::Sequence => size_of::<proto::SequenceProto>().max(size_of::<proto::OptionalProto>()),
            Message::Other => 128,
        };
        bytes as u64
    }

    /// The message in a length-delimited field, if the field holds one.
    fn child(self, field: u64) -> Option<Message> {
        use Message::*;
        Some(match (self, field) {
            (Model, 7) | (Attribute, 6 | 11) | (Training, 1 | 2) => Graph,
            (Model, 8) | (Function, 9) => OperatorSet,
            (Model, 20) => Training,
            (Model, 25) => Function,
            (Model, 26) | (Node, 10) | (Other, _) => Other,
            (Graph, 1) | (Function, 7) => Node,
            (Graph, 5) | (Attribute, 5 | 9) | (SparseTensor, 1 | 2) => Tensor,
            (Sequence, 3) => Tensor,
            (Sequence, 5 | 7) => Sequence,
            (Sequence, 4 | 6) => Other,
            (Graph, 15) | (Attribute, 22 | 23) => SparseTensor,
            (Graph, 11..=13) | (Function, 12) => ValueInfo,
            (Graph, 14) => Annotation,
            (Node, 5) | (Function, 11) => Attribute,
            (Attribute, 14 | 15) | (ValueInfo, 2) | (WrapperType, 1) | (MapType, 2) => Type,
            (Type, 1 | 8) => TensorType,
            (Type, 4 | 9) => WrapperType,
            (Type, 5) => MapType,
            (TensorType, 2) => Shape,
            (Shape, 1) => Dimension,
            (Model, 14) | (Graph, 16) | (Node, 9) | (Tensor, 13 | 16) | (ValueInfo, 4) => Pair,
            (Function, 14) | (Training, 3 | 4) | (Annotation, 2) => Pair,
            _ => return None,
        })
    }

    /// Memory of a length-delimited field that holds no message.
    fn leaf(self, field: u64, length: u64) -> u64 {
        /// Header of a string, byte slice or vector.
        const HEADER: u64 = 32;
        match (self, field) {
            (Message::Tensor, 9) => HEADER,
            // Packed varints: one byte on the wire can be eight in memory.
            (Message::Tensor, 1 | 5 | 7 | 11) | (Message::Attribute, 8) => HEADER + 8 * length,
            _ => HEADER + length,
        }
    }
}

/// Refuses a buffer whose decoded form would take memory out of all proportion to its length.
///
/// # Errors
/// [`OnnxError::Oversized`]; damaged wire data is left for the decoder to name.
pub(super) fn check_expansion(root: Message, buffer: &[u8]) -> Result<(), OnnxError> {
    let length = buffer.len() as u64;
    let mut needed = 0u64;
    walk(root, buffer, 0, &mut needed);
    if needed > ALLOWANCE + EXPANSION * length {
        Err(OnnxError::Oversized { needed, length })
    } else {
        Ok(())
    }
}

/// Adds up the memory of one message; stops at damaged data.
fn walk(message: Message, mut buffer: &[u8], depth: usize, needed: &mut u64) -> Option<()> {
    *needed = needed.saturating_add(message.memory());
    if depth > DEPTH {
        return None;
    }
    while buffer.has_remaining() {
        let key = prost::encoding::decode_varint(&mut buffer).ok()?;
        let (field, wire_type) = (key >> 3, key & 7);
        match wire_type {
            0 => {
                prost::encoding::decode_varint(&mut buffer).ok()?;
                *needed += 8;
            }
            1 => skip(&mut buffer, 8, needed)?,
            5 => skip(&mut buffer, 4, needed)?,
            2 => {
                let length = prost::encoding::decode_varint(&mut buffer).ok()?;
                let (payload, rest) = buffer.split_at_checked(usize::try_from(length).ok()?)?;
                buffer = rest;
                match message.child(field) {
                    Some(child) => walk(child, payload, depth + 1, needed)?,
                    None => *needed = needed.saturating_add(message.leaf(field, length)),
                }
            }
            _ => return None,
        }
    }
    Some(())
}

fn skip(buffer: &mut &[u8], length: usize, needed: &mut u64) -> Option<()> {
    *needed += 8;
    *buffer = buffer.get(length..)?;
    Some(())
}
