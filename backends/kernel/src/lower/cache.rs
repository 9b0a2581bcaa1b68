//! Key-value caches: appends, and attention over pages.
//!
//! Kernels see a cache as the memory that its storage lays out ([`tcc_ir::cache`]). Slots, rows, positions and the block
//! table come from the caller of a program, so every one of them is limited to the memory there is before it is used.
//!
//! Where the layout suits the vectors (keys channel by channel in blocks of whole vectors, values token by token) keys and
//! values are read where they are; every other layout and the integer formats are first unpacked, a block at a time, into
//! scratch memory of the layout that the tile wants.
mod append;
mod attend;
mod memory;

use tcc_ir::cache::CacheStorage;
use tcc_ir::operator::Operator;
use tcc_ir::types::TensorType;

use super::{LowerError, Lowering};

/// The operand types with caches as the memory that they are; `None` for operators without caches.
pub fn memory_types(operator: &Operator, operands: &[TensorType]) -> Option<Vec<TensorType>> {
    let mut types = operands.to_vec();
    let mut replace = |index: usize, storage: &CacheStorage| {
        if let Some(TensorType { shape, .. }) = operands.get(index)
            && let [slots, heads, depth] = &shape[..]
        {
            let (dtype, shape) = storage.memory(slots, heads, depth);
            types[index] = TensorType::new(dtype, shape);
        }
    };
    match operator {
        Operator::KvAppend { storage } => replace(0, storage),
        Operator::KvAttend { k_storage, v_storage, .. } => {
            replace(1, k_storage);
            replace(2, v_storage);
        }
        _ => return None,
    }
    Some(types)
}

/// Lowers an operator on caches; the operand types are those of memory.
pub fn lower(lowering: &mut Lowering, operator: &Operator) -> Result<(), LowerError> {
    match operator {
        Operator::KvAppend { storage } => append::append(lowering, storage),
        Operator::KvAttend { .. } => attend::attend(lowering, operator),
        _ => Err(lowering.malformed("it has no cache")),
    }
}
