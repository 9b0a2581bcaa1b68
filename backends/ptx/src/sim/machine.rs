//! Executes kernels: blocks, warps, lanes.

use std::collections::BTreeSet;

use thiserror::Error;

use super::arithmetic::{arithmetic, compare, convert};
use super::instruction::{Entry, Instruction, Module, Op, Operand, Space, Special, Type};
use super::memory::{Actor, Fault, Memory};

/// Lanes of a warp.
const WARP: usize = 32;

/// Bytes of a sector of global memory.
const SECTOR: u64 = 32;

/// Instructions of all threads together that a run may take.
const LIMIT: u64 = 1 << 34;

/// The shape of a launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    /// Blocks along each dimension.
    pub blocks: [u64; 3],
    /// Threads of a block along each dimension.
    pub threads: [u64; 3],
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

/// Executed instructions of warps, by class, and what their memory accesses cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// All instructions.
    pub instructions: u64,
    /// Arithmetic on floats.
    pub float: u64,
    /// Fused multiply-adds among them.
    pub fma: u64,
    /// Arithmetic on integers and predicates.
    pub integer: u64,
    /// Conversions.
    pub convert: u64,
    /// Comparisons, selections and moves.
    pub other: u64,
    /// Branches.
    pub branches: u64,
    /// Branches where some threads of the group go elsewhere than others.
    pub divergent: u64,
    /// Barriers.
    pub barriers: u64,
    /// Loads and stores of global memory.
    pub global_requests: u64,
    /// Sectors of 32 bytes that they touch.
    pub global_sectors: u64,
    /// Loads and stores of shared memory.
    pub shared_requests: u64,
    /// Further cycles that they take as several words lie in one bank.
    pub bank_conflicts: u64,
    /// Loads and stores of local memory.
    pub local_requests: u64,
}

/// Runs a kernel. `arguments` are its 64-bit parameters; `seed` decides in which order blocks and warps run.
pub fn run(
    module: &Module,
    kernel: &str,
    grid: Grid,
    arguments: &[u64],
    memory: &mut Memory,
    seed: u64,
) -> Result<Counts, SimError> {
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
    let mut random = Random(seed);
    let mut order: Vec<u32> = (0..count).collect();
    for index in (1..order.len()).rev() {
        order.swap(index, random.below(index + 1));
    }
    let mut machine =
        Machine { module, entry, grid, arguments, memory, random, counts: Counts::default(), steps: 0 };
    order.into_iter().try_for_each(|block| machine.block(block))?;
    let counts = machine.counts;
    memory.synchronize();
    Ok(counts)
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Waiting,
    Ended,
}

struct Thread {
    registers: Vec<u64>,
    local: Memory,
    next: usize,
    state: State,
    position: [u64; 3],
}

/// A block in execution.
struct Block {
    number: u32,
    position: [u64; 3],
    epoch: u32,
    shared: Memory,
    threads: Vec<Thread>,
}

struct Machine<'m> {
    module: &'m Module,
    entry: &'m Entry,
    grid: Grid,
    arguments: &'m [u64],
    memory: &'m mut Memory,
    random: Random,
    counts: Counts,
    steps: u64,
}

fn position(number: u64, sizes: [u64; 3]) -> [u64; 3] {
    [number % sizes[0], number / sizes[0] % sizes[1], number / sizes[0] / sizes[1]]
}

impl<'m> Machine<'m> {
    fn variables(&self, space: Space) -> Memory {
        let mut memory = Memory::new();
        for variable in self.entry.variables.iter().filter(|variable| variable.space == space) {
            memory.place(variable.address, vec![0xa5; variable.bytes as usize], false);
        }
        memory
    }

    fn start(&mut self, number: u32) -> Block {
        let count: u64 = self.grid.threads.iter().product();
        let threads = (0..count)
            .map(|thread| Thread {
                registers: self
                    .entry
                    .registers
                    .iter()
                    .map(|width| mask(self.random.next(), *width))
                    .collect(),
                local: self.variables(Space::Local),
                next: 0,
                state: State::Running,
                position: position(thread, self.grid.threads),
            })
            .collect();
        let position = position(number.into(), self.grid.blocks);
        Block { number, position, epoch: 0, shared: self.variables(Space::Shared), threads }
    }

