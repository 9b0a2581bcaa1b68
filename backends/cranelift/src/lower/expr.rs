//! Expressions.

use cranelift_codegen::ir::{InstBuilder, types};
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarOp};
use tcc_kernel::ir::{Expr, Ty};

use super::Lowering;
use super::lanes::{Lanes, memory};

impl Lowering<'_, '_> {
    /// The value of an expression.
    pub fn expr(&mut self, expr: &Expr) -> Lanes {
        match expr {
            Expr::Const(scalar) => self.constant(*scalar, 1),
            Expr::Var(var) => self.read(*var),
            Expr::Dim(number) => {
                let flags = memory().with_readonly().with_can_move();
                let offset = *number as i32 * types::I64.bytes() as i32;
                let value = self.builder.ins().load(types::I64, flags, self.dims, offset);
                Lanes::scalar(DType::I64, value)
            }
            Expr::Load { buffer, index, lanes, valid } => self.load(*buffer, index, *lanes, valid.as_deref()),
            Expr::Call(op, args) => self.call(*op, args),
            Expr::Splat(value, lanes) => {
                let value = self.expr(value);
                self.splat(&value, *lanes)
            }
            Expr::Ramp { base, stride, lanes } => self.ramp(base, *stride, *lanes),
            Expr::Fma(a, b, c) => {
                let (a, b, c) = (self.expr(a), self.expr(b), self.expr(c));
                self.fma(&a, &b, &c)
            }
            Expr::Dot { acc, a, b } => {
                let (acc, a, b) = (self.expr(acc), self.expr(a), self.expr(b));
                self.dot(&acc, &a, &b)
            }
            Expr::ReduceLanes(kind, value) => {
                let value = self.expr(value);
                self.reduce_lanes(*kind, value)
            }
            Expr::Shuffle(a, b, picks) => {
                let (a, b) = (self.expr(a), self.expr(b));
                self.shuffle(&a, &b, picks)
            }
        }
    }

    fn call(&mut self, op: ScalarOp, args: &[Expr]) -> Lanes {
        let args: Vec<Lanes> = args.iter().map(|arg| self.expr(arg)).collect();
        match op {
            ScalarOp::Cast(to) => self.cast(&args[0], to),
            ScalarOp::CastAlternate(to) => self.cast_saturating(&args[0], to),
            ScalarOp::Bitcast(to) => self.bitcast_lanes(&args[0], to),
            ScalarOp::Call(function) => match function {
                Function::Equal | Function::Less | Function::LessEqual => {
                    self.compare(function, &args[0], &args[1])
                }
                Function::And | Function::Or | Function::Xor => self.logic(function, &args[0], &args[1]),
                Function::Not => self.not(&args[0]),
                Function::Select => self.select(&args[0], &args[1], &args[2]),
                _ if args.len() == 1 => self.unary(function, &args[0]),
                _ => self.binary(function, &args[0], &args[1]),
            },
        }
    }

    fn ramp(&mut self, base: &Expr, stride: i64, lanes: u16) -> Lanes {
        let base = self.expr(base);
        if lanes == 1 {
            return base;
        }
        let base = self.splat(&base, lanes);
        let parts = base
            .parts
            .iter()
            .enumerate()
            .map(|(number, part)| {
                let first = stride.wrapping_mul(number as i64 * 2);
                let steps = [first, first.wrapping_add(stride)];
                let bytes = steps.iter().flat_map(|step| step.to_le_bytes()).collect();
                let steps = self.register_bytes(types::I64, bytes);
                self.builder.ins().iadd(*part, steps)
            })
            .collect();
        Lanes::vector(Ty::vector(DType::I64, lanes), types::I64, parts)
    }
}
