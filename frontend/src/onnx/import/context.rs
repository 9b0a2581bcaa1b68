//! The state of an import: the function under construction, the names in scope, and access to a node's operands.

use super::super::error::{NodeError, OnnxError};
use super::super::graph::{Graph, Node};
use super::super::tensor::{Payload, Tensor};
use super::super::value::{Dimension, ValueInfo, ValueType};
use super::continuation::Done;
use super::known::Known;
use super::refusal::{Refusal, unsupported};
use super::scope::{Binding, Scopes};
use super::{ImportOptions, Unsupported, arity, attributes, dtype, known_operators, table};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use tcc_ir::builder::Builder;
use tcc_ir::data::Data;
use tcc_ir::dim::{Dim, Range, Symbol};
use tcc_ir::dtype::DType;
use tcc_ir::module::{Location, Region, Value};
use tcc_ir::operator::Operator;
use tcc_ir::types::Type;

/// Most elements of a tensor. What processors address is 2^47 bytes, so nothing larger can be meant.
const MOST_ELEMENTS: i64 = 1 << 47;

/// Most axes of a tensor; the runtime keeps shapes in places of this size.
const MOST_AXES: usize = 16;

/// Outcome of a lowering: one binding an output.
pub(crate) type Lowered = Result<Vec<Binding>, Refusal>;

pub(crate) struct Context<'o> {
    pub(crate) builder: Builder,
    pub(crate) unsupported: Vec<Unsupported>,
    pub(super) scopes: Scopes,
    options: &'o ImportOptions,
    /// Symbols by the name that the file gives them.
    symbols: BTreeMap<String, Symbol>,
    /// Names of all dimensions of inputs that are no numbers.
    pub(super) dimension_names: BTreeSet<String>,
    /// Inputs of the main graph, which the caller may fix.
    main_inputs: HashSet<String>,
    /// Symbols that stand for the elements of run-time integer tensors, by tensor and region depth.
    pub(super) bound: HashMap<Value, (usize, Vec<Dim>)>,
    pub(super) depth: usize,
    /// Truth values that say whether two sizes are equal.
    pub(super) conditions: HashMap<Value, (Dim, Dim)>,
    /// How many times branches have taken in what follows them.
    pub(super) continued: usize,
}

impl<'o> Context<'o> {
    pub(crate) fn new(options: &'o ImportOptions) -> Self {
        let name = if options.function.is_empty() { "main" } else { &options.function };
        Context {
            builder: Builder::new(name),
            unsupported: Vec::new(),
            scopes: Scopes::default(),
            options,
            symbols: BTreeMap::new(),
            dimension_names: BTreeSet::new(),
            main_inputs: HashSet::new(),
            bound: HashMap::new(),
            depth: 0,
            conditions: HashMap::new(),
            continued: 0,
        }
    }

    /// Imports the main graph and returns its outputs. Outputs that depend on unsupported nodes are left out.
    pub(crate) fn function(&mut self, graph: &Graph) -> Result<Vec<(String, Value)>, OnnxError> {
        self.scopes.push();
        for input in &graph.inputs {
            let binding = match self.options.inputs.get(&input.name) {
                Some(tensor) => self.constant(&input.name, tensor)?,
                None => {
                    let ty = self.input_type(input)?;
                    Binding::Value(self.builder.input(&input.name, ty))
                }
            };
            self.main_inputs.insert(input.name.clone());
            self.scopes.bind(&input.name, binding);
        }
        self.statements(graph)?;
        let mut values = Vec::with_capacity(graph.outputs.len());
        for output in &graph.outputs {
            match self.named(&output.name) {
                Ok(value) => values.push((output.name.clone(), value)),
                Err(Refusal::Depends) => {}
                Err(other) => return Err(self.output_error(output, other)),
            }
        }
        Ok(values)
    }

