//! Writing scalar functions for maps, prologues and epilogues.

use super::super::context::Context;
use super::super::refusal::Refusal;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::scalar::{Arg, Function, Scalar, ScalarExpr, ScalarOp};

/// A scalar function under construction over operands of one element type. Types narrower than `f32` are computed in
/// `f32` and rounded once at the end.
pub(crate) struct Body {
    expr: ScalarExpr,
    operands: Vec<Arg>,
    dtype: DType,
    compute: DType,
}

/// The type that floating-point arithmetic on a type is done in.
pub(crate) fn compute_type(dtype: DType) -> DType {
    if dtype.is_float() && dtype.bits() < 32 { DType::F32 } else { dtype }
}

impl Body {
    /// A function of `inputs` operands of type `dtype`.
    pub(crate) fn new(inputs: usize, dtype: DType) -> Body {
        let compute = compute_type(dtype);
        let mut expr = ScalarExpr::with_inputs(inputs);
        let operands = (0..inputs as u16)
            .map(|index| {
                let input = Arg::Input(index);
                if compute == dtype { input } else { expr.push(ScalarOp::Cast(compute), &[input]) }
            })
            .collect();
        Body { expr, operands, dtype, compute }
    }

    /// Operand `index`.
    pub(crate) fn operand(&self, index: usize) -> Arg {
        self.operands[index]
    }

    /// A constant.
    pub(crate) fn constant(&self, value: f64) -> Arg {
        Arg::Const(Scalar::of(self.compute, value))
    }

    /// One application.
    pub(crate) fn call(&mut self, function: Function, args: &[Arg]) -> Arg {
        self.expr.apply(function, args)
    }

    /// A function of a value and a constant.
    pub(crate) fn with(&mut self, function: Function, a: Arg, constant: f64) -> Arg {
        let constant = self.constant(constant);
        self.expr.apply(function, &[a, constant])
    }

    /// `condition ? yes : no`.
    pub(crate) fn select(&mut self, condition: Arg, yes: Arg, no: Arg) -> Arg {
        self.expr.apply(Function::Select, &[condition, yes, no])
    }

    /// Conversion to another type.
    pub(crate) fn cast(&mut self, a: Arg, dtype: DType) -> Arg {
        self.expr.push(ScalarOp::Cast(dtype), &[a])
    }

    /// The function with a result of the operands' type.
    pub(crate) fn finish(mut self, result: Arg) -> ScalarExpr {
        self.expr.result = if self.compute == self.dtype {
            result
        } else {
            self.expr.push(ScalarOp::Cast(self.dtype), &[result])
        };
        self.expr.prune()
    }

    /// The function with a result of whatever type `result` has.
    pub(crate) fn finish_as_is(mut self, result: Arg) -> ScalarExpr {
        self.expr.result = result;
        self.expr.prune()
    }
}

impl Context<'_> {
    /// An elementwise function of one operand, written by `write` on the body and the operand.
    pub(crate) fn map1(
        &mut self,
        x: Value,
        write: impl FnOnce(&mut Body, Arg) -> Arg,
    ) -> Result<Value, Refusal> {
        let mut body = Body::new(1, self.dtype(x)?);
        let operand = body.operand(0);
        let result = write(&mut body, operand);
        Ok(self.builder.map(body.finish(result), &[x])?)
    }

    /// One scalar function of operands, elementwise with broadcasting.
    pub(crate) fn call(&mut self, function: Function, operands: &[Value]) -> Result<Value, Refusal> {
        let dtype = self.dtype(operands[operands.len() - 1])?;
        if compute_type(dtype) == dtype || function == Function::Select {
            return Ok(self.builder.call(function, operands)?);
        }
        let mut body = Body::new(operands.len(), dtype);
        let args: Vec<Arg> = (0..operands.len()).map(|index| body.operand(index)).collect();
        let result = body.call(function, &args);
        let predicate = matches!(function.rule(), tcc_ir::scalar::Rule::Compare | tcc_ir::scalar::Rule::Test);
        let expr = if predicate { body.finish_as_is(result) } else { body.finish(result) };
        Ok(self.builder.map(expr, operands)?)
    }
}
