//! Decoding block-quantized weights element by element, for the rows that an embedding picks.

use tcc_ir::block_format::{BlockFormat, IQ4_VALUES};
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarOp};

use super::{Argument, LowerError, Lowering};
use crate::ir::{Expr, Stmt};

/// One number a block element; see [`tcc_ir::block_format`] for the layouts.
pub fn decode_blocks(lowering: &mut Lowering, format: BlockFormat, dtype: DType) -> Result<(), LowerError> {
    let source = lowering.operands[0].clone();
    let blocks = match source.shape.last().and_then(Dim::as_const) {
        Some(row) => Dim::from(row as usize / format.bytes()),
        None => return Err(lowering.malformed("rows of unknown length")),
    };
    let rows = Dim::product(&source.shape[..source.rank() - 1]);
    let shape = [rows * blocks, Dim::from(format.elements())];
    let stmts = lowering.parallel_nest(&shape, 1, &mut |this, at| {
        let base = at[0].clone().times(Expr::index(format.bytes() as i64));
        let mut block = Block { this, base, stmts: Vec::new() };
        let value = block.element(format, &at[1]).cast(DType::F32, dtype);
        let mut stmts = block.stmts;
        let result = this.buffer(Argument::Result(0));
        let index = this.linear(&shape, at);
        stmts.push(Stmt::Store { buffer: result, index, value, valid: None });
        stmts
    });
    lowering.launch(stmts, false);
    Ok(())
}

/// The block that an element is read from. Codes are `i32` scalars.
struct Block<'b, 'a> {
    this: &'b mut Lowering<'a>,
    /// Position of its first byte.
    base: Expr,
    stmts: Vec<Stmt>,
}

fn int(value: i64) -> Expr {
    Expr::constant(DType::I32, value as f64)
}

fn bits(function: Function, a: Expr, b: Expr) -> Expr {
    Expr::call(function, vec![a, b])
}

fn and(a: Expr, mask: i64) -> Expr {
    bits(Function::BitAnd, a, int(mask))
}

fn or(a: Expr, b: Expr) -> Expr {
    bits(Function::BitOr, a, b)
}

fn shifted(a: Expr, by: Expr) -> Expr {
    bits(Function::ShiftRight, a, by)
}

fn raised(a: Expr, by: i64) -> Expr {
    bits(Function::ShiftLeft, a, int(by))
}

fn float(a: Expr) -> Expr {
    a.cast(DType::I32, DType::F32)
}

fn product(a: Expr, b: Expr) -> Expr {
    Expr::call(Function::Mul, vec![a, b])
}

fn difference(a: Expr, b: Expr) -> Expr {
    Expr::call(Function::Sub, vec![a, b])
}

impl Block<'_, '_> {
    fn named(&mut self, value: Expr) -> Expr {
        let (var, stmt) = self.this.assign("b", value);
        self.stmts.push(stmt);
        Expr::Var(var)
    }

    /// A byte as `i32`.
    fn byte(&mut self, at: Expr) -> Expr {
        let buffer = self.this.buffer(Argument::Operand(0));
        let value = Expr::load(buffer, self.base.clone().plus(at)).cast(DType::U8, DType::I32);
        self.named(value)
    }

    fn byte_at(&mut self, at: i64) -> Expr {
        self.byte(Expr::index(at))
    }

    /// A byte read as two's complement.
    fn signed(&mut self, at: Expr) -> Expr {
        let byte = self.byte(at);
        difference(bits(Function::BitXor, byte, int(128)), int(128))
    }

    /// An f16 number as `f32`.
    fn half(&mut self, at: i64) -> Expr {
        let word = self.byte_at(at);
        let word = or(word, raised(self.byte_at(at + 1), 8)).cast(DType::I32, DType::U16);
        let half = Expr::Call(ScalarOp::Bitcast(DType::F16), vec![word]);
        self.named(half.cast(DType::F16, DType::F32))
    }

    fn single(&mut self) -> Expr {
        let word =
            (0..4).map(|byte| raised(self.byte_at(byte), 8 * byte)).reduce(or).unwrap_or_else(|| int(0));
        Expr::Call(ScalarOp::Bitcast(DType::F32), vec![word])
    }

