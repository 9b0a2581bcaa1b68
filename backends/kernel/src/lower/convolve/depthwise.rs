//! Depthwise convolutions of channels-last images.

use tcc_ir::dim::Dim;

use super::{Geometry, finish, inside};
use crate::ir::{Expr, LoopKind, Stmt, Var};
use crate::lower::contract::multiply_add;
use crate::lower::{Argument, LowerError, Lowering};

/// Output positions whose sums a depthwise tile keeps in registers: as many as keep two multiply-adds a cycle going.
const DEPTHWISE_ROWS: i64 = 8;

/// Vectors of channels that a position at the border takes at a time, for the same reason.
const BORDER_VECTORS: u16 = 4;

/// Positions of a tile, for `interior` positions in a row that a tile may hold: the fewest rounds, then the least overlap.
fn depthwise_rows(interior: Option<i64>) -> i64 {
    let Some(interior) = interior.filter(|interior| *interior > 0) else { return DEPTHWISE_ROWS };
    let rounds = (interior + DEPTHWISE_ROWS - 1) / DEPTHWISE_ROWS;
    (interior + rounds - 1) / rounds
}

/// Channels-last depthwise convolution: vectors of channels, a few neighbouring positions at a time where all taps are
/// inside, single positions with bounded taps at the borders. The last tile of a row moves back to end with it.
pub fn depthwise(lowering: &mut Lowering, geometry: &Geometry) -> Result<(), LowerError> {
    let spatial = geometry.spatial;
    let result = lowering.results[0].clone();
    let filter = lowering.operands[1].clone();
    let taps = geometry.filter_extents(&filter);
    let last = spatial - 1;
    let out_extents = geometry.extents(&result);
    let mut outer_shape = vec![result.shape[0].clone()];
    outer_shape.extend_from_slice(&out_extents[..last]);
    if let Some(row) = Row::of(lowering, geometry) {
        let body = row.tasks(lowering, geometry, &taps, &outer_shape);
        lowering.launch(vec![body], false);
        return Ok(());
    }
    let tasks = Dim::product(&outer_shape);
    let tasks = lowering.dim(&tasks);
    let lanes = lowering.tuning.lanes(geometry.accumulator);
    let channels = lowering.dim(&geometry.channels(&result));
    let width = lowering.dim(&out_extents[last]);
    let input_width = lowering.dim(&geometry.extents(&lowering.operands[0].clone())[last]);
    let (stride, dilation, low) = (geometry.strides[last], geometry.dilations[last], geometry.low[last]);
    // Positions from `left` up to `right` read inside the input with every tap of the last axis.
    let reach = lowering.dim(&taps[last]).minus(Expr::index(1)).times(Expr::index(dilation));
    let left = Expr::index(low.max(0)).over_up(Expr::index(stride)).at_most(width.clone());
    let room = input_width.plus(Expr::index(low)).minus(reach).at_least(Expr::index(0));
    let right = room.over_up(Expr::index(stride)).at_most(width.clone()).at_least(left.clone());
    let interior = right.clone().minus(left.clone());
    let rows = depthwise_rows(interior.as_index());
    let fits = Expr::index(rows).less_equal(interior.clone());
    let (tiles, tiled_end) = match interior.as_index() {
        Some(interior) if interior < rows => (Expr::index(0), left.clone()),
        Some(_) => (interior.over_up(Expr::index(rows)), right.clone()),
        None => (
            fits.clone().choose(interior.over_up(Expr::index(rows)), Expr::index(0)),
            fits.choose(right.clone(), left.clone()),
        ),
    };
    let body = lowering.for_loop("task", tasks, LoopKind::Parallel, |this, task| {
        let outer = this.decode(task, &outer_shape);
        let mut stmts = Vec::new();
        let borders = [(Expr::index(0), left.clone()), (tiled_end, width.clone())];
        let tiles_loop = this.for_loop("tile", tiles, LoopKind::Serial, |this, tile| {
            let first = left.clone().plus(tile.times(Expr::index(rows)));
            let first = first.at_most(right.clone().minus(Expr::index(rows)));
            this.vector_line(Expr::index(0), channels.clone(), lanes, &mut |this, channel| {
                depthwise_tile(this, geometry, &taps, &outer, first.clone(), rows, channel, Edge::Inside)
            })
        });
        stmts.push(tiles_loop);
        for (start, end) in borders {
            stmts.push(this.for_loop(
                "border",
                end.minus(start.clone()),
                LoopKind::Serial,
                |this, offset| {
                    let first = start.plus(offset);
                    let lanes = if lanes > 1 { lanes * BORDER_VECTORS } else { lanes };
                    this.vector_line(Expr::index(0), channels.clone(), lanes, &mut |this, channel| {
                        depthwise_tile(
                            this,
                            geometry,
                            &taps,
                            &outer,
                            first.clone(),
                            1,
                            channel,
                            Edge::Bounded,
                        )
                    })
                },
            ));
        }
        stmts
    });
    lowering.launch(vec![body], false);
    Ok(())
}

