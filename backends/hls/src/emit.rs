//! A scheduled kernel as one C++ function.
//!
//! Arguments are arrays of their static size, `const` where they are only read; register and scratch arrays are local.
//! Streams are read and written in order, so that their accesses have no index.
//! `Unroll` and `Vector` loops carry `#pragma HLS UNROLL`, `Pipeline` loops `#pragma HLS PIPELINE`. Every name in a pragma is
//! one that the function declares before it. Vectors have been taken apart: accesses have one lane each.

mod expr;
mod index;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use tcc_ir::scalar::Function;
use tcc_kernel::fixed::{Fixed, Table};
use tcc_kernel::ir::{Access, Buffer, BufferId, Expr, Kernel, LoopKind, Space, Stmt, Var};

use crate::error::Error;
use crate::names::distinct;
use crate::numbers::Types;
use crate::range::Ranges;

use index::Indices;

/// A kernel as text.
#[derive(Clone, PartialEq, Debug)]
pub struct Emitted {
    /// Name of the function.
    pub name: String,
    /// The declaration, without a semicolon.
    pub prototype: String,
    /// The definition.
    pub text: String,
    /// Tables that it looks up, with the formats of their entries.
    pub tables: BTreeSet<(Table, Fixed)>,
}

/// Cyclic partition of a buffer into so many banks, by [`BufferId`]; 1 leaves it whole.
pub type Partitions = [u32];

/// Writes a kernel as the C++ function `name`. `partitions` are those of its own arrays; callers partition arguments.
/// `streams` says by buffer which arguments are streams; none of them where it is short.
pub fn emit(
    kernel: &Kernel,
    name: &str,
    types: &Types,
    partitions: &Partitions,
    streams: &[bool],
) -> Result<Emitted, Error> {
    if let Some(dimension) = kernel.dims.first() {
        return Err(Error::OpenDimension {
            what: format!("kernel {}", kernel.name),
            dimension: dimension.clone(),
        });
    }
    let mut emitter = Emitter {
        kernel,
        types,
        streams,
        indices: Indices::of(kernel),
        ranges: Ranges::default(),
        scopes: vec![Scope::default()],
        buffers: Vec::new(),
        tables: BTreeSet::new(),
        out: String::new(),
    };
    emitter.declare_buffers()?;
    let arguments: Vec<String> = emitter.arguments()?;
    let prototype = format!("void {name}({})", arguments.join(", "));
    let _ = writeln!(emitter.out, "{prototype} {{");
    emitter.local_arrays(partitions)?;
    emitter.block(&kernel.body, 1)?;
    emitter.out.push_str("}\n");
    Ok(Emitted { name: name.to_string(), prototype, text: emitter.out, tables: emitter.tables })
}

#[derive(Default)]
struct Scope {
    /// Variables declared here, with their names.
    variables: Vec<(Var, String)>,
}

struct Emitter<'k> {
    kernel: &'k Kernel,
    types: &'k Types,
    streams: &'k [bool],
    indices: Indices,
    ranges: Ranges,
    scopes: Vec<Scope>,
    /// Names by buffer.
    buffers: Vec<String>,
    tables: BTreeSet<(Table, Fixed)>,
    out: String,
}

/// Number of elements of a buffer, at least the one that C++ arrays need.
pub fn elements(kernel: &Kernel, buffer: &Buffer) -> Result<u64, Error> {
    let count = Ranges::default().of(&buffer.count).map(|(low, _)| low.max(1));
    count.and_then(|count| u64::try_from(count).ok()).ok_or_else(|| Error::Unsupported {
        kernel: kernel.name.clone(),
        what: format!("array '{}' of open size", buffer.name),
        advice: "fix all dimensions",
    })
}

