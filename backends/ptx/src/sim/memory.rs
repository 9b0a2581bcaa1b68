//! Memory with a shadow: who touched each granule, and when.
//!
//! A launch sees device memory through windows, one for each of its buffers: an access must lie in one of them, so that
//! tensors side by side in one arena are told apart. The shadow of a granule keeps its last writer and its readers, each
//! with the number of barriers that their block had passed. Two accesses of different threads, one of them a write, conflict
//! where no barrier lies between them: in one block that is when the number is the same, of different blocks always. Threads
//! may write the same value, as tiles that overlap do (`Tail::Shift` of the scheduling steps): memory is then the same in
//! whatever order they come. A granule is as wide as the narrowest access of the kernel to that space.

use super::fault::Fault;

/// Memory of the device: allocations that never move.
#[derive(Default, Debug)]
pub struct Memory {
    allocations: Vec<Allocation>,
    next: u64,
}

#[derive(Debug)]
struct Allocation {
    address: u64,
    bytes: Vec<u8>,
}

/// Distance between allocations.
const GAP: u64 = 4096;

/// Device addresses start here.
const BASE: u64 = 0x7f00_0000_0000;

impl Memory {
    /// Memory without allocations.
    pub fn new() -> Memory {
        Memory { allocations: Vec::new(), next: BASE }
    }

    /// Allocates memory with contents and returns its address, a multiple of 256.
    pub fn allocate(&mut self, bytes: Vec<u8>) -> u64 {
        let address = self.next;
        self.next = (address + bytes.len() as u64).next_multiple_of(256) + GAP;
        self.allocations.push(Allocation { address, bytes });
        address
    }

    /// Gives an allocation back.
    pub fn free(&mut self, address: u64) {
        self.allocations.retain(|allocation| allocation.address != address);
    }

    /// Bytes within one allocation; none where they are in none.
    pub fn bytes(&self, address: u64, size: usize) -> Option<&[u8]> {
        let (index, offset) = self.find(address, size as u64)?;
        Some(&self.allocations[index].bytes[offset..offset + size])
    }

    /// Bytes within one allocation, to be changed by the host.
    pub fn bytes_mut(&mut self, address: u64, size: usize) -> Option<&mut [u8]> {
        let (index, offset) = self.find(address, size as u64)?;
        Some(&mut self.allocations[index].bytes[offset..offset + size])
    }

    fn find(&self, address: u64, size: u64) -> Option<(usize, usize)> {
        let index = self.allocations.partition_point(|allocation| allocation.address <= address);
        let index = index.checked_sub(1)?;
        let allocation = &self.allocations[index];
        let offset = address - allocation.address;
        let end = offset.checked_add(size)?;
        (end <= allocation.bytes.len() as u64).then_some((index, offset as usize))
    }
}

/// What a launch may do with a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// Read only.
    Read,
    /// Read and write.
    Write,
    /// Read and write; must be written before it is read.
    Scratch,
}

/// A part of device memory that a launch sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// First byte.
    pub address: u64,
    /// Size.
    pub bytes: u64,
    /// What for.
    pub usage: Use,
}

/// Who accesses: block, barriers that the block has passed, thread of the block, in one number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Actor(u64);

/// Bits of a thread's number; the largest value stands for several threads.
const THREAD_BITS: u32 = 11;
const SEVERAL: u64 = (1 << THREAD_BITS) - 1;
/// The block that stands for several blocks.
const BLOCKS: u64 = u32::MAX as u64;
/// No access at all.
const NONE: u64 = 0;
/// Nobody has written.
const UNWRITTEN: u64 = u64::MAX;
/// An asynchronous copy is under way.
const IN_FLIGHT: u64 = u64::MAX - 1;

impl Actor {
    /// A thread of a block that has passed `epoch` barriers.
    pub fn new(block: u32, epoch: u32, thread: u32) -> Actor {
        let epoch = u64::from(epoch) & ((1 << (32 - THREAD_BITS)) - 1);
        Actor((u64::from(block) + 1) << 32 | epoch << THREAD_BITS | u64::from(thread))
    }

    fn block(self) -> u64 {
        self.0 >> 32
    }

    fn phase(self) -> u64 {
        self.0 >> THREAD_BITS
    }

    fn thread(self) -> u64 {
        self.0 & SEVERAL
    }