    /// Imports constants and nodes of a graph whose inputs are bound already.
    fn statements(&mut self, graph: &Graph) -> Result<(), OnnxError> {
        for (name, tensor) in &graph.initializers {
            let binding = self.constant(name, tensor)?;
            self.scopes.bind(name, binding);
        }
        self.nodes(&graph.nodes, &graph.outputs)
    }

    /// Imports nodes that lead to these outputs.
    pub(super) fn nodes(&mut self, nodes: &[Node], outputs: &[ValueInfo]) -> Result<(), OnnxError> {
        for (index, node) in nodes.iter().enumerate() {
            if let Done::NotJoined(reason) = self.node(node)? {
                return self.continue_in_branches(node, &nodes[index + 1..], outputs, reason);
            }
        }
        Ok(())
    }

    /// Imports a subgraph in place, in a scope of its own, and returns what its outputs are bound to.
    pub(crate) fn inline(&mut self, graph: &Graph) -> Result<Vec<Binding>, Refusal> {
        self.scopes.push();
        let outcome = self.statements(graph);
        let outputs = graph.outputs.iter().map(|output| match self.scopes.get(&output.name) {
            Some((_, binding)) => binding.clone(),
            None => Binding::Refused,
        });
        let outputs = outputs.collect();
        self.scopes.pop();
        outcome.map_err(Refusal::from).map(|()| outputs)
    }

    /// Imports a subgraph as a region with parameters of the given types. `bind` gives the values of the subgraph's
    /// inputs from the parameters, `finish` the region's results from the values of the subgraph's outputs.
    pub(crate) fn region(
        &mut self,
        graph: &Graph,
        parameters: Vec<Type>,
        bind: impl FnOnce(&mut Self, &[Value]) -> Result<Vec<Value>, Refusal>,
        finish: impl FnOnce(&mut Self, &[Value], Vec<Value>) -> Result<Vec<Value>, Refusal>,
    ) -> Result<Region, Refusal> {
        self.depth += 1;
        self.scopes.push();
        let parameters = self.builder.begin_region(parameters);
        let outcome = self.region_body(graph, &parameters, bind, finish);
        // The region is closed even where its body was refused, so that the builder is left in order.
        let region = self.builder.end_region(outcome.as_deref().unwrap_or_default());
        self.scopes.pop();
        self.leave_region();
        outcome.map(|_| region)
    }

    fn region_body(
        &mut self,
        graph: &Graph,
        parameters: &[Value],
        bind: impl FnOnce(&mut Self, &[Value]) -> Result<Vec<Value>, Refusal>,
        finish: impl FnOnce(&mut Self, &[Value], Vec<Value>) -> Result<Vec<Value>, Refusal>,
    ) -> Result<Vec<Value>, Refusal> {
        let bound = bind(self, parameters)?;
        for (input, value) in graph.inputs.iter().zip(bound) {
            self.scopes.bind(&input.name, Binding::Value(value));
        }
        self.statements(graph)?;
        let outputs: Result<Vec<Value>, Refusal> =
            graph.outputs.iter().map(|output| self.named(&output.name)).collect();
        finish(self, parameters, outputs?)
    }

    fn output_error(&self, output: &ValueInfo, refusal: Refusal) -> OnnxError {
        let reason = match refusal {
            Refusal::Invalid(error) => error.to_string(),
            Refusal::Unsupported(reason) | Refusal::Branches(reason) => reason,
            Refusal::RunTime { name, .. } => format!("{name} is not known"),
            Refusal::Nested(error) => return *error,
            Refusal::Depends => String::new(),
        };
        OnnxError::Value { value: output.name.clone(), reason }
    }

