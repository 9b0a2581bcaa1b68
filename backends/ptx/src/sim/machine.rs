//! Executes kernels: blocks, warps, and instructions of the lanes of a warp together.

use super::counts::Counts;
use super::execute::Warp;
use super::fault::Fault;
use super::instruction::{Entry, Module, Op, Space};
use super::memory::{Global, Memory, Shared, Window};
use thiserror::Error;

/// Lanes of a warp.
pub const WARP: usize = 32;

/// Instructions of all warps together that a run may take.
const LIMIT: u64 = 1 << 34;

/// The shape of a launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    /// Blocks along each dimension.
    pub blocks: [u64; 3],
    /// Threads of a block along each dimension.
    pub threads: [u64; 3],
}

/// A launch of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Name of the `.entry`.
    pub kernel: &'a str,
    /// Its shape.
    pub grid: Grid,
    /// The 64-bit parameters.
    pub arguments: &'a [u64],
    /// Bytes of shared memory that the launch asks for.
    pub shared_bytes: u64,
    /// The device memory that it may touch.
    pub windows: &'a [Window],
    /// Decides in which order blocks and warps run.
    pub seed: u64,
}

/// What went wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SimError {
    /// The launch does not fit the kernel.
    #[error("launch of {kernel}: {what}")]
    Launch {
        /// Name of the kernel.
        kernel: String,
        /// What does not fit.
        what: String,
    },
    /// An instruction of a thread failed.
    #[error("{kernel}, PTX line {line} `{text}`, thread {thread} of block {block}: {fault}")]
    Fault {
        /// Name of the kernel.
        kernel: String,
        /// Line of the text, from 1.
        line: usize,
        /// The line.
        text: String,
        /// Number of the thread in its block, the first dimension fastest.
        thread: u32,
        /// Number of the block, the first dimension fastest.
        block: u32,
        /// What is wrong.
        fault: Fault,
    },
}

/// Runs a kernel.
pub fn run(module: &Module, launch: &Launch, memory: &mut Memory) -> Result<Counts, SimError> {
    let Launch { kernel, grid, arguments, .. } = *launch;
    let fail = |what: String| SimError::Launch { kernel: kernel.to_string(), what };
    let entry = module.entries.iter().find(|entry| entry.name == kernel);
    let entry = entry.ok_or_else(|| fail("the module has no such kernel".into()))?;
    if entry.parameters.len() != arguments.len() {
        let (takes, given) = (entry.parameters.len(), arguments.len());
        return Err(fail(format!("it takes {takes} parameters, {given} are given")));
    }
    if grid.threads.iter().zip(entry.threads).any(|(given, limit)| *given == 0 || *given > limit) {
        return Err(fail(format!("blocks of {:?} threads, at most {:?}", grid.threads, entry.threads)));
    }
    let count = grid.blocks.iter().try_fold(1u64, |product, count| product.checked_mul(*count));
    let count = count.and_then(|count| u32::try_from(count).ok());
    let count = count.ok_or_else(|| fail("too many blocks".into()))?;
    let mut random = Random(launch.seed);
    let mut order: Vec<u32> = (0..count).collect();
    for index in (1..order.len()).rev() {
        order.swap(index, random.below(index + 1));
    }
    let global = Global::open(memory, launch.windows, granule(entry, Space::Global)).map_err(fail)?;
    let threads = grid.threads.iter().product::<u64>() as usize;
    let variables: Vec<(u64, u64)> = entry
        .variables
        .iter()
        .filter(|variable| variable.space == Space::Shared)
        .map(|variable| (variable.address, variable.bytes))
        .chain(entry.requested.iter().map(|(_, address)| (*address, launch.shared_bytes)))
        .collect();
    let shared = Shared::new(&variables, granule(entry, Space::Shared));
    let warps = (0..threads.div_ceil(WARP)).map(|number| Warp::new(entry, number, threads)).collect();
    let mut machine = Machine {
        module,
        entry,
        place: Place { grid, block: [0; 3], number: 0, epoch: 0, arguments },
        memory: Memories { global, shared },
        warps,
        random,
        counts: Counts::default(),
    };
    order.into_iter().try_for_each(|block| machine.block(block))?;
    Ok(machine.counts)
}

