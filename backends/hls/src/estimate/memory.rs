//! Arrays in look-up tables, block memories and large memories.

use crate::part::Resources;

/// Arrays of so few bits a bank are built of look-up tables.
const DISTRIBUTED_BITS: u64 = 1024;

/// Block memories from which on a large memory is worth it.
const LARGE_BLOCKS: u64 = 32;

/// Depth and width that a block memory of 18 Kibit can be set to.
const SHAPES: [(u64, u64); 6] = [(512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1)];

/// An array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Number of elements.
    pub elements: u64,
    /// Bits of an element.
    pub width: u32,
    /// Banks that it is cut into.
    pub banks: u32,
    /// In large memories.
    pub large: bool,
}

/// The memory of a tensor; tensors that are written may go to large memories where the part has them, constants cannot.
pub fn memory(elements: u64, width: u32, banks: u32, may_be_large: bool) -> Memory {
    let memory = Memory { elements, width, banks: banks.max(1), large: false };
    Memory { large: may_be_large && memory.resources().bram18 >= LARGE_BLOCKS, ..memory }
}

impl Memory {
    /// What it takes.
    pub fn resources(&self) -> Resources {
        let (banks, width) = (u64::from(self.banks.max(1)), u64::from(self.width));
        let depth = self.elements.div_ceil(banks);
        let bits = depth.saturating_mul(width);
        let bank = if self.large {
            Resources { uram: depth.div_ceil(4096) * width.div_ceil(72), ..Resources::default() }
        } else if bits <= DISTRIBUTED_BITS {
            Resources { lut: depth.div_ceil(64) * width, ..Resources::default() }
        } else {
            let blocks = SHAPES.iter().map(|(deep, wide)| depth.div_ceil(*deep) * width.div_ceil(*wide));
            Resources { bram18: blocks.min().unwrap_or(0), ..Resources::default() }
        };
        bank.times(banks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_by_the_best_shape() {
        let blocks = |elements, width, banks| Memory { elements, width, banks, large: false }.resources();
        assert_eq!(blocks(512, 36, 1).bram18, 1);
        assert_eq!(blocks(1024, 32, 1).bram18, 2);
        assert_eq!(blocks(1024, 32, 4).bram18, 4);
        assert_eq!(blocks(20000, 1, 1).bram18, 2);
        assert_eq!(blocks(10, 16, 1), Resources { lut: 16, ..Resources::default() });
        assert_eq!(memory(100_000, 32, 1, true).resources().uram, 25);
    }
}
