//! The kernel IR: loop nests over tiles, its scheduling steps and the lowering from tensor IR.

pub mod expr;
pub mod ir;

pub use ir::Kernel;
