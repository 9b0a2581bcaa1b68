//! Names in scope and what they are bound to.

use super::known::Known;
use std::collections::HashMap;
use tcc_ir::data::Data;
use tcc_ir::module::Value;

/// What a name is bound to.
#[derive(Clone, Debug)]
pub(crate) enum Binding {
    /// The result of an operation, or an input.
    Value(Value),
    /// A constant; becomes an operation where one is needed.
    Data(Data),
    /// Known elements, some symbolic; becomes an operation where one is needed.
    Known(Known),
    /// The result of a node that was refused.
    Refused,
}

/// Bindings of nested graphs, innermost last.
#[derive(Default)]
pub(crate) struct Scopes {
    levels: Vec<Level>,
    next: usize,
}

#[derive(Default)]
struct Level {
    names: HashMap<String, (usize, Binding)>,
    /// Operations made in this region for constants and known values, by the identity of their binding. They are
    /// visible in this region and those inside it only.
    materialized: HashMap<usize, Value>,
}

impl Scopes {
    pub(crate) fn push(&mut self) {
        self.levels.push(Level::default());
    }

    pub(crate) fn pop(&mut self) {
        self.levels.pop();
    }

    pub(crate) fn bind(&mut self, name: &str, binding: Binding) {
        self.next += 1;
        if let Some(level) = self.levels.last_mut() {
            level.names.insert(name.to_owned(), (self.next, binding));
        }
    }

    /// The binding of a name with its identity.
    pub(crate) fn get(&self, name: &str) -> Option<(usize, &Binding)> {
        let (identity, binding) = self.levels.iter().rev().find_map(|level| level.names.get(name))?;
        Some((*identity, binding))
    }

    /// The operation made for a binding, if one is visible here.
    pub(crate) fn materialized(&self, identity: usize) -> Option<Value> {
        self.levels.iter().rev().find_map(|level| level.materialized.get(&identity)).copied()
    }

    /// Remembers the operation made for a binding in the innermost region.
    pub(crate) fn remember(&mut self, identity: usize, value: Value) {
        if let Some(level) = self.levels.last_mut() {
            level.materialized.insert(identity, value);
        }
    }
}
