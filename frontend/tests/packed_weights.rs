//! Weights in other number formats against the numbers that they stand for.
//!
//! Each test packs the matrices of a tiny model as a format's definition says, works out the numbers that the packed form
//! stands for, and expects the logits of the model with exactly these numbers in `f32`.

mod tiny;

use half::{bf16, f16};
use serde_json::{Value as Json, json};
use tcc_frontend::language_model::{ImportOptions, LanguageModel};
use tcc_interpret::{Interpreter, State};
use tcc_ir::data::Data;
use tcc_ir::dim::Symbol;
use tcc_ir::dtype::DType;
use tcc_ir::minifloat;
use tiny::{Case, Stored, Tensor, float, safetensors};

/// Logits of a model in a folder with this configuration and these tensors.
fn logits(config: &Json, tensors: &[Stored]) -> Vec<f64> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), safetensors(tensors)).unwrap();
    let model = LanguageModel::open(folder.path()).unwrap();
    let module = model.import(&ImportOptions::default()).unwrap();
    tcc_ir::verify::verify(&module).unwrap();
    let list = |values: &[i64]| Data::from_i64(&[values.len()], values).unwrap().into();
    let (order, zeros) = ([0, 1, 2, 3, 4], [0; 5]);
    let table = Data::from_i64(&[1, 1], &[0]).unwrap().into();
    let inputs =
        vec![list(&[3, 17, 5, 22, 9]), list(&order), list(&order), list(&zeros), table, list(&order)];
    let state = State::new([(Symbol::new("kv_slots"), 16)]);
    let results = Interpreter::new(&module).with_state(&state).run(inputs).unwrap();
    results[0].as_tensor().unwrap().to_numbers().unwrap()
}

/// The case with every linear matrix of the layers stored by `pack`, which gives the tensors and the numbers.
fn check(
    name: &str,
    quantization: Json,
    pack: impl Fn(&str, &Tensor) -> (Vec<Stored>, Vec<f32>),
    tolerance: f64,
) {
    let case = Case::read(name);
    let mut config = case.json["config"].clone();
    let (mut plain, mut packed) = (Vec::new(), Vec::new());
    for (name, tensor) in &case.tensors {
        if name.contains("proj.weight") {
            let (stored, values) = pack(name.strip_suffix(".weight").unwrap(), tensor);
            packed.extend(stored);
            plain.push(float(name, &Tensor { shape: tensor.shape.clone(), values }));
        } else {
            packed.push(float(name, tensor));
            plain.push(float(name, tensor));
        }
    }
    let expected = logits(&config, &plain);
    if !quantization.is_null() {
        config["quantization_config"] = quantization;
    }
    let found = logits(&config, &packed);
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance, "off by {worst:e}");
}

/// Codes 0..=15 of the values, which lie in -0.5..0.5, as `[in][out]`.
fn code(tensor: &Tensor, input: usize, output: usize) -> u32 {
    let value = tensor.values[output * tensor.shape[1] + input];
    ((value + 0.5) * 16.0).floor().clamp(0.0, 15.0) as u32
}

fn words(name: &str, suffix: &str, shape: [usize; 2], words: &[u32]) -> Stored {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    (format!("{name}{suffix}"), "I32", shape.to_vec(), bytes)
}

/// Scale and zero point of a group and output.
fn parameters(group: usize, output: usize) -> (f32, u32) {
    (
        f16::from_f32(0.04 + 0.01 * ((group * 3 + output) % 5) as f32).to_f32(),
        ((group + output) % 14 + 1) as u32,
    )
}

fn scales(name: &str, groups: usize, outputs: usize) -> Stored {
    let bytes = (0..groups * outputs)
        .flat_map(|index| f16::from_f32(parameters(index / outputs, index % outputs).0).to_le_bytes())
        .collect();
    (format!("{name}.scales"), "F16", vec![groups, outputs], bytes)
}

