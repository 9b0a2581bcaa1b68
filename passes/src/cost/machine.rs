//! Machine models: what a target can do, as every pass sees it.

use serde::{Deserialize, Serialize};

/// One level of the cache hierarchy.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CacheLevel {
    /// Capacity that one core sees.
    pub bytes: u64,
    /// Bandwidth of one core, in gigabytes a second.
    pub gigabytes_per_second: f64,
    /// True where all cores share the capacity.
    pub shared: bool,
}

/// What a target can do. Rates are those of one core.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Target name, such as `cpu:x86-64-v3`.
    pub name: String,
    /// Cores that a run may use.
    pub cores: usize,
    /// Width of a vector register in bytes.
    pub vector_bytes: usize,
    /// Fused multiply-adds of `f32`, two operations each, in billions of operations a second.
    pub f32_gigaflops: f64,
    /// The same for 8-bit integers accumulated in 32 bits.
    pub int8_gigaops: f64,
    /// Elementwise scalar functions such as addition, in billions of `f32` elements a second.
    pub elementwise_gigaops: f64,
    /// Transcendental functions, in billions of `f32` elements a second.
    pub transcendental_gigaops: f64,
    /// Caches, innermost first.
    pub caches: Vec<CacheLevel>,
    /// Main memory bandwidth of one core, in gigabytes a second.
    pub memory_gigabytes_per_second: f64,
    /// Main memory bandwidth of all cores together.
    pub total_memory_gigabytes_per_second: f64,
    /// Starting one kernel, in microseconds.
    pub launch_microseconds: f64,
    /// How many times slower a convolution runs on channels-first data.
    pub channels_first_factor: f64,
}

/// Targets without a vector unit of their own in the table run at this clock.
const GIGAHERTZ: f64 = 3.0;

impl Machine {
    /// A CPU whose core does `units` vector multiply-adds a cycle on registers of `vector_bytes`.
    fn cpu(name: &str, vector_bytes: usize, units: f64, int8_ratio: f64) -> Machine {
        let lanes = vector_bytes as f64 / 4.0;
        let f32_gigaflops = 2.0 * lanes * units * GIGAHERTZ;
        Machine {
            name: name.to_string(),
            cores: 4,
            vector_bytes,
            f32_gigaflops,
            int8_gigaops: f32_gigaflops * int8_ratio,
            elementwise_gigaops: lanes * units * GIGAHERTZ,
            transcendental_gigaops: lanes * units * GIGAHERTZ / 16.0,
            caches: vec![
                CacheLevel {
                    bytes: 32 << 10,
                    gigabytes_per_second: vector_bytes as f64 * GIGAHERTZ,
                    shared: false,
                },
                CacheLevel { bytes: 1 << 20, gigabytes_per_second: 64.0, shared: false },
                CacheLevel { bytes: 16 << 20, gigabytes_per_second: 32.0, shared: true },
            ],
            memory_gigabytes_per_second: 14.0,
            total_memory_gigabytes_per_second: 30.0,
            launch_microseconds: 1.0,
            channels_first_factor: 50.0,
        }
    }

    /// The shipped table of CPU targets.
    pub fn table() -> Vec<Machine> {
        vec![
            Machine::cpu("cpu:x86-64", 16, 1.0, 1.0),
            Machine::cpu("cpu:x86-64-v2", 16, 1.0, 1.5),
            Machine::cpu("cpu:x86-64-v3", 32, 2.0, 2.0),
            Machine::cpu("cpu:x86-64-v4", 64, 1.5, 4.0),
            Machine::cpu("cpu:aarch64", 16, 2.0, 4.0),
            Machine::cpu("cpu:riscv64", 16, 1.0, 1.0),
            Machine::cpu("cpu:wasm32", 16, 0.5, 1.0),
            // Parts programmed through kernels of their own: rates of one multiprocessor or one pipeline.
            Machine { launch_microseconds: 4.0, cores: 32, ..Machine::cpu("ptx", 128, 2.0, 8.0) },
            Machine { launch_microseconds: 0.0, cores: 1, ..Machine::cpu("hls", 64, 1.0, 2.0) },
        ]
    }

    /// The model of a target; a prefix such as `ptx` serves `ptx:sm_80`. `cpu` and `cranelift` are this host.
    pub fn of(target: &str) -> Option<Machine> {
        if target == "cpu" || target == "cranelift" {
            return Some(Machine::host());
        }
        let family = target.split(':').next().unwrap_or(target);
        let table = Machine::table();
        table
            .iter()
            .find(|machine| machine.name == target)
            .or_else(|| table.iter().find(|m| m.name == family))
            .cloned()
    }

    /// This host by its instruction set, until it is measured.
    pub fn host() -> Machine {
        let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
        let of = |name: &str| Machine::of(name).unwrap_or_else(|| Machine::cpu(name, 16, 1.0, 1.0));
        #[cfg(target_arch = "x86_64")]
        let found = if std::arch::is_x86_feature_detected!("avx512f") {
            of("cpu:x86-64-v4")
        } else if std::arch::is_x86_feature_detected!("avx2") {
            of("cpu:x86-64-v3")
        } else {
            of("cpu:x86-64-v2")
        };
        #[cfg(target_arch = "aarch64")]
        let found = of("cpu:aarch64");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let found = of("cpu:riscv64");
        Machine { cores, ..found }
    }

    /// True for processors, false for parts that are programmed through kernels of their own.
    pub fn is_processor(&self) -> bool {
        self.name.starts_with("cpu")
    }

    /// Seconds to move `bytes` that were last touched by the step before: from the smallest cache that holds them.
    pub fn seconds_to_move(&self, bytes: f64) -> f64 {
        let cores = self.cores.max(1) as f64;
        for cache in &self.caches {
            let capacity = cache.bytes as f64 * if cache.shared { 1.0 } else { cores };
            if bytes <= capacity {
                return bytes / (cache.gigabytes_per_second * cores * 1e9);
            }
        }
        let rate = self.total_memory_gigabytes_per_second.min(self.memory_gigabytes_per_second * cores);
        bytes / (rate * 1e9)
    }

    /// Seconds for an amount of work at a rate of one core in billions a second.
    pub fn seconds_at(&self, operations: f64, gigaops: f64) -> f64 {
        operations / (gigaops * self.cores.max(1) as f64 * 1e9)
    }

    /// Seconds to start a kernel.
    pub fn launch_seconds(&self) -> f64 {
        self.launch_microseconds * 1e-6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_readable_text() {
        for machine in Machine::table() {
            let text = serde_json::to_string(&machine).unwrap();
            assert_eq!(serde_json::from_str::<Machine>(&text).unwrap(), machine);
        }
    }

    #[test]
    fn families_serve_their_members() {
        assert_eq!(Machine::of("ptx:sm_80").unwrap().name, "ptx");
        assert!(Machine::of("abacus").is_none());
        assert!(Machine::of("cpu").is_some());
    }

    #[test]
    fn larger_transfers_never_take_less_time() {
        let machine = Machine::host();
        let times: Vec<f64> = (0..34).map(|power| machine.seconds_to_move((1u64 << power) as f64)).collect();
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
    }
}
