//! Products with block-quantized weights: one kernel for single rows (decoding) and many (prefill).
//!
//! A task is a tile of output rows, one a lane ([`super::block_packing`]), so that no lanes are ever summed. Rows of the
//! activations go in blocks that share the unpacked codes in registers. With integer activations a group's products are
//! summed as integers by four-way dot products, then scaled:
//!
//! ```text
//! y += (scale_x * f32(dot(codes_w, codes_x))) * scale_w + sum_x * offset_w
//! ```
//!
//! With float activations the codes become numbers in registers, shared by the rows of a block.

use std::ops::Range;

use tcc_ir::block_format::{BlockOperands, COARSE_STEP, RowForm, WeightForm};
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarExpr};

use super::block_packing::{BlockPacking, BlockPart, COARSE, Coding, Offset, Scale, UNIT};
use super::gpu::WARP;
use super::{Argument, LowerError, Lowering};
use crate::ir::{Access, Expr, LoopKind, Space, Stmt, Ty, Var};

/// Elements of four-way dot products.
const QUAD: usize = 4;

/// From this many rows of floats on the numbers of a unit go through memory: with all of their products in one block of
/// code, compilers keep more of them alive than there are registers.
const STAGED_ROWS: usize = 4;

/// Lowers a product with packed weights; they must be known at compile time.
pub fn block_contract(
    lowering: &mut Lowering,
    form: WeightForm,
    row_form: RowForm,
    experts: bool,
    epilogue: &ScalarExpr,
) -> Result<(), LowerError> {
    let places = BlockOperands::of(form, row_form, experts);
    let quantized = row_form != RowForm::Float;
    if places.weights.clone().any(|place| !lowering.constant[place]) {
        return Err(lowering.unsupported("its weights are not known at compile time"));
    }
    let x = lowering.operands[0].clone();
    let w = lowering.operands[places.weights.start].clone();
    let result = lowering.results[0].clone();
    let known = |dim: Option<&Dim>| dim.and_then(Dim::as_const).and_then(|dim| usize::try_from(dim).ok());
    let (Some(depth), Some(outputs)) = (known(x.shape.last()), known(result.shape.last())) else {
        return Err(lowering.unsupported("its matrix has unknown extents"));
    };
    let matrices = if experts { known(w.shape.first()) } else { Some(1) };
    let Some(matrices) = matrices else {
        return Err(lowering.unsupported("the number of experts is unknown"));
    };
    let coding = match form {
        WeightForm::Blocks(format) => Some(Coding::of_format(format)),
        WeightForm::Affine { block } => {
            Coding::of_affine(w.dtype(), lowering.operands[places.weights.start + 1].dtype(), block)
        }
    };
    let Some(coding) = coding.filter(|_| depth.is_multiple_of(UNIT)) else {
        return Err(lowering.unsupported(format!("no packed form of {w} in {form:?}")));
    };
    let per_row = |lowering: &Lowering, place: usize| {
        known(lowering.operands[place].shape.last()).map_or(0, |runs| depth / runs.max(1))
    };
    let sum_run = coding.group.min(UNIT);
    let scale_run = if quantized && depth > 0 { per_row(lowering, 1) } else { UNIT };
    if quantized && (per_row(lowering, 2) != sum_run || !scale_run.is_multiple_of(UNIT)) && depth > 0 {
        return Err(
            lowering.unsupported(format!("activations in runs of {scale_run} for groups of {sum_run}"))
        );
    }
    let lanes = usize::from(lowering.tuning.lanes(DType::F32));
    let part = |lowering: &mut Lowering, part: BlockPart| {
        lowering.block(BlockPacking {
            operands: places.weights.clone().collect(),
            form,
            coding: coding.clone(),
            part,
            rows: matrices * outputs,
            outputs,
            depth,
            lanes,
        })
    };
    let codes = part(lowering, if quantized { BlockPart::Codes } else { BlockPart::Words });
    let scale = part(lowering, BlockPart::Scale);
    let offset = match coding.offset {
        Offset::Constant(_) | Offset::Nibble => None,
        _ => Some(part(lowering, BlockPart::Offset)),
    };
    let coarse_scale = match coding.scale {
        Scale::Plain(_) => None,
        _ => Some(part(lowering, BlockPart::CoarseScale)),
    };
    let coarse_offset = match coding.offset {
        Offset::Fine | Offset::Nibble => Some(part(lowering, BlockPart::CoarseOffset)),
        _ => None,
    };
    let rows = result.shape[..result.rank() - 1].to_vec();
    let row_count = Dim::product(&rows);
    let product = Product {
        coding,
        quantized,
        fine: places.activations.clone().nth(3),
        lanes,
        depth,
        outputs,
        scale_run,
        rows,
        parts: Parts { codes, scale, offset, coarse_scale, coarse_offset },
        first_rest: places.rest,
        epilogue,
        lane: None,
    };
    let tiles = outputs.div_ceil(lanes);
    let stmts = lowering.shared_tasks("tile", Expr::index(tiles as i64), &mut |this, tile, lane| {
        let count = this.dim(&row_count);
        let product = &Product { lane, ..product.clone() };
        match places.experts {
            Some(place) => product.expert_blocks(this, &tile, count, &Experts { place, matrices, tiles }),
            None => product.row_blocks(this, &tile, count, row_count.as_const()),
        }
    });
    lowering.launch(vec![stmts], false);
    Ok(())
}

