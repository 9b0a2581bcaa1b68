//! Values of the kernel IR as Cranelift values.
//!
//! A scalar is one value of its lane type. A vector is a list of 128-bit registers; the last may be partly used and then
//! holds arbitrary lanes behind the used ones. Truth values are `i8` 0 or 1 as scalars and masks (all bits or none) as
//! vectors, of the lane width of what was compared. `f16` is its bit pattern in `i16` lanes.

use cranelift_codegen::ir::{
    ConstantData, Endianness, InstBuilder, MemFlagsData, StackSlot, StackSlotData, StackSlotKind, Type,
    Value, types,
};
use smallvec::{SmallVec, smallvec};
use tcc_ir::dtype::DType;
use tcc_ir::scalar::Scalar;
use tcc_kernel::ir::Ty;

use super::Lowering;
use super::half::nearest_half;

/// Registers of a vector, or the one value of a scalar.
pub(super) type Parts = SmallVec<[Value; 4]>;

/// What is known of a value beyond its type.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Origin {
    /// Nothing.
    Any,
    /// Every lane is this constant.
    Constant(Scalar),
    /// Every lane is this scalar value.
    Splat(Value),
}

/// A value of the kernel IR.
#[derive(Clone, Debug)]
pub(super) struct Lanes {
    pub ty: Ty,
    /// Type of a Cranelift lane.
    pub lane: Type,
    pub parts: Parts,
    pub origin: Origin,
}

/// Bytes of a register.
pub(super) const REGISTER: usize = 16;

/// The Cranelift type of one element; truth values as in memory.
pub(super) fn lane_type(dtype: DType) -> Type {
    match dtype {
        DType::F32 => types::F32,
        DType::F64 => types::F64,
        DType::I8 | DType::U8 | DType::Bool => types::I8,
        DType::I16 | DType::U16 | DType::F16 => types::I16,
        DType::I32 | DType::U32 => types::I32,
        DType::I64 | DType::U64 => types::I64,
        // `supported` has refused every other type.
        other => unreachable!("{other} is not a core type"),
    }
}

/// The register of such lanes.
pub(super) fn register(lane: Type) -> Type {
    lane.by(128 / lane.bits()).unwrap_or(types::I8X16)
}

/// The integer type of a lane's width.
pub(super) fn bits_type(lane: Type) -> Type {
    Type::int(lane.bits() as u16).unwrap_or(types::I8)
}

/// Flags of accesses to memory that the contract makes valid, of any alignment.
pub(super) fn memory() -> MemFlagsData {
    MemFlagsData::new().with_notrap().with_endianness(Endianness::Little)
}

/// Bit pattern of a constant in its own width.
pub(super) fn bits_of(scalar: Scalar) -> u64 {
    match scalar.dtype {
        DType::F64 => scalar.bits,
        DType::F32 => u64::from((f64::from_bits(scalar.bits) as f32).to_bits()),
        DType::F16 => u64::from(nearest_half(f64::from_bits(scalar.bits))),
        DType::Bool => u64::from(scalar.bits != 0),
        dtype => scalar.bits & (u64::MAX >> (64 - dtype.bits())),
    }
}

impl Lanes {
    /// A scalar.
    pub fn scalar(dtype: DType, value: Value) -> Lanes {
        Lanes { ty: Ty::scalar(dtype), lane: lane_type(dtype), parts: smallvec![value], origin: Origin::Any }
    }

    /// A value of the given registers.
    pub fn vector(ty: Ty, lane: Type, parts: Parts) -> Lanes {
        debug_assert_eq!(parts.len(), registers(ty.lanes, lane));
        Lanes { ty, lane, parts, origin: Origin::Any }
    }

    /// True for one lane.
    pub fn is_scalar(&self) -> bool {
        self.ty.lanes == 1
    }

