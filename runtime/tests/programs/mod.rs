//! Small programs in memory whose kernels are Rust functions.

#![allow(dead_code)]
// Every test binary uses its own part.

// The kernels below access what the manifests of the tests declare; that is the contract of `KernelFn`.
#![allow(clippy::undocumented_unsafe_blocks)]
#![allow(clippy::cloned_ref_to_slice_refs)] // Shapes read better as lists.

use std::sync::Arc;
use tcc_runtime::manifest::*;
use tcc_runtime::{DType, DimExpr, Executable, Program, WeightData};

/// Builds manifests with less writing.
pub struct Builder {
    pub manifest: Manifest,
    pub kernels: Vec<KernelFn>,
    pub weights: Vec<WeightData>,
}

pub fn symbol(id: u32) -> DimExpr {
    DimExpr::Symbol(id)
}

pub fn constant(value: i64) -> DimExpr {
    DimExpr::Const(value)
}

impl Builder {
    pub fn new() -> Self {
        Builder { manifest: Manifest::new("test", "tests"), kernels: Vec::new(), weights: Vec::new() }
    }

    pub fn symbol(&mut self, name: &str, lo: i64, hi: i64, source: SymbolSource) -> DimExpr {
        self.manifest.symbols.push(Symbol { name: name.into(), lo, hi, source });
        symbol(self.manifest.symbols.len() as u32 - 1)
    }

    pub fn tensor(&mut self, name: &str, dtype: DType, shape: &[DimExpr], storage: Storage) -> TensorId {
        self.manifest.tensors.push(TensorInfo { name: name.into(), dtype, shape: shape.to_vec(), storage });
        self.manifest.tensors.len() as u32 - 1
    }

    pub fn input(&mut self, name: &str, dtype: DType, shape: &[DimExpr]) -> TensorId {
        let tensor = self.tensor(name, dtype, shape, Storage::Input(self.manifest.inputs.len() as u32));
        self.manifest.inputs.push(Port { name: name.into(), tensor });
        tensor
    }

    pub fn output(&mut self, name: &str, dtype: DType, shape: &[DimExpr]) -> TensorId {
        let tensor = self.tensor(name, dtype, shape, Storage::Output(self.manifest.outputs.len() as u32));
        self.result(name, tensor);
        tensor
    }

    pub fn result(&mut self, name: &str, tensor: TensorId) {
        self.manifest.outputs.push(Port { name: name.into(), tensor });
    }

    pub fn arena(&mut self, name: &str, dtype: DType, shape: &[DimExpr], first: u32, last: u32) -> TensorId {
        let storage = Storage::Arena { offset: None, first_step: first, last_step: last };
        self.tensor(name, dtype, shape, storage)
    }

    pub fn host(&mut self, name: &str, dtype: DType, shape: &[DimExpr]) -> TensorId {
        self.tensor(name, dtype, shape, Storage::Host)
    }

    pub fn weight(&mut self, name: &str, dtype: DType, shape: &[i64], data: Vec<u8>) -> TensorId {
        let blob = self.manifest.weights.len() as u32;
        let bytes = data.len() as u64;
        self.manifest.weights.push(WeightBlob {
            name: name.into(),
            bytes,
            alignment: 64,
            offset: 0,
            hash: None,
            fill: None,
        });
        self.weights.push(data.into());
        let shape: Vec<_> = shape.iter().map(|&dim| constant(dim)).collect();
        self.tensor(name, dtype, &shape, Storage::Weight { blob, offset: 0, bytes })
    }

    pub fn kernel(&mut self, name: &str, function: KernelFn, buffers: &[Access], dims: u32) -> KernelId {
        self.manifest.kernels.push(Kernel { symbol: name.into(), buffers: buffers.to_vec(), dims });
        self.kernels.push(function);
        self.kernels.len() as u32 - 1
    }

    pub fn call(&mut self, step: Step) {
        self.manifest.steps.push(step);
    }

