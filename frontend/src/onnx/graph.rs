//! The model as a well-formed program: every name resolved, local functions gone, nodes in order of data flow.
//!
//! Invariants of a [`Graph`] that [`Model::graph`] returned:
//!
//! - every value name is assigned once in its graph, by an input, an initializer or a node;
//! - every name that a node reads is assigned before it, in its graph or in one around it (a subgraph may reuse a
//!   name of an outer graph and then hides it);
//! - every graph output is assigned;
//! - no node calls a local function;
//! - every node knows the operator set version that it is written in.

pub use super::attribute::Attribute;
use super::attribute::AttributeScope;
use super::error::{NodeError, NodeId, OnnxError, TensorError};
use super::function::{Functions, Substitution};
use super::model::{Model, OperatorSets};
use super::order::topological_order;
use super::proto::{GraphProto, NodeProto, TensorProto};
use super::tensor::Tensor;
use super::value::ValueInfo;
use indexmap::IndexMap;
use std::collections::{HashMap, HashSet};

/// Most nodes of a model after inlining, subgraphs included. Functions that call functions can grow without bound.
pub const NODE_LIMIT: usize = 1 << 18;

/// Most levels of subgraphs and calls of local functions inside of each other. The import recurses over them.
pub const DEPTH_LIMIT: usize = 64;

/// A graph or subgraph.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Name, for messages.
    pub name: String,
    /// Inputs that the caller gives. Inputs with an initializer are not among them: the initializer is their value.
    pub inputs: Vec<ValueInfo>,
    /// Outputs.
    pub outputs: Vec<ValueInfo>,
    /// Constants.
    pub initializers: IndexMap<String, Tensor>,
    /// Declared types of inner values.
    pub value_info: HashMap<String, ValueInfo>,
    /// Nodes in an order in which every value is assigned before it is read; the file's order wherever it is one.
    pub nodes: Vec<Node>,
}

/// An operator applied to values.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Name, operator, domain and operator set version.
    pub id: NodeId,
    /// Names of the values read; an empty name is an input left out.
    pub inputs: Vec<String>,
    /// Names of the values assigned; an empty name is an output left out.
    pub outputs: Vec<String>,
    /// Attributes by name.
    pub attributes: IndexMap<String, Attribute>,
}

impl Node {
    /// Names read by the node: its inputs, and what its subgraphs take from around them.
    pub fn reads(&self) -> Vec<&str> {
        let mut names: Vec<&str> = (0..self.inputs.len()).filter_map(|index| self.input(index)).collect();
        for attribute in self.attributes.values() {
            if let Attribute::Graph(graph) = attribute {
                names.extend(graph.captures());
            }
        }
        names
    }
}

impl Graph {
    /// Names that the graph reads and does not assign.
    pub fn captures(&self) -> Vec<&str> {
        let own: HashSet<&str> = self
            .inputs
            .iter()
            .map(|input| input.name.as_str())
            .chain(self.initializers.keys().map(String::as_str))
            .chain(self.nodes.iter().flat_map(|node| node.outputs.iter().map(String::as_str)))
            .collect();
        let outputs = self.outputs.iter().map(|output| output.name.as_str());
        let mut seen = HashSet::new();
        self.nodes
            .iter()
            .flat_map(Node::reads)
            .chain(outputs)
            .filter(|name| !own.contains(name) && seen.insert(*name))
            .collect()
    }
}

/// The standard domain has two spellings; the empty one is used inside.
pub(super) fn canonical_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// Resolves the main graph of a model.
///
/// # Errors
/// The graph is not a well-formed program; the error names the node or value.
pub(super) fn resolve(model: &Model) -> Result<Graph, OnnxError> {
    let functions = Functions::of(model.functions())?;
    let mut resolver = Resolver {
        model,
        functions,
        scopes: Vec::new(),
        calls: Vec::new(),
        prefixes: HashSet::new(),
        nodes: 0,
    };
    let graph = model.proto.graph.as_ref().ok_or(OnnxError::NoGraph)?;
    if graph.output.is_empty() {
        return Err(OnnxError::NoOutput { graph: graph.name().to_owned() });
    }
    let mut outputs = HashSet::new();
    if let Some(twice) = graph.output.iter().find(|output| !outputs.insert(output.name())) {
        let (value, by) = (twice.name().to_owned(), "an output of the model".to_owned());
        return Err(OnnxError::DefinedTwice {
            value,
            graph: graph.name().to_owned(),
            first: by.clone(),
            second: by,
        });
    }
    resolver.graph(graph, &model.operator_sets, &Substitution::identity())
}

