//! Fusion alternatives: maps into maps, maps into epilogues, maps into the prologues of reductions.
//!
//! The number of fused versions of a graph is exponential, so alternatives are bounded: for each class of the selection
//! at hand, the largest group of elementwise producers that nothing outside the group uses, the same kept to producers
//! of the root's shape, and the same with cheap shared producers computed again. Each group becomes one map, and one
//! epilogue for each contraction-like operand that only the group uses. Extraction decides between all of them and the
//! unfused nodes.

use std::collections::{BTreeSet, HashMap};

use egg::Id;
use tcc_ir::operator::{Operator, OperatorKind};
use tcc_ir::scalar::{Arg, ScalarExpr, ScalarOp};
use tcc_ir::types::TensorType;

use super::analysis::{Graph, Lookup};
use super::encode::with_epilogue;
use super::extract::Selection;
use super::language::Node;
use super::price::is_compile_time;
use crate::cost::scalar_work;

/// Largest number of scalar nodes in one fused body.
pub const BODY_LIMIT: usize = 64;
/// Largest number of tensor operands of one fused operation.
pub const OPERAND_LIMIT: usize = 12;
/// Largest scalar work of a shared producer that is computed again instead of stored.
const CHEAP_WORK: f64 = 2.0;
/// Largest number of scalar nodes that one group computes again.
const RECOMPUTED_LIMIT: usize = 3;

/// A fused operation that computes a class.
pub struct Fused {
    /// The class.
    pub class: Id,
    /// The operator with the composed body.
    pub operator: Operator,
    /// Its operands.
    pub operands: Vec<Id>,
    /// Classes that it computes on the way, for their names; the root last.
    pub absorbed: Vec<Id>,
}

/// Which producers a group takes in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    SameShape,
    AnyShape,
    Shared,
}

/// Elementwise classes that one body computes.
struct Group {
    all: BTreeSet<Id>,
    /// Those that nothing outside needs; the others are computed again.
    own: BTreeSet<Id>,
}

struct Fusion<'a> {
    graph: &'a Graph,
    selection: &'a Selection,
    position: HashMap<Id, usize>,
    users: HashMap<Id, Vec<Id>>,
    outputs: BTreeSet<Id>,
    reductions: HashMap<Id, Vec<Fused>>,
}

/// Every fused alternative for the classes of a selection.
pub fn alternatives(graph: &Graph, selection: &Selection, roots: &[Id]) -> Vec<Fused> {
    let position = selection.order.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    let mut users: HashMap<Id, Vec<Id>> = HashMap::new();
    for class in &selection.order {
        if let Some(node) = selection.node(*class) {
            for operand in node.operands() {
                users.entry(graph.find(*operand)).or_default().push(*class);
            }
        }
    }
    let outputs = roots.iter().map(|id| graph.find(*id)).collect();
    let mut fusion = Fusion { graph, selection, position, users, outputs, reductions: HashMap::new() };
    let mut all = Vec::new();
    for class in &selection.order {
        let Some(node) = selection.node(*class) else { continue };
        if is_compile_time(graph, *class, node) {
            continue;
        }
        if fusion.is_elementwise(*class) {
            for reach in [Reach::SameShape, Reach::AnyShape, Reach::Shared] {
                all.extend(fusion.of_elementwise(*class, reach));
            }
        } else if let Node::Apply(OperatorKind::Reduce, _) = node {
            let fused = fusion.of_reduction(*class);
            for fused in &fused {
                all.push(Fused {
                    class: fused.class,
                    operator: fused.operator.clone(),
                    operands: fused.operands.clone(),
                    absorbed: fused.absorbed.clone(),
                });
            }
            fusion.reductions.insert(*class, fused);
        }
    }
    all
}

