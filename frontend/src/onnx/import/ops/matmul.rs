//! Matrix products: MatMul, Gemm, Einsum.

use super::super::super::error::NodeError;
use super::super::super::graph::Node;
use super::super::context::{Context, Lowered, one};
use super::super::refusal::{Refusal, attribute, operands, unsupported};
use super::super::table::{Entry, since};
use super::convolution::accumulator;
use super::scalar::Body;
use tcc_ir::contraction::ContractionSpec;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Arg, Function, Scalar, ScalarExpr, ScalarOp};
use tcc_ir::words::ReduceKind;

pub(super) static TABLE: &[Entry] =
    &[since(1, "MatMul", matmul), since(6, "Gemm", gemm), since(12, "Einsum", einsum)];

fn matmul(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (a, b) = (context.operand(node, 0, "A")?, context.operand(node, 1, "B")?);
    one(context.matmul(a, b)?)
}

impl Context<'_> {
    /// NumPy's `matmul`: batch axes broadcast, vectors count as a row or a column that is dropped again.
    pub(crate) fn matmul(&mut self, a: Value, b: Value) -> Result<Value, Refusal> {
        let (a_shape, b_shape) = (self.shape(a)?, self.shape(b)?);
        if a_shape.is_empty() || b_shape.is_empty() {
            return Err(operands("a matrix product of a scalar"));
        }
        let (a_batch, a_tail) = a_shape.split_at(a_shape.len().saturating_sub(2));
        let (b_batch, b_tail) = b_shape.split_at(b_shape.len().saturating_sub(2));
        let rank = a_batch.len().max(b_batch.len());
        let letters: Vec<u8> =
            (b'a'..=b'z').chain(b'A'..=b'Z').filter(|label| !b"kmn".contains(label)).collect();
        if rank > letters.len() {
            return Err(unsupported(format!("{rank} batch axes")));
        }
        let mut spec = ContractionSpec { lhs: Vec::new(), rhs: Vec::new(), out: Vec::new() };
        let (mut a_kept, mut b_kept) = (Vec::new(), Vec::new());
        for (axis, &label) in letters[..rank].iter().enumerate() {
            let extent =
                |batch: &[Dim]| (axis + batch.len()).checked_sub(rank).map(|index| batch[index].clone());
            let (left, right) = (extent(a_batch), extent(b_batch));
            let is_one = |dim: &Option<Dim>| dim.as_ref().is_some_and(|dim| dim.is(1));
            // An extent of 1 beside a larger one broadcasts: the operand does without that axis.
            let drop_left = is_one(&left) && right.is_some() && !is_one(&right);
            let drop_right = is_one(&right) && left.is_some() && !is_one(&left);
            if let Some(dim) = left.filter(|_| !drop_left) {
                spec.lhs.push(label);
                a_kept.push(dim);
            }
            if let Some(dim) = right.filter(|_| !drop_right) {
                spec.rhs.push(label);
                b_kept.push(dim);
            }
            spec.out.push(label);
        }
        if a_tail.len() == 2 {
            spec.lhs.push(b'm');
            spec.out.push(b'm');
        }
        spec.lhs.push(b'k');
        spec.rhs.push(b'k');
        if b_tail.len() == 2 {
            spec.rhs.push(b'n');
            spec.out.push(b'n');
        }
        a_kept.extend_from_slice(a_tail);
        b_kept.extend_from_slice(b_tail);
        let (a, b) = (self.builder.reshape(a, a_kept)?, self.builder.reshape(b, b_kept)?);
        Ok(self.builder.contract(spec, a, b)?)
    }
}

