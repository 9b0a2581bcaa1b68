//! The manifest: what a compiled program is, apart from its code and its weights.
//!
//! A compiler fills in a [`Manifest`]; it travels as JSON inside a bundle, or stays in memory when the program is
//! run where it was compiled. [`Manifest::validate`] states and checks what must hold.
//!
//! - Every tensor is dense and row-major, with its *actual* dimensions: a data-dependent dimension below its bound
//!   leaves the rest of the buffer unused at the end, it does not leave gaps.
//! - Steps are numbered in preorder over the whole tree: an `If` or `Loop` takes a number, then its children take
//!   theirs (`then` before `otherwise`). Arena live ranges are given in these numbers, both ends included. A tensor
//!   that a loop body uses and that was written before the loop lives to the end of the loop.
//! - Every compiled kernel has the type [`KernelFn`], and its results never depend on how its domain is split.

use crate::dim::{DimExpr, SymbolId};
use crate::dtype::DType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the manifest format that this crate reads and writes.
pub const FORMAT_VERSION: u32 = 2;

/// Alignment in bytes of arena tensors, weights in a bundle, scratch memory and owned results.
pub const ALIGNMENT: u64 = 64;

/// Largest size of all weights together that are filled in on load.
pub const MAX_FILLED_BYTES: u64 = 4 << 30;

/// Largest rank of a tensor.
pub const MAX_RANK: usize = 16;

/// Position of a tensor in [`Manifest::tensors`].
pub type TensorId = u32;

/// Position of a kernel in [`Manifest::kernels`].
pub type KernelId = u32;

/// A compiled kernel: `fn(buffers, dims, scratch, begin, end)`.
///
/// `buffers` are the addresses of the tensors of the step, `dims` the values of its dimension expressions, `scratch`
/// memory of the step's `scratch_bytes` that no other thread uses during the call, and `begin..end` a part of the
/// domain `0..tasks`.
pub type KernelFn = unsafe extern "C" fn(*const *mut u8, *const i64, *mut u8, i64, i64);

/// A compiled program without its code and weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the writer.
    pub format: u32,
    /// Name of the model.
    pub name: String,
    /// Name of this entry among those of a bundle; may be empty where there is only one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub entry: String,
    /// Name and version of the program that wrote this.
    pub producer: String,
    /// The machine that the kernels need.
    pub target: Target,
    /// Symbolic dimensions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub symbols: Vec<Symbol>,
    /// Relations between dimensions, checked before a run starts; none may need a data-dependent symbol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<Constraint>,
    /// Inputs in the order of a run's arguments.
    pub inputs: Vec<Port>,
    /// Outputs in the order of a run's results.
    pub outputs: Vec<Port>,
    /// Every tensor.
    pub tensors: Vec<TensorInfo>,
    /// Every kernel.
    pub kernels: Vec<Kernel>,
    /// What a run does, in order.
    pub steps: Vec<Step>,
    /// Constant data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<WeightBlob>,
    /// What the kernel steps compute, for profilers; a step without an entry only moves data or is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub work: Vec<StepWork>,
    /// Size of the arena when every arena tensor carries its offset; `None` when a session plans offsets itself
    /// each time the symbols change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arena_bytes: Option<u64>,
    /// Hashes that tie the manifest to its code.
    #[serde(default)]
    pub hashes: Hashes,
    /// Free text about the model, for people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// The machine that compiled code needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Architecture as Rust names it: `x86_64`, `aarch64`.
    pub arch: String,
    /// CPU features as Rust names them, `avx512f` and the like; loading refuses a CPU that lacks one.
    #[serde(default)]
    pub features: Vec<String>,
}

impl Target {
    /// The architecture of the running program, with no feature beyond its baseline.
    pub fn host_baseline() -> Self {
        Target { arch: std::env::consts::ARCH.to_owned(), features: Vec::new() }
    }
}

/// A symbolic dimension.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Symbol {
    /// Name for messages, such as `batch`.
    pub name: String,
    /// Smallest value allowed.
    pub lo: i64,
    /// Largest value allowed, `i64::MAX` where there is no limit.
    pub hi: i64,
    /// Where the value comes from.
    pub source: SymbolSource,
}

