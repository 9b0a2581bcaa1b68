//! Sliding windows: pooling, and maxima with their indices.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Function;
use tcc_ir::words::{Layout, ReduceKind, WindowKind};

use super::reduce::{combine, neutral};
use super::{Argument, LowerError, Lowering};
use crate::ir::{Expr, LoopKind, Stmt, Var};

struct Geometry<'g> {
    layout: Layout,
    size: &'g [usize],
    strides: &'g [usize],
    dilations: &'g [usize],
    pads: &'g [i64],
}

impl Geometry<'_> {
    fn spatial_axis(&self, axis: usize) -> usize {
        match self.layout {
            Layout::ChannelsFirst => axis + 2,
            Layout::ChannelsLast => axis + 1,
        }
    }

    /// First tap and number of taps inside `input` elements for an output position.
    fn inside(&self, axis: usize, position: Expr, input: Expr) -> (Expr, Expr) {
        let step = Expr::index(self.dilations[axis] as i64);
        let start = self.start(axis, position);
        let first = Expr::index(0).minus(start.clone()).at_least(Expr::index(0)).over_up(step.clone());
        let end = input
            .minus(start)
            .at_least(Expr::index(0))
            .over_up(step)
            .at_most(Expr::index(self.size[axis] as i64));
        (first.clone(), end.minus(first).at_least(Expr::index(0)))
    }

    fn start(&self, axis: usize, position: Expr) -> Expr {
        position.times(Expr::index(self.strides[axis] as i64)).minus(Expr::index(self.pads[axis]))
    }

    /// Loops over the taps inside the input around `body`, which takes the source coordinates; and the number of taps.
    fn loops(
        &self,
        this: &mut Lowering,
        at: &[Expr],
        body: &mut dyn FnMut(&mut Lowering, &[Expr]) -> Vec<Stmt>,
    ) -> (Vec<Stmt>, Expr) {
        let mut source = at.to_vec();
        let mut nest: Vec<(Var, Expr)> = Vec::new();
        let mut taps = Expr::index(1);
        for axis in 0..self.size.len() {
            let place = self.spatial_axis(axis);
            let dim = this.operands[0].shape[place].clone();
            let extent = this.dim(&dim);
            let (first, count) = self.inside(axis, at[place].clone(), extent);
            let counter = this.kernel.counter(&format!("k{axis}"));
            let tap = first.plus(Expr::Var(counter));
            let offset = tap.times(Expr::index(self.dilations[axis] as i64));
            source[place] = self.start(axis, at[place].clone()).plus(offset);
            taps = taps.times(count.clone());
            nest.push((counter, count));
        }
        let mut stmts = body(this, &source);
        for (var, extent) in nest.into_iter().rev() {
            stmts = vec![Stmt::For { var, extent, kind: LoopKind::Serial, body: stmts }];
        }
        (stmts, taps)
    }
}

/// Pooling.
pub fn window(lowering: &mut Lowering, operator: &Operator) -> Result<(), LowerError> {
    let Operator::Window { kind, layout, size, strides, dilations, pads, .. } = operator else {
        return Err(lowering.malformed("not a window"));
    };
    let geometry = Geometry { layout: *layout, size, strides, dilations, pads };
    let result = lowering.results[0].clone();
    let dtype = result.dtype();
    let partial = if dtype.is_float() && dtype.bits() < 32 { DType::F32 } else { dtype };
    let reduce = if *kind == WindowKind::Max { ReduceKind::Max } else { ReduceKind::Sum };
    let lanes = match layout {
        Layout::ChannelsLast => lowering.tuning.lanes(partial),
        Layout::ChannelsFirst => 1,
    };
    let stmts = lowering.parallel_nest(&result.shape, lanes, &mut |this, at| {
        let (sum, first) = this.assign("sum", neutral(reduce, partial));
        let (loops, taps) = geometry.loops(this, at, &mut |this, source| {
            let value = this.load(Argument::Operand(0), source).cast(dtype, partial);
            let value = Expr::call(combine(reduce), vec![Expr::Var(sum), value]);
            vec![Stmt::Assign { var: sum, value }]
        });
        let count = match kind {
            WindowKind::Max | WindowKind::Sum => None,
            WindowKind::MeanValid => Some(taps),
            WindowKind::MeanPadded => Some(padded_taps(this, &geometry, at)),
        };
        let value = match count {
            Some(count) => {
                let count = count.cast(DType::I64, partial);
                Expr::call(Function::Div, vec![Expr::Var(sum), count])
            }
            None => Expr::Var(sum),
        };
        let mut stmts = vec![first];
        stmts.extend(loops);
        stmts.push(this.store(Argument::Result(0), at, value.cast(partial, dtype)));
        stmts
    });
    lowering.launch(stmts, false);
    Ok(())
}