/// Width of the narrowest access to a space: a granule of its shadow.
fn granule(entry: &Entry, space: Space) -> u64 {
    let widths = entry.code.iter().filter_map(|instruction| match instruction.op {
        Op::Load(of, ty, count) | Op::Store(of, ty, count) if of == space => {
            Some(u64::from(ty.bits() / 8) * count as u64)
        }
        Op::CopyAsync(bytes) if space == Space::Shared => Some(bytes),
        Op::CopyAsync(_) => Some(4),
        Op::LoadMatrix(..) if space == Space::Shared => Some(16),
        _ => None,
    });
    widths.min().unwrap_or(16)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Where a block is.
pub struct Place<'m> {
    /// The launch.
    pub grid: Grid,
    /// Position of the block.
    pub block: [u64; 3],
    /// Its number.
    pub number: u32,
    /// Barriers that it has passed.
    pub epoch: u32,
    /// The parameters.
    pub arguments: &'m [u64],
}

/// What threads of a block share.
pub struct Memories<'m> {
    /// The device's memory.
    pub global: Global<'m>,
    /// The block's memory.
    pub shared: Shared,
}

struct Machine<'m> {
    module: &'m Module,
    entry: &'m Entry,
    place: Place<'m>,
    memory: Memories<'m>,
    warps: Vec<Warp>,
    random: Random,
    counts: Counts,
}

/// Coordinates of a number, the first dimension fastest.
pub fn position(number: u64, sizes: [u64; 3]) -> [u64; 3] {
    [number % sizes[0], number / sizes[0] % sizes[1], number / sizes[0] / sizes[1]]
}

impl Machine<'_> {
    fn block(&mut self, number: u32) -> Result<(), SimError> {
        self.place.block = position(number.into(), self.place.grid.blocks);
        (self.place.number, self.place.epoch) = (number, 0);
        self.memory.shared.reset();
        let garbage = self.random.next();
        self.warps.iter_mut().for_each(|warp| warp.start(self.entry, garbage));
        let mut ready: Vec<usize> = Vec::with_capacity(self.warps.len());
        loop {
            ready.clear();
            ready.extend((0..self.warps.len()).filter(|warp| self.warps[*warp].can_run()));
            if !ready.is_empty() {
                let warp = ready[self.random.below(ready.len())];
                // Turns of random length, so that both tight and loose interleavings occur.
                let turn = self.random.below(64);
                self.turn(warp, turn + 1)?;
                continue;
            }
            let waiting: usize = self.warps.iter().map(Warp::waiting).sum();
            if waiting == 0 {
                return Ok(());
            }
            let threads = self.place.grid.threads.iter().product::<u64>() as usize;
            if waiting < threads {
                let stuck = self.warps.iter().position(|warp| warp.waiting() > 0).unwrap_or(0);
                let at = self.warps[stuck].next().saturating_sub(1);
                return Err(self.fault(stuck, at, 0, Fault::AbandonedBarrier { waiting }));
            }
            self.place.epoch += 1;
            self.warps.iter_mut().for_each(Warp::release);
        }
    }

    fn turn(&mut self, warp: usize, steps: usize) -> Result<(), SimError> {
        for _ in 0..steps {
            let running = &mut self.warps[warp];
            if !running.can_run() {
                return Ok(());
            }
            let at = running.next();
            let result = running.step(self.entry, &self.place, &mut self.memory, &mut self.counts);
            if let Err((lane, fault)) = result {
                return Err(self.fault(warp, at, lane, fault));
            }
            if self.counts.instructions > LIMIT {
                return Err(self.fault(warp, at, 0, Fault::Endless(LIMIT)));
            }
        }
        Ok(())
    }

    fn fault(&self, warp: usize, at: usize, lane: usize, fault: Fault) -> SimError {
        let line = self.entry.code.get(at).map_or(0, |instruction| instruction.line);
        let text = self.module.lines.get(line.saturating_sub(1)).map_or("", |line| line.trim()).to_string();
        let thread = (warp * WARP + lane) as u32;
        SimError::Fault {
            kernel: self.entry.name.clone(),
            line,
            text,
            thread,
            block: self.place.number,
            fault,
        }
    }
}
