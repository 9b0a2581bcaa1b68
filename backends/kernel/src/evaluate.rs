//! An interpreter of kernels, before and after the passes.
//!
//! It checks what compiled code does not: every access against the declared and the real size of its buffer, reads of
//! scratch, stack and register memory that nobody has written, indices that overflow. Loops of every kind run in order, one
//! iteration after the other. It serves tests: scheduling steps and passes keep what a kernel computes.

mod memory;
mod value;

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Scalar;
use thiserror::Error;

use crate::fold::FoldError;
use crate::ir::{BufferId, Expr, Kernel, LoopKind, Space, Stmt, Var};
use memory::Memory;
use value::Value;

/// What went wrong while running a kernel.
#[derive(Clone, PartialEq, Debug, Error)]
pub enum EvaluateError {
    /// An access outside its buffer.
    #[error("element {index} of '{buffer}', which has {count}")]
    OutOfBounds {
        /// The buffer.
        buffer: String,
        /// The element.
        index: i64,
        /// Number of elements.
        count: i64,
    },
    /// A read of memory that nobody has written.
    #[error("element {index} of '{buffer}' is read before it is written")]
    Uninitialized {
        /// The buffer.
        buffer: String,
        /// The element.
        index: i64,
    },
    /// Threads of a GPU warp that work together.
    #[error("a statement of a GPU warp")]
    Warp,
    /// A variable without a value.
    #[error("variable '{0}' is read before it is assigned")]
    Unassigned(String),
    /// Fewer arguments or smaller ones than the kernel declares.
    #[error("argument '{0}' is missing or too small")]
    Argument(String),
    /// A value of another type than its place takes.
    #[error("malformed expression: {0}")]
    Malformed(String),
    /// An operation on values that it does not take.
    #[error(transparent)]
    Fold(#[from] FoldError),
}

/// Runs iterations `begin..end` of the parallel loop, or the whole kernel where it has none and `begin` is 0.
///
/// `buffers` are the arguments in their order, `dims` the values of the run-time dimensions.
pub fn evaluate(
    kernel: &Kernel,
    buffers: &mut [&mut [u8]],
    dims: &[i64],
    begin: i64,
    end: i64,
) -> Result<(), EvaluateError> {
    let mut machine =
        Evaluator { kernel, dims, variables: vec![None; kernel.variables.len()], memory: Vec::new() };
    let counts = kernel
        .buffers
        .iter()
        .map(|buffer| machine.index(&buffer.count))
        .collect::<Result<Vec<i64>, EvaluateError>>()?;
    let mut arguments: Vec<Option<&mut [u8]>> = buffers.iter_mut().map(|bytes| Some(&mut **bytes)).collect();
    let mut memory = Vec::with_capacity(counts.len());
    for (buffer, count) in kernel.buffers.iter().zip(counts) {
        memory.push(match buffer.space {
            Space::Argument(position) => {
                let bytes = arguments.get_mut(position as usize).and_then(Option::take);
                Memory::argument(
                    buffer,
                    count,
                    bytes.ok_or_else(|| EvaluateError::Argument(buffer.name.clone()))?,
                )?
            }
            _ => Memory::own(buffer, count)?,
        });
    }
    machine.memory = memory;
    match &kernel.body[..] {
        [Stmt::For { var, extent, kind: LoopKind::Parallel, body }] => {
            let extent = machine.index(extent)?;
            for task in begin.max(0)..end.min(extent) {
                machine.memory.iter_mut().for_each(Memory::forget);
                machine.set(*var, Value::scalar(Scalar::integer(DType::I64, task)));
                machine.block(body)?;
            }
            Ok(())
        }
        body if begin == 0 => machine.block(body),
        _ => Ok(()),
    }
}

struct Evaluator<'k, 'b> {
    kernel: &'k Kernel,
    dims: &'k [i64],
    variables: Vec<Option<Value>>,
    memory: Vec<Memory<'b>>,
}

fn malformed<T>(what: impl Into<String>) -> Result<T, EvaluateError> {
    Err(EvaluateError::Malformed(what.into()))
}

impl Evaluator<'_, '_> {
    fn set(&mut self, var: Var, value: Value) {
        self.variables[var.0 as usize] = Some(value);
    }

