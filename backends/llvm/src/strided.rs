//! Accesses whose lanes lie a constant number of elements apart.
//!
//! Gather instructions are slow where they exist. A short stride reads the whole span in vectors and picks lanes by shuffles;
//! a long one moves lane by lane. Nothing outside the span from the first to the last lane is touched.

use melior::ir::Type;
use tcc_ir::dtype::DType;

use crate::builder::{Ssa, shaped};
use crate::error::Error;
use crate::lower::Lowering;

/// The longest stride that is read as whole vectors: past it most of what is read would be thrown away.
const LONGEST_SHUFFLED: u64 = 4;

/// Lanes from which on shuffling is worth it.
const FEWEST_SHUFFLED: u16 = 4;

/// Lanes that are `stride` elements apart.
#[derive(Clone, Copy)]
pub(crate) struct Strided<'c> {
    /// Where lane 0 is.
    pub(crate) first: Ssa<'c>,
    /// Distance of lanes in elements; of any sign.
    pub(crate) stride: i64,
    /// Number of lanes.
    pub(crate) lanes: u16,
    /// Type of an element in memory.
    pub(crate) element: Type<'c>,
    /// Alignment of an element in bytes.
    pub(crate) alignment: usize,
}

impl<'c> Lowering<'c, '_> {
    /// Reads all lanes.
    pub(crate) fn load_strided(&self, access: Strided<'c>) -> Result<Ssa<'c>, Error> {
        let Strided { first, stride, lanes, element, alignment } = access;
        if stride == 0 {
            let value = self.builder.load(first, element, alignment)?;
            return self.builder.broadcast(value, element, u32::from(lanes));
        }
        if stride.unsigned_abs() <= LONGEST_SHUFFLED && lanes >= FEWEST_SHUFFLED {
            return self.load_span(access);
        }
        let values = (0..i64::from(lanes))
            .map(|lane| self.builder.load(self.lane(access, lane)?, element, alignment))
            .collect::<Result<Vec<_>, Error>>()?;
        self.assemble(access, &values)
    }

    /// Reads the lanes for which `mask` holds; the others are zero.
    pub(crate) fn load_strided_under(
        &mut self,
        access: Strided<'c>,
        mask: Ssa<'c>,
        dtype: DType,
    ) -> Result<Ssa<'c>, Error> {
        let mut values = Vec::with_capacity(usize::from(access.lanes));
        for lane in 0..access.lanes {
            let valid = self.of_lane(mask, self.builder.integer_type(1), lane, access.lanes)?;
            let pointer = self.lane(access, i64::from(lane))?;
            values.push(self.guarded_load(pointer, valid, access.element, dtype)?);
        }
        self.assemble(access, &values)
    }

    /// Writes the lanes for which `mask` holds, or all of them, in order.
    pub(crate) fn store_strided(
        &mut self,
        access: Strided<'c>,
        value: Ssa<'c>,
        mask: Option<Ssa<'c>>,
    ) -> Result<(), Error> {
        for lane in 0..access.lanes {
            let scalar = self.of_lane(value, access.element, lane, access.lanes)?;
            let pointer = self.lane(access, i64::from(lane))?;
            match mask {
                None => self.builder.store(pointer, scalar, access.alignment)?,
                Some(mask) => {
                    let valid = self.of_lane(mask, self.builder.integer_type(1), lane, access.lanes)?;
                    self.guarded_store(pointer, valid, scalar, access.alignment)?;
                }
            }
        }
        Ok(())
    }

    /// One lane of a vector of so many lanes, or the scalar that it is.
    fn of_lane(&self, vector: Ssa<'c>, element: Type<'c>, lane: u16, lanes: u16) -> Result<Ssa<'c>, Error> {
        if lanes == 1 { Ok(vector) } else { self.builder.extract(vector, element, u32::from(lane)) }
    }

    /// A vector of scalars, or the only one of them.
    fn assemble(&self, access: Strided<'c>, values: &[Ssa<'c>]) -> Result<Ssa<'c>, Error> {
        match values {
            [value] => Ok(*value),
            _ => {
                let r#type = shaped(access.element, u32::from(access.lanes));
                self.builder.same_type("vector.from_elements", values, r#type)
            }
        }
    }

    /// The address of a lane.
    fn lane(&self, access: Strided<'c>, lane: i64) -> Result<Ssa<'c>, Error> {
        self.elements_on(access, lane.wrapping_mul(access.stride))
    }

    /// The address so many elements behind lane 0.
    fn elements_on(&self, access: Strided<'c>, elements: i64) -> Result<Ssa<'c>, Error> {
        let distance = self.builder.index(elements)?;
        self.builder.element_pointer(access.first, distance, access.element, 1)
    }

    /// Reads the span of the lanes in whole vectors, the last of which overlaps the one before, and picks the lanes.
    fn load_span(&self, access: Strided<'c>) -> Result<Ssa<'c>, Error> {
        let lanes = usize::from(access.lanes);
        let distance = access.stride.unsigned_abs() as usize;
        let span = distance * (lanes - 1) + 1;
        let lowest = if access.stride < 0 { access.stride * (lanes as i64 - 1) } else { 0 };
        let chunks = span.div_ceil(lanes);
        let start_of = |chunk: usize| (chunk * lanes).min(span - lanes);
        // The element of the span that a lane is, and the chunk which has it.
        let element_of = |lane: usize| distance * if access.stride < 0 { lanes - 1 - lane } else { lane };
        let chunk_of = |lane: usize| (element_of(lane) / lanes).min(chunks - 1);

        let r#type = shaped(access.element, u32::from(access.lanes));
        let chunk = |number: usize| {
            let pointer = self.elements_on(access, lowest + start_of(number) as i64)?;
            self.builder.load(pointer, r#type, access.alignment)
        };
        let mut picked = chunk(0)?;
        for number in 1..chunks.max(2) {
            let next = if number < chunks { chunk(number)? } else { picked };
            let picks: Vec<i32> = (0..lanes)
                .map(|lane| {
                    let holder = chunk_of(lane);
                    if holder == number {
                        (lanes + element_of(lane) - start_of(number)) as i32
                    } else if number == 1 && holder == 0 {
                        element_of(lane) as i32
                    } else {
                        lane as i32
                    }
                })
                .collect();
            picked = self.builder.shuffle([picked, next], access.element, &picks)?;
        }
        Ok(picked)
    }
}
