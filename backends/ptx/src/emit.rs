//! Writes scheduled kernels as PTX.
//!
//! A kernel becomes one `.entry`. Its parameters are 64-bit: a pointer for each argument in the caller's order, the scratch
//! pointer where the kernel has scratch memory, then the run-time dimensions. Block indices run over exactly the extent of
//! the grid loop, so that loop has no bounds guard; a thread loop has one unless its extent is the block's.
//!
//! Every variable has a register of its own, every expression new ones; the assembler allocates. Arithmetic on floats carries
//! its rounding mode, which forbids the assembler to contract it, so results do not depend on the assembler. 8- and 16-bit
//! integers live in 32-bit registers, always extended as their type says; truth values are predicates.

mod call;
mod cast;
mod expression;
mod memory;
mod register;

use std::fmt::Write;

use tcc_ir::dtype::DType;
use tcc_kernel::ir::{Expr, Kernel, LoopKind, Space, Stmt, Ty};

use crate::error::Error;
use crate::schedule::block_of;
use crate::target::Target;
use memory::Place;
use register::{Class, Registers, Value};

/// Writes a scheduled kernel as a `.entry`, without the header of a module.
pub fn emit(kernel: &Kernel, target: &Target) -> Result<String, Error> {
    let block = block_of(kernel)?;
    check_limits(kernel, target, &block)?;
    let mut emitter = Emitter {
        kernel,
        target,
        block,
        text: String::new(),
        registers: Registers::default(),
        variables: vec![None; kernel.variables.len()],
        places: Vec::new(),
        dims: Vec::new(),
        labels: 0,
        pinned: [false; 3],
        depth: 0,
    };
    emitter.prologue()?;
    emitter.block(&kernel.body)?;
    emitter.line("ret;");
    Ok(emitter.finish())
}

/// Emits the lines of one kernel.
struct Emitter<'k> {
    kernel: &'k Kernel,
    target: &'k Target,
    block: [u64; 3],
    text: String,
    registers: Registers,
    /// The register of each variable, from its first assignment on.
    variables: Vec<Option<Value>>,
    /// Where each buffer starts.
    places: Vec<Place>,
    dims: Vec<Value>,
    labels: usize,
    /// Grid dimensions that a loop has taken.
    pinned: [bool; 3],
    /// Statements around the present one, but for grid loops.
    depth: usize,
}

