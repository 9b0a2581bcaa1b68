//! A layered drawing of a directed acyclic graph (Sugiyama, Tagawa and Toda, 1981): nodes on layers by their longest path
//! from a source, edges over several layers through points in between, points of a layer in the order of the means of
//! their neighbours.

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

/// Sweeps that improve the order within layers.
const SWEEPS: usize = 8;

/// Sweeps that improve horizontal positions.
const SHIFTS: usize = 24;

/// Where things are drawn.
#[derive(Clone, Debug, Default)]
pub struct Drawing {
    /// Centre of each node and its layer, by index of the node.
    pub nodes: Vec<(f64, usize)>,
    /// For each edge of the graph, in order: its points from layer to layer, the ends included.
    pub edges: Vec<Vec<(f64, usize)>>,
    /// Largest x of a node's centre.
    pub width: f64,
    /// Number of layers.
    pub layers: usize,
}

/// A node, or a point of a long edge.
struct Point {
    layer: usize,
    /// Room that it takes.
    width: f64,
    x: f64,
    above: Vec<usize>,
    below: Vec<usize>,
}

/// Draws a graph whose edges lead from smaller to larger node indices; `width` is the room of a node, `gap` that of an edge.
pub fn draw<N, E>(graph: &DiGraph<N, E>, width: f64, gap: f64) -> Drawing {
    let mut layer = vec![0usize; graph.node_count()];
    for node in graph.node_indices() {
        let before =
            graph.neighbors_directed(node, Direction::Incoming).map(|other| layer[other.index()] + 1);
        layer[node.index()] = before.max().unwrap_or(0);
    }
    sink_sources(graph, &mut layer);
    let mut points: Vec<Point> = layer
        .iter()
        .map(|layer| Point { layer: *layer, width, x: 0.0, above: Vec::new(), below: Vec::new() })
        .collect();
    let mut paths = Vec::new();
    for edge in graph.edge_indices() {
        let Some((from, to)) = graph.edge_endpoints(edge) else { continue };
        let mut path = vec![from.index()];
        for between in layer[from.index()] + 1..layer[to.index()] {
            points.push(Point { layer: between, width: gap, x: 0.0, above: Vec::new(), below: Vec::new() });
            path.push(points.len() - 1);
        }
        path.push(to.index());
        for pair in path.windows(2) {
            points[pair[0]].below.push(pair[1]);
            points[pair[1]].above.push(pair[0]);
        }
        paths.push(path);
    }
    let layers = layer.iter().max().map_or(0, |last| last + 1);
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); layers];
    for (index, point) in points.iter().enumerate() {
        rows[point.layer].push(index);
    }
    order(&mut points, &mut rows);
    shift(&mut points, &rows);
    let left = points.iter().map(|point| point.x).fold(f64::INFINITY, f64::min);
    let place = |index: usize| (points[index].x - left, points[index].layer);
    let nodes: Vec<(f64, usize)> = (0..graph.node_count()).map(place).collect();
    let edges = paths.iter().map(|path| path.iter().map(|index| place(*index)).collect()).collect();
    let width = points.iter().map(|point| point.x - left).fold(0.0, f64::max);
    Drawing { nodes, edges, width, layers }
}

/// Moves what nothing leads to next to where it is used.
fn sink_sources<N, E>(graph: &DiGraph<N, E>, layer: &mut [usize]) {
    let ends = |node: NodeIndex, direction| graph.neighbors_directed(node, direction);
    for node in graph.node_indices() {
        if ends(node, Direction::Incoming).next().is_none()
            && let Some(first) = ends(node, Direction::Outgoing).map(|other| layer[other.index()]).min()
        {
            layer[node.index()] = first.saturating_sub(1);
        }
    }
}

fn mean(of: &[usize], value: impl Fn(usize) -> f64) -> Option<f64> {
    (!of.is_empty()).then(|| of.iter().map(|index| value(*index)).sum::<f64>() / of.len() as f64)
}

