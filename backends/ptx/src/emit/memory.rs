//! Buffers: where they start, loads and stores.
//!
//! Arguments and scratch lie in global memory; scratch is cut into one piece a thread by the thread's number in the grid.
//! Shared buffers are declared with the alignment of the widest vector access. Stack buffers lie in local memory.

use std::fmt::Write;

use tcc_ir::dtype::DType;
use tcc_kernel::ir::{BufferId, Expr, Space};
use tcc_kernel::scratch::ScratchLayout;

use super::Emitter;
use super::register::{Class, Value};
use super::vector::divisor;
use crate::error::Error;

/// Alignment of shared and local buffers in bytes.
pub const ALIGNMENT: u64 = 16;

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
                (Space::Shared, _, _) => self.declared(number, "shared"),
                (other, _, _) => {
                    return self.unsupported(format!("buffer '{}' in the space {other:?}", buffer.name));
                }
            };
            self.places.push(place);
        }
        Ok(())
    }

    fn declared(&mut self, number: usize, space: &'static str) -> Place {
        let base = self.fresh(Class::Bits64);
        self.line(format!("mov.u64 {base}, {}_{space}{number};", self.kernel.name));
        Place { space, base }
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

    /// Declarations of shared and local buffers.
    pub(super) fn declared_memory(&self) -> String {
        let mut out = String::new();
        for (number, buffer) in self.kernel.buffers.iter().enumerate() {
            let space = match buffer.space {
                Space::Stack => "local",
                Space::Shared => "shared",
                _ => continue,
            };
            let count = buffer.count.as_index().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
            // An empty array has no declaration in PTX.
            let bytes = buffer.dtype.bytes_for(count).unwrap_or(0).max(1);
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

    /// `base + index * size`.
    pub(super) fn address(&mut self, buffer: BufferId, index: &Value) -> Value {
        let size = self.kernel.buffer_of(buffer).dtype.size() as i64;
        let base = self.places[buffer.0 as usize].base.clone();
        match index.as_integer() {
            Some(0) => base,
            Some(index) => {
                let offset = Value::integer(index.wrapping_mul(size));
                self.instruction(Class::Bits64, "add.s64", &[&base, &offset])
            }
            None => self.instruction(Class::Bits64, "mad.lo.s64", &[index, &Value::integer(size), &base]),
        }
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
        let index = self.value(index)?;
        self.load_lane(buffer, &index, valid.as_ref(), 0)
    }

    fn load_lane(
        &mut self,
        buffer: BufferId,
        index: &Value,
        valid: Option<&Value>,
        lane: usize,
    ) -> Result<Value, Error> {
        let dtype = self.kernel.buffer_of(buffer).dtype;
        let (space, kind) = self.suffix(buffer)?;
        let guard = self.guard(valid, lane);
        let address = self.address(buffer, index);
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
            let index = self.value(index)?;
            let address = self.address(buffer, &index);
            let registers = (0..count).map(|_| self.loaded(dtype)).collect::<Result<Vec<_>, _>>()?;
            let result = super::tuple(&registers);
            self.line(format!("ld.{space}.v{count}.{kind} {result}, [{address}];"));
            return Ok(registers);
        }
        let valid = valid.map(|valid| self.value(valid)).transpose()?;
        let indices = self.indices(index, count)?;
        let mut values = Vec::with_capacity(count);
        for (lane, index) in indices.iter().enumerate() {
            values.push(self.load_lane(buffer, index, valid.as_ref(), lane)?);
        }
        Ok(values)
    }

    /// The index of each lane of an access.
    fn indices(&mut self, index: &Expr, count: usize) -> Result<Vec<Value>, Error> {
        let indices = self.lanes(index)?;
        if indices.len() == count {
            return Ok(indices);
        }
        let first = indices[0].clone();
        let offset = |emitter: &mut Self, lane: i64| match first.as_integer() {
            Some(index) => Value::integer(index + lane),
            None if lane == 0 => first.clone(),
            None => emitter.instruction(Class::Bits64, "add.s64", &[&first, &Value::integer(lane)]),
        };
        Ok((0..count as i64).map(|lane| offset(self, lane)).collect())
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
            let index = self.value(index)?;
            let address = self.address(buffer, &index);
            self.line(format!("st.{space}.v{count}.{kind} [{address}], {};", super::tuple(&values)));
            return Ok(());
        }
        let valid = valid.map(|valid| self.value(valid)).transpose()?;
        let indices = self.indices(index, count)?;
        for (lane, (index, value)) in indices.iter().zip(&values).enumerate() {
            let guard = self.guard(valid.as_ref(), lane);
            let address = self.address(buffer, index);
            self.line(format!("{guard}st.{space}.{kind} [{address}], {value};"));
        }
        Ok(())
    }
}
