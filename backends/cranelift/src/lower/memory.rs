//! Loads and stores: consecutive elements, gathers and scatters, all lanes or the leading ones.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, BlockArg, InstBuilder, MemFlagsData, StackSlot, Type, Value, types};
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarOp};
use tcc_kernel::ir::{Access, BufferId, Expr, Space, Ty, Var};

use super::Lowering;
use super::lanes::{Lanes, Origin, Parts, REGISTER, bits_type, lane_type, memory, register, registers};

/// Where the elements of an access are.
#[derive(Clone, Debug)]
enum Place {
    /// Consecutive, from an address and a constant offset in bytes.
    Consecutive(Value, i32),
    /// At a constant distance in bytes from one to the next, from an address and an offset.
    Strided(Value, i32, i64),
    /// One index a lane, of elements from this address.
    Indexed(Value, Lanes),
}

impl Lowering<'_, '_> {
    /// Loads elements; see [`Expr::Load`].
    pub fn load(&mut self, buffer: BufferId, index: &Expr, lanes: u16, valid: Option<&Expr>) -> Lanes {
        let ty = Ty::vector(self.kernel.buffer_of(buffer).dtype, lanes);
        let place = self.place(buffer, index, lanes);
        let flags = self.load_flags(buffer, index);
        let Some(valid) = valid else { return self.load_all(ty, &place, flags) };
        let valid = self.expr(valid);
        if let Some(valid) = valid.constant().map(|scalar| scalar.as_i64()) {
            if valid >= i64::from(lanes) {
                return self.load_all(ty, &place, flags);
            }
            if valid <= 0 {
                return self.zero(ty);
            }
        }
        self.load_leading(ty, &place, valid.parts[0])
    }

    /// Stores elements; see [`tcc_kernel::ir::Stmt::Store`].
    pub fn store(&mut self, buffer: BufferId, index: &Expr, value: &Expr, valid: Option<&Expr>) {
        let value = self.expr(value);
        let lanes = value.ty.lanes;
        let place = self.place(buffer, index, lanes);
        let Some(valid) = valid else { return self.store_all(&value, &place) };
        let valid = self.expr(valid);
        if let Some(valid) = valid.constant().map(|scalar| scalar.as_i64()) {
            if valid >= i64::from(lanes) {
                return self.store_all(&value, &place);
            }
            if valid <= 0 {
                return;
            }
        }
        self.store_leading(&value, &place, valid.parts[0]);
    }

    /// Whether a load may move to its use.
    ///
    /// Cranelift keeps loads in their order and sinks arithmetic to its use, so that in a loop that only accumulates all loads
    /// would come first and need a register each. A load from an argument that is only read is like arithmetic there: nothing
    /// is stored before the loop's end. It must not leave the loop, or an empty loop would read what is not there, so its
    /// index has to vary with the loop's counter.
    fn load_flags(&self, buffer: BufferId, index: &Expr) -> MemFlagsData {
        let declaration = self.kernel.buffer_of(buffer);
        let read_only = declaration.access == Access::Read && matches!(declaration.space, Space::Argument(_));
        match self.accumulating {
            Some(counter) if read_only && varies(index, counter) => memory().with_readonly().with_can_move(),
            _ => memory(),
        }
    }

    /// Address and constant offset of an element.
    fn element(&mut self, buffer: BufferId, index: &Expr) -> (Value, i32) {
        let size = self.kernel.buffer_of(buffer).dtype.size() as i64;
        // Constant terms go into the instruction, so that neighbouring accesses share the address.
        let offset_of = |constant: &Expr| {
            constant
                .as_index()
                .and_then(|index| index.checked_mul(size))
                .and_then(|bytes| i32::try_from(bytes).ok())
        };
        let base = self.buffers[buffer.0 as usize];
        let (variable, offset) = match index {
            Expr::Const(_) => match offset_of(index) {
                Some(offset) => return (base, offset),
                None => (index, 0),
            },
            Expr::Call(ScalarOp::Call(Function::Add), terms) => {
                match (offset_of(&terms[0]), offset_of(&terms[1])) {
                    (_, Some(offset)) => (&terms[0], offset),
                    (Some(offset), None) => (&terms[1], offset),
                    (None, None) => (index, 0),
                }
            }
            _ => (index, 0),
        };
        let variable = self.expr(variable).parts[0];
        (self.advance(base, variable, size), offset)
    }

    /// `base + index * size`.
    fn advance(&mut self, base: Value, index: Value, size: i64) -> Value {
        let scaled = if size == 1 {
            index
        } else {
            let shift = self.int(types::I32, i64::from(size.trailing_zeros()));
            self.builder.ins().ishl(index, shift)
        };
        self.builder.ins().iadd(base, scaled)
    }

