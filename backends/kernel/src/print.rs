//! Readable text of kernels, for dumps and golden tests.
//!
//! A variable or buffer whose name is taken by another one or a dimension gets its number appended, so that text stays unambiguous. Index constants are
//! bare numbers, others carry their type; `x[i; 8]` is a vector load, `valid` gives the number of leading lanes in use.

use std::collections::HashMap;
use std::fmt::{self, Write as _};

use tcc_ir::scalar::{Function, ScalarOp};

use crate::ir::{Access, Expr, Kernel, LoopKind, Space, Stmt, Ty};
use crate::warp::WarpOp;

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lanes == 1 { write!(f, "{}", self.dtype) } else { write!(f, "{}x{}", self.dtype, self.lanes) }
    }
}

impl fmt::Display for LoopKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoopKind::Serial => f.write_str("serial"),
            LoopKind::Parallel => f.write_str("parallel"),
            LoopKind::Vector => f.write_str("vector"),
            LoopKind::Unroll => f.write_str("unroll"),
            LoopKind::Grid(dimension) => write!(f, "grid({dimension})"),
            LoopKind::Thread(dimension) => write!(f, "thread({dimension})"),
            LoopKind::Pipeline(interval) => write!(f, "pipeline({interval})"),
        }
    }
}

/// The text of a kernel.
impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Names::new(self);
        write!(f, "kernel {}(", self.name)?;
        f.write_str(&self.dims.join(", "))?;
        writeln!(f, ") {{")?;
        for (number, buffer) in self.buffers.iter().enumerate() {
            let space = match buffer.space {
                Space::Argument(position) => format!("argument {position}"),
                Space::Scratch => "scratch".to_string(),
                Space::Stack => "stack".to_string(),
                Space::Register => "register".to_string(),
                Space::Shared => "shared".to_string(),
                Space::OnChip => "on-chip".to_string(),
            };
            let access = match buffer.access {
                Access::Read => "read",
                Access::Write => "write",
                Access::ReadWrite => "read write",
            };
            let count = names.expr(&buffer.count);
            writeln!(f, "  {space} {}: {}[{count}] {access}", names.buffers[number], buffer.dtype)?;
        }
        let mut text = String::new();
        names.block(&self.body, 1, &mut text);
        f.write_str(&text)?;
        writeln!(f, "}}")
    }
}

impl Kernel {
    /// The text of an expression of this kernel.
    pub fn expr_text(&self, expr: &Expr) -> String {
        Names::new(self).expr(expr)
    }
}

struct Names<'k> {
    kernel: &'k Kernel,
    variables: Vec<String>,
    buffers: Vec<String>,
}

fn distinct<'n>(names: impl Iterator<Item = &'n str> + Clone, taken: &'n [String]) -> Vec<String> {
    let mut uses: HashMap<&str, usize> = HashMap::new();
    let taken = taken.iter().map(String::as_str);
    names.clone().chain(taken).for_each(|name| *uses.entry(name).or_default() += 1);
    names
        .enumerate()
        .map(|(number, name)| if uses[name] == 1 { name.to_string() } else { format!("{name}.{number}") })
        .collect()
}

/// How strongly an operator binds; a part is parenthesized where it binds less.
fn infix(function: Function) -> Option<(&'static str, u8)> {
    Some(match function {
        Function::Mul => ("*", 5),
        Function::Div => ("/", 5),
        Function::Rem => ("%", 5),
        Function::Add => ("+", 4),
        Function::Sub => ("-", 4),
        Function::Less => ("<", 3),
        Function::LessEqual => ("<=", 3),
        Function::Equal => ("==", 3),
        Function::And => ("&&", 2),
        Function::Or => ("||", 1),
        _ => return None,
    })
}

