//! Which plan a design follows: a search under the budget of the part.
//!
//! Both architectures start with one iteration at a time. The layer that takes the most cycles runs twice as many iterations of
//! its innermost loops side by side, as long as that helps and the part holds it, and then the next one. Every design on the
//! way is a point; those that no other beats in latency, interval and use of the part at once are the Pareto front.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use tcc_passes::program::Program;

use crate::design::{Architecture, Design, Plan};
use crate::error::Error;
use crate::flow::Action;
use crate::formats::ProgramFormats;
use crate::part::{Part, Resources};
use crate::report::Report;

/// Most iterations of a loop that run side by side.
const MOST: u32 = 64;

/// Designs of an architecture that are looked at.
const DESIGNS: usize = 48;

/// What a search makes small.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// Cycles of a run.
    #[default]
    Latency,
    /// Cycles between two runs.
    Throughput,
    /// The share of the part.
    Area,
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Objective, String> {
        match text {
            "latency" => Ok(Objective::Latency),
            "throughput" => Ok(Objective::Throughput),
            "area" => Ok(Objective::Area),
            _ => Err("unknown objective; known are latency, throughput, area".into()),
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Objective::Latency => "latency",
            Objective::Throughput => "throughput",
            Objective::Area => "area",
        })
    }
}

/// A design that a search looked at.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Point {
    /// How the layers follow each other.
    pub architecture: String,
    /// By step: iterations side by side.
    pub parallel: Vec<u32>,
    /// Cycles of a run.
    pub latency_cycles: u64,
    /// Cycles between two runs.
    pub initiation_interval: u64,
    /// What it takes.
    pub resources: Resources,
    /// The largest share of the part that a resource takes; above 1 it does not fit.
    pub utilization: f64,
    /// True where no other design that fits is better.
    pub on_front: bool,
}

/// What a search came to.
#[derive(Clone, PartialEq, Debug)]
pub struct Search {
    /// The plan that is best for the objective.
    pub plan: Plan,
    /// All designs, by latency.
    pub points: Vec<Point>,
}

fn point(plan: &Plan, report: &Report, part: &Part) -> Point {
    let used = report.total.resources;
    let shares = used.entries().into_iter().zip(part.budget.entries());
    let share = |((_, used), (_, available)): ((&str, u64), (&str, u64))| match (used, available) {
        (0, _) => 0.0,
        (used, available) => used as f64 / available.max(1) as f64,
    };
    Point {
        architecture: plan.architecture.to_string(),
        parallel: plan.parallel.clone(),
        latency_cycles: report.total.latency_cycles,
        initiation_interval: report.total.initiation_interval,
        resources: used,
        utilization: shares.map(share).fold(0.0, f64::max),
        on_front: false,
    }
}

/// Cycles of each step.
fn cycles(design: &Design) -> Vec<u64> {
    let mut cycles = vec![0; design.steps.len()];
    for (cycles, function) in cycles.iter_mut().zip(&design.steps) {
        if let Some(function) = function {
            *cycles = design.functions[*function].scheduled.estimate.cycles;
        }
    }
    cycles
}

/// Cycles of the processes that only move elements, below which no layer has to come.
fn floor(design: &Design) -> u64 {
    let flow = design.flow.iter().flat_map(|flow| &flow.processes);
    let moving = flow.filter(|process| !matches!(process.action, Action::Call { .. }));
    moving.map(|process| process.cycles).max().unwrap_or(0)
}

/// Looks for the plan that is best for the objective among those that fit the part.
///
/// # Errors
///
/// What stands in the way of the sequential design; that no design fits, with the smallest overshoot.
pub fn explore(
    program: &Program,
    part: &Part,
    formats: &ProgramFormats,
    objective: Objective,
) -> Result<Search, Error> {
    let mut plans: Vec<(Plan, Point)> = Vec::new();
    for architecture in [Architecture::Sequential, Architecture::Dataflow] {
        let mut plan = Plan { architecture, parallel: vec![1; program.manifest.steps.len()] };
        let figures = |plan: &Plan| -> Result<(Design, Point), Error> {
            let design = Design::new(program, part, formats, plan)?;
            let report = Report::new(&design, part, None);
            let point = point(plan, &report, part);
            Ok((design, point))
        };
        let (mut design, start) = match figures(&plan) {
            // A model that has no streams is one after the other.
            Err(Error::Unsupported { .. }) if architecture == Architecture::Dataflow => continue,
            result => result?,
        };
        let mut spent = vec![false; plan.parallel.len()];
        plans.push((plan.clone(), start));
        for _ in 0..DESIGNS {
            let (times, floor) = (cycles(&design), floor(&design));
            let slowest = (0..times.len()).filter(|step| !spent[*step] && times[*step] > floor);
            let Some(step) = slowest.max_by_key(|step| times[*step]) else { break };
            // Steps with one function change together.
            let shared: Vec<usize> =
                (0..times.len()).filter(|other| design.steps[*other] == design.steps[step]).collect();
            let mut next = plan.clone();
            shared.iter().for_each(|step| next.parallel[*step] *= 2);
            let fits = next.parallel[step] <= MOST;
            let tried = if fits { Some(figures(&next)?) } else { None };
            match tried {
                Some((faster, point)) if point.utilization <= 1.0 && cycles(&faster)[step] < times[step] => {
                    (plan, design) = (next, faster);
                    plans.push((plan.clone(), point));
                }
                _ => shared.iter().for_each(|step| spent[*step] = true),
            }
        }
    }
    let best = plans
        .iter()
        .filter(|(_, point)| point.utilization <= 1.0)
        .min_by(|(_, a), (_, b)| compare(a, b, objective))
        .map(|(plan, _)| plan.clone());
    let Some(plan) = best else {
        let smallest = plans.iter().min_by(|(_, a), (_, b)| a.utilization.total_cmp(&b.utilization));
        part.check(&smallest.map(|(_, point)| point.resources).unwrap_or_default())?;
        return Err(Error::Program("no design was found".into()));
    };
    let mut points: Vec<Point> = plans.into_iter().map(|(_, point)| point).collect();
    let dominated: Vec<bool> = points.iter().map(|a| points.iter().any(|b| beats(b, a))).collect();
    points.iter_mut().zip(dominated).for_each(|(point, dominated)| {
        point.on_front = !dominated && point.utilization <= 1.0;
    });
    points.sort_by_key(|point| point.latency_cycles);
    Ok(Search { plan, points })
}

fn compare(a: &Point, b: &Point, objective: Objective) -> Ordering {
    let latency = a.latency_cycles.cmp(&b.latency_cycles);
    let interval = a.initiation_interval.cmp(&b.initiation_interval);
    let area = a.utilization.total_cmp(&b.utilization);
    match objective {
        Objective::Latency => latency.then(area).then(interval),
        Objective::Throughput => interval.then(area).then(latency),
        Objective::Area => area.then(latency).then(interval),
    }
}

/// True where `a` is nowhere worse than `b` and somewhere better.
fn beats(a: &Point, b: &Point) -> bool {
    let no_worse = a.latency_cycles <= b.latency_cycles
        && a.initiation_interval <= b.initiation_interval
        && a.utilization <= b.utilization;
    let better = a.latency_cycles < b.latency_cycles
        || a.initiation_interval < b.initiation_interval
        || a.utilization < b.utilization;
    no_worse && better
}
