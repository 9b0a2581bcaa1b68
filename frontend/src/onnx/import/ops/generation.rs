//! Tensors that come from attributes and sizes: constants, fills, ranges, masks by position, random numbers.

use super::super::super::graph::{Attribute, Node};
use super::super::context::{Context, Lowered, one, to_data};
use super::super::dtype_of_number;
use super::super::known::Known;
use super::super::refusal::{Refusal, attribute, operands, unsupported};
use super::super::scope::Binding;
use super::super::sizes::SIZE;
use super::super::table::{Entry, between, since};
use super::scalar::Body;
use tcc_ir::attribute::Real;
use tcc_ir::convert::push_scalar;
use tcc_ir::data::Data;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Function, Scalar};
use tcc_ir::words::RandomKind;

pub(super) static TABLE: &[Entry] = &[
    since(1, "Constant", constant),
    since(9, "ConstantOfShape", constant_of_shape),
    since(11, "Range", range),
    since(9, "EyeLike", eye_like),
    since(14, "Trilu", trilu),
    since(1, "RandomUniform", |context, node| random(context, node, RandomKind::Uniform, false)),
    since(1, "RandomNormal", |context, node| random(context, node, RandomKind::Normal, false)),
    since(1, "RandomUniformLike", |context, node| random(context, node, RandomKind::Uniform, true)),
    since(1, "RandomNormalLike", |context, node| random(context, node, RandomKind::Normal, true)),
    since(15, "Bernoulli", bernoulli),
    between(1, 6, "Dropout", old_dropout),
    since(7, "Dropout", dropout),
    since(17, "MelWeightMatrix", mel_weights),
    since(17, "HannWindow", |context, node| cosine_window(context, node, &[0.5, -0.5])),
    since(17, "HammingWindow", |context, node| cosine_window(context, node, &[25.0 / 46.0, -21.0 / 46.0])),
    since(17, "BlackmanWindow", |context, node| cosine_window(context, node, &[0.42, -0.5, 0.08])),
    since(1, "Shape", not_followed),
    since(1, "Size", not_followed),
];

/// Shapes are followed symbolically, so these two come here only with an operand that has none.
fn not_followed(_: &mut Context<'_>, _: &Node) -> Lowered {
    Err(unsupported("the operand has no shape"))
}

fn constant(_: &mut Context<'_>, node: &Node) -> Lowered {
    let vector = |dtype: DType, scalars: Vec<Scalar>, scalar: bool| -> Lowered {
        let mut bytes = Vec::new();
        let shape = if scalar { vec![] } else { vec![scalars.len()] };
        scalars.into_iter().for_each(|scalar| push_scalar(scalar, &mut bytes));
        Ok(vec![Binding::Data(Data::new(dtype, &shape, bytes.into())?)])
    };
    let float = |&value: &f32| Scalar::float(DType::F32, value.into());
    let integer = |&value: &i64| Scalar::integer(DType::I64, value);
    let Some((name, value)) = node.attributes.first() else {
        return Err(attribute("value", "missing"));
    };
    match (name.as_str(), value) {
        ("value", Attribute::Tensor(tensor)) => Ok(vec![Binding::Data(to_data(tensor)?)]),
        ("value_float", Attribute::Float(value)) => vector(DType::F32, vec![float(value)], true),
        ("value_floats", Attribute::Floats(values)) => {
            vector(DType::F32, values.iter().map(float).collect(), false)
        }
        ("value_int", Attribute::Int(value)) => vector(DType::I64, vec![integer(value)], true),
        ("value_ints", Attribute::Ints(values)) => {
            vector(DType::I64, values.iter().map(integer).collect(), false)
        }
        (name, Attribute::Other(kind)) => Err(unsupported(format!("a constant given as {kind} ({name})"))),
        (name, _) => Err(unsupported(format!("a constant given by '{name}'"))),
    }
}

fn constant_of_shape(context: &mut Context<'_>, node: &Node) -> Lowered {
    let shape = context.sizes(node, 0, "shape", SIZE)?;
    let fill = match node.tensor("value")? {
        Some(tensor) => to_data(tensor)?,
        None => Data::from_f32(&[1], &[0.0])?,
    };
    if fill.dtype() == DType::String {
        return Err(attribute("value", "text, expected a number"));
    }
    if fill.count() != 1 {
        return Err(attribute("value", format!("{} elements, expected one", fill.count())));
    }
    let value = context.builder.constant(fill.reshaped(&[])?)?;
    one(context.builder.broadcast(value, shape)?)
}

