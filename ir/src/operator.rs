//! The operator table: each operator of the tensor IR is declared here once.
//!
//! From a declaration follow the [`Operator`] variant with typed attributes, its textual name, the attribute printer and
//! parser, the arity check and the documentation page. Result types are inferred in [`crate::infer`], whose `match` is
//! exhaustive, so the compiler names what a new operator lacks. The semantics are those of the doc line; the reference
//! interpreter executes exactly that.
//!
//! Conventions: axes are non-negative; shapes and slice bounds are symbolic dimensions; operands of `map` and of
//! epilogues broadcast NumPy-style (aligned at the last axis); no other operator broadcasts.

use crate::attribute::{Attribute, AttributeValue, Real};
use crate::block_format::{BlockFormat, RowForm, WeightForm};
use crate::cache::CacheStorage;
use crate::contraction::ContractionSpec;
use crate::data::Data;
use crate::dim::{Dim, Symbol};
use crate::dtype::DType;
use crate::scalar::ScalarExpr;
use crate::words::*;

/// What is fixed about an operator, for documentation and checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Description {
    /// Name in the text form, without the `tir.` prefix.
    pub name: &'static str,
    /// Documentation, first line a summary.
    pub doc: &'static str,
    /// Operand names; a last name that ends in `*` stands for any number.
    pub operands: &'static [&'static str],
    /// Result names; a last name that ends in `*` stands for any number.
    pub results: &'static [&'static str],
    /// Attribute names.
    pub attributes: &'static [&'static str],
    /// Number of regions.
    pub regions: usize,
    /// True where equal operands and attributes give equal results and nothing else happens.
    pub pure_function: bool,
}