pub(super) struct Resolver<'m> {
    model: &'m Model,
    functions: Functions<'m>,
    /// Names assigned anywhere in each of the graphs around, innermost last.
    scopes: Vec<HashSet<String>>,
    /// Keys of the local functions that are being inlined, outermost first.
    calls: Vec<String>,
    /// Name prefixes of inlined bodies, each used once: files may give two calls the same name.
    prefixes: HashSet<String>,
    /// Nodes made so far, against [`NODE_LIMIT`].
    nodes: usize,
}

/// Reads the attributes of one node with what surrounds it.
struct NodeScope<'r, 'm> {
    resolver: &'r mut Resolver<'m>,
    operator_sets: &'r OperatorSets,
    names: &'r Substitution<'r>,
}

impl AttributeScope for NodeScope<'_, '_> {
    fn tensor(&self, tensor: &TensorProto) -> Result<Tensor, TensorError> {
        Tensor::from_proto(tensor, &self.resolver.model.files)
    }

    fn graph(&mut self, graph: &GraphProto) -> Result<Graph, OnnxError> {
        self.resolver.graph(graph, self.operator_sets, self.names)
    }
}

/// Records who assigns each name of a graph.
#[derive(Default)]
struct Definitions {
    by: HashMap<String, String>,
}

impl Definitions {
    fn define(&mut self, graph: &str, value: &str, by: impl Fn() -> String) -> Result<(), OnnxError> {
        match self.by.insert(value.to_owned(), by()) {
            None => Ok(()),
            Some(first) => Err(OnnxError::DefinedTwice {
                value: value.to_owned(),
                graph: graph.to_owned(),
                first,
                second: by(),
            }),
        }
    }
}

impl<'m> Resolver<'m> {
    fn graph(
        &mut self,
        graph: &GraphProto,
        operator_sets: &OperatorSets,
        names: &Substitution<'_>,
    ) -> Result<Graph, OnnxError> {
        self.check_depth()?;
        let name = graph.name().to_owned();
        let mut definitions = Definitions::default();
        let mut initializers = IndexMap::new();
        for tensor in &graph.initializer {
            let value = names.value(tensor.name());
            let read = Tensor::from_proto(tensor, &self.model.files)
                .map_err(|source| OnnxError::Tensor { tensor: value.clone(), source })?;
            definitions.define(&name, &value, || "an initializer".into())?;
            initializers.insert(value, read);
        }
        if let Some(sparse) = graph.sparse_initializer.first() {
            let tensor = sparse.values.as_ref().map_or("", |values| values.name()).to_owned();
            return Err(OnnxError::Tensor { tensor, source: TensorError::UnsupportedType("sparse") });
        }
        let mut inputs = Vec::new();
        let mut input_names = HashSet::new();
        for info in &graph.input {
            let mut input = ValueInfo::from_proto(info);
            input.name = names.value(&input.name);
            if !input_names.insert(input.name.clone()) {
                let (value, by) = (input.name, "an input".to_owned());
                return Err(OnnxError::DefinedTwice { value, graph: name, first: by.clone(), second: by });
            }
            if !initializers.contains_key(&input.name) {
                definitions.define(&name, &input.name, || "an input".into())?;
                inputs.push(input);
            }
        }
        let mut value_info = HashMap::new();
        for info in &graph.value_info {
            let mut info = ValueInfo::from_proto(info);
            info.name = names.value(&info.name);
            value_info.insert(info.name.clone(), info);
        }

        // Subgraphs may read any name of this graph, so all of them are known before the nodes are read.
        let assigned = graph.node.iter().flat_map(|node| &node.output).filter(|output| !output.is_empty());
        let mut scope: HashSet<String> = assigned.map(|output| names.value(output)).collect();
        scope.extend(definitions.by.keys().cloned());
        self.scopes.push(scope);
        let mut nodes = Vec::with_capacity(graph.node.len());
        for (index, node) in graph.node.iter().enumerate() {
            self.node(node, index, operator_sets, names, &mut nodes)?;
        }
        for node in &nodes {
            for output in node.outputs.iter().filter(|output| !output.is_empty()) {
                definitions.define(&name, output, || node.id.to_string())?;
            }
        }
        let scope = self.scopes.pop().expect("pushed above");

        let mut outputs = Vec::with_capacity(graph.output.len());
        for info in &graph.output {
            let mut output = ValueInfo::from_proto(info);
            output.name = names.value(&output.name);
            if !scope.contains(&output.name) && !self.visible(&output.name) {
                return Err(OnnxError::Undefined {
                    value: output.name,
                    user: format!("the output of graph '{name}'"),
                });
            }
            outputs.push(output);
        }
        let outer = &self.scopes;
        let nodes = topological_order(nodes, &definitions.by, |value| {
            outer.iter().any(|scope| scope.contains(value))
        })?;
        Ok(Graph { name, inputs, outputs, initializers, value_info, nodes })
    }

