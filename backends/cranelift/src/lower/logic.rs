//! Comparisons, truth values and selection.

use cranelift_codegen::ir::InstBuilder;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;

use super::Lowering;
use super::lanes::{Lanes, Origin, bits_type};

impl Lowering<'_, '_> {
    /// `eq`, `lt` or `le` of two values of one type.
    pub fn compare(&mut self, function: Function, a: &Lanes, b: &Lanes) -> Lanes {
        match a.ty.dtype {
            DType::Bool => return self.compare_truth(function, a, b),
            DType::F16 => {
                // Exact in f32.
                let (a, b) = (self.half_to_single(a), self.half_to_single(b));
                return self.compare(function, &a, &b);
            }
            _ => {}
        }
        let (float, signed) = (a.ty.dtype.is_float(), a.ty.dtype.is_signed());
        let parts = a
            .parts
            .iter()
            .zip(&b.parts)
            .map(|(x, y)| {
                let ins = self.builder.ins();
                if float {
                    let condition = match function {
                        Function::Equal => FloatCC::Equal,
                        Function::Less => FloatCC::LessThan,
                        _ => FloatCC::LessThanOrEqual,
                    };
                    ins.fcmp(condition, *x, *y)
                } else {
                    let condition = match (function, signed) {
                        (Function::Equal, _) => IntCC::Equal,
                        (Function::Less, true) => IntCC::SignedLessThan,
                        (Function::Less, false) => IntCC::UnsignedLessThan,
                        (_, true) => IntCC::SignedLessThanOrEqual,
                        (_, false) => IntCC::UnsignedLessThanOrEqual,
                    };
                    ins.icmp(condition, *x, *y)
                }
            })
            .collect();
        let ty = a.ty.with(DType::Bool);
        if a.is_scalar() {
            Lanes { parts, ..Lanes::scalar(DType::Bool, a.parts[0]) }
        } else {
            Lanes { ty, lane: bits_type(a.lane), parts, origin: Origin::Any }
        }
    }

    /// Comparison of truth values, where false is less than true.
    fn compare_truth(&mut self, function: Function, a: &Lanes, b: &Lanes) -> Lanes {
        match function {
            Function::Equal => {
                let differ = self.logic(Function::Xor, a, b);
                self.not(&differ)
            }
            Function::Less => {
                let not_a = self.not(a);
                self.logic(Function::And, &not_a, b)
            }
            _ => {
                let not_a = self.not(a);
                self.logic(Function::Or, &not_a, b)
            }
        }
    }

    /// `and`, `or` or `xor` of truth values.
    pub fn logic(&mut self, function: Function, a: &Lanes, b: &Lanes) -> Lanes {
        let lane = if a.lane.bits() >= b.lane.bits() { a.lane } else { b.lane };
        let (a, b) = (self.with_mask(a, lane), self.with_mask(b, lane));
        self.zip(&a, &b, |this, x, y| {
            let ins = this.builder.ins();
            match function {
                Function::And => ins.band(x, y),
                Function::Or => ins.bor(x, y),
                _ => ins.bxor(x, y),
            }
        })
    }

    /// The complement of truth values.
    pub fn not(&mut self, a: &Lanes) -> Lanes {
        let scalar = a.is_scalar();
        self.map(a, |this, x| {
            if scalar {
                let one = this.int(cranelift_codegen::ir::types::I8, 1);
                this.builder.ins().bxor(x, one)
            } else {
                this.builder.ins().bnot(x)
            }
        })
    }

    /// `condition ? a : b`, lane by lane.
    pub fn select(&mut self, condition: &Lanes, a: &Lanes, b: &Lanes) -> Lanes {
        if condition.is_scalar() {
            return self.zip(a, b, |this, x, y| this.builder.ins().select(condition.parts[0], x, y));
        }
        // Selection among truth values happens at the width of the widest of the three.
        let (a, b) = if a.ty.dtype == DType::Bool {
            let lane = if a.lane.bits() >= b.lane.bits() { a.lane } else { b.lane };
            (self.with_mask(a, lane), self.with_mask(b, lane))
        } else {
            (a.clone(), b.clone())
        };
        let masks = self.mask_of(condition, a.lane);
        let parts = masks
            .iter()
            .zip(a.parts.iter().zip(&b.parts))
            .map(|(mask, (x, y))| self.pick(*mask, *x, *y))
            .collect();
        Lanes { parts, origin: Origin::Any, ..a }
    }
}
