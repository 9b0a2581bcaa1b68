//! How much a step computes and moves, for people who look for what is slow and for how finely work is handed to threads.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::types::TensorType;
use tcc_ir::words::Layout;
use tcc_runtime::manifest::WorkKind;

/// Operations of an operator and their kind. Multiply-adds count twice; beside them, what an epilogue adds is nothing.
pub fn operations(operator: &Operator, operands: &[TensorType], results: &[TensorType]) -> (Dim, WorkKind) {
    use Operator as O;
    let outputs = results.first().map_or(Dim::from(0i64), TensorType::count);
    let inputs = operands.first().map_or(Dim::from(0i64), TensorType::count);
    let twice = |count: Dim| Dim::from(2i64) * count;
    match (operator, operands) {
        (O::Contract { spec, accumulator, .. }, [lhs, rhs, ..]) => {
            let extent = |label: &u8| {
                let find = |labels: &[u8], shape: &[Dim]| {
                    let axis = labels.iter().position(|candidate| candidate == label)?;
                    shape.get(axis).cloned()
                };
                find(&spec.lhs, &lhs.shape).or_else(|| find(&spec.rhs, &rhs.shape)).unwrap_or(Dim::from(1i64))
            };
            let extents: Vec<Dim> = spec.labels().iter().map(extent).collect();
            (twice(Dim::product(&extents)), multiply_adds(lhs, rhs, *accumulator))
        }
        (O::Convolve { layout, accumulator, .. }, [x, w, ..]) => {
            (twice(outputs * filter_size(w, *layout)), multiply_adds(x, w, *accumulator))
        }
        (O::ConvolveTranspose { layout, accumulator, .. }, [x, w, ..]) => {
            (twice(inputs * filter_size(w, *layout)), multiply_adds(x, w, *accumulator))
        }
        (O::BlockContract { .. }, [x, ..]) => {
            let depth = x.shape.last().cloned().unwrap_or(Dim::from(1i64));
            (twice(outputs * depth), WorkKind::Float)
        }
        (O::Attention { .. }, [q, k, v, ..]) => {
            let (one, keys) = (Dim::from(1i64), k.shape.get(2).cloned());
            let width = q.shape.last().cloned().unwrap_or(one.clone());
            let rows = Dim::product(q.shape.iter().take(q.shape.len().saturating_sub(1)));
            let values = v.shape.last().cloned().unwrap_or(one.clone());
            (twice(rows * keys.unwrap_or(one) * (width + values)), WorkKind::Float)
        }
        (O::Recurrent { .. }, [x, w, r, ..]) => {
            let steps = Dim::product(x.shape.iter().take(2));
            (twice((w.count() + r.count()) * steps), WorkKind::Float)
        }
        (O::Window { size, .. } | O::WindowArgMax { size, .. }, _) => {
            let each = size.iter().map(|extent| *extent as i64).product::<i64>();
            (outputs * Dim::from(each), WorkKind::Elementwise)
        }
        (O::Map { body }, _) => (outputs * Dim::from(body.nodes.len().max(1) as i64), WorkKind::Elementwise),
        (O::Reduce { prologue, .. }, _) => {
            (inputs * Dim::from(prologue.nodes.len() as i64 + 1), WorkKind::Elementwise)
        }
        (O::Softmax { .. } | O::Normalize { .. }, _) => (inputs * Dim::from(4i64), WorkKind::Elementwise),
        (O::Scan { .. } | O::ArgReduce { .. }, _) => (inputs, WorkKind::Elementwise),
        _ => (outputs, WorkKind::Elementwise),
    }
}

fn multiply_adds(lhs: &TensorType, rhs: &TensorType, accumulator: DType) -> WorkKind {
    let narrow = |ty: &TensorType| ty.dtype().is_integer() && ty.dtype().bits() <= 8;
    if accumulator == DType::I32 && narrow(lhs) && narrow(rhs) { WorkKind::Int8 } else { WorkKind::Float }
}

/// Elements of a filter for one output channel.
fn filter_size(w: &TensorType, layout: Layout) -> Dim {
    match layout {
        Layout::ChannelsFirst => Dim::product(w.shape.iter().skip(1)),
        Layout::ChannelsLast => Dim::product(w.shape.iter().take(w.shape.len().saturating_sub(1))),
    }
}

/// Bytes that an operator reads and writes at least. What picks elements reads no more of its table than it writes.
pub fn bytes(operator: &Operator, operands: &[TensorType], results: &[TensorType]) -> Dim {
    use Operator as O;
    let picks = matches!(
        operator,
        O::Gather { .. } | O::GatherElements { .. } | O::GatherNd { .. } | O::Slice { .. }
    );
    let read = if picks { results } else { operands };
    let each = |ty: &TensorType| (ty.count() * Dim::from(ty.dtype().bits())).ceil_div(&Dim::from(8i64));
    read.iter().chain(results).map(each).fold(Dim::from(0i64), |sum, bytes| sum + bytes)
}

#[cfg(test)]
mod tests {
    use tcc_ir::contraction::ContractionSpec;
    use tcc_ir::scalar::ScalarExpr;

    use super::*;

    fn tensor(dtype: DType, shape: &[i64]) -> TensorType {
        TensorType::new(dtype, shape.iter().map(|dim| Dim::from(*dim)).collect())
    }

    #[test]
    fn products_count_two_operations_each() {
        let contract = |accumulator| Operator::Contract {
            spec: "mk,nk->mn".parse::<ContractionSpec>().unwrap(),
            accumulator,
            epilogue: ScalarExpr::identity(),
        };
        let operands = [tensor(DType::F32, &[3, 5]), tensor(DType::F32, &[7, 5])];
        let (count, kind) = operations(&contract(DType::F32), &operands, &[tensor(DType::F32, &[3, 7])]);
        assert_eq!((count.as_const(), kind), (Some(2 * 3 * 5 * 7), WorkKind::Float));
        let operands = [tensor(DType::U8, &[3, 5]), tensor(DType::I8, &[7, 5])];
        let (_, kind) = operations(&contract(DType::I32), &operands, &[tensor(DType::I32, &[3, 7])]);
        assert_eq!(kind, WorkKind::Int8);
        let result = [tensor(DType::I32, &[3, 7])];
        assert_eq!(bytes(&contract(DType::I32), &operands, &result).as_const(), Some(15 + 35 + 84));
    }
}
