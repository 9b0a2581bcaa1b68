//! Operations across lanes: shuffles, reductions, and the four-way dot product of bytes.

use cranelift_codegen::ir::{InstBuilder, Value, types};
use smallvec::SmallVec;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;
use tcc_ir::words::ReduceKind;
use tcc_kernel::ir::Ty;

use super::Lowering;
use super::lanes::{Lanes, Origin, Parts, REGISTER, lane_type, register};

/// A byte that nobody has picked yet.
const OUTSIDE: u8 = 0xff;

impl Lowering<'_, '_> {
    /// Bytes of two registers by number, 16 of them, as `i8` lanes.
    pub fn shuffle_bytes(&mut self, a: Value, b: Value, picks: &[u8]) -> Value {
        let (a, b) = (self.bitcast(types::I8X16, a), self.bitcast(types::I8X16, b));
        let mask = self.builder.func.dfg.immediates.push(picks.into());
        self.builder.ins().shuffle(a, b, mask)
    }

    /// Lanes of `a` followed by those of `b`, picked by number.
    pub fn shuffle(&mut self, a: &Lanes, b: &Lanes, picks: &[u16]) -> Lanes {
        let dtype = a.ty.dtype;
        let lanes_of_a = usize::from(a.ty.lanes);
        if let [pick] = picks {
            let pick = usize::from(*pick);
            let scalar =
                if pick < lanes_of_a { self.extract(a, pick) } else { self.extract(b, pick - lanes_of_a) };
            return Lanes::scalar(dtype, scalar);
        }
        let (a, b) = (self.as_register(a), self.as_register(b));
        // Only masks differ in lane type.
        let lane = if a.lane.bits() >= b.lane.bits() { a.lane } else { b.lane };
        let (a, b) =
            if dtype == DType::Bool { (self.with_mask(&a, lane), self.with_mask(&b, lane)) } else { (a, b) };
        let (per, size) = (a.per_register(), lane.bytes() as usize);
        let sources: Parts = a.parts.iter().chain(&b.parts).copied().collect();
        // Where a lane lies: the number of its register, and its first byte there.
        let locate = |pick: u16| {
            let pick = usize::from(pick);
            let (first, lane) =
                if pick < lanes_of_a { (0, pick) } else { (a.parts.len(), pick - lanes_of_a) };
            (first + lane / per, lane % per * size)
        };
        let parts = picks
            .chunks(per)
            .map(|chunk| {
                let wanted: SmallVec<[(usize, usize); 16]> = chunk.iter().map(|pick| locate(*pick)).collect();
                let part = self.gather_bytes(&sources, &wanted, size);
                self.bitcast(register(lane), part)
            })
            .collect();
        let ty = Ty::vector(dtype, picks.len() as u16);
        Lanes { ty, lane, parts, origin: Origin::Any }
    }

    /// A register of lanes of `size` bytes, each given by its source and first byte there.
    fn gather_bytes(&mut self, sources: &Parts, wanted: &[(usize, usize)], size: usize) -> Value {
        let mut used: SmallVec<[usize; 4]> = wanted.iter().map(|(source, _)| *source).collect();
        used.sort_unstable();
        used.dedup();
        let bytes_from = |source: usize, base: u8| {
            let mut picks = [OUTSIDE; REGISTER];
            for (lane, (_, first)) in wanted.iter().enumerate().filter(|(_, (from, _))| *from == source) {
                for byte in 0..size {
                    picks[lane * size + byte] = base + (first + byte) as u8;
                }
            }
            picks
        };
        let merge = |low: [u8; REGISTER], high: [u8; REGISTER]| -> SmallVec<[u8; REGISTER]> {
            low.iter().zip(&high).map(|(low, high)| if *low == OUTSIDE { *high } else { *low }).collect()
        };
        // Bytes that nobody asked for stay in place, which keeps single-instruction shuffles possible.
        let filled = |mut picks: SmallVec<[u8; REGISTER]>| {
            for (number, pick) in picks.iter_mut().enumerate().filter(|(_, pick)| **pick == OUTSIDE) {
                *pick = number as u8;
            }
            picks
        };
        let first = sources[used[0]];
        match used[..] {
            [only] => {
                let picks = filled(merge(bytes_from(only, 0), [OUTSIDE; REGISTER]));
                self.shuffle_bytes(first, first, &picks)
            }
            [low, high] => {
                let picks = filled(merge(bytes_from(low, 0), bytes_from(high, REGISTER as u8)));
                self.shuffle_bytes(first, sources[high], &picks)
            }
            _ => {
                let picks = filled(merge(bytes_from(used[0], 0), bytes_from(used[1], REGISTER as u8)));
                let mut part = self.shuffle_bytes(first, sources[used[1]], &picks);
                for source in &used[2..] {
                    let fresh = bytes_from(*source, REGISTER as u8);
                    let mut kept = [0u8; REGISTER];
                    for (number, byte) in kept.iter_mut().enumerate() {
                        *byte = if fresh[number] == OUTSIDE { number as u8 } else { OUTSIDE };
                    }
                    let picks = merge(kept, fresh);
                    part = self.shuffle_bytes(part, sources[*source], &picks);
                }
                part
            }
        }
    }

    /// A scalar in every lane of a register; vectors as they are.
    fn as_register(&mut self, value: &Lanes) -> Lanes {
        if !value.is_scalar() {
            return value.clone();
        }
        self.splat(value, (128 / lane_type(value.ty.dtype).bits()) as u16)
    }

