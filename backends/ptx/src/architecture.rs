//! What a typical device of each generation has, for models of time. Figures are of the vendor's architecture papers and
//! specifications of the named device; the rates are those of dense arithmetic.

/// One device.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Architecture {
    /// Name for people.
    pub device: &'static str,
    /// Compute capability times ten.
    pub capability: u32,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Shared memory of a multiprocessor in bytes.
    pub shared: u64,
    /// Threads that a multiprocessor holds.
    pub threads: u32,
    /// Blocks that a multiprocessor holds.
    pub blocks: u32,
    /// Clock in GHz.
    pub clock: f64,
    /// f32 multiply-adds of a multiprocessor a cycle.
    pub lanes: u32,
    /// f16 multiply-adds of the tensor cores of a multiprocessor a cycle, with sums in f32, by `mma.sync`.
    pub tensor: u32,
    /// Memory bandwidth in GB/s.
    pub bandwidth: f64,
    /// Second-level cache in bytes.
    pub l2: u64,
}

/// 32-bit registers of a multiprocessor, on every generation.
pub const REGISTERS: u64 = 65536;

/// Known devices, oldest first.
const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        device: "T4",
        capability: 75,
        multiprocessors: 40,
        shared: 64 << 10,
        threads: 1024,
        blocks: 16,
        clock: 1.59,
        lanes: 64,
        tensor: 512,
        bandwidth: 320.0,
        l2: 4 << 20,
    },
    Architecture {
        device: "A100",
        capability: 80,
        multiprocessors: 108,
        shared: 164 << 10,
        threads: 2048,
        blocks: 32,
        clock: 1.41,
        lanes: 64,
        tensor: 1024,
        bandwidth: 1555.0,
        l2: 40 << 20,
    },
    Architecture {
        device: "RTX 3090",
        capability: 86,
        multiprocessors: 82,
        shared: 100 << 10,
        threads: 1536,
        blocks: 16,
        clock: 1.695,
        lanes: 128,
        tensor: 256,
        bandwidth: 936.0,
        l2: 6 << 20,
    },
    Architecture {
        device: "Jetson AGX Orin",
        capability: 87,
        multiprocessors: 16,
        shared: 164 << 10,
        threads: 1536,
        blocks: 16,
        clock: 1.3,
        lanes: 128,
        tensor: 512,
        bandwidth: 204.8,
        l2: 4 << 20,
    },
    Architecture {
        device: "RTX 4090",
        capability: 89,
        multiprocessors: 128,
        shared: 100 << 10,
        threads: 1536,
        blocks: 24,
        clock: 2.52,
        lanes: 128,
        tensor: 256,
        bandwidth: 1008.0,
        l2: 72 << 20,
    },
    Architecture {
        device: "H100 SXM",
        capability: 90,
        multiprocessors: 132,
        shared: 228 << 10,
        threads: 2048,
        blocks: 32,
        clock: 1.83,
        lanes: 128,
        tensor: 1024,
        bandwidth: 3350.0,
        l2: 50 << 20,
    },
    Architecture {
        device: "B200",
        capability: 100,
        multiprocessors: 148,
        shared: 228 << 10,
        threads: 2048,
        blocks: 32,
        clock: 1.85,
        lanes: 128,
        tensor: 1024,
        bandwidth: 8000.0,
        l2: 126 << 20,
    },
    Architecture {
        device: "RTX 5090",
        capability: 120,
        multiprocessors: 170,
        shared: 100 << 10,
        threads: 1536,
        blocks: 24,
        clock: 2.407,
        lanes: 128,
        tensor: 256,
        bandwidth: 1792.0,
        l2: 96 << 20,
    },
];

/// What blocks of a kernel take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resources {
    /// Threads of a block.
    pub threads: u64,
    /// Registers of a thread, from the assembler.
    pub registers: u64,
    /// Bytes of shared memory of a block.
    pub shared: u64,
}

impl Architecture {
    /// The device of the newest generation that is not newer than this one.
    pub fn of(capability: u32) -> &'static Architecture {
        let not_newer = ARCHITECTURES.iter().rev().find(|known| known.capability <= capability);
        not_newer.unwrap_or(&ARCHITECTURES[0])
    }

    /// Cycles for which one of a multiprocessor's four tensor cores is busy with an instruction of 16 x 8 results and 32 bytes of
    /// the depth; those of bytes take as long as those of 16-bit floats.
    pub fn matrix_cycles(&self) -> f64 {
        (16 * 8 * 16) as f64 / (f64::from(self.tensor) / 4.0)
    }

    /// Blocks that a multiprocessor holds at a time (CUDA programming guide, occupancy): registers are given to warps in pieces of
    /// 256, shared memory to blocks in pieces of 128 bytes and a kibibyte besides from `sm_80` on.
    pub fn resident_blocks(&self, resources: &Resources) -> u64 {
        let warps = resources.threads.div_ceil(32).max(1);
        let registers = (resources.registers.max(1) * 32).next_multiple_of(256) * warps;
        let system = if self.capability >= 80 { 1024 } else { 0 };
        let shared = resources.shared.next_multiple_of(128) + system;
        let by_shared = self.shared.checked_div(shared).unwrap_or(u64::MAX);
        (REGISTERS / registers)
            .min(by_shared)
            .min(u64::from(self.threads) / (warps * 32))
            .min(self.blocks.into())
    }

    /// The share of the threads that a multiprocessor can hold which blocks of a kernel fill.
    pub fn occupancy(&self, resources: &Resources) -> f64 {
        let threads = self.resident_blocks(resources) * resources.threads.next_multiple_of(32);
        threads as f64 / f64::from(self.threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn occupancy_is_bounded_by_the_scarcest_resource() {
        let a100 = Architecture::of(80);
        let of = |threads, registers, shared| a100.occupancy(&Resources { threads, registers, shared });
        assert_eq!(of(256, 32, 0), 1.0);
        assert_eq!(of(256, 255, 0), 0.125);
        assert_eq!(of(128, 128, 96 << 10), 128.0 / 2048.0);
        assert_eq!(of(32, 16, 0), 0.5);
    }

    #[test]
    fn generations_without_a_device_count_as_the_one_before() {
        assert_eq!(Architecture::of(103).device, "B200");
        assert_eq!(Architecture::of(80).matrix_cycles(), 8.0);
    }
}
