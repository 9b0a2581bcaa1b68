//! How finely work is handed out to threads: small steps run on one.

use tcc_ir::dim::Dim;
use tcc_ir::operator::Operator;
use tcc_ir::types::TensorType;
use tcc_runtime::DimExpr;

use super::ProgramError;
use super::dims::Symbols;

/// Scalar operations below which another thread costs more than it brings.
const GRAIN_WORK: i64 = 1 << 15;

/// A rough count of scalar operations: of one row, and how many rows there are.
pub type Work = (i64, Dim);

/// Tasks that a call takes at least, for a step of `tasks` tasks; 1 where nothing is known of its work.
pub fn grain(work: Option<Work>, tasks: &DimExpr, symbols: &Symbols) -> Result<DimExpr, ProgramError> {
    Ok(match (work, tasks.as_const()) {
        (Some((work, rows)), Some(tasks)) if tasks > 0 => {
            let each = (work / tasks).max(1);
            let grain = DimExpr::Const((GRAIN_WORK / each).clamp(1, tasks.max(1)));
            match rows.as_const() {
                Some(1) => grain,
                _ => grain.floor_div(symbols.expression(&rows)?.max(1)).max(1),
            }
        }
        (Some((work, rows)), None) => {
            let all = symbols.expression(&rows)?.mul(DimExpr::Const(work));
            DimExpr::Const(GRAIN_WORK).mul(tasks.clone()).floor_div(all.max(1)).max(1)
        }
        _ => DimExpr::Const(1),
    })
}

/// A rough count of scalar operations of one row and the number of rows; `None` where every task is worth a thread.
/// `combines` says that the kernel puts together what another one of the operator has computed.
pub fn work(
    operator: &Operator,
    operands: &[TensorType],
    results: &[TensorType],
    combines: bool,
) -> Option<Work> {
    let result = results.first()?;
    match operator {
        Operator::BlockContract { .. } => {
            // Of a single row: reading the weights takes as long as that many operations.
            let last = |ty: &TensorType| ty.shape.last().and_then(Dim::as_const);
            let products = last(&operands[0])?.checked_mul(last(result)?)?;
            return Some((products / 2, Dim::product(&result.shape[..result.rank() - 1])));
        }
        Operator::KvAppend { .. } => return rows(&operands[1], 1),
        Operator::KvAttend { .. } => return if combines { rows(result, 4) } else { None },
        Operator::Map { .. }
        | Operator::Gather { .. }
        | Operator::Rope { .. }
        | Operator::Softmax { .. }
        | Operator::Normalize { .. }
        | Operator::QuantizeRows { .. }
            if result.count().as_const().is_none() =>
        {
            return rows(result, 4);
        }
        _ => {}
    }
    let count = |ty: &TensorType| ty.count().as_const();
    let elements =
        operands.iter().chain(results).map(count).try_fold(0i64, |sum, count| Some(sum + count?))?;
    let factor = match operator {
        Operator::Contract { .. } | Operator::Convolve { .. } | Operator::ConvolveTranspose { .. } => {
            // Products a result element: left elements times right elements over results, at least one.
            let weights = count(&operands[1])?;
            let lanes = match operator {
                Operator::Contract { .. } => result.shape.last().and_then(Dim::as_const).unwrap_or(1),
                _ => operands[1].shape.last().and_then(Dim::as_const).unwrap_or(1),
            };
            let products = count(result)?.checked_mul((weights / lanes.max(1)).max(1))?;
            return Some((products / 8, Dim::Const(1)));
        }
        Operator::Recurrent { .. } | Operator::Attention { .. } => 64,
        Operator::Softmax { .. } | Operator::Normalize { .. } => 4,
        _ => 1,
    };
    Some((elements.checked_mul(factor)?, Dim::Const(1)))
}

/// `operations` for each element: those of the known extents together, and the product of the others.
fn rows(ty: &TensorType, operations: i64) -> Option<Work> {
    let (known, open): (Vec<Dim>, Vec<Dim>) =
        ty.shape.iter().cloned().partition(|dim| dim.as_const().is_some());
    Some((Dim::product(&known).as_const()?.max(1).checked_mul(operations)?, Dim::product(&open)))
}
