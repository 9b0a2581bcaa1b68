//! Rows of floats in 8 bits with a scale and a sum for each run.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarOp};
use tcc_ir::words::ReduceKind;

use super::{Argument, LowerError, Lowering};
use crate::ir::{Expr, LoopKind, Stmt};

/// Maxima below this quantize to zeros: 127 over them would overflow.
const LEAST: f64 = 1.0 / (1u128 << 100) as f64;

/// Codes, scales and sums; a row is a task.
pub fn quantize_rows(lowering: &mut Lowering, group: usize, sum: usize) -> Result<(), LowerError> {
    let x = lowering.operands[0].clone();
    let Some(depth) = x.shape.last().and_then(Dim::as_const).and_then(|depth| usize::try_from(depth).ok())
    else {
        return Err(lowering.malformed("rows of unknown length"));
    };
    let native = usize::from(lowering.tuning.lanes(DType::F32));
    let fits = |lanes: &usize| lanes.is_power_of_two() && sum.is_multiple_of(*lanes);
    let lanes = (1..=native.min(sum)).rev().find(fits).unwrap_or(1);
    let rows = [Dim::product(&x.shape[..x.rank() - 1])];
    let stmts = lowering.parallel_rows(&rows, &mut |this, at| {
        let runs = Expr::index((depth / group) as i64);
        vec![this.for_loop("run", runs.clone(), LoopKind::Serial, |this, run| {
            let number = at[0].clone().times(runs).plus(run);
            Run { this, dtype: x.dtype(), lanes, stmts: Vec::new() }.quantize(number, group, sum)
        })]
    });
    lowering.launch(stmts, false);
    Ok(())
}

/// The statements of one run.
struct Run<'r, 'a> {
    this: &'r mut Lowering<'a>,
    dtype: DType,
    lanes: usize,
    stmts: Vec<Stmt>,
}

impl Run<'_, '_> {
    fn named(&mut self, value: Expr) -> Expr {
        let ty = self.this.kernel.type_of(&value);
        let var = self.this.kernel.variable("q", ty);
        self.stmts.push(Stmt::Assign { var, value });
        Expr::Var(var)
    }

    fn splat(&self, value: Expr) -> Expr {
        if self.lanes == 1 { value } else { Expr::Splat(Box::new(value), self.lanes as u16) }
    }

    fn reduced(&self, kind: ReduceKind, value: Expr) -> Expr {
        if self.lanes == 1 { value } else { Expr::ReduceLanes(kind, Box::new(value)) }
    }

    fn store(&mut self, result: usize, index: Expr, value: Expr) {
        let buffer = self.this.buffer(Argument::Result(result));
        self.stmts.push(Stmt::Store { buffer, index, value, valid: None });
    }

    fn quantize(mut self, number: Expr, group: usize, sum: usize) -> Vec<Stmt> {
        let start = self.named(number.clone().times(Expr::index(group as i64)));
        let at = |vector: usize, lanes: usize| start.clone().plus(Expr::index((vector * lanes) as i64));
        let source = self.this.buffer(Argument::Operand(0));
        let count = group / self.lanes;
        let vectors: Vec<Expr> = (0..count)
            .map(|vector| {
                let index = Box::new(at(vector, self.lanes));
                let load = Expr::Load { buffer: source, index, lanes: self.lanes as u16, valid: None };
                self.named(load.cast(self.dtype, DType::F32))
            })
            .collect();
        let magnitude = |value: &Expr| Expr::call(Function::Abs, vec![value.clone()]);
        let mut largest = magnitude(&vectors[0]);
        for vector in &vectors[1..] {
            largest = self.named(Expr::call(Function::Max, vec![largest, magnitude(vector)]));
        }
        let largest = self.reduced(ReduceKind::Max, largest);
        let largest = self.named(largest);
        let constant = |value: f64| Expr::constant(DType::F32, value);
        let divided = |a: Expr, b: Expr| Expr::call(Function::Div, vec![a, b]);
        let scale = self.named(divided(largest.clone(), constant(127.0)));
        let small = Expr::call(Function::Less, vec![largest.clone(), constant(LEAST)]);
        let inverse = small.choose(constant(0.0), divided(constant(127.0), largest));
        let inverse = self.named(inverse);
        let inverse = self.named(self.splat(inverse));
        self.store(1, number.clone(), scale.clone());
        let per_sum = sum / self.lanes;
        for (index, part) in vectors.chunks(per_sum).enumerate() {
            let mut total: Option<Expr> = None;
            for (member, vector) in part.iter().enumerate() {
                let product = Expr::call(Function::Mul, vec![vector.clone(), inverse.clone()]);
                let rounded = Expr::call(Function::Round, vec![product]).cast(DType::F32, DType::I32);
                let code = self.named(rounded);
                let narrow = Expr::Call(ScalarOp::Cast(DType::I8), vec![code.clone()]);
                self.store(0, at(index * per_sum + member, self.lanes), narrow);
                total = Some(match total {
                    Some(total) => self.named(Expr::call(Function::Add, vec![total, code])),
                    None => code,
                });
            }
            let total = total.unwrap_or_else(|| Expr::constant(DType::I32, 0.0));
            let total = self.reduced(ReduceKind::Sum, total).cast(DType::I32, DType::F32);
            let value = Expr::call(Function::Mul, vec![scale.clone(), total]);
            let to = number.clone().times(Expr::index((group / sum) as i64)).plus(Expr::index(index as i64));
            self.store(2, to, value);
        }
        self.stmts
    }
}
