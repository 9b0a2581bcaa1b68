//! Checks that a kernel is well formed.
//!
//! [`verify`] holds for every kernel, at any point between lowering and code generation:
//!
//! - variables, buffers and dimensions that occur are declared; counts and types agree with their declarations;
//! - functions get arguments of the types they take, with equal lanes; a vector has at least two lanes;
//! - indices, extents and `valid` are `i64`; conditions are scalar truth values;
//! - a variable is assigned before it is read on every path: what a loop or branch assigns first is gone after it;
//! - a loop counter is never assigned, is read only inside its loop, and is not reused by a loop inside it;
//! - the extent of a `Vector` or `Unroll` loop and the count of a `Stack` or `Register` buffer is a constant;
//! - a `Parallel` loop is the only top-level statement;
//! - no vector loop lies inside another, and none assigns a variable that is assigned before it;
//! - arguments are read and written only as they declare; their positions are distinct.
//!
//! [`verify_final`] asks in addition for what "What a CPU backend receives" in [`crate::ir`] promises.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarOp};
use thiserror::Error;

use crate::ir::{Access, BufferId, Expr, Kernel, LoopKind, Space, Stmt, Ty, Var};
use crate::machine::Machine;

/// Why a kernel is not well formed. Every variant is a bug of the code that built the kernel.
#[derive(Clone, PartialEq, Debug, Error)]
pub enum VerifyError {
    /// A number without a declaration.
    #[error("{what} {number} is not declared")]
    Undeclared {
        /// Variable, buffer or dimension.
        what: &'static str,
        /// Its number.
        number: u32,
    },
    /// A read that some path reaches without an assignment.
    #[error("variable '{0}' is read before it is assigned")]
    Unassigned(String),
    /// An assignment to a loop counter, or a counter in use by an outer loop.
    #[error("loop counter '{0}' is assigned or reused inside its loop")]
    Counter(String),
    /// A type that does not fit its place.
    #[error("{place} has type {found}, expected {expected}: {text}")]
    Type {
        /// Where.
        place: &'static str,
        /// The type there.
        found: Ty,
        /// What the place takes.
        expected: String,
        /// The expression.
        text: String,
    },
    /// A function that does not take its arguments.
    #[error("{reason}: {text}")]
    Arguments {
        /// What the function takes.
        reason: String,
        /// The expression.
        text: String,
    },
    /// A size that must be a constant and is not, or is negative.
    #[error("{what} '{name}' needs a constant size")]
    NotConstant {
        /// Loop or buffer.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A parallel loop below the top level or beside other statements.
    #[error("parallel loop '{0}' is not the only top-level statement")]
    Parallel(String),
    /// A vector loop inside a vector loop.
    #[error("vector loop '{0}' lies inside another vector loop")]
    NestedVector(String),
    /// A reduction over lanes without a tree.
    #[error("vector loop '{counter}' assigns variable '{name}', which is assigned before the loop")]
    Carried {
        /// Counter of the vector loop.
        counter: String,
        /// The variable.
        name: String,
    },
    /// A buffer used against its declaration.
    #[error("buffer '{0}' is read or written against its declaration")]
    Access(String),
    /// Something that a backend does not take.
    #[error("not ready for code generation, {what}: {text}")]
    NotFinal {
        /// What is wrong.
        what: &'static str,
        /// Where.
        text: String,
    },
}

/// Checks the invariants of the module's checklist.
pub fn verify(kernel: &Kernel) -> Result<(), VerifyError> {
    Verifier::new(kernel, None).run()
}

/// Checks the invariants of kernels that are ready for a backend.
pub fn verify_final(kernel: &Kernel, machine: &Machine) -> Result<(), VerifyError> {
    Verifier::new(kernel, Some(machine)).run()
}

/// True for element types that variables and operations may have in a finished kernel.
pub fn is_core(dtype: DType) -> bool {
    matches!(
        dtype,
        DType::F32
            | DType::F64
            | DType::I8
            | DType::I16
            | DType::I32
            | DType::I64
            | DType::U8
            | DType::U16
            | DType::U32
            | DType::U64
            | DType::Bool
    )
}

/// True for functions that backends implement on operands of the type.
pub fn is_core_function(function: Function, dtype: DType) -> bool {
    use Function::*;
    match function {
        Neg | Abs | Add | Sub | Mul | Div | Max | Min | BitAnd | BitOr | BitXor | BitNot | ShiftLeft
        | ShiftRight | And | Or | Xor | Not | Equal | Less | LessEqual | Select | Floor | Ceil | Round
        | Trunc | Sqrt => true,
        Rem => dtype.is_integer(),
        _ => false,
    }
}

struct Verifier<'k> {
    kernel: &'k Kernel,
    machine: Option<&'k Machine>,
    assigned: Vec<bool>,
    /// Variables in the order in which they became assigned, to forget them at the end of a block.
    order: Vec<Var>,
    counters: Vec<Var>,
}

