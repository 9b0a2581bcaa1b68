//! ONNX `LabelEncoder` (ai.onnx.ml): each element is looked up in a table; what the table lacks gets a default.

use super::numeric::{Numeric, for_dtype};
use super::{HostCall, HostFunction, Signature};
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{DataRef, TensorRef};
use std::collections::HashMap;

/// Positions in the table by key.
enum Keys {
    Strings(HashMap<String, usize>),
    Integers(HashMap<i64, usize>),
    /// Sorted, NaN last; floats are no keys of hash tables.
    Floats(Vec<(f64, usize)>),
}

/// What comes out, with the default last.
enum Values {
    Strings(Vec<String>),
    Integers(Vec<i64>),
    Floats(Vec<f64>),
}

type Read = fn(&HostCall<'_>, &TensorRef<'_>, usize) -> Result<f64>;
type Write = fn(&mut HostCall<'_>, &[usize], &Values, &[usize]) -> Result<()>;

struct Encoder {
    keys: Keys,
    values: Values,
    read: Read,
    write: Write,
}

const KNOWN: &[&str] = &[
    "keys_strings",
    "keys_int64s",
    "keys_floats",
    "keys_tensor",
    "values_strings",
    "values_int64s",
    "values_floats",
    "values_tensor",
    "default_string",
    "default_int64",
    "default_float",
    "default_tensor",
];

/// Attributes as ONNX names them; of equal keys the first counts.
pub(super) fn build(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(1..=1, 1..=1, KNOWN)?;
    let (from, to) = (signature.input(0)?, signature.output(0)?);
    signature.expect_output(0, to.dtype, Some(from.rank))?;
    let (keys, count) = keys(signature, from.dtype)?;
    let values = values(signature, to.dtype)?;
    let have = match &values {
        Values::Strings(values) => values.len(),
        Values::Integers(values) => values.len(),
        Values::Floats(values) => values.len(),
    };
    if have != count + 1 {
        return Err(format!("{count} keys for {} values", have - 1));
    }
    let read = match from.dtype {
        DType::String => (|_, _, _| Ok(0.0)) as Read,
        dtype => for_dtype!(dtype, read as Read)?,
    };
    let write = match to.dtype {
        DType::String => write_strings as Write,
        dtype => for_dtype!(dtype, write as Write)?,
    };
    Ok(Box::new(Encoder { keys, values, read, write }))
}

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::Bf16)
}

fn keys(signature: &Signature<'_>, dtype: DType) -> Result<(Keys, usize), String> {
    Ok(match dtype {
        DType::String => {
            let list = signature.either(Signature::strings_or_tensor, ["keys_strings", "keys_tensor"])?;
            let count = list.len();
            // Of equal keys the last one collected stays, so the first comes last.
            let table = list.into_iter().enumerate().rev().map(|(place, key)| (key, place)).collect();
            (Keys::Strings(table), count)
        }
        dtype if is_float(dtype) => {
            let list = signature.either(Signature::floats, ["keys_floats", "keys_tensor"])?;
            let round = for_dtype!(dtype, rounded as fn(f64) -> f64)?;
            let mut table: Vec<_> =
                list.iter().enumerate().map(|(place, key)| (round(*key), place)).collect();
            table.sort_by(|a, b| a.0.order(b.0));
            (Keys::Floats(table), list.len())
        }
        _ => {
            let list = signature.either(Signature::integers, ["keys_int64s", "keys_tensor"])?;
            let count = list.len();
            // Of equal keys the last one collected stays, so the first comes last.
            let table = list.into_iter().enumerate().rev().map(|(place, key)| (key, place)).collect();
            (Keys::Integers(table), count)
        }
    })
}

