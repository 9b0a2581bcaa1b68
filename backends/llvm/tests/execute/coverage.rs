//! Every construct of the kernel IR, for every element type, compiles for every target: a code generator that cannot select
//! an instruction ends the process, so this has to be known beforehand.

use tcc_ir::dtype::{Class, DType};
use tcc_ir::scalar::{Function, ScalarOp};
use tcc_ir::words::ReduceKind;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, BufferId, Expr, Stmt};
use tcc_llvm::{Options, Target, compile};

use super::{argument, lanes, partial};

const TYPES: [DType; 13] = [
    DType::F32,
    DType::F64,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::Bool,
    DType::F16,
    DType::BF16,
];

/// The core functions of a type.
fn functions(dtype: DType) -> &'static [Function] {
    use Function::*;
    match (dtype, dtype.class()) {
        (DType::F16 | DType::BF16, _) => &[],
        (_, Class::Float) => &[
            Neg, Abs, Floor, Ceil, Round, Trunc, Sqrt, Add, Sub, Mul, Div, Rem, Max, Min, Equal, Less,
            LessEqual, IsNan,
        ],
        (_, Class::Bool) => &[And, Or, Xor, Not, Equal, Less, LessEqual],
        _ => &[
            Neg, Abs, Add, Sub, Mul, Div, Rem, Max, Min, BitAnd, BitOr, BitXor, BitNot, ShiftLeft,
            ShiftRight, Equal, Less, LessEqual,
        ],
    }
}

/// Expressions over a buffer of one type, with so many lanes.
fn expressions(dtype: DType, x: BufferId, indices: BufferId, width: u16) -> Vec<Expr> {
    let load = |offset: i64| lanes(x, Expr::index(offset), width);
    let boxed = |offset| Box::new(load(offset));
    let ramp = |stride| Expr::Ramp { base: Box::new(Expr::Dim(0)), stride, lanes: width };
    let at = |index: Expr, valid: Option<Expr>| Expr::Load {
        buffer: x,
        index: Box::new(index),
        lanes: width,
        valid: valid.map(Box::new),
    };
    let mut all = vec![
        partial(x, Expr::index(0), width, Expr::Dim(0)),
        at(ramp(2), None),
        at(ramp(7), None),
        at(ramp(3), Some(Expr::Dim(0))),
        Expr::Splat(Box::new(Expr::load(x, Expr::index(5))), width),
        Expr::Shuffle(boxed(0), boxed(64), (0..width).map(|lane| 2 * width - 1 - lane).collect()),
    ];
    if width * 8 <= 16 {
        all.push(at(lanes(indices, Expr::index(0), width), Some(Expr::Dim(0))));
    }
    for function in functions(dtype) {
        let args = (0..function.arity()).map(|number| load(64 * number as i64)).collect();
        all.push(Expr::call(*function, args));
    }
    for to in TYPES {
        all.push(Expr::Call(ScalarOp::Cast(to), vec![load(0)]));
        all.push(Expr::Call(ScalarOp::CastAlternate(to), vec![load(0)]));
        if to.bits() == dtype.bits() {
            all.push(Expr::Call(ScalarOp::Bitcast(to), vec![load(0)]));
        }
    }
    if matches!(dtype, DType::F32 | DType::F64) {
        all.push(Expr::Fma(boxed(0), boxed(64), boxed(128)));
    }
    if functions(dtype).contains(&Function::Mul) {
        for kind in [ReduceKind::Sum, ReduceKind::Prod, ReduceKind::Max, ReduceKind::Min] {
            all.push(Expr::ReduceLanes(kind, boxed(0)));
        }
    }
    all
}

/// Whether a value of an expression fits a register. Truth values take what their operands took.
fn fits(kernel: &Kernel, expr: &Expr, bits: usize) -> bool {
    let mut widest = 0;
    expr.visit(&mut |part| {
        let ty = kernel.type_of(part);
        if !matches!(part, Expr::Ramp { .. }) && ty.dtype != DType::Bool {
            widest = widest.max(usize::from(ty.lanes) * ty.dtype.bits());
        }
    });
    widest <= bits
}

#[test]
fn every_construct_compiles_for_every_target() {
    for name in ["x86-64-v3", "x86-64-v4", "aarch64", "riscv64", "riscv64+zfhmin+zvfhmin", "wasm32"] {
        let target = Target::named(name).unwrap();
        let native = 8 * target.vector_bytes();
        for dtype in TYPES {
            let mut kernels = Vec::new();
            for width in [1, (native / dtype.bits()) as u16] {
                let mut kernel = Kernel::new(&format!("lanes_{width}"));
                kernel.dims = vec!["n".to_owned()];
                let x = argument(&mut kernel, dtype, 1024, Access::Read);
                let indices = argument(&mut kernel, DType::I64, 1024, Access::Read);
                for value in expressions(dtype, x, indices, width) {
                    if !fits(&kernel, &value, native) {
                        continue;
                    }
                    let ty = kernel.type_of(&value);
                    let out = argument(&mut kernel, ty.dtype, 1024, Access::Write);
                    let ramp = Expr::Ramp { base: Box::new(Expr::Dim(0)), stride: 2, lanes: ty.lanes };
                    for (index, valid) in [
                        (Expr::index(0), None),
                        (Expr::Dim(0), Some(Expr::Dim(0))),
                        (ramp.clone(), None),
                        (ramp, Some(Expr::Dim(0))),
                    ] {
                        // Each way to store once a type is enough.
                        let seldom = valid.is_some() || matches!(index, Expr::Ramp { .. });
                        if !seldom || kernel.body.len() < 8 {
                            kernel.body.push(Stmt::Store { buffer: out, index, value: value.clone(), valid });
                        }
                    }
                }
                kernels.push(kernel);
            }
            compile(&kernels, &target, Options::default())
                .unwrap_or_else(|error| panic!("{name}, {dtype}: {error}"));
        }
    }
}
