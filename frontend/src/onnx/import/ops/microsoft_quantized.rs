//! Quantized operators that ONNX Runtime writes into models, domain `com.microsoft`.
//!
//! Elementwise ones and pools are computed on dequantized numbers and quantized again, which is how they are defined.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::refusal::{Refusal, attribute, operands, unsupported};
use super::super::sizes;
use super::super::table::{Entry, custom};
use super::microsoft::DOMAIN;
use tcc_ir::contraction::ContractionSpec;
use tcc_ir::data::Data;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Function, Scalar};

pub(super) static TABLE: &[Entry] = &[
    custom(DOMAIN, "QLinearAdd", |context, node| binary(context, node, Function::Add)),
    custom(DOMAIN, "QLinearMul", |context, node| binary(context, node, Function::Mul)),
    custom(DOMAIN, "QLinearSigmoid", |context, node| {
        unary(context, node, |context, x| context.call(Function::Sigmoid, &[x]))
    }),
    custom(DOMAIN, "QLinearLeakyRelu", leaky_relu),
    custom(DOMAIN, "QLinearGlobalAveragePool", global_average_pool),
    custom(DOMAIN, "QLinearConcat", concat),
    custom(DOMAIN, "DynamicQuantizeMatMul", dynamic_matmul),
    custom(DOMAIN, "MatMulIntegerToFloat", integer_matmul_to_float),
    custom(DOMAIN, "MatMulNBits", narrow_matmul),
];

/// Two quantized operands, each with scale and zero point, then the result's.
fn binary(context: &mut Context<'_>, node: &Node, function: Function) -> Lowered {
    let mut numbers = Vec::new();
    for first in [0, 3] {
        let (x, scale) =
            (context.operand(node, first, "operand")?, context.operand(node, first + 1, "scale")?);
        let zero = context.optional(node, first + 2)?;
        numbers.push(context.dequantized(x, scale, zero)?);
    }
    let y = context.call(function, &numbers)?;
    requantized(context, node, y, 6)
}

/// Quantizes a result with the scale at operand `at` and the zero point behind it.
fn requantized(context: &mut Context<'_>, node: &Node, y: Value, at: usize) -> Lowered {
    let x = context.operand(node, 0, "X")?;
    let scale = context.operand(node, at, "scale")?;
    let zero = context.optional(node, at + 1)?;
    let zero = context.zero_point(zero, x)?;
    one(context.quantized(y, scale, zero)?)
}

