//! Element types of ONNX tensors and how many bits each takes.

pub use super::proto::tensor_proto::DataType;

/// Width of one element in bits as stored in `raw_data`; `None` for strings, complex numbers and `UNDEFINED`,
/// which have no fixed-width storage here.
pub fn bit_width(element: DataType) -> Option<u64> {
    use DataType::*;
    Some(match element {
        Uint2 | Int2 => 2,
        Uint4 | Int4 | Float4e2m1 => 4,
        Float6e2m3 | Float6e3m2 => 6,
        Uint8 | Int8 | Bool | Float8e4m3fn | Float8e4m3fnuz | Float8e5m2 | Float8e5m2fnuz | Float8e8m0 => 8,
        Uint16 | Int16 | Float16 | Bfloat16 => 16,
        Float | Int32 | Uint32 => 32,
        Double | Int64 | Uint64 => 64,
        Undefined | String | Complex64 | Complex128 => return None,
    })
}

/// The name of the type in the schema, for messages: `FLOAT`, `INT64`, ...
pub fn name(element: DataType) -> &'static str {
    element.as_str_name()
}
