//! Every target compiles, the output is the same every time, and threads do not change it.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarOp};
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, Expr, LoopKind, Stmt};
use tcc_llvm::{Jit, Options, Target, Text, compile, compile_parallel, emit_text};

use super::{address, partial, run_object, two};

/// A kernel with a bit of everything: partial vectors, casts to and from half, a maximum and a parallel loop.
fn mixed(name: &str, factor: f64, width: u16) -> Kernel {
    let mut kernel = Kernel::new(name);
    kernel.dims = vec!["n".to_owned()];
    let n = Expr::Dim(0);
    let x = kernel.argument("x", DType::F16, n.clone(), Access::Read);
    let y = kernel.argument("y", DType::F16, n.clone(), Access::Write);
    let chunk = kernel.counter("chunk");
    let at = Expr::from(chunk).times(Expr::index(i64::from(width)));
    let valid = n.clone().minus(at.clone());
    let splat = |value: f64| Expr::Splat(Box::new(Expr::constant(DType::F32, value)), width);
    let value = Expr::Call(ScalarOp::Cast(DType::F32), vec![partial(x, at.clone(), width, valid.clone())]);
    let value = two(Function::Max, two(Function::Mul, value, splat(factor)), splat(0.0));
    let value = Expr::Call(ScalarOp::Cast(DType::F16), vec![value]);
    let body = vec![Stmt::Store { buffer: y, index: at, value, valid: Some(valid) }];
    let extent = n.over_up(Expr::index(i64::from(width)));
    kernel.body = vec![Stmt::For { var: chunk, extent, kind: LoopKind::Parallel, body }];
    kernel
}

#[test]
fn every_target_compiles_without_library_calls() {
    for name in ["host", "x86-64-v1", "x86-64-v3", "x86-64-v4", "aarch64", "riscv64", "wasm32"] {
        let target = Target::named(name).unwrap();
        let kernel = mixed("mixed", 2.0, (target.vector_bytes() / 4) as u16);
        let kernels = std::slice::from_ref(&kernel);
        for level in 0..=3 {
            let object = compile(kernels, &target, Options { level }).unwrap();
            let magic: &[u8] = if name == "wasm32" { b"\0asm" } else { b"\x7fELF" };
            assert!(object.bytes().starts_with(magic), "{name}");
        }
        let text = emit_text(kernels, Text::LlvmIr, &target, Options::default()).unwrap();
        let foreign = text.lines().find(|line| line.starts_with("declare") && !line.contains("@llvm."));
        assert_eq!(foreign, None, "{name}");
        let assembly = emit_text(kernels, Text::Assembly, &target, Options::default()).unwrap();
        assert!(
            !assembly.contains("sf2") && !assembly.contains("hf2"),
            "{name} calls a support library:\n{assembly}"
        );
    }
}

/// `clip(round(x * 0.01) + 3)` from i32 sums to bytes, the end of every quantized kernel.
fn requantize(to: DType, width: u16) -> Kernel {
    let mut kernel = Kernel::new("requantize");
    kernel.dims = vec!["n".to_owned()];
    let x = kernel.argument("x", DType::I32, Expr::Dim(0), Access::Read);
    let y = kernel.argument("y", to, Expr::Dim(0), Access::Write);
    let chunk = kernel.counter("chunk");
    let at = Expr::from(chunk).times(Expr::index(i64::from(width)));
    let splat = |value: f64| Expr::Splat(Box::new(Expr::constant(DType::F32, value)), width);
    let sum = Expr::Load { buffer: x, index: Box::new(at.clone()), lanes: width, valid: None };
    let value = two(Function::Mul, Expr::Call(ScalarOp::Cast(DType::F32), vec![sum]), splat(0.01));
    let value = two(Function::Add, Expr::call(Function::Round, vec![value]), splat(3.0));
    let value = two(Function::Min, two(Function::Max, value, splat(0.0)), splat(100.0));
    let value = Expr::Call(ScalarOp::Cast(to), vec![value]);
    let body = vec![Stmt::Store { buffer: y, index: at, value, valid: None }];
    kernel.body = vec![Stmt::For { var: chunk, extent: Expr::Dim(0), kind: LoopKind::Parallel, body }];
    kernel
}