fn unary(
    context: &mut Context<'_>,
    node: &Node,
    f: impl FnOnce(&mut Context<'_>, Value) -> Result<Value, Refusal>,
) -> Lowered {
    let (x, scale) = (context.operand(node, 0, "X")?, context.operand(node, 1, "scale")?);
    let zero = context.optional(node, 2)?;
    let x = context.dequantized(x, scale, zero)?;
    let y = f(context, x)?;
    requantized(context, node, y, 3)
}

fn leaky_relu(context: &mut Context<'_>, node: &Node) -> Lowered {
    let alpha = node.float("alpha")?.map_or(0.01, f64::from);
    unary(context, node, |context, x| {
        context.map1(x, |body, x| {
            let scaled = body.with(Function::Mul, x, alpha);
            let negative = body.with(Function::Less, x, 0.0);
            body.select(negative, scaled, x)
        })
    })
}

fn global_average_pool(context: &mut Context<'_>, node: &Node) -> Lowered {
    let channels_last = node.flag("channels_last", false)?;
    unary(context, node, |context, x| {
        let rank = context.shape(x)?.len();
        if rank < 3 {
            return Err(operands(format!("the input has rank {rank}, expected at least 3")));
        }
        let axes = if channels_last { (1..rank - 1).collect() } else { (2..rank).collect() };
        context.mean(x, axes, true)
    })
}

/// The result's scale and zero point come first, then each operand with its own.
fn concat(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (y_scale, y_zero) = (context.operand(node, 0, "Y_scale")?, context.operand(node, 1, "Y_zero_point")?);
    let mut parts = Vec::new();
    for first in (2..node.inputs.len()).step_by(3) {
        let (x, scale) =
            (context.operand(node, first, "operand")?, context.operand(node, first + 1, "scale")?);
        let zero = context.optional(node, first + 2)?;
        parts.push(context.dequantized(x, scale, zero)?);
    }
    let Some(&first) = parts.first() else { return Err(operands("at least one operand is needed")) };
    let axis = node.int("axis")?.ok_or_else(|| attribute("axis", "missing"))?;
    let axis = sizes::axis(axis, context.shape(first)?.len())?;
    let joined = context.builder.op1(Operator::Concat { axis }, &parts)?;
    one(context.quantized(joined, y_scale, y_zero)?)
}

/// The matrix `A` is quantized as it comes, the product is scaled back.
fn dynamic_matmul(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (a, b) = (context.operand(node, 0, "A")?, context.operand(node, 1, "B")?);
    let b_scale = context.operand(node, 2, "b_scale")?;
    let (rank, dtype) = (context.shape(a)?.len(), context.dtype(a)?);
    let (a, a_scale, a_zero) = context.dynamic_quantize(a, rank, dtype)?;
    let zeros = [Some(a_zero), context.optional(node, 3)?];
    let bias = context.optional(node, 4)?;
    one(context.scaled_integer_product([a, b], zeros, [a_scale, b_scale], bias)?)
}

fn integer_matmul_to_float(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (a, b) = (context.operand(node, 0, "A")?, context.operand(node, 1, "B")?);
    let scales = [context.operand(node, 2, "a_scale")?, context.operand(node, 3, "b_scale")?];
    let zeros = [context.optional(node, 4)?, context.optional(node, 5)?];
    let bias = context.optional(node, 6)?;
    one(context.scaled_integer_product([a, b], zeros, scales, bias)?)
}

/// `A x dequantize(B)^T` where `B` is packed: `[N, blocks, bytes of a block]`, the first element of a byte in the low
/// bits, with a scale and a zero point for each block along K.
fn narrow_matmul(context: &mut Context<'_>, node: &Node) -> Lowered {
    let size = |name: &str, default: Option<i64>| -> Result<usize, Refusal> {
        let value = node.int(name)?.or(default).and_then(|value| usize::try_from(value).ok());
        value.filter(|&value| value > 0).ok_or_else(|| attribute(name, "missing or not positive"))
    };
    let (depth, columns) = (size("K", None)?, size("N", None)?);
    let (bits, block) = (size("bits", Some(4))?, size("block_size", None)?);
    let dtype = match bits {
        2 => DType::U2,
        4 => DType::U4,
        8 => DType::U8,
        _ => return Err(attribute("bits", format!("{bits}, expected 2, 4 or 8"))),
    };
    if node.input(4).is_some() {
        return Err(unsupported("reordered groups (g_idx)"));
    }
    let blocks = depth.div_ceil(block);
    let packed = |context: &mut Context<'_>, index: usize, name, rows: usize, length: usize| {
        let data = context.data(node, index).ok_or(Refusal::RunTime { operand: index, name })?;
        Ok::<Value, Refusal>(context.builder.constant(Data::new(
            dtype,
            &[rows, length],
            data.bytes().clone(),
        )?)?)
    };
    let padded = blocks.checked_mul(block).ok_or_else(|| attribute("block_size", format!("{block}")))?;
    let weights = packed(context, 1, "B", columns, padded)?;
    let scale = context.operand(node, 2, "scales")?;
    let groups = vec![Dim::from(columns), Dim::from(blocks)];
    let scale = context.builder.reshape(scale, groups.clone())?;
    let zero = match node.input(3) {
        None => {
            let middle = context.builder.scalar(Scalar::of(dtype, f64::from(1u32 << (bits - 1))))?;
            context.builder.broadcast(middle, groups)?
        }
        Some(_) => {
            // Rows of packed zero points are filled up to whole bytes.
            let per_byte = 8 / bits;
            let zero = packed(context, 3, "zero_points", columns, blocks.div_ceil(per_byte) * per_byte)?;
            context.slice_axis(zero, 1, Dim::Const(0), Dim::from(blocks))?
        }
    };
    let a = context.operand(node, 0, "A")?;
    let a_type = context.dtype(a)?;
    let dequantize = Operator::Dequantize { dtype: a_type, axis: 1, block };
    let weights = context.builder.op1(dequantize, &[weights, scale, zero])?;
    let weights = context.slice_axis(weights, 1, Dim::Const(0), Dim::from(depth))?;
    let rank = context.shape(a)?.len();
    let letters: Vec<u8> = (b'a'..b'k').take(rank.saturating_sub(1)).collect();
    if rank == 0 || letters.len() + 1 != rank {
        return Err(operands(format!("A has rank {rank}")));
    }
    let with = |last: u8| letters.iter().copied().chain([last]).collect::<Vec<u8>>();
    let spec = ContractionSpec { lhs: with(b'k'), rhs: b"nk".to_vec(), out: with(b'n') };
    let mut y = context.builder.contract(spec, a, weights)?;
    if let Some(bias) = context.optional(node, 5)? {
        y = context.call(Function::Add, &[y, bias])?;
    }
    one(y)
}