    /// Bits `width * place ..` of a byte, where `place` is an index.
    fn field(&mut self, at: Expr, place: Expr, width: i64) -> Expr {
        let byte = self.byte(at);
        let by = place.times(Expr::index(width)).cast(DType::I64, DType::I32);
        and(shifted(byte, by), (1 << width) - 1)
    }

    /// The code of an element whose block of 32 holds all low halves of 16 bytes, then all high ones.
    fn nibble(&mut self, start: i64, element: &Expr) -> Expr {
        let (sixteen, two) = (Expr::index(16), Expr::index(2));
        let group = element.clone().over(Expr::index(32)).times(sixteen.clone());
        let at = group.plus(element.clone().remainder(sixteen.clone())).plus(Expr::index(start));
        self.field(at, element.clone().over(sixteen).remainder(two), 4)
    }

    /// The value that an index of the iq4 formats stands for.
    fn iq4(code: Expr) -> Expr {
        let last = int(i64::from(IQ4_VALUES[15]));
        (0..15).rev().fold(last, |otherwise, index| {
            let below = bits(Function::Less, code.clone(), int(index + 1));
            let value = int(i64::from(IQ4_VALUES[index as usize]));
            Expr::call(Function::Select, vec![below, value, otherwise])
        })
    }

    /// Scale and minimum (6 bits each) of a group of 32 in `q4_k` and `q5_k`.
    fn scale_and_min(&mut self, group: &Expr) -> (Expr, Expr) {
        let start = Expr::index(4);
        let low = group.clone().remainder(Expr::index(4)).plus(start);
        let (first, second) = (self.byte(low.clone()), self.byte(low.clone().plus(Expr::index(4))));
        let third = self.byte(low.plus(Expr::index(8)));
        let early = group.clone().less(Expr::index(4));
        let scale = or(and(third.clone(), 15), raised(shifted(first.clone(), int(6)), 4));
        let min = or(shifted(third, int(4)), raised(shifted(second.clone(), int(6)), 4));
        let pick = |plain, late| Expr::call(Function::Select, vec![early.clone(), plain, late]);
        (pick(and(first, 63), scale), pick(and(second, 63), min))
    }

    /// `d * scale * code - dmin * min` with `d` and `dmin` at a place.
    fn with_min(&mut self, at: i64, scale: Expr, min: Expr, code: Expr) -> Expr {
        let (d, dmin) = (self.half(at), self.half(at + 2));
        difference(product(product(d, float(scale)), float(code)), product(dmin, float(min)))
    }

