//! Heap memory aligned to [`ALIGNMENT`] whose failure to allocate is an error and not an abort.

use crate::error::{Error, Result};
use crate::manifest::ALIGNMENT;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// A growable run of bytes at an address that is a multiple of [`ALIGNMENT`].
///
/// The first `len` bytes are the contents; the capacity beyond is always initialised, so growing within the
/// capacity costs nothing and exposes nothing undefined.
pub struct AlignedBytes {
    pointer: NonNull<u8>,
    len: usize,
    capacity: usize,
}

// SAFETY: the memory is owned by this value alone and plain bytes have no thread affinity.
unsafe impl Send for AlignedBytes {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// No bytes; allocates nothing.
    pub const fn new() -> Self {
        AlignedBytes { pointer: Self::dangling(), len: 0, capacity: 0 }
    }

    /// `len` zero bytes. `what` names the memory in the error.
    pub fn zeroed(len: usize, what: &str) -> Result<Self> {
        let mut bytes = AlignedBytes::new();
        bytes.resize(len, what)?;
        Ok(bytes)
    }

    /// A copy of `data`.
    pub fn copy_of(data: &[u8], what: &str) -> Result<Self> {
        let mut bytes = AlignedBytes::zeroed(data.len(), what)?;
        bytes.copy_from_slice(data);
        Ok(bytes)
    }

    /// Sets the length. Contents up to the smaller of the two lengths stay; what is beyond is unspecified after a
    /// shrink and zero where it is new. Memory is never given back, and taken only beyond the capacity.
    pub fn resize(&mut self, len: usize, what: &str) -> Result<()> {
        if len > self.capacity {
            let failed = || Error::OutOfMemory { what: what.to_owned(), bytes: len as u64 };
            let layout = Layout::from_size_align(len, ALIGNMENT as usize).map_err(|_| failed())?;
            // SAFETY: `len` exceeds the old capacity, so the layout is not of size zero.
            let fresh = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(failed)?;
            // SAFETY: both blocks have at least `self.len` bytes (the new one has `len` more than the old capacity),
            // and a fresh block overlaps nothing.
            unsafe { fresh.copy_from_nonoverlapping(self.pointer, self.len) };
            self.release();
            self.pointer = fresh;
            self.capacity = len;
        }
        self.len = len;
        Ok(())
    }

    /// How many bytes fit without a new allocation.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Address of the first byte; aligned and not null also when there are no bytes.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    /// Address of the first byte for memory that many parties use through raw pointers; as `as_mut_ptr`, without
    /// claiming that nobody else holds one.
    pub(crate) fn raw(&self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    const fn dangling() -> NonNull<u8> {
        match NonNull::new(std::ptr::without_provenance_mut(ALIGNMENT as usize)) {
            Some(pointer) => pointer,
            None => unreachable!(),
        }
    }

    fn release(&mut self) {
        if self.capacity != 0 {
            // SAFETY: the block was allocated by `resize` with this size and alignment, and is released once.
            unsafe {
                let layout = Layout::from_size_align_unchecked(self.capacity, ALIGNMENT as usize);
                dealloc(self.pointer.as_ptr(), layout);
            }
        }
        self.pointer = Self::dangling();
        self.capacity = 0;
    }
}

impl Default for AlignedBytes {
    fn default() -> Self {
        AlignedBytes::new()
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        self.release();
    }
}

impl std::ops::Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the first `len` bytes are initialised and owned by `self`.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }
}

impl std::ops::DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBytes({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_keeps_contents_and_alignment() {
        let mut bytes = AlignedBytes::copy_of(&[1, 2, 3], "test").unwrap();
        for len in [3, 100, 7, 4096, 0, 5000] {
            bytes.resize(len, "test").unwrap();
            assert_eq!(bytes.as_mut_ptr() as usize % ALIGNMENT as usize, 0);
            assert_eq!(bytes.len(), len);
            if len >= 3 && bytes.capacity() == 4096 {
                assert_eq!(&bytes[..3], &[1, 2, 3]);
            }
        }
    }

    #[test]
    fn absurd_sizes_are_errors() {
        assert!(matches!(AlignedBytes::zeroed(usize::MAX, "test"), Err(Error::OutOfMemory { .. })));
        assert!(matches!(AlignedBytes::zeroed(1 << 60, "test"), Err(Error::OutOfMemory { .. })));
    }
}
