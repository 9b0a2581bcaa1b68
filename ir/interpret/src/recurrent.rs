//! ONNX RNN, GRU and LSTM.
//!
//! Gates are computed in `f64`; states are rounded to the element type after each step, as they are values of it.

use tcc_ir::words::{CellKind, Direction};

use crate::error::{Error, Result};
use crate::number;
use crate::tensor::{Contents, Tensor};

/// The attributes of a recurrent layer.
pub(crate) struct Recurrent<'a> {
    /// Which cell.
    pub cell: CellKind,
    /// Order of time steps.
    pub direction: Direction,
    /// Activations of each direction, one after the other; none: the defaults.
    pub activations: &'a [String],
    /// First parameter of each activation.
    pub alphas: Vec<f64>,
    /// Second parameter of each activation.
    pub betas: Vec<f64>,
    /// 0, or the limit of what enters an activation.
    pub clip: f64,
    /// GRU: the reset gate acts on the product instead of the state.
    pub linear_before_reset: bool,
    /// LSTM: the forget gate is one minus the input gate.
    pub input_forget: bool,
}

/// A scalar activation with its parameters.
#[derive(Clone, Copy)]
struct Activation {
    kind: Kind,
    alpha: f64,
    beta: f64,
}

#[derive(Clone, Copy)]
enum Kind {
    Relu,
    Tanh,
    Sigmoid,
    Affine,
    LeakyRelu,
    ThresholdedRelu,
    ScaledTanh,
    HardSigmoid,
    Elu,
    Softsign,
    Softplus,
}

impl Activation {
    /// An activation by its ONNX name; missing parameters have the defaults of the ONNX operator of that name.
    fn named(name: &str, alpha: Option<f64>, beta: Option<f64>) -> Result<Activation> {
        let (kind, default_alpha, default_beta) = match name.to_ascii_lowercase().as_str() {
            "relu" => (Kind::Relu, 0.0, 0.0),
            "tanh" => (Kind::Tanh, 0.0, 0.0),
            "sigmoid" => (Kind::Sigmoid, 0.0, 0.0),
            "affine" => (Kind::Affine, 1.0, 0.0),
            "leakyrelu" => (Kind::LeakyRelu, 0.01, 0.0),
            "thresholdedrelu" => (Kind::ThresholdedRelu, 1.0, 0.0),
            "scaledtanh" => (Kind::ScaledTanh, 1.0, 1.0),
            "hardsigmoid" => (Kind::HardSigmoid, 0.2, 0.5),
            "elu" => (Kind::Elu, 1.0, 0.0),
            "softsign" => (Kind::Softsign, 0.0, 0.0),
            "softplus" => (Kind::Softplus, 0.0, 0.0),
            _ => return Err(Error::operands(format!("unknown activation '{name}'"))),
        };
        Ok(Activation { kind, alpha: alpha.unwrap_or(default_alpha), beta: beta.unwrap_or(default_beta) })
    }

    fn apply(self, x: f64) -> f64 {
        let Activation { alpha, beta, .. } = self;
        match self.kind {
            Kind::Relu => x.max(0.0),
            Kind::Tanh => x.tanh(),
            Kind::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Kind::Affine => alpha * x + beta,
            Kind::LeakyRelu => {
                if x >= 0.0 {
                    x
                } else {
                    alpha * x
                }
            }
            Kind::ThresholdedRelu => {
                if x > alpha {
                    x
                } else {
                    0.0
                }
            }
            Kind::ScaledTanh => alpha * (beta * x).tanh(),
            Kind::HardSigmoid => (alpha * x + beta).clamp(0.0, 1.0),
            Kind::Elu => {
                if x >= 0.0 {
                    x
                } else {
                    alpha * x.exp_m1()
                }
            }
            Kind::Softsign => x / (1.0 + x.abs()),
            Kind::Softplus => x.exp().ln_1p(),
        }
    }
}

/// One direction of the layer: its weights and sizes.
struct Layer<'a> {
    attributes: &'a Recurrent<'a>,
    activations: Vec<Activation>,
    input: usize,
    hidden: usize,
    w: &'a [f64],
    r: &'a [f64],
    b: &'a [f64],
    /// Peepholes of the gates i, o and f; empty for other cells.
    p: &'a [f64],
}

