//! Results in the memory of operands.

use tcc_ir::module::{Operation, Value};
use tcc_kernel::lower::{Argument, Lowered};
use tcc_runtime::manifest::Storage;

use super::{ProgramBuilder, ProgramError};

impl ProgramBuilder<'_> {
    /// An operand whose memory the result may take: it dies here, has the same size, and the kernel that writes the result
    /// reads each element before it writes it.
    pub(super) fn reusable(
        &mut self,
        operation: &Operation,
        lowered: &Lowered,
    ) -> Result<Option<Value>, ProgramError> {
        let ([preparing @ .., last], [result]) = (&lowered.launches[..], &operation.results[..]) else {
            return Ok(None);
        };
        let writes = |argument: &Argument| matches!(argument, Argument::Result(_));
        if preparing.iter().any(|launch| launch.arguments.iter().any(writes)) {
            return Ok(None);
        }
        let wanted = self.ty(*result, "")?.clone();
        // Outputs live in the caller's memory.
        if self.function.body.results.contains(result) {
            return Ok(None);
        }
        for (place, operand) in operation.operands.iter().enumerate() {
            let ty = self.ty(*operand, "")?;
            // The same memory may also be an operand that is read elsewhere.
            let root = self.uses.root(*operand);
            let elsewhere = operation
                .operands
                .iter()
                .enumerate()
                .any(|(other, value)| !last.in_place.contains(&other) && self.uses.root(*value) == root);
            if !last.in_place.contains(&place) || elsewhere {
                continue;
            }
            if ty.shape != wanted.shape || ty.dtype().bits() != wanted.dtype().bits() {
                continue;
            }
            if self.constants.contains_key(operand) || !self.uses.dies_at(*operand, self.position, *result) {
                continue;
            }
            let tensor = self.tensor(*operand)?;
            let base = self.tensors.base(tensor);
            if matches!(self.tensors.infos[base as usize].storage, Storage::Arena { .. }) {
                return Ok(Some(*operand));
            }
        }
        Ok(None)
    }
}