impl<'k> Names<'k> {
    fn new(kernel: &'k Kernel) -> Names<'k> {
        Names {
            kernel,
            variables: distinct(kernel.variables.iter().map(|variable| variable.name.as_str()), &kernel.dims),
            buffers: distinct(kernel.buffers.iter().map(|buffer| buffer.name.as_str()), &[]),
        }
    }

    fn block(&self, block: &[Stmt], depth: usize, out: &mut String) {
        for stmt in block {
            self.stmt(stmt, depth, out);
        }
    }

    fn variable(&self, number: u32) -> &str {
        self.variables.get(number as usize).map_or("?", String::as_str)
    }

    fn buffer(&self, number: u32) -> &str {
        self.buffers.get(number as usize).map_or("?", String::as_str)
    }

    fn stmt(&self, stmt: &Stmt, depth: usize, out: &mut String) {
        let indent = "  ".repeat(depth);
        // Writing to a string does not fail.
        let _ = match stmt {
            Stmt::For { var, extent, kind, body } => {
                let _ = write!(out, "{indent}for {} in {}", self.variable(var.0), self.expr(extent));
                if *kind != LoopKind::Serial {
                    let _ = write!(out, " {kind}");
                }
                out.push_str(" {\n");
                self.block(body, depth + 1, out);
                writeln!(out, "{indent}}}")
            }
            Stmt::Assign { var, value } => {
                let ty = self.kernel.variables.get(var.0 as usize).map(|variable| variable.ty.to_string());
                let ty = ty.unwrap_or_default();
                writeln!(out, "{indent}{}: {ty} = {}", self.variable(var.0), self.expr(value))
            }
            Stmt::Store { buffer, index, value, valid } => {
                let _ = write!(out, "{indent}{}[{}", self.buffer(buffer.0), self.expr(index));
                if let Some(valid) = valid {
                    let _ = write!(out, " valid {}", self.expr(valid));
                }
                writeln!(out, "] = {}", self.expr(value))
            }
            Stmt::If { condition, then, otherwise } => {
                let _ = writeln!(out, "{indent}if {} {{", self.expr(condition));
                self.block(then, depth + 1, out);
                if !otherwise.is_empty() {
                    let _ = writeln!(out, "{indent}}} else {{");
                    self.block(otherwise, depth + 1, out);
                }
                writeln!(out, "{indent}}}")
            }
            Stmt::Barrier => writeln!(out, "{indent}barrier"),
            Stmt::Warp(op) => writeln!(out, "{indent}{}", self.warp_text(op)),
        };
    }

    fn warp_text(&self, op: &WarpOp) -> String {
        let args: Vec<String> = op.exprs().into_iter().map(|expr| self.expr(expr)).collect();
        let args = args.join(", ");
        match op {
            WarpOp::Multiply { sum, fragment, .. } => {
                let sum = self.variable(sum.0);
                format!("{sum} = {sum} + product of {fragment:?}({args})")
            }
            WarpOp::LoadMatrices { into, buffer, transposed, .. } => {
                let order = if *transposed { "transposed matrices" } else { "matrices" };
                format!("{} = {order} of {}[{args}]", self.variable(into.0), self.buffer(buffer.0))
            }
            WarpOp::CopyAsync { to, from, .. } => {
                format!("copy {} -> {} at ({args})", self.buffer(from.0), self.buffer(to.0))
            }
            WarpOp::CopyCommit => "commit copies".to_string(),
            WarpOp::CopyWait(count) => format!("wait for all but {count} copies"),
            WarpOp::Exchange { into, mask, .. } => {
                format!("{} = exchange({args}) with lane ^ {mask}", self.variable(into.0))
            }
        }
    }

    fn expr(&self, expr: &Expr) -> String {
        let mut out = String::new();
        self.write(expr, 0, &mut out);
        out
    }

    fn list<'e>(&self, parts: impl IntoIterator<Item = &'e Expr>, out: &mut String) {
        for (position, part) in parts.into_iter().enumerate() {
            if position > 0 {
                out.push_str(", ");
            }
            self.write(part, 0, out);
        }
    }