impl Layer<'_> {
    fn gates(&self) -> usize {
        match self.attributes.cell {
            CellKind::Rnn => 1,
            CellKind::Gru => 3,
            CellKind::Lstm => 4,
        }
    }

    /// `x W + Wb` of one unit of a gate.
    fn input_part(&self, gate: usize, unit: usize, x: &[f64]) -> f64 {
        let row = gate * self.hidden + unit;
        dot(&self.w[row * self.input..][..self.input], x) + self.b[row]
    }

    /// `h R + Rb` of one unit of a gate.
    fn hidden_part(&self, gate: usize, unit: usize, h: &[f64]) -> f64 {
        let row = gate * self.hidden + unit;
        dot(&self.r[row * self.hidden..][..self.hidden], h) + self.b[(self.gates() * self.hidden) + row]
    }

    fn activate(&self, index: usize, x: f64) -> f64 {
        let clip = self.attributes.clip;
        let clipped = if clip > 0.0 { x.clamp(-clip, clip) } else { x };
        self.activations[index].apply(clipped)
    }

    /// The next hidden and cell state.
    fn step(&self, x: &[f64], h: &[f64], c: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let both =
            |gate: usize, unit: usize| self.input_part(gate, unit, x) + self.hidden_part(gate, unit, h);
        let units = 0..self.hidden;
        match self.attributes.cell {
            CellKind::Rnn => (units.map(|unit| self.activate(0, both(0, unit))).collect(), Vec::new()),
            CellKind::Gru => {
                let update: Vec<f64> = units.clone().map(|unit| self.activate(0, both(0, unit))).collect();
                let reset: Vec<f64> = units.clone().map(|unit| self.activate(0, both(1, unit))).collect();
                let gated: Vec<f64> = reset.iter().zip(h).map(|(reset, h)| reset * h).collect();
                let next = |unit: usize| {
                    let recurrent = if self.attributes.linear_before_reset {
                        reset[unit] * self.hidden_part(2, unit, h)
                    } else {
                        self.hidden_part(2, unit, &gated)
                    };
                    let candidate = self.activate(1, self.input_part(2, unit, x) + recurrent);
                    (1.0 - update[unit]) * candidate + update[unit] * h[unit]
                };
                (units.map(next).collect(), Vec::new())
            }
            CellKind::Lstm => {
                // Gates stand in the order i, o, f, c; peepholes in the order i, o, f.
                let peephole = |gate: usize, unit: usize| self.p[gate * self.hidden + unit];
                let mut hidden = Vec::with_capacity(self.hidden);
                let mut cell = Vec::with_capacity(self.hidden);
                for unit in units {
                    let input = self.activate(0, both(0, unit) + peephole(0, unit) * c[unit]);
                    let forget = if self.attributes.input_forget {
                        1.0 - input
                    } else {
                        self.activate(0, both(2, unit) + peephole(2, unit) * c[unit])
                    };
                    let candidate = self.activate(1, both(3, unit));
                    let next = forget * c[unit] + input * candidate;
                    let output = self.activate(0, both(1, unit) + peephole(1, unit) * next);
                    hidden.push(output * self.activations[2].apply(next));
                    cell.push(next);
                }
                (hidden, cell)
            }
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// All hidden states, the last ones, and for LSTM the last cell states. Steps beyond the length of a batch element give 0.
pub(crate) fn recurrent(
    attributes: &Recurrent,
    operands: &[&Tensor],
    shapes: &[Vec<usize>],
) -> Result<Vec<Tensor>> {
    let x = operands[0];
    let (steps, batch, input) = (x.shape()[0], x.shape()[1], x.shape()[2]);
    let (directions, hidden) = (shapes[1][0], shapes[1][2]);
    let expected = if attributes.direction == Direction::Bidirectional { 2 } else { 1 };
    if directions != expected {
        return Err(Error::operands(format!("{directions} directions of weights, expected {expected}")));
    }
    let (per_direction, defaults): (usize, &[&str]) = match attributes.cell {
        CellKind::Rnn => (1, &["Tanh"]),
        CellKind::Gru => (2, &["Sigmoid", "Tanh"]),
        CellKind::Lstm => (3, &["Sigmoid", "Tanh", "Tanh"]),
    };
    let mut activations = Vec::new();
    for index in 0..directions * per_direction {
        let name = match attributes.activations {
            [] => defaults[index % per_direction],
            names => names.get(index).ok_or_else(|| Error::operands("too few activations"))?,
        };
        let parameter = |list: &[f64]| list.get(index).copied();
        activations.push(Activation::named(
            name,
            parameter(&attributes.alphas),
            parameter(&attributes.betas),
        )?);
    }
    let lengths = operands[4].integers()?;
    if let Some(length) = lengths.iter().find(|length| !(0..=steps as i64).contains(*length)) {
        return Err(Error::operands(format!("a sequence length of {length} among {steps} steps")));
    }
    let numbers = operands
        .iter()
        .enumerate()
        .map(|(index, operand)| if index == 4 { Ok(Vec::new()) } else { operand.to_numbers() })
        .collect::<Result<Vec<_>>>()?;
    let part = |index: usize, direction: usize| {
        let all = numbers.get(index).map_or(&[][..], |all| &all[..]);
        let size = all.len() / directions;
        &all[direction * size..(direction + 1) * size]
    };
    let dtype = x.dtype();
    let round = |values: Vec<f64>| -> Vec<f64> {
        values.into_iter().map(|value| number::round(dtype, value)).collect()
    };
    let mut all = vec![0.0; steps * directions * batch * hidden];
    let mut last_hidden = Vec::with_capacity(directions * batch * hidden);
    let mut last_cell = Vec::with_capacity(directions * batch * hidden);
    for direction in 0..directions {
        let layer = Layer {
            attributes,
            activations: activations[direction * per_direction..][..per_direction].to_vec(),
            input,
            hidden,
            w: part(1, direction),
            r: part(2, direction),
            b: part(3, direction),
            p: part(7, direction),
        };
        let backwards = attributes.direction == Direction::Reverse || direction == 1;
        for (element, length) in lengths.iter().enumerate() {
            let length = *length as usize;
            let state = |index: usize| {
                part(index, direction).get(element * hidden..(element + 1) * hidden).unwrap_or(&[]).to_vec()
            };
            let (mut h, mut c) = (state(5), state(6));
            for time in 0..length {
                let step = if backwards { length - 1 - time } else { time };
                let x = &numbers[0][(step * batch + element) * input..][..input];
                let (next_h, next_c) = layer.step(x, &h, &c);
                (h, c) = (round(next_h), round(next_c));
                let start = ((step * directions + direction) * batch + element) * hidden;
                all[start..start + hidden].copy_from_slice(&h);
            }
            last_hidden.extend(h);
            last_cell.extend(c);
        }
    }
    let mut results = Vec::new();
    for (values, shape) in [all, last_hidden, last_cell].into_iter().zip(shapes) {
        results.push(Tensor::new(dtype, shape, Contents::from_numbers(dtype, values.into_iter()))?);
    }
    Ok(results)
}
