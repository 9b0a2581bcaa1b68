//! What must hold between sizes for a program to make sense: no extent is negative, and extents that an operation takes
//! to be equal are.
//!
//! What follows from the shapes of the inputs alone and is needed on every path is checked before a run starts. The rest
//! is checked by steps, as soon as all of its symbols have values: before the operation that needs it, and only where the
//! branch that holds the operation is taken.

use std::collections::HashSet;

use tcc_ir::dim::Dim;
use tcc_ir::infer::infer;
use tcc_ir::module::{Function, Operation};
use tcc_ir::types::Type;
use tcc_runtime::DimExpr;
use tcc_runtime::manifest::{Constraint, Relation, Step};

use super::ProgramError;
use super::steps::ProgramBuilder;

/// Requirements of a function under construction.
#[derive(Default)]
pub struct Requirements {
    /// Those that are checked before a run.
    pub before_the_run: Vec<Constraint>,
    /// Equalities that the function states and that nothing checks yet.
    equalities: Vec<(Dim, Dim)>,
    checked: Checked,
}

/// What is checked on the path to here.
#[derive(Clone, Default)]
struct Checked {
    extents: HashSet<Dim>,
    equalities: HashSet<(Dim, Dim)>,
}

impl Checked {
    /// True where the equality was not checked before.
    fn insert(&mut self, a: &Dim, b: &Dim) -> bool {
        let pair = if a <= b { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) };
        self.equalities.insert(pair)
    }
}

impl Requirements {
    /// The requirements that the function states.
    pub fn of(function: &Function) -> Requirements {
        Requirements { equalities: function.equalities.clone(), ..Requirements::default() }
    }
}

/// How the check of a requirement goes into the program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// With the shapes of the inputs.
    BeforeTheRun,
    /// As a step that comes next.
    Now,
    /// Some symbol has no value yet.
    Later,
}

impl ProgramBuilder<'_> {
    fn moment(&self, dims: &[&Dim]) -> Moment {
        let (mut known, mut from_inputs) = (true, true);
        for dim in dims {
            dim.visit_symbols(&mut |symbol| match self.symbols.number(symbol) {
                Some(number) => {
                    known &= self.bound[number as usize];
                    from_inputs &= self.symbols.is_given(number);
                }
                None => known = false,
            });
        }
        match known {
            true if from_inputs && self.depth == 1 => Moment::BeforeTheRun,
            true => Moment::Now,
            false => Moment::Later,
        }
    }

    fn require(&mut self, moment: Moment, constraint: Constraint, steps: &mut Vec<Step>) {
        if moment == Moment::BeforeTheRun {
            self.requirements.before_the_run.push(constraint);
        } else {
            self.take_step(&[]);
            steps.push(Step::Require(constraint));
        }
    }

    fn require_equal(
        &mut self,
        moment: Moment,
        (a, b): (&Dim, &Dim),
        needs: &str,
        steps: &mut Vec<Step>,
    ) -> Result<(), ProgramError> {
        if self.requirements.checked.insert(a, b) {
            let (left, right) = (self.symbols.expression(a)?, self.symbols.expression(b)?);
            let reason = format!("{needs} {a} = {b}");
            self.require(moment, Constraint { left, relation: Relation::Equal, right, reason }, steps);
        }
        Ok(())
    }

    /// Checks the equalities that the function states and whose symbols have values now. Those that the inputs decide come
    /// last of all: by then most of them are known to belong to a node.
    pub(super) fn require_stated(&mut self, last: bool, steps: &mut Vec<Step>) -> Result<(), ProgramError> {
        let mut later = Vec::new();
        for (a, b) in std::mem::take(&mut self.requirements.equalities) {
            match self.moment(&[&a, &b]) {
                Moment::BeforeTheRun if !last => later.push((a, b)),
                Moment::Later => later.push((a, b)),
                moment => self.require_equal(moment, (&a, &b), "the model needs", steps)?,
            }
        }
        self.requirements.equalities = later;
        Ok(())
    }

    /// Checks that the operands of an operation fit each other.
    pub(super) fn require_operands(
        &mut self,
        operation: &Operation,
        steps: &mut Vec<Step>,
    ) -> Result<(), ProgramError> {
        if !operation.regions.is_empty() {
            return Ok(());
        }
        let types: Vec<&Type> =
            operation.operands.iter().map(|operand| self.function.type_of(*operand)).collect();
        // Calls have no types of their own; they are refused later.
        let Ok(inferred) = infer(&operation.operator, &types) else { return Ok(()) };
        for (a, b) in inferred.equalities {
            let moment = self.moment(&[&a, &b]);
            if moment != Moment::Later {
                let needs = format!("node '{}' needs", operation.location.text());
                self.require_equal(moment, (&a, &b), &needs, steps)?;
            }
        }
        Ok(())
    }

    /// Checks the extents of an operation's results that could be negative.
    pub(super) fn require_extents(
        &mut self,
        operation: &Operation,
        steps: &mut Vec<Step>,
    ) -> Result<(), ProgramError> {
        for result in &operation.results {
            let Some(tensor) = self.function.type_of(*result).as_tensor() else { continue };
            for (axis, dim) in tensor.shape.iter().enumerate() {
                if dim.bounds(&|symbol| self.function.range_of(symbol)).low >= 0 {
                    continue;
                }
                let moment = self.moment(&[dim]);
                if moment == Moment::Later || !self.requirements.checked.extents.insert(dim.clone()) {
                    continue;
                }
                let node = operation.location.text();
                let reason = format!("node '{node}': axis {axis} of its result has extent {dim}");
                let (left, right) = (DimExpr::Const(0), self.symbols.expression(dim)?);
                let constraint = Constraint { left, relation: Relation::LessOrEqual, right, reason };
                self.require(moment, constraint, steps);
            }
        }
        Ok(())
    }

    /// Runs `build` for a region: what it checks holds on that path only.
    pub(super) fn on_a_path<T>(
        &mut self,
        build: impl FnOnce(&mut Self) -> Result<T, ProgramError>,
    ) -> Result<T, ProgramError> {
        let checked = self.requirements.checked.clone();
        self.depth += 1;
        let built = build(self);
        self.depth -= 1;
        self.requirements.checked = checked;
        built
    }
}
