//! Statements: loops, branches, assignments and stores.

use melior::ir::BlockLike;
use tcc_kernel::ir::{Expr, LoopKind, Stmt, Ty, Var};

use crate::builder::{Ssa, refused};
use crate::error::Error;
use crate::lower::{Lowering, Place};

impl<'c> Lowering<'c, '_> {
    /// Lowers statements one after the other.
    pub(crate) fn block(&mut self, body: &[Stmt]) -> Result<(), Error> {
        body.iter().try_for_each(|stmt| self.stmt(stmt))
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<(), Error> {
        match stmt {
            Stmt::For { var, extent, kind, body } => self.counted_loop(*var, extent, *kind, body),
            Stmt::Assign { var, value } => self.assign(*var, value),
            Stmt::Store { buffer, index, value, valid } => self.store(*buffer, index, value, valid.as_ref()),
            Stmt::If { condition, then, otherwise } => {
                let condition = self.expr(condition)?;
                self.branch(condition.value, then, otherwise)
            }
            Stmt::Barrier => Err(self.unsupported("barrier")),
            Stmt::Warp(_) => Err(self.unsupported("statement of a GPU warp")),
        }
    }

    fn counted_loop(&mut self, var: Var, extent: &Expr, kind: LoopKind, body: &[Stmt]) -> Result<(), Error> {
        match kind {
            // Unrolling is done by a pass over the kernel IR; a loop that is left runs as it stands.
            LoopKind::Serial | LoopKind::Unroll | LoopKind::Pipeline(_) => {
                let zero = self.builder.index(0)?;
                let extent = self.expr(extent)?;
                if extent.ty != Ty::INDEX {
                    return Err(self.malformed("a loop extent that is not a scalar index"));
                }
                self.loop_over(var, zero, extent.value, body)
            }
            LoopKind::Parallel => {
                Err(self.malformed("a parallel loop that is not the only top-level statement"))
            }
            LoopKind::Vector | LoopKind::Grid(_) | LoopKind::Thread(_) => {
                Err(self.unsupported(format!("a loop of kind {kind:?}")))
            }
        }
    }

    /// `for var in first..past`.
    pub(crate) fn loop_over(
        &mut self,
        var: Var,
        first: Ssa<'c>,
        past: Ssa<'c>,
        body: &[Stmt],
    ) -> Result<(), Error> {
        let step = self.builder.index(1)?;
        let (region, block) = self.builder.region(&[self.builder.i64_type()]);
        let counter = Ssa::from(block.argument(0).map_err(|error| refused(&error))?);
        let outer = self.builder.enter(block);
        let shadowed = self.place(var)?.replace(Place::Value(counter));
        self.block(body)?;
        *self.place(var)? = shadowed;
        self.builder.effect("scf.yield", &[], &[])?;
        self.builder.enter(outer);
        self.builder.regions("scf.for", &[first, past, step], vec![region])
    }

    /// Runs one of two blocks.
    pub(crate) fn branch(
        &mut self,
        condition: Ssa<'c>,
        then: &[Stmt],
        otherwise: &[Stmt],
    ) -> Result<(), Error> {
        let mut regions = Vec::with_capacity(2);
        for body in [then, otherwise] {
            let (region, block) = self.builder.region(&[]);
            let outer = self.builder.enter(block);
            self.block(body)?;
            self.builder.effect("scf.yield", &[], &[])?;
            self.builder.enter(outer);
            regions.push(region);
        }
        self.builder.regions("scf.if", &[condition], regions)
    }

    fn assign(&mut self, var: Var, value: &Expr) -> Result<(), Error> {
        let value = self.expr(value)?;
        let ty = self.variable_type(var)?;
        if value.ty != ty {
            return Err(
                self.malformed(format!("variable {} of type {ty:?} is assigned a {:?}", var.0, value.ty))
            );
        }
        match *self.place(var)? {
            Some(Place::Slot(slot)) => self.builder.store(slot, value.value, slot_alignment(ty)),
            _ => Err(self.malformed(format!("loop counter {} is assigned", var.0))),
        }
    }

    /// Reads a variable.
    pub(crate) fn variable(&mut self, var: Var) -> Result<Ssa<'c>, Error> {
        let ty = self.variable_type(var)?;
        match *self.place(var)? {
            Some(Place::Value(value)) => Ok(value),
            Some(Place::Slot(slot)) => self.builder.load(slot, self.register_type(ty)?, slot_alignment(ty)),
            None => Err(self.malformed(format!("variable {} is read but nowhere assigned", var.0))),
        }
    }

    /// The declared type of a variable.
    pub(crate) fn variable_type(&self, var: Var) -> Result<Ty, Error> {
        let declared = self.kernel.variables.get(var.0 as usize);
        declared
            .map(|variable| variable.ty)
            .ok_or_else(|| self.malformed(format!("variable {} is not declared", var.0)))
    }

    fn place(&mut self, var: Var) -> Result<&mut Option<Place<'c>>, Error> {
        let index = var.0 as usize;
        if index >= self.places.len() {
            return Err(self.malformed(format!("variable {} is not declared", var.0)));
        }
        Ok(&mut self.places[index])
    }
}

/// Slots are cache-line aligned; an access may assume the element's own alignment, which promotion makes moot.
fn slot_alignment(ty: Ty) -> usize {
    ty.dtype.size()
}
