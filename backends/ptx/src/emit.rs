//! Writes scheduled kernels as PTX.
//!
//! A kernel becomes one `.entry`. Its parameters are 64-bit: a pointer for each argument in the caller's order, the scratch
//! pointer where the kernel has scratch memory, then the run-time dimensions. Block indices run over exactly the extent of
//! the grid loop, so that loop has no bounds guard; a thread loop has one unless its extent is the block's.
//!
//! Every variable has a register of its own, every expression that is not at hand already a new one; the assembler allocates. A
//! vector is a register for each lane. Arithmetic on floats carries
//! its rounding mode, which forbids the assembler to contract it, so results do not depend on the assembler. 8- and 16-bit
//! integers live in 32-bit registers, always extended as their type says; truth values are predicates.

mod call;
mod cast;
mod expression;
mod memory;
mod register;
mod reuse;
mod vector;
mod warp;

use std::fmt::Write;

use tcc_ir::dtype::DType;
use tcc_kernel::ir::{Expr, Kernel, LoopKind, Space, Stmt, Ty};

use crate::error::Error;
use crate::schedule::block_of;
use crate::target::Target;
use memory::Place;
use register::{Class, Registers, Value};
use reuse::Reuse;

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
        reuse: Reuse::default(),
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
    /// The registers of each variable, one a lane, from its first assignment on.
    variables: Vec<Option<Vec<Value>>>,
    /// Where each buffer starts.
    places: Vec<Place>,
    dims: Vec<Value>,
    labels: usize,
    /// Grid dimensions that a loop has taken.
    pinned: [bool; 3],
    /// Statements around the present one, but for grid loops.
    depth: usize,
    reuse: Reuse,
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

    /// The result of an instruction without effects: `opcode result, operands;`, unless it is at hand.
    fn instruction(&mut self, class: Class, opcode: &str, operands: &[&Value]) -> Value {
        let mut key = opcode.to_string();
        for operand in operands {
            let _ = write!(key, ", {operand}");
        }
        if let Some(known) = self.reuse.find(&key) {
            return known;
        }
        let result = self.fresh(class);
        self.line(format!("{opcode} {result}{};", &key[opcode.len()..]));
        self.reuse.note(key, operands, &result);
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
        let mark = self.reuse.enter();
        self.block(stmts)?;
        self.reuse.leave(mark);
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
                let start = self.text.len();
                let value = self.lanes(value)?;
                self.assign(var.0 as usize, &value, start)
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
            Stmt::Warp(op) => self.warp(op),
        }
    }

    /// `variable = value`, by lanes. A variable keeps its registers, so that the value survives where branches and loops
    /// join. Lines from `start` on, which compute the value, write them at once where no later one of them reads what was
    /// there before.
    fn assign(&mut self, variable: usize, values: &[Value], start: usize) -> Result<(), Error> {
        let ty = self.kernel.variables[variable].ty;
        let class = self.class(Ty::scalar(ty.dtype))?;
        let registers = match &self.variables[variable] {
            Some(registers) => registers.clone(),
            None => values.iter().map(|_| self.fresh(class)).collect(),
        };
        let lines = self.text.split_off(start);
        let (lines, mut left) = retarget(lines, values, &registers);
        self.text.push_str(&lines);
        let moved = values.iter().zip(&left).filter(|(_, left)| left.is_none());
        moved.for_each(|(value, _)| self.reuse.withdraw(value));
        if values.len() > 1 {
            // Lanes may change places: none is written before all are read.
            for value in left.iter_mut().flatten().filter(|value| registers.contains(value)) {
                let copy = self.fresh(class);
                self.line(format!("mov.{} {copy}, {value};", class.bits_type()));
                *value = copy;
            }
        }
        for (register, value) in registers.iter().zip(left) {
            if let Some(value) = value {
                self.line(format!("mov.{} {register}, {value};", class.bits_type()));
            }
        }
        registers.iter().for_each(|register| self.reuse.changes(register));
        self.variables[variable] = Some(registers);
        Ok(())
    }

    /// What a loop assigns has no known value where it starts.
    fn forget_assigned(&mut self, stmts: &[Stmt]) {
        for stmt in stmts {
            match stmt {
                Stmt::Assign { var, .. } => {
                    for register in self.variables[var.0 as usize].clone().iter().flatten() {
                        self.reuse.changes(register);
                    }
                }
                Stmt::Warp(op) => {
                    let registers = op.assigned().and_then(|var| self.variables[var.0 as usize].clone());
                    registers.iter().flatten().for_each(|register| self.reuse.changes(register));
                }
                Stmt::For { body, .. } => self.forget_assigned(body),
                Stmt::If { then, otherwise, .. } => {
                    self.forget_assigned(then);
                    self.forget_assigned(otherwise);
                }
                _ => {}
            }
        }
    }

    fn serial(&mut self, variable: usize, extent: &Expr, body: &[Stmt]) -> Result<(), Error> {
        // A register of its own: the body may assign what the extent is made of.
        let extent = self.value(extent)?;
        let extent = self.instruction(Class::Bits64, "mov.b64", &[&extent]);
        self.variables[variable] = None;
        self.assign(variable, &[Value::integer(0)], self.text.len())?;
        self.forget_assigned(body);
        let (head, end) = (self.fresh_label("loop"), self.fresh_label("endloop"));
        if has_barrier(body) {
            // What is to be written out has been: more copies of a pipeline only spill.
            self.line(".pragma \"nounroll\";");
        }
        self.label(&head);
        let mark = self.reuse.enter();
        let counter = self.scalar(variable)?;
        let done = self.instruction(Class::Predicate, "setp.ge.s64", &[&counter, &extent]);
        self.line(format!("@{done} bra {end};"));
        self.inner(body)?;
        self.line(format!("add.s64 {counter}, {counter}, 1;"));
        self.reuse.changes(&counter);
        self.line(format!("bra {head};"));
        self.label(&end);
        self.reuse.leave(mark);
        self.variables[variable] = None;
        Ok(())
    }

    /// The registers of a variable.
    fn registers(&self, variable: usize) -> Result<Vec<Value>, Error> {
        match &self.variables[variable] {
            Some(registers) => Ok(registers.clone()),
            None => self.unsupported(format!(
                "'{}', which is read before it is assigned",
                self.kernel.variables[variable].name
            )),
        }
    }

    /// The register of a variable of one lane.
    fn scalar(&self, variable: usize) -> Result<Value, Error> {
        match &self.registers(variable)?[..] {
            [register] => Ok(register.clone()),
            _ => self.unsupported(format!("'{}' as a scalar", self.kernel.variables[variable].name)),
        }
    }

    fn grid(&mut self, variable: usize, axis: u8, body: &[Stmt]) -> Result<(), Error> {
        match self.pinned.get_mut(usize::from(axis)) {
            Some(pinned) if !*pinned => *pinned = true,
            _ => return self.unsupported("two loops over one dimension of the grid"),
        }
        let index = self.special("ctaid", axis);
        self.variables[variable] = Some(vec![index]);
        self.block(body)
    }

    fn thread(&mut self, variable: usize, axis: u8, extent: &Expr, body: &[Stmt]) -> Result<(), Error> {
        let size = self.block[usize::from(axis)];
        let index = self.special("tid", axis);
        self.variables[variable] = Some(vec![index.clone()]);
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
        let narrow = self.instruction(Class::Bits32, "mov.u32", &[&Value::special(name, axis)]);
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
        let mut out = String::new();
        if dynamic_shared_bytes(self.kernel).is_some_and(|bytes| bytes > 0) {
            let _ = writeln!(
                out,
                ".extern .shared .align {} .b8 {}_shared[];",
                memory::ALIGNMENT,
                self.kernel.name
            );
        }
        let _ = writeln!(out, ".visible .entry {}(", self.kernel.name);
        let names = parameters(self.kernel);
        for (number, name) in names.iter().enumerate() {
            let comma = if number + 1 < names.len() { "," } else { "" };
            let _ = writeln!(out, "\t.param .u64 {name}{comma}");
        }
        out.push_str(")\n");
        let [x, y, z] = self.block;
        // One block a multiprocessor is enough: without a word the assembler spills to fit more.
        let _ = writeln!(out, ".maxntid {x}, {y}, {z}\n.minnctapersm 1\n{{");
        out.push_str(&self.registers.declarations());
        out.push_str(&self.declared_memory());
        out.push_str(&self.text);
        out.push_str("}\n");
        out
    }
}

