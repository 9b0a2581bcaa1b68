//! Resizing with separable interpolation, as ONNX Resize defines it.

use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Function, Scalar};
use tcc_ir::words::{CoordinateKind, NearestKind, ResizeKind};

use super::{Argument, LowerError, Lowering};
use crate::ir::{Expr, LoopKind, Stmt, Var};

fn call(function: Function, args: Vec<Expr>) -> Expr {
    Expr::call(function, args)
}

fn real(value: f64) -> Expr {
    Expr::Const(Scalar::float(DType::F32, value))
}

fn to_real(index: Expr) -> Expr {
    index.cast(DType::I64, DType::F32)
}

fn sub(a: Expr, b: Expr) -> Expr {
    call(Function::Sub, vec![a, b])
}

fn add(a: Expr, b: Expr) -> Expr {
    call(Function::Add, vec![a, b])
}

fn mul(a: Expr, b: Expr) -> Expr {
    call(Function::Mul, vec![a, b])
}

fn div(a: Expr, b: Expr) -> Expr {
    call(Function::Div, vec![a, b])
}

/// One axis that changes.
struct Axis {
    axis: usize,
    /// Output over input, where the model states it.
    scale: Option<f64>,
    start: f64,
    end: f64,
}

/// Lowers a resize: every output element sums its taps; axes that keep their extent take no taps.
pub fn resize(lowering: &mut Lowering, operator: &Operator) -> Result<(), LowerError> {
    let Operator::Resize {
        kind,
        coordinates,
        nearest,
        scales,
        cubic,
        exclude_outside,
        outside,
        region,
        antialias,
        ..
    } = operator
    else {
        return Err(lowering.malformed("not a resize"));
    };
    let (source, result) = (lowering.operands[0].clone(), lowering.results[0].clone());
    let rank = source.rank();
    let crop = *coordinates == CoordinateKind::TfCropAndResize;
    let axes: Vec<Axis> = (0..rank)
        .map(|axis| Axis {
            axis,
            scale: scales.get(axis).map(|scale| scale.get()),
            start: region.get(axis).map_or(0.0, |value| value.get()),
            end: region.get(axis + rank).map_or(1.0, |value| value.get()),
        })
        .filter(|axis| {
            let scaled = axis.scale.is_some_and(|scale| scale != 1.0);
            let cropped = crop && (axis.start, axis.end) != (0.0, 1.0);
            source.shape[axis.axis] != result.shape[axis.axis] || scaled || cropped
        })
        .collect();
    let dtype = source.dtype();
    let innermost_moves = axes.iter().any(|axis| axis.axis + 1 == rank);
    let lanes = if innermost_moves { 1 } else { lowering.tuning.lanes(DType::F32) };
    let sampler = Sampler {
        kind: *kind,
        coordinates: *coordinates,
        nearest: *nearest,
        cubic: cubic.get(),
        exclude_outside: *exclude_outside,
        antialias: *antialias,
    };
    let stmts = lowering.parallel_nest(&result.shape, lanes, &mut |this, at| {
        let mut stmts = Vec::new();
        let mut read_at = at.to_vec();
        let mut inside: Option<Expr> = None;
        let mut taps = Vec::new();
        for axis in &axes {
            let (n_in, n_out) = (this.dim(&source.shape[axis.axis]), this.dim(&result.shape[axis.axis]));
            let position = sampler.position(axis, at[axis.axis].clone(), n_in.clone(), n_out.clone());
            let (position, set) = this.assign("position", position);
            stmts.push(set);
            if crop {
                let last = to_real(n_in.clone().minus(Expr::index(1)));
                let within =
                    real(0.0).less_equal(Expr::Var(position)).both(Expr::Var(position).less_equal(last));
                inside = Some(match inside {
                    Some(known) => known.both(within),
                    None => within,
                });
            }
            if *kind == ResizeKind::Nearest {
                read_at[axis.axis] = clamp(sampler.nearest(Expr::Var(position)), &n_in);
            } else {
                taps.push(sampler.taps(this, &mut stmts, axis, position, n_in, n_out));
            }
        }
        let value = if taps.is_empty() {
            this.load(Argument::Operand(0), &read_at)
        } else {
            let (sum, start) = this.assign("sum", real(0.0));
            stmts.push(start);
            let weights = taps.iter().map(|tap| tap.weight.clone()).reduce(mul).unwrap_or(real(1.0));
            for (axis, tap) in axes.iter().zip(&taps) {
                read_at[axis.axis] = tap.position.clone();
            }
            let element = this.load(Argument::Operand(0), &read_at).cast(dtype, DType::F32);
            let value = Expr::Fma(Box::new(element), Box::new(weights), Box::new(Expr::Var(sum)));
            let mut body = vec![Stmt::Assign { var: sum, value }];
            for tap in taps.iter().rev() {
                let mut inner = tap.prelude.clone();
                inner.extend(body);
                body = vec![Stmt::For {
                    var: tap.counter,
                    extent: tap.count.clone(),
                    kind: LoopKind::Serial,
                    body: inner,
                }];
            }
            stmts.extend(body);
            let total =
                if dtype.is_integer() { call(Function::Round, vec![Expr::Var(sum)]) } else { Expr::Var(sum) };
            total.cast(DType::F32, dtype)
        };
        let value = match inside {
            Some(inside) => inside.choose(value, Expr::constant(dtype, outside.get())),
            None => value,
        };
        stmts.push(this.store(Argument::Result(0), at, value));
        stmts
    });
    lowering.launch(stmts, false);
    Ok(())
}

