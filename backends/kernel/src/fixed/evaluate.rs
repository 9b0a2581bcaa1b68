//! The interpreter: one lane, every extent known.

use std::cmp::Ordering;

use tcc_ir::dtype::{Class, DType};
use tcc_ir::scalar::{Function, Scalar, ScalarOp};
use thiserror::Error;

use super::{Exact, Fixed, functions};
use crate::fold::{self, FoldError};
use crate::ir::{BufferId, Expr, Kernel, Space, Stmt, Var};

/// The formats of a kernel's f32 numbers.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Formats {
    /// By [`BufferId`]: elements in memory. Those of register arrays are not used.
    pub buffers: Vec<Fixed>,
    /// Local variables and register arrays.
    pub local: Fixed,
}

impl Formats {
    /// The format of a buffer's elements.
    pub fn buffer(&self, kernel: &Kernel, id: BufferId) -> Fixed {
        match kernel.buffer_of(id).space {
            Space::Register => self.local,
            _ => self.buffers.get(id.0 as usize).copied().unwrap_or(self.local),
        }
    }
}

/// An element in memory: the mantissa of a fixed-point number, or the bits of a [`Scalar`].
pub type Cell = i128;

/// The scalar of a cell that is no fixed-point number.
pub fn scalar(dtype: DType, cell: Cell) -> Scalar {
    Scalar { dtype, bits: cell as u64 }
}

/// The cell of a scalar.
pub fn cell(scalar: Scalar) -> Cell {
    fold::canonical(scalar).bits.into()
}

/// Largest magnitudes of the finite f32 numbers that a kernel handled.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Observed {
    /// By [`BufferId`]: what was stored.
    pub buffers: Vec<f64>,
    /// What was assigned to variables and register arrays.
    pub local: f64,
}

/// Magnitudes from here on mark masked elements, such as the scores of hidden positions; they saturate in fixed point.
const MASK: f64 = (1u64 << 24) as f64;

/// Why a kernel is not interpreted.
#[derive(Clone, PartialEq, Debug, Error)]
pub enum FixedError {
    /// An access outside its buffer.
    #[error("element {index} of '{buffer}', which has {count}")]
    OutOfBounds {
        /// The buffer.
        buffer: String,
        /// The element.
        index: i64,
        /// Number of elements.
        count: usize,
    },
    /// A construct that designs do not have.
    #[error("{0}")]
    Unsupported(String),
    /// An exact intermediate value outgrew the interpreter.
    #[error("an exact intermediate value takes more than 127 bits; use narrower formats")]
    TooWide,
    /// An operation on values that it does not take.
    #[error(transparent)]
    Fold(#[from] FoldError),
}

#[derive(Clone, Copy)]
enum Value {
    Scalar(Scalar),
    Exact(Exact),
}

/// Runs a kernel whose extents are constant on its arguments, in their order: in fixed point, or without formats in floating
/// point, noting magnitudes in `observed`.
pub fn evaluate(
    kernel: &Kernel,
    arguments: &mut [Vec<Cell>],
    formats: Option<&Formats>,
    observed: &mut Observed,
) -> Result<(), FixedError> {
    observed.buffers.resize(kernel.buffers.len(), 0.0);
    let mut machine = Machine {
        kernel,
        formats,
        variables: vec![None; kernel.variables.len()],
        memory: Vec::new(),
        observed,
    };
    for buffer in &kernel.buffers {
        let count = machine.index(&buffer.count)?;
        machine.memory.push(match buffer.space {
            Space::Argument(position) => {
                arguments.get_mut(position as usize).map(std::mem::take).unwrap_or_default()
            }
            _ => vec![0; usize::try_from(count).unwrap_or(0)],
        });
    }
    let result = machine.block(&kernel.body);
    for (buffer, memory) in kernel.buffers.iter().zip(&mut machine.memory) {
        if let Space::Argument(position) = buffer.space
            && let Some(argument) = arguments.get_mut(position as usize)
        {
            *argument = std::mem::take(memory);
        }
    }
    result
}

struct Machine<'k> {
    kernel: &'k Kernel,
    formats: Option<&'k Formats>,
    variables: Vec<Option<Value>>,
    memory: Vec<Vec<Cell>>,
    observed: &'k mut Observed,
}

