//! The widest element that a vector loop holds in a register.

use std::collections::HashSet;

use tcc_ir::dtype::{Class, DType};

use super::varies;
use crate::ir::{Expr, Kernel, Stmt, Var};
use crate::simplify::Simplifier;
use crate::simplify::sum::Atom;

/// Bits of the widest element of the loop body, counting what legalization will make of small types.
pub(super) fn widest(
    kernel: &Kernel,
    simplifier: &mut Simplifier,
    body: &[Stmt],
    counter: Var,
    varying: &HashSet<Var>,
) -> usize {
    let mut scan = Scan { kernel, simplifier, counter, varying, bits: 8 };
    scan.block(body);
    scan.bits
}

/// Bits of one element while it is computed with: short floats in f32, packed integers in bytes.
fn computed_bits(dtype: DType) -> usize {
    match dtype.class() {
        Class::Float => dtype.bits().max(32),
        Class::Bool | Class::Text => 8,
        Class::Signed | Class::Unsigned => dtype.bits().max(8),
    }
}

struct Scan<'s> {
    kernel: &'s Kernel,
    simplifier: &'s mut Simplifier,
    counter: Var,
    varying: &'s HashSet<Var>,
    bits: usize,
}

impl Scan<'_> {
    fn block(&mut self, block: &[Stmt]) {
        for stmt in block {
            match stmt {
                Stmt::For { var, extent, body, .. } => {
                    self.simplifier.enter(*var, extent);
                    self.block(body);
                    self.simplifier.leave();
                }
                Stmt::Assign { value, .. } => self.value(value),
                Stmt::Store { buffer, index, value, .. } => {
                    let dtype = self.kernel.buffer_of(*buffer).dtype;
                    self.hold(dtype, self.kernel.type_of(value).lanes);
                    self.address(index);
                    self.value(value);
                }
                Stmt::If { then, otherwise, .. } => {
                    self.block(then);
                    self.block(otherwise);
                }
                Stmt::Barrier | Stmt::Warp(_) => {}
            }
        }
    }

    fn hold(&mut self, dtype: DType, lanes: u16) {
        self.bits = self.bits.max(computed_bits(dtype) * usize::from(lanes));
    }

    /// Indices that follow the counter need no register; others take a vector of them.
    fn address(&mut self, index: &Expr) {
        if !varies(index, self.counter, self.varying) {
            return;
        }
        let sum = self.simplifier.sum(index);
        let affine = sum
            .affine_in(Atom::Var(self.counter))
            .is_some_and(|(_, rest)| !varies(&self.simplifier.rebuild(&rest), self.counter, self.varying));
        if !affine {
            self.bits = self.bits.max(64);
            self.value(index);
        }
    }

    fn value(&mut self, expr: &Expr) {
        if !varies(expr, self.counter, self.varying) {
            return;
        }
        let ty = self.kernel.type_of(expr);
        if ty.dtype != DType::Bool {
            self.hold(ty.dtype, ty.lanes);
        }
        match expr {
            Expr::Load { index, .. } => self.address(index),
            Expr::Call(_, args) => args.iter().for_each(|arg| self.value(arg)),
            Expr::Fma(a, b, c) | Expr::Dot { acc: a, a: b, b: c } => {
                self.value(a);
                self.value(b);
                self.value(c);
            }
            Expr::Splat(value, _) | Expr::ReduceLanes(_, value) => self.value(value),
            Expr::Shuffle(a, b, _) => {
                self.value(a);
                self.value(b);
            }
            Expr::Const(_) | Expr::Var(_) | Expr::Dim(_) | Expr::Ramp { .. } => {}
        }
    }
}