    fn block(&mut self, block: &[Stmt]) -> Result<(), EvaluateError> {
        block.iter().try_for_each(|stmt| self.stmt(stmt))
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<(), EvaluateError> {
        match stmt {
            Stmt::For { var, extent, body, .. } => {
                let extent = self.index(extent)?;
                for iteration in 0..extent {
                    self.set(*var, Value::scalar(Scalar::integer(DType::I64, iteration)));
                    self.block(body)?;
                }
                self.variables[var.0 as usize] = None;
            }
            Stmt::Assign { var, value } => {
                let value = self.value(value)?;
                self.set(*var, value);
            }
            Stmt::Store { buffer, index, value, valid } => {
                let value = self.value(value)?;
                let lanes = value.lanes();
                let positions = self.positions(index, lanes)?;
                let active = self.active(valid.as_ref(), lanes)?;
                for (lane, position) in positions.into_iter().enumerate().take(active) {
                    self.memory[buffer.0 as usize].write(position, value.lane(lane))?;
                }
            }
            Stmt::If { condition, then, otherwise } => {
                let block = if self.value(condition)?.lane(0).bits != 0 { then } else { otherwise };
                self.block(block)?;
            }
            Stmt::Barrier => {}
            Stmt::Warp(_) => return Err(EvaluateError::Warp),
        }
        Ok(())
    }

    fn index(&self, expr: &Expr) -> Result<i64, EvaluateError> {
        let value = self.value(expr)?;
        if value.lanes() == 1 && value.lane(0).dtype == DType::I64 {
            Ok(value.lane(0).as_i64())
        } else {
            malformed("an index is one i64")
        }
    }

    /// The elements that an access touches.
    fn positions(&self, index: &Expr, lanes: usize) -> Result<Vec<i64>, EvaluateError> {
        let index = self.value(index)?;
        if index.lanes() == lanes {
            Ok((0..lanes).map(|lane| index.lane(lane).as_i64()).collect())
        } else if index.lanes() == 1 {
            Ok((0..lanes as i64).map(|lane| index.lane(0).as_i64().wrapping_add(lane)).collect())
        } else {
            malformed("an access has one index or one a lane")
        }
    }

    fn active(&self, valid: Option<&Expr>, lanes: usize) -> Result<usize, EvaluateError> {
        Ok(match valid {
            Some(valid) => self.index(valid)?.clamp(0, lanes as i64) as usize,
            None => lanes,
        })
    }

    fn load(
        &self,
        buffer: BufferId,
        index: &Expr,
        lanes: u16,
        valid: Option<&Expr>,
    ) -> Result<Value, EvaluateError> {
        let positions = self.positions(index, lanes.into())?;
        let active = self.active(valid, lanes.into())?;
        let memory = &self.memory[buffer.0 as usize];
        let zero = Scalar { dtype: self.kernel.buffer_of(buffer).dtype, bits: 0 };
        let element =
            |(lane, position): (usize, &i64)| if lane < active { memory.read(*position) } else { Ok(zero) };
        Ok(Value::of(positions.iter().enumerate().map(element).collect::<Result<_, EvaluateError>>()?))
    }

    fn value(&self, expr: &Expr) -> Result<Value, EvaluateError> {
        match expr {
            Expr::Const(scalar) => Ok(Value::scalar(*scalar)),
            Expr::Var(var) => self.variables[var.0 as usize]
                .clone()
                .ok_or_else(|| EvaluateError::Unassigned(self.kernel.variables[var.0 as usize].name.clone())),
            Expr::Dim(number) => match self.dims.get(*number as usize) {
                Some(dim) => Ok(Value::scalar(Scalar::integer(DType::I64, *dim))),
                None => malformed("a dimension has no value"),
            },
            Expr::Load { buffer, index, lanes, valid } => self.load(*buffer, index, *lanes, valid.as_deref()),
            Expr::Call(op, args) => {
                let args =
                    args.iter().map(|arg| self.value(arg)).collect::<Result<Vec<Value>, EvaluateError>>()?;
                Value::call(*op, &args)
            }
            Expr::Splat(value, lanes) => Ok(self.value(value)?.repeated((*lanes).into())),
            Expr::Ramp { base, stride, lanes } => {
                let base = self.index(base)?;
                let lane =
                    |lane: i64| Scalar::integer(DType::I64, base.wrapping_add(stride.wrapping_mul(lane)));
                Ok(Value::of((0..i64::from(*lanes)).map(lane).collect()))
            }
            Expr::Fma(a, b, c) => Value::fused(&self.value(a)?, &self.value(b)?, &self.value(c)?),
            Expr::Dot { acc, a, b } => Value::dot(&self.value(acc)?, &self.value(a)?, &self.value(b)?),
            Expr::ReduceLanes(kind, value) => self.value(value)?.reduced(*kind),
            Expr::Shuffle(a, b, picks) => Value::shuffled(&self.value(a)?, &self.value(b)?, picks),
        }
    }
}

#[cfg(test)]
mod tests;
