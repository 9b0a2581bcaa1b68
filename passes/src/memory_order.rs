//! The order of operations: where another one needs less memory at its peak, it is taken.
//!
//! Two orders are tried beside the one that is there: operations that free more than they write as early as their operands
//! allow, and a greedy one that always takes the operation after which the least is alive (as list scheduling for register
//! pressure does). Operations with effects stay where they are, and nothing moves past them. Symbols count as in the cost
//! model. The result depends on the function alone.

use std::collections::{BTreeSet, HashMap, HashSet};

use tcc_ir::module::{Function, Module, Operation, Region, Value};
use tcc_ir::operator::Operator;

use crate::context::Context;
use crate::cost::Sizes;
use crate::error::Error;

/// Reorders every region of every function.
pub fn run(module: &mut Module, _context: &Context) -> Result<(), Error> {
    for function in module.functions.values_mut() {
        let mut body = std::mem::take(&mut function.body);
        reorder(&mut body, function);
        function.body = body;
    }
    Ok(())
}

fn reorder(region: &mut Region, function: &Function) {
    for operation in &mut region.operations {
        operation.regions.iter_mut().for_each(|nested| reorder(nested, function));
    }
    let graph = Graph::of(region, function);
    let given: Vec<usize> = (0..region.operations.len()).collect();
    let mut best = (graph.peak(&given), given);
    for order in [graph.freeing_first(), graph.least_alive()] {
        let peak = graph.peak(&order);
        if peak < best.0 {
            best = (peak, order);
        }
    }
    let mut operations: Vec<Option<Operation>> =
        std::mem::take(&mut region.operations).into_iter().map(Some).collect();
    region.operations = best.1.into_iter().filter_map(|index| operations[index].take()).collect();
}

/// What an operation does to memory.
struct Node {
    /// Memory that it reads.
    reads: Vec<usize>,
    /// Memory that it writes first.
    writes: Vec<usize>,
    /// Of `reads`, what its result may take the place of.
    replaces: Vec<usize>,
    /// Operations of the region that make its operands.
    after: Vec<usize>,
    /// True where it stays in its place among all others.
    fixed: bool,
}

/// Operations of a region and the memory of its values; a view is the memory that it shows.
struct Graph {
    nodes: Vec<Node>,
    /// Bytes by memory.
    bytes: Vec<f64>,
    /// How many operations read a memory.
    readers: Vec<usize>,
}

/// The memory of values of one region. Values from around it and what it yields live before or after it and are left out.
#[derive(Default)]
struct Memories {
    of: HashMap<Value, usize>,
    bytes: Vec<f64>,
}

impl Memories {
    fn add(&mut self, value: Value, bytes: f64) -> usize {
        self.bytes.push(bytes);
        self.of.insert(value, self.bytes.len() - 1);
        self.bytes.len() - 1
    }
}

impl Graph {
    fn of(region: &Region, function: &Function) -> Graph {
        let sizes = Sizes::of(function);
        let bytes = |value: Value| {
            let ty = function.type_of(value).as_tensor();
            ty.map_or(0.0, |ty| sizes.count(&ty.shape) * ty.dtype().bits() as f64 / 8.0)
        };
        let yielded: HashSet<Value> = region.results.iter().copied().collect();
        let mut memories = Memories::default();
        let mut maker: HashMap<Value, usize> = HashMap::new();
        let mut nodes = Vec::with_capacity(region.operations.len());
        for (index, operation) in region.operations.iter().enumerate() {
            let mut operands: Vec<Value> = Vec::new();
            reads_of(operation, &mut operands);
            let mut reads: Vec<usize> =
                operands.iter().filter_map(|value| memories.of.get(value).copied()).collect();
            reads.sort_unstable();
            reads.dedup();
            let mut after: Vec<usize> =
                operands.iter().filter_map(|value| maker.get(value).copied()).collect();
            after.sort_unstable();
            after.dedup();
            let first_replaced = match operation.operator {
                Operator::Map { .. } => 0,
                Operator::Contract { .. } | Operator::Convolve { .. } => 2,
                _ => operation.operands.len(),
            };
            let replaceable = operation.operands.iter().skip(first_replaced);
            let replaces = replaceable.filter_map(|value| memories.of.get(value).copied()).collect();
            let mut writes = Vec::new();
            for result in &operation.results {
                maker.insert(*result, index);
                match operation.operator {
                    Operator::Reshape { .. } => {
                        if let Some(memory) = memories.of.get(&operation.operands[0]).copied() {
                            memories.of.insert(*result, memory);
                        }
                    }
                    Operator::Constant { .. } => {}
                    _ if yielded.contains(result) => {}
                    _ => writes.push(memories.add(*result, bytes(*result))),
                }
            }
            let fixed = !operation.operator.describe().pure_function;
            nodes.push(Node { reads, writes, replaces, after, fixed });
        }
        let mut readers = vec![0; memories.bytes.len()];
        nodes.iter().flat_map(|node| &node.reads).for_each(|memory| readers[*memory] += 1);
        // What is yielded under another name is read at the end.
        yielded.iter().filter_map(|value| memories.of.get(value)).for_each(|memory| readers[*memory] += 1);
        Graph { nodes, bytes: memories.bytes, readers }
    }

