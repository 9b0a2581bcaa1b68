//! Branches whose results no type holds, such as a scalar and a vector: what follows the `If` goes into both of them, up to
//! the outputs of the graph, where types are usually the same again.

use super::super::error::OnnxError;
use super::super::graph::{Graph, Node};
use super::super::value::ValueInfo;
use super::context::Context;
use super::refusal::Refusal;
use super::scope::Binding;
use tcc_ir::module::{Region, Value};
use tcc_ir::operator::Operator;
use tcc_ir::types::Type;

/// What became of a node.
pub(super) enum Done {
    /// Its outputs are bound.
    Bound,
    /// It is an `If` whose branches do not join, for the reason that is given.
    NotJoined(String),
}

/// How many `If`s of a model may take in what follows, each copy of one counted: each imports the rest twice more.
const MOST_CONTINUED: usize = 16;

impl Context<'_> {
    /// Imports an `If` and the nodes after it as one `If` that gives the outputs of the graph.
    pub(super) fn continue_in_branches(
        &mut self,
        node: &Node,
        rest: &[Node],
        outputs: &[ValueInfo],
        reason: String,
    ) -> Result<(), OnnxError> {
        let joined = match self.continued < MOST_CONTINUED {
            true => self.continued_choice(node, rest, outputs),
            false => Err(Refusal::Branches(reason)),
        };
        match joined {
            Ok(values) => {
                for (output, value) in outputs.iter().zip(values) {
                    self.scopes.bind(&output.name, Binding::Value(value));
                }
                return Ok(());
            }
            Err(Refusal::Invalid(source)) => {
                return Err(OnnxError::Node { node: Box::new(node.id.clone()), source });
            }
            Err(Refusal::Nested(error)) => return Err(*error),
            Err(Refusal::Unsupported(reason) | Refusal::Branches(reason)) => self.refuse(node, reason, None),
            Err(Refusal::RunTime { .. } | Refusal::Depends) => {}
        }
        outputs.iter().for_each(|output| self.scopes.bind(&output.name, Binding::Refused));
        Ok(())
    }

    fn continued_choice(
        &mut self,
        node: &Node,
        rest: &[Node],
        outputs: &[ValueInfo],
    ) -> Result<Vec<Value>, Refusal> {
        self.continued += 1;
        let condition = self.operand(node, 0, "cond")?;
        self.check_condition(condition)?;
        let mut regions = Vec::new();
        for name in ["then_branch", "else_branch"] {
            let branch = node.graph(name)?.ok_or_else(|| Refusal::Unsupported(format!("no {name}")))?;
            regions.push(self.continued_branch(node, branch, rest, outputs)?);
        }
        let types: Result<Vec<Type>, Refusal> = regions[0]
            .results
            .iter()
            .zip(&regions[1].results)
            .map(|(a, b)| {
                let (a, b) = (self.builder.type_of(*a).clone(), self.builder.type_of(*b).clone());
                self.join(&a, &b)
            })
            .collect();
        let condition = self.builder.reshape(condition, Vec::new())?;
        Ok(self.builder.region_op(Operator::If {}, &[condition], regions, types?))
    }

    /// A branch and the rest of the graph as a region. What it requires of extents holds only where it is taken.
    fn continued_branch(
        &mut self,
        node: &Node,
        branch: &Graph,
        rest: &[Node],
        outputs: &[ValueInfo],
    ) -> Result<Region, Refusal> {
        let equalities = self.builder.equality_count();
        self.depth += 1;
        self.scopes.push();
        self.builder.begin_region(Vec::new());
        let outcome = self.continued_body(node, branch, rest, outputs);
        // The region is closed even where its body was refused, so that the builder is left in order.
        let region = self.builder.end_region(outcome.as_deref().unwrap_or_default());
        self.scopes.pop();
        self.leave_region();
        self.builder.take_back_equalities(equalities);
        outcome.map(|_| region)
    }

    fn continued_body(
        &mut self,
        node: &Node,
        branch: &Graph,
        rest: &[Node],
        outputs: &[ValueInfo],
    ) -> Result<Vec<Value>, Refusal> {
        let values = self.inline(branch)?;
        for (output, value) in node.outputs.iter().zip(values) {
            self.scopes.bind(output, value);
        }
        self.nodes(rest, outputs)?;
        outputs.iter().map(|output| self.named(&output.name)).collect()
    }
}
