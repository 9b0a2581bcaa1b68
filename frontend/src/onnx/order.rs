//! Topological order of nodes. ONNX demands it of files; not every exporter delivers it, so it is restored.

use super::error::OnnxError;
use super::graph::Node;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Orders nodes so that every value is assigned before it is read; nodes that are in order already stay where they
/// are. `defined` holds the names that this graph assigns, `outer` tells names of the graphs around it.
///
/// # Errors
/// A value that nobody assigns, or nodes that wait for each other.
pub(super) fn topological_order(
    nodes: Vec<Node>,
    defined: &HashMap<String, String>,
    outer: impl Fn(&str) -> bool,
) -> Result<Vec<Node>, OnnxError> {
    let mut producer = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        for output in node.outputs.iter().filter(|output| !output.is_empty()) {
            producer.insert(output.as_str(), index);
        }
    }
    let mut waiting_for: Vec<usize> = vec![0; nodes.len()];
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut producers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        for name in node.reads() {
            match producer.get(name) {
                Some(&from) => {
                    waiting_for[index] += 1;
                    users[from].push(index);
                    producers[index].push(from);
                }
                None if defined.contains_key(name) || outer(name) => {}
                None => {
                    return Err(OnnxError::Undefined { value: name.to_owned(), user: node.id.to_string() });
                }
            }
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..nodes.len()).filter(|&index| waiting_for[index] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for &user in &users[index] {
            waiting_for[user] -= 1;
            if waiting_for[user] == 0 {
                ready.push(Reverse(user));
            }
        }
    }
    if order.len() < nodes.len() {
        let cycle = find_cycle(&producers, &waiting_for);
        return Err(OnnxError::Cycle {
            nodes: cycle.iter().map(|&index| nodes[index].id.name.clone()).collect(),
        });
    }
    let mut slots: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|index| slots[index].take()).collect())
}

/// Follows producers that are still waiting until one comes up again; some must, or all nodes would be ordered.
fn find_cycle(producers: &[Vec<usize>], waiting_for: &[usize]) -> Vec<usize> {
    let mut path = Vec::new();
    let mut place = HashMap::new();
    let mut next = waiting_for.iter().position(|&count| count > 0);
    while let Some(index) = next {
        if let Some(&start) = place.get(&index) {
            let mut cycle: Vec<usize> = path[start..].to_vec();
            cycle.push(index);
            // The path runs against the data flow.
            cycle.reverse();
            return cycle;
        }
        place.insert(index, path.len());
        path.push(index);
        next = producers[index].iter().copied().find(|&from| waiting_for[from] > 0);
    }
    path
}
