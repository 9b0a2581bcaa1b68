//! Reads that never leave the file.

use super::error::GgufError;

/// A position in a file; every read is checked against what is left.
pub(super) struct Cursor<'f> {
    file: &'f bytes::Bytes,
    position: usize,
}

impl<'f> Cursor<'f> {
    pub(super) fn new(file: &'f bytes::Bytes) -> Self {
        Cursor { file, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    fn left(&self) -> usize {
        self.file.len() - self.position
    }

    /// The next `length` bytes; `what` they are is for the error.
    pub(super) fn take(&mut self, length: u64, what: &'static str) -> Result<&'f [u8], GgufError> {
        let start = self.position;
        match usize::try_from(length).ok().filter(|length| *length <= self.left()) {
            Some(length) => {
                self.position += length;
                Ok(&self.file[start..start + length])
            }
            None => Err(GgufError::Truncated { what, offset: start, needed: length, available: self.left() }),
        }
    }

    /// What was read since `start`, as a slice of the file that shares its memory.
    pub(super) fn since(&self, start: usize) -> bytes::Bytes {
        self.file.slice(start..self.position)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A text with its length in front.
    pub(super) fn text(&mut self, what: &'static str) -> Result<&'f str, GgufError> {
        let start = self.position;
        let length = self.u64(what)?;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).map_err(|_| GgufError::Text { what, offset: start })
    }

    /// A count of things that take `least` bytes each, refused where the rest of the file cannot hold as many.
    pub(super) fn bounded(&self, count: u64, least: usize, what: &'static str) -> Result<usize, GgufError> {
        let limit = (self.left() / least) as u64;
        match usize::try_from(count) {
            Ok(bounded) if count <= limit => Ok(bounded),
            _ => Err(GgufError::Count { what, count, limit }),
        }
    }
}
