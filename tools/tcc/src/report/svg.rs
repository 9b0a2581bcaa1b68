//! The drawings of the page as SVG text.

use std::collections::HashMap;
use std::fmt::Write;

use petgraph::graph::DiGraph;
use tcc_runtime::manifest::{Manifest, Storage, TensorId};

use super::layered::draw;
use crate::profile::Profile;

const NODE_WIDTH: f64 = 244.0;
const NODE_HEIGHT: f64 = 40.0;
const LAYER_HEIGHT: f64 = 66.0;
const MARGIN: f64 = 16.0;

/// More steps than this are not drawn: nobody could read them.
pub const MOST_NODES: usize = 600;

/// Text that may stand in XML.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// At most so many characters.
fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// What a node of the drawing is.
enum Node<'n> {
    Port(&'static str, &'n str),
    Step(usize),
}

/// The tensor that owns the memory of another.
fn root(manifest: &Manifest, mut id: TensorId) -> TensorId {
    while let Storage::Alias { of, .. } = &manifest.tensors[id as usize].storage {
        id = *of;
    }
    id
}

/// Steps and what flows between them; none where there are too many.
pub fn graph(manifest: &Manifest, profile: &Profile) -> Option<String> {
    if profile.rows.len() > MOST_NODES {
        return None;
    }
    let mut graph: DiGraph<Node, TensorId> = DiGraph::new();
    let mut writer = HashMap::new();
    for port in &manifest.inputs {
        let node = graph.add_node(Node::Port("input", &port.name));
        writer.insert(root(manifest, port.tensor), node);
    }
    for (index, row) in profile.rows.iter().enumerate() {
        let node = graph.add_node(Node::Step(index));
        let mut from: Vec<_> =
            row.reads.iter().filter_map(|id| Some((*writer.get(&root(manifest, *id))?, *id))).collect();
        from.sort();
        from.dedup_by_key(|(node, _)| *node);
        for (source, tensor) in from {
            graph.add_edge(source, node, tensor);
        }
        for id in &row.writes {
            writer.insert(root(manifest, *id), node);
        }
    }
    for port in &manifest.outputs {
        let Some(source) = writer.get(&root(manifest, port.tensor)).copied() else { continue };
        let node = graph.add_node(Node::Port("output", &port.name));
        graph.add_edge(source, node, port.tensor);
    }
    let drawing = draw(&graph, NODE_WIDTH + 18.0, 14.0);
    let y = |layer: usize| MARGIN + layer as f64 * LAYER_HEIGHT;
    let left = MARGIN + NODE_WIDTH / 2.0;
    let (width, height) =
        (drawing.width + NODE_WIDTH + 2.0 * MARGIN, y(drawing.layers.max(1) - 1) + NODE_HEIGHT + MARGIN);
    let mut out = format!(
        "<svg class=\"graph\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
         role=\"img\" aria-label=\"steps and data flow\">"
    );
    for (edge, points) in graph.edge_indices().zip(&drawing.edges) {
        let mut path = String::new();
        for (index, pair) in points.windows(2).enumerate() {
            let (x1, x2) = (left + pair[0].0, left + pair[1].0);
            // Points of long edges are in the middle of where a node would be.
            let y1 = y(pair[0].1) + if index == 0 { NODE_HEIGHT } else { NODE_HEIGHT / 2.0 };
            let y2 = y(pair[1].1) + if index + 2 == points.len() { 0.0 } else { NODE_HEIGHT / 2.0 };
            let middle = (y1 + y2) / 2.0;
            if index == 0 {
                let _ = write!(path, "M{x1:.1} {y1:.1}");
            }
            let _ = write!(path, "C{x1:.1} {middle:.1} {x2:.1} {middle:.1} {x2:.1} {y2:.1}");
        }
        let tensor = &manifest.tensors[graph[edge] as usize];
        let (shape, dtype) = (manifest.describe_shape(&tensor.shape), tensor.dtype.name());
        let _ = write!(out, "<path d=\"{path}\"><title>{} {}</title></path>", dtype, escape(&shape));
    }
    let slowest = profile.rows.iter().filter_map(|row| row.time_us).fold(0.0, f64::max);
    for (node, (x, layer)) in graph.node_weights().zip(&drawing.nodes) {
        let (x, y) = (left + x - NODE_WIDTH / 2.0, y(*layer));
        let (class, heat, title, first, second) = match node {
            Node::Port(kind, name) => {
                ("port", 0.0, format!("{kind} {name}"), name.to_string(), kind.to_string())
            }
            Node::Step(index) => {
                let row = &profile.rows[*index];
                let heat = row.time_us.map_or(0.0, |time| if slowest > 0.0 { time / slowest } else { 0.0 });
                let name = if row.operator.is_empty() { &row.name } else { &row.operator };
                let time = row.time_us.map_or(String::new(), |time| format!("{time:.1} µs"));
                let share = row.share.map_or(String::new(), |share| format!(" · {:.0} %", share * 100.0));
                let title = format!("step {}: {} {}", row.step, row.name, row.location);
                ("step", heat, title, format!("{name} {}", row.location), format!("{time}{share}"))
            }
        };
        let _ = write!(
            out,
            "<g class=\"{class}\"><title>{}</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{NODE_WIDTH}\" \
             height=\"{NODE_HEIGHT}\" rx=\"6\"/><rect class=\"heat\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"4\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text><text class=\"small\" x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
            escape(&title),
            y + NODE_HEIGHT - 4.0,
            NODE_WIDTH * heat,
            x + 9.0,
            y + 16.0,
            escape(&shortened(&first, 33)),
            x + 9.0,
            y + 30.0,
            escape(&second),
        );
    }
    out.push_str("</svg>");
    Some(out)
}

