//! Buffers of a running kernel.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Scalar;

use super::EvaluateError;
use crate::fold::{from_bits, to_bits};
use crate::ir::Buffer;

enum Bytes<'b> {
    Borrowed(&'b mut [u8]),
    Owned(Vec<u8>),
}

/// One buffer.
pub(super) struct Memory<'b> {
    name: String,
    dtype: DType,
    count: i64,
    bytes: Bytes<'b>,
    /// Elements written so far; arguments come written.
    written: Option<Vec<bool>>,
}

impl<'b> Memory<'b> {
    /// The caller's memory, at least as large as declared.
    pub(super) fn argument(
        buffer: &Buffer,
        count: i64,
        bytes: &'b mut [u8],
    ) -> Result<Memory<'b>, EvaluateError> {
        let needed = usize::try_from(count).ok().and_then(|count| buffer.dtype.bytes_for(count));
        if needed.is_none_or(|needed| needed > bytes.len()) {
            return Err(EvaluateError::Argument(buffer.name.clone()));
        }
        let (name, dtype) = (buffer.name.clone(), buffer.dtype);
        Ok(Memory { name, dtype, count, bytes: Bytes::Borrowed(bytes), written: None })
    }

    /// Memory of the kernel's own, not yet written.
    pub(super) fn own(buffer: &Buffer, count: i64) -> Result<Memory<'b>, EvaluateError> {
        let (name, dtype) = (buffer.name.clone(), buffer.dtype);
        let elements = usize::try_from(count.max(0)).unwrap_or(0);
        let size = dtype.bytes_for(elements).ok_or_else(|| EvaluateError::Argument(name.clone()))?;
        let written = Some(vec![false; elements]);
        Ok(Memory { name, dtype, count, bytes: Bytes::Owned(vec![0; size]), written })
    }

    /// Own memory does not survive a task.
    pub(super) fn forget(&mut self) {
        if let Some(written) = &mut self.written {
            written.fill(false);
        }
    }

    fn place(&self, index: i64) -> Result<usize, EvaluateError> {
        if index < 0 || index >= self.count {
            return Err(EvaluateError::OutOfBounds { buffer: self.name.clone(), index, count: self.count });
        }
        Ok(index as usize)
    }

    pub(super) fn read(&self, index: i64) -> Result<Scalar, EvaluateError> {
        let place = self.place(index)?;
        if self.written.as_ref().is_some_and(|written| !written[place]) {
            return Err(EvaluateError::Uninitialized { buffer: self.name.clone(), index });
        }
        let bytes = match &self.bytes {
            Bytes::Borrowed(bytes) => bytes,
            Bytes::Owned(bytes) => &bytes[..],
        };
        let bits = if self.dtype.is_packed() {
            let per_byte = 8 / self.dtype.bits();
            u64::from(bytes[place / per_byte]) >> (place % per_byte * self.dtype.bits())
                & ((1 << self.dtype.bits()) - 1)
        } else {
            let size = self.dtype.size();
            let mut wide = [0; 8];
            wide[..size].copy_from_slice(&bytes[place * size..][..size]);
            u64::from_le_bytes(wide)
        };
        Ok(from_bits(self.dtype, bits))
    }

    pub(super) fn write(&mut self, index: i64, value: Scalar) -> Result<(), EvaluateError> {
        let place = self.place(index)?;
        if value.dtype != self.dtype {
            return Err(EvaluateError::Malformed(format!("'{}' takes {}", self.name, self.dtype)));
        }
        let bits = to_bits(value);
        let bytes = match &mut self.bytes {
            Bytes::Borrowed(bytes) => bytes,
            Bytes::Owned(bytes) => &mut bytes[..],
        };
        if self.dtype.is_packed() {
            let width = self.dtype.bits();
            let per_byte = 8 / width;
            let shift = place % per_byte * width;
            let mask = ((1u8 << width) - 1) << shift;
            let byte = &mut bytes[place / per_byte];
            *byte = *byte & !mask | (bits as u8) << shift & mask;
        } else {
            let size = self.dtype.size();
            bytes[place * size..][..size].copy_from_slice(&bits.to_le_bytes()[..size]);
        }
        if let Some(written) = &mut self.written {
            written[place] = true;
        }
        Ok(())
    }
}
