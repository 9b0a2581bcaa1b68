//! Control flow: If, Loop and Scan become operations with regions.

use super::super::super::error::NodeError;
use super::super::super::graph::{Graph, Node};
use super::super::context::{Context, Lowered};
use super::super::refusal::{Refusal, attribute, operands, unsupported};
use super::super::scope::Binding;
use super::super::sizes::{self, SIZE};
use super::super::table::{Entry, between, since};
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::{Region, Value};
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Scalar;
use tcc_ir::types::Type;

pub(super) static TABLE: &[Entry] = &[
    since(1, "If", choose),
    since(1, "Loop", iterate),
    between(8, 8, "Scan", scan_batch),
    since(9, "Scan", scan),
    since(17, "SequenceMap", map_sequence),
];

fn subgraph<'n>(node: &'n Node, name: &str) -> Result<&'n Graph, Refusal> {
    node.graph(name)?.ok_or_else(|| Refusal::Invalid(NodeError::MissingAttribute(name.to_owned())))
}

/// A condition that is known at import time picks its branch; the other one is not looked at.
fn choose(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (yes, no) = (subgraph(node, "then_branch")?, subgraph(node, "else_branch")?);
    if yes.outputs.len() != no.outputs.len() || yes.outputs.len() < node.outputs.len() {
        return Err(operands("the branches have different numbers of outputs"));
    }
    if let Some([condition]) = context.known(node, 0).and_then(|known| known.integers()).as_deref() {
        return context.inline(if *condition != 0 { yes } else { no });
    }
    let condition = context.operand(node, 0, "cond")?;
    context.check_condition(condition)?;
    let regions = vec![branch(context, yes)?, branch(context, no)?];
    let mut types = Vec::new();
    for (&a, &b) in regions[0].results.iter().zip(&regions[1].results) {
        let (a, b) = (context.builder.type_of(a).clone(), context.builder.type_of(b).clone());
        types.push(context.join(&a, &b));
    }
    if types.iter().any(Result::is_err)
        && let Some((a, b)) = context.conditions.get(&condition).cloned()
    {
        // Exporters write "squeeze where the extent is 1" as a branch whose sides differ in rank. No type holds both, so
        // the model is imported for the extent that it asks about, and the run fails with another one.
        context.builder.require_equal(a, b);
        return context.inline(yes);
    }
    let types = types.into_iter().collect::<Result<_, _>>()?;
    let condition = context.builder.reshape(condition, Vec::new())?;
    let results = context.builder.region_op(Operator::If {}, &[condition], regions, types);
    Ok(results.into_iter().map(Binding::Value).collect())
}

/// A branch as a region. What it requires of extents holds only where it is taken, so it is not required of the run;
/// its operations check their operands.
fn branch(context: &mut Context<'_>, graph: &Graph) -> Result<Region, Refusal> {
    let equalities = context.builder.equality_count();
    let region = context.region(graph, Vec::new(), |_, _| Ok(Vec::new()), |_, _, outputs| Ok(outputs));
    context.builder.take_back_equalities(equalities);
    region
}

