//! The e-graph's language: tensor operators over a leaf with their attributes, and single scalar functions.
//!
//! `(convolve ?a ?x ?w)` binds `?a` to the leaf that holds the whole operator with its attributes. An elementwise map of
//! one scalar function has the function as its head: `(add ?x ?y)`. Results of an operator with several are projections,
//! `(result0 (top_k ?a ?x))`. Constants and values that the region does not compute are leaves by index.

use std::fmt;
use std::sync::Arc;

use egg::{FromOp, Id, Language};
use smallvec::SmallVec;
use tcc_ir::operator::{Operator, OperatorKind};
use tcc_ir::scalar::{Function, ScalarOp};

/// Child classes of a node.
pub type Children = SmallVec<[Id; 4]>;

/// One node of the e-graph.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Node {
    /// An operator: first child its attributes, then its operands.
    Apply(OperatorKind, Children),
    /// An elementwise scalar function of broadcasting operands.
    Scalar(ScalarOp, Children),
    /// One result of an operator that has several.
    Result(u32, [Id; 1]),
    /// An operator with its attributes, as a leaf.
    Attributes(Arc<Operator>),
    /// A tensor known at compile time, by its place in the constant table.
    Constant(u32),
    /// A value that this region does not compute, by its place in the leaf table.
    Leaf(u32),
}

/// What decides whether two nodes may match, before their children are looked at.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Head {
    /// Nodes of one operator.
    Apply(OperatorKind),
    /// Nodes of one scalar function.
    Scalar(ScalarOp),
    /// Projections to one position.
    Result(u32),
    /// Attribute leaves.
    Attributes,
    /// Constants.
    Constant,
    /// Values from outside.
    Leaf,
}

impl Node {
    /// An operator node.
    pub fn apply(kind: OperatorKind, attributes: Id, operands: impl IntoIterator<Item = Id>) -> Node {
        Node::Apply(kind, std::iter::once(attributes).chain(operands).collect())
    }

    /// A scalar function node.
    pub fn scalar(op: ScalarOp, operands: impl IntoIterator<Item = Id>) -> Node {
        Node::Scalar(op, operands.into_iter().collect())
    }

    /// Operand classes, without the attribute leaf.
    pub fn operands(&self) -> &[Id] {
        match self {
            Node::Apply(_, children) => &children[1..],
            other => other.children(),
        }
    }
}

/// True where the order of the two arguments does not matter.
pub fn is_commutative(function: Function) -> bool {
    use Function as F;
    matches!(
        function,
        F::Add
            | F::Mul
            | F::Max
            | F::Min
            | F::BitAnd
            | F::BitOr
            | F::BitXor
            | F::And
            | F::Or
            | F::Xor
            | F::Equal
    )
}

impl Language for Node {
    type Discriminant = Head;

    fn discriminant(&self) -> Head {
        match self {
            Node::Apply(kind, _) => Head::Apply(*kind),
            Node::Scalar(op, _) => Head::Scalar(*op),
            Node::Result(index, _) => Head::Result(*index),
            Node::Attributes(_) => Head::Attributes,
            Node::Constant(_) => Head::Constant,
            Node::Leaf(_) => Head::Leaf,
        }
    }

    fn matches(&self, other: &Node) -> bool {
        match (self, other) {
            (Node::Attributes(a), Node::Attributes(b)) => a == b,
            (Node::Constant(a), Node::Constant(b)) | (Node::Leaf(a), Node::Leaf(b)) => a == b,
            _ => self.discriminant() == other.discriminant() && self.len() == other.len(),
        }
    }

    fn children(&self) -> &[Id] {
        match self {
            Node::Apply(_, children) | Node::Scalar(_, children) => children,
            Node::Result(_, child) => child,
            Node::Attributes(_) | Node::Constant(_) | Node::Leaf(_) => &[],
        }
    }

    fn children_mut(&mut self) -> &mut [Id] {
        match self {
            Node::Apply(_, children) | Node::Scalar(_, children) => children,
            Node::Result(_, child) => child,
            Node::Attributes(_) | Node::Constant(_) | Node::Leaf(_) => &mut [],
        }
    }
}

/// A pattern names an operator that is not in the table, or gives it the wrong number of children.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{0}' with {1} children is no node of the language")]
pub struct UnknownHead(String, usize);

impl FromOp for Node {
    type Error = UnknownHead;

    fn from_op(op: &str, children: Vec<Id>) -> Result<Node, UnknownHead> {
        let unknown = || UnknownHead(op.to_string(), children.len());
        if let (Some(index), [child]) = (op.strip_prefix("result"), &children[..]) {
            return Ok(Node::Result(index.parse().map_err(|_| unknown())?, [*child]));
        }
        if let Some(kind) = OperatorKind::ALL.iter().find(|kind| kind.describe().name == op) {
            return if children.is_empty() {
                Err(unknown())
            } else {
                Ok(Node::Apply(*kind, children.into()))
            };
        }
        match op.parse::<ScalarOp>() {
            Ok(scalar) if !children.is_empty() => Ok(Node::Scalar(scalar, children.into())),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Apply(kind, _) => f.write_str(kind.describe().name),
            Node::Scalar(op, _) => write!(f, "{op}"),
            Node::Result(index, _) => write!(f, "result{index}"),
            Node::Attributes(operator) => write!(f, "#{}", operator.name()),
            Node::Constant(index) => write!(f, "c{index}"),
            Node::Leaf(index) => write!(f, "x{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egg::Pattern;

    #[test]
    fn patterns_are_text() {
        let pattern: Pattern<Node> = "(add (convolve ?a ?x ?w) (cast<f16> ?b))".parse().unwrap();
        assert_eq!(pattern.to_string(), "(add (convolve ?a ?x ?w) (cast<f16> ?b))");
        assert!("(convolved ?a ?x)".parse::<Pattern<Node>>().is_err());
    }

    #[test]
    fn operator_and_function_names_are_disjoint() {
        for kind in OperatorKind::ALL {
            assert!(kind.describe().name.parse::<ScalarOp>().is_err(), "{}", kind.describe().name);
        }
    }
}
