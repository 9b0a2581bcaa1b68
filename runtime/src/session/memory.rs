//! Where the tensors of a session are, and what shape they have at the moment.

use crate::dim::{DimError, DimExpr, SymbolId};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, Storage, SymbolSource, TensorId};
use crate::memory::aligned::AlignedBytes;
use crate::program::Executable;
use crate::state::State;
use crate::tensor::integer;
use crate::tensor::shape::{Shape, elements};
use std::sync::Arc;

/// Memory lent for one run: an input or an output.
#[derive(Clone, Copy)]
pub(crate) struct Lent {
    pub pointer: *mut u8,
    pub bytes: usize,
    pub strings: *const String,
    pub string_count: usize,
}

impl Lent {
    /// Nothing, for the time between runs.
    pub const NONE: Lent =
        Lent { pointer: std::ptr::null_mut(), bytes: 0, strings: std::ptr::null(), string_count: 0 };
}

/// Memory of one tensor outside the arena.
#[derive(Default)]
pub(crate) struct Owned {
    pub bytes: AlignedBytes,
    pub strings: Vec<String>,
}

/// All memory of a session.
pub(crate) struct SessionMemory {
    pub executable: Arc<Executable>,
    /// Values of the symbols; those that steps bind are unknown until then.
    pub symbols: Vec<Option<i64>>,
    pub arena: AlignedBytes,
    /// Offset and size of each arena tensor, by tensor.
    pub places: Vec<(u64, u64)>,
    pub inputs: Vec<Lent>,
    pub outputs: Vec<Lent>,
    /// Memory of `Host` and string tensors, by tensor.
    pub owned: Vec<Owned>,
    /// Address and size of `State` tensors, by tensor; the session holds the state.
    pub state: Vec<(*mut u8, usize)>,
}

impl SessionMemory {
    pub fn new(executable: Arc<Executable>, state: &State) -> Result<Self> {
        let manifest = &executable.manifest;
        let mut owned: Vec<Owned> = Vec::new();
        owned.resize_with(manifest.tensors.len(), Owned::default);
        let mut places = vec![(std::ptr::null_mut(), 0); manifest.tensors.len()];
        for (place, tensor) in places.iter_mut().zip(&manifest.tensors) {
            if tensor.storage == Storage::State {
                *place = state.place(manifest, tensor)?;
            }
        }
        Ok(SessionMemory {
            symbols: vec![None; manifest.symbols.len()],
            arena: AlignedBytes::new(),
            places: vec![(0, 0); manifest.tensors.len()],
            inputs: vec![Lent::NONE; manifest.inputs.len()],
            outputs: vec![Lent::NONE; manifest.outputs.len()],
            owned,
            state: places,
            executable,
        })
    }

    fn manifest(&self) -> &Manifest {
        &self.executable.manifest
    }

    /// Evaluates an expression; `field` is built only for the message.
    pub fn dim(&self, dim: &DimExpr, field: impl FnOnce() -> String) -> Result<i64> {
        dim.evaluate(&self.symbols).map_err(|source| self.dim_error(dim, source, field()))
    }

    #[cold]
    fn dim_error(&self, dim: &DimExpr, source: DimError, field: String) -> Error {
        Error::Dim { field, expression: self.manifest().describe_dim(dim), source }
    }

    /// A shape under given values of the symbols.
    pub fn shape_with(&self, id: TensorId, symbols: &[Option<i64>]) -> Result<Shape> {
        let tensor = &self.manifest().tensors[id as usize];
        let field = || format!("shape of tensor {}", self.manifest().tensor_name(id));
        let mut shape = Shape::SCALAR;
        for dim in &tensor.shape {
            let value = dim.evaluate(symbols).map_err(|source| self.dim_error(dim, source, field()))?;
            let value = usize::try_from(value)
                .map_err(|_| Error::program(field(), format!("dimension {value} is negative")))?;
            shape.push(value);
        }
        Ok(shape)
    }

    /// The shape of a tensor now.
    pub fn shape(&self, id: TensorId) -> Result<Shape> {
        self.shape_with(id, &self.symbols)
    }

    /// Bytes of a tensor of this shape; 0 for strings.
    pub fn bytes_of(&self, id: TensorId, shape: &Shape) -> Result<usize> {
        let dtype = self.manifest().tensors[id as usize].dtype;
        if dtype == DType::String {
            return Ok(0);
        }
        crate::tensor::shape::checked_bytes(dtype, shape)
    }

