//! Objects, symbols and refusals.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, Expr, LoopKind, Space, Stmt, Ty};

use tcc_runtime::code::CodeImage;

use super::harness::{Memory, call_at, elementwise, oldest, serial, store};
use crate::{Error, Jit, Target, compile};

fn named(name: &str) -> Kernel {
    let mut kernel = elementwise(&[DType::F64; 3], DType::F64, 4, &|args| {
        let [a, b, c] = [0, 1, 2].map(|number| Box::new(args[number].clone()));
        Expr::Fma(a, b, c)
    });
    kernel.name = name.to_owned();
    kernel
}

#[test]
fn objects_are_the_same_every_time() {
    let kernels = [named("first"), named("second")];
    for target in [Target::host(), oldest(), Target::new("aarch64-unknown-linux-gnu", &[])] {
        let object = compile(&kernels, &target).unwrap();
        assert_eq!(object, compile(&kernels, &target).unwrap());
        assert_eq!(object.symbols().collect::<Vec<_>>(), ["first", "second"]);
        assert_eq!(&object.bytes()[..4], b"\x7fELF");
        for name in ["first", "second"] {
            assert!(object.bytes().windows(name.len()).any(|window| window == name.as_bytes()));
        }
    }
    assert!(compile(&[], &Target::host()).is_ok());
}

/// The runtime's own loader takes the objects, with the calls between their functions.
#[test]
fn the_runtime_loads_objects() {
    let kernels = [named("first"), named("second")];
    let values: Vec<u64> = (0..8).map(|x| (f64::from(x) * 0.1 + 1.0).to_bits()).collect();
    for target in [Target::host(), oldest()] {
        let image = CodeImage::load(compile(&kernels, &target).unwrap().bytes()).unwrap();
        assert!(image.function("first").is_some_and(|first| Some(first) != image.function("second")));
        let second = image.function("second").unwrap();
        let mut memory = vec![Memory::of(DType::F64, &values); 3];
        memory.push(Memory::filled(DType::F64, 8, 0));
        call_at(second, &mut memory, &[8], 0, 0, 1);
        let expected: Vec<u64> =
            values.iter().map(|x| f64::from_bits(*x)).map(|x| x.mul_add(x, x).to_bits()).collect();
        assert_eq!(memory[3].elements(DType::F64), expected);
    }
}

#[test]
fn the_jit_finds_kernels_by_name() {
    let jit = Jit::new(&[named("first"), named("second")]).unwrap();
    assert!(jit.symbol("first").is_some_and(|first| Some(first) != jit.symbol("second")));
    assert!(jit.symbol("third").is_none());
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&jit.symbol("first").map(|_| ()));
}

#[test]
fn names_are_unique_identifiers() {
    for names in [&["a", "a"][..], &["1a"], &[""], &["a.b"], &["ä"]] {
        let kernels: Vec<Kernel> = names.iter().map(|name| named(name)).collect();
        assert!(matches!(Jit::new(&kernels), Err(Error::Symbol(_))), "{names:?}");
    }
}

fn refusal(build: impl FnOnce(&mut Kernel)) -> Error {
    let mut kernel = Kernel::new("refused");
    build(&mut kernel);
    Jit::new(&[kernel]).map(|_| ()).unwrap_err()
}

#[test]
fn malformed_kernels_are_errors() {
    let error = refusal(|kernel| {
        let y = kernel.argument("y", DType::F32, Expr::index(1), Access::Write);
        kernel.body.push(store(y, Expr::index(0), Expr::constant(DType::F64, 1.0)));
    });
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    let error = refusal(|kernel| {
        let t = kernel.variable("t", Ty::INDEX);
        let y = kernel.argument("y", DType::I64, Expr::index(1), Access::Write);
        kernel.body.push(store(y, Expr::index(0), t.into()));
    });
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
}

#[test]
fn unsupported_constructs_are_named() {
    let cases: Vec<(Error, &str)> = vec![
        (
            refusal(|kernel| {
                let y = kernel.argument("y", DType::F32, Expr::index(1), Access::Write);
                let e = Expr::call(Function::Exp, vec![Expr::constant(DType::F32, 1.0)]);
                kernel.body.push(store(y, Expr::index(0), e));
            }),
            "exp of f32",
        ),
        (
            refusal(|kernel| {
                kernel.argument("y", DType::BF16, Expr::index(1), Access::Write);
            }),
            "buffer 'y' of bf16",
        ),
        (
            refusal(|kernel| {
                kernel.buffer("big", DType::F64, Space::Stack, Expr::index(1 << 40), Access::ReadWrite);
            }),
            "bytes of stack",
        ),
        (
            refusal(|kernel| {
                kernel.buffer("shared", DType::F64, Space::Shared, Expr::index(4), Access::ReadWrite);
            }),
            "space Shared",
        ),
        (
            refusal(|kernel| {
                let i = kernel.counter("i");
                kernel.body.push(Stmt::For {
                    var: i,
                    extent: Expr::index(4),
                    kind: LoopKind::Vector,
                    body: vec![],
                });
            }),
            "loop of kind Vector",
        ),
        (refusal(|kernel| kernel.body.push(Stmt::Barrier)), "a barrier"),
        (
            refusal(|kernel| {
                let i = kernel.counter("i");
                kernel.body.push(serial(i, Expr::index(1), vec![Stmt::Barrier]));
            }),
            "a barrier",
        ),
    ];
    for (error, text) in cases {
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}