impl Fusion<'_> {
    fn node(&self, class: Id) -> Option<&Node> {
        self.selection.node(self.graph.find(class))
    }

    /// The scalar body of an elementwise class; `None` for others and for what is evaluated at compile time.
    fn body(&self, class: Id) -> Option<(ScalarExpr, Vec<Id>)> {
        let node = self.node(class)?;
        if is_compile_time(self.graph, class, node) {
            return None;
        }
        match node {
            Node::Scalar(op, children) => Some((call(*op, children.len()), children.to_vec())),
            Node::Apply(OperatorKind::Map, children) => match self.graph.operator(children[0])? {
                Operator::Map { body } => Some((body.clone(), children[1..].to_vec())),
                _ => None,
            },
            _ => None,
        }
    }

    fn is_elementwise(&self, class: Id) -> bool {
        match self.node(class) {
            Some(node @ (Node::Scalar(..) | Node::Apply(OperatorKind::Map, _))) => {
                !is_compile_time(self.graph, class, node)
            }
            _ => false,
        }
    }

    fn same_shape(&self, a: Id, b: Id) -> bool {
        match (self.graph.tensor(a), self.graph.tensor(b)) {
            (Some(a), Some(b)) => a.shape == b.shape,
            _ => false,
        }
    }

    /// True where everything that uses `class` is in `group`.
    fn only_used_by(&self, class: Id, group: &BTreeSet<Id>) -> bool {
        !self.outputs.contains(&class)
            && self.users.get(&class).is_none_or(|users| users.iter().all(|user| group.contains(user)))
    }

    fn is_cheap(&self, class: Id) -> bool {
        self.body(class).is_some_and(|(body, _)| {
            let (simple, hard) = scalar_work(&body);
            hard == 0.0 && simple <= CHEAP_WORK
        })
    }

    /// The elementwise classes that one body computes for `root`. `reduction` counts as a user inside, and where others use
    /// the root as well, all of the group is computed again.
    fn group(&self, root: Id, reach: Reach, reduction: Option<Id>) -> Option<Group> {
        let mut own: BTreeSet<Id> = reduction.into_iter().collect();
        let mut size = self.body(root)?.0.nodes.len();
        let mut recomputed = 0;
        if reduction.is_none() || self.only_used_by(root, &own) {
            own.insert(root);
        } else {
            recomputed = size;
        }
        let mut all = BTreeSet::from([root]);
        // Latest first: when a class comes up, all its users have been decided.
        let mut work: BTreeSet<(usize, Id)> = BTreeSet::new();
        let push = |class: Id, work: &mut BTreeSet<(usize, Id)>| {
            for operand in self.body(class).map(|(_, operands)| operands).unwrap_or_default() {
                let operand = self.graph.find(operand);
                if let Some(place) = self.position.get(&operand)
                    && self.is_elementwise(operand)
                {
                    work.insert((*place, operand));
                }
            }
        };
        push(root, &mut work);
        while let Some((_, class)) = work.pop_last() {
            let more = self.body(class).map_or(0, |(body, _)| body.nodes.len());
            // What a class needs that is computed again is computed again too.
            let exclusive = self.only_used_by(class, &own);
            let again = if exclusive { recomputed } else { recomputed + more };
            let allowed = match reach {
                Reach::SameShape => exclusive && self.same_shape(class, root),
                Reach::AnyShape => exclusive,
                Reach::Shared => exclusive || (self.is_cheap(class) && again <= RECOMPUTED_LIMIT),
            };
            if allowed && size + more <= BODY_LIMIT {
                size += more;
                recomputed = again;
                all.insert(class);
                if exclusive {
                    own.insert(class);
                }
                push(class, &mut work);
            }
        }
        (recomputed <= RECOMPUTED_LIMIT).then_some(Group { all, own })
    }

    /// The composed body of a group and the classes that it reads.
    fn compose(&self, root: Id, group: &BTreeSet<Id>) -> Option<(ScalarExpr, Vec<Id>)> {
        let all = self.compose_with(root, group, true);
        // A constant that is left out of the operands no longer broadcasts the result.
        all.filter(|(_, inputs)| self.reaches_shape(root, inputs))
            .or_else(|| self.compose_with(root, group, false))
    }

    /// True where `inputs` broadcast to the shape of `root`.
    fn reaches_shape(&self, root: Id, inputs: &[Id]) -> bool {
        let Some(shape) = self.graph.tensor(root).map(|ty| &ty.shape) else { return false };
        let types: Vec<&TensorType> = inputs.iter().filter_map(|id| self.graph.tensor(*id)).collect();
        (0..shape.len()).all(|from_last| {
            let wanted = &shape[shape.len() - 1 - from_last];
            let has = |ty: &&TensorType| {
                let axis = ty.rank().checked_sub(from_last + 1);
                axis.is_some_and(|axis| ty.shape[axis] == *wanted)
            };
            types.iter().any(has)
        })
    }

    fn compose_with(&self, root: Id, group: &BTreeSet<Id>, any_splat: bool) -> Option<(ScalarExpr, Vec<Id>)> {
        let mut members: Vec<Id> = group.iter().copied().collect();
        members.sort_by_key(|class| self.position.get(class));
        let mut inputs: Vec<Id> = Vec::new();
        let mut expr = ScalarExpr::with_inputs(0);
        let mut placed: HashMap<Id, Arg> = HashMap::new();
        for class in members {
            let (body, operands) = self.body(class)?;
            let mut args = Vec::with_capacity(operands.len());
            for operand in operands {
                let operand = self.graph.find(operand);
                args.push(match (placed.get(&operand), self.inline(operand, any_splat)) {
                    (Some(arg), _) => *arg,
                    (None, Some(constant)) => constant,
                    (None, None) => {
                        let index = inputs.iter().position(|input| *input == operand).unwrap_or_else(|| {
                            inputs.push(operand);
                            inputs.len() - 1
                        });
                        Arg::Input(index as u16)
                    }
                });
            }
            let result = expr.inline(&body, &args);
            placed.insert(class, result);
        }
        expr.inputs = inputs.len() as u16;
        expr.result = *placed.get(&root)?;
        (!inputs.is_empty() && inputs.len() <= OPERAND_LIMIT).then(|| (expr.prune(), inputs))
    }

    /// A constant all of whose elements are equal, as part of a body; only of rank 0 unless `any`.
    fn inline(&self, class: Id, any: bool) -> Option<Arg> {
        let values = self.graph.values(class)?;
        let tensor = self.graph.tensor(class)?;
        (values.constant && (any || tensor.shape.is_empty())).then_some(Arg::Const(values.splat?))
    }

    fn of_elementwise(&self, root: Id, reach: Reach) -> Vec<Fused> {
        let Some(group) = self.group(root, reach, None) else { return Vec::new() };
        let Some((body, inputs)) = self.compose(root, &group.all) else { return Vec::new() };
        let mut absorbed: Vec<Id> = group.all.iter().copied().collect();
        absorbed.sort_by_key(|class| self.position.get(class));
        let mut found = Vec::new();
        for (place, input) in inputs.iter().enumerate() {
            if !self.only_used_by(*input, &group.own) || !self.same_shape(*input, root) {
                continue;
            }
            let selected = self.node(*input).and_then(|node| match node {
                Node::Apply(_, children) => {
                    Some((self.graph.operator(children[0])?.clone(), children[1..].to_vec(), vec![*input]))
                }
                _ => None,
            });
            let fused = self.reductions.get(input).into_iter().flatten();
            let variants = selected.into_iter().chain(
                fused.map(|fused| (fused.operator.clone(), fused.operands.clone(), fused.absorbed.clone())),
            );
            for (operator, operands, producer) in variants {
                let Some((operator, operands)) = into_epilogue(&operator, &operands, &body, &inputs, place)
                else {
                    continue;
                };
                let absorbed = producer.iter().chain(&absorbed).copied().collect();
                found.push(Fused { class: root, operator, operands, absorbed });
            }
        }
        found.push(Fused { class: root, operator: Operator::Map { body }, operands: inputs, absorbed });
        found
    }

    /// A reduction with the elementwise producers of its operand as prologue.
    fn of_reduction(&self, class: Id) -> Vec<Fused> {
        let Some(Node::Apply(_, children)) = self.node(class) else { return Vec::new() };
        let Some(Operator::Reduce { kind, axes, keep, prologue, epilogue }) =
            self.graph.operator(children[0])
        else {
            return Vec::new();
        };
        let x = self.graph.find(children[1]);
        if !prologue.is_identity() || !self.is_elementwise(x) {
            return Vec::new();
        }
        let own = BTreeSet::from([class]);
        let mut found = Vec::new();
        for reach in [Reach::SameShape, Reach::AnyShape, Reach::Shared] {
            if !(self.only_used_by(x, &own) || reach == Reach::Shared) {
                continue;
            }
            let Some(group) = self.group(x, reach, Some(class)) else { continue };
            let Some((body, mut inputs)) = self.compose(x, &group.all) else { continue };
            // The first operand carries the shape of the reduction.
            let Some(main) = inputs.iter().position(|input| self.same_shape(*input, x)) else { continue };
            let mut args: Vec<Arg> = (0..body.inputs).map(Arg::Input).collect();
            args.swap(0, main);
            inputs.swap(0, main);
            let mut reordered = ScalarExpr::with_inputs(inputs.len());
            reordered.result = reordered.inline(&body, &args);
            let operator = Operator::Reduce {
                kind: *kind,
                axes: axes.clone(),
                keep: *keep,
                prologue: reordered,
                epilogue: epilogue.clone(),
            };
            inputs.extend(&children[2..]);
            let mut absorbed: Vec<Id> = group.all.iter().copied().collect();
            absorbed.sort_by_key(|class| self.position.get(class));
            absorbed.push(class);
            found.push(Fused { class, operator, operands: inputs, absorbed });
        }
        found
    }
}

