//! One operation on known operands.

use std::cell::RefCell;

use tcc_ir::attribute::Real;
use tcc_ir::block_format::BlockOperands;
use tcc_ir::data::Data;
use tcc_ir::dim::{Dim, Symbol};
use tcc_ir::infer::infer;
use tcc_ir::operator::Operator;
use tcc_ir::types::Type;

use crate::attention::Attention;
use crate::cache::Attend;
use crate::context::{Context, DEFAULT_LIMIT};
use crate::convolve::Convolution;
use crate::error::{Error, Result};
use crate::quantize::Groups;
use crate::random::Stream;
use crate::recurrent::Recurrent;
use crate::resize::Resize;
use crate::tensor::Tensor;
use crate::window::Windows;
use crate::{
    attention, block_contract, block_format, cache, contract, convolve, elementwise, gather, grid_sample,
    movement, normalize, quantize, random, recurrent, reduce, resize, sort, window,
};

/// The results of one operation on constant operands; `dims` gives the values of symbols among its attributes.
///
/// Operators with regions, calls, host functions and those with effects are [`Error::NotEvaluable`].
pub fn evaluate(
    operator: &Operator,
    operands: &[Data],
    dims: &dyn Fn(&Symbol) -> Option<i64>,
) -> Result<Vec<Data>> {
    let tensors: Vec<Tensor> = operands.iter().map(Tensor::from).collect();
    let context = Context { value_of: dims, limit: DEFAULT_LIMIT, epoch: 0 };
    if !operator.describe().pure_function {
        return Err(Error::NotEvaluable(operator.name()));
    }
    let results = apply(operator, &tensors.iter().collect::<Vec<_>>(), &context)?;
    results.iter().map(Tensor::to_data).collect()
}

/// Replaces the symbolic dimensions of an operator by their values.
fn concrete(operator: &Operator, context: &Context) -> Result<Operator> {
    let failure = RefCell::new(None);
    let mut operator = operator.clone();
    operator.map_dims(&|dim| match context.dim(dim) {
        Ok(value) => Dim::Const(value),
        Err(error) => {
            failure.borrow_mut().get_or_insert(error);
            Dim::Const(0)
        }
    });
    match failure.into_inner() {
        Some(error) => Err(error),
        None => Ok(operator),
    }
}

/// Constant dimensions as integers.
fn integers(dims: &[Dim]) -> Result<Vec<i64>> {
    let constant =
        |dim: &Dim| dim.as_const().ok_or_else(|| Error::Malformed(format!("dimension '{dim}' has no value")));
    dims.iter().map(constant).collect()
}

fn reals(values: &[Real]) -> Vec<f64> {
    values.iter().map(|value| value.get()).collect()
}

