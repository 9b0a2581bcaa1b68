//! The kernel IR: loop nests over buffers, shared by every backend.
//!
//! A [`Kernel`] reads and writes flat buffers through explicit linear indices. Loops carry a [`LoopKind`] that says how a
//! machine runs them; scheduling steps ([`crate::steps`]) rewrite the nest, and lowering passes ([`crate::passes`])
//! remove what backends do not see: `Vector` and `Unroll` loops, register arrays, and functions outside the core set.
//!
//! # What a CPU backend receives
//!
//! After [`crate::passes::finalize`] a kernel holds
//! - loops of kind `Serial` and at most one `Parallel` loop, which is then the only top-level loop: it runs over the slice
//!   `begin..end` of its domain that the caller passes (a kernel without one runs entirely when `begin == 0`);
//! - variables that are scalars or vectors of at most the machine's native width;
//! - buffers in the spaces `Argument`, `Scratch` and `Stack` (register arrays have become variables);
//! - the core functions: `neg abs floor ceil round trunc sqrt add sub mul div rem max min bitand bitor bitxor bitnot shl
//!   shr and or xor not eq lt le select`, casts and bitcasts between the core types, [`Expr::Fma`], [`Expr::Dot`],
//!   [`Expr::ReduceLanes`], [`Expr::Shuffle`];
//! - the core types: f32, f64, 8- to 64-bit integers, bool, and f16 as operand of casts from and to f32 where the
//!   machine converts it.
//!
//! Floating-point `max` and `min` return NaN where an operand is NaN. Integer division by zero yields zero. Index
//! arithmetic is `i64`.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Scalar, ScalarOp};
use tcc_ir::words::ReduceKind;

use crate::warp::WarpOp;

/// Element type and number of lanes; one lane is a scalar.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ty {
    /// Type of one lane.
    pub dtype: DType,
    /// Number of lanes, at least 1.
    pub lanes: u16,
}

impl Ty {
    /// A single element.
    pub const fn scalar(dtype: DType) -> Ty {
        Ty { dtype, lanes: 1 }
    }

    /// The type of indices and extents.
    pub const INDEX: Ty = Ty::scalar(DType::I64);

    /// A vector.
    pub const fn vector(dtype: DType, lanes: u16) -> Ty {
        Ty { dtype, lanes }
    }

    /// The same lanes of another element type.
    pub const fn with(self, dtype: DType) -> Ty {
        Ty { dtype, lanes: self.lanes }
    }
}

/// A loop counter or local variable; its declaration is in [`Kernel::variables`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Var(pub u32);

/// A buffer; its declaration is in [`Kernel::buffers`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BufferId(pub u32);

/// Declaration of a variable.
#[derive(Clone, PartialEq, Debug)]
pub struct Variable {
    /// Name for people; unique names are not required.
    pub name: String,
    /// Type.
    pub ty: Ty,
}

/// Where a buffer lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Space {
    /// The caller's memory: the pointer at this position of the buffer list.
    Argument(u32),
    /// Memory of the executing thread, carved from the scratch pointer; contents do not survive a task.
    Scratch,
    /// A small array on the stack; the extent is constant.
    Stack,
    /// An array that unrolling turns into variables; the extent is constant.
    Register,
    /// Memory shared by the threads of a GPU block.
    Shared,
    /// On-chip memory of an FPGA design.
    OnChip,
}

/// How an argument is used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// Only read.
    Read,
    /// Only written.
    Write,
    /// Read and written.
    ReadWrite,
}

/// Declaration of a buffer.
#[derive(Clone, PartialEq, Debug)]
pub struct Buffer {
    /// Name for people.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Where it lives.
    pub space: Space,
    /// Number of elements; constants, kernel dimensions and arithmetic on them.
    pub count: Expr,
    /// How it is used.
    pub access: Access,
    /// Filled up to whole tiles of lanes with zeros, so that lanes behind the extent may be read. Masked loads keep the
    /// hardware from fetching ahead.
    pub padded: bool,
}