fn unsupported<T>(what: impl Into<String>) -> Result<T, FixedError> {
    Err(FixedError::Unsupported(what.into()))
}

fn note(largest: &mut f64, value: f64) {
    let magnitude = value.abs();
    if magnitude > *largest && magnitude < MASK {
        *largest = magnitude;
    }
}

fn wide(exact: Option<Exact>) -> Result<Value, FixedError> {
    exact.map(Value::Exact).ok_or(FixedError::TooWide)
}

fn truth(value: bool) -> Value {
    Value::Scalar(Scalar::integer(DType::Bool, value.into()))
}

impl Machine<'_> {
    fn block(&mut self, block: &[Stmt]) -> Result<(), FixedError> {
        block.iter().try_for_each(|stmt| self.stmt(stmt))
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<(), FixedError> {
        match stmt {
            Stmt::For { var, extent, body, .. } => {
                for iteration in 0..self.index(extent)? {
                    let counter = Scalar::integer(DType::I64, iteration);
                    self.variables[var.0 as usize] = Some(Value::Scalar(counter));
                    self.block(body)?;
                }
            }
            Stmt::Assign { var, value } => {
                let value = self.value(value)?;
                let value = match (value, self.formats) {
                    (Value::Exact(exact), Some(formats)) => Value::Exact(exact.rounded(formats.local)),
                    (value, _) => value,
                };
                self.note_local(value);
                self.variables[var.0 as usize] = Some(value);
            }
            Stmt::Store { buffer, index, value, valid } => {
                let value = self.value(value)?;
                if let Some(valid) = valid
                    && self.index(valid)? <= 0
                {
                    return Ok(());
                }
                let place = self.place(*buffer, index)?;
                let cell = match (value, self.formats) {
                    (Value::Exact(exact), Some(formats)) => {
                        exact.rounded(formats.buffer(self.kernel, *buffer)).mantissa
                    }
                    (Value::Scalar(scalar), _) => cell(scalar),
                    (Value::Exact(_), None) => return unsupported("a fixed-point number without a format"),
                };
                if self.kernel.buffer_of(*buffer).space == Space::Register {
                    self.note_local(value);
                } else if let Value::Scalar(scalar) = value
                    && scalar.dtype.is_float()
                {
                    note(&mut self.observed.buffers[buffer.0 as usize], scalar.as_f64());
                }
                self.memory[buffer.0 as usize][place] = cell;
            }
            Stmt::If { condition, then, otherwise } => {
                let block = if self.test(condition)? { then } else { otherwise };
                self.block(block)?;
            }
            Stmt::Barrier | Stmt::Warp(_) => return unsupported("a statement of GPU threads"),
        }
        Ok(())
    }

    fn note_local(&mut self, value: Value) {
        if let Value::Scalar(scalar) = value
            && scalar.dtype.is_float()
        {
            note(&mut self.observed.local, scalar.as_f64());
        }
    }

    fn test(&self, expr: &Expr) -> Result<bool, FixedError> {
        match self.value(expr)? {
            Value::Scalar(scalar) => Ok(scalar.bits != 0),
            Value::Exact(exact) => Ok(!exact.is_zero()),
        }
    }

    fn index(&self, expr: &Expr) -> Result<i64, FixedError> {
        match self.value(expr)? {
            Value::Scalar(scalar) if !scalar.dtype.is_float() => Ok(scalar.as_i64()),
            _ => unsupported("an index that is no integer"),
        }
    }

    fn place(&self, buffer: BufferId, index: &Expr) -> Result<usize, FixedError> {
        let index = self.index(index)?;
        let count = self.memory[buffer.0 as usize].len();
        usize::try_from(index).ok().filter(|place| *place < count).ok_or_else(|| FixedError::OutOfBounds {
            buffer: self.kernel.buffer_of(buffer).name.clone(),
            index,
            count,
        })
    }

    fn is_fixed(&self, dtype: DType) -> bool {
        dtype == DType::F32 && self.formats.is_some()
    }

    /// The local format; `local` is only asked for where numbers are fixed point.
    fn local(&self) -> Fixed {
        self.formats.map_or(Fixed { width: 64, integer: 32 }, |formats| formats.local)
    }

    fn value(&self, expr: &Expr) -> Result<Value, FixedError> {
        match expr {
            Expr::Const(scalar) if self.is_fixed(scalar.dtype) => {
                Ok(Value::Exact(Exact::nearest(scalar.as_f64(), self.local())))
            }
            Expr::Const(scalar) => Ok(Value::Scalar(fold::canonical(*scalar))),
            Expr::Var(Var(number)) => match self.variables.get(*number as usize).copied().flatten() {
                Some(value) => Ok(value),
                None => unsupported("a variable is read before it is assigned"),
            },
            Expr::Load { buffer, index, lanes: 1, valid } => {
                let dtype = self.kernel.buffer_of(*buffer).dtype;
                let active = match valid {
                    Some(valid) => self.index(valid)? > 0,
                    None => true,
                };
                let cell =
                    if active { self.memory[buffer.0 as usize][self.place(*buffer, index)?] } else { 0 };
                Ok(match self.formats {
                    Some(formats) if dtype == DType::F32 => {
                        let format = formats.buffer(self.kernel, *buffer);
                        let exact = Exact { mantissa: cell, fraction: format.fraction() };
                        // A choice between an element and nothing is of the local format.
                        Value::Exact(if valid.is_some() { exact.rounded(formats.local) } else { exact })
                    }
                    _ => Value::Scalar(scalar(dtype, cell)),
                })
            }
            Expr::Call(op, args) => self.call(*op, args),
            Expr::Splat(value, 1) | Expr::ReduceLanes(_, value) => self.value(value),
            Expr::Ramp { base, lanes: 1, .. } => self.value(base),
            Expr::Fma(a, b, c) => match (self.value(a)?, self.value(b)?, self.value(c)?) {
                (Value::Exact(a), Value::Exact(b), Value::Exact(c)) => {
                    wide(a.times(b).and_then(|product| product.plus(c)))
                }
                (Value::Scalar(a), Value::Scalar(b), Value::Scalar(c)) => {
                    let product = fold::apply(ScalarOp::Call(Function::Mul), &[a, b])?;
                    Ok(Value::Scalar(fold::apply(ScalarOp::Call(Function::Add), &[product, c])?))
                }
                _ => unsupported("a product of unlike numbers"),
            },
            _ => unsupported(format!("vector '{}'", self.kernel.expr_text(expr))),
        }
    }

    fn call(&self, op: ScalarOp, args: &[Expr]) -> Result<Value, FixedError> {
        let (first, second) = (args.first(), args.get(1));
        if let (ScalarOp::Call(Function::Select), [condition, a, b]) = (op, args) {
            let chosen = self.value(if self.test(condition)? { a } else { b })?;
            return Ok(match chosen {
                Value::Exact(exact) => Value::Exact(exact.rounded(self.local())),
                scalar => scalar,
            });
        }
        let a = match first {
            Some(first) => self.value(first)?,
            None => return unsupported("a function without arguments"),
        };
        match (op, a, second) {
            (ScalarOp::Call(function), Value::Scalar(a), Some(second)) => {
                let Value::Scalar(b) = self.value(second)? else {
                    return unsupported("numbers of unlike kinds");
                };
                match quick(function, a, b) {
                    Some(result) => Ok(Value::Scalar(result)),
                    None => Ok(Value::Scalar(fold::apply(op, &[a, b])?)),
                }
            }
            (ScalarOp::Call(function), Value::Exact(a), Some(second)) => {
                let Value::Exact(b) = self.value(second)? else {
                    return unsupported("numbers of unlike kinds");
                };
                self.binary(function, a, b)
            }
            (ScalarOp::Call(Function::IsNan | Function::IsInf), Value::Exact(_), None) => Ok(truth(false)),
            (ScalarOp::Call(function), Value::Exact(a), None) => {
                match functions::unary(function, a, self.local()) {
                    Some(result) => wide(result),
                    None => unsupported(format!("fixed point has no '{}'", function.text())),
                }
            }
            (ScalarOp::Cast(to) | ScalarOp::CastAlternate(to), Value::Exact(a), None) => self.convert(a, to),
            (ScalarOp::Cast(to) | ScalarOp::CastAlternate(to), Value::Scalar(a), None)
                if self.is_fixed(to) =>
            {
                let whole = Exact { mantissa: whole(a), fraction: 0 };
                Ok(Value::Exact(whole.rounded(self.local())))
            }
            (_, Value::Scalar(a), None) => Ok(Value::Scalar(fold::apply(op, &[a])?)),
            (_, Value::Exact(_), _) => unsupported(format!("fixed point has no '{op}'")),
            (_, Value::Scalar(_), Some(_)) => unsupported(format!("'{op}' of two arguments")),
        }
    }

    fn binary(&self, function: Function, a: Exact, b: Exact) -> Result<Value, FixedError> {
        let local = self.local();
        let order = || a.compare(b).ok_or(FixedError::TooWide);
        let (in_a, in_b) = (a.rounded(local), b.rounded(local));
        let larger = in_b.mantissa > in_a.mantissa;
        match function {
            Function::Add => wide(a.plus(b)),
            Function::Sub => wide(b.negated().and_then(|b| a.plus(b))),
            Function::Mul => wide(a.times(b)),
            Function::Div => wide(functions::quotient(a, b, local)),
            Function::Max => Ok(Value::Exact(if larger { in_b } else { in_a })),
            Function::Min => Ok(Value::Exact(if larger { in_a } else { in_b })),
            Function::Equal => Ok(truth(order()? == Ordering::Equal)),
            Function::Less => Ok(truth(order()? == Ordering::Less)),
            Function::LessEqual => Ok(truth(order()? != Ordering::Greater)),
            _ => unsupported(format!("fixed point has no '{}'", function.text())),
        }
    }

    /// Towards zero, saturating; a truth value is whether it is not 0.
    fn convert(&self, a: Exact, to: DType) -> Result<Value, FixedError> {
        match (to.class(), to.integer_range()) {
            (Class::Float, _) => Ok(Value::Exact(a)),
            (Class::Bool, _) => Ok(truth(!a.is_zero())),
            (_, Some((low, high))) => {
                let whole = a.rounded(self.local()).truncated().clamp(low, high);
                Ok(Value::Scalar(Scalar { dtype: to, bits: fold::wrap(to, whole as i64).bits }))
            }
            _ => unsupported(format!("fixed point becomes no {to}")),
        }
    }
}

fn whole(scalar: Scalar) -> i128 {
    match scalar.dtype {
        DType::U64 => scalar.bits.into(),
        _ => scalar.as_i64().into(),
    }
}

/// Index arithmetic and the common functions of f32, without detours.
fn quick(function: Function, a: Scalar, b: Scalar) -> Option<Scalar> {
    match (a.dtype, b.dtype) {
        (DType::I64, DType::I64) => {
            let (x, y) = (a.bits as i64, b.bits as i64);
            let value = match function {
                Function::Add => x.wrapping_add(y),
                Function::Sub => x.wrapping_sub(y),
                Function::Mul => x.wrapping_mul(y),
                Function::Max => x.max(y),
                Function::Min => x.min(y),
                Function::Less => return Some(Scalar::integer(DType::Bool, (x < y).into())),
                _ => return None,
            };
            Some(Scalar::integer(DType::I64, value))
        }
        (DType::F32, DType::F32) => {
            let (x, y) = (a.as_f64() as f32, b.as_f64() as f32);
            let value = match function {
                Function::Add => x + y,
                Function::Sub => x - y,
                Function::Mul => x * y,
                _ => return None,
            };
            Some(Scalar::float(DType::F32, value.into()))
        }
        _ => None,
    }
}