fn call(op: ScalarOp, arity: usize) -> ScalarExpr {
    let mut body = ScalarExpr::with_inputs(arity);
    let args: Vec<Arg> = (0..arity as u16).map(Arg::Input).collect();
    body.result = body.push(op, &args);
    body
}

/// `operator` with `body` after its own epilogue; `body` reads the operator's result at `inputs[place]`.
fn into_epilogue(
    operator: &Operator,
    operands: &[Id],
    body: &ScalarExpr,
    inputs: &[Id],
    place: usize,
) -> Option<(Operator, Vec<Id>)> {
    let (before, fixed) = match operator {
        Operator::Contract { epilogue, .. }
        | Operator::Convolve { epilogue, .. }
        | Operator::ConvolveTranspose { epilogue, .. } => (epilogue, 2),
        Operator::Normalize { epilogue, .. } => (epilogue, 1),
        Operator::Reduce { epilogue, prologue, .. } => (epilogue, (prologue.inputs as usize).max(1)),
        _ => return None,
    };
    let kept = operands.len().checked_sub(fixed)?;
    let mut epilogue = ScalarExpr::with_inputs(kept + inputs.len());
    let own: Vec<Arg> = (0..=kept as u16).map(Arg::Input).collect();
    let result = epilogue.inline(before, &own);
    let mut next = kept as u16;
    let args: Vec<Arg> = (0..inputs.len())
        .map(|input| {
            if input == place {
                result
            } else {
                next += 1;
                Arg::Input(next)
            }
        })
        .collect();
    epilogue.result = epilogue.inline(body, &args);
    let others = inputs.iter().enumerate().filter(|(input, _)| *input != place).map(|(_, id)| *id);
    let operands: Vec<Id> = operands.iter().copied().chain(others).collect();
    (epilogue.nodes.len() <= BODY_LIMIT && operands.len() <= OPERAND_LIMIT + 2)
        .then(|| with_epilogue(operator, epilogue).map(|operator| (operator, operands)))?
}
