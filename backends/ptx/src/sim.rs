//! A simulator of PTX: parses the text of a module and executes it, warp by warp.
//!
//! What it executes is the text that is shipped, so it shares nothing with the emitter but the language. It checks what a GPU
//! does not:
//!
//! - every access lies inside one buffer or variable and is aligned, and writes go where the launch allows them;
//! - no byte of shared, local or scratch memory is read before it is written, or while an asynchronous copy to it is under way;
//! - two threads touch a byte of which one writes only with a barrier between them, and threads of different blocks never,
//!   unless all of them write the same value;
//! - all threads of a warp reach a barrier or an instruction of the whole warp together, and all threads of a block reach the
//!   same number of barriers.
//!
//! Warps have 32 lanes. Of a diverged warp the threads that lag behind run first, so it comes together again where branches
//! join. Warps of a block interleave, and blocks are ordered, at random by a seed. Registers start with garbage.

mod arithmetic;
mod counts;
mod execute;
mod fault;
mod instruction;
mod machine;
mod matrix;
mod memory;
mod text;

pub use counts::Counts;
pub use fault::Fault;
pub use instruction::Module;
pub use machine::{Grid, Launch, SimError, run};
pub use memory::{Memory, Use, Window};
pub use text::{ParseError, parse};

#[cfg(test)]
mod tests;
