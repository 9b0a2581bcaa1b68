//! Symbols and dimension expressions of the manifest.

use std::collections::BTreeMap;

use tcc_ir::dim::{Atom, Dim, Symbol};
use tcc_ir::dtype::DType;
use tcc_ir::module::Function;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Function as Scalar, ScalarOp};
use tcc_kernel::ir::Expr;
use tcc_runtime::DimExpr;
use tcc_runtime::manifest::{self, SymbolSource};

use super::ProgramError;

/// The function's symbols with their numbers in the manifest.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    numbers: BTreeMap<Symbol, u32>,
    table: Vec<manifest::Symbol>,
}

impl Symbols {
    /// Numbers every symbol: those that an input axis gives first, then those that the state fixes, then those that steps
    /// bind.
    pub fn of(function: &Function) -> Symbols {
        let mut symbols = Symbols::default();
        for (input, param) in function.body.params.iter().enumerate() {
            let Some(tensor) = function.type_of(*param).as_tensor() else { continue };
            for (axis, dim) in tensor.shape.iter().enumerate() {
                if let Some(symbol) = dim.as_symbol()
                    && !symbols.numbers.contains_key(symbol)
                {
                    let source = SymbolSource::Input { input: input as u32, axis: axis as u32 };
                    symbols.add(function, symbol, source);
                }
            }
        }
        function.body.visit(&mut |operation| {
            let Operator::KvState { shape, .. } = &operation.operator else { return };
            for dim in shape {
                dim.visit_symbols(&mut |symbol| {
                    if !symbols.numbers.contains_key(symbol) {
                        symbols.add(function, symbol, SymbolSource::State);
                    }
                });
            }
        });
        let mut bound_later: Vec<Symbol> = Vec::new();
        let mut visit = |dim: &Dim| dim.visit_symbols(&mut |symbol| bound_later.push(symbol.clone()));
        for ty in &function.types {
            if let Some(tensor) = ty.as_tensor() {
                tensor.shape.iter().for_each(&mut visit);
            }
        }
        bound_later.extend(function.symbols.keys().cloned());
        bound_later.sort();
        bound_later.dedup();
        for symbol in bound_later {
            if !symbols.numbers.contains_key(&symbol) {
                let high = function.range_of(&symbol).high;
                // Beyond this a bound says nothing about memory.
                let bound = (high < 1 << 31).then_some(DimExpr::Const(high));
                symbols.add(function, &symbol, SymbolSource::Step { bound });
            }
        }
        symbols
    }

    fn add(&mut self, function: &Function, symbol: &Symbol, source: SymbolSource) {
        let range = function.range_of(symbol);
        self.numbers.insert(symbol.clone(), self.table.len() as u32);
        self.table.push(manifest::Symbol {
            name: symbol.name().to_string(),
            lo: range.low,
            hi: range.high,
            source,
        });
    }

    /// The manifest's table.
    pub fn table(&self) -> &[manifest::Symbol] {
        &self.table
    }

    /// The number of a symbol.
    pub fn number(&self, symbol: &Symbol) -> Option<u32> {
        self.numbers.get(symbol).copied()
    }

    /// The value of a kernel dimension, which is a dimension expression as text.
    pub fn dimension(&self, text: &str) -> Result<DimExpr, ProgramError> {
        let dim = tcc_ir::parse::dim(text).map_err(|_| ProgramError::Unbound(text.to_string()))?;
        self.expression(&dim)
    }

    /// True where an input or the state gives the value, before a run.
    pub fn is_given(&self, number: u32) -> bool {
        matches!(self.table[number as usize].source, SymbolSource::Input { .. } | SymbolSource::State)
    }

    /// The first symbol of a state's shape that the state does not fix.
    pub fn not_of_state(&self, shape: &[Dim]) -> Option<Symbol> {
        let mut found = None;
        for dim in shape {
            dim.visit_symbols(&mut |symbol| {
                let source = self.number(symbol).map(|number| &self.table[number as usize].source);
                if source != Some(&SymbolSource::State) {
                    found = Some(symbol.clone());
                }
            });
        }
        found
    }

    /// True where the value of a dimension has a known bound before the run.
    pub fn is_bounded(&self, dim: &Dim) -> bool {
        let mut bounded = true;
        dim.visit_symbols(&mut |symbol| {
            let known = self.number(symbol).map(|number| &self.table[number as usize].source);
            bounded &= !matches!(known, None | Some(SymbolSource::Step { bound: None }));
        });
        bounded
    }