/// The arrays of packed weights.
#[derive(Clone)]
struct Parts {
    codes: Argument,
    scale: Argument,
    offset: Option<Argument>,
    coarse_scale: Option<Argument>,
    coarse_offset: Option<Argument>,
}

/// What all tiles share.
#[derive(Clone)]
struct Product<'e> {
    coding: Coding,
    quantized: bool,
    /// The operand of fine codes.
    fine: Option<usize>,
    lanes: usize,
    depth: usize,
    outputs: usize,
    /// Elements of a row of activations that share a scale.
    scale_run: usize,
    /// Leading extents of the result.
    rows: Vec<Dim>,
    parts: Parts,
    first_rest: usize,
    epilogue: &'e ScalarExpr,
    /// The lane of a GPU warp that shares each tile: it takes every 32nd unit.
    lane: Option<Expr>,
}

/// The weights that rows choose among.
struct Experts {
    /// The operand with the choice of each row.
    place: usize,
    matrices: usize,
    /// Tiles of each matrix.
    tiles: usize,
}

impl Experts {
    /// The choice of a row.
    fn of(&self, this: &mut Lowering, row: Expr) -> Expr {
        let choices = this.buffer(Argument::Operand(self.place));
        let last = Expr::index(self.matrices as i64 - 1);
        Expr::load(choices, row).at_most(last).at_least(Expr::index(0))
    }
}

/// The rows of activations that a block of code works on.
struct Rows {
    /// Their numbers.
    numbers: Vec<Expr>,
    /// Their sums, a vector of output rows each; more than one where a single chain would wait for itself.
    sums: Vec<Vec<Var>>,
}

fn index(value: usize) -> Expr {
    Expr::index(value as i64)
}

fn call(function: Function, a: Expr, b: Expr) -> Expr {
    Expr::call(function, vec![a, b])
}

fn fma(a: Expr, b: Expr, c: Expr) -> Expr {
    Expr::Fma(Box::new(a), Box::new(b), Box::new(c))
}

/// The vectors that scale a group's codes: `scale * code + offset`.
struct Group {
    scale: Expr,
    offset: Expr,
}