    fn place(&mut self, buffer: BufferId, index: &Expr, lanes: u16) -> Place {
        let size = self.kernel.buffer_of(buffer).dtype.size() as i64;
        if let Expr::Ramp { base, stride, lanes: count } = index
            && *count == lanes
            && let Some(bytes) = stride.checked_mul(size)
            && bytes.checked_mul(i64::from(lanes)).is_some_and(|bytes| i32::try_from(bytes).is_ok())
        {
            let (address, offset) = self.element(buffer, base);
            return if *stride == 1 {
                Place::Consecutive(address, offset)
            } else {
                Place::Strided(address, offset, bytes)
            };
        }
        if self.kernel.type_of(index).lanes == 1 {
            let (address, offset) = self.element(buffer, index);
            return Place::Consecutive(address, offset);
        }
        let index = self.expr(index);
        Place::Indexed(self.buffers[buffer.0 as usize], index)
    }

    /// Address and offset of the element of one lane that is not part of a consecutive access.
    fn lane_address(&mut self, place: &Place, number: usize, size: i64) -> (Value, i32) {
        match place {
            Place::Consecutive(address, offset) => self.offset_by(*address, *offset, number as i64 * size),
            Place::Strided(address, offset, stride) => {
                self.offset_by(*address, *offset, number as i64 * stride)
            }
            Place::Indexed(base, index) => {
                let index = self.extract(index, number);
                (self.advance(*base, index, size), 0)
            }
        }
    }

    fn offset_by(&mut self, address: Value, offset: i32, bytes: i64) -> (Value, i32) {
        match i32::try_from(i64::from(offset) + bytes) {
            Ok(offset) => (address, offset),
            Err(_) => (self.builder.ins().iadd_imm_s(address, bytes), offset),
        }
    }

    fn load_all(&mut self, ty: Ty, place: &Place, flags: MemFlagsData) -> Lanes {
        let lane = lane_type(ty.dtype);
        let raw = match place {
            Place::Consecutive(address, offset) => self.load_consecutive(ty, *address, *offset, flags),
            _ => {
                let scalars: Parts = (0..usize::from(ty.lanes))
                    .map(|number| {
                        let (address, offset) = self.lane_address(place, number, i64::from(lane.bytes()));
                        self.builder.ins().load(lane, flags, address, offset)
                    })
                    .collect();
                // Truth values are bytes until `loaded`.
                let dtype = if ty.dtype == DType::Bool { DType::U8 } else { ty.dtype };
                self.assemble(dtype, &scalars)
            }
        };
        self.loaded(ty, raw)
    }

    /// Truth values are bytes in memory.
    fn loaded(&mut self, ty: Ty, raw: Lanes) -> Lanes {
        if ty.dtype == DType::Bool {
            let bytes = Lanes { ty: ty.with(DType::U8), ..raw };
            self.cast(&bytes, DType::Bool)
        } else {
            raw
        }
    }

    fn storable(&mut self, value: &Lanes) -> Lanes {
        if value.ty.dtype == DType::Bool { self.cast(value, DType::U8) } else { value.clone() }
    }

    /// Elements as they lie in memory.
    fn load_consecutive(&mut self, ty: Ty, address: Value, offset: i32, flags: MemFlagsData) -> Lanes {
        let lane = lane_type(ty.dtype);
        if ty.lanes == 1 {
            let value = self.builder.ins().load(lane, flags, address, offset);
            return Lanes { lane, ..Lanes::scalar(ty.dtype, value) };
        }
        let total = usize::from(ty.lanes) * lane.bytes() as usize;
        let parts = (0..registers(ty.lanes, lane))
            .map(|number| {
                let start = number * REGISTER;
                let (address, offset) = self.offset_by(address, offset, start as i64);
                self.load_bytes(lane, address, offset, REGISTER.min(total - start), flags)
            })
            .collect();
        Lanes { ty, lane, parts, origin: Origin::Any }
    }

    /// A register of which the first so many bytes are in memory; nothing behind them is read.
    fn load_bytes(
        &mut self,
        lane: Type,
        address: Value,
        offset: i32,
        bytes: usize,
        flags: MemFlagsData,
    ) -> Value {
        let to = register(lane);
        if bytes == REGISTER {
            return self.builder.ins().load(to, flags, address, offset);
        }
        let mut part: Option<Value> = None;
        for (start, chunk) in chunks(bytes) {
            let (address, offset) = self.offset_by(address, offset, start as i64);
            let scalar = self.builder.ins().load(chunk, flags, address, offset);
            let number = (start / chunk.bytes() as usize) as u8;
            part = Some(match part {
                None if chunk.bits() >= 32 => self.builder.ins().scalar_to_vector(register(chunk), scalar),
                before => {
                    let before = match before {
                        Some(before) => self.bitcast(register(chunk), before),
                        None => self.register_bits(chunk, 0),
                    };
                    self.builder.ins().insertlane(before, scalar, number)
                }
            });
        }
        match part {
            Some(part) => self.bitcast(to, part),
            None => self.register_bits(lane, 0),
        }
    }

