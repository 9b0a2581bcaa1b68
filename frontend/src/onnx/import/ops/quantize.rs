//! Quantization: QuantizeLinear and DequantizeLinear, and the integer products.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::dtype_of_number;
use super::super::refusal::{Refusal, attribute, operands};
use super::super::scope::Binding;
use super::super::sizes;
use super::super::table::{Entry, custom, since};
use super::convolution::{WindowAttributes, groups, kernel_of};
use super::matmul::converted;
use super::scalar::Body;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Arg, Function, Scalar, ScalarExpr};
use tcc_ir::words::{Layout, ReduceKind};

pub(super) static TABLE: &[Entry] = &[
    since(10, "QuantizeLinear", quantize),
    since(10, "DequantizeLinear", dequantize),
    custom("com.microsoft", "QuantizeLinear", quantize),
    custom("com.microsoft", "DequantizeLinear", dequantize),
    since(11, "DynamicQuantizeLinear", dynamic_quantize),
    since(10, "MatMulInteger", matmul_integer),
    since(10, "QLinearMatMul", qlinear_matmul),
    since(10, "ConvInteger", conv_integer),
    since(10, "QLinearConv", qlinear_conv),
];

/// Where the scales of a node lie: the axis, and the size of the blocks along it (0: none).
fn granularity(node: &Node, rank: usize, scale: &[Dim]) -> Result<(usize, usize), Refusal> {
    if scale.iter().all(|dim| dim.is(1)) && scale.len() < 2 {
        return Ok((0, 0));
    }
    let default = if node.id.domain.is_empty() { 1 } else { 0 };
    let axis = sizes::axis(node.int("axis")?.unwrap_or(default), rank)?;
    let block = node.int("block_size")?.unwrap_or(0);
    let block = usize::try_from(block).map_err(|_| attribute("block_size", format!("{block}")))?;
    Ok((axis, block))
}

/// A zero point in the shape of the scales; a single one belongs to all of them.
fn like_scale(context: &mut Context<'_>, zero: Value, scale: &[Dim]) -> Result<Value, Refusal> {
    let shape = context.shape(zero)?;
    if shape == scale || !shape.iter().all(|dim| dim.is(1)) {
        return Ok(zero);
    }
    let scalar = context.builder.reshape(zero, Vec::new())?;
    Ok(context.builder.broadcast(scalar, scale.to_vec())?)
}

fn quantize(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "x")?;
    let scale = context.operand(node, 1, "y_scale")?;
    let (rank, scales) = (context.shape(x)?.len(), context.shape(scale)?);
    let (axis, block) = granularity(node, rank, &scales)?;
    let declared = match node.int("output_dtype")? {
        None | Some(0) => None,
        Some(number) => Some(dtype_of_number("output_dtype", number)?),
    };
    let zero = match context.optional(node, 2)? {
        Some(zero) => zero,
        None => context.builder.scalar(Scalar::of(declared.unwrap_or(DType::U8), 0.0))?,
    };
    let zero = like_scale(context, zero, &scales)?;
    let dtype = context.dtype(zero)?;
    if declared.is_some_and(|declared| declared != dtype) {
        return Err(attribute("output_dtype", format!("not the zero point's type {dtype}")));
    }
    // Integers are quantized as the numbers they are.
    let scale_type = context.dtype(scale)?;
    let x = if context.dtype(x)?.is_float() { x } else { context.builder.cast(x, scale_type)? };
    let saturate = node.flag("saturate", true)?;
    one(context.builder.op1(Operator::Quantize { dtype, axis, block, saturate }, &[x, scale, zero])?)
}

fn dequantize(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "x")?;
    let scale = context.operand(node, 1, "x_scale")?;
    let (rank, scales) = (context.shape(x)?.len(), context.shape(scale)?);
    let (axis, block) = granularity(node, rank, &scales)?;
    let zero = match context.optional(node, 2)? {
        Some(zero) => zero,
        None => {
            let stored = context.dtype(x)?;
            context.builder.scalar(Scalar::of(stored, 0.0))?
        }
    };
    let zero = like_scale(context, zero, &scales)?;
    let dtype = match node.int("output_dtype")? {
        None | Some(0) => context.dtype(scale)?,
        Some(number) => dtype_of_number("output_dtype", number)?,
    };
    one(context.builder.op1(Operator::Dequantize { dtype, axis, block }, &[x, scale, zero])?)
}

/// Scale and zero point from the range of the data, extended to hold zero; a constant zero tensor gets scale 1.
fn dynamic_quantize(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "x")?;
    let (rank, dtype) = (context.shape(x)?.len(), context.dtype(x)?);
    let (y, scale, zero) = context.dynamic_quantize(x, rank, dtype)?;
    Ok([y, scale, zero].map(Binding::Value).to_vec())
}