/// Where a symbol gets its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SymbolSource {
    /// The size of an axis of an input, whose shape says just this symbol there. Where the symbol occurs in other
    /// places of the inputs' shapes it is checked to be the same.
    Input {
        /// Position of the input.
        input: u32,
        /// Axis of its shape.
        axis: u32,
    },
    /// Fixed when the [`State`](crate::State) of the program is made: the number of slots of a cache.
    State,
    /// A step binds the value while the program runs: a `Host` step, a `Bind`, an `If`, a `Loop`.
    Step {
        /// The largest value it can take, over symbols bound by inputs or earlier in the table, where known. Arena
        /// tensors whose shape needs a symbol without a bound are not allowed: such tensors are `Host`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bound: Option<DimExpr>,
    },
}

/// A relation between two dimension expressions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraint {
    /// Left operand.
    pub left: DimExpr,
    /// What must hold.
    pub relation: Relation,
    /// Right operand.
    pub right: DimExpr,
    /// For the message when it does not hold: what needs it, with the name of the node.
    pub reason: String,
}

/// How the two sides of a [`Constraint`] relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// `left == right`.
    Equal,
    /// `left <= right`.
    LessOrEqual,
    /// `left` is a multiple of `right`.
    MultipleOf,
}

/// An input or output: a name and the tensor behind it.
///
/// An input's tensor has `Storage::Input` of its position. An output's tensor may have any storage: with
/// `Storage::Output` kernels write into the caller's memory, otherwise the session copies at the end of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Name in the model.
    pub name: String,
    /// The tensor, which has the element type and the shape.
    pub tensor: TensorId,
}

/// A tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorInfo {
    /// Name for messages; empty where the model has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<DimExpr>,
    /// Where the elements are.
    pub storage: Storage,
}

/// Where the elements of a tensor are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Storage {
    /// The caller's input at this position, read-only.
    Input(u32),
    /// The caller's output at this position, write first.
    Output(u32),
    /// Constant data, read-only.
    Weight {
        /// Position in [`Manifest::weights`].
        blob: u32,
        /// First byte in the blob.
        offset: u64,
        /// Length, which equals the size of the tensor.
        bytes: u64,
    },
    /// The session's arena, shared with tensors whose live ranges do not meet this one.
    Arena {
        /// First byte, when planned at compile time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
        /// The step that writes it first.
        first_step: u32,
        /// The last step that uses it.
        last_step: u32,
    },
    /// A part of another tensor: a reshape or a slice of leading dimensions.
    Alias {
        /// The other tensor, not itself and not (through aliases) a circle.
        of: TensorId,
        /// First byte.
        byte_offset: DimExpr,
    },
    /// Memory of the [`State`](crate::State) that keeps its value from run to run, zero at first; found by the tensor's
    /// name. The shape uses constants and symbols of source `State`.
    State,
    /// Strings, or elements whose number has no known bound: memory of the session that grows when it must.
    Host,
}

/// A compiled function in the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Symbol in the object file; in a program in memory a name for messages.
    pub symbol: String,
    /// What it does with each of its buffers.
    pub buffers: Vec<Access>,
    /// Number of its dimension arguments.
    pub dims: u32,
}

/// What a kernel does with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Reads only.
    Read,
    /// Writes every element before it reads any.
    Write,
    /// Reads elements that an earlier step wrote, and writes.
    ReadWrite,
}

/// One thing that a run does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Calls a kernel over its domain, on all threads.
    Kernel(KernelStep),
    /// Copies all elements of a tensor into one of the same element type and number of elements.
    Copy {
        /// Source.
        from: TensorId,
        /// Destination.
        to: TensorId,
    },
    /// Calls a function of the host registry.
    Host(HostStep),
    /// Gives a symbol the value of one element of an integer tensor.
    Bind {
        /// A symbol with `SymbolSource::Step`.
        symbol: SymbolId,
        /// The tensor.
        tensor: TensorId,
        /// Which element, in row-major order.
        element: DimExpr,
    },
    /// Checks a relation that needs data-dependent symbols.
    Require(Constraint),
    /// Runs one of two lists of steps.
    If(IfStep),
    /// Runs steps again and again.
    Loop(LoopStep),
}

