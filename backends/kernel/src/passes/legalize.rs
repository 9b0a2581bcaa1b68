//! Replaces element types outside the core set.
//!
//! - Floats shorter than f32 are stored as their codes and computed with in f32; a result is rounded to its type where it
//!   is used further, and encoded once where it is stored. f16 stays in memory where the machine converts it.
//! - Packed integers are computed with in 8 bits; in register and stack arrays each has a byte. A scalar store elsewhere
//!   reads and writes its byte, so that tasks must not share one; vector accesses start at a byte
//!   ([`crate::passes::vectorize`]).
//! - Truth values are stored as bytes 0 and 1.
//! - `CastAlternate`, the saturating cast, becomes a clamp and a cast.
//!
//! ```text
//! y: bf16[n]; y[i] = x[i] + x[i]   =>   y: ui16[n]; t = f32(x[i]) + f32(x[i]); y[i] = bits of t, rounded
//! ```

mod packed;

use tcc_ir::dtype::{Class, DType};
use tcc_ir::scalar::{Function, Rule, Scalar, ScalarOp};

use crate::fold;
use crate::ir::{Access, Buffer, Expr, Kernel, LoopKind, Space, Stmt, Ty};
use crate::machine::Machine;
use crate::math::short_float;
use crate::verify::is_core;

/// Rewrites a kernel whose vector loops are gone.
pub fn legalize(kernel: &mut Kernel, machine: &Machine) {
    let original = kernel.clone();
    for variable in &mut kernel.variables {
        variable.ty.dtype = computed(variable.ty.dtype);
    }
    for buffer in &mut kernel.buffers {
        if is_packed(buffer) {
            let per_byte = 8 / buffer.dtype.bits() as i64;
            buffer.count = buffer.count.clone().over_up(Expr::index(per_byte));
            buffer.access = match buffer.access {
                Access::Write => Access::ReadWrite,
                other => other,
            };
        }
        buffer.dtype = stored(buffer.dtype, machine);
    }
    let body = std::mem::take(&mut kernel.body);
    let mut legalizer = Legalizer { kernel, original: &original, machine, out: Vec::new() };
    legalizer.block(body);
    let done = legalizer.out;
    kernel.body = done;
}

/// The type that values of a type are computed with.
fn computed(dtype: DType) -> DType {
    match dtype.class() {
        Class::Float if is_short(dtype) => DType::F32,
        Class::Signed if dtype.is_packed() => DType::I8,
        Class::Unsigned if dtype.is_packed() => DType::U8,
        _ => dtype,
    }
}

/// The type that values of a type have in memory.
fn stored(dtype: DType, machine: &Machine) -> DType {
    match dtype {
        DType::Bool => DType::U8,
        DType::F16 if machine.f16_convert => DType::F16,
        DType::F16 | DType::BF16 => DType::U16,
        dtype if dtype.is_packed() || is_short(dtype) => DType::U8,
        dtype => dtype,
    }
}

/// True where elements share bytes; small arrays of the kernel give each a byte. Scratch memory keeps its size, which callers
/// may know from before the passes.
fn is_packed(buffer: &Buffer) -> bool {
    buffer.dtype.is_packed() && !matches!(buffer.space, Space::Stack | Space::Register)
}

fn is_short(dtype: DType) -> bool {
    dtype.is_float() && dtype.bits() < 32
}

struct Legalizer<'k> {
    kernel: &'k mut Kernel,
    /// The kernel as it was, for the types of old expressions.
    original: &'k Kernel,
    machine: &'k Machine,
    out: Vec<Stmt>,
}

