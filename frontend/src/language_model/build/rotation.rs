//! Cosines and sines of positions that are known at run time only.
//!
//! The angle of position `t` is `t * f`, up to 10^5 and more, where `f32` has no digits left behind the point. So the
//! position is cut into `256 high + low`, cosine and sine of both parts come out of small tables that were computed in
//! `f64`, and the sum of the angles is resolved by the addition theorems: two products and a sum in `f32`, which is within
//! 2^-22 at any position. Layers share the result.

use super::super::error::{LanguageModelError, Result};
use super::super::rope::Rope;
use super::expression::Body;
use tcc_ir::builder::Builder;
use tcc_ir::data::Data;
use tcc_ir::dim::Dim;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Function;

/// Positions of the table of low parts.
const LOW: usize = 256;

/// The most numbers in a table: enough for 67 million positions of heads of 128.
const MAX_TABLE: usize = 1 << 24;

/// Cosine and sine `[n, 1, size / 2]` of a rotary embedding.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    pub(super) size: usize,
    interleaved: bool,
    cos: Value,
    sin: Value,
}

impl Turn {
    pub(super) fn build(b: &mut Builder, rope: &Rope, positions: Value, context: usize) -> Result<Turn> {
        let (high_rows, half) = (context.div_ceil(LOW).max(1), rope.size / 2);
        if high_rows.checked_mul(half).is_none_or(|count| count > MAX_TABLE) {
            return Err(LanguageModelError::Value {
                source_name: "the model",
                key: "context length".into(),
                reason: format!("{context} positions of {} turned features are too many", rope.size),
            });
        }
        let frequencies = rope.frequencies(context);
        let table = |rows: usize, step: usize, factor: f64, function: fn(f64) -> f64| {
            let values: Vec<f32> = (0..rows)
                .flat_map(|row| frequencies.iter().map(move |frequency| (row * step) as f64 * frequency))
                .map(|angle| (function(angle) * factor) as f32)
                .collect();
            Data::from_f32(&[rows, half], &values)
        };
        let high = b.call_with(Function::Div, positions, LOW as f64)?;
        let start = b.call_with(Function::Mul, high, LOW as f64)?;
        let low = b.call(Function::Sub, &[positions, start])?;
        let mut parts = Vec::with_capacity(4);
        let factor = rope.attention_factor();
        for (rows, step, factor, index) in [(high_rows, LOW, factor, high), (LOW, 1, 1.0, low)] {
            for function in [f64::cos, f64::sin] {
                let table = b.constant(table(rows, step, factor, function)?)?;
                parts.push(b.op1(Operator::Gather { axis: 0 }, &[table, index])?);
            }
        }
        // Operands: cosine and sine of the high part, cosine and sine of the low part.
        let mut resolve = |pairs: [[u16; 2]; 2], join: Function| -> Result<Value> {
            let mut body = Body::new(4);
            let [first, second] =
                pairs.map(|[a, b]| body.call(Function::Mul, &[Body::input(a), Body::input(b)]));
            let sum = body.call(join, &[first, second]);
            let y = b.map(body.finish(sum), &parts)?;
            let mut shape = b.shape(y)?;
            shape.insert(1, Dim::Const(1));
            Ok(b.reshape(y, shape)?)
        };
        let cos = resolve([[0, 2], [1, 3]], Function::Sub)?;
        let sin = resolve([[1, 2], [0, 3]], Function::Add)?;
        Ok(Turn { size: rope.size, interleaved: rope.interleaved, cos, sin })
    }

    /// Turns the first features of the heads of `x` `[n, heads, d]`.
    pub(super) fn apply(&self, b: &mut Builder, x: Value) -> Result<Value> {
        let rope = Operator::Rope { interleaved: self.interleaved };
        let shape = b.shape(x)?;
        let whole = shape[2].clone();
        let turned = Dim::from(self.size);
        if whole == turned {
            return Ok(b.op1(rope, &[x, self.cos, self.sin])?);
        }
        let mut part = |start: Dim, size: Dim| {
            let starts = vec![Dim::Const(0), Dim::Const(0), start];
            let sizes = vec![shape[0].clone(), shape[1].clone(), size];
            b.op1(Operator::Slice { starts, sizes, steps: vec![1; 3] }, &[x])
        };
        let first = part(Dim::Const(0), turned.clone())?;
        let rest = part(turned.clone(), whole - turned)?;
        let first = b.op1(rope, &[first, self.cos, self.sin])?;
        Ok(b.op1(Operator::Concat { axis: 2 }, &[first, rest])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language_model::rope::Scaling;
    use tcc_interpret::Interpreter;
    use tcc_ir::dtype::DType;
    use tcc_ir::module::Module;
    use tcc_ir::types::Type;

    fn build(context: usize) -> Result<Module> {
        let rope = Rope { size: 8, theta: 10_000.0, interleaved: false, scaling: Scaling::None };
        let mut b = Builder::new("rope");
        let positions = b.input("positions", Type::tensor(DType::I64, vec![Dim::named("n")]));
        let turn = Turn::build(&mut b, &rope, positions, context)?;
        Ok(Module::with(b.finish(&[("cos", turn.cos), ("sin", turn.sin)])))
    }

    #[test]
    fn far_positions_are_as_exact_as_near_ones() {
        let module = build(1 << 17).unwrap();
        let positions = [0i64, 1, 255, 256, 257, 4_095, 65_537, 100_003, 131_071];
        let input = Data::from_i64(&[positions.len()], &positions).unwrap().into();
        let results = Interpreter::new(&module).run(vec![input]).unwrap();
        let numbers = |index: usize| results[index].as_tensor().unwrap().to_numbers().unwrap();
        let (cos, sin) = (numbers(0), numbers(1));
        for (row, position) in positions.iter().enumerate() {
            for pair in 0..4 {
                let angle = *position as f64 * 10_000f64.powf(-0.25 * f64::from(pair));
                let index = row * 4 + pair as usize;
                // Four roundings of numbers up to 1 and two of their products and sum, each up to 2^-25 or 2^-24.
                let bound = 2f64.powi(-22);
                assert!((cos[index] - angle.cos()).abs() < bound, "cosine at {position}, pair {pair}");
                assert!((sin[index] - angle.sin()).abs() < bound, "sine at {position}, pair {pair}");
            }
        }
    }

    #[test]
    fn tables_are_bounded() {
        assert!(build(1 << 40).unwrap_err().to_string().contains("too many"));
    }
}