    fn block(&mut self, number: u32) -> Result<(), SimError> {
        let mut block = self.start(number);
        loop {
            let warps: Vec<usize> = (0..block.threads.len().div_ceil(WARP))
                .filter(|warp| block.warp(*warp).any(|thread| block.threads[thread].state == State::Running))
                .collect();
            if !warps.is_empty() {
                let warp = warps[self.random.below(warps.len())];
                // Turns of random length, so that both tight and loose interleavings occur.
                for _ in 0..=self.random.below(64) {
                    if !self.step(&mut block, warp)? {
                        break;
                    }
                }
                continue;
            }
            let waiting = block.threads.iter().filter(|thread| thread.state == State::Waiting).count();
            if waiting == 0 {
                return Ok(());
            }
            if waiting < block.threads.len() {
                let stuck =
                    block.threads.iter().position(|thread| thread.state == State::Waiting).unwrap_or(0);
                let at = block.threads[stuck].next.saturating_sub(1);
                return Err(self.fault(&block, at, stuck, Fault::AbandonedBarrier { waiting }));
            }
            block.epoch += 1;
            block.threads.iter_mut().for_each(|thread| thread.state = State::Running);
        }
    }

    fn fault(&self, block: &Block, at: usize, thread: usize, fault: Fault) -> SimError {
        let line = self.entry.code.get(at).map_or(0, |instruction| instruction.line);
        let text = self.module.lines.get(line.saturating_sub(1)).map_or("", |line| line.trim()).to_string();
        let kernel = self.entry.name.clone();
        SimError::Fault { kernel, line, text, thread: thread as u32, block: block.number, fault }
    }

    /// Executes one instruction of a warp; false where none of its threads can go on.
    fn step(&mut self, block: &mut Block, warp: usize) -> Result<bool, SimError> {
        let running = |thread: &usize| block.threads[*thread].state == State::Running;
        let Some(at) = block.warp(warp).filter(running).map(|thread| block.threads[thread].next).min() else {
            return Ok(false);
        };
        let group: Vec<usize> =
            block.warp(warp).filter(running).filter(|thread| block.threads[*thread].next == at).collect();
        let entry = self.entry;
        let Some(instruction) = entry.code.get(at) else {
            group.iter().for_each(|thread| block.threads[*thread].state = State::Ended);
            return Ok(true);
        };
        self.steps += group.len() as u64;
        if self.steps > LIMIT {
            return Err(self.fault(block, at, group[0], Fault::Endless(LIMIT)));
        }
        let active: Vec<usize> = group
            .iter()
            .copied()
            .filter(|thread| {
                instruction.guard.is_none_or(|(register, negated)| {
                    (block.threads[*thread].registers[register] & 1 == 1) != negated
                })
            })
            .collect();
        self.count(instruction, group.len(), active.len());
        if instruction.op == Op::Barrier {
            let threads = block.warp(warp).len();
            if active.len() != threads {
                let fault = Fault::DivergentBarrier { arrived: active.len(), threads };
                return Err(self.fault(block, at, group[0], fault));
            }
        }
        let mut addresses = Vec::new();
        for thread in &group {
            block.threads[*thread].next = at + 1;
        }
        for thread in active {
            let result = self.execute(block, thread, instruction, &mut addresses);
            result.map_err(|fault| self.fault(block, at, thread, fault))?;
        }
        self.count_memory(instruction, &addresses);
        Ok(true)
    }

