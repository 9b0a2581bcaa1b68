//! Block formats against numbers that llama.cpp's own package decodes (`tools/reference/block_formats.py`).

mod common;

use bytes::Bytes;
use common::*;
use tcc_interpret::Tensor;
use tcc_ir::block_format::BlockFormat;
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Bytes and numbers of a format.
fn reference(format: BlockFormat) -> (Vec<u8>, Vec<f32>) {
    let table: serde_json::Value =
        serde_json::from_str(include_str!("references/block-formats.json")).unwrap();
    let field = |name: &str| hex(table[format.text()][name].as_str().unwrap());
    let values = field("values");
    let values = values.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect();
    (field("bytes"), values)
}

#[test]
fn formats_decode_to_the_references_bits() {
    for format in BlockFormat::ALL {
        let (bytes, values) = reference(*format);
        let rows = bytes.len() / format.bytes() / 2;
        let data = Data::new(DType::U8, &[rows, 2 * format.bytes()], Bytes::from(bytes)).unwrap();
        let operator = Operator::DecodeBlocks { format: *format, dtype: DType::F32 };
        let y = eval(&operator, &[&Tensor::from(data)]);
        assert_eq!(y.shape(), [rows, 2 * format.elements()]);
        let found: Vec<u32> = numbers(&y).iter().map(|value| (*value as f32 + 0.0).to_bits()).collect();
        let expected: Vec<u32> = values.iter().map(|value| (value + 0.0).to_bits()).collect();
        assert_eq!(found, expected, "{}", format.text());
    }
}

#[test]
fn rows_that_are_no_whole_blocks_are_refused() {
    let bytes = t(DType::U8, &[1, 19], &[0.0; 19]);
    let operator = Operator::DecodeBlocks { format: BlockFormat::Q4_0, dtype: DType::F32 };
    let error = eval_all(&operator, &[&bytes]).unwrap_err().to_string();
    assert!(error.contains("whole number of q4_0 blocks"), "{error}");
    let signed = t(DType::I8, &[1, 18], &[0.0; 18]);
    assert!(eval_all(&operator, &[&signed]).is_err());
}
