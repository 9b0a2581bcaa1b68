//! State: tensors that keep their contents from run to run, outside of any session.
//!
//! Executables that name the same state tensor see the same memory, so an entry that fills a cache and one that reads it
//! share a [`State`]. Symbols of state tensors, such as the number of cache slots, get their values when the state is
//! made. One session runs at a time on a state; others wait.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, Storage, SymbolSource, TensorInfo};
use crate::memory::aligned::AlignedBytes;
use crate::memory::available::available_bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a state tensor is, with the symbols replaced by their values.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Description {
    dtype: DType,
    shape: Vec<u64>,
    bytes: usize,
}

/// Tensors by name, and the values of the symbols in their shapes.
pub struct State {
    symbols: BTreeMap<String, i64>,
    tensors: BTreeMap<String, (Description, AlignedBytes)>,
    running: Mutex<()>,
}

impl State {
    /// All state of these programs, zero at first; equal names are one tensor. `symbols` gives values to the symbols of
    /// their shapes.
    ///
    /// The bytes are summed up before anything is allocated: more than `memory_limit` or than the machine has free is
    /// [`Error::StateMemory`]. Memory that nothing has written yet costs address space only.
    pub fn new(
        manifests: &[&Manifest],
        symbols: &[(&str, i64)],
        memory_limit: Option<u64>,
    ) -> Result<Arc<State>> {
        let symbols: BTreeMap<String, i64> =
            symbols.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let described = describe_all(manifests, &symbols)?;
        let needed = total(&described);
        let limit = memory_limit.into_iter().chain(available_bytes()).min();
        if let Some(limit) = limit.filter(|limit| needed > *limit) {
            let values: Vec<String> =
                symbols.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            return Err(Error::StateMemory { needed, limit, symbols: values.join(", ") });
        }
        let mut tensors = BTreeMap::new();
        for (name, description) in described {
            let memory = AlignedBytes::zeroed(description.bytes, &format!("state `{name}`"))?;
            tensors.insert(name, (description, memory));
        }
        Ok(Arc::new(State { symbols, tensors, running: Mutex::new(()) }))
    }

    /// Bytes that [`State::new`] would take, without taking them.
    pub fn bytes_needed(manifests: &[&Manifest], symbols: &[(&str, i64)]) -> Result<u64> {
        let symbols = symbols.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Ok(total(&describe_all(manifests, &symbols)?))
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(|(description, _)| description.bytes as u64).sum()
    }

    /// Value of a symbol, where it was given one.
    pub fn symbol(&self, name: &str) -> Option<i64> {
        self.symbols.get(name).copied()
    }

    /// Names of the tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Sets everything to zero, as it was at first.
    pub fn reset(&self) {
        let _running = self.lock();
        for (description, memory) in self.tensors.values() {
            // SAFETY: the memory has this many bytes, and nobody else uses it while the lock is held.
            unsafe { memory.raw().write_bytes(0, description.bytes) };
        }
    }

    /// Copies one part of every tensor over another: the outermost axis is cut into `parts` equal parts, such as the
    /// pages of a cache.
    pub fn copy_part(&self, from: usize, to: usize, parts: usize) -> Result<()> {
        let refuse =
            |tensor: &str, reason: String| Error::StateMismatch { tensor: tensor.to_owned(), reason };
        for (name, (description, _)) in &self.tensors {
            let outer = description.shape.first().copied().unwrap_or(0) as usize;
            if from >= parts || to >= parts || !outer.is_multiple_of(parts) {
                let reason = format!("has {outer} rows, no parts {from} and {to} of {parts}");
                return Err(refuse(name, reason));
            }
        }
        let _running = self.lock();
        for (description, memory) in self.tensors.values() {
            let bytes = description.bytes / parts;
            let start = memory.raw();
            // SAFETY: both parts lie inside the memory, and nobody else uses it while the lock is held.
            unsafe { std::ptr::copy(start.add(from * bytes), start.add(to * bytes), bytes) };
        }
        Ok(())
    }

