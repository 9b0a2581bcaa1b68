//! Nests whose iterations each write one element: maps, coordinates, and the loop structure that data movement shares.

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::ScalarExpr;

use super::{Argument, LowerError, Lowering};
use crate::ir::{Expr, LoopKind, Stmt};

/// Elements that a task should have at least, so that handing it out does not dominate.
const TASK_ELEMENTS: i64 = 4096;

impl Lowering<'_> {
    /// A parallel nest over `shape`, innermost axis in vectors of `lanes`. `body` gives the statements for coordinates; it
    /// is called once for each vector width that the innermost extent needs.
    pub fn parallel_nest(
        &mut self,
        shape: &[Dim],
        lanes: u16,
        body: &mut dyn FnMut(&mut Self, &[Expr]) -> Vec<Stmt>,
    ) -> Vec<Stmt> {
        // Axes of extent 1 take no loop.
        let looped: Vec<usize> = (0..shape.len()).filter(|axis| !shape[*axis].is(1)).collect();
        if looped.is_empty() || looped.len() < shape.len() {
            let extents = match looped.is_empty() {
                true => vec![Dim::Const(1)],
                false => looped.iter().map(|axis| shape[*axis].clone()).collect(),
            };
            let rank = shape.len();
            let mut spread = |this: &mut Self, at: &[Expr]| {
                let mut full = vec![Expr::index(0); rank];
                looped.iter().zip(at).for_each(|(axis, position)| full[*axis] = position.clone());
                body(this, &full)
            };
            return self.nest_over(&extents, lanes, &mut spread);
        }
        self.nest_over(shape, lanes, body)
    }

    fn nest_over(
        &mut self,
        shape: &[Dim],
        lanes: u16,
        body: &mut dyn FnMut(&mut Self, &[Expr]) -> Vec<Stmt>,
    ) -> Vec<Stmt> {
        if self.tuning.gpu.is_some() {
            return self.vector_tasks(shape, lanes, body);
        }
        let last = shape.len() - 1;
        if last == 0 {
            return self.blocked_line(&shape[0], lanes, body);
        }
        // Trailing axes that together make less than a task's work stay inside; the next one is cut into blocks.
        let (mut axis, mut inner) = (last - 1, shape[last].as_const());
        while let (Some(work), Some(extent)) = (inner, shape[axis].as_const())
            && axis > 0
            && work.saturating_mul(extent) < TASK_ELEMENTS
        {
            inner = Some(work * extent);
            axis -= 1;
        }
        let block = inner.map_or(1, |work| (TASK_ELEMENTS / work.max(1)).max(1));
        let mut domain = shape[..=axis].to_vec();
        domain[axis] = shape[axis].ceil_div(&Dim::Const(block));
        let tasks = Dim::product(&domain);
        let tasks = self.dim(&tasks);
        let extent = self.dim(&shape[axis]);
        vec![self.for_loop("task", tasks, LoopKind::Parallel, |this, task| {
            let mut outer = this.decode(task, &domain);
            if block == 1 {
                return this.serial_axes(shape, outer, lanes, body);
            }
            let base = outer.pop().unwrap_or(Expr::index(0)).times(Expr::index(block));
            let count = extent.minus(base.clone()).at_most(Expr::index(block));
            vec![this.for_loop(&format!("i{axis}"), count, LoopKind::Serial, |this, position| {
                outer.push(base.plus(position));
                this.serial_axes(shape, outer, lanes, body)
            })]
        })]
    }

    /// A parallel nest whose iterations are worth a task each.
    pub fn parallel_rows(
        &mut self,
        shape: &[Dim],
        body: &mut dyn FnMut(&mut Self, &[Expr]) -> Vec<Stmt>,
    ) -> Vec<Stmt> {
        let tasks = Dim::product(shape);
        let tasks = self.dim(&tasks);
        vec![self.for_loop("task", tasks, LoopKind::Parallel, |this, task| {
            let at = this.decode(task, shape);
            body(this, &at)
        })]
    }

    /// Coordinates of a row-major linear index.
    pub fn decode(&mut self, linear: Expr, shape: &[Dim]) -> Vec<Expr> {
        let mut rest = linear;
        let mut coordinates = Vec::with_capacity(shape.len());
        for (axis, dim) in shape.iter().enumerate().rev() {
            let extent = self.dim(dim);
            if axis == 0 {
                coordinates.push(rest.clone());
            } else {
                coordinates.push(rest.clone().remainder(extent.clone()));
                rest = rest.over(extent);
            }
        }
        coordinates.reverse();
        coordinates
    }

    fn serial_axes(
        &mut self,
        shape: &[Dim],
        mut fixed: Vec<Expr>,
        lanes: u16,
        body: &mut dyn FnMut(&mut Self, &[Expr]) -> Vec<Stmt>,
    ) -> Vec<Stmt> {
        let axis = fixed.len();
        let extent = self.dim(&shape[axis]);
        if axis + 1 == shape.len() {
            return self.vector_line(Expr::index(0), extent, lanes, &mut |this, position| {
                let mut coordinates = fixed.clone();
                coordinates.push(position);
                body(this, &coordinates)
            });
        }
        vec![self.for_loop(&format!("i{axis}"), extent, LoopKind::Serial, |this, position| {
            fixed.push(position);
            this.serial_axes(shape, fixed, lanes, body)
        })]
    }

    /// A parallel nest over `shape`, innermost axis in vectors of `lanes`, whose iterations are worth a task each: a task is
    /// `vectors` vectors of the innermost axis.
    pub fn parallel_vectors(
        &mut self,
        shape: &[Dim],
        lanes: u16,
        vectors: u16,
        body: &mut dyn FnMut(&mut Self, &[Expr]) -> Vec<Stmt>,
    ) -> Vec<Stmt> {
        let Some((last, leading)) = shape.split_last() else { return self.parallel_rows(shape, body) };
        let width = i64::from(lanes) * i64::from(vectors);
        let mut domain = leading.to_vec();
        domain.push(last.ceil_div(&Dim::Const(width)));
        let tasks = Dim::product(&domain);
        let tasks = self.dim(&tasks);
        let extent = self.dim(last);
        vec![self.for_loop("task", tasks, LoopKind::Parallel, |this, task| {
            let mut outer = this.decode(task, &domain);
            let base = outer.pop().unwrap_or(Expr::index(0)).times(Expr::index(width));
            let line =
                |this: &mut Self, count: Expr, body: &mut dyn FnMut(&mut Self, &[Expr]) -> Vec<Stmt>| {
                    let lanes = if count.as_index() == Some(width) { lanes * vectors } else { lanes };
                    this.vector_line(base.clone(), count, lanes, &mut |this, position| {
                        let mut at = outer.clone();
                        at.push(position);
                        body(this, &at)
                    })
                };
            let left = extent.minus(base.clone());
            if let Some(short) = last.as_const().filter(|last| *last < width) {
                return line(this, Expr::index(short), body);
            }
            let whole = line(this, Expr::index(width), body);
            if last.as_const().is_some_and(|last| last % width == 0) {
                return whole;
            }
            let rest = match last.as_const() {
                Some(last) => Expr::index(last % width),
                None => left.clone(),
            };
            let tail = line(this, rest, body);
            vec![Stmt::If { condition: Expr::index(width).less_equal(left), then: whole, otherwise: tail }]
        })]
    }

    /// A parallel loop over blocks of a single axis.
    fn blocked_line(
        &mut self,
        extent: &Dim,
        lanes: u16,
        body: &mut dyn FnMut(&mut Self, &[Expr]) -> Vec<Stmt>,
    ) -> Vec<Stmt> {
        let count = self.dim(extent);
        if extent.as_const().is_some_and(|count| count <= TASK_ELEMENTS) {
            return self
                .vector_line(Expr::index(0), count, lanes, &mut |this, position| body(this, &[position]));
        }
        let block = Expr::index(TASK_ELEMENTS);
        let tasks = count.clone().over_up(block.clone());
        vec![self.for_loop("task", tasks, LoopKind::Parallel, |this, task| {
            let base = task.times(block.clone());
            let here = count.clone().minus(base.clone()).at_most(block.clone());
            // The tail shorter than a block has an extent of its own, so the common case keeps a constant one.
            let short = count.clone().minus(base.clone()).less(block.clone());
            let tail =
                this.vector_line(base.clone(), here, lanes, &mut |this, position| body(this, &[position]));
            let whole =
                this.vector_line(base, block.clone(), lanes, &mut |this, position| body(this, &[position]));
            vec![Stmt::If { condition: short, then: tail, otherwise: whole }]
        })]
    }

    /// A line of `extent` elements from `base`, in vectors of `lanes`, then narrower ones, then single elements.
    pub fn vector_line(
        &mut self,
        base: Expr,
        extent: Expr,
        lanes: u16,
        body: &mut dyn FnMut(&mut Self, Expr) -> Vec<Stmt>,
    ) -> Vec<Stmt> {
        let mut stmts = Vec::new();
        let mut done = Expr::index(0);
        let mut width = i64::from(lanes);
        while width > 1 {
            let rest = extent.clone().minus(done.clone());
            let vectors = rest.over(Expr::index(width));
            if vectors.as_index().is_none_or(|count| count > 0) {
                let start = base.clone().plus(done.clone());
                stmts.push(self.for_loop("v", vectors.clone(), LoopKind::Serial, |this, vector| {
                    vec![this.for_loop("lane", Expr::index(width), LoopKind::Vector, |this, lane| {
                        body(this, start.plus(vector.times(Expr::index(width))).plus(lane))
                    })]
                }));
                done = done.plus(vectors.times(Expr::index(width)));
            }
            // A run-time extent has one vector width and a scalar tail, a known one uses what fits.
            width = if extent.as_index().is_some() && width > 4 { width / 2 } else { 1 };
        }
        let rest = extent.minus(done.clone());
        if rest.as_index().is_none_or(|count| count > 0) {
            let start = base.plus(done);
            stmts.push(
                self.for_loop("s", rest, LoopKind::Serial, |this, single| body(this, start.plus(single))),
            );
        }
        stmts
    }
}