    /// Numbers of the step-bound symbols that are the whole of one of the dimensions.
    pub fn step_symbols<'d>(&self, dims: impl IntoIterator<Item = &'d Dim>) -> Vec<u32> {
        let mut found: Vec<u32> = dims
            .into_iter()
            .filter_map(|dim| dim.as_symbol())
            .filter_map(|symbol| self.number(symbol))
            .filter(|number| !self.is_given(*number))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// A dimension as a manifest expression.
    pub fn expression(&self, dim: &Dim) -> Result<DimExpr, ProgramError> {
        let mut sum: Option<DimExpr> = None;
        for (coefficient, atoms) in dim.monomials() {
            let mut product: Option<DimExpr> =
                (coefficient != 1 || atoms.is_empty()).then_some(DimExpr::Const(coefficient));
            for (atom, power) in atoms {
                let value = self.atom(&atom)?;
                for _ in 0..power {
                    product = Some(match product {
                        Some(product) => product.mul(value.clone()),
                        None => value.clone(),
                    });
                }
            }
            let term = product.unwrap_or(DimExpr::Const(1));
            sum = Some(match sum {
                Some(sum) => sum.add(term),
                None => term,
            });
        }
        Ok(sum.unwrap_or(DimExpr::Const(0)))
    }

    fn atom(&self, atom: &Atom) -> Result<DimExpr, ProgramError> {
        Ok(match atom {
            Atom::Symbol(symbol) => DimExpr::Symbol(
                self.number(symbol).ok_or_else(|| ProgramError::Unbound(symbol.name().to_string()))?,
            ),
            Atom::FloorDiv(a, b) => self.expression(a)?.floor_div(self.expression(b)?),
            Atom::Mod(a, b) => self.expression(a)?.modulo(self.expression(b)?),
            Atom::Min(a, b) => self.expression(a)?.min(self.expression(b)?),
            Atom::Max(a, b) => self.expression(a)?.max(self.expression(b)?),
        })
    }

    /// A kernel's extent as a manifest expression; `dims` are the kernel's dimensions. `None` for expressions that
    /// extents do not have.
    pub fn extent(&self, expr: &Expr, dims: &[String]) -> Option<DimExpr> {
        let part = |expr: &Expr| self.extent(expr, dims);
        Some(match expr {
            Expr::Const(scalar) if scalar.dtype == DType::I64 => DimExpr::Const(scalar.as_i64()),
            Expr::Dim(number) => self.dimension(dims.get(*number as usize)?).ok()?,
            Expr::Call(ScalarOp::Call(function), args) => {
                let [a, b] = &args[..] else { return None };
                let (a, b) = (part(a)?, part(b)?);
                match function {
                    Scalar::Add => a.add(b),
                    Scalar::Sub => a.sub(b),
                    Scalar::Mul => a.mul(b),
                    // Extents are not negative, so rounding directions agree.
                    Scalar::Div => a.floor_div(b),
                    Scalar::Rem | Scalar::Mod => a.modulo(b),
                    Scalar::Min => a.min(b),
                    Scalar::Max => a.max(b),
                    _ => return None,
                }
            }
            _ => return None,
        })
    }
}

/// The manifest's element type.
pub fn element_type(dtype: DType) -> Option<tcc_runtime::DType> {
    use tcc_runtime::DType as R;
    Some(match dtype {
        DType::F32 => R::F32,
        DType::F64 => R::F64,
        DType::F16 => R::F16,
        DType::BF16 => R::Bf16,
        DType::F8E4M3FN => R::F8e4m3fn,
        DType::F8E4M3FNUZ => R::F8e4m3fnuz,
        DType::F8E5M2 => R::F8e5m2,
        DType::F8E5M2FNUZ => R::F8e5m2fnuz,
        DType::I2 => R::I2,
        DType::I4 => R::I4,
        DType::I8 => R::I8,
        DType::I16 => R::I16,
        DType::I32 => R::I32,
        DType::I64 => R::I64,
        DType::U2 => R::U2,
        DType::U4 => R::U4,
        DType::U8 => R::U8,
        DType::U16 => R::U16,
        DType::U32 => R::U32,
        DType::U64 => R::U64,
        DType::Bool => R::Bool,
        DType::String => R::String,
        DType::F8E8M0FNU | DType::F4E2M1FN => return None,
    })
}
