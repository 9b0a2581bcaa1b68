//! Winograd's convolutions F(2 x 2, 3 x 3) and F(4 x 4, 3 x 3): channels last, stride 1, filters known at compile time.
//!
//! A tile of outputs is `A^T ((G g G^T) * (B^T d B)) A`, the product in the middle being a matrix multiplication over the
//! channels for each point. F(4 x 4) multiplies 36 times for 16 outputs, where the direct sum multiplies 144 times.
//! `G g G^T` is made at compile time. A task transforms a block of tiles into scratch memory that stays in the second-level
//! cache, then, a strip of output channels at a time, multiplies and transforms back.
//!
//! F(4 x 4) interpolates at 0, 1, -1, 1/2, -2: the entries of `A` and `B` are exact, and on sums over 16 to 256 channels its
//! largest error is within four times that of the direct sum (a test holds it to that). The usual points 0, 1, -1, 2, -2
//! have three times as much.

use bytes::Bytes;
use tcc_ir::data::{Data, DataError};
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;
use tcc_ir::types::TensorType;
use tcc_ir::words::Layout;

use super::contract::Tile;
use super::convolve::{Geometry, finish};
use super::{Argument, LowerError, Lowering, PackedLayout, Packing, Tuning};
use crate::ir::{Access, BufferId, Expr, LoopKind, Space, Stmt, Var};
use crate::steps::{Tail, predicate_accesses, substitute};

/// Taps of the filter along an axis.
const TAPS: usize = 3;

/// The matrices of one size of tile.
#[derive(PartialEq, Debug)]
pub struct Algorithm {
    /// Outputs of a tile along an axis.
    outputs: usize,
    /// `A^T`: outputs by points.
    output: &'static [&'static [f64]],
    /// `B^T`: points by points.
    input: &'static [&'static [f64]],
    /// `G`: points by taps.
    filter: &'static [[f64; TAPS]],
}

/// F(2 x 2, 3 x 3) at the points 0, 1, -1 and infinity.
static SMALL: Algorithm = Algorithm {
    outputs: 2,
    output: &[&[1.0, 1.0, 1.0, 0.0], &[0.0, 1.0, -1.0, -1.0]],
    input: &[&[1.0, 0.0, -1.0, 0.0], &[0.0, 1.0, 1.0, 0.0], &[0.0, -1.0, 1.0, 0.0], &[0.0, 1.0, 0.0, -1.0]],
    filter: &[[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]],
};

/// F(4 x 4, 3 x 3) at the points 0, 1, -1, 1/2, -2 and infinity.
static LARGE: Algorithm = Algorithm {
    outputs: 4,
    output: &[
        &[1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        &[0.0, 1.0, -1.0, 0.5, -2.0, 0.0],
        &[0.0, 1.0, 1.0, 0.25, 4.0, 0.0],
        &[0.0, 1.0, -1.0, 0.125, -8.0, 1.0],
    ],
    input: &[
        &[1.0, -1.5, -2.0, 1.5, 1.0, 0.0],
        &[0.0, -1.0, 0.5, 2.5, 1.0, 0.0],
        &[0.0, 1.0, -2.5, 0.5, 1.0, 0.0],
        &[0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
        &[0.0, 0.5, -1.0, -0.5, 1.0, 0.0],
        &[0.0, 1.0, -1.5, -2.0, 1.5, 1.0],
    ],
    filter: &[
        [1.0, 0.0, 0.0],
        [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0],
        [-1.0 / 3.0, 1.0 / 3.0, -1.0 / 3.0],
        [-16.0 / 15.0, -8.0 / 15.0, -4.0 / 15.0],
        [1.0 / 15.0, -2.0 / 15.0, 4.0 / 15.0],
        [0.0, 0.0, 1.0],
    ],
};

impl Algorithm {
    /// Points along an axis, which is also how many inputs a tile reads along it.
    fn points(&self) -> usize {
        self.input.len()
    }

    /// `G g G^T` of every pair of channels: `[3, 3, in, out]` becomes `[points * points, in, out]`. Computed in f64 and
    /// rounded once.
    pub fn transform_filter(&self, data: &Data) -> Result<Data, DataError> {
        let points = self.points();
        let pairs = data.count() / (TAPS * TAPS);
        let values: Vec<f64> = data
            .bytes()
            .chunks_exact(4)
            .map(|bytes| f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])))
            .collect();
        let mut bytes = Vec::with_capacity(points * points * pairs * 4);
        for row in self.filter {
            for column in self.filter {
                let mut sums = vec![0.0; pairs];
                for (i, a) in row.iter().enumerate() {
                    for (j, b) in column.iter().enumerate().filter(|(_, b)| a * **b != 0.0) {
                        let from = (i * TAPS + j) * pairs;
                        sums.iter_mut()
                            .zip(&values[from..from + pairs])
                            .for_each(|(sum, value)| *sum += a * b * value);
                    }
                }
                bytes.extend(sums.iter().flat_map(|sum| (*sum as f32).to_le_bytes()));
            }
        }
        let shape = [points * points, data.shape()[2], data.shape()[3]];
        Data::new(DType::F32, &shape, Bytes::from(bytes))
    }
}