    fn node(&mut self, node: &Node) -> Result<Done, OnnxError> {
        self.builder.set_location(Location::named(&node.id.name));
        let before = self.builder.function().types.len();
        let lowered = self.lower(node).and_then(|bindings| self.check_extents(before).map(|()| bindings));
        let reason = match lowered {
            Ok(bindings) => {
                for (output, binding) in node.outputs.iter().zip(bindings) {
                    if !output.is_empty() {
                        self.scopes.bind(output, binding);
                    }
                }
                // Outputs beyond what the lowering knows are refused, so that whoever reads one is told.
                for output in node.outputs.iter().filter(|output| !output.is_empty()) {
                    if self.scopes.get(output).is_none() {
                        self.scopes.bind(output, Binding::Refused);
                        self.unsupported.push(Unsupported {
                            node: node.id.clone(),
                            reason: format!("its output '{output}' is not supported"),
                            input: None,
                        });
                    }
                }
                return Ok(Done::Bound);
            }
            Err(Refusal::Branches(reason)) => return Ok(Done::NotJoined(reason)),
            Err(Refusal::Invalid(source)) => {
                let source = match source {
                    NodeError::Operands(reason) => NodeError::Operands(reason + &self.advice_on_sizes()),
                    other => other,
                };
                return Err(OnnxError::Node { node: Box::new(node.id.clone()), source });
            }
            Err(Refusal::Nested(error)) => return Err(*error),
            Err(Refusal::Unsupported(reason)) => Some((reason, None)),
            Err(Refusal::RunTime { operand, name }) => {
                let value = node.input(operand).unwrap_or_default();
                let input = self.main_inputs.contains(value).then(|| value.to_owned());
                Some((format!("operand {operand} ({name}, '{value}') must be known at compile time"), input))
            }
            Err(Refusal::Depends) => None,
        };
        if let Some((reason, input)) = reason {
            self.refuse(node, reason, input);
        }
        for output in node.outputs.iter().filter(|output| !output.is_empty()) {
            self.scopes.bind(output, Binding::Refused);
        }
        Ok(Done::Bound)
    }

    /// Adds a node to those that are not supported, once however often it is met.
    pub(super) fn refuse(&mut self, node: &Node, reason: String, input: Option<String>) {
        let refused = Unsupported { node: node.id.clone(), reason, input };
        if !self.unsupported.contains(&refused) {
            self.unsupported.push(refused);
        }
    }

    /// Refuses extents that came out negative and tensors that no memory holds, in the types of all values since the first
    /// `before`.
    fn check_extents(&self, before: usize) -> Result<(), Refusal> {
        for ty in &self.builder.function().types[before..] {
            let Some(tensor) = ty.as_tensor() else { continue };
            let extents = || tensor.shape.iter().enumerate();
            let negative = |(_, dim): &(usize, &Dim)| dim.as_const().is_some_and(|size| size < 0);
            if let Some((axis, dim)) = extents().find(negative) {
                let reason =
                    format!("a result has extent {dim} on axis {axis} ({ty}): its operands are too small");
                return Err(super::refusal::operands(reason));
            }
            let known = extents().filter_map(|(_, dim)| dim.as_const()).filter(|extent| *extent != 0);
            let elements = known.fold(1i64, i64::saturating_mul);
            let empty = extents().any(|(_, dim)| dim.is(0));
            if !empty && elements > MOST_ELEMENTS {
                return Err(super::refusal::operands(format!(
                    "a result of type {ty} is larger than any memory"
                )));
            }
            if tensor.rank() > MOST_AXES {
                let reason = format!("a result has {} axes; tcc has {MOST_AXES} at most", tensor.rank());
                return Err(unsupported(reason));
            }
        }
        Ok(())
    }

    /// What to do about sizes that do not fit, where sizes can be chosen.
    fn advice_on_sizes(&self) -> String {
        let fixed = self.options.dims.iter().filter(|(_, range)| range.low == range.high);
        let fixed: Vec<String> = fixed.map(|(name, range)| format!("--dim {name}={}", range.low)).collect();
        if fixed.is_empty() {
            String::new()
        } else {
            format!("; other sizes than {} may fit", fixed.join(" "))
        }
    }

