//! Rows of floats as integers with a scale and a sum for each run.

use tcc_ir::block_format::{COARSE_STEP, RowForm};
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarOp};
use tcc_ir::words::ReduceKind;

use super::{Argument, LowerError, Lowering};
use crate::ir::{Expr, LoopKind, Stmt};

/// Maxima below this quantize to zeros: the largest code over them would overflow.
const LEAST: f64 = 1.0 / (1u128 << 100) as f64;

/// Codes, scales and sums, and fine codes; a row is a task.
pub fn quantize_rows(
    lowering: &mut Lowering,
    group: usize,
    sum: usize,
    rows: RowForm,
) -> Result<(), LowerError> {
    let Some(limit) = rows.largest_code() else {
        return Err(lowering.malformed("rows of floats have no codes"));
    };
    let fine = rows == RowForm::Int16;
    let x = lowering.operands[0].clone();
    let Some(depth) = x.shape.last().and_then(Dim::as_const).and_then(|depth| usize::try_from(depth).ok())
    else {
        return Err(lowering.malformed("rows of unknown length"));
    };
    let native = usize::from(lowering.tuning.lanes(DType::F32));
    let fits = |lanes: &usize| lanes.is_power_of_two() && sum.is_multiple_of(*lanes);
    let lanes = (1..=native.min(sum)).rev().find(fits).unwrap_or(1);
    let domain = [Dim::product(&x.shape[..x.rank() - 1])];
    let stmts = lowering.parallel_rows(&domain, &mut |this, at| {
        let runs = Expr::index((depth / group) as i64);
        vec![this.for_loop("run", runs.clone(), LoopKind::Serial, |this, run| {
            let number = at[0].clone().times(runs).plus(run);
            let run = Run { this, dtype: x.dtype(), lanes, limit: limit as f64, fine, stmts: Vec::new() };
            run.quantize(number, group, sum)
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
    /// The largest code.
    limit: f64,
    /// Codes go in two bytes.
    fine: bool,
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
        let scale = self.named(divided(largest.clone(), constant(self.limit)));
        let small = Expr::call(Function::Less, vec![largest.clone(), constant(LEAST)]);
        let inverse = small.choose(constant(0.0), divided(constant(self.limit), largest));
        let inverse = self.named(inverse);
        let inverse = self.named(self.splat(inverse));
        self.store(1, number.clone(), scale.clone());
        let per_sum = sum / self.lanes;
        for (index, part) in vectors.chunks(per_sum).enumerate() {
            let mut total: Option<Expr> = None;
            for (member, vector) in part.iter().enumerate() {
                let product = Expr::call(Function::Mul, vec![vector.clone(), inverse.clone()]);
                let rounded = self.named(Expr::call(Function::Round, vec![product]));
                let code = self.named(rounded.clone().cast(DType::F32, DType::I32));
                let place = at(index * per_sum + member, self.lanes);
                if self.fine {
                    // Whole numbers below 2^14 and their 128th parts are exact in f32.
                    let part = |value: f64| self.splat(constant(value));
                    let half =
                        Expr::call(Function::Add, vec![rounded.clone(), part(COARSE_STEP as f64 / 2.0)]);
                    let steps = Expr::call(Function::Mul, vec![half, part(1.0 / COARSE_STEP as f64)]);
                    let coarse = Expr::call(Function::Floor, vec![steps]);
                    let back = part(-(COARSE_STEP as f64));
                    let coarse = self.named(coarse);
                    let fine = Expr::Fma(Box::new(coarse.clone()), Box::new(back), Box::new(rounded));
                    let narrow = |value: Expr| {
                        Expr::Call(ScalarOp::Cast(DType::I8), vec![value.cast(DType::F32, DType::I32)])
                    };
                    self.store(0, place.clone(), narrow(coarse));
                    self.store(3, place, narrow(fine));
                } else {
                    let narrow = Expr::Call(ScalarOp::Cast(DType::I8), vec![code.clone()]);
                    self.store(0, place, narrow);
                }
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
