//! What must hold of a manifest before anything in it is used.
//!
//! - Every index (tensor, kernel, symbol, input, output, weight) is in range.
//! - Symbol ranges are not empty; an input symbol's place in its input's shape says just that symbol.
//! - Input shapes and constraints use input symbols only; bounds use symbols that come before.
//! - Tensors: at most `MAX_RANK` dimensions; strings are `Input`, `Output` or `Host`; aliases form no circle;
//!   weights lie inside their blob, have constant shape and the size they say; those that are filled in on load
//!   have a whole number of elements and a bounded size; arena tensors whose shape needs
//!   data-dependent symbols have bounds, and either all arena tensors carry 64-byte aligned offsets that never
//!   overlap while alive, or none does. An output in the arena lives to the last step. State tensors have different
//!   names, and their shapes use symbols of source `State` only.
//! - Steps: as many buffers and dims as the kernel takes; nothing writes an input or a weight; no kernel sees a
//!   string; arena tensors are alive where they are used; conditions are `bool`, counts `i64`; symbols bound by a
//!   step are `Step` symbols and found in the shapes they are bound from; outputs of a host step share no memory
//!   with its inputs.
//!
//! What depends on the values of symbols is checked by the session when it has them.

use crate::dim::{DimExpr, SymbolId};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::manifest::{
    ALIGNMENT, Constraint, FORMAT_VERSION, MAX_FILLED_BYTES, MAX_RANK, Manifest, Storage, SymbolSource,
    TensorId, TensorInfo,
};
use crate::memory::plan::{Request, check_no_overlap};

/// Largest element that a weight repeats.
const MAX_FILL_ELEMENT: usize = 16;

/// How many aliases may lie between a tensor and its memory.
pub const MAX_ALIAS_DEPTH: usize = 64;

impl Manifest {
    /// Checks all that the module documentation lists, and reports the first violation.
    pub fn validate(&self) -> Result<()> {
        if self.format != FORMAT_VERSION {
            return Err(Error::Version { what: "manifest", found: self.format, supported: FORMAT_VERSION });
        }
        self.check_ports()?;
        self.check_symbols()?;
        self.check_weights()?;
        for (index, work) in self.work.iter().enumerate() {
            self.check_dim(&format!("work[{index}].operations"), &work.operations)?;
            self.check_dim(&format!("work[{index}].bytes"), &work.bytes)?;
        }
        for id in 0..self.tensors.len() as TensorId {
            self.check_tensor(id)?;
        }
        self.check_arena()?;
        self.check_outputs()?;
        for (index, kernel) in self.kernels.iter().enumerate() {
            if kernel.symbol.is_empty() {
                return Err(Error::manifest(format!("kernels[{index}].symbol"), "is empty"));
            }
        }
        super::validate_steps::check(self)
    }

    /// Number of all steps, those inside others included.
    pub fn step_count(&self) -> u32 {
        self.steps.iter().map(|step| step.count()).sum()
    }

    /// Whether a step binds this symbol while the program runs.
    pub fn is_data_dependent(&self, symbol: SymbolId) -> bool {
        matches!(self.symbols.get(symbol as usize), Some(symbol) if matches!(symbol.source, SymbolSource::Step { .. }))
    }

    /// Whether the state fixes this symbol.
    pub fn is_state_symbol(&self, symbol: SymbolId) -> bool {
        self.symbols.get(symbol as usize).is_some_and(|symbol| symbol.source == SymbolSource::State)
    }

    /// The tensor whose memory this one uses: itself unless it is an alias. Stops after [`MAX_ALIAS_DEPTH`] aliases,
    /// so that it ends on a circle, which `validate` refuses.
    pub fn root(&self, id: TensorId) -> TensorId {
        let mut root = id;
        for _ in 0..MAX_ALIAS_DEPTH {
            match self.tensors.get(root as usize) {
                Some(TensorInfo { storage: Storage::Alias { of, .. }, .. }) => root = *of,
                _ => break,
            }
        }
        root
    }