/// Lanes for a body over these element types: as many of the widest one as a native vector holds.
pub fn lanes_for(lowering: &Lowering, dtypes: &[DType]) -> u16 {
    dtypes.iter().map(|dtype| lowering.tuning.lanes(*dtype)).min().unwrap_or(1)
}

/// Every element type that an expression works with.
pub fn expression_types(expr: &ScalarExpr, inputs: &[DType]) -> Vec<DType> {
    let mut types = inputs.to_vec();
    if let Ok((nodes, result)) = expr.infer(inputs) {
        types.extend(nodes);
        types.push(result);
    }
    // Narrow floats are computed in f32.
    types
        .iter()
        .map(|dtype| if dtype.is_float() && dtype.bits() < 32 { DType::F32 } else { *dtype })
        .collect()
}

/// One axis of a coalesced domain: its extent and, for each operand, whether the operand varies along it.
struct Axis {
    extent: Dim,
    varies: Vec<bool>,
}

/// Merges neighbouring axes along which each operand either varies on both or on none.
fn coalesce(shape: &[Dim], operands: &[&[Dim]]) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::new();
    for (axis, extent) in shape.iter().enumerate().filter(|(_, extent)| !extent.is(1)) {
        let varies: Vec<bool> = operands
            .iter()
            .map(|operand| {
                let offset = shape.len() - operand.len();
                axis >= offset && !operand[axis - offset].is(1)
            })
            .collect();
        match axes.last_mut() {
            Some(last) if last.varies == varies => last.extent = last.extent.clone() * extent.clone(),
            _ => axes.push(Axis { extent: extent.clone(), varies }),
        }
    }
    if axes.is_empty() {
        axes.push(Axis { extent: Dim::Const(1), varies: vec![false; operands.len()] });
    }
    axes
}

