//! What the lanes of a warp do together, and asynchronous copies.

use tcc_ir::dtype::DType;
use tcc_kernel::ir::{Expr, Var};
use tcc_kernel::warp::{Fragment, WarpOp};

use super::register::{Class, Value};
use super::{Emitter, tuple};
use crate::error::Error;

impl Emitter<'_> {
    pub(super) fn warp(&mut self, op: &WarpOp) -> Result<(), Error> {
        if !self.target.tensor_cores() && !matches!(op, WarpOp::Exchange { .. }) {
            return Err(self.type_error("matrix instructions in steps of 32 bytes".into()));
        }
        match op {
            WarpOp::Multiply { sum, fragment, a, b } => {
                let sums = self.registers(sum.0 as usize)?;
                let (a, b) = (self.words(a)?, self.words(b)?);
                let shape = match fragment {
                    Fragment::F16 => "m16n8k16.row.col.f32.f16.f16.f32".to_string(),
                    Fragment::BF16 => "m16n8k16.row.col.f32.bf16.bf16.f32".to_string(),
                    Fragment::Bytes(a, b) => {
                        let byte = |signed: &bool| if *signed { "s8" } else { "u8" };
                        format!("m16n8k32.row.col.s32.{}.{}.s32", byte(a), byte(b))
                    }
                };
                let sum = tuple(&sums);
                self.line(format!("mma.sync.aligned.{shape} {sum}, {}, {}, {sum};", tuple(&a), tuple(&b)));
                sums.iter().for_each(|register| self.reuse.changes(register));
            }
            WarpOp::LoadMatrices { into, buffer, index, transposed } => {
                let address = self.address(*buffer, index)?;
                let registers = self.targets(*into, Class::Bits32, 4);
                let registers = tuple(&registers);
                let order = if *transposed { ".trans" } else { "" };
                self.line(format!(
                    "ldmatrix.sync.aligned.m8n8.x4{order}.shared.b16 {registers}, [{address}];"
                ));
            }
            WarpOp::CopyAsync { to, to_index, from, from_index, valid } => {
                let (to, from) = (self.address(*to, to_index)?, self.address(*from, from_index)?);
                let (all, none) = (Value::integer(16), Value::integer(0));
                let bytes = match valid {
                    Expr::Const(scalar) if scalar.bits != 0 => String::new(),
                    _ => {
                        let valid = self.value(valid)?;
                        format!(", {}", self.instruction(Class::Bits32, "selp.b32", &[&all, &none, &valid]))
                    }
                };
                self.line(format!("cp.async.cg.shared.global [{to}], [{from}], 16{bytes};"));
            }
            WarpOp::CopyCommit => self.line("cp.async.commit_group;"),
            WarpOp::CopyWait(count) => self.line(format!("cp.async.wait_group {count};")),
            WarpOp::Exchange { into, value, mask } => {
                let dtype = self.kernel.type_of(value).dtype;
                let value = self.value(value)?;
                let value = self.in_register(&value, dtype)?;
                let class = match Class::of(dtype) {
                    Some(class @ (Class::Bits32 | Class::Single)) => class,
                    _ => return Err(self.type_error(format!("an exchange of {dtype} between lanes"))),
                };
                let registers = self.targets(*into, class, 1);
                self.line(format!("shfl.sync.bfly.b32 {}, {value}, {mask}, 31, -1;", tuple(&registers)));
            }
        }
        Ok(())
    }

    /// The registers of a variable that is about to be written.
    fn targets(&mut self, var: Var, class: Class, lanes: usize) -> Vec<Value> {
        let registers = match &self.variables[var.0 as usize] {
            Some(registers) => registers.clone(),
            None => (0..lanes).map(|_| self.fresh(class)).collect(),
        };
        registers.iter().for_each(|register| self.reuse.changes(register));
        self.variables[var.0 as usize] = Some(registers.clone());
        registers
    }

    fn words(&mut self, expr: &Expr) -> Result<Vec<Value>, Error> {
        let values = self.lanes(expr)?;
        values.iter().map(|value| self.in_register(value, DType::U32)).collect()
    }
}
