//! Operands that are known only at run time, in the order in which the kernel reads them.

use tcc_ir::dim::Dim;
use tcc_ir::types::TensorType;

use crate::ir::{BufferId, Expr, LoopKind, Stmt, Var};
use crate::lower::transposition::{square_lanes, transpose_square};
use crate::lower::{Argument, LowerError, Lowering, PackedLayout};

/// Elements of the innermost axis of the order that a task copies.
const TASK_DEPTH: i64 = 256;

/// Launches a kernel that writes `from` in the order of `layout`, whose last axis is summed, and returns where.
///
/// Lanes and members of a group beyond the last are zero or any number, as in [`PackedLayout::apply`].
pub fn pack(lowering: &mut Lowering, from: Argument, layout: &PackedLayout) -> Result<Argument, LowerError> {
    let source = lowering.type_of(from);
    let to = lowering.temporary(TensorType::new(source.dtype(), layout.shape(&source.shape)));
    let Some((depth_axis, outer)) = layout.order.split_last() else {
        return Err(lowering.malformed("an operand without axes is packed"));
    };
    let (depth_axis, lane_axis) = (*depth_axis, layout.lane_axis);
    let group = layout.group.map_or(1, |(_, size)| size as i64);
    let extents = layout.shape(&source.shape);
    let mut domain: Vec<Dim> = extents[..outer.len()].to_vec();
    let whole_groups = TASK_DEPTH / group * group;
    domain.push(source.shape[depth_axis].ceil_div(&Dim::Const(whole_groups)));
    let tasks = lowering.dim(&Dim::product(&domain));
    let index = Expr::index;
    let rank = source.rank();
    let (depth, lanes) = (lowering.dim(&source.shape[depth_axis]), lowering.dim(&source.shape[lane_axis]));
    let innermost = |axis: usize| source.shape[axis + 1..].iter().all(|extent| extent.is(1));
    let native = i64::from(lowering.tuning.lanes(source.dtype())).min(layout.width as i64);
    let native_bytes = i64::from(lowering.tuning.vector_bits / 8).min(4 * layout.width as i64);
    let square = square_lanes(lowering, source.dtype()).map(i64::from);
    let (width, outer) = (layout.width as i64, outer.to_vec());
    let body = lowering.for_loop("task", tasks, LoopKind::Parallel, |this, task| {
        let mut at = this.decode(task, &domain);
        let start = at.pop().unwrap_or(index(0)).times(index(whole_groups));
        let here = depth.clone().minus(start.clone()).at_most(index(whole_groups));
        let first_lane = match outer.iter().position(|axis| *axis == lane_axis) {
            Some(position) => at[position].clone().times(index(width)),
            None => index(0),
        };
        // Source and packed coordinates of a lane within the tile and a position along the summed axis.
        let place = |this: &mut Lowering, lane: Expr, k: Expr| {
            let mut own = vec![index(0); rank];
            for (axis, value) in outer.iter().zip(&at) {
                own[*axis] = value.clone();
            }
            (own[lane_axis], own[depth_axis]) = (first_lane.clone().plus(lane), k);
            let read = this.buffer(from);
            let read_at = this.linear(&source.shape, &own);
            let write = this.buffer(to);
            let packed = layout.coordinates(&own);
            let write_at = this.linear(&extents, &packed);
            (read, read_at, write, write_at)
        };
        let lanes_left = lanes.clone().minus(first_lane.clone());
        let full = index(width).less_equal(lanes_left.clone());
        if group == 1 && innermost(lane_axis) {
            return vec![this.for_loop("k", here, LoopKind::Serial, |this, k| {
                let k = start.plus(k);
                let line = |this: &mut Lowering, whole: bool| -> Vec<Stmt> {
                    let vectors = (0..width).step_by(native as usize);
                    vectors
                        .map(|lane| {
                            let (buffer, from, write, to) = place(this, index(lane), k.clone());
                            let valid = (!whole).then(|| Box::new(lanes_left.clone().minus(index(lane))));
                            let value =
                                Expr::Load { buffer, index: Box::new(from), lanes: native as u16, valid };
                            Stmt::Store { buffer: write, index: to, value, valid: None }
                        })
                        .collect()
                };
                let (then, otherwise) = (line(this, true), line(this, false));
                vec![Stmt::If { condition: full, then, otherwise }]
            })];
        }
        if group == 4 && innermost(lane_axis) && outer.contains(&lane_axis) && native_bytes >= 16 {
            return vec![this.for_loop("k", here.over_up(index(4)), LoopKind::Serial, |this, k| {
                let k = start.plus(k.times(index(4)));
                let lines = |this: &mut Lowering, whole: bool| {
                    interleaved(this, (width, native_bytes / 4), |this, member, lane| {
                        let k = k.clone().plus(index(member));
                        let (buffer, from, write, to) = place(this, index(lane), k.clone());
                        let valid = (!whole).then(|| {
                            let left = lanes_left.clone().minus(index(lane));
                            Box::new(k.less(depth.clone()).choose(left, index(0)))
                        });
                        let lanes = (native_bytes / 4) as u16;
                        (Expr::Load { buffer, index: Box::new(from), lanes, valid }, write, to)
                    })
                };
                let (then, otherwise) = (lines(this, true), lines(this, false));
                let condition = full.both(k.clone().plus(index(3)).less(depth.clone()));
                vec![Stmt::If { condition, then, otherwise }]
            })];
        }
        match square {
            Some(side) if group == 1 && innermost(depth_axis) && width % side == 0 => {
                squares(this, side, width, (&start, &here, &lanes_left), &place)
            }
            _ => vec![this.for_loop("k", here, LoopKind::Serial, |this, k| {
                let k = start.plus(k);
                let there = lanes_left.clone().at_most(index(width));
                vec![this.for_loop("lane", there, LoopKind::Serial, |this, lane| {
                    let (buffer, from, write, to) = place(this, lane, k);
                    let value = Expr::load(buffer, from);
                    vec![Stmt::Store { buffer: write, index: to, value, valid: None }]
                })]
            })],
        }
    });
    lowering.launch(vec![body], false);
    Ok(to)
}

