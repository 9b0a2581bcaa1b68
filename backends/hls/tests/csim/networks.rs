//! Several layers: shared arrays, views, functions that two layers use.

use tcc_hls::{Options, Part};
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Location;
use tcc_ir::operator::Operator;
use tcc_ir::words::ReduceKind;
use tcc_passes::program::Program;

use crate::models::{bias, convolution, dense, floats, max_pool, model, numbers, ty};
use crate::simulate::{project_of, simulate};

fn network() -> Program {
    model(ty(DType::F32, &[1, 8, 8, 2]), |builder, x| {
        builder.set_location(Location::named("conv"));
        let w = floats(builder, &[3, 3, 2, 4], &numbers(72, 3));
        let b = floats(builder, &[4], &numbers(4, 4));
        let convolved = builder.op1(convolution(DType::F32, 1, 1, 1, bias(true)), &[x, w, b]).unwrap();
        builder.set_location(Location::named("pool"));
        let pooled = builder.op1(max_pool(2, 2, 0), &[convolved]).unwrap();
        let flat = builder.reshape(pooled, vec![Dim::Const(1), Dim::Const(64)]).unwrap();
        let (weights, biases) = (numbers(64 * 10, 5), numbers(10, 6));
        let scores = dense(builder, "dense", flat, (64, 10), (&weights, &biases), false);
        builder.set_location(Location::named("softmax"));
        builder.op1(Operator::Softmax { axis: 1, log: false }, &[scores]).unwrap()
    })
}

#[test]
fn a_small_network_in_floating_point() {
    let project = project_of(&network(), &Options { tolerance: 1e-5, ..Options::default() });
    let layers: Vec<&str> = project.report.layers.iter().map(|layer| layer.layer.as_str()).collect();
    // The first kernel pads the input of the convolution.
    assert_eq!(layers, ["convolve", "conv", "pool", "dense", "softmax"]);
    assert!(project.report.total.latency_cycles > 0 && project.report.total.resources.dsp > 0);
    simulate("network", &project);
}

#[test]
fn a_small_network_in_fixed_point_stays_near_floating_point() {
    let options = Options { numbers: "fixed<18,8>".parse().unwrap(), ..Options::default() };
    simulate("network_fixed", &project_of(&network(), &options));
}

#[test]
fn attention_normalization_and_movement() {
    let program = model(ty(DType::F32, &[1, 2, 6, 4]), |builder, x| {
        let attention =
            Operator::Attention { scale: 0.5.into(), softcap: 0.0.into(), causal: true, window: 0 };
        let mixed = builder.op1(attention, &[x, x, x]).unwrap();
        let normal = builder.normalize(mixed, vec![3], 1e-5, true).unwrap();
        let turned = builder.transpose(normal, vec![0, 2, 1, 3]).unwrap();
        let joined = builder.op1(Operator::Concat { axis: 3 }, &[turned, turned]).unwrap();
        builder.reduce(ReduceKind::Sum, joined, vec![2], false).unwrap()
    });
    let project = project_of(&program, &Options { tolerance: 1e-5, ..Options::default() });
    simulate("attention", &project);
}

#[test]
fn equal_layers_share_a_function() {
    let (weights, biases) = (numbers(64, 7), numbers(8, 8));
    let program = model(ty(DType::F32, &[1, 8]), |builder, x| {
        let first = dense(builder, "first", x, (8, 8), (&weights, &biases), true);
        dense(builder, "second", first, (8, 8), (&weights, &biases), true)
    });
    let project = project_of(&program, &Options::default());
    let functions: Vec<&str> = project.report.layers.iter().map(|layer| layer.function.as_str()).collect();
    assert_eq!(functions, ["first_contract", "first_contract"]);
    simulate("shared", &project);
}

#[test]
fn writing_replaces_a_project_but_nothing_else() {
    let program = model(ty(DType::F32, &[4]), |_, x| x);
    let project = tcc_hls::project(&program, &Part::named("zcu104").unwrap(), &Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/project");
    project.write(&path).unwrap();
    project.write(&path).unwrap();
    assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 1);
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("precious"), "").unwrap();
    assert!(project.write(&other).is_err());
    assert!(other.join("precious").exists());
}
