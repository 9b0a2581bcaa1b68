//! From a region to an e-graph.
//!
//! Bodies of maps, prologues and epilogues come apart into single scalar functions, so that rules see one normal form;
//! fusion puts them together again. Operations with effects or regions stay as they are, as *anchors* in their order:
//! their results are leaves, their operands roots. What the region takes from outside is a leaf, constants excepted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use egg::Id;
use tcc_ir::data::Data;
use tcc_ir::module::{Function, Location, Operation, Region, Value};
use tcc_ir::operator::{Operator, OperatorKind};
use tcc_ir::scalar::{Arg, ScalarExpr};
use tcc_ir::types::Type;

use super::analysis::{Graph, Lookup, TensorAnalysis};
use super::language::Node;
use super::term::add_checked;

/// An operation that keeps its place.
pub struct Anchor {
    /// The operation as it was.
    pub operation: Operation,
    /// Classes of its operands.
    pub operands: Vec<Id>,
    /// Values that its regions take from this one, with their classes.
    pub captured: Vec<(Value, Id)>,
}

/// A region as an e-graph.
pub struct Encoding {
    /// The classes.
    pub graph: Graph,
    /// What each leaf stands for.
    pub leaves: Vec<Value>,
    /// Operations with effects, in order.
    pub anchors: Vec<Anchor>,
    /// Classes of the region's results.
    pub results: Vec<Id>,
    /// Source locations of classes.
    pub locations: Vec<(Id, Location)>,
    values: HashMap<Value, Id>,
}

impl Encoding {
    /// Classes that must be computed: operands of anchors, then the results.
    pub fn roots(&self) -> Vec<Id> {
        let anchors = self.anchors.iter().flat_map(|anchor| {
            anchor.operands.iter().copied().chain(anchor.captured.iter().map(|(_, id)| *id))
        });
        anchors.chain(self.results.iter().copied()).collect()
    }
}

/// Encodes a region. `constants` are the compile-time tensors of the regions around it.
pub fn encode(function: &Function, region: &Region, constants: &HashMap<Value, Data>) -> Encoding {
    let mut encoding = Encoding {
        graph: Graph::new(TensorAnalysis::default()),
        leaves: Vec::new(),
        anchors: Vec::new(),
        results: Vec::new(),
        locations: Vec::new(),
        values: HashMap::new(),
    };
    for param in &region.params {
        encoding.leaf(function, *param);
    }
    for operation in &region.operations {
        encoding.operation(function, operation, constants);
    }
    encoding.results =
        region.results.iter().map(|value| encoding.value(function, *value, constants)).collect();
    encoding.graph.rebuild();
    encoding
}

impl Encoding {
    fn leaf(&mut self, function: &Function, value: Value) -> Id {
        let place = self.graph.analysis.leaf(function.type_of(value).clone());
        self.leaves.push(value);
        let id = self.graph.add(Node::Leaf(place));
        self.values.insert(value, id);
        id
    }

    fn value(&mut self, function: &Function, value: Value, constants: &HashMap<Value, Data>) -> Id {
        if let Some(id) = self.values.get(&value) {
            return *id;
        }
        match constants.get(&value) {
            Some(data) => {
                let id = self.constant(data);
                self.values.insert(value, id);
                id
            }
            None => self.leaf(function, value),
        }
    }

    fn constant(&mut self, data: &Data) -> Id {
        let place = self.graph.analysis.constant(data);
        self.graph.add(Node::Constant(place))
    }

    fn operation(&mut self, function: &Function, operation: &Operation, constants: &HashMap<Value, Data>) {
        let operands: Vec<Id> =
            operation.operands.iter().map(|value| self.value(function, *value, constants)).collect();
        let types: Vec<Type> =
            operation.results.iter().map(|value| function.type_of(*value).clone()).collect();
        if let Some(results) = self.pure(operation, &operands, &types) {
            for (value, id) in operation.results.iter().zip(results) {
                self.values.insert(*value, id);
                self.locations.push((id, operation.location.clone()));
            }
            return;
        }
        let captured = captured_values(operation)
            .into_iter()
            .map(|value| (value, self.value(function, value, constants)))
            .collect();
        self.anchors.push(Anchor { operation: operation.clone(), operands, captured });
        for result in &operation.results {
            self.leaf(function, *result);
        }
    }

    /// Classes of the results of an operation without effects; `None` where it has effects, or where its declared types
    /// are not the inferred ones.
    fn pure(&mut self, operation: &Operation, operands: &[Id], types: &[Type]) -> Option<Vec<Id>> {
        if !operation.operator.describe().pure_function || !operation.regions.is_empty() {
            return None;
        }
        if let Operator::Constant { data } = &operation.operator {
            return Some(vec![self.constant(data)]);
        }
        let id = match types {
            [ty] => {
                let id = self.unfused(&operation.operator, operands, ty)?;
                return (self.graph.values(id)?.types[..] == *types).then(|| vec![id]);
            }
            _ => self.plain(&operation.operator, operands)?,
        };
        if self.graph.values(id)?.types[..] != *types {
            return None;
        }
        (0..types.len() as u32).map(|index| add_checked(&mut self.graph, Node::Result(index, [id]))).collect()
    }

