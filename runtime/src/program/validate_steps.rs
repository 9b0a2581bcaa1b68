//! The part of validation that walks the steps.

use crate::dim::{DimExpr, SymbolId};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::manifest::{
    Access, Branch, HostStep, IfStep, KernelStep, LoopStep, Manifest, Step, Storage, TensorId, TensorInfo,
};
use std::collections::BTreeMap;

/// Checks every step.
pub(super) fn check(manifest: &Manifest) -> Result<()> {
    Checker { manifest, number: 0, loops: Vec::new() }.list("steps", &manifest.steps)
}

struct Checker<'a> {
    manifest: &'a Manifest,
    /// Number of the step being checked.
    number: u32,
    /// Number of each enclosing loop and of the last step inside it.
    loops: Vec<(u32, u32)>,
}

impl<'a> Checker<'a> {
    fn list(&mut self, path: &str, steps: &[Step]) -> Result<()> {
        for (index, step) in steps.iter().enumerate() {
            let field = format!("{path}[{index}]");
            match step {
                Step::Kernel(step) => self.kernel(&field, step)?,
                Step::Copy { from, to } => self.copy(&field, *from, *to)?,
                Step::Host(step) => self.host(&field, step)?,
                Step::Bind { symbol, tensor, element } => {
                    self.reads(&field, *tensor)?;
                    self.manifest.check_dim(&field, element)?;
                    self.step_symbol(&field, *symbol)?;
                    if !is_integer(self.tensor(&field, *tensor)?.dtype) {
                        return Err(Error::manifest(
                            field,
                            "binds a symbol to a tensor that has no integers",
                        ));
                    }
                }
                Step::Require(constraint) => self.manifest.check_constraint(&field, constraint)?,
                Step::If(step) => {
                    self.choice(&field, step)?;
                    continue;
                }
                Step::Loop(step) => {
                    self.repetition(&field, step)?;
                    continue;
                }
            }
            self.number += 1;
        }
        Ok(())
    }

