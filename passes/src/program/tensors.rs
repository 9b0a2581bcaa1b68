//! Tensors of the manifest: storage, live ranges and weights.

use std::collections::HashMap;

use bytes::Bytes;
use tcc_ir::data::Data;
use tcc_ir::types::{TensorType, Type};
use tcc_runtime::DimExpr;
use tcc_runtime::manifest::{Storage, TensorId, TensorInfo, WeightBlob};

use super::ProgramError;
use super::dims::{Symbols, element_type};

/// The tensor table under construction.
#[derive(Default)]
pub struct Tensors {
    /// The table.
    pub infos: Vec<TensorInfo>,
    /// Weight table.
    pub blobs: Vec<WeightBlob>,
    /// Contents of the weights.
    pub contents: Vec<Bytes>,
    by_digest: HashMap<[u8; 32], TensorId>,
    /// The weight that holds nothing but repetitions of an element.
    uniform: HashMap<Bytes, u32>,
}

/// Uniform constants above this are not stored but filled in on load.
const STORED_UNIFORM_BYTES: usize = 1 << 16;

impl Tensors {
    /// Adds a tensor.
    pub fn add(
        &mut self,
        symbols: &Symbols,
        name: &str,
        ty: &TensorType,
        storage: Storage,
    ) -> Result<TensorId, ProgramError> {
        let dtype = element_type(ty.dtype()).ok_or_else(|| ProgramError::Unsupported {
            location: name.to_string(),
            reason: format!("the runtime has no tensors of {}", ty.dtype()),
        })?;
        let shape =
            ty.shape.iter().map(|dim| symbols.expression(dim)).collect::<Result<Vec<DimExpr>, _>>()?;
        self.infos.push(TensorInfo { name: name.to_string(), dtype, shape, storage });
        Ok(self.infos.len() as TensorId - 1)
    }

    /// Adds a tensor that steps write: in the arena, or on the host where its size has no bound.
    pub fn add_result(
        &mut self,
        symbols: &Symbols,
        name: &str,
        ty: &TensorType,
        step: u32,
    ) -> Result<TensorId, ProgramError> {
        let bounded = ty.shape.iter().all(|dim| symbols.is_bounded(dim));
        let storage = if bounded && ty.dtype() != tcc_ir::dtype::DType::String {
            Storage::Arena { offset: None, first_step: step, last_step: step }
        } else {
            Storage::Host
        };
        self.add(symbols, name, ty, storage)
    }

    /// Adds a constant, or returns the tensor of equal contents.
    pub fn add_weight(
        &mut self,
        symbols: &Symbols,
        name: &str,
        data: &Data,
    ) -> Result<TensorId, ProgramError> {
        if let Some(known) = self.by_digest.get(data.digest()) {
            return Ok(*known);
        }
        let ty = TensorType::new(data.dtype(), data.shape().iter().map(|dim| (*dim).into()).collect());
        let bytes = data.byte_count() as u64;
        let fill = data.as_uniform().filter(|_| data.byte_count() > STORED_UNIFORM_BYTES);
        let blob = match fill {
            Some(element) => self.uniform_blob(name, element, bytes),
            None => self.add_blob(name, bytes, None, data.bytes().clone()),
        };
        let id = self.add(symbols, name, &ty, Storage::Weight { blob, offset: 0, bytes })?;
        self.by_digest.insert(*data.digest(), id);
        Ok(id)
    }

    fn add_blob(&mut self, name: &str, bytes: u64, fill: Option<Vec<u8>>, contents: Bytes) -> u32 {
        self.blobs.push(WeightBlob {
            name: name.to_string(),
            bytes,
            alignment: tcc_runtime::manifest::ALIGNMENT as u32,
            offset: 0,
            hash: None,
            fill,
        });
        self.contents.push(contents);
        self.blobs.len() as u32 - 1
    }

    /// The blob of repetitions of an element, which serves all tensors of it up to the largest.
    fn uniform_blob(&mut self, name: &str, element: &Bytes, bytes: u64) -> u32 {
        if let Some(known) = self.uniform.get(element) {
            let blob = &mut self.blobs[*known as usize];
            blob.bytes = blob.bytes.max(bytes);
            return *known;
        }
        let blob = self.add_blob(name, bytes, Some(element.to_vec()), Bytes::new());
        self.uniform.insert(element.clone(), blob);
        blob
    }

    /// The tensor that owns the memory of this one.
    pub fn base(&self, mut id: TensorId) -> TensorId {
        while let Storage::Alias { of, .. } = &self.infos[id as usize].storage {
            id = *of;
        }
        id
    }

    /// Records that a step uses a tensor.
    pub fn touch(&mut self, id: TensorId, step: u32) {
        let base = self.base(id);
        if let Storage::Arena { first_step, last_step, .. } = &mut self.infos[base as usize].storage {
            *first_step = (*first_step).min(step);
            *last_step = (*last_step).max(step);
        }
    }

    /// Lets a new tensor live from the first step that uses it.
    pub fn not_before_use(&mut self, id: TensorId) {
        if let Storage::Arena { first_step, last_step, .. } = &mut self.infos[id as usize].storage {
            (*first_step, *last_step) = (u32::MAX, 0);
        }
    }

    /// Lets everything that is alive before a loop and used in it live to its end.
    pub fn extend_over_loop(&mut self, start: u32, end: u32) {
        for info in &mut self.infos {
            if let Storage::Arena { first_step, last_step, .. } = &mut info.storage
                && *first_step < start
                && *last_step >= start
            {
                *last_step = (*last_step).max(end);
            }
        }
    }
}

/// The tensor type of a value, or an error that names the node.
pub fn tensor_of<'t>(ty: &'t Type, location: &str) -> Result<&'t TensorType, ProgramError> {
    ty.as_tensor().ok_or_else(|| ProgramError::Unsupported {
        location: location.to_string(),
        reason: format!("values of type {ty} are not executed yet"),
    })
}
