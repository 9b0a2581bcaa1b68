//! ONNX TreeEnsemble (ai.onnx.ml 5).

use super::call::Call;
use crate::error::Result;
use crate::tensor::{Contents, Tensor};
use crate::value::Value;

/// The trees, node by node.
struct Trees {
    modes: Vec<i64>,
    features: Vec<i64>,
    splits: Vec<f64>,
    true_nodes: Vec<i64>,
    true_leaves: Vec<i64>,
    false_nodes: Vec<i64>,
    false_leaves: Vec<i64>,
    missing_is_true: Vec<i64>,
    /// Values of the set of each node that tests membership.
    members: Vec<Vec<f64>>,
}

impl Trees {
    fn new(call: &Call) -> Result<Trees> {
        let integers = |name: &str| call.integers(name).map(Option::unwrap_or_default);
        let modes = integers("nodes_modes")?;
        // The sets stand one after the other, each closed by NaN, in the order of the nodes that use them.
        let values = call.floats("membership_values")?.unwrap_or_default();
        let mut sets = values.split(|value| value.is_nan());
        let members = modes
            .iter()
            .map(|mode| if *mode == 6 { sets.next().unwrap_or(&[]).to_vec() } else { Vec::new() })
            .collect();
        Ok(Trees {
            modes,
            features: integers("nodes_featureids")?,
            splits: call.floats("nodes_splits")?.unwrap_or_default(),
            true_nodes: integers("nodes_truenodeids")?,
            true_leaves: integers("nodes_trueleafs")?,
            false_nodes: integers("nodes_falsenodeids")?,
            false_leaves: integers("nodes_falseleafs")?,
            missing_is_true: integers("nodes_missing_value_tracks_true")?,
            members,
        })
    }

    /// The leaf that a row of features reaches from a root; `None` for trees that are not well formed.
    fn leaf(&self, root: usize, row: &[f64]) -> Option<usize> {
        let mut node = root;
        // A walk that is longer than there are nodes goes in a circle.
        for _ in 0..=self.modes.len() {
            let value = *row.get(usize::try_from(*self.features.get(node)?).ok()?)?;
            let split = self.splits.get(node).copied().unwrap_or(0.0);
            let holds = match self.modes.get(node)? {
                0 => value <= split,
                1 => value < split,
                2 => value >= split,
                3 => value > split,
                4 => value == split,
                5 => value != split,
                6 => self.members.get(node)?.contains(&value),
                _ => return None,
            };
            let missing = value.is_nan() && self.missing_is_true.get(node).is_some_and(|flag| *flag != 0);
            let (nodes, leaves) = if holds || missing {
                (&self.true_nodes, &self.true_leaves)
            } else {
                (&self.false_nodes, &self.false_leaves)
            };
            let next = usize::try_from(*nodes.get(node)?).ok()?;
            if *leaves.get(node)? != 0 {
                return Some(next);
            }
            node = next;
        }
        None
    }
}

/// The leaves that each row reaches, put together by target.
pub(super) fn ensemble(call: &Call) -> Result<Vec<Value>> {
    let x = call.tensor(0)?;
    let [rows, features] = x.shape() else { return call.fail("the operand is [rows, features]") };
    let trees = Trees::new(call)?;
    let (roots, targets) = (call.integers("tree_roots")?.unwrap_or_default(), call.count("n_targets", 1)?);
    let leaf_targets = call.integers("leaf_targetids")?.unwrap_or_default();
    let leaf_weights = call.floats("leaf_weights")?.unwrap_or_default();
    let aggregate = call.integer("aggregate_function", 1)?;
    let transform = call.integer("post_transform", 0)?;
    if rows.saturating_mul(targets) > call.limit {
        return call.fail("the result is above the limit");
    }
    let values = x.to_numbers()?;
    let malformed = || call.error("the trees are not well formed");
    let mut out = Vec::with_capacity(rows * targets);
    for row in 0..*rows {
        let row = &values[row * features..(row + 1) * features];
        let mut scores: Vec<Option<f64>> = vec![None; targets];
        for root in &roots {
            let root = usize::try_from(*root).map_err(|_| malformed())?;
            let leaf = trees.leaf(root, row).ok_or_else(malformed)?;
            let weight = *leaf_weights.get(leaf).ok_or_else(malformed)?;
            let target = leaf_targets.get(leaf).and_then(|target| usize::try_from(*target).ok());
            let score = target.and_then(|target| scores.get_mut(target)).ok_or_else(malformed)?;
            *score = Some(match (*score, aggregate) {
                (None, _) => weight,
                (Some(score), 2) => score.min(weight),
                (Some(score), 3) => score.max(weight),
                (Some(score), _) => score + weight,
            });
        }
        let mut scores: Vec<f64> = scores.into_iter().map(|score| score.unwrap_or(0.0)).collect();
        if aggregate == 0 {
            scores.iter_mut().for_each(|score| *score /= roots.len().max(1) as f64);
        }
        match transform {
            0 => {}
            1 => softmax(&mut scores, false),
            2 => scores.iter_mut().for_each(|score| *score = 1.0 / (1.0 + (-*score).exp())),
            3 => softmax(&mut scores, true),
            _ => return call.fail(format!("post_transform {transform} is not supported")),
        }
        out.extend(scores);
    }
    let contents = Contents::from_numbers(x.dtype(), out.into_iter());
    Ok(vec![Value::Tensor(Tensor::new(x.dtype(), &[*rows, targets], contents)?)])
}

/// Softmax; scores of zero stay zero where `keep_zero`.
fn softmax(scores: &mut [f64], keep_zero: bool) {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let kept = |score: f64| keep_zero && score == 0.0;
    let exponentials: Vec<f64> =
        scores.iter().map(|score| if kept(*score) { 0.0 } else { (score - largest).exp() }).collect();
    let sum: f64 = exponentials.iter().sum();
    scores.iter_mut().zip(exponentials).for_each(|(score, exponential)| *score = exponential / sum);
}