    /// True where no barrier lies between the accesses of two threads.
    fn concurrent(self, other: Actor) -> bool {
        self.0 != other.0
            && (self.block() != other.block()
                || self.phase() == other.phase() && self.thread() != other.thread())
    }

    fn race(self, what: &'static str, address: u64, other: &'static str) -> Fault {
        let block = self.block();
        let thread = (self.thread() != SEVERAL).then_some(self.thread() as u32);
        let block = (block != BLOCKS).then(|| block.wrapping_sub(1) as u32);
        Fault::Race { what, address, thread, block, other }
    }
}

/// Accesses to one granule.
#[derive(Clone, Copy, Debug)]
pub struct Shadow {
    writer: u64,
    reader: u64,
}

impl Shadow {
    /// Contents that were there before.
    pub const INITIALIZED: Shadow = Shadow { writer: NONE, reader: NONE };
    /// Contents that nobody has written.
    pub const UNINITIALIZED: Shadow = Shadow { writer: UNWRITTEN, reader: NONE };

    /// A read.
    #[inline]
    pub fn read(&mut self, address: u64, actor: Actor) -> Result<(), Fault> {
        match self.writer {
            NONE => {}
            UNWRITTEN => return Err(Fault::Uninitialized { address }),
            IN_FLIGHT => return Err(Fault::InFlight { address }),
            writer => {
                let writer = Actor(writer);
                if writer.concurrent(actor) {
                    return Err(writer.race("reads", address, "wrote"));
                }
            }
        }
        let reader = Actor(self.reader);
        if reader.0 == actor.0 {
            return Ok(());
        }
        self.reader = if self.reader == NONE {
            actor.0
        } else if reader.block() != actor.block() {
            BLOCKS << 32 | SEVERAL
        } else if reader.phase() == actor.phase() {
            actor.0 | SEVERAL
        } else {
            actor.0
        };
        Ok(())
    }

    /// A write; `same`: the granule has the value already.
    #[inline]
    pub fn write(&mut self, address: u64, actor: Actor, same: bool) -> Result<(), Fault> {
        match self.writer {
            NONE | UNWRITTEN => {}
            IN_FLIGHT => return Err(Fault::InFlight { address }),
            writer => {
                let writer = Actor(writer);
                if !same && writer.concurrent(actor) {
                    return Err(writer.race("writes", address, "wrote"));
                }
            }
        }
        if self.reader != NONE {
            let reader = Actor(self.reader);
            if reader.concurrent(actor) {
                return Err(reader.race("writes", address, "read"));
            }
        }
        self.writer = actor.0;
        Ok(())
    }

    /// The start of an asynchronous copy.
    pub fn depart(&mut self, address: u64, actor: Actor) -> Result<(), Fault> {
        self.write(address, actor, false)?;
        self.writer = IN_FLIGHT;
        Ok(())
    }

    /// Its end, seen by the thread that started it.
    pub fn land(&mut self, actor: Actor) {
        self.writer = actor.0;
    }
}

struct Open {
    address: u64,
    end: u64,
    writable: bool,
    /// No writable window before it overlaps it.
    alone: bool,
    allocation: usize,
    /// Offset of the window in its allocation.
    offset: usize,
    /// By granule from the one that holds the first byte; empty for memory that is only read.
    shadow: Vec<Shadow>,
}

/// Device memory as a launch sees it.
pub struct Global<'m> {
    memory: &'m mut Memory,
    windows: Vec<Open>,
    granule: u64,
    last: usize,
}