impl Emitter<'_> {
    fn line(&mut self, text: impl AsRef<str>) {
        self.text.push('\t');
        self.text.push_str(text.as_ref());
        self.text.push('\n');
    }

    fn label(&mut self, name: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{name}:");
    }

    fn fresh_label(&mut self, what: &str) -> String {
        self.labels += 1;
        format!("${what}_{}", self.labels)
    }

    fn fresh(&mut self, class: Class) -> Value {
        self.registers.fresh(class)
    }

    /// The result of an instruction in a new register: `opcode result, operands;`.
    fn instruction(&mut self, class: Class, opcode: &str, operands: &[&Value]) -> Value {
        let result = self.fresh(class);
        let mut text = format!("{opcode} {result}");
        for operand in operands {
            let _ = write!(text, ", {operand}");
        }
        text.push(';');
        self.line(text);
        result
    }

    fn unsupported<T>(&self, what: impl Into<String>) -> Result<T, Error> {
        Err(Error::Unsupported { kernel: self.kernel.name.clone(), what: what.into() })
    }

    fn class(&self, ty: Ty) -> Result<Class, Error> {
        if ty.lanes != 1 {
            return self.unsupported(format!("a vector of {} {}", ty.lanes, ty.dtype));
        }
        if ty.dtype == DType::BF16 && !self.target.bfloat16() {
            return Err(self.type_error(ty.dtype.to_string()));
        }
        match Class::of(ty.dtype) {
            Some(class) => Ok(class),
            None => Err(self.type_error(ty.dtype.to_string())),
        }
    }

    fn type_error(&self, what: String) -> Error {
        Error::Type { kernel: self.kernel.name.clone(), target: self.target.name, what }
    }

    fn block(&mut self, stmts: &[Stmt]) -> Result<(), Error> {
        stmts.iter().try_for_each(|stmt| self.stmt(stmt))
    }

    /// A block inside a loop that is no grid loop, or inside a branch.
    fn inner(&mut self, stmts: &[Stmt]) -> Result<(), Error> {
        self.depth += 1;
        self.block(stmts)?;
        self.depth -= 1;
        Ok(())
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<(), Error> {
        match stmt {
            Stmt::For { var, extent, kind, body } => match kind {
                LoopKind::Serial => self.serial(var.0 as usize, extent, body),
                LoopKind::Grid(_) if self.depth > 0 => {
                    self.unsupported("a grid loop inside another statement")
                }
                LoopKind::Grid(axis) => self.grid(var.0 as usize, *axis, body),
                LoopKind::Thread(axis) => self.thread(var.0 as usize, *axis, extent, body),
                other => self.unsupported(format!("a loop of kind {other:?}")),
            },
            Stmt::Assign { var, value } => {
                let value = self.value(value)?;
                self.assign(var.0 as usize, &value)
            }
            Stmt::Store { buffer, index, value, valid } => self.store(*buffer, index, value, valid.as_ref()),
            Stmt::If { condition, then, otherwise } => {
                let condition = self.value(condition)?;
                let (other, end) = (self.fresh_label("else"), self.fresh_label("endif"));
                self.line(format!("@!{condition} bra {other};"));
                self.inner(then)?;
                if !otherwise.is_empty() {
                    self.line(format!("bra {end};"));
                }
                self.label(&other);
                self.inner(otherwise)?;
                self.label(&end);
                Ok(())
            }
            Stmt::Barrier => {
                self.line("bar.sync 0;");
                Ok(())
            }
        }
    }

    /// `variable = value`. A variable keeps its register, so that the value survives where branches and loops join.
    fn assign(&mut self, variable: usize, value: &Value) -> Result<(), Error> {
        let class = self.class(self.kernel.variables[variable].ty)?;
        let register = match &self.variables[variable] {
            Some(register) => register.clone(),
            None => self.fresh(class),
        };
        self.line(format!("mov.{} {register}, {value};", class.bits_type()));
        self.variables[variable] = Some(register);
        Ok(())
    }

    fn serial(&mut self, variable: usize, extent: &Expr, body: &[Stmt]) -> Result<(), Error> {
        // A register of its own: the body may assign what the extent is made of.
        let extent = self.value(extent)?;
        let extent = self.instruction(Class::Bits64, "mov.b64", &[&extent]);
        self.variables[variable] = None;
        self.assign(variable, &Value::integer(0))?;
        let (head, end) = (self.fresh_label("loop"), self.fresh_label("endloop"));
        self.label(&head);
        let counter = self.counter(variable)?;
        let done = self.instruction(Class::Predicate, "setp.ge.s64", &[&counter, &extent]);
        self.line(format!("@{done} bra {end};"));
        self.inner(body)?;
        self.line(format!("add.s64 {counter}, {counter}, 1;"));
        self.line(format!("bra {head};"));
        self.label(&end);
        self.variables[variable] = None;
        Ok(())
    }

    fn counter(&self, variable: usize) -> Result<Value, Error> {
        match &self.variables[variable] {
            Some(register) => Ok(register.clone()),
            None => self.unsupported(format!(
                "'{}', which is read before it is assigned",
                self.kernel.variables[variable].name
            )),
        }
    }

    fn grid(&mut self, variable: usize, axis: u8, body: &[Stmt]) -> Result<(), Error> {
        match self.pinned.get_mut(usize::from(axis)) {
            Some(pinned) if !*pinned => *pinned = true,
            _ => return self.unsupported("two loops over one dimension of the grid"),
        }
        let index = self.special("ctaid", axis);
        self.variables[variable] = Some(index);
        self.block(body)
    }

    fn thread(&mut self, variable: usize, axis: u8, extent: &Expr, body: &[Stmt]) -> Result<(), Error> {
        let size = self.block[usize::from(axis)];
        let index = self.special("tid", axis);
        self.variables[variable] = Some(index.clone());
        if extent.as_index() == i64::try_from(size).ok() {
            return self.inner(body);
        }
        if has_barrier(body) {
            return self.unsupported("a barrier that not every thread of the block reaches");
        }
        let extent = self.value(extent)?;
        let outside = self.instruction(Class::Predicate, "setp.ge.s64", &[&index, &extent]);
        let end = self.fresh_label("inactive");
        self.line(format!("@{outside} bra {end};"));
        self.inner(body)?;
        self.label(&end);
        Ok(())
    }

    /// A block or thread index as `i64`.
    fn special(&mut self, name: &str, axis: u8) -> Value {
        let axis = ["x", "y", "z"][usize::from(axis.min(2))];
        let narrow = self.fresh(Class::Bits32);
        self.line(format!("mov.u32 {narrow}, %{name}.{axis};"));
        self.instruction(Class::Bits64, "cvt.u64.u32", &[&narrow])
    }

    /// Loads parameters and finds where every buffer starts.
    fn prologue(&mut self) -> Result<(), Error> {
        for number in 0..self.kernel.dims.len() {
            let dim = self.fresh(Class::Bits64);
            self.line(format!("ld.param.s64 {dim}, [{}_d{number}];", self.kernel.name));
            self.dims.push(dim);
        }
        self.place_buffers()
    }

    fn finish(self) -> String {
        let mut out = format!(".visible .entry {}(\n", self.kernel.name);
        let names = parameters(self.kernel);
        for (number, name) in names.iter().enumerate() {
            let comma = if number + 1 < names.len() { "," } else { "" };
            let _ = writeln!(out, "\t.param .u64 {name}{comma}");
        }
        out.push_str(")\n");
        let [x, y, z] = self.block;
        let _ = writeln!(out, ".maxntid {x}, {y}, {z}\n{{");
        out.push_str(&self.registers.declarations());
        out.push_str(&self.declared_memory());
        out.push_str(&self.text);
        out.push_str("}\n");
        out
    }
}