    pub fn finish(self) -> tcc_runtime::Result<Arc<Executable>> {
        let program = Program {
            manifest: self.manifest,
            kernels: self.kernels,
            weights: self.weights,
            code: Box::new(()),
        };
        // SAFETY: the kernels below keep to the sizes that the tests declare.
        unsafe { Executable::from_program(program) }.map(Arc::new)
    }
}

pub fn run_kernel(
    kernel: KernelId,
    buffers: &[TensorId],
    dims: &[DimExpr],
    tasks: DimExpr,
    grain: i64,
) -> Step {
    Step::Kernel(KernelStep {
        kernel,
        buffers: buffers.to_vec(),
        dims: dims.to_vec(),
        tasks,
        grain: constant(grain),
        scratch_bytes: constant(0),
    })
}

/// out[i] = a[i] + b[i]
pub unsafe extern "C" fn add(buffers: *const *mut u8, _: *const i64, _: *mut u8, begin: i64, end: i64) {
    unsafe {
        let (a, b, out) =
            ((*buffers).cast::<f32>(), (*buffers.add(1)).cast::<f32>(), (*buffers.add(2)).cast::<f32>());
        for index in begin as usize..end as usize {
            *out.add(index) = *a.add(index) + *b.add(index);
        }
    }
}

/// out[i] = a[i] * dims[0]
pub unsafe extern "C" fn scale(buffers: *const *mut u8, dims: *const i64, _: *mut u8, begin: i64, end: i64) {
    unsafe {
        let (a, out) = ((*buffers).cast::<f32>(), (*buffers.add(1)).cast::<f32>());
        for index in begin as usize..end as usize {
            *out.add(index) = *a.add(index) * *dims as f32;
        }
    }
}

/// out[m, n] = sum over k of a[m, k] * b[k, n], a task a row; dims = n, k; the row is collected in scratch memory.
pub unsafe extern "C" fn contract(
    buffers: *const *mut u8,
    dims: *const i64,
    scratch: *mut u8,
    begin: i64,
    end: i64,
) {
    unsafe {
        let (a, b, out) =
            ((*buffers).cast::<f32>(), (*buffers.add(1)).cast::<f32>(), (*buffers.add(2)).cast::<f32>());
        let (n, k) = (*dims as usize, *dims.add(1) as usize);
        let row = scratch.cast::<f32>();
        for m in begin as usize..end as usize {
            for column in 0..n {
                *row.add(column) = 0.0;
                for inner in 0..k {
                    *row.add(column) += *a.add(m * k + inner) * *b.add(inner * n + column);
                }
            }
            std::ptr::copy_nonoverlapping(row, out.add(m * n), n);
        }
    }
}

/// out = a < b for one i64 each
pub unsafe extern "C" fn less(buffers: *const *mut u8, _: *const i64, _: *mut u8, _: i64, _: i64) {
    unsafe {
        let (a, b) = ((*buffers).cast::<i64>(), (*buffers.add(1)).cast::<i64>());
        *(*buffers.add(2)) = (*a < *b).into();
    }
}

/// y = x[rows, k] * w[k, n] + x[rows, k] * w[k, n], with `rows` symbolic: two kernels, an arena tensor, scratch.
pub fn contraction(k: usize, n: usize) -> Builder {
    let mut b = Builder::new();
    let rows = b.symbol("rows", 0, 1000, SymbolSource::Input { input: 0, axis: 0 });
    let (kd, nd) = (constant(k as i64), constant(n as i64));
    let x = b.input("x", DType::F32, &[rows.clone(), kd.clone()]);
    let data: Vec<u8> = (0..k * n).flat_map(|i| ((i % 17) as f32 - 8.3).to_le_bytes()).collect();
    let w = b.weight("w", DType::F32, &[k as i64, n as i64], data);
    let product = b.arena("product", DType::F32, &[rows.clone(), nd.clone()], 0, 1);
    let y = b.output("y", DType::F32, &[rows.clone(), nd.clone()]);
    let contract = b.kernel("contract", contract, &[Access::Read, Access::Read, Access::Write], 2);
    let add = b.kernel("add", add, &[Access::Read, Access::Read, Access::Write], 0);
    b.call(Step::Kernel(KernelStep {
        kernel: contract,
        buffers: vec![x, w, product],
        dims: vec![nd.clone(), kd],
        tasks: rows.clone(),
        grain: constant(3),
        scratch_bytes: constant(4 * n as i64),
    }));
    b.call(run_kernel(add, &[product, product, y], &[], rows.mul(nd), 64));
    b
}