/// Orders each layer by the means of the positions in the layer before, downwards and upwards in turn.
fn order(points: &mut [Point], rows: &mut [Vec<usize>]) {
    let mut position: Vec<f64> = vec![0.0; points.len()];
    let number = |row: &[usize], position: &mut [f64]| {
        row.iter().enumerate().for_each(|(index, point)| position[*point] = index as f64);
    };
    rows.iter().for_each(|row| number(row, &mut position));
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        let mut turn: Vec<usize> = (0..rows.len()).collect();
        if !down {
            turn.reverse();
        }
        for row in turn {
            let key = |point: usize| {
                let beside = if down { &points[point].above } else { &points[point].below };
                mean(beside, |other| position[other]).unwrap_or(position[point])
            };
            let mut keyed: Vec<(f64, usize)> = rows[row].iter().map(|point| (key(*point), *point)).collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            rows[row] = keyed.into_iter().map(|(_, point)| point).collect();
            number(&rows[row], &mut position);
        }
    }
}

/// Gives points an x near that of their neighbours, in the order of their layer and not closer than they are wide.
fn shift(points: &mut [Point], rows: &[Vec<usize>]) {
    for row in rows {
        let total: f64 = row.iter().map(|point| points[*point].width).sum();
        let mut x = -total / 2.0;
        for point in row {
            points[*point].x = x + points[*point].width / 2.0;
            x += points[*point].width;
        }
    }
    for sweep in 0..SHIFTS {
        let down = sweep % 2 == 0;
        let mut turn: Vec<usize> = (0..rows.len()).collect();
        if !down {
            turn.reverse();
        }
        for row in turn {
            let row = &rows[row];
            let wanted: Vec<f64> = row
                .iter()
                .map(|point| {
                    let beside = if down { &points[*point].above } else { &points[*point].below };
                    mean(beside, |other| points[other].x).unwrap_or(points[*point].x)
                })
                .collect();
            settle(points, row, &wanted);
        }
    }
}

/// Places a row: neighbours that would be too close become one block, which moves to the mean of what its points want
/// (pool adjacent violators).
fn settle(points: &mut [Point], row: &[usize], wanted: &[f64]) {
    // Distances from the first point of the row when all stand close.
    let mut offsets = Vec::with_capacity(row.len());
    let mut x = 0.0;
    for (index, point) in row.iter().enumerate() {
        if index > 0 {
            x += (points[row[index - 1]].width + points[*point].width) / 2.0;
        }
        offsets.push(x);
    }
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    for (wanted, offset) in wanted.iter().zip(&offsets) {
        let mut block = (wanted - offset, 1usize);
        while let Some(before) = blocks.last().copied().filter(|before| before.0 > block.0) {
            let count = before.1 + block.1;
            block = ((before.0 * before.1 as f64 + block.0 * block.1 as f64) / count as f64, count);
            blocks.pop();
        }
        blocks.push(block);
    }
    let starts = blocks.iter().flat_map(|(start, count)| std::iter::repeat_n(*start, *count));
    for ((point, offset), start) in row.iter().zip(&offsets).zip(starts) {
        points[*point].x = start + offset;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_follow_edges_and_nodes_keep_apart() {
        let mut graph: DiGraph<(), ()> = DiGraph::new();
        let nodes: Vec<NodeIndex> = (0..7).map(|_| graph.add_node(())).collect();
        for (from, to) in [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4), (0, 4), (5, 4), (4, 6)] {
            graph.add_edge(nodes[from], nodes[to], ());
        }
        let drawing = draw(&graph, 10.0, 2.0);
        let layers: Vec<usize> = drawing.nodes.iter().map(|(_, layer)| *layer).collect();
        assert_eq!(layers, [0, 1, 1, 1, 2, 1, 3]);
        for (a, (x, layer)) in drawing.nodes.iter().enumerate() {
            for (y, other) in &drawing.nodes[a + 1..] {
                assert!(layer != other || (x - y).abs() > 9.99, "{:?}", drawing.nodes);
            }
        }
        assert_eq!(drawing.edges[6].len(), 3, "a long edge has a point on the layer that it crosses");
        assert!(drawing.nodes.iter().all(|(x, _)| (0.0..=drawing.width).contains(x)));
        assert_eq!(draw(&DiGraph::<(), ()>::new(), 1.0, 1.0).layers, 0);
    }
}
