//! How long each step takes, and how long it would at the limits of the machine.
//!
//! The floor of a step (its roofline time; Williams, Waterman and Patterson, 2009) is the larger of its operations over the
//! peak rate and its bytes over the bandwidth of the smallest memory level that holds them. The share achieved is floor
//! over time; the gap, time less floor, says what a better kernel could save.

use std::collections::BTreeMap;

use serde::Serialize;
use tcc_passes::cost::Machine;
use tcc_runtime::manifest::{Manifest, Step, StepWork, Storage, TensorId, WorkKind};
use tcc_runtime::memory::plan::{Request, plan};
use tcc_runtime::{DimExpr, Session, TensorRef};

use crate::error::Error;

/// One step of a program.
#[derive(Clone, Debug, Serialize)]
pub struct StepRow {
    /// Number, counting nested steps in preorder.
    pub step: u32,
    /// How deep it is nested.
    pub depth: usize,
    /// The kernel, or the kind of step.
    pub name: String,
    /// The operator of the tensor IR, where it is a kernel.
    pub operator: String,
    /// Nodes of the model.
    pub location: String,
    /// Tensors read, those that the step uses last in the order of its arguments.
    #[serde(skip)]
    pub reads: Vec<TensorId>,
    /// Tensors written.
    #[serde(skip)]
    pub writes: Vec<TensorId>,
    /// Operations, where they are known.
    pub operations: Option<f64>,
    /// Bytes moved at least, where known.
    pub bytes: Option<f64>,
    /// Microseconds of a run, where measured: the shortest call of a step that runs once in each run, which a busy neighbour
    /// does not touch, and the mean of others.
    pub time_us: Option<f64>,
    /// Microseconds at the limits of the machine, where work is known.
    pub floor_us: Option<f64>,
    /// Floor over time.
    pub share: Option<f64>,
    /// True where bytes and not operations set the floor.
    pub memory_bound: bool,
}

impl StepRow {
    /// Microseconds that a kernel at the limits of the machine would save.
    pub fn gap_us(&self) -> f64 {
        self.time_us.unwrap_or(0.0) - self.floor_us.unwrap_or(0.0)
    }
}

/// A tensor in the arena.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Placed {
    /// Name of the tensor.
    pub name: String,
    /// First byte.
    pub offset: u64,
    /// Length.
    pub bytes: u64,
    /// The step that writes it first.
    pub first_step: u32,
    /// The last step that uses it.
    pub last_step: u32,
}

/// A program with what is known of its steps.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Steps in order.
    pub rows: Vec<StepRow>,
    /// The arena; empty where sizes are not known.
    pub arena: Vec<Placed>,
    /// Size of the arena, where known.
    pub arena_bytes: Option<u64>,
    /// Values of the symbols by name, where known.
    pub dims: Vec<(String, Option<i64>)>,
    /// Runs that were measured.
    pub runs: u32,
    /// Threads of the run.
    pub threads: usize,
}

