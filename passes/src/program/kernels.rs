//! The kernel table: equal kernels are shared, and each gets a unique symbol name.

use std::collections::HashMap;

use tcc_kernel::Kernel;
use tcc_kernel::ir::Access;
use tcc_runtime::manifest;

/// Kernels under construction.
#[derive(Default)]
pub struct Kernels {
    /// Kernel bodies.
    pub bodies: Vec<Kernel>,
    /// Manifest entries.
    pub table: Vec<manifest::Kernel>,
    known: HashMap<String, u32>,
}

impl Kernels {
    /// Adds a kernel, or returns the equal one.
    pub fn add(&mut self, mut kernel: Kernel) -> u32 {
        let base = std::mem::take(&mut kernel.name);
        // The debug form is the whole structure, so equal forms are equal kernels. Names stay out of it: kernels number their
        // dimensions, and the copies of a concatenation differ in nothing else than which operand they read.
        let dims = std::mem::take(&mut kernel.dims);
        let names: Vec<String> =
            kernel.buffers.iter_mut().map(|buffer| std::mem::take(&mut buffer.name)).collect();
        let key = format!("{kernel:?}");
        kernel.dims = dims;
        kernel.buffers.iter_mut().zip(names).for_each(|(buffer, name)| buffer.name = name);
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let number = self.bodies.len() as u32;
        kernel.name = format!("tcc_{number}_{base}");
        self.table.push(manifest::Kernel {
            symbol: kernel.name.clone(),
            buffers: kernel
                .arguments()
                .map(|buffer| match buffer.access {
                    Access::Read => manifest::Access::Read,
                    Access::Write => manifest::Access::Write,
                    Access::ReadWrite => manifest::Access::ReadWrite,
                })
                .collect(),
            dims: kernel.dims.len() as u32,
        });
        self.bodies.push(kernel);
        self.known.insert(key, number);
        number
    }
}