    /// Bytes that an operation adds while it runs and what of that stays, where so many readers are left.
    fn change(&self, index: usize, left: &[usize]) -> (f64, f64) {
        let node = &self.nodes[index];
        let written: f64 = node.writes.iter().map(|memory| self.bytes[*memory]).sum();
        let dies = |memory: &&usize| left[**memory] == 1;
        let freed: f64 = node.reads.iter().filter(dies).map(|memory| self.bytes[*memory]).sum();
        let in_place = node.replaces.iter().filter(dies).any(|memory| self.bytes[*memory] == written);
        (if in_place { 0.0 } else { written }, written - freed)
    }

    /// The most bytes that are alive at a time.
    fn peak(&self, order: &[usize]) -> f64 {
        let mut left = self.readers.clone();
        let (mut alive, mut peak) = (0.0f64, 0.0f64);
        for index in order {
            let (more, stays) = self.change(*index, &left);
            peak = peak.max(alive + more);
            alive += stays;
            self.nodes[*index].reads.iter().for_each(|memory| left[*memory] -= 1);
        }
        peak
    }

    /// The given order, but operations that free more than they write run as soon as they can.
    fn freeing_first(&self) -> Vec<usize> {
        let mut left = self.readers.clone();
        let frees: Vec<bool> = (0..self.nodes.len())
            .map(|index| {
                let (_, stays) = self.change(index, &left);
                self.nodes[index].reads.iter().for_each(|memory| left[*memory] -= 1);
                stays < 0.0
            })
            .collect();
        self.list(|ready, _| {
            let first = ready.first().copied();
            ready.iter().copied().find(|index| frees[*index]).or(first)
        })
    }

    /// The order that always takes the operation after which the least is alive.
    fn least_alive(&self) -> Vec<usize> {
        self.list(|ready, left| {
            let stays = |index: &usize| self.change(*index, left).1;
            ready.iter().copied().min_by(|a, b| stays(a).total_cmp(&stays(b)).then(a.cmp(b)))
        })
    }

    /// List scheduling: of the operations whose operands are there, `choose` takes the next; it is told how many readers every
    /// memory has left.
    fn list(&self, mut choose: impl FnMut(&BTreeSet<usize>, &[usize]) -> Option<usize>) -> Vec<usize> {
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            node.after.iter().for_each(|maker| users[*maker].push(index));
        }
        let mut list = List {
            graph: self,
            users,
            waits: self.nodes.iter().map(|node| node.after.len()).collect(),
            left: self.readers.clone(),
            order: Vec::with_capacity(self.nodes.len()),
        };
        let mut start = 0;
        while start < self.nodes.len() {
            // Operations up to the next one with effects, which then follows them.
            let end = (start..self.nodes.len()).find(|index| self.nodes[*index].fixed);
            let end = end.unwrap_or(self.nodes.len());
            let mut ready: BTreeSet<usize> = (start..end).filter(|index| list.waits[*index] == 0).collect();
            while !ready.is_empty() {
                // Nothing that takes no memory waits.
                let free = ready.iter().copied().find(|index| self.nodes[*index].writes.is_empty());
                let Some(next) = free.or_else(|| choose(&ready, &list.left)) else { break };
                ready.remove(&next);
                list.take(next);
                ready.extend(list.users[next].iter().filter(|user| list.waits[**user] == 0 && **user < end));
            }
            if end < self.nodes.len() {
                list.take(end);
            }
            start = end + 1;
        }
        list.order
    }
}