impl Emitter<'_> {
    fn unsupported<T>(&self, what: impl Into<String>, advice: &'static str) -> Result<T, Error> {
        Err(Error::Unsupported { kernel: self.kernel.name.clone(), what: what.into(), advice })
    }

    fn declare_buffers(&mut self) -> Result<(), Error> {
        for buffer in &self.kernel.buffers {
            if buffer.space == Space::Shared {
                return self.unsupported("memory of a GPU block", "lower the kernel for HLS");
            }
            let name = distinct(&buffer.name, &|name| self.buffers.iter().any(|taken| taken == name));
            self.buffers.push(name);
        }
        Ok(())
    }

    /// The C++ type of a buffer's elements.
    fn element_type(&self, id: BufferId) -> Result<String, Error> {
        match self.types.buffer(self.kernel, id) {
            Some(name) => Ok(name),
            None => self.unsupported(
                format!("type for {} elements", self.kernel.buffer_of(id).dtype),
                "convert the model to f32 or integers",
            ),
        }
    }

    fn arguments(&self) -> Result<Vec<String>, Error> {
        let mut arguments: Vec<(u32, String)> = Vec::new();
        for (number, (buffer, name)) in self.kernel.buffers.iter().zip(&self.buffers).enumerate() {
            let Space::Argument(position) = buffer.space else { continue };
            let ty = self.element_type(BufferId(number as u32))?;
            let constant = if buffer.access == Access::Read { "const " } else { "" };
            if self.is_stream(BufferId(number as u32)) {
                arguments.push((position, format!("hls::stream<{ty}> &{name}")));
                continue;
            }
            let count = elements(self.kernel, buffer)?;
            arguments.push((position, format!("{constant}{ty} {name}[{count}]")));
        }
        arguments.sort();
        Ok(arguments.into_iter().map(|(_, text)| text).collect())
    }

    fn is_stream(&self, id: BufferId) -> bool {
        self.streams.get(id.0 as usize).copied().unwrap_or(false)
    }

    /// True for an array of one element, which is written as a variable.
    fn is_single(&self, id: BufferId) -> bool {
        let buffer = self.kernel.buffer_of(id);
        !matches!(buffer.space, Space::Argument(_)) && buffer.count.is_index(1)
    }

    fn local_arrays(&mut self, partitions: &Partitions) -> Result<(), Error> {
        for number in 0..self.kernel.buffers.len() {
            let buffer = &self.kernel.buffers[number];
            if matches!(buffer.space, Space::Argument(_)) {
                continue;
            }
            let id = BufferId(number as u32);
            let (ty, name) = (self.element_type(id)?, &self.buffers[number]);
            if self.is_single(id) {
                let _ = writeln!(self.out, "  {ty} {name};");
                continue;
            }
            let count = elements(self.kernel, buffer)?;
            // Windows are too large for the stack of a simulation.
            let kept = if buffer.space == Space::OnChip { "static " } else { "" };
            let _ = writeln!(self.out, "  {kept}{ty} {name}[{count}];");
            match (buffer.space, partitions.get(number)) {
                (Space::Register, _) => {
                    let _ =
                        writeln!(self.out, "#pragma HLS ARRAY_PARTITION variable={name} type=complete dim=1");
                }
                (_, Some(factor)) if *factor > 1 => {
                    let pragma = "#pragma HLS ARRAY_PARTITION";
                    let _ = writeln!(self.out, "{pragma} variable={name} type=cyclic factor={factor} dim=1");
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn variable(&self, var: Var) -> Option<&str> {
        let known = self.scopes.iter().rev().flat_map(|scope| &scope.variables);
        known.clone().find(|(known, _)| *known == var).map(|(_, name)| name.as_str())
    }

    fn declare(&mut self, var: Var) -> String {
        let base = self.kernel.variables.get(var.0 as usize).map_or("x", |variable| variable.name.as_str());
        let taken = |name: &str| {
            self.buffers.iter().any(|buffer| buffer == name)
                || self.scopes.iter().any(|scope| scope.variables.iter().any(|(_, known)| known == name))
        };
        let name = distinct(base, &taken);
        if let Some(scope) = self.scopes.last_mut() {
            scope.variables.push((var, name.clone()));
        }
        name
    }

    fn block(&mut self, block: &[Stmt], depth: usize) -> Result<(), Error> {
        block.iter().try_for_each(|stmt| self.stmt(stmt, depth))
    }

    fn nested(&mut self, block: &[Stmt], depth: usize) -> Result<(), Error> {
        self.scopes.push(Scope::default());
        let result = self.block(block, depth);
        self.scopes.pop();
        result
    }

    fn stmt(&mut self, stmt: &Stmt, depth: usize) -> Result<(), Error> {
        let indent = "  ".repeat(depth);
        // Writing to a string does not fail.
        match stmt {
            Stmt::For { var, extent, kind, body } => return self.iteration(*var, extent, *kind, body, depth),
            Stmt::Assign { var, value } => {
                let text = self.expr(value)?.text;
                match self.variable(*var) {
                    Some(name) => {
                        let name = name.to_string();
                        let _ = writeln!(self.out, "{indent}{name} = {text};");
                    }
                    None => {
                        let ty = self.variable_type(*var)?;
                        let name = self.declare(*var);
                        let _ = writeln!(self.out, "{indent}{ty} {name} = {text};");
                    }
                }
            }
            Stmt::Store { buffer, index, value, valid } => {
                let value = self.expr(value)?.text;
                if self.is_stream(*buffer) {
                    let name = &self.buffers[buffer.0 as usize];
                    let _ = writeln!(self.out, "{indent}{name}.write({value});");
                    return Ok(());
                }
                let target = self.element(*buffer, index)?;
                let condition = match valid {
                    Some(valid) => format!("if ({} > 0) ", self.expr(valid)?.above(8)),
                    None => String::new(),
                };
                let _ = writeln!(self.out, "{indent}{condition}{target} = {value};");
            }
            Stmt::If { condition, then, otherwise } => {
                let condition = self.expr(condition)?.text;
                let _ = writeln!(self.out, "{indent}if ({condition}) {{");
                self.nested(then, depth + 1)?;
                if !otherwise.is_empty() {
                    let _ = writeln!(self.out, "{indent}}} else {{");
                    self.nested(otherwise, depth + 1)?;
                }
                let _ = writeln!(self.out, "{indent}}}");
            }
            Stmt::Barrier | Stmt::Warp(_) => {
                return self.unsupported("barrier between GPU threads", "lower the kernel for HLS");
            }
        }
        Ok(())
    }

    fn iteration(
        &mut self,
        var: Var,
        extent: &Expr,
        kind: LoopKind,
        body: &[Stmt],
        depth: usize,
    ) -> Result<(), Error> {
        let indent = "  ".repeat(depth);
        let extent_text = self.expr(extent)?.above(8);
        let pragma = match kind {
            LoopKind::Serial | LoopKind::Parallel => None,
            LoopKind::Unroll | LoopKind::Vector => Some("#pragma HLS UNROLL".to_string()),
            LoopKind::Pipeline(interval) => Some(format!("#pragma HLS PIPELINE II={interval}")),
            LoopKind::Grid(_) | LoopKind::Thread(_) => {
                return self.unsupported("loop over GPU threads", "lower the kernel for HLS");
            }
        };
        let trips = self.ranges.enter(var, extent);
        self.scopes.push(Scope::default());
        let name = self.declare(var);
        let ty = self.indices.type_name();
        let _ = writeln!(self.out, "{indent}for ({ty} {name} = 0; {name} < {extent_text}; ++{name}) {{");
        if let Some(pragma) = pragma {
            let _ = writeln!(self.out, "{pragma}");
        }
        if let (None, Some((low, high))) = (extent.as_index(), trips) {
            let _ = writeln!(self.out, "#pragma HLS LOOP_TRIPCOUNT min={low} max={high}");
        }
        let result = self.block(body, depth + 1);
        self.scopes.pop();
        let _ = writeln!(self.out, "{indent}}}");
        result
    }

    /// The C++ type of a variable.
    fn variable_type(&self, var: Var) -> Result<String, Error> {
        if self.indices.is_native(var) {
            return Ok(self.indices.type_name().to_string());
        }
        let Some(variable) = self.kernel.variables.get(var.0 as usize) else {
            return self.unsupported("variable without a declaration", "verify the kernel");
        };
        if variable.ty.lanes != 1 {
            return self.unsupported(
                format!("vector variable '{}'", variable.name),
                "lower the kernel with one lane",
            );
        }
        match self.types.local(variable.ty.dtype) {
            Some(name) => Ok(name),
            None => self.unsupported(
                format!("type for {} values", variable.ty.dtype),
                "convert the model to f32 or integers",
            ),
        }
    }

    /// An element of a buffer, to read or to write.
    fn element(&mut self, buffer: BufferId, index: &Expr) -> Result<String, Error> {
        let name = self.buffers[buffer.0 as usize].clone();
        if self.is_stream(buffer) {
            return Ok(format!("{name}.read()"));
        }
        if self.is_single(buffer) {
            return Ok(name);
        }
        let index = self.expr(index)?;
        let text = if index.native { index.text } else { format!("int({})", index.text) };
        Ok(format!("{name}[{text}]"))
    }

    /// The table of a function in the local format.
    fn table(&mut self, function: Function, format: Fixed) -> Option<Table> {
        let table = Table::of(function)?;
        self.tables.insert((table, format));
        Some(table)
    }
}

#[cfg(test)]
mod tests;