/// The values that input shapes give to symbols.
fn symbol_values(manifest: &Manifest, inputs: &[TensorRef<'_>]) -> Vec<Option<i64>> {
    use tcc_runtime::manifest::SymbolSource;
    let value = |source: &SymbolSource| match source {
        SymbolSource::Input { input, axis } => {
            inputs.get(*input as usize)?.shape().get(*axis as usize).map(|extent| *extent as i64)
        }
        SymbolSource::Step { .. } | SymbolSource::State => None,
    };
    manifest.symbols.iter().map(|symbol| value(&symbol.source)).collect()
}

/// The steps of a program without times. `inputs` give values to symbols; none are needed where shapes are constant.
pub fn describe(manifest: &Manifest, inputs: &[TensorRef<'_>], machine: &Machine, threads: usize) -> Profile {
    let machine = Machine { cores: threads.max(1), ..machine.clone() };
    let symbols = symbol_values(manifest, inputs);
    let work = manifest.work.iter().map(|work| (work.step, work)).collect();
    let mut walk = Walk { manifest, machine: &machine, symbols: &symbols, work, rows: Vec::new() };
    walk.steps(&manifest.steps, 0);
    let rows = walk.rows;
    let (arena, arena_bytes) = place(manifest, &symbols);
    let dims = manifest.symbols.iter().map(|symbol| symbol.name.clone()).zip(symbols.clone()).collect();
    Profile { rows, arena, arena_bytes, dims, runs: 0, threads }
}

impl Profile {
    /// Measures every step over some runs.
    pub fn measure(
        &mut self,
        session: &mut Session,
        inputs: &[TensorRef<'_>],
        runs: u32,
    ) -> Result<(), Error> {
        session.run(inputs)?;
        session.measure_steps(true);
        for _ in 0..runs {
            session.run(inputs)?;
        }
        for (row, step) in self.rows.iter_mut().zip(session.step_times()) {
            let once = step.calls == u64::from(runs);
            let time = if once { step.least } else { step.total / runs.max(1) };
            row.time_us = Some(time.as_secs_f64() * 1e6);
            row.share = match (row.time_us, row.floor_us) {
                (Some(time), Some(floor)) if time > 0.0 => Some(floor / time),
                _ => None,
            };
        }
        session.measure_steps(false);
        self.runs = runs;
        Ok(())
    }

    /// Microseconds of all steps that are in no other, measured and at the limits of the machine.
    pub fn totals(&self) -> (f64, f64) {
        let outer = || self.rows.iter().filter(|row| row.depth == 0);
        (outer().filter_map(|row| row.time_us).sum(), self.rows.iter().filter_map(|row| row.floor_us).sum())
    }

    /// Sets the limits of the rows for which `rate` has other billions of operations a second and core.
    pub fn limit(&mut self, machine: &Machine, rate: &dyn Fn(&StepRow) -> Option<f64>) {
        for row in &mut self.rows {
            let (Some(rate), Some(operations), Some(bytes)) = (rate(row), row.operations, row.bytes) else {
                continue;
            };
            let compute = machine.seconds_at(operations, rate) * 1e6;
            let moving = machine.seconds_to_move(bytes) * 1e6;
            (row.floor_us, row.memory_bound) = (Some(compute.max(moving)), moving > compute);
        }
    }

    /// Rows with the largest gap first.
    pub fn by_gap(&self) -> Vec<&StepRow> {
        let mut rows: Vec<&StepRow> = self.rows.iter().collect();
        rows.sort_by(|a, b| b.gap_us().total_cmp(&a.gap_us()).then(a.step.cmp(&b.step)));
        rows
    }
}

struct Walk<'w> {
    manifest: &'w Manifest,
    machine: &'w Machine,
    symbols: &'w [Option<i64>],
    work: BTreeMap<u32, &'w StepWork>,
    rows: Vec<StepRow>,
}

impl Walk<'_> {
    fn value(&self, dim: &DimExpr) -> Option<f64> {
        dim.evaluate(self.symbols).ok().map(|value| value.max(0) as f64)
    }

    fn steps(&mut self, steps: &[Step], depth: usize) {
        for step in steps {
            let row = self.row(step, depth);
            self.rows.push(row);
            for children in step.children() {
                self.steps(children, depth + 1);
            }
        }
    }

    fn row(&self, step: &Step, depth: usize) -> StepRow {
        let number = self.rows.len() as u32;
        let (name, reads, writes) = self.describe(step);
        let work = self.work.get(&number);
        let operations = work.and_then(|work| self.value(&work.operations));
        let bytes = work.and_then(|work| self.value(&work.bytes));
        let limits = work.zip(operations).zip(bytes).map(|((work, operations), bytes)| {
            let rate = match work.kind {
                WorkKind::Float => self.machine.f32_gigaflops,
                WorkKind::Int8 => self.machine.int8_gigaops,
                WorkKind::Elementwise => self.machine.elementwise_gigaops,
            };
            (self.machine.seconds_at(operations, rate) * 1e6, self.machine.seconds_to_move(bytes) * 1e6)
        });
        StepRow {
            step: number,
            depth,
            name,
            operator: work.map_or(String::new(), |work| work.operator.clone()),
            location: work.map_or(String::new(), |work| work.location.clone()),
            reads,
            writes,
            operations,
            bytes,
            time_us: None,
            floor_us: limits.map(|(compute, moving)| compute.max(moving)),
            share: None,
            memory_bound: limits.is_some_and(|(compute, moving)| moving > compute),
        }
    }

    fn describe(&self, step: &Step) -> (String, Vec<TensorId>, Vec<TensorId>) {
        use tcc_runtime::manifest::Access;
        match step {
            Step::Kernel(step) => {
                let kernel = &self.manifest.kernels[step.kernel as usize];
                let access = |wanted: fn(&Access) -> bool| -> Vec<TensorId> {
                    let of = step.buffers.iter().zip(&kernel.buffers);
                    of.filter(|(_, access)| wanted(access)).map(|(id, _)| *id).collect()
                };
                let reads = access(|access| *access != Access::Write);
                (kernel.symbol.clone(), reads, access(|access| *access != Access::Read))
            }
            Step::Host(step) => (
                format!("host {}", step.function),
                step.inputs.iter().flatten().copied().collect(),
                step.outputs.clone(),
            ),
            Step::Copy { from, to } => ("copy".to_string(), vec![*from], vec![*to]),
            Step::Bind { symbol, tensor, .. } => {
                let name = &self.manifest.symbols[*symbol as usize].name;
                (format!("bind {name}"), vec![*tensor], Vec::new())
            }
            Step::Require(constraint) => (format!("require {}", constraint.reason), Vec::new(), Vec::new()),
            Step::If(step) => {
                let writes = step.then.results.iter().map(|transfer| transfer.to).collect();
                ("if".to_string(), vec![step.condition], writes)
            }
            Step::Loop(step) => {
                let reads = step.carried.iter().map(|carried| carried.initial).collect();
                let states = step.carried.iter().map(|carried| carried.state);
                let writes = states.chain(step.scans.iter().map(|scan| scan.result)).collect();
                ("loop".to_string(), reads, writes)
            }
        }
    }
}

/// Where each arena tensor lies: as planned at compile time, else as a session with these symbols plans it.
fn place(manifest: &Manifest, symbols: &[Option<i64>]) -> (Vec<Placed>, Option<u64>) {
    let mut bounds = symbols.to_vec();
    for (bound, symbol) in bounds.iter_mut().zip(&manifest.symbols) {
        if bound.is_none() && symbol.hi != i64::MAX {
            *bound = Some(symbol.hi);
        }
    }
    let mut found = Vec::new();
    for (id, tensor) in manifest.tensors.iter().enumerate() {
        let Storage::Arena { offset, first_step, last_step } = tensor.storage else { continue };
        let extents = tensor.shape.iter().map(|dim| dim.evaluate(&bounds).ok());
        let count = extents
            .map(|extent| u64::try_from(extent?).ok())
            .try_fold(1u64, |product, extent| product.checked_mul(extent?));
        let Some(bytes) = count.and_then(|count| tensor.dtype.bytes_for(count)) else {
            return (Vec::new(), manifest.arena_bytes);
        };
        let name = manifest.tensor_name(id as TensorId);
        found.push((Placed { name, offset: 0, bytes, first_step, last_step }, offset));
    }
    let planned = if manifest.arena_bytes.is_some() {
        None
    } else {
        let request = |placed: &Placed| {
            let Placed { bytes, first_step, last_step, .. } = *placed;
            Request { bytes, first_step, last_step }
        };
        let requests: Vec<Request> = found.iter().map(|(placed, _)| request(placed)).collect();
        match plan(&requests) {
            Ok(plan) => Some(plan),
            Err(_) => return (Vec::new(), None),
        }
    };
    let arena_bytes = manifest.arena_bytes.or(planned.as_ref().map(|plan| plan.bytes));
    let placed = found.into_iter().enumerate().map(|(index, (placed, offset))| {
        let planned = planned.as_ref().and_then(|plan| plan.offsets.get(index).copied());
        Placed { offset: offset.or(planned).unwrap_or(0), ..placed }
    });
    (placed.collect(), arena_bytes)
}
