//! Kernels of tensor operators compute the same before and after [`finalize`], on machines of every kind.
//!
//! Both run in the kernel interpreter, which finds accesses out of bounds and reads of what nobody has written. Before,
//! functions like `exp` are the library's; after, they are polynomials, hence a small tolerance for floats.

use tcc_ir::cache::{CacheFormat, CacheStorage};
use tcc_ir::contraction::ContractionSpec;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Scalar, ScalarExpr};
use tcc_ir::types::TensorType;
use tcc_ir::words::{Layout, ReduceKind, WindowKind};
use tcc_kernel::Kernel;
use tcc_kernel::evaluate::evaluate;
use tcc_kernel::fold;
use tcc_kernel::lower::{Argument, Lowered, Tuning, lower};
use tcc_kernel::machine::{DotForms, Machine};
use tcc_kernel::passes::finalize;

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

fn contract(name: &'static str, types: [DType; 3], k: &str) -> Case {
    let [lhs, rhs, accumulator] = types;
    let operator =
        Operator::Contract { spec: ContractionSpec::matmul(0), accumulator, epilogue: scalar("(1) a0") };
    let operands = vec![tensor(lhs, &["n", k]), tensor(rhs, &[k, "50"])];
    Case { name, operator, operands, result: tensor(accumulator, &["n", "50"]) }
}

fn convolution(name: &'static str, groups: usize, filter: &[&str]) -> Case {
    let operator = Operator::Convolve {
        layout: Layout::ChannelsLast,
        groups,
        strides: vec![2, 2],
        dilations: vec![1, 1],
        pads: vec![1; 4],
        accumulator: DType::F32,
        epilogue: scalar("(2) t0 = add(a0, a1); t1 = max(t0, f32:0.0); t2 = min(t1, f32:6.0); t2"),
    };
    let f32 = |shape: &[&str]| tensor(DType::F32, shape);
    let operands = vec![f32(&["n", "9", "9", "24"]), f32(filter), f32(&["24"])];
    Case { name, operator, operands, result: f32(&["n", "5", "5", "24"]) }
}

fn reduce(name: &'static str, kind: ReduceKind, axis: usize) -> Case {
    let operator = Operator::Reduce {
        kind,
        axes: vec![axis],
        keep: false,
        prologue: scalar("(1) a0"),
        epilogue: scalar("(1) a0"),
    };
    let result = tensor(DType::F32, &[["45", "n"][axis]]);
    Case { name, operator, operands: vec![tensor(DType::F32, &["n", "45"])], result }
}

/// Attention of `n` tokens over caches of 64 slots in pages of 16.
fn attend(name: &'static str, split: usize, window: usize, depth: &str) -> Case {
    let storage = CacheStorage::plain(CacheFormat::F32);
    let operator = Operator::KvAttend {
        scale: 0.5.into(),
        softcap: 0.0.into(),
        window,
        sinks: 2,
        page: 16,
        split,
        k_storage: storage,
        v_storage: storage,
    };
    let f32 = |shape: &[&str]| tensor(DType::F32, shape);
    let i64 = |shape: &[&str]| tensor(DType::I64, shape);
    let cache = f32(&["64", "2", depth]);
    let operands =
        vec![f32(&["n", "6", depth]), cache.clone(), cache, i64(&["3", "4"]), i64(&["n"]), i64(&["n"])];
    Case { name, operator, operands, result: f32(&["n", "6", depth]) }
}

fn attention(name: &'static str, causal: bool, window: usize, mask: Option<&[&str]>) -> Case {
    let operator = Operator::Attention { scale: 0.5.into(), softcap: 2.0.into(), causal, window };
    let f32 = |shape: &[&str]| tensor(DType::F32, shape);
    let mut operands =
        vec![f32(&["n", "4", "19", "20"]), f32(&["n", "2", "37", "20"]), f32(&["n", "2", "37", "24"])];
    operands.extend(mask.map(f32));
    Case { name, operator, operands, result: f32(&["n", "4", "19", "24"]) }
}

