//! Input values: from NumPy files, or at random.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use tcc_ir::convert::{push_scalar, texts};
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::Scalar;
use tcc_runtime::manifest::Manifest;
use tcc_runtime::{DimExpr, TensorRef};

use crate::error::Error;
use crate::npz;
use crate::split_mix::SplitMix;

/// Inputs by name.
pub type Inputs = BTreeMap<String, Data>;

/// Reads `NAME=FILE.npy`.
pub fn read_array(text: &str) -> Result<(String, Data), Error> {
    let Some((name, path)) = text.split_once('=') else {
        return Err(Error::Input { name: text.to_string(), reason: "expected NAME=FILE.npy".into() });
    };
    let fail = |reason: String| Error::Input { name: name.to_string(), reason };
    let file = File::open(path).map_err(|error| fail(format!("{path}: {error}")))?;
    let data = npz::read_npy(file).map_err(|error| fail(format!("{path}: {error}")))?;
    Ok((name.to_string(), data))
}

/// Reads every array of an `.npz` file.
pub fn read_archive(path: &Path) -> Result<Inputs, Error> {
    npz::read_npz(path)
        .map_err(|error| Error::Input { name: path.display().to_string(), reason: error.to_string() })
}

/// The largest number of elements of a random input.
const LARGEST_RANDOM: u64 = 1 << 30;

/// Random values for the inputs of a program that are not given: floats uniform in [0, 1), integers 0 or 1. `sizes` are
/// the values of its symbols.
pub fn random(
    manifest: &Manifest,
    sizes: &[Option<i64>],
    given: &Inputs,
    seed: u64,
) -> Result<Inputs, Error> {
    let mut noise = SplitMix(seed);
    let mut inputs = Inputs::new();
    for port in manifest.inputs.iter().filter(|port| !given.contains_key(&port.name)) {
        let fail = |reason: String| Error::Input { name: port.name.clone(), reason };
        let info = &manifest.tensors[port.tensor as usize];
        let shape = info
            .shape
            .iter()
            .map(|dim: &DimExpr| dim.evaluate(sizes).map(|value| value.max(0) as usize))
            .collect::<Result<Vec<usize>, _>>()
            .map_err(|error| fail(error.to_string()))?;
        let dtype =
            element_type(info.dtype).ok_or_else(|| fail(format!("no random values of {:?}", info.dtype)))?;
        let count = shape.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim as u64));
        let count =
            count.filter(|count| *count <= LARGEST_RANDOM).ok_or_else(|| fail("is too large".into()))?;
        let mut bytes = Vec::with_capacity(count as usize * dtype.size());
        for _ in 0..count {
            let unit = noise.unit();
            let value = if dtype.is_float() { unit } else { f64::from(unit >= 0.5) };
            push_scalar(Scalar::of(dtype, value), &mut bytes);
        }
        let data = Data::new(dtype, &shape, bytes.into()).map_err(|error| fail(error.to_string()))?;
        inputs.insert(port.name.clone(), data);
    }
    Ok(inputs)
}

/// The IR's element type for one of the runtime.
pub fn element_type(dtype: tcc_runtime::DType) -> Option<DType> {
    DType::ALL.iter().copied().find(|known| tcc_passes::program::element_type(*known) == Some(dtype))
}

/// Inputs in the order of a manifest, in the form in which the runtime takes them.
#[derive(Debug)]
pub struct Ordered<'d> {
    arrays: Vec<(tcc_runtime::DType, &'d Data)>,
    /// The elements of those of strings.
    texts: Vec<Option<Vec<String>>>,
}

impl Ordered<'_> {
    /// The inputs, borrowed.
    pub fn tensors(&self) -> Result<Vec<TensorRef<'_>>, Error> {
        self.arrays
            .iter()
            .zip(&self.texts)
            .map(|((dtype, data), texts)| {
                Ok(match texts {
                    Some(texts) => TensorRef::from_strings(data.shape(), texts)?,
                    None => TensorRef::new(*dtype, data.shape(), data.bytes())?,
                })
            })
            .collect()
    }
}

/// The inputs in the order of the manifest; missing and extra ones are named.
pub fn ordered<'d>(manifest: &Manifest, inputs: &'d Inputs) -> Result<Ordered<'d>, Error> {
    let expected: Vec<&str> = manifest.inputs.iter().map(|port| port.name.as_str()).collect();
    if let Some(extra) = inputs.keys().find(|name| !expected.contains(&name.as_str())) {
        let reason = format!("the model has no such input; it takes {}", expected.join(", "));
        return Err(Error::Input { name: extra.clone(), reason });
    }
    let mut ordered = Ordered { arrays: Vec::new(), texts: Vec::new() };
    for port in &manifest.inputs {
        let fail = |reason: String| Error::Input { name: port.name.clone(), reason };
        let missing = "is missing; give it with --input NAME=FILE.npy, --inputs FILE.npz or --random SEED";
        let data = inputs.get(&port.name).ok_or_else(|| fail(missing.into()))?;
        let dtype = tcc_passes::program::element_type(data.dtype())
            .ok_or_else(|| fail(format!("the runtime has no {}", data.dtype())))?;
        ordered.arrays.push((dtype, data));
        ordered.texts.push(texts(data).map(|texts| texts.into_iter().map(str::to_owned).collect()));
    }
    Ok(ordered)
}

/// A result of the runtime as tensor contents.
pub fn to_data(tensor: &tcc_runtime::Tensor) -> Result<Data, Error> {
    let fail = |reason: String| Error::Input { name: "result".into(), reason };
    let dtype = element_type(tensor.dtype())
        .ok_or_else(|| fail(format!("{:?} has no array form", tensor.dtype())))?;
    let bytes = match tensor.strings() {
        Some(strings) => {
            return Data::from_texts(tensor.shape(), strings).map_err(|error| fail(error.to_string()));
        }
        None => tensor.bytes().to_vec(),
    };
    Data::new(dtype, tensor.shape(), bytes.into()).map_err(|error| fail(error.to_string()))
}