/// How iterations of a loop relate and who runs them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LoopKind {
    /// One after the other.
    Serial,
    /// Independent; slices of the domain go to threads.
    Parallel,
    /// Independent; all iterations at once, one a lane. The extent is a constant number of lanes.
    Vector,
    /// Written out. The extent is a constant.
    Unroll,
    /// Independent; one a block of a GPU grid, along dimension 0, 1 or 2.
    Grid(u8),
    /// Independent; one a thread of a GPU block, along dimension 0, 1 or 2.
    Thread(u8),
    /// A hardware pipeline that starts an iteration every so many cycles.
    Pipeline(u32),
}

/// A statement.
#[derive(Clone, PartialEq, Debug)]
pub enum Stmt {
    /// `for var in 0..extent`.
    For {
        /// The counter, of type [`Ty::INDEX`].
        var: Var,
        /// Number of iterations; negative counts as none.
        extent: Expr,
        /// Who runs the iterations.
        kind: LoopKind,
        /// What an iteration does.
        body: Vec<Stmt>,
    },
    /// `var = value`: the first assignment declares; later ones replace. A variable that is assigned inside a loop or branch
    /// and read outside it is assigned before it.
    Assign {
        /// The variable.
        var: Var,
        /// Its new value, of the variable's type.
        value: Expr,
    },
    /// Writes the lanes of `value` to consecutive elements from `index`.
    Store {
        /// Where to.
        buffer: BufferId,
        /// First element; a vector of indices scatters, one lane each.
        index: Expr,
        /// What.
        value: Expr,
        /// If given, only this many leading lanes are written (more than all: all; negative: none).
        valid: Option<Expr>,
    },
    /// Runs one of two blocks.
    If {
        /// A scalar truth value.
        condition: Expr,
        /// If true.
        then: Vec<Stmt>,
        /// If false.
        otherwise: Vec<Stmt>,
    },
    /// Every thread of the GPU block has arrived and sees the others' shared memory.
    Barrier,
    /// What the lanes of a GPU warp do together.
    Warp(WarpOp),
}

/// An expression without side effects.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Expr {
    /// A number.
    Const(Scalar),
    /// A variable.
    Var(Var),
    /// A run-time dimension: element of the dims argument, `i64`.
    Dim(u32),
    /// Consecutive elements from `index`; a vector of indices gathers, one element a lane.
    Load {
        /// Where from.
        buffer: BufferId,
        /// First element.
        index: Box<Expr>,
        /// Number of elements.
        lanes: u16,
        /// If given, lanes from this one on are not read and are zero.
        valid: Option<Box<Expr>>,
    },
    /// A scalar function, lane by lane; arguments have equal lanes.
    Call(ScalarOp, Vec<Expr>),
    /// All lanes equal to a scalar.
    Splat(Box<Expr>, u16),
    /// `base + stride * lane`, index type.
    Ramp {
        /// Value of lane 0, a scalar.
        base: Box<Expr>,
        /// Distance of lanes.
        stride: i64,
        /// Number of lanes.
        lanes: u16,
    },
    /// `a * b + c` with one rounding.
    Fma(Box<Expr>, Box<Expr>, Box<Expr>),
    /// `acc[i] + sum over j < 4 of a[4i + j] * b[4i + j]`: `acc` has i32 lanes, `a` and `b` four times as many 8-bit ones;
    /// signedness follows from the operand types. Wraps, never saturates.
    Dot {
        /// i32 accumulator.
        acc: Box<Expr>,
        /// 8-bit lanes.
        a: Box<Expr>,
        /// 8-bit lanes.
        b: Box<Expr>,
    },
    /// Combines all lanes into a scalar: lane i with lane i + n/2 repeatedly (the same tree on every machine).
    ReduceLanes(ReduceKind, Box<Expr>),
    /// Lanes of `a` followed by those of `b`, picked by number.
    Shuffle(Box<Expr>, Box<Expr>, Vec<u16>),
}

