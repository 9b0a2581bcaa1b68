//! The designs that a search looked at, as a plot: cycles of a run to the right, use of the part upwards.

use std::fmt::Write;

use tcc_hls::explore::Point;
use tcc_hls::report::Report;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 44.0;
const MARGIN: f64 = 20.0;

/// Position of a value between two others, in powers of ten.
fn place(value: f64, (low, high): (f64, f64)) -> f64 {
    let (value, low, high) = (value.max(1e-9).log10(), low.max(1e-9).log10(), high.max(1e-9).log10());
    if high > low { (value - low) / (high - low) } else { 0.5 }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, 0.0), |(low, high), value| (low.min(value), high.max(value)))
}

/// The plot as SVG text.
pub fn plot(report: &Report) -> String {
    let points = &report.points;
    let cycles = bounds(points.iter().map(|point| point.latency_cycles as f64));
    let shares = bounds(points.iter().map(|point| point.utilization));
    let x = |point: &Point| LEFT + place(point.latency_cycles as f64, cycles) * (WIDTH - LEFT - MARGIN);
    let y = |point: &Point| HEIGHT - BOTTOM - place(point.utilization, shares) * (HEIGHT - BOTTOM - MARGIN);
    let mut text = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" role=\"img\" aria-label=\"Pareto front\">"
    );
    let (right, base) = (WIDTH - MARGIN, HEIGHT - BOTTOM);
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "<path d=\"M{LEFT} {MARGIN}V{base}H{right}\" fill=\"none\" stroke=\"#9aa2ab\"/>\
         <text x=\"{LEFT}\" y=\"{}\">{:.0} cycles</text>\
         <text x=\"{right}\" y=\"{0}\" text-anchor=\"end\">{:.0} cycles a run</text>\
         <text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{:.1} %</text>\
         <text x=\"{3}\" y=\"{}\" text-anchor=\"end\">{:.1} %</text>",
        base + 18.0,
        cycles.0,
        cycles.1,
        LEFT - 8.0,
        100.0 * shares.0,
        MARGIN + 6.0,
        100.0 * shares.1,
    );
    for point in points {
        let colour = if point.architecture == "dataflow" { "#0b6e4f" } else { "#1f5fbf" };
        let fill = if point.on_front { colour } else { "none" };
        let (x, y) = (x(point), y(point));
        let _ = write!(
            text,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{fill}\" stroke=\"{colour}\"><title>{}: {} cycles, a run every {}, \
             {:.1} % of the part</title></circle>",
            point.architecture,
            point.latency_cycles,
            point.initiation_interval,
            100.0 * point.utilization
        );
        let chosen = point.latency_cycles == report.total.latency_cycles
            && point.resources == report.total.resources
            && point.architecture == report.architecture;
        if chosen {
            let _ = write!(
                text,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"8\" fill=\"none\" stroke=\"#c0392b\"/>"
            );
        }
    }
    let _ = write!(
        text,
        "<text x=\"{right}\" y=\"{}\" text-anchor=\"end\" fill=\"#1f5fbf\">blue: sequential; green: dataflow</text></svg>",
        HEIGHT - 8.0
    );
    text
}
