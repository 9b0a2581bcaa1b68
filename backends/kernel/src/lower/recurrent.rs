//! Recurrent layers as ONNX defines RNN, GRU and LSTM: one task a batch entry, time steps in order, one launch a direction.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Function;
use tcc_ir::words::{CellKind, Direction, ReduceKind};

use super::rows::Line;
use super::{Argument, LowerError, Lowering};
use crate::ir::{Access, BufferId, Expr, LoopKind, Space, Stmt};

/// An activation function with its parameters.
#[derive(Clone)]
struct Activation {
    name: String,
    alpha: f64,
    beta: f64,
}

struct Layer<'l> {
    cell: CellKind,
    activations: &'l [Activation],
    clip: f64,
    linear_before_reset: bool,
    input_forget: bool,
    compute: DType,
    direction: i64,
    reverse: bool,
    hidden: Expr,
    input: Expr,
    lanes: u16,
}

fn call(function: Function, args: Vec<Expr>) -> Expr {
    Expr::call(function, args)
}

fn add(a: Expr, b: Expr) -> Expr {
    call(Function::Add, vec![a, b])
}

fn mul(a: Expr, b: Expr) -> Expr {
    call(Function::Mul, vec![a, b])
}

impl Activation {
    fn default_parameters(name: &str) -> (f64, f64) {
        match name {
            "affine" => (1.0, 0.0),
            "leakyrelu" => (0.01, 0.0),
            "thresholdedrelu" | "elu" => (1.0, 0.0),
            "scaledtanh" => (1.0, 1.0),
            "hardsigmoid" => (0.2, 0.5),
            _ => (0.0, 0.0),
        }
    }

    /// The function of a value, or nothing for a name that ONNX does not have.
    fn apply(&self, dtype: DType, x: Expr) -> Option<Expr> {
        let number = |value: f64| Expr::constant(dtype, value);
        let (alpha, beta) = (number(self.alpha), number(self.beta));
        let positive = |x: &Expr| number(0.0).less(x.clone());
        Some(match self.name.as_str() {
            "sigmoid" => call(Function::Sigmoid, vec![x]),
            "tanh" => call(Function::Tanh, vec![x]),
            "relu" => call(Function::Max, vec![x, number(0.0)]),
            "affine" => add(mul(alpha, x), beta),
            "leakyrelu" => positive(&x).choose(x.clone(), mul(alpha, x)),
            "thresholdedrelu" => alpha.less(x.clone()).choose(x, number(0.0)),
            "scaledtanh" => mul(alpha, call(Function::Tanh, vec![mul(beta, x)])),
            "hardsigmoid" => {
                let line = add(mul(alpha, x), beta);
                call(Function::Min, vec![call(Function::Max, vec![line, number(0.0)]), number(1.0)])
            }
            "elu" => positive(&x).choose(x.clone(), mul(alpha, call(Function::Expm1, vec![x]))),
            "softsign" => {
                let below = add(number(1.0), call(Function::Abs, vec![x.clone()]));
                call(Function::Div, vec![x, below])
            }
            "softplus" => {
                let magnitude = call(Function::Neg, vec![call(Function::Abs, vec![x.clone()])]);
                let tail = call(Function::Log1p, vec![call(Function::Exp, vec![magnitude])]);
                add(call(Function::Max, vec![x, number(0.0)]), tail)
            }
            _ => return None,
        })
    }
}

