//! Operators with symbolic shapes.

use tcc_ir::contraction::ContractionSpec;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::ScalarExpr;
use tcc_ir::types::TensorType;
use tcc_ir::words::{Layout, ReduceKind, WindowKind};
use tcc_kernel::lower::{Lowered, Tuning, lower};
use tcc_ptx::Target;
use tcc_ptx::schedule::tuning;

pub struct Case {
    pub name: String,
    pub operator: Operator,
    pub operands: Vec<TensorType>,
    pub result: TensorType,
    /// Whether the second operand is known at compile time.
    pub constant: bool,
}

impl Case {
    pub fn lowered(&self, target: &Target) -> Lowered {
        self.lowered_with(&tuning(target))
    }

    pub fn lowered_with(&self, tuning: &Tuning) -> Lowered {
        let constant: Vec<bool> =
            (0..self.operands.len()).map(|operand| operand == 1 && self.constant).collect();
        let results = std::slice::from_ref(&self.result);
        lower(&self.operator, &self.operands, results, &constant, "operator", tuning)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

pub fn tensor(dtype: DType, shape: &[&str]) -> TensorType {
    let dim = |text: &&str| tcc_ir::parse::dim(text).unwrap();
    TensorType::new(dtype, shape.iter().map(dim).collect())
}

fn scalar(text: &str) -> ScalarExpr {
    text.parse().unwrap()
}

pub fn map(body: &str, from: &[DType], to: DType) -> Case {
    let operator = Operator::Map { body: scalar(body) };
    let operands = from.iter().map(|from| tensor(*from, &["n", "7"])).collect();
    Case {
        name: format!("{body} of {from:?}"),
        operator,
        operands,
        result: tensor(to, &["n", "7"]),
        constant: false,
    }
}

fn f32(shape: &[&str]) -> TensorType {
    tensor(DType::F32, shape)
}

fn contract(types: [DType; 3]) -> Case {
    let [lhs, rhs, accumulator] = types;
    let operator =
        Operator::Contract { spec: ContractionSpec::matmul(0), accumulator, epilogue: scalar("(1) a0") };
    let operands = vec![tensor(lhs, &["n", "k"]), tensor(rhs, &["k", "m"])];
    Case {
        name: format!("matmul of {types:?}"),
        operator,
        operands,
        result: tensor(accumulator, &["n", "m"]),
        constant: false,
    }
}

fn grouped(groups: usize, filter: &[&str]) -> Case {
    let operator = Operator::Convolve {
        layout: Layout::ChannelsLast,
        groups,
        strides: vec![2, 2],
        dilations: vec![1, 1],
        pads: vec![1; 4],
        accumulator: DType::F32,
        epilogue: scalar("(2) t0 = add(a0, a1); t1 = max(t0, f32:0.0); t2 = min(t1, f32:6.0); t2"),
    };
    let operands = vec![f32(&["n", "9", "9", "12"]), f32(filter), f32(&["12"])];
    Case {
        name: format!("convolution in {groups} groups"),
        operator,
        operands,
        result: f32(&["n", "5", "5", "12"]),
        constant: false,
    }
}

fn reduce(kind: ReduceKind, axis: usize) -> Case {
    let (prologue, epilogue) = (scalar("(1) a0"), scalar("(1) a0"));
    let operator = Operator::Reduce { kind, axes: vec![axis], keep: false, prologue, epilogue };
    let operands = vec![f32(&["n", "k"])];
    Case {
        name: format!("{kind:?} along {axis}"),
        operator,
        operands,
        result: f32(&[["k", "n"][axis]]),
        constant: false,
    }
}

fn pooling(kind: WindowKind) -> Case {
    let operator = Operator::Window {
        kind,
        layout: Layout::ChannelsLast,
        size: vec![3, 3],
        strides: vec![2, 2],
        dilations: vec![1, 1],
        pads: vec![1; 4],
        ceil: false,
    };
    let operands = vec![f32(&["n", "9", "9", "5"])];
    Case {
        name: format!("{kind:?} pooling"),
        operator,
        operands,
        result: f32(&["n", "5", "5", "5"]),
        constant: false,
    }
}

/// A product on tensor cores: rows of both operands lie along the depth, or the right one is packed that way.
pub fn matrix(types: [DType; 3], depth: &str, packed: bool) -> Case {
    let [lhs, rhs, accumulator] = types;
    let columns = if packed { "24" } else { "m" };
    let right = if packed { [depth, columns] } else { [columns, depth] };
    let rhs_labels = if packed { b"km".to_vec() } else { b"mk".to_vec() };
    let spec = ContractionSpec { lhs: b"nk".to_vec(), rhs: rhs_labels, out: b"nm".to_vec() };
    Case {
        name: format!("product of {types:?} over {depth}"),
        operator: Operator::Contract { spec, accumulator, epilogue: scalar("(1) t0 = add(a0, a0); t0") },
        operands: vec![tensor(lhs, &["n", depth]), tensor(rhs, &right)],
        result: tensor(accumulator, &["n", columns]),
        constant: packed,
    }
}

/// A product of square matrices on tensor cores, sums in f32.
pub fn square(dtype: DType, size: i64) -> Case {
    let extent = size.to_string();
    let ty = |dtype| tensor(dtype, &[&extent, &extent]);
    let case = matrix([dtype, dtype, DType::F32], &extent, true);
    let name = format!("product of {dtype}, {size} cubed");
    Case { name, operands: vec![ty(dtype), ty(dtype)], result: ty(DType::F32), ..case }
}

/// A product of so many rows, which a warp computes for each column.
fn few_rows(types: [DType; 3], rows: &str, depth: &str, packed: bool) -> Case {
    let case = matrix(types, depth, packed);
    let [lhs, rhs, accumulator] = types;
    let right = if packed { [depth, "24"] } else { ["m", depth] };
    let operands = vec![tensor(lhs, &[rows, depth]), tensor(rhs, &right)];
    let result = tensor(accumulator, &[rows, if packed { "24" } else { "m" }]);
    Case { name: format!("{rows} rows, {}", case.name), operands, result, ..case }
}

/// Causal attention of f16 with heads of 64, four queries' heads to one of keys.
pub fn attention16() -> Case {
    let ty = |heads: &str| tensor(DType::F16, &["1", heads, "n", "64"]);
    let operator = Operator::Attention { scale: 0.125.into(), softcap: 0.0.into(), causal: true, window: 0 };
    Case {
        name: "attention of f16, heads of 64".into(),
        operator,
        operands: vec![ty("8"), ty("2"), ty("2")],
        result: ty("8"),
        constant: false,
    }
}

/// Products of few rows.
pub fn vectors() -> Vec<Case> {
    vec![
        few_rows([DType::F32; 3], "1", "4100", true),
        few_rows([DType::F32; 3], "3", "72", false),
        few_rows([DType::F16, DType::F16, DType::F32], "1", "40", true),
        few_rows([DType::U8, DType::I8, DType::I32], "2", "176", false),
    ]
}

/// A product of few rows and columns over a deep sum, which is cut into pieces.
pub fn deep() -> Case {
    let case = matrix([DType::F16, DType::F16, DType::F32], "1040", true);
    let operands = vec![tensor(DType::F16, &["20", "1040"]), tensor(DType::F16, &["1040", "24"])];
    Case { name: "deep product".into(), operands, result: tensor(DType::F32, &["20", "24"]), ..case }
}

/// A product of f32 over a constant depth.
pub fn product(depth: &str) -> Case {
    let operator = Operator::Contract {
        spec: ContractionSpec::matmul(0),
        accumulator: DType::F32,
        epilogue: scalar("(1) a0"),
    };
    let operands = vec![f32(&["n", depth]), f32(&[depth, "m"])];
    let name = format!("product of f32 over {depth}");
    Case { name, operator, operands, result: f32(&["n", "m"]), constant: false }
}

/// A 3 x 3 convolution with as many channels out as in.
pub fn convolution([input, filter, accumulator]: [DType; 3], channels: &str) -> Case {
    let operator = Operator::Convolve {
        layout: Layout::ChannelsLast,
        groups: 1,
        strides: vec![1, 1],
        dilations: vec![1, 1],
        pads: vec![1; 4],
        accumulator,
        epilogue: scalar("(1) a0"),
    };
    Case {
        name: format!("3 x 3 convolution of {input}, {channels} channels"),
        operator,
        operands: vec![
            tensor(input, &["1", "k", "k", channels]),
            tensor(filter, &["3", "3", channels, channels]),
        ],
        result: tensor(accumulator, &["1", "k", "k", channels]),
        constant: true,
    }
}

/// A sum and a maximum of elements.
pub fn elementwise() -> Case {
    let operator = Operator::Map { body: scalar("(2) t0 = add(a0, a1); t1 = max(t0, f32:0.0); t1") };
    let operands = vec![f32(&["n", "64"]), f32(&["n", "64"])];
    Case { name: "elementwise".into(), operator, operands, result: f32(&["n", "64"]), constant: false }
}

/// Products on tensor cores, and what is lowered like one.
pub fn matrices() -> Vec<Case> {
    let bytes = [DType::U8, DType::I8, DType::I32];
    let image = Operator::Convolve {
        layout: Layout::ChannelsLast,
        groups: 1,
        strides: vec![2, 1],
        dilations: vec![1, 2],
        pads: vec![1, 2, 1, 2],
        accumulator: DType::I32,
        epilogue: scalar("(1) t0 = max(a0, i32:0); t0"),
    };
    vec![
        matrix([DType::F16, DType::F16, DType::F32], "72", false),
        matrix([DType::BF16, DType::BF16, DType::F32], "8", false),
        matrix([DType::F16, DType::F16, DType::F32], "40", true),
        matrix(bytes, "176", false),
        matrix([DType::I8, DType::I8, DType::I32], "64", true),
        matrix([DType::I8, DType::U8, DType::I32], "16", false),
        deep(),
        Case {
            name: "convolution of bytes".into(),
            operator: image,
            operands: vec![
                tensor(DType::U8, &["n", "9", "7", "16"]),
                tensor(DType::I8, &["3", "3", "16", "20"]),
            ],
            result: tensor(DType::I32, &["n", "5", "7", "20"]),
            constant: true,
        },
    ]
}

pub fn operators() -> Vec<Case> {
    let rows = |name: &str, operator| Case {
        name: name.into(),
        operator,
        operands: vec![f32(&["n", "k"])],
        result: f32(&["n", "k"]),
        constant: false,
    };
    vec![
        contract([DType::F32; 3]),
        contract([DType::F64; 3]),
        contract([DType::U8, DType::I8, DType::I32]),
        grouped(1, &["3", "3", "12", "12"]),
        grouped(12, &["3", "3", "1", "12"]),
        reduce(ReduceKind::Sum, 1),
        reduce(ReduceKind::Max, 0),
        reduce(ReduceKind::Min, 1),
        rows("softmax", Operator::Softmax { axis: 1, log: false }),
        rows("log softmax", Operator::Softmax { axis: 1, log: true }),
        rows(
            "normalization",
            Operator::Normalize {
                axes: vec![1],
                epsilon: 1e-5.into(),
                centered: true,
                epilogue: scalar("(1) a0"),
            },
        ),
        Case {
            name: "gather".into(),
            operator: Operator::Gather { axis: 0 },
            operands: vec![f32(&["3", "k"]), tensor(DType::I64, &["n"])],
            result: f32(&["n", "k"]),
            constant: false,
        },
        rows(
            "running sums",
            Operator::Scan { kind: ReduceKind::Sum, axis: 1, exclusive: false, reverse: true },
        ),
        Case {
            name: "concatenation".into(),
            operator: Operator::Concat { axis: 0 },
            operands: vec![f32(&["n", "k"]), f32(&["3", "k"])],
            result: f32(&["n+3", "k"]),
            constant: false,
        },
        Case {
            name: "attention".into(),
            operator: Operator::Attention {
                scale: 0.25.into(),
                softcap: 0.0.into(),
                causal: true,
                window: 0,
            },
            operands: vec![f32(&["n", "2", "k", "8"]); 3],
            result: f32(&["n", "2", "k", "8"]),
            constant: false,
        },
        pooling(WindowKind::Max),
        pooling(WindowKind::MeanValid),
        Case {
            name: "transpose".into(),
            operator: Operator::Transpose { perm: vec![1, 0] },
            operands: vec![f32(&["n", "k"])],
            result: f32(&["k", "n"]),
            constant: false,
        },
    ]
}
