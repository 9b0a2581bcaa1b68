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

    /// `[base + index * size]` as space, memory type and address.
    fn access(&mut self, buffer: BufferId, index: &Expr) -> Result<(String, Value), Error> {
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
        let index = self.value(index)?;
        let size = Value::integer(dtype.size() as i64);
        let place = &self.places[buffer.0 as usize];
        let (space, base) = (place.space, place.base.clone());
        let address = self.instruction(Class::Bits64, "mad.lo.s64", &[&index, &size, &base]);
        Ok((format!("{space}.{kind}"), address))
    }

    /// The guard of an access with one lane that may be off.
    fn guard(&mut self, valid: Option<&Expr>) -> Result<String, Error> {
        let Some(valid) = valid else { return Ok(String::new()) };
        let valid = self.value(valid)?;
        let on = self.instruction(Class::Predicate, "setp.gt.s64", &[&valid, &Value::integer(0)]);
        Ok(format!("@{on} "))
    }

    pub(super) fn load(
        &mut self,
        buffer: BufferId,
        index: &Expr,
        valid: Option<&Expr>,
    ) -> Result<Value, Error> {
        let dtype = self.kernel.buffer_of(buffer).dtype;
        let guard = self.guard(valid)?;
        let (access, address) = self.access(buffer, index)?;
        let class = match Class::of(dtype) {
            Some(Class::Predicate) => Class::Bits32,
            Some(class) => class,
            None => return Err(self.type_error(dtype.to_string())),
        };
        let register = self.fresh(class);
        if !guard.is_empty() {
            let zero = match class {
                Class::Single => Value::single(0.0),
                Class::Double => Value::double(0.0),
                _ => Value::integer(0),
            };
            self.line(format!("mov.{} {register}, {zero};", class.bits_type()));
        }
        self.line(format!("{guard}ld.{access} {register}, [{address}];"));
        if dtype == DType::Bool {
            return Ok(self.instruction(Class::Predicate, "setp.ne.u32", &[&register, &Value::integer(0)]));
        }
        Ok(register)
    }

    pub(super) fn store(
        &mut self,
        buffer: BufferId,
        index: &Expr,
        value: &Expr,
        valid: Option<&Expr>,
    ) -> Result<(), Error> {
        let dtype = self.kernel.buffer_of(buffer).dtype;
        let mut value = self.value(value)?;
        let guard = self.guard(valid)?;
        let (access, address) = self.access(buffer, index)?;
        if dtype == DType::Bool {
            let (one, zero) = (Value::integer(1), Value::integer(0));
            value = self.instruction(Class::Bits32, "selp.b32", &[&one, &zero, &value]);
        }
        let value = self.in_register(&value, dtype)?;
        self.line(format!("{guard}st.{access} [{address}], {value};"));
        Ok(())
    }
}
