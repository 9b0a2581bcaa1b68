//! The real models of `zoo.toml`: their cases, inputs and reference outputs.
//!
//! References come in two sizes. The cache may hold every element, written by `tools/ort-reference`; git always holds
//! a digest per case under `references/`: hashes of the inputs, statistics and evenly spaced samples of the outputs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tcc_ir::convert::element;
use tcc_ir::data::Data;

use crate::cache;
use crate::compare::{Tolerance, compare_tensors, root_mean_square};
use crate::inputs::{Dims, InputSpec};
use tcc::npz;

/// Tolerance of models that state none, see [`Tolerance::of_model`].
const DEFAULT_TOLERANCE: f64 = 2e-4;

/// One model of the zoo.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Unique name.
    pub name: String,
    /// `ENTRY/FILE`, see [`cache::file`].
    pub file: String,
    /// Dimensions of each case.
    pub dims: Vec<Dims>,
    /// Description of each input, see [`InputSpec`].
    pub inputs: BTreeMap<String, String>,
    /// What made the reference outputs.
    #[serde(default)]
    pub reference: Reference,
    /// Tolerance where the default does not fit.
    pub tolerance: Option<f64>,
    /// Too slow for the interpreter or too large for a small machine.
    #[serde(default)]
    pub heavy: bool,
    /// Dimensions for the benchmark.
    pub bench: Option<Dims>,
}

/// What executed a model to make its reference outputs.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "lowercase")]
pub enum Reference {
    /// ONNX Runtime, without graph optimizations.
    #[default]
    OnnxRuntime,
    /// The executor of the qonnx package.
    Qonnx,
}

/// A model with dimensions for its inputs.
#[derive(Clone, Debug)]
pub struct Case {
    /// The model.
    pub model: Model,
    /// `NAME` or `NAME/h64-n1`, dimensions sorted by name.
    pub name: String,
    /// The dimensions.
    pub dims: Dims,
}

/// Every model, in the order of the table.
///
/// # Errors
/// `zoo.toml` is missing or damaged.
pub fn models() -> Result<Vec<Model>, String> {
    #[derive(Deserialize)]
    struct Table {
        model: Vec<Model>,
    }
    let path = cache::tests_folder().join("zoo.toml");
    let text = std::fs::read_to_string(path).map_err(|error| format!("zoo.toml: {error}"))?;
    let table: Table = toml::from_str(&text).map_err(|error| format!("zoo.toml: {error}"))?;
    Ok(table.model)
}

/// Every case of every model.
///
/// # Errors
/// As [`models`].
pub fn cases() -> Result<Vec<Case>, String> {
    Ok(models()?.iter().flat_map(Model::cases).collect())
}

impl Model {
    /// The cases of this model.
    pub fn cases(&self) -> Vec<Case> {
        self.dims.iter().map(|dims| self.case(dims)).collect()
    }

    /// This model under other dimensions; it has a reference only if the table lists them.
    pub fn case(&self, dims: &Dims) -> Case {
        let sizes: Vec<String> = dims.iter().map(|(name, size)| format!("{name}{size}")).collect();
        let name =
            if sizes.is_empty() { self.name.clone() } else { format!("{}/{}", self.name, sizes.join("-")) };
        Case { model: self.clone(), name, dims: dims.clone() }
    }

    /// Where the model lies.
    ///
    /// # Errors
    /// What to do to fetch it.
    pub fn path(&self) -> Result<PathBuf, String> {
        cache::file(&self.file)
    }

    /// How far results may be from the reference.
    pub fn tolerance(&self) -> Tolerance {
        Tolerance::of_model(self.tolerance.unwrap_or(DEFAULT_TOLERANCE))
    }
}

/// What `tests/references` keeps of one output.
#[derive(Deserialize, Clone, Debug)]
pub struct OutputDigest {
    /// NumPy's name of the element type.
    #[serde(rename = "type")]
    pub dtype: String,
    /// Shape, outermost first.
    pub shape: Vec<usize>,
    /// Root mean square of all elements.
    #[serde(default)]
    pub root_mean_square: f64,
    /// Elements `k * (count - 1) / (samples - 1)`.
    #[serde(default)]
    pub samples: Vec<f64>,
}

/// What `tests/references` keeps of one case.
#[derive(Deserialize, Clone, Debug)]
pub struct CaseDigest {
    /// Part of the name of the full reference in the cache.
    pub key: String,
    /// SHA-256 of the bytes of each input.
    pub inputs: BTreeMap<String, String>,
    /// Each output.
    pub outputs: BTreeMap<String, OutputDigest>,
}

impl Case {
    /// The inputs, in the order of their names.
    ///
    /// # Errors
    /// The description of an input is wrong.
    pub fn inputs(&self) -> Result<BTreeMap<String, Data>, String> {
        let generate = |(name, spec): (&String, &String)| {
            let data = InputSpec::parse(spec, &self.dims)?.generate(&format!("{}/{name}", self.name))?;
            Ok((name.clone(), data))
        };
        self.model.inputs.iter().map(generate).collect()
    }

