//! Memory of a session: aligned buffers and the plan of the arena.

pub mod aligned;
pub mod available;
pub mod plan;
pub mod resident;
