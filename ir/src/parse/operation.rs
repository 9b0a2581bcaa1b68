//! Modules, functions, regions and operations.

use std::collections::HashMap;

use super::attribute::{self, Dictionary};
use super::cursor::Cursor;
use super::{ParseError, types};
use crate::attribute::{Attribute, AttributeValue};
use crate::dim::{Dim, Range, Symbol};
use crate::module::{Function, Location, Module, Operation, Region, Value};
use crate::operator::Operator;
use crate::types::Type;

type Result<T> = std::result::Result<T, ParseError>;

pub(super) fn module(cursor: &mut Cursor) -> Result<Module> {
    let mut module = Module::default();
    let generic = cursor.eat("\"builtin.module\"");
    if generic {
        cursor.expect("()")?;
        cursor.expect("(")?;
    } else if !cursor.eat("module") {
        return cursor.unexpected("'module'");
    }
    cursor.expect("{")?;
    while !cursor.eat("}") {
        let start = cursor.clone();
        let function = function(cursor)?;
        let name = function.name.clone();
        if module.functions.insert(name.clone(), function).is_some() {
            return start.error(format!("function '{name}' is defined twice"));
        }
    }
    if generic {
        cursor.expect(")")?;
        cursor.expect(":")?;
        cursor.expect("()")?;
        cursor.expect("->")?;
        cursor.expect("()")?;
    }
    location(cursor)?;
    Ok(module)
}

fn function(cursor: &mut Cursor) -> Result<Function> {
    cursor.expect("\"tir.func\"")?;
    cursor.expect("()")?;
    cursor.expect("(")?;
    let mut body = Body::default();
    let region = body.region(cursor, "\"tir.return\"")?;
    cursor.expect(")")?;
    cursor.skip_space();
    let start = cursor.clone();
    let mut attributes = attribute::dictionary(cursor)?;
    cursor.expect(":")?;
    cursor.expect("()")?;
    cursor.expect("->")?;
    cursor.expect("()")?;
    location(cursor)?;
    let mut function =
        Function { name: take(&start, &mut attributes, "sym_name")?, ..Function::new("unnamed") };
    function.input_names = take(&start, &mut attributes, "input_names")?;
    function.output_names = take(&start, &mut attributes, "output_names")?;
    for Declaration(symbol, range) in take::<Vec<Declaration>>(&start, &mut attributes, "symbols")? {
        if function.symbols.insert(symbol.clone(), range).is_some() {
            return start.error(format!("symbol '{symbol}' is declared twice"));
        }
    }
    let equalities = take::<Vec<Equality>>(&start, &mut attributes, "equalities")?;
    function.equalities = equalities.into_iter().map(|Equality(a, b)| (a, b)).collect();
    if let Some((name, _)) = attributes.first() {
        return start.error(format!("unknown function attribute '{name}'"));
    }
    function.types = body.types;
    function.body = region;
    Ok(function)
}

/// Takes an attribute of a function out of its dictionary; lists may be left out.
fn take<T: Attribute>(start: &Cursor, attributes: &mut Dictionary, name: &str) -> Result<T> {
    let value = match attributes.shift_remove(name) {
        Some(value) => value,
        None if name == "sym_name" => return start.error("the function lacks the attribute 'sym_name'"),
        None => AttributeValue::List(Vec::new()),
    };
    T::from_value(&value).or_else(|error| start.error(format!("attribute '{name}': {error}")))
}

/// `["batch", 1, 64]`.
struct Declaration(Symbol, Range);

impl Attribute for Declaration {
    fn to_value(&self) -> AttributeValue {
        AttributeValue::List(vec![self.0.to_value(), self.1.low.to_value(), self.1.high.to_value()])
    }

