//! Stored matrices in the function, and products with them.

use super::super::error::{LanguageModelError, Result};
use super::super::names::Role;
use super::super::weights::{Experts, Matrix, Stored};
use super::Build;
use tcc_ir::contraction::ContractionSpec;
use tcc_ir::data::Data;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::module::Value;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::Function;

impl Build<'_> {
    /// `x W^T + b` for `x` `[n, in]` and the matrix of this role, `[out, in]`. `bias` says whether the model has one;
    /// `None`: where it is among the weights.
    pub(super) fn linear(
        &mut self,
        x: Value,
        role: Role,
        layer: usize,
        shape: [usize; 2],
        reason: &str,
        bias: Option<bool>,
    ) -> Result<Value> {
        let matrix = self.weights.matrix(role, layer, 0, shape, reason)?;
        let matrix = matrix.ok_or_else(|| self.weights.missing(role, layer, 0, reason))?;
        let x = self.reordered(x, &matrix)?;
        let matrix = self.matrix(&matrix)?;
        let rhs = if self.weights.transposed(role) { b"km" } else { b"mk" };
        let spec = ContractionSpec { lhs: b"nk".to_vec(), rhs: rhs.to_vec(), out: b"nm".to_vec() };
        let y = self.builder.contract(spec, x, matrix)?;
        if matches!(role, Role::Embedding | Role::Router) {
            return Ok(y);
        }
        let stored = match bias {
            Some(false) => None,
            _ => self.weights.plain(role, layer, ".bias", &shape[..1], reason)?,
        };
        match stored {
            Some(bias) => {
                let bias = self.small(bias)?;
                Ok(self.builder.call(Function::Add, &[y, bias])?)
            }
            None if bias == Some(true) => {
                let name = self.weights.base(role, layer, 0).unwrap_or_default() + ".bias";
                let (family, reason) = (self.decoder.family, "it says that there are biases".to_owned());
                Err(LanguageModelError::MissingTensor { name, family, reason })
            }
            None => Ok(y),
        }
    }

    /// Row `r` of `x` `[rows, in]` times the matrix of the expert `chosen[r]`.
    pub(super) fn expert_linear(
        &mut self,
        x: Value,
        role: Role,
        layer: usize,
        count: usize,
        shape: [usize; 2],
        chosen: Value,
    ) -> Result<Value> {
        let reason = "experts, their size and width";
        let experts = self.weights.experts(role, layer, count, shape, reason)?;
        let own = match experts.ok_or_else(|| self.weights.missing(role, layer, 0, reason))? {
            // Blocks are decoded behind the choice, so that only chosen experts are read.
            Experts::Together(stored) => {
                let bytes = self.stored(&stored)?;
                let bytes = self.builder.op1(Operator::Gather { axis: 0 }, &[bytes, chosen])?;
                self.decoded(bytes, &stored)?
            }
            Experts::Apart(matrices) => self.chosen(&matrices, chosen)?,
        };
        let spec = ContractionSpec { lhs: b"rk".to_vec(), rhs: b"rmk".to_vec(), out: b"rm".to_vec() };
        Ok(self.builder.contract(spec, x, own)?)
    }

    /// Of matrices that stand apart the chosen ones, `[rows, out, in]`. Plain numbers are widened behind the choice.
    fn chosen(&mut self, matrices: &[Matrix], chosen: Value) -> Result<Value> {
        let plain: Vec<&Stored> = matrices
            .iter()
            .filter_map(|matrix| match matrix {
                Matrix::Stored(stored) if stored.format.is_none() => Some(stored),
                _ => None,
            })
            .collect();
        let alike = plain.windows(2).all(|pair| pair[0].data.dtype() == pair[1].data.dtype());
        let mut parts = Vec::with_capacity(matrices.len());
        for (index, matrix) in matrices.iter().enumerate() {
            if let Matrix::Grouped(grouped) = matrix
                && grouped.order.is_some()
            {
                let reason = "experts with groups of their own order of inputs are not supported".into();
                return Err(LanguageModelError::Tensor { name: "experts".into(), reason });
            }
            let part = match plain.get(index) {
                Some(stored) if alike && plain.len() == matrices.len() => self.stored(stored)?,
                _ => self.matrix(matrix)?,
            };
            let mut shape = self.builder.shape(part)?;
            shape.insert(0, Dim::Const(1));
            parts.push(self.builder.reshape(part, shape)?);
        }
        let all = self.builder.op1(Operator::Concat { axis: 0 }, &parts)?;
        let own = self.builder.op1(Operator::Gather { axis: 0 }, &[all, chosen])?;
        Ok(self.builder.cast(own, DType::F32)?)
    }

    /// Rows of a table by their numbers.
    pub(super) fn rows(
        &mut self,
        role: Role,
        shape: [usize; 2],
        reason: &str,
        numbers: Value,
    ) -> Result<Value> {
        let matrix = self.weights.matrix(role, 0, 0, shape, reason)?;
        let gather = Operator::Gather { axis: 0 };
        match matrix.ok_or_else(|| self.weights.missing(role, 0, 0, reason))? {
            Matrix::Stored(stored) => {
                let table = self.stored(&stored)?;
                let rows = self.builder.op1(gather, &[table, numbers])?;
                self.decoded(rows, &stored)
            }
            other => {
                let table = self.matrix(&other)?;
                Ok(self.builder.op1(gather, &[table, numbers])?)
            }
        }
    }

    /// Columns of `x` in the order in which the matrix has its inputs.
    fn reordered(&mut self, x: Value, matrix: &Matrix) -> Result<Value> {
        let Matrix::Grouped(grouped) = matrix else { return Ok(x) };
        let Some(order) = grouped.order.clone() else { return Ok(x) };
        let order = self.builder.constant(order)?;
        Ok(self.builder.op1(Operator::Gather { axis: 1 }, &[x, order])?)
    }

    /// A matrix in `f32`.
    fn matrix(&mut self, matrix: &Matrix) -> Result<Value> {
        match matrix {
            Matrix::Stored(stored) => {
                let value = self.stored(stored)?;
                self.decoded(value, stored)
            }
            Matrix::Grouped(grouped) => {
                let codes = self.builder.constant(grouped.codes.clone())?;
                let scales = self.builder.constant(grouped.scales.clone())?;
                let zeros = self.builder.constant(grouped.zeros.clone())?;
                let operator = Operator::Dequantize { dtype: DType::F32, axis: 1, block: grouped.block };
                Ok(self.builder.op1(operator, &[codes, scales, zeros])?)
            }
            Matrix::Scaled { codes, scales, block } => self.scaled_matrix(codes, scales, *block),
        }
    }

    /// 8-bit floats times the scales of their blocks.
    fn scaled_matrix(&mut self, codes: &Stored, scales: &Data, block: [usize; 2]) -> Result<Value> {
        let value = self.stored(codes)?;
        let value = self.decoded(value, codes)?;
        let shape = codes.shape();
        let scales = self.small(scales.clone())?;
        let grid = self.builder.shape(scales)?;
        let (rows, columns) = (Dim::from(shape[0]), Dim::from(shape[1]));
        // Each scale once for each row and column of its block, cut to the matrix where its last blocks are not whole.
        let spread = vec![grid[0].clone(), Dim::from(block[0]), grid[1].clone(), Dim::from(block[1])];
        let thin = vec![grid[0].clone(), Dim::Const(1), grid[1].clone(), Dim::Const(1)];
        let scales = self.builder.reshape(scales, thin)?;
        let scales = self.builder.broadcast(scales, spread.clone())?;
        let full = [spread[0].clone() * spread[1].clone(), spread[2].clone() * spread[3].clone()];
        let scales = self.builder.reshape(scales, full.to_vec())?;
        let cut =
            Operator::Slice { starts: vec![Dim::Const(0); 2], sizes: vec![rows, columns], steps: vec![1; 2] };
        let scales = self.builder.op1(cut, &[scales])?;
        Ok(self.builder.call(Function::Mul, &[value, scales])?)
    }

    /// A stored tensor as it is.
    fn stored(&mut self, stored: &Stored) -> Result<Value> {
        if let Some(value) = self.constants.get(&stored.name) {
            return Ok(*value);
        }
        let value = self.builder.constant(stored.data.clone())?;
        self.constants.insert(stored.name.clone(), value);
        Ok(value)
    }

    /// Numbers in `f32` of what is stored like `stored`.
    fn decoded(&mut self, value: Value, stored: &Stored) -> Result<Value> {
        match stored.format {
            Some(format) => {
                Ok(self.builder.op1(Operator::DecodeBlocks { format, dtype: DType::F32 }, &[value])?)
            }
            None => Ok(self.builder.cast(value, DType::F32)?),
        }
    }

    /// A small tensor in `f32`.
    pub(super) fn small(&mut self, data: Data) -> Result<Value> {
        let value = self.builder.constant(data)?;
        Ok(self.builder.cast(value, DType::F32)?)
    }

    /// Rows `[1, size]`, or one table of them, below each other in `f32`.
    pub(super) fn stack(&mut self, rows: Vec<Data>) -> Result<Value> {
        let rows = rows.into_iter().map(|row| self.small(row)).collect::<Result<Vec<Value>>>()?;
        match rows[..] {
            [table] => Ok(table),
            _ => Ok(self.builder.op1(Operator::Concat { axis: 0 }, &rows)?),
        }
    }
}
