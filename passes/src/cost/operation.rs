//! One cost for each operator.

use tcc_ir::block_format::RowForm;
use tcc_ir::cache::CacheStorage;
use tcc_ir::contraction::{ContractionSpec, Role};
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Function, ScalarExpr, ScalarOp};
use tcc_ir::types::{TensorType, Type};
use tcc_ir::words::Layout;

use super::{Machine, Sizes};

/// Scalar work of one element, in simple functions and transcendental ones.
pub fn scalar_work(body: &ScalarExpr) -> (f64, f64) {
    body.nodes.iter().fold((0.0, 0.0), |(simple, hard), node| {
        let (more_simple, more_hard) = function_work(node.op);
        (simple + more_simple, hard + more_hard)
    })
}

fn function_work(op: ScalarOp) -> (f64, f64) {
    use Function as F;
    let ScalarOp::Call(function) = op else { return (0.5, 0.0) };
    match function {
        F::Exp | F::Log | F::Log1p | F::Expm1 | F::Sigmoid | F::Tanh | F::Erf => (0.0, 1.0),
        F::Sin | F::Cos | F::Tan | F::Sinh | F::Cosh | F::Asin | F::Acos | F::Atan => (0.0, 1.5),
        F::Asinh | F::Acosh | F::Atanh | F::Pow | F::Mod | F::Rem => (0.0, 2.0),
        F::Div | F::Sqrt | F::Reciprocal => (4.0, 0.0),
        _ => (1.0, 0.0),
    }
}

/// True for operators that only give the same bytes another type.
pub fn is_view(operator: &Operator) -> bool {
    matches!(operator, Operator::Reshape { .. } | Operator::Constant { .. } | Operator::Dims { .. })
}

/// Share of the shorter of arithmetic and data movement that does not hide behind the longer: no work is free.
const OVERLAP_LOSS: f64 = 0.1;

struct Estimate<'a> {
    machine: &'a Machine,
    sizes: &'a Sizes,
}

impl Estimate<'_> {
    fn count(&self, ty: &TensorType) -> f64 {
        self.sizes.count(&ty.shape)
    }

    fn bytes(&self, ty: &TensorType) -> f64 {
        self.count(ty) * ty.dtype().bits() as f64 / 8.0
    }

    /// Seconds of `body` on `count` elements of type `dtype`.
    fn scalar(&self, body: &ScalarExpr, count: f64, dtype: DType) -> f64 {
        let (simple, hard) = scalar_work(body);
        let width = (dtype.size() as f64 / 4.0).max(0.25);
        self.machine.seconds_at(simple * count * width, self.machine.elementwise_gigaops)
            + self.machine.seconds_at(hard * count * width.max(1.0), self.machine.transcendental_gigaops)
    }

    /// Seconds of multiply-adds on operands of type `dtype`.
    fn multiply_adds(&self, count: f64, dtype: DType, accumulator: DType) -> f64 {
        let rate = match (dtype.bits(), accumulator) {
            (0..=8, DType::I32) => self.machine.int8_gigaops,
            (64, _) => self.machine.f32_gigaflops / 2.0,
            _ => self.machine.f32_gigaflops,
        };
        self.machine.seconds_at(2.0 * count, rate)
    }

    fn simple(&self, count: f64) -> f64 {
        self.machine.seconds_at(count, self.machine.elementwise_gigaops)
    }
}

/// Seconds of one operation with these operand and result types, launch included.
pub fn seconds(
    machine: &Machine,
    sizes: &Sizes,
    operator: &Operator,
    operands: &[&Type],
    results: &[Type],
) -> f64 {
    if is_view(operator) {
        return 0.0;
    }
    let estimate = Estimate { machine, sizes };
    let tensors: Vec<&TensorType> = operands.iter().filter_map(|ty| ty.as_tensor()).collect();
    let outputs: Vec<&TensorType> = results.iter().filter_map(Type::as_tensor).collect();
    let (compute, bytes) = work(&estimate, operator, &tensors, &outputs);
    // Operands last touched by the step before come out of the level that holds all of them.
    let moving = machine.seconds_to_move(bytes);
    compute.max(moving) + OVERLAP_LOSS * compute.min(moving) + machine.launch_seconds()
}