impl Legalizer<'_> {
    fn inner(&mut self, block: Vec<Stmt>) -> Vec<Stmt> {
        let outer = std::mem::take(&mut self.out);
        self.block(block);
        std::mem::replace(&mut self.out, outer)
    }

    fn block(&mut self, block: Vec<Stmt>) {
        for stmt in block {
            match stmt {
                Stmt::For { var, extent, kind, body } => {
                    // Nothing can be placed before the parallel loop; its extent is index arithmetic on dimensions.
                    let extent = if kind == LoopKind::Parallel { extent } else { self.value(&extent) };
                    let body = self.inner(body);
                    self.out.push(Stmt::For { var, extent, kind, body });
                }
                Stmt::If { condition, then, otherwise } => {
                    let condition = self.value(&condition);
                    let then = self.inner(then);
                    let otherwise = self.inner(otherwise);
                    self.out.push(Stmt::If { condition, then, otherwise });
                }
                Stmt::Assign { var, value } => {
                    let value = self.value(&value);
                    self.out.push(Stmt::Assign { var, value });
                }
                Stmt::Store { buffer, index, value, valid } => {
                    let dtype = self.original.buffer_of(buffer).dtype;
                    let index = self.value(&index);
                    let valid = valid.map(|valid| self.value(&valid));
                    if is_packed(self.original.buffer_of(buffer)) {
                        self.packed_store(buffer, dtype, index, &value, valid);
                        continue;
                    }
                    let value = match dtype {
                        DType::Bool => self.value(&value).cast(DType::Bool, DType::U8),
                        dtype if is_short(dtype) => self.coded(&value, dtype),
                        dtype => self.value(&value).cast(computed(dtype), stored(dtype, self.machine)),
                    };
                    self.out.push(Stmt::Store { buffer, index, value, valid });
                }
                Stmt::Barrier => self.out.push(Stmt::Barrier),
                Stmt::Warp(mut op) => {
                    op.exprs_mut().into_iter().for_each(|expr| *expr = self.value(expr));
                    self.out.push(Stmt::Warp(op));
                }
            }
        }
    }

    /// The type of an expression as it was.
    fn old_type(&self, expr: &Expr) -> Ty {
        self.original.type_of(expr)
    }

    /// True where nothing in the expression has to change.
    fn is_legal(&self, expr: &Expr) -> bool {
        let mut legal = true;
        expr.visit(&mut |part| {
            legal &= match part {
                Expr::Const(scalar) => is_core(scalar.dtype),
                Expr::Var(var) => is_core(self.original.variables[var.0 as usize].ty.dtype),
                Expr::Load { buffer, .. } => {
                    let dtype = self.original.buffer_of(*buffer).dtype;
                    is_core(dtype) && dtype != DType::Bool
                }
                Expr::Call(ScalarOp::Cast(to) | ScalarOp::Bitcast(to), _) => is_core(*to),
                Expr::Call(ScalarOp::CastAlternate(_), _) => false,
                _ => true,
            };
        });
        legal
    }

    /// The expression with its value in the type that it is computed with.
    fn value(&mut self, expr: &Expr) -> Expr {
        if self.is_legal(expr) {
            return expr.clone();
        }
        match expr {
            Expr::Const(scalar) => {
                let value = fold::canonical(*scalar);
                Expr::Const(Scalar { dtype: computed(scalar.dtype), bits: value.bits })
            }
            Expr::Var(_) | Expr::Dim(_) => expr.clone(),
            Expr::Load { buffer, index, lanes, valid } => {
                let dtype = self.original.buffer_of(*buffer).dtype;
                let index = Box::new(self.value(index));
                let valid = valid.as_ref().map(|valid| Box::new(self.value(valid)));
                if is_packed(self.original.buffer_of(*buffer)) {
                    return self.packed_load(*buffer, dtype, *index, *lanes, valid);
                }
                let load = Expr::Load { buffer: *buffer, index, lanes: *lanes, valid };
                match dtype {
                    DType::Bool => Expr::Call(ScalarOp::Cast(DType::Bool), vec![load]),
                    dtype if is_short(dtype) => self.decoded(load, dtype),
                    dtype => load.cast(stored(dtype, self.machine), computed(dtype)),
                }
            }
            Expr::Call(ScalarOp::Cast(to), args) => self.cast(&args[0], *to, false),
            Expr::Call(ScalarOp::CastAlternate(to), args) => self.cast(&args[0], *to, true),
            Expr::Call(ScalarOp::Bitcast(to), args) => self.bitcast(&args[0], *to),
            Expr::Call(ScalarOp::Call(function), args) => {
                let operand = args.last().map_or(DType::I64, |arg| self.old_type(arg).dtype);
                let plain = self.plain_call(*function, args);
                if function.rule() == Rule::Compare || function.rule() == Rule::Test || keeps_type(*function)
                {
                    plain
                } else {
                    self.rounded(plain, operand)
                }
            }
            Expr::Splat(value, lanes) => Expr::Splat(Box::new(self.value(value)), *lanes),
            Expr::Ramp { base, stride, lanes } => {
                Expr::Ramp { base: Box::new(self.value(base)), stride: *stride, lanes: *lanes }
            }
            Expr::Fma(a, b, c) => {
                Expr::Fma(Box::new(self.value(a)), Box::new(self.value(b)), Box::new(self.value(c)))
            }
            Expr::Dot { acc, a, b } => Expr::Dot {
                acc: Box::new(self.value(acc)),
                a: Box::new(self.value(a)),
                b: Box::new(self.value(b)),
            },
            Expr::ReduceLanes(kind, value) => {
                let dtype = self.old_type(value).dtype;
                let reduced = Expr::ReduceLanes(*kind, Box::new(self.value(value)));
                self.rounded(reduced, dtype)
            }
            Expr::Shuffle(a, b, picks) => {
                Expr::Shuffle(Box::new(self.value(a)), Box::new(self.value(b)), picks.clone())
            }
        }
    }

    fn plain_call(&mut self, function: Function, args: &[Expr]) -> Expr {
        Expr::call(function, args.iter().map(|arg| self.value(arg)).collect())
    }

    /// A computed value rounded or wrapped to its type.
    fn rounded(&mut self, value: Expr, dtype: DType) -> Expr {
        if is_short(dtype) {
            let codes = self.encoded(value, dtype, true);
            self.decoded(codes, dtype)
        } else if dtype.is_packed() {
            self.wrapped(value, dtype)
        } else {
            value
        }
    }

    fn decoded(&mut self, codes: Expr, dtype: DType) -> Expr {
        if dtype == DType::F16 && self.machine.f16_convert {
            return codes.cast(DType::F16, DType::F32);
        }
        short_float::decode(self.kernel, &mut self.out, dtype, codes)
    }

    fn encoded(&mut self, value: Expr, dtype: DType, saturate: bool) -> Expr {
        if dtype == DType::F16 && self.machine.f16_convert {
            return value.cast(DType::F32, DType::F16);
        }
        short_float::encode(self.kernel, &mut self.out, dtype, value, saturate)
    }

    /// The value as f32, rounded so that encoding it rounds only once in effect.
    fn as_single(&mut self, expr: &Expr) -> Expr {
        let from = computed(self.old_type(expr).dtype);
        let value = self.value(expr);
        match from {
            DType::F64 => short_float::narrow_to_odd(self.kernel, &mut self.out, value),
            _ => value.cast(from, DType::F32),
        }
    }

    /// The codes of an expression of a short float type, as they are stored.
    fn coded(&mut self, expr: &Expr, dtype: DType) -> Expr {
        match expr {
            Expr::Const(scalar) if stored(dtype, self.machine) != DType::F16 => {
                Expr::Const(short_float::constant_code(*scalar))
            }
            Expr::Splat(value, lanes) => Expr::Splat(Box::new(self.coded(value, dtype)), *lanes),
            Expr::Load { buffer, index, lanes, valid } if !is_packed(self.original.buffer_of(*buffer)) => {
                Expr::Load {
                    buffer: *buffer,
                    index: Box::new(self.value(index)),
                    lanes: *lanes,
                    valid: valid.as_ref().map(|valid| Box::new(self.value(valid))),
                }
            }
            Expr::Call(ScalarOp::Cast(_), args) if self.old_type(&args[0]).dtype != dtype => {
                let single = self.as_single(&args[0]);
                self.encoded(single, dtype, true)
            }
            Expr::Call(ScalarOp::CastAlternate(_), args) if self.old_type(&args[0]).dtype != dtype => {
                let single = self.as_single(&args[0]);
                self.encoded(single, dtype, false)
            }
            Expr::Call(ScalarOp::Call(Function::Select), args) => {
                let condition = self.value(&args[0]);
                // Machines convert f16 and do nothing else with it.
                if stored(dtype, self.machine) == DType::F16 {
                    let (yes, no) = (self.unrounded(&args[1]), self.unrounded(&args[2]));
                    return self.encoded(condition.choose(yes, no), dtype, true);
                }
                let (yes, no) = (self.coded(&args[1], dtype), self.coded(&args[2], dtype));
                condition.choose(yes, no)
            }
            Expr::Call(ScalarOp::Call(function), args) => {
                let plain = self.plain_call(*function, args);
                self.encoded(plain, dtype, true)
            }
            other => {
                // A number of the format already: an infinity among them stays one.
                let value = self.value(other);
                self.encoded(value, dtype, false)
            }
        }
    }

    /// An f16 expression before its last rounding.
    fn unrounded(&mut self, expr: &Expr) -> Expr {
        match expr {
            Expr::Call(ScalarOp::Cast(_) | ScalarOp::CastAlternate(_), args) => self.as_single(&args[0]),
            Expr::Call(ScalarOp::Call(function), args) => self.plain_call(*function, args),
            other => self.value(other),
        }
    }

    fn cast(&mut self, arg: &Expr, to: DType, alternate: bool) -> Expr {
        let from = self.old_type(arg).dtype;
        if is_short(to) {
            if from == to {
                return self.value(arg);
            }
            let single = self.as_single(arg);
            let codes = self.encoded(single, to, !alternate);
            return self.decoded(codes, to);
        }
        let value = self.value(arg);
        let have = computed(from);
        if to.is_integer() && (alternate || to.is_packed()) {
            // Floats saturate in any case; truth values fit everything.
            if from.is_integer() && alternate {
                let limited = self.limited(value, have, to);
                return limited.cast(have, computed(to));
            }
            if from.is_float() {
                let wide = Expr::Call(ScalarOp::Cast(computed(to)), vec![value]);
                return self.limited(wide, computed(to), to);
            }
            let wide = value.cast(have, computed(to));
            return if to.is_packed() && from != DType::Bool { self.wrapped(wide, to) } else { wide };
        }
        value.cast(have, to)
    }

    /// An integer of type `have` between the limits of type `to`.
    fn limited(&self, value: Expr, have: DType, to: DType) -> Expr {
        let lanes = self.kernel.type_of(&value).lanes;
        let (Some((low, high)), Some((have_low, have_high))) = (to.integer_range(), have.integer_range())
        else {
            return value;
        };
        let constant = |value: i128| {
            let constant = Expr::Const(Scalar::integer(have, value as i64));
            if lanes == 1 { constant } else { Expr::Splat(Box::new(constant), lanes) }
        };
        let mut value = value;
        if low > have_low {
            value = Expr::call(Function::Max, vec![value, constant(low)]);
        }
        if high < have_high {
            value = Expr::call(Function::Min, vec![value, constant(high)]);
        }
        value
    }

    fn bitcast(&mut self, arg: &Expr, to: DType) -> Expr {
        let from = self.old_type(arg).dtype;
        let bits = if is_short(from) {
            let codes = self.coded(arg, from);
            let have = stored(from, self.machine);
            if have == DType::F16 { Expr::Call(ScalarOp::Bitcast(DType::U16), vec![codes]) } else { codes }
        } else {
            self.value(arg)
        };
        let have = self.kernel.type_of(&bits).dtype;
        if is_short(to) {
            let storage = if to.bits() == 16 { DType::U16 } else { DType::U8 };
            let codes =
                if have == storage { bits } else { Expr::Call(ScalarOp::Bitcast(storage), vec![bits]) };
            let codes = match stored(to, self.machine) {
                DType::F16 => Expr::Call(ScalarOp::Bitcast(DType::F16), vec![codes]),
                _ => codes,
            };
            return self.decoded(codes, to);
        }
        if to.is_packed() {
            return self.wrapped(bits.cast(have, computed(to)), to);
        }
        if have == to { bits } else { Expr::Call(ScalarOp::Bitcast(to), vec![bits]) }
    }
}

/// Functions whose result is a value of the type whenever the arguments are.
fn keeps_type(function: Function) -> bool {
    use Function::*;
    matches!(
        function,
        Neg | Abs | Sign | Max | Min | Select | Floor | Ceil | Round | Trunc | And | Or | Xor | Not
    )
}
