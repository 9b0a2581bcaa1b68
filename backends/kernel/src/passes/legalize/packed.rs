//! Loads and stores of integers and floats that share a byte; the first element is in the low bits.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Scalar, ScalarOp};

use super::{Legalizer, computed, is_short};
use crate::ir::{BufferId, Expr, Stmt, Ty};

fn byte(value: i64, lanes: u16) -> Expr {
    let constant = Expr::Const(Scalar::integer(DType::U8, value));
    if lanes == 1 { constant } else { Expr::Splat(Box::new(constant), lanes) }
}

fn call(function: Function, a: Expr, b: Expr) -> Expr {
    Expr::call(function, vec![a, b])
}

/// Where an element lies: its byte, and how far its bits are up in it (an 8-bit number).
fn place(index: &Expr, bits: usize) -> (Expr, Expr) {
    let per_byte = Expr::index(8 / bits as i64);
    let within = index.clone().remainder(per_byte.clone()).times(Expr::index(bits as i64));
    (index.clone().over(per_byte), Expr::Call(ScalarOp::Cast(DType::U8), vec![within]))
}

fn mask(bits: usize) -> i64 {
    (1 << bits) - 1
}

impl Legalizer<'_> {
    /// A value of 8 bits cut to its type: sign or zeros above.
    pub(super) fn wrapped(&mut self, value: Expr, dtype: DType) -> Expr {
        let ty = self.kernel.type_of(&value);
        let bits = dtype.bits();
        if !dtype.is_signed() {
            return call(Function::BitAnd, value, byte(mask(bits), ty.lanes));
        }
        let shift = Expr::Const(Scalar::integer(DType::I8, 8 - bits as i64));
        let shift = if ty.lanes == 1 { shift } else { Expr::Splat(Box::new(shift), ty.lanes) };
        call(Function::ShiftRight, call(Function::ShiftLeft, value, shift.clone()), shift)
    }

    /// The value that codes in the low bits of bytes stand for; bits above them are ignored.
    fn valued(&mut self, codes: Expr, dtype: DType) -> Expr {
        let lanes = self.kernel.type_of(&codes).lanes;
        if is_short(dtype) {
            let codes = call(Function::BitAnd, codes, byte(mask(dtype.bits()), lanes));
            return self.decoded(codes, dtype);
        }
        let value = codes.cast(DType::U8, computed(dtype));
        self.wrapped(value, dtype)
    }

    /// Loads one element, or consecutive ones from the start of a byte.
    pub(super) fn packed_load(
        &mut self,
        buffer: BufferId,
        dtype: DType,
        index: Expr,
        lanes: u16,
        valid: Option<Box<Expr>>,
    ) -> Expr {
        let bits = dtype.bits();
        if lanes == 1 {
            let (at, shift) = place(&index, bits);
            let load = Expr::Load { buffer, index: Box::new(at), lanes: 1, valid };
            return self.valued(call(Function::ShiftRight, load, shift), dtype);
        }
        let per_byte = (8 / bits) as u16;
        let count = lanes / per_byte;
        let at = index.over(Expr::index(per_byte.into()));
        let bytes = Expr::Load { buffer, index: Box::new(at), lanes: count, valid: None };
        let bytes = self.named(bytes);
        // Columns of the table "byte, position in it", then read row by row.
        let mut columns: Vec<Expr> = (0..per_byte)
            .map(|part| call(Function::ShiftRight, bytes.clone(), byte(i64::from(part) * bits as i64, count)))
            .collect();
        let mut width = count;
        while columns.len() > 1 {
            let all: Vec<u16> = (0..2 * width).collect();
            columns = columns
                .chunks(2)
                .map(|pair| Expr::Shuffle(Box::new(pair[0].clone()), Box::new(pair[1].clone()), all.clone()))
                .collect();
            width *= 2;
        }
        let together = self.named(columns.remove(0));
        let order = (0..lanes).map(|lane| lane % per_byte * count + lane / per_byte).collect();
        self.valued(Expr::Shuffle(Box::new(together.clone()), Box::new(together), order), dtype)
    }

    fn named(&mut self, value: Expr) -> Expr {
        let ty: Ty = self.kernel.type_of(&value);
        let var = self.kernel.variable("t", ty);
        self.out.push(Stmt::Assign { var, value });
        Expr::Var(var)
    }

    /// Stores one element into its byte, or consecutive ones from the start of a byte.
    pub(super) fn packed_store(
        &mut self,
        buffer: BufferId,
        dtype: DType,
        index: Expr,
        value: &Expr,
        valid: Option<Expr>,
    ) {
        let bits = dtype.bits();
        let codes = if is_short(dtype) {
            self.coded(value, dtype)
        } else {
            self.value(value).cast(computed(dtype), DType::U8)
        };
        let lanes = self.kernel.type_of(&codes).lanes;
        let codes = call(Function::BitAnd, codes, byte(mask(bits), lanes));
        let codes = self.named(codes);
        if lanes == 1 {
            let (at, shift) = place(&index, bits);
            let shift = self.named(shift);
            let hole = call(Function::ShiftLeft, byte(mask(bits), 1), shift.clone());
            let keep = Expr::call(Function::BitNot, vec![hole]);
            let rest = call(Function::BitAnd, Expr::load(buffer, at.clone()), keep);
            let value = call(Function::BitOr, rest, call(Function::ShiftLeft, codes, shift));
            let store = Stmt::Store { buffer, index: at, value, valid: None };
            match valid {
                Some(valid) => {
                    let condition = Expr::index(0).less(valid);
                    self.out.push(Stmt::If { condition, then: vec![store], otherwise: Vec::new() });
                }
                None => self.out.push(store),
            }
            return;
        }
        let per_byte = (8 / bits) as u16;
        let mut bytes: Option<Expr> = None;
        for part in 0..per_byte {
            let picks: Vec<u16> = (0..lanes / per_byte).map(|row| row * per_byte + part).collect();
            let count = picks.len() as u16;
            let column = Expr::Shuffle(Box::new(codes.clone()), Box::new(codes.clone()), picks);
            let placed = call(Function::ShiftLeft, column, byte(i64::from(part) * bits as i64, count));
            bytes = Some(match bytes {
                Some(bytes) => call(Function::BitOr, bytes, placed),
                None => placed,
            });
        }
        if let Some(value) = bytes {
            let index = index.over(Expr::index(per_byte.into()));
            self.out.push(Stmt::Store { buffer, index, value, valid: None });
        }
    }
}