impl Context<'_> {
    /// The type that holds values of either type: extents that differ become symbols.
    pub(in super::super) fn join(&mut self, a: &Type, b: &Type) -> Result<Type, Refusal> {
        match (a, b) {
            _ if a == b => Ok(a.clone()),
            (Type::Tensor(a), Type::Tensor(b)) if a.element == b.element && a.rank() == b.rank() => {
                let mut joined = a.clone();
                for (extent, other) in joined.shape.iter_mut().zip(&b.shape) {
                    if extent != other {
                        *extent = Dim::symbol(&self.builder.fresh_symbol("joined", SIZE));
                    }
                }
                Ok(Type::Tensor(joined))
            }
            (Type::Sequence(a), Type::Sequence(b)) => Ok(Type::Sequence(Box::new(self.join(a, b)?))),
            (Type::Optional(a), Type::Optional(b)) => Ok(Type::Optional(Box::new(self.join(a, b)?))),
            _ => Err(Refusal::Branches(format!("the branches give values of different types, {a} and {b}"))),
        }
    }

    /// Appends a loop. `body` reads the region's parameters (iteration, condition, carried values) and returns the next
    /// condition, the next carried values and the scanned values. Where an iteration changes the extents of a carried
    /// value, the extent is made a symbol and the body imported again.
    fn append_loop(
        &mut self,
        [limit, condition]: [Value; 2],
        carried: &[Value],
        trips: Dim,
        mut body: impl FnMut(&mut Self, Vec<Type>) -> Result<Region, Refusal>,
    ) -> Result<Vec<Value>, Refusal> {
        let mut types: Vec<Type> = carried.iter().map(|&value| self.builder.type_of(value).clone()).collect();
        loop {
            let mut parameters = vec![Type::tensor(DType::I64, vec![]), Type::tensor(DType::Bool, vec![])];
            parameters.extend(types.iter().cloned());
            let known = self.unsupported.len();
            let region = body(self, parameters)?;
            let yielded: Vec<Type> =
                region.results.iter().map(|&value| self.builder.type_of(value).clone()).collect();
            let next =
                yielded.get(1..1 + types.len()).ok_or_else(|| operands("the body has too few outputs"))?;
            let mut joined = Vec::new();
            for (now, next) in types.iter().zip(next) {
                joined.push(self.widen(now, next)?);
            }
            if joined != types {
                types = joined;
                self.unsupported.truncate(known);
                continue;
            }
            let mut results = types.clone();
            for scanned in &yielded[1 + types.len()..] {
                let Type::Tensor(element) = scanned else {
                    return Err(unsupported("scanned values that are no tensors"));
                };
                let mut stacked = element.clone();
                stacked.shape.insert(0, trips.clone());
                results.push(Type::Tensor(stacked));
            }
            let scans = results.len() - types.len();
            let mut values = vec![limit, condition];
            values.extend_from_slice(carried);
            return Ok(self.builder.region_op(Operator::Loop { scans }, &values, vec![region], results));
        }
    }

    /// The carried type for the next attempt: extents that an iteration changes become symbols, once.
    fn widen(&mut self, now: &Type, next: &Type) -> Result<Type, Refusal> {
        match (now, next) {
            (Type::Tensor(now), Type::Tensor(next))
                if now.element == next.element && now.rank() == next.rank() =>
            {
                let mut widened = now.clone();
                for (extent, other) in widened.shape.iter_mut().zip(&next.shape) {
                    let is_open =
                        extent.as_symbol().is_some_and(|symbol| symbol.name().starts_with("carried_"));
                    if extent != other && !is_open {
                        *extent = Dim::symbol(&self.builder.fresh_symbol("carried", SIZE));
                    }
                }
                Ok(Type::Tensor(widened))
            }
            _ if now == next => Ok(now.clone()),
            (Type::Sequence(_), Type::Sequence(_)) | (Type::Optional(_), Type::Optional(_)) => {
                Ok(now.clone())
            }
            _ => Err(operands(format!("a carried value of type {now} becomes {next}"))),
        }
    }

    pub(in super::super) fn check_condition(&self, value: Value) -> Result<(), Refusal> {
        match self.dtype(value)? {
            DType::Bool => Ok(()),
            other => Err(operands(format!("the condition is of type {other}, not a truth value"))),
        }
    }

    fn truth(&mut self, value: bool) -> Result<Value, Refusal> {
        Ok(self.builder.scalar(Scalar::integer(DType::Bool, i64::from(value)))?)
    }
}

fn iterate(context: &mut Context<'_>, node: &Node) -> Lowered {
    let body = subgraph(node, "body")?;
    let known_limit = context.known(node, 0).and_then(|known| known.dims()).filter(|dims| dims.len() == 1);
    let limit = match context.optional(node, 0)? {
        Some(limit) => {
            let scalar = context.builder.reshape(limit, Vec::new())?;
            context.builder.cast(scalar, DType::I64)?
        }
        None => context.integer(-1)?,
    };
    let condition = match context.optional(node, 1)? {
        Some(condition) => {
            context.check_condition(condition)?;
            context.builder.reshape(condition, Vec::new())?
        }
        None => context.truth(true)?,
    };
    let mut carried = Vec::new();
    for index in 2..node.inputs.len() {
        carried.push(context.operand(node, index, "v_initial")?);
    }
    if body.inputs.len() != carried.len() + 2 || body.outputs.len() < carried.len() + 1 {
        return Err(operands(format!(
            "the body has {} inputs and {} outputs for {} carried values",
            body.inputs.len(),
            body.outputs.len(),
            carried.len()
        )));
    }
    let trips = match known_limit {
        Some(mut dims) if runs_to_the_limit(context, node, body) => {
            context.larger(&dims.remove(0), &Dim::Const(0))
        }
        _ => Dim::symbol(&context.builder.fresh_symbol("trips", SIZE)),
    };
    let results = context.append_loop([limit, condition], &carried, trips, |context, parameters| {
        let hand_on = |_: &mut Context<'_>, parameters: &[Value]| Ok(parameters.to_vec());
        context.region(body, parameters, hand_on, |context, _, mut outputs| {
            context.check_condition(outputs[0])?;
            outputs[0] = context.builder.reshape(outputs[0], Vec::new())?;
            Ok(outputs)
        })
    })?;
    Ok(results.into_iter().map(Binding::Value).collect())
}