    fn write(&self, expr: &Expr, outer: u8, out: &mut String) {
        // Writing to a string does not fail.
        let _ = match expr {
            Expr::Const(scalar) => match expr.as_index() {
                Some(value) => write!(out, "{value}"),
                None => write!(out, "{scalar}"),
            },
            Expr::Var(var) => write!(out, "{}", self.variable(var.0)),
            Expr::Dim(number) => {
                write!(out, "{}", self.kernel.dims.get(*number as usize).map_or("?", String::as_str))
            }
            Expr::Load { buffer, index, lanes, valid } => {
                let _ = write!(out, "{}[", self.buffer(buffer.0));
                self.write(index, 0, out);
                if *lanes > 1 {
                    let _ = write!(out, "; {lanes}");
                }
                if let Some(valid) = valid {
                    out.push_str(" valid ");
                    self.write(valid, 0, out);
                }
                write!(out, "]")
            }
            Expr::Call(ScalarOp::Call(function), args) if infix(*function).is_some() && args.len() == 2 => {
                let (sign, strength) = infix(*function).unwrap_or(("", 0));
                let parenthesize = strength < outer;
                if parenthesize {
                    out.push('(');
                }
                self.write(&args[0], strength, out);
                let _ = write!(out, " {sign} ");
                self.write(&args[1], strength + 1, out);
                if parenthesize {
                    out.push(')');
                }
                Ok(())
            }
            Expr::Call(op, args) => {
                let _ = write!(out, "{op}(");
                self.list(args, out);
                write!(out, ")")
            }
            Expr::Splat(value, lanes) => {
                out.push_str("splat(");
                self.write(value, 0, out);
                write!(out, "; {lanes})")
            }
            Expr::Ramp { base, stride, lanes } => {
                out.push_str("ramp(");
                self.write(base, 0, out);
                write!(out, ", {stride}; {lanes})")
            }
            Expr::Fma(a, b, c) => {
                out.push_str("fma(");
                self.list([&**a, &**b, &**c], out);
                write!(out, ")")
            }
            Expr::Dot { acc, a, b } => {
                out.push_str("dot(");
                self.list([&**acc, &**a, &**b], out);
                write!(out, ")")
            }
            Expr::ReduceLanes(kind, value) => {
                let _ = write!(out, "reduce_{}(", kind.text());
                self.write(value, 0, out);
                write!(out, ")")
            }
            Expr::Shuffle(a, b, picks) => {
                out.push_str("shuffle(");
                self.list([&**a, &**b], out);
                write!(out, "; {picks:?})")
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcc_ir::dtype::DType;

    #[test]
    fn text_is_readable_and_unambiguous() {
        let mut kernel = Kernel::new("scale");
        kernel.dims.push("n".into());
        let n = Expr::Dim(0);
        let x = kernel.argument("x", DType::F32, n.clone().times(Expr::index(4)), Access::Read);
        let y = kernel.argument("y", DType::F32, n.clone(), Access::Write);
        let (i, j) = (kernel.counter("i"), kernel.counter("i"));
        let sum = kernel.variable("sum", Ty::scalar(DType::F32));
        let index = Expr::from(i).times(Expr::index(4)).plus(j.into());
        let next = Expr::call(Function::Add, vec![sum.into(), Expr::load(x, index)]);
        kernel.body = vec![Stmt::For {
            var: i,
            extent: n,
            kind: LoopKind::Parallel,
            body: vec![
                Stmt::Assign { var: sum, value: Expr::constant(DType::F32, 0.0) },
                Stmt::For {
                    var: j,
                    extent: Expr::index(4),
                    kind: LoopKind::Serial,
                    body: vec![Stmt::Assign { var: sum, value: next }],
                },
                Stmt::Store { buffer: y, index: i.into(), value: sum.into(), valid: None },
            ],
        }];
        insta::assert_snapshot!(kernel, @"
        kernel scale(n) {
          argument 0 x: f32[n * 4] read
          argument 1 y: f32[n] write
          for i.0 in n parallel {
            sum: f32 = f32:0.0
            for i.1 in 4 {
              sum: f32 = sum + x[i.0 * 4 + i.1]
            }
            y[i.0] = sum
          }
        }
        ");
    }
}
