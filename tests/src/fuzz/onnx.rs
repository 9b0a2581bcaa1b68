//! ONNX models: the changes keep the lengths of the messages around a changed field right.

use std::fs;

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::Bytes;
use prost_reflect::DynamicMessage;
use tcc_frontend::onnx::{ImportOptions, Model, check, import};

use super::Reader;
use super::mutate::Extreme;
use crate::cache::tests_folder;
use crate::hostile;

pub const READER: Reader = Reader { name: "onnx", seeds, mutate, read };

/// The models of the bad inputs, which are small and use many fields.
fn seeds() -> Vec<Vec<u8>> {
    let pool = hostile::schema().expect("the schema of ONNX");
    let model = pool.get_message_by_name("onnx.ModelProto").expect("its models");
    let folder = fs::read_dir(tests_folder().join("errors")).expect("the folder tests/errors");
    let mut paths: Vec<_> = folder.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let encode = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path).ok()?;
        let message = DynamicMessage::parse_text_format(model.clone(), &text).ok()?;
        Some(prost::Message::encode_to_vec(&message))
    };
    paths.into_iter().filter_map(encode).filter(|bytes| !bytes.is_empty()).collect()
}

/// A field of a message in the wire format of protobuf.
#[derive(Clone)]
struct Field {
    key: u64,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Varint(u64),
    /// Four or eight bytes.
    Fixed(Vec<u8>),
    /// Text, bytes or packed numbers.
    Bytes(Vec<u8>),
    /// Bytes that are a message themselves.
    Message(Vec<Field>),
}

/// Deeper bytes are not taken for messages.
const DEEPEST: usize = 8;

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(bytes).ok()
}

/// The fields of a message; none where the bytes are no message.
fn parse(mut bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let mut take = |count: usize| {
            let (head, tail) = bytes.split_at_checked(count)?;
            bytes = tail;
            Some(head.to_vec())
        };
        let value = match (key & 7, key >> 3) {
            (_, 0) => return None,
            (0, _) => Value::Varint(varint(&mut bytes)?),
            (1, _) => Value::Fixed(take(8)?),
            (5, _) => Value::Fixed(take(4)?),
            (2, _) => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (head, tail) = bytes.split_at_checked(length)?;
                bytes = tail;
                match parse(head, depth + 1).filter(|fields| depth < DEEPEST && !fields.is_empty()) {
                    Some(fields) => Value::Message(fields),
                    None => Value::Bytes(head.to_vec()),
                }
            }
            _ => return None,
        };
        fields.push(Field { key, value });
    }
    Some(fields)
}

fn encode(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields {
        prost::encoding::encode_varint(field.key, &mut out);
        let block = match &field.value {
            Value::Varint(number) => {
                prost::encoding::encode_varint(*number, &mut out);
                continue;
            }
            Value::Fixed(bytes) => {
                out.extend(bytes);
                continue;
            }
            Value::Bytes(bytes) => bytes.clone(),
            Value::Message(fields) => encode(fields),
        };
        prost::encoding::encode_varint(block.len() as u64, &mut out);
        out.extend(block);
    }
    out
}

/// What happens to one field.
#[derive(Arbitrary)]
enum Change {
    Extreme(Extreme),
    Small(u8),
    Remove,
    Repeat,
    /// The value of another field of the same message.
    Copy(u8),
    /// Another number of a field, of the same wire type.
    Rename(u8),
    /// A part of text or bytes.
    Cut(u8),
}

fn change(fields: &mut Vec<Field>, source: &mut Unstructured) -> Result<()> {
    if fields.is_empty() {
        return Ok(());
    }
    let at = source.choose_index(fields.len())?;
    // Most of a model is deep inside.
    if let Value::Message(inner) = &mut fields[at].value
        && source.ratio(4, 5)?
    {
        return change(inner, source);
    }
    match Change::arbitrary(source)? {
        Change::Extreme(extreme) => match &mut fields[at].value {
            Value::Varint(number) => *number = extreme.value() as u64,
            Value::Fixed(bytes) => bytes.iter_mut().for_each(|byte| *byte = extreme.value() as u8),
            value => *value = Value::Bytes(Vec::new()),
        },
        Change::Small(small) => match &mut fields[at].value {
            Value::Varint(number) => *number = u64::from(small),
            Value::Bytes(bytes) => *bytes = vec![b'x'; usize::from(small)],
            _ => {}
        },
        Change::Remove => {
            fields.remove(at);
        }
        Change::Repeat => {
            let copy = fields[at].clone();
            fields.insert(at, copy);
        }
        Change::Copy(from) => fields[at].value = fields[usize::from(from) % fields.len()].value.clone(),
        Change::Rename(number) => fields[at].key = (u64::from(number % 32) << 3) | (fields[at].key & 7),
        Change::Cut(length) => {
            if let Value::Bytes(bytes) = &mut fields[at].value {
                bytes.truncate(usize::from(length));
            }
        }
    }
    Ok(())
}

fn mutate(file: &[u8], source: &mut Unstructured) -> Result<Vec<u8>> {
    match parse(file, 0) {
        Some(mut fields) => {
            change(&mut fields, source)?;
            Ok(encode(&fields))
        }
        None => super::bytes(file, source),
    }
}

fn read(file: &[u8]) {
    let Ok(model) = Model::from_bytes(Bytes::copy_from_slice(file)) else { return };
    let options = ImportOptions::default();
    let unsupported = check(&model, &options);
    if let Ok(module) = import(&model, &options) {
        assert!(
            unsupported.is_ok_and(|unsupported| unsupported.is_empty()),
            "a model is imported that the check refuses"
        );
        tcc_ir::verify::verify(&module).expect("what the importer writes is well formed");
    }
}
