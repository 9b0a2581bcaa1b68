//! How many kernels a program has, and what memory its tensors take.

use tcc_kernel::lower::Tuning;
use tcc_runtime::manifest::Target;

use super::{Program, ProgramOptions, build};

fn program(body: &str, inputs: &str, symbols: &str) -> Program {
    let names: Vec<String> = (0..inputs.matches('%').count()).map(|input| format!("\"x{input}\"")).collect();
    let text = format!(
        "module {{ \"tir.func\"() ({{ ^bb0({inputs}): {body} }}) {{sym_name = \"f\", input_names = [{}], \
         output_names = [\"y\"], symbols = [{symbols}], equalities = []}} : () -> () }}",
        names.join(", ")
    );
    let module = tcc_ir::parse::module(&text).unwrap();
    tcc_ir::verify::verify(&module).unwrap();
    let tuning = Tuning {
        vector_bits: 512,
        vector_registers: 32,
        l1_bytes: 1 << 15,
        l2_bytes: 1 << 20,
        dot: false,
        gpu: None,
    };
    build(&module, &ProgramOptions { tuning, name: "f".into(), target: Target::host_baseline() }).unwrap()
}

/// `y = -(w * -x + exp(x))` for `rows` positions of 16 channels.
fn residual(rows: usize, residual: &str) -> u64 {
    let image = format!("tensor<1x1x{rows}x16xf32>");
    let map = |from: &str, function: &str| {
        format!("\"tir.map\"({from}) {{body = \"(1) t0 = {function}(a0); t0\"}} : ({image}) -> {image}")
    };
    let body = format!(
        "%1 = {} %2 = {} %3 = \"tir.constant\"() {{data = dense<0.5> : tensor<1x1x16x16xf32>}} : () -> \
         tensor<1x1x16x16xf32> %4 = \"tir.convolve\"(%1, %3, {residual}) {{layout = \"channels_last\", groups = 1, \
         strides = [1, 1], dilations = [1, 1], pads = [0, 0, 0, 0], accumulator = \"f32\", epilogue = \"(2) t0 = add(a0, \
         a1); t0\"}} : ({image}, tensor<1x1x16x16xf32>, {image}) -> {image} %5 = {} \"tir.return\"(%5) : ({image}) -> ()",
        map("%0", "neg"),
        map("%0", "exp"),
        map("%4", "neg")
    );
    program(&body, &format!("%0: {image}"), "").manifest.arena_bytes.unwrap()
}

#[test]
fn a_sum_takes_the_memory_of_its_residual() {
    let image = |rows: u64| (rows * 16 * 4).next_multiple_of(64);
    assert_eq!(residual(56, "%2"), 2 * image(56));
    // Tiles that overlap would add what they have written already.
    assert_eq!(residual(59, "%2"), 3 * image(59));
    // What the convolution reads elsewhere too stays as it is; the other map is not needed at the same time.
    assert_eq!(residual(56, "%1"), 2 * image(56));
}

#[test]
fn padding_takes_no_room_in_the_arena() {
    let body = "%1 = \"tir.map\"(%0) {body = \"(1) t0 = neg(a0); t0\"} : (tensor<1x40x40x16xf32>) -> \
                tensor<1x40x40x16xf32> %2 = \"tir.constant\"() {data = dense<0.5> : tensor<5x5x16x16xf32>} : () -> \
                tensor<5x5x16x16xf32> %3 = \"tir.convolve\"(%1, %2) {layout = \"channels_last\", groups = 1, strides = [2, \
                2], dilations = [1, 1], pads = [2, 2, 2, 2], accumulator = \"f32\", epilogue = \"(1) a0\"} : \
                (tensor<1x40x40x16xf32>, tensor<5x5x16x16xf32>) -> tensor<1x20x20x16xf32> \"tir.return\"(%3) : \
                (tensor<1x20x20x16xf32>) -> ()";
    let program = program(body, "%0: tensor<1x40x40x16xf32>", "");
    assert_eq!(program.manifest.arena_bytes, Some(40 * 40 * 16 * 4));
}

#[test]
fn joining_many_parts_of_any_size_takes_few_kernels() {
    let part = |number: usize| format!("tensor<?x4xf32, \"n{number}; 4\">");
    let inputs: Vec<String> = (0..100).map(|number| format!("%{number}: {}", part(number))).collect();
    let symbols: Vec<String> = (0..100).map(|number| format!("[\"n{number}\", 0, 1000]")).collect();
    let values: Vec<String> = (0..100).map(|number| format!("%{number}")).collect();
    let types: Vec<String> = (0..100).map(part).collect();
    let sum: Vec<String> = (0..100).map(|number| format!("n{number}")).collect();
    let joined = format!("tensor<?x4xf32, \"{}; 4\">", sum.join("+"));
    let body = format!(
        "%100 = \"tir.concat\"({}) {{axis = 0}} : ({}) -> {joined} \"tir.return\"(%100) : ({joined}) -> ()",
        values.join(", "),
        types.join(", ")
    );
    let program = program(&body, &inputs.join(", "), &symbols.join(", "));
    assert_eq!(program.manifest.steps.len(), 100);
    assert!(program.kernels.len() < 12, "{}", program.kernels.len());
}