/// Seconds of arithmetic, and bytes read and written.
fn work(
    estimate: &Estimate,
    operator: &Operator,
    operands: &[&TensorType],
    results: &[&TensorType],
) -> (f64, f64) {
    use Operator as O;
    let written: f64 = results.iter().map(|ty| estimate.bytes(ty)).sum();
    let read: f64 = operands.iter().map(|ty| estimate.bytes(ty)).sum();
    let outputs: f64 = results.iter().map(|ty| estimate.count(ty)).sum();
    let input = operands.first().map_or(0.0, |ty| estimate.count(ty));
    let dtype = operands.first().map_or(DType::F32, |ty| ty.dtype());
    let all = read + written;
    match operator {
        O::Map { body } => (estimate.scalar(body, outputs, widest(operands, results)), all),
        O::Reduce { prologue, epilogue, .. } => {
            let inner = estimate.scalar(prologue, input, widest(operands, results)) + estimate.simple(input);
            (inner + estimate.scalar(epilogue, outputs, dtype), all)
        }
        O::Contract { spec, accumulator, epilogue } => {
            let [lhs, rhs, ..] = operands else { return (0.0, all) };
            let count = contraction_size(estimate, spec, lhs, rhs);
            let compute =
                estimate.multiply_adds(count, wider(lhs, rhs), *accumulator) * contraction_factor(spec);
            (compute + estimate.scalar(epilogue, outputs, *accumulator), all)
        }
        O::Convolve { layout, groups, accumulator, epilogue, .. } => {
            let [x, w, ..] = operands else { return (0.0, all) };
            let per_output = estimate.count(w) / filter_outputs(estimate, w, *layout).max(1.0);
            let compute = convolution(estimate, outputs * per_output, x, w, *layout, *groups, *accumulator);
            (compute + estimate.scalar(epilogue, outputs, *accumulator), all)
        }
        O::ConvolveTranspose { layout, groups, accumulator, epilogue, .. } => {
            let [x, w, ..] = operands else { return (0.0, all) };
            let per_input = estimate.count(w) / filter_outputs(estimate, w, *layout).max(1.0);
            let compute = convolution(estimate, input * per_input, x, w, *layout, *groups, *accumulator);
            (compute + estimate.scalar(epilogue, outputs, *accumulator), all)
        }
        O::Window { size, layout, .. } => {
            let per_output: f64 = size.iter().map(|extent| *extent as f64).product();
            (estimate.simple(outputs * per_output) * layout_factor(estimate, *layout), all)
        }
        O::WindowArgMax { size, .. } => {
            let per_output: f64 = size.iter().map(|extent| *extent as f64).product();
            (4.0 * estimate.simple(outputs * per_output), all)
        }
        O::Softmax { .. } => (softmax(estimate, input, dtype), all),
        O::Normalize { epilogue, .. } => {
            (estimate.simple(4.0 * input) + estimate.scalar(epilogue, outputs, dtype), all)
        }
        O::Attention { .. } => {
            let [q, k, v, ..] = operands else { return (0.0, all) };
            let scores =
                estimate.count(q) * k.shape.get(2).map_or(1.0, |length| estimate.sizes.value(length));
            let width = k.shape.last().map_or(1.0, |d| estimate.sizes.value(d)).max(1.0);
            let value_width = v.shape.last().map_or(width, |d| estimate.sizes.value(d));
            let products = estimate.multiply_adds(scores * (1.0 + value_width / width), dtype, DType::F32);
            (products + softmax(estimate, scores / width, dtype), all)
        }
        O::KvAppend { storage } => {
            // Only the rows written move, not the cache.
            let [_, x, ..] = operands else { return (0.0, 0.0) };
            let bytes = estimate.bytes(x) + estimate.count(x) * storage.format.bits() as f64 / 8.0;
            (estimate.simple(4.0 * estimate.count(x)), bytes)
        }
        O::KvAttend { page, k_storage, v_storage, .. } => {
            let [q, k, v, table, ..] = operands else { return (0.0, 0.0) };
            let extent = |ty: &TensorType, axis: usize| {
                ty.shape.get(axis).map_or(1.0, |dim| estimate.sizes.value(dim)).max(1.0)
            };
            let (heads, shared) = (extent(q, 1), extent(k, 1));
            let context = extent(table, 1) * *page as f64;
            let scores = extent(q, 0) * heads * context;
            let (depth, value_depth) = (extent(k, 2), extent(v, 2));
            let products = estimate.multiply_adds(scores * (depth + value_depth), DType::F32, DType::F32);
            let bits = |storage: &CacheStorage, depth: f64| depth * storage.format.bits() as f64;
            let cached = bits(k_storage, depth) + bits(v_storage, value_depth);
            let moved = context * extent(table, 0) * shared * cached / 8.0;
            (products + softmax(estimate, scores, DType::F32), moved + estimate.bytes(q) + written)
        }
        O::Recurrent { .. } => {
            let weights: f64 = operands.iter().skip(1).take(2).map(|ty| estimate.count(ty)).sum();
            let steps = operands
                .first()
                .map_or(1.0, |x| x.shape.iter().take(2).map(|dim| estimate.sizes.value(dim)).product());
            (estimate.multiply_adds(weights * steps, dtype, dtype), all)
        }
        // A gather reads what it returns, not the whole table.
        O::Gather { .. } | O::GatherElements { .. } | O::GatherNd { .. } | O::Slice { .. } => {
            (estimate.simple(outputs), 2.0 * written)
        }
        // Strided access moves whole cache lines for single elements.
        O::Transpose { perm } => (estimate.simple(outputs), all * if moves_last(perm) { 2.0 } else { 1.0 }),
        O::Scan { .. } | O::ArgReduce { .. } => (estimate.simple(4.0 * input), all),
        O::TopK { .. } => (estimate.simple(16.0 * input), all),
        O::Resize { .. } | O::GridSample { .. } | O::Rope { .. } => (estimate.simple(8.0 * outputs), all),
        O::BlockContract { rows, .. } => {
            let depth = operands
                .first()
                .and_then(|x| x.shape.last())
                .map_or(1.0, |depth| estimate.sizes.value(depth));
            // Each byte of a code meets the weights once.
            let (bytes, accumulator) = match rows {
                RowForm::Float => (1.0, DType::F32),
                RowForm::Int8 => (1.0, DType::I32),
                RowForm::Int16 => (2.0, DType::I32),
            };
            (estimate.multiply_adds(bytes * outputs * depth, dtype, accumulator), all)
        }
        // The scalar functions that they stand for fuse with their neighbours and cost no more.
        O::Quantize { .. } | O::Dequantize { .. } | O::DecodeBlocks { .. } | O::QuantizeRows { .. } => {
            (estimate.simple(8.0 * outputs), all)
        }
        _ => (estimate.simple(outputs), all),
    }
}