/// Lets lines write registers in place of the values that they compute; returns them with the values that are left to move, by
/// lane: those that they do not compute, or whose register they read later.
fn retarget(mut lines: String, values: &[Value], registers: &[Value]) -> (String, Vec<Option<Value>>) {
    let mut left = Vec::new();
    for (value, register) in values.iter().zip(registers) {
        let name = value.to_string();
        let once = value.is_register() && values.iter().filter(|other| *other == value).count() == 1;
        let defined = if once { token(&lines, &name, 0) } else { None };
        let late = defined.is_none_or(|at| {
            let after = lines[at..].find('\n').map_or(lines.len(), |end| at + end);
            token(&lines, &register.to_string(), after).is_some()
        });
        if late {
            left.push(Some(value.clone()));
            continue;
        }
        left.push(None);
        let mut from = 0;
        while let Some(at) = token(&lines, &name, from) {
            let to = register.to_string();
            lines.replace_range(at..at + name.len(), &to);
            from = at + to.len();
        }
    }
    (lines, left)
}

/// Where a register occurs, from a position on.
fn token(text: &str, name: &str, from: usize) -> Option<usize> {
    let mut start = from;
    while let Some(at) = text[start..].find(name) {
        let end = start + at + name.len();
        if !text[end..].starts_with(|next: char| next.is_ascii_alphanumeric()) {
            return Some(start + at);
        }
        start = end;
    }
    None
}

/// A register, or several in braces.
fn tuple(values: &[Value]) -> String {
    match values {
        [value] => value.to_string(),
        values => {
            let names: Vec<String> = values.iter().map(Value::to_string).collect();
            format!("{{{}}}", names.join(", "))
        }
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

/// Bytes of shared memory that a launch asks for: all of it where it is more than a module may declare.
pub fn dynamic_shared_bytes(kernel: &Kernel) -> Option<u64> {
    let bytes = shared_bytes(kernel)?;
    Some(if bytes > Target::STATIC_SHARED { bytes } else { 0 })
}

fn check_limits(kernel: &Kernel, target: &Target, block: &[u64; 3]) -> Result<(), Error> {
    let Some(shared) = shared_bytes(kernel) else {
        return Err(Error::Unsupported {
            kernel: kernel.name.clone(),
            what: "shared memory without a constant size".into(),
        });
    };
    let limits = [
        ("bytes of shared memory a block", shared, target.shared),
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
        Stmt::Barrier | Stmt::Warp(_) => true,
        Stmt::For { body, .. } => has_barrier(body),
        Stmt::If { then, otherwise, .. } => has_barrier(then) || has_barrier(otherwise),
        _ => false,
    })
}