/// Where an element is read and written, for a lane within the tile and a position along the summed axis.
type Place<'p> = dyn Fn(&mut Lowering, Expr, Expr) -> (BufferId, Expr, BufferId, Expr) + 'p;

/// Tiles whose lanes are far apart and whose summed axis is innermost: squares, transposed in registers. `start`, the
/// positions from there and the lanes that are left bound what is read.
fn squares(
    this: &mut Lowering,
    side: i64,
    width: i64,
    (start, here, lanes_left): (&Expr, &Expr, &Expr),
    place: &Place,
) -> Vec<Stmt> {
    let index = Expr::index;
    vec![this.for_loop("square", here.clone().over_up(index(side)), LoopKind::Serial, |this, square| {
        let offset = square.times(index(side));
        let (k, left) = (start.clone().plus(offset.clone()), here.clone().minus(offset));
        let body = |this: &mut Lowering, whole: bool| {
            let mut stmts = Vec::new();
            for first in (0..width).step_by(side as usize) {
                let rows: Vec<Var> = (first..first + side)
                    .map(|lane| {
                        let lane = match whole {
                            true => index(lane),
                            false => index(lane).at_most(lanes_left.clone().minus(index(1))),
                        };
                        let (buffer, from, ..) = place(this, lane, k.clone());
                        let valid = (!whole).then(|| Box::new(left.clone()));
                        let value = Expr::Load { buffer, index: Box::new(from), lanes: side as u16, valid };
                        let ty = this.kernel.type_of(&value);
                        let var = this.kernel.variable("lane", ty);
                        stmts.push(Stmt::Assign { var, value });
                        var
                    })
                    .collect();
                for (offset, row) in transpose_square(this, &mut stmts, &rows).into_iter().enumerate() {
                    let offset = index(offset as i64);
                    let (.., buffer, to) = place(this, index(first), k.clone().plus(offset.clone()));
                    let store = Stmt::Store { buffer, index: to, value: Expr::Var(row), valid: None };
                    stmts.push(match whole {
                        true => store,
                        false => Stmt::If {
                            condition: offset.less(left.clone()),
                            then: vec![store],
                            otherwise: vec![],
                        },
                    });
                }
            }
            stmts
        };
        let inside = index(side).less_equal(left.clone()).both(index(width).less_equal(lanes_left.clone()));
        let (then, otherwise) = (body(this, true), body(this, false));
        vec![Stmt::If { condition: inside, then, otherwise }]
    })]
}

/// Four lines of bytes, whose lanes come to stand together: `(width, lanes)` of a tile and of a vector of a line. `load`
/// gives such a vector for a member and its first lane, and where that element goes.
fn interleaved(
    this: &mut Lowering,
    (width, lanes): (i64, i64),
    load: impl Fn(&mut Lowering, i64, i64) -> (Expr, BufferId, Expr),
) -> Vec<Stmt> {
    let mut stmts = Vec::new();
    for first in (0..width).step_by(lanes as usize) {
        let members: Vec<Expr> = (0..4)
            .map(|member| {
                let value = load(this, member, first).0;
                let ty = this.kernel.type_of(&value);
                let var = this.kernel.variable("line", ty);
                stmts.push(Stmt::Assign { var, value });
                Expr::Var(var)
            })
            .collect();
        let lanes = lanes as u16;
        let mut pair = |a: usize, b: usize| {
            let picks = (0..2 * lanes).map(|lane| lane / 2 + lane % 2 * lanes).collect();
            let value = Expr::Shuffle(Box::new(members[a].clone()), Box::new(members[b].clone()), picks);
            let ty = this.kernel.type_of(&value);
            let var = this.kernel.variable("pair", ty);
            stmts.push(Stmt::Assign { var, value });
            Box::new(Expr::Var(var))
        };
        let (low, high) = (pair(0, 1), pair(2, 3));
        let picks = (0..4 * lanes).map(|lane| lane / 4 * 2 + lane % 2 + lane % 4 / 2 * (2 * lanes)).collect();
        let (_, buffer, to) = load(this, 0, first);
        let value = Expr::Shuffle(low, high, picks);
        stmts.push(Stmt::Store { buffer, index: to, value, valid: None });
    }
    stmts
}