/// The state of list scheduling.
struct List<'g> {
    graph: &'g Graph,
    /// Operations that read the results of each.
    users: Vec<Vec<usize>>,
    /// How many makers of operands are still to come.
    waits: Vec<usize>,
    /// How many operations still read each memory.
    left: Vec<usize>,
    order: Vec<usize>,
}

impl List<'_> {
    fn take(&mut self, index: usize) {
        self.graph.nodes[index].reads.iter().for_each(|memory| self.left[*memory] -= 1);
        self.users[index].iter().for_each(|user| self.waits[*user] -= 1);
        self.order.push(index);
    }
}

/// Operands of an operation, and what its regions read.
fn reads_of(operation: &Operation, reads: &mut Vec<Value>) {
    reads.extend(&operation.operands);
    for region in &operation.regions {
        reads.extend(&region.results);
        region.operations.iter().for_each(|nested| reads_of(nested, reads));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reordered(text: &str) -> (Vec<String>, [f64; 2]) {
        let mut module = tcc_ir::parse::module(text).unwrap();
        let peak = |module: &Module| {
            let function = module.entry().unwrap();
            let order: Vec<usize> = (0..function.body.operations.len()).collect();
            Graph::of(&function.body, function).peak(&order)
        };
        let before = peak(&module);
        let function = module.functions.values_mut().next().unwrap();
        let mut body = std::mem::take(&mut function.body);
        reorder(&mut body, function);
        function.body = body;
        tcc_ir::verify::verify(&module).unwrap();
        let names = &module.entry().unwrap().body.operations;
        let names = names.iter().map(|operation| operation.location.text().to_string()).collect();
        (names, [before, peak(&module)])
    }

    fn function(body: &str) -> String {
        format!(
            "module {{ \"tir.func\"() ({{ ^bb0(%0: tensor<8xf32>): {body} }}) {{sym_name = \"f\", input_names = [\"x\"], \
             output_names = [\"y\"], symbols = [], equalities = []}} : () -> () }}"
        )
    }

    const MAP: &str = "{body = \"(1) t0 = neg(a0); t0\"} : (tensor<8xf32>) -> tensor<8xf32>";
    const REDUCE: &str = "{kind = \"sum\", axes = [0], keep = false, prologue = \"(1) a0\", \
                          epilogue = \"(1) a0\"} : (tensor<8xf32>) -> tensor<f32>";

    #[test]
    fn what_frees_memory_runs_first() {
        // Two long values, each summed: sums come before the next value.
        let text = function(&format!(
            "%1 = \"tir.map\"(%0) {MAP} loc(\"a\") %2 = \"tir.map\"(%0) {MAP} loc(\"b\") \
             %3 = \"tir.reduce\"(%1) {REDUCE} loc(\"sum a\") %4 = \"tir.reduce\"(%2) {REDUCE} loc(\"sum b\") \
             %5 = \"tir.map\"(%3, %4) {{body = \"(2) t0 = add(a0, a1); t0\"}} : (tensor<f32>, tensor<f32>) -> \
             tensor<f32> loc(\"y\") \"tir.return\"(%5) : (tensor<f32>) -> ()"
        ));
        let (order, peaks) = reordered(&text);
        assert_eq!(order, ["a", "sum a", "b", "sum b", "y"]);
        assert_eq!(peaks, [68.0, 40.0]);
    }

    #[test]
    fn an_order_that_is_as_good_stays() {
        let text = function(&format!(
            "%1 = \"tir.map\"(%0) {MAP} loc(\"a\") %2 = \"tir.map\"(%1) {MAP} loc(\"b\") \
             \"tir.return\"(%2) : (tensor<8xf32>) -> ()"
        ));
        assert_eq!(reordered(&text).0, ["a", "b"]);
    }
}