    fn from_value(value: &AttributeValue) -> std::result::Result<Self, String> {
        match value {
            AttributeValue::List(items) if items.len() == 3 => {
                let name = String::from_value(&items[0])?;
                if !Symbol::is_valid_name(&name) {
                    return Err(format!("'{name}' is no name of a symbol"));
                }
                let range = Range { low: i64::from_value(&items[1])?, high: i64::from_value(&items[2])? };
                Ok(Declaration(Symbol::new(&name), range))
            }
            other => Err(format!("expected [name, low, high], found {other:?}")),
        }
    }
}

/// `["n", "2*m"]`.
struct Equality(Dim, Dim);

impl Attribute for Equality {
    fn to_value(&self) -> AttributeValue {
        AttributeValue::List(vec![self.0.to_value(), self.1.to_value()])
    }

    fn from_value(value: &AttributeValue) -> std::result::Result<Self, String> {
        match value {
            AttributeValue::List(items) if items.len() == 2 => {
                Ok(Equality(Dim::from_value(&items[0])?, Dim::from_value(&items[1])?))
            }
            other => Err(format!("expected two dimensions, found {other:?}")),
        }
    }
}

/// `loc("name")`, `loc(unknown)` or nothing.
fn location(cursor: &mut Cursor) -> Result<Location> {
    if !cursor.eat("loc(") {
        return Ok(Location::default());
    }
    let location = if cursor.eat("unknown") {
        Location::default()
    } else {
        let name = cursor.string()?;
        if cursor.eat(":") {
            // A file position, as mlir-opt adds for operations that it read without a location.
            cursor.count()?;
            cursor.expect(":")?;
            cursor.count()?;
            Location::default()
        } else {
            Location::named(&name)
        }
    };
    cursor.expect(")")?;
    Ok(location)
}

/// Values of a function while it is read.
#[derive(Default)]
struct Body<'a> {
    types: Vec<Type>,
    names: HashMap<&'a str, Vec<Value>>,
    /// Names defined in each open region; they end with it.
    scopes: Vec<Vec<&'a str>>,
}

impl<'a> Body<'a> {
    fn define(&mut self, cursor: &Cursor, name: &'a str, types: Vec<Type>) -> Result<Vec<Value>> {
        let values: Vec<Value> =
            (0..types.len()).map(|index| Value((self.types.len() + index) as u32)).collect();
        self.types.extend(types);
        if self.names.insert(name, values.clone()).is_some() {
            return cursor.error(format!("%{name} is defined twice"));
        }
        if let Some(scope) = self.scopes.last_mut() {
            scope.push(name);
        }
        Ok(values)
    }

    /// `{ ^bb0(%a: type): operations "terminator"(values) : types }`.
    fn region(&mut self, cursor: &mut Cursor<'a>, terminator: &str) -> Result<Region> {
        cursor.nested(|cursor| {
            self.scopes.push(Vec::new());
            let region = self.region_inner(cursor, terminator);
            for name in self.scopes.pop().unwrap_or_default() {
                self.names.remove(name);
            }
            region
        })
    }

    fn region_inner(&mut self, cursor: &mut Cursor<'a>, terminator: &str) -> Result<Region> {
        let mut region = Region::default();
        cursor.expect("{")?;
        if cursor.eat("^") {
            cursor.suffix_identifier()?;
            if cursor.eat("(") {
                cursor.list(")", |cursor| {
                    cursor.expect("%")?;
                    let name = cursor.suffix_identifier()?;
                    cursor.expect(":")?;
                    let ty = types::ty(cursor)?;
                    location(cursor)?;
                    region.params.extend(self.define(cursor, name, vec![ty])?);
                    Ok(())
                })?;
            }
            cursor.expect(":")?;
        }
        while !cursor.looking_at(terminator) {
            let operation = self.operation(cursor)?;
            region.operations.push(operation);
        }
        cursor.expect(terminator)?;
        region.results = self.operands(cursor)?;
        let (operands, results) = function_type(cursor)?;
        self.check_operands(cursor, &region.results, &operands)?;
        if !results.is_empty() {
            return cursor.error("a terminator has no results");
        }
        location(cursor)?;
        cursor.expect("}")?;
        Ok(region)
    }