impl<'k> Verifier<'k> {
    fn new(kernel: &'k Kernel, machine: Option<&'k Machine>) -> Self {
        let assigned = vec![false; kernel.variables.len()];
        Verifier { kernel, machine, assigned, order: Vec::new(), counters: Vec::new() }
    }

    fn run(mut self) -> Result<(), VerifyError> {
        let mut positions = Vec::new();
        for buffer in &self.kernel.buffers {
            self.expect("buffer count", &buffer.count, Ty::INDEX)?;
            if matches!(buffer.space, Space::Stack | Space::Register)
                && buffer.count.as_index().is_none_or(|count| count < 0)
            {
                return Err(VerifyError::NotConstant { what: "buffer", name: buffer.name.clone() });
            }
            if let Space::Argument(position) = buffer.space {
                if positions.contains(&position) {
                    return Err(VerifyError::Access(buffer.name.clone()));
                }
                positions.push(position);
            }
            if self.machine.is_some() {
                if buffer.space == Space::Register {
                    return self.not_final("register array", buffer.name.clone());
                }
                let stored =
                    buffer.dtype == DType::F16 || is_core(buffer.dtype) && buffer.dtype != DType::Bool;
                if !stored {
                    return self.not_final("element type of a buffer", buffer.name.clone());
                }
            }
        }
        for stmt in &self.kernel.body {
            if let Stmt::For { var, kind: LoopKind::Parallel, .. } = stmt
                && self.kernel.body.len() > 1
            {
                return Err(VerifyError::Parallel(self.name(*var)));
            }
        }
        let body = &self.kernel.body;
        self.block(body, None, true)
    }

    fn name(&self, var: Var) -> String {
        self.kernel.variables.get(var.0 as usize).map_or_else(String::new, |variable| variable.name.clone())
    }

    fn not_final<T>(&self, what: &'static str, text: String) -> Result<T, VerifyError> {
        Err(VerifyError::NotFinal { what, text })
    }

    fn declared(&self, var: Var) -> Result<(), VerifyError> {
        if (var.0 as usize) < self.kernel.variables.len() {
            Ok(())
        } else {
            Err(VerifyError::Undeclared { what: "variable", number: var.0 })
        }
    }

    /// Checks a block; `vector` is the counter of the vector loop around it and how many variables were assigned at its start.
    fn block(&mut self, block: &[Stmt], vector: Option<(Var, usize)>, top: bool) -> Result<(), VerifyError> {
        let before = self.order.len();
        for stmt in block {
            self.stmt(stmt, vector, top)?;
        }
        for var in self.order.split_off(before) {
            self.assigned[var.0 as usize] = false;
        }
        Ok(())
    }