    /// All lanes in one: lane `i` with lane `i + n / 2`, repeatedly.
    pub fn reduce_lanes(&mut self, kind: ReduceKind, mut value: Lanes) -> Lanes {
        let function = match kind {
            ReduceKind::Sum => Function::Add,
            ReduceKind::Prod => Function::Mul,
            ReduceKind::Max => Function::Max,
            ReduceKind::Min => Function::Min,
        };
        // A splat or constant stays one only until lanes are combined.
        value.origin = Origin::Any;
        while value.ty.lanes > 1 {
            let half = value.ty.lanes / 2;
            let ty = Ty::vector(value.ty.dtype, half);
            let (low, high) = if value.parts.len() > 1 {
                let (low, high) = value.parts.split_at(value.parts.len() / 2);
                (Parts::from(low), Parts::from(high))
            } else {
                // Bytes of the upper half come first; what follows is out of use.
                let start = usize::from(half) * value.lane.bytes() as usize;
                let picks: Vec<u8> = (0..REGISTER).map(|byte| ((byte + start) % REGISTER) as u8).collect();
                let moved = self.shuffle_bytes(value.parts[0], value.parts[0], &picks);
                (value.parts.clone(), Parts::from_slice(&[self.bitcast(register(value.lane), moved)]))
            };
            // One lane in a register is still a register until the end.
            let ty_of_halves = Ty::vector(ty.dtype, half.max(2));
            let vector =
                |parts: Parts| Lanes { ty: ty_of_halves, lane: value.lane, parts, origin: Origin::Any };
            let combined = self.binary(function, &vector(low), &vector(high));
            value = Lanes { ty, ..combined };
            if half == 1 {
                let scalar = self.builder.ins().extractlane(value.parts[0], 0u8);
                return Lanes::scalar(ty.dtype, scalar);
            }
        }
        value
    }

    /// `acc[i] + sum over j < 4 of a[4i + j] * b[4i + j]`, exact apart from wrapping in `i32`.
    pub fn dot(&mut self, acc: &Lanes, a: &Lanes, b: &Lanes) -> Lanes {
        let (signed_a, signed_b) = (a.ty.dtype.is_signed(), b.ty.dtype.is_signed());
        let folded = match (signed_a, signed_b) {
            (true, true) => self.machine.signed_dot,
            (false, false) => false,
            _ => self.machine.mixed_dot,
        };
        // The tree that instruction selection recognizes has the signed operand first.
        let (a, b) = if signed_a { (a, b) } else { (b, a) };
        let (signed_a, signed_b) = (signed_a || signed_b, signed_a && signed_b);
        let accumulators = self.as_register(acc);
        let parts: Parts = accumulators
            .parts
            .iter()
            .zip(a.parts.iter().zip(&b.parts))
            .map(|(acc, (x, y))| {
                let sums = if folded {
                    self.dot_folded(*x, *y, signed_b)
                } else {
                    self.dot_of_pairs(*x, signed_a, *y, signed_b)
                };
                self.builder.ins().iadd(sums, *acc)
            })
            .collect();
        if acc.is_scalar() {
            let scalar = self.builder.ins().extractlane(parts[0], 0u8);
            return Lanes::scalar(DType::I32, scalar);
        }
        Lanes { parts, origin: Origin::Any, ..acc.clone() }
    }

    fn widen_bytes(&mut self, x: Value, signed: bool) -> (Value, Value) {
        if signed {
            (self.builder.ins().swiden_low(x), self.builder.ins().swiden_high(x))
        } else {
            (self.builder.ins().uwiden_low(x), self.builder.ins().uwiden_high(x))
        }
    }

    /// Products in 16-bit lanes, which hold them where `x` is signed, then sums of pairs of pairs.
    fn dot_folded(&mut self, x: Value, y: Value, signed_y: bool) -> Value {
        let ((x_low, x_high), (y_low, y_high)) = (self.widen_bytes(x, true), self.widen_bytes(y, signed_y));
        let mut pairs = [(x_low, y_low), (x_high, y_high)].map(|(x, y)| {
            let products = self.builder.ins().imul(x, y);
            let low = self.builder.ins().swiden_low(products);
            let high = self.builder.ins().swiden_high(products);
            self.builder.ins().iadd_pairwise(low, high)
        });
        let high = pairs[1];
        pairs[0] = self.builder.ins().iadd_pairwise(pairs[0], high);
        pairs[0]
    }

    /// Sums of two products each in 32-bit lanes (`pmaddwd` on x86), then sums of pairs of those.
    fn dot_of_pairs(&mut self, x: Value, signed_x: bool, y: Value, signed_y: bool) -> Value {
        let ((x_low, x_high), (y_low, y_high)) =
            (self.widen_bytes(x, signed_x), self.widen_bytes(y, signed_y));
        let pairs = [(x_low, y_low), (x_high, y_high)].map(|(x, y)| {
            // As 16-bit lanes both are signed now, whatever the bytes were.
            let ((x_low, x_high), (y_low, y_high)) = (self.widen_bytes(x, true), self.widen_bytes(y, true));
            let low = self.builder.ins().imul(x_low, y_low);
            let high = self.builder.ins().imul(x_high, y_high);
            self.builder.ins().iadd_pairwise(low, high)
        });
        self.builder.ins().iadd_pairwise(pairs[0], pairs[1])
    }
}