/// A row of output positions whose extents are known, so that the taps of each position at the border are known too.
struct Row {
    /// Positions.
    width: i64,
    /// Positions of the input.
    input: i64,
    /// Taps of the last axis.
    taps: i64,
    /// Positions of a tile.
    rows: i64,
}

/// More tiles at the borders than these are not worth their code.
const MOST_BORDER_TILES: usize = 4;

impl Row {
    /// The last axis of a convolution; none where an extent is not known or too many tiles lie at the borders.
    fn of(lowering: &Lowering, geometry: &Geometry) -> Option<Row> {
        if lowering.tuning.gpu.is_some() {
            return None;
        }
        let last = geometry.spatial - 1;
        let extent = |shape: Vec<Dim>| shape[last].as_const().filter(|extent| *extent > 0);
        let width = extent(geometry.extents(&lowering.results[0]))?;
        let input = extent(geometry.extents(&lowering.operands[0]))?;
        let taps = extent(geometry.filter_extents(&lowering.operands[1]))?;
        let rows = depthwise_rows(Some(width));
        let row = Row { width, input, taps, rows };
        let border = row.starts().filter(|first| !row.is_inside(geometry, *first)).count();
        (border <= MOST_BORDER_TILES).then_some(row)
    }

    /// First position of each tile; the last one moves back to end with the row.
    fn starts(&self) -> impl Iterator<Item = i64> {
        (0..self.width).step_by(self.rows as usize).map(|first| first.min(self.width - self.rows))
    }

    /// True where a position reads inside the input with a tap.
    fn reads(&self, geometry: &Geometry, position: i64, tap: i64) -> bool {
        let last = geometry.spatial - 1;
        let at = position * geometry.strides[last] - geometry.low[last] + tap * geometry.dilations[last];
        (0..self.input).contains(&at)
    }

    /// True where every position of a tile reads inside the input with every tap.
    fn is_inside(&self, geometry: &Geometry, first: i64) -> bool {
        (first..first + self.rows).all(|at| (0..self.taps).all(|tap| self.reads(geometry, at, tap)))
    }

