//! How finely work is handed out to threads: small steps run on one.

use tcc_ir::dim::Dim;
use tcc_ir::operator::Operator;
use tcc_ir::types::TensorType;
use tcc_runtime::DimExpr;
use tcc_runtime::manifest::WorkKind;

use super::dims::Symbols;
use super::work::operations;

/// Scalar operations below which another thread costs more than it brings.
const GRAIN_WORK: i64 = 1 << 15;

/// Tasks that a call takes at least, for a step of `tasks` tasks that do `work` scalar operations together; 1 where nothing
/// is known of its work.
pub fn grain(work: Option<Dim>, tasks: &DimExpr, symbols: &Symbols) -> DimExpr {
    let work = work.and_then(|work| symbols.expression(&work).ok());
    work.map_or(DimExpr::Const(1), |work| slices(work, tasks))
}

fn slices(work: DimExpr, tasks: &DimExpr) -> DimExpr {
    match (work.as_const(), tasks.as_const()) {
        (Some(work), Some(tasks)) => {
            DimExpr::Const((GRAIN_WORK / (work / tasks.max(1)).max(1)).clamp(1, tasks.max(1)))
        }
        _ => DimExpr::Const(GRAIN_WORK).floor_div(work.floor_div(tasks.clone().max(1)).max(1)).max(1),
    }
}

/// A rough count of scalar operations: one for each element that is read or written, and those of arithmetic, where
/// multiply-adds run many at a time and those of bytes more. `None` where every task is worth a thread. `combines` says
/// that the kernel puts together what another one of the operator has computed.
pub fn work(
    operator: &Operator,
    operands: &[TensorType],
    results: &[TensorType],
    combines: bool,
) -> Option<Dim> {
    use Operator as O;
    let result = results.first()?.count();
    let elements = || {
        operands.iter().chain(results).map(TensorType::count).fold(Dim::from(0i64), |sum, count| sum + count)
    };
    let times = |count: Dim, factor: i64| count * Dim::from(factor);
    Some(match operator {
        O::Contract { .. } | O::Convolve { .. } | O::ConvolveTranspose { .. } => {
            let (count, kind) = operations(operator, operands, results);
            let at_a_time = if kind == WorkKind::Int8 { 64i64 } else { 16 };
            count.floor_div(&Dim::from(at_a_time)) + elements()
        }
        // Reading the weights of a row takes as long as that many operations.
        O::BlockContract { .. } => operations(operator, operands, results).0.floor_div(&Dim::from(4i64)),
        O::KvAppend { .. } => operands.get(1)?.count(),
        // How much of a cache is in use only a run knows.
        O::KvAttend { .. } if !combines => return None,
        // What is picked from is not read as a whole.
        O::KvAttend { .. } | O::Gather { .. } => times(result, 4),
        O::Recurrent { .. } | O::Attention { .. } => times(elements(), 64),
        O::Softmax { .. } | O::Normalize { .. } => times(elements(), 4),
        _ => elements(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_worth_a_thread_for_sizes_known_and_unknown() {
        let known = |work, tasks| slices(DimExpr::Const(work), &DimExpr::Const(tasks)).as_const();
        assert_eq!(known(64 * GRAIN_WORK, 128), Some(2));
        assert_eq!(known(GRAIN_WORK / 2, 128), Some(128));
        assert_eq!(known(0, 0), Some(1));
        assert_eq!(known(i64::MAX, 1), Some(1));
        let unknown = slices(DimExpr::Symbol(0), &DimExpr::Const(128));
        for work in [0, 1, GRAIN_WORK, 64 * GRAIN_WORK, i64::MAX] {
            let found = unknown.evaluate(&[Some(work)]).unwrap();
            assert_eq!(found.min(128), known(work, 128).unwrap(), "{work}");
        }
        assert_eq!(slices(DimExpr::Const(1), &DimExpr::Symbol(0)).evaluate(&[Some(0)]), Ok(GRAIN_WORK));
    }
}
