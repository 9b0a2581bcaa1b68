//! Which 64-bit values are index arithmetic, so that plain C++ integers hold them.

use std::collections::HashSet;

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarOp};
use tcc_kernel::ir::{Expr, Kernel, Stmt, Var};

use crate::range::Ranges;

/// The index variables of a kernel.
pub struct Indices {
    native: HashSet<Var>,
    wide: bool,
}

impl Indices {
    /// Counters, and variables that only ever hold arithmetic on counters and constants.
    pub fn of(kernel: &Kernel) -> Indices {
        let is_index =
            |(_, variable): &(usize, &tcc_kernel::ir::Variable)| variable.ty == tcc_kernel::ir::Ty::INDEX;
        let variables = kernel.variables.iter().enumerate().filter(is_index);
        let native = variables.map(|(number, _)| Var(number as u32)).collect();
        let mut indices = Indices { native, wide: false };
        // A variable that holds data makes those that are computed from it hold data too.
        let mut before = usize::MAX;
        while indices.native.len() < before {
            before = indices.native.len();
            indices.remove_data(&kernel.body);
        }
        indices.wide = indices.exceeds_int(&kernel.body, &mut Ranges::default());
        indices
    }

    fn remove_data(&mut self, block: &[Stmt]) {
        for stmt in block {
            match stmt {
                Stmt::Assign { var, value } if self.native.contains(var) && !self.holds(value) => {
                    self.native.remove(var);
                }
                Stmt::For { body, .. } => self.remove_data(body),
                Stmt::If { then, otherwise, .. } => {
                    self.remove_data(then);
                    self.remove_data(otherwise);
                }
                _ => {}
            }
        }
    }

    /// True where some index may leave the range of a 32-bit integer.
    fn exceeds_int(&self, block: &[Stmt], ranges: &mut Ranges) -> bool {
        let limit = i128::from(i32::MAX);
        let mut wide = false;
        for stmt in block {
            let own = |expr: &Expr, ranges: &Ranges| {
                let mut wide = false;
                expr.visit(&mut |part| {
                    if self.holds(part) {
                        wide |= ranges.of(part).is_none_or(|(low, high)| low < -limit || high > limit);
                    }
                });
                wide
            };
            match stmt {
                Stmt::For { var, extent, body, .. } => {
                    wide |= own(extent, ranges);
                    ranges.enter(*var, extent);
                    wide |= self.exceeds_int(body, ranges);
                }
                Stmt::If { condition, then, otherwise } => {
                    wide |= own(condition, ranges);
                    wide |= self.exceeds_int(then, ranges) | self.exceeds_int(otherwise, ranges);
                }
                stmt => stmt.visit_exprs(&mut |expr| wide |= own(expr, ranges)),
            }
        }
        wide
    }

    /// True for index arithmetic.
    pub fn holds(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Const(scalar) => scalar.dtype == DType::I64,
            Expr::Var(var) => self.native.contains(var),
            Expr::Call(ScalarOp::Call(function), args) => match function {
                Function::Add
                | Function::Sub
                | Function::Mul
                | Function::Div
                | Function::Rem
                | Function::Mod
                | Function::Min
                | Function::Max
                | Function::Neg => args.iter().all(|arg| self.holds(arg)),
                Function::Select => args.len() == 3 && self.holds(&args[1]) && self.holds(&args[2]),
                _ => false,
            },
            Expr::Ramp { base, .. } => self.holds(base),
            _ => false,
        }
    }

    /// True for a variable that is an index.
    pub fn is_native(&self, var: Var) -> bool {
        self.native.contains(&var)
    }

    /// The C++ type of indices.
    pub fn type_name(&self) -> &'static str {
        if self.wide { "long long" } else { "int" }
    }
}