    /// Size in bytes when the shape is constant.
    pub fn constant_bytes(&self, tensor: &TensorInfo) -> Option<u64> {
        let mut elements = 1u64;
        for dim in &tensor.shape {
            elements = elements.checked_mul(u64::try_from(dim.as_const()?).ok()?)?;
        }
        tensor.dtype.bytes_for(elements)
    }

    pub(super) fn check_dim(&self, field: &str, dim: &DimExpr) -> Result<()> {
        let mut unknown = None;
        dim.for_each_symbol(&mut |id| {
            if id as usize >= self.symbols.len() {
                unknown = Some(id);
            }
        });
        match unknown {
            Some(id) => Err(Error::manifest(field, format!("uses symbol {id} of {}", self.symbols.len()))),
            None => Ok(()),
        }
    }

    /// As `check_dim`, and refuses symbols that only a step binds.
    fn check_input_dim(&self, field: &str, dim: &DimExpr) -> Result<()> {
        self.check_dim(field, dim)?;
        if dim.any_symbol(|id| self.is_data_dependent(id)) {
            return Err(Error::manifest(field, "uses a symbol that has no value before the program runs"));
        }
        Ok(())
    }

    pub(super) fn check_constraint(&self, field: &str, constraint: &Constraint) -> Result<()> {
        self.check_dim(&format!("{field}.left"), &constraint.left)?;
        self.check_dim(&format!("{field}.right"), &constraint.right)
    }

    fn check_symbols(&self) -> Result<()> {
        for (index, symbol) in self.symbols.iter().enumerate() {
            let field = format!("symbols[{index}] (`{}`)", symbol.name);
            if symbol.lo > symbol.hi {
                return Err(Error::manifest(field, format!("range {}..={} is empty", symbol.lo, symbol.hi)));
            }
            match &symbol.source {
                SymbolSource::Input { input, axis } => {
                    let tensor = self
                        .inputs
                        .get(*input as usize)
                        .and_then(|port| self.tensors.get(port.tensor as usize));
                    let dim = tensor.and_then(|tensor| tensor.shape.get(*axis as usize));
                    if dim != Some(&DimExpr::Symbol(index as SymbolId)) {
                        let reason = format!("input {input} does not have it as dimension {axis}");
                        return Err(Error::manifest(field, reason));
                    }
                }
                SymbolSource::Step { bound: Some(bound) } => {
                    self.check_dim(&field, bound)?;
                    if bound.any_symbol(|id| self.is_data_dependent(id) && id as usize >= index) {
                        return Err(Error::manifest(field, "its bound uses symbols bound after it"));
                    }
                }
                SymbolSource::Step { bound: None } | SymbolSource::State => {}
            }
        }
        for (index, constraint) in self.constraints.iter().enumerate() {
            let field = format!("constraints[{index}]");
            self.check_input_dim(&field, &constraint.left)?;
            self.check_input_dim(&field, &constraint.right)?;
        }
        Ok(())
    }

    fn check_ports(&self) -> Result<()> {
        for (kind, ports) in [("inputs", &self.inputs), ("outputs", &self.outputs)] {
            let mut names = std::collections::BTreeSet::new();
            for (index, port) in ports.iter().enumerate() {
                let field = format!("{kind}[{index}] (`{}`)", port.name);
                let Some(tensor) = self.tensors.get(port.tensor as usize) else {
                    let reason = format!("is tensor {} of {}", port.tensor, self.tensors.len());
                    return Err(Error::manifest(field, reason));
                };
                if !names.insert(&port.name) {
                    return Err(Error::manifest(field, "has the name of another one"));
                }
                if kind == "inputs" {
                    if tensor.storage != Storage::Input(index as u32) {
                        return Err(Error::manifest(field, "its tensor has another storage"));
                    }
                    tensor.shape.iter().try_for_each(|dim| self.check_input_dim(&field, dim))?;
                }
            }
        }
        Ok(())
    }

