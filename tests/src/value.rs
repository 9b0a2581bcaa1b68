//! Values that cross the border of a model: tensors, text, sequences and optionals.

use bytes::Bytes;
use tcc_frontend::onnx::Tensor;
use tcc_frontend::onnx::import::dtype;
use tcc_frontend::onnx::tensor::Payload;
use tcc_frontend::onnx::test_data::TestValue;
use tcc_ir::data::Data;

/// An input or output of a model.
#[derive(Clone, Debug)]
pub enum Value {
    /// Numbers, truth values or text.
    Tensor(Data),
    /// An ONNX sequence.
    Sequence(Vec<Value>),
    /// An ONNX optional that holds nothing.
    Absent,
}

impl Value {
    /// Type and shape for messages, as `f32[2,3]`.
    pub fn describe(&self) -> String {
        match self {
            Value::Tensor(data) => {
                let shape: Vec<String> = data.shape().iter().map(ToString::to_string).collect();
                format!("{}[{}]", data.dtype(), shape.join(","))
            }
            Value::Sequence(elements) => format!("a sequence of {}", elements.len()),
            Value::Absent => "an absent optional".to_owned(),
        }
    }

    /// A value of the test data of the ONNX suite.
    ///
    /// # Errors
    /// The IR has no such element type.
    pub fn from_test_data(value: &TestValue) -> Result<Value, String> {
        match value {
            TestValue::Tensor(stored) => tensor(stored).map(Value::Tensor),
            TestValue::Sequence(items) => {
                items.iter().map(Value::from_test_data).collect::<Result<_, _>>().map(Value::Sequence)
            }
            TestValue::Optional(Some(inner)) => Value::from_test_data(inner),
            TestValue::Optional(None) => Ok(Value::Absent),
        }
    }
}

fn tensor(stored: &Tensor) -> Result<Data, String> {
    let shape: Vec<usize> = stored.dims.iter().map(|&dim| dim as usize).collect();
    let data = match &stored.payload {
        Payload::Strings(elements) => {
            let texts: Vec<_> = elements.iter().map(|text| String::from_utf8_lossy(text)).collect();
            Data::from_texts(&shape, &texts)
        }
        Payload::Bytes(bytes) => {
            let element = stored.element;
            let dtype = dtype(element).ok_or_else(|| format!("the IR has no element type {element:?}"))?;
            // A copy, because a slice of a file lies at any address and compiled code wants aligned elements.
            Data::new(dtype, &shape, Bytes::copy_from_slice(bytes))
        }
    };
    data.map_err(|error| error.to_string())
}
