//! Dataflow designs: streams between processes, line buffers, residual connections.

use tcc_hls::{Architecture, Choice, Objective, Options, Part, Plan, Project, project};
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Function, ScalarExpr};
use tcc_passes::program::Program;

use crate::models::{bias, convolution, dense, floats, max_pool, model, numbers, ty};
use crate::simulate::{project_of, simulate, simulate_everywhere};

fn options(text: &str, parallel: u32) -> Options {
    let plan = Plan { architecture: Architecture::Dataflow, parallel: vec![parallel; 64] };
    Options { numbers: text.parse().unwrap(), choice: Choice::Plan(plan), ..Options::default() }
}

fn dataflow(test: &str, program: &Program, parallel: u32) -> Project {
    let project = project_of(program, &options("fixed<16,6>", parallel));
    simulate(test, &project);
    project
}

/// Elements of the windows of a project's function.
fn windows(project: &Project, layer: &str) -> Vec<u64> {
    let functions = &project.design.functions;
    let function = functions.iter().find(|function| function.emitted.name.starts_with(layer)).unwrap();
    let kernel = &function.scheduled.kernel;
    let named = kernel.buffers.iter().filter(|buffer| buffer.name.ends_with("_window"));
    named.map(|buffer| buffer.count.as_index().unwrap() as u64).collect()
}

#[test]
fn convolutions_keep_lines_and_not_images() {
    for (stride, pad, groups) in [(1, 1, 1), (2, 0, 1), (1, 1, 4)] {
        let program = model(ty(DType::F32, &[1, 16, 9, 4]), |builder, x| {
            let w = floats(builder, &[3, 3, 4 / groups, 4], &numbers(36 * 4 / groups, 3));
            let b = floats(builder, &[4], &numbers(4, 4));
            let y =
                builder.op1(convolution(DType::F32, stride, pad, groups, bias(true)), &[x, w, b]).unwrap();
            builder.set_location(tcc_ir::module::Location::named("pool"));
            builder.op1(max_pool(2, 2, 0), &[y]).unwrap()
        });
        let project = dataflow("lines", &program, 1);
        // The pool needs two rows of what the convolution hands it, and there are at least seven.
        let image: u64 = 4 * (if stride == 2 { 7 * 4 } else { 16 * 9 });
        assert!(windows(&project, "pool").iter().sum::<u64>() < image, "{:?}", windows(&project, "pool"));
    }
}

#[test]
fn residual_connections_have_deep_enough_queues() {
    let program = model(ty(DType::F32, &[1, 8, 6, 2]), |builder, x| {
        let w = floats(builder, &[3, 3, 2, 2], &numbers(36, 3));
        let b = floats(builder, &[2], &numbers(2, 4));
        let y = builder.op1(convolution(DType::F32, 1, 1, 1, bias(true)), &[x, w, b]).unwrap();
        let mut sum = ScalarExpr::call(Function::Add);
        sum.inputs = 2;
        builder.map(sum, &[x, y]).unwrap()
    });
    let project = dataflow("residual", &program, 1);
    let flow = project.design.flow.as_ref().unwrap();
    // One element at the end of the window is three rows of the image after its first.
    let deepest = flow.fifos.iter().map(|fifo| fifo.depth).max().unwrap();
    assert!((12..=96).contains(&deepest), "{:?}", flow.fifos);
    assert!(flow.interval < flow.latency);
}

#[test]
fn every_kind_of_layer_in_a_row() {
    let program = model(ty(DType::F32, &[1, 2, 6, 4]), |builder, x| {
        let attention =
            Operator::Attention { scale: 0.5.into(), softcap: 0.0.into(), causal: true, window: 0 };
        let mixed = builder.op1(attention, &[x, x, x]).unwrap();
        let normal = builder.normalize(mixed, vec![3], 1e-5, true).unwrap();
        let turned = builder.transpose(normal, vec![0, 2, 1, 3]).unwrap();
        let flat = builder.reshape(turned, vec![6.into(), 8.into()]).unwrap();
        let (weights, biases) = (numbers(8 * 5, 5), numbers(5, 6));
        let scores = dense(builder, "dense", flat, (8, 5), (&weights, &biases), false);
        builder.op1(Operator::Softmax { axis: 1, log: false }, &[scores]).unwrap()
    });
    for parallel in [1, 4] {
        let project = project_of(&program, &options("fixed<16,6>", parallel));
        simulate_everywhere("row", &project);
    }
    let project = project_of(&program, &options("float", 2));
    simulate("row_float", &project);
}

#[test]
fn more_side_by_side_takes_fewer_cycles_and_more_multipliers() {
    let program = model(ty(DType::F32, &[1, 64]), |builder, x| {
        let (weights, biases) = (numbers(64 * 32, 5), numbers(32, 6));
        dense(builder, "dense", x, (64, 32), (&weights, &biases), true)
    });
    let figures = |parallel: u32| {
        let plan = Plan { architecture: Architecture::Sequential, parallel: vec![parallel] };
        let choice = Choice::Plan(plan);
        let options = Options { numbers: "fixed<16,6>".parse().unwrap(), choice, ..Options::default() };
        project_of(&program, &options).report.total
    };
    let (one, eight) = (figures(1), figures(8));
    assert!(eight.latency_cycles < one.latency_cycles, "{one:?} {eight:?}");
    assert_eq!(eight.resources.dsp, 8 * one.resources.dsp);
}

#[test]
fn searches_keep_the_budget_and_find_what_they_are_asked_for() {
    let program = model(ty(DType::F32, &[1, 64]), |builder, x| {
        let (weights, biases) = (numbers(64 * 64, 5), numbers(64, 6));
        let hidden = dense(builder, "hidden", x, (64, 64), (&weights, &biases), true);
        dense(builder, "out", hidden, (64, 16), (&weights[..1024], &biases[..16]), false)
    });
    let part = Part::named("pynq-z2").unwrap();
    let search = |objective: Objective| {
        let choice = Choice::Search(objective);
        let options = Options { numbers: "fixed<16,6>".parse().unwrap(), choice, ..Options::default() };
        project(&program, &part, &options).unwrap()
    };
    let projects = [Objective::Latency, Objective::Throughput, Objective::Area].map(search);
    let [latency, throughput, area] = projects.each_ref().map(|project| &project.report);
    assert!(latency.total.latency_cycles < area.total.latency_cycles);
    assert!(throughput.total.initiation_interval < latency.total.latency_cycles);
    assert!(area.total.resources.lut < latency.total.resources.lut);
    for report in [latency, throughput, area] {
        assert!(part.overshoots(&report.total.resources).is_empty());
        assert!(report.points.iter().filter(|point| point.on_front).count() > 1, "{:?}", report.points);
    }
    simulate("searched", &projects[1]);
}