    /// The loop over tasks: some channels of some neighbouring rows, so that what a row reads is still in the first-level
    /// cache when the next one does. `outer` are the extents of the batch and of all spatial axes but the last.
    fn tasks(&self, lowering: &mut Lowering, geometry: &Geometry, taps: &[Dim], outer: &[Dim]) -> Stmt {
        let result = lowering.results[0].clone();
        let channels = geometry.channels(&result);
        let strip = channel_strip(lowering, geometry, &channels);
        let strips = channels.as_const().map_or(1, |channels| channels / strip.unwrap_or(channels).max(1));
        let index = Expr::index;
        let last = outer.len() - 1;
        let block = match (outer.len(), outer[last].as_const()) {
            (1, _) => 1,
            (_, Some(rows)) => (rows * strips / LEAST_TASKS).clamp(1, MOST_TASK_ROWS),
            (_, None) => MOST_TASK_ROWS / 2,
        };
        let mut domain = outer.to_vec();
        domain[last] = outer[last].ceil_div(&Dim::Const(block));
        domain.push(Dim::Const(strips));
        let tasks = lowering.dim(&Dim::product(&domain));
        let rows = lowering.dim(&outer[last]);
        let extent = strip.map_or_else(|| lowering.dim(&channels), index);
        lowering.for_loop("task", tasks, LoopKind::Parallel, |this, task| {
            let mut at = this.decode(task, &domain);
            let first = at.pop().unwrap_or(index(0)).times(extent.clone());
            let base = at[last].clone().times(index(block));
            let count = rows.minus(base.clone()).at_most(index(block));
            self.tiles(
                this,
                |this, start, edge| {
                    vec![this.for_loop("row", count.clone(), LoopKind::Serial, |this, row| {
                        let mut outer = at.clone();
                        outer[last] = base.clone().plus(row);
                        let lanes = this.tuning.lanes(geometry.accumulator);
                        this.vector_line(first.clone(), extent.clone(), lanes, &mut |this, channel| {
                            depthwise_tile(
                                this,
                                geometry,
                                taps,
                                &outer,
                                start.clone(),
                                self.rows,
                                channel,
                                edge,
                            )
                        })
                    })]
                },
                geometry,
            )
        })
    }

    /// All tiles of a row: those inside by a loop, each of the others with the taps that it has. `tile` takes the first
    /// position.
    fn tiles(
        &self,
        lowering: &mut Lowering,
        tile: impl Fn(&mut Lowering, Expr, Edge) -> Vec<Stmt>,
        geometry: &Geometry,
    ) -> Vec<Stmt> {
        let mut stmts = Vec::new();
        let starts: Vec<i64> = self.starts().collect();
        let mut next = 0;
        while next < starts.len() {
            let start = starts[next];
            let run = starts[next..].iter().take_while(|first| self.is_inside(geometry, **first)).count();
            if run == 0 {
                stmts.extend(tile(lowering, Expr::index(start), Edge::Known(self, start)));
                next += 1;
                continue;
            }
            let last = Expr::index(self.width - self.rows);
            stmts.push(lowering.for_loop(
                "tile",
                Expr::index(run as i64),
                LoopKind::Serial,
                |this, number| {
                    let first = Expr::index(start).plus(number.times(Expr::index(self.rows))).at_most(last);
                    tile(this, first, Edge::Inside)
                },
            ));
            next += run;
        }
        stmts
    }
}

/// Rows of a task at most.
const MOST_TASK_ROWS: i64 = 8;

/// Tasks that there are at least where rows and channels allow it, so that threads share them evenly.
const LEAST_TASKS: i64 = 16;

/// Vectors of channels in a task at most: a few lines of a tile's width fit the first-level cache.
const MOST_STRIP: i64 = 9;

/// Channels of a task, a divisor of all; none where all of them are one strip.
fn channel_strip(lowering: &Lowering, geometry: &Geometry, channels: &Dim) -> Option<i64> {
    let lanes = i64::from(lowering.tuning.lanes(geometry.accumulator));
    let channels = channels.as_const().filter(|channels| channels % lanes == 0 && *channels > 0)?;
    let vectors = channels / lanes;
    // Strips of a vector or two would leave most of each line to other tasks.
    let strip = (MOST_STRIP / 2..=MOST_STRIP).rev().find(|strip| vectors % strip == 0)?;
    (strip < vectors).then_some(strip * lanes)
}

/// What is known of the taps of a tile along the last axis.
#[derive(Clone, Copy)]
enum Edge<'r> {
    /// All of them read inside the input.
    Inside,
    /// They depend on the first position, which is known.
    Known(&'r Row, i64),
    /// They are bounded at run time; the tile has one position.
    Bounded,
}