fn cases() -> Vec<Case> {
    let f32 = |shape: &[&str]| tensor(DType::F32, shape);
    let softmax = |log| Operator::Softmax { axis: 1, log };
    let window = |kind| Operator::Window {
        kind,
        layout: Layout::ChannelsLast,
        size: vec![3, 3],
        strides: vec![2, 2],
        dilations: vec![1, 1],
        pads: vec![1; 4],
        ceil: false,
    };
    let pooled = |name, kind| Case {
        name,
        operator: window(kind),
        operands: vec![f32(&["n", "9", "9", "20"])],
        result: f32(&["n", "5", "5", "20"]),
    };
    vec![
        attend("cached attention", 0, 0, "20"),
        attend("split attention", 16, 0, "32"),
        attend("attention in a window", 16, 5, "16"),
        attention("attention", false, 0, None),
        attention("causal attention", true, 7, None),
        attention("masked attention", false, 0, Some(&["19", "37"])),
        attention("attention with a mask of rows", true, 0, Some(&["n", "1", "19", "1"])),
        contract("product", [DType::F32, DType::F32, DType::F32], "23"),
        contract("product of bytes", [DType::U8, DType::I8, DType::I32], "23"),
        contract("product of signed bytes", [DType::I8, DType::I8, DType::I32], "8"),
        contract("product of doubles", [DType::F64, DType::F64, DType::F64], "5"),
        convolution("convolution", 2, &["3", "3", "12", "24"]),
        convolution("depthwise convolution", 24, &["3", "3", "1", "24"]),
        reduce("row sums", ReduceKind::Sum, 1),
        reduce("column maxima", ReduceKind::Max, 0),
        Case {
            name: "softmax",
            operator: softmax(false),
            operands: vec![f32(&["n", "50"])],
            result: f32(&["n", "50"]),
        },
        Case {
            name: "log softmax",
            operator: softmax(true),
            operands: vec![f32(&["n", "7"])],
            result: f32(&["n", "7"]),
        },
        pooled("maximum pooling", WindowKind::Max),
        pooled("mean pooling", WindowKind::MeanValid),
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
        map("half precision", "(1) t0 = mul(a0, a0); t1 = sigmoid(t0); t1", DType::F16, DType::F16),
        map("to bfloat16", "(1) t0 = cast<bf16>(a0); t1 = add(t0, bf16:1.0); t1", DType::F64, DType::BF16),
        map("to bytes", "(1) t0 = round(a0); t1 = cast<ui8>(t0); t1", DType::F32, DType::U8),
        map("from nibbles", "(1) t0 = cast<f32>(a0); t0", DType::I4, DType::F32),
        map("from long", "(1) t0 = cast<f32>(a0); t0", DType::I64, DType::F32),
        map("positive", "(1) t0 = lt(f32:0.0, a0); t0", DType::F32, DType::Bool),
        map("choice", "(1) t0 = select(a0, f32:1.5, f32:-2.0); t0", DType::Bool, DType::F32),
        map("remainder", "(1) t0 = mod(a0, i32:-3); t0", DType::I32, DType::I32),
    ]
}

fn machines() -> Vec<Machine> {
    let dot = |unsigned_signed| DotForms { unsigned_signed, ..DotForms::default() };
    vec![
        Machine::BASELINE,
        Machine { vector_bits: 256, fma: true, f16_convert: true, masked: false, dot: dot(false) },
        Machine { vector_bits: 512, fma: true, f16_convert: true, masked: true, dot: dot(true) },
    ]
}

fn tuning(machine: &Machine) -> Tuning {
    Tuning {
        vector_bits: machine.vector_bits,
        vector_registers: 32,
        l1_bytes: 32 << 10,
        l2_bytes: 512 << 10,
        dot: machine.dot.unsigned_signed,
        gpu: None,
    }
}

fn bytes_of(ty: &TensorType, n: i64) -> (DType, usize) {
    let count: i64 = ty.shape.iter().map(|dim| dim.evaluate(&|_| Some(n)).unwrap()).product();
    (ty.dtype(), count as usize)
}

/// Small numbers that fit every type, in no obvious order.
fn filled(dtype: DType, count: usize, seed: usize) -> Vec<u8> {
    let bits = dtype.bits();
    let mut bytes = vec![0; dtype.bytes_for(count).unwrap()];
    for index in 0..count {
        let number = ((index * 7919 + seed * 104_729) % 23) as f64 / 4.0 - 2.0;
        let value = fold::apply(tcc_ir::scalar::ScalarOp::Cast(dtype), &[Scalar::float(DType::F64, number)]);
        let code = fold::to_bits(value.unwrap()).to_le_bytes();
        if bits < 8 {
            bytes[index * bits / 8] |= code[0] << (index * bits % 8);
        } else {
            bytes[index * bits / 8..][..bits / 8].copy_from_slice(&code[..bits / 8]);
        }
    }
    bytes
}

