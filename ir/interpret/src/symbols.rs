//! Values of symbols during a run.

use std::collections::HashMap;

use tcc_ir::dim::{Dim, DimError, Symbol};
use tcc_ir::module::Function;
use tcc_ir::types::Type;

use crate::error::{Error, Result};
use crate::value::Value;

/// The symbols of one call of a function.
#[derive(Clone)]
pub(crate) struct Symbols<'m> {
    function: &'m Function,
    values: HashMap<Symbol, i64>,
}

impl<'m> Symbols<'m> {
    /// No symbol has a value.
    pub(crate) fn new(function: &'m Function) -> Symbols<'m> {
        Symbols { function, values: HashMap::new() }
    }

    /// The value of a symbol.
    pub(crate) fn get(&self, symbol: &Symbol) -> Option<i64> {
        self.values.get(symbol).copied()
    }

    /// The value of a dimension.
    pub(crate) fn evaluate(&self, dim: &Dim) -> std::result::Result<i64, DimError> {
        dim.evaluate(&|symbol| self.get(symbol))
    }

    /// Gives a symbol its value, or checks that it has this value already.
    pub(crate) fn bind(&mut self, symbol: &Symbol, value: i64) -> Result<()> {
        let range = self.function.range_of(symbol);
        if value < range.low || value > range.high {
            return Err(Error::Range { symbol: symbol.clone(), value, low: range.low, high: range.high });
        }
        match self.values.insert(symbol.clone(), value) {
            None => self.check_equalities(),
            Some(before) if before == value => Ok(()),
            Some(before) => Err(Error::Equality {
                left: symbol.to_string(),
                left_value: before,
                right: symbol.to_string(),
                right_value: value,
            }),
        }
    }

    /// Checks every equality whose symbols have values.
    pub(crate) fn check_equalities(&self) -> Result<()> {
        for (left, right) in &self.function.equalities {
            match (self.evaluate(left), self.evaluate(right)) {
                (Ok(left_value), Ok(right_value)) if left_value != right_value => {
                    let (left, right) = (left.to_string(), right.to_string());
                    return Err(Error::Equality { left, left_value, right, right_value });
                }
                (Err(DimError::Unbound(_)), _) | (_, Err(DimError::Unbound(_))) | (Ok(_), Ok(_)) => {}
                (Err(error), _) | (_, Err(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Binds the symbols that stand alone in a type; other extents wait for [`Symbols::check`].
    pub(crate) fn bind_lone(&mut self, ty: &Type, value: &Value) -> Result<()> {
        let (Type::Tensor(ty), Value::Tensor(tensor)) = (ty, value) else { return Ok(()) };
        if ty.rank() != tensor.shape().len() {
            // `check` reports this.
            return Ok(());
        }
        for (dim, extent) in ty.shape.iter().zip(tensor.shape()) {
            if let Some(symbol) = dim.as_symbol()
                && self.get(symbol).is_none()
            {
                self.bind(symbol, *extent as i64)?;
            }
        }
        Ok(())
    }

    /// Checks a value against its type; the one symbol that an extent lacks is solved for.
    pub(crate) fn check(&mut self, ty: &Type, value: &Value) -> std::result::Result<(), CheckError> {
        match (ty, value) {
            (Type::Tensor(ty), Value::Tensor(tensor)) => {
                if ty.dtype() != tensor.dtype() || ty.rank() != tensor.shape().len() {
                    return Err(CheckError::Type);
                }
                for (axis, (dim, extent)) in ty.shape.iter().zip(tensor.shape()).enumerate() {
                    let extent = *extent as i64;
                    match self.evaluate(dim) {
                        Ok(expected) if expected == extent => {}
                        Ok(expected) => {
                            return Err(CheckError::Extent { axis, dim: dim.clone(), expected, extent });
                        }
                        Err(DimError::Unbound(symbol)) => self.solve(dim, &symbol, extent)?,
                        Err(error) => return Err(CheckError::Run(error.into())),
                    }
                }
                Ok(())
            }
            // The elements of a sequence may differ in shape.
            (Type::Sequence(_), Value::Sequence(_)) | (Type::Optional(_), Value::Optional(_)) => Ok(()),
            _ => Err(CheckError::Type),
        }
    }

    /// Finds the value of `symbol` that gives `dim` the value `extent`, where `dim` is linear in it.
    fn solve(&mut self, dim: &Dim, symbol: &Symbol, extent: i64) -> std::result::Result<(), CheckError> {
        let at = |value: i64| {
            dim.evaluate(&|other| if other == symbol { Some(value) } else { self.get(other) })
                .map_err(|error| CheckError::Run(error.into()))
        };
        let unsolved = || CheckError::Run(DimError::Unbound(symbol.clone()).into());
        let (start, slope) = (at(0)?, at(1)?.checked_sub(at(0)?).ok_or_else(unsolved)?);
        let value =
            extent.checked_sub(start).and_then(|rest| rest.checked_div(slope)).ok_or_else(unsolved)?;
        if at(value)? != extent {
            return Err(unsolved());
        }
        self.bind(symbol, value).map_err(CheckError::Run)
    }
}

/// Why a value does not have a type.
pub(crate) enum CheckError {
    /// Another kind, element type or rank.
    Type,
    /// Another extent.
    Extent {
        /// The axis.
        axis: usize,
        /// Its declared extent.
        dim: Dim,
        /// The value of that.
        expected: i64,
        /// The extent found.
        extent: i64,
    },
    /// A range or an equality is broken.
    Run(Error),
}

impl CheckError {
    /// The sentence about this value and type; `None` where the error speaks for itself.
    pub(crate) fn sentence(&self, ty: &Type, value: &Value) -> Option<String> {
        match self {
            CheckError::Type => Some(format!("expected {ty}, got {}", value.summary())),
            CheckError::Extent { axis, dim, expected, extent } if dim.as_const().is_some() => {
                Some(format!("axis {axis} has extent {extent}, expected {expected}"))
            }
            CheckError::Extent { axis, dim, expected, extent } => {
                Some(format!("axis {axis} has extent {extent}, but '{dim}' is {expected}"))
            }
            CheckError::Run(_) => None,
        }
    }
}
