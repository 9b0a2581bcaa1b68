//! Local functions of a model, inlined by substitution of names and attributes.

use super::attribute::Attribute;
use super::error::{NodeError, NodeId, OnnxError};
use super::graph::{Node, canonical_domain};
use super::proto::FunctionProto;
use indexmap::IndexMap;
use std::collections::HashMap;

/// Local functions by domain, name and overload.
pub(super) struct Functions<'m>(HashMap<(&'m str, &'m str, &'m str), &'m FunctionProto>);

impl<'m> Functions<'m> {
    pub(super) fn of(functions: &'m [FunctionProto]) -> Result<Self, OnnxError> {
        let mut table = HashMap::new();
        for function in functions {
            let key = (canonical_domain(function.domain()), function.name(), function.overload());
            if table.insert(key, function).is_some() {
                return Err(OnnxError::DefinedTwice {
                    value: display(key.0, key.1, key.2),
                    graph: "model".into(),
                    first: "a local function".into(),
                    second: "a local function".into(),
                });
            }
        }
        Ok(Functions(table))
    }

    /// The function that a node calls, with its name for messages.
    pub(super) fn get(
        &self,
        domain: &str,
        name: &str,
        overload: &str,
    ) -> Option<(String, &'m FunctionProto)> {
        let function = self.0.get(&(domain, name, overload))?;
        Some((display(domain, name, overload), function))
    }
}

fn display(domain: &str, name: &str, overload: &str) -> String {
    let overload = if overload.is_empty() { String::new() } else { format!(":{overload}") };
    format!("{domain}.{name}{overload}")
}

/// How names inside of a function body are written outside of it.
pub(super) struct Substitution<'a> {
    /// Path of calls that leads to the body, with a separator at the end; empty for the model's own graph.
    prefix: String,
    values: HashMap<&'a str, String>,
    attributes: IndexMap<String, Attribute>,
}

impl<'a> Substitution<'a> {
    /// The names of the model's own graph.
    pub(super) fn identity() -> Self {
        Substitution { prefix: String::new(), values: HashMap::new(), attributes: IndexMap::new() }
    }

    /// The names in the body of a function called by a node, and the nodes that hand on inputs which the function
    /// returns unchanged.
    pub(super) fn of_call(
        function: &'a FunctionProto,
        call: &Node,
        prefix: String,
    ) -> Result<(Self, Vec<Node>), OnnxError> {
        let count = |what, found: usize, most: usize| {
            if found <= most {
                return Ok(());
            }
            let source = NodeError::Count { what, found, expected: format!("at most {most}") };
            Err(OnnxError::Node { node: Box::new(call.id.clone()), source })
        };
        count("inputs", call.inputs.len(), function.input.len())?;
        count("outputs", call.outputs.len(), function.output.len())?;
        let mut values = HashMap::new();
        for (index, formal) in function.input.iter().enumerate() {
            values.insert(formal.as_str(), call.inputs.get(index).cloned().unwrap_or_default());
        }
        let mut passed_through = Vec::new();
        for (formal, actual) in function.output.iter().zip(&call.outputs) {
            if actual.is_empty() {
                continue;
            }
            match values.get(formal.as_str()) {
                // An output that is already named, as an input or as an earlier output, needs a second name.
                Some(source) => passed_through.push(Node {
                    id: NodeId {
                        name: format!("{}/{formal}", call.id.name),
                        operator: "Identity".into(),
                        domain: String::new(),
                        opset: 13,
                    },
                    inputs: vec![source.clone()],
                    outputs: vec![actual.clone()],
                    attributes: IndexMap::new(),
                }),
                None => {
                    values.insert(formal.as_str(), actual.clone());
                }
            }
        }
        Ok((Substitution { prefix, values, attributes: call.attributes.clone() }, passed_through))
    }

    /// The outside name of a value; an empty name stays empty.
    pub(super) fn value(&self, name: &str) -> String {
        match self.values.get(name) {
            Some(outside) => outside.clone(),
            None if name.is_empty() => String::new(),
            None => format!("{}{name}", self.prefix),
        }
    }

    /// The outside name of a node.
    pub(super) fn place(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// An attribute of the calling node.
    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.get(name)
    }
}