impl<'m> Global<'m> {
    /// Opens windows; what can be written comes first, so that it has its shadow also where others overlap it.
    pub fn open(memory: &'m mut Memory, windows: &[Window], granule: u64) -> Result<Global<'m>, String> {
        let mut open = Vec::with_capacity(windows.len());
        for window in windows.iter().filter(|window| window.bytes > 0) {
            let Some((allocation, offset)) = memory.find(window.address, window.bytes) else {
                return Err(format!("{} bytes at {:#x} are not allocated", window.bytes, window.address));
            };
            let end = window.address + window.bytes;
            let granules = (end.div_ceil(granule) - window.address / granule) as usize;
            let shadow = match window.usage {
                Use::Read => Vec::new(),
                Use::Write => vec![Shadow::INITIALIZED; granules],
                Use::Scratch => vec![Shadow::UNINITIALIZED; granules],
            };
            let writable = window.usage != Use::Read;
            let alone = !windows.iter().any(|other| {
                other.usage != Use::Read
                    && other.address < end
                    && window.address < other.address + other.bytes
            });
            open.push(Open { address: window.address, end, writable, alone, allocation, offset, shadow });
        }
        open.sort_by_key(|window| !window.writable);
        Ok(Global { memory, windows: open, granule, last: 0 })
    }

    #[inline]
    fn window(&mut self, address: u64, size: u64) -> Result<usize, Fault> {
        let inside = |window: &Open| {
            window.address <= address && address.checked_add(size).is_some_and(|end| end <= window.end)
        };
        let known = self.windows.get(self.last);
        let known = known.is_some_and(|window| (window.writable || window.alone) && inside(window));
        if !known {
            self.last = match self.windows.iter().position(inside) {
                Some(index) => index,
                None => return Err(self.outside(address, size)),
            };
        }
        Ok(self.last)
    }

    #[cold]
    fn outside(&self, address: u64, size: u64) -> Fault {
        let below = self.windows.iter().filter(|window| window.address <= address);
        let place = match below.max_by_key(|window| window.address) {
            Some(window) => {
                format!("at byte {} of a buffer of {}", address - window.address, window.end - window.address)
            }
            None => "below all buffers".to_string(),
        };
        Fault::OutOfBounds { address, size, place }
    }

    /// Reads bytes that one lane asks for.
    #[inline]
    pub fn read(&mut self, address: u64, into: &mut [u8], actor: Actor) -> Result<(), Fault> {
        let size = into.len() as u64;
        if !address.is_multiple_of(size) {
            return Err(Fault::Misaligned { address, size });
        }
        let index = self.window(address, size)?;
        let granule = self.granule;
        let window = &mut self.windows[index];
        if window.writable {
            let first = window.address / granule;
            for number in address / granule..(address + size) / granule {
                window.shadow[(number - first) as usize].read(number * granule, actor)?;
            }
        }
        let start = window.offset + (address - window.address) as usize;
        into.copy_from_slice(&self.memory.allocations[window.allocation].bytes[start..start + into.len()]);
        Ok(())
    }

    /// The bytes of a range that is only read; none where it is not in one such window.
    #[inline]
    pub fn constant(&mut self, address: u64, size: u64) -> Option<&[u8]> {
        let index = self.window(address, size).ok()?;
        let window = &self.windows[index];
        if window.writable {
            return None;
        }
        let start = window.offset + (address - window.address) as usize;
        Some(&self.memory.allocations[window.allocation].bytes[start..start + size as usize])
    }

    /// Writes bytes of one lane.
    #[inline]
    pub fn write(&mut self, address: u64, from: &[u8], actor: Actor) -> Result<(), Fault> {
        let size = from.len() as u64;
        if !address.is_multiple_of(size) {
            return Err(Fault::Misaligned { address, size });
        }
        let index = self.window(address, size)?;
        let granule = self.granule;
        let window = &mut self.windows[index];
        if !window.writable {
            return Err(Fault::ReadOnly { address });
        }
        let start = window.offset + (address - window.address) as usize;
        let bytes = &mut self.memory.allocations[window.allocation].bytes[start..start + from.len()];
        let first = window.address / granule;
        for (part, number) in (address / granule..(address + size) / granule).enumerate() {
            let part = part * granule as usize..(part + 1) * granule as usize;
            let same = bytes[part.clone()] == from[part];
            window.shadow[(number - first) as usize].write(number * granule, actor, same)?;
        }
        bytes.copy_from_slice(from);
        Ok(())
    }
}

/// Memory of a block.
pub struct Shared {
    bytes: Vec<u8>,
    shadow: Vec<Shadow>,
    granule: u64,
    /// Address and size of each variable, in ascending order.
    variables: Vec<(u64, u64)>,
}

impl Shared {
    /// Memory for variables at these addresses.
    pub fn new(variables: &[(u64, u64)], granule: u64) -> Shared {
        let end = variables.iter().map(|(address, bytes)| address + bytes).max().unwrap_or(0);
        let granules = end.div_ceil(granule) as usize;
        let mut variables = variables.to_vec();
        variables.sort_unstable();
        let shadow = vec![Shadow::UNINITIALIZED; granules];
        Shared { bytes: vec![0xa5; end as usize], shadow, granule, variables }
    }