    /// Address of the first byte of a tensor and how many bytes from there belong to its memory. Evaluates only
    /// offsets, so that it works before the shape is known.
    pub fn locate(&self, id: TensorId) -> Result<(*mut u8, usize)> {
        let executable = &self.executable;
        let tensor = &executable.manifest.tensors[id as usize];
        Ok(match &tensor.storage {
            Storage::Input(index) => {
                let lent = self.inputs[*index as usize];
                (lent.pointer, lent.bytes)
            }
            Storage::Output(index) => {
                let lent = self.outputs[*index as usize];
                (lent.pointer, lent.bytes)
            }
            Storage::Weight { blob, offset, bytes } => {
                let start = executable.weights[*blob as usize].0.wrapping_add(*offset as usize);
                (start.cast_mut(), *bytes as usize)
            }
            Storage::Arena { .. } => {
                let (offset, bytes) = self.places[id as usize];
                (self.arena.raw().wrapping_add(offset as usize), bytes as usize)
            }
            Storage::State => self.state[id as usize],
            Storage::Host => {
                let bytes = &self.owned[id as usize].bytes;
                (bytes.raw(), bytes.len())
            }
            Storage::Alias { of, byte_offset } => {
                let (start, bytes) = self.locate(*of)?;
                let field = || format!("offset of tensor {}", executable.manifest.tensor_name(id));
                let offset = self.dim(byte_offset, field)?;
                match usize::try_from(offset).ok().filter(|offset| *offset <= bytes) {
                    Some(offset) => (start.wrapping_add(offset), bytes - offset),
                    None => {
                        return Err(Error::program(
                            field(),
                            format!("{offset} leaves the {bytes} bytes of its memory"),
                        ));
                    }
                }
            }
        })
    }

    /// Address and size of a tensor that has elements of a fixed size, checked to lie in its memory.
    pub fn address(&self, id: TensorId) -> Result<(*mut u8, usize)> {
        let shape = self.shape(id)?;
        let bytes = self.bytes_of(id, &shape)?;
        let (start, available) = self.locate(id)?;
        if bytes > available {
            let field = format!("tensor {}", self.manifest().tensor_name(id));
            let reason = format!("shape {shape:?} takes {bytes} bytes, its memory has {available}");
            return Err(Error::program(field, reason));
        }
        Ok((start, bytes))
    }

    /// As `address`, for a tensor about to be written: memory that grows is made large enough first.
    pub fn address_for_write(&mut self, id: TensorId) -> Result<(*mut u8, usize)> {
        if self.manifest().tensors[id as usize].storage == Storage::Host {
            let shape = self.shape(id)?;
            let bytes = self.bytes_of(id, &shape)?;
            self.owned[id as usize].bytes.resize(bytes, "a tensor")?;
        }
        self.address(id)
    }

    /// The elements of a tensor.
    ///
    /// # Safety
    ///
    /// Nothing writes the tensor's memory while the slice is used.
    pub unsafe fn read<'a>(&self, id: TensorId) -> Result<&'a [u8]> {
        let (start, bytes) = self.address(id)?;
        if bytes == 0 {
            return Ok(&[]);
        }
        // SAFETY: `address` checked that the bytes lie in the tensor's memory, which outlives the run.
        Ok(unsafe { std::slice::from_raw_parts(start, bytes) })
    }

    /// The elements of a tensor about to be written.
    ///
    /// # Safety
    ///
    /// Nothing else uses the tensor's memory while the slice is used.
    pub unsafe fn write<'a>(&mut self, id: TensorId) -> Result<&'a mut [u8]> {
        let (start, bytes) = self.address_for_write(id)?;
        if bytes == 0 {
            return Ok(&mut []);
        }
        // SAFETY: as in `read`; validation made sure that it is neither an input nor a weight.
        Ok(unsafe { std::slice::from_raw_parts_mut(start, bytes) })
    }

    /// The strings of a string tensor.
    ///
    /// # Safety
    ///
    /// As for `read`.
    pub unsafe fn read_strings<'a>(&self, id: TensorId) -> Result<&'a [String]> {
        let shape = self.shape(id)?;
        let (start, count) = match self.manifest().tensors[id as usize].storage {
            Storage::Input(index) => {
                let lent = self.inputs[index as usize];
                (lent.strings, lent.string_count)
            }
            _ => {
                let strings = &self.owned[id as usize].strings;
                (strings.as_ptr(), strings.len())
            }
        };
        if elements(&shape) != Some(count as u64) {
            let field = format!("tensor {}", self.manifest().tensor_name(id));
            return Err(Error::program(field, format!("shape {shape:?} does not match its {count} strings")));
        }
        if count == 0 {
            return Ok(&[]);
        }
        // SAFETY: the pointer and the count come from a slice that outlives the run.
        Ok(unsafe { std::slice::from_raw_parts(start, count) })
    }