macro_rules! operators {
    ($(
        $(#[doc = $doc:literal])*
        $variant:ident $name:literal $purity:ident [$($operand:literal),*] -> [$($result:literal),*]
        { $($field:ident: $ty:ty),* } $(regions $regions:literal)?;
    )*) => {
        /// An operator with its attributes.
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[allow(missing_docs, reason = "fields are documented with their variant")]
        pub enum Operator { $($(#[doc = $doc])* $variant { $($field: $ty),* },)* }

        /// The operators without their attributes.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[allow(missing_docs, reason = "documented at `Operator`")]
        pub enum OperatorKind { $($variant,)* }

        impl OperatorKind {
            /// Every operator, in declaration order.
            pub const ALL: &'static [OperatorKind] = &[$(OperatorKind::$variant,)*];

            /// The declaration.
            pub fn describe(self) -> Description {
                match self {
                    $(OperatorKind::$variant => Description {
                        name: $name,
                        doc: concat!($($doc, "\n"),*),
                        operands: &[$($operand),*],
                        results: &[$($result),*],
                        attributes: &[$(stringify!($field)),*],
                        regions: 0 $(+ $regions)?,
                        pure_function: stringify!($purity).as_bytes()[0] == b'p',
                    },)*
                }
            }
        }

        impl Operator {
            /// Which operator this is.
            pub fn kind(&self) -> OperatorKind {
                match self { $(Operator::$variant { .. } => OperatorKind::$variant,)* }
            }

            /// Attribute names and values, in declaration order.
            pub fn attributes(&self) -> Vec<(&'static str, AttributeValue)> {
                match self {
                    $(Operator::$variant { $($field),* } => vec![$((stringify!($field), $field.to_value())),*],)*
                }
            }

            /// The operator of this name with attributes looked up by `get`; the error names the attribute.
            pub fn from_attributes(
                name: &str,
                get: &mut dyn FnMut(&str) -> Option<AttributeValue>,
            ) -> Result<Operator, String> {
                let _ = &get;
                match name {
                    $($name => Ok(Operator::$variant {
                        $($field: {
                            let value = get(stringify!($field))
                                .ok_or_else(|| format!("attribute '{}' is missing", stringify!($field)))?;
                            <$ty as Attribute>::from_value(&value)
                                .map_err(|error| format!("attribute '{}': {error}", stringify!($field)))?
                        }),*
                    }),)*
                    _ => Err(format!("unknown operator 'tir.{name}'")),
                }
            }

            /// Replaces every symbolic dimension among the attributes.
            pub fn map_dims(&mut self, replace: &dyn Fn(&Dim) -> Dim) {
                match self {
                    $(Operator::$variant { $($field),* } => { $($field.map_dims(replace);)* })*
                }
            }
        }
    };
}

/// Field types that may hold symbolic dimensions.
trait MapDims {
    fn map_dims(&mut self, _replace: &dyn Fn(&Dim) -> Dim) {}
}

impl MapDims for Dim {
    fn map_dims(&mut self, replace: &dyn Fn(&Dim) -> Dim) {
        *self = replace(self);
    }
}

impl MapDims for Vec<Dim> {
    fn map_dims(&mut self, replace: &dyn Fn(&Dim) -> Dim) {
        self.iter_mut().for_each(|dim| *dim = replace(dim));
    }
}

macro_rules! without_dims {
    ($($ty:ty),*) => { $(impl MapDims for $ty {})* };
}

without_dims!(
    i64,
    usize,
    bool,
    Real,
    String,
    DType,
    Data,
    CacheStorage,
    ScalarExpr,
    ContractionSpec,
    ReduceKind,
    Layout,
    WindowKind,
    PadKind,
    ScatterKind,
    ResizeKind,
    CoordinateKind,
    NearestKind,
    CellKind,
    Direction,
    RandomKind,
    BlockFormat,
    WeightForm,
    RowForm,
    Vec<i64>,
    Vec<usize>,
    Vec<Real>,
    Vec<Symbol>,
    Vec<String>
);

operators! {
    /// A tensor known at compile time.
    Constant "constant" pure [] -> ["y"] { data: Data };
    /// Integer coordinates along `axis`, as a tensor of `shape` and element type `dtype`.
    Iota "iota" pure [] -> ["y"] { dtype: DType, shape: Vec<Dim>, axis: usize };
    /// The values of symbolic dimensions as a one-dimensional `i64` tensor.
    Dims "dims" pure [] -> ["y"] { dims: Vec<Dim> };
    /// Gives names to the elements of a one-dimensional integer tensor, so that shapes can depend on run-time values;
    /// the run fails where a value is outside `low..=high` of its symbol.
    Bind "bind" effect ["values"] -> [] { symbols: Vec<Symbol> };

    /// The scalar function `body` on every element; operands broadcast NumPy-style.
    Map "map" pure ["x*"] -> ["y"] { body: ScalarExpr };
    /// Reduces `axes` with `kind`, in the element type, ascending row-major order; `keep` leaves extents of 1.
    /// `prologue` maps each element first (further operands broadcast against `x`), `epilogue` maps each result
    /// (input 0 is the result; its further operands follow the prologue's and broadcast against the result).
    Reduce "reduce" pure ["x", "rest*"] -> ["y"]
        { kind: ReduceKind, axes: Vec<usize>, keep: bool, prologue: ScalarExpr, epilogue: ScalarExpr };
    /// Index of the extreme element along `axis` as `i64`; `last` picks the last of equal ones, NaN is extreme.
    ArgReduce "arg_reduce" pure ["x"] -> ["y"] { kind: ReduceKind, axis: usize, keep: bool, last: bool };
    /// Running reduction along `axis`.
    Scan "scan" pure ["x"] -> ["y"] { kind: ReduceKind, axis: usize, exclusive: bool, reverse: bool };

    /// Einstein summation of two tensors, accumulated in `accumulator`, mapped by `epilogue` (input 0 is the sum, then
    /// the further operands, which broadcast against the result) and so converted to the result type.
    Contract "contract" pure ["lhs", "rhs", "rest*"] -> ["y"]
        { spec: ContractionSpec, accumulator: DType, epilogue: ScalarExpr };
    /// Cross-correlation over any number of spatial dimensions, accumulated in `accumulator`; `pads` holds the low then
    /// the high side of each spatial dimension; `epilogue` as in `contract`, its operands broadcast against the result.
    Convolve "convolve" pure ["x", "w", "rest*"] -> ["y"]
        { layout: Layout, groups: usize, strides: Vec<usize>, dilations: Vec<usize>, pads: Vec<i64>,
          accumulator: DType, epilogue: ScalarExpr };
    /// The transpose (input gradient) of a convolution: `w` is `[in, out/groups, spatial...]` channels first and
    /// `[spatial..., out/groups, in]` channels last; `output_pads` widens the high side.
    ConvolveTranspose "convolve_transpose" pure ["x", "w", "rest*"] -> ["y"]
        { layout: Layout, groups: usize, strides: Vec<usize>, dilations: Vec<usize>, pads: Vec<i64>,
          output_pads: Vec<usize>, accumulator: DType, epilogue: ScalarExpr };
    /// Sliding-window reduction over the spatial dimensions; `pads` as in `convolve`; `ceil` rounds the output extent up
    /// (a last window must start inside the input or its low padding).
    Window "window" pure ["x"] -> ["y"]
        { kind: WindowKind, layout: Layout, size: Vec<usize>, strides: Vec<usize>, dilations: Vec<usize>,
          pads: Vec<i64>, ceil: bool };
    /// As `window` with `max`, and the flat index of each maximum in the whole of `x` (row-major over spatial dimensions
    /// where `row_major`, else column-major).
    WindowArgMax "window_arg_max" pure ["x"] -> ["y", "indices"]
        { size: Vec<usize>, strides: Vec<usize>, dilations: Vec<usize>, pads: Vec<i64>, ceil: bool, row_major: bool };
    /// `exp(x - max) / sum(exp(x - max))` along `axis`; its logarithm where `log`.
    Softmax "softmax" pure ["x"] -> ["y"] { axis: usize, log: bool };
    /// `(x - mean) / sqrt(variance + epsilon)` over `axes`, computed in `f32` at least; not `centered`: root mean square
    /// without subtracting the mean. `epilogue` maps each element (input 0 is the normalized element).
    Normalize "normalize" pure ["x", "rest*"] -> ["y"]
        { axes: Vec<usize>, epsilon: Real, centered: bool, epilogue: ScalarExpr };
    /// Scaled dot-product attention. `q` is `[batch, q_heads, q_len, d]`, `k` `[batch, kv_heads, kv_len, d]`, `v`
    /// `[batch, kv_heads, kv_len, dv]`, and `mask`, if given, is an additive float that broadcasts to
    /// `[batch, q_heads, q_len, kv_len]`. `causal` lets query i see keys up to `i + kv_len - q_len`; `window` (0: none)
    /// limits how many it sees, the newest ones; `softcap` (0: none) applies `c * tanh(s / c)` to the scaled scores
    /// before the mask. A query that sees no key gives 0.
    Attention "attention" pure ["q", "k", "v", "mask*"] -> ["y"]
        { scale: Real, softcap: Real, causal: bool, window: usize };
    /// Rotary position embedding over the last axis of `x` `[..., seq, d]` with `cos` and `sin` `[seq, d/2]` or
    /// broadcastable to `[..., seq, d/2]`; pairs are `(i, i + d/2)`, or `(2i, 2i + 1)` where `interleaved`.
    Rope "rope" pure ["x", "cos", "sin"] -> ["y"] { interleaved: bool };
    /// A recurrent layer as in ONNX RNN, GRU and LSTM, `[seq, batch, input]` in: weights `w` `[dirs, gates*hidden,
    /// input]`, `r` `[dirs, gates*hidden, hidden]`, `b` `[dirs, 2*gates*hidden]`, initial states `h` (and `c` for LSTM)
    /// `[dirs, batch, hidden]`, peepholes `p` `[dirs, 3*hidden]` for LSTM, `lengths` `[batch]`. Results: all
    /// hidden states `[seq, dirs, batch, hidden]`, the last ones, and for LSTM the last cell states. `alphas[i]` and
    /// `betas[i]` belong to `activations[i]`; where a list ends early the ONNX defaults hold. `clip` 0 is none. Steps
    /// beyond the length of a batch element give 0 and leave its states; a reversed direction starts at its last step.
    Recurrent "recurrent" pure ["x", "w", "r", "b", "lengths", "h", "lstm*"] -> ["y", "last*"]
        { cell: CellKind, direction: Direction, activations: Vec<String>, alphas: Vec<Real>, betas: Vec<Real>,
          clip: Real, linear_before_reset: bool, input_forget: bool };

    /// The same elements in row-major order under another shape.
    Reshape "reshape" pure ["x"] -> ["y"] { shape: Vec<Dim> };
    /// Axis `i` of the result is axis `perm[i]` of the operand.
    Transpose "transpose" pure ["x"] -> ["y"] { perm: Vec<usize> };
    /// NumPy-style broadcast to `shape`.
    Broadcast "broadcast" pure ["x"] -> ["y"] { shape: Vec<Dim> };
    /// `sizes[i]` elements of axis `i` from `starts[i]` in steps of `steps[i]`, which may be negative; in range always.
    Slice "slice" pure ["x"] -> ["y"] { starts: Vec<Dim>, sizes: Vec<Dim>, steps: Vec<i64> };
    /// Joins tensors along `axis`.
    Concat "concat" pure ["x*"] -> ["y"] { axis: usize };
    /// Adds `low` and `high` elements around each axis; `value` is a scalar tensor, used by `constant`. Negative
    /// amounts crop.
    Pad "pad" pure ["x", "value"] -> ["y"] { kind: PadKind, low: Vec<Dim>, high: Vec<Dim> };

    /// `x` along `axis` at `indices`; the result's shape puts the indices' shape in place of the axis. Negative indices
    /// count from the end; others outside the axis fail the run.
    Gather "gather" pure ["x", "indices"] -> ["y"] { axis: usize };
    /// `y[i..] = x[i.. with axis replaced by indices[i..]]`.
    GatherElements "gather_elements" pure ["x", "indices"] -> ["y"] { axis: usize };
    /// The last axis of `indices` addresses leading axes of `x` after `batch_dims` shared ones.
    GatherNd "gather_nd" pure ["x", "indices"] -> ["y"] { batch_dims: usize };
    /// `x` with `updates[i..]` combined at `[i.. with axis replaced by indices[i..]]`, in row-major order.
    ScatterElements "scatter_elements" pure ["x", "indices", "updates"] -> ["y"] { axis: usize, kind: ScatterKind };
    /// `x` with slices combined at the positions that the last axis of `indices` addresses, in row-major order.
    ScatterNd "scatter_nd" pure ["x", "indices", "updates"] -> ["y"] { kind: ScatterKind };
    /// ONNX Resize to `shape`: `scales` an axis (output / input where empty), coordinates, rounding, cubic coefficient,
    /// weights of outside samples dropped where `exclude_outside`, value outside for crop-and-resize, region of interest
    /// (starts then ends an axis, normalized), low-pass filter when shrinking where `antialias`.
    Resize "resize" pure ["x"] -> ["y"]
        { kind: ResizeKind, coordinates: CoordinateKind, nearest: NearestKind, shape: Vec<Dim>, scales: Vec<Real>,
          cubic: Real, exclude_outside: bool, outside: Real, region: Vec<Real>, antialias: bool };
    /// ONNX GridSample: `x` `[n, c, spatial...]` read at `grid` `[n, out..., rank]` of coordinates in [-1, 1], last
    /// coordinate first axis last; outside: zeros, `edge` or `reflect`.
    GridSample "grid_sample" pure ["x", "grid"] -> ["y"]
        { kind: ResizeKind, outside: PadKind, align_corners: bool };

    /// The `k` largest (or smallest) along `axis`, sorted, the lower index first among equals, with their `i64` indices;
    /// NaN counts as the largest number.
    TopK "top_k" pure ["x"] -> ["values", "indices"] { axis: usize, k: Dim, largest: bool };
    /// A run-time function by name, for what is not a loop nest: its attributes are JSON text and `types` the result
    /// types in text form; result extents that it decides are symbols of its own. `onnx.NAME` is the ONNX operator NAME:
    /// operands are its inputs in order, those left out in the middle are listed in the attribute `absent`; attributes
    /// that are left out have their ONNX defaults.
    Host "host" effect ["x*"] -> ["y*"] { function: String, attributes: String, types: Vec<String> };
    /// Random numbers of a shape: uniform on `a..b`, or normal with mean `a` and deviation `b`, computed in `f64` and
    /// rounded. Philox4x32-10 with key `seed` and counter (block, 0, 0); `seed` 0 asks for other numbers in every run. A
    /// block's words give two uniform numbers of 53 bits, for elements `2 block` and `2 block + 1`, or by Box and Muller
    /// two normal ones.
    Random "random" effect [] -> ["y"]
        { kind: RandomKind, dtype: DType, shape: Vec<Dim>, a: Real, b: Real, seed: i64 };

    /// `saturate(round_half_even(x / scale) + zero)` as `dtype`; `scale` and `zero` have one element, or one for each
    /// index of `axis`, or one for each block of `block` elements along `axis` (0: no blocks). The quotient is rounded to
    /// `f32` (`f64` for `f64`) before it is rounded to an integer; `saturate` matters for 8-bit floats only.
    Quantize "quantize" pure ["x", "scale", "zero"] -> ["y"] { dtype: DType, axis: usize, block: usize, saturate: bool };
    /// `(x - zero) * scale` as `dtype`; parameters as in `quantize`.
    Dequantize "dequantize" pure ["x", "scale", "zero"] -> ["y"] { dtype: DType, axis: usize, block: usize };
    /// The numbers of block-quantized weights as `dtype`: `bytes` is `ui8 [..., row_bytes]`, rows of whole blocks of
    /// `format` as GGUF files hold them (`tcc_ir::block_format`), `y` `[..., row_bytes / block bytes * block elements]`.
    /// Scales are multiplied in `f32`, then rounded to `dtype`.
    DecodeBlocks "decode_blocks" pure ["bytes"] -> ["y"] { format: BlockFormat, dtype: DType };
    /// Rows as integers, as `block_contract` takes them: for each run of `group` elements of the last axis (whole runs),
    /// `scale = max|x| / m` and `code = round_half_even(x * (m / max|x|))`, 0 where the maximum is below 2^-100; for each
    /// run of `sum` elements within a group `scale * (sum of codes)`. All in `f32`. For `int8` `m` is 127 and `codes` holds
    /// the codes. For `int16` `m` is 16256, and a code is `128 codes + fine` with `codes = floor((code + 64) / 128)`.
    QuantizeRows "quantize_rows" pure ["x"] -> ["codes", "scales", "sums", "fine*"]
        { group: usize, sum: usize, rows: RowForm };
    /// `y[..., o] = epilogue(sum over k of x[..., k] * w[o, k])` with weights that stay packed in memory. `w` is `bytes`
    /// `[out, row_bytes]` that mean what `decode_blocks` gives, or `codes` `[out, k]`, `scale` and `zero` `[out, k / block]`
    /// that mean what `dequantize` gives. Unless `rows` is `float`, `x` stands for the results of `quantize_rows` and each
    /// element for its code times its scale. With `experts` the weights have a leading axis of experts and an operand
    /// after them, `i64`, with one entry for each row of `x`, says whose weights a row meets. Sums in `f32`; the epilogue
    /// is as in `contract`, its further operands come last.
    BlockContract "block_contract" pure ["x", "w", "rest*"] -> ["y"]
        { weights: WeightForm, rows: RowForm, experts: bool, epilogue: ScalarExpr };

    /// One of two regions without parameters; both yield values of the result types up to symbolic extents.
    If "if" effect ["condition"] -> ["y*"] {} regions 2;
    /// ONNX Loop: region parameters are the iteration number (`i64` scalar), the condition and the carried values; it
    /// yields the next condition, the next carried values and then one value per scanned result, stacked in front.
    /// Operands: trip limit (`i64` scalar, negative: no limit), first condition, carried values. `scans` counts scanned results.
    Loop "loop" effect ["limit", "condition", "carried*"] -> ["y*"] { scans: usize } regions 1;
    /// The results of another function of the module.
    Call "call" effect ["x*"] -> ["y*"] { callee: String };

    /// The cache tensor `name`, which keeps its contents from run to run and from one entry to the next, zero at first:
    /// logically `[slots, heads, d]` numbers in `f32`, rounded and laid out as `storage` says. Names are unique in a
    /// function; it stands in a function body, not in a region.
    KvState "kv_state" effect [] -> ["cache"] { name: String, shape: Vec<Dim>, storage: CacheStorage };
    /// The cache with row `x[i]` `[n, heads, d]` at slot `slots[i]` (`[n]` integers), rounded to the format of the cache;
    /// a negative slot is not written, a later one of equal slots wins. The operand is consumed: it has no other use.
    KvAppend "kv_append" effect ["cache", "x", "slots"] -> ["next"] { storage: CacheStorage };
    /// Causal attention of tokens over paged caches. `q` is `[n, q_heads, d]`, `k` a cache `[slots, kv_heads, d]`, `v` a
    /// cache `[slots, kv_heads, dv]`, query head `h` reads cache head `h / (q_heads / kv_heads)`. Token `i` belongs to the
    /// sequence whose pages are `block_table[rows[i], ..]` (`[s, p]`; `rows` and `positions` `[n]`): position `t` of it
    /// lies at slot `table[t / page] * page + t % page`. It sees the positions `0..=positions[i]`, with a `window` (0:
    /// none) only the newest `window` of them and the first `sinks`. `softcap` as in `attention`. A token that sees
    /// nothing, as one at a negative position, gives 0. The context is computed in parts of `split` positions that
    /// are combined in order (0: as one); this changes rounding only.
    KvAttend "kv_attend" pure ["q", "k", "v", "block_table", "rows", "positions"] -> ["y"]
        { scale: Real, softcap: Real, window: usize, sinks: usize, page: usize, split: usize,
          k_storage: CacheStorage, v_storage: CacheStorage };
}

impl Operator {
    /// The declaration of this operator.
    pub fn describe(&self) -> Description {
        self.kind().describe()
    }

    /// Name in the text form, without the `tir.` prefix.
    pub fn name(&self) -> &'static str {
        self.describe().name
    }
}

/// The operator reference as Markdown, for `docs/operators.md`.
pub fn reference_page() -> String {
    let mut page = String::from(
        "# Tensor IR operators\n\nGenerated from the operator table in `ir/src/operator.rs`; do not edit.\n\n",
    );
    for kind in OperatorKind::ALL {
        let d = kind.describe();
        page += &format!("## `tir.{}`\n\n", d.name);
        page += &format!("`({}) -> ({})`", d.operands.join(", "), d.results.join(", "));
        if !d.attributes.is_empty() {
            page += &format!(" with `{}`", d.attributes.join("`, `"));
        }
        page += &format!("\n\n{}\n\n", d.doc.lines().map(str::trim).collect::<Vec<_>>().join("\n").trim());
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}
