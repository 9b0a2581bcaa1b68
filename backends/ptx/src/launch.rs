//! How kernels are launched: grid, block, memory and arguments, as data for a runtime.

use serde::{Deserialize, Serialize};
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Scalar, ScalarOp};
use tcc_kernel::fold;
use tcc_kernel::ir::{Access, Expr, Kernel, LoopKind, Space, Stmt};
use tcc_kernel::scratch::ScratchLayout;

use crate::emit::{dynamic_shared_bytes, has_scratch, shared_bytes};
use crate::error::Error;
use crate::schedule::block_of;

/// A size that is known when a kernel is launched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// A number.
    Constant(i64),
    /// A run-time dimension: an expression over the model's symbols in the text form of the tensor IR.
    Dim(String),
    /// A function of 64-bit signed integers, by its name in the tensor IR: `add`, `sub`, `mul`, `div`, `rem`, `max`, `min`.
    Call(String, Vec<Size>),
}

impl Size {
    /// An index expression over constants and dimensions; none where it holds anything else.
    pub fn of(expr: &Expr, dims: &[String]) -> Option<Size> {
        use Function::*;
        match expr {
            Expr::Const(scalar) if scalar.dtype == DType::I64 => Some(Size::Constant(scalar.as_i64())),
            Expr::Dim(number) => dims.get(*number as usize).cloned().map(Size::Dim),
            Expr::Call(ScalarOp::Call(function @ (Add | Sub | Mul | Div | Rem | Max | Min)), args) => {
                let args = args.iter().map(|arg| Size::of(arg, dims)).collect::<Option<_>>()?;
                Some(Size::Call(function.text().to_string(), args))
            }
            _ => None,
        }
    }

    /// The value for given dimensions; none where one is missing or the function is unknown.
    pub fn evaluate(&self, dim: &dyn Fn(&str) -> Option<i64>) -> Option<i64> {
        match self {
            Size::Constant(value) => Some(*value),
            Size::Dim(name) => dim(name),
            Size::Call(name, args) => {
                let args = args
                    .iter()
                    .map(|arg| arg.evaluate(dim).map(|value| Scalar::integer(DType::I64, value)))
                    .collect::<Option<Vec<Scalar>>>()?;
                let op: ScalarOp = name.parse().ok()?;
                fold::apply(op, &args).ok().map(Scalar::as_i64)
            }
        }
    }
}

/// One parameter of a kernel; all are 64-bit and passed in this order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parameter {
    /// A device pointer to the caller's memory.
    Buffer {
        /// Name for people.
        name: String,
        /// Element type.
        dtype: String,
        /// `read`, `write` or `readwrite`.
        access: String,
        /// Number of elements.
        count: Size,
    },
    /// A device pointer to scratch memory for all threads of the grid.
    Scratch,
    /// The value of a run-time dimension, which is an expression over the model's symbols, as in [`Size::Dim`].
    Dim(String),
}

/// How one kernel is launched. Where a size of the grid is not positive, there is nothing to do and no launch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LaunchDescription {
    /// Name of the `.entry`.
    pub kernel: String,
    /// Blocks along each dimension, exactly.
    pub grid: [Size; 3],
    /// Threads of a block along each dimension, exactly.
    pub block: [u64; 3],
    /// Bytes of shared memory that the module declares.
    pub static_shared_bytes: u64,
    /// Bytes of shared memory that the launch asks for.
    pub dynamic_shared_bytes: u64,
    /// Bytes of scratch memory a thread; the caller provides that times the threads of the grid.
    pub scratch_bytes_per_thread: Size,
    /// The parameters.
    pub parameters: Vec<Parameter>,
}

/// A launch with its sizes known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResolvedLaunch {
    /// Blocks along each dimension, at least 1.
    pub blocks: [u64; 3],
    /// Threads of a block along each dimension.
    pub threads: [u64; 3],
    /// Bytes of scratch memory for all threads.
    pub scratch_bytes: u64,
}