impl Context<'_> {
    pub(super) fn dynamic_quantize(
        &mut self,
        x: Value,
        rank: usize,
        dtype: DType,
    ) -> Result<(Value, Value, Value), Refusal> {
        let extreme = |context: &mut Self, kind, function| -> Result<Value, Refusal> {
            let value = context.builder.reduce(kind, x, (0..rank).collect(), false)?;
            context.map_constant(value, function, 0.0)
        };
        let low = extreme(self, ReduceKind::Min, Function::Min)?;
        let high = extreme(self, ReduceKind::Max, Function::Max)?;
        let mut body = Body::new(2, dtype);
        let (least, most) = (body.operand(0), body.operand(1));
        let span = body.call(Function::Sub, &[most, least]);
        let step = body.with(Function::Div, span, 255.0);
        let (nothing, unit) = (body.constant(0.0), body.constant(1.0));
        let flat = body.call(Function::Equal, &[step, nothing]);
        let step = body.select(flat, unit, step);
        let scale = self.builder.map(body.finish(step), &[low, high])?;
        let mut body = Body::new(2, dtype);
        let (least, step) = (body.operand(0), body.operand(1));
        let start = body.call(Function::Neg, &[least]);
        let start = body.call(Function::Div, &[start, step]);
        let start = body.with(Function::Max, start, 0.0);
        let start = body.with(Function::Min, start, 255.0);
        let start = body.call(Function::Round, &[start]);
        let start = body.cast(start, DType::U8);
        let zero = self.builder.map(body.finish_as_is(start), &[low, scale])?;
        let operator = Operator::Quantize { dtype: DType::U8, axis: 0, block: 0, saturate: true };
        let y = self.builder.op1(operator, &[x, scale, zero])?;
        Ok((y, scale, zero))
    }

    /// A zero point or scale of a matrix: a scalar stays, a vector belongs to rows (`row`) or columns.
    fn along(&mut self, value: Value, row: bool) -> Result<Value, Refusal> {
        let shape = self.shape(value)?;
        match &shape[..] {
            [count] if count.is(1) => Ok(self.builder.reshape(value, Vec::new())?),
            [count] if row => {
                let column = vec![count.clone(), Dim::Const(1)];
                Ok(self.builder.reshape(value, column)?)
            }
            _ => Ok(value),
        }
    }

    /// The `i32` product of two integer matrices less their zero points.
    fn integer_product(
        &mut self,
        a: Value,
        a_zero: Option<Value>,
        b: Value,
        b_zero: Option<Value>,
    ) -> Result<Value, Refusal> {
        let a_zero = a_zero.map(|zero| self.along(zero, true)).transpose()?;
        let b_zero = b_zero.map(|zero| self.along(zero, false)).transpose()?;
        let a = converted(self, a, a_zero, DType::I32)?;
        let b = converted(self, b, b_zero, DType::I32)?;
        self.matmul(a, b)
    }

    /// The integer product scaled back to numbers, with a bias.
    pub(super) fn scaled_integer_product(
        &mut self,
        [a, b]: [Value; 2],
        [a_zero, b_zero]: [Option<Value>; 2],
        [a_scale, b_scale]: [Value; 2],
        bias: Option<Value>,
    ) -> Result<Value, Refusal> {
        let sum = self.integer_product(a, a_zero, b, b_zero)?;
        let dtype = self.dtype(a_scale)?;
        let (a_scale, b_scale) = (self.along(a_scale, true)?, self.along(b_scale, false)?);
        let real = self.builder.cast(sum, dtype)?;
        let scale = self.call(Function::Mul, &[a_scale, b_scale])?;
        let scaled = self.call(Function::Mul, &[real, scale])?;
        match bias {
            Some(bias) => self.call(Function::Add, &[scaled, bias]),
            None => Ok(scaled),
        }
    }

    /// The `i32` convolution of integer tensors less their zero points.
    fn integer_convolution(
        &mut self,
        node: &Node,
        [x, w]: [Value; 2],
        [x_zero, w_zero]: [Option<Value>; 2],
        bias: Option<Value>,
    ) -> Result<Value, Refusal> {
        let kernel = kernel_of(self, node, w)?;
        let shape = self.shape(x)?;
        let rank = shape.len();
        if rank != kernel.len() + 2 {
            return Err(operands(format!("the input has rank {rank}, the filter {}", kernel.len() + 2)));
        }
        let x_zero = x_zero.map(|zero| self.along(zero, false)).transpose()?;
        let w_zero = w_zero.map(|zero| self.per_filter(zero, rank)).transpose()?;
        let x = converted(self, x, x_zero, DType::I32)?;
        let w = converted(self, w, w_zero, DType::I32)?;
        let window = WindowAttributes::of(node, kernel)?;
        let padding = window.padding(node, &shape[2..])?;
        let (x, pads) = self.padded(x, padding, 0.0)?;
        let mut values = vec![x, w];
        let mut epilogue = ScalarExpr::identity();
        if let Some(bias) = bias {
            values.push(self.per_channel(bias, rank)?);
            epilogue = ScalarExpr::with_inputs(2);
            epilogue.result = epilogue.apply(Function::Add, &[Arg::Input(0), Arg::Input(1)]);
        }
        let operator = Operator::Convolve {
            layout: Layout::ChannelsFirst,
            groups: groups(node)?,
            strides: window.strides,
            dilations: window.dilations,
            pads,
            accumulator: DType::I32,
            epilogue,
        };
        Ok(self.builder.op1(operator, &values)?)
    }

    /// A scalar, or a vector along the first axis of a filter of this rank.
    fn per_filter(&mut self, value: Value, rank: usize) -> Result<Value, Refusal> {
        let shape = self.shape(value)?;
        match &shape[..] {
            [] => Ok(value),
            [count] if count.is(1) => Ok(self.builder.reshape(value, Vec::new())?),
            [count] => {
                let shape =
                    std::iter::once(count.clone()).chain(std::iter::repeat_n(Dim::Const(1), rank - 1));
                Ok(self.builder.reshape(value, shape.collect())?)
            }
            _ => Err(operands("a scale or zero point of a filter is no vector")),
        }
    }

    /// `quantize(sum * (a_scale * b_scale))` with scales that broadcast against the sum.
    fn requantize(
        &mut self,
        sum: Value,
        [a_scale, b_scale]: [Value; 2],
        y_scale: Value,
        y_zero: Value,
    ) -> Result<Value, Refusal> {
        let scale_type = self.dtype(a_scale)?;
        let real = self.builder.cast(sum, scale_type)?;
        let scale = self.call(Function::Mul, &[a_scale, b_scale])?;
        let real = self.call(Function::Mul, &[real, scale])?;
        let dtype = self.dtype(y_zero)?;
        let (y_scale, y_zero) = (self.along(y_scale, false)?, self.along(y_zero, false)?);
        let operator = Operator::Quantize { dtype, axis: 0, block: 0, saturate: true };
        Ok(self.builder.op1(operator, &[real, y_scale, y_zero])?)
    }
}

