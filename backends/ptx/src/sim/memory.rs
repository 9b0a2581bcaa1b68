//! Memory with a shadow: who touched each byte, and when.
//!
//! The shadow of a byte keeps its last writer and its readers, each with the number of barriers that their block had passed.
//! Two accesses of different threads, one of them a write, conflict where no barrier lies between them: in one block that
//! is when the number is the same, of different blocks always. Threads may write the same value, as tiles that overlap do
//! (`Tail::Shift` of the scheduling steps): memory is then the same in whatever order they come.

use thiserror::Error;

/// What is wrong with an access.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Fault {
    /// Outside every allocation.
    #[error("access of {size} bytes at {address:#x}, which is {place}")]
    OutOfBounds {
        /// First byte.
        address: u64,
        /// Number of bytes.
        size: u64,
        /// The nearest allocation below.
        place: String,
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
    /// Two threads without a barrier between them.
    #[error(
        "race: {what} byte {address:#x}, which thread {thread} of block {block} {other} with no barrier between"
    )]
    Race {
        /// `writes` or `reads`.
        what: &'static str,
        /// The byte.
        address: u64,
        /// The other thread's number in its block.
        thread: u32,
        /// The other thread's block.
        block: u32,
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

/// Who accesses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Actor {
    /// Number of the thread in its block.
    pub thread: u32,
    /// Number of the block.
    pub block: u32,
    /// Barriers that the block has passed.
    pub epoch: u32,
}

#[derive(Clone, Copy, Default)]
struct Shadow {
    written: bool,
    writer: Option<Actor>,
    reader: Option<Actor>,
    /// Several threads of the reader's block have read since the reader's epoch began.
    several: bool,
    /// Threads of several blocks have read.
    blocks: bool,
}

struct Allocation {
    address: u64,
    bytes: Vec<u8>,
    shadow: Vec<Shadow>,
}

/// Allocations in ascending order of address.
#[derive(Default)]
pub struct Memory {
    allocations: Vec<Allocation>,
}

/// Distance between allocations, so that an access past the end never lands in the next.
const GAP: u64 = 4096;

/// Device addresses start here.
const BASE: u64 = 0x7f00_0000_0000;

impl Memory {
    /// Memory without allocations.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Allocates memory with contents and returns its address.
    pub fn allocate(&mut self, bytes: Vec<u8>) -> u64 {
        let address = self.next();
        self.place(address, bytes, true);
        address
    }

    /// Allocates memory that must be written before it is read.
    pub fn allocate_uninitialized(&mut self, bytes: usize) -> u64 {
        let address = self.next();
        self.place(address, vec![0xa5; bytes], false);
        address
    }

    fn next(&self) -> u64 {
        match self.allocations.last() {
            Some(last) => (last.address + last.bytes.len() as u64).next_multiple_of(256) + GAP,
            None => BASE,
        }
    }

    /// Allocates at an address above all others.
    pub(super) fn place(&mut self, address: u64, bytes: Vec<u8>, written: bool) {
        let shadow = vec![Shadow { written, ..Shadow::default() }; bytes.len()];
        self.allocations.push(Allocation { address, bytes, shadow });
    }

    /// The contents of an allocation; nothing where none starts at the address.
    pub fn bytes(&self, address: u64) -> &[u8] {
        match self.allocations.binary_search_by_key(&address, |allocation| allocation.address) {
            Ok(index) => &self.allocations[index].bytes,
            Err(_) => &[],
        }
    }

    /// Forgets who touched what: a kernel has ended.
    pub fn synchronize(&mut self) {
        for allocation in &mut self.allocations {
            for shadow in &mut allocation.shadow {
                *shadow = Shadow { written: shadow.written, ..Shadow::default() };
            }
        }
    }

    fn locate(&self, address: u64, size: u64) -> Result<(usize, usize), Fault> {
        let above = self.allocations.partition_point(|allocation| allocation.address <= address);
        let Some(index) = above.checked_sub(1) else {
            let place = "below all allocations".to_string();
            return Err(Fault::OutOfBounds { address, size, place });
        };
        let allocation = &self.allocations[index];
        let (offset, length) = (address - allocation.address, allocation.bytes.len() as u64);
        if offset.checked_add(size).is_none_or(|end| end > length) {
            let place = format!("at byte {offset} of an allocation of {length}");
            return Err(Fault::OutOfBounds { address, size, place });
        }
        if !address.is_multiple_of(size) {
            return Err(Fault::Misaligned { address, size });
        }
        Ok((index, offset as usize))
    }

    /// Reads up to 8 bytes.
    pub(super) fn read(&mut self, address: u64, size: u64, actor: Actor) -> Result<u64, Fault> {
        let (index, offset) = self.locate(address, size)?;
        let allocation = &mut self.allocations[index];
        let mut wide = [0; 8];
        for (byte, wide) in wide.iter_mut().enumerate().take(size as usize) {
            let shadow = &mut allocation.shadow[offset + byte];
            shadow.read(address + byte as u64, actor)?;
            *wide = allocation.bytes[offset + byte];
        }
        Ok(u64::from_le_bytes(wide))
    }

    /// Writes up to 8 bytes.
    pub(super) fn write(&mut self, address: u64, size: u64, value: u64, actor: Actor) -> Result<(), Fault> {
        let (index, offset) = self.locate(address, size)?;
        let allocation = &mut self.allocations[index];
        for (byte, value) in value.to_le_bytes().into_iter().enumerate().take(size as usize) {
            let same = allocation.bytes[offset + byte] == value;
            allocation.shadow[offset + byte].write(address + byte as u64, actor, same)?;
            allocation.bytes[offset + byte] = value;
        }
        Ok(())
    }
}

/// True where no barrier lies between the accesses of two threads.
fn concurrent(one: Actor, other: Actor) -> bool {
    one.block != other.block || one.thread != other.thread && one.epoch == other.epoch
}

impl Shadow {
    fn read(&mut self, address: u64, actor: Actor) -> Result<(), Fault> {
        if !self.written {
            return Err(Fault::Uninitialized { address });
        }
        if let Some(writer) = self.writer.filter(|writer| concurrent(*writer, actor)) {
            let (thread, block) = (writer.thread, writer.block);
            return Err(Fault::Race { what: "reads", address, thread, block, other: "wrote" });
        }
        match self.reader {
            Some(reader) if reader.block != actor.block => self.blocks = true,
            Some(reader) if reader.epoch == actor.epoch => self.several |= reader.thread != actor.thread,
            _ => self.several = false,
        }
        self.reader = Some(actor);
        Ok(())
    }

    /// `same`: the byte has the value already.
    fn write(&mut self, address: u64, actor: Actor, same: bool) -> Result<(), Fault> {
        let race = |other: Actor, text| {
            let (thread, block) = (other.thread, other.block);
            Err(Fault::Race { what: "writes", address, thread, block, other: text })
        };
        if let Some(writer) = self.writer.filter(|writer| !same && concurrent(*writer, actor)) {
            return race(writer, "wrote");
        }
        if let Some(reader) = self.reader {
            let others = self.blocks || self.several && reader.epoch == actor.epoch;
            if others || concurrent(reader, actor) {
                return race(reader, "read");
            }
        }
        self.written = true;
        self.writer = Some(actor);
        Ok(())
    }
}
