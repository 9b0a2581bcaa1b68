//! Statements.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use tcc_kernel::ir::{Stmt, Var};

use super::lanes::{Lanes, Origin, register};
use super::{Lowering, Slot};

impl Lowering<'_, '_> {
    /// Statements one after the other.
    pub fn block(&mut self, block: &[Stmt]) {
        for stmt in block {
            self.stmt(stmt);
        }
    }

    fn stmt(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::For { var, extent, body, .. } => {
                let end = self.expr(extent).parts[0];
                let begin = self.int(types::I64, 0);
                self.count(*var, begin, end, body);
            }
            Stmt::Assign { var, value } => {
                let value = self.expr(value);
                self.assign(*var, &value);
            }
            Stmt::Store { buffer, index, value, valid } => {
                self.store(*buffer, index, value, valid.as_ref());
            }
            Stmt::If { condition, then, otherwise } => {
                let condition = self.expr(condition).parts[0];
                let (yes, no, join) =
                    (self.builder.create_block(), self.builder.create_block(), self.builder.create_block());
                self.builder.ins().brif(condition, yes, &[], no, &[]);
                let accumulating = self.accumulating.take();
                for (start, body) in [(yes, then), (no, otherwise)] {
                    self.builder.switch_to_block(start);
                    self.builder.seal_block(start);
                    self.block(body);
                    self.builder.ins().jump(join, &[]);
                }
                self.accumulating = accumulating;
                self.builder.switch_to_block(join);
                self.builder.seal_block(join);
            }
            // `supported` has refused it.
            Stmt::Barrier | Stmt::Warp(_) => {}
        }
    }

    /// `for var in begin..end`, with the test at the end of the body so that an iteration takes one branch.
    pub fn count(&mut self, var: Var, begin: Value, end: Value, body: &[Stmt]) {
        let (head, after) = (self.builder.create_block(), self.builder.create_block());
        let number = self.builder.append_block_param(head, types::I64);
        let some = self.builder.ins().icmp(IntCC::SignedLessThan, begin, end);
        self.builder.ins().brif(some, head, &[begin.into()], after, &[]);
        self.builder.switch_to_block(head);
        self.assign(var, &Lanes::scalar(tcc_ir::dtype::DType::I64, number));
        let accumulating = self.accumulates(body).then_some(var);
        let outer = std::mem::replace(&mut self.accumulating, accumulating);
        self.block(body);
        self.accumulating = outer;
        let next = self.builder.ins().iadd_imm_s(number, 1);
        let more = self.builder.ins().icmp(IntCC::SignedLessThan, next, end);
        self.builder.ins().brif(more, head, &[next.into()], after, &[]);
        self.builder.seal_block(head);
        self.builder.switch_to_block(after);
        self.builder.seal_block(after);
    }

    /// Gives a variable its value, and declares it if it is new.
    fn assign(&mut self, var: Var, value: &Lanes) {
        let number = var.0 as usize;
        let slot = match &self.variables[number] {
            Some(slot) => slot.clone(),
            None => {
                let ty = if value.is_scalar() { value.lane } else { register(value.lane) };
                let parts = value.parts.iter().map(|_| self.builder.declare_var(ty)).collect();
                let slot = Slot { lane: value.lane, parts };
                self.variables[number] = Some(slot.clone());
                slot
            }
        };
        let value = self.with_lane(value, slot.lane);
        for (variable, part) in slot.parts.iter().zip(&value.parts) {
            self.builder.def_var(*variable, *part);
        }
    }

    /// Masks may come in another width than the variable has.
    fn with_lane(&mut self, value: &Lanes, lane: cranelift_codegen::ir::Type) -> Lanes {
        if value.lane == lane { value.clone() } else { self.with_mask(value, lane) }
    }

    /// The value of a variable.
    pub fn read(&mut self, var: Var) -> Lanes {
        let ty = self.kernel.variables[var.0 as usize].ty;
        match &self.variables[var.0 as usize] {
            Some(slot) => {
                let parts = slot.parts.iter().map(|part| self.builder.use_var(*part)).collect();
                Lanes { ty, lane: slot.lane, parts, origin: Origin::Any }
            }
            // Verification has refused reads before assignments.
            None => self.zero(ty),
        }
    }

    /// True where the body of a loop writes no memory and every variable that outlives it is carried from one iteration to
    /// the next, so that all it loads is used before the loop ends.
    fn accumulates(&self, body: &[Stmt]) -> bool {
        body.iter().all(|stmt| match stmt {
            Stmt::Store { .. } | Stmt::Barrier | Stmt::Warp(_) => false,
            Stmt::For { body, .. } => self.accumulates(body),
            Stmt::If { then, otherwise, .. } => self.accumulates(then) && self.accumulates(otherwise),
            // What the loop itself declares is gone after it.
            Stmt::Assign { var, value } => self.variables[var.0 as usize].is_none() || value.mentions(*var),
        })
    }
}