    /// The strings of a string tensor about to be written.
    ///
    /// # Safety
    ///
    /// As for `write`.
    pub unsafe fn write_strings<'a>(&mut self, id: TensorId) -> &'a mut Vec<String> {
        let strings: *mut Vec<String> = &mut self.owned[id as usize].strings;
        // SAFETY: `owned` is never resized after construction, so the address holds as long as the session.
        unsafe { &mut *strings }
    }

    /// Reads an element of an integer tensor.
    pub fn integer(&self, id: TensorId, element: usize) -> Result<i64> {
        let dtype = self.manifest().tensors[id as usize].dtype;
        // SAFETY: the slice is gone before anything else happens.
        let bytes = unsafe { self.read(id)? };
        integer(dtype, bytes, element).map_err(|reason| {
            let field = format!("element {element} of tensor {}", self.manifest().tensor_name(id));
            Error::program(field, reason)
        })
    }

    /// Gives a symbol a value, after checking its range and bound.
    pub fn bind(&mut self, symbol: SymbolId, value: i64) -> Result<()> {
        let info = &self.executable.manifest.symbols[symbol as usize];
        let mut hi = info.hi;
        if let SymbolSource::Step { bound: Some(bound) } = &info.source {
            hi = hi.min(self.dim(bound, || format!("bound of symbol `{}`", info.name))?);
        }
        if !(info.lo..=hi).contains(&value) {
            return Err(Error::SymbolRange { symbol: info.name.clone(), value, lo: info.lo, hi });
        }
        self.symbols[symbol as usize] = Some(value);
        Ok(())
    }

    /// Forgets the values of symbols about to be bound again.
    pub fn unbind(&mut self, symbols: &[SymbolId]) {
        symbols.iter().for_each(|&symbol| self.symbols[symbol as usize] = None);
    }

    /// Makes a tensor have this shape: binds those of `binds` that are whole dimensions and have no value, and
    /// checks all others.
    pub fn bind_shape(&mut self, id: TensorId, actual: &[usize], binds: &[SymbolId]) -> Result<()> {
        let executable = Arc::clone(&self.executable);
        let tensor = &executable.manifest.tensors[id as usize];
        let fail = |reason: String| {
            let expected = executable.manifest.describe_shape(&tensor.shape);
            let field = format!("tensor {} of shape {expected}", executable.manifest.tensor_name(id));
            Error::program(field, reason)
        };
        if tensor.shape.len() != actual.len() {
            return Err(fail(format!("gets the shape {actual:?}")));
        }
        for (dim, &found) in tensor.shape.iter().zip(actual) {
            let found = i64::try_from(found).map_err(|_| fail(format!("gets the shape {actual:?}")))?;
            match dim {
                DimExpr::Symbol(symbol)
                    if binds.contains(symbol) && self.symbols[*symbol as usize].is_none() =>
                {
                    self.bind(*symbol, found)?;
                }
                dim => {
                    let expected =
                        self.dim(dim, || format!("shape of tensor {}", executable.manifest.tensor_name(id)))?;
                    if expected != found {
                        return Err(fail(format!(
                            "gets the shape {actual:?}, expected {expected} for {found}"
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    /// Copies all elements of a tensor into another one.
    pub fn copy(&mut self, from: TensorId, to: TensorId) -> Result<()> {
        if from == to {
            return Ok(());
        }
        if self.manifest().tensors[to as usize].dtype == DType::String {
            // SAFETY: two different tensors never share strings, because strings have no aliases.
            let (source, target) = unsafe { (self.read_strings(from)?, self.write_strings(to)) };
            copy_strings(source, target);
            return Ok(());
        }
        let (target, target_bytes) = self.address_for_write(to)?;
        let (source, source_bytes) = self.address(from)?;
        if source_bytes != target_bytes {
            let manifest = self.manifest();
            let field =
                format!("copy of tensor {} to {}", manifest.tensor_name(from), manifest.tensor_name(to));
            return Err(Error::program(field, format!("{source_bytes} bytes do not fit {target_bytes}")));
        }
        if source_bytes > 0 {
            // SAFETY: both ranges were checked to lie in the memory of their tensors; they may overlap.
            unsafe { std::ptr::copy(source, target, source_bytes) };
        }
        Ok(())
    }
}

/// Makes `target` equal to `source`, reusing the strings that it has.
pub(crate) fn copy_strings(source: &[String], target: &mut Vec<String>) {
    target.truncate(source.len());
    let (head, tail) = source.split_at(target.len());
    for (to, from) in target.iter_mut().zip(head) {
        to.clone_from(from);
    }
    target.extend_from_slice(tail);
}
