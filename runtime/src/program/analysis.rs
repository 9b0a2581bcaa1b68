//! What a session needs to know of a manifest at every run, computed once.

use crate::dim::DimExpr;
use crate::manifest::{KernelStep, Manifest, Step, Storage, TensorId};

/// Positions of a kernel step's arguments in the session's flat tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelSlots {
    /// First of its dims.
    pub dims: usize,
    /// First of its buffer addresses.
    pub buffers: usize,
    /// Position among the kernel steps.
    pub order: usize,
    /// Whether its arguments must be computed each time it runs, because they depend on values that steps bind or on
    /// memory that grows.
    pub dynamic: bool,
}

/// Facts about a manifest.
#[derive(Debug)]
pub(crate) struct Analysis {
    /// For each step number how many numbers the step takes with all inside.
    pub spans: Vec<u32>,
    /// For each step number the slots of a kernel step.
    pub kernels: Vec<Option<KernelSlots>>,
    /// Total numbers of dims, buffers and kernel steps.
    pub dims: usize,
    /// Total number of buffer addresses.
    pub buffers: usize,
    /// Number of kernel steps.
    pub kernel_steps: usize,
    /// Whether a tensor's shape, address or memory can change during a run.
    pub dynamic: Vec<bool>,
    /// For each tensor the one whose memory it uses.
    pub roots: Vec<TensorId>,
}

impl Analysis {
    /// Expects a manifest that is valid.
    pub fn new(manifest: &Manifest) -> Self {
        let count = manifest.tensors.len() as TensorId;
        let mut analysis = Analysis {
            spans: Vec::new(),
            kernels: Vec::new(),
            dims: 0,
            buffers: 0,
            kernel_steps: 0,
            dynamic: (0..count).map(|id| is_dynamic(manifest, id)).collect(),
            roots: (0..count).map(|id| manifest.root(id)).collect(),
        };
        analysis.list(manifest, &manifest.steps);
        analysis
    }

    fn list(&mut self, manifest: &Manifest, steps: &[Step]) {
        for step in steps {
            self.spans.push(step.count());
            let slots = match step {
                Step::Kernel(step) => Some(self.kernel(manifest, step)),
                _ => None,
            };
            self.kernels.push(slots);
            step.children().for_each(|children| self.list(manifest, children));
        }
    }

    fn kernel(&mut self, manifest: &Manifest, step: &KernelStep) -> KernelSlots {
        let depends = |dim: &DimExpr| dim.any_symbol(|id| manifest.is_data_dependent(id));
        let dynamic = step.buffers.iter().any(|&id| self.dynamic[id as usize])
            || step.dims.iter().any(depends)
            || [&step.tasks, &step.grain, &step.scratch_bytes].into_iter().any(depends);
        let slots = KernelSlots { dims: self.dims, buffers: self.buffers, order: self.kernel_steps, dynamic };
        self.dims += step.dims.len();
        self.buffers += step.buffers.len();
        self.kernel_steps += 1;
        slots
    }
}

/// Whether shape, offset or memory of a tensor depends on what happens during a run.
fn is_dynamic(manifest: &Manifest, id: TensorId) -> bool {
    let depends = |dim: &DimExpr| dim.any_symbol(|id| manifest.is_data_dependent(id));
    let tensor = &manifest.tensors[id as usize];
    tensor.shape.iter().any(depends)
        || match &tensor.storage {
            Storage::Alias { of, byte_offset } => depends(byte_offset) || is_dynamic(manifest, *of),
            Storage::Host => true,
            _ => false,
        }
}