/// The numbers that codes and parameters stand for; `group_of` an input.
fn stands_for(tensor: &Tensor, group_of: impl Fn(usize) -> usize) -> Vec<f32> {
    let [outputs, inputs] = tensor.shape[..] else { panic!("a matrix") };
    let mut values = Vec::new();
    for output in 0..outputs {
        for input in 0..inputs {
            let (scale, zero) = parameters(group_of(input), output);
            values.push((code(tensor, input, output) as f32 - zero as f32) * scale);
        }
    }
    values
}

const GROUP: usize = 8;

/// GPTQ: codes along the inputs, zero points along the outputs, less one where `less_one`.
fn gptq(
    name: &str,
    tensor: &Tensor,
    less_one: u32,
    group_of: &dyn Fn(usize) -> usize,
) -> (Vec<Stored>, Vec<f32>) {
    let [outputs, inputs] = tensor.shape[..] else { panic!("a matrix") };
    let groups = inputs / GROUP;
    let mut codes = vec![0u32; inputs / 8 * outputs];
    let mut zeros = vec![0u32; groups * outputs / 8];
    for input in 0..inputs {
        for output in 0..outputs {
            codes[input / 8 * outputs + output] |= code(tensor, input, output) << (4 * (input % 8));
        }
    }
    for group in 0..groups {
        for output in 0..outputs {
            let zero = (parameters(group, output).1 - less_one) & 15;
            zeros[group * (outputs / 8) + output / 8] |= zero << (4 * (output % 8));
        }
    }
    let order: Vec<u32> = (0..inputs).map(|input| group_of(input) as u32).collect();
    let order = order.iter().flat_map(|group| group.to_le_bytes()).collect();
    let stored = vec![
        words(name, ".qweight", [inputs / 8, outputs], &codes),
        words(name, ".qzeros", [groups, outputs / 8], &zeros),
        scales(name, groups, outputs),
        (format!("{name}.g_idx"), "I32", vec![inputs], order),
    ];
    (stored, stands_for(tensor, group_of))
}

#[test]
fn gptq_is_unpacked() {
    let config = |format: &str| json!({"quant_method": "gptq", "bits": 4, "group_size": GROUP, "checkpoint_format": format});
    let neighbours = |input: usize| input / GROUP;
    check("llama", config("gptq"), |name, tensor| gptq(name, tensor, 1, &neighbours), 0.0);
    check("llama", config("gptq_v2"), |name, tensor| gptq(name, tensor, 0, &neighbours), 0.0);
}

#[test]
fn gptq_groups_may_be_of_any_inputs() {
    let config = json!({"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": true});
    // Inputs go to the groups in turn. Sums run over the inputs in another order, in f64, so rounding to f32 may differ
    // by one unit here and there: 2^-24 relative, amplified as in `language_model.rs`.
    let pack = |name: &str, tensor: &Tensor| {
        let groups = tensor.shape[1] / GROUP;
        gptq(name, tensor, 1, &move |input| input % groups)
    };
    check("llama", config, pack, 2.0 * 24.0 * 16.0 * 2f64.powi(-24) * 4.0);
}

#[test]
fn awq_is_unpacked() {
    let config =
        json!({"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": true});
    let order = [0, 2, 4, 6, 1, 3, 5, 7];
    let pack = |name: &str, tensor: &Tensor| {
        let [outputs, inputs] = tensor.shape[..] else { panic!("a matrix") };
        let groups = inputs / GROUP;
        let packed = |rows: usize, code: &dyn Fn(usize, usize) -> u32| -> Vec<u32> {
            (0..rows * outputs / 8)
                .map(|word| {
                    let (row, first) = (word / (outputs / 8), word % (outputs / 8) * 8);
                    (0..8).map(|nibble| code(row, first + order[nibble]) << (4 * nibble)).sum()
                })
                .collect()
        };
        let stored = vec![
            words(
                name,
                ".qweight",
                [inputs, outputs / 8],
                &packed(inputs, &|input, output| code(tensor, input, output)),
            ),
            words(
                name,
                ".qzeros",
                [groups, outputs / 8],
                &packed(groups, &|group, output| parameters(group, output).1),
            ),
            scales(name, groups, outputs),
        ];
        (stored, stands_for(tensor, |input| input / GROUP))
    };
    check("llama", config.clone(), pack, 0.0);
    check("qwen2", config, pack, 0.0);
}