/// The arena over the steps: one box for each tensor, from its first step to its last.
pub fn memory(profile: &Profile) -> Option<String> {
    const WIDTH: f64 = 1080.0;
    const HEIGHT: f64 = 320.0;
    const LEFT: f64 = 64.0;
    let peak = profile.arena_bytes.filter(|bytes| *bytes > 0 && !profile.arena.is_empty())?;
    let steps = profile.rows.len().max(1) as f64;
    let x = |step: f64| LEFT + step / steps * (WIDTH - LEFT - 8.0);
    let y = |byte: f64| 16.0 + HEIGHT * (1.0 - byte / (peak as f64 * 1.04));
    let full = HEIGHT + 48.0;
    let mut out = format!(
        "<svg class=\"memory\" viewBox=\"0 0 {WIDTH} {full}\" role=\"img\" aria-label=\"live ranges of arena tensors\">"
    );
    for mark in 0..=4 {
        let at = peak as f64 * f64::from(mark) / 4.0;
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text class=\"axis end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - 8.0,
            y(at),
            y(at),
            LEFT - 8.0,
            y(at) + 4.0,
            bytes_text(at)
        );
    }
    let mut live = vec![0u64; profile.rows.len() + 1];
    for (index, placed) in profile.arena.iter().enumerate() {
        let (from, to) = (f64::from(placed.first_step), f64::from(placed.last_step) + 1.0);
        let (top, bottom) = (y((placed.offset + placed.bytes) as f64), y(placed.offset as f64));
        // Neighbouring colours differ most when the hue turns by the golden angle.
        let hue = (index as f64 * 137.508) % 360.0;
        let _ = write!(
            out,
            "<rect x=\"{:.2}\" y=\"{top:.2}\" width=\"{:.2}\" height=\"{:.2}\" style=\"fill:hsl({hue:.0} 55% 62%)\">\
             <title>{}: {}, steps {} to {}, at {}</title></rect>",
            x(from),
            (x(to) - x(from)).max(0.5),
            (bottom - top).max(0.25),
            escape(&placed.name),
            bytes_text(placed.bytes as f64),
            placed.first_step,
            placed.last_step,
            placed.offset
        );
        for step in placed.first_step..=placed.last_step {
            if let Some(live) = live.get_mut(step as usize) {
                *live += placed.bytes;
            }
        }
    }
    let (fullest, used) = live.iter().enumerate().rev().max_by_key(|(_, bytes)| **bytes).unwrap_or((0, &0));
    let _ = write!(
        out,
        "<line class=\"peak\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
         <text class=\"peaktext\" x=\"{:.1}\" y=\"{:.1}\">peak {} · {} alive in step {fullest}</text>",
        WIDTH - 8.0,
        y(peak as f64),
        y(peak as f64),
        WIDTH - 12.0,
        y(peak as f64) - 6.0,
        bytes_text(peak as f64),
        bytes_text(*used as f64),
    );
    for mark in 0..=8 {
        let step = (steps * f64::from(mark) / 8.0).floor();
        let _ = write!(
            out,
            "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\">{step:.0}</text>",
            x(step),
            HEIGHT + 32.0
        );
    }
    out.push_str("</svg>");
    Some(out)
}

/// Bytes in the unit that suits them.
pub fn bytes_text(bytes: f64) -> String {
    match bytes {
        b if b >= 1024.0 * 1024.0 => format!("{:.1} MiB", b / (1024.0 * 1024.0)),
        b if b >= 1024.0 => format!("{:.1} KiB", b / 1024.0),
        b => format!("{b:.0} B"),
    }
}