/// Elementwise expression over broadcast operands.
pub fn map(lowering: &mut Lowering, body: &ScalarExpr) -> Result<(), LowerError> {
    let result = lowering.results[0].clone();
    let operands = lowering.operands;
    let dtypes: Vec<DType> = operands.iter().map(|operand| operand.dtype()).collect();
    let lanes = lanes_for(lowering, &expression_types(body, &dtypes));
    let axes =
        coalesce(&result.shape, &operands.iter().map(|operand| &operand.shape[..]).collect::<Vec<_>>());
    let domain: Vec<Dim> = axes.iter().map(|axis| axis.extent.clone()).collect();
    let stmts = lowering.parallel_nest(&domain, lanes, &mut |this, coordinates| {
        let inputs: Vec<Expr> = (0..operands.len())
            .map(|operand| {
                let (mut shape, mut own) = (Vec::new(), Vec::new());
                for (axis, coordinate) in axes.iter().zip(coordinates) {
                    if axis.varies[operand] {
                        shape.push(axis.extent.clone());
                        own.push(coordinate.clone());
                    }
                }
                let buffer = this.buffer(Argument::Operand(operand));
                Expr::load(buffer, this.linear(&shape, &own))
            })
            .collect();
        let (mut stmts, value) = this.scalar(body, &inputs);
        let buffer = this.buffer(Argument::Result(0));
        let index = this.linear(&domain, coordinates);
        stmts.push(Stmt::Store { buffer, index, value, valid: None });
        stmts
    });
    lowering.launch(stmts, true);
    Ok(())
}

/// Coordinates along an axis.
pub fn iota(lowering: &mut Lowering, axis: usize) -> Result<(), LowerError> {
    let result = lowering.results[0].clone();
    let lanes = lanes_for(lowering, &[DType::I64, result.dtype()]);
    let stmts = lowering.parallel_nest(&result.shape, lanes, &mut |this, coordinates| {
        let value = coordinates[axis].clone().cast(DType::I64, result.dtype());
        vec![this.store(Argument::Result(0), coordinates, value)]
    });
    lowering.launch(stmts, false);
    Ok(())
}

/// Values of symbolic dimensions.
pub fn dims(lowering: &mut Lowering, dims: &[Dim]) -> Result<(), LowerError> {
    let mut stmts = Vec::new();
    for (index, dim) in dims.iter().enumerate() {
        let value = lowering.dim(dim);
        stmts.push(lowering.store(Argument::Result(0), &[Expr::index(index as i64)], value));
    }
    lowering.buffer(Argument::Result(0));
    lowering.launch(stmts, false);
    Ok(())
}