    fn store_all(&mut self, value: &Lanes, place: &Place) {
        let value = self.storable(value);
        match place {
            Place::Consecutive(address, offset) => self.store_consecutive(&value, *address, *offset),
            _ => {
                for number in 0..usize::from(value.ty.lanes) {
                    let scalar = self.extract(&value, number);
                    let (address, offset) = self.lane_address(place, number, i64::from(value.lane.bytes()));
                    self.builder.ins().store(memory(), scalar, address, offset);
                }
            }
        }
    }

    fn store_consecutive(&mut self, value: &Lanes, address: Value, offset: i32) {
        if value.is_scalar() {
            self.builder.ins().store(memory(), value.parts[0], address, offset);
            return;
        }
        let total = usize::from(value.ty.lanes) * value.lane.bytes() as usize;
        for (number, part) in value.parts.iter().enumerate() {
            let start = number * REGISTER;
            let (address, offset) = self.offset_by(address, offset, start as i64);
            self.store_bytes(*part, address, offset, REGISTER.min(total - start));
        }
    }

    /// The first bytes of a register; nothing behind them is written.
    fn store_bytes(&mut self, part: Value, address: Value, offset: i32, bytes: usize) {
        if bytes == REGISTER {
            self.builder.ins().store(memory(), part, address, offset);
            return;
        }
        for (start, chunk) in chunks(bytes) {
            let (address, offset) = self.offset_by(address, offset, start as i64);
            let lanes = self.bitcast(register(chunk), part);
            let scalar = self.builder.ins().extractlane(lanes, (start / chunk.bytes() as usize) as u8);
            self.builder.ins().store(memory(), scalar, address, offset);
        }
    }

    /// All lanes where that many are valid; else the valid ones, one at a time through a stack slot.
    fn load_leading(&mut self, ty: Ty, place: &Place, valid: Value) -> Lanes {
        let lane = lane_type(ty.dtype);
        let bytes_ty = if ty.dtype == DType::Bool { ty.with(DType::U8) } else { ty };
        let (all, some, join) =
            (self.builder.create_block(), self.builder.create_block(), self.builder.create_block());
        self.builder.set_cold_block(some);
        let register_type = if ty.lanes == 1 { lane } else { register(lane) };
        let count = if ty.lanes == 1 { 1 } else { registers(ty.lanes, lane) };
        let results: Parts =
            (0..count).map(|_| self.builder.append_block_param(join, register_type)).collect();
        self.branch_all(valid, ty.lanes, all, some);

        self.builder.switch_to_block(all);
        self.builder.seal_block(all);
        let raw = self.load_all(bytes_ty, place, memory());
        self.jump(join, &raw.parts);

        self.builder.switch_to_block(some);
        self.builder.seal_block(some);
        let zero = self.zero(bytes_ty);
        if ty.lanes == 1 {
            self.jump(join, &zero.parts);
        } else {
            let slot = self.slot(count * REGISTER);
            let slot_address = self.builder.ins().stack_addr(types::I64, slot, 0);
            self.store_consecutive(&zero, slot_address, 0);
            let indices = self.spilled_indices(place);
            self.each_valid(valid, |this, number| {
                let address = this.run_time_address(place, indices, number, i64::from(lane.bytes()));
                let element = this.builder.ins().load(bits_type(lane), memory(), address, 0);
                let to = this.advance(slot_address, number, i64::from(lane.bytes()));
                this.builder.ins().store(memory(), element, to, 0);
            });
            let raw = self.load_consecutive(bytes_ty, slot_address, 0, memory());
            self.jump(join, &raw.parts);
        }

        self.builder.switch_to_block(join);
        self.builder.seal_block(join);
        let raw = Lanes { ty: bytes_ty, lane, parts: results, origin: Origin::Any };
        self.loaded(ty, raw)
    }

    fn store_leading(&mut self, value: &Lanes, place: &Place, valid: Value) {
        let value = self.storable(value);
        let lanes = value.ty.lanes;
        let (all, some, join) =
            (self.builder.create_block(), self.builder.create_block(), self.builder.create_block());
        self.builder.set_cold_block(some);
        self.branch_all(valid, lanes, all, some);

        self.builder.switch_to_block(all);
        self.builder.seal_block(all);
        self.store_all(&value, place);
        self.jump(join, &[]);

        self.builder.switch_to_block(some);
        self.builder.seal_block(some);
        if lanes > 1 {
            let size = i64::from(value.lane.bytes());
            let slot = self.slot(value.parts.len() * REGISTER);
            let slot_address = self.builder.ins().stack_addr(types::I64, slot, 0);
            self.store_consecutive(&value, slot_address, 0);
            let indices = self.spilled_indices(place);
            self.each_valid(valid, |this, number| {
                let from = this.advance(slot_address, number, size);
                let element = this.builder.ins().load(bits_type(value.lane), memory(), from, 0);
                let address = this.run_time_address(place, indices, number, size);
                this.builder.ins().store(memory(), element, address, 0);
            });
        }
        self.jump(join, &[]);

        self.builder.switch_to_block(join);
        self.builder.seal_block(join);
    }

