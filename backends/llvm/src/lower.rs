//! A kernel becomes a function of MLIR's `llvm` dialect with structured control flow inside.
//!
//! The function is `void name(void *const *buffers, const int64_t *dims, void *scratch, int64_t begin, int64_t end)`. Its
//! entry block loads every buffer pointer and dimension, places the scratch buffers and reserves a stack slot per assigned
//! variable; LLVM promotes the slots to registers. Lowering is spread over `stmt`, `expr`, `function`, `cast`, `memory`, `strided`
//! and `dot`, all of them methods of [`Lowering`].

use std::collections::BTreeSet;

use melior::Context;
use melior::dialect::llvm::r#type as llvm_type;
use melior::ir::attribute::{ArrayAttribute, DictionaryAttribute, StringAttribute, TypeAttribute};
use melior::ir::operation::OperationBuilder;
use melior::ir::r#type::IntegerType;
use melior::ir::{Attribute, Block, BlockLike, Identifier, Location, Operation, Region, RegionLike, Type};
use tcc_ir::dtype::DType;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{LoopKind, Space, Stmt, Ty};
use tcc_kernel::scratch::{SCRATCH_ALIGNMENT, ScratchLayout};

use crate::builder::{Builder, Order, Ssa, refused, shaped};
use crate::error::Error;
use crate::target::Target;

/// Alignment in bytes of everything on the stack: one cache line, which is also the widest vector register.
const STACK_ALIGNMENT: usize = SCRATCH_ALIGNMENT as usize;

/// A value together with its kernel type.
#[derive(Clone, Copy)]
pub(crate) struct Typed<'c> {
    pub(crate) value: Ssa<'c>,
    pub(crate) ty: Ty,
}