    fn execute(
        &mut self,
        block: &mut Block,
        thread: usize,
        instruction: &Instruction,
        addresses: &mut Vec<u64>,
    ) -> Result<(), Fault> {
        let actor = Actor { thread: thread as u32, block: block.number, epoch: block.epoch };
        let this = &block.threads[thread];
        let operand = |index: usize| match instruction.operands.get(index) {
            Some(Operand::Register(register)) => this.registers[*register],
            Some(Operand::Immediate(bits)) => *bits,
            Some(Operand::Special(special)) => match special {
                Special::Thread(axis) => this.position[*axis],
                Special::Threads(axis) => self.grid.threads[*axis],
                Special::Block(axis) => block.position[*axis],
                Special::Blocks(axis) => self.grid.blocks[*axis],
            },
            None => 0,
        };
        let (a, b, c) = (operand(0), operand(1), operand(2));
        let value = match instruction.op {
            Op::Arithmetic(op, ty) => arithmetic(op, ty, a, b, c).ok_or(Fault::Types)?,
            Op::Compare(op, ty) => compare(op, ty, a, b).ok_or(Fault::Types)?.into(),
            Op::Select => [b, a][(c & 1) as usize],
            Op::Convert { to, from, rounding } => convert(to, from, rounding, a).ok_or(Fault::Types)?,
            Op::Move => a,
            Op::Parameter(number) => self.arguments[number],
            Op::Load(space, ty) => {
                let address = a.wrapping_add_signed(instruction.offset);
                addresses.push(address);
                let size = u64::from(ty.bits() / 8);
                let bits = memory_of(self.memory, block, thread, space).read(address, size, actor)?;
                match ty {
                    Type::Signed(width) => ((bits << (64 - width)) as i64 >> (64 - width)) as u64,
                    _ => bits,
                }
            }
            Op::Store(space, ty) => {
                let address = a.wrapping_add_signed(instruction.offset);
                addresses.push(address);
                let size = u64::from(ty.bits() / 8);
                return memory_of(self.memory, block, thread, space).write(address, size, b, actor);
            }
            Op::Branch(target) => {
                block.threads[thread].next = target;
                return Ok(());
            }
            Op::Barrier => {
                block.threads[thread].state = State::Waiting;
                return Ok(());
            }
            Op::Return => {
                block.threads[thread].state = State::Ended;
                return Ok(());
            }
        };
        if let Some(result) = instruction.result {
            block.threads[thread].registers[result] = mask(value, self.entry.registers[result]);
        }
        Ok(())
    }

    fn count(&mut self, instruction: &Instruction, group: usize, active: usize) {
        let counts = &mut self.counts;
        counts.instructions += 1;
        match instruction.op {
            Op::Arithmetic(op, ty) if ty.is_float() => {
                counts.float += 1;
                counts.fma += u64::from(op == super::instruction::Arithmetic::Fma);
            }
            Op::Arithmetic(..) => counts.integer += 1,
            Op::Convert { .. } => counts.convert += 1,
            Op::Compare(..) | Op::Select | Op::Move | Op::Parameter(_) | Op::Return => counts.other += 1,
            Op::Branch(_) => {
                counts.branches += 1;
                counts.divergent += u64::from(active != 0 && active != group);
            }
            Op::Barrier => counts.barriers += 1,
            Op::Load(..) | Op::Store(..) => {}
        }
    }

    /// Sectors and bank conflicts of one access of a warp.
    fn count_memory(&mut self, instruction: &Instruction, addresses: &[u64]) {
        let (Op::Load(space, ty) | Op::Store(space, ty)) = instruction.op else { return };
        if addresses.is_empty() {
            return;
        }
        let counts = &mut self.counts;
        match space {
            Space::Global => {
                counts.global_requests += 1;
                let sectors: BTreeSet<u64> = addresses.iter().map(|address| address / SECTOR).collect();
                counts.global_sectors += sectors.len() as u64;
            }
            Space::Shared => {
                counts.shared_requests += 1;
                let wide = u64::from(ty.bits() == 64);
                let words: BTreeSet<u64> =
                    addresses.iter().flat_map(|address| [address / 4, address / 4 + wide]).collect();
                let mut banks = [0u64; 32];
                words.iter().for_each(|word| banks[(word % 32) as usize] += 1);
                // 32 lanes of 64 bits take two cycles at best.
                let least = (words.len() as u64).div_ceil(32);
                counts.bank_conflicts +=
                    banks.iter().max().copied().unwrap_or(0).saturating_sub(least.max(1));
            }
            Space::Local => counts.local_requests += 1,
        }
    }
}

impl Block {
    /// Numbers of a warp's threads.
    fn warp(&self, warp: usize) -> std::ops::Range<usize> {
        warp * WARP..((warp + 1) * WARP).min(self.threads.len())
    }
}

fn memory_of<'a>(
    global: &'a mut Memory,
    block: &'a mut Block,
    thread: usize,
    space: Space,
) -> &'a mut Memory {
    match space {
        Space::Global => global,
        Space::Shared => &mut block.shared,
        Space::Local => &mut block.threads[thread].local,
    }
}

/// The low bits.
fn mask(value: u64, width: u32) -> u64 {
    if width >= 64 { value } else { value & ((1 << width) - 1) }
}