/// Lowers a recurrent layer.
pub fn recurrent(lowering: &mut Lowering, operator: &Operator) -> Result<(), LowerError> {
    let Operator::Recurrent {
        cell,
        direction,
        activations,
        alphas,
        betas,
        clip,
        linear_before_reset,
        input_forget,
    } = operator
    else {
        return Err(lowering.malformed("not a recurrent layer"));
    };
    let defaults: &[&str] = match cell {
        CellKind::Rnn => &["tanh"],
        CellKind::Gru => &["sigmoid", "tanh"],
        CellKind::Lstm => &["sigmoid", "tanh", "tanh"],
    };
    let directions = if *direction == Direction::Bidirectional { 2 } else { 1 };
    let dtype = lowering.operands[0].dtype();
    let compute = if dtype.bits() < 32 { DType::F32 } else { dtype };
    let mut parameters = (alphas.iter(), betas.iter());
    for index in 0..directions {
        let mut used = Vec::new();
        for (position, default) in defaults.iter().enumerate() {
            let given = activations.get(index as usize * defaults.len() + position);
            let name = given.map_or(default.to_string(), |name| name.to_lowercase());
            let (alpha, beta) = Activation::default_parameters(&name);
            let takes_alpha = Activation::default_parameters(&name) != (0.0, 0.0);
            let takes_beta = matches!(name.as_str(), "affine" | "scaledtanh" | "hardsigmoid");
            let alpha =
                if takes_alpha { parameters.0.next().map_or(alpha, |value| value.get()) } else { alpha };
            let beta = if takes_beta { parameters.1.next().map_or(beta, |value| value.get()) } else { beta };
            let activation = Activation { name, alpha, beta };
            if activation.apply(DType::F32, Expr::constant(DType::F32, 0.0)).is_none() {
                return Err(lowering.unsupported(format!("activation '{}' is unknown", activation.name)));
            }
            used.push(activation);
        }
        let hidden = lowering.operands[2].shape[2].clone();
        let input = lowering.operands[0].shape[2].clone();
        let layer = Layer {
            cell: *cell,
            activations: &used,
            clip: clip.get(),
            linear_before_reset: *linear_before_reset,
            input_forget: *input_forget,
            compute,
            direction: index,
            reverse: *direction == Direction::Reverse || index == 1,
            hidden: lowering.dim(&hidden),
            input: lowering.dim(&input),
            lanes: lowering.tuning.lanes(compute),
        };
        layer.launch(lowering, &hidden);
    }
    Ok(())
}