/// `alpha * op(A) op(B) + beta * C`.
fn gemm(context: &mut Context<'_>, node: &Node) -> Lowered {
    let (a, b) = (context.operand(node, 0, "A")?, context.operand(node, 1, "B")?);
    for value in [a, b] {
        let rank = context.shape(value)?.len();
        if rank != 2 {
            return Err(operands(format!("a matrix has rank {rank}")));
        }
    }
    let labels =
        |first: u8, second: u8, swap: bool| if swap { vec![second, first] } else { vec![first, second] };
    let spec = ContractionSpec {
        lhs: labels(b'm', b'k', node.flag("transA", false)?),
        rhs: labels(b'k', b'n', node.flag("transB", false)?),
        out: vec![b'm', b'n'],
    };
    let dtype = context.dtype(a)?;
    let sum = accumulator(dtype);
    let factor = |name: &str| -> Result<f64, Refusal> { Ok(node.float(name)?.map_or(1.0, f64::from)) };
    let (alpha, beta) = (factor("alpha")?, factor("beta")?);
    let mut values = vec![a, b];
    if beta != 0.0
        && let Some(c) = context.optional(node, 2)?
    {
        values.push(c);
    }
    let mut epilogue = ScalarExpr::with_inputs(values.len() - 1);
    let scaled = |epilogue: &mut ScalarExpr, value: Arg, factor: f64| {
        if factor == 1.0 {
            return value;
        }
        // Integer matrices are scaled as real numbers.
        let wide = if sum.is_float() { sum } else { DType::F64 };
        let number = if wide == sum { value } else { epilogue.push(ScalarOp::Cast(wide), &[value]) };
        let product = epilogue.apply(Function::Mul, &[number, Arg::Const(Scalar::float(wide, factor))]);
        if wide == sum { product } else { epilogue.push(ScalarOp::Cast(sum), &[product]) }
    };
    let mut result = scaled(&mut epilogue, Arg::Input(0), alpha);
    if values.len() == 3 {
        let mut addend = Arg::Input(1);
        if sum != dtype {
            addend = epilogue.push(ScalarOp::Cast(sum), &[addend]);
        }
        let addend = scaled(&mut epilogue, addend, beta);
        result = epilogue.apply(Function::Add, &[result, addend]);
    }
    if sum != dtype {
        result = epilogue.push(ScalarOp::Cast(dtype), &[result]);
    }
    epilogue.result = result;
    one(context.builder.op1(Operator::Contract { spec, accumulator: sum, epilogue }, &values)?)
}

/// An Einstein summation, folded from the left into contractions of two operands.
fn einsum(context: &mut Context<'_>, node: &Node) -> Lowered {
    let equation: String = node
        .string("equation")?
        .ok_or_else(|| NodeError::MissingAttribute("equation".into()))?
        .chars()
        .filter(|c| !c.is_whitespace())
        .collect();
    let values = context.operands(node)?;
    let terms = Terms::parse(context, &equation, &values)?;
    let mut operands_left = Vec::new();
    for (value, labels) in values.into_iter().zip(terms.inputs) {
        operands_left.push(diagonal(context, value, labels)?);
    }
    let mut operands_left = operands_left.into_iter();
    let Some(mut total) = operands_left.next() else {
        return Err(operands("at least one operand is needed"));
    };
    let rest: Vec<(Value, Vec<u8>)> = operands_left.collect();
    for (index, (value, labels)) in rest.iter().enumerate() {
        // Labels that nothing after this product reads are summed here.
        let needed = |label: &u8| {
            terms.output.contains(label) || rest[index + 1..].iter().any(|(_, later)| later.contains(label))
        };
        let mut out: Vec<u8> = total.1.iter().copied().filter(needed).collect();
        out.extend(labels.iter().copied().filter(|label| needed(label) && !total.1.contains(label)));
        let spec = ContractionSpec { lhs: total.1, rhs: labels.clone(), out: out.clone() };
        total = (context.builder.contract(spec, total.0, *value)?, out);
    }
    let (mut value, mut labels) = total;
    let summed: Vec<usize> =
        (0..labels.len()).filter(|&axis| !terms.output.contains(&labels[axis])).collect();
    if !summed.is_empty() {
        value = context.builder.reduce(ReduceKind::Sum, value, summed, false)?;
        labels.retain(|label| terms.output.contains(label));
    }
    let perm: Option<Vec<usize>> =
        terms.output.iter().map(|label| labels.iter().position(|have| have == label)).collect();
    let perm =
        perm.ok_or_else(|| attribute("equation", format!("'{equation}': a result label is in no operand")))?;
    one(context.builder.transpose(value, perm)?)
}

/// Labels of the axes of each operand and of the result; the ellipsis became labels of its own.
struct Terms {
    inputs: Vec<Vec<u8>>,
    output: Vec<u8>,
}

