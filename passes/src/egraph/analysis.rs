//! What the e-graph knows of each class: attributes, types, and whether the value is known at compile time.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use egg::{Analysis, DidMerge, EGraph, Id};
use tcc_ir::data::Data;
use tcc_ir::infer::infer;
use tcc_ir::operator::{Operator, OperatorKind};
use tcc_ir::scalar::{Arg, Scalar, ScalarExpr, ScalarOp};
use tcc_ir::types::{TensorType, Type};

use super::language::Node;
use crate::constant_folding;

/// The e-graph over tensor operators.
pub type Graph = EGraph<Node, TensorAnalysis>;

/// Largest constant that is computed while rules run, so that they see its value; larger ones are folded at the end.
const EAGER_BYTES: usize = 1 << 10;

/// Tables behind the leaves.
#[derive(Default)]
pub struct TensorAnalysis {
    constants: Vec<Data>,
    places: HashMap<Data, u32>,
    leaves: Vec<Type>,
}

impl TensorAnalysis {
    /// Place of a constant in the table; equal contents share one.
    pub fn constant(&mut self, data: &Data) -> u32 {
        if let Some(place) = self.places.get(data) {
            return *place;
        }
        let place = self.constants.len() as u32;
        self.constants.push(data.clone());
        self.places.insert(data.clone(), place);
        place
    }

    /// Contents of a constant.
    pub fn data(&self, place: u32) -> &Data {
        &self.constants[place as usize]
    }

    /// Place of a new value from outside.
    pub fn leaf(&mut self, ty: Type) -> u32 {
        self.leaves.push(ty);
        self.leaves.len() as u32 - 1
    }
}

/// Facts about the values of a class.
#[derive(Clone, PartialEq, Debug)]
pub struct Values {
    /// Result types; more than one for a class of operators with several results.
    pub types: Arc<[Type]>,
    /// True where compile-time evaluation gives the value without making it much larger than what it comes from.
    pub constant: bool,
    /// The value, where it has been evaluated.
    pub known: Option<Data>,
    /// The number that every element has.
    pub splat: Option<Scalar>,
}

/// Facts about a class.
#[derive(Clone, PartialEq, Debug)]
pub enum Facts {
    /// An attribute leaf.
    Attributes(Arc<Operator>),
    /// A tensor, or the results of one operator.
    Values(Values),
    /// A node whose operands do not fit; no rule result keeps such a node.
    Invalid,
}

impl Facts {
    /// The facts of values.
    pub fn values(&self) -> Option<&Values> {
        match self {
            Facts::Values(values) => Some(values),
            _ => None,
        }
    }
}

/// The number that every element of `data` has; none for empty tensors.
pub fn splat_of(data: &Data) -> Option<Scalar> {
    let first = tcc_ir::convert::element(data, 0)?;
    let size = data.dtype().size();
    let uniform = if data.dtype().is_packed() {
        data.count() == 1
    } else {
        data.bytes().chunks_exact(size).all(|chunk| chunk == &data.bytes()[..size])
    };
    uniform.then_some(first)
}

/// The map operator of one scalar function.
pub fn scalar_map(op: ScalarOp, arity: usize) -> Operator {
    let mut body = ScalarExpr::with_inputs(arity);
    let args: Vec<Arg> = (0..arity as u16).map(Arg::Input).collect();
    body.result = body.push(op, &args);
    Operator::Map { body }
}

/// Reading an e-graph.
pub trait Lookup {
    /// Attributes of an attribute leaf's class.
    fn operator(&self, id: Id) -> Option<&Operator>;
    /// Type of a class with one tensor.
    fn tensor(&self, id: Id) -> Option<&TensorType>;
    /// Facts of a class of values.
    fn values(&self, id: Id) -> Option<&Values>;
    /// Result types of a node from its children's classes.
    fn infer_node(&self, node: &Node) -> Option<Arc<[Type]>>;
}

impl Lookup for Graph {
    fn operator(&self, id: Id) -> Option<&Operator> {
        match &self[id].data {
            Facts::Attributes(operator) => Some(operator),
            _ => None,
        }
    }

    fn tensor(&self, id: Id) -> Option<&TensorType> {
        match &*self.values(id)?.types {
            [Type::Tensor(tensor)] => Some(tensor),
            _ => None,
        }
    }

    fn values(&self, id: Id) -> Option<&Values> {
        self[id].data.values()
    }

    fn infer_node(&self, node: &Node) -> Option<Arc<[Type]>> {
        let single = |id: &Id| match &*self.values(*id)?.types {
            [ty] => Some(ty),
            _ => None,
        };
        match node {
            Node::Apply(kind, children) => {
                let operator = self.operator(children[0])?;
                if operator.kind() != *kind {
                    return None;
                }
                let operands = children[1..].iter().map(single).collect::<Option<Vec<&Type>>>()?;
                infer(operator, &operands).ok().map(|inferred| inferred.results.into())
            }
            Node::Scalar(op, children) => {
                let operands = children.iter().map(single).collect::<Option<Vec<&Type>>>()?;
                infer(&scalar_map(*op, children.len()), &operands)
                    .ok()
                    .map(|inferred| inferred.results.into())
            }
            Node::Result(index, [tuple]) => {
                let ty = self.values(*tuple)?.types.get(*index as usize)?;
                Some(Arc::from([ty.clone()]))
            }
            Node::Constant(place) => {
                let data = self.analysis.data(*place);
                let shape = data.shape().iter().map(|extent| (*extent).into()).collect();
                Some(Arc::from([Type::tensor(data.dtype(), shape)]))
            }
            Node::Leaf(place) => Some(Arc::from([self.analysis.leaves[*place as usize].clone()])),
            Node::Attributes(_) => None,
        }
    }
}