/// A unit of generated code.
///
/// Its machine form is `void name(void *const *buffers, const int64_t *dims, void *scratch, int64_t begin, int64_t end)`.
#[derive(Clone, PartialEq, Debug)]
pub struct Kernel {
    /// Symbol name: letters, digits and underscores.
    pub name: String,
    /// Buffers by [`BufferId`].
    pub buffers: Vec<Buffer>,
    /// Variables by [`Var`].
    pub variables: Vec<Variable>,
    /// The run-time dimensions by their number, as dimension expressions in text form: a symbol, or a quotient or the like
    /// of symbols that the caller evaluates.
    pub dims: Vec<String>,
    /// The statements.
    pub body: Vec<Stmt>,
}

impl Kernel {
    /// A kernel without contents.
    pub fn new(name: &str) -> Kernel {
        Kernel {
            name: name.to_string(),
            buffers: Vec::new(),
            variables: Vec::new(),
            dims: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Declares an argument; arguments are numbered in order of declaration.
    pub fn argument(&mut self, name: &str, dtype: DType, count: Expr, access: Access) -> BufferId {
        let position = self.arguments().count() as u32;
        self.buffer(name, dtype, Space::Argument(position), count, access)
    }

    /// Declares a buffer.
    pub fn buffer(
        &mut self,
        name: &str,
        dtype: DType,
        space: Space,
        count: Expr,
        access: Access,
    ) -> BufferId {
        self.buffers.push(Buffer { name: name.to_string(), dtype, space, count, access, padded: false });
        BufferId(self.buffers.len() as u32 - 1)
    }

    /// Declares a variable.
    pub fn variable(&mut self, name: &str, ty: Ty) -> Var {
        self.variables.push(Variable { name: name.to_string(), ty });
        Var(self.variables.len() as u32 - 1)
    }

    /// Declares a loop counter.
    pub fn counter(&mut self, name: &str) -> Var {
        self.variable(name, Ty::INDEX)
    }

    /// The arguments in the order of the caller's list.
    pub fn arguments(&self) -> impl Iterator<Item = &Buffer> {
        self.buffers.iter().filter(|buffer| matches!(buffer.space, Space::Argument(_)))
    }

    /// Declaration of a buffer.
    pub fn buffer_of(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.0 as usize]
    }

    /// Type of an expression.
    pub fn type_of(&self, expr: &Expr) -> Ty {
        self.type_over(expr, &mut |part| self.type_of(part))
    }

    /// Type of an expression from the types of its parts; `part` is asked once for each of those that matter.
    pub fn type_over(&self, expr: &Expr, part: &mut dyn FnMut(&Expr) -> Ty) -> Ty {
        match expr {
            Expr::Const(scalar) => Ty::scalar(scalar.dtype),
            Expr::Var(var) => self.variables[var.0 as usize].ty,
            Expr::Dim(_) => Ty::INDEX,
            Expr::Load { buffer, lanes, .. } => Ty::vector(self.buffer_of(*buffer).dtype, *lanes),
            Expr::Call(op, args) => {
                let types: Vec<Ty> = args.iter().map(part).collect();
                let lanes = types.iter().map(|ty| ty.lanes).max().unwrap_or(1);
                let dtypes: Vec<DType> = types.iter().map(|ty| ty.dtype).collect();
                // Well-formed kernels infer; verification reports the others.
                Ty::vector(op.infer(&dtypes).unwrap_or(DType::I64), lanes)
            }
            Expr::Splat(value, lanes) => Ty::vector(part(value).dtype, *lanes),
            Expr::Ramp { lanes, .. } => Ty::vector(DType::I64, *lanes),
            Expr::Fma(_, _, c) => part(c),
            Expr::Dot { acc, .. } => part(acc),
            Expr::ReduceLanes(_, value) => Ty::scalar(part(value).dtype),
            Expr::Shuffle(a, _, picks) => Ty::vector(part(a).dtype, picks.len() as u16),
        }
    }

    /// The size of the parallel domain: the extent of the top-level parallel loop, or 1.
    pub fn tasks(&self) -> Expr {
        self.body
            .iter()
            .find_map(|stmt| match stmt {
                Stmt::For { kind: LoopKind::Parallel, extent, .. } => Some(extent.clone()),
                _ => None,
            })
            .unwrap_or_else(|| Expr::index(1))
    }
}

impl Stmt {
    /// Calls `visit` on each expression of this statement and of those inside it.
    pub fn visit_exprs(&self, visit: &mut dyn FnMut(&Expr)) {
        match self {
            Stmt::For { extent, body, .. } => {
                visit(extent);
                body.iter().for_each(|stmt| stmt.visit_exprs(visit));
            }
            Stmt::Assign { value, .. } => visit(value),
            Stmt::Store { index, value, valid, .. } => {
                visit(index);
                visit(value);
                valid.iter().for_each(&mut *visit);
            }
            Stmt::If { condition, then, otherwise } => {
                visit(condition);
                then.iter().chain(otherwise).for_each(|stmt| stmt.visit_exprs(visit));
            }
            Stmt::Barrier => {}
            Stmt::Warp(op) => op.exprs().into_iter().for_each(visit),
        }
    }

