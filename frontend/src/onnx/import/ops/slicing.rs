//! Parts of tensors and tensors with more around them: Slice, Split, Pad, Tile, CenterCropPad.

use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::refusal::{Refusal, attribute, operands};
use super::super::scope::Binding;
use super::super::sizes::{self, SIZE};
use super::super::table::{Entry, between, since};
use super::layout::{SIGNED, list};
use tcc_ir::dim::{Dim, Range};
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Function, Scalar};
use tcc_ir::words::PadKind;

pub(super) static TABLE: &[Entry] = &[
    since(1, "Slice", slice),
    since(2, "Split", split),
    since(2, "Pad", pad),
    since(6, "Tile", tile),
    since(18, "CenterCropPad", center_crop_pad),
    between(10, i64::MAX, "ReverseSequence", reverse_sequence),
];

/// A bound beyond this is "to the end": exporters write the largest integer of 32 or 64 bits.
const FAR: i64 = i32::MAX as i64;

fn slice(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "data")?;
    let shape = context.shape(x)?;
    let bounds = |context: &Context<'_>, name: &'static str, operand| -> Result<Option<Vec<Dim>>, Refusal> {
        Ok(match node.ints(name)? {
            Some(list) => Some(list.iter().map(|&entry| Dim::Const(entry)).collect()),
            None => context.known(node, operand).and_then(|known| known.dims()),
        })
    };
    let (starts, ends) = (bounds(context, "starts", 1)?, bounds(context, "ends", 2)?);
    let count = match (&starts, node.input(1).and_then(|name| context.shape_of(name)).as_deref()) {
        (Some(starts), _) => starts.len(),
        (None, Some([length])) => super::layout::constant_size(length, "the number of starts")?,
        _ => return Err(operands("starts are missing")),
    };
    if count > shape.len() {
        return Err(operands(format!("{count} starts for rank {}", shape.len())));
    }
    let axes = match list(context, node, "axes", 3)? {
        Some(axes) => sizes::axes(&axes, shape.len())?,
        None => (0..count).collect(),
    };
    let steps = context.integers(node, 4, "steps")?.unwrap_or_else(|| vec![1; count]);
    if axes.len() != count || steps.len() != count || steps.contains(&0) {
        return Err(operands("starts, axes and steps do not fit"));
    }
    let mut part = Part::whole(&shape);
    let symbolic = |(starts, ends): (Vec<Dim>, Vec<Dim>)| {
        if ends.len() != count {
            return None;
        }
        (0..count)
            .map(|index| {
                let extent = &shape[axes[index]];
                span(context, extent, &starts[index], &ends[index], steps[index])
            })
            .collect::<Option<Vec<(Dim, Dim)>>>()
    };
    let spans = match starts.zip(ends).and_then(symbolic) {
        Some(spans) => spans,
        None => {
            let (starts, ends) = (context.operand(node, 1, "starts")?, context.operand(node, 2, "ends")?);
            let extents = axes.iter().map(|&axis| shape[axis].clone()).collect();
            run_time_spans(context, starts, ends, extents, &steps)?
        }
    };
    for ((start, size), (&axis, &step)) in spans.into_iter().zip(axes.iter().zip(&steps)) {
        part.starts[axis] = start;
        part.sizes[axis] = size;
        part.steps[axis] = step;
    }
    one(part.of(context, x)?)
}

/// What to take of a tensor.
struct Part {
    starts: Vec<Dim>,
    sizes: Vec<Dim>,
    steps: Vec<i64>,
}

impl Part {
    fn whole(shape: &[Dim]) -> Part {
        Part { starts: vec![Dim::Const(0); shape.len()], sizes: shape.to_vec(), steps: vec![1; shape.len()] }
    }

    fn of(self, context: &mut Context<'_>, x: Value) -> Result<Value, Refusal> {
        if self.sizes == context.shape(x)? && self.steps.iter().all(|&step| step == 1) {
            return Ok(x);
        }
        let Part { starts, sizes, steps } = self;
        Ok(context.builder.op1(Operator::Slice { starts, sizes, steps }, &[x])?)
    }
}