    /// Records that two dimensions must be equal at run time; refuses numbers that are not.
    pub(crate) fn require_equal(&mut self, a: Dim, b: Dim, what: &str) -> Result<(), Refusal> {
        if let (Some(a), Some(b)) = (a.as_const(), b.as_const())
            && a != b
        {
            return Err(super::refusal::operands(format!("{what}: {a} and {b} differ")));
        }
        self.builder.require_equal(a, b);
        Ok(())
    }

    /// Requires that there is something to read along an axis of this extent where `count` elements are read.
    pub(crate) fn require_filled(&mut self, extent: &Dim, count: &Dim) -> Result<(), Refusal> {
        if self.bounds(extent).low > 0 || count.is(0) {
            return Ok(());
        }
        let one = Dim::Const(1);
        let missing = count.minimum(&one) - extent.minimum(&one);
        self.require_equal(missing.maximum(&Dim::Const(0)), Dim::Const(0), "elements read from an empty axis")
    }

    fn lower(&mut self, node: &Node) -> Lowered {
        let lowering = table::find(&node.id)?;
        if let Some(defined) = attributes::defined(&node.id.domain, &node.id.operator)
            && let Some(name) = node.attributes.keys().find(|name| !defined.contains(&name.as_str()))
        {
            return Err(unsupported(format!("attribute '{name}' is not known for this operator")));
        }
        if let Some(most) = arity::most_operands(&node.id.domain, &node.id.operator, node.id.opset)
            && let Some(last) = node.inputs.iter().rposition(|name| !name.is_empty())
            && last >= most
        {
            let (what, found, expected) = ("inputs", last + 1, format!("at most {most}"));
            return Err(NodeError::Count { what, found, expected }.into());
        }
        for name in node.inputs.iter().filter(|name| !name.is_empty()) {
            if matches!(self.scopes.get(name), Some((_, Binding::Refused))) {
                return Err(Refusal::Depends);
            }
        }
        if let Some(known) = known_operators::evaluate(self, node)? {
            return Ok(known.into_iter().map(Binding::Known).collect());
        }
        lowering(self, node)
    }

    /// The type of a graph input.
    fn input_type(&mut self, input: &ValueInfo) -> Result<Type, OnnxError> {
        self.declared_type(&input.name, &input.value_type)
            .map_err(|reason| OnnxError::Value { value: input.name.clone(), reason })
    }

    /// The IR type of a declared type; unnamed dimensions become symbols called after `hint`.
    pub(crate) fn declared_type(&mut self, hint: &str, declared: &ValueType) -> Result<Type, String> {
        match declared {
            ValueType::Tensor { element, shape } => {
                let dtype = dtype(*element)
                    .ok_or_else(|| format!("element type {} is not supported", element.as_str_name()))?;
                let shape = shape.as_ref().ok_or("its rank is not declared")?;
                let dims = shape.iter().enumerate().map(|(axis, dim)| self.dimension(hint, axis, dim));
                Ok(Type::tensor(dtype, dims.collect::<Result<_, _>>()?))
            }
            ValueType::Sequence(element) => Ok(Type::Sequence(Box::new(self.declared_type(hint, element)?))),
            ValueType::Optional(element) => Ok(Type::Optional(Box::new(self.declared_type(hint, element)?))),
            ValueType::Other(kind) => Err(format!("values of type {kind} are not supported")),
            ValueType::Undeclared => Err("its type is not declared".into()),
        }
    }

    fn dimension(&mut self, hint: &str, axis: usize, dim: &Dimension) -> Result<Dim, String> {
        let name = match dim {
            Dimension::Size(size) => {
                return i64::try_from(*size)
                    .map(Dim::Const)
                    .map_err(|_| format!("dimension {axis} is {size}"));
            }
            Dimension::Symbol(name) => name.clone(),
            Dimension::Unknown => format!("{hint}_{axis}"),
        };
        self.dimension_names.insert(name.clone());
        let range = self.options.dims.get(&name).copied().unwrap_or_default();
        if range.low == range.high {
            return Ok(Dim::Const(range.low));
        }
        if let Some(symbol) = self.symbols.get(&name) {
            return Ok(Dim::symbol(symbol));
        }
        let mut text = identifier(&name);
        while self.symbols.values().any(|symbol| symbol.name() == text) {
            text.push('_');
        }
        let symbol = Symbol::new(&text);
        self.builder.declare(&symbol, range);
        self.symbols.insert(name, symbol.clone());
        Ok(Dim::symbol(&symbol))
    }

