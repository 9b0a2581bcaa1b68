//! `if` and `loop`.

use tcc_ir::dtype::DType;
use tcc_ir::module::{Operation, Region};
use tcc_ir::types::Type;

use crate::error::{Error, Result};
use crate::interpreter::{Frame, Run};
use crate::movement::concat;
use crate::tensor::{Contents, Tensor};
use crate::value::Value;

/// Iterations after which a loop counts as endless.
const MAX_ITERATIONS: i64 = 1 << 28;

fn region(operation: &Operation, index: usize) -> Result<&Region> {
    operation.regions.get(index).ok_or_else(|| Error::Malformed(format!("region {index} is missing")))
}

fn single(operands: &[Value], index: usize) -> Result<i64> {
    let value = operands.get(index).ok_or_else(|| Error::Malformed(format!("operand {index} is missing")))?;
    value.as_tensor()?.integer()
}

/// The region that the condition picks.
pub(crate) fn branch<'m>(
    run: &mut Run<'m, '_>,
    frame: &mut Frame<'m>,
    operation: &'m Operation,
    operands: &[Value],
) -> Result<Vec<Value>> {
    let taken = if single(operands, 0)? != 0 { 0 } else { 1 };
    run.region(frame, region(operation, taken)?, Vec::new())
}

/// ONNX Loop.
pub(crate) fn repeat<'m>(
    run: &mut Run<'m, '_>,
    frame: &mut Frame<'m>,
    operation: &'m Operation,
    operands: &[Value],
    scans: usize,
) -> Result<Vec<Value>> {
    let limit = single(operands, 0)?;
    let mut condition = single(operands, 1)? != 0;
    let mut carried = operands[2..].to_vec();
    let mut scanned: Vec<Vec<Tensor>> = vec![Vec::new(); scans];
    let body = region(operation, 0)?;
    let mut iteration = 0;
    while condition && (limit < 0 || iteration < limit) {
        if iteration == MAX_ITERATIONS {
            return Err(Error::operands(format!("the loop does not end within {MAX_ITERATIONS} iterations")));
        }
        let mut arguments = vec![
            Value::Tensor(Tensor::from_integers(DType::I64, &[], &[iteration])?),
            Value::Tensor(Tensor::from_integers(DType::Bool, &[], &[i64::from(condition)])?),
        ];
        reshape_scalars(frame, body, &mut arguments)?;
        arguments.append(&mut carried);
        let count = arguments.len() - 2;
        let mut yielded = run.region(frame, body, arguments)?;
        if yielded.len() != 1 + count + scans {
            return Err(Error::Malformed(format!("the loop body yields {} values", yielded.len())));
        }
        condition = single(&yielded, 0)? != 0;
        for (column, value) in scanned.iter_mut().zip(yielded.split_off(1 + count)) {
            column.push(value.as_tensor()?.clone());
        }
        carried = yielded.split_off(1);
        iteration += 1;
    }
    let count = carried.len();
    let mut results = carried;
    for (index, column) in scanned.into_iter().enumerate() {
        let name = operation.results.get(count + index);
        let name = name.ok_or_else(|| Error::Malformed("a scanned result is missing".into()))?;
        results.push(Value::Tensor(stack(frame, frame.type_of(*name)?, &column, run.limit)?));
    }
    Ok(results)
}

/// The iteration number and the condition may be declared as `[]` or `[1]`.
fn reshape_scalars(frame: &Frame, body: &Region, arguments: &mut [Value]) -> Result<()> {
    for (param, argument) in body.params.iter().zip(arguments) {
        if let (Type::Tensor(ty), Value::Tensor(tensor)) = (frame.type_of(*param)?, &argument) {
            *argument = Value::Tensor(tensor.reshaped(&vec![1; ty.rank()])?);
        }
    }
    Ok(())
}

/// The values of all iterations along a new first axis.
fn stack(frame: &Frame, ty: &Type, column: &[Tensor], limit: usize) -> Result<Tensor> {
    let Some(first) = column.first() else {
        // Without an iteration nothing tells an extent that no symbol outside determines.
        let Type::Tensor(ty) = ty else {
            return Err(Error::Malformed("a scanned result is no tensor".into()));
        };
        let extent = |dim| frame.symbols.evaluate(dim).ok().and_then(|extent| usize::try_from(extent).ok());
        let mut shape: Vec<usize> = ty.shape.iter().map(|dim| extent(dim).unwrap_or(0)).collect();
        shape[..1].fill(0);
        let contents = match ty.dtype() {
            DType::String => Contents::Text(Vec::new()),
            dtype => Contents::from_numbers(dtype, std::iter::empty()),
        };
        return Tensor::new(ty.dtype(), &shape, contents);
    };
    let shape = [&[1], first.shape()].concat();
    if column.iter().any(|tensor| tensor.shape() != first.shape() || tensor.dtype() != first.dtype()) {
        return Err(Error::operands("the scanned values differ in shape from iteration to iteration"));
    }
    let total = first.contents().len().saturating_mul(column.len());
    if total > limit {
        let shape = [&[column.len()], first.shape()].concat();
        return Err(Error::TooLarge { shape: shape.iter().map(|extent| *extent as i64).collect(), limit });
    }
    let rows = column.iter().map(|tensor| tensor.reshaped(&shape)).collect::<Result<Vec<_>>>()?;
    let shape = [&[column.len()], first.shape()].concat();
    concat(&rows.iter().collect::<Vec<_>>(), 0, &shape)
}
