//! Scalar expressions in `f32`.

use super::super::decoder::Activation;
use std::f64::consts::{FRAC_1_SQRT_2, PI};
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Arg, Function, Scalar, ScalarExpr};

/// An expression under construction.
pub(super) struct Body(ScalarExpr);

impl Body {
    pub(super) fn new(inputs: usize) -> Body {
        Body(ScalarExpr::with_inputs(inputs))
    }

    pub(super) fn input(index: u16) -> Arg {
        Arg::Input(index)
    }

    pub(super) fn call(&mut self, function: Function, arguments: &[Arg]) -> Arg {
        self.0.apply(function, arguments)
    }

    /// A function of an argument and a constant.
    pub(super) fn with(&mut self, function: Function, x: Arg, constant: f64) -> Arg {
        self.call(function, &[x, Arg::Const(Scalar::float(DType::F32, constant))])
    }

    pub(super) fn finish(mut self, result: Arg) -> ScalarExpr {
        self.0.result = result;
        self.0
    }

    /// The nonlinearity of `x`.
    pub(super) fn activation(&mut self, kind: Activation, x: Arg) -> Arg {
        match kind {
            Activation::Relu => self.with(Function::Max, x, 0.0),
            Activation::Silu => {
                let gate = self.call(Function::Sigmoid, &[x]);
                self.call(Function::Mul, &[x, gate])
            }
            Activation::Gelu => {
                let scaled = self.with(Function::Mul, x, FRAC_1_SQRT_2);
                let erf = self.call(Function::Erf, &[scaled]);
                self.half_gate(x, erf)
            }
            Activation::GeluTanh => {
                let square = self.call(Function::Mul, &[x, x]);
                let cube = self.call(Function::Mul, &[square, x]);
                let cube = self.with(Function::Mul, cube, 0.044715);
                let inner = self.call(Function::Add, &[x, cube]);
                let inner = self.with(Function::Mul, inner, (2.0 / PI).sqrt());
                let tanh = self.call(Function::Tanh, &[inner]);
                self.half_gate(x, tanh)
            }
        }
    }

    /// `x / 2 * (1 + y)`.
    fn half_gate(&mut self, x: Arg, y: Arg) -> Arg {
        let gate = self.with(Function::Add, y, 1.0);
        let half = self.with(Function::Mul, x, 0.5);
        self.call(Function::Mul, &[half, gate])
    }
}
