//! Where the numbers of a cache lie in memory, and how they are read.

use tcc_ir::cache::{CacheFormat, CacheOrder, CacheStorage, SCALE_GROUP};
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;

use crate::ir::{Expr, LoopKind, Stmt};
use crate::lower::{Argument, LowerError, Lowering};

/// A cache operand.
#[derive(Clone, Copy)]
pub(super) struct Cache {
    pub(super) operand: usize,
    pub(super) storage: CacheStorage,
    pub(super) heads: i64,
    pub(super) depth: i64,
}

/// Where a slot of a head lies.
#[derive(Clone)]
pub(super) struct Place {
    /// Number of the block and head.
    pub(super) chunk: Expr,
    /// Slot within the block.
    pub(super) within: Expr,
}

/// What happens with a channel; the expression is the scale of its group, where there are scales.
pub(super) type EachChannel<'b> = dyn FnMut(&mut Lowering, &Channel, Option<Expr>) -> Vec<Stmt> + 'b;

/// A channel, with its place in the scale group where there are groups.
#[derive(Clone)]
pub(super) struct Channel {
    pub(super) group: Expr,
    pub(super) half: Expr,
    pub(super) index: Expr,
}

impl Channel {
    /// The number of the channel.
    pub(super) fn number(&self, format: CacheFormat) -> Expr {
        match format.has_scales() {
            true => {
                let half = self.half.clone().times(Expr::index(SCALE_GROUP / 2));
                self.group.clone().times(Expr::index(SCALE_GROUP)).plus(half).plus(self.index.clone())
            }
            false => self.index.clone(),
        }
    }
}

impl Cache {
    /// The cache that an operand is, whose rows have so many channels.
    pub(super) fn of(
        lowering: &Lowering,
        operand: usize,
        storage: &CacheStorage,
        depth: &Dim,
    ) -> Result<Cache, LowerError> {
        let heads = lowering.operands[operand].shape.get(1).and_then(Dim::as_const);
        match (heads, depth.as_const()) {
            (Some(heads), Some(depth)) => Ok(Cache { operand, storage: *storage, heads, depth }),
            _ => Err(lowering.unsupported("heads and head size of a cache must be known")),
        }
    }

    pub(super) fn block(&self) -> i64 {
        self.storage.block as i64
    }

    /// Number of slots in memory.
    pub(super) fn slots(&self, this: &mut Lowering) -> Expr {
        let blocks = this.operands[self.operand].shape[0].clone();
        this.dim(&blocks).times(Expr::index(self.block()))
    }

    /// Element type of the memory.
    pub(super) fn dtype(&self, this: &Lowering) -> DType {
        this.operands[self.operand].dtype()
    }

    pub(super) fn place(&self, slot: &Expr, head: &Expr) -> Place {
        let block = slot.clone().over(Expr::index(self.block()));
        Place {
            chunk: block.times(Expr::index(self.heads)).plus(head.clone()),
            within: slot.clone().remainder(Expr::index(self.block())),
        }
    }

    /// Memory elements of a block of one head.
    pub(super) fn chunk_elements(&self) -> i64 {
        let elements = match self.storage.format.has_scales() {
            true => self.storage.format.row_bytes(&Dim::from(self.depth as usize)).as_const().unwrap_or(0),
            false => self.depth,
        };
        elements * self.block()
    }

    /// Memory element that holds a channel.
    pub(super) fn code_index(&self, place: &Place, channel: &Channel) -> Expr {
        let (row, length) = match self.storage.format {
            CacheFormat::I4 => {
                let group = channel.group.clone().times(Expr::index(SCALE_GROUP / 2));
                (group.plus(channel.index.clone()), self.depth / 2)
            }
            format => (channel.number(format), self.depth),
        };
        let start = place.chunk.clone().times(Expr::index(self.chunk_elements()));
        start.plus(match self.storage.order {
            CacheOrder::Rows => place.within.clone().times(Expr::index(length)).plus(row),
            CacheOrder::Columns => row.times(Expr::index(self.block())).plus(place.within.clone()),
        })
    }

    /// Element of the scales, seen as `f16`, for a group of channels.
    pub(super) fn scale_index(&self, place: &Place, group: &Expr) -> Expr {
        let codes = self.block() * self.depth * self.storage.format.bits() / 8;
        let groups = self.depth / SCALE_GROUP;
        let start = place.chunk.clone().times(Expr::index(self.chunk_elements() / 2));
        start.plus(Expr::index(codes / 2)).plus(match self.storage.order {
            CacheOrder::Rows => place.within.clone().times(Expr::index(groups)).plus(group.clone()),
            CacheOrder::Columns => group.clone().times(Expr::index(self.block())).plus(place.within.clone()),
        })
    }

    /// The scale of a group as `f32`.
    pub(super) fn scale(&self, this: &mut Lowering, place: &Place, group: &Expr) -> Expr {
        let buffer = this.buffer(Argument::View(self.operand, DType::F16));
        Expr::load(buffer, self.scale_index(place, group)).cast(DType::F16, DType::F32)
    }

    /// The stored number as `f32`, not yet scaled.
    pub(super) fn code(&self, this: &mut Lowering, place: &Place, channel: &Channel) -> Expr {
        let dtype = self.dtype(this);
        let buffer = this.buffer(Argument::Operand(self.operand));
        let stored = Expr::load(buffer, self.code_index(place, channel));
        if self.storage.format != CacheFormat::I4 {
            return stored.cast(dtype, DType::F32);
        }
        let shift = channel.half.clone().times(Expr::index(4)).cast(DType::I64, DType::I32);
        let wide = Expr::call(Function::ShiftRight, vec![stored.cast(dtype, DType::I32), shift]);
        let nibble = Expr::call(Function::BitAnd, vec![wide, Expr::constant(DType::I32, 15.0)]);
        let code = Expr::call(Function::Sub, vec![nibble, Expr::constant(DType::I32, 8.0)]);
        code.cast(DType::I32, DType::F32)
    }

    /// Calls `body` for every channel, vector after vector, with the scale of its group where there are scales.
    pub(super) fn channels(
        &self,
        this: &mut Lowering,
        place: &Place,
        body: &mut EachChannel<'_>,
    ) -> Vec<Stmt> {
        let lanes = this.tuning.lanes(DType::F32);
        let zero = Expr::index(0);
        if !self.storage.format.has_scales() {
            return this.vector_line(zero.clone(), Expr::index(self.depth), lanes, &mut |this, index| {
                body(this, &Channel { group: zero.clone(), half: zero.clone(), index }, None)
            });
        }
        let groups = Expr::index(self.depth / SCALE_GROUP);
        vec![this.for_loop("group", groups, LoopKind::Serial, |this, group| {
            let scale = self.scale(this, place, &group);
            let (scale, assign) = this.assign("scale", scale);
            let halves = this.for_loop("half", Expr::index(2), LoopKind::Unroll, |this, half| {
                let part = Expr::index(SCALE_GROUP / 2);
                vec![this.for_loop("index", part, LoopKind::Vector, |this, index| {
                    let channel = Channel { group: group.clone(), half: half.clone(), index };
                    body(this, &channel, Some(Expr::Var(scale)))
                })]
            });
            vec![assign, halves]
        })]
    }

    /// A number of the cache from its code and scale.
    pub(super) fn number(
        &self,
        this: &mut Lowering,
        place: &Place,
        channel: &Channel,
        scale: Option<Expr>,
    ) -> Expr {
        let code = self.code(this, place, channel);
        match scale {
            Some(scale) => Expr::call(Function::Mul, vec![code, scale]),
            None => code,
        }
    }
}