impl Layer<'_> {
    fn launch(&self, lowering: &mut Lowering, hidden: &Dim) {
        let dtype = lowering.operands[0].dtype();
        let gates = tcc_ir::infer::gates(self.cell);
        let batch = lowering.operands[0].shape[1].clone();
        let steps = lowering.operands[0].shape[0].clone();
        let steps = lowering.dim(&steps);
        let all_gates = lowering.dim(&(hidden.clone() * Dim::Const(gates)));
        let scratch = |this: &mut Lowering, name: &str, count: Expr| {
            this.kernel.buffer(name, self.compute, Space::Scratch, count, Access::ReadWrite)
        };
        let gate = scratch(lowering, "gates", all_gates.clone());
        let recurrent = scratch(lowering, "recurrent", all_gates);
        let state = scratch(lowering, "state", self.hidden.clone());
        let cell_state = scratch(lowering, "cell", self.hidden.clone());
        let reset = scratch(lowering, "reset", self.hidden.clone());
        let units = Line { extent: self.hidden.clone(), lanes: self.lanes, warp: None };
        let dir = Expr::index(self.direction);
        let stmts = lowering.parallel_rows(&[batch], &mut |this, at| {
            let entry = at[0].clone();
            let initial = |this: &mut Lowering, operand: usize, into: BufferId| {
                units.for_each(this, &mut |this, unit| {
                    let at = [dir.clone(), entry.clone(), unit.clone()];
                    let value = this.load(Argument::Operand(operand), &at).cast(dtype, self.compute);
                    vec![Stmt::Store { buffer: into, index: unit, value, valid: None }]
                })
            };
            let mut stmts = initial(this, 5, state);
            if self.cell == CellKind::Lstm {
                stmts.extend(initial(this, 6, cell_state));
            }
            let length_type = this.operands[4].dtype();
            let length =
                this.load(Argument::Operand(4), std::slice::from_ref(&entry)).cast(length_type, DType::I64);
            let (length, set_length) = this.assign("length", length.at_most(steps.clone()));
            stmts.push(set_length);
            stmts.push(this.for_loop("t", Expr::Var(length), LoopKind::Serial, |this, step| {
                let time = match self.reverse {
                    true => Expr::Var(length).minus(Expr::index(1)).minus(step),
                    false => step,
                };
                let mut stmts = self.products(this, gate, recurrent, state, &entry, &time);
                stmts.extend(self.update(this, gate, recurrent, state, cell_state, reset));
                stmts.extend(units.for_each(this, &mut |this, unit| {
                    let value = Expr::load(state, unit.clone()).cast(self.compute, dtype);
                    let at = [time.clone(), dir.clone(), entry.clone(), unit];
                    vec![this.store(Argument::Result(0), &at, value)]
                }));
                stmts
            }));
            // Steps past the end of a shorter sequence are zero.
            let padding = steps.clone().minus(Expr::Var(length));
            stmts.push(this.for_loop("t", padding, LoopKind::Serial, |this, step| {
                units.for_each(this, &mut |this, unit| {
                    let time = Expr::Var(length).plus(step.clone());
                    let at = [time, dir.clone(), entry.clone(), unit];
                    vec![this.store(Argument::Result(0), &at, Expr::constant(dtype, 0.0))]
                })
            }));
            let finals = [(1, state), (2, cell_state)];
            for (result, buffer) in finals.into_iter().take(this.results.len() - 1) {
                stmts.extend(units.for_each(this, &mut |this, unit| {
                    let value = Expr::load(buffer, unit.clone()).cast(self.compute, dtype);
                    let at = [dir.clone(), entry.clone(), unit];
                    vec![this.store(Argument::Result(result), &at, value)]
                }));
            }
            stmts
        });
        lowering.launch(stmts, false);
    }

    /// `gate = x W + Wb` and `recurrent = h R + Rb` for all gates.
    fn products(
        &self,
        this: &mut Lowering,
        gate: BufferId,
        recurrent: BufferId,
        state: BufferId,
        entry: &Expr,
        time: &Expr,
    ) -> Vec<Stmt> {
        let dtype = this.operands[0].dtype();
        let dir = Expr::index(self.direction);
        let rows = self.hidden.clone().times(Expr::index(tcc_ir::infer::gates(self.cell)));
        let product = |a: Expr, b: Expr| (vec![], mul(a, b));
        vec![this.for_loop("row", rows.clone(), LoopKind::Serial, |this, row| {
            let inputs = Line { extent: self.input.clone(), lanes: self.lanes, warp: None };
            let units = Line { extent: self.hidden.clone(), lanes: self.lanes, warp: None };
            let (mut stmts, from_input) =
                inputs.reduce(this, ReduceKind::Sum, self.compute, &mut |this, column| {
                    let x = this.load(Argument::Operand(0), &[time.clone(), entry.clone(), column.clone()]);
                    let w = this.load(Argument::Operand(1), &[dir.clone(), row.clone(), column]);
                    product(x.cast(dtype, self.compute), w.cast(dtype, self.compute))
                });
            let (more, from_state) =
                units.reduce(this, ReduceKind::Sum, self.compute, &mut |this, column| {
                    let r = this.load(Argument::Operand(2), &[dir.clone(), row.clone(), column.clone()]);
                    product(Expr::load(state, column), r.cast(dtype, self.compute))
                });
            stmts.extend(more);
            let bias = |this: &mut Lowering, at: Expr| {
                this.load(Argument::Operand(3), &[dir.clone(), at]).cast(dtype, self.compute)
            };
            let w_bias = bias(this, row.clone());
            let r_bias = bias(this, rows.clone().plus(row.clone()));
            let store = |buffer: BufferId, value: Expr| Stmt::Store {
                buffer,
                index: row.clone(),
                value,
                valid: None,
            };
            stmts.push(store(gate, add(Expr::Var(from_input), w_bias)));
            stmts.push(store(recurrent, add(Expr::Var(from_state), r_bias)));
            stmts
        })]
    }

    fn clipped(&self, x: Expr) -> Expr {
        if self.clip <= 0.0 {
            return x;
        }
        let (low, high) = (Expr::constant(self.compute, -self.clip), Expr::constant(self.compute, self.clip));
        call(Function::Min, vec![call(Function::Max, vec![x, low]), high])
    }

    fn activate(&self, which: usize, x: Expr) -> Expr {
        let clipped = self.clipped(x);
        // Unknown names were refused when the layer was set up.
        self.activations[which].apply(self.compute, clipped.clone()).unwrap_or(clipped)
    }

    /// The next state of every unit from the gates.
    fn update(
        &self,
        this: &mut Lowering,
        gate: BufferId,
        recurrent: BufferId,
        state: BufferId,
        cell_state: BufferId,
        reset: BufferId,
    ) -> Vec<Stmt> {
        let units = Line { extent: self.hidden.clone(), lanes: self.lanes, warp: None };
        let hidden = self.hidden.clone();
        let at = |number: i64, unit: &Expr| hidden.clone().times(Expr::index(number)).plus(unit.clone());
        let both = |number: i64, unit: &Expr| {
            add(Expr::load(gate, at(number, unit)), Expr::load(recurrent, at(number, unit)))
        };
        let store = |buffer: BufferId, unit: &Expr, value: Expr| Stmt::Store {
            buffer,
            index: unit.clone(),
            value,
            valid: None,
        };
        let one = || Expr::constant(self.compute, 1.0);
        let minus = |a: Expr, b: Expr| call(Function::Sub, vec![a, b]);
        match self.cell {
            CellKind::Rnn => units.for_each(this, &mut |_, unit| {
                let value = self.activate(0, both(0, &unit));
                vec![store(state, &unit, value)]
            }),
            CellKind::Lstm => units.for_each(this, &mut |this, unit| {
                let dtype = this.operands[0].dtype();
                let peephole = |this: &mut Lowering, number: i64, cell: Expr| {
                    let place = [Expr::index(self.direction), at(number, &unit)];
                    mul(this.load(Argument::Operand(7), &place).cast(dtype, self.compute), cell)
                };
                let old = Expr::load(cell_state, unit.clone());
                let input = add(both(0, &unit), peephole(this, 0, old.clone()));
                let (input, set_input) = this.assign("input", self.activate(0, input));
                let forget = match self.input_forget {
                    true => minus(one(), Expr::Var(input)),
                    false => self.activate(0, add(both(2, &unit), peephole(this, 2, old.clone()))),
                };
                let (forget, set_forget) = this.assign("forget", forget);
                let candidate = self.activate(1, both(3, &unit));
                let kept = mul(Expr::Var(forget), old);
                let (cell, set_cell) = this.assign("cell", add(kept, mul(Expr::Var(input), candidate)));
                let output = add(both(1, &unit), peephole(this, 1, Expr::Var(cell)));
                let output = self.activate(0, output);
                let squashed =
                    self.activations[2].apply(self.compute, Expr::Var(cell)).unwrap_or(Expr::Var(cell));
                let (next, set_next) = this.assign("next", mul(output, squashed));
                vec![
                    set_input,
                    set_forget,
                    set_cell,
                    set_next,
                    store(cell_state, &unit, Expr::Var(cell)),
                    store(state, &unit, Expr::Var(next)),
                ]
            }),
            CellKind::Gru => self.update_gru(this, &units, gate, recurrent, state, reset),
        }
    }

    fn update_gru(
        &self,
        this: &mut Lowering,
        units: &Line,
        gate: BufferId,
        recurrent: BufferId,
        state: BufferId,
        reset: BufferId,
    ) -> Vec<Stmt> {
        let hidden = self.hidden.clone();
        let at = |number: i64, unit: &Expr| hidden.clone().times(Expr::index(number)).plus(unit.clone());
        let both = |number: i64, unit: &Expr| {
            add(Expr::load(gate, at(number, unit)), Expr::load(recurrent, at(number, unit)))
        };
        let dtype = this.operands[0].dtype();
        let dir = Expr::index(self.direction);
        let mut stmts = Vec::new();
        if !self.linear_before_reset {
            // The reset gate scales the state before its product with the candidate's weights.
            stmts.extend(units.for_each(this, &mut |_, unit| {
                let value = mul(self.activate(0, both(1, &unit)), Expr::load(state, unit.clone()));
                vec![Stmt::Store { buffer: reset, index: unit, value, valid: None }]
            }));
            stmts.push(this.for_loop("row", hidden.clone(), LoopKind::Serial, |this, row| {
                let (mut stmts, product) =
                    units.reduce(this, ReduceKind::Sum, self.compute, &mut |this, column| {
                        let r = this.load(Argument::Operand(2), &[dir.clone(), at(2, &row), column.clone()]);
                        (vec![], mul(Expr::load(reset, column), r.cast(dtype, self.compute)))
                    });
                let bias =
                    this.load(Argument::Operand(3), &[dir.clone(), at(5, &row)]).cast(dtype, self.compute);
                let value = add(Expr::Var(product), bias);
                stmts.push(Stmt::Store { buffer: recurrent, index: at(2, &row), value, valid: None });
                stmts
            }));
        }
        stmts.extend(units.for_each(this, &mut |this, unit| {
            let (update, set_update) = this.assign("update", self.activate(0, both(0, &unit)));
            let mut from_state = Expr::load(recurrent, at(2, &unit));
            if self.linear_before_reset {
                from_state = mul(self.activate(0, both(1, &unit)), from_state);
            }
            let candidate = self.activate(1, add(Expr::load(gate, at(2, &unit)), from_state));
            let fresh = call(Function::Sub, vec![Expr::constant(self.compute, 1.0), Expr::Var(update)]);
            let kept = mul(Expr::Var(update), Expr::load(state, unit.clone()));
            let value = add(mul(fresh, candidate), kept);
            vec![set_update, Stmt::Store { buffer: state, index: unit, value, valid: None }]
        }));
        stmts
    }
}
