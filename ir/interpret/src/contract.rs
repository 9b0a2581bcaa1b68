//! Einstein summation of two tensors.

use tcc_ir::contraction::{ContractionSpec, Role};
use tcc_ir::dtype::DType;
use tcc_ir::scalar::ScalarExpr;

use crate::accumulate::{Kernel, Number, accumulate};
use crate::elementwise::map;
use crate::error::Result;
use crate::indexing::{Walk, count, strides};
use crate::parallel;
use crate::tensor::Tensor;

/// The contraction in `accumulator`, mapped by `epilogue`.
pub(crate) fn contract(
    spec: &ContractionSpec,
    accumulator: DType,
    epilogue: &ScalarExpr,
    operands: &[&Tensor],
    shape: &[usize],
) -> Result<Tensor> {
    let product = Product { spec, lhs: operands[0].shape(), rhs: operands[1].shape() };
    let sum = accumulate(&product, operands[0], operands[1], accumulator, shape)?;
    map(epilogue, &[&[&sum], &operands[2..]].concat(), shape)
}

struct Product<'a> {
    spec: &'a ContractionSpec,
    lhs: &'a [usize],
    rhs: &'a [usize],
}

impl Product<'_> {
    fn extent(&self, label: u8) -> usize {
        let of = |labels: &[u8], shape: &[usize]| {
            labels.iter().position(|candidate| *candidate == label).map(|axis| shape[axis])
        };
        of(&self.spec.lhs, self.lhs).or(of(&self.spec.rhs, self.rhs)).unwrap_or(1)
    }

    fn extents(&self, labels: &[u8]) -> Vec<usize> {
        labels.iter().map(|label| self.extent(*label)).collect()
    }

    /// The elements of an operand in the order `to`; labels that are not there are summed.
    fn arrange<N: Number>(&self, values: &[N], from: &[u8], to: &[u8]) -> Vec<N> {
        if from == to {
            return values.to_vec();
        }
        let target = self.extents(to);
        let own = strides(&target);
        let step =
            |label: &u8| to.iter().position(|other| other == label).map_or(0, |axis| own[axis] as isize);
        let steps: Vec<isize> = from.iter().map(step).collect();
        let mut out = vec![N::ZERO; count(&target)];
        for (value, offset) in values.iter().zip(Walk::new(&self.extents(from), &steps, 0)) {
            out[offset] = out[offset].plus(*value);
        }
        out
    }
}

impl Kernel for Product<'_> {
    fn run<N: Number>(&self, lhs: &[N], rhs: &[N]) -> Vec<N> {
        let spec = self.spec;
        let with = |role: Role| -> Vec<u8> {
            spec.labels().into_iter().filter(|label| spec.role(*label) == role).collect()
        };
        let (batch, row, column) = (with(Role::Batch), with(Role::Row), with(Role::Column));
        let shared = |label: &u8| spec.lhs.contains(label) && spec.rhs.contains(label);
        let summed: Vec<u8> = with(Role::Summed).into_iter().filter(shared).collect();
        let a = self.arrange(lhs, &spec.lhs, &[&batch[..], &row, &summed].concat());
        let b = self.arrange(rhs, &spec.rhs, &[&batch[..], &summed, &column].concat());
        let size = |labels: &[u8]| count(&self.extents(labels));
        let (rows, columns, depth) = (size(&row), size(&column), size(&summed));
        let mut out = vec![N::ZERO; size(&batch) * rows * columns];
        parallel::rows(&mut out, columns, |index, sums| {
            let factors = &a[index * depth..(index + 1) * depth];
            let matrix = &b[index / rows * depth * columns..][..depth * columns];
            for (factor, line) in factors.iter().zip(matrix.chunks_exact(columns)) {
                for (sum, value) in sums.iter_mut().zip(line) {
                    *sum = sum.plus_product(*factor, *value);
                }
            }
        });
        self.arrange(&out, &[&batch[..], &row, &column].concat(), &spec.out)
    }
}