    /// Waits until no session runs on this state.
    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        // The lock guards memory that is plain numbers: a run that failed leaves nothing inconsistent.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Address and size of the tensor of this name, which must be what the manifest describes.
    pub(crate) fn place(&self, manifest: &Manifest, tensor: &TensorInfo) -> Result<(*mut u8, usize)> {
        let expected = describe(manifest, tensor, &self.symbols)?;
        let name = &tensor.name;
        match self.tensors.get(name) {
            Some((found, memory)) if *found == expected => Ok((memory.raw(), expected.bytes)),
            Some((found, _)) => Err(Error::StateMismatch {
                tensor: name.clone(),
                reason: format!(
                    "is {} {:?}, the program takes {} {:?}",
                    found.dtype, found.shape, expected.dtype, expected.shape
                ),
            }),
            None => Err(Error::StateMismatch {
                tensor: name.clone(),
                reason: "was not made for this program".to_owned(),
            }),
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State({} tensors, {} bytes, {:?})", self.tensors.len(), self.bytes(), self.symbols)
    }
}

fn total(described: &BTreeMap<String, Description>) -> u64 {
    described.values().fold(0u64, |sum, description| sum.saturating_add(description.bytes as u64))
}

fn describe_all(
    manifests: &[&Manifest],
    symbols: &BTreeMap<String, i64>,
) -> Result<BTreeMap<String, Description>> {
    let mut all: BTreeMap<String, Description> = BTreeMap::new();
    for manifest in manifests {
        for tensor in manifest.tensors.iter().filter(|tensor| tensor.storage == Storage::State) {
            let description = describe(manifest, tensor, symbols)?;
            match all.get(&tensor.name) {
                Some(known) if *known != description => {
                    let reason = format!(
                        "is {} {:?} in one program and {} {:?} in another",
                        known.dtype, known.shape, description.dtype, description.shape
                    );
                    return Err(Error::StateMismatch { tensor: tensor.name.clone(), reason });
                }
                Some(_) => {}
                None => {
                    all.insert(tensor.name.clone(), description);
                }
            }
        }
    }
    Ok(all)
}

/// The values of a manifest's symbols that a state fixes, by position; unknown for all others.
pub(crate) fn symbol_values(
    manifest: &Manifest,
    symbols: &BTreeMap<String, i64>,
) -> Result<Vec<Option<i64>>> {
    let mut values = Vec::with_capacity(manifest.symbols.len());
    for symbol in &manifest.symbols {
        values.push(match symbol.source {
            SymbolSource::State => {
                let Some(value) = symbols.get(&symbol.name).copied() else {
                    return Err(Error::StateSymbol { symbol: symbol.name.clone() });
                };
                if !(symbol.lo..=symbol.hi).contains(&value) {
                    let (lo, hi) = (symbol.lo, symbol.hi);
                    return Err(Error::SymbolRange { symbol: symbol.name.clone(), value, lo, hi });
                }
                Some(value)
            }
            SymbolSource::Input { .. } | SymbolSource::Step { .. } => None,
        });
    }
    Ok(values)
}

fn describe(
    manifest: &Manifest,
    tensor: &TensorInfo,
    symbols: &BTreeMap<String, i64>,
) -> Result<Description> {
    let values = symbol_values(manifest, symbols)?;
    let too_large = || Error::OutOfMemory { what: format!("state `{}`", tensor.name), bytes: u64::MAX };
    let (mut shape, mut elements) = (Vec::with_capacity(tensor.shape.len()), 1u64);
    for dim in &tensor.shape {
        let value = dim.evaluate(&values).map_err(|source| Error::Dim {
            field: format!("shape of state `{}`", tensor.name),
            expression: manifest.describe_dim(dim),
            source,
        })?;
        let value = u64::try_from(value).map_err(|_| too_large())?;
        elements = elements.checked_mul(value).ok_or_else(too_large)?;
        shape.push(value);
    }
    let bytes = tensor.dtype.bytes_for(elements).and_then(|bytes| usize::try_from(bytes).ok());
    Ok(Description { dtype: tensor.dtype, shape, bytes: bytes.ok_or_else(too_large)? })
}

impl State {
    /// Values of the manifest's symbols under this state.
    pub(crate) fn values_for(&self, manifest: &Manifest) -> Result<Vec<Option<i64>>> {
        symbol_values(manifest, &self.symbols)
    }
}
