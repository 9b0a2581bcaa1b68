//! NumPy arrays and tensors.
//!
//! Types that NumPy lacks are those of `ml_dtypes`, which is imported when a model first needs one of them. It keeps a
//! number of fewer than eight bits in a byte, where tensors pack them.

use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tcc::runtime::{DType, Tensor, TensorRef};

use crate::failed;

/// Bits of the types that are packed, and whether they have a sign.
fn packed(dtype: DType) -> Option<(usize, bool)> {
    match dtype {
        DType::I4 => Some((4, true)),
        DType::U4 => Some((4, false)),
        DType::I2 => Some((2, true)),
        DType::U2 => Some((2, false)),
        _ => None,
    }
}

/// The name of an element type in NumPy or `ml_dtypes`.
pub fn numpy_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float32",
        DType::F64 => "float64",
        DType::F16 => "float16",
        DType::Bf16 => "bfloat16",
        DType::F8e4m3fn => "float8_e4m3fn",
        DType::F8e4m3fnuz => "float8_e4m3fnuz",
        DType::F8e5m2 => "float8_e5m2",
        DType::F8e5m2fnuz => "float8_e5m2fnuz",
        DType::I8 => "int8",
        DType::I16 => "int16",
        DType::I32 => "int32",
        DType::I64 => "int64",
        DType::U8 => "uint8",
        DType::U16 => "uint16",
        DType::U32 => "uint32",
        DType::U64 => "uint64",
        DType::Bool => "bool",
        DType::I4 => "int4",
        DType::U4 => "uint4",
        DType::I2 => "int2",
        DType::U2 => "uint2",
        DType::Complex64 => "complex64",
        DType::Complex128 => "complex128",
        DType::String => "object",
    }
}

/// The NumPy type of an element type.
pub fn numpy_type<'py>(py: Python<'py>, dtype: DType) -> PyResult<Bound<'py, PyAny>> {
    let name = numpy_name(dtype);
    let numpy = py.import("numpy")?;
    let narrow = packed(dtype).is_some() || dtype == DType::Bf16 || name.starts_with("float8");
    let class = match narrow {
        false => return numpy.call_method1("dtype", (name,)),
        true => py.import("ml_dtypes").and_then(|types| types.getattr(name)).map_err(|_| {
            failed(format!("arrays of {name} need the package ml_dtypes: pip install ml_dtypes"))
        })?,
    };
    numpy.call_method1("dtype", (class,))
}

/// An input of a run, with what its tensor borrows.
pub struct Input<'py> {
    dtype: DType,
    shape: Vec<usize>,
    contents: Contents<'py>,
}

enum Contents<'py> {
    /// The array's own memory, or that of a copy in row-major order.
    Lent(PyReadonlyArray1<'py, u8>),
    Packed(Vec<u8>),
    Strings(Vec<String>),
}

/// What a value is to become: anything that NumPy makes an array of is taken for an input, arrays only in their own type.
pub fn input<'py>(value: &Bound<'py, PyAny>, dtype: DType, name: &str) -> PyResult<Input<'py>> {
    let py = value.py();
    let numpy = py.import("numpy")?;
    let is_array = value.is_instance(&numpy.getattr("ndarray")?)?;
    if dtype == DType::String {
        return strings(&numpy.call_method1("asarray", (value,))?, name);
    }
    let wanted = numpy_type(py, dtype)?;
    let options = PyDict::new(py);
    options.set_item("order", "C")?;
    if !is_array {
        options.set_item("dtype", &wanted)?;
    }
    // Not ascontiguousarray, which gives a scalar an axis.
    let array = numpy.call_method("asarray", (value,), Some(&options))?;
    let found = array.getattr("dtype")?;
    if !found.eq(&wanted)? {
        return Err(failed(format!(
            "input '{name}' holds {found}, the model takes {wanted}; convert it with .astype({:?})",
            numpy_name(dtype)
        )));
    }
    let shape: Vec<usize> = array.getattr("shape")?.extract()?;
    let flat = array.call_method1("reshape", (-1,))?.call_method1("view", (numpy.getattr("uint8")?,))?;
    let bytes: PyReadonlyArray1<u8> = flat.extract().map_err(failed)?;
    let contents = match packed(dtype) {
        Some((bits, _)) => Contents::Packed(pack(bytes.as_slice()?, bits)),
        None => Contents::Lent(bytes),
    };
    Ok(Input { dtype, shape, contents })
}

fn strings<'py>(array: &Bound<'py, PyAny>, name: &str) -> PyResult<Input<'py>> {
    let shape: Vec<usize> = array.getattr("shape")?.extract()?;
    let list = array.call_method1("reshape", (-1,))?.call_method0("tolist")?;
    let texts = list.extract().map_err(|_| failed(format!("input '{name}' takes strings")))?;
    Ok(Input { dtype: DType::String, shape, contents: Contents::Strings(texts) })
}

impl Input<'_> {
    /// The tensor.
    pub fn tensor(&self) -> PyResult<TensorRef<'_>> {
        let tensor = match &self.contents {
            Contents::Lent(bytes) => TensorRef::new(self.dtype, &self.shape, bytes.as_slice()?),
            Contents::Packed(bytes) => TensorRef::new(self.dtype, &self.shape, bytes),
            Contents::Strings(texts) => TensorRef::from_strings(&self.shape, texts),
        };
        tensor.map_err(failed)
    }
}

/// A result as an array of its own.
pub fn output<'py>(py: Python<'py>, tensor: &Tensor) -> PyResult<Bound<'py, PyAny>> {
    let shape = tensor.shape().to_vec();
    if let Some(texts) = tensor.strings() {
        let numpy = py.import("numpy")?;
        let array = numpy.call_method1("array", (texts, "object"))?;
        return array.call_method1("reshape", (shape,));
    }
    let flat = match packed(tensor.dtype()) {
        Some((bits, signed)) => {
            let count = shape.iter().product();
            PyArray1::from_vec(py, unpack(tensor.bytes(), count, bits, signed))
        }
        None => PyArray1::from_slice(py, tensor.bytes()),
    };
    let wanted = numpy_type(py, tensor.dtype())?;
    flat.as_any().call_method1("view", (wanted,))?.call_method1("reshape", (shape,))
}

/// One number a byte to several a byte, the first in the lowest bits.
fn pack(codes: &[u8], bits: usize) -> Vec<u8> {
    let each = 8 / bits;
    let mask = (1u8 << bits) - 1;
    let join = |codes: &[u8]| codes.iter().rev().fold(0u8, |byte, code| (byte << bits) | (code & mask));
    codes.chunks(each).map(join).collect()
}

/// Several numbers a byte to one, which keeps its sign.
fn unpack(bytes: &[u8], count: usize, bits: usize, signed: bool) -> Vec<u8> {
    let each = 8 / bits;
    let unused = 8 - bits;
    let number = |index: usize| {
        let raised = (bytes[index / each] >> (index % each * bits)) << unused;
        if signed { ((raised as i8) >> unused) as u8 } else { raised >> unused }
    };
    (0..count).map(number).collect()
}