    /// Makes the memory ready for the next block.
    pub fn reset(&mut self) {
        self.shadow.fill(Shadow::UNINITIALIZED);
    }

    #[inline]
    fn check(&self, address: u64, size: u64) -> Result<(), Fault> {
        if !address.is_multiple_of(size) {
            return Err(Fault::Misaligned { address, size });
        }
        let inside = |(start, bytes): &&(u64, u64)| {
            *start <= address && address.checked_add(size).is_some_and(|end| end <= start + bytes)
        };
        if self.variables.iter().any(|variable| inside(&variable)) {
            return Ok(());
        }
        let below = self.variables.iter().rev().find(|(start, _)| *start <= address);
        let place = match below {
            Some((start, bytes)) => format!("at byte {} of a shared variable of {bytes}", address - start),
            None => "below all shared variables".to_string(),
        };
        Err(Fault::OutOfBounds { address, size, place })
    }

    fn granules(&self, address: u64, size: u64) -> std::ops::Range<usize> {
        (address / self.granule) as usize..((address + size) / self.granule) as usize
    }

    /// Reads bytes that one lane asks for.
    #[inline]
    pub fn read(&mut self, address: u64, into: &mut [u8], actor: Actor) -> Result<(), Fault> {
        let size = into.len() as u64;
        self.check(address, size)?;
        for number in self.granules(address, size) {
            self.shadow[number].read(number as u64 * self.granule, actor)?;
        }
        into.copy_from_slice(&self.bytes[address as usize..][..into.len()]);
        Ok(())
    }

    /// Writes bytes of one lane.
    #[inline]
    pub fn write(&mut self, address: u64, from: &[u8], actor: Actor) -> Result<(), Fault> {
        let size = from.len() as u64;
        self.check(address, size)?;
        let bytes = &mut self.bytes[address as usize..][..from.len()];
        for (part, number) in (address / self.granule..(address + size) / self.granule).enumerate() {
            let part = part * self.granule as usize..(part + 1) * self.granule as usize;
            let same = bytes[part.clone()] == from[part];
            self.shadow[number as usize].write(number * self.granule, actor, same)?;
        }
        bytes.copy_from_slice(from);
        Ok(())
    }

    /// Starts an asynchronous copy to these bytes.
    pub fn depart(&mut self, address: u64, size: u64, actor: Actor) -> Result<(), Fault> {
        self.check(address, size)?;
        for number in self.granules(address, size) {
            self.shadow[number].depart(number as u64 * self.granule, actor)?;
        }
        Ok(())
    }

    /// Ends it.
    pub fn land(&mut self, address: u64, from: &[u8], actor: Actor) {
        for number in self.granules(address, from.len() as u64) {
            self.shadow[number].land(actor);
        }
        self.bytes[address as usize..][..from.len()].copy_from_slice(from);
    }
}

/// Memory of one thread.
#[derive(Default)]
pub struct Local {
    bytes: Vec<u8>,
    written: Vec<bool>,
}

impl Local {
    /// Memory without contents.
    pub fn reset(&mut self, bytes: usize) {
        self.bytes.resize(bytes, 0xa5);
        self.written.clear();
        self.written.resize(bytes, false);
    }

    fn range(&self, address: u64, size: u64) -> Result<std::ops::Range<usize>, Fault> {
        if !address.is_multiple_of(size) {
            return Err(Fault::Misaligned { address, size });
        }
        match address.checked_add(size).filter(|end| *end <= self.bytes.len() as u64) {
            Some(end) => Ok(address as usize..end as usize),
            None => {
                let place = format!("past the {} bytes of the thread", self.bytes.len());
                Err(Fault::OutOfBounds { address, size, place })
            }
        }
    }

    /// Reads bytes.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Fault> {
        let range = self.range(address, into.len() as u64)?;
        if let Some(unwritten) = self.written[range.clone()].iter().position(|written| !written) {
            return Err(Fault::Uninitialized { address: address + unwritten as u64 });
        }
        into.copy_from_slice(&self.bytes[range]);
        Ok(())
    }

    /// Writes bytes.
    pub fn write(&mut self, address: u64, from: &[u8]) -> Result<(), Fault> {
        let range = self.range(address, from.len() as u64)?;
        self.written[range.clone()].fill(true);
        self.bytes[range].copy_from_slice(from);
        Ok(())
    }
}