#[test]
fn halves_are_read() {
    let bits = |dtype: &'static str, round: fn(f32) -> (u16, f32)| {
        move |name: &str, tensor: &Tensor| {
            let rounded: Vec<(u16, f32)> = tensor.values.iter().map(|value| round(*value)).collect();
            let bytes = rounded.iter().flat_map(|(bits, _)| bits.to_le_bytes()).collect();
            let stored = (format!("{name}.weight"), dtype, tensor.shape.clone(), bytes);
            (vec![stored], rounded.iter().map(|(_, value)| *value).collect())
        }
    };
    let half = |value: f32| (f16::from_f32(value).to_bits(), f16::from_f32(value).to_f32());
    let brain = |value: f32| (bf16::from_f32(value).to_bits(), bf16::from_f32(value).to_f32());
    check("llama", Json::Null, bits("F16", half), 0.0);
    check("llama", Json::Null, bits("BF16", brain), 0.0);
}

/// 8-bit floats: any code that is a number.
fn bytes(tensor: &Tensor) -> Vec<u8> {
    tensor.values.iter().map(|value| ((value + 0.5) * 255.0) as u8 & 0xbf).collect()
}

#[test]
fn eight_bit_floats_have_scales_of_several_kinds() {
    let decode = |code: u8| minifloat::decode(DType::F8E4M3FN, code);
    let floats = |name: &str, shape: &[usize], values: &[f32]| {
        (
            name.to_owned(),
            "F32",
            shape.to_vec(),
            values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        )
    };
    let codes = |name: &str, tensor: &Tensor| {
        (format!("{name}.weight"), "F8_E4M3", tensor.shape.clone(), bytes(tensor))
    };
    // Blocks of 6 rows and 10 columns, which are not whole at the ends.
    let block = [6, 10];
    let config = json!({"quant_method": "fp8", "weight_block_size": block});
    let scale =
        |row: usize, column: usize| 0.01 + 0.005 * ((row / block[0] + 2 * (column / block[1])) % 4) as f32;
    let blocks = |name: &str, tensor: &Tensor| {
        let [rows, columns] = tensor.shape[..] else { panic!("a matrix") };
        let grid = [rows.div_ceil(block[0]), columns.div_ceil(block[1])];
        let scales: Vec<f32> = (0..grid[0])
            .flat_map(|row| (0..grid[1]).map(move |column| scale(row * block[0], column * block[1])))
            .collect();
        let values = bytes(tensor)
            .into_iter()
            .enumerate()
            .map(|(index, code)| decode(code) * scale(index / columns, index % columns))
            .collect();
        (vec![codes(name, tensor), floats(&format!("{name}.weight_scale_inv"), &grid, &scales)], values)
    };
    check("llama", config, blocks, 0.0);
    let rows = |name: &str, tensor: &Tensor| {
        let columns = tensor.shape[1];
        let scales: Vec<f32> = (0..tensor.shape[0]).map(|row| 0.01 * (row % 3 + 1) as f32).collect();
        let values = bytes(tensor)
            .iter()
            .enumerate()
            .map(|(index, code)| decode(*code) * scales[index / columns])
            .collect();
        let scales = floats(&format!("{name}.weight_scale"), &[tensor.shape[0], 1], &scales);
        (vec![codes(name, tensor), scales], values)
    };
    check("llama", json!({"quant_method": "compressed-tensors"}), rows, 0.0);
}