    /// `(%a, %b#1)`.
    fn operands(&mut self, cursor: &mut Cursor<'a>) -> Result<Vec<Value>> {
        let mut operands = Vec::new();
        cursor.expect("(")?;
        cursor.list(")", |cursor| {
            cursor.skip_space();
            let start = cursor.clone();
            cursor.expect("%")?;
            let name = cursor.suffix_identifier()?;
            let index = if cursor.eat_here("#") { cursor.count()? } else { 0 };
            match self.names.get(name).and_then(|values| values.get(index)) {
                Some(value) => operands.push(*value),
                None => return start.error(format!("%{name} is not defined here")),
            }
            Ok(())
        })?;
        Ok(operands)
    }

    fn check_operands(&self, cursor: &Cursor, values: &[Value], stated: &[Type]) -> Result<()> {
        let known = values.iter().map(|value| &self.types[value.index()]);
        if values.len() != stated.len() {
            return cursor.error(format!("{} operands and {} types", values.len(), stated.len()));
        }
        for (index, (known, stated)) in known.zip(stated).enumerate() {
            if known != stated {
                return cursor.error(format!("operand {index} is {known}, the operation says {stated}"));
            }
        }
        Ok(())
    }

    fn operation(&mut self, cursor: &mut Cursor<'a>) -> Result<Operation> {
        cursor.skip_space();
        let start = cursor.clone();
        // Result names, each with the number of results that it stands for.
        let mut names: Vec<(&str, usize)> = Vec::new();
        while cursor.eat("%") {
            let name = cursor.suffix_identifier()?;
            let count = if cursor.eat_here(":") { cursor.count()? } else { 1 };
            names.push((name, count));
            if !cursor.eat(",") {
                cursor.expect("=")?;
                break;
            }
        }
        cursor.skip_space();
        let name_start = cursor.clone();
        let full_name = cursor.string()?;
        let Some(name) = full_name.strip_prefix("tir.") else {
            return name_start.error(format!("'{full_name}' is not an operation of the tir dialect"));
        };
        let operands = self.operands(cursor)?;
        let mut regions = Vec::new();
        if cursor.eat("(") {
            cursor.list(")", |cursor| {
                regions.push(self.region(cursor, "\"tir.yield\"")?);
                Ok(())
            })?;
        }
        let mut attributes = attribute::dictionary(cursor)?;
        let operator = Operator::from_attributes(name, &mut |name| attributes.shift_remove(name))
            .or_else(|error| name_start.error(format!("tir.{name}: {error}")))?;
        if let Some((unknown, _)) = attributes.first() {
            return name_start.error(format!("tir.{name} has no attribute '{unknown}'"));
        }
        let (operand_types, result_types) = function_type(cursor)?;
        self.check_operands(cursor, &operands, &operand_types)?;
        let location = location(cursor)?;
        let named = names.iter().try_fold(0usize, |sum, (_, count)| sum.checked_add(*count));
        if named != Some(result_types.len()) {
            return start.error(format!("the operation has {} results", result_types.len()));
        }
        let mut results = Vec::new();
        let mut result_types = result_types.into_iter();
        for (name, count) in names {
            results.extend(self.define(&start, name, result_types.by_ref().take(count).collect())?);
        }
        Ok(Operation { operator, operands, results, regions, location })
    }
}

/// `(types) -> type` or `(types) -> (types)`.
fn function_type(cursor: &mut Cursor) -> Result<(Vec<Type>, Vec<Type>)> {
    cursor.expect(":")?;
    let operands = type_list(cursor)?;
    cursor.expect("->")?;
    let results = if cursor.looking_at("(") { type_list(cursor)? } else { vec![types::ty(cursor)?] };
    Ok((operands, results))
}

fn type_list(cursor: &mut Cursor) -> Result<Vec<Type>> {
    let mut list = Vec::new();
    cursor.expect("(")?;
    cursor.list(")", |cursor| {
        list.push(types::ty(cursor)?);
        Ok(())
    })?;
    Ok(list)
}