/// Where a variable is found.
#[derive(Clone, Copy)]
pub(crate) enum Place<'c> {
    /// A loop counter, which never changes within an iteration.
    Value(Ssa<'c>),
    /// A stack slot.
    Slot(Ssa<'c>),
}

/// The state of lowering one kernel.
pub(crate) struct Lowering<'c, 'k> {
    pub(crate) kernel: &'k Kernel,
    pub(crate) target: &'k Target,
    pub(crate) builder: Builder<'c>,
    pub(crate) buffers: Vec<Ssa<'c>>,
    pub(crate) dims: Vec<Ssa<'c>>,
    pub(crate) places: Vec<Option<Place<'c>>>,
    /// The slice of the parallel domain that the caller asks for.
    pub(crate) slice: [Ssa<'c>; 2],
}

/// Lowers a kernel to one `llvm.func`.
pub(crate) fn kernel<'c>(
    context: &'c Context,
    kernel: &Kernel,
    target: &Target,
) -> Result<Operation<'c>, Error> {
    let location = Location::name(context, &kernel.name, Location::unknown(context));
    let pointer = llvm_type::pointer(context, 0);
    let i64 = Type::from(IntegerType::new(context, 64));
    let parameters = [pointer, pointer, pointer, i64, i64];

    let region = Region::new();
    let block = Block::new(&parameters.map(|r#type| (r#type, location)));
    let entry = region.append_block(block);
    let builder = Builder::new(context, entry, location);
    let argument = |index| entry.argument(index).map(Ssa::from).map_err(|error| refused(&error));
    let mut lowering = Lowering {
        kernel,
        target,
        builder,
        buffers: Vec::new(),
        dims: Vec::new(),
        places: vec![None; kernel.variables.len()],
        slice: [argument(3)?, argument(4)?],
    };
    lowering.load_dims(argument(1)?)?;
    lowering.bind_buffers(argument(0)?, argument(2)?)?;
    lowering.reserve_slots()?;
    lowering.body()?;
    lowering.builder.effect("llvm.return", &[], &[])?;

    let function = llvm_type::function(llvm_type::void(context), &parameters, false);
    OperationBuilder::new("llvm.func", location)
        .add_attributes(&[
            lowering.builder.named("sym_name", StringAttribute::new(context, &kernel.name)),
            lowering.builder.named("function_type", TypeAttribute::new(function)),
            lowering.builder.named("arg_attrs", parameter_attributes(context)),
            // No unwinding, hence no unwind tables.
            lowering.builder.named("no_unwind", Attribute::unit(context)),
        ])
        .add_regions([region])
        .build()
        .map_err(|error| refused(&error))
}

/// The tables of pointers and dimensions are never written while a kernel runs.
fn parameter_attributes(context: &Context) -> Attribute<'_> {
    let named = |name| (Identifier::new(context, name), Attribute::unit(context));
    let table: Attribute =
        DictionaryAttribute::new(context, &[named("llvm.noalias"), named("llvm.readonly")]).into();
    let plain: Attribute = DictionaryAttribute::new(context, &[]).into();
    ArrayAttribute::new(context, &[table, table, plain, plain, plain]).into()
}

impl<'c> Lowering<'c, '_> {
    /// The error for a construct that has no lowering.
    pub(crate) fn unsupported(&self, construct: impl Into<String>) -> Error {
        Error::Unsupported {
            kernel: self.kernel.name.clone(),
            construct: construct.into(),
            target: self.target.triple().to_owned(),
        }
    }

    /// The error for a kernel that breaks the rules of the kernel IR.
    pub(crate) fn malformed(&self, reason: impl Into<String>) -> Error {
        Error::Malformed { kernel: self.kernel.name.clone(), reason: reason.into() }
    }

    /// The type of one lane in a register. 16-bit floats travel as their bits; see [`crate::half`].
    pub(crate) fn element_type(&self, dtype: DType) -> Result<Type<'c>, Error> {
        Ok(match dtype {
            DType::F32 => self.builder.f32_type(),
            DType::F64 => self.builder.f64_type(),
            DType::F16 | DType::BF16 => self.builder.integer_type(16),
            DType::Bool => self.builder.integer_type(1),
            dtype if dtype.is_integer() && !dtype.is_packed() => {
                self.builder.integer_type(dtype.bits() as u32)
            }
            other => return Err(self.unsupported(format!("element type {other}"))),
        })
    }

    /// The type of one element in memory: as in a register, but truth values take a byte.
    pub(crate) fn memory_type(&self, dtype: DType) -> Result<Type<'c>, Error> {
        if dtype == DType::Bool { Ok(self.builder.integer_type(8)) } else { self.element_type(dtype) }
    }

    /// The register type of a kernel type.
    pub(crate) fn register_type(&self, ty: Ty) -> Result<Type<'c>, Error> {
        Ok(shaped(self.element_type(ty.dtype)?, u32::from(ty.lanes)))
    }

    fn load_dims(&mut self, table: Ssa<'c>) -> Result<(), Error> {
        let i64 = self.builder.i64_type();
        for position in 0..self.kernel.dims.len() {
            let index = self.builder.index(position as i64)?;
            let pointer = self.builder.element_pointer(table, index, i64, 1)?;
            let value = self.builder.load(pointer, i64, 8)?;
            self.dims.push(value);
        }
        Ok(())
    }

    /// Binds a base pointer to every buffer.
    fn bind_buffers(&mut self, table: Ssa<'c>, scratch: Ssa<'c>) -> Result<(), Error> {
        let kernel = self.kernel;
        let layout = ScratchLayout::of(kernel);
        for (buffer, offset) in kernel.buffers.iter().zip(&layout.offsets) {
            let pointer = match (buffer.space, offset) {
                (Space::Argument(argument), _) => {
                    let index = self.builder.index(i64::from(argument))?;
                    let pointer = self.builder.pointer_type();
                    let address = self.builder.element_pointer(table, index, pointer, 1)?;
                    // A pointer is as aligned as it is wide, on 32-bit targets too.
                    self.builder.load(address, pointer, self.target.pointer_bytes())?
                }
                (Space::Scratch, Some(offset)) => {
                    let offset = self.expr(offset)?.value;
                    let i8 = self.builder.integer_type(8);
                    self.builder.element_pointer(scratch, offset, i8, 1)?
                }
                (Space::Stack, _) => {
                    let Some(count) = buffer.count.as_index().filter(|count| *count >= 0) else {
                        return Err(
                            self.malformed(format!("stack buffer '{}' has no constant size", buffer.name))
                        );
                    };
                    let element = self.memory_type(buffer.dtype)?;
                    self.builder.stack(element, count.max(1), STACK_ALIGNMENT)?
                }
                (space, _) => {
                    return Err(self.unsupported(format!("buffer '{}' in space {space:?}", buffer.name)));
                }
            };
            self.buffers.push(pointer);
        }
        Ok(())
    }

    /// Reserves a slot for every variable that is assigned somewhere.
    fn reserve_slots(&mut self) -> Result<(), Error> {
        let mut assigned = BTreeSet::new();
        collect_assigned(&self.kernel.body, &mut assigned);
        for var in assigned {
            let Some(variable) = self.kernel.variables.get(var as usize) else {
                return Err(self.malformed(format!("variable {var} is not declared")));
            };
            let r#type = self.register_type(variable.ty)?;
            let slot = self.builder.stack(r#type, 1, STACK_ALIGNMENT)?;
            self.places[var as usize] = Some(Place::Slot(slot));
        }
        Ok(())
    }

    /// Lowers the statements. Without a parallel loop the kernel has one task, number 0.
    fn body(&mut self) -> Result<(), Error> {
        let kernel = self.kernel;
        if let [Stmt::For { var, kind: LoopKind::Parallel, body, .. }] = &kernel.body[..] {
            let [begin, end] = self.slice;
            return self.loop_over(*var, begin, end, body);
        }
        let [zero, one] = [self.builder.index(0)?, self.builder.index(1)?];
        // An empty slice does nothing, so the task runs where the slice holds number 0.
        let [begin, end] = self.slice;
        let starts = self.builder.compare_integers(Order::Equal, [begin, zero], 1)?;
        let holds = self.builder.compare_integers(Order::LessEqual, [one, end], 1)?;
        let runs = self.builder.same_type("arith.andi", &[starts, holds], self.builder.integer_type(1))?;
        self.branch(runs, &kernel.body, &[])
    }
}

fn collect_assigned(body: &[Stmt], assigned: &mut BTreeSet<u32>) {
    for stmt in body {
        match stmt {
            Stmt::Assign { var, .. } => {
                assigned.insert(var.0);
            }
            Stmt::For { body, .. } => collect_assigned(body, assigned),
            Stmt::If { then, otherwise, .. } => {
                collect_assigned(then, assigned);
                collect_assigned(otherwise, assigned);
            }
            Stmt::Store { .. } | Stmt::Barrier | Stmt::Warp(_) => {}
        }
    }
}