    /// The digest that git keeps.
    ///
    /// # Errors
    /// There is none; `tools/ort-reference` writes it.
    pub fn digest(&self) -> Result<CaseDigest, String> {
        #[derive(Deserialize)]
        struct Table {
            cases: BTreeMap<String, CaseDigest>,
        }
        let path = cache::tests_folder().join("references").join(format!("{}.json", self.model.name));
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut table: Table =
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        table.cases.remove(&self.name).ok_or_else(|| format!("{} has no case {}", path.display(), self.name))
    }

    /// Compares outputs with the full reference if the cache has it, else with the digest.
    ///
    /// # Errors
    /// The output that is missing or differs, and where.
    pub fn check(&self, outputs: &BTreeMap<String, Data>) -> Result<(), String> {
        let digest = self.digest()?;
        let full = cache::cache_folder().join("reference").join(format!(
            "{}-{}.npz",
            self.name.replace('/', "-"),
            digest.key
        ));
        let reference =
            if full.is_file() { Some(npz::read_npz(&full).map_err(|e| e.to_string())?) } else { None };
        for (name, expected) in &digest.outputs {
            let found = outputs.get(name).ok_or_else(|| format!("there is no output {name}"))?;
            let result = match reference.as_ref().and_then(|arrays| arrays.get(&format!("output:{name}"))) {
                Some(array) => compare_tensors(array, found, &self.model.tolerance())
                    .map_err(|difference| difference.to_string()),
                None => expected.check(found, &self.model.tolerance()),
            };
            result.map_err(|difference| format!("output {name}: {difference}"))?;
        }
        Ok(())
    }
}

impl OutputDigest {
    /// Compares shape, root mean square and samples.
    ///
    /// # Errors
    /// A message with the worst sample.
    pub fn check(&self, found: &Data, tolerance: &Tolerance) -> Result<(), String> {
        if found.shape() != self.shape {
            return Err(format!("expected the shape {:?}, found {:?}", self.shape, found.shape()));
        }
        let scale = root_mean_square(found);
        let allowed = tolerance.absolute + tolerance.scaled * self.root_mean_square;
        if found.dtype().is_float() && (scale - self.root_mean_square).abs() > allowed {
            let expected = self.root_mean_square;
            return Err(format!("expected a root mean square of {expected:e}, found {scale:e}"));
        }
        let last = self.samples.len().saturating_sub(1).max(1);
        for (k, &expected) in self.samples.iter().enumerate() {
            let index = k * (found.count() - 1) / last;
            let value = element(found, index).map(|scalar| scalar.as_f64()).unwrap_or(f64::NAN);
            let allowed =
                if found.dtype().is_float() { allowed + tolerance.relative * expected.abs() } else { 0.0 };
            // Written so that a NaN fails.
            let within = (value - expected).abs() <= allowed;
            if !within {
                return Err(format!("element {index}: expected {expected:e}, found {value:e}"));
            }
        }
        Ok(())
    }
}

/// SHA-256 of the bytes of a tensor, in hexadecimal.
pub fn sha256(data: &Data) -> String {
    Sha256::digest(data.bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inputs_are_those_of_the_references() {
        let mut compared = 0;
        for case in cases().unwrap() {
            let digest = case.digest().unwrap();
            for (name, data) in case.inputs().unwrap() {
                assert_eq!(sha256(&data), digest.inputs[&name], "{} {name}", case.name);
                compared += 1;
            }
        }
        assert!(compared > 80, "{compared}");
    }

    #[test]
    fn references_pass_their_own_digest() {
        for case in cases().unwrap() {
            let digest = case.digest().unwrap();
            let full = cache::cache_folder().join("reference").join(format!(
                "{}-{}.npz",
                case.name.replace('/', "-"),
                digest.key
            ));
            let Ok(arrays) = npz::read_npz(&full) else {
                eprintln!("skipped {}: the cache has no reference", case.name);
                continue;
            };
            for (name, expected) in &digest.outputs {
                let array = &arrays[&format!("output:{name}")];
                expected
                    .check(array, &Tolerance::of_model(1e-6))
                    .unwrap_or_else(|e| panic!("{} {name}: {e}", case.name));
            }
        }
    }

    #[test]
    fn a_digest_notices_one_wrong_sample_and_one_wrong_mean() {
        let digest = OutputDigest {
            dtype: "float32".to_owned(),
            shape: vec![5],
            root_mean_square: 1.0,
            samples: vec![1.0, 1.0, 1.0],
        };
        let check = |values: [f32; 5]| {
            digest.check(&Data::from_f32(&[5], &values).unwrap(), &Tolerance::of_model(1e-3))
        };
        assert!(check([1.0; 5]).is_ok());
        assert!(check([1.0, 1.0, 1.01, 1.0, 1.0]).is_err());
        assert!(check([1.0, 1.0, f32::NAN, 1.0, 1.0]).is_err());
        assert!(check([1.0, 7.0, 1.0, 7.0, 1.0]).unwrap_err().contains("root mean square"));
    }
}