    fn branch_all(&mut self, valid: Value, lanes: u16, all: Block, some: Block) {
        let full = self.builder.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, valid, i64::from(lanes));
        self.builder.ins().brif(full, all, &[], some, &[]);
    }

    /// A jump with arguments.
    pub fn jump(&mut self, to: Block, args: &[Value]) {
        let args: Vec<BlockArg> = args.iter().map(|arg| BlockArg::Value(*arg)).collect();
        self.builder.ins().jump(to, &args);
    }

    /// `for number in 0..valid`, where `valid` is less than the lanes there are.
    fn each_valid(&mut self, valid: Value, body: impl FnOnce(&mut Self, Value)) {
        let (head, inside, after) =
            (self.builder.create_block(), self.builder.create_block(), self.builder.create_block());
        for block in [head, inside, after] {
            self.builder.set_cold_block(block);
        }
        let number = self.builder.append_block_param(head, types::I64);
        let zero = self.int(types::I64, 0);
        self.jump(head, &[zero]);
        self.builder.switch_to_block(head);
        let more = self.builder.ins().icmp(IntCC::SignedLessThan, number, valid);
        self.builder.ins().brif(more, inside, &[], after, &[]);
        self.builder.switch_to_block(inside);
        self.builder.seal_block(inside);
        body(self, number);
        let next = self.builder.ins().iadd_imm_s(number, 1);
        self.jump(head, &[next]);
        self.builder.seal_block(head);
        self.builder.switch_to_block(after);
        self.builder.seal_block(after);
    }

    /// The indices of a gather or scatter on the stack, where a loop can number them.
    fn spilled_indices(&mut self, place: &Place) -> Option<StackSlot> {
        let Place::Indexed(_, index) = place else { return None };
        let slot = self.slot(index.parts.len() * REGISTER);
        let address = self.builder.ins().stack_addr(types::I64, slot, 0);
        self.store_consecutive(index, address, 0);
        Some(slot)
    }

    /// Address of the element of a lane whose number is known at run time.
    fn run_time_address(
        &mut self,
        place: &Place,
        indices: Option<StackSlot>,
        number: Value,
        size: i64,
    ) -> Value {
        let (address, offset, distance) = match (place, indices) {
            (Place::Indexed(base, _), Some(slot)) => {
                let address = self.builder.ins().stack_addr(types::I64, slot, 0);
                let at = self.advance(address, number, i64::from(types::I64.bytes()));
                let index = self.builder.ins().load(types::I64, memory(), at, 0);
                return self.advance(*base, index, size);
            }
            (Place::Strided(address, offset, stride), _) => (*address, *offset, *stride),
            (Place::Consecutive(address, offset), _) => (*address, *offset, size),
            (Place::Indexed(..), None) => unreachable!("indices are on the stack"),
        };
        let bytes = self.builder.ins().imul_imm_s(number, distance);
        let bytes = self.builder.ins().iadd_imm_s(bytes, i64::from(offset));
        self.builder.ins().iadd(address, bytes)
    }
}

/// True where an index is certain to change with a counter: a sum with one term in it, or a product.
fn varies(index: &Expr, counter: Var) -> bool {
    match index {
        Expr::Var(var) => *var == counter,
        Expr::Ramp { base, .. } => varies(base, counter),
        Expr::Call(ScalarOp::Call(Function::Add | Function::Sub | Function::Mul), terms) => {
            match (terms[0].mentions(counter), terms[1].mentions(counter)) {
                (true, false) => varies(&terms[0], counter) && !terms[1].is_index(0),
                (false, true) => varies(&terms[1], counter) && !terms[0].is_index(0),
                _ => false,
            }
        }
        _ => false,
    }
}

/// Scalar accesses, by start and type, that cover the first so many bytes of a register.
fn chunks(bytes: usize) -> impl Iterator<Item = (usize, Type)> {
    let mut start = 0;
    [types::I64, types::I32, types::I16, types::I8].into_iter().filter_map(move |chunk| {
        let size = chunk.bytes() as usize;
        (bytes & size != 0).then(|| {
            start += size;
            (start - size, chunk)
        })
    })
}