/// How a convolution is computed by one of the algorithms.
pub struct Plan {
    algorithm: &'static Algorithm,
    /// Input and output channels.
    channels: (i64, i64),
    /// Tiles of a block.
    block: i64,
    /// The register tile of the multiplications: tiles by output channels.
    tile: Tile,
    /// Strips of output channels that a task computes.
    strips: i64,
    /// Modelled cycles.
    cycles: f64,
}

/// Tiles that an image of unknown size is taken to have.
const MANY_TILES: i64 = 4096;

/// Tasks that a kernel should have, so that threads end at about the same time.
const TASKS: i64 = 8;

/// Output channels that a task computes at least: below, transforming the inputs for each strip costs too much.
const STRIP_CHANNELS: i64 = 64;

/// Cycles that transforming a vector of channels takes for each point.
const TRANSFORM_CYCLES: f64 = 3.0;

/// Bytes a cycle that come from the second-level cache, and from behind it.
const NEAR_BYTES: f64 = 48.0;
const FAR_BYTES: f64 = 6.0;

impl Plan {
    fn new(
        algorithm: &'static Algorithm,
        channels: (i64, i64),
        tiles: Option<i64>,
        native: i64,
        tuning: &Tuning,
    ) -> Plan {
        let points = (algorithm.points() * algorithm.points()) as i64;
        let tiles = tiles.unwrap_or(MANY_TILES);
        let (inputs, outputs) = channels;
        let largest = (tuning.l2_bytes as i64 * 3 / 4 / (points * inputs * 4)).clamp(1, tiles.max(1));
        let plan = |block: i64| {
            let (tile, step) = Tile::modelled(Some(block), Some(outputs), native, tuning);
            let strips = (outputs + tile.lanes - 1) / tile.lanes;
            let blocks = (tiles + block - 1) / block;
            let padded = strips * tile.lanes;
            let products = (points * inputs) as f64 * step;
            let weights = (points * inputs * padded * 4) as f64;
            let near = weights <= tuning.l2_bytes as f64 / 2.0;
            let stream = weights / if near { NEAR_BYTES } else { FAR_BYTES };
            let mut groups = if blocks >= TASKS { 1 } else { (TASKS + blocks - 1) / blocks };
            groups = groups.min(outputs / STRIP_CHANNELS).max(1);
            let strips_each = (strips + groups - 1) / groups;
            let groups = (strips + strips_each - 1) / strips_each;
            let vectors = (inputs + native - 1) / native * groups + padded / native;
            let transform = (block * vectors * points) as f64 * TRANSFORM_CYCLES;
            // Threads wait for the last task: the more tasks, the less.
            let idle = 1.0 + 0.25 / (blocks * groups) as f64;
            let cycles = blocks as f64 * (products.max(stream) + transform) * idle;
            Plan { algorithm, channels, block, tile, strips: strips_each, cycles }
        };
        let mut best = plan(largest);
        for block in 1..largest {
            let next = plan(block);
            if next.cycles < best.cycles {
                best = next;
            }
        }
        best
    }