/// True where nothing but the limit ends the loop: the first condition is true or left out, and the body hands it on.
fn runs_to_the_limit(context: &Context<'_>, node: &Node, body: &Graph) -> bool {
    let first = match node.input(1) {
        None => true,
        Some(_) => {
            context.known(node, 1).and_then(|known| known.integers()).is_some_and(|values| values == [1])
        }
    };
    let mut name = body.outputs[0].name.as_str();
    while let Some(producer) =
        body.nodes.iter().find(|producer| producer.outputs.iter().any(|output| output == name))
    {
        match (producer.id.operator.as_str(), producer.input(0)) {
            ("Identity", Some(source)) => name = source,
            _ => return false,
        }
    }
    let constant = body
        .initializers
        .get(name)
        .and_then(|tensor| tensor.to_integers())
        .is_some_and(|values| values == [1]);
    first && (name == body.inputs[1].name || constant)
}

/// ONNX Scan: a loop over one axis of its scanned inputs, whose outputs are stacked along an axis.
fn scan(context: &mut Context<'_>, node: &Node) -> Lowered {
    let values = context.operands(node)?;
    let results = scan_over(context, node, &values, "scan_input_directions")?;
    Ok(results.into_iter().map(Binding::Value).collect())
}

/// Scan as it was in version 8, where all values have a batch axis in front; of a batch of one.
fn scan_batch(context: &mut Context<'_>, node: &Node) -> Lowered {
    if node.input(0).is_some() {
        return Err(unsupported("operand 0 (sequence_lens)"));
    }
    let mut values = Vec::new();
    for index in 1..node.inputs.len() {
        let value = context.operand(node, index, "operand")?;
        let mut shape = context.shape(value)?;
        if shape.is_empty() {
            return Err(operands("an operand has no batch axis"));
        }
        let batch = shape.remove(0);
        if batch.as_const().is_some_and(|batch| batch != 1) {
            return Err(unsupported(format!("a batch of {batch}; convert the model to opset 9 or later")));
        }
        context.require_equal(batch, Dim::Const(1), "the batch")?;
        values.push(context.builder.reshape(value, shape)?);
    }
    let mut bindings = Vec::new();
    for value in scan_over(context, node, &values, "directions")? {
        let mut shape = context.shape(value)?;
        shape.insert(0, Dim::Const(1));
        bindings.push(Binding::Value(context.builder.reshape(value, shape)?));
    }
    Ok(bindings)
}