/// A position moved inside `0..extent`.
fn clamp(position: Expr, extent: &Expr) -> Expr {
    position.at_most(extent.clone().minus(Expr::index(1))).at_least(Expr::index(0))
}

struct Sampler {
    kind: ResizeKind,
    coordinates: CoordinateKind,
    nearest: NearestKind,
    cubic: f64,
    exclude_outside: bool,
    antialias: bool,
}

/// The taps of one axis: a loop over them, the position that each reads and its weight.
struct Taps {
    counter: Var,
    count: Expr,
    prelude: Vec<Stmt>,
    position: Expr,
    weight: Expr,
}

impl Sampler {
    fn scale(&self, axis: &Axis, n_in: &Expr, n_out: &Expr) -> Expr {
        match axis.scale {
            Some(scale) => real(f64::from(scale as f32)),
            None => div(to_real(n_out.clone()), to_real(n_in.clone())),
        }
    }

    /// The extent of the output before it is rounded to a number of elements.
    fn resized(axis: &Axis, n_in: &Expr, n_out: &Expr) -> Expr {
        match axis.scale {
            Some(scale) => mul(real(f64::from(scale as f32)), to_real(n_in.clone())),
            None => to_real(n_out.clone()),
        }
    }

    /// The input coordinate of an output coordinate.
    fn position(&self, axis: &Axis, at: Expr, n_in: Expr, n_out: Expr) -> Expr {
        let x = to_real(at);
        let scale = self.scale(axis, &n_in, &n_out);
        let half_pixel = |x: Expr| sub(div(add(x, real(0.5)), scale.clone()), real(0.5));
        match self.coordinates {
            CoordinateKind::HalfPixel => half_pixel(x),
            CoordinateKind::Asymmetric => div(x, scale),
            CoordinateKind::PytorchHalfPixel => Expr::index(1).less(n_out).choose(half_pixel(x), real(0.0)),
            CoordinateKind::AlignCorners => {
                let last_out = sub(Self::resized(axis, &n_in, &n_out), real(1.0));
                let stretched = div(mul(x, to_real(n_in.minus(Expr::index(1)))), last_out);
                Expr::index(1).less(n_out).choose(stretched, real(0.0))
            }
            CoordinateKind::HalfPixelSymmetric => {
                // The output may be shorter than scale * input; the difference is split evenly.
                let exact = mul(scale.clone(), to_real(n_in.clone()));
                let adjustment = div(to_real(n_out), exact);
                let center = div(to_real(n_in), real(2.0));
                let offset = mul(center, sub(real(1.0), adjustment));
                add(offset, half_pixel(x))
            }
            CoordinateKind::TfCropAndResize => {
                let last_out = sub(Self::resized(axis, &n_in, &n_out), real(1.0));
                let last_in = to_real(n_in.minus(Expr::index(1)));
                let span = mul(real(axis.end - axis.start), last_in.clone());
                let one = last_out.clone().less_equal(real(0.0));
                let step = div(mul(x, span), one.clone().choose(real(1.0), last_out));
                let many = add(mul(real(axis.start), last_in.clone()), step);
                let single = mul(real(0.5 * (axis.start + axis.end)), last_in);
                one.choose(single, many)
            }
        }
    }