/// Bytes of a tensor of static shape.
fn static_bytes(ty: &Type) -> Option<usize> {
    let tensor = ty.as_tensor()?;
    let count =
        tensor.static_shape()?.iter().try_fold(1usize, |product, extent| product.checked_mul(*extent))?;
    tensor.dtype().bytes_for(count)
}

/// True where attributes hold a dimension that only the run knows.
fn depends_on_symbols(graph: &Graph, node: &Node) -> bool {
    let Node::Apply(_, children) = node else { return false };
    let Some(operator) = graph.operator(children[0]) else { return true };
    let symbolic = Cell::new(false);
    operator.clone().map_dims(&|dim| {
        symbolic.set(symbolic.get() || dim.as_const().is_none());
        dim.clone()
    });
    symbolic.get()
}

fn facts_of(graph: &Graph, node: &Node) -> Facts {
    if let Node::Attributes(operator) = node {
        return Facts::Attributes(operator.clone());
    }
    let Some(types) = graph.infer_node(node) else { return Facts::Invalid };
    if let Node::Constant(place) = node {
        let data = graph.analysis.data(*place);
        return Facts::Values(Values {
            types,
            constant: true,
            known: Some(data.clone()),
            splat: splat_of(data),
        });
    }
    let mut facts = Values { types, constant: false, known: None, splat: None };
    if matches!(node, Node::Leaf(_)) {
        return Facts::Values(facts);
    }
    let Some(operands) = node.operands().iter().map(|id| graph.values(*id)).collect::<Option<Vec<&Values>>>()
    else {
        return Facts::Invalid;
    };
    // A projection's operand is the whole tuple; its size says nothing new.
    let small = match node {
        Node::Result(..) => true,
        _ => {
            let result: Option<usize> = facts.types.iter().map(static_bytes).sum();
            let inputs: usize =
                operands.iter().flat_map(|values| values.types.iter()).filter_map(static_bytes).sum();
            result.is_some_and(|bytes| constant_folding::within_bounds(bytes, inputs))
        }
    };
    // Kernels read block-quantized weights as they are.
    let stays = matches!(node, Node::Apply(OperatorKind::DecodeBlocks, _));
    facts.constant =
        small && !stays && operands.iter().all(|values| values.constant) && !depends_on_symbols(graph, node);
    let eager =
        facts.types.len() == 1 && static_bytes(&facts.types[0]).is_some_and(|bytes| bytes <= EAGER_BYTES);
    if facts.constant && eager {
        let operator = match node {
            Node::Apply(_, children) => graph.operator(children[0]).cloned(),
            Node::Scalar(op, children) => Some(scalar_map(*op, children.len())),
            _ => None,
        };
        let data = operands
            .iter()
            .map(|values| values.known.clone().filter(|data| data.bytes().len() <= 4 * EAGER_BYTES))
            .collect::<Option<Vec<Data>>>();
        if let (Some(operator), Some(data)) = (operator, data)
            && let Some(result) = constant_folding::evaluate(&operator, &data)
        {
            facts.splat = splat_of(&result);
            facts.known = Some(result);
        }
    }
    if facts.known.is_none()
        && let Node::Apply(_, children) = node
        && let Some(Operator::Broadcast { .. } | Operator::Reshape { .. } | Operator::Transpose { .. }) =
            graph.operator(children[0])
    {
        facts.splat = operands[0].splat;
    }
    Facts::Values(facts)
}

impl Analysis<Node> for TensorAnalysis {
    type Data = Facts;

    fn make(graph: &mut Graph, node: &Node, _id: Id) -> Facts {
        facts_of(graph, node)
    }

    fn merge(&mut self, to: &mut Facts, from: Facts) -> DidMerge {
        match (to, from) {
            (Facts::Values(a), Facts::Values(b)) => {
                let before = a.clone();
                a.constant |= b.constant;
                a.known = a.known.take().or_else(|| b.known.clone());
                a.splat = a.splat.or(b.splat);
                let differs = |x: &Values, y: &Values| {
                    x.constant != y.constant || x.known.is_some() != y.known.is_some() || x.splat != y.splat
                };
                DidMerge(differs(a, &before), differs(a, &b))
            }
            (to @ Facts::Invalid, from) => {
                let changed = from != Facts::Invalid;
                *to = from;
                DidMerge(changed, false)
            }
            _ => DidMerge(false, true),
        }
    }

    fn modify(graph: &mut Graph, id: Id) {
        let Some(Values { known: Some(data), .. }) = graph.values(id) else { return };
        let data = data.clone();
        let place = graph.analysis.constant(&data);
        let node = Node::Constant(place);
        if graph.lookup(node.clone()).map(|class| graph.find(class)) != Some(graph.find(id)) {
            let constant = graph.add(node);
            graph.union(id, constant);
        }
    }
}