/// Start and size of a Python-style slice of an extent; `None` where the sign of a bound is not known.
fn span(context: &Context<'_>, extent: &Dim, start: &Dim, end: &Dim, step: i64) -> Option<(Dim, Dim)> {
    // Where a bound lies: counted from the front, or beyond either end.
    enum Bound {
        At(Dim),
        Front,
        Back,
    }
    let resolve = |bound: &Dim| {
        if let Some(value) = bound.as_const() {
            return Some(match value {
                _ if value >= FAR => Bound::Back,
                _ if value <= -FAR => Bound::Front,
                0.. => Bound::At(bound.clone()),
                _ => Bound::At(extent.clone() + bound.clone()),
            });
        }
        let range = context.bounds(bound);
        if range.low >= 0 {
            Some(Bound::At(bound.clone()))
        } else if range.high < 0 {
            Some(Bound::At(extent.clone() + bound.clone()))
        } else {
            None
        }
    };
    let zero = Dim::Const(0);
    let last = extent.clone() - Dim::Const(1);
    let below = Dim::Const(-1);
    let (low, high) = if step > 0 { (&zero, extent) } else { (&below, &last) };
    let place = |bound: Bound| match bound {
        Bound::Front => low.clone(),
        Bound::Back => high.clone(),
        Bound::At(at) => context.smaller(&context.larger(&at, low), high),
    };
    let (start_bound, end_bound) = (resolve(start)?, resolve(end)?);
    // Up to the very end the size has a simpler form than the difference of two clamped bounds.
    let to_the_end = step > 0
        && match &end_bound {
            Bound::Back => true,
            Bound::At(at) => context.bounds(&(at.clone() - extent.clone())).low >= 0,
            Bound::Front => false,
        };
    let raw_start = match &start_bound {
        Bound::At(at) if to_the_end => Some(context.larger(at, &zero)),
        _ => None,
    };
    let start = place(start_bound);
    let length = match raw_start {
        Some(raw) => extent.clone() - raw,
        None if step > 0 => place(end_bound) - start.clone(),
        None => start.clone() - place(end_bound),
    };
    let size = context.larger(&length, &zero).ceil_div(&Dim::Const(step.checked_abs()?));
    Some((start, size))
}

/// Starts and sizes that are computed and bound at run time.
fn run_time_spans(
    context: &mut Context<'_>,
    starts: Value,
    ends: Value,
    extents: Vec<Dim>,
    steps: &[i64],
) -> Result<Vec<(Dim, Dim)>, Refusal> {
    let vector = |context: &mut Context<'_>, values: Vec<i64>| {
        context.size_vector(values.into_iter().map(Dim::Const).collect())
    };
    let forward = |step: &i64| *step > 0;
    let low = vector(context, steps.iter().map(|step| if forward(step) { 0 } else { -1 }).collect())?;
    let high: Vec<Dim> = extents
        .iter()
        .zip(steps)
        .map(|(extent, step)| if forward(step) { extent.clone() } else { extent.clone() - Dim::Const(1) })
        .collect();
    let (extents, high) = (context.size_vector(extents)?, context.size_vector(high)?);
    let mut clamped = Vec::new();
    for bound in [starts, ends] {
        let bound = context.builder.cast(bound, DType::I64)?;
        let negative = context.map_constant(bound, Function::Less, 0.0)?;
        let from_end = context.call(Function::Add, &[bound, extents])?;
        let bound = context.call(Function::Select, &[negative, from_end, bound])?;
        let bound = context.call(Function::Max, &[bound, low])?;
        clamped.push(context.call(Function::Min, &[bound, high])?);
    }
    let signs = vector(context, steps.iter().map(|step| step.signum()).collect())?;
    let strides = vector(context, steps.iter().map(|step| step.saturating_abs()).collect())?;
    let span = context.call(Function::Sub, &[clamped[1], clamped[0]])?;
    let span = context.call(Function::Mul, &[span, signs])?;
    let span = context.map_constant(span, Function::Max, 0.0)?;
    let rounded = context.call(Function::Add, &[span, strides])?;
    let rounded = context.map_constant(rounded, Function::Sub, 1.0)?;
    let counts = context.call(Function::Div, &[rounded, strides])?;
    let starts = context.bind(clamped[0], 1, "start", Range { low: -1, high: i64::MAX })?;
    let sizes = context.bind(counts, 2, "slice", SIZE)?;
    Ok(starts.into_iter().zip(sizes).collect())
}