    /// The best plan, where it beats the direct sum.
    pub fn choose(lowering: &Lowering, geometry: &Geometry) -> Option<Plan> {
        let (input, filter) = (&lowering.operands[0], &lowering.operands[1]);
        let result = &lowering.results[0];
        let plain = geometry.layout == Layout::ChannelsLast
            && geometry.groups == 1
            && geometry.spatial == 2
            && geometry.strides.iter().chain(&geometry.dilations).all(|step| *step == 1);
        let float = [input.dtype(), filter.dtype(), geometry.accumulator].iter().all(|ty| *ty == DType::F32);
        let shape = filter.static_shape()?;
        let native = i64::from(lowering.tuning.lanes(DType::F32));
        if !plain || !float || !lowering.constant[1] || shape[..2] != [TAPS, TAPS] || native < 4 {
            return None;
        }
        let channels = (shape[2] as i64, shape[3] as i64);
        if channels.0 < native || channels.1 < native {
            return None;
        }
        let extents = geometry.extents(result);
        let known = |dims: &[Dim]| -> Option<i64> { dims.iter().map(Dim::as_const).product() };
        let plans = [&SMALL, &LARGE].map(|algorithm| {
            let side = Dim::Const(algorithm.outputs as i64);
            let counts = [result.shape[0].clone(), extents[0].ceil_div(&side), extents[1].ceil_div(&side)];
            Plan::new(algorithm, channels, known(&counts), native, lowering.tuning)
        });
        let best = plans.into_iter().min_by(|a, b| a.cycles.total_cmp(&b.cycles))?;
        let outputs = (best.algorithm.outputs * best.algorithm.outputs) as i64;
        let positions = known(&result.shape[..3]).unwrap_or(MANY_TILES * outputs);
        let row = extents[1].as_const();
        let (tile, step) = Tile::modelled(row, Some(channels.1), native, lowering.tuning);
        let padded = (channels.1 + tile.lanes - 1) / tile.lanes * tile.lanes;
        let products = (TAPS * TAPS) as i64 * channels.0;
        // Every weight is read at least once.
        let direct = positions as f64 / row.unwrap_or(1).max(1) as f64 * step * products as f64;
        let products = products * padded;
        let near = products * 4 <= lowering.tuning.l2_bytes as i64 / 2;
        let direct = direct.max((products * 4) as f64 / if near { NEAR_BYTES } else { FAR_BYTES });
        (best.cycles * 1.15 < direct).then_some(best)
    }
}

/// Buffers and extents that the parts of a task share.
struct Task<'g> {
    geometry: &'g Geometry,
    plan: &'g Plan,
    /// Batch, and tiles along both axes.
    counts: [Dim; 3],
    /// Block of tiles.
    block: Expr,
    /// `[points, block, in]`: transformed inputs.
    inputs: BufferId,
    /// `[points, block, strip]`: their products with the filters.
    products: BufferId,
    /// `[outputs, strip]`: a tile transformed back.
    outputs: BufferId,
}