/// The results of one operation that has no regions and no effects but randomness.
///
/// Inference runs first, on the concrete types, so the functions below may rely on what it checks: operand counts, ranks,
/// axes and extents that fit.
pub(crate) fn apply(operator: &Operator, operands: &[&Tensor], context: &Context) -> Result<Vec<Tensor>> {
    use Operator as O;
    let operator = concrete(operator, context)?;
    let not_evaluable = Err(Error::NotEvaluable(operator.name()));
    if matches!(
        operator,
        O::If {} | O::Loop { .. } | O::Call { .. } | O::Host { .. } | O::Bind { .. } | O::KvState { .. }
    ) {
        return not_evaluable;
    }
    let types: Vec<Type> = operands.iter().map(|operand| operand.ty()).collect();
    let inferred = infer(&operator, &types.iter().collect::<Vec<_>>())?;
    let mut shapes = Vec::new();
    for ty in &inferred.results {
        let tensor = ty.as_tensor().ok_or_else(|| Error::Malformed(format!("{ty} is no tensor")))?;
        shapes.push(context.shape(&tensor.shape)?);
    }
    // What every operator below has at least one of.
    let (x, shape) = (operands.first().copied(), shapes.first().map_or(&[][..], |shape| &shape[..]));
    let x = || x.ok_or_else(|| Error::Malformed("an operand is missing".into()));
    let one = |tensor: Result<Tensor>| Ok(vec![tensor?]);
    match &operator {
        O::Constant { data } => Ok(vec![Tensor::from(data)]),
        O::Iota { dtype, axis, .. } => one(movement::iota(*dtype, shape, *axis)),
        O::Dims { dims } => one(gather::dims(&integers(dims)?)),
        O::Map { body } => one(elementwise::map(body, operands, shape)),
        O::Reduce { kind, axes, prologue, epilogue, .. } => {
            one(reduce::reduce(*kind, axes, prologue, epilogue, operands, shape))
        }
        O::ArgReduce { kind, axis, last, .. } => one(reduce::arg_reduce(*kind, x()?, *axis, *last, shape)),
        O::Scan { kind, axis, exclusive, reverse } => {
            one(reduce::scan(*kind, x()?, *axis, *exclusive, *reverse))
        }
        O::Contract { spec, accumulator, epilogue } => {
            one(contract::contract(spec, *accumulator, epilogue, operands, shape))
        }
        O::Convolve { layout, groups, strides, dilations, pads, accumulator, epilogue } => {
            let attributes = Convolution {
                layout: *layout,
                groups: *groups,
                strides,
                dilations,
                pads,
                accumulator: *accumulator,
                epilogue,
                transposed: false,
            };
            one(convolve::convolve(&attributes, operands, shape))
        }
        O::ConvolveTranspose { layout, groups, strides, dilations, pads, accumulator, epilogue, .. } => {
            let attributes = Convolution {
                layout: *layout,
                groups: *groups,
                strides,
                dilations,
                pads,
                accumulator: *accumulator,
                epilogue,
                transposed: true,
            };
            one(convolve::convolve(&attributes, operands, shape))
        }
        O::Window { kind, layout, size, strides, dilations, pads, .. } => {
            let windows = Windows { size, strides, dilations, pads, limit: context.limit };
            one(window::window(*kind, *layout, &windows, x()?, shape))
        }
        O::WindowArgMax { size, strides, dilations, pads, row_major, .. } => {
            let windows = Windows { size, strides, dilations, pads, limit: context.limit };
            window::window_arg_max(&windows, *row_major, x()?, shape)
        }
        O::Softmax { axis, log } => one(normalize::softmax(x()?, *axis, *log)),
        O::Normalize { axes, epsilon, centered, epilogue } => {
            one(normalize::normalize(axes, epsilon.get(), *centered, epilogue, operands))
        }
        O::Reshape { .. } => one(x()?.reshaped(shape)),
        O::Transpose { perm } => one(movement::transpose(x()?, perm)),
        O::Broadcast { .. } => one(movement::broadcast(x()?, shape)),
        O::Slice { starts, steps, .. } => one(movement::slice(x()?, &integers(starts)?, shape, steps)),
        O::Concat { axis } => one(movement::concat(operands, *axis, shape)),
        O::Pad { kind, low, .. } => one(movement::pad(x()?, operands[1], *kind, &integers(low)?, shape)),
        O::Gather { axis } => one(gather::gather(x()?, operands[1], *axis, shape)),
        O::GatherElements { axis } => one(gather::gather_elements(x()?, operands[1], *axis)),
        O::GatherNd { batch_dims } => one(gather::gather_nd(x()?, operands[1], *batch_dims, shape)),
        O::ScatterElements { axis, kind } => {
            one(gather::scatter_elements(x()?, operands[1], operands[2], *axis, *kind))
        }
        O::ScatterNd { kind } => one(gather::scatter_nd(x()?, operands[1], operands[2], *kind)),
        O::Attention { scale, softcap, causal, window } => {
            let attributes =
                Attention { scale: scale.get(), softcap: softcap.get(), causal: *causal, window: *window };
            one(attention::attention(&attributes, operands, shape))
        }
        O::Rope { interleaved } => one(attention::rope(x()?, operands[1], operands[2], *interleaved)),
        O::KvAppend { storage } => one(cache::append(x()?, operands[1], operands[2], storage.format)),
        O::KvAttend { scale, softcap, window, sinks, page, .. } => {
            let attributes = Attend {
                scale: scale.get(),
                softcap: softcap.get(),
                window: *window,
                sinks: *sinks,
                page: *page,
            };
            one(cache::attend(&attributes, operands, shape))
        }
        O::Recurrent {
            cell,
            direction,
            activations,
            alphas,
            betas,
            clip,
            linear_before_reset,
            input_forget,
        } => {
            let attributes = Recurrent {
                cell: *cell,
                direction: *direction,
                activations,
                alphas: reals(alphas),
                betas: reals(betas),
                clip: clip.get(),
                linear_before_reset: *linear_before_reset,
                input_forget: *input_forget,
            };
            recurrent::recurrent(&attributes, operands, &shapes)
        }
        O::Resize {
            kind,
            coordinates,
            nearest,
            scales,
            cubic,
            exclude_outside,
            outside,
            region,
            antialias,
            ..
        } => {
            let attributes = Resize {
                kind: *kind,
                coordinates: *coordinates,
                nearest: *nearest,
                scales: reals(scales),
                cubic: cubic.get(),
                exclude_outside: *exclude_outside,
                outside: outside.get(),
                region: reals(region),
                antialias: *antialias,
            };
            one(resize::resize(&attributes, x()?, shape))
        }
        O::GridSample { kind, outside, align_corners } => {
            one(grid_sample::grid_sample(*kind, *outside, *align_corners, x()?, operands[1], shape))
        }
        O::TopK { axis, largest, .. } => sort::top_k(x()?, *axis, shape[*axis], *largest, shape),
        O::Quantize { dtype, axis, block, saturate } => {
            let groups = Groups { axis: *axis, block: *block };
            one(quantize::quantize(x()?, operands[1], operands[2], groups, *dtype, *saturate))
        }
        O::Dequantize { dtype, axis, block } => {
            let groups = Groups { axis: *axis, block: *block };
            one(quantize::dequantize(x()?, operands[1], operands[2], groups, *dtype))
        }
        O::DecodeBlocks { format, dtype } => one(block_format::decode(x()?, *format, *dtype, shape)),
        O::QuantizeRows { group, sum, rows } => {
            block_contract::quantize_rows(x()?, *group, *sum, *rows, &shapes)
        }
        O::BlockContract { weights, rows, experts, epilogue } => {
            let places = BlockOperands::of(*weights, *rows, *experts);
            one(block_contract::block_contract(*weights, &places, epilogue, operands, shape))
        }
        O::Random { kind, dtype, a, b, seed, .. } => {
            let epoch = if *seed == 0 { context.epoch } else { 0 };
            let stream = Stream { seed: *seed as u64, epoch };
            one(random::random(*kind, *dtype, shape, a.get(), b.get(), stream))
        }
        // The interpreter runs these itself: they need regions, other functions or values that are no tensors.
        O::If {} | O::Loop { .. } | O::Call { .. } | O::Host { .. } | O::Bind { .. } | O::KvState { .. } => {
            not_evaluable
        }
    }
}