/// `start + i * delta` for `max(ceil((limit - start) / delta), 0)` elements.
fn range(context: &mut Context<'_>, node: &Node) -> Lowered {
    let scalar = |context: &mut Context<'_>, index, name| -> Result<Value, Refusal> {
        let value = context.operand(node, index, name)?;
        Ok(context.builder.reshape(value, Vec::new())?)
    };
    let known = |context: &Context<'_>, index| {
        context.known(node, index).and_then(|known| known.dims()?.first().cloned())
    };
    if known(context, 2).is_some_and(|delta| delta.is(0)) {
        return Err(operands("the step is 0"));
    }
    let count = match (known(context, 0), known(context, 1), known(context, 2)) {
        (Some(start), Some(limit), Some(delta)) if delta.as_const().is_some_and(|delta| delta != 0) => {
            let (span, step) = if delta.as_const().is_some_and(|delta| delta < 0) {
                (start - limit, -delta)
            } else {
                (limit - start, delta)
            };
            let steps = span.ceil_div(&step);
            if context.bounds(&steps).low >= 0 { steps } else { steps.maximum(&Dim::Const(0)) }
        }
        _ => {
            let (start, limit) = (scalar(context, 0, "start")?, scalar(context, 1, "limit")?);
            let delta = scalar(context, 2, "delta")?;
            // Counted in f64, which is exact for all sizes that fit in memory.
            let [start, limit, delta] =
                [start, limit, delta].map(|value| context.builder.cast(value, DType::F64));
            let mut body = Body::new(3, DType::F64);
            let args = [body.operand(0), body.operand(1), body.operand(2)];
            let span = body.call(Function::Sub, &[args[1], args[0]]);
            let steps = body.call(Function::Div, &[span, args[2]]);
            let steps = body.call(Function::Ceil, &[steps]);
            let steps = body.with(Function::Max, steps, 0.0);
            let steps = body.cast(steps, DType::I64);
            let count = context.builder.map(body.finish_as_is(steps), &[start?, limit?, delta?])?;
            context.bind(count, 1, "range", SIZE)?.remove(0)
        }
    };
    let (start, delta) = (scalar(context, 0, "start")?, scalar(context, 2, "delta")?);
    let dtype = context.dtype(start)?;
    let place =
        context.builder.op1(Operator::Iota { dtype: DType::I64, shape: vec![count], axis: 0 }, &[])?;
    let place = context.builder.cast(place, dtype)?;
    let mut body = Body::new(3, dtype);
    let args = [body.operand(0), body.operand(1), body.operand(2)];
    let offset = body.call(Function::Mul, &[args[0], args[2]]);
    let element = body.call(Function::Add, &[args[1], offset]);
    one(context.builder.map(body.finish(element), &[place, start, delta])?)
}

/// Coordinates along an axis of a shape, as `i64`.
fn coordinates(context: &mut Context<'_>, shape: &[Dim], axis: usize) -> Result<Value, Refusal> {
    let mut extents = vec![Dim::Const(1); shape.len()];
    extents[axis] = shape[axis].clone();
    Ok(context.builder.op1(Operator::Iota { dtype: DType::I64, shape: extents, axis }, &[])?)
}

/// 1 where the column is the row plus `k`.
fn eye_like(context: &mut Context<'_>, node: &Node) -> Lowered {
    let shape = node.input(0).and_then(|name| context.shape_of(name));
    let shape = shape.ok_or_else(|| operands("the operand has no shape"))?;
    if shape.len() != 2 {
        return Err(operands(format!("rank {}, expected 2", shape.len())));
    }
    let dtype = match node.int("dtype")? {
        Some(number) => dtype_of_number("dtype", number)?,
        None => {
            let x = context.operand(node, 0, "input")?;
            context.dtype(x)?
        }
    };
    let (rows, columns) = (coordinates(context, &shape, 0)?, coordinates(context, &shape, 1)?);
    let diagonal = context.map_constant(rows, Function::Add, node.int("k")?.unwrap_or(0) as f64)?;
    let hit = context.call(Function::Equal, &[diagonal, columns])?;
    one(context.builder.cast(hit, dtype)?)
}

/// Keeps the part on one side of a diagonal, zero elsewhere.
fn trilu(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "input")?;
    let shape = context.shape(x)?;
    let [.., rows, columns] = &shape[..] else { return Err(operands("a matrix is needed")) };
    let plane = [rows.clone(), columns.clone()];
    let (rows, columns) = (coordinates(context, &plane, 0)?, coordinates(context, &plane, 1)?);
    let mut offset = context.integer(0)?;
    if let Some(k) = context.optional(node, 1)? {
        offset = context.builder.reshape(k, Vec::new())?;
    }
    let diagonal = context.call(Function::Add, &[rows, offset])?;
    let inside = if node.flag("upper", true)? { [diagonal, columns] } else { [columns, diagonal] };
    let inside = context.call(Function::LessEqual, &inside)?;
    let dtype = context.dtype(x)?;
    if dtype == DType::Bool {
        return one(context.call(Function::And, &[x, inside])?);
    }
    let zero = context.builder.scalar(Scalar::of(dtype, 0.0))?;
    one(context.call(Function::Select, &[inside, x, zero])?)
}