/// Runs all kernels of an operation; `prepare` changes each before it runs.
fn run(case: &Case, lowered: &Lowered, n: i64, prepare: &dyn Fn(&Kernel) -> Kernel) -> Vec<u8> {
    let mut operands: Vec<Vec<u8>> = Vec::new();
    for (index, ty) in case.operands.iter().enumerate() {
        let (dtype, count) = bytes_of(ty, n);
        operands.push(filled(dtype, count, index));
    }
    let empty = |ty: &TensorType| {
        let (dtype, count) = bytes_of(ty, n);
        vec![0u8; dtype.bytes_for(count).unwrap()]
    };
    let mut temporaries: Vec<Vec<u8>> = lowered.temporaries.iter().map(empty).collect();
    let mut result = empty(&case.result);
    for launch in &lowered.launches {
        let kernel = prepare(&launch.kernel);
        let mut arguments: Vec<Vec<u8>> = launch
            .arguments
            .iter()
            .map(|argument| match argument {
                Argument::Operand(index) => operands[*index].clone(),
                Argument::Result(_) => result.clone(),
                Argument::Temporary(index) => temporaries[*index].clone(),
                Argument::Packed(_) | Argument::Block(_) | Argument::View(..) => {
                    panic!("nothing is constant or seen as another type")
                }
            })
            .collect();
        let mut slices: Vec<&mut [u8]> = arguments.iter_mut().map(|bytes| &mut bytes[..]).collect();
        let dim = |text: &String| tcc_ir::parse::dim(text).unwrap().evaluate(&|_| Some(n)).unwrap();
        let dims: Vec<i64> = kernel.dims.iter().map(dim).collect();
        evaluate(&kernel, &mut slices, &dims, 0, i64::MAX)
            .unwrap_or_else(|error| panic!("{} n={n}: {error}\n{}\n{kernel}", case.name, launch.kernel));
        for (argument, bytes) in launch.arguments.iter().zip(arguments) {
            match argument {
                Argument::Result(_) => result = bytes,
                Argument::Temporary(index) => temporaries[*index] = bytes,
                _ => {}
            }
        }
    }
    result
}

fn assert_close(case: &Case, n: i64, machine: &Machine, before: &[u8], after: &[u8]) {
    let dtype = case.result.dtype();
    let size = dtype.size();
    let tolerance = match dtype {
        DType::F64 => 1e-13,
        DType::F32 => 4e-6,
        DType::F16 => 2e-3,
        DType::BF16 => 1e-2,
        _ => 0.0,
    };
    for (index, (x, y)) in before.chunks(size).zip(after.chunks(size)).enumerate() {
        let number = |chunk: &[u8]| {
            let mut wide = [0; 8];
            wide[..size].copy_from_slice(chunk);
            fold::from_bits(dtype, u64::from_le_bytes(wide)).as_f64()
        };
        let (x, y) = (number(x), number(y));
        assert!(
            x == y || (x - y).abs() <= tolerance * x.abs().max(1.0),
            "{} n={n} {machine:?}: element {index} is {y}, was {x}",
            case.name
        );
    }
}

#[test]
fn lowered_operators_keep_their_results() {
    for case in cases() {
        for machine in machines() {
            let constant = vec![false; case.operands.len()];
            let results = std::slice::from_ref(&case.result);
            let name = "operator";
            let lowered = lower(&case.operator, &case.operands, results, &constant, name, &tuning(&machine));
            let lowered = lowered.unwrap_or_else(|error| panic!("{}: {error}", case.name));
            // Images and tokens are large enough with two of them.
            let largest = if case.operands[0].shape.len() > 2 { 2 } else { 17 };
            for n in [0, 1, largest] {
                let before = run(&case, &lowered, n, &Kernel::clone);
                let after = run(&case, &lowered, n, &|kernel| {
                    let mut done = kernel.clone();
                    finalize(&mut done, &machine).unwrap_or_else(|error| {
                        panic!("{} {machine:?}: {error}\n{kernel}\n{done}", case.name)
                    });
                    done
                });
                assert_close(&case, n, &machine, &before, &after);
            }
        }
    }
}