/// Taps inside the input and its declared padding: a window that rounding up lets reach past them counts less.
fn padded_taps(this: &mut Lowering, geometry: &Geometry, at: &[Expr]) -> Expr {
    let mut taps = Expr::index(1);
    let spatial = geometry.size.len();
    for axis in 0..spatial {
        let place = geometry.spatial_axis(axis);
        let dim = this.operands[0].shape[place].clone() + Dim::Const(geometry.pads[axis + spatial]);
        let end = this.dim(&dim);
        let start = geometry.start(axis, at[place].clone());
        let step = Expr::index(geometry.dilations[axis] as i64);
        let count = end.minus(start).at_least(Expr::index(0)).over_up(step);
        taps = taps.times(count.at_most(Expr::index(geometry.size[axis] as i64)));
    }
    taps
}

/// Maximum and its flat index.
pub fn window_arg_max(lowering: &mut Lowering, operator: &Operator) -> Result<(), LowerError> {
    let Operator::WindowArgMax { size, strides, dilations, pads, row_major, .. } = operator else {
        return Err(lowering.malformed("not a window"));
    };
    let geometry = Geometry { layout: Layout::ChannelsFirst, size, strides, dilations, pads };
    let result = lowering.results[0].clone();
    let source_shape = lowering.operands[0].shape.clone();
    let dtype = result.dtype();
    let spatial = size.len();
    let stmts = lowering.parallel_nest(&result.shape, 1, &mut |this, at| {
        let (best, first) = this.assign("best", neutral(ReduceKind::Max, dtype));
        let (best_at, first_at) = this.assign("best_at", Expr::index(-1));
        let (loops, _) = geometry.loops(this, at, &mut |this, source| {
            let loaded = this.load(Argument::Operand(0), source);
            let (value, load) = this.assign("value", loaded);
            let flat = if *row_major {
                this.linear(&source_shape, source)
            } else {
                let mut index = Expr::index(0);
                for axis in (0..spatial).rev() {
                    let extent = this.dim(&source_shape[axis + 2]);
                    index = index.times(extent).plus(source[axis + 2].clone());
                }
                let plane = this.dim(&Dim::product(&source_shape[2..]));
                let image = this.linear(&source_shape[..2], &source[..2]);
                image.times(plane).plus(index)
            };
            let none = Expr::Var(best_at).less(Expr::index(0));
            let more = Expr::Var(best).less(Expr::Var(value));
            let (wins, decide) = this.assign("wins", Expr::call(Function::Or, vec![none, more]));
            vec![
                load,
                decide,
                Stmt::Assign { var: best, value: Expr::Var(wins).choose(Expr::Var(value), Expr::Var(best)) },
                Stmt::Assign { var: best_at, value: Expr::Var(wins).choose(flat, Expr::Var(best_at)) },
            ]
        });
        let mut stmts = vec![first, first_at];
        stmts.extend(loops);
        stmts.push(this.store(Argument::Result(0), at, Expr::Var(best)));
        stmts.push(this.store(Argument::Result(1), at, Expr::Var(best_at)));
        stmts
    });
    lowering.launch(stmts, false);
    Ok(())
}