/// True where the kernel has scratch memory.
pub fn has_scratch(kernel: &Kernel) -> bool {
    kernel.buffers.iter().any(|buffer| buffer.space == Space::Scratch)
}

/// Names of the parameters in their order.
pub fn parameters(kernel: &Kernel) -> Vec<String> {
    let name = &kernel.name;
    let mut names: Vec<String> =
        (0..kernel.arguments().count()).map(|number| format!("{name}_a{number}")).collect();
    if has_scratch(kernel) {
        names.push(format!("{name}_scratch"));
    }
    names.extend((0..kernel.dims.len()).map(|number| format!("{name}_d{number}")));
    names
}

/// Bytes of shared memory that the kernel declares; none where a count is not a constant or the size overflows.
pub fn shared_bytes(kernel: &Kernel) -> Option<u64> {
    let mut total: u64 = 0;
    for buffer in kernel.buffers.iter().filter(|buffer| buffer.space == Space::Shared) {
        let count = usize::try_from(buffer.count.as_index()?).ok()?;
        let bytes = buffer.dtype.bytes_for(count)? as u64;
        total = total.checked_next_multiple_of(memory::ALIGNMENT)?.checked_add(bytes)?;
    }
    Some(total)
}

fn check_limits(kernel: &Kernel, target: &Target, block: &[u64; 3]) -> Result<(), Error> {
    let Some(shared) = shared_bytes(kernel) else {
        return Err(Error::Unsupported {
            kernel: kernel.name.clone(),
            what: "shared memory without a constant size".into(),
        });
    };
    let limits = [
        ("bytes of shared memory a block", shared, Target::STATIC_SHARED),
        ("threads a block", block.iter().fold(1, |a: u64, b| a.saturating_mul(*b)), Target::THREADS),
        ("threads along the last dimension of a block", block[2], Target::THREADS_DEEP),
        ("bytes of parameters", 8 * parameters(kernel).len() as u64, Target::PARAMETERS),
    ];
    for (resource, needed, limit) in limits {
        if needed > limit {
            let kernel = kernel.name.clone();
            return Err(Error::Limit { kernel, resource, needed, target: target.name, limit });
        }
    }
    Ok(())
}

fn has_barrier(stmts: &[Stmt]) -> bool {
    stmts.iter().any(|stmt| match stmt {
        Stmt::Barrier => true,
        Stmt::For { body, .. } => has_barrier(body),
        Stmt::If { then, otherwise, .. } => has_barrier(then) || has_barrier(otherwise),
        _ => false,
    })
}