    fn plain(&mut self, operator: &Operator, operands: &[Id]) -> Option<Id> {
        let attributes = self.graph.add(Node::Attributes(Arc::new(operator.clone())));
        add_checked(&mut self.graph, Node::apply(operator.kind(), attributes, operands.iter().copied()))
    }

    /// The operator with its bodies taken apart.
    fn unfused(&mut self, operator: &Operator, operands: &[Id], ty: &Type) -> Option<Id> {
        let identity = ScalarExpr::identity();
        match operator {
            Operator::Map { body } => self.scalars(body, operands, Some(ty)),
            Operator::Contract { epilogue, .. }
            | Operator::Convolve { epilogue, .. }
            | Operator::ConvolveTranspose { epilogue, .. }
                if *epilogue != identity =>
            {
                let bare = self.plain(&with_epilogue(operator, identity)?, &operands[..2])?;
                let args: Vec<Id> = std::iter::once(bare).chain(operands[2..].iter().copied()).collect();
                self.scalars(epilogue, &args, Some(ty))
            }
            Operator::Normalize { epilogue, .. } if *epilogue != identity => {
                let bare = self.plain(&with_epilogue(operator, identity)?, &operands[..1])?;
                let args: Vec<Id> = std::iter::once(bare).chain(operands[1..].iter().copied()).collect();
                self.scalars(epilogue, &args, Some(ty))
            }
            Operator::Reduce { kind, axes, keep, prologue, epilogue } => {
                let split = (prologue.inputs as usize).clamp(1, operands.len());
                let x = self.scalars(prologue, &operands[..split], None)?;
                let (kind, axes, keep) = (*kind, axes.clone(), *keep);
                let bare =
                    Operator::Reduce { kind, axes, keep, prologue: identity.clone(), epilogue: identity };
                let bare = self.plain(&bare, &[x])?;
                let args: Vec<Id> = std::iter::once(bare).chain(operands[split..].iter().copied()).collect();
                self.scalars(epilogue, &args, Some(ty))
            }
            _ => self.plain(operator, operands),
        }
    }

    /// A scalar expression as single functions; broadcast to `ty` where its own operands do not reach it.
    fn scalars(&mut self, body: &ScalarExpr, operands: &[Id], ty: Option<&Type>) -> Option<Id> {
        let mut placed: Vec<Id> = Vec::with_capacity(body.nodes.len());
        for node in &body.nodes {
            let args = node
                .args
                .iter()
                .map(|arg| self.argument(arg, operands, &placed))
                .collect::<Option<Vec<Id>>>()?;
            placed.push(add_checked(&mut self.graph, Node::scalar(node.op, args))?);
        }
        let result = self.argument(&body.result, operands, &placed)?;
        match (ty, self.graph.tensor(result)) {
            (Some(Type::Tensor(wanted)), Some(found)) if wanted.shape != found.shape => {
                self.plain(&Operator::Broadcast { shape: wanted.shape.clone() }, &[result])
            }
            _ => Some(result),
        }
    }

    fn argument(&mut self, arg: &Arg, operands: &[Id], placed: &[Id]) -> Option<Id> {
        match arg {
            Arg::Input(index) => operands.get(*index as usize).copied(),
            Arg::Node(index) => placed.get(*index as usize).copied(),
            Arg::Const(scalar) => {
                let data = tcc_ir::convert::scalar_data(*scalar).ok()?;
                Some(self.constant(&data))
            }
        }
    }
}

/// The operator with another epilogue; `None` for operators without one.
pub fn with_epilogue(operator: &Operator, body: ScalarExpr) -> Option<Operator> {
    let mut changed = operator.clone();
    match &mut changed {
        Operator::Contract { epilogue, .. }
        | Operator::Convolve { epilogue, .. }
        | Operator::ConvolveTranspose { epilogue, .. }
        | Operator::Normalize { epilogue, .. }
        | Operator::Reduce { epilogue, .. } => *epilogue = body,
        _ => return None,
    }
    Some(changed)
}

/// Values that an operation's regions use and do not define, in order of their numbers.
pub fn captured_values(operation: &Operation) -> Vec<Value> {
    fn walk(region: &Region, used: &mut BTreeSet<Value>, defined: &mut BTreeSet<Value>) {
        defined.extend(&region.params);
        for operation in &region.operations {
            used.extend(&operation.operands);
            defined.extend(&operation.results);
            operation.regions.iter().for_each(|region| walk(region, used, defined));
        }
        used.extend(&region.results);
    }
    let (mut used, mut defined) = (BTreeSet::new(), BTreeSet::new());
    operation.regions.iter().for_each(|region| walk(region, &mut used, &mut defined));
    used.difference(&defined).copied().collect()
}

/// True for the scalar function nodes and for fused maps.
pub fn is_elementwise(node: &Node) -> bool {
    matches!(node, Node::Scalar(..) | Node::Apply(OperatorKind::Map, _))
}
