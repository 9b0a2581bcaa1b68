//! What of a well-formed kernel this backend has no lowering for.
//!
//! [`tcc_kernel::verify::verify`] has checked types and scopes; this checks, in addition, that
//!
//! - element types are the core types, or `f16`, which is stored, selected, compared and converted;
//! - functions are the core functions, for types that they have;
//! - loops are serial or parallel, and there are no barriers;
//! - buffers are arguments, scratch or on the stack, and counts are arithmetic on constants and dimensions;
//! - sizes are such that code for them can be made.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarOp};
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Expr, LoopKind, Space, Stmt, Ty};

/// Most lanes of a vector; each register of it is an instruction for every operation.
const LARGEST_VECTOR: u16 = 1024;
/// Most bytes of all stack buffers: threads have stacks of a few megabytes.
const LARGEST_STACK: i64 = 1 << 18;
/// Most arguments, dimensions: their offsets are immediates.
const LARGEST_LIST: u32 = 1 << 20;

fn is_storable(dtype: DType) -> bool {
    dtype == DType::F16 || tcc_kernel::verify::is_core(dtype)
}

/// Refuses what has no lowering, by name.
pub(crate) fn check(kernel: &Kernel) -> Result<(), String> {
    let mut stack = 0i64;
    for buffer in &kernel.buffers {
        if !is_storable(buffer.dtype) {
            return Err(format!("buffer '{}' of {}", buffer.name, buffer.dtype));
        }
        match buffer.space {
            Space::Argument(position) if position < LARGEST_LIST => {}
            Space::Scratch => {}
            Space::Stack => {
                let count = buffer.count.as_index().unwrap_or(i64::MAX).max(0);
                stack = stack.saturating_add(count.saturating_mul(buffer.dtype.size() as i64));
                if stack > LARGEST_STACK {
                    return Err(format!("buffer '{}': {stack} bytes of stack", buffer.name));
                }
            }
            other => return Err(format!("buffer '{}' in space {other:?}", buffer.name)),
        }
        let mut error = None;
        buffer.count.visit(&mut |expr| match expr {
            Expr::Const(_) | Expr::Dim(_) | Expr::Call(..) => {}
            other => error = Some(format!("count of buffer '{}' with {}", buffer.name, name_of(other))),
        });
        error.map_or(Ok(()), Err)?;
        expression(kernel, &buffer.count)?;
    }
    for variable in &kernel.variables {
        if !is_storable(variable.ty.dtype) {
            return Err(format!("variable '{}' of {}", variable.name, variable.ty.dtype));
        }
    }
    block(kernel, &kernel.body)
}

fn name_of(expr: &Expr) -> &'static str {
    match expr {
        Expr::Load { .. } => "a load",
        Expr::Var(_) => "a variable",
        _ => "a vector",
    }
}

fn block(kernel: &Kernel, block_: &[Stmt]) -> Result<(), String> {
    for stmt in block_ {
        match stmt {
            Stmt::For { kind: LoopKind::Serial | LoopKind::Parallel, extent, body, .. } => {
                expression(kernel, extent)?;
                block(kernel, body)?;
            }
            Stmt::For { kind, .. } => return Err(format!("loop of kind {kind:?}")),
            Stmt::Assign { value, .. } => {
                expression(kernel, value)?;
            }
            Stmt::Store { index, value, valid, .. } => {
                expression(kernel, index)?;
                expression(kernel, value)?;
                valid.iter().try_for_each(|valid| expression(kernel, valid).map(drop))?;
            }
            Stmt::If { condition, then, otherwise } => {
                expression(kernel, condition)?;
                block(kernel, then)?;
                block(kernel, otherwise)?;
            }
            Stmt::Barrier => return Err("a barrier".to_owned()),
            Stmt::Warp(_) => return Err("a statement of a GPU warp".to_owned()),
        }
    }
    Ok(())
}

/// Checks an expression and its parts, each once, and returns its type.
fn expression(kernel: &Kernel, expr: &Expr) -> Result<Ty, String> {
    let (mut error, mut last) = (None, None);
    let ty = kernel.type_over(expr, &mut |part| {
        let ty = expression(kernel, part).unwrap_or_else(|refusal| {
            error.get_or_insert(refusal);
            Ty::INDEX
        });
        last = Some(ty);
        ty
    });
    error.map_or(Ok(()), Err)?;
    // The parts that have no say in the type.
    match expr {
        Expr::Load { index, valid, .. } => {
            expression(kernel, index)?;
            valid.iter().try_for_each(|valid| expression(kernel, valid).map(drop))?;
        }
        Expr::Ramp { base: part, .. } | Expr::Shuffle(_, part, _) => drop(expression(kernel, part)?),
        Expr::Fma(a, b, _) | Expr::Dot { a, b, .. } => {
            expression(kernel, a)?;
            expression(kernel, b)?;
        }
        _ => {}
    }
    match refusal(expr, ty, last) {
        Some(refusal) => Err(refusal),
        None => Ok(ty),
    }
}

/// Why an expression of this type, with a last part of type `last`, has no lowering.
fn refusal(expr: &Expr, ty: Ty, last: Option<Ty>) -> Option<String> {
    if !is_storable(ty.dtype) {
        return Some(format!("a value of {}", ty.dtype));
    }
    if ty.lanes > LARGEST_VECTOR {
        return Some(format!("a vector of {} lanes", ty.lanes));
    }
    match expr {
        Expr::Call(ScalarOp::Call(function), _) => {
            // The operands' type; of a selection, that of what is selected.
            let dtype = last.map_or(ty.dtype, |ty| ty.dtype);
            (!has_lowering(*function, dtype)).then(|| format!("{} of {dtype}", function.text()))
        }
        Expr::Dim(number) if *number >= LARGEST_LIST => Some(format!("dimension {number}")),
        Expr::ReduceLanes(..) if ty.dtype == DType::F16 => Some("a reduction of f16".to_owned()),
        _ => None,
    }
}

fn has_lowering(function: Function, dtype: DType) -> bool {
    use Function::*;
    match function {
        Equal | Less | LessEqual | Select => true,
        And | Or | Xor | Not => dtype == DType::Bool,
        Mod | Rem | BitAnd | BitOr | BitXor | BitNot | ShiftLeft | ShiftRight => dtype.is_integer(),
        Neg | Abs | Add | Sub | Mul | Div | Max | Min => dtype.is_integer() || is_arithmetic(dtype),
        Floor | Ceil | Round | Trunc | Sqrt => is_arithmetic(dtype),
        _ => false,
    }
}

fn is_arithmetic(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64)
}