/// Final states and collected outputs of a scan over `values`: initial states, then what is scanned. `directions` is the
/// attribute that says which of these are read from the end.
fn scan_over(
    context: &mut Context<'_>,
    node: &Node,
    values: &[Value],
    directions: &str,
) -> Result<Vec<Value>, Refusal> {
    let body = subgraph(node, "body")?;
    let count = node.int("num_scan_inputs")?.and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|&count| count > 0 && count <= values.len());
    let count = count.ok_or_else(|| attribute("num_scan_inputs", "missing or out of range"))?;
    let (carried, scanned) = values.split_at(values.len() - count);
    if body.inputs.len() != values.len() || body.outputs.len() < carried.len() {
        return Err(operands("the body's inputs and outputs do not fit the operands"));
    }
    let outputs = body.outputs.len() - carried.len();
    let settings = |name: &str, count: usize| -> Result<Vec<i64>, Refusal> {
        let list = node.ints(name)?.map_or_else(|| vec![0; count], <[i64]>::to_vec);
        if list.len() == count {
            Ok(list)
        } else {
            Err(attribute(name, format!("{list:?}, expected {count} integers")))
        }
    };
    let input_axes = settings("scan_input_axes", count)?;
    let input_reversed = settings(directions, count)?;
    let output_axes = settings("scan_output_axes", outputs)?;
    let output_reversed = settings("scan_output_directions", outputs)?;
    let mut axes = Vec::new();
    for (&value, &axis) in scanned.iter().zip(&input_axes) {
        axes.push(sizes::axis(axis, context.shape(value)?.len())?);
    }
    let steps = context.shape(scanned[0])?[axes[0]].clone();
    let (limit, condition) = (context.size_scalar(steps.clone())?, context.truth(true)?);
    let last = context.size_scalar(steps.clone() - Dim::Const(1))?;
    // The body of a Scan has no iteration number and no condition; what it reads instead is picked at the number.
    let results = context.append_loop([limit, condition], carried, steps, |context, parameters| {
        let states = carried.len();
        let pick = |context: &mut Context<'_>, parameters: &[Value]| {
            let mut bound = parameters[2..2 + states].to_vec();
            for (index, &value) in scanned.iter().enumerate() {
                let mut at = parameters[0];
                if input_reversed[index] != 0 {
                    at = context.call(tcc_ir::scalar::Function::Sub, &[last, at])?;
                }
                bound.push(context.builder.op1(Operator::Gather { axis: axes[index] }, &[value, at])?);
            }
            Ok(bound)
        };
        context.region(body, parameters, pick, |_, parameters, outputs| {
            Ok(std::iter::once(parameters[1]).chain(outputs).collect())
        })
    })?;
    let mut ordered = Vec::new();
    for (index, mut value) in results.into_iter().enumerate() {
        if let Some(output) = index.checked_sub(carried.len()) {
            let shape = context.shape(value)?;
            if output_reversed[output] != 0 {
                let mut starts = vec![Dim::Const(0); shape.len()];
                starts[0] = shape[0].clone() - Dim::Const(1);
                let mut strides = vec![1; shape.len()];
                strides[0] = -1;
                value = context
                    .builder
                    .op1(Operator::Slice { starts, sizes: shape.clone(), steps: strides }, &[value])?;
            }
            let axis = sizes::axis(output_axes[output], shape.len())?;
            let mut perm: Vec<usize> = (1..shape.len()).collect();
            perm.insert(axis, 0);
            value = context.builder.transpose(value, perm)?;
        }
        ordered.push(value);
    }
    Ok(ordered)
}

/// A loop over the elements of sequences that appends what the body gives to the resulting ones.
fn map_sequence(context: &mut Context<'_>, node: &Node) -> Lowered {
    let body = subgraph(node, "body")?;
    let values = context.operands(node)?;
    let Some(&first) = values.first() else { return Err(operands("the sequence is missing")) };
    if body.inputs.len() != values.len() || !matches!(context.builder.type_of(first), Type::Sequence(_)) {
        return Err(operands("the body's inputs do not fit the operands"));
    }
    let pick = |context: &mut Context<'_>, parameters: &[Value]| -> Result<Vec<Value>, Refusal> {
        let mut bound = Vec::new();
        for &value in &values {
            bound.push(match context.builder.type_of(value).clone() {
                Type::Sequence(element) => {
                    let ty = context.element_of(&element);
                    context.host("SequenceAt", "{}", &[ty], &[value, parameters[0]])?[0]
                }
                _ => value,
            });
        }
        Ok(bound)
    };
    // The element types of the results follow from the body, which is imported once to see them.
    let parameters = vec![Type::tensor(DType::I64, vec![]), Type::tensor(DType::Bool, vec![])];
    let known = context.unsupported.len();
    let preview = context.region(body, parameters, pick, |_, _, outputs| Ok(outputs))?;
    context.unsupported.truncate(known);
    let mut carried = Vec::new();
    for &result in &preview.results {
        let element = context.builder.type_of(result).clone();
        let ty = Type::Sequence(Box::new(context.element_of(&element)));
        carried.push(context.host("SequenceEmpty", "{}", &[ty], &[])?[0]);
    }
    let limit = context.host("SequenceLength", "{}", &[Type::tensor(DType::I64, vec![])], &[first])?[0];
    let condition = context.truth(true)?;
    let results =
        context.append_loop([limit, condition], &carried, Dim::Const(0), |context, parameters| {
            context.region(body, parameters, pick, |context, parameters, outputs| {
                let mut results = vec![parameters[1]];
                for (&sequence, output) in parameters[2..].iter().zip(outputs) {
                    let ty = context.builder.type_of(sequence).clone();
                    results.push(context.host("SequenceInsert", "{}", &[ty], &[sequence, output])?[0]);
                }
                Ok(results)
            })
        })?;
    Ok(results.into_iter().map(Binding::Value).collect())
}
