//! Printing the text form.
//!
//! Values are numbered in the order of the text, so equal modules print equally and [`crate::parse::module`] gives the
//! module back, with [`Function::renumbered`] values. Symbolic extents stand in the encoding of a tensor type, constants
//! are `dense` attributes, locations are names. `mlir-opt --allow-unregistered-dialect` accepts the result.

mod data;

use std::collections::HashMap;
use std::fmt::Write;

use crate::attribute::{Attribute, AttributeValue, float_text};
use crate::module::{Function, Module, Region, Value};

/// What to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Constants with more elements print as `dense_resource<elided>`, which does not parse: for display only.
    pub elide_above: Option<usize>,
}

/// The whole module; it parses back to the same.
pub fn module(module: &Module) -> String {
    module_with(module, Options::default())
}

/// The module with large constants left out, for display.
pub fn display(module: &Module) -> String {
    module_with(module, Options { elide_above: Some(16) })
}

/// The module.
pub fn module_with(module: &Module, options: Options) -> String {
    let mut printer = Printer { out: String::from("module {\n"), names: HashMap::new(), options };
    for function in module.functions.values() {
        printer.function(function);
    }
    printer.out.push_str("}\n");
    printer.out
}

/// Text between quotes, escaped as MLIR reads it.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') || c.is_control() {
            for byte in c.to_string().bytes() {
                let _ = write!(out, "\\{byte:02X}");
            }
        } else {
            out.push(c);
        }
    }
    out.push('"');
    out
}

struct Printer {
    out: String,
    names: HashMap<Value, usize>,
    options: Options,
}

impl Printer {
    fn function(&mut self, function: &Function) {
        self.names.clear();
        self.out.push_str("  \"tir.func\"() (");
        self.region(function, &function.body, "tir.return", 1);
        self.out.push_str(") {");
        let names = |names: &[String]| names.to_vec().to_value();
        let symbols = function.symbols.iter().map(|(symbol, range)| {
            AttributeValue::List(vec![symbol.to_value(), range.low.to_value(), range.high.to_value()])
        });
        let equalities =
            function.equalities.iter().map(|(a, b)| AttributeValue::List(vec![a.to_value(), b.to_value()]));
        let attributes = [
            ("sym_name", function.name.to_value()),
            ("input_names", names(&function.input_names)),
            ("output_names", names(&function.output_names)),
            ("symbols", AttributeValue::List(symbols.collect())),
            ("equalities", AttributeValue::List(equalities.collect())),
        ];
        self.dictionary(attributes.iter().map(|(name, value)| (*name, value)));
        self.out.push_str("} : () -> ()\n");
    }

    fn name(&mut self, value: Value) -> usize {
        let next = self.names.len();
        *self.names.entry(value).or_insert(next)
    }

    fn region(&mut self, function: &Function, region: &Region, terminator: &str, depth: usize) {
        let indent = "  ".repeat(depth + 1);
        self.out.push_str("{\n");
        if !region.params.is_empty() {
            let _ = write!(self.out, "{}^bb0(", &indent[2..]);
            for (index, param) in region.params.iter().enumerate() {
                let separator = if index > 0 { ", " } else { "" };
                let name = self.name(*param);
                let _ = write!(self.out, "{separator}%{name}: {}", function.type_of(*param));
            }
            self.out.push_str("):\n");
        }
        for operation in &region.operations {
            self.out.push_str(&indent);
            // Regions come before the results are defined, so the names of results are given after them.
            let head = self.out.len();
            let operands: Vec<String> =
                operation.operands.iter().map(|value| format!("%{}", self.name(*value))).collect();
            let _ = write!(self.out, "\"tir.{}\"({})", operation.operator.name(), operands.join(", "));
            if !operation.regions.is_empty() {
                self.out.push_str(" (");
                for (index, region) in operation.regions.iter().enumerate() {
                    if index > 0 {
                        self.out.push_str(", ");
                    }
                    self.region(function, region, "tir.yield", depth + 1);
                }
                self.out.push(')');
            }
            let attributes = operation.operator.attributes();
            if !attributes.is_empty() {
                self.out.push_str(" {");
                self.dictionary(attributes.iter().map(|(name, value)| (*name, value)));
                self.out.push('}');
            }
            self.types(function, &operation.operands, &operation.results);
            if let Some(location) = &operation.location.0 {
                let _ = write!(self.out, " loc({})", quoted(location));
            }
            self.out.push('\n');
            if !operation.results.is_empty() {
                let results: Vec<String> =
                    operation.results.iter().map(|value| format!("%{}", self.name(*value))).collect();
                self.out.insert_str(head, &format!("{} = ", results.join(", ")));
            }
        }
        let results: Vec<String> =
            region.results.iter().map(|value| format!("%{}", self.name(*value))).collect();
        let _ = write!(self.out, "{indent}\"{terminator}\"({})", results.join(", "));
        self.types(function, &region.results, &[]);
        let _ = write!(self.out, "\n{}}}", &indent[2..]);
    }

    fn types(&mut self, function: &Function, operands: &[Value], results: &[Value]) {
        let list = |values: &[Value]| {
            values.iter().map(|value| function.type_of(*value).to_string()).collect::<Vec<_>>().join(", ")
        };
        let _ = write!(self.out, " : ({}) -> ", list(operands));
        let _ = match results {
            [_] => write!(self.out, "{}", list(results)),
            _ => write!(self.out, "({})", list(results)),
        };
    }

    fn dictionary<'a>(&mut self, entries: impl Iterator<Item = (&'a str, &'a AttributeValue)>) {
        for (index, (name, value)) in entries.enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            let _ = write!(self.out, "{separator}{name} = ");
            self.attribute(value);
        }
    }

    fn attribute(&mut self, value: &AttributeValue) {
        let _ = match value {
            AttributeValue::Integer(value) => write!(self.out, "{value}"),
            AttributeValue::Float(value) if value.is_finite() => write!(self.out, "{}", float_text(*value)),
            // A bare hexadecimal literal would be an integer.
            AttributeValue::Float(value) => write!(self.out, "{} : f64", float_text(*value)),
            AttributeValue::Bool(value) => write!(self.out, "{value}"),
            AttributeValue::Text(text) => write!(self.out, "{}", quoted(text)),
            AttributeValue::List(items) => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.out.push_str(", ");
                    }
                    self.attribute(item);
                }
                self.out.push(']');
                Ok(())
            }
            AttributeValue::Data(data) => {
                data::dense(data, self.options.elide_above, &mut self.out);
                Ok(())
            }
        };
    }
}

#[cfg(test)]
pub(crate) mod tests;