    fn element(&mut self, format: BlockFormat, element: &Expr) -> Expr {
        use BlockFormat as B;
        let index = Expr::index;
        let over = |by: i64| element.clone().over(index(by));
        let rest = |by: i64| element.clone().remainder(index(by));
        // Two halves of 128 elements; in each, 2-bit places of 32 bytes.
        let (chunk, place) = (over(128), over(32).remainder(index(4)));
        match format {
            B::Q4_0 | B::Q5_0 | B::Iq4Nl => {
                let scale = self.half(0);
                let value = match format {
                    B::Q4_0 => difference(self.nibble(2, element), int(8)),
                    B::Q5_0 => {
                        let fifth = self.field(over(8).plus(index(2)), rest(8), 1);
                        difference(or(self.nibble(6, element), raised(fifth, 4)), int(16))
                    }
                    _ => Self::iq4(self.nibble(2, element)),
                };
                product(scale, float(value))
            }
            B::Q4_1 | B::Q5_1 => {
                let (scale, min) = (self.half(0), self.half(2));
                let code = if format == B::Q4_1 {
                    self.nibble(4, element)
                } else {
                    let fifth = self.field(over(8).plus(index(4)), rest(8), 1);
                    or(self.nibble(8, element), raised(fifth, 4))
                };
                Expr::call(Function::Add, vec![product(scale, float(code)), min])
            }
            B::Q8_0 => product(self.half(0), float(self.signed(element.clone().plus(index(2))))),
            B::Q8K => product(self.single(), float(self.signed(element.clone().plus(index(4))))),
            B::Q2K => {
                let at = chunk.times(index(32)).plus(rest(32)).plus(index(16));
                let code = self.field(at, place, 2);
                let group = self.byte(over(16));
                self.with_min(80, and(group.clone(), 15), shifted(group, int(4)), code)
            }
            B::Q3K => {
                let low = self.field(chunk.times(index(32)).plus(rest(32)).plus(index(32)), place, 2);
                let high = self.field(rest(32), over(32), 1);
                let group = over(16);
                let eighth = group.clone().remainder(index(8)).plus(index(96));
                let fine = self.field(eighth, group.clone().over(index(8)), 4);
                let fourth = group.clone().remainder(index(4)).plus(index(104));
                let coarse = self.field(fourth, group.over(index(4)), 2);
                let scale = difference(or(fine, raised(coarse, 4)), int(32));
                let code = difference(or(low, raised(high, 2)), int(4));
                product(product(self.half(108), float(scale)), float(code))
            }
            B::Q4K | B::Q5K => {
                let group = over(32);
                let (scale, min) = self.scale_and_min(&group);
                let start = if format == B::Q4K { 16 } else { 48 };
                let at = over(64).times(index(32)).plus(rest(32)).plus(index(start));
                let mut code = self.field(at, group.clone().remainder(index(2)), 4);
                if format == B::Q5K {
                    code = or(code, raised(self.field(rest(32).plus(index(16)), group, 1), 4));
                }
                self.with_min(0, scale, min, code)
            }
            B::Q6K => {
                let half = place.clone().remainder(index(2)).times(index(32));
                let at = chunk.clone().times(index(64)).plus(half).plus(rest(32));
                let low = self.field(at, place.clone().over(index(2)), 4);
                let high = self.field(chunk.times(index(32)).plus(rest(32)).plus(index(128)), place, 2);
                let scale = self.signed(over(16).plus(index(192)));
                let code = difference(or(low, raised(high, 4)), int(32));
                product(product(self.half(208), float(scale)), float(code))
            }
            B::Iq4Xs => {
                let group = over(32);
                let low = self.field(
                    group.clone().over(index(2)).plus(index(4)),
                    group.clone().remainder(index(2)),
                    4,
                );
                let high =
                    self.field(group.clone().over(index(4)).plus(index(2)), group.remainder(index(4)), 2);
                let scale = difference(or(low, raised(high, 4)), int(32));
                let code = Self::iq4(self.nibble(8, element));
                product(product(self.half(0), float(scale)), float(code))
            }
            B::Tq1_0 => {
                // Runs of 32, 16 and 4 bytes hold five, five and four digits each.
                let part = |start: i64, width: i64, byte: i64| {
                    let own = element.clone().minus(index(start));
                    (own.clone().over(index(width)), own.remainder(index(width)).plus(index(byte)))
                };
                let (wide, middle, last) = (part(0, 32, 0), part(160, 16, 32), part(240, 4, 48));
                let (in_wide, in_middle) =
                    (element.clone().less(index(160)), element.clone().less(index(240)));
                let pick =
                    |a: Expr, b: Expr, c: Expr| in_wide.clone().choose(a, in_middle.clone().choose(b, c));
                let byte = self.byte(pick(wide.1, middle.1, last.1));
                let place = self.named(pick(wide.0, middle.0, last.0));
                let power = (0..4).rev().fold(int(81), |otherwise, digit| {
                    let here = place.clone().less(index(digit + 1));
                    Expr::call(Function::Select, vec![here, int(3i64.pow(digit as u32)), otherwise])
                });
                let fraction = and(product(byte, power), 255);
                let digit = shifted(product(fraction, int(3)), int(8));
                product(float(difference(digit, int(1))), self.half(52))
            }
            B::Tq2_0 => {
                let code = self.field(chunk.times(index(32)).plus(rest(32)), place, 2);
                product(float(difference(code, int(1))), self.half(64))
            }
        }
    }
}
