//! Results that can be used again.
//!
//! Instructions without effects give the same result as long as their operands do. Registers of variables change, all others
//! are written once; what was computed inside a loop or a branch is not there outside of it.

use std::collections::{HashMap, HashSet};

use super::register::Value;

/// The results that are at hand.
#[derive(Default)]
pub struct Reuse {
    results: HashMap<String, Value>,
    /// The key of each result.
    keys: HashMap<Value, String>,
    /// Keys in the order of their instructions.
    order: Vec<String>,
    /// Registers that are written more than once.
    mutable: HashSet<Value>,
    /// By mutable register, the keys of the instructions that read it.
    readers: HashMap<Value, Vec<String>>,
}

impl Reuse {
    /// The result of an earlier instruction with the same opcode and operands.
    pub fn find(&self, key: &str) -> Option<Value> {
        self.results.get(key).cloned()
    }

    /// Notes the result of an instruction.
    pub fn note(&mut self, key: String, operands: &[&Value], result: &Value) {
        for operand in operands {
            if self.mutable.contains(*operand) {
                self.readers.entry((*operand).clone()).or_default().push(key.clone());
            }
        }
        self.results.insert(key.clone(), result.clone());
        self.keys.insert(result.clone(), key.clone());
        self.order.push(key);
    }

    /// The register of a variable is about to change.
    pub fn changes(&mut self, register: &Value) {
        self.mutable.insert(register.clone());
        for key in self.readers.remove(register).unwrap_or_default() {
            self.results.remove(&key);
        }
    }

    /// Forgets a result whose instruction now writes elsewhere.
    pub fn withdraw(&mut self, result: &Value) {
        if let Some(key) = self.keys.remove(result) {
            self.results.remove(&key);
        }
    }

    /// The start of a loop or branch.
    pub fn enter(&self) -> usize {
        self.order.len()
    }

    /// Its end: what was computed since then is not at hand any more.
    pub fn leave(&mut self, mark: usize) {
        for key in self.order.drain(mark..) {
            self.results.remove(&key);
        }
    }
}
