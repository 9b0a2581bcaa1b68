//! Another order of what a kernel reads.

use super::StepError;
use crate::ir::{BufferId, Expr, Kernel, Stmt};
use crate::lower::PackedLayout;
use crate::simplify::Simplifier;
use crate::simplify::sum::Sum;

impl Kernel {
    /// Reads a row-major array of extents `shape` in the order of `layout`, in which the caller hands it over from now on.
    ///
    /// ```text
    /// for i in 0..n { for k in 0..m { s[i] = s[i] + a[k] * w[k * n + i] } }
    /// ->
    /// for i in 0..n { for k in 0..m { s[i] = s[i] + a[k] * w[((i / 16) * m + k) * 16 + i % 16] } }
    /// ```
    ///
    /// Here the layout has tiles of 16 columns, so that a later [`Kernel::split`] of `i` by 16 finds the vectors of a tile one
    /// after the other. Every index is a sum in which each axis is seen, as lowerings write it: its part of the sum stays
    /// within the extent of the axis. Comes before steps that cut the loops over the array.
    pub fn pack(&mut self, buffer: BufferId, shape: &[i64], layout: &PackedLayout) -> Result<(), StepError> {
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        let packed: Vec<i64> = layout.extents(shape);
        let count = Expr::index(packed.iter().product());
        if shape.contains(&0) {
            // Nothing is there to read.
            self.buffers[buffer.0 as usize].count = count;
            return Ok(());
        }
        let simplifier = Simplifier::new(self);
        let mut pack = Pack { simplifier, buffer, shape, strides, packed: &packed, layout, refused: None };
        let mut body = self.body.clone();
        pack.stmts(&mut body);
        if let Some(reason) = pack.refused {
            let counter = self.buffer_of(buffer).name.clone();
            return Err(StepError::Form { step: "pack", counter, reason });
        }
        self.body = body;
        self.buffers[buffer.0 as usize].count = count;
        Ok(())
    }
}

struct Pack<'p> {
    simplifier: Simplifier,
    buffer: BufferId,
    shape: &'p [i64],
    strides: Vec<i64>,
    packed: &'p [i64],
    layout: &'p PackedLayout,
    refused: Option<&'static str>,
}

impl Pack<'_> {
    fn stmts(&mut self, stmts: &mut [Stmt]) {
        for stmt in stmts {
            match stmt {
                Stmt::For { var, extent, body, .. } => {
                    self.simplifier.enter(*var, extent);
                    self.stmts(body);
                    self.simplifier.leave();
                }
                Stmt::If { condition, then, otherwise } => {
                    for (truth, branch) in [(true, then), (false, otherwise)] {
                        self.simplifier.enter_branch(condition, truth);
                        self.stmts(branch);
                        self.simplifier.leave_branch();
                    }
                }
                Stmt::Store { buffer, .. } if *buffer == self.buffer => {
                    self.refused = Some("the array is written");
                }
                leaf => leaf.map_exprs(&mut |expr| expr.rewrite(&mut |part| self.moved(part))),
            }
        }
    }

    /// An expression with its own read moved.
    fn moved(&mut self, expr: Expr) -> Expr {
        match expr {
            Expr::Load { buffer, index, lanes, valid } if buffer == self.buffer => {
                if lanes != 1 || valid.is_some() {
                    self.refused = Some("the array is read in vectors already");
                }
                let place = self.place(&index);
                if place.is_none() {
                    self.refused = Some("an index does not show its axes");
                }
                let index = place.map_or(index, Box::new);
                Expr::Load { buffer, index, lanes, valid }
            }
            other => other,
        }
    }

    /// The packed index of a row-major one.
    fn place(&mut self, index: &Expr) -> Option<Expr> {
        let mut rest = self.simplifier.sum(index);
        let mut coordinates = Vec::with_capacity(self.shape.len());
        for (extent, stride) in self.shape.iter().zip(&self.strides) {
            let (coordinate, inner) = rest.split(&Sum::constant(*stride))?;
            let range = self.simplifier.interval(&coordinate);
            if range.low < 0 || range.high >= i128::from(*extent) {
                return None;
            }
            coordinates.push(self.simplifier.rebuild(&coordinate));
            rest = inner;
        }
        if rest.as_constant() != Some(0) {
            return None;
        }
        let packed = self.layout.coordinates(&coordinates).into_iter().zip(self.packed);
        Some(packed.fold(Expr::index(0), |index, (coordinate, extent)| {
            index.times(Expr::index(*extent)).plus(coordinate)
        }))
    }
}

#[cfg(test)]
mod tests {
    use tcc_ir::dtype::DType;
    use tcc_ir::scalar::Function;

    use super::*;
    use crate::ir::{Access, LoopKind, Var};

