//! The four-way dot product of 8-bit integers.
//!
//! The instruction is chosen by the features of the target; without one the product is formed in 32 bits, in a shape from
//! which LLVM makes widening multiply-adds. All paths wrap and give the same bits.

use melior::ir::Type;
use tcc_ir::dtype::DType;
use tcc_kernel::ir::{Expr, Ty};

use crate::builder::Ssa;
use crate::error::Error;
use crate::lower::{Lowering, Typed};

/// An instruction for `acc[i] + sum over j < 4 of a[4i + j] * b[4i + j]`.
struct Instruction {
    /// The name of the LLVM intrinsic.
    name: &'static str,
    /// Whether the first operand is signed.
    first_signed: bool,
    /// Whether the second operand is signed.
    second_signed: bool,
}

impl<'c> Lowering<'c, '_> {
    /// Lowers [`Expr::Dot`].
    pub(crate) fn dot(&mut self, acc: &Expr, a: &Expr, b: &Expr) -> Result<Typed<'c>, Error> {
        let [acc, a, b] = [self.expr(acc)?, self.expr(a)?, self.expr(b)?];
        let is_byte = |operand: Typed| {
            matches!(operand.ty.dtype, DType::I8 | DType::U8)
                && u32::from(operand.ty.lanes) == 4 * u32::from(acc.ty.lanes)
        };
        if acc.ty.dtype != DType::I32 || !is_byte(a) || !is_byte(b) {
            return Err(self.malformed("a dot product takes i32 lanes and four times as many 8-bit ones"));
        }
        let r#type = self.register_type(acc.ty)?;
        let value = match self.instruction(a.ty.dtype, b.ty.dtype, acc.ty.lanes) {
            Some(instruction) => self.dot_by(&instruction, acc.value, a, b, r#type)?,
            None => self.dot_by_products(acc, a, b, r#type)?,
        };
        Ok(Typed { value, ty: acc.ty })
    }

    /// The best instruction for a number of i32 lanes: one for exactly these signs if there is any.
    fn instruction(&self, a: DType, b: DType, lanes: u16) -> Option<Instruction> {
        let (a, b) = (a.is_signed(), b.is_signed());
        let of = |name, first_signed, second_signed| Some(Instruction { name, first_signed, second_signed });
        match self.target.architecture() {
            "x86_64" => {
                if self.target.has("avxvnniint8") && a == b {
                    match (lanes, a) {
                        (8, true) => return of("llvm.x86.avx2.vpdpbssd.256", true, true),
                        (4, true) => return of("llvm.x86.avx2.vpdpbssd.128", true, true),
                        (8, false) => return of("llvm.x86.avx2.vpdpbuud.256", false, false),
                        (4, false) => return of("llvm.x86.avx2.vpdpbuud.128", false, false),
                        _ => {}
                    }
                }
                let short = self.target.has("avxvnni")
                    || (self.target.has("avx512vnni") && self.target.has("avx512vl"));
                match lanes {
                    16 if self.target.has("avx512vnni") => of("llvm.x86.avx512.vpdpbusd.512", false, true),
                    8 if short => of("llvm.x86.avx512.vpdpbusd.256", false, true),
                    4 if short => of("llvm.x86.avx512.vpdpbusd.128", false, true),
                    _ => None,
                }
            }
            "aarch64" if lanes == 4 => match (a, b) {
                (true, true) if self.target.has("dotprod") => {
                    of("llvm.aarch64.neon.sdot.v4i32.v16i8", true, true)
                }
                (false, false) if self.target.has("dotprod") => {
                    of("llvm.aarch64.neon.udot.v4i32.v16i8", false, false)
                }
                _ if a != b && self.target.has("i8mm") => {
                    of("llvm.aarch64.neon.usdot.v4i32.v16i8", false, true)
                }
                _ if self.target.has("dotprod") => of("llvm.aarch64.neon.sdot.v4i32.v16i8", true, true),
                _ => None,
            },
            _ => None,
        }
    }

    /// Applies an instruction. An operand of the wrong sign is shifted by 128, which flipping its top bit does, and the
    /// difference, 128 times the sum of the other operand, is added back.
    fn dot_by(
        &self,
        instruction: &Instruction,
        acc: Ssa<'c>,
        a: Typed<'c>,
        b: Typed<'c>,
        r#type: Type<'c>,
    ) -> Result<Ssa<'c>, Error> {
        // Put the operand that fits the first place there.
        let fits = |operand: Typed, signed: bool| operand.ty.dtype.is_signed() == signed;
        let swap = !(fits(a, instruction.first_signed) && fits(b, instruction.second_signed))
            && fits(b, instruction.first_signed)
            && fits(a, instruction.second_signed);
        let (first, second) = if swap { (b, a) } else { (a, b) };
        let apply =
            |acc, first, second| self.builder.intrinsic(instruction.name, &[acc, first, second], r#type);
        match (fits(first, instruction.first_signed), fits(second, instruction.second_signed)) {
            (true, true) => apply(acc, first.value, second.value),
            (false, true) => {
                let moved = self.flip_top_bit(first)?;
                let partial = apply(acc, moved, second.value)?;
                let by = self.integer(first.ty, if instruction.first_signed { 1 } else { -128 })?;
                let zero = self.lanes_of_zero(acc_lanes(first))?;
                let excess = apply(zero, by, second.value)?;
                self.correct(partial, excess, instruction.first_signed, r#type, acc_lanes(first))
            }
            (true, false) => {
                let moved = self.flip_top_bit(second)?;
                let partial = apply(acc, first.value, moved)?;
                // 128 itself does not fit a signed operand, so the sum is formed by ones and multiplied afterwards.
                let by = self.integer(second.ty, if instruction.second_signed { 1 } else { -128 })?;
                let zero = self.lanes_of_zero(acc_lanes(first))?;
                let excess = apply(zero, first.value, by)?;
                self.correct(partial, excess, instruction.second_signed, r#type, acc_lanes(first))
            }
            (false, false) => Err(self.unsupported("a dot product of these signs")),
        }
    }

    /// `partial - excess` where an operand was moved up, `partial + 128 * excess` where it was moved down.
    fn correct(
        &self,
        partial: Ssa<'c>,
        excess: Ssa<'c>,
        moved_down: bool,
        r#type: Type<'c>,
        lanes: u16,
    ) -> Result<Ssa<'c>, Error> {
        if !moved_down {
            return self.builder.same_type("arith.subi", &[partial, excess], r#type);
        }
        let seven = self.integer(Ty::vector(DType::I32, lanes), 7)?;
        let scaled = self.builder.same_type("arith.shli", &[excess, seven], r#type)?;
        self.builder.same_type("arith.addi", &[partial, scaled], r#type)
    }

    fn flip_top_bit(&self, operand: Typed<'c>) -> Result<Ssa<'c>, Error> {
        let top = self.integer(operand.ty, -128)?;
        self.builder.same_type("arith.xori", &[operand.value, top], self.register_type(operand.ty)?)
    }

    fn lanes_of_zero(&self, lanes: u16) -> Result<Ssa<'c>, Error> {
        self.integer(Ty::vector(DType::I32, lanes), 0)
    }

    /// Products in 32 bits, then twice the sum of neighbours.
    fn dot_by_products(
        &self,
        acc: Typed<'c>,
        a: Typed<'c>,
        b: Typed<'c>,
        r#type: Type<'c>,
    ) -> Result<Ssa<'c>, Error> {
        let mut lanes = a.ty.lanes;
        let i32 = self.builder.integer_type(32);
        let a = self.cast(a, DType::I32)?;
        let b = self.cast(b, DType::I32)?;
        let wide = self.register_type(Ty::vector(DType::I32, lanes))?;
        let mut sum = self.builder.same_type("arith.muli", &[a, b], wide)?;
        for _ in 0..2 {
            let half = lanes / 2;
            let narrow = self.register_type(Ty::vector(DType::I32, half))?;
            let parts = if half == 1 {
                [self.builder.extract(sum, i32, 0)?, self.builder.extract(sum, i32, 1)?]
            } else {
                let even: Vec<i32> = (0..i32::from(half)).map(|lane| 2 * lane).collect();
                let odd: Vec<i32> = even.iter().map(|lane| lane + 1).collect();
                [self.builder.shuffle([sum, sum], i32, &even)?, self.builder.shuffle([sum, sum], i32, &odd)?]
            };
            sum = self.builder.same_type("arith.addi", &parts, narrow)?;
            lanes = half;
        }
        self.builder.same_type("arith.addi", &[acc.value, sum], r#type)
    }
}

/// The i32 lanes that an operand's 8-bit lanes add up to.
fn acc_lanes(operand: Typed) -> u16 {
    operand.ty.lanes / 4
}
