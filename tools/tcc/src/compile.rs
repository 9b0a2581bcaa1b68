//! From a model to code: import, passes, program, kernels, objects.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tcc_ir::module::Module;
use tcc_kernel::Kernel;
use tcc_kernel::passes::finalize;
use tcc_passes::Context;
use tcc_passes::kvcache::{self, CacheOptions};
use tcc_passes::program::{Program, ProgramOptions, build};
use tcc_passes::quantize::Activations;
use tcc_ptx::PtxModule;
use tcc_runtime::code::CodeImage;
use tcc_runtime::manifest::{KernelFn, Manifest};
use tcc_runtime::program::{Executable, WeightData};
use tcc_runtime::{BundleWriter, program};

use crate::device::{self, Device};
use crate::error::Error;
use crate::model::{Dims, Model};
use crate::target::{Backend, Target};

/// Takes a line about a stage.
type Listener = dyn Fn(&str) + Send + Sync;

/// Who hears which stage a compilation has come to; nobody by default.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<Listener>>);

impl Progress {
    /// Calls `hear` with a line at the start of each stage, on the thread that compiles.
    pub fn new(hear: impl Fn(&str) + Send + Sync + 'static) -> Progress {
        Progress(Some(Arc::new(hear)))
    }

    fn stage(&self, what: &str) {
        if let Some(hear) = &self.0 {
            hear(what);
        }
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Progress(heard)" } else { "Progress" })
    }
}

/// How a model is compiled.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// For which machine.
    pub target: Target,
    /// Ranges and values of symbolic dimensions.
    pub dims: Dims,
    /// Threads that generate code.
    pub threads: usize,
    /// 0: no rewrites; 1 to 3: all rewrites, and how hard LLVM tries.
    pub level: u8,
    /// Where the program runs.
    pub device: Device,
    /// How products with block-quantized weights take their activations; where it is not given, as floats, and in language
    /// models as each entry says.
    pub activations: Option<Activations>,
    /// Format of key-value caches.
    pub caches: CacheOptions,
    /// Name of the entry among those of a bundle.
    pub entry: String,
    /// Who hears what is being done.
    pub progress: Progress,
}

impl CompileOptions {
    /// Defaults for a target: all cores, level 2.
    pub fn new(target: Target) -> CompileOptions {
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
        let device = Device::of(&target);
        CompileOptions {
            target,
            dims: Dims::new(),
            threads,
            level: 2,
            device,
            activations: None,
            caches: CacheOptions::default(),
            entry: String::new(),
            progress: Progress::default(),
        }
    }
}

/// A compiled model: manifest, code objects and weights.
#[derive(Debug)]
pub struct Compiled {
    /// Everything but code and weights.
    pub manifest: Manifest,
    /// Relocatable objects that hold the kernels; none of a PTX target.
    pub objects: Vec<Vec<u8>>,
    /// The kernels of a PTX target.
    pub ptx: Option<Arc<PtxModule>>,
    /// Where the program runs.
    pub device: Device,
    /// Contents of the manifest's weight table.
    pub weights: Vec<Bytes>,
    /// The optimized module.
    pub module: Module,
    /// The kernels as the code generator took them.
    pub kernels: Vec<Kernel>,
}