impl Product<'_> {
    /// Rows of a block: as many as leave registers for the codes of a unit.
    fn block_sizes(&self, this: &Lowering, rows: Option<i64>) -> Vec<usize> {
        let wanted = match (&this.tuning.gpu, this.tuning.vector_registers) {
            // Numbers of a unit that went through memory would be local to a thread.
            (Some(_), _) => [2, 2, 2, 1],
            (None, 32..) => [12, 4, 2, 1],
            (None, _) => [4, 4, 2, 1],
        };
        let mut sizes: Vec<usize> =
            wanted.into_iter().filter(|size| rows.is_none_or(|rows| rows >= *size as i64)).collect();
        sizes.dedup();
        sizes
    }

    /// All rows in blocks of falling size.
    fn row_blocks(&self, this: &mut Lowering, tile: &Expr, count: Expr, known: Option<i64>) -> Vec<Stmt> {
        let mut stmts = Vec::new();
        let mut first = Expr::index(0);
        for size in self.block_sizes(this, known) {
            let blocks = count.clone().minus(first.clone()).over(index(size));
            let start = first.clone();
            stmts.push(this.for_loop("block", blocks.clone(), LoopKind::Serial, |this, block| {
                let (row, stmt) = this.assign("row", start.plus(block.times(index(size))));
                let mut stmts = vec![stmt];
                stmts.extend(self.block(this, tile, tile, &Expr::Var(row), size));
                stmts
            }));
            first = first.plus(blocks.times(index(size)));
        }
        stmts
    }

    /// All rows in blocks of falling size, each with the weights of its expert.
    fn expert_blocks(&self, this: &mut Lowering, tile: &Expr, count: Expr, experts: &Experts) -> Vec<Stmt> {
        let mut sizes: Vec<usize> =
            self.block_sizes(this, None).into_iter().filter(|size| *size != 2).collect();
        sizes.dedup();
        let mut stmts = Vec::new();
        let mut first = Expr::index(0);
        for (place, size) in sizes.iter().enumerate() {
            let blocks = count.clone().minus(first.clone()).over(index(*size));
            let start = first.clone();
            stmts.push(this.for_loop("block", blocks.clone(), LoopKind::Serial, |this, block| {
                let (row, stmt) = this.assign("row", start.plus(block.times(index(*size))));
                let mut stmts = vec![stmt];
                stmts.extend(self.expert_block(this, tile, &Expr::Var(row), &sizes[place..], experts));
                stmts
            }));
            first = first.plus(blocks.times(index(*size)));
        }
        stmts
    }

    /// As many rows from `row` as the first size says: at once where one expert has them all, in blocks of the next size
    /// where not. Rows that are sorted by expert nearly always come at once.
    fn expert_block(
        &self,
        this: &mut Lowering,
        tile: &Expr,
        row: &Expr,
        sizes: &[usize],
        experts: &Experts,
    ) -> Vec<Stmt> {
        let Some((size, smaller)) = sizes.split_first() else { return Vec::new() };
        let expert = experts.of(this, row.clone());
        let (expert, set_expert) = this.assign("expert", expert);
        let packed = Expr::Var(expert).times(index(experts.tiles)).plus(tile.clone());
        let (packed, set_packed) = this.assign("matrix", packed);
        let together = self.block(this, tile, &Expr::Var(packed), row, *size);
        let mut stmts = vec![set_expert, set_packed];
        let Some(next) = smaller.first() else {
            stmts.extend(together);
            return stmts;
        };
        let mut same: Option<Expr> = None;
        for member in 1..*size {
            let other = experts.of(this, row.clone().plus(index(member)));
            let equal = call(Function::Equal, other, Expr::Var(expert));
            same = Some(match same {
                Some(same) => call(Function::And, same, equal),
                None => equal,
            });
        }
        let parts = this.for_loop("part", index(size / next), LoopKind::Serial, |this, part| {
            let (row, set_row) = this.assign("row", row.clone().plus(part.times(index(*next))));
            let mut stmts = vec![set_row];
            stmts.extend(self.expert_block(this, tile, &Expr::Var(row), smaller, experts));
            stmts
        });
        match same {
            Some(condition) => stmts.push(Stmt::If { condition, then: together, otherwise: vec![parts] }),
            None => stmts.push(parts),
        }
        stmts
    }

    fn splat(&self, value: Expr) -> Expr {
        if self.lanes == 1 { value } else { Expr::Splat(Box::new(value), self.lanes as u16) }
    }

    fn vector(&self, this: &mut Lowering, argument: Argument, at: Expr, lanes: usize) -> Expr {
        let buffer = this.buffer(argument);
        Expr::Load { buffer, index: Box::new(at), lanes: lanes as u16, valid: None }
    }

    /// A vector of numbers of the lanes as `f32`.
    fn floats(&self, this: &mut Lowering, argument: Argument, run: Expr) -> Expr {
        let dtype = this.type_of(argument).dtype();
        self.vector(this, argument, run.times(index(self.lanes)), self.lanes).cast(dtype, DType::F32)
    }

    fn named(&self, this: &mut Lowering, stmts: &mut Vec<Stmt>, name: &str, value: Expr) -> Expr {
        if matches!(value, Expr::Var(_)) {
            return value;
        }
        let ty = this.kernel.type_of(&value);
        let var = this.kernel.variable(name, ty);
        stmts.push(Stmt::Assign { var, value });
        Expr::Var(var)
    }

    /// The statements for `size` rows from `row`: output tile `tile`, weights of packed tile `packed`.
    fn block(&self, this: &mut Lowering, tile: &Expr, packed: &Expr, row: &Expr, size: usize) -> Vec<Stmt> {
        let ty = Ty::vector(DType::F32, self.lanes as u16);
        let zero = self.splat(Expr::constant(DType::F32, 0.0));
        let mut stmts = Vec::new();
        let chains = if self.quantized || size >= STAGED_ROWS { 1 } else { 8 / size };
        let mut rows = Rows { numbers: Vec::new(), sums: Vec::new() };
        for member in 0..size {
            let number = row.clone().plus(index(member));
            rows.numbers.push(self.named(this, &mut stmts, "r", number));
            let mut own = Vec::new();
            for _ in 0..chains {
                let var = this.kernel.variable("sum", ty);
                stmts.push(Stmt::Assign { var, value: zero.clone() });
                own.push(var);
            }
            rows.sums.push(own);
        }
        let outer = if self.parts.coarse_scale.is_some() { COARSE } else { self.coding.group.max(UNIT) };
        let runs = self.depth / outer;
        let units = outer / UNIT;
        // Scales that all units of a run share, by the run's number.
        let run_scales = |this: &mut Lowering, stmts: &mut Vec<Stmt>, number: &Expr| {
            let mut coarse = [self.parts.coarse_scale, self.parts.coarse_offset].map(|part| {
                part.map(|part| {
                    let value = self.floats(this, part, number.clone());
                    self.named(this, stmts, "coarse", value)
                })
            });
            if let Some(offset) = &mut coarse[1] {
                let value = Expr::call(Function::Neg, vec![offset.clone()]);
                *offset = self.named(this, stmts, "coarse", value);
            }
            let shared =
                (self.coding.group >= outer).then(|| self.group(this, stmts, &coarse, number.clone()));
            (coarse, shared)
        };
        if let Some(lane) = &self.lane {
            let total = index(self.depth / UNIT);
            let own = total.plus(Expr::index(WARP - 1)).minus(lane.clone()).over(Expr::index(WARP));
            stmts.push(this.for_loop("turn", own, LoopKind::Serial, |this, turn| {
                let mut stmts = Vec::new();
                let inside = turn.times(Expr::index(WARP)).plus(lane.clone());
                let inside = self.named(this, &mut stmts, "k", inside);
                let first = packed.clone().times(index(runs));
                let number = first.clone().plus(inside.clone().over(index(units)));
                let number = self.named(this, &mut stmts, "n", number);
                let (coarse, shared) = run_scales(this, &mut stmts, &number);
                let global = first.times(index(units)).plus(inside.clone());
                let global = self.named(this, &mut stmts, "u", global);
                self.unit(this, &mut stmts, &rows, &coarse, shared.as_ref(), inside, global);
                stmts
            }));
        } else {
            stmts.push(this.for_loop("run", index(runs), LoopKind::Serial, |this, run| {
                let mut stmts = Vec::new();
                let number = packed.clone().times(index(runs)).plus(run.clone());
                let number = self.named(this, &mut stmts, "n", number);
                let (coarse, shared) = run_scales(this, &mut stmts, &number);
                let unit = |this: &mut Lowering, unit: Expr| {
                    let mut stmts = Vec::new();
                    let inside = run.clone().times(index(units)).plus(unit.clone());
                    let inside = self.named(this, &mut stmts, "k", inside);
                    let global = number.clone().times(index(units)).plus(unit);
                    let global = self.named(this, &mut stmts, "u", global);
                    self.unit(this, &mut stmts, &rows, &coarse, shared.as_ref(), inside, global);
                    stmts
                };
                match units {
                    1 => stmts.extend(unit(this, Expr::index(0))),
                    _ => stmts.push(this.for_loop("unit", index(units), LoopKind::Serial, unit)),
                }
                stmts
            }));
        }
        for (number, own) in rows.numbers.iter().zip(&rows.sums) {
            let mut total = Expr::Var(own[0]);
            for chain in &own[1..] {
                total = call(Function::Add, total, Expr::Var(*chain));
            }
            match &self.lane {
                Some(lane) => {
                    let total = self.named(this, &mut stmts, "total", total);
                    let (more, total) = this.combine_vectors(&total);
                    stmts.extend(more);
                    let then = self.finish(this, tile, number, total);
                    let condition = lane.clone().less(Expr::index(1));
                    stmts.push(Stmt::If { condition, then, otherwise: Vec::new() });
                }
                None => stmts.extend(self.finish(this, tile, number, total)),
            }
        }
        stmts
    }

    /// Scale and offset of a group by its number.
    fn group(
        &self,
        this: &mut Lowering,
        stmts: &mut Vec<Stmt>,
        coarse: &[Option<Expr>; 2],
        number: Expr,
    ) -> Group {
        let byte = |this: &mut Lowering, argument: Argument| {
            self.vector(this, argument, number.clone().times(index(self.lanes)), self.lanes)
        };
        let float = |value: Expr, from: DType| value.cast(from, DType::F32);
        let missing = || self.splat(Expr::constant(DType::F32, 0.0));
        let coarse = |place: usize| coarse[place].clone().unwrap_or_else(missing);
        let shared = match self.coding.scale {
            Scale::Nibble => {
                let value = byte(this, self.parts.scale);
                Some(self.named(this, stmts, "nibbles", value))
            }
            _ => None,
        };
        let small = |value: i64| self.splat(Expr::constant(DType::U8, value as f64));
        let scale = match (self.coding.scale, &shared) {
            (Scale::Nibble, Some(shared)) => {
                let low = call(Function::BitAnd, shared.clone(), small(15));
                call(Function::Mul, coarse(0), float(low, DType::U8))
            }
            (Scale::Fine(dtype), _) => {
                let fine = float(byte(this, self.parts.scale), dtype);
                call(Function::Mul, coarse(0), fine)
            }
            _ => self.floats(this, self.parts.scale, number.clone()),
        };
        let scale = self.named(this, stmts, "scale", scale);
        let offset = match (self.coding.offset, self.parts.offset, &shared) {
            (Offset::Constant(zero), ..) => {
                let zero = self.splat(Expr::constant(DType::F32, -zero as f64));
                call(Function::Mul, scale.clone(), zero)
            }
            (Offset::Zero, Some(part), _) => {
                let zero = Expr::call(Function::Neg, vec![float(byte(this, part), DType::U8)]);
                call(Function::Mul, scale.clone(), zero)
            }
            (Offset::Fine, Some(part), _) => {
                call(Function::Mul, coarse(1), float(byte(this, part), DType::U8))
            }
            (Offset::Nibble, _, Some(shared)) => {
                let high = call(Function::ShiftRight, shared.clone(), small(4));
                call(Function::Mul, coarse(1), float(high, DType::U8))
            }
            (_, Some(part), _) => self.floats(this, part, number),
            _ => missing(),
        };
        let offset = self.named(this, stmts, "offset", offset);
        Group { scale, offset }
    }

    /// The vectors of a unit's bit planes in their order.
    fn planes(&self, this: &mut Lowering, stmts: &mut Vec<Stmt>, unit: &Expr) -> Vec<Expr> {
        let width = if self.quantized { QUAD * self.lanes } else { self.lanes };
        let base = unit.clone().times(index(self.coding.bits() * width));
        (0..self.coding.bits())
            .map(|vector| {
                let at = base.clone().plus(index(vector * width));
                let load = self.vector(this, self.parts.codes, at, width);
                self.named(this, stmts, "bits", load)
            })
            .collect()
    }

    /// The codes of a quad, as bytes (`member` is `None`), or of one member of it, as words.
    fn codes(&self, planes: &[Expr], quad: usize, member: Option<usize>) -> Expr {
        let (dtype, lanes) = match member {
            Some(_) => (DType::U32, self.lanes),
            None => (DType::U8, QUAD * self.lanes),
        };
        let constant = |value: usize| {
            let value = Expr::constant(dtype, value as f64);
            if lanes == 1 { value } else { Expr::Splat(Box::new(value), lanes as u16) }
        };
        let (mut vector, mut low) = (0, 0);
        let mut code: Option<Expr> = None;
        for width in self.coding.planes {
            let per_byte = 8 / width;
            let place = width * (quad % per_byte) + 8 * member.unwrap_or(0);
            let mut bits = planes[vector + quad / per_byte].clone();
            if place > 0 {
                bits = call(Function::ShiftRight, bits, constant(place));
            }
            // The topmost bits have nothing above them.
            if place + width < dtype.bits() {
                bits = call(Function::BitAnd, bits, constant((1 << width) - 1));
            }
            if low > 0 {
                bits = call(Function::ShiftLeft, bits, constant(low));
            }
            code = Some(match code {
                Some(lower) => call(Function::BitOr, lower, bits),
                None => bits,
            });
            vector += width;
            low += width;
        }
        code.unwrap_or_else(|| constant(0))
    }

    /// Adds the products of 32 elements: number `inside` within a row, number `global` of the packed weights.
    #[allow(clippy::too_many_arguments, reason = "where the unit is, in both tensors and among its groups")]
    fn unit(
        &self,
        this: &mut Lowering,
        stmts: &mut Vec<Stmt>,
        rows: &Rows,
        coarse: &[Option<Expr>; 2],
        shared: Option<&Group>,
        inside: Expr,
        global: Expr,
    ) {
        let planes = self.planes(this, stmts, &global);
        let staged = (!self.quantized && rows.numbers.len() >= STAGED_ROWS).then(|| {
            let count = index(UNIT * self.lanes);
            this.kernel.buffer("weights", DType::F32, Space::Stack, count, Access::ReadWrite)
        });
        let sub = self.coding.group.min(UNIT);
        let groups = UNIT / sub;
        for group in 0..groups {
            let own = match shared {
                Some(shared) => Group { scale: shared.scale.clone(), offset: shared.offset.clone() },
                None => {
                    let number = global.clone().times(index(groups)).plus(index(group));
                    self.group(this, stmts, coarse, number)
                }
            };
            let quads = group * sub / QUAD..(group + 1) * sub / QUAD;
            let first = inside.clone().times(index(UNIT)).plus(index(group * sub));
            if self.quantized {
                let run = inside.clone().times(index(groups)).plus(index(group));
                let quads: Vec<Expr> = quads
                    .map(|quad| {
                        let codes = self.codes(&planes, quad, None);
                        self.named(this, stmts, "quad", codes)
                    })
                    .collect();
                self.integer_group(this, stmts, rows, &own, &quads, &inside, &run, &first);
            } else {
                for (element, weight) in self.numbers(&own, &planes, quads).into_iter().enumerate() {
                    match staged {
                        Some(buffer) => {
                            let index = index((group * sub + element) * self.lanes);
                            stmts.push(Stmt::Store { buffer, index, value: weight, valid: None });
                        }
                        None => {
                            let weight = self.named(this, stmts, "w", weight);
                            let at = first.clone().plus(index(element));
                            self.float_products(this, stmts, rows, &weight, &at, element);
                        }
                    }
                }
            }
        }
        if let Some(buffer) = staged {
            let first = inside.times(index(UNIT));
            stmts.push(this.for_loop("e", index(UNIT), LoopKind::Serial, |this, element| {
                let mut stmts = Vec::new();
                let at = Box::new(element.clone().times(index(self.lanes)));
                let weight = Expr::Load { buffer, index: at, lanes: self.lanes as u16, valid: None };
                let weight = self.named(this, &mut stmts, "w", weight);
                self.float_products(this, &mut stmts, rows, &weight, &first.clone().plus(element), 0);
                stmts
            }));
        }
    }

    #[allow(clippy::too_many_arguments, reason = "a group is a place in three arrays")]
    fn integer_group(
        &self,
        this: &mut Lowering,
        stmts: &mut Vec<Stmt>,
        rows: &Rows,
        group: &Group,
        quads: &[Expr],
        unit: &Expr,
        run: &Expr,
        first: &Expr,
    ) {
        let sums_of_row = self.depth / self.coding.group.min(UNIT);
        let scales_of_row = self.depth / self.scale_run;
        let zero = Expr::constant(DType::I32, 0.0);
        let picks: Vec<u16> = (0..QUAD * self.lanes).map(|lane| (lane % QUAD) as u16).collect();
        for (row, own) in rows.numbers.iter().zip(&rows.sums) {
            let mut dot = self.splat(zero.clone());
            let start = row.clone().times(index(self.depth)).plus(first.clone());
            for part in [Some(0), self.fine].into_iter().flatten() {
                if part > 0 {
                    // Codes of a byte times coarse ones: 255 * 127 * 128 * 32 stays below 2^31.
                    let steps = self.splat(Expr::constant(DType::I32, COARSE_STEP as f64));
                    dot = call(Function::Mul, dot, steps);
                }
                for (number, quad) in quads.iter().enumerate() {
                    let at = start.clone().plus(index(QUAD * number));
                    let four = self.vector(this, Argument::Operand(part), at, QUAD);
                    let spread = Expr::Shuffle(Box::new(four.clone()), Box::new(four), picks.clone());
                    dot = Expr::Dot { acc: Box::new(dot), a: Box::new(quad.clone()), b: Box::new(spread) };
                    dot = self.named(this, stmts, "dot", dot);
                }
            }
            let dot = dot.cast(DType::I32, DType::F32);
            let run_of = unit.clone().over(index(self.scale_run / UNIT));
            let scale_at = row.clone().times(index(scales_of_row)).plus(run_of);
            let scales = this.buffer(Argument::Operand(1));
            let scale = self.splat(Expr::load(scales, scale_at));
            let sums = this.buffer(Argument::Operand(2));
            let sum_at = row.clone().times(index(sums_of_row)).plus(run.clone());
            let sum = self.splat(Expr::load(sums, sum_at));
            let scaled = call(Function::Mul, dot, scale);
            let total = fma(sum, group.offset.clone(), Expr::Var(own[0]));
            let value = fma(scaled, group.scale.clone(), total);
            stmts.push(Stmt::Assign { var: own[0], value });
        }
    }

    /// The weights of elements `quads` of a unit as numbers, in order.
    fn numbers(&self, group: &Group, planes: &[Expr], quads: Range<usize>) -> Vec<Expr> {
        quads
            .flat_map(|quad| (0..QUAD).map(move |member| (quad, member)))
            .map(|(quad, member)| {
                // A signed conversion takes one instruction everywhere, and codes are small.
                let code = self.codes(planes, quad, Some(member)).cast(DType::U32, DType::I32);
                fma(code.cast(DType::I32, DType::F32), group.scale.clone(), group.offset.clone())
            })
            .collect()
    }

    /// Adds the products of weights with the elements of the rows at `element`.
    fn float_products(
        &self,
        this: &mut Lowering,
        stmts: &mut Vec<Stmt>,
        rows: &Rows,
        weight: &Expr,
        element: &Expr,
        chain: usize,
    ) {
        let dtype = this.type_of(Argument::Operand(0)).dtype();
        for (row, own) in rows.numbers.iter().zip(&rows.sums) {
            let at = row.clone().times(index(self.depth)).plus(element.clone());
            let x = this.buffer(Argument::Operand(0));
            let factor = self.splat(Expr::load(x, at).cast(dtype, DType::F32));
            let var = own[chain % own.len()];
            let value = fma(weight.clone(), factor, Expr::Var(var));
            stmts.push(Stmt::Assign { var, value });
        }
    }

    /// Applies the epilogue to a vector of sums and stores it; the last tile may be narrower.
    fn finish(&self, this: &mut Lowering, tile: &Expr, row: &Expr, total: Expr) -> Vec<Stmt> {
        let start = tile.clone().times(index(self.lanes));
        let result = |this: &mut Lowering, lane: Expr, sum: Expr| {
            let mut at = this.decode(row.clone(), &self.rows);
            at.push(start.clone().plus(lane));
            let mut inputs = vec![sum];
            for operand in self.first_rest..this.operands.len() {
                inputs.push(this.load_broadcast(Argument::Operand(operand), &at));
            }
            let (mut stmts, value) = this.scalar(self.epilogue, &inputs);
            stmts.push(this.store(Argument::Result(0), &at, value));
            stmts
        };
        if self.lane.is_some() {
            // One by one, as registers have no addresses.
            let each = (0..self.lanes).map(|lane| {
                let pick = vec![lane as u16];
                let sum = Expr::Shuffle(Box::new(total.clone()), Box::new(total.clone()), pick);
                let condition = start.clone().plus(index(lane)).less(index(self.outputs));
                Stmt::If { condition, then: result(this, index(lane), sum), otherwise: Vec::new() }
            });
            return each.collect();
        }
        let done = this.kernel.buffer("done", DType::F32, Space::Stack, index(self.lanes), Access::ReadWrite);
        let mut stmts = vec![Stmt::Store { buffer: done, index: Expr::index(0), value: total, valid: None }];
        let lanes = |this: &mut Lowering, extent: Expr, kind: LoopKind| {
            this.for_loop("lane", extent, kind, |this, lane| {
                let sum = Expr::load(done, lane.clone());
                result(this, lane, sum)
            })
        };
        let whole = lanes(this, index(self.lanes), LoopKind::Vector);
        if self.outputs.is_multiple_of(self.lanes) {
            stmts.push(whole);
            return stmts;
        }
        let last = index(self.outputs / self.lanes);
        let tail = lanes(this, index(self.outputs % self.lanes), LoopKind::Serial);
        stmts.push(Stmt::If { condition: tile.clone().less(last), then: vec![whole], otherwise: vec![tail] });
        stmts
    }
}
