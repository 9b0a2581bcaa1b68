//! Transpositions: axes that stay neighbours move as one, and what is left goes by the innermost axes of both sides.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;

use super::{Argument, LowerError, Lowering};
use crate::ir::{BufferId, Expr, LoopKind, Stmt, Ty, Var};

/// Permutes axes.
pub fn transpose(lowering: &mut Lowering, perm: &[usize]) -> Result<(), LowerError> {
    transpose_into(lowering, Argument::Operand(0), Argument::Result(0), perm)
}

/// Side of the square block in which elements that move one by one are read and written.
const TRANSPOSE_BLOCK: i64 = 16;

/// Launches a kernel that writes `from` with permuted axes into `to`.
pub fn transpose_into(
    lowering: &mut Lowering,
    from: Argument,
    to: Argument,
    perm: &[usize],
) -> Result<(), LowerError> {
    let source = lowering.type_of(from);
    // Axes that stay neighbours move as one.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for axis in perm.iter().copied().filter(|axis| !source.shape[*axis].is(1)) {
        match groups.last_mut() {
            Some(group) if contiguous(&source.shape, group[group.len() - 1], axis) => group.push(axis),
            _ => groups.push(vec![axis]),
        }
    }
    let mut by_source: Vec<usize> = (0..groups.len()).collect();
    by_source.sort_by_key(|group| groups[*group][0]);
    let extents: Vec<Dim> =
        groups.iter().map(|group| Dim::product(group.iter().map(|axis| &source.shape[*axis]))).collect();
    let source_extents: Vec<Dim> = by_source.iter().map(|group| extents[*group].clone()).collect();
    let lanes = lowering.tuning.lanes(source.dtype());
    let last = groups.len().saturating_sub(1);
    let inner_moves = by_source.last().is_some_and(|group| *group != last);
    let element = |this: &mut Lowering, at: &[Expr]| {
        let own: Vec<Expr> = by_source.iter().map(|group| at[*group].clone()).collect();
        let (read, write) = (this.buffer(from), this.buffer(to));
        let (from_index, to_index) = (this.linear(&source_extents, &own), this.linear(&extents, at));
        Move { read, from: from_index, write, to: to_index }
    };
    let few =
        extents.last().and_then(Dim::as_const).is_some_and(|columns| (2..=MOST_PLANES).contains(&columns));
    let stmts =
        if inner_moves && few && by_source[last] + 1 == last && source.dtype().bits() == 32 && lanes > 1 {
            interleave(lowering, &extents, lanes, element)
        } else if inner_moves {
            match square_lanes(lowering, source.dtype()) {
                Some(lanes) => square_blocks(lowering, &extents, by_source[last], lanes, element),
                None => single_elements(lowering, &extents, by_source[last], element),
            }
        } else {
            lowering.parallel_nest(&extents, lanes, &mut |this, at| {
                vec![element(this, if groups.is_empty() { &[] } else { at }).single()]
            })
        };
    lowering.launch(stmts, false);
    Ok(())
}

/// Where an element comes from and goes to.
struct Move {
    read: BufferId,
    from: Expr,
    write: BufferId,
    to: Expr,
}

impl Move {
    /// The copy of one element.
    fn single(self) -> Stmt {
        let value = Expr::load(self.read, self.from);
        Stmt::Store { buffer: self.write, index: self.to, value, valid: None }
    }
}

/// True where axis `b` follows axis `a` in the source but for axes of extent 1.
fn contiguous(shape: &[Dim], a: usize, b: usize) -> bool {
    b > a && shape[a + 1..b].iter().all(|dim| dim.is(1))
}

/// Visits the plane of the last result axis and `source_inner`, the source's innermost, in square blocks, so that each
/// cache line of both sides is used while it is there.
fn single_elements(
    lowering: &mut Lowering,
    extents: &[Dim],
    source_inner: usize,
    element: impl Fn(&mut Lowering, &[Expr]) -> Move,
) -> Vec<Stmt> {
    let last = extents.len() - 1;
    let block = Expr::index(TRANSPOSE_BLOCK);
    let outer: Vec<usize> = (0..last).filter(|axis| *axis != source_inner).collect();
    let mut domain: Vec<Dim> = outer.iter().map(|axis| extents[*axis].clone()).collect();
    domain.push(extents[source_inner].ceil_div(&Dim::Const(TRANSPOSE_BLOCK)));
    let tasks = Dim::product(&domain);
    let tasks = lowering.dim(&tasks);
    let (rows, columns) = (lowering.dim(&extents[source_inner]), lowering.dim(&extents[last]));
    vec![lowering.for_loop("task", tasks, LoopKind::Parallel, |this, task| {
        let decoded = this.decode(task, &domain);
        let row_base = decoded[outer.len()].clone().times(block.clone());
        let row_count = rows.minus(row_base.clone()).at_most(block.clone());
        let column_blocks = columns.clone().over_up(block.clone());
        vec![this.for_loop("block", column_blocks, LoopKind::Serial, |this, column_block| {
            let column_base = column_block.times(block.clone());
            let column_count = columns.clone().minus(column_base.clone()).at_most(block.clone());
            vec![this.for_loop("row", row_count.clone(), LoopKind::Serial, |this, row| {
                vec![this.for_loop("column", column_count, LoopKind::Serial, |this, column| {
                    let mut at = vec![Expr::index(0); extents.len()];
                    for (axis, value) in outer.iter().zip(&decoded) {
                        at[*axis] = value.clone();
                    }
                    at[source_inner] = row_base.plus(row);
                    at[last] = column_base.plus(column);
                    vec![element(this, &at).single()]
                })]
            })]
        })]
    })]
}