impl Context<'_> {
    /// The smaller of two sizes, decided where their ranges allow it.
    pub(super) fn smaller(&self, a: &Dim, b: &Dim) -> Dim {
        let difference = self.bounds(&(a.clone() - b.clone()));
        if difference.high <= 0 {
            a.clone()
        } else if difference.low >= 0 {
            b.clone()
        } else {
            a.minimum(b)
        }
    }

    /// The larger of two sizes, decided where their ranges allow it.
    pub(super) fn larger(&self, a: &Dim, b: &Dim) -> Dim {
        let difference = self.bounds(&(a.clone() - b.clone()));
        if difference.low >= 0 {
            a.clone()
        } else if difference.high <= 0 {
            b.clone()
        } else {
            a.maximum(b)
        }
    }

    /// Elements `start .. start + size` of one axis.
    pub(super) fn slice_axis(
        &mut self,
        x: Value,
        axis: usize,
        start: Dim,
        size: Dim,
    ) -> Result<Value, Refusal> {
        let mut part = Part::whole(&self.shape(x)?);
        if axis >= part.sizes.len() {
            return Err(operands(format!("axis {axis} is outside of rank {}", part.sizes.len())));
        }
        part.starts[axis] = start;
        part.sizes[axis] = size;
        part.of(self, x)
    }
}

fn split(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "input")?;
    let shape = context.shape(x)?;
    let axis = sizes::axis(node.int("axis")?.unwrap_or(0), shape.len())?;
    let extent = &shape[axis];
    let count = node.outputs.len();
    let lengths: Vec<Dim> = match node.ints("split")? {
        Some(lengths) => lengths.iter().map(|&length| Dim::Const(length)).collect(),
        None if node.input(1).is_some() => context.sizes(node, 1, "split", SIZE)?,
        None => {
            if node.int("num_outputs")?.is_some_and(|declared| declared != count as i64) {
                return Err(attribute("num_outputs", format!("not the number of outputs, {count}")));
            }
            // Equal parts, the last one smaller where the extent does not divide.
            let parts = Dim::from(count.max(1));
            let chunk = extent.exact_quotient(&parts).unwrap_or_else(|| extent.ceil_div(&parts));
            let mut lengths = vec![chunk.clone(); count.saturating_sub(1)];
            lengths.push(extent.clone() - chunk * Dim::from(count.saturating_sub(1)));
            lengths
        }
    };
    if lengths.len() != count {
        return Err(operands(format!("{} lengths for {count} outputs", lengths.len())));
    }
    let total = lengths.iter().fold(Dim::Const(0), |sum, length| sum + length.clone());
    context.require_equal(total, extent.clone(), "the sum of the parts and the extent")?;
    let mut start = Dim::Const(0);
    let mut results = Vec::with_capacity(count);
    for length in lengths {
        if length.as_const().is_some_and(|length| length < 0) {
            return Err(operands(format!("a part has length {length}")));
        }
        results.push(Binding::Value(context.slice_axis(x, axis, start.clone(), length.clone())?));
        start = start + length;
    }
    Ok(results)
}

fn pad(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "data")?;
    let (rank, dtype) = (context.shape(x)?.len(), context.dtype(x)?);
    let kind = match node.string("mode")?.unwrap_or("constant") {
        "constant" => PadKind::Constant,
        "reflect" => PadKind::Reflect,
        "edge" => PadKind::Edge,
        "wrap" => PadKind::Wrap,
        other => return Err(attribute("mode", format!("'{other}'"))),
    };
    let amounts = match node.ints("pads")? {
        Some(pads) => pads.iter().map(|&amount| Dim::Const(amount)).collect(),
        None => context.sizes(node, 1, "pads", SIGNED)?,
    };
    let axes = match context.integers(node, 3, "axes")? {
        Some(axes) => sizes::axes(&axes, rank)?,
        None => (0..rank).collect(),
    };
    if amounts.len() != 2 * axes.len() {
        return Err(operands(format!("{} pads for {} axes", amounts.len(), axes.len())));
    }
    let (mut low, mut high) = (vec![Dim::Const(0); rank], vec![Dim::Const(0); rank]);
    for (index, &axis) in axes.iter().enumerate() {
        low[axis] = amounts[index].clone();
        high[axis] = amounts[axes.len() + index].clone();
    }
    let fill = if node.id.opset < 11 {
        let value = node.float("value")?.unwrap_or(0.0);
        context.builder.scalar(Scalar::of(dtype, value.into()))?
    } else {
        match context.optional(node, 2)? {
            Some(value) => context.builder.reshape(value, Vec::new())?,
            None => context.builder.scalar(Scalar::of(dtype, 0.0))?,
        }
    };
    if low.iter().chain(&high).all(|amount| amount.is(0)) {
        return one(x);
    }
    if kind != PadKind::Constant {
        for (axis, extent) in context.shape(x)?.iter().enumerate() {
            let padded = extent.clone() + low[axis].clone() + high[axis].clone();
            context.require_filled(extent, &padded)?;
        }
    }
    one(context.builder.op1(Operator::Pad { kind, low, high }, &[x, fill])?)
}

