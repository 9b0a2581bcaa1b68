//! Expressions, apart from scalar functions, casts, memory accesses and dot products.

use tcc_ir::convert::push_scalar;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Scalar, ScalarOp};
use tcc_ir::words::ReduceKind;
use tcc_kernel::ir::{Expr, Ty};

use crate::builder::Ssa;
use crate::error::Error;
use crate::lower::{Lowering, Typed};

impl<'c> Lowering<'c, '_> {
    /// Lowers an expression to a value and its type.
    pub(crate) fn expr(&mut self, expr: &Expr) -> Result<Typed<'c>, Error> {
        let typed = self.any_expr(expr)?;
        let bits = usize::from(typed.ty.lanes) * typed.ty.dtype.bits();
        // A ramp is index arithmetic that the accesses which it serves take apart again.
        if !matches!(expr, Expr::Ramp { .. }) && bits > self.target.widest_vector_bits() {
            return Err(self.unsupported(format!("a vector of {bits} bits")));
        }
        Ok(typed)
    }

    fn any_expr(&mut self, expr: &Expr) -> Result<Typed<'c>, Error> {
        let (value, ty) = match expr {
            Expr::Const(scalar) => (self.constant(*scalar, 1)?, Ty::scalar(scalar.dtype)),
            Expr::Var(var) => (self.variable(*var)?, self.variable_type(*var)?),
            Expr::Dim(number) => match self.dims.get(*number as usize) {
                Some(dim) => (*dim, Ty::INDEX),
                None => return Err(self.malformed(format!("dimension {number} is not declared"))),
            },
            Expr::Load { buffer, index, lanes, valid } => {
                return self.load(*buffer, index, *lanes, valid.as_deref());
            }
            Expr::Call(op, args) => return self.apply(*op, args),
            Expr::Splat(value, lanes) => return self.splat(value, *lanes),
            Expr::Ramp { base, stride, lanes } => {
                (self.ramp(base, *stride, *lanes)?, Ty::vector(DType::I64, *lanes))
            }
            Expr::Fma(a, b, c) => return self.fused_multiply_add(a, b, c),
            Expr::Dot { acc, a, b } => return self.dot(acc, a, b),
            Expr::ReduceLanes(kind, value) => return self.reduce_lanes(*kind, value),
            Expr::Shuffle(a, b, picks) => return self.pick_lanes(a, b, picks),
        };
        Ok(Typed { value, ty })
    }

    /// A constant in every lane.
    pub(crate) fn constant(&self, scalar: Scalar, lanes: u16) -> Result<Ssa<'c>, Error> {
        let element = self.element_type(scalar.dtype)?;
        let lanes = u32::from(lanes);
        match scalar.dtype {
            DType::F32 | DType::F64 => self.builder.float(element, lanes, scalar.as_f64()),
            DType::F16 | DType::BF16 => {
                let mut bytes = Vec::with_capacity(2);
                push_scalar(scalar, &mut bytes);
                let bits = i64::from(i16::from_le_bytes([bytes[0], bytes[1]]));
                self.builder.integer(element, lanes, bits)
            }
            DType::Bool => self.builder.integer(element, lanes, i64::from(scalar.bits != 0)),
            _ => self.builder.integer(element, lanes, scalar.as_i64()),
        }
    }

    fn splat(&mut self, value: &Expr, lanes: u16) -> Result<Typed<'c>, Error> {
        if let Expr::Const(scalar) = value {
            let ty = Ty::vector(scalar.dtype, lanes);
            return Ok(Typed { value: self.constant(*scalar, lanes)?, ty });
        }
        let scalar = self.expr(value)?;
        if scalar.ty.lanes != 1 {
            return Err(self.malformed("a splat of a vector"));
        }
        let element = self.element_type(scalar.ty.dtype)?;
        let value = self.builder.broadcast(scalar.value, element, u32::from(lanes))?;
        Ok(Typed { value, ty: Ty::vector(scalar.ty.dtype, lanes) })
    }

    fn ramp(&mut self, base: &Expr, stride: i64, lanes: u16) -> Result<Ssa<'c>, Error> {
        let i64 = self.builder.i64_type();
        let base = self.expr(base)?;
        let start = self.builder.broadcast(base.value, i64, u32::from(lanes))?;
        let steps: Vec<i64> = (0..i64::from(lanes)).map(|lane| lane.wrapping_mul(stride)).collect();
        let steps = self.builder.integers(i64, &steps)?;
        let r#type = self.register_type(Ty::vector(DType::I64, lanes))?;
        self.builder.same_type("arith.addi", &[start, steps], r#type)
    }

    fn fused_multiply_add(&mut self, a: &Expr, b: &Expr, c: &Expr) -> Result<Typed<'c>, Error> {
        let [a, b, c] = [self.expr(a)?, self.expr(b)?, self.expr(c)?];
        if a.ty != c.ty || b.ty != c.ty || !matches!(c.ty.dtype, DType::F32 | DType::F64) {
            return Err(self.malformed("a fused multiply-add takes f32 or f64 of one type"));
        }
        let r#type = self.register_type(c.ty)?;
        // Where the processor lacks it this would be a library call a lane.
        let fused = self.target.has_fma();
        let value = if fused {
            self.builder.same_type("math.fma", &[a.value, b.value, c.value], r#type)?
        } else {
            let product = self.builder.same_type("arith.mulf", &[a.value, b.value], r#type)?;
            self.builder.same_type("arith.addf", &[product, c.value], r#type)?
        };
        Ok(Typed { value, ty: c.ty })
    }

    fn reduce_lanes(&mut self, kind: ReduceKind, value: &Expr) -> Result<Typed<'c>, Error> {
        let Typed { mut value, mut ty } = self.expr(value)?;
        if !ty.lanes.is_power_of_two() {
            return Err(self.malformed(format!("a reduction over {} lanes", ty.lanes)));
        }
        let function = match kind {
            ReduceKind::Sum => Function::Add,
            ReduceKind::Prod => Function::Mul,
            ReduceKind::Max => Function::Max,
            ReduceKind::Min => Function::Min,
        };
        while ty.lanes > 1 {
            let half = ty.lanes / 2;
            let low = self.lanes_from(value, ty, 0, half)?;
            let high = self.lanes_from(value, ty, half, half)?;
            ty = Ty::vector(ty.dtype, half);
            let halves = [Typed { value: low, ty }, Typed { value: high, ty }];
            value = self.call(ScalarOp::Call(function), &halves, &[None, None])?.value;
        }
        Ok(Typed { value, ty })
    }

    /// `count` lanes of a vector, from lane `first` on.
    fn lanes_from(&self, value: Ssa<'c>, ty: Ty, first: u16, count: u16) -> Result<Ssa<'c>, Error> {
        let element = self.element_type(ty.dtype)?;
        if count == 1 {
            return self.builder.extract(value, element, u32::from(first));
        }
        let picks: Vec<i32> = (first..first + count).map(i32::from).collect();
        self.builder.shuffle([value, value], element, &picks)
    }

    fn pick_lanes(&mut self, a: &Expr, b: &Expr, picks: &[u16]) -> Result<Typed<'c>, Error> {
        let [a, b] = [self.expr(a)?, self.expr(b)?];
        let available = u32::from(a.ty.lanes) + u32::from(b.ty.lanes);
        if a.ty.dtype != b.ty.dtype
            || picks.is_empty()
            || picks.iter().any(|pick| u32::from(*pick) >= available)
        {
            return Err(self.malformed("a shuffle of different types or of lanes that do not exist"));
        }
        let element = self.element_type(a.ty.dtype)?;
        let ty = Ty::vector(a.ty.dtype, picks.len() as u16);
        if let Some(value) = self.repeat_group(a, picks, ty)? {
            return Ok(Typed { value, ty });
        }
        let source = |pick: u16| if pick < a.ty.lanes { (a, pick) } else { (b, pick - a.ty.lanes) };
        let vectors = a.ty.lanes == b.ty.lanes && a.ty.lanes > 1;
        let value = if vectors && picks.len() > 1 {
            let picks: Vec<i32> = picks.iter().map(|pick| i32::from(*pick)).collect();
            self.builder.shuffle([a.value, b.value], element, &picks)?
        } else {
            // Scalars and vectors of unequal length are taken apart; LLVM puts shuffles together again where it can.
            let mut lanes = Vec::with_capacity(picks.len());
            for pick in picks {
                let (from, lane) = source(*pick);
                lanes.push(if from.ty.lanes == 1 {
                    from.value
                } else {
                    self.builder.extract(from.value, element, u32::from(lane))?
                });
            }
            match lanes[..] {
                [lane] => lane,
                _ => {
                    let r#type = self.register_type(ty)?;
                    self.builder.same_type("vector.from_elements", &lanes, r#type)?
                }
            }
        };
        Ok(Typed { value, ty })
    }

    /// All lanes of `a` over and over, as the operand of a dot product that is shared by all accumulators: a splat of the
    /// group as one integer, which machines load and broadcast in one instruction. `None` for any other shuffle.
    fn repeat_group(&self, a: Typed<'c>, picks: &[u16], ty: Ty) -> Result<Option<Ssa<'c>>, Error> {
        let group = usize::from(a.ty.lanes);
        let bits = group * a.ty.dtype.bits();
        let repeats = picks.len() / group;
        let periodic = || picks.iter().enumerate().all(|(lane, pick)| usize::from(*pick) == lane % group);
        if !a.ty.dtype.is_integer()
            || group < 2
            || repeats < 2
            || !picks.len().is_multiple_of(group)
            || !matches!(bits, 16 | 32 | 64)
            || !periodic()
        {
            return Ok(None);
        }
        let whole = self.builder.integer_type(bits as u32);
        let scalar = self.builder.same_type("llvm.bitcast", &[a.value], whole)?;
        let splat = self.builder.broadcast(scalar, whole, repeats as u32)?;
        self.builder.same_type("llvm.bitcast", &[splat], self.register_type(ty)?).map(Some)
    }
}