    fn stmt(&mut self, stmt: &Stmt, vector: Option<(Var, usize)>, top: bool) -> Result<(), VerifyError> {
        match stmt {
            Stmt::For { var, extent, kind, body } => {
                self.declared(*var)?;
                self.expect("loop extent", extent, Ty::INDEX)?;
                if self.kernel.variables[var.0 as usize].ty != Ty::INDEX
                    || self.counters.contains(var)
                    || self.assigned[var.0 as usize]
                {
                    return Err(VerifyError::Counter(self.name(*var)));
                }
                let constant = extent.as_index().is_some_and(|extent| extent >= 0);
                if matches!(kind, LoopKind::Vector | LoopKind::Unroll) && !constant {
                    return Err(VerifyError::NotConstant { what: "loop", name: self.name(*var) });
                }
                if *kind == LoopKind::Parallel && !top {
                    return Err(VerifyError::Parallel(self.name(*var)));
                }
                if self.machine.is_some() && !matches!(kind, LoopKind::Parallel | LoopKind::Serial) {
                    return self.not_final("loop kind", self.name(*var));
                }
                let mut vector = vector;
                if *kind == LoopKind::Vector {
                    if vector.is_some() {
                        return Err(VerifyError::NestedVector(self.name(*var)));
                    }
                    vector = Some((*var, self.order.len()));
                }
                self.counters.push(*var);
                self.block(body, vector, false)?;
                self.counters.pop();
            }
            Stmt::Assign { var, value } => {
                self.declared(*var)?;
                if self.counters.contains(var) {
                    return Err(VerifyError::Counter(self.name(*var)));
                }
                self.expect("assigned value", value, self.kernel.variables[var.0 as usize].ty)?;
                if let Some((counter, before)) = vector
                    && self.order[..before].contains(var)
                {
                    return Err(VerifyError::Carried { counter: self.name(counter), name: self.name(*var) });
                }
                if !self.assigned[var.0 as usize] {
                    self.assigned[var.0 as usize] = true;
                    self.order.push(*var);
                }
            }
            Stmt::Store { buffer, index, value, valid } => {
                let declaration = self.buffer(*buffer)?;
                if declaration.access == Access::Read {
                    return Err(VerifyError::Access(declaration.name.clone()));
                }
                let dtype = declaration.dtype;
                let ty = self.expr(value)?;
                if ty.dtype != dtype {
                    return Err(self.mismatch("stored value", value, ty, dtype.to_string()));
                }
                self.index(index, ty.lanes)?;
                valid.iter().try_for_each(|valid| self.expect("valid", valid, Ty::INDEX))?;
            }
            Stmt::If { condition, then, otherwise } => {
                self.expect("condition", condition, Ty::scalar(DType::Bool))?;
                self.block(then, vector, false)?;
                self.block(otherwise, vector, false)?;
            }
            Stmt::Barrier => {
                if self.machine.is_some() {
                    return self.not_final("barrier", String::new());
                }
            }
            Stmt::Warp(op) => {
                if self.machine.is_some() {
                    return self.not_final("warp statement", String::new());
                }
                op.exprs().into_iter().try_for_each(|expr| self.expr(expr).map(|_| ()))?;
                if let Some(var) = op.assigned() {
                    self.declared(var)?;
                    if !self.assigned[var.0 as usize] {
                        self.assigned[var.0 as usize] = true;
                        self.order.push(var);
                    }
                }
            }
        }
        Ok(())
    }

