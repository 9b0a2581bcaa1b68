//! ONNX `TreeEnsemble` (ai.onnx.ml 5): each row walks every tree to a leaf, and the weights of the leaves are put together
//! by target.

use super::numeric::{Numeric, for_dtype};
use super::{HostCall, HostFunction, Signature};
use crate::error::Result;

type Run = fn(&Ensemble, &mut HostCall<'_>) -> Result<()>;

/// Where a branch leads.
#[derive(Clone, Copy)]
enum Next {
    Node(usize),
    Leaf(usize),
}

enum Test {
    AtMost(f64),
    Below(f64),
    AtLeast(f64),
    Above(f64),
    Equals(f64),
    Differs(f64),
    Member(Vec<f64>),
}

struct Node {
    feature: usize,
    test: Test,
    missing_is_true: bool,
    yes: Next,
    no: Next,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Average,
    Sum,
    Min,
    Max,
}

#[derive(Clone, Copy)]
enum Transform {
    None,
    Softmax,
    Logistic,
    SoftmaxOfNonzero,
}

struct Ensemble {
    nodes: Vec<Node>,
    roots: Vec<usize>,
    /// Target and weight.
    leaves: Vec<(usize, f64)>,
    targets: usize,
    features: usize,
    aggregate: Aggregate,
    transform: Transform,
    run: Run,
}

const KNOWN: &[&str] = &[
    "aggregate_function",
    "leaf_targetids",
    "leaf_weights",
    "membership_values",
    "n_targets",
    "nodes_falseleafs",
    "nodes_falsenodeids",
    "nodes_featureids",
    "nodes_hitrates",
    "nodes_missing_value_tracks_true",
    "nodes_modes",
    "nodes_splits",
    "nodes_trueleafs",
    "nodes_truenodeids",
    "post_transform",
    "tree_roots",
];

/// The input is `[rows, features]`, the output `[rows, targets]`.
pub(super) fn build(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(1..=1, 1..=1, KNOWN)?;
    let input = signature.input(0)?;
    if input.rank != 2 {
        return Err(format!("the input has rank {}", input.rank));
    }
    signature.expect_output(0, input.dtype, Some(2))?;
    let targets = signature.integer("n_targets", 1)?;
    let targets = usize::try_from(targets).map_err(|_| format!("attribute `n_targets` is {targets}"))?;
    let aggregate = match signature.integer("aggregate_function", 1)? {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        other => return Err(format!("attribute `aggregate_function` is {other}")),
    };
    let transform = match signature.integer("post_transform", 0)? {
        0 => Transform::None,
        1 => Transform::Softmax,
        2 => Transform::Logistic,
        3 => Transform::SoftmaxOfNonzero,
        other => return Err(format!("attribute `post_transform` is {other}, which is not supported")),
    };
    let nodes = nodes(signature)?;
    let leaves = leaves(signature, targets)?;
    let roots = positions(signature, "tree_roots", nodes.len())?;
    for node in &nodes {
        for next in [node.yes, node.no] {
            let (place, limit) = match next {
                Next::Node(place) => (place, nodes.len()),
                Next::Leaf(place) => (place, leaves.len()),
            };
            if place >= limit {
                return Err(format!("a branch leads to {place} of {limit}"));
            }
        }
    }
    let features = nodes.iter().map(|node| node.feature + 1).max().unwrap_or(0);
    let run = for_dtype!(input.dtype, run as Run)?;
    Ok(Box::new(Ensemble { nodes, roots, leaves, targets, features, aggregate, transform, run }))
}

/// A list of positions below a limit.
fn positions(signature: &Signature<'_>, name: &str, limit: usize) -> Result<Vec<usize>, String> {
    let list = signature.integers(name)?;
    let position = |value: i64| {
        let place = usize::try_from(value).ok().filter(|place| *place < limit);
        place.ok_or_else(|| format!("attribute `{name}` has {value}, which must be below {limit}"))
    };
    list.into_iter().map(position).collect()
}

fn nodes(signature: &Signature<'_>) -> Result<Vec<Node>, String> {
    let most = i64::MAX as usize;
    let modes = signature.integers("nodes_modes")?;
    let features = positions(signature, "nodes_featureids", most)?;
    let splits = signature.floats("nodes_splits")?;
    let optional = |name: &str| if signature.has(name) { signature.integers(name) } else { Ok(Vec::new()) };
    let missing = optional("nodes_missing_value_tracks_true")?;
    let branch = |nodes: &str, leaves: &str| -> Result<Vec<Next>, String> {
        let (places, leaves) = (positions(signature, nodes, most)?, signature.integers(leaves)?);
        if places.len() != modes.len() || leaves.len() != modes.len() {
            return Err(format!("attribute `{nodes}` does not go with `nodes_modes`"));
        }
        let next =
            |(place, leaf): (usize, i64)| if leaf == 0 { Next::Node(place) } else { Next::Leaf(place) };
        Ok(places.into_iter().zip(leaves).map(next).collect())
    };
    let yes = branch("nodes_truenodeids", "nodes_trueleafs")?;
    let no = branch("nodes_falsenodeids", "nodes_falseleafs")?;
    if features.len() != modes.len() || splits.len() != modes.len() {
        return Err("attributes `nodes_featureids` and `nodes_splits` do not go with `nodes_modes`".into());
    }
    // The sets stand one after the other, each closed by NaN, in the order of the nodes that use them.
    let values =
        if signature.has("membership_values") { signature.floats("membership_values")? } else { Vec::new() };
    let mut sets = values.split(|value| value.is_nan());
    let mut nodes = Vec::with_capacity(modes.len());
    for (index, mode) in modes.iter().enumerate() {
        let split = splits[index];
        let test = match mode {
            0 => Test::AtMost(split),
            1 => Test::Below(split),
            2 => Test::AtLeast(split),
            3 => Test::Above(split),
            4 => Test::Equals(split),
            5 => Test::Differs(split),
            6 => Test::Member(sets.next().ok_or("attribute `membership_values` is too short")?.to_vec()),
            other => return Err(format!("attribute `nodes_modes` has {other}")),
        };
        let missing_is_true = missing.get(index).is_some_and(|flag| *flag != 0);
        nodes.push(Node { feature: features[index], test, missing_is_true, yes: yes[index], no: no[index] });
    }
    Ok(nodes)
}

fn leaves(signature: &Signature<'_>, targets: usize) -> Result<Vec<(usize, f64)>, String> {
    let (places, weights) =
        (positions(signature, "leaf_targetids", targets)?, signature.floats("leaf_weights")?);
    if places.len() != weights.len() {
        return Err("attribute `leaf_weights` does not go with `leaf_targetids`".into());
    }
    Ok(places.into_iter().zip(weights).collect())
}

impl Node {
    fn next(&self, value: f64) -> Next {
        let holds = match &self.test {
            Test::AtMost(split) => value <= *split,
            Test::Below(split) => value < *split,
            Test::AtLeast(split) => value >= *split,
            Test::Above(split) => value > *split,
            Test::Equals(split) => value == *split,
            Test::Differs(split) => value != *split,
            Test::Member(set) => set.contains(&value),
        };
        if holds || (value.is_nan() && self.missing_is_true) { self.yes } else { self.no }
    }
}

impl Ensemble {
    /// The leaf that a row reaches from a root; `None` for a tree that goes in a circle.
    fn leaf(&self, root: usize, value: impl Fn(usize) -> f64) -> Option<usize> {
        let mut node = root;
        for _ in 0..=self.nodes.len() {
            match self.nodes[node].next(value(self.nodes[node].feature)) {
                Next::Leaf(leaf) => return Some(leaf),
                Next::Node(next) => node = next,
            }
        }
        None
    }

    fn transform(&self, scores: &mut [f64]) {
        match self.transform {
            Transform::None => {}
            Transform::Softmax => softmax(scores, false),
            Transform::SoftmaxOfNonzero => softmax(scores, true),
            Transform::Logistic => scores.iter_mut().for_each(|score| *score = 1.0 / (1.0 + (-*score).exp())),
        }
    }
}

/// Softmax; scores of zero stay zero where `keep_zero`.
fn softmax(scores: &mut [f64], keep_zero: bool) {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for score in scores.iter_mut().filter(|score| !keep_zero || **score != 0.0) {
        *score = (*score - largest).exp();
        sum += *score;
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

fn run<T: Numeric>(ensemble: &Ensemble, call: &mut HostCall<'_>) -> Result<()> {
    let input = call.input(0)?;
    let elements = call.elements::<T>(&input)?;
    let (rows, width) = (input.shape()[0], input.shape()[1]);
    if width < ensemble.features {
        return Err(call.fail(format!("the trees look at {} features, a row has {width}", ensemble.features)));
    }
    let results = call.output::<T>(0, &[rows, ensemble.targets])?;
    let mut scores = std::mem::take(&mut call.scratch().floats);
    let mut met = std::mem::take(&mut call.scratch().flags);
    for row in 0..rows {
        let features = &elements[row * width..][..width];
        scores.clear();
        scores.resize(ensemble.targets, 0.0);
        met.clear();
        met.resize(ensemble.targets, false);
        for &root in &ensemble.roots {
            let leaf = ensemble.leaf(root, |feature| features[feature].to_f64());
            let leaf = leaf.ok_or_else(|| call.fail("a tree goes in a circle"))?;
            let (target, weight) = ensemble.leaves[leaf];
            let score = &mut scores[target];
            *score = match ensemble.aggregate {
                _ if !std::mem::replace(&mut met[target], true) => weight,
                Aggregate::Min => score.min(weight),
                Aggregate::Max => score.max(weight),
                Aggregate::Sum | Aggregate::Average => *score + weight,
            };
        }
        if ensemble.aggregate == Aggregate::Average {
            scores.iter_mut().for_each(|score| *score /= ensemble.roots.len().max(1) as f64);
        }
        ensemble.transform(&mut scores);
        let target = &mut results[row * ensemble.targets..][..ensemble.targets];
        target.iter_mut().zip(&scores).for_each(|(slot, score)| *slot = T::from_f64(*score));
    }
    call.scratch().floats = scores;
    call.scratch().flags = met;
    Ok(())
}

impl HostFunction for Ensemble {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        (self.run)(self, call)
    }
}
