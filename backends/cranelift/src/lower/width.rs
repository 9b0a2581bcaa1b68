//! Changing the width of integer lanes, and of masks, which are integer lanes of all bits or none.

use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use tcc_ir::dtype::DType;

use super::Lowering;
use super::lanes::{Lanes, Parts, bits_type, register, registers};

/// How a lane that gets narrower treats the bits that do not fit.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Narrow {
    /// Drops them.
    Wrap,
    /// The values fit a signed lane, or saturate to it. Not for 64-bit lanes.
    Signed,
    /// Signed values that fit an unsigned lane, or saturate to it. Not for 64-bit lanes.
    Unsigned,
}

impl Lowering<'_, '_> {
    /// Lanes of twice the width, repeatedly.
    pub fn widen(&mut self, parts: &Parts, from: Type, to: Type, lanes: u16, signed: bool) -> Parts {
        let (mut parts, mut lane) = (parts.clone(), from);
        while lane.bits() < to.bits() {
            lane = lane.double_width().unwrap_or(to);
            let mut wide = Parts::new();
            for part in &parts {
                let low = if signed {
                    self.builder.ins().swiden_low(*part)
                } else {
                    self.builder.ins().uwiden_low(*part)
                };
                wide.push(low);
                if wide.len() == registers(lanes, lane) {
                    break;
                }
                wide.push(if signed {
                    self.builder.ins().swiden_high(*part)
                } else {
                    self.builder.ins().uwiden_high(*part)
                });
            }
            parts = wide;
        }
        parts
    }

    /// Lanes of half the width, repeatedly.
    pub fn narrow(&mut self, parts: &Parts, from: Type, to: Type, how: Narrow) -> Parts {
        let (mut parts, mut lane) = (parts.clone(), from);
        while lane.bits() > to.bits() {
            let half = lane.half_width().unwrap_or(to);
            parts = parts
                .chunks(2)
                .map(|pair| {
                    // Where a register is missing, its lanes are out of use.
                    let (low, high) = (pair[0], *pair.last().unwrap_or(&pair[0]));
                    self.narrow_pair(lane, half, low, high, how, to == half)
                })
                .collect();
            lane = half;
        }
        parts
    }

    fn narrow_pair(
        &mut self,
        lane: Type,
        half: Type,
        low: Value,
        high: Value,
        how: Narrow,
        last: bool,
    ) -> Value {
        if lane == types::I64 {
            let picks: Vec<u8> =
                (0..4u8).flat_map(|dword| (0..4).map(move |byte| dword * 8 + byte)).collect();
            let shuffled = self.shuffle_bytes(low, high, &picks);
            return self.bitcast(register(half), shuffled);
        }
        match how {
            Narrow::Signed => self.builder.ins().snarrow(low, high),
            // Only the last step may use the range of an unsigned lane: the one before keeps the sign.
            Narrow::Unsigned if last => self.builder.ins().unarrow(low, high),
            Narrow::Unsigned => self.builder.ins().snarrow(low, high),
            Narrow::Wrap => {
                let mask = self.register_bits(lane, u64::MAX >> (64 - half.bits()));
                let low = self.builder.ins().band(low, mask);
                let high = self.builder.ins().band(high, mask);
                self.builder.ins().unarrow(low, high)
            }
        }
    }

    /// A vector of truth values as masks of a lane's width.
    pub fn mask_of(&mut self, value: &Lanes, lane: Type) -> Parts {
        let to = bits_type(lane);
        if value.lane.bits() < to.bits() {
            self.widen(&value.parts, value.lane, to, value.ty.lanes, true)
        } else {
            self.narrow(&value.parts, value.lane, to, Narrow::Signed)
        }
    }

    /// A vector of truth values with masks of another width.
    pub fn with_mask(&mut self, value: &Lanes, lane: Type) -> Lanes {
        if value.is_scalar() || value.lane == bits_type(lane) {
            return value.clone();
        }
        let parts = self.mask_of(value, lane);
        Lanes { ty: value.ty.with(DType::Bool), lane: bits_type(lane), parts, origin: value.origin }
    }
}
