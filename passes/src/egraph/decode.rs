//! From a selection of one node per class back to a region.
//!
//! Anchors come in their order, each after what it needs; pure operations stand right before their first use. So a `bind`
//! still precedes every user of its symbols: such a user is needed by something that stood after it.

use std::collections::{HashMap, VecDeque};

use egg::Id;
use tcc_ir::module::{Function, Location, Operation, Region, Value};
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Arg, ScalarExpr};

use super::analysis::{Graph, Lookup};
use super::encode::{Anchor, Encoding};
use super::extract::Selection;
use super::language::Node;
use crate::error::Error;

/// Names of the sources of classes and of fused nodes.
pub struct Locations {
    of_class: HashMap<Id, Location>,
    of_node: HashMap<Node, Location>,
}

impl Locations {
    /// The locations that encoding recorded; the first wins where classes merged. Classes that rules made take the name
    /// of the nearest named class that they serve.
    pub fn new(encoding: &Encoding) -> Locations {
        let graph = &encoding.graph;
        let mut of_class: HashMap<Id, Location> = HashMap::new();
        let mut queue = VecDeque::new();
        for (id, location) in &encoding.locations {
            let class = graph.find(*id);
            if location.0.is_some() && !of_class.contains_key(&class) {
                of_class.insert(class, location.clone());
                queue.push_back(class);
            }
        }
        while let Some(class) = queue.pop_front() {
            for node in &graph[class].nodes {
                for operand in node.operands() {
                    let operand = graph.find(*operand);
                    if !of_class.contains_key(&operand) {
                        of_class.insert(operand, of_class[&class].clone());
                        queue.push_back(operand);
                    }
                }
            }
        }
        Locations { of_class, of_node: HashMap::new() }
    }

    /// Joins the names of the classes that a fused node computes.
    pub fn fused(&mut self, graph: &Graph, node: &Node, absorbed: &[Id]) {
        let mut names: Vec<&str> = Vec::new();
        for id in absorbed {
            if let Some(Location(Some(name))) = self.of_class.get(&graph.find(*id)) {
                for part in name.split('+') {
                    if !names.contains(&part) {
                        names.push(part);
                    }
                }
            }
        }
        if !names.is_empty() {
            self.of_node.insert(node.clone(), Location::named(&names.join("+")));
        }
    }

    fn of(&self, class: Id, node: &Node) -> Option<Location> {
        self.of_node.get(node).or_else(|| self.of_class.get(&class)).cloned()
    }
}

struct Decoder<'a> {
    graph: &'a Graph,
    selection: &'a Selection,
    locations: &'a Locations,
    leaves: &'a [Value],
    placed: HashMap<Id, Vec<Value>>,
    operations: Vec<Operation>,
}

/// Writes the selected operations as a region with the parameters of the original one.
pub fn decode(
    function: &mut Function,
    params: &[Value],
    encoding: Encoding,
    selection: &Selection,
    locations: &Locations,
) -> Result<Region, Error> {
    let Encoding { graph, leaves, anchors, results, .. } = encoding;
    let mut decoder = Decoder {
        graph: &graph,
        selection,
        locations,
        leaves: &leaves,
        placed: HashMap::new(),
        operations: Vec::new(),
    };
    for Anchor { mut operation, operands, captured } in anchors {
        operation.operands =
            operands.iter().map(|id| decoder.single(function, *id)).collect::<Result<Vec<Value>, Error>>()?;
        let mut renamed = HashMap::new();
        for (value, id) in captured {
            renamed.insert(value, decoder.single(function, id)?);
        }
        operation.regions.iter_mut().for_each(|region| rename(region, &renamed));
        decoder.operations.push(operation);
    }
    let results =
        results.iter().map(|id| decoder.single(function, *id)).collect::<Result<Vec<Value>, Error>>()?;
    Ok(Region { params: params.to_vec(), operations: decoder.operations, results })
}

