//! Caches are updated in place, so their values are used in one order only.

use std::collections::HashMap;

use super::{Check, Function};
use crate::cache::CacheStorage;
use crate::module::{Operation, Region, Value};
use crate::operator::Operator;

/// Checks the caches of a function:
///
/// - `kv_state` and `kv_append` stand in the function body, and names are unique there;
/// - the cache operands of `kv_append` and `kv_attend` come from `kv_state` or `kv_append`, with the same storage;
/// - a cache value that `kv_append` consumes has no other use, and no other operator or result takes a cache.
pub(super) fn check(function: &Function) -> Check {
    let mut caches = Caches { storage: HashMap::new(), names: Vec::new(), uses: HashMap::new() };
    caches.region(&function.body, false)?;
    let body = &function.body;
    caches.check_results(body)?;
    for operation in &body.operations {
        if let (Operator::KvAppend { .. }, Some(cache)) = (&operation.operator, operation.operands.first())
            && caches.uses.get(cache).is_some_and(|uses| *uses > 1)
        {
            let location = operation.location.text();
            return Err(format!("the cache that tir.kv_append at '{location}' consumes has another use"));
        }
    }
    Ok(())
}

struct Caches<'a> {
    storage: HashMap<Value, CacheStorage>,
    names: Vec<&'a str>,
    uses: HashMap<Value, usize>,
}

impl<'a> Caches<'a> {
    fn region(&mut self, region: &'a Region, nested: bool) -> Check {
        for operation in &region.operations {
            operation.operands.iter().for_each(|value| *self.uses.entry(*value).or_default() += 1);
            self.operation(operation, nested)?;
            for inner in &operation.regions {
                self.region(inner, true)?;
                self.check_results(inner)?;
            }
        }
        Ok(())
    }

    fn operation(&mut self, operation: &'a Operation, nested: bool) -> Check {
        let location = operation.location.text();
        let name = operation.operator.name();
        let outside = || format!("tir.{name} at '{location}' stands in a region, not in the function body");
        match &operation.operator {
            Operator::KvState { .. } | Operator::KvAppend { .. } if nested => Err(outside()),
            Operator::KvState { name, storage, .. } => {
                if self.names.contains(&name.as_str()) {
                    return Err(format!("the cache '{name}' occurs twice"));
                }
                self.names.push(name);
                self.storage.extend(operation.results.iter().map(|result| (*result, *storage)));
                Ok(())
            }
            Operator::KvAppend { storage } => {
                self.check_operand(operation, 0, storage)?;
                self.storage.extend(operation.results.iter().map(|result| (*result, *storage)));
                Ok(())
            }
            Operator::KvAttend { k_storage, v_storage, .. } => {
                self.check_operand(operation, 1, k_storage)?;
                self.check_operand(operation, 2, v_storage)
            }
            _ if operation.operands.iter().any(|value| self.storage.contains_key(value)) => {
                Err(format!("tir.{name} at '{location}' takes a cache"))
            }
            _ => Ok(()),
        }
    }

    fn check_results(&self, region: &Region) -> Check {
        match region.results.iter().any(|value| self.storage.contains_key(value)) {
            true => Err("a cache is no result".into()),
            false => Ok(()),
        }
    }

    fn check_operand(&self, operation: &Operation, index: usize, storage: &CacheStorage) -> Check {
        let found = operation.operands.get(index).and_then(|value| self.storage.get(value));
        let (name, location) = (operation.operator.name(), operation.location.text());
        match found {
            Some(found) if found == storage => Ok(()),
            Some(found) => Err(format!(
                "tir.{name} at '{location}': the cache is stored as '{found}', not as '{storage}'"
            )),
            None => Err(format!("tir.{name} at '{location}': operand {index} is not a cache")),
        }
    }
}