impl Terms {
    fn parse(context: &Context<'_>, equation: &str, values: &[Value]) -> Result<Terms, Refusal> {
        let wrong = |what: &str| attribute("equation", format!("'{equation}': {what}"));
        let (left, right) = match equation.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (equation, None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != values.len() {
            return Err(wrong("the number of operands differs"));
        }
        // Labels that the equation does not use stand for the axes of the ellipsis.
        let spare: Vec<u8> = (b'a'..=b'z')
            .chain(b'A'..=b'Z')
            .filter(|&label| !equation.bytes().any(|used| used == label))
            .collect();
        let mut widest = 0;
        let mut inputs = Vec::new();
        for (term, &value) in terms.iter().zip(values) {
            let rank = context.shape(value)?.len();
            let named = term.replace("...", "");
            let open = rank.checked_sub(named.len()).ok_or_else(|| wrong("an operand has too few axes"))?;
            if open > 0 && !term.contains("...") || open > spare.len() {
                return Err(wrong("an operand has another rank"));
            }
            widest = widest.max(open);
            inputs.push(expand(term, &spare, open).ok_or_else(|| wrong("labels are letters"))?);
        }
        let output = match right {
            Some(right) => expand(right, &spare, widest).ok_or_else(|| wrong("labels are letters"))?,
            None => {
                // Without a result: the ellipsis, then labels that occur once, in alphabetical order.
                let all: Vec<u8> = left.bytes().filter(u8::is_ascii_alphabetic).collect();
                let mut once: Vec<u8> = all
                    .iter()
                    .copied()
                    .filter(|label| all.iter().filter(|other| *other == label).count() == 1)
                    .collect();
                once.sort_unstable();
                let mut output = expand("...", &spare, widest).unwrap_or_default();
                output.extend(once);
                output
            }
        };
        Ok(Terms { inputs, output })
    }
}

/// The labels of a term with `open` axes in place of the ellipsis, aligned at the last of them.
fn expand(term: &str, spare: &[u8], open: usize) -> Option<Vec<u8>> {
    let ellipsis: Vec<u8> = spare[..open].iter().rev().copied().collect();
    let labels = match term.split_once("...") {
        Some((before, after)) => [before.as_bytes(), &ellipsis, after.as_bytes()].concat(),
        None => term.as_bytes().to_vec(),
    };
    labels.iter().all(u8::is_ascii_alphabetic).then_some(labels)
}

/// Takes the diagonal over axes with the same label, so that each label is left once.
fn diagonal(
    context: &mut Context<'_>,
    mut value: Value,
    mut labels: Vec<u8>,
) -> Result<(Value, Vec<u8>), Refusal> {
    while let Some((first, second)) = (0..labels.len())
        .flat_map(|second| (0..second).map(move |first| (first, second)))
        .find(|&(first, second)| labels[first] == labels[second])
    {
        let shape = context.shape(value)?;
        context.require_equal(shape[first].clone(), shape[second].clone(), "axes of one letter")?;
        // Element i along the second axis is picked by its coordinate along the first.
        let mut extents = shape.clone();
        extents[second] = Dim::Const(1);
        let picks =
            context.builder.op1(Operator::Iota { dtype: DType::I64, shape: extents, axis: first }, &[])?;
        let picked = context.builder.op1(Operator::GatherElements { axis: second }, &[value, picks])?;
        let mut rest = shape;
        rest.remove(second);
        value = context.builder.reshape(picked, rest)?;
        labels.remove(second);
    }
    Ok((value, labels))
}

/// Used by quantized products: `alpha`-free product of integer matrices in a wider type.
pub(super) fn converted(
    context: &mut Context<'_>,
    x: Value,
    zero: Option<Value>,
    to: DType,
) -> Result<Value, Refusal> {
    let from = context.dtype(x)?;
    let Some(zero) = zero else {
        return Ok(context.builder.cast(x, to)?);
    };
    let mut body = Body::new(2, from);
    let (number, offset) = (body.operand(0), body.operand(1));
    let (number, offset) = (body.cast(number, to), body.cast(offset, to));
    let difference = body.call(Function::Sub, &[number, offset]);
    Ok(context.builder.map(body.finish_as_is(difference), &[x, zero])?)
}