    /// The constant that all lanes are.
    pub fn constant(&self) -> Option<Scalar> {
        match self.origin {
            Origin::Constant(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// Lanes of a register.
    pub fn per_register(&self) -> usize {
        128 / self.lane.bits() as usize
    }
}

/// How many registers a vector takes.
pub(super) fn registers(lanes: u16, lane: Type) -> usize {
    (usize::from(lanes) * lane.bits() as usize).div_ceil(128)
}

impl Lowering<'_, '_> {
    /// An integer constant.
    pub fn int(&mut self, lane: Type, value: i64) -> Value {
        let mask = u64::MAX >> (64 - lane.bits());
        self.builder.ins().iconst(lane, (value as u64 & mask) as i64)
    }

    /// A scalar constant from its bit pattern.
    pub fn scalar_bits(&mut self, lane: Type, bits: u64) -> Value {
        match lane {
            types::F32 => self.builder.ins().f32const(f32::from_bits(bits as u32)),
            types::F64 => self.builder.ins().f64const(f64::from_bits(bits)),
            _ => self.int(lane, bits as i64),
        }
    }

    /// A register with every lane of this bit pattern.
    pub fn register_bits(&mut self, lane: Type, bits: u64) -> Value {
        let one = &bits.to_le_bytes()[..lane.bytes() as usize];
        self.register_bytes(lane, one.iter().copied().cycle().take(REGISTER).collect())
    }

    /// A register with these bytes.
    pub fn register_bytes(&mut self, lane: Type, bytes: Vec<u8>) -> Value {
        let constant = self.builder.func.dfg.constants.insert(ConstantData::from(&bytes[..]));
        self.builder.ins().vconst(register(lane), constant)
    }

    /// A constant in every lane.
    pub fn constant(&mut self, scalar: Scalar, lanes: u16) -> Lanes {
        let lane = lane_type(scalar.dtype);
        let bits = bits_of(scalar);
        let ty = Ty::vector(scalar.dtype, lanes);
        let part = match (lanes, scalar.dtype) {
            (1, _) => self.scalar_bits(lane, bits),
            (_, DType::Bool) => self.register_bits(lane, bits.wrapping_neg()),
            _ => self.register_bits(lane, bits),
        };
        let count = if lanes == 1 { 1 } else { registers(lanes, lane) };
        Lanes { ty, lane, parts: smallvec![part; count], origin: Origin::Constant(scalar) }
    }

    /// Zero, or false, in every lane.
    pub fn zero(&mut self, ty: Ty) -> Lanes {
        self.constant(Scalar::of(ty.dtype, 0.0), ty.lanes)
    }

    /// A scalar in every lane.
    pub fn splat(&mut self, value: &Lanes, lanes: u16) -> Lanes {
        if let Some(scalar) = value.constant() {
            return self.constant(scalar, lanes);
        }
        if lanes == 1 {
            return value.clone();
        }
        let ty = Ty::vector(value.ty.dtype, lanes);
        let scalar = value.parts[0];
        let filled = if ty.dtype == DType::Bool { self.builder.ins().ineg(scalar) } else { scalar };
        let part = self.builder.ins().splat(register(value.lane), filled);
        let count = registers(lanes, value.lane);
        Lanes { ty, lane: value.lane, parts: smallvec![part; count], origin: Origin::Splat(scalar) }
    }

    /// The same bits as a register or scalar of another type.
    pub fn bitcast(&mut self, to: Type, value: Value) -> Value {
        if self.builder.func.dfg.value_type(value) == to {
            return value;
        }
        let flags = MemFlagsData::new().with_endianness(Endianness::Little);
        self.builder.ins().bitcast(to, flags, value)
    }

    /// The same bits with lanes, or scalars, of another type of the same width.
    pub fn reinterpret(&mut self, value: &Lanes, dtype: DType, lane: Type) -> Lanes {
        let to = if value.is_scalar() { lane } else { register(lane) };
        let parts = value.parts.iter().map(|part| self.bitcast(to, *part)).collect();
        Lanes { ty: value.ty.with(dtype), lane, parts, origin: Origin::Any }
    }

    /// One lane as a scalar; truth values as 0 or 1.
    pub fn extract(&mut self, value: &Lanes, number: usize) -> Value {
        match value.origin {
            _ if value.is_scalar() => return value.parts[0],
            Origin::Splat(scalar) => return scalar,
            Origin::Constant(scalar) => return self.scalar_bits(lane_type(scalar.dtype), bits_of(scalar)),
            Origin::Any => {}
        }
        let per = value.per_register();
        let lane = self.builder.ins().extractlane(value.parts[number / per], (number % per) as u8);
        if value.ty.dtype != DType::Bool {
            return lane;
        }
        let byte = if value.lane == types::I8 { lane } else { self.builder.ins().ireduce(types::I8, lane) };
        let one = self.int(types::I8, 1);
        self.builder.ins().band(byte, one)
    }

    /// A vector of scalars, one a lane.
    pub fn assemble(&mut self, dtype: DType, scalars: &[Value]) -> Lanes {
        if let [scalar] = scalars {
            return Lanes::scalar(dtype, *scalar);
        }
        let lane = lane_type(dtype);
        let ty = Ty::vector(dtype, scalars.len() as u16);
        let parts = scalars
            .chunks(128 / lane.bits() as usize)
            .map(|chunk| {
                let mut part = if lane.bits() >= 32 {
                    self.builder.ins().scalar_to_vector(register(lane), chunk[0])
                } else {
                    let zero = self.register_bits(lane, 0);
                    self.builder.ins().insertlane(zero, chunk[0], 0u8)
                };
                for (number, scalar) in chunk.iter().enumerate().skip(1) {
                    part = self.builder.ins().insertlane(part, *scalar, number as u8);
                }
                // Truth values come as 0 and 1.
                if dtype == DType::Bool { self.builder.ins().ineg(part) } else { part }
            })
            .collect();
        Lanes::vector(ty, lane, parts)
    }

    /// Applies a scalar operation to each lane in use.
    pub fn each_lane(
        &mut self,
        dtype: DType,
        args: &[&Lanes],
        mut apply: impl FnMut(&mut Self, &[Value]) -> Value,
    ) -> Lanes {
        let results: Parts = (0..usize::from(args[0].ty.lanes))
            .map(|number| {
                let scalars: Parts = args.iter().map(|arg| self.extract(arg, number)).collect();
                apply(self, &scalars)
            })
            .collect();
        self.assemble(dtype, &results)
    }

    /// Applies an operation to each register, or to the scalar; the type stays.
    pub fn map(&mut self, a: &Lanes, mut apply: impl FnMut(&mut Self, Value) -> Value) -> Lanes {
        let parts = a.parts.iter().map(|part| apply(self, *part)).collect();
        Lanes { parts, origin: Origin::Any, ..a.clone() }
    }

    /// Applies an operation to each pair of registers of two values with equal types.
    pub fn zip(
        &mut self,
        a: &Lanes,
        b: &Lanes,
        mut apply: impl FnMut(&mut Self, Value, Value) -> Value,
    ) -> Lanes {
        let parts = a.parts.iter().zip(&b.parts).map(|(x, y)| apply(self, *x, *y)).collect();
        Lanes { parts, origin: Origin::Any, ..a.clone() }
    }

    /// Room on the stack for a value or buffer.
    pub fn slot(&mut self, bytes: usize) -> StackSlot {
        let align_shift = 4;
        self.builder.create_sized_stack_slot(StackSlotData::new(
            StackSlotKind::ExplicitSlot,
            bytes.max(1) as u32,
            align_shift,
        ))
    }
}