fn seed(node: &Node) -> Result<i64, Refusal> {
    // The seed is a float in the schema; its bits tell seeds apart. 0 would ask for a fresh one.
    Ok(node.float("seed")?.map_or(0, |seed| i64::from(seed.to_bits()) + 1))
}

fn random(context: &mut Context<'_>, node: &Node, kind: RandomKind, like: bool) -> Lowered {
    let shape =
        if like {
            let shape = node.input(0).and_then(|name| context.shape_of(name));
            shape.ok_or_else(|| operands("the operand has no shape"))?
        } else {
            let shape = node.ints("shape")?.ok_or_else(|| attribute("shape", "missing"))?;
            shape
                .iter()
                .map(|&size| {
                    if size < 0 {
                        Err(attribute("shape", format!("{shape:?}")))
                    } else {
                        Ok(Dim::Const(size))
                    }
                })
                .collect::<Result<_, _>>()?
        };
    let dtype = match node.int("dtype")? {
        Some(number) => dtype_of_number("dtype", number)?,
        None if like => {
            let x = context.operand(node, 0, "input")?;
            context.dtype(x)?
        }
        None => DType::F32,
    };
    let (first, second) = match kind {
        RandomKind::Uniform => ("low", "high"),
        RandomKind::Normal => ("mean", "scale"),
    };
    let (a, b) = (node.float(first)?.unwrap_or(0.0), node.float(second)?.unwrap_or(1.0));
    let operator =
        Operator::Random { kind, dtype, shape, a: Real::from(a), b: Real::from(b), seed: seed(node)? };
    one(context.builder.op1(operator, &[])?)
}

/// 1 with the probability that the element is.
fn bernoulli(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "input")?;
    let (shape, dtype) = (context.shape(x)?, context.dtype(x)?);
    let to = node.int("dtype")?.map_or(Ok(dtype), |number| dtype_of_number("dtype", number))?;
    let draw = uniform(context, shape, dtype, seed(node)?)?;
    let hit = context.call(Function::Less, &[draw, x])?;
    one(context.builder.cast(hit, to)?)
}

fn uniform(context: &mut Context<'_>, shape: Vec<Dim>, dtype: DType, seed: i64) -> Result<Value, Refusal> {
    let kind = RandomKind::Uniform;
    let operator = Operator::Random { kind, dtype, shape, a: Real::from(0.0), b: Real::from(1.0), seed };
    Ok(context.builder.op1(operator, &[])?)
}

/// The identity where `is_test` says so.
fn old_dropout(context: &mut Context<'_>, node: &Node) -> Lowered {
    if !node.flag("is_test", false)? || node.output(1).is_some() {
        return Err(unsupported("dropping elements at random; export the model for inference"));
    }
    one(context.operand(node, 0, "data")?)
}

/// The identity outside of training; in training mode elements are dropped at random and the others scaled up.
fn dropout(context: &mut Context<'_>, node: &Node) -> Lowered {
    let x = context.operand(node, 0, "data")?;
    let (shape, dtype) = (context.shape(x)?, context.dtype(x)?);
    let training = match context.integers(node, 2, "training_mode")? {
        Some(flag) if node.id.opset >= 12 => flag.first().is_some_and(|&flag| flag != 0),
        _ => false,
    };
    let ratio = match training {
        // Outside of training the ratio may be anything, known or not.
        false => 0.0,
        true => context.numbers(node, 1, "ratio")?.and_then(|ratio| ratio.first().copied()).unwrap_or(0.5),
    };
    if ratio == 0.0 {
        let mask_type = if node.id.opset < 10 { dtype } else { DType::Bool };
        let all = Scalar::of(mask_type, 1.0);
        let mut results = vec![Binding::Value(x)];
        if node.output(1).is_some() {
            let all = context.builder.scalar(all)?;
            results.push(Binding::Value(context.builder.broadcast(all, shape)?));
        }
        return Ok(results);
    }
    let draw = uniform(context, shape, DType::F32, node.int("seed")?.map_or(0, |seed| seed.wrapping_add(1)))?;
    let limit = context.builder.scalar(Scalar::float(DType::F32, ratio))?;
    let kept = context.call(Function::LessEqual, &[limit, draw])?;
    let scaled = context.map1(x, |body, x| body.with(Function::Mul, x, 1.0 / (1.0 - ratio)))?;
    let zero = context.builder.scalar(Scalar::of(dtype, 0.0))?;
    let y = context.call(Function::Select, &[kept, scaled, zero])?;
    Ok(vec![Binding::Value(y), Binding::Value(kept)])
}