fn widest(operands: &[&TensorType], results: &[&TensorType]) -> DType {
    operands.iter().chain(results).map(|ty| ty.dtype()).max_by_key(|dtype| dtype.bits()).unwrap_or(DType::F32)
}

/// The wider element type of two factors: it sets the rate.
fn wider(lhs: &TensorType, rhs: &TensorType) -> DType {
    if lhs.dtype().bits() >= rhs.dtype().bits() { lhs.dtype() } else { rhs.dtype() }
}

fn moves_last(perm: &[usize]) -> bool {
    perm.last().is_some_and(|axis| axis + 1 != perm.len())
}

fn softmax(estimate: &Estimate, count: f64, dtype: DType) -> f64 {
    estimate.simple(3.0 * count) + estimate.scalar(&ScalarExpr::call(Function::Exp), count, dtype)
}

fn contraction_size(estimate: &Estimate, spec: &ContractionSpec, lhs: &TensorType, rhs: &TensorType) -> f64 {
    let extent = |label: &u8| -> f64 {
        let find = |labels: &[u8], shape: &[Dim]| {
            labels.iter().position(|candidate| candidate == label).and_then(|axis| shape.get(axis).cloned())
        };
        find(&spec.lhs, &lhs.shape)
            .or_else(|| find(&spec.rhs, &rhs.shape))
            .map_or(1.0, |dim| estimate.sizes.value(&dim))
    };
    spec.labels().iter().map(extent).product()
}

/// How much slower a contraction runs whose result axes do not come as batch, row, column.
fn contraction_factor(spec: &ContractionSpec) -> f64 {
    let order: Vec<u8> = spec
        .out
        .iter()
        .map(|label| match spec.role(*label) {
            Role::Batch => 0,
            Role::Row => 1,
            _ => 2,
        })
        .collect();
    if order.is_sorted() { 1.0 } else { 1.25 }
}

/// Output channels of a filter.
fn filter_outputs(estimate: &Estimate, w: &TensorType, layout: Layout) -> f64 {
    let axis = match layout {
        Layout::ChannelsFirst => w.shape.first(),
        Layout::ChannelsLast => w.shape.last(),
    };
    axis.map_or(1.0, |dim| estimate.sizes.value(dim))
}

fn layout_factor(estimate: &Estimate, layout: Layout) -> f64 {
    match layout {
        Layout::ChannelsFirst => estimate.machine.channels_first_factor,
        Layout::ChannelsLast => 1.0,
    }
}

/// Seconds of the multiply-adds of a convolution. A group with few channels leaves most of the unit idle.
fn convolution(
    estimate: &Estimate,
    count: f64,
    x: &TensorType,
    w: &TensorType,
    layout: Layout,
    groups: usize,
    accumulator: DType,
) -> f64 {
    let idle = if groups > 1 { 4.0 } else { 1.0 };
    estimate.multiply_adds(count, wider(x, w), accumulator) * idle * layout_factor(estimate, layout)
}
