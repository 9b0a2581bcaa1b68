//! What is wrong with an instruction of a thread.

use thiserror::Error;

/// What the simulator catches.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Fault {
    /// Outside every buffer and variable.
    #[error("access of {size} bytes at {address:#x}, which is {place}")]
    OutOfBounds {
        /// First byte.
        address: u64,
        /// Number of bytes.
        size: u64,
        /// The nearest buffer below.
        place: String,
    },
    /// A write to a buffer that the launch only reads.
    #[error("write to {address:#x}, which is in a buffer that the kernel only reads")]
    ReadOnly {
        /// First byte.
        address: u64,
    },
    /// The address is not a multiple of the size.
    #[error("access of {size} bytes at {address:#x} is not aligned")]
    Misaligned {
        /// First byte.
        address: u64,
        /// Number of bytes.
        size: u64,
    },
    /// Nobody has written there.
    #[error("byte {address:#x} is read before it is written")]
    Uninitialized {
        /// The byte.
        address: u64,
    },
    /// An asynchronous copy to there has not been waited for.
    #[error("byte {address:#x} is used while an asynchronous copy to it is under way")]
    InFlight {
        /// The byte.
        address: u64,
    },
    /// Two threads without a barrier between them.
    #[error(
        "race: {what} byte {address:#x}, which {} {other} with no barrier between",
        describe(*.thread, *.block)
    )]
    Race {
        /// `writes` or `reads`.
        what: &'static str,
        /// The byte.
        address: u64,
        /// The other thread's number in its block; none where several did.
        thread: Option<u32>,
        /// The other thread's block; none where several did.
        block: Option<u32>,
        /// What the other did.
        other: &'static str,
    },
    /// Some threads of a warp reach a barrier that others do not.
    #[error("barrier in divergent code: {arrived} of {threads} threads of the warp reach it")]
    DivergentBarrier {
        /// Threads at the barrier.
        arrived: usize,
        /// Threads of the warp.
        threads: usize,
    },
    /// An instruction of a whole warp that part of it executes.
    #[error("an instruction of the whole warp is executed by {arrived} of its 32 threads")]
    DivergentWarp {
        /// Threads that execute it.
        arrived: usize,
    },
    /// Threads wait for others that have ended.
    #[error("{waiting} threads wait at a barrier, the others of the block have ended")]
    AbandonedBarrier {
        /// Threads at the barrier.
        waiting: usize,
    },
    /// An instruction with types that it does not take.
    #[error("the instruction does not take these types")]
    Types,
    /// More instructions than a run may take.
    #[error("the kernel runs longer than {0} instructions")]
    Endless(u64),
}

fn describe(thread: Option<u32>, block: Option<u32>) -> String {
    match (thread, block) {
        (Some(thread), Some(block)) => format!("thread {thread} of block {block}"),
        (None, Some(block)) => format!("several threads of block {block}"),
        _ => "threads of several blocks".to_string(),
    }
}
