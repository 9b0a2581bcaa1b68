//! Independent kernels as one, so that their tasks are handed out together.
//!
//! ```text
//! for a in m parallel { A }    for b in n parallel { B }
//! ->
//! for task in m + n parallel { if task < m { a = task; A } else { b = task - m; B } }
//! ```

use tcc_ir::scalar::Function;

use crate::ir::{BufferId, Expr, Kernel, LoopKind, Space, Stmt, Var};

/// The tasks of both kernels, those of `first` before those of `second`; arguments come in the same order. `None` where a
/// kernel is no parallel loop of constant extent. The kernels must not write what the other reads or writes.
pub fn side_by_side(first: &Kernel, second: &Kernel) -> Option<Kernel> {
    let mut kernel = Kernel::new(&first.name);
    let task = kernel.counter("task");
    let (mut bodies, mut extents) = (Vec::new(), Vec::new());
    for part in [first, second] {
        let [Stmt::For { var, extent, kind: LoopKind::Parallel, body }] = &part.body[..] else { return None };
        let before: i64 = extents.iter().sum();
        extents.push(extent.as_index()?);
        let join = Join::new(&mut kernel, part);
        let number = Expr::Var(task).minus(Expr::index(before));
        let mut stmts = vec![Stmt::Assign { var: join.var(*var), value: number }];
        stmts.extend(body.iter().map(|stmt| join.stmt(stmt)));
        bodies.push(stmts);
    }
    let otherwise = bodies.pop()?;
    let then = bodies.pop()?;
    let condition = Expr::call(Function::Less, vec![Expr::Var(task), Expr::index(extents[0])]);
    let body = vec![Stmt::If { condition, then, otherwise }];
    let extent = Expr::index(extents.iter().sum());
    kernel.body = vec![Stmt::For { var: task, extent, kind: LoopKind::Parallel, body }];
    Some(kernel)
}

/// Where the declarations of a part are among those of the whole.
struct Join {
    variables: u32,
    buffers: u32,
    dims: Vec<u32>,
}

impl Join {
    /// Adds the declarations of `part`.
    fn new(kernel: &mut Kernel, part: &Kernel) -> Join {
        let variables = kernel.variables.len() as u32;
        let buffers = kernel.buffers.len() as u32;
        let arguments = kernel.arguments().count() as u32;
        kernel.variables.extend(part.variables.iter().cloned());
        let mut dims = Vec::with_capacity(part.dims.len());
        for dim in &part.dims {
            let known = kernel.dims.iter().position(|known| known == dim);
            dims.push(known.unwrap_or_else(|| {
                kernel.dims.push(dim.clone());
                kernel.dims.len() - 1
            }) as u32);
        }
        let join = Join { variables, buffers, dims };
        for buffer in &part.buffers {
            let mut buffer = buffer.clone();
            if let Space::Argument(place) = &mut buffer.space {
                *place += arguments;
            }
            buffer.count = join.expr(&buffer.count);
            kernel.buffers.push(buffer);
        }
        join
    }

    fn var(&self, var: Var) -> Var {
        Var(var.0 + self.variables)
    }

    fn buffer(&self, buffer: BufferId) -> BufferId {
        BufferId(buffer.0 + self.buffers)
    }

    fn expr(&self, expr: &Expr) -> Expr {
        expr.rewrite(&mut |part| match part {
            Expr::Var(var) => Expr::Var(self.var(var)),
            Expr::Dim(number) => Expr::Dim(self.dims[number as usize]),
            Expr::Load { buffer, index, lanes, valid } => {
                Expr::Load { buffer: self.buffer(buffer), index, lanes, valid }
            }
            part => part,
        })
    }

    fn stmt(&self, stmt: &Stmt) -> Stmt {
        let block = |stmts: &[Stmt]| stmts.iter().map(|stmt| self.stmt(stmt)).collect();
        match stmt {
            Stmt::For { var, extent, kind, body } => {
                Stmt::For { var: self.var(*var), extent: self.expr(extent), kind: *kind, body: block(body) }
            }
            Stmt::Assign { var, value } => Stmt::Assign { var: self.var(*var), value: self.expr(value) },
            Stmt::Store { buffer, index, value, valid } => Stmt::Store {
                buffer: self.buffer(*buffer),
                index: self.expr(index),
                value: self.expr(value),
                valid: valid.as_ref().map(|valid| self.expr(valid)),
            },
            Stmt::If { condition, then, otherwise } => {
                Stmt::If { condition: self.expr(condition), then: block(then), otherwise: block(otherwise) }
            }
            Stmt::Barrier => Stmt::Barrier,
            Stmt::Warp(op) => {
                let mut op = op.clone();
                op.exprs_mut().into_iter().for_each(|expr| *expr = self.expr(expr));
                op.buffers_mut().into_iter().for_each(|buffer| *buffer = self.buffer(*buffer));
                op.assigned_mut().into_iter().for_each(|var| *var = self.var(*var));
                Stmt::Warp(op)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tcc_ir::dtype::DType;

    use super::*;
    use crate::evaluate::evaluate;
    use crate::ir::Access;

    /// `y[i] = value` for `i < tasks` of `n` elements.
    fn filled(tasks: i64, value: f64) -> Kernel {
        let mut kernel = Kernel::new("fill");
        kernel.dims.push("n".into());
        let buffer = kernel.argument("y", DType::F32, Expr::Dim(0), Access::Write);
        let var = kernel.counter("i");
        let value = Expr::constant(DType::F32, value);
        let body = vec![Stmt::Store { buffer, index: Expr::Var(var), value, valid: None }];
        kernel.body = vec![Stmt::For { var, extent: Expr::index(tasks), kind: LoopKind::Parallel, body }];
        kernel
    }

    #[test]
    fn tasks_of_both_run() {
        let kernel = side_by_side(&filled(2, 1.0), &filled(3, 2.0)).unwrap();
        assert_eq!((kernel.tasks(), kernel.dims.len()), (Expr::index(5), 1));
        crate::verify::verify(&kernel).unwrap();
        let (mut a, mut b) = ([0u8; 12], [0u8; 12]);
        evaluate(&kernel, &mut [&mut a, &mut b], &[3], 0, 5).unwrap();
        let floats = |bytes: [u8; 12]| -> Vec<f32> {
            bytes.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect()
        };
        assert_eq!((floats(a), floats(b)), (vec![1.0, 1.0, 0.0], vec![2.0; 3]));
    }

    #[test]
    fn other_kernels_stay_apart() {
        let mut serial = filled(2, 1.0);
        if let [Stmt::For { kind, .. }] = &mut serial.body[..] {
            *kind = LoopKind::Serial;
        }
        assert!(side_by_side(&serial, &filled(3, 2.0)).is_none());
    }
}
