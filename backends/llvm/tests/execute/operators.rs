//! Operators of the tensor IR, lowered and made ready by the kernel crate, compile for every target without library calls, and
//! register tiles without spills.

use tcc_ir::contraction::ContractionSpec;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::ScalarExpr;
use tcc_ir::types::TensorType;
use tcc_ir::words::{Layout, ReduceKind};
use tcc_kernel::Kernel;
use tcc_kernel::lower::{Tuning, lower};
use tcc_kernel::passes::finalize;
use tcc_llvm::{Options, Target, Text, emit_text};

/// An operator with the types of its operands and result.
struct Case {
    name: &'static str,
    operator: Operator,
    operands: Vec<TensorType>,
    result: TensorType,
}

fn tensor(dtype: DType, shape: &[&str]) -> TensorType {
    let dim = |text: &&str| text.parse::<usize>().map_or_else(|_| Dim::named(text), Dim::from);
    TensorType::new(dtype, shape.iter().map(dim).collect())
}

fn scalar(text: &str) -> ScalarExpr {
    text.parse().unwrap()
}

fn map(name: &'static str, body: &str, from: DType, to: DType) -> Case {
    let operator = Operator::Map { body: scalar(body) };
    Case { name, operator, operands: vec![tensor(from, &["n", "37"])], result: tensor(to, &["n", "37"]) }
}

fn cases() -> Vec<Case> {
    let f32 = |shape: &[&str]| tensor(DType::F32, shape);
    let contract = |accumulator| Operator::Contract {
        spec: ContractionSpec::matmul(0),
        accumulator,
        epilogue: scalar("(1) a0"),
    };
    let convolve = |groups| Operator::Convolve {
        layout: Layout::ChannelsLast,
        groups,
        strides: vec![2, 2],
        dilations: vec![1, 1],
        pads: vec![1; 4],
        accumulator: DType::F32,
        epilogue: scalar("(2) t0 = add(a0, a1); t1 = max(t0, f32:0.0); t2 = min(t1, f32:6.0); t2"),
    };
    let reduce = |kind, axes| Operator::Reduce {
        kind,
        axes,
        keep: false,
        prologue: scalar("(1) a0"),
        epilogue: scalar("(1) a0"),
    };
    vec![
        Case {
            name: "gemm",
            operator: contract(DType::F32),
            operands: vec![f32(&["m", "70"]), f32(&["70", "96"])],
            result: f32(&["m", "96"]),
        },
        Case {
            name: "gemm_bytes",
            operator: contract(DType::I32),
            operands: vec![tensor(DType::U8, &["m", "70"]), tensor(DType::I8, &["70", "96"])],
            result: tensor(DType::I32, &["m", "96"]),
        },
        Case {
            name: "convolution",
            operator: convolve(1),
            operands: vec![f32(&["1", "17", "17", "8"]), f32(&["3", "3", "8", "24"]), f32(&["24"])],
            result: f32(&["1", "9", "9", "24"]),
        },
        Case {
            name: "depthwise",
            operator: convolve(24),
            operands: vec![f32(&["1", "17", "17", "24"]), f32(&["3", "3", "1", "24"]), f32(&["24"])],
            result: f32(&["1", "9", "9", "24"]),
        },
        Case {
            name: "row_sums",
            operator: reduce(ReduceKind::Sum, vec![1]),
            operands: vec![f32(&["n", "100"])],
            result: f32(&["n"]),
        },
        Case {
            name: "column_maxima",
            operator: reduce(ReduceKind::Max, vec![0]),
            operands: vec![f32(&["n", "100"])],
            result: f32(&["100"]),
        },
        Case {
            name: "softmax",
            operator: Operator::Softmax { axis: 1, log: false },
            operands: vec![f32(&["n", "50"])],
            result: f32(&["n", "50"]),
        },
        Case {
            name: "transpose",
            operator: Operator::Transpose { perm: vec![1, 0] },
            operands: vec![f32(&["n", "50"])],
            result: f32(&["50", "n"]),
        },
        map("gelu", "(1) t0 = erf(a0); t1 = add(t0, f32:1.0); t2 = mul(t1, a0); t2", DType::F32, DType::F32),
        map(
            "mish",
            "(1) t0 = exp(a0); t1 = log1p(t0); t2 = tanh(t1); t3 = mul(t2, a0); t3",
            DType::F32,
            DType::F32,
        ),
        map("to_bytes", "(1) t0 = round(a0); t1 = cast<ui8>(t0); t1", DType::F32, DType::U8),
        map("from_long", "(1) t0 = cast<f32>(a0); t0", DType::I64, DType::F32),
        map("positive", "(1) t0 = lt(f32:0.0, a0); t0", DType::F32, DType::Bool),
    ]
}

/// The kernels of a case, ready for a target.
fn kernels(case: &Case, target: &Target) -> Vec<Kernel> {
    let machine = target.machine_description();
    let tuning = Tuning {
        vector_bits: machine.vector_bits,
        vector_registers: if machine.vector_bits == 256 { 16 } else { 32 },
        l1_bytes: 32 << 10,
        l2_bytes: 512 << 10,
        dot: machine.dot.unsigned_signed,
        gpu: None,
    };
    let constant = vec![false; case.operands.len()];
    let results = std::slice::from_ref(&case.result);
    let lowered = lower(&case.operator, &case.operands, results, &constant, case.name, &tuning).unwrap();
    lowered
        .launches
        .into_iter()
        .enumerate()
        .map(|(number, launch)| {
            let mut kernel = launch.kernel;
            kernel.name = format!("{}_{number}", case.name);
            finalize(&mut kernel, &machine).unwrap();
            kernel
        })
        .collect()
}

#[test]
fn lowered_operators_compile_for_every_target() {
    for name in ["x86-64-v3", "x86-64-v4+avx512vnni", "aarch64+dotprod", "riscv64", "wasm32"] {
        let target = Target::named(name).unwrap();
        for case in cases() {
            let kernels = kernels(&case, &target);
            let text = emit_text(&kernels, Text::Assembly, &target, Options::default())
                .unwrap_or_else(|error| panic!("{} for {name}: {error}", case.name));
            let instructions = || text.lines().map(str::trim).filter(|line| !line.starts_with('.'));
            let call = instructions().find(|line| line.starts_with("call") || line.starts_with("bl\t"));
            assert_eq!(call, None, "{} for {name} calls", case.name);
            // Register tiles are chosen to fit; the many constants of a function approximation need not.
            let tiled = matches!(case.name, "gemm" | "gemm_bytes" | "convolution" | "depthwise");
            if tiled && name.starts_with("x86-64") {
                let spill = instructions().find(|line| line.contains("(%rsp)") && line.contains("mm"));
                assert_eq!(spill, None, "{} for {name} spills vectors", case.name);
            }
        }
    }
}