    /// What the session copies at the end of a run must still be there.
    fn check_outputs(&self) -> Result<()> {
        let last = self.step_count().saturating_sub(1);
        for (index, port) in self.outputs.iter().enumerate() {
            let root = &self.tensors[self.root(port.tensor) as usize];
            if let Storage::Arena { last_step, .. } = root.storage
                && last_step != last
            {
                let field = format!("outputs[{index}] (`{}`)", port.name);
                let reason =
                    format!("its memory lives to step {last_step}, an output lives to the last, {last}");
                return Err(Error::manifest(field, reason));
            }
        }
        Ok(())
    }

    fn check_weights(&self) -> Result<()> {
        let mut filled = 0u64;
        for (index, blob) in self.weights.iter().enumerate() {
            if !blob.alignment.is_power_of_two() || blob.alignment > 4096 {
                let field = format!("weights[{index}].alignment");
                return Err(Error::manifest(
                    field,
                    format!("{} is not a power of two up to 4096", blob.alignment),
                ));
            }
            let Some(fill) = &blob.fill else { continue };
            let fail = |reason| Err(Error::manifest(format!("weights[{index}].fill"), reason));
            if !(1..=MAX_FILL_ELEMENT).contains(&fill.len()) || blob.bytes % fill.len() as u64 != 0 {
                return fail(format!("{} bytes do not fill {} evenly", fill.len(), blob.bytes));
            }
            filled = filled.saturating_add(blob.bytes);
            if filled > MAX_FILLED_BYTES {
                return fail(format!("more than {MAX_FILLED_BYTES} bytes are filled in"));
            }
        }
        Ok(())
    }

    fn check_tensor(&self, id: TensorId) -> Result<()> {
        let tensor = &self.tensors[id as usize];
        let fail = |part: &str, reason: String| {
            Err(Error::manifest(format!("tensors[{id}]{part} (`{}`)", tensor.name), reason))
        };
        if tensor.shape.len() > MAX_RANK {
            return fail(".shape", format!("has {} dimensions, the limit is {MAX_RANK}", tensor.shape.len()));
        }
        for (axis, dim) in tensor.shape.iter().enumerate() {
            self.check_dim(&format!("tensors[{id}].shape[{axis}]"), dim)?;
            if dim.as_const().is_some_and(|dim| dim < 0) {
                return fail(".shape", format!("dimension {axis} is negative"));
            }
        }
        let is_string = tensor.dtype == DType::String;
        match &tensor.storage {
            Storage::Input(index) if self.inputs.get(*index as usize).map(|port| port.tensor) != Some(id) => {
                fail(".storage", format!("is input {index}, which is not this tensor"))
            }
            Storage::Output(index)
                if self.outputs.get(*index as usize).map(|port| port.tensor) != Some(id) =>
            {
                fail(".storage", format!("is output {index}, which is not this tensor"))
            }
            Storage::Input(_) | Storage::Host => Ok(()),
            Storage::Output(_) if is_string || self.has_bounds(tensor) => Ok(()),
            Storage::Output(_) => fail(".storage", "a shape without bounds needs storage `host`".into()),
            _ if is_string => fail(".storage", "strings are inputs, outputs or host tensors".into()),
            Storage::Weight { blob, offset, bytes } => {
                let Some(blob) = self.weights.get(*blob as usize) else {
                    return fail(".storage", format!("is in weights {blob} of {}", self.weights.len()));
                };
                if offset.checked_add(*bytes).is_none_or(|end| end > blob.bytes) {
                    return fail(".storage", format!("{bytes} bytes at {offset} leave `{}`", blob.name));
                }
                if self.constant_bytes(tensor) != Some(*bytes) {
                    return fail(".storage", format!("{bytes} bytes are not the size of its type and shape"));
                }
                let alignment = tensor.dtype.alignment() as u64;
                if *bytes > 0 && (offset % alignment != 0 || u64::from(blob.alignment) < alignment) {
                    return fail(".storage", format!("is not aligned to {alignment} bytes"));
                }
                Ok(())
            }
            Storage::Arena { first_step, last_step, .. } => {
                if first_step > last_step || *last_step >= self.step_count() {
                    let reason =
                        format!("is alive in {first_step}..={last_step} of {} steps", self.step_count());
                    return fail(".storage", reason);
                }
                if !self.has_bounds(tensor) {
                    return fail(".storage", "a shape without bounds needs storage `host`".into());
                }
                Ok(())
            }
            Storage::State
                if tensor.shape.iter().any(|dim| dim.any_symbol(|id| !self.is_state_symbol(id))) =>
            {
                fail(".storage", "the shape of state uses a symbol that the state does not fix".into())
            }
            Storage::State => {
                let same = |other: &TensorInfo| other.storage == Storage::State && other.name == tensor.name;
                match self.tensors[..id as usize].iter().any(same) {
                    true => fail(".storage", "two state tensors have this name".into()),
                    false => Ok(()),
                }
            }
            Storage::Alias { of, byte_offset } => {
                if *of as usize >= self.tensors.len() {
                    return fail(".storage", format!("is in tensor {of} of {}", self.tensors.len()));
                }
                self.check_dim(&format!("tensors[{id}].storage.byte_offset"), byte_offset)?;
                let root = &self.tensors[self.root(id) as usize];
                if matches!(root.storage, Storage::Alias { .. }) {
                    return fail(
                        ".storage",
                        format!("its aliases form a circle or are deeper than {MAX_ALIAS_DEPTH}"),
                    );
                }
                if root.dtype == DType::String {
                    return fail(".storage", "is an alias of strings".into());
                }
                Ok(())
            }
        }
    }