/// A call of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelStep {
    /// Which kernel.
    pub kernel: KernelId,
    /// Its buffers.
    pub buffers: Vec<TensorId>,
    /// Its dimension arguments.
    pub dims: Vec<DimExpr>,
    /// Size of the parallel domain; 0 is allowed and calls nothing.
    pub tasks: DimExpr,
    /// Domain points that one call takes at least, at least 1: a larger number costs less, a smaller one balances.
    pub grain: DimExpr,
    /// Scratch memory for each thread.
    #[serde(default = "zero")]
    pub scratch_bytes: DimExpr,
}

fn zero() -> DimExpr {
    DimExpr::Const(0)
}

/// A call of a host function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostStep {
    /// Name in the registry; a program that names an unknown one is refused on load.
    pub function: String,
    /// Its attributes, checked on load.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub attributes: serde_json::Map<String, serde_json::Value>,
    /// Tensors read. `None` for an optional input that is absent.
    pub inputs: Vec<Option<TensorId>>,
    /// Tensors written.
    pub outputs: Vec<TensorId>,
    /// Symbols that this step binds. Each is the whole of some dimension of an output's shape, and takes the size
    /// that the function gives to that dimension.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<SymbolId>,
}

/// A choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IfStep {
    /// A `bool` tensor of one element.
    pub condition: TensorId,
    /// Runs when it is true.
    pub then: Branch,
    /// Runs when it is false.
    pub otherwise: Branch,
    /// Symbols bound by the actual shape of the results of the branch taken: each is the whole of some dimension
    /// of a result's shape.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<SymbolId>,
}

/// One side of a choice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Branch {
    /// What it does.
    pub steps: Vec<Step>,
    /// Then these are copied into the results of the `If`. Both branches list the same `to`, in the same order.
    pub results: Vec<Transfer>,
}

/// A copy of a tensor at the end of a branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// Source.
    pub from: TensorId,
    /// Destination; the same tensor as `from` where the branch wrote it in place.
    pub to: TensorId,
}

/// A loop with the semantics of ONNX `Loop`.
///
/// First every `initial` is copied into its `state`. While the trip count is not reached and the condition holds:
/// the iteration number is written, the body runs, every scanned `element` is appended to its `result`, every
/// `next` is copied into its `state`, and the condition becomes the value of `condition_next`. After the loop the
/// final values are in the `state` tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoopStep {
    /// An `i64` tensor of one element: the largest number of iterations. Absent or negative: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trip_count: Option<TensorId>,
    /// A `bool` tensor of one element: whether to start at all. Absent: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<TensorId>,
    /// A `bool` tensor of one element that the body computes: whether to go on. Absent: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition_next: Option<TensorId>,
    /// An `i64` tensor of one element that holds the number of the iteration, from 0, while the body runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iteration: Option<TensorId>,
    /// A symbol that has the number of the iteration while the body runs, for offsets of aliases and arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iteration_symbol: Option<SymbolId>,
    /// Values that go from one iteration to the next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carried: Vec<Carried>,
    /// What an iteration does.
    pub body: Vec<Step>,
    /// Values collected over all iterations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scans: Vec<Scan>,
    /// A symbol that has the number of iterations after the loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterations: Option<SymbolId>,
    /// Symbols of the shapes of `state` tensors that take the shape of `initial`, then of each `next`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<SymbolId>,
}

/// A value that goes from one iteration to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    /// The value before the first iteration; the same tensor as `state` where no copy is needed.
    pub initial: TensorId,
    /// The value that the body reads, and the result after the loop.
    pub state: TensorId,
    /// The value that the body writes; the same tensor as `state` where it updates in place.
    pub next: TensorId,
}

/// A value collected over all iterations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scan {
    /// What one iteration computes; the same shape in every iteration.
    pub element: TensorId,
    /// Shape of `element` with the number of iterations as a new first dimension.
    pub result: TensorId,
}

