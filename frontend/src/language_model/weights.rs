//! The weights of a model by role, whatever file they come from.
//!
//! Every tensor that is looked up is noted, so that what nobody asked for can be refused: a file with tensors that the
//! description has no use for is another model than the description says.

use super::error::{LanguageModelError, Result};
use super::family::{Family, Fused};
use super::names::{GGUF, IGNORED, ROOTS, Role};
use super::packed::{self, Grouped, Packing};
use crate::gguf::{Encoding, Gguf};
use indexmap::IndexMap;
use std::cell::RefCell;
use std::collections::HashSet;
use tcc_ir::block_format::BlockFormat;
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;

/// A tensor as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its name in the file.
    pub name: String,
    /// Its contents; the bytes of blocks where there is a format.
    pub data: Data,
    /// The format of blocks along the rows.
    pub format: Option<BlockFormat>,
}

impl Stored {
    /// Extents in elements.
    pub fn shape(&self) -> Vec<usize> {
        let mut shape = self.data.shape().to_vec();
        if let (Some(format), Some(row)) = (self.format, shape.last_mut()) {
            *row = *row / format.bytes() * format.elements();
        }
        shape
    }
}

/// A matrix `[out, in]`.
#[derive(Clone, Debug)]
pub enum Matrix {
    /// Floating-point numbers, or blocks.
    Stored(Stored),
    /// 8-bit floats with scales that broadcast against the blocks of the matrix.
    Scaled {
        /// The numbers.
        codes: Stored,
        /// Scales, one for each block of this many rows and columns.
        scales: Data,
        /// Rows and columns that share a scale.
        block: [usize; 2],
    },
    /// Small integers with scales and zero points.
    Grouped(Box<Grouped>),
}

/// The matrices of all experts.
#[derive(Clone, Debug)]
pub enum Experts {
    /// One tensor `[experts, out, in]`.
    Together(Stored),
    /// A matrix for each.
    Apart(Vec<Matrix>),
}

/// All tensors of a model.
#[derive(Clone, Debug)]
pub struct Weights {
    family: &'static Family,
    tensors: IndexMap<String, Stored>,
    /// In front of the names of the model and of its head, `None` for GGUF.
    root: Option<(&'static str, &'static str)>,
    packing: Packing,
    used: RefCell<HashSet<String>>,
}

impl Weights {
    /// The tensors of a GGUF file.
    pub fn gguf(file: &Gguf, family: &'static Family) -> Result<Weights> {
        let mut tensors = IndexMap::with_capacity(file.tensors.len());
        for (name, tensor) in &file.tensors {
            let format = match tensor.encoding {
                Encoding::Plain(_) => None,
                Encoding::Blocks(format) => Some(format),
            };
            tensors.insert(name.clone(), Stored { name: name.clone(), data: tensor.data()?, format });
        }
        Ok(Weights { family, tensors, root: None, packing: Packing::None, used: RefCell::default() })
    }

    /// The tensors of a folder.
    ///
    /// # Errors
    /// The embedding is under none of the names that such models give it.
    pub fn folder(
        tensors: IndexMap<String, Data>,
        family: &'static Family,
        packing: Packing,
    ) -> Result<Weights> {
        let embedding = family.names.iter().find(|(role, _)| *role == Role::Embedding).map(|(_, name)| *name);
        let embedding = embedding.unwrap_or_default();
        let root = ROOTS.iter().find(|(root, _)| tensors.contains_key(&format!("{root}{embedding}.weight")));
        let Some(root) = root else {
            return Err(LanguageModelError::MissingTensor {
                name: format!("model.{embedding}.weight"),
                family: family.name,
                reason: "every model has an embedding".into(),
            });
        };
        let tensors = tensors
            .into_iter()
            .map(|(name, data)| (name.clone(), Stored { name, data, format: None }))
            .collect();
        Ok(Weights { family, tensors, root: Some(*root), packing, used: RefCell::default() })
    }