    /// Whether every data-dependent symbol of the shape has a largest value.
    fn has_bounds(&self, tensor: &TensorInfo) -> bool {
        let unbounded = |id: SymbolId| match self.symbols.get(id as usize) {
            Some(symbol) => symbol.source == SymbolSource::Step { bound: None } && symbol.hi == i64::MAX,
            None => true,
        };
        !tensor.shape.iter().any(|dim| dim.any_symbol(unbounded))
    }

    fn check_arena(&self) -> Result<()> {
        let mut requests = Vec::new();
        let mut offsets = Vec::new();
        let mut ids = Vec::new();
        for (id, tensor) in self.tensors.iter().enumerate() {
            let Storage::Arena { offset, first_step, last_step } = tensor.storage else { continue };
            let field = || format!("tensors[{id}].storage.offset (`{}`)", tensor.name);
            match (self.arena_bytes, offset) {
                (None, None) => {}
                (None, Some(_)) => {
                    return Err(Error::manifest(field(), "is given, but `arena_bytes` is not"));
                }
                (Some(_), None) => {
                    return Err(Error::manifest(field(), "is missing, but `arena_bytes` is given"));
                }
                (Some(arena), Some(offset)) => {
                    let bytes = self.constant_bytes(tensor).unwrap_or(0);
                    if offset % ALIGNMENT != 0 || offset.checked_add(bytes).is_none_or(|end| end > arena) {
                        let reason =
                            format!("{bytes} bytes at {offset} do not fit the arena of {arena} bytes");
                        return Err(Error::manifest(field(), reason));
                    }
                    requests.push(Request { bytes, first_step, last_step });
                    offsets.push(offset);
                    ids.push(id);
                }
            }
        }
        check_no_overlap(&requests, &offsets).map_err(|error| {
            let reason = match error {
                crate::memory::plan::PlanError::Overlap(a, b) => {
                    format!("tensors {} and {} share arena bytes while both are alive", ids[a], ids[b])
                }
                other => other.to_string(),
            };
            Error::manifest("tensors", reason)
        })
    }
}
