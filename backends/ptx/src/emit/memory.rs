//! Buffers: where they start, loads and stores.
//!
//! Arguments and scratch lie in global memory; scratch is cut into one piece a thread by the thread's number in the grid.
//! Shared buffers are declared with the alignment of the widest vector access. Stack buffers lie in local memory.

use std::fmt::Write;

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarOp};
use tcc_kernel::ir::{BufferId, Expr, Space};
use tcc_kernel::scratch::ScratchLayout;

use super::Emitter;
use super::register::{Class, Value};
use super::vector::divisor;
use crate::error::Error;

/// Alignment of shared and local buffers in bytes.
pub const ALIGNMENT: u64 = 16;

/// What is between the brackets of an access.
pub struct Address {
    base: Value,
    offset: i32,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.offset {
            0 => write!(f, "{}", self.base),
            offset => write!(f, "{}+{offset}", self.base),
        }
    }
}

/// The part of a sum that is no constant, and the constant.
fn constant_part(index: &Expr) -> (Option<Expr>, i64) {
    if let Some(value) = index.as_index() {
        return (None, value);
    }
    let Expr::Call(ScalarOp::Call(function @ (Function::Add | Function::Sub)), args) = index else {
        return (Some(index.clone()), 0);
    };
    let [(a, x), (b, y)] = [constant_part(&args[0]), constant_part(&args[1])];
    let constant = if *function == Function::Add { x.checked_add(y) } else { x.checked_sub(y) };
    match (a, b, constant) {
        (_, _, None) => (Some(index.clone()), 0),
        (a, None, Some(constant)) => (a, constant),
        (None, Some(b), Some(constant)) if *function == Function::Add => (Some(b), constant),
        (None, Some(b), Some(constant)) => (Some(Expr::index(0).minus(b)), constant),
        (Some(a), Some(b), Some(constant)) => (Some(Expr::call(*function, vec![a, b])), constant),
    }
}

/// True where a part of a sum is taken away.
fn has_negative(sum: &Expr) -> bool {
    let mut found = false;
    sum.visit(&mut |part| {
        found |= match part {
            Expr::Const(_) => part.as_index().is_some_and(|value| value < 0),
            Expr::Call(ScalarOp::Call(function), _) => matches!(function, Function::Sub | Function::Neg),
            _ => false,
        }
    });
    found
}

/// Start of a buffer.
pub struct Place {
    space: &'static str,
    base: Value,
}