    /// `y[i] = sum over k of a[k] * w[k * columns + i]`, with the loop over `i` outside.
    fn product(rows: i64, columns: i64) -> (Kernel, [Var; 2], BufferId) {
        let c = Expr::index;
        let mut kernel = Kernel::new("product");
        let a = kernel.argument("a", DType::F32, c(rows), Access::Read);
        let w = kernel.argument("w", DType::F32, c(rows * columns), Access::Read);
        let y = kernel.argument("y", DType::F32, c(columns), Access::ReadWrite);
        let (i, k) = (kernel.counter("i"), kernel.counter("k"));
        let at = Expr::Var(k).times(c(columns)).plus(Expr::Var(i));
        let term = Expr::call(Function::Mul, vec![Expr::load(a, Expr::Var(k)), Expr::load(w, at)]);
        let value = Expr::call(Function::Add, vec![Expr::load(y, Expr::Var(i)), term]);
        let store = Stmt::Store { buffer: y, index: Expr::Var(i), value, valid: None };
        let inner = Stmt::For { var: k, extent: c(rows), kind: LoopKind::Serial, body: vec![store] };
        kernel.body =
            vec![Stmt::For { var: i, extent: c(columns), kind: LoopKind::Serial, body: vec![inner] }];
        (kernel, [i, k], w)
    }

    fn tiles(width: usize, group: Option<(usize, usize)>) -> PackedLayout {
        PackedLayout { order: vec![1, 0], lane_axis: 1, width, group }
    }

    #[test]
    fn columns_of_a_tile_become_neighbours() {
        let (mut kernel, [i, _], w) = product(5, 20);
        let before = kernel.to_string();
        kernel.pack(w, &[5, 20], &tiles(8, None)).unwrap();
        let after = kernel.to_string();
        let (_, lane) = kernel.split(i, 8, crate::steps::Tail::Predicate).unwrap();
        kernel.vectorize(lane).unwrap();
        crate::verify::verify(&kernel).unwrap();
        insta::assert_snapshot!(format!("{before}\n->\n\n{after}"));
    }

    #[test]
    fn every_element_is_where_the_layout_puts_it() {
        use tcc_ir::data::Data;
        for (rows, columns, width, group) in
            [(5, 20, 8, None), (1, 3, 16, None), (7, 16, 16, Some((0, 4))), (4, 1, 4, Some((0, 4)))]
        {
            let layout = tiles(width, group);
            let (mut kernel, [i, k], w) = product(rows, columns);
            kernel.pack(w, &[rows, columns], &layout).unwrap();
            let values: Vec<f32> = (0..rows * columns).map(|value| value as f32).collect();
            let data = Data::from_f32(&[rows as usize, columns as usize], &values).unwrap();
            let packed = layout.apply(&data).unwrap().to_f32().unwrap();
            let mut index = None;
            kernel.body.iter_mut().for_each(|stmt| {
                stmt.map_exprs(&mut |expr| {
                    expr.rewrite(&mut |part| {
                        if let Expr::Load { buffer, index: at, .. } = &part
                            && *buffer == w
                        {
                            index = Some((**at).clone());
                        }
                        part
                    })
                })
            });
            let index = index.unwrap();
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                let at = index.substitute(&|var| match var {
                    var if var == i => Some(Expr::index(column)),
                    var if var == k => Some(Expr::index(row)),
                    _ => None,
                });
                let mut simplifier = Simplifier::new(&kernel);
                let at = simplifier.sum(&at).as_constant().unwrap();
                assert_eq!(packed[at as usize], (row * columns + column) as f32);
            }
        }
    }

    #[test]
    fn reads_that_hide_their_axes_are_refused() {
        let refused = |change: &dyn Fn(&mut Kernel, [Var; 2])| {
            let (mut kernel, counters, w) = product(5, 20);
            change(&mut kernel, counters);
            let before = kernel.clone();
            let error = kernel.pack(w, &[5, 20], &tiles(8, None)).unwrap_err();
            assert_eq!(kernel, before);
            error.to_string()
        };
        // A tile that reaches past the last column reads the next row.
        let cut = |kernel: &mut Kernel, [i, _]: [Var; 2]| {
            kernel.split(i, 8, crate::steps::Tail::Predicate).unwrap();
        };
        assert!(refused(&cut).starts_with("pack of 'w': "));
        let fused = |kernel: &mut Kernel, [i, _]: [Var; 2]| {
            kernel.interchange(i).unwrap();
        };
        // The order of the loops does not matter, and no reads are fine.
        let (mut kernel, counters, w) = product(5, 20);
        fused(&mut kernel, counters);
        kernel.pack(w, &[5, 20], &tiles(8, None)).unwrap();
        let (mut kernel, _, w) = product(0, 20);
        kernel.pack(w, &[0, 20], &tiles(8, None)).unwrap();
    }
}