/// `sum of coefficients[j] * cos(2 pi j i / n)`, where `n` is the size, less one unless periodic.
fn cosine_window(context: &mut Context<'_>, node: &Node, coefficients: &[f64]) -> Lowered {
    let to = node
        .int("output_datatype")?
        .map_or(Ok(DType::F32), |number| dtype_of_number("output_datatype", number))?;
    let size = context.sizes(node, 0, "size", SIZE)?;
    let [size] = &size[..] else { return Err(operands("the size is no scalar")) };
    let periodic = node.flag("periodic", true)?;
    let divisor = if periodic { size.clone() } else { size.clone() - Dim::Const(1) };
    let divisor = context.materialize(&Binding::Known(Known::size(divisor)))?;
    let divisor = context.builder.cast(divisor, DType::F64)?;
    let place = Operator::Iota { dtype: DType::I64, shape: vec![size.clone()], axis: 0 };
    let place = context.builder.op1(place, &[])?;
    let place = context.builder.cast(place, DType::F64)?;
    let mut body = Body::new(2, DType::F64);
    let (index, count) = (body.operand(0), body.operand(1));
    let turn = body.call(Function::Div, &[index, count]);
    let mut total = body.constant(coefficients[0]);
    for (harmonic, &coefficient) in coefficients.iter().enumerate().skip(1) {
        let angle = body.with(Function::Mul, turn, 2.0 * std::f64::consts::PI * harmonic as f64);
        let wave = body.call(Function::Cos, &[angle]);
        let wave = body.with(Function::Mul, wave, coefficient);
        total = body.call(Function::Add, &[total, wave]);
    }
    let result = body.cast(total, to);
    one(context.builder.map(body.finish_as_is(result), &[place, divisor])?)
}

/// Triangular filters that are evenly spaced on the mel scale, `[spectrum bins, mel bins]`.
fn mel_weights(context: &mut Context<'_>, node: &Node) -> Lowered {
    let number = node.int("output_datatype")?.unwrap_or(1);
    let to = dtype_of_number("output_datatype", number)?;
    let scalar = |operand, name| -> Result<f64, Refusal> {
        match context.numbers(node, operand, name)?.as_deref() {
            Some([value]) => Ok(*value),
            _ => Err(operands(format!("{name} is no scalar"))),
        }
    };
    let (mels, length) = (scalar(0, "num_mel_bins")?, scalar(1, "dft_length")?);
    let rate = scalar(2, "sample_rate")?;
    let (low, high) = (scalar(3, "lower_edge_hertz")?, scalar(4, "upper_edge_hertz")?);
    let in_range = (1.0..=4096.0).contains(&mels) && (1.0..=1e6).contains(&length) && rate > 0.0;
    if !in_range || !(0.0..high).contains(&low) {
        return Err(operands(format!(
            "{mels} filters over {low} to {high} Hz of a transform of {length} points"
        )));
    }
    let (columns, bins) = (mels as usize, length as usize / 2 + 1);
    let to_mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
    // The definition spreads one edge more than the filters have.
    let step = (to_mel(high) - to_mel(low)) / (mels + 2.0);
    // Edges of the filters as spectrum bins, rounded down.
    let edge = |index: usize| {
        let hertz = 700.0 * (10f64.powf((to_mel(low) + step * index as f64) / 2595.0) - 1.0);
        (((length + 1.0) * hertz / rate).floor() as i64).max(0)
    };
    let mut weights = vec![0f32; bins * columns];
    for column in 0..columns {
        let (first, centre, last) = (edge(column), edge(column + 1), edge(column + 2));
        let mut put = |bin: i64, value: f64| {
            if let Some(weight) = usize::try_from(bin).ok().filter(|&bin| bin < bins) {
                weights[weight * columns + column] = value as f32;
            }
        };
        if first == centre {
            put(centre, 1.0);
        }
        (first..=centre)
            .filter(|_| first < centre)
            .for_each(|bin| put(bin, (bin - first) as f64 / (centre - first) as f64));
        (centre..last)
            .filter(|_| centre < last)
            .for_each(|bin| put(bin, (last - bin) as f64 / (last - centre) as f64));
    }
    let matrix = context.builder.constant(Data::from_f32(&[bins, columns], &weights)?)?;
    one(context.builder.cast(matrix, to)?)
}
