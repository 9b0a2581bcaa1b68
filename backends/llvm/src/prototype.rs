use crate::builder::Builder;
use crate::compile::*;
use crate::context::Session;
use crate::{Jit, Target};
use melior::dialect::llvm::r#type as llvm_type;
use melior::ir::attribute::{StringAttribute, TypeAttribute};
use melior::ir::operation::OperationBuilder;
use melior::ir::*;

#[test]
fn axpy() {
    let t0 = std::time::Instant::now();
    let session = Session::new();
    eprintln!("session {:?}", t0.elapsed());
    let c = session.context();
    let location = Location::unknown(c);
    let module = Module::new(location);
    let ptr = llvm_type::pointer(c, 0);
    let (region, block) = {
        let region = Region::new();
        let i64 = melior::ir::r#type::IntegerType::new(c, 64).into();
        let b = region.append_block(Block::new(&[(ptr, location), (ptr, location), (ptr, location), (i64, location), (i64, location)]));
        (region, b)
    };
    let mut b = Builder::new(c, block);
    let i64 = b.i64_type();
    let begin: Value = block.argument(3).unwrap().into();
    let end: Value = block.argument(4).unwrap().into();
    let table: Value = block.argument(0).unwrap().into();
    let p0 = b.load(table, ptr, 8, &[]).unwrap();
    let one = b.index(1).unwrap();
    let p1 = b.element_pointer(table, one, ptr).unwrap();
    let p1 = b.load(p1, ptr, 8, &[]).unwrap();
    let f32 = Type::float32(c);
    let v = Type::vector(&[16], f32);
    let step = b.index(16).unwrap();
    let two = b.float(f32, Some(16), 2.0).unwrap();
    let (body, bb) = b.region(&[i64]);
    let outer = b.enter(bb);
    let i: Value = bb.argument(0).unwrap().into();
    let a = b.element_pointer(p0, i, f32).unwrap();
    let o = b.element_pointer(p1, i, f32).unwrap();
    let x = b.load(a, v, 4, &[]).unwrap();
    let y = b.load(o, v, 4, &[]).unwrap();
    let z = b.same_type("math.fma", &[x, two, y], v).unwrap();
    b.store(o, z, 4, &[]).unwrap();
    b.effect("scf.yield", &[], &[]).unwrap();
    b.enter(outer);
    b.regions("scf.for", &[begin, end, step], vec![body]).unwrap();
    b.effect("llvm.return", &[], &[]).unwrap();
    let fty = llvm_type::function(llvm_type::void(c), &[ptr, ptr, ptr, i64, i64], false);
    let func = OperationBuilder::new("llvm.func", location)
        .add_attributes(&[
            b.named("sym_name", StringAttribute::new(c, "axpy")),
            b.named("function_type", TypeAttribute::new(fty)),
        ])
        .add_regions_vec(vec![region])
        .build()
        .unwrap();
    module.body().append_operation(func);
    session.verify(&module).unwrap();
    eprintln!("built {:?}", t0.elapsed());
    eprintln!("{}", module.as_operation());
    let source = module.as_operation().to_string();
    for name in ["host", "x86-64-v4", "x86-64-v3", "aarch64", "riscv64", "wasm32"] {
        let m = Module::parse(c, &source).unwrap();
        let t = Target::named(name).unwrap();
        let t1 = std::time::Instant::now();
        let text = module_to_text(&session, m, Text::Assembly, &t, Options::default()).unwrap();
        eprintln!("{name} {:?} {}", t1.elapsed(), t.cpu());
        if name == "host" { eprintln!("{text}") }
    }
    let m = Module::parse(c, &source).unwrap();
    eprintln!("{}", module_to_text(&session, m, Text::LlvmIr, &Target::host().unwrap(), Options::default()).unwrap());
    let t1 = std::time::Instant::now();
    let obj = module_to_object(&session, module, vec!["axpy".into()], &Target::host().unwrap(), Options::default()).unwrap();
    eprintln!("object {:?} {}", t1.elapsed(), obj.bytes().len());
    let t1 = std::time::Instant::now();
    let jit = Jit::load(&obj).unwrap();
    eprintln!("jit {:?}", t1.elapsed());
    let f: extern "C" fn(*const *mut f32, *const i64, *mut u8, i64, i64) = unsafe { std::mem::transmute(jit.symbol("axpy").unwrap()) };
    let mut x = vec![1f32; 64];
    let mut y = vec![3f32; 64];
    f([x.as_mut_ptr(), y.as_mut_ptr()].as_ptr(), std::ptr::null(), std::ptr::null_mut(), 0, 64);
    assert!(y.iter().all(|v| *v == 5.0));
}
#[test]
fn session_cost() {
    for _ in 0..4 {
        let t0 = std::time::Instant::now();
        let s = Session::new();
        eprintln!("session {:?}", t0.elapsed());
        drop(s);
    }
}
