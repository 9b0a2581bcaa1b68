//! Kernels that cannot be compiled end in an error that names them, never in a panic or an abort.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;
use tcc_ir::words::ReduceKind;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, BufferId, Expr, LoopKind, Space, Stmt, Ty, Var};
use tcc_llvm::{Error, Options, Target, compile};

use super::{argument, lanes, serial, store, two};

fn refuse(kernel: Kernel) -> Error {
    let target = Target::named("x86-64-v3").unwrap();
    compile(&[kernel], &target, Options::default()).expect_err("the kernel must be refused")
}

/// A kernel over one f32 buffer with the given body.
fn with_body(body: impl FnOnce(&mut Kernel, BufferId) -> Vec<Stmt>) -> Kernel {
    let mut kernel = Kernel::new("broken");
    let buffer = argument(&mut kernel, DType::F32, 64, Access::ReadWrite);
    kernel.body = body(&mut kernel, buffer);
    kernel
}

#[test]
fn what_has_no_lowering_is_named() {
    let exp = with_body(|_, x| {
        vec![store(x, Expr::index(0), Expr::call(Function::Exp, vec![Expr::load(x, Expr::index(0))]))]
    });
    let barrier = with_body(|_, _| vec![Stmt::Barrier]);
    let vector_loop = with_body(|kernel, _| {
        let var = kernel.counter("i");
        vec![Stmt::For { var, extent: Expr::index(8), kind: LoopKind::Vector, body: vec![] }]
    });
    let mut shared = Kernel::new("broken");
    shared.buffer("s", DType::F32, Space::Shared, Expr::index(8), Access::ReadWrite);
    let mut packed = Kernel::new("broken");
    let nibbles = argument(&mut packed, DType::I4, 8, Access::Read);
    packed.body = vec![store(nibbles, Expr::index(0), Expr::load(nibbles, Expr::index(1)))];
    for (kernel, word) in
        [(exp, "exp"), (barrier, "barrier"), (vector_loop, "Vector"), (shared, "Shared"), (packed, "i4")]
    {
        let error = refuse(kernel);
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("'broken'") && text.contains(word), "{text}");
    }
}

#[test]
fn what_breaks_the_rules_is_refused() {
    let one = || Expr::constant(DType::F32, 1.0);
    let kernels = [
        with_body(|_, _| vec![store(BufferId(7), Expr::index(0), one())]),
        with_body(|_, x| vec![store(x, one(), one())]),
        with_body(|_, x| vec![store(x, Expr::index(0), Expr::index(3))]),
        with_body(|_, x| vec![store(x, Expr::index(0), Expr::Var(Var(0)))]),
        with_body(|_, x| vec![store(x, Expr::Dim(2), one())]),
        with_body(|_, x| {
            vec![store(x, Expr::index(0), two(Function::Add, one(), lanes(x, Expr::index(0), 4)))]
        }),
        with_body(|_, x| vec![store(x, Expr::index(0), two(Function::Add, one(), Expr::index(1)))]),
        with_body(|_, x| {
            let value = Expr::ReduceLanes(ReduceKind::Sum, Box::new(lanes(x, Expr::index(0), 6)));
            vec![store(x, Expr::index(0), value)]
        }),
        with_body(|_, x| {
            let value = lanes(x, Expr::index(0), 4);
            vec![store(x, Expr::index(0), Expr::Shuffle(Box::new(value.clone()), Box::new(value), vec![8]))]
        }),
        with_body(|kernel, _| {
            let var = kernel.counter("i");
            vec![serial(var, Expr::index(3), vec![Stmt::Assign { var, value: Expr::index(0) }])]
        }),
        with_body(|kernel, _| {
            let [outer, inner] = [kernel.counter("i"), kernel.counter("j")];
            let parallel =
                |var, body| Stmt::For { var, extent: Expr::index(3), kind: LoopKind::Parallel, body };
            vec![parallel(outer, vec![parallel(inner, vec![])])]
        }),
        with_body(|kernel, _| {
            let var = kernel.variable("v", Ty::vector(DType::F32, 4));
            vec![Stmt::Assign { var, value: Expr::constant(DType::F32, 0.0) }]
        }),
        with_body(|_, x| {
            let bytes = lanes(x, Expr::index(0), 4);
            let dot =
                Expr::Dot { acc: Box::new(bytes.clone()), a: Box::new(bytes.clone()), b: Box::new(bytes) };
            vec![store(x, Expr::index(0), dot)]
        }),
        with_body(|kernel, _| {
            kernel.buffer("s", DType::F32, Space::Stack, Expr::Dim(0), Access::ReadWrite);
            kernel.dims = vec!["n".to_owned()];
            vec![]
        }),
    ];
    for (number, kernel) in kernels.into_iter().enumerate() {
        let error = refuse(kernel);
        assert!(matches!(error, Error::Malformed { .. }), "case {number}: {error}");
    }
}

#[test]
fn foreign_code_is_not_loaded() {
    let kernel = with_body(|_, x| vec![store(x, Expr::index(0), Expr::constant(DType::F32, 1.0))]);
    let object = compile(&[kernel], &Target::named("riscv64").unwrap(), Options::default()).unwrap();
    assert!(tcc_llvm::Jit::load(&object).is_err());
}
