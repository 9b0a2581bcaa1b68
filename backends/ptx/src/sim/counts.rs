//! What a run costs: instructions by class, sectors and bank conflicts.

use super::execute::Doubles;
use super::instruction::{Arithmetic, Op, Space};
use super::machine::WARP;

/// Bytes of a sector of global memory.
const SECTOR: u64 = 32;

/// Executed instructions of warps, by class, and what their memory accesses cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// All instructions.
    pub instructions: u64,
    /// Arithmetic on floats.
    pub float: u64,
    /// Fused multiply-adds among them.
    pub fma: u64,
    /// Matrix instructions of tensor cores.
    pub matrix: u64,
    /// Arithmetic on integers and predicates.
    pub integer: u64,
    /// Conversions.
    pub convert: u64,
    /// Comparisons, selections, moves, and exchanges between lanes.
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
    /// Bytes of those that they ask for; lanes that ask for the same share them.
    pub global_bytes: u64,
    /// Loads and stores of shared memory.
    pub shared_requests: u64,
    /// Further cycles that they take as several words lie in one bank.
    pub bank_conflicts: u64,
    /// Loads and stores of local memory.
    pub local_requests: u64,
}

impl Counts {
    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Counts) {
        let Counts {
            instructions,
            float,
            fma,
            matrix,
            integer,
            convert,
            other: rest,
            branches,
            divergent,
            barriers,
            global_requests,
            global_sectors,
            global_bytes,
            shared_requests,
            bank_conflicts,
            local_requests,
        } = other;
        self.instructions += instructions;
        self.float += float;
        self.fma += fma;
        self.matrix += matrix;
        self.integer += integer;
        self.convert += convert;
        self.other += rest;
        self.branches += branches;
        self.divergent += divergent;
        self.barriers += barriers;
        self.global_requests += global_requests;
        self.global_sectors += global_sectors;
        self.global_bytes += global_bytes;
        self.shared_requests += shared_requests;
        self.bank_conflicts += bank_conflicts;
        self.local_requests += local_requests;
    }

    /// Counts an instruction of so many lanes, of which some are active.
    #[inline]
    pub fn instruction(&mut self, op: &Op, group: u32, active: u32) {
        self.instructions += 1;
        match op {
            Op::Arithmetic(op, ty) if ty.is_float() => {
                self.float += 1;
                self.fma += u64::from(*op == Arithmetic::Fma);
            }
            Op::Arithmetic(..) => self.integer += 1,
            Op::Matrix(_) => self.matrix += 1,
            Op::Convert { .. } => self.convert += 1,
            Op::Branch(_) => {
                self.branches += 1;
                self.divergent += u64::from(active != 0 && active != group);
            }
            Op::Barrier => self.barriers += 1,
            Op::Load(..) | Op::Store(..) | Op::LoadMatrix(..) | Op::CopyAsync(_) => {}
            _ => self.other += 1,
        }
    }

    /// Counts an access of `size` bytes at the addresses of the lanes of a mask.
    pub fn lanes(&mut self, space: Space, addresses: &Doubles, active: u32, size: u64) {
        if active == u32::MAX {
            return self.access(space, addresses, size);
        }
        let addresses: Vec<u64> =
            (0..WARP).filter(|lane| active >> lane & 1 == 1).map(|lane| addresses[lane]).collect();
        self.access(space, &addresses, size);
    }

    /// Counts an access of `size` bytes at each of these addresses.
    pub fn access(&mut self, space: Space, addresses: &[u64], size: u64) {
        let Some((&first, rest)) = addresses.split_first() else { return };
        let uniform = rest.iter().all(|address| *address == first);
        match space {
            Space::Local => self.local_requests += 1,
            Space::Global => {
                self.global_requests += 1;
                let (bytes, sectors) = if uniform {
                    (size, 1)
                } else if rest.iter().zip(1..).all(|(address, lane)| *address == first + lane * size) {
                    let bytes = size * addresses.len() as u64;
                    (bytes, (first + bytes).div_ceil(SECTOR) - first / SECTOR)
                } else {
                    let distinct = |mut numbers: Vec<u64>| {
                        numbers.sort_unstable();
                        numbers.dedup();
                        numbers.len() as u64
                    };
                    let sectors = addresses.iter().map(|address| address / SECTOR).collect();
                    (size * distinct(addresses.to_vec()), distinct(sectors))
                };
                self.global_bytes += bytes;
                self.global_sectors += sectors;
            }
            Space::Shared => {
                self.shared_requests += 1;
                if !uniform {
                    self.bank_conflicts += conflicts(addresses, size);
                }
            }
        }
    }
}

/// Cycles beyond the fewest that the words of a shared access take in 32 banks of 4 bytes. 8-byte accesses go in two halves
/// of the warp, 16-byte accesses in four quarters; lanes that read one word share it.
fn conflicts(addresses: &[u64], size: u64) -> u64 {
    let lanes = match size {
        ..=4 => 32,
        8 => 16,
        _ => 8,
    };
    let mut further = 0;
    for part in addresses.chunks(lanes) {
        let mut words = [0u64; 32];
        let mut count = 0;
        for address in part {
            for word in address / 4..(address + size).div_ceil(4) {
                words[count] = word;
                count += 1;
            }
        }
        let words = &mut words[..count];
        words.sort_unstable();
        let mut banks = [0u64; 32];
        let mut last = u64::MAX;
        for word in words {
            if *word != last {
                banks[(*word % 32) as usize] += 1;
                last = *word;
            }
        }
        further += banks.iter().max().copied().unwrap_or(0).saturating_sub(1);
    }
    further
}
