//! Where scratch buffers lie in the memory that the caller passes.

use tcc_ir::dtype::DType;

use crate::ir::{Expr, Kernel, Space};

/// Every scratch buffer starts at a multiple of this many bytes: a cache line, and the widest vector register.
pub const SCRATCH_ALIGNMENT: i64 = 64;

/// Offsets of scratch buffers, in bytes from the scratch pointer, and how much memory they take.
///
/// Buffers lie in the order of their declaration, each at the next multiple of [`SCRATCH_ALIGNMENT`]. The expressions are
/// index arithmetic on constants and dimensions. Every backend and the runtime place buffers by this rule.
#[derive(Clone, PartialEq, Debug)]
pub struct ScratchLayout {
    /// By buffer; none for buffers that are not scratch.
    pub offsets: Vec<Option<Expr>>,
    /// Bytes that a thread running the kernel needs; a multiple of [`SCRATCH_ALIGNMENT`].
    pub total: Expr,
}

impl ScratchLayout {
    /// The layout of a kernel's scratch buffers.
    pub fn of(kernel: &Kernel) -> ScratchLayout {
        let mut total = Expr::index(0);
        let offsets = kernel
            .buffers
            .iter()
            .map(|buffer| {
                (buffer.space == Space::Scratch).then(|| {
                    let bytes = bytes(buffer.dtype, buffer.count.clone());
                    let end = total.clone().plus(rounded(bytes));
                    std::mem::replace(&mut total, end)
                })
            })
            .collect();
        ScratchLayout { offsets, total }
    }
}

/// Bytes of so many elements; sub-byte elements are packed.
fn bytes(dtype: DType, count: Expr) -> Expr {
    let count = count.at_least(Expr::index(0));
    let bits = dtype.bits() as i64;
    if bits % 8 == 0 {
        count.times(Expr::index(bits / 8))
    } else {
        count.times(Expr::index(bits)).over_up(Expr::index(8))
    }
}

fn rounded(bytes: Expr) -> Expr {
    bytes.over_up(Expr::index(SCRATCH_ALIGNMENT)).times(Expr::index(SCRATCH_ALIGNMENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Access;

    #[test]
    fn buffers_are_aligned_and_in_order() {
        let mut kernel = Kernel::new("k");
        kernel.argument("x", DType::F32, Expr::index(10), Access::Read);
        kernel.buffer("a", DType::F32, Space::Scratch, Expr::index(17), Access::ReadWrite);
        kernel.buffer("b", DType::I4, Space::Scratch, Expr::index(3), Access::ReadWrite);
        kernel.buffer("c", DType::U8, Space::Scratch, Expr::Dim(0), Access::ReadWrite);
        kernel.buffer("d", DType::U8, Space::Scratch, Expr::index(0), Access::ReadWrite);
        let layout = ScratchLayout::of(&kernel);
        assert_eq!(layout.offsets[0], None);
        assert_eq!(layout.offsets[1], Some(Expr::index(0)));
        assert_eq!(layout.offsets[2], Some(Expr::index(128)));
        assert_eq!(layout.offsets[3], Some(Expr::index(192)));
        assert_eq!(layout.offsets[4], Some(layout.total.clone()));
    }
}