impl Context<'_> {
    /// `repeats[i]` copies one after the other along each axis.
    pub(super) fn tile(&mut self, x: Value, repeats: &[Dim]) -> Result<Value, Refusal> {
        let shape = self.shape(x)?;
        if repeats.len() != shape.len() {
            return Err(operands(format!("{} repeats for {} axes", repeats.len(), shape.len())));
        }
        if repeats.iter().all(|repeat| repeat.is(1)) {
            return Ok(x);
        }
        let interleave = |first: &dyn Fn(usize) -> Dim| -> Vec<Dim> {
            (0..shape.len()).flat_map(|axis| [first(axis), shape[axis].clone()]).collect()
        };
        let spread = self.builder.reshape(x, interleave(&|_| Dim::Const(1)))?;
        let copied = self.builder.broadcast(spread, interleave(&|axis| repeats[axis].clone()))?;
        let joined =
            shape.iter().zip(repeats).map(|(extent, repeat)| extent.clone() * repeat.clone()).collect();
        Ok(self.builder.reshape(copied, joined)?)
    }
}

fn tile(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "input")?;
    let repeats = context.sizes(node, 1, "repeats", SIZE)?;
    one(context.tile(x, &repeats)?)
}

/// Crops or pads each axis around its centre to a target extent.
fn center_crop_pad(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "input_data")?;
    let (shape, dtype) = (context.shape(x)?, context.dtype(x)?);
    let target = context.sizes(node, 1, "shape", SIZE)?;
    let axes = match node.ints("axes")? {
        Some(axes) => sizes::axes(axes, shape.len())?,
        None => (0..shape.len()).collect(),
    };
    if target.len() != axes.len() {
        return Err(operands(format!("{} extents for {} axes", target.len(), axes.len())));
    }
    let (mut low, mut high) = (vec![Dim::Const(0); shape.len()], vec![Dim::Const(0); shape.len()]);
    let (zero, two) = (Dim::Const(0), Dim::Const(2));
    for (want, &axis) in target.iter().zip(&axes) {
        let grown = want.clone() - shape[axis].clone();
        let padded = context.larger(&grown, &zero).floor_div(&two);
        let cropped = context.larger(&-grown.clone(), &zero).floor_div(&two);
        low[axis] = padded - cropped;
        high[axis] = grown - low[axis].clone();
    }
    let fill = context.builder.scalar(Scalar::of(dtype, 0.0))?;
    one(context.builder.op1(Operator::Pad { kind: PadKind::Constant, low, high }, &[x, fill])?)
}

/// Reverses the first `sequence_lens[b]` steps of each batch entry.
fn reverse_sequence(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "input")?;
    let lengths = context.operand(node, 1, "sequence_lens")?;
    let shape = context.shape(x)?;
    let time = sizes::axis(node.int("time_axis")?.unwrap_or(0), shape.len())?;
    let batch = sizes::axis(node.int("batch_axis")?.unwrap_or(1), shape.len())?;
    let mut extents = vec![Dim::Const(1); shape.len()];
    extents[batch] = shape[batch].clone();
    let lengths = context.builder.cast(lengths, DType::I64)?;
    let lengths = context.builder.reshape(lengths, extents)?;
    let mut extents = vec![Dim::Const(1); shape.len()];
    extents[time] = shape[time].clone();
    let step = context.builder.op1(Operator::Iota { dtype: DType::I64, shape: extents, axis: time }, &[])?;
    let inside = context.call(Function::Less, &[step, lengths])?;
    let mirrored = context.call(Function::Sub, &[lengths, step])?;
    let mirrored = context.map_constant(mirrored, Function::Sub, 1.0)?;
    let source = context.call(Function::Select, &[inside, mirrored, step])?;
    let source = context.builder.broadcast(source, shape)?;
    one(context.builder.op1(Operator::GatherElements { axis: time }, &[x, source])?)
}
