//! Values of expressions: one scalar a lane.

use smallvec::SmallVec;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Scalar, ScalarOp};
use tcc_ir::words::ReduceKind;

use super::{EvaluateError, malformed};
use crate::fold;

/// The lanes of a value.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Value(SmallVec<[Scalar; 4]>);

impl Value {
    pub(super) fn scalar(scalar: Scalar) -> Value {
        Value(SmallVec::from_iter([scalar]))
    }

    pub(super) fn of(lanes: SmallVec<[Scalar; 4]>) -> Value {
        Value(lanes)
    }

    pub(super) fn lanes(&self) -> usize {
        self.0.len()
    }

    pub(super) fn lane(&self, lane: usize) -> Scalar {
        self.0[lane]
    }

    pub(super) fn repeated(&self, lanes: usize) -> Value {
        Value((0..lanes).map(|_| self.0[0]).collect())
    }

    pub(super) fn call(op: ScalarOp, args: &[Value]) -> Result<Value, EvaluateError> {
        let lanes = args.first().map_or(0, Value::lanes);
        if args.iter().any(|arg| arg.lanes() != lanes) {
            return malformed(format!("lanes of the arguments of {op} differ"));
        }
        let lane = |lane: usize| {
            let scalars: SmallVec<[Scalar; 3]> = args.iter().map(|arg| arg.lane(lane)).collect();
            fold::apply(op, &scalars)
        };
        Ok(Value((0..lanes).map(lane).collect::<Result<_, _>>()?))
    }

    pub(super) fn fused(a: &Value, b: &Value, c: &Value) -> Result<Value, EvaluateError> {
        if a.lanes() != c.lanes() || b.lanes() != c.lanes() {
            return malformed("lanes of the arguments of fma differ");
        }
        let lane = |lane: usize| {
            let (a, b, c) = (a.lane(lane), b.lane(lane), c.lane(lane));
            let value = match c.dtype {
                DType::F32 => f64::from((a.as_f64() as f32).mul_add(b.as_f64() as f32, c.as_f64() as f32)),
                _ => a.as_f64().mul_add(b.as_f64(), c.as_f64()),
            };
            Scalar::float(c.dtype, value)
        };
        Ok(Value((0..c.lanes()).map(lane).collect()))
    }

    pub(super) fn dot(acc: &Value, a: &Value, b: &Value) -> Result<Value, EvaluateError> {
        if a.lanes() != acc.lanes() * 4 || b.lanes() != acc.lanes() * 4 {
            return malformed("dot takes four times as many bytes as accumulators");
        }
        let lane = |lane: usize| {
            let products = (4 * lane..4 * lane + 4).map(|byte| a.lane(byte).as_i64() * b.lane(byte).as_i64());
            fold::wrap(DType::I32, acc.lane(lane).as_i64() + products.sum::<i64>())
        };
        Ok(Value((0..acc.lanes()).map(lane).collect()))
    }

    pub(super) fn reduced(&self, kind: ReduceKind) -> Result<Value, EvaluateError> {
        if !self.lanes().is_power_of_two() {
            return malformed("lanes are reduced in powers of two");
        }
        let function = match kind {
            ReduceKind::Sum => Function::Add,
            ReduceKind::Prod => Function::Mul,
            ReduceKind::Max => Function::Max,
            ReduceKind::Min => Function::Min,
        };
        let mut lanes = self.0.clone();
        while lanes.len() > 1 {
            let half = lanes.len() / 2;
            for lane in 0..half {
                lanes[lane] = fold::apply(ScalarOp::Call(function), &[lanes[lane], lanes[lane + half]])?;
            }
            lanes.truncate(half);
        }
        Ok(Value(lanes))
    }

    pub(super) fn shuffled(a: &Value, b: &Value, picks: &[u16]) -> Result<Value, EvaluateError> {
        let pick = |pick: &u16| {
            let pick = usize::from(*pick);
            a.0.get(pick).or_else(|| b.0.get(pick.checked_sub(a.lanes())?)).copied()
        };
        match picks.iter().map(pick).collect::<Option<_>>() {
            Some(lanes) => Ok(Value(lanes)),
            None => malformed("a shuffle picks a lane that is not there"),
        }
    }
}