/// A piece of constant data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightBlob {
    /// Name for messages.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// Alignment in bytes that kernels rely on, a power of two up to 4096. A program in memory whose data has less
    /// is copied.
    #[serde(default = "default_alignment")]
    pub alignment: u32,
    /// First byte within the weights section of a bundle; written by the bundle writer.
    #[serde(default)]
    pub offset: u64,
    /// BLAKE3 of the data in hexadecimal; written by the bundle writer, checked when loading asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The bytes that the blob repeats, where it is nothing else: it is then not stored but filled in on load, once for
    /// all sessions. At most [`MAX_FILLED_BYTES`] in a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<Vec<u8>>,
}

impl WeightBlob {
    /// Bytes that are given with the program: none for a blob that is filled in on load.
    pub fn stored_bytes(&self) -> u64 {
        if self.fill.is_some() { 0 } else { self.bytes }
    }
}

fn default_alignment() -> u32 {
    ALIGNMENT as u32
}

/// What a kernel step computes: nothing depends on it but what people are shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepWork {
    /// Number of the step.
    pub step: u32,
    /// The operator that it is, or is a part of.
    pub operator: String,
    /// Nodes of the model that it stands for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub location: String,
    /// Kind of the operations, which says how fast they can go.
    pub kind: WorkKind,
    /// Number of operations: two for a multiply-add, one for each function of an element.
    pub operations: DimExpr,
    /// Bytes read and written at least, each once.
    pub bytes: DimExpr,
}

/// How fast operations can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// Multiply-adds of floating-point numbers.
    Float,
    /// Multiply-adds of integers of 8 bits at most.
    Int8,
    /// Other functions, an element at a time.
    Elementwise,
}

/// Hashes that tie a manifest to what it describes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hashes {
    /// BLAKE3 of the code section in hexadecimal; written by the bundle writer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// BLAKE3 of the model that was compiled, where the compiler gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl Manifest {
    /// A manifest for this machine with nothing in it.
    pub fn new(name: impl Into<String>, producer: impl Into<String>) -> Self {
        Manifest {
            format: FORMAT_VERSION,
            name: name.into(),
            entry: String::new(),
            producer: producer.into(),
            target: Target::host_baseline(),
            symbols: Vec::new(),
            constraints: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            tensors: Vec::new(),
            kernels: Vec::new(),
            steps: Vec::new(),
            weights: Vec::new(),
            work: Vec::new(),
            arena_bytes: None,
            hashes: Hashes::default(),
            metadata: BTreeMap::new(),
        }
    }

    /// The expression with the names of its symbols.
    pub fn describe_dim(&self, dim: &DimExpr) -> String {
        let mut text = String::new();
        let written = dim.write(&mut text, &|id, out: &mut String| {
            match self.symbols.get(id as usize) {
                Some(symbol) => out.push_str(&symbol.name),
                None => out.push_str(&format!("s{id}")),
            }
            Ok(())
        });
        debug_assert!(written.is_ok(), "writing to a string does not fail");
        text
    }

    /// The shape as `[batch, 3, 224, 224]`.
    pub fn describe_shape(&self, shape: &[DimExpr]) -> String {
        let dims: Vec<_> = shape.iter().map(|dim| self.describe_dim(dim)).collect();
        format!("[{}]", dims.join(", "))
    }

    /// Name of a tensor for messages: its own, or its number.
    pub fn tensor_name(&self, id: TensorId) -> String {
        match self.tensors.get(id as usize) {
            Some(tensor) if !tensor.name.is_empty() => format!("`{}`", tensor.name),
            _ => format!("number {id}"),
        }
    }
}

impl Step {
    /// Lists of steps inside this one, in the order of their numbers.
    pub fn children(&self) -> impl Iterator<Item = &[Step]> {
        let (first, second): (Option<&[Step]>, Option<&[Step]>) = match self {
            Step::If(step) => (Some(&step.then.steps), Some(&step.otherwise.steps)),
            Step::Loop(step) => (Some(&step.body), None),
            _ => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// How many numbers this step takes: itself and all steps inside.
    pub fn count(&self) -> u32 {
        1 + self.children().flatten().map(Step::count).sum::<u32>()
    }
}