    /// Rewrites each expression of this statement and of those inside it.
    pub fn map_exprs(&mut self, map: &mut dyn FnMut(&Expr) -> Expr) {
        match self {
            Stmt::For { extent, body, .. } => {
                *extent = map(extent);
                body.iter_mut().for_each(|stmt| stmt.map_exprs(map));
            }
            Stmt::Assign { value, .. } => *value = map(value),
            Stmt::Store { index, value, valid, .. } => {
                *index = map(index);
                *value = map(value);
                if let Some(valid) = valid {
                    *valid = map(valid);
                }
            }
            Stmt::If { condition, then, otherwise } => {
                *condition = map(condition);
                then.iter_mut().chain(otherwise).for_each(|stmt| stmt.map_exprs(map));
            }
            Stmt::Barrier => {}
            Stmt::Warp(op) => op.exprs_mut().into_iter().for_each(|expr| *expr = map(expr)),
        }
    }
}

impl Expr {
    /// Calls `visit` on this expression and all its parts, outer ones first.
    pub fn visit(&self, visit: &mut dyn FnMut(&Expr)) {
        visit(self);
        match self {
            Expr::Const(_) | Expr::Var(_) | Expr::Dim(_) => {}
            Expr::Load { index, valid, .. } => {
                index.visit(visit);
                valid.iter().for_each(|valid| valid.visit(visit));
            }
            Expr::Call(_, args) => args.iter().for_each(|arg| arg.visit(visit)),
            Expr::Splat(value, _) | Expr::ReduceLanes(_, value) => value.visit(visit),
            Expr::Ramp { base, .. } => base.visit(visit),
            Expr::Fma(a, b, c) | Expr::Dot { acc: a, a: b, b: c } => {
                a.visit(visit);
                b.visit(visit);
                c.visit(visit);
            }
            Expr::Shuffle(a, b, _) => {
                a.visit(visit);
                b.visit(visit);
            }
        }
    }

    /// This expression with each part replaced by `map` of it, innermost first.
    pub fn rewrite(&self, map: &mut dyn FnMut(Expr) -> Expr) -> Expr {
        let mut boxed = |expr: &Expr| Box::new(expr.rewrite(map));
        let rebuilt = match self {
            Expr::Const(_) | Expr::Var(_) | Expr::Dim(_) => self.clone(),
            Expr::Load { buffer, index, lanes, valid } => Expr::Load {
                buffer: *buffer,
                index: boxed(index),
                lanes: *lanes,
                valid: valid.as_ref().map(|valid| boxed(valid)),
            },
            Expr::Call(op, args) => Expr::Call(*op, args.iter().map(|arg| *boxed(arg)).collect()),
            Expr::Splat(value, lanes) => Expr::Splat(boxed(value), *lanes),
            Expr::Ramp { base, stride, lanes } => {
                Expr::Ramp { base: boxed(base), stride: *stride, lanes: *lanes }
            }
            Expr::Fma(a, b, c) => Expr::Fma(boxed(a), boxed(b), boxed(c)),
            Expr::Dot { acc, a, b } => Expr::Dot { acc: boxed(acc), a: boxed(a), b: boxed(b) },
            Expr::ReduceLanes(kind, value) => Expr::ReduceLanes(*kind, boxed(value)),
            Expr::Shuffle(a, b, picks) => Expr::Shuffle(boxed(a), boxed(b), picks.clone()),
        };
        map(rebuilt)
    }
}
