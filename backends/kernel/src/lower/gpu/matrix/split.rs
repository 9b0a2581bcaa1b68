//! Products whose depth is cut into pieces: blocks sum a piece each, and a second kernel adds the pieces in their order.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;
use tcc_ir::types::TensorType;

use super::super::product::{Extents, Places};
use crate::ir::{Expr, LoopKind, Stmt, Ty};
use crate::lower::{Argument, Lowering};

/// Partial sums of the pieces: by piece, product, row and column.
pub struct Split {
    pieces: i64,
    sums: Argument,
}

impl Split {
    /// The partial sums of so many pieces; none for one piece, or where the sizes are not known.
    pub fn new(lowering: &mut Lowering, extents: &Extents, accumulator: DType, pieces: i64) -> Option<Split> {
        let known = [&extents.batch, &extents.rows, &extents.columns].map(Expr::as_index);
        let [Some(batch), Some(rows), Some(columns)] = known else { return None };
        if pieces == 1 {
            return None;
        }
        let shape = [pieces, batch, rows, columns].map(Dim::from).to_vec();
        Some(Split { pieces, sums: lowering.temporary(TensorType::new(accumulator, shape)) })
    }

    fn index(extents: &Extents, (piece, batch): (&Expr, &Expr), [row, column]: [&Expr; 2]) -> Expr {
        let product = piece.clone().times(extents.batch.clone()).plus(batch.clone());
        let line = product.times(extents.rows.clone()).plus(row.clone());
        line.times(extents.columns.clone()).plus(column.clone())
    }

    /// Stores the sum of a piece.
    pub fn keep(
        &self,
        lowering: &mut Lowering,
        extents: &Extents,
        piece: (&Expr, &Expr),
        at: [&Expr; 2],
        sum: Expr,
    ) -> Vec<Stmt> {
        let buffer = lowering.buffer(self.sums);
        vec![Stmt::Store { buffer, index: Split::index(extents, piece, at), value: sum, valid: None }]
    }

    /// Writes the kernel that adds the pieces.
    pub fn join(&self, lowering: &mut Lowering, extents: &Extents, accumulator: DType, places: &dyn Places) {
        let buffer = lowering.buffer(self.sums);
        let tasks = extents.batch.clone().times(extents.rows.clone()).times(extents.columns.clone());
        let nest = lowering.for_loop("result", tasks, LoopKind::Parallel, |this, number| {
            let column = number.clone().remainder(extents.columns.clone());
            let line = number.over(extents.columns.clone());
            let row = line.clone().remainder(extents.rows.clone());
            let batch = line.over(extents.rows.clone());
            let sum = this.kernel.variable("sum", Ty::scalar(accumulator));
            let mut stmts = Vec::new();
            for piece in 0..self.pieces {
                let index = Split::index(extents, (&Expr::index(piece), &batch), [&row, &column]);
                let part = Expr::load(buffer, index);
                let value = if piece == 0 { part } else { Expr::call(Function::Add, vec![sum.into(), part]) };
                stmts.push(Stmt::Assign { var: sum, value });
            }
            stmts.extend(places.finish(this, &batch, &row, &column, sum.into()));
            stmts
        });
        lowering.launch(vec![nest], false);
    }
}