impl Decoder<'_> {
    fn single(&mut self, function: &mut Function, id: Id) -> Result<Value, Error> {
        self.place(function, id)?;
        match self.placed.get(&self.graph.find(id)).map(Vec::as_slice) {
            Some([value]) => Ok(*value),
            _ => Err(Error::internal("a class of several results was used as one value")),
        }
    }

    /// Emits what a class needs, then the class, without recursion: models may be deep.
    fn place(&mut self, function: &mut Function, id: Id) -> Result<(), Error> {
        let mut stack = vec![(self.graph.find(id), false)];
        while let Some((class, ready)) = stack.pop() {
            if self.placed.contains_key(&class) {
                continue;
            }
            let node = self
                .selection
                .node(class)
                .ok_or_else(|| Error::internal("a needed class was not selected"))?;
            if ready {
                let values = self.emit(function, class, node)?;
                self.placed.insert(class, values);
                continue;
            }
            stack.push((class, true));
            for child in self.needed(node).into_iter().rev() {
                let child = self.graph.find(child);
                if !self.placed.contains_key(&child) {
                    stack.push((child, false));
                }
            }
        }
        Ok(())
    }

    /// A rank-0 constant that a scalar function can hold itself.
    fn inline(&self, id: Id) -> Option<Arg> {
        match self.selection.node(self.graph.find(id))? {
            Node::Constant(place) => {
                let data = self.graph.analysis.data(*place);
                let scalar = data.shape().is_empty().then(|| tcc_ir::convert::element(data, 0))??;
                Some(Arg::Const(scalar))
            }
            _ => None,
        }
    }

    fn needed(&self, node: &Node) -> Vec<Id> {
        match node {
            Node::Scalar(_, children) => {
                let kept: Vec<Id> =
                    children.iter().copied().filter(|id| self.inline(*id).is_none()).collect();
                if kept.is_empty() { children.to_vec() } else { kept }
            }
            other => other.operands().to_vec(),
        }
    }

    fn values_of(&self, ids: &[Id]) -> Result<Vec<Value>, Error> {
        let lookup = |id: &Id| match self.placed.get(&self.graph.find(*id)).map(Vec::as_slice) {
            Some([value]) => Ok(*value),
            _ => Err(Error::internal("an operand was not placed")),
        };
        ids.iter().map(lookup).collect()
    }

    fn emit(&mut self, function: &mut Function, class: Id, node: &Node) -> Result<Vec<Value>, Error> {
        let needed = self.needed(node);
        let (operator, operands) = match node {
            Node::Leaf(place) => return Ok(vec![self.leaves[*place as usize]]),
            Node::Result(index, [tuple]) => {
                let values = self.placed.get(&self.graph.find(*tuple));
                let value = values.and_then(|values| values.get(*index as usize)).copied();
                return value
                    .map(|value| vec![value])
                    .ok_or_else(|| Error::internal("a result was not placed"));
            }
            Node::Attributes(_) => return Err(Error::internal("an attribute leaf was used as a value")),
            Node::Constant(place) => {
                (Operator::Constant { data: self.graph.analysis.data(*place).clone() }, Vec::new())
            }
            Node::Scalar(op, children) => {
                let mut body = ScalarExpr::with_inputs(needed.len());
                let mut next = 0u16;
                let all = needed.len() == children.len();
                let mut argument = |id: &Id| match self.inline(*id).filter(|_| !all) {
                    Some(constant) => constant,
                    None => {
                        next += 1;
                        Arg::Input(next - 1)
                    }
                };
                let args: Vec<Arg> = children.iter().map(&mut argument).collect();
                body.result = body.push(*op, &args);
                (Operator::Map { body }, self.values_of(&needed)?)
            }
            Node::Apply(_, children) => {
                let operator = self
                    .graph
                    .operator(children[0])
                    .ok_or_else(|| Error::internal("an operator lost its attributes"))?;
                (operator.clone(), self.values_of(&children[1..])?)
            }
        };
        let types = &self.graph.values(class).ok_or_else(|| Error::internal("a value has no type"))?.types;
        let results: Vec<Value> = types.iter().map(|ty| function.new_value(ty.clone())).collect();
        let location = self.locations.of(class, node).unwrap_or_default();
        self.operations.push(Operation {
            operator,
            operands,
            results: results.clone(),
            regions: Vec::new(),
            location,
        });
        Ok(results)
    }
}

/// Replaces values that a region takes from outside.
fn rename(region: &mut Region, renamed: &HashMap<Value, Value>) {
    let replace = |value: &mut Value| *value = renamed.get(value).copied().unwrap_or(*value);
    for operation in &mut region.operations {
        operation.operands.iter_mut().for_each(replace);
        operation.regions.iter_mut().for_each(|region| rename(region, renamed));
    }
    region.results.iter_mut().for_each(replace);
}

/// Gives operations without a name that of their first named user, so that errors about them point somewhere.
pub fn name_by_users(region: &mut Region) {
    let mut of_value: HashMap<Value, Location> = HashMap::new();
    for operation in region.operations.iter_mut().rev() {
        if operation.location.0.is_none()
            && let Some(location) = operation.results.iter().find_map(|value| of_value.get(value))
        {
            operation.location = location.clone();
        }
        if operation.location.0.is_some() {
            for operand in &operation.operands {
                of_value.insert(*operand, operation.location.clone());
            }
        }
    }
}