    /// The binding of a stored tensor.
    pub(crate) fn constant(&self, name: &str, tensor: &Tensor) -> Result<Binding, OnnxError> {
        let refused = |reason: String| OnnxError::Value { value: name.to_owned(), reason };
        to_data(tensor).map(Binding::Data).map_err(|refusal| match refusal {
            Refusal::Invalid(error) => refused(error.to_string()),
            Refusal::Unsupported(reason) | Refusal::Branches(reason) => refused(reason),
            _ => refused("the tensor is not supported".into()),
        })
    }

    /// The value of a name, as an operation where it is a constant or known.
    pub(crate) fn named(&mut self, name: &str) -> Result<Value, Refusal> {
        let Some((identity, binding)) = self.scopes.get(name) else {
            return Err(Refusal::Invalid(NodeError::Operands(format!("'{name}' is not defined"))));
        };
        let binding = match binding {
            Binding::Value(value) => return Ok(*value),
            Binding::Refused => return Err(Refusal::Depends),
            other => other.clone(),
        };
        if let Some(value) = self.scopes.materialized(identity) {
            return Ok(value);
        }
        let value = self.materialize(&binding)?;
        self.scopes.remember(identity, value);
        Ok(value)
    }

    /// An operation that makes a binding's value.
    pub(crate) fn materialize(&mut self, binding: &Binding) -> Result<Value, Refusal> {
        match binding {
            Binding::Value(value) => Ok(*value),
            Binding::Refused => Err(Refusal::Depends),
            Binding::Data(data) => Ok(self.builder.constant(data.clone())?),
            Binding::Known(known) => {
                if let Some(data) = known.to_data() {
                    return Ok(self.builder.constant(data)?);
                }
                let dims =
                    known.dims().ok_or_else(|| unsupported("arithmetic that mixes sizes with fractions"))?;
                let flat = self.builder.op1(Operator::Dims { dims }, &[])?;
                let shape = known.shape.iter().map(|&size| Dim::from(size)).collect();
                let shaped = self.builder.reshape(flat, shape)?;
                Ok(self.builder.cast(shaped, known.dtype)?)
            }
        }
    }

    /// A required operand.
    pub(crate) fn operand(
        &mut self,
        node: &Node,
        index: usize,
        name: &'static str,
    ) -> Result<Value, Refusal> {
        match node.input(index) {
            Some(value) => self.named(value),
            None => Err(Refusal::Invalid(NodeError::MissingInput { index, input: name })),
        }
    }

    /// An operand that may be left out.
    pub(crate) fn optional(&mut self, node: &Node, index: usize) -> Result<Option<Value>, Refusal> {
        node.input(index).map(|value| self.named(value)).transpose()
    }

    /// All operands, none left out.
    pub(crate) fn operands(&mut self, node: &Node) -> Result<Vec<Value>, Refusal> {
        (0..node.inputs.len()).map(|index| self.operand(node, index, "operand")).collect()
    }

    /// The elements of an operand, where they are known; `None` also where it is left out.
    pub(crate) fn known(&self, node: &Node, index: usize) -> Option<Known> {
        match self.scopes.get(node.input(index)?)?.1 {
            Binding::Known(known) => Some(known.clone()),
            Binding::Data(data) => Known::from_data(data),
            Binding::Value(_) | Binding::Refused => None,
        }
    }