#[allow(clippy::too_many_arguments, reason = "a tile is where and how large")]
fn depthwise_tile(
    lowering: &mut Lowering,
    geometry: &Geometry,
    taps: &[Dim],
    outer: &[Expr],
    first: Expr,
    rows: i64,
    channel: Expr,
    edge: Edge,
) -> Vec<Stmt> {
    let spatial = geometry.spatial;
    let last = spatial - 1;
    let accumulator = geometry.accumulator;
    let (input, filter) = (lowering.operands[0].clone(), lowering.operands[1].clone());
    let input_extents = geometry.extents(&input);
    let (mut stmts, mut sums) = (Vec::new(), Vec::new());
    for row in 0..rows {
        let (sum, stmt) = lowering.assign(&format!("sum{row}"), Expr::constant(accumulator, 0.0));
        stmts.push(stmt);
        sums.push(sum);
    }
    let counters: Vec<Var> = (0..spatial).map(|axis| lowering.kernel.counter(&format!("k{axis}"))).collect();
    let mut extents = Vec::new();
    let mut positions = Vec::new();
    for axis in 0..spatial {
        let count = lowering.dim(&taps[axis]);
        let at = if axis == last { first.clone() } else { outer[axis + 1].clone() };
        if axis == last && !matches!(edge, Edge::Bounded) {
            extents.push(count);
            positions.push(Expr::Var(counters[axis]));
        } else {
            let input_extent = lowering.dim(&input_extents[axis]);
            let (stride, dilation) = (geometry.strides[axis], geometry.dilations[axis]);
            let (from, inside) = inside(at, stride, dilation, geometry.low[axis], input_extent, count);
            extents.push(inside);
            positions.push(from.plus(Expr::Var(counters[axis])));
        }
    }
    let update = |lowering: &mut Lowering, positions: &[Expr], rows: &dyn Fn(i64) -> bool| {
        let at = geometry.filter(channel.clone(), Expr::index(0), positions.to_vec());
        let weight = lowering.load(Argument::Operand(1), &at);
        let (weight, weight_stmt) = lowering.assign("w", weight.cast(filter.dtype(), accumulator));
        let mut body = vec![weight_stmt];
        for (row, sum) in sums.iter().enumerate().filter(|(row, _)| rows(*row as i64)) {
            let read_at = (0..spatial).map(|axis| {
                let at = match axis == last {
                    true => first.clone().plus(Expr::index(row as i64)),
                    false => outer[axis + 1].clone(),
                };
                let start =
                    at.times(Expr::index(geometry.strides[axis])).minus(Expr::index(geometry.low[axis]));
                start.plus(positions[axis].clone().times(Expr::index(geometry.dilations[axis])))
            });
            let at = geometry.image(outer[0].clone(), channel.clone(), read_at.collect());
            let x = lowering.load(Argument::Operand(0), &at).cast(input.dtype(), accumulator);
            let value = multiply_add(accumulator, x, Expr::Var(weight), Expr::Var(*sum));
            body.push(Stmt::Assign { var: *sum, value });
        }
        body
    };
    let mut axes = spatial;
    let mut body = match edge {
        Edge::Known(known, start) => {
            axes = last;
            let mut body = Vec::new();
            for tap in 0..known.taps {
                positions[last] = Expr::index(tap);
                let reads = |row: i64| known.reads(geometry, start + row, tap);
                if (0..rows).any(reads) {
                    body.extend(update(lowering, &positions, &reads));
                }
            }
            body
        }
        _ => update(lowering, &positions, &|_| true),
    };
    for axis in (0..axes).rev() {
        let small = extents[axis].as_index().is_some_and(|extent| extent <= 7);
        let kind = if axis == last && small { LoopKind::Unroll } else { LoopKind::Serial };
        body = vec![Stmt::For { var: counters[axis], extent: extents[axis].clone(), kind, body }];
    }
    stmts.extend(body);
    for (row, sum) in sums.iter().enumerate() {
        let mut positions: Vec<Expr> = outer[1..].to_vec();
        positions.push(first.clone().plus(Expr::index(row as i64)));
        let at = geometry.image(outer[0].clone(), channel.clone(), positions);
        stmts.extend(finish(lowering, &geometry.epilogue, Expr::Var(*sum), &at));
    }
    stmts
}
