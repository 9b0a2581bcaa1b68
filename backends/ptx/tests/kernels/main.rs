//! Kernels as PTX, executed by the simulator and assembled for several generations.

mod assembled;
mod broken;
mod cases;
mod execute;
mod figures;
mod flash;
mod functions;
mod operators;
mod spaces;
mod tiled;
mod weights;
