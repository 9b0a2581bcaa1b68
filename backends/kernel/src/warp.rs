//! What the 32 lanes of a GPU warp do together, and copies that go on while a block computes.
//!
//! All lanes of a warp execute such a statement at the same time. Kernels with them run on GPUs alone: backends for other
//! machines refuse them, and the kernel interpreter does not have them.

use crate::ir::{BufferId, Expr, Var};

/// Elements of a matrix product of tensor cores. The results are 16 x 8; a row of the left operand and a column of the right
/// one have 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fragment {
    /// f16, sums in f32.
    F16,
    /// bfloat16, sums in f32.
    BF16,
    /// 8-bit integers, sums in i32; which of left and right are signed.
    Bytes(bool, bool),
}

/// A statement of a warp.
#[derive(Clone, PartialEq, Debug)]
pub enum WarpOp {
    /// `sum += a * b`. `sum` has four lanes of f32 or i32, `a` four and `b` two lanes of u32, spread over the warp as PTX
    /// lays out `mma.m16n8`.
    Multiply {
        /// The sums.
        sum: Var,
        /// The elements.
        fragment: Fragment,
        /// The left operand.
        a: Expr,
        /// The right operand.
        b: Expr,
    },
    /// Loads four 8 x 8 matrices of 16-bit elements from shared memory as PTX `ldmatrix` does: lane `8 i + j` gives the index of
    /// row `j` of matrix `i`, 16 bytes each.
    LoadMatrices {
        /// Four lanes of u32, one for each matrix.
        into: Var,
        /// Where from.
        buffer: BufferId,
        /// First element of the lane's row.
        index: Expr,
        /// Whether lanes get elements of columns instead of rows.
        transposed: bool,
    },
    /// Starts a copy of 16 bytes from an argument to shared memory, or of zeros where `valid` is false.
    CopyAsync {
        /// Shared memory.
        to: BufferId,
        /// First element there.
        to_index: Expr,
        /// An argument.
        from: BufferId,
        /// First element there.
        from_index: Expr,
        /// Whether to read at all.
        valid: Expr,
    },
    /// Ends a group of copies of this thread.
    CopyCommit,
    /// Waits until at most so many groups of this thread are under way.
    CopyWait(u32),
    /// The value that the lane with the number `own ^ mask` has.
    Exchange {
        /// 32 bits, of the value's type.
        into: Var,
        /// The value.
        value: Expr,
        /// Bits of the lane's number to flip.
        mask: u32,
    },
}

impl WarpOp {
    /// The variable that is assigned.
    pub fn assigned(&self) -> Option<Var> {
        match self {
            WarpOp::Multiply { sum: var, .. }
            | WarpOp::LoadMatrices { into: var, .. }
            | WarpOp::Exchange { into: var, .. } => Some(*var),
            WarpOp::CopyAsync { .. } | WarpOp::CopyCommit | WarpOp::CopyWait(_) => None,
        }
    }

    /// The variable that is assigned, to be changed.
    pub fn assigned_mut(&mut self) -> Option<&mut Var> {
        match self {
            WarpOp::Multiply { sum: var, .. }
            | WarpOp::LoadMatrices { into: var, .. }
            | WarpOp::Exchange { into: var, .. } => Some(var),
            WarpOp::CopyAsync { .. } | WarpOp::CopyCommit | WarpOp::CopyWait(_) => None,
        }
    }

    /// The expressions.
    pub fn exprs(&self) -> Vec<&Expr> {
        match self {
            WarpOp::Multiply { a, b, .. } => vec![a, b],
            WarpOp::LoadMatrices { index, .. } => vec![index],
            WarpOp::CopyAsync { to_index, from_index, valid, .. } => vec![to_index, from_index, valid],
            WarpOp::CopyCommit | WarpOp::CopyWait(_) => Vec::new(),
            WarpOp::Exchange { value, .. } => vec![value],
        }
    }

    /// The expressions, to be changed.
    pub fn exprs_mut(&mut self) -> Vec<&mut Expr> {
        match self {
            WarpOp::Multiply { a, b, .. } => vec![a, b],
            WarpOp::LoadMatrices { index, .. } => vec![index],
            WarpOp::CopyAsync { to_index, from_index, valid, .. } => vec![to_index, from_index, valid],
            WarpOp::CopyCommit | WarpOp::CopyWait(_) => Vec::new(),
            WarpOp::Exchange { value, .. } => vec![value],
        }
    }

    /// The buffers, to be renumbered.
    pub fn buffers_mut(&mut self) -> Vec<&mut BufferId> {
        match self {
            WarpOp::LoadMatrices { buffer, .. } => vec![buffer],
            WarpOp::CopyAsync { to, from, .. } => vec![to, from],
            _ => Vec::new(),
        }
    }
}
