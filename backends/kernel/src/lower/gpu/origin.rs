//! Which tile of a product a block computes.

use super::product::{Extents, Side, assigned};
use crate::ir::{Expr, Stmt, Var};
use crate::lower::Lowering;

/// The place of a block's tile. Positions are multiples of a tile's size by their form, so that accesses are known to be aligned.
pub struct Origin {
    /// Number of the product in the batch.
    pub batch: Expr,
    /// First row and first column.
    pub first: [Expr; 2],
    /// Blocks of the grid.
    pub blocks: Expr,
}

impl Origin {
    /// The tile of block `block`, columns fastest, of tiles of so many rows and columns.
    pub fn of(
        lowering: &mut Lowering,
        body: &mut Vec<Stmt>,
        block: Var,
        size: [i64; 2],
        extents: &Extents,
    ) -> Origin {
        let [row_size, column_size] = size.map(Expr::index);
        let row_tiles = extents.rows.clone().over_up(row_size.clone());
        let column_tiles = extents.columns.clone().over_up(column_size.clone());
        let rest = assigned(lowering, body, "rest", Expr::Var(block).over(column_tiles.clone()));
        let column = Expr::Var(block).remainder(column_tiles.clone());
        let column = assigned(lowering, body, "column_tile", column);
        let (row, batch) = if extents.batch.is_index(1) {
            (rest, Expr::index(0))
        } else {
            let row = assigned(lowering, body, "row_tile", rest.clone().remainder(row_tiles.clone()));
            (row, assigned(lowering, body, "batch", rest.over(row_tiles.clone())))
        };
        let blocks = extents.batch.clone().times(row_tiles).times(column_tiles);
        Origin { batch, first: [row.times(row_size), column.times(column_size)], blocks }
    }

    /// First position of the tile along a side.
    pub fn first(&self, side: Side) -> &Expr {
        &self.first[side as usize]
    }
}