    fn nearest(&self, position: Expr) -> Expr {
        let rounded = match self.nearest {
            NearestKind::Floor => call(Function::Floor, vec![position]),
            NearestKind::Ceil => call(Function::Ceil, vec![position]),
            NearestKind::RoundPreferFloor => call(Function::Ceil, vec![sub(position, real(0.5))]),
            NearestKind::RoundPreferCeil => call(Function::Floor, vec![add(position, real(0.5))]),
        };
        rounded.cast(DType::F32, DType::I64)
    }

    /// The interpolation kernel at a distance.
    fn weight(&self, distance: Expr) -> Expr {
        let d = call(Function::Abs, vec![distance]);
        if self.kind == ResizeKind::Linear {
            return call(Function::Max, vec![sub(real(1.0), d), real(0.0)]);
        }
        let a = self.cubic;
        let polynomial = |coefficients: [f64; 4]| {
            coefficients[1..]
                .iter()
                .fold(real(coefficients[0]), |sum, next| add(mul(sum, d.clone()), real(*next)))
        };
        let near = polynomial([a + 2.0, -(a + 3.0), 0.0, 1.0]);
        let far = polynomial([a, -5.0 * a, 8.0 * a, -4.0 * a]);
        d.clone().less_equal(real(1.0)).choose(near, d.less(real(2.0)).choose(far, real(0.0)))
    }

    fn taps(
        &self,
        this: &mut Lowering,
        stmts: &mut Vec<Stmt>,
        axis: &Axis,
        position: Var,
        n_in: Expr,
        n_out: Expr,
    ) -> Taps {
        let support = if self.kind == ResizeKind::Linear { 1.0 } else { 2.0 };
        // When shrinking, the low-pass filter is the kernel stretched by the inverse of the scale.
        let stretch = if self.antialias {
            let scale = call(Function::Min, vec![self.scale(axis, &n_in, &n_out), real(1.0)]);
            let (var, set) = this.assign("stretch", scale);
            stmts.push(set);
            Expr::Var(var)
        } else {
            real(1.0)
        };
        let reach = div(real(support), stretch.clone());
        let first = match self.antialias {
            true => call(Function::Ceil, vec![sub(Expr::Var(position), reach.clone())]),
            false => sub(call(Function::Floor, vec![Expr::Var(position)]), real(support - 1.0)),
        };
        let (first, set_first) = this.assign("first", first.cast(DType::F32, DType::I64));
        let count = match self.antialias {
            true => {
                let end =
                    call(Function::Floor, vec![add(Expr::Var(position), reach)]).cast(DType::F32, DType::I64);
                end.minus(Expr::Var(first)).plus(Expr::index(1))
            }
            false => Expr::index(2 * support as i64),
        };
        stmts.push(set_first);
        let exclude = self.exclude_outside;
        let raw = |tap: Expr| {
            let index = Expr::Var(first).plus(tap);
            let weight = self.weight(mul(sub(Expr::Var(position), to_real(index.clone())), stretch.clone()));
            let inside = Expr::index(0).less_equal(index.clone()).both(index.clone().less(n_in.clone()));
            let weight = if exclude { inside.choose(weight, real(0.0)) } else { weight };
            (index, weight)
        };
        // Weights that do not sum to one (stretched, or with taps left out) are divided by their sum.
        let norm = if exclude || self.antialias {
            let (sum, start) = this.assign("weights", real(0.0));
            stmts.push(start);
            stmts.push(this.for_loop("tap", count.clone(), LoopKind::Serial, |_, tap| {
                vec![Stmt::Assign { var: sum, value: add(Expr::Var(sum), raw(tap).1) }]
            }));
            Some(sum)
        } else {
            None
        };
        let counter = this.kernel.counter("tap");
        let (index, weight) = raw(Expr::Var(counter));
        let weight = match norm {
            Some(sum) => div(weight, Expr::Var(sum)),
            None => weight,
        };
        let (weight, set_weight) = this.assign("weight", weight);
        Taps {
            counter,
            count,
            prelude: vec![set_weight],
            position: clamp(index, &n_in),
            weight: Expr::Var(weight),
        }
    }
}
