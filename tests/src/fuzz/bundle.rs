//! Bundles: the changes are of values of the manifest, and hashes and lengths are made right again, so that what is behind
//! them is reached.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use serde_json::Value;
use tcc::compile::compile_module;
use tcc::runtime::bundle::format::{Section, SectionKind, decode, encode, lay_out};
use tcc::runtime::{Bundle, LoadOptions};
use tcc::{CompileOptions, Target};
use tcc_ir::parse;

use super::Reader;
use super::mutate::Extreme;

pub const READER: Reader = Reader { name: "bundle", seeds, mutate, read };

/// Weights that are filled in beyond this are not loaded: the memory would be there, but not the time.
const MOST_FILLED: u64 = 1 << 24;

/// Programs that together have every kind of storage, symbols, control flow and host functions.
const PROGRAMS: &[&str] = &[
    include_str!("../../filetests/run/contract.tir"),
    include_str!("../../filetests/run/if.tir"),
    include_str!("../../filetests/run/top-k.tir"),
    include_str!("../../filetests/run/convolve.tir"),
];

fn seeds() -> Vec<Vec<u8>> {
    let target = Target::named("cranelift").expect("Cranelift is in every build");
    let bundle = |text: &&str| {
        let module = parse::module(text).expect("file tests parse");
        let compiled =
            compile_module(module, "seed", &CompileOptions::new(target.clone())).expect("file tests compile");
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        compiled.write_bundle(file.path()).expect("the bundle is written");
        std::fs::read(file.path()).expect("the bundle is read")
    };
    PROGRAMS.iter().map(bundle).collect()
}

/// Every value inside of a value, itself included.
fn values(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(values).sum(),
        Value::Object(fields) => fields.values().map(values).sum(),
        _ => 0,
    }
}

/// The value of this number in preorder.
fn value_at<'v>(value: &'v mut Value, at: &mut usize) -> Option<&'v mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| value_at(item, at)),
        Value::Object(fields) => fields.values_mut().find_map(|field| value_at(field, at)),
        _ => None,
    }
}

fn change(manifest: &mut Value, source: &mut Unstructured) -> Result<()> {
    let count = values(manifest);
    let mut from = source.choose_index(count)?;
    let other = value_at(manifest, &mut from).map_or(Value::Null, |value| value.clone());
    let mut at = source.choose_index(count)?;
    let Some(value) = value_at(manifest, &mut at) else { return Ok(()) };
    *value = match source.int_in_range(0..=7u8)? {
        0 => Value::Null,
        1 => other,
        2 => Value::String("x".into()),
        3 => Value::from(source.arbitrary::<Extreme>()?.value()),
        4 => Value::from(u64::MAX),
        _ => match value.clone() {
            Value::Number(_) => Value::from(source.int_in_range(-2..=9i64)?),
            Value::Array(mut items) if !items.is_empty() => {
                let at = source.choose_index(items.len())?;
                if source.arbitrary()? {
                    items.remove(at);
                } else {
                    items.insert(at, items[at].clone());
                }
                Value::Array(items)
            }
            Value::Object(mut fields) if !fields.is_empty() => {
                let at = source.choose_index(fields.len())?;
                if let Some(name) = fields.keys().nth(at).cloned() {
                    fields.remove(&name);
                }
                Value::Object(fields)
            }
            value => value,
        },
    };
    Ok(())
}

fn mutate(file: &[u8], source: &mut Unstructured) -> Result<Vec<u8>> {
    let Ok(sections) = decode(file) else { return super::bytes(file, source) };
    let content = |section: &Section| file[section.range.start as usize..section.range.end as usize].to_vec();
    let mut parts: Vec<(SectionKind, u32, Vec<u8>)> =
        sections.iter().map(|section| (section.kind, section.entry, content(section))).collect();
    let manifest = parts.iter_mut().find(|(kind, ..)| *kind == SectionKind::Manifest);
    let whole = source.ratio(1, 8)?;
    if let Some((_, _, bytes)) = manifest
        && let Ok(mut value) = serde_json::from_slice::<Value>(bytes)
        && !whole
    {
        change(&mut value, source)?;
        *bytes = value.to_string().into_bytes();
    } else if !parts.is_empty() {
        let at = source.choose_index(parts.len())?;
        parts[at].2 = super::bytes(&parts[at].2, source)?;
    }
    Ok(assemble(&parts))
}

/// A file of these sections with the right hashes.
fn assemble(parts: &[(SectionKind, u32, Vec<u8>)]) -> Vec<u8> {
    let sizes: Vec<(SectionKind, u64)> =
        parts.iter().map(|(kind, _, bytes)| (*kind, bytes.len() as u64)).collect();
    let (starts, length) = lay_out(&sizes);
    let sections: Vec<Section> = parts
        .iter()
        .zip(&starts)
        .map(|((kind, entry, bytes), start)| Section {
            kind: *kind,
            entry: *entry,
            range: *start..start + bytes.len() as u64,
            hash: *blake3::hash(bytes).as_bytes(),
        })
        .collect();
    let mut file = encode(&sections, length);
    for (section, (_, _, bytes)) in sections.iter().zip(parts) {
        file.resize(section.range.start as usize, 0);
        file.extend(bytes);
    }
    file.resize(length as usize, 0);
    file
}

fn read(file: &[u8]) {
    let Ok(bundle) = Bundle::from_source(Arc::new(file.to_vec())) else { return };
    let _ = bundle.verify_weights();
    let _ = bundle.library();
    let filled = bundle.manifest().weights.iter().filter(|blob| blob.fill.is_some());
    if filled.map(|blob| blob.bytes).sum::<u64>() <= MOST_FILLED {
        // Loads the code without running any of it.
        let _ = bundle.load(&LoadOptions::default());
    }
}