/// Compiles a model.
pub fn compile(model: &Model, options: &CompileOptions) -> Result<Compiled, Error> {
    let start = Instant::now();
    options.progress.stage("reading the model");
    let module = model.import(&options.dims)?;
    log::info!("import: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    compile_module(module, &model.name(), options)
}

/// Runs the passes of an optimization level.
pub fn optimize(module: &mut Module, options: &CompileOptions) -> Result<(), Error> {
    let mut context = Context::new(options.target.cost.clone());
    context.activations = options.activations.unwrap_or_default();
    context.caches = options.caches;
    let progress = options.progress.clone();
    context.observer = Some(Box::new(move |pass, after, _| {
        if !after {
            progress.stage(&format!("optimizing: {pass}"));
        }
    }));
    match options.level {
        0 => tcc_passes::run_passes(module, &["inline", "dce"], &context)?,
        _ => tcc_passes::optimize(module, &context)?,
    }
    Ok(())
}

/// Compiles a module.
pub fn compile_module(mut module: Module, name: &str, options: &CompileOptions) -> Result<Compiled, Error> {
    optimize(&mut module, options)?;
    let start = Instant::now();
    options.progress.stage("writing kernels, planning memory");
    let program_options = ProgramOptions {
        tuning: options.target.tuning(),
        name: name.to_string(),
        target: options.target.requirements(),
    };
    let Program { mut manifest, mut kernels, weights } = build(&module, &program_options)?;
    manifest.entry.clone_from(&options.entry);
    let caches = kvcache::explain(&module, &options.target.cost);
    if !caches.is_empty() {
        manifest.metadata.insert("caches".to_string(), caches.join("\n"));
    }
    manifest.metadata.insert("machine_model".into(), options.target.cost_origin.clone());
    log::info!("program: {} kernels, {:.1} ms", kernels.len(), start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    let device = options.device;
    if let Backend::Ptx(target) = &options.target.backend {
        let failed = |error: tcc_ptx::Error| Error::Target {
            name: options.target.name.clone(),
            reason: error.to_string(),
        };
        let ptx = tcc_ptx::module(&kernels, target).map_err(failed)?;
        log::info!("code: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
        let (objects, ptx) = (Vec::new(), Some(Arc::new(ptx)));
        return Ok(Compiled { manifest, objects, ptx, device, weights, module, kernels });
    }
    options.progress.stage(&format!("generating code for {} kernels", kernels.len()));
    finalize_all(&mut kernels, options)?;
    log::info!("kernel passes: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    let objects = generate(&kernels, options)?;
    log::info!("code: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    Ok(Compiled { manifest, objects, ptx: None, device, weights, module, kernels })
}

/// Makes all kernels ready for the backend, on several threads.
fn finalize_all(kernels: &mut [Kernel], options: &CompileOptions) -> Result<(), Error> {
    let machine = options.target.machine;
    let share = kernels.len().div_ceil(options.threads.max(1)).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = kernels
            .chunks_mut(share)
            .map(|part| {
                scope.spawn(move || part.iter_mut().try_for_each(|kernel| finalize(kernel, &machine)))
            })
            .collect();
        for part in parts {
            match part.join() {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })
}

/// Code for finalized kernels.
pub(crate) fn generate(kernels: &[Kernel], options: &CompileOptions) -> Result<Vec<Vec<u8>>, Error> {
    if kernels.is_empty() {
        return Ok(Vec::new());
    }
    match &options.target.backend {
        #[cfg(feature = "llvm")]
        Backend::Llvm(target) => {
            let level = tcc_llvm::Options { level: options.level };
            let objects = tcc_llvm::compile_parallel(kernels, target, level, options.threads)
                .map_err(|error| Error::Codegen(error.to_string()))?;
            Ok(objects.iter().map(|object| object.bytes().to_vec()).collect())
        }
        Backend::Cranelift(target) => {
            let object =
                tcc_cranelift::compile(kernels, target).map_err(|error| Error::Codegen(error.to_string()))?;
            Ok(vec![object.bytes().to_vec()])
        }
        Backend::Ptx(_) => Ok(Vec::new()),
    }
}

/// Weights whose bytes stay where they are.
fn weight_data(bytes: &Bytes) -> Result<WeightData, Error> {
    WeightData::new(Arc::new(bytes.clone()), 0..bytes.len())
        .ok_or_else(|| Error::Codegen("a weight is shorter than itself".into()))
}

impl Compiled {
    /// The program on its device: loaded into this process, or handed to a GPU or its simulator.
    pub fn executable(&self) -> Result<Arc<Executable>, Error> {
        if let Some(ptx) = &self.ptx {
            let device = device::open(self.device, ptx, &self.manifest)?;
            let weights = self.weights.iter().map(weight_data).collect::<Result<Vec<_>, _>>()?;
            return Ok(Arc::new(Executable::on_device(self.manifest.clone(), weights, device)?));
        }
        let images =
            self.objects.iter().map(|object| CodeImage::load(object)).collect::<Result<Vec<_>, _>>()?;
        let mut kernels: Vec<KernelFn> = Vec::with_capacity(self.manifest.kernels.len());
        for kernel in &self.manifest.kernels {
            let address = images
                .iter()
                .find_map(|image| image.function(&kernel.symbol))
                .ok_or_else(|| Error::Codegen(format!("kernel {} is in no object", kernel.symbol)))?;
            // SAFETY: the code generators give every kernel this type, and the image outlives the executable, which
            // owns it below.
            kernels.push(unsafe { std::mem::transmute::<*const u8, KernelFn>(address) });
        }
        let weights = self.weights.iter().map(weight_data).collect::<Result<Vec<_>, _>>()?;
        let program =
            program::Program { manifest: self.manifest.clone(), kernels, weights, code: Box::new(images) };
        // SAFETY: the kernels were generated from the lowering that wrote this manifest: they access the buffers that it
        // lists, within the shapes that it lists, and do not unwind.
        let executable = unsafe { Executable::from_program(program) }?;
        Ok(Arc::new(executable))
    }

    /// The launch plan of a PTX target as JSON: `target`, `launches`, one for each kernel, and `manifest`, the steps with
    /// their arguments and arena offsets.
    pub fn launch_plan(&self) -> Result<String, Error> {
        let launches = self.ptx.as_ref().map(|ptx| &ptx.launch);
        let plan = serde_json::json!({
            "target": self.manifest.target.arch, "launches": launches, "manifest": self.manifest,
        });
        serde_json::to_string_pretty(&plan).map_err(|error| Error::Codegen(error.to_string()))
    }

    /// Writes a bundle, all at once or not at all.
    pub fn write_bundle(&self, path: &Path) -> Result<(), Error> {
        write_entries(std::slice::from_ref(self), None, path)
    }
}

/// Writes a bundle of several entries, whose names differ, with metadata for who loads it; weights of equal contents are
/// stored once. All at once or not at all.
pub fn write_entries(entries: &[Compiled], metadata: Option<Vec<u8>>, path: &Path) -> Result<(), Error> {
    let mut writer: Option<BundleWriter> = None;
    for entry in entries {
        let mut next = match writer.take() {
            Some(writer) => writer.entry(entry.manifest.clone()),
            None => BundleWriter::new(entry.manifest.clone()),
        };
        for object in &entry.objects {
            next = next.code(object.clone());
        }
        for weight in &entry.weights {
            next = next.weight(weight_data(weight)?);
        }
        writer = Some(next);
    }
    let mut writer = writer.ok_or_else(|| Error::Codegen("a bundle has at least one entry".into()))?;
    if let Some(metadata) = metadata {
        writer = writer.metadata(metadata);
    }
    if path.exists() && !path.is_file() {
        // A pipe or a device is written to, not replaced.
        let bytes = writer.to_bytes()?;
        return std::fs::write(path, bytes).map_err(|source| Error::Io { path: path.to_owned(), source });
    }
    Ok(writer.write(path)?)
}

/// Lets entries that run in this process hold weights of equal contents once.
pub fn share_weights(entries: &mut [Compiled]) {
    let mut known: HashMap<blake3::Hash, Bytes> = HashMap::new();
    for weight in entries.iter_mut().flat_map(|entry| &mut entry.weights) {
        let shared = known.entry(blake3::hash(weight)).or_insert_with(|| weight.clone());
        *weight = shared.clone();
    }
}

#[cfg(feature = "llvm")]
pub use tcc_llvm::Text;

#[cfg(feature = "llvm")]
impl Compiled {
    /// The kernels as text at one stage of code generation.
    pub fn text(&self, kind: Text, options: &CompileOptions) -> Result<String, Error> {
        match &options.target.backend {
            Backend::Llvm(target) => {
                let level = tcc_llvm::Options { level: options.level };
                tcc_llvm::emit_text(&self.kernels, kind, target, level)
                    .map_err(|error| Error::Codegen(error.to_string()))
            }
            Backend::Cranelift(_) | Backend::Ptx(_) => Err(Error::Target {
                name: options.target.name.clone(),
                reason: "it has no such text form; use --target cpu".into(),
            }),
        }
    }
}
