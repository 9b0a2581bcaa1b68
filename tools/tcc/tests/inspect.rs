//! What `tcc inspect` says of a program, and the page that it writes.

use std::path::Path;

use tcc::inputs::{ordered, random};
use tcc::profile::{Profile, describe};
use tcc::runtime::Session;
use tcc::sizes::choose;
use tcc::{CompileOptions, Compiled, Model, Target, compile, report};
use tcc_passes::cost::Machine;

fn profiled(model: &str, runs: u32) -> (Compiled, Profile) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/c").join(model);
    let model = Model::open(&path).unwrap();
    let compiled = compile(&model, &CompileOptions::new(Target::named("cranelift").unwrap())).unwrap();
    let sizes = choose(&compiled.manifest, &Default::default(), &Default::default()).unwrap();
    let values = random(&compiled.manifest, &sizes.values, &Default::default(), 0).unwrap();
    let ordered = ordered(&compiled.manifest, &values).unwrap();
    let inputs = ordered.tensors().unwrap();
    let mut profile = describe(&compiled.manifest, &inputs, &Machine::host(), 1);
    if runs > 0 {
        let mut session = Session::new(&compiled.executable().unwrap(), 1).unwrap();
        profile.measure(&mut session, &inputs, runs).unwrap();
    }
    (compiled, profile)
}

#[test]
fn every_step_has_a_time_and_a_floor() {
    for model in ["perceptron.tir", "likelihood.tir"] {
        let (compiled, profile) = profiled(model, 3);
        assert_eq!(profile.rows.len(), compiled.manifest.steps.len());
        for row in &profile.rows {
            assert!(row.time_us.is_some_and(|time| time >= 0.0), "{row:?}");
            assert!(row.floor_us.is_some_and(|floor| floor > 0.0), "{row:?}");
            assert!(!row.operator.is_empty() && !row.writes.is_empty(), "{row:?}");
        }
        let gaps: Vec<f64> = profile.by_gap().iter().map(|row| row.gap_us()).collect();
        assert!(gaps.windows(2).all(|pair| pair[0] >= pair[1]), "{gaps:?}");
        assert!(profile.arena.iter().all(|placed| Some(placed.offset + placed.bytes) <= profile.arena_bytes));
    }
}

#[test]
fn the_page_stands_alone_and_escapes_names() {
    let (mut compiled, profile) = profiled("perceptron.tir", 1);
    compiled.manifest.name = "<script>alert('x')</script>".into();
    compiled.manifest.inputs[0].name = "\"><img src=x>&".into();
    let page = report::html(&compiled.manifest, &profile, &Machine::host(), "shipped table").unwrap();
    assert!(page.contains("<svg class=\"graph\""), "{page}");
    for foreign in ["<script", "<img", "http", "href=", "src=\"", "{{", "{%"] {
        assert!(!page.contains(foreign), "the page has {foreign}");
    }
    let (compiled, profile) = profiled("perceptron.tir", 0);
    let page = report::html(&compiled.manifest, &profile, &Machine::host(), "shipped table").unwrap();
    assert!(page.contains("Not measured"), "{page}");
}
