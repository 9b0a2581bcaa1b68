//! Operators with symbolic shapes.

use tcc_ir::contraction::ContractionSpec;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::ScalarExpr;
use tcc_ir::types::TensorType;
use tcc_ir::words::{Layout, ReduceKind, WindowKind};
use tcc_kernel::lower::{Lowered, Tuning, lower};
use tcc_ptx::schedule::tuning;

pub struct Case {
    pub name: String,
    pub operator: Operator,
    pub operands: Vec<TensorType>,
    pub result: TensorType,
}

impl Case {
    pub fn lowered(&self) -> Lowered {
        self.lowered_with(&tuning())
    }

    pub fn lowered_with(&self, tuning: &Tuning) -> Lowered {
        let constant = vec![false; self.operands.len()];
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
    Case { name: format!("{body} of {from:?}"), operator, operands, result: tensor(to, &["n", "7"]) }
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
    }
}

fn convolution(groups: usize, filter: &[&str]) -> Case {
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
    }
}

fn reduce(kind: ReduceKind, axis: usize) -> Case {
    let (prologue, epilogue) = (scalar("(1) a0"), scalar("(1) a0"));
    let operator = Operator::Reduce { kind, axes: vec![axis], keep: false, prologue, epilogue };
    let operands = vec![f32(&["n", "k"])];
    Case { name: format!("{kind:?} along {axis}"), operator, operands, result: f32(&[["k", "n"][axis]]) }
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
    Case { name: format!("{kind:?} pooling"), operator, operands, result: f32(&["n", "5", "5", "5"]) }
}

pub fn operators() -> Vec<Case> {
    let rows = |name: &str, operator| Case {
        name: name.into(),
        operator,
        operands: vec![f32(&["n", "k"])],
        result: f32(&["n", "k"]),
    };
    vec![
        contract([DType::F32; 3]),
        contract([DType::F64; 3]),
        contract([DType::U8, DType::I8, DType::I32]),
        convolution(1, &["3", "3", "12", "12"]),
        convolution(12, &["3", "3", "1", "12"]),
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
        },
        pooling(WindowKind::Max),
        pooling(WindowKind::MeanValid),
        Case {
            name: "transpose".into(),
            operator: Operator::Transpose { perm: vec![1, 0] },
            operands: vec![f32(&["n", "k"])],
            result: f32(&["k", "n"]),
        },
    ]
}
