//! The kernel of `decode_blocks` against the numbers of `ir/interpret/tests/references/block-formats.json`.

use tcc_ir::block_format::BlockFormat;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::types::TensorType;
use tcc_kernel::evaluate::evaluate;
use tcc_kernel::lower::{Argument, Tuning, lower};
use tcc_kernel::machine::Machine;
use tcc_kernel::passes::finalize;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn formats_decode_to_the_references_bits() {
    let text = include_str!("../../../ir/interpret/tests/references/block-formats.json");
    let table: serde_json::Value = serde_json::from_str(text).unwrap();
    let tuning = Tuning {
        vector_bits: 256,
        vector_registers: 16,
        l1_bytes: 1 << 15,
        l2_bytes: 1 << 20,
        dot: false,
        gpu: None,
    };
    for format in BlockFormat::ALL {
        let field = |name: &str| hex(table[format.text()][name].as_str().unwrap());
        let (mut bytes, expected) = (field("bytes"), field("values"));
        let rows = bytes.len() / format.bytes();
        let operand = TensorType::new(DType::U8, vec![rows.into(), format.bytes().into()]);
        let result = TensorType::new(DType::F32, vec![rows.into(), format.elements().into()]);
        let operator = Operator::DecodeBlocks { format: *format, dtype: DType::F32 };
        let lowered = lower(&operator, &[operand], &[result], &[false], "decode", &tuning).unwrap();
        let [launch] = &lowered.launches[..] else { panic!("one kernel decodes") };
        assert_eq!(launch.arguments, [Argument::Operand(0), Argument::Result(0)]);
        let mut kernel = launch.kernel.clone();
        finalize(&mut kernel, &Machine::BASELINE).unwrap();
        let mut values = vec![0u8; expected.len()];
        evaluate(&kernel, &mut [&mut bytes, &mut values], &[], 0, i64::MAX).unwrap();
        // Negative zero is as good as zero.
        let plain = |bytes: &[u8]| -> Vec<f32> {
            bytes.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect()
        };
        assert_eq!(plain(&values), plain(&expected), "{}", format.text());
    }
}