/// Most rows of a square block that is transposed in registers.
const MOST_SQUARE: u16 = 16;

/// Rows of a square block of these elements in registers; none where vectors do not hold several.
pub fn square_lanes(lowering: &Lowering, dtype: DType) -> Option<u16> {
    let whole = dtype.is_integer() || matches!(dtype, DType::F32 | DType::F64);
    let lanes =
        lowering.tuning.lanes(dtype).min(MOST_SQUARE).min(lowering.tuning.vector_registers as u16 / 2);
    (lowering.tuning.gpu.is_none() && whole && dtype.bits() >= 8 && lanes >= 4).then_some(lanes)
}

/// Transposes a square of as many vectors as they have lanes: rounds that exchange squares of half the size, over the
/// diagonal (Eklundh, "A fast computer method for matrix transposing", 1972).
pub fn transpose_square(lowering: &mut Lowering, stmts: &mut Vec<Stmt>, rows: &[Var]) -> Vec<Var> {
    let lanes = rows.len() as u16;
    let mut rows = rows.to_vec();
    let mut distance = lanes / 2;
    while distance > 0 {
        for first in (0..lanes).filter(|row| row & distance == 0) {
            let pair = [rows[usize::from(first)], rows[usize::from(first + distance)]];
            let both = |picks: Vec<u16>| {
                Expr::Shuffle(Box::new(Expr::Var(pair[0])), Box::new(Expr::Var(pair[1])), picks)
            };
            let near = |lane: u16| lane & distance == 0;
            let upper = (0..lanes).map(|lane| if near(lane) { lane } else { lanes + lane - distance });
            let lower = (0..lanes).map(|lane| if near(lane) { lane + distance } else { lanes + lane });
            let values = [both(upper.collect()), both(lower.collect())];
            for (row, value) in [first, first + distance].into_iter().zip(values) {
                let ty = lowering.kernel.type_of(&value);
                let var = lowering.kernel.variable("row", ty);
                stmts.push(Stmt::Assign { var, value });
                rows[usize::from(row)] = var;
            }
        }
        distance /= 2;
    }
    rows
}

/// Squares of a task along both axes, so that several lines of a page are read and written at a visit.
const SQUARES: i64 = 4;

/// Visits the plane of the last result axis and `source_inner`, the source's innermost, in squares that are transposed in
/// registers; those at the edges read and write only what is there.
fn square_blocks(
    lowering: &mut Lowering,
    extents: &[Dim],
    source_inner: usize,
    lanes: u16,
    element: impl Fn(&mut Lowering, &[Expr]) -> Move,
) -> Vec<Stmt> {
    let last = extents.len() - 1;
    let side = i64::from(lanes);
    let (height, index) = (side * SQUARES, Expr::index);
    let outer: Vec<usize> = (0..last).filter(|axis| *axis != source_inner).collect();
    let mut domain: Vec<Dim> = outer.iter().map(|axis| extents[*axis].clone()).collect();
    domain.push(extents[source_inner].ceil_div(&Dim::Const(height)));
    domain.push(extents[last].ceil_div(&Dim::Const(height)));
    let tasks = Dim::product(&domain);
    let tasks = lowering.dim(&tasks);
    let (rows, columns) = (lowering.dim(&extents[source_inner]), lowering.dim(&extents[last]));
    vec![lowering.for_loop("task", tasks, LoopKind::Parallel, |this, task| {
        let mut decoded = this.decode(task, &domain);
        let first_column = decoded.pop().unwrap_or(index(0)).times(index(height));
        let first_row = decoded.pop().unwrap_or(index(0)).times(index(height));
        let across = columns.clone().minus(first_column.clone()).at_most(index(height));
        let down = rows.clone().minus(first_row.clone()).at_most(index(height));
        // Along the result's rows first: lines that are written wait for memory, those that are read do not wait for each other.
        vec![this.for_loop("down", down.over_up(index(side)), LoopKind::Serial, |this, down| {
            let row = first_row.plus(down.times(index(side)));
            vec![this.for_loop("across", across.over_up(index(side)), LoopKind::Serial, |this, across| {
                let column = first_column.plus(across.times(index(side)));
                let at = |row: Expr, column: Expr| {
                    let mut at = vec![index(0); extents.len()];
                    for (axis, value) in outer.iter().zip(&decoded) {
                        at[*axis] = value.clone();
                    }
                    (at[source_inner], at[last]) = (row, column);
                    at
                };
                let left = [rows.clone().minus(row.clone()), columns.clone().minus(column.clone())];
                let square = |this: &mut Lowering, whole: bool| {
                    let mut stmts = Vec::new();
                    let vectors: Vec<Var> = (0..side)
                        .map(|offset| {
                            let here = column.clone().plus(index(offset));
                            let here = match whole {
                                true => here,
                                false => here.at_most(columns.clone().minus(index(1))),
                            };
                            let from = element(this, &at(row.clone(), here));
                            let valid = (!whole).then(|| Box::new(left[0].clone()));
                            let value =
                                Expr::Load { buffer: from.read, index: Box::new(from.from), lanes, valid };
                            let dtype = this.kernel.type_of(&value).dtype;
                            let var = this.kernel.variable("column", Ty::vector(dtype, lanes));
                            stmts.push(Stmt::Assign { var, value });
                            var
                        })
                        .collect();
                    for (offset, vector) in
                        transpose_square(this, &mut stmts, &vectors).into_iter().enumerate()
                    {
                        let to = element(this, &at(row.clone().plus(index(offset as i64)), column.clone()));
                        let store = |valid| Stmt::Store {
                            buffer: to.write,
                            index: to.to,
                            value: Expr::Var(vector),
                            valid,
                        };
                        stmts.push(match whole {
                            true => store(None),
                            false => Stmt::If {
                                condition: index(offset as i64).less(left[0].clone()),
                                then: vec![store(Some(left[1].clone()))],
                                otherwise: vec![],
                            },
                        });
                    }
                    stmts
                };
                let divides = [source_inner, last]
                    .iter()
                    .all(|axis| extents[*axis].as_const().is_some_and(|extent| extent % side == 0));
                if divides {
                    return square(this, true);
                }
                let inside =
                    index(side).less_equal(left[0].clone()).both(index(side).less_equal(left[1].clone()));
                let (then, otherwise) = (square(this, true), square(this, false));
                vec![Stmt::If { condition: inside, then, otherwise }]
            })]
        })]
    })]
}