    fn tensor(&self, field: &str, id: TensorId) -> Result<&'a TensorInfo> {
        self.manifest.tensors.get(id as usize).ok_or_else(|| {
            Error::manifest(field, format!("uses tensor {id} of {}", self.manifest.tensors.len()))
        })
    }

    /// Checks that a tensor exists and is alive at the current step.
    fn reads(&self, field: &str, id: TensorId) -> Result<()> {
        self.tensor(field, id)?;
        let root = self.manifest.root(id);
        let Storage::Arena { first_step, last_step, .. } = self.manifest.tensors[root as usize].storage
        else {
            return Ok(());
        };
        // What was written before a loop must outlive it, because the next iteration reads it again.
        let cut = self.loops.iter().any(|&(start, end)| first_step <= start && last_step < end);
        if cut || !(first_step..=last_step).contains(&self.number) {
            let reason = format!(
                "step number {} uses tensor {}, which lives from {first_step} to {last_step}",
                self.number,
                self.manifest.tensor_name(root)
            );
            return Err(Error::manifest(field, reason));
        }
        Ok(())
    }

    /// As `reads`, and that the tensor may be written.
    fn writes(&self, field: &str, id: TensorId) -> Result<()> {
        self.reads(field, id)?;
        let root = self.manifest.root(id);
        match self.manifest.tensors[root as usize].storage {
            Storage::Input(_) | Storage::Weight { .. } => {
                let reason = format!("writes tensor {}, which is read-only", self.manifest.tensor_name(id));
                Err(Error::manifest(field, reason))
            }
            _ => Ok(()),
        }
    }

    fn dims(&self, field: &str, dims: &[DimExpr]) -> Result<()> {
        dims.iter().try_for_each(|dim| self.manifest.check_dim(field, dim))
    }

    fn step_symbol(&self, field: &str, symbol: SymbolId) -> Result<()> {
        if !self.manifest.is_data_dependent(symbol) {
            return Err(Error::manifest(
                field,
                format!("binds symbol {symbol}, which is not bound by steps"),
            ));
        }
        Ok(())
    }

    /// Checks that every symbol bound is the whole of a dimension of one of these tensors.
    fn binds(
        &self,
        field: &str,
        binds: &[SymbolId],
        from: impl Iterator<Item = TensorId> + Clone,
    ) -> Result<()> {
        for &symbol in binds {
            self.step_symbol(field, symbol)?;
            let is_dim =
                |id: TensorId| self.manifest.tensors[id as usize].shape.contains(&DimExpr::Symbol(symbol));
            if !from.clone().any(is_dim) {
                let name = &self.manifest.symbols[symbol as usize].name;
                return Err(Error::manifest(
                    field,
                    format!("binds `{name}`, which is no dimension of its results"),
                ));
            }
        }
        Ok(())
    }

    fn scalar(&self, field: &str, id: TensorId, dtype: DType) -> Result<()> {
        self.reads(field, id)?;
        let tensor = self.tensor(field, id)?;
        let is_single = tensor.shape.iter().all(|dim| dim.as_const() == Some(1));
        if tensor.dtype != dtype || !is_single {
            let shape = self.manifest.describe_shape(&tensor.shape);
            let reason = format!("needs one {dtype}, tensor {id} is {} {shape}", tensor.dtype);
            return Err(Error::manifest(field, reason));
        }
        Ok(())
    }

    fn kernel(&self, field: &str, step: &KernelStep) -> Result<()> {
        let Some(kernel) = self.manifest.kernels.get(step.kernel as usize) else {
            let reason = format!("is {} of {}", step.kernel, self.manifest.kernels.len());
            return Err(Error::manifest(format!("{field}.kernel"), reason));
        };
        if step.buffers.len() != kernel.buffers.len() || step.dims.len() != kernel.dims as usize {
            let reason = format!(
                "kernel `{}` takes {} buffers and {} dims, found {} and {}",
                kernel.symbol,
                kernel.buffers.len(),
                kernel.dims,
                step.buffers.len(),
                step.dims.len()
            );
            return Err(Error::manifest(field, reason));
        }
        for (index, (&id, access)) in step.buffers.iter().zip(&kernel.buffers).enumerate() {
            let field = format!("{field}.buffers[{index}]");
            match access {
                Access::Read => self.reads(&field, id)?,
                Access::Write | Access::ReadWrite => self.writes(&field, id)?,
            }
            if self.tensor(&field, id)?.dtype == DType::String {
                return Err(Error::manifest(field, "a kernel cannot use strings"));
            }
        }
        self.dims(field, &step.dims)?;
        self.dims(field, &[step.tasks.clone(), step.grain.clone(), step.scratch_bytes.clone()])
    }

    fn copy(&self, field: &str, from: TensorId, to: TensorId) -> Result<()> {
        self.reads(field, from)?;
        self.writes(field, to)?;
        let (source, target) = (self.tensor(field, from)?, self.tensor(field, to)?);
        if source.dtype != target.dtype {
            return Err(Error::manifest(field, format!("copies {} to {}", source.dtype, target.dtype)));
        }
        Ok(())
    }

    /// Checks copies that happen one after the other: none may take its value from memory that another one writes,
    /// and a target that is its own source is the very same tensor.
    fn transfer(&self, field: &str, pairs: impl Iterator<Item = (TensorId, TensorId)> + Clone) -> Result<()> {
        let mut targets = BTreeMap::new();
        for (index, (from, to)) in pairs.clone().enumerate() {
            let field = format!("{field}[{index}]");
            self.copy(&field, from, to)?;
            if targets.insert(self.manifest.root(to), to).is_some() {
                return Err(Error::manifest(field, "writes the memory of another one"));
            }
        }
        for (index, (from, to)) in pairs.enumerate() {
            let clash =
                targets.get(&self.manifest.root(from)).is_some_and(|&target| target != to || from != to);
            if clash {
                let reason = "reads memory that one of these copies writes; copy it in the steps before";
                return Err(Error::manifest(format!("{field}[{index}]"), reason));
            }
        }
        Ok(())
    }

    fn host(&self, field: &str, step: &HostStep) -> Result<()> {
        if step.outputs.len() > 64 {
            return Err(Error::manifest(field, "has more than 64 outputs"));
        }
        for &id in step.inputs.iter().flatten() {
            self.reads(field, id)?;
        }
        for (index, &id) in step.outputs.iter().enumerate() {
            self.writes(field, id)?;
            let root = self.manifest.root(id);
            let others = step.inputs.iter().flatten().chain(&step.outputs[..index]);
            if others.into_iter().any(|&other| self.manifest.root(other) == root) {
                let reason = format!("output {index} shares memory with an input or another output");
                return Err(Error::manifest(field, reason));
            }
        }
        self.binds(field, &step.binds, step.outputs.iter().copied())
    }

    fn choice(&mut self, field: &str, step: &IfStep) -> Result<()> {
        self.scalar(&format!("{field}.condition"), step.condition, DType::Bool)?;
        let targets = |branch: &Branch| branch.results.iter().map(|result| result.to).collect::<Vec<_>>();
        if targets(&step.then) != targets(&step.otherwise) {
            return Err(Error::manifest(field, "the branches have different results"));
        }
        self.number += 1;
        for (name, branch) in [("then", &step.then), ("otherwise", &step.otherwise)] {
            self.list(&format!("{field}.{name}.steps"), &branch.steps)?;
            // The copies belong to the last step inside.
            let next = self.number;
            self.number = next - 1;
            let pairs = branch.results.iter().map(|result| (result.from, result.to));
            self.transfer(&format!("{field}.{name}.results"), pairs)?;
            self.number = next;
        }
        self.binds(field, &step.binds, step.then.results.iter().map(|result| result.to))
    }

    fn repetition(&mut self, field: &str, step: &LoopStep) -> Result<()> {
        for (name, tensor, dtype) in
            [("trip_count", step.trip_count, DType::I64), ("condition", step.condition, DType::Bool)]
        {
            if let Some(id) = tensor {
                self.scalar(&format!("{field}.{name}"), id, dtype)?;
            }
        }
        if let Some(id) = step.iteration {
            self.scalar(&format!("{field}.iteration"), id, DType::I64)?;
            self.writes(field, id)?;
        }
        for symbol in step.iteration_symbol.iter().chain(&step.iterations) {
            self.step_symbol(field, *symbol)?;
        }
        let carried = step.carried.iter();
        let initial = carried.clone().map(|carried| (carried.initial, carried.state));
        self.transfer(&format!("{field}.carried"), initial)?;
        // What is collected must not share memory with anything in the body.
        for (index, scan) in step.scans.iter().enumerate() {
            self.writes(&format!("{field}.scans[{index}]"), scan.result)?;
        }
        let body: u32 = step.body.iter().map(Step::count).sum();
        self.loops.push((self.number, self.number + body));
        self.number += 1;
        self.list(&format!("{field}.body"), &step.body)?;
        self.loops.pop();
        let next = self.number;
        self.number = next - 1;
        if let Some(id) = step.condition_next {
            self.scalar(&format!("{field}.condition_next"), id, DType::Bool)?;
        }
        self.transfer(&format!("{field}.carried"), carried.map(|carried| (carried.next, carried.state)))?;
        for (index, scan) in step.scans.iter().enumerate() {
            let field = format!("{field}.scans[{index}]");
            self.copy(&field, scan.element, scan.result)?;
            if self.tensor(&field, scan.result)?.shape.len()
                != self.tensor(&field, scan.element)?.shape.len() + 1
            {
                return Err(Error::manifest(field, "the result needs one dimension more than the element"));
            }
            if self.manifest.root(scan.element) == self.manifest.root(scan.result) {
                return Err(Error::manifest(field, "element and result share memory"));
            }
        }
        self.number = next;
        self.binds(field, &step.binds, step.carried.iter().map(|carried| carried.state))
    }
}

fn is_integer(dtype: DType) -> bool {
    matches!(
        dtype,
        DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::U8 | DType::U16 | DType::U32 | DType::U64
    )
}