impl LaunchDescription {
    /// The value of a run-time dimension, given those of the kernel in their order.
    fn dim<'a>(&'a self, dims: &'a [i64]) -> impl Fn(&str) -> Option<i64> + 'a {
        let names = self.parameters.iter().filter_map(|parameter| match parameter {
            Parameter::Dim(name) => Some(name),
            _ => None,
        });
        let table: Vec<(&String, i64)> = names.zip(dims.iter().copied()).collect();
        move |name| table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The sizes for given run-time dimensions. `Ok(None)` where there is nothing to do; an error where a size has no value
    /// or does not fit its type.
    pub fn resolve(&self, dims: &[i64]) -> Result<Option<ResolvedLaunch>, Error> {
        let fail = || Error::Unsupported {
            kernel: self.kernel.clone(),
            what: format!("a launch with the dimensions {dims:?}"),
        };
        let dim = self.dim(dims);
        let mut blocks = [0; 3];
        for (blocks, size) in blocks.iter_mut().zip(&self.grid) {
            match size.evaluate(&dim).ok_or_else(fail)? {
                ..=0 => return Ok(None),
                size => *blocks = size as u64,
            }
        }
        let scratch = self.scratch_bytes_per_thread.evaluate(&dim).ok_or_else(fail)?;
        let scratch = u64::try_from(scratch).map_err(|_| fail())?;
        let total =
            blocks.iter().chain(&self.block).try_fold(scratch, |total, size| total.checked_mul(*size));
        let scratch_bytes = total.ok_or_else(fail)?;
        Ok(Some(ResolvedLaunch { blocks, threads: self.block, scratch_bytes }))
    }

    /// The 64-bit parameters in their order: addresses of buffers and scratch memory, and dimensions.
    pub fn arguments(&self, buffers: &[u64], scratch: u64, dims: &[i64]) -> Vec<u64> {
        let (mut buffers, mut dims) = (buffers.iter(), dims.iter());
        let argument = |parameter: &Parameter| match parameter {
            Parameter::Buffer { .. } => buffers.next().copied().unwrap_or(0),
            Parameter::Scratch => scratch,
            Parameter::Dim(_) => dims.next().map_or(0, |dim| *dim as u64),
        };
        self.parameters.iter().map(argument).collect()
    }

    /// The launch of a scheduled kernel.
    pub fn of(kernel: &Kernel) -> Result<LaunchDescription, Error> {
        let fail = |what: String| Error::Unsupported { kernel: kernel.name.clone(), what };
        let mut grid = [const { Size::Constant(1) }; 3];
        grid_extents(kernel, &kernel.body, &mut grid)?;
        let size = |expr: &Expr, what: &str| {
            Size::of(expr, &kernel.dims)
                .ok_or_else(|| fail(format!("a size of {what} that is no size arithmetic")))
        };
        let mut parameters = Vec::new();
        let mut arguments: Vec<_> = kernel.arguments().collect();
        arguments.sort_by_key(|buffer| match buffer.space {
            Space::Argument(position) => position,
            _ => u32::MAX,
        });
        for buffer in arguments {
            let access = match buffer.access {
                Access::Read => "read",
                Access::Write => "write",
                Access::ReadWrite => "readwrite",
            };
            parameters.push(Parameter::Buffer {
                name: buffer.name.clone(),
                dtype: buffer.dtype.to_string(),
                access: access.into(),
                count: size(&buffer.count, &buffer.name)?,
            });
        }
        if has_scratch(kernel) {
            parameters.push(Parameter::Scratch);
        }
        parameters.extend(kernel.dims.iter().cloned().map(Parameter::Dim));
        let unknown = || fail("shared memory without a constant size".into());
        let dynamic = dynamic_shared_bytes(kernel).ok_or_else(unknown)?;
        Ok(LaunchDescription {
            kernel: kernel.name.clone(),
            grid,
            block: block_of(kernel)?,
            static_shared_bytes: shared_bytes(kernel).ok_or_else(unknown)? - dynamic,
            dynamic_shared_bytes: dynamic,
            scratch_bytes_per_thread: size(&ScratchLayout::of(kernel).total, "scratch memory")?,
            parameters,
        })
    }
}

fn grid_extents(kernel: &Kernel, stmts: &[Stmt], grid: &mut [Size; 3]) -> Result<(), Error> {
    for stmt in stmts {
        match stmt {
            Stmt::For { extent, kind, body, .. } => {
                if let LoopKind::Grid(axis) = kind {
                    let size = Size::of(extent, &kernel.dims);
                    let (Some(size), Some(place)) = (size, grid.get_mut(usize::from(*axis))) else {
                        return Err(Error::Unsupported {
                            kernel: kernel.name.clone(),
                            what: "a grid loop whose extent is not known at launch".into(),
                        });
                    };
                    *place = size;
                }
                grid_extents(kernel, body, grid)?;
            }
            Stmt::If { then, otherwise, .. } => {
                grid_extents(kernel, then, grid)?;
                grid_extents(kernel, otherwise, grid)?;
            }
            _ => {}
        }
    }
    Ok(())
}