    /// The contents of an operand, where it is a constant.
    pub(crate) fn data(&self, node: &Node, index: usize) -> Option<Data> {
        match self.scopes.get(node.input(index)?)?.1 {
            Binding::Known(known) => known.to_data(),
            Binding::Data(data) => Some(data.clone()),
            Binding::Value(_) | Binding::Refused => None,
        }
    }

    /// The constant integers of an operand; `None` where it is left out.
    pub(crate) fn integers(
        &self,
        node: &Node,
        operand: usize,
        name: &'static str,
    ) -> Result<Option<Vec<i64>>, Refusal> {
        if node.input(operand).is_none() {
            return Ok(None);
        }
        let known = self.known(node, operand).and_then(|known| known.integers());
        known.map(Some).ok_or(Refusal::RunTime { operand, name })
    }

    /// The constant numbers of an operand; `None` where it is left out.
    pub(crate) fn numbers(
        &self,
        node: &Node,
        operand: usize,
        name: &'static str,
    ) -> Result<Option<Vec<f64>>, Refusal> {
        if node.input(operand).is_none() {
            return Ok(None);
        }
        let known = self.known(node, operand).and_then(|known| known.numbers());
        known.map(Some).ok_or(Refusal::RunTime { operand, name })
    }

    /// Shape of an operand, without making an operation for it.
    pub(crate) fn shape_of(&self, name: &str) -> Option<Vec<Dim>> {
        match self.scopes.get(name)?.1 {
            Binding::Value(value) => self.builder.shape(*value).ok(),
            Binding::Data(data) => Some(data.shape().iter().map(|&size| Dim::from(size)).collect()),
            Binding::Known(known) => Some(known.shape.iter().map(|&size| Dim::from(size)).collect()),
            Binding::Refused => None,
        }
    }

    /// Element type of a binding, without making an operation for it.
    pub(crate) fn binding_dtype(&self, binding: &Binding) -> Option<DType> {
        match binding {
            Binding::Value(value) => self.builder.dtype(*value).ok(),
            Binding::Data(data) => Some(data.dtype()),
            Binding::Known(known) => Some(known.dtype),
            Binding::Refused => None,
        }
    }

    /// Shape of a value.
    pub(crate) fn shape(&self, value: Value) -> Result<Vec<Dim>, Refusal> {
        Ok(self.builder.shape(value)?)
    }

    /// Element type of a value.
    pub(crate) fn dtype(&self, value: Value) -> Result<DType, Refusal> {
        Ok(self.builder.dtype(value)?)
    }

    /// The range of a symbol.
    pub(crate) fn range_of(&self, symbol: &Symbol) -> Range {
        self.builder.function().range_of(symbol)
    }

    /// Bounds of a dimension over all values of its symbols.
    pub(crate) fn bounds(&self, dim: &Dim) -> Range {
        dim.bounds(&|symbol| self.range_of(symbol))
    }
}

/// One result.
pub(crate) fn one(value: Value) -> Lowered {
    Ok(vec![Binding::Value(value)])
}

/// The contents of a stored tensor as the IR holds them: numbers are referenced, text is copied.
pub(crate) fn to_data(tensor: &Tensor) -> Result<Data, Refusal> {
    let element = tensor.element;
    let dtype =
        dtype(element).ok_or_else(|| unsupported(format!("element type {}", element.as_str_name())))?;
    let shape: Vec<usize> = tensor.dims.iter().map(|&size| size as usize).collect();
    match &tensor.payload {
        Payload::Bytes(bytes) => Ok(Data::new(dtype, &shape, bytes.clone())?),
        Payload::Strings(texts) => {
            let texts: Result<Vec<&str>, _> = texts.iter().map(|text| std::str::from_utf8(text)).collect();
            let texts = texts.map_err(|_| unsupported("text that is not UTF-8"))?;
            Ok(Data::from_texts(&shape, &texts)?)
        }
    }
}

/// A name as the text form of the IR writes symbols: letters, digits and underscores.
fn identifier(name: &str) -> String {
    let mut text: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        text.insert(0, '_');
    }
    text
}
