//! Loads and stores: scalars, vectors, partial vectors, gathers and scatters.

use melior::ir::Type;
use tcc_ir::dtype::DType;
use tcc_kernel::ir::{BufferId, Expr, Ty};

use crate::builder::{Order, Ssa, shaped};
use crate::error::Error;
use crate::lower::{Lowering, Typed};
use crate::strided::Strided;

/// The place of an access.
enum Address<'c> {
    /// The first of consecutive elements.
    Consecutive(Ssa<'c>),
    /// Lanes a constant distance apart.
    Strided(Strided<'c>),
    /// One pointer a lane.
    Scattered(Ssa<'c>),
}

impl<'c> Lowering<'c, '_> {
    /// Lowers [`Expr::Load`].
    pub(crate) fn load(
        &mut self,
        buffer: BufferId,
        index: &Expr,
        lanes: u16,
        valid: Option<&Expr>,
    ) -> Result<Typed<'c>, Error> {
        let (base, dtype) = self.buffer(buffer)?;
        let element = self.memory_type(dtype)?;
        let address = self.address(base, dtype, index, lanes, valid.is_some())?;
        let r#type = shaped(element, u32::from(lanes));
        let alignment = dtype.size();
        let mask = match valid {
            Some(valid) => self.mask(valid, lanes, dtype)?,
            None => None,
        };
        let value = match (address, mask) {
            (Address::Consecutive(pointer), None) => self.builder.load(pointer, r#type, alignment)?,
            (Address::Consecutive(pointer), Some(mask)) if lanes == 1 => {
                self.guarded_load(pointer, mask, r#type, dtype)?
            }
            (Address::Consecutive(pointer), Some(mask)) => {
                let zero = self.zero(dtype, lanes)?;
                let attributes = [self.builder.alignment(32, alignment)];
                self.builder.operation(
                    "llvm.intr.masked.load",
                    &[pointer, mask, zero],
                    r#type,
                    &attributes,
                )?
            }
            (Address::Strided(access), None) => self.load_strided(access)?,
            (Address::Strided(access), Some(mask)) => self.load_strided_under(access, mask, dtype)?,
            (Address::Scattered(pointers), mask) => {
                let mask = self.mask_or_all(mask, lanes)?;
                let zero = self.zero(dtype, lanes)?;
                let attributes = [self.builder.alignment(32, alignment)];
                self.builder.operation(
                    "llvm.intr.masked.gather",
                    &[pointers, mask, zero],
                    r#type,
                    &attributes,
                )?
            }
        };
        let value = if dtype == DType::Bool {
            let zero = self.zero(dtype, lanes)?;
            self.builder.compare_integers(Order::NotEqual, [value, zero], u32::from(lanes))?
        } else {
            value
        };
        Ok(Typed { value, ty: Ty::vector(dtype, lanes) })
    }

    /// Lowers [`tcc_kernel::ir::Stmt::Store`].
    pub(crate) fn store(
        &mut self,
        buffer: BufferId,
        index: &Expr,
        value: &Expr,
        valid: Option<&Expr>,
    ) -> Result<(), Error> {
        let (base, dtype) = self.buffer(buffer)?;
        let Typed { mut value, ty } = self.expr(value)?;
        if ty.dtype != dtype {
            return Err(self.malformed(format!("a {} is stored into a buffer of {dtype}", ty.dtype)));
        }
        let element = self.memory_type(dtype)?;
        let r#type = shaped(element, u32::from(ty.lanes));
        if dtype == DType::Bool {
            value = self.builder.same_type("arith.extui", &[value], r#type)?;
        }
        let address = self.address(base, dtype, index, ty.lanes, valid.is_some())?;
        let alignment = dtype.size();
        let mask = match valid {
            Some(valid) => self.mask(valid, ty.lanes, dtype)?,
            None => None,
        };
        match (address, mask) {
            (Address::Consecutive(pointer), None) => self.builder.store(pointer, value, alignment),
            (Address::Consecutive(pointer), Some(mask)) if ty.lanes == 1 => {
                self.guarded_store(pointer, mask, value, alignment)
            }
            (Address::Consecutive(pointer), Some(mask)) => {
                let attributes = [self.builder.alignment(32, alignment)];
                self.builder.effect("llvm.intr.masked.store", &[value, pointer, mask], &attributes)
            }
            (Address::Strided(access), mask) => self.store_strided(access, value, mask),
            (Address::Scattered(pointers), mask) => {
                let mask = self.mask_or_all(mask, ty.lanes)?;
                let attributes = [self.builder.alignment(32, alignment)];
                self.builder.effect("llvm.intr.masked.scatter", &[value, pointers, mask], &attributes)
            }
        }
    }

    fn buffer(&self, id: BufferId) -> Result<(Ssa<'c>, DType), Error> {
        match (self.buffers.get(id.0 as usize), self.kernel.buffers.get(id.0 as usize)) {
            (Some(base), Some(buffer)) => Ok((*base, buffer.dtype)),
            _ => Err(self.malformed(format!("buffer {} is not declared", id.0))),
        }
    }

    /// The address of an access. Ramps are recognized; where lanes of them may be `masked` they become vectors of pointers,
    /// unless these would be too wide for the target.
    fn address(
        &mut self,
        base: Ssa<'c>,
        dtype: DType,
        index: &Expr,
        lanes: u16,
        masked: bool,
    ) -> Result<Address<'c>, Error> {
        let element = self.memory_type(dtype)?;
        let (first, stride) = match index {
            Expr::Ramp { base: first, stride, lanes: ramp }
                if *ramp == lanes && (*stride == 1 || !masked) =>
            {
                (self.expr(first)?, Some(*stride))
            }
            other => (self.expr(other)?, None),
        };
        if first.ty.dtype != DType::I64 || (first.ty.lanes != 1 && first.ty.lanes != lanes) {
            let index = first.ty;
            return Err(self.malformed(format!("an access of {lanes} lanes at an index of type {index:?}")));
        }
        let pointer = self.builder.element_pointer(base, first.value, element, u32::from(first.ty.lanes))?;
        Ok(match stride {
            Some(stride) if stride != 1 => {
                Address::Strided(Strided { first: pointer, stride, lanes, element, alignment: dtype.size() })
            }
            _ if first.ty.lanes == 1 => Address::Consecutive(pointer),
            _ => Address::Scattered(pointer),
        })
    }

    /// The mask of the first `valid` lanes; `None` where all of them are known to be valid.
    ///
    /// The comparison is made in integers as wide as the element, which is the form that masked moves want on machines
    /// without mask registers.
    fn mask(&mut self, valid: &Expr, lanes: u16, dtype: DType) -> Result<Option<Ssa<'c>>, Error> {
        if valid.as_index().is_some_and(|valid| valid >= i64::from(lanes)) {
            return Ok(None);
        }
        let valid = self.expr(valid)?;
        if valid.ty != Ty::INDEX {
            return Err(self.malformed("a count of valid lanes that is not a scalar index"));
        }
        let i64 = self.builder.i64_type();
        let zero = self.builder.index(0)?;
        let count = self.builder.index(i64::from(lanes))?;
        if lanes == 1 {
            return self.builder.compare_integers(Order::Less, [zero, valid.value], 1).map(Some);
        }
        let clamped = self.builder.same_type("arith.maxsi", &[valid.value, zero], i64)?;
        let clamped = self.builder.same_type("arith.minsi", &[clamped, count], i64)?;
        let bits = if dtype.size() == 1 && lanes > 127 { 16 } else { dtype.size() as u32 * 8 };
        let narrow = self.builder.integer_type(bits);
        let clamped =
            if bits == 64 { clamped } else { self.builder.same_type("arith.trunci", &[clamped], narrow)? };
        let limit = self.builder.broadcast(clamped, narrow, u32::from(lanes))?;
        let numbers: Vec<i64> = (0..i64::from(lanes)).collect();
        let numbers = self.builder.integers(narrow, &numbers)?;
        self.builder.compare_integers(Order::Less, [numbers, limit], u32::from(lanes)).map(Some)
    }

    fn mask_or_all(&self, mask: Option<Ssa<'c>>, lanes: u16) -> Result<Ssa<'c>, Error> {
        match mask {
            Some(mask) => Ok(mask),
            None => self.builder.integer(self.builder.integer_type(1), u32::from(lanes), 1),
        }
    }

    /// Zero as it lies in memory.
    fn zero(&self, dtype: DType, lanes: u16) -> Result<Ssa<'c>, Error> {
        let element = self.memory_type(dtype)?;
        match dtype {
            DType::F32 | DType::F64 => self.builder.float(element, u32::from(lanes), 0.0),
            _ => self.builder.integer(element, u32::from(lanes), 0),
        }
    }

    /// Writes one element if `condition` holds.
    pub(crate) fn guarded_store(
        &mut self,
        pointer: Ssa<'c>,
        condition: Ssa<'c>,
        value: Ssa<'c>,
        alignment: usize,
    ) -> Result<(), Error> {
        let [then, otherwise] = [self.builder.region(&[]), self.builder.region(&[])];
        let outer = self.builder.enter(then.1);
        self.builder.store(pointer, value, alignment)?;
        self.builder.effect("scf.yield", &[], &[])?;
        self.builder.enter(otherwise.1);
        self.builder.effect("scf.yield", &[], &[])?;
        self.builder.enter(outer);
        self.builder.regions("scf.if", &[condition], vec![then.0, otherwise.0])
    }

    /// One element if `condition` holds, else zero.
    pub(crate) fn guarded_load(
        &mut self,
        pointer: Ssa<'c>,
        condition: Ssa<'c>,
        r#type: Type<'c>,
        dtype: DType,
    ) -> Result<Ssa<'c>, Error> {
        let [then, otherwise] = [self.builder.region(&[]), self.builder.region(&[])];
        let outer = self.builder.enter(then.1);
        let loaded = self.builder.load(pointer, r#type, dtype.size())?;
        self.builder.effect("scf.yield", &[loaded], &[])?;
        self.builder.enter(otherwise.1);
        let zero = self.zero(dtype, 1)?;
        self.builder.effect("scf.yield", &[zero], &[])?;
        self.builder.enter(outer);
        self.builder.region_value("scf.if", &[condition], vec![then.0, otherwise.0], r#type)
    }
}