    fn buffer(&self, id: BufferId) -> Result<&'k crate::ir::Buffer, VerifyError> {
        self.kernel.buffers.get(id.0 as usize).ok_or(VerifyError::Undeclared { what: "buffer", number: id.0 })
    }

    fn mismatch(&self, place: &'static str, expr: &Expr, found: Ty, expected: String) -> VerifyError {
        VerifyError::Type { place, found, expected, text: self.kernel.expr_text(expr) }
    }

    fn expect(&self, place: &'static str, expr: &Expr, expected: Ty) -> Result<(), VerifyError> {
        let found = self.expr(expr)?;
        if found == expected { Ok(()) } else { Err(self.mismatch(place, expr, found, expected.to_string())) }
    }

    /// An index of an access with so many lanes: the first element, or one index a lane.
    fn index(&self, index: &Expr, lanes: u16) -> Result<(), VerifyError> {
        let ty = self.expr(index)?;
        if ty.dtype == DType::I64 && (ty.lanes == 1 || ty.lanes == lanes) {
            Ok(())
        } else {
            Err(self.mismatch("index", index, ty, format!("one i64 or {lanes}")))
        }
    }

    fn arguments<T>(&self, reason: impl Into<String>, expr: &Expr) -> Result<T, VerifyError> {
        Err(VerifyError::Arguments { reason: reason.into(), text: self.kernel.expr_text(expr) })
    }

    /// The type of a well-formed expression.
    fn expr(&self, expr: &Expr) -> Result<Ty, VerifyError> {
        let ty = match expr {
            Expr::Const(scalar) => Ty::scalar(scalar.dtype),
            Expr::Var(var) => {
                self.declared(*var)?;
                if !self.assigned[var.0 as usize] && !self.counters.contains(var) {
                    return Err(VerifyError::Unassigned(self.name(*var)));
                }
                self.kernel.variables[var.0 as usize].ty
            }
            Expr::Dim(number) => {
                if *number as usize >= self.kernel.dims.len() {
                    return Err(VerifyError::Undeclared { what: "dimension", number: *number });
                }
                Ty::INDEX
            }
            Expr::Load { buffer, index, lanes, valid } => {
                let declaration = self.buffer(*buffer)?;
                if matches!(declaration.space, Space::Argument(_)) && declaration.access == Access::Write {
                    return Err(VerifyError::Access(declaration.name.clone()));
                }
                self.index(index, *lanes)?;
                valid.iter().try_for_each(|valid| self.expect("valid", valid, Ty::INDEX))?;
                Ty::vector(declaration.dtype, *lanes)
            }
            Expr::Call(op, args) => self.call(*op, args, expr)?,
            Expr::Splat(value, lanes) => {
                let ty = self.expr(value)?;
                if ty.lanes != 1 {
                    return self.arguments("splat takes a scalar", expr);
                }
                Ty::vector(ty.dtype, *lanes)
            }
            Expr::Ramp { base, lanes, .. } => {
                self.expect("base of a ramp", base, Ty::INDEX)?;
                Ty::vector(DType::I64, *lanes)
            }
            Expr::Fma(a, b, c) => {
                let (a, b, c) = (self.expr(a)?, self.expr(b)?, self.expr(c)?);
                if a != b || b != c || !matches!(a.dtype, DType::F32 | DType::F64) {
                    return self.arguments("fma takes three f32 or f64 of one type", expr);
                }
                c
            }
            Expr::Dot { acc, a, b } => {
                let (acc, a, b) = (self.expr(acc)?, self.expr(a)?, self.expr(b)?);
                let byte = |ty: Ty| {
                    matches!(ty.dtype, DType::I8 | DType::U8)
                        && usize::from(ty.lanes) == 4 * usize::from(acc.lanes)
                };
                if acc.dtype != DType::I32 || !byte(a) || !byte(b) {
                    return self.arguments("dot takes i32 lanes and four times as many 8-bit ones", expr);
                }
                acc
            }
            Expr::ReduceLanes(_, value) => {
                let ty = self.expr(value)?;
                if !ty.lanes.is_power_of_two() || ty.dtype == DType::Bool {
                    return self.arguments("lanes are reduced in powers of two, numbers only", expr);
                }
                Ty::scalar(ty.dtype)
            }
            Expr::Shuffle(a, b, picks) => {
                let (a, b) = (self.expr(a)?, self.expr(b)?);
                let total = u32::from(a.lanes) + u32::from(b.lanes);
                if a.dtype != b.dtype
                    || picks.is_empty()
                    || picks.iter().any(|pick| u32::from(*pick) >= total)
                {
                    return self.arguments("shuffle picks lanes of two vectors of one element type", expr);
                }
                Ty::vector(a.dtype, picks.len() as u16)
            }
        };
        if ty.lanes == 0 {
            return self.arguments("a value has at least one lane", expr);
        }
        self.fits(ty, expr)?;
        Ok(ty)
    }

    fn call(&self, op: ScalarOp, args: &[Expr], expr: &Expr) -> Result<Ty, VerifyError> {
        let types = args.iter().map(|arg| self.expr(arg)).collect::<Result<Vec<Ty>, VerifyError>>()?;
        if types.windows(2).any(|pair| pair[0].lanes != pair[1].lanes) {
            return self.arguments("arguments differ in lanes", expr);
        }
        let dtypes: Vec<DType> = types.iter().map(|ty| ty.dtype).collect();
        let dtype = match op.infer(&dtypes) {
            Ok(dtype) => dtype,
            Err(reason) => return self.arguments(reason, expr),
        };
        if self.machine.is_some() {
            let core = match op {
                ScalarOp::Call(function) => {
                    let operand = dtypes[dtypes.len() - 1];
                    is_core_function(function, operand) && is_core(operand)
                }
                ScalarOp::Cast(to) => match (dtypes[0], to) {
                    (DType::F16, to) => to == DType::F32,
                    (from, DType::F16) => from == DType::F32,
                    _ => true,
                },
                ScalarOp::CastAlternate(_) => false,
                ScalarOp::Bitcast(_) => is_core(dtypes[0]),
            };
            if !core {
                return self.not_final("function", self.kernel.expr_text(expr));
            }
        }
        Ok(Ty::vector(dtype, types[0].lanes))
    }

    /// Native width and core element types, in finished kernels.
    fn fits(&self, ty: Ty, expr: &Expr) -> Result<(), VerifyError> {
        let Some(machine) = self.machine else { return Ok(()) };
        let short = ty.dtype == DType::F16 && machine.f16_convert;
        if !is_core(ty.dtype) && !short {
            return self.not_final("element type", self.kernel.expr_text(expr));
        }
        // A ramp that only addresses memory is no register; truth values take a bit or the width of what was compared.
        let address = matches!(expr, Expr::Ramp { .. }) || ty.dtype == DType::Bool;
        if ty.lanes > 1 && !address && usize::from(ty.lanes) * ty.dtype.bits() > machine.vector_bits as usize
        {
            return self.not_final("vector wider than a register", self.kernel.expr_text(expr));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