/// Lowers a convolution by a plan.
pub fn winograd(lowering: &mut Lowering, geometry: &Geometry, plan: &Plan) -> Result<(), LowerError> {
    let Plan { algorithm, channels: (in_channels, out_channels), block, tile, strips, .. } = *plan;
    let filter = lowering.operands[1].clone();
    let points = (algorithm.points() * algorithm.points()) as i64;
    let layout = PackedLayout { order: vec![2, 0, 1], lane_axis: 2, width: tile.lanes as usize, group: None };
    let transformed = [Dim::Const(points), Dim::Const(in_channels), Dim::Const(out_channels)];
    let packed = TensorType::new(DType::F32, layout.shape(&transformed));
    let weights = lowering.packed(Packing {
        operand: 1,
        source: filter.shape.clone(),
        winograd: Some(algorithm),
        layout,
        packed,
    });
    let extents = geometry.extents(&lowering.results[0]);
    let side = Dim::Const(algorithm.outputs as i64);
    let counts =
        [lowering.results[0].shape[0].clone(), extents[0].ceil_div(&side), extents[1].ceil_div(&side)];
    let tiles = Dim::product(&counts);
    let all_strips = (out_channels + tile.lanes - 1) / tile.lanes;
    let groups = (all_strips + strips - 1) / strips;
    let scratch = |lowering: &mut Lowering, name: &str, count: i64| {
        lowering.kernel.buffer(name, DType::F32, Space::Scratch, Expr::index(count), Access::ReadWrite)
    };
    let inputs = scratch(lowering, "inputs", points * block * in_channels);
    let products = scratch(lowering, "products", points * block * tile.lanes);
    let outputs = scratch(lowering, "outputs", (algorithm.outputs * algorithm.outputs) as i64 * tile.lanes);
    let tasks = tiles.ceil_div(&Dim::Const(block)) * Dim::Const(groups);
    let tasks = lowering.dim(&tasks);
    let (row, lane) = (lowering.kernel.counter("row"), lowering.kernel.counter("lane"));
    let sum = lowering.kernel.buffer("sum", DType::F32, Space::Register, Expr::index(1), Access::ReadWrite);
    let body = lowering.for_loop("task", tasks, LoopKind::Parallel, |this, number| {
        let at = number.clone().over(Expr::index(groups));
        let first = number.remainder(Expr::index(groups)).times(Expr::index(strips));
        let task = Task { geometry, plan, counts: counts.clone(), block: at, inputs, products, outputs };
        let count = Expr::index(all_strips).minus(first.clone()).at_most(Expr::index(strips));
        let mut stmts = vec![task.transform_inputs(this)];
        stmts.push(this.for_loop("strip", count, LoopKind::Serial, |this, strip| {
            let strip = first.plus(strip);
            vec![
                this.for_loop("point", Expr::index(points), LoopKind::Serial, |this, point| {
                    vec![task.multiply(this, weights, strip.clone(), point, row, lane, sum)]
                }),
                task.transform_outputs(this, strip),
            ]
        }));
        stmts
    });
    let kernel = &mut lowering.kernel;
    kernel.body = vec![body];
    kernel.vectorize(lane)?;
    let (_, full_rows) = kernel.split(row, tile.rows, Tail::Shift)?;
    kernel.unroll(full_rows)?;
    kernel.stage(lane, sum)?;
    kernel.stage(full_rows, sum)?;
    let body = std::mem::take(&mut lowering.kernel.body);
    lowering.launch_epilogue(body, true);
    Ok(())
}