fn matmul_integer(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (a, b) = (context.operand(node, 0, "A")?, context.operand(node, 1, "B")?);
    let (a_zero, b_zero) = (context.optional(node, 2)?, context.optional(node, 3)?);
    one(context.integer_product(a, a_zero, b, b_zero)?)
}

fn qlinear_matmul(context: &mut Context<'_>, node: &Node) -> Lowered {
    let values = context.operands(node)?;
    let [a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero] = values[..] else {
        return Err(operands(format!("{} operands, expected 8", values.len())));
    };
    let sum = context.integer_product(a, Some(a_zero), b, Some(b_zero))?;
    let scales = [context.along(a_scale, true)?, context.along(b_scale, false)?];
    one(context.requantize(sum, scales, y_scale, y_zero)?)
}

fn conv_integer(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (x, w) = (context.operand(node, 0, "x")?, context.operand(node, 1, "w")?);
    let zeros = [context.optional(node, 2)?, context.optional(node, 3)?];
    one(context.integer_convolution(node, [x, w], zeros, None)?)
}

fn qlinear_conv(context: &mut Context<'_>, node: &Node) -> Lowered {
    let mut values = Vec::new();
    for index in 0..8 {
        values.push(context.operand(node, index, "operand")?);
    }
    let [x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero] = values[..] else {
        return Err(operands("8 operands are needed"));
    };
    let bias = context.optional(node, 8)?;
    let rank = context.shape(x)?.len();
    let sum = context.integer_convolution(node, [x, w], [Some(x_zero), Some(w_zero)], bias)?;
    let x_scale = context.along(x_scale, false)?;
    let scales = context.shape(w_scale)?;
    let w_scale = match &scales[..] {
        [count] if !count.is(1) => context.per_channel(w_scale, rank)?,
        _ => context.along(w_scale, false)?,
    };
    one(context.requantize(sum, [x_scale, w_scale], y_scale, y_zero)?)
}