    fn check_depth(&self) -> Result<(), OnnxError> {
        let deep = self.scopes.len() + self.calls.len() > DEPTH_LIMIT;
        if deep { Err(OnnxError::TooDeep { limit: DEPTH_LIMIT }) } else { Ok(()) }
    }

    fn visible(&self, value: &str) -> bool {
        self.scopes.iter().any(|scope| scope.contains(value))
    }

    /// Adds the node, or the body of the local function that it calls.
    pub(super) fn node(
        &mut self,
        node: &NodeProto,
        index: usize,
        operator_sets: &OperatorSets,
        names: &Substitution<'_>,
        nodes: &mut Vec<Node>,
    ) -> Result<(), OnnxError> {
        self.nodes += 1;
        if self.nodes > NODE_LIMIT {
            return Err(OnnxError::TooManyNodes { limit: NODE_LIMIT });
        }
        let domain = canonical_domain(node.domain());
        let local = if node.name().is_empty() {
            format!("{}#{index}", node.op_type())
        } else {
            node.name().to_owned()
        };
        let mut id = NodeId {
            name: names.place(&local),
            operator: node.op_type().to_owned(),
            domain: domain.to_owned(),
            opset: operator_sets.get(domain).copied().unwrap_or(0),
        };
        let inputs: Vec<String> = node.input.iter().map(|input| names.value(input)).collect();
        let outputs: Vec<String> = node.output.iter().map(|output| names.value(output)).collect();
        let mut attributes = IndexMap::new();
        for attribute in &node.attribute {
            let name = attribute.name().to_owned();
            let value = if attribute.ref_attr_name().is_empty() {
                let place = format!("{}.{name}", id.name);
                let mut scope = NodeScope { resolver: self, operator_sets, names };
                Some(Attribute::from_proto(attribute, &place, &mut scope)?)
            } else {
                // A reference to an attribute of the calling node that was not given leaves this one out as well.
                names.attribute(attribute.ref_attr_name()).cloned()
            };
            if let Some(value) = value
                && attributes.insert(name.clone(), value).is_some()
            {
                return Err(OnnxError::Node {
                    node: Box::new(id),
                    source: NodeError::DuplicateAttribute(name),
                });
            }
        }
        let Some((key, function)) = self.functions.get(domain, node.op_type(), node.overload()) else {
            if id.opset == 0 {
                match domain {
                    "" => return Err(OnnxError::OpsetMissing { node: Box::new(id) }),
                    // Exporters forget to import their own domains; such operators have a single version.
                    _ => id.opset = 1,
                }
            }
            nodes.push(Node { id, inputs, outputs, attributes });
            return Ok(());
        };
        if self.calls.contains(&key) {
            let mut calls: Vec<String> = self.calls.clone();
            calls.push(key);
            calls.drain(..calls.iter().position(|call| *call == calls[calls.len() - 1]).unwrap_or(0));
            return Err(OnnxError::Recursion { calls });
        }
        self.calls.push(key);
        self.check_depth()?;
        let mut sets = super::model::operator_sets(&function.opset_import)?;
        for (domain, version) in operator_sets {
            sets.entry(domain.clone()).or_insert(*version);
        }
        let mut own = NodeScope { resolver: self, operator_sets: &sets, names: &Substitution::identity() };
        for default in &function.attribute_proto {
            if !attributes.contains_key(default.name()) {
                let place = format!("{}.{}", function.name(), default.name());
                attributes
                    .insert(default.name().to_owned(), Attribute::from_proto(default, &place, &mut own)?);
            }
        }
        let call = Node { id, inputs, outputs, attributes };
        let mut prefix = format!("{}/", call.id.name);
        let mut count = 1;
        while !self.prefixes.insert(prefix.clone()) {
            count += 1;
            prefix = format!("{}.{count}/", call.id.name);
        }
        let (body_names, passed_through) = Substitution::of_call(function, &call, prefix)?;
        let local: HashSet<String> = function
            .node
            .iter()
            .flat_map(|node| &node.output)
            .map(|output| body_names.value(output))
            .collect();
        // Values of the body belong to the graph that the call is in.
        if let Some(scope) = self.scopes.last_mut() {
            scope.extend(local);
        }
        for (index, node) in function.node.iter().enumerate() {
            self.node(node, index, &sets, &body_names, nodes)?;
        }
        nodes.extend(passed_through);
        self.calls.pop();
        Ok(())
    }
}