/// Most planes that [`interleave`] takes: each vector of results is shuffled together from all of them.
const MOST_PLANES: i64 = 4;

/// Makes rows of the last axis out of a few planes, its columns: a vector of each plane, shuffled into as many vectors of
/// the result.
fn interleave(
    lowering: &mut Lowering,
    extents: &[Dim],
    lanes: u16,
    element: impl Fn(&mut Lowering, &[Expr]) -> Move,
) -> Vec<Stmt> {
    let last = extents.len() - 1;
    let planes = extents[last].as_const().unwrap_or(0) as u16;
    let width = i64::from(lanes);
    let block = width * 32;
    let mut domain = extents[..last].to_vec();
    domain[last - 1] = extents[last - 1].ceil_div(&Dim::Const(block));
    let tasks = Dim::product(&domain);
    let tasks = lowering.dim(&tasks);
    let rows = lowering.dim(&extents[last - 1]);
    vec![lowering.for_loop("task", tasks, LoopKind::Parallel, |this, task| {
        let mut outer = this.decode(task, &domain);
        let base = outer.pop().unwrap_or(Expr::index(0)).times(Expr::index(block));
        let count = rows.minus(base.clone()).at_most(Expr::index(block));
        let at = |row: Expr, plane: Expr| [outer.clone(), vec![base.clone().plus(row), plane]].concat();
        let vectors = count.clone().over(Expr::index(width));
        let whole = this.for_loop("v", vectors.clone(), LoopKind::Serial, |this, vector| {
            let row = vector.times(Expr::index(width));
            let mut stmts = Vec::new();
            let mut values = Vec::new();
            for plane in 0..planes {
                let from = element(this, &at(row.clone(), Expr::index(i64::from(plane))));
                let value = Expr::Load { buffer: from.read, index: Box::new(from.from), lanes, valid: None };
                let ty = this.kernel.type_of(&value);
                let var = this.kernel.variable("plane", ty);
                stmts.push(Stmt::Assign { var, value });
                values.push(Expr::Var(var));
            }
            let to = element(this, &at(row, Expr::index(0)));
            for part in 0..planes {
                // Lane `l` is row `p / planes` of plane `p % planes`, for `p` counted over all parts.
                let place = |lane: u16| part * lanes + lane;
                let mut value = values[0].clone();
                for plane in 1..planes {
                    let picks = (0..lanes).map(|lane| match (place(lane) % planes, place(lane) / planes) {
                        (own, row) if own == plane => lanes + row,
                        (0, row) if plane == 1 => row,
                        _ => lane,
                    });
                    let next = Box::new(values[plane as usize].clone());
                    value = Expr::Shuffle(Box::new(value), next, picks.collect());
                }
                let index = to.to.clone().plus(Expr::index(i64::from(part * lanes)));
                stmts.push(Stmt::Store { buffer: to.write, index, value, valid: None });
            }
            stmts
        });
        let done = vectors.times(Expr::index(width));
        let rest = this.for_loop("row", count.minus(done.clone()), LoopKind::Serial, |this, row| {
            let extent = Expr::index(i64::from(planes));
            vec![this.for_loop("plane", extent, LoopKind::Serial, |this, plane| {
                vec![element(this, &at(done.plus(row), plane)).single()]
            })]
        });
        vec![whole, rest]
    })]
}