/// The values, and the default behind them.
fn values(signature: &Signature<'_>, dtype: DType) -> Result<Values, String> {
    let empty = || "attribute `default_tensor` has no element".to_owned();
    Ok(match dtype {
        DType::String => {
            let mut list =
                signature.either(Signature::strings_or_tensor, ["values_strings", "values_tensor"])?;
            list.push(if signature.has("default_tensor") {
                signature.strings_or_tensor("default_tensor")?.pop().ok_or_else(empty)?
            } else if signature.has("default_string") {
                signature.string("default_string")?
            } else {
                "_Unused".to_owned()
            });
            Values::Strings(list)
        }
        dtype if is_float(dtype) => {
            let mut list = signature.either(Signature::floats, ["values_floats", "values_tensor"])?;
            list.push(if signature.has("default_tensor") {
                signature.floats("default_tensor")?.pop().ok_or_else(empty)?
            } else {
                signature.float("default_float", -0.0)?
            });
            Values::Floats(list)
        }
        _ => {
            let mut list = signature.either(Signature::integers, ["values_int64s", "values_tensor"])?;
            list.push(if signature.has("default_tensor") {
                signature.integers("default_tensor")?.pop().ok_or_else(empty)?
            } else {
                signature.integer("default_int64", -1)?
            });
            Values::Integers(list)
        }
    })
}

fn rounded<T: Numeric>(value: f64) -> f64 {
    T::from_f64(value).to_f64()
}

fn read<T: Numeric>(call: &HostCall<'_>, input: &TensorRef<'_>, index: usize) -> Result<f64> {
    let DataRef::Bytes(bytes) = input.data() else { return Err(call.fail("input 0 is of strings")) };
    let element = bytes.chunks_exact(size_of::<T>()).nth(index).map(bytemuck::pod_read_unaligned::<T>);
    element.map(T::to_f64).ok_or_else(|| call.fail("input 0 is too short"))
}

fn write<T: Numeric>(
    call: &mut HostCall<'_>,
    shape: &[usize],
    values: &Values,
    places: &[usize],
) -> Result<()> {
    let target = call.output::<T>(0, shape)?;
    for (slot, &place) in target.iter_mut().zip(places) {
        *slot = match values {
            Values::Integers(values) => T::wrap(values[place].into()),
            Values::Floats(values) => T::from_f64(values[place]),
            Values::Strings(_) => return Err(call.fail("the output is not of strings")),
        };
    }
    Ok(())
}

fn write_strings(call: &mut HostCall<'_>, shape: &[usize], values: &Values, places: &[usize]) -> Result<()> {
    let Values::Strings(values) = values else { return Err(call.fail("the output is of strings")) };
    let target = call.output_strings(0, shape)?;
    target.resize_with(places.len(), String::new);
    target.iter_mut().zip(places).for_each(|(slot, &place)| slot.clone_from(&values[place]));
    Ok(())
}

impl Encoder {
    /// Position of the value for an element; that of the default is behind all others.
    fn place(&self, call: &HostCall<'_>, input: &TensorRef<'_>, index: usize) -> Result<Option<usize>> {
        Ok(match (&self.keys, input.data()) {
            (Keys::Strings(table), DataRef::Strings(texts)) => table.get(&texts[index]).copied(),
            (Keys::Floats(table), _) => {
                let value = (self.read)(call, input, index)?;
                let first = table.partition_point(|(key, _)| key.order(value).is_lt());
                table.get(first).filter(|(key, _)| key.order(value).is_eq()).map(|(_, place)| *place)
            }
            (Keys::Integers(table), _) => {
                let value = call.integer_element(input, index)?;
                table.get(&value).copied()
            }
            _ => return Err(call.fail("input 0 is not of strings")),
        })
    }
}

impl HostFunction for Encoder {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        let input = call.input(0)?;
        let default = match &self.values {
            Values::Strings(values) => values.len() - 1,
            Values::Integers(values) => values.len() - 1,
            Values::Floats(values) => values.len() - 1,
        };
        let count = input.shape().iter().product();
        let mut places = std::mem::take(&mut call.scratch().indices);
        places.clear();
        for index in 0..count {
            places.push(self.place(call, &input, index)?.unwrap_or(default));
        }
        let written = (self.write)(call, input.shape(), &self.values, &places);
        call.scratch().indices = places;
        written
    }
}