#[test]
fn requantization_stays_in_vectors() {
    for (name, width, scalar) in
        [("x86-64-v4", 16, "vcvttss2si"), ("x86-64-v3", 8, "vcvttss2si"), ("aarch64", 4, "fcvtzs\tw")]
    {
        for to in [DType::U8, DType::I8] {
            let target = Target::named(name).unwrap();
            let kernel = requantize(to, width);
            let text = emit_text(&[kernel], Text::Assembly, &target, Options::default()).unwrap();
            assert!(!text.contains(scalar), "{name} converts one lane at a time:\n{text}");
            // A clip against constants is two instructions, not a dance around NaN.
            assert!(!text.contains("vcmp"), "{name} compares for a clip:\n{text}");
        }
    }
}

/// The runtime loads objects by a small loader of its own.
#[test]
fn the_runtime_loads_the_objects() {
    let kernels: Vec<Kernel> = (0..3).map(|i| mixed(&format!("kernel_{i}"), f64::from(i), 8)).collect();
    let object = compile(&kernels, &Target::host().unwrap(), Options::default()).unwrap();
    let image = tcc_runtime::code::CodeImage::load(object.bytes()).unwrap();
    let names: Vec<&str> = object.symbols().collect();
    assert_eq!(names, ["kernel_0", "kernel_1", "kernel_2"]);
    let mut x: Vec<u16> = (0..19).map(|i| half::f16::from_f32(i as f32 - 9.0).to_bits()).collect();
    let mut y = vec![0u16; 19];
    super::call(image.function("kernel_2").unwrap().cast(), &[address(&mut x), address(&mut y)], &[19], 0, 3);
    for (x, y) in x.iter().zip(&y) {
        let [x, y] = [x, y].map(|bits| half::f16::from_bits(*bits).to_f32());
        assert_eq!(y, (2.0 * x).max(0.0));
    }
}

#[test]
fn text_of_every_stage() {
    let target = Target::named("x86-64-v3").unwrap();
    let text = |kind| emit_text(&[mixed("mixed", 2.0, 8)], kind, &target, Options::default()).unwrap();
    assert!(text(Text::Mlir).contains("scf.for"));
    assert!(text(Text::LlvmIr).contains("define void @mixed(ptr"));
    assert!(text(Text::Assembly).contains("vcvtps2ph"));
}

#[test]
fn the_same_bytes_every_time_and_for_every_number_of_threads() {
    let kernels: Vec<Kernel> = (0..20).map(|i| mixed(&format!("kernel_{i}"), f64::from(i), 8)).collect();
    let target = Target::host().unwrap();
    let once = compile(&kernels, &target, Options::default()).unwrap();
    let again = compile(&kernels, &target, Options::default()).unwrap();
    assert!(once == again, "two compilations differ");
    let one = compile_parallel(&kernels, &target, Options::default(), 1).unwrap();
    let many = compile_parallel(&kernels, &target, Options::default(), 4).unwrap();
    assert!(one == many, "the number of threads changes the objects");
    let jit = Jit::load_all(&many).unwrap();
    let mut x = vec![0x3c00u16; 11];
    let mut y = vec![0u16; 11];
    run_object(&jit, "kernel_2", &[address(&mut x), address(&mut y)], &[11], 0, 2);
    assert_eq!(y, [0x4000; 11]);
    assert!(jit.symbol("kernel_20").is_none());
}

#[test]
fn an_empty_list_gives_an_empty_object() {
    let target = Target::host().unwrap();
    assert_eq!(compile(&[], &target, Options::default()).unwrap().symbols().count(), 0);
    assert!(compile_parallel(&[], &target, Options::default(), 3).unwrap().is_empty());
}
