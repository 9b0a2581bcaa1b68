//! Which axes of a contraction are shared: a two-operand Einstein summation.

use std::fmt;
use std::str::FromStr;

use crate::attribute::{Attribute, AttributeValue};

/// Axis labels of both operands and of the result, such as `bmk,bkn->bmn`.
///
/// A label occurs at most once in each operand. Labels in both operands and the result are batch axes, labels in both
/// operands only are summed, labels in one operand and not in the result are summed too.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ContractionSpec {
    /// Labels of the left operand's axes.
    pub lhs: Vec<u8>,
    /// Labels of the right operand's axes.
    pub rhs: Vec<u8>,
    /// Labels of the result's axes.
    pub out: Vec<u8>,
}

/// Role of a label.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// In both operands and the result.
    Batch,
    /// In the left operand and the result.
    Row,
    /// In the right operand and the result.
    Column,
    /// Not in the result.
    Summed,
}

impl ContractionSpec {
    /// Plain matrix multiplication with `batch` leading batch axes: `[.., m, k] x [.., k, n]`.
    pub fn matmul(batch: usize) -> ContractionSpec {
        let labels: Vec<u8> = (b'a'..).filter(|label| !b"kmn".contains(label)).take(batch).collect();
        let with = |tail: &[u8]| labels.iter().chain(tail).copied().collect::<Vec<u8>>();
        ContractionSpec { lhs: with(b"mk"), rhs: with(b"kn"), out: with(b"mn") }
    }

    /// The role of a label.
    pub fn role(&self, label: u8) -> Role {
        match (self.lhs.contains(&label), self.rhs.contains(&label), self.out.contains(&label)) {
            (_, _, false) => Role::Summed,
            (true, true, true) => Role::Batch,
            (_, false, true) => Role::Row,
            (false, _, true) => Role::Column,
        }
    }

    /// All labels: the result's in order, then the summed ones in order of appearance.
    pub fn labels(&self) -> Vec<u8> {
        let mut labels = self.out.clone();
        for label in self.lhs.iter().chain(&self.rhs) {
            if !labels.contains(label) {
                labels.push(*label);
            }
        }
        labels
    }

    /// Checks labels: letters, no repetition within an operand, result labels from the operands.
    pub fn check(&self) -> Result<(), String> {
        for side in [&self.lhs, &self.rhs, &self.out] {
            for (index, label) in side.iter().enumerate() {
                if !label.is_ascii_alphabetic() {
                    return Err(format!("'{}' is not a letter", *label as char));
                }
                if side[..index].contains(label) {
                    return Err(format!("'{}' occurs twice in one operand", *label as char));
                }
            }
        }
        match self.out.iter().find(|label| !self.lhs.contains(label) && !self.rhs.contains(label)) {
            Some(label) => Err(format!("result label '{}' is in no operand", *label as char)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ContractionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |labels: &[u8]| labels.iter().map(|label| *label as char).collect::<String>();
        write!(f, "{},{}->{}", text(&self.lhs), text(&self.rhs), text(&self.out))
    }
}

impl FromStr for ContractionSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<ContractionSpec, String> {
        let bad = || format!("'{text}' is not of the form LHS,RHS->OUT");
        let (operands, out) = text.split_once("->").ok_or_else(bad)?;
        let (lhs, rhs) = operands.split_once(',').ok_or_else(bad)?;
        let spec = ContractionSpec {
            lhs: lhs.bytes().collect(),
            rhs: rhs.bytes().collect(),
            out: out.bytes().collect(),
        };
        spec.check()?;
        Ok(spec)
    }
}

impl Attribute for ContractionSpec {
    fn to_value(&self) -> AttributeValue {
        AttributeValue::Text(self.to_string())
    }

    fn from_value(value: &AttributeValue) -> Result<Self, String> {
        String::from_value(value)?.parse()
    }
}