/// y = if c { x + x } else { x * 5 }, where the branches compute in the arena.
pub fn choice() -> Builder {
    let mut b = Builder::new();
    let n = b.symbol("n", 0, i64::MAX, SymbolSource::Input { input: 0, axis: 0 });
    let x = b.input("x", DType::F32, &[n.clone()]);
    let c = b.input("c", DType::Bool, &[]);
    let y = b.output("y", DType::F32, &[n.clone()]);
    let double = b.arena("double", DType::F32, &[n.clone()], 1, 1);
    let add = b.kernel("add", add, &[Access::Read, Access::Read, Access::Write], 0);
    let scale = b.kernel("scale", scale, &[Access::Read, Access::Write], 1);
    b.call(Step::If(IfStep {
        condition: c,
        then: Branch {
            steps: vec![run_kernel(add, &[x, x, double], &[], n.clone(), 4)],
            results: vec![Transfer { from: double, to: y }],
        },
        otherwise: Branch {
            steps: vec![run_kernel(scale, &[x, y], &[constant(5)], n, 4)],
            results: vec![Transfer { from: y, to: y }],
        },
        binds: vec![],
    }));
    b
}

/// sum = x + ... + x, `trips` times or while iteration + 1 < stop; all = the sums after each iteration; row = the
/// iteration number times 2, through the symbol.
pub fn repetition() -> Builder {
    let mut b = Builder::new();
    let x = b.input("x", DType::F32, &[constant(4)]);
    let trips = b.input("trips", DType::I64, &[]);
    let stop = b.input("stop", DType::I64, &[]);
    let iteration_symbol = b.symbol("i", 0, i64::MAX, SymbolSource::Step { bound: None });
    let count = b.symbol("count", 0, i64::MAX, SymbolSource::Step { bound: None });
    let sum = b.output("sum", DType::F32, &[constant(4)]);
    let all = b.host("all", DType::F32, &[count.clone(), constant(4)]);
    b.result("all", all);
    let zero = b.weight("zero", DType::F32, &[4], vec![0; 16]);
    let next = b.arena("next", DType::F32, &[constant(4)], 0, 3);
    let iteration = b.arena("iteration", DType::I64, &[], 0, 3);
    let go_on = b.arena("go_on", DType::Bool, &[constant(1)], 0, 3);
    let row = b.arena("row", DType::F32, &[constant(4)], 0, 3);
    let rows = b.host("rows", DType::F32, &[count.clone(), constant(4)]);
    b.result("rows", rows);
    let add = b.kernel("add", add, &[Access::Read, Access::Read, Access::Write], 0);
    let less = b.kernel("less", less, &[Access::Read, Access::Read, Access::Write], 0);
    let scale = b.kernel("scale", scale, &[Access::Read, Access::Write], 1);
    let symbols = |dim: &DimExpr| match dim {
        DimExpr::Symbol(id) => *id,
        _ => unreachable!("a symbol"),
    };
    b.call(Step::Loop(LoopStep {
        trip_count: Some(trips),
        condition_next: Some(go_on),
        iteration: Some(iteration),
        iteration_symbol: Some(symbols(&iteration_symbol)),
        carried: vec![Carried { initial: zero, state: sum, next }],
        body: vec![
            run_kernel(add, &[sum, x, next], &[], constant(4), 1),
            run_kernel(less, &[iteration, stop, go_on], &[], constant(1), 1),
            run_kernel(scale, &[x, row], &[iteration_symbol.clone().mul(2)], constant(4), 4),
        ],
        scans: vec![Scan { element: next, result: all }, Scan { element: row, result: rows }],
        iterations: Some(symbols(&count)),
        ..LoopStep::default()
    }));
    b
}
