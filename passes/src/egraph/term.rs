//! Expressions over classes that rules produce, and their type-checked insertion.

use std::sync::Arc;

use egg::Id;
use tcc_ir::data::Data;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Function, Scalar, ScalarOp};

use super::analysis::{Facts, Graph, Lookup};
use super::language::{Node, is_commutative};

/// An expression whose leaves are classes of the e-graph.
#[derive(Clone, Debug)]
pub enum Term {
    /// A class that is there.
    Class(Id),
    /// An operator with attributes on operands.
    Apply(Operator, Vec<Term>),
    /// An elementwise scalar function on broadcasting operands.
    Scalar(ScalarOp, Vec<Term>),
    /// One result of an operator with several.
    Result(u32, Box<Term>),
    /// A tensor known at compile time.
    Constant(Data),
    /// An attribute leaf.
    Attributes(Operator),
}

impl Term {
    /// A scalar function call.
    pub fn call(function: Function, operands: impl IntoIterator<Item = Term>) -> Term {
        Term::Scalar(ScalarOp::Call(function), operands.into_iter().collect())
    }

    /// An operator on operands.
    pub fn apply(operator: Operator, operands: impl IntoIterator<Item = Term>) -> Term {
        Term::Apply(operator, operands.into_iter().collect())
    }

    /// A rank-0 constant; none for types that have no scalar form.
    pub fn number(scalar: Scalar) -> Option<Term> {
        tcc_ir::convert::scalar_data(scalar).ok().map(Term::Constant)
    }

    /// `transpose` with `perm`, or the operand itself where that is the identity.
    pub fn transpose(perm: Vec<usize>, x: Term) -> Term {
        if perm.iter().enumerate().all(|(index, axis)| index == *axis) {
            x
        } else {
            Term::Apply(Operator::Transpose { perm }, vec![x])
        }
    }

    /// `reshape` to `shape`, or the operand itself where it has that shape.
    pub fn reshape(graph: &Graph, shape: Vec<tcc_ir::dim::Dim>, x: Id) -> Term {
        match graph.tensor(x) {
            Some(tensor) if tensor.shape == shape => Term::Class(x),
            _ => Term::Apply(Operator::Reshape { shape }, vec![Term::Class(x)]),
        }
    }
}

impl From<Id> for Term {
    fn from(id: Id) -> Term {
        Term::Class(id)
    }
}

/// Adds a node in normal form: constants are the second argument of commutative functions. `None` where its operands
/// do not fit.
pub fn add_checked(graph: &mut Graph, mut node: Node) -> Option<Id> {
    if let Node::Scalar(ScalarOp::Call(function), children) = &mut node
        && is_commutative(*function)
        && children.len() == 2
    {
        let constant = |id: Id| graph.values(id).is_some_and(|values| values.constant);
        if constant(children[0]) && !constant(children[1]) {
            children.swap(0, 1);
        }
    }
    if let Some(id) = graph.lookup(node.clone()) {
        return (!matches!(graph[id].data, Facts::Invalid)).then_some(id);
    }
    if !matches!(node, Node::Attributes(_)) {
        graph.infer_node(&node)?;
    }
    Some(graph.add(node))
}

/// Adds an expression; `None` where types do not fit. What was added until then stays, unreachable and harmless.
pub fn insert(graph: &mut Graph, term: &Term) -> Option<Id> {
    match term {
        Term::Class(id) => Some(graph.find(*id)),
        Term::Apply(operator, operands) => {
            let operands = operands.iter().map(|term| insert(graph, term)).collect::<Option<Vec<Id>>>()?;
            let attributes = graph.add(Node::Attributes(Arc::new(operator.clone())));
            add_checked(graph, Node::apply(operator.kind(), attributes, operands))
        }
        Term::Scalar(op, operands) => {
            let operands = operands.iter().map(|term| insert(graph, term)).collect::<Option<Vec<Id>>>()?;
            add_checked(graph, Node::scalar(*op, operands))
        }
        Term::Result(index, tuple) => {
            let tuple = insert(graph, tuple)?;
            add_checked(graph, Node::Result(*index, [tuple]))
        }
        Term::Constant(data) => {
            let place = graph.analysis.constant(data);
            Some(graph.add(Node::Constant(place)))
        }
        Term::Attributes(operator) => Some(graph.add(Node::Attributes(Arc::new(operator.clone())))),
    }
}

/// Adds an expression to a class; false where its type is another one or nothing was new.
pub fn insert_into(graph: &mut Graph, class: Id, term: &Term) -> bool {
    match insert(graph, term) {
        Some(id) => unite(graph, class, id),
        None => false,
    }
}

/// Declares two classes equal where their types are; true where that is new.
pub fn unite(graph: &mut Graph, class: Id, id: Id) -> bool {
    match (graph.values(class), graph.values(id)) {
        (Some(a), Some(b)) if a.types == b.types => graph.union(class, id),
        _ => false,
    }
}
