//! What a GPU could do at best: the machine model of its architecture, for roofline times of kernels. Nothing here is measured.

use tcc_passes::cost::{CacheLevel, Machine};
use tcc_ptx::{PtxModule, Target};

use crate::profile::{Profile, StepRow};

/// Special functions of a multiprocessor a cycle, on every generation.
const SPECIAL_FUNCTIONS: f64 = 16.0;

/// Bytes of shared memory, and of the second-level cache, that a multiprocessor moves a cycle.
const SHARED_BYTES: f64 = 128.0;
const L2_BYTES: f64 = 64.0;

/// Starting one kernel, in microseconds.
const LAUNCH: f64 = 3.0;

/// The model of a target's typical device; a core is a multiprocessor, whose rates are those of its lanes.
pub fn machine(target: &Target) -> Machine {
    let device = target.architecture();
    let lanes = f64::from(device.lanes) * device.clock;
    Machine {
        name: format!("ptx:{}", target.name),
        cores: device.multiprocessors as usize,
        vector_bytes: 128,
        f32_gigaflops: 2.0 * lanes,
        int8_gigaops: 2.0 * lanes,
        elementwise_gigaops: lanes,
        transcendental_gigaops: SPECIAL_FUNCTIONS * device.clock,
        caches: vec![
            CacheLevel {
                bytes: device.shared,
                gigabytes_per_second: SHARED_BYTES * device.clock,
                shared: false,
            },
            CacheLevel { bytes: device.l2, gigabytes_per_second: L2_BYTES * device.clock, shared: true },
        ],
        memory_gigabytes_per_second: L2_BYTES * device.clock,
        total_memory_gigabytes_per_second: device.bandwidth,
        launch_microseconds: LAUNCH,
        channels_first_factor: 1.0,
    }
}

/// Corrects the limits of kernels that multiply on tensor cores, which their code tells.
pub fn with_tensor_cores(profile: &mut Profile, target: &Target, ptx: &PtxModule, machine: &Machine) {
    let device = target.architecture();
    let rate = |row: &StepRow| {
        let code = entry(&ptx.text, &row.name)?;
        let bytes = code.contains(".m16n8k32.");
        let multiply_adds = f64::from(device.tensor) * device.clock * if bytes { 2.0 } else { 1.0 };
        code.contains("mma.sync").then_some(2.0 * multiply_adds)
    };
    profile.limit(machine, &rate);
}

/// The text of a kernel.
fn entry<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let start = text.find(&format!(".entry {name}("))?;
    let rest = &text[start..];
    rest.find("\n}").map(|end| &rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_whole_device() {
        let model = machine(&Target::named("sm_80").unwrap());
        let peak = model.f32_gigaflops * model.cores as f64;
        assert!((19_000.0..20_000.0).contains(&peak), "{peak}");
    }

    #[test]
    fn a_kernel_ends_where_the_next_begins() {
        let text = ".visible .entry a(\n)\n{\n\tret;\n}\n.visible .entry ab(\n)\n{\n\tmma.sync;\n}\n";
        assert!(!entry(text, "a").unwrap().contains("mma"));
        assert!(entry(text, "ab").unwrap().contains("mma"));
        assert_eq!(entry(text, "b"), None);
    }
}
