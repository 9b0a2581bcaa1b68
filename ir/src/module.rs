//! Modules, functions, regions, operations and values.
//!
//! Values are numbered per function and have value semantics; a region has one block, sees the values of the regions
//! around it, and yields its results. Operations stand in an order in which every operand is defined before its use.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::dim::{Dim, Range, Symbol};
use crate::operator::Operator;
use crate::types::Type;

/// A value of a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub u32);

impl Value {
    /// Position in the function's value table.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// Where an operation comes from: the name of a source node, such as `Conv_3`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Location(pub Option<Arc<str>>);

impl Location {
    /// A location with this name.
    pub fn named(name: &str) -> Location {
        Location(Some(Arc::from(name)))
    }

    /// The name, or `?`.
    pub fn text(&self) -> &str {
        self.0.as_deref().unwrap_or("?")
    }
}

/// One application of an operator.
#[derive(Clone, PartialEq, Debug)]
pub struct Operation {
    /// The operator with its attributes.
    pub operator: Operator,
    /// Operands in declaration order.
    pub operands: Vec<Value>,
    /// Results in declaration order.
    pub results: Vec<Value>,
    /// Nested regions.
    pub regions: Vec<Region>,
    /// Source location.
    pub location: Location,
}

/// A block of operations with parameters and results.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Region {
    /// Block parameters.
    pub params: Vec<Value>,
    /// Operations in execution order.
    pub operations: Vec<Operation>,
    /// What the region yields.
    pub results: Vec<Value>,
}

/// A function: named inputs and outputs, symbols with ranges, a body.
#[derive(Clone, PartialEq, Debug)]
pub struct Function {
    /// Name, without `@`.
    pub name: String,
    /// Names of the inputs, one for each body parameter.
    pub input_names: Vec<String>,
    /// Names of the outputs, one for each body result.
    pub output_names: Vec<String>,
    /// Type of each value.
    pub types: Vec<Type>,
    /// The operations.
    pub body: Region,
    /// Symbols that occur in types and attributes, with the range of each.
    pub symbols: BTreeMap<Symbol, Range>,
    /// Pairs of dimensions that must be equal at run time.
    pub equalities: Vec<(Dim, Dim)>,
}

/// Functions by name; the first is the entry.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Module {
    /// Functions in order of definition.
    pub functions: IndexMap<String, Function>,
}

impl Function {
    /// An empty function.
    pub fn new(name: &str) -> Function {
        Function {
            name: name.to_string(),
            input_names: Vec::new(),
            output_names: Vec::new(),
            types: Vec::new(),
            body: Region::default(),
            symbols: BTreeMap::new(),
            equalities: Vec::new(),
        }
    }

    /// A new value of this type.
    pub fn new_value(&mut self, ty: Type) -> Value {
        self.types.push(ty);
        Value(self.types.len() as u32 - 1)
    }

    /// Type of a value.
    pub fn type_of(&self, value: Value) -> &Type {
        &self.types[value.index()]
    }

    /// Range of a symbol; symbols that are not listed are any size.
    pub fn range_of(&self, symbol: &Symbol) -> Range {
        self.symbols.get(symbol).copied().unwrap_or_default()
    }

    /// The same function with values numbered in the order of the text form and without unused entries in `types`.
    ///
    /// Equal functions are equal after this, and [`crate::parse::module`] numbers values this way. Values that are used
    /// and not defined, which the verifier refuses, come last.
    pub fn renumbered(&self) -> Function {
        fn region(source: &Region, place: &mut dyn FnMut(Value) -> Value) -> Region {
            let params = source.params.iter().map(|value| place(*value)).collect();
            let mut operations = Vec::with_capacity(source.operations.len());
            for operation in &source.operations {
                let regions = operation.regions.iter().map(|nested| region(nested, place)).collect();
                operations.push(Operation {
                    operator: operation.operator.clone(),
                    operands: operation.operands.clone(),
                    results: operation.results.iter().map(|value| place(*value)).collect(),
                    regions,
                    location: operation.location.clone(),
                });
            }
            Region { params, operations, results: source.results.clone() }
        }
        fn uses(target: &mut Region, place: &mut dyn FnMut(Value) -> Value) {
            for operation in &mut target.operations {
                operation.operands.iter_mut().for_each(|value| *value = place(*value));
                operation.regions.iter_mut().for_each(|nested| uses(nested, place));
            }
            target.results.iter_mut().for_each(|value| *value = place(*value));
        }
        let mut numbers: std::collections::HashMap<Value, Value> = std::collections::HashMap::new();
        let mut types = Vec::new();
        let mut place = |value: Value| {
            *numbers.entry(value).or_insert_with(|| {
                types.extend(self.types.get(value.index()).cloned());
                Value(types.len().max(1) as u32 - 1)
            })
        };
        let mut body = region(&self.body, &mut place);
        uses(&mut body, &mut place);
        Function { types, body, ..self.clone() }
    }

    /// Replaces symbols by dimensions in all types and attributes, as `--dim` does.
    pub fn substitute(&mut self, replace: &dyn Fn(&Symbol) -> Option<Dim>) {
        let dim = |dim: &Dim| dim.substitute(replace);
        fn in_type(ty: &mut Type, dim: &dyn Fn(&Dim) -> Dim) {
            match ty {
                Type::Tensor(tensor) => tensor.shape.iter_mut().for_each(|extent| *extent = dim(extent)),
                Type::Sequence(inner) | Type::Optional(inner) => in_type(inner, dim),
            }
        }
        fn in_region(region: &mut Region, dim: &dyn Fn(&Dim) -> Dim) {
            for operation in &mut region.operations {
                operation.operator.map_dims(dim);
                operation.regions.iter_mut().for_each(|region| in_region(region, dim));
            }
        }
        self.types.iter_mut().for_each(|ty| in_type(ty, &dim));
        in_region(&mut self.body, &dim);
        for (a, b) in &mut self.equalities {
            (*a, *b) = (dim(a), dim(b));
        }
        self.symbols.retain(|symbol, _| replace(symbol).is_none());
    }
}

impl Region {
    /// Calls `visit` on every operation of this region and those nested in it, outer ones first.
    pub fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Operation)) {
        for operation in &self.operations {
            visit(operation);
            for region in &operation.regions {
                region.visit(visit);
            }
        }
    }
}

impl Module {
    /// A module with one function.
    pub fn with(function: Function) -> Module {
        Module { functions: IndexMap::from([(function.name.clone(), function)]) }
    }

    /// The entry function: the first one.
    pub fn entry(&self) -> Option<&Function> {
        self.functions.first().map(|(_, function)| function)
    }

    /// The entry function, to change it.
    pub fn entry_mut(&mut self) -> Option<&mut Function> {
        self.functions.first_mut().map(|(_, function)| function)
    }
}