impl Task<'_> {
    /// Statements that set batch and first output position of tile `index` of the block, and those. A block that reaches past
    /// the last tile computes the last one again.
    fn tile(&self, this: &mut Lowering, index: Expr) -> (Vec<Stmt>, [Expr; 3]) {
        let tiles = Dim::product(&self.counts);
        let last = this.dim(&tiles).minus(Expr::index(1));
        let number = self.block.clone().times(Expr::index(self.plan.block)).plus(index).at_most(last);
        let (number, set) = this.assign("tile", number);
        let mut stmts = vec![set];
        let decoded = this.decode(Expr::Var(number), &self.counts);
        let side = Expr::index(self.plan.algorithm.outputs as i64);
        let steps = [Expr::index(1), side.clone(), side];
        let at: Vec<Expr> = ["n", "y", "x"]
            .iter()
            .zip(decoded.into_iter().zip(steps))
            .map(|(name, (position, step))| {
                let (var, set) = this.assign(name, position.times(step));
                stmts.push(set);
                Expr::Var(var)
            })
            .collect();
        (stmts, [at[0].clone(), at[1].clone(), at[2].clone()])
    }

    /// `B^T d B` of every tile of the block.
    fn transform_inputs(&self, this: &mut Lowering) -> Stmt {
        let points = self.plan.algorithm.points();
        let (channels, _) = self.plan.channels;
        let lanes = this.tuning.lanes(DType::F32);
        let input = this.operands[0].clone();
        this.for_loop("t", Expr::index(self.plan.block), LoopKind::Serial, |this, index| {
            let (mut stmts, [batch, y, x]) = self.tile(this, index.clone());
            let (height, width) = (this.dim(&input.shape[1]), this.dim(&input.shape[2]));
            let low = &self.geometry.low;
            let (y, x) = (y.minus(Expr::index(low[0])), x.minus(Expr::index(low[1])));
            let fits = |start: &Expr, extent: &Expr| {
                let end = start.clone().plus(Expr::index(points as i64));
                Expr::index(0).less_equal(start.clone()).both(end.less_equal(extent.clone()))
            };
            let inside = fits(&y, &height).both(fits(&x, &width));
            let part = |this: &mut Lowering, bounded: bool| {
                let mut stmts = Vec::new();
                let (mut rows, mut columns) = (Vec::new(), Vec::new());
                for (start, extent, found) in [(&y, &height, &mut rows), (&x, &width, &mut columns)] {
                    for offset in 0..points {
                        let position = start.clone().plus(Expr::index(offset as i64));
                        if !bounded {
                            found.push((position, None));
                            continue;
                        }
                        let within = Expr::index(0)
                            .less_equal(position.clone())
                            .both(position.clone().less(extent.clone()));
                        let (within, set) = this.assign("within", within);
                        stmts.push(set);
                        let nearest =
                            position.at_most(extent.clone().minus(Expr::index(1))).at_least(Expr::index(0));
                        let (nearest, set) = this.assign("nearest", nearest);
                        stmts.push(set);
                        found.push((Expr::Var(nearest), Some(Expr::Var(within))));
                    }
                }
                stmts.extend(this.vector_line(
                    Expr::index(0),
                    Expr::index(channels),
                    lanes,
                    &mut |this, channel| {
                        let mut stmts = Vec::new();
                        let mut values = Vec::new();
                        for (y, y_within) in &rows {
                            for (x, x_within) in &columns {
                                let at = [batch.clone(), y.clone(), x.clone(), channel.clone()];
                                let mut value = this.load(Argument::Operand(0), &at);
                                if let (Some(a), Some(b)) = (y_within, x_within) {
                                    let within = a.clone().both(b.clone());
                                    value = within.choose(value, Expr::constant(DType::F32, 0.0));
                                }
                                let (value, set) = this.assign("d", value);
                                stmts.push(set);
                                values.push(value);
                            }
                        }
                        let values = both_axes(this, &mut stmts, self.plan.algorithm.input, points, &values);
                        for (point, value) in values.into_iter().enumerate() {
                            let row = Expr::index(point as i64 * self.plan.block).plus(index.clone());
                            stmts.push(Stmt::Store {
                                buffer: self.inputs,
                                index: row.times(Expr::index(channels)).plus(channel.clone()),
                                value: Expr::Var(value),
                                valid: None,
                            });
                        }
                        stmts
                    },
                ));
                stmts
            };
            let (then, otherwise) = (part(this, false), part(this, true));
            stmts.push(Stmt::If { condition: inside, then, otherwise });
            stmts
        })
    }

    /// The sums over the input channels for one point and a strip of output channels.
    #[allow(clippy::too_many_arguments, reason = "the caller schedules the loops that it names")]
    fn multiply(
        &self,
        this: &mut Lowering,
        weights: Argument,
        strip: Expr,
        point: Expr,
        row: Var,
        lane: Var,
        sum: BufferId,
    ) -> Stmt {
        let Plan { block, tile, channels: (channels, _), .. } = *self.plan;
        let zero = Expr::index(0);
        let line = point.clone().times(Expr::index(block)).plus(Expr::Var(row));
        let set = |buffer, index: Expr, value| Stmt::Store { buffer, index, value, valid: None };
        let start = set(sum, zero.clone(), Expr::constant(DType::F32, 0.0));
        let reduction = this.for_loop("c", Expr::index(channels), LoopKind::Serial, |this, channel| {
            let index = line.clone().times(Expr::index(channels)).plus(channel.clone());
            let a = Expr::load(self.inputs, index);
            let b = this.load(weights, &[strip, point, channel, Expr::Var(lane)]);
            let old = Expr::load(sum, zero.clone());
            vec![set(sum, zero.clone(), Expr::Fma(Box::new(a), Box::new(b), Box::new(old)))]
        });
        let index = line.times(Expr::index(tile.lanes)).plus(Expr::Var(lane));
        let end = set(self.products, index, Expr::load(sum, zero.clone()));
        let (extent, kind) = (Expr::index(tile.lanes), LoopKind::Serial);
        let lanes = Stmt::For { var: lane, extent, kind, body: vec![start, reduction, end] };
        Stmt::For { var: row, extent: Expr::index(block), kind, body: vec![lanes] }
    }

    /// `A^T m A`, the epilogue and the stores of every tile of the block.
    fn transform_outputs(&self, this: &mut Lowering, strip: Expr) -> Stmt {
        let Plan { algorithm, block, tile, channels: (_, out_channels), .. } = *self.plan;
        let (points, side) = (algorithm.points(), algorithm.outputs);
        let native = i64::from(this.tuning.lanes(DType::F32)).min(tile.lanes);
        let result = this.results[0].clone();
        // Each tile is written once, so that the result may take the memory of what the epilogue reads.
        let before = self.block.clone().times(Expr::index(block));
        let tiles = this.dim(&Dim::product(&self.counts)).minus(before).at_most(Expr::index(block));
        this.for_loop("t", tiles, LoopKind::Serial, |this, index| {
            let (mut stmts, [batch, y, x]) = self.tile(this, index.clone());
            stmts.push(this.for_loop(
                "v",
                Expr::index(tile.lanes / native),
                LoopKind::Serial,
                |this, vector| {
                    vec![this.for_loop("lane", Expr::index(native), LoopKind::Vector, |this, lane| {
                        let lane = vector.times(Expr::index(native)).plus(lane);
                        let mut stmts = Vec::new();
                        let mut values = Vec::new();
                        for point in 0..points * points {
                            let row = Expr::index(point as i64 * block).plus(index.clone());
                            let at = row.times(Expr::index(tile.lanes)).plus(lane.clone());
                            let (value, set) = this.assign("m", Expr::load(self.products, at));
                            stmts.push(set);
                            values.push(value);
                        }
                        let values = both_axes(this, &mut stmts, algorithm.output, points, &values);
                        for (output, value) in values.into_iter().enumerate() {
                            stmts.push(Stmt::Store {
                                buffer: self.outputs,
                                index: Expr::index(output as i64 * tile.lanes).plus(lane.clone()),
                                value: Expr::Var(value),
                                valid: None,
                            });
                        }
                        stmts
                    })]
                },
            ));
            let extents = self.geometry.extents(&result);
            let left = |this: &mut Lowering, axis: usize, start: &Expr| {
                this.dim(&extents[axis]).minus(start.clone()).at_most(Expr::index(side as i64))
            };
            let (rows, columns) = (left(this, 0, &y), left(this, 1, &x));
            stmts.push(this.for_loop("i", rows, LoopKind::Serial, |this, i| {
                vec![this.for_loop("j", columns, LoopKind::Serial, |this, j| {
                    let position = i.clone().times(Expr::index(side as i64)).plus(j.clone());
                    let channel = this.kernel.counter("channel");
                    let lane = this.kernel.counter("lane");
                    let at = position.times(Expr::index(tile.lanes)).plus(Expr::Var(lane));
                    let value = Expr::load(self.outputs, at);
                    let at = [batch.clone(), y.clone().plus(i), x.clone().plus(j), Expr::Var(channel)];
                    let mut body = finish(this, &self.geometry.epilogue, value, &at);
                    if out_channels % tile.lanes != 0 {
                        predicate_accesses(&this.kernel, &mut body, channel, &Expr::index(out_channels));
                    }
                    let first = strip.times(Expr::index(tile.lanes));
                    substitute(&mut body, channel, &first.plus(Expr::Var(lane)));
                    let extent = Expr::index(tile.lanes);
                    vec![Stmt::For { var: lane, extent, kind: LoopKind::Vector, body }]
                })]
            }));
            stmts
        })
    }
}

