//! Turns `Vector` loops into vector expressions of at most the machine's native width.
//!
//! ```text
//! for v in 24 vector { y[i + v] = x[i + v] * a }
//! =>
//! y[i] = x[i; 16] * splat(a; 16)
//! y[i + 16] = x[i + 16; 8] * splat(a; 8)
//! ```
//!
//! The lanes are cut into pieces that hold the widest element of the loop in a register, so that conversions between widths
//! stay legal. Loops inside a vector loop stay and get vector bodies. A condition on the counter that holds for leading
//! lanes becomes the `valid` of the accesses below it. A loop that uses the counter in another way (a data-dependent condition,
//! a lane-dependent trip count) runs its iterations one after the other, which is slow and correct; one that touches register
//! arrays is written out instead.

mod lanes;
mod width;

use std::collections::{HashMap, HashSet};

use super::Error;
use crate::ir::{Expr, Kernel, LoopKind, Space, Stmt, Ty, Var};
use crate::machine::Machine;
use crate::simplify::Simplifier;
use lanes::{Body, Piece, Stop};

/// Replaces every `Vector` loop of a well-formed kernel.
pub fn vectorize(kernel: &mut Kernel, machine: &Machine) -> Result<(), Error> {
    let body = std::mem::take(&mut kernel.body);
    let simplifier = Simplifier::new(kernel);
    let mut vectorizer = Vectorizer { kernel, machine, simplifier };
    let mut out = Vec::new();
    vectorizer.block(body, &mut out)?;
    kernel.body = out;
    Ok(())
}

struct Vectorizer<'k> {
    kernel: &'k mut Kernel,
    machine: &'k Machine,
    simplifier: Simplifier,
}

impl Vectorizer<'_> {
    fn block(&mut self, block: Vec<Stmt>, out: &mut Vec<Stmt>) -> Result<(), Error> {
        for stmt in block {
            match stmt {
                Stmt::For { var, extent, kind: LoopKind::Vector, body } => {
                    self.vector_loop(var, extent, body, out)?;
                }
                Stmt::For { var, extent, kind, body } => {
                    self.simplifier.enter(var, &extent);
                    let mut inner = Vec::new();
                    self.block(body, &mut inner)?;
                    self.simplifier.leave();
                    out.push(Stmt::For { var, extent, kind, body: inner });
                }
                Stmt::If { condition, then, otherwise } => {
                    let (mut yes, mut no) = (Vec::new(), Vec::new());
                    self.simplifier.enter_branch(&condition, true);
                    self.block(then, &mut yes)?;
                    self.simplifier.leave_branch();
                    self.simplifier.enter_branch(&condition, false);
                    self.block(otherwise, &mut no)?;
                    self.simplifier.leave_branch();
                    out.push(Stmt::If { condition, then: yes, otherwise: no });
                }
                stmt @ (Stmt::Assign { .. } | Stmt::Store { .. } | Stmt::Barrier | Stmt::Warp(_)) => {
                    out.push(stmt)
                }
            }
        }
        Ok(())
    }

    fn vector_loop(
        &mut self,
        counter: Var,
        extent: Expr,
        body: Vec<Stmt>,
        out: &mut Vec<Stmt>,
    ) -> Result<(), Error> {
        let count = extent.as_index().unwrap_or(0).max(0);
        let varying = varying_variables(&body, counter);
        self.simplifier.enter(counter, &extent);
        let bits = width::widest(self.kernel, &mut self.simplifier, &body, counter, &varying);
        self.simplifier.leave();
        let pieces = pieces(count, self.machine.lanes(bits));
        let mut copies: HashMap<Var, Vec<Var>> = HashMap::new();
        let declared = self.kernel.variables.len();
        // Sorted, so that the result does not depend on hashing.
        let mut sorted: Vec<Var> = varying.iter().copied().collect();
        sorted.sort_unstable();
        for var in sorted {
            let declaration = self.kernel.variables[var.0 as usize].clone();
            let copies_of_var = pieces
                .iter()
                .map(|piece| {
                    let ty = Ty::vector(declaration.ty.dtype, declaration.ty.lanes * piece.lanes);
                    let copy = self.kernel.variable(&declaration.name, ty);
                    self.simplifier.declare(copy, ty);
                    copy
                })
                .collect();
            copies.insert(var, copies_of_var);
        }
        let mut lowering = Body::new(self.kernel, &mut self.simplifier, counter, &pieces, &copies);
        match lowering.run(&body) {
            Ok(statements) => {
                out.extend(statements);
                Ok(())
            }
            Err(Stop::Serial) => {
                self.kernel.variables.truncate(declared);
                let kind =
                    if touches_registers(self.kernel, &body) { LoopKind::Unroll } else { LoopKind::Serial };
                out.push(Stmt::For { var: counter, extent, kind, body });
                Ok(())
            }
            Err(Stop::Race(buffer)) => Err(Error::Race {
                kernel: self.kernel.name.clone(),
                counter: self.kernel.variables[counter.0 as usize].name.clone(),
                buffer: self.kernel.buffer_of(buffer).name.clone(),
            }),
        }
    }
}

/// Cuts lanes into native vectors and a rest in powers of two.
fn pieces(count: i64, native: u16) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut offset = 0;
    while offset < count {
        let left = count - offset;
        let mut lanes = native;
        while i64::from(lanes) > left {
            lanes /= 2;
        }
        pieces.push(Piece { offset, lanes });
        offset += i64::from(lanes);
    }
    pieces
}

/// The variables assigned in a vector loop whose value differs from lane to lane.
fn varying_variables(body: &[Stmt], counter: Var) -> HashSet<Var> {
    let mut varying = HashSet::new();
    loop {
        let before = varying.len();
        mark_varying(body, counter, false, &mut varying);
        if varying.len() == before {
            return varying;
        }
    }
}

fn varies(expr: &Expr, counter: Var, varying: &HashSet<Var>) -> bool {
    let mut found = false;
    expr.visit(&mut |part| {
        if let Expr::Var(var) = part {
            found |= *var == counter || varying.contains(var);
        }
    });
    found
}

fn mark_varying(block: &[Stmt], counter: Var, under: bool, varying: &mut HashSet<Var>) {
    for stmt in block {
        match stmt {
            Stmt::For { extent, body, .. } => {
                let under = under || varies(extent, counter, varying);
                mark_varying(body, counter, under, varying);
            }
            Stmt::Assign { var, value } => {
                if under || varies(value, counter, varying) {
                    varying.insert(*var);
                }
            }
            Stmt::If { condition, then, otherwise } => {
                let under = under || varies(condition, counter, varying);
                mark_varying(then, counter, under, varying);
                mark_varying(otherwise, counter, under, varying);
            }
            Stmt::Store { .. } | Stmt::Barrier | Stmt::Warp(_) => {}
        }
    }
}

fn touches_registers(kernel: &Kernel, block: &[Stmt]) -> bool {
    let register = |buffer| kernel.buffer_of(buffer).space == Space::Register;
    block.iter().any(|stmt| {
        let mut found = false;
        stmt.visit_exprs(&mut |expr| {
            expr.visit(&mut |part| {
                if let Expr::Load { buffer, .. } = part {
                    found |= register(*buffer);
                }
            });
        });
        found
            || match stmt {
                Stmt::Store { buffer, .. } => register(*buffer),
                Stmt::For { body, .. } => touches_registers(kernel, body),
                Stmt::If { then, otherwise, .. } => {
                    touches_registers(kernel, then) || touches_registers(kernel, otherwise)
                }
                Stmt::Assign { .. } | Stmt::Barrier | Stmt::Warp(_) => false,
            }
    })
}
