//! The kernel IR: loop nests over tiles, its scheduling steps and the lowering from tensor IR.

pub mod evaluate;
pub mod expr;
pub mod fixed;
pub mod fold;
pub mod identifier;
pub mod ir;
pub mod lower;
pub mod machine;
pub mod math;
pub mod passes;
pub mod print;
pub mod scratch;
pub mod side_by_side;
pub mod simplify;
pub mod steps;
pub mod verify;
pub mod warp;

pub use ir::Kernel;