/// `M v M^T` of a square of values, row-major with rows of `side`.
fn both_axes(
    this: &mut Lowering,
    stmts: &mut Vec<Stmt>,
    matrix: &[&[f64]],
    side: usize,
    values: &[Var],
) -> Vec<Var> {
    let mut down = Vec::new();
    for row in matrix {
        for column in 0..side {
            let line: Vec<Var> = (0..side).map(|index| values[index * side + column]).collect();
            down.push(weighted_sum(this, stmts, row, &line));
        }
    }
    let lines = down.chunks_exact(side).map(<[Var]>::to_vec).collect::<Vec<_>>();
    lines
        .iter()
        .flat_map(|line| matrix.iter().map(|row| weighted_sum(this, stmts, row, line)).collect::<Vec<_>>())
        .collect()
}

/// A sum of variables times constants, terms of weight 1 first.
fn weighted_sum(this: &mut Lowering, stmts: &mut Vec<Stmt>, weights: &[f64], values: &[Var]) -> Var {
    let mut terms: Vec<(f64, Expr)> = weights
        .iter()
        .zip(values)
        .filter(|(weight, _)| **weight != 0.0)
        .map(|(weight, value)| (*weight, Expr::Var(*value)))
        .collect();
    terms.sort_by_key(|(weight, _)| *weight != 1.0);
    let number = |weight| Expr::constant(DType::F32, weight);
    let sum = terms.into_iter().fold(None, |sum, (weight, value)| {
        Some(match sum {
            None if weight == 1.0 => value,
            None => Expr::call(Function::Mul, vec![value, number(weight)]),
            Some(sum) if weight == 1.0 => Expr::call(Function::Add, vec![sum, value]),
            Some(sum) if weight == -1.0 => Expr::call(Function::Sub, vec![sum, value]),
            Some(sum) => Expr::Fma(Box::new(value), Box::new(number(weight)), Box::new(sum)),
        })
    });
    let (var, set) = this.assign("w", sum.unwrap_or_else(|| number(0.0)));
    stmts.push(set);
    var
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrices_compute_a_convolution() {
        // sum over j of A[i, j] G[j, k] B[j, l] is 1 where output i takes input l with tap k.
        for algorithm in [&SMALL, &LARGE] {
            for i in 0..algorithm.outputs {
                for k in 0..TAPS {
                    for l in 0..algorithm.points() {
                        let terms = (0..algorithm.points())
                            .map(|j| algorithm.output[i][j] * algorithm.filter[j][k] * algorithm.input[j][l]);
                        let wanted = if l == i + k { 1.0 } else { 0.0 };
                        assert!((terms.sum::<f64>() - wanted).abs() < 1e-12, "{i} {k} {l}");
                    }
                }
            }
        }
    }

    /// The largest errors of the tiles of an algorithm and of direct sums, both in f32, over random tiles of `channels`.
    fn largest_errors(algorithm: &Algorithm, channels: usize) -> (f64, f64) {
        let (points, outputs) = (algorithm.points(), algorithm.outputs);
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        // `M v M^T` in f32.
        let both = |matrix: &[&[f64]], values: &[f32]| -> Vec<f32> {
            let sum = |weights: &[f64], at: &dyn Fn(usize) -> f32| {
                weights
                    .iter()
                    .enumerate()
                    .fold(0.0f32, |sum, (index, weight)| at(index).mul_add(*weight as f32, sum))
            };
            let down: Vec<f32> = matrix
                .iter()
                .flat_map(|row| {
                    (0..points).map(|column| sum(row, &|i| values[i * points + column])).collect::<Vec<_>>()
                })
                .collect();
            down.chunks(points)
                .flat_map(|line| matrix.iter().map(|row| sum(row, &|i| line[i])).collect::<Vec<_>>())
                .collect()
        };
        let (mut by_tiles, mut direct) = (0.0f64, 0.0f64);
        for _ in 0..50 {
            let filter: Vec<f32> = (0..9 * channels).map(|_| random() - 0.5).collect();
            let data = Data::from_f32(&[3, 3, channels, 1], &filter).unwrap();
            let transformed = algorithm.transform_filter(&data).unwrap().to_f32().unwrap();
            // As after a ReLU: half of the inputs are zero.
            let inputs: Vec<f32> =
                (0..points * points * channels).map(|_| (random() - 0.5).max(0.0)).collect();
            let at = |y: usize, x: usize, channel: usize| inputs[(y * points + x) * channels + channel];
            let mut products = vec![0.0f32; points * points];
            for channel in 0..channels {
                let tile: Vec<f32> =
                    (0..points * points).map(|p| at(p / points, p % points, channel)).collect();
                for (point, value) in both(algorithm.input, &tile).into_iter().enumerate() {
                    products[point] = value.mul_add(transformed[point * channels + channel], products[point]);
                }
            }
            let tile = both(algorithm.output, &products);
            for (output, found) in tile.into_iter().enumerate() {
                let (mut exact, mut plain) = (0.0f64, 0.0f32);
                for tap in 0..9 * channels {
                    let (tap, channel) = (tap / channels, tap % channels);
                    let x = at(output / outputs + tap / 3, output % outputs + tap % 3, channel);
                    let w = filter[tap * channels + channel];
                    exact += f64::from(x) * f64::from(w);
                    plain = x.mul_add(w, plain);
                }
                by_tiles = by_tiles.max((f64::from(found) - exact).abs());
                direct = direct.max((f64::from(plain) - exact).abs());
            }
        }
        (by_tiles, direct)
    }

    #[test]
    fn errors_stay_near_those_of_direct_sums() {
        for channels in [16, 64, 256] {
            for (algorithm, factor) in [(&SMALL, 2.0), (&LARGE, 4.0)] {
                let (found, direct) = largest_errors(algorithm, channels);
                assert!(found <= factor * direct, "{channels} channels: {found:e} and {direct:e}");
            }
        }
    }

    #[test]
    fn filters_transform_to_their_values_at_the_points() {
        let values: Vec<f32> = (0..9).map(|value| value as f32).collect();
        let data = Data::from_f32(&[3, 3, 1, 1], &values).unwrap();
        let transformed = SMALL.transform_filter(&data).unwrap();
        assert_eq!(transformed.shape(), [16, 1, 1]);
        let found = transformed.to_f32().unwrap();
        // The corners are the corners of the filter, the middle a quarter of sums of all taps.
        assert_eq!([found[0], found[3], found[12], found[15]], [0.0, 2.0, 6.0, 8.0]);
        assert_eq!(found[5], 9.0);
    }
}