    /// How many tensors there are, which bounds the number of layers.
    pub fn count(&self) -> usize {
        self.tensors.len()
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = &Stored> {
        self.tensors.values()
    }

    /// The name of a tensor without `.weight` or `.bias`; `None` where the family has no such tensor.
    pub fn base(&self, role: Role, layer: usize, expert: usize) -> Option<String> {
        let find = |names: &'static [(Role, &'static str)]| {
            names.iter().find(|(known, _)| *known == role).map(|(_, name)| *name)
        };
        let pattern = match self.root {
            None => find(self.family.gguf_names).or_else(|| find(GGUF)),
            Some(_) => find(self.family.names),
        }?;
        let name = pattern.replace("{}", &layer.to_string()).replace("{e}", &expert.to_string());
        Some(match (self.root, name.strip_prefix('/')) {
            (Some((_, head)), Some(name)) => format!("{head}{name}"),
            (Some((root, _)), None) => format!("{root}{name}"),
            (None, _) => name,
        })
    }

    /// The tensor of this name.
    pub fn named(&self, name: &str) -> Option<&Stored> {
        let stored = self.tensors.get(name)?;
        self.used.borrow_mut().insert(name.to_owned());
        Some(stored)
    }

    /// True where the tensor is there; it counts as used only when it is asked for.
    pub fn has(&self, role: Role, layer: usize, suffix: &str) -> bool {
        let base = self.base(role, layer, 0);
        base.is_some_and(|base| {
            let with = |suffix: &str| self.tensors.contains_key(&format!("{base}{suffix}"));
            with(suffix) || (suffix == ".weight" && with(".qweight"))
        })
    }

    /// A vector or table of floating-point numbers; `None` where it is not there.
    ///
    /// # Errors
    /// It has another shape, or is quantized.
    pub fn plain(
        &self,
        role: Role,
        layer: usize,
        suffix: &str,
        shape: &[usize],
        reason: &str,
    ) -> Result<Option<Data>> {
        let base = self.base(role, layer, 0);
        let Some(stored) = base.and_then(|base| self.named(&format!("{base}{suffix}"))) else {
            return Ok(None);
        };
        check(stored, shape, reason)?;
        floating(stored)?;
        Ok(Some(stored.data.clone()))
    }

    /// A matrix `[out, in]`; `None` where it is not there.
    ///
    /// # Errors
    /// It has another shape or an element type that is no weight.
    pub fn matrix(
        &self,
        role: Role,
        layer: usize,
        expert: usize,
        shape: [usize; 2],
        reason: &str,
    ) -> Result<Option<Matrix>> {
        let Some(base) = self.base(role, layer, expert) else { return Ok(None) };
        if let Some(codes) = self.named(&format!("{base}.qweight")) {
            let part =
                |suffix: &str| self.named(&format!("{base}{suffix}")).map(|stored| stored.data.clone());
            let parts = packed::Parts {
                name: &base,
                codes: codes.data.clone(),
                zeros: part(".qzeros"),
                scales: part(".scales"),
                groups: part(".g_idx"),
            };
            return Ok(Some(Matrix::Grouped(Box::new(packed::unpack(&parts, shape, &self.packing)?))));
        }
        let Some(stored) = self.named(&format!("{base}.weight")) else { return Ok(None) };
        check(stored, &self.stored_shape(role, shape), reason)?;
        if stored.format.is_none() && stored.data.dtype().is_float() && stored.data.dtype().bits() == 8 {
            return self.scaled(&base, stored, shape).map(Some);
        }
        if stored.format.is_none() {
            floating(stored)?;
        }
        Ok(Some(Matrix::Stored(stored.clone())))
    }

    /// 8-bit floats with the scales beside them, which are one for all, one a row, or one a block.
    fn scaled(&self, base: &str, codes: &Stored, [rows, columns]: [usize; 2]) -> Result<Matrix> {
        let scales = [".weight_scale_inv", ".weight_scale"]
            .iter()
            .find_map(|suffix| self.named(&format!("{base}{suffix}")));
        let Some(scales) = scales else { return Ok(Matrix::Stored(codes.clone())) };
        floating(scales)?;
        let wrong = |expected: Vec<usize>| LanguageModelError::Shape {
            name: scales.name.clone(),
            found: scales.shape(),
            expected,
            reason: format!("scales of '{}'", codes.name),
        };
        // Activation scales of static quantization are not part of the weights' value.
        let _ = self.named(&format!("{base}.input_scale"));
        let block = match (scales.data.shape(), &self.packing) {
            ([] | [1] | [1, 1], _) => [rows, columns],
            ([found] | [found, 1], _) if *found == rows => [1, columns],
            ([_, _], Packing::Float { block }) => *block,
            _ => return Err(wrong(vec![rows, 1])),
        };
        let expected = vec![rows.div_ceil(block[0].max(1)), columns.div_ceil(block[1].max(1))];
        if scales.data.count() != expected.iter().product::<usize>() {
            return Err(wrong(expected));
        }
        let scales = scales.data.reshaped(&expected)?;
        Ok(Matrix::Scaled { codes: codes.clone(), scales, block })
    }

    /// The matrices of all experts, each `[out, in]`.
    ///
    /// # Errors
    /// As [`Weights::matrix`]; experts of their own must all be there.
    pub fn experts(
        &self,
        role: Role,
        layer: usize,
        count: usize,
        [rows, columns]: [usize; 2],
        reason: &str,
    ) -> Result<Option<Experts>> {
        if self.root.is_none() {
            let base = self.base(role, layer, 0);
            let Some(stored) = base.and_then(|base| self.named(&format!("{base}.weight"))) else {
                return Ok(None);
            };
            check(stored, &[count, rows, columns], reason)?;
            if stored.format.is_none() {
                floating(stored)?;
            }
            return Ok(Some(Experts::Together(stored.clone())));
        }
        let mut stack = Vec::new();
        for expert in 0..count {
            match self.matrix(role, layer, expert, [rows, columns], reason)? {
                Some(matrix) => stack.push(matrix),
                None if expert == 0 => return Ok(None),
                None => return Err(self.missing(role, layer, expert, reason)),
            }
        }
        Ok(Some(Experts::Apart(stack)))
    }

    /// The weights of query or key norms that heads have of their own, in a row.
    pub fn head_norms(
        &self,
        role: Role,
        layer: usize,
        heads: usize,
        size: usize,
    ) -> Result<Option<Vec<Data>>> {
        let reason = format!("{heads} heads of {size}");
        if self.root.is_none() {
            return Ok(self.plain(role, layer, ".weight", &[heads, size], &reason)?.map(|data| vec![data]));
        }
        let mut rows = Vec::new();
        for head in 0..heads {
            let base = self.base(role, layer, head).unwrap_or_default();
            match self.named(&format!("{base}.weight")) {
                Some(stored) => {
                    check(stored, &[size], &reason)?;
                    floating(stored)?;
                    rows.push(stored.data.reshaped(&[1, size])?);
                }
                None if head == 0 => return Ok(None),
                None => return Err(self.missing(role, layer, head, &reason)),
            }
        }
        Ok(Some(rows))
    }

    /// The error for a tensor that is not there.
    pub fn missing(&self, role: Role, layer: usize, expert: usize, reason: &str) -> LanguageModelError {
        let name =
            self.base(role, layer, expert).map_or_else(|| format!("{role:?}"), |base| base + ".weight");
        LanguageModelError::MissingTensor { name, family: self.family.name, reason: reason.to_owned() }
    }

    /// Refuses tensors that nothing asked for.
    ///
    /// # Errors
    /// There are some.
    pub fn check_used(&self) -> Result<()> {
        let used = self.used.borrow();
        let ignored = |name: &str| {
            IGNORED
                .iter()
                .any(|part| if part.starts_with('.') { name.ends_with(part) } else { name.contains(part) })
        };
        let names: Vec<String> =
            self.tensors.keys().filter(|name| !used.contains(*name) && !ignored(name)).cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(LanguageModelError::Unused { names, family: self.family.name })
    }

    /// The shape that the file has for a matrix `[out, in]`.
    fn stored_shape(&self, role: Role, [rows, columns]: [usize; 2]) -> [usize; 2] {
        if self.transposed(role) { [columns, rows] } else { [rows, columns] }
    }

    /// True for matrices that the file has as `[in, out]`.
    pub fn transposed(&self, role: Role) -> bool {
        self.root.is_some()
            && self.family.transposed
            && !matches!(role, Role::Embedding | Role::Positions | Role::Head)
    }

    /// The order of rows of a projection to queries, keys and values.
    pub fn fused(&self) -> Fused {
        if self.root.is_some() { self.family.fused } else { Fused::Parts }
    }
}

/// Refuses a tensor of another shape.
fn check(stored: &Stored, shape: &[usize], reason: &str) -> Result<()> {
    if stored.shape() == shape {
        return Ok(());
    }
    Err(LanguageModelError::Shape {
        name: stored.name.clone(),
        found: stored.shape(),
        expected: shape.to_vec(),
        reason: reason.to_owned(),
    })
}

/// Refuses a tensor that is not of floating-point numbers.
fn floating(stored: &Stored) -> Result<()> {
    let reason = match (stored.format, stored.data.dtype()) {
        (Some(format), _) => format!("stored as {}, expected plain numbers", format.text()),
        (None, DType::F32 | DType::F64 | DType::F16 | DType::BF16 | DType::F8E4M3FN | DType::F8E5M2) => {
            return Ok(());
        }
        (None, dtype) => format!("element type {dtype}, expected floating point"),
    };
    Err(LanguageModelError::Tensor { name: stored.name.clone(), reason })
}