impl Emitter<'_> {
    pub(super) fn place_buffers(&mut self) -> Result<(), Error> {
        let layout = ScratchLayout::of(self.kernel);
        let scratch =
            if super::has_scratch(self.kernel) { Some(self.own_scratch(&layout.total)?) } else { None };
        let is_requested = super::dynamic_shared_bytes(self.kernel).is_some_and(|bytes| bytes > 0);
        let mut shared = 0u64;
        for (number, buffer) in self.kernel.buffers.iter().enumerate() {
            let name = &self.kernel.name;
            let place = match (buffer.space, &scratch, &layout.offsets[number]) {
                (Space::Argument(position), _, _) => {
                    let generic = self.fresh(Class::Bits64);
                    self.line(format!("ld.param.u64 {generic}, [{name}_a{position}];"));
                    let base = self.instruction(Class::Bits64, "cvta.to.global.u64", &[&generic]);
                    Place { space: "global", base }
                }
                (Space::Scratch, Some(scratch), Some(offset)) => {
                    let offset = self.value(offset)?;
                    let base = self.instruction(Class::Bits64, "add.s64", &[scratch, &offset]);
                    Place { space: "global", base }
                }
                (Space::Stack, _, _) => self.declared(number, "local"),
                (Space::Shared, _, _) if is_requested => {
                    let place = self.requested(shared);
                    shared += self.bytes_of(number).next_multiple_of(ALIGNMENT);
                    place
                }
                (Space::Shared, _, _) => self.declared(number, "shared"),
                (other, _, _) => {
                    return self.unsupported(format!("buffer '{}' in the space {other:?}", buffer.name));
                }
            };
            self.places.push(place);
        }
        Ok(())
    }

    /// Addresses of these spaces have 32 bits.
    fn declared(&mut self, number: usize, space: &'static str) -> Place {
        let base = self.fresh(Class::Bits32);
        self.line(format!("mov.u32 {base}, {}_{space}{number};", self.kernel.name));
        Place { space, base }
    }

    /// A buffer in the shared memory that a launch asks for, one after the other.
    fn requested(&mut self, offset: u64) -> Place {
        let name = &self.kernel.name;
        let start = format!("mov.u32 {{}}, {name}_shared;");
        let base = self.fresh(Class::Bits32);
        self.line(start.replace("{}", &base.to_string()));
        let base = match offset {
            0 => base,
            offset => self.instruction(Class::Bits32, "add.s32", &[&base, &Value::integer(offset as i64)]),
        };
        Place { space: "shared", base }
    }

    /// The thread's own piece of scratch memory.
    fn own_scratch(&mut self, bytes: &Expr) -> Result<Value, Error> {
        let generic = self.fresh(Class::Bits64);
        self.line(format!("ld.param.u64 {generic}, [{}_scratch];", self.kernel.name));
        let mut base = self.instruction(Class::Bits64, "cvta.to.global.u64", &[&generic]);
        // The number of the thread in the grid, the last dimension slowest.
        let mut number = Value::integer(0);
        for axis in (0..3u8).rev() {
            let blocks = self.special("nctaid", axis);
            let block = self.special("ctaid", axis);
            number = self.instruction(Class::Bits64, "mad.lo.s64", &[&number, &blocks, &block]);
        }
        for axis in (0..3u8).rev() {
            let size = Value::integer(self.block[usize::from(axis)] as i64);
            let thread = self.special("tid", axis);
            number = self.instruction(Class::Bits64, "mad.lo.s64", &[&number, &size, &thread]);
        }
        let bytes = self.value(bytes)?;
        base = self.instruction(Class::Bits64, "mad.lo.s64", &[&number, &bytes, &base]);
        Ok(base)
    }

    /// Bytes of a buffer whose count is a constant.
    fn bytes_of(&self, number: usize) -> u64 {
        let buffer = &self.kernel.buffers[number];
        let count = buffer.count.as_index().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        buffer.dtype.bytes_for(count).unwrap_or(0) as u64
    }

    /// Declarations of shared and local buffers.
    pub(super) fn declared_memory(&self) -> String {
        let is_requested = super::dynamic_shared_bytes(self.kernel).is_some_and(|bytes| bytes > 0);
        let mut out = String::new();
        for (number, buffer) in self.kernel.buffers.iter().enumerate() {
            let space = match buffer.space {
                Space::Stack => "local",
                Space::Shared if !is_requested => "shared",
                _ => continue,
            };
            // An empty array has no declaration in PTX.
            let bytes = self.bytes_of(number).max(1);
            // Writing to a string does not fail.
            let _ = writeln!(
                out,
                "\t.{space} .align {ALIGNMENT} .b8 {}_{space}{number}[{bytes}];",
                self.kernel.name
            );
        }
        out
    }

    /// Space and type suffix of an access.
    fn suffix(&self, buffer: BufferId) -> Result<(&'static str, &'static str), Error> {
        let dtype = self.kernel.buffer_of(buffer).dtype;
        let kind = match dtype {
            DType::Bool | DType::U8 => "u8",
            DType::I8 => "s8",
            DType::I16 => "s16",
            DType::U16 => "u16",
            DType::F16 => "b16",
            DType::BF16 if self.target.bfloat16() => "b16",
            DType::I32 | DType::U32 => "u32",
            DType::I64 | DType::U64 => "u64",
            DType::F32 => "f32",
            DType::F64 => "f64",
            other => return Err(self.type_error(format!("{other} in memory"))),
        };
        Ok((self.places[buffer.0 as usize].space, kind))
    }

    /// `base + index * size`, a constant part of the index as a constant: what is between the brackets of an access.
    pub(super) fn address(&mut self, buffer: BufferId, index: &Expr) -> Result<Address, Error> {
        let size = self.kernel.buffer_of(buffer).dtype.size() as i64;
        let place = &self.places[buffer.0 as usize];
        let (base, is_wide) = (place.base.clone(), !matches!(place.space, "shared" | "local"));
        let (rest, constant) = constant_part(index);
        let offset = constant.checked_mul(size).and_then(|offset| i32::try_from(offset).ok());
        // What an instruction adds to 32 bits may carry, where the rest of the index is negative.
        let carries = !is_wide && rest.as_ref().is_some_and(has_negative);
        let (rest, offset) = match offset {
            // Instructions hold 24 bits with a sign.
            Some(offset) if offset.unsigned_abs() < 1 << 23 && !carries => (rest, offset),
            _ => (Some(index.clone()), 0),
        };
        let base = match rest {
            None => base,
            Some(rest) => {
                let index = self.value(&rest)?;
                self.element(&base, &index, size, is_wide)
            }
        };
        Ok(Address { base, offset })
    }

    /// The address of an element.
    fn element(&mut self, base: &Value, index: &Value, size: i64, is_wide: bool) -> Value {
        let size = Value::integer(size);
        match (index.as_integer(), is_wide) {
            (Some(0), _) => base.clone(),
            (Some(index), _) => {
                let offset = Value::integer(index.wrapping_mul(size.as_integer().unwrap_or(1)));
                let class = if is_wide { Class::Bits64 } else { Class::Bits32 };
                let opcode = if is_wide { "add.s64" } else { "add.s32" };
                self.instruction(class, opcode, &[base, &offset])
            }
            (None, true) => self.instruction(Class::Bits64, "mad.lo.s64", &[index, &size, base]),
            (None, false) => {
                let index = self.instruction(Class::Bits32, "cvt.u32.u64", &[index]);
                self.instruction(Class::Bits32, "mad.lo.s32", &[&index, &size, base])
            }
        }
    }

    /// The address of an element whose index is in a register.
    fn address_of(&mut self, buffer: BufferId, index: &Value) -> Address {
        let size = self.kernel.buffer_of(buffer).dtype.size() as i64;
        let place = &self.places[buffer.0 as usize];
        let (base, is_wide) = (place.base.clone(), !matches!(place.space, "shared" | "local"));
        Address { base: self.element(&base, index, size, is_wide), offset: 0 }
    }

    /// True where `count` lanes from an index are one aligned access of at most 16 bytes.
    fn is_wide(&self, buffer: BufferId, index: &Expr, count: usize) -> bool {
        let declaration = self.kernel.buffer_of(buffer);
        let size = declaration.dtype.size();
        // An argument may start anywhere a tensor does: session memory is aligned for vectors.
        matches!(count, 2 | 4)
            && size * count <= ALIGNMENT as usize
            && (divisor(index) as usize).is_multiple_of(count)
    }

    /// The condition of a lane that may be off.
    fn guard(&mut self, valid: Option<&Value>, lane: usize) -> String {
        let Some(valid) = valid else { return String::new() };
        let lane = Value::integer(lane as i64);
        let on = self.instruction(Class::Predicate, "setp.gt.s64", &[valid, &lane]);
        format!("@{on} ")
    }

    pub(super) fn load(
        &mut self,
        buffer: BufferId,
        index: &Expr,
        valid: Option<&Expr>,
    ) -> Result<Value, Error> {
        let valid = valid.map(|valid| self.value(valid)).transpose()?;
        let address = self.address(buffer, index)?;
        self.load_lane(buffer, &address, valid.as_ref(), 0)
    }

    fn load_lane(
        &mut self,
        buffer: BufferId,
        address: &Address,
        valid: Option<&Value>,
        lane: usize,
    ) -> Result<Value, Error> {
        let dtype = self.kernel.buffer_of(buffer).dtype;
        let (space, kind) = self.suffix(buffer)?;
        let guard = self.guard(valid, lane);
        let register = self.loaded(dtype)?;
        if !guard.is_empty() {
            self.zero(&register, dtype)?;
        }
        self.line(format!("{guard}ld.{space}.{kind} {register}, [{address}];"));
        if dtype == DType::Bool {
            return Ok(self.instruction(Class::Predicate, "setp.ne.u32", &[&register, &Value::integer(0)]));
        }
        Ok(register)
    }

    /// A register for a loaded element; truth values are bytes.
    fn loaded(&mut self, dtype: DType) -> Result<Value, Error> {
        match Class::of(dtype) {
            Some(Class::Predicate) => Ok(self.fresh(Class::Bits32)),
            Some(class) => Ok(self.fresh(class)),
            None => Err(self.type_error(dtype.to_string())),
        }
    }

    fn zero(&mut self, register: &Value, dtype: DType) -> Result<(), Error> {
        let (kind, zero) = match Class::of(dtype) {
            Some(Class::Single) => ("f32", Value::single(0.0)),
            Some(Class::Double) => ("f64", Value::double(0.0)),
            Some(Class::Predicate) => ("b32", Value::integer(0)),
            Some(class) => (class.bits_type(), Value::integer(0)),
            None => return Err(self.type_error(dtype.to_string())),
        };
        self.line(format!("mov.{kind} {register}, {zero};"));
        Ok(())
    }

    /// Consecutive elements, or one from each of as many indices.
    pub(super) fn load_lanes(
        &mut self,
        buffer: BufferId,
        index: &Expr,
        count: usize,
        valid: Option<&Expr>,
    ) -> Result<Vec<Value>, Error> {
        let dtype = self.kernel.buffer_of(buffer).dtype;
        if valid.is_none() && dtype != DType::Bool && self.is_wide(buffer, index, count) {
            let (space, kind) = self.suffix(buffer)?;
            let address = self.address(buffer, index)?;
            let registers = (0..count).map(|_| self.loaded(dtype)).collect::<Result<Vec<_>, _>>()?;
            let result = super::tuple(&registers);
            self.line(format!("ld.{space}.v{count}.{kind} {result}, [{address}];"));
            return Ok(registers);
        }
        let valid = valid.map(|valid| self.value(valid)).transpose()?;
        let addresses = self.addresses(buffer, index, count)?;
        let mut values = Vec::with_capacity(count);
        for (lane, address) in addresses.iter().enumerate() {
            values.push(self.load_lane(buffer, address, valid.as_ref(), lane)?);
        }
        Ok(values)
    }

    /// The address of each lane of an access.
    fn addresses(&mut self, buffer: BufferId, index: &Expr, count: usize) -> Result<Vec<Address>, Error> {
        if self.kernel.type_of(index).lanes == 1 {
            let lane = |lane: i64| Expr::call(Function::Add, vec![index.clone(), Expr::index(lane)]);
            return (0..count as i64).map(|number| self.address(buffer, &lane(number))).collect();
        }
        let indices = self.lanes(index)?;
        Ok(indices.iter().map(|index| self.address_of(buffer, index)).collect())
    }

    pub(super) fn store(
        &mut self,
        buffer: BufferId,
        index: &Expr,
        value: &Expr,
        valid: Option<&Expr>,
    ) -> Result<(), Error> {
        let dtype = self.kernel.buffer_of(buffer).dtype;
        let (space, kind) = self.suffix(buffer)?;
        let mut values = self.lanes(value)?;
        for value in &mut values {
            if dtype == DType::Bool {
                let (one, zero) = (Value::integer(1), Value::integer(0));
                *value = self.instruction(Class::Bits32, "selp.b32", &[&one, &zero, value]);
            }
            *value = self.in_register(value, dtype)?;
        }
        let count = values.len();
        if count > 1 && valid.is_none() && self.is_wide(buffer, index, count) {
            let address = self.address(buffer, index)?;
            self.line(format!("st.{space}.v{count}.{kind} [{address}], {};", super::tuple(&values)));
            return Ok(());
        }
        let valid = valid.map(|valid| self.value(valid)).transpose()?;
        let addresses = self.addresses(buffer, index, count)?;
        for (lane, (address, value)) in addresses.iter().zip(&values).enumerate() {
            let guard = self.guard(valid.as_ref(), lane);
            self.line(format!("{guard}st.{space}.{kind} [{address}], {value};"));
        }
        Ok(())
    }
}
