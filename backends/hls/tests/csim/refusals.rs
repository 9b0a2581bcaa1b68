//! What cannot become a design is refused by name, before anything is written.

use tcc_hls::{Error, Options, Part, project};
use tcc_ir::builder::Builder;
use tcc_ir::dim::{Dim, Range, Symbol};
use tcc_ir::dtype::DType;
use tcc_ir::module::Module;
use tcc_ir::scalar::{Arg, Function, ScalarExpr};
use tcc_ir::types::Type;
use tcc_passes::program::{Program, ProgramOptions, build};
use tcc_runtime::manifest::{HostStep, Step, Target};

use crate::models::{dense, model, numbers, ty};

fn refused(program: &Program, part: &str, options: &Options) -> Error {
    project(program, &Part::named(part).unwrap(), options).expect_err("the program should be refused")
}

#[test]
fn open_dimensions() {
    let mut builder = Builder::new("main");
    let symbol = Symbol::new("batch");
    builder.declare(&symbol, Range { low: 1, high: 64 });
    let x = builder.input("x", Type::tensor(DType::F32, vec![Dim::symbol(&symbol), Dim::Const(4)]));
    let y = builder.map(ScalarExpr::call(Function::Neg), &[x]).unwrap();
    let mut module = Module::default();
    module.functions.insert("main".into(), builder.finish(&[("y", y)]));
    let options =
        ProgramOptions { tuning: tcc_hls::tuning(), name: "model".into(), target: Target::host_baseline() };
    let program = build(&module, &options).unwrap();
    let error = refused(&program, "u280", &Options::default());
    assert!(matches!(error, Error::OpenDimension { .. }), "{error}");
    assert!(error.to_string().contains("--dim batch=N"), "{error}");
}

#[test]
fn host_steps() {
    let mut program =
        model(ty(DType::F32, &[4]), |builder, x| builder.map(ScalarExpr::call(Function::Neg), &[x]).unwrap());
    program.manifest.steps.push(Step::Host(HostStep {
        function: "onnx.NonZero".into(),
        attributes: Default::default(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        binds: Vec::new(),
    }));
    let error = refused(&program, "u280", &Options::default()).to_string();
    assert!(error.starts_with("step 1 is the host function 'onnx.NonZero'"), "{error}");
}

#[test]
fn parts_that_are_too_small() {
    let (inputs, outputs) = (512, 1024);
    let (weights, biases) = (numbers(inputs * outputs, 1), numbers(outputs, 2));
    let program = model(ty(DType::F32, &[1, inputs as i64]), |builder, x| {
        dense(builder, "dense", x, (inputs, outputs), (&weights, &biases), false)
    });
    let Error::TooLarge { part, overshoots, fits } = refused(&program, "pynq-z2", &Options::default()) else {
        panic!("the part should be too small")
    };
    assert_eq!(part, "pynq-z2");
    assert_eq!(overshoots[0].resource, "bram18");
    assert!(fits.contains(&"u280".to_string()) && !fits.contains(&part), "{fits:?}");
}

#[test]
fn types_and_functions_without_counterpart() {
    let half =
        model(ty(DType::F16, &[4]), |builder, x| builder.map(ScalarExpr::call(Function::Neg), &[x]).unwrap());
    let error = refused(&half, "u280", &Options::default()).to_string();
    assert!(error.contains("HLS has no type for f16"), "{error}");
    let mut power = ScalarExpr::with_inputs(1);
    power.result = power.apply(Function::Pow, &[Arg::Input(0), Arg::Input(0)]);
    let power = model(ty(DType::F32, &[1, 4]), |builder, x| builder.map(power, &[x]).unwrap());
    let options =
        Options { numbers: "fixed<16,6>".parse().unwrap(), vectors: Some(Vec::new()), ..Options::default() };
    let error = refused(&power, "u280", &options).to_string();
    assert!(error.contains("fixed-point table for 'pow'"), "{error}");
}
