//! What passes know besides the module.

use tcc_ir::module::Module;

use crate::cost::Machine;
use crate::egraph::saturate::Limits;
use crate::kvcache::CacheOptions;
use crate::quantize::Activations;

/// Called before (`false`) and after (`true`) each pass with its name and the module.
pub type Observer = dyn Fn(&str, bool, &Module);

/// Target, limits and who watches.
pub struct Context {
    /// The machine that code is made for.
    pub machine: Machine,
    /// Limits of each saturation.
    pub limits: Limits,
    /// How products with block-quantized weights take their activations.
    pub activations: Activations,
    /// What is asked of key-value caches.
    pub caches: CacheOptions,
    /// Sees the module around each pass, for dumps.
    pub observer: Option<Box<Observer>>,
}

impl Context {
    /// Default limits for a machine.
    pub fn new(machine: Machine) -> Context {
        Context {
            machine,
            limits: Limits::default(),
            activations: Activations::default(),
            caches: CacheOptions::default(),
            observer: None,
        }
    }
}

impl Default for Context {
    fn default() -> Context {
        Context::new(Machine::host())
    }
}
