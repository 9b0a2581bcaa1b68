//! One page about a program that needs no other file and no network: its steps as a graph, each kernel beside what the
//! machine could do, and the memory plan.

mod layered;
mod pareto;
mod svg;

use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, context};
use serde::Serialize;
use tcc_passes::cost::Machine;
use tcc_runtime::manifest::Manifest;

use crate::error::Error;
use crate::profile::{Profile, StepRow};

/// The page.
const PAGE: &str = include_str!("page.html");

/// What the table shows of a step.
#[derive(Serialize)]
struct Row {
    step: u32,
    name: String,
    operator: String,
    location: String,
    time: String,
    floor: String,
    /// Percent, for the bar.
    share: Option<f64>,
    gap: String,
    bound: &'static str,
    work: String,
    traffic: String,
    /// Percent of the whole run.
    part: f64,
}

fn row(row: &StepRow, total: f64) -> Row {
    let microseconds = |time: Option<f64>| time.map_or("-".to_string(), |time| format!("{time:.1}"));
    Row {
        step: row.step,
        name: row.name.clone(),
        operator: row.operator.clone(),
        location: row.location.clone(),
        time: microseconds(row.time_us),
        floor: microseconds(row.floor_us),
        share: row.share.map(|share| share * 100.0),
        gap: microseconds(row.time_us.map(|_| row.gap_us())),
        bound: match row.floor_us {
            None => "",
            Some(_) if row.memory_bound => "memory",
            Some(_) => "compute",
        },
        work: row.operations.map_or(String::new(), |count| format!("{:.2} M", count / 1e6)),
        traffic: row.bytes.map_or(String::new(), svg::bytes_text),
        part: row.time_us.filter(|_| total > 0.0).map_or(0.0, |time| time / total * 100.0),
    }
}

/// The page as HTML.
pub fn html(
    manifest: &Manifest,
    profile: &Profile,
    machine: &Machine,
    machine_origin: &str,
) -> Result<String, Error> {
    let (time, floor) = profile.totals();
    let rows: Vec<Row> = profile.by_gap().into_iter().map(|step| row(step, time)).collect();
    let ports = |ports: &[tcc_runtime::manifest::Port]| -> Vec<(String, String)> {
        let describe = |port: &tcc_runtime::manifest::Port| {
            let tensor = &manifest.tensors[port.tensor as usize];
            (port.name.clone(), format!("{} {}", tensor.dtype.name(), manifest.describe_shape(&tensor.shape)))
        };
        ports.iter().map(describe).collect()
    };
    let dims: Vec<(String, String)> = profile
        .dims
        .iter()
        .map(|(name, value)| (name.clone(), value.map_or("at run time".into(), |value| value.to_string())))
        .collect();
    let weights: u64 = manifest.weights.iter().map(|blob| blob.bytes).sum();
    let fail = |error: minijinja::Error| Error::Report(error.to_string());
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let values = context! {
        name => manifest.name.as_str(),
        producer => manifest.producer.as_str(),
        kernels => manifest.kernels.len(),
        steps => profile.rows.len(),
        threads => profile.threads,
        runs => profile.runs,
        time => (profile.runs > 0).then(|| format!("{:.3} ms", time / 1e3)),
        floor => format!("{:.3} ms", floor / 1e3),
        share => (time > 0.0).then(|| format!("{:.0} %", floor / time * 100.0)),
        weights => svg::bytes_text(weights as f64),
        arena => profile.arena_bytes.map(|bytes| svg::bytes_text(bytes as f64)),
        machine => Value::from(Serde(machine)),
        machine_origin => machine_origin,
        compiled_for => manifest.metadata.get("machine_model"),
        inputs => ports(&manifest.inputs),
        outputs => ports(&manifest.outputs),
        dims => dims,
        rows => Value::from(Serde(&rows)),
        graph => svg::graph(manifest, profile),
        most_nodes => svg::MOST_NODES,
        memory => svg::memory(profile),
    };
    environment.render_str(PAGE, values).map_err(fail)
}

/// The page of a design for an FPGA.
const DESIGN_PAGE: &str = include_str!("design.html");

/// The page about a design: the designs that the search looked at, and figures by layer.
pub fn design(report: &tcc_hls::report::Report) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let values = context! {
        report => Value::from(Serde(report)),
        summary => report.to_string(),
        plot => pareto::plot(report),
    };
    environment.render_str(DESIGN_PAGE, values).map_err(|error| Error::Report(error.to_string()))
}
