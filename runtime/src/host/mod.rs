//! Functions that are no loop nest or whose result has a shape that depends on data: plain Rust, one topic a file.
//!
//! A program names them in `Host` steps. On load, the registry builds each from its attributes and the types of its
//! tensors, and refuses what the function does not accept; while the program runs it is called through a
//! [`HostCall`]. Functions follow ONNX exactly, with attribute names as ONNX has them.

mod call;
mod cast;
mod compress;
mod deformable_convolution;
mod determinant;
mod labels;
mod ngrams;
mod non_max_suppression;
mod nonzero;
mod normalizer;
mod numeric;
pub mod philox;
mod random;
mod range;
mod regular_expression;
mod sort;
mod strings;
mod trees;
mod unique;

pub use call::{HostCall, HostScratch};

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::manifest::{HostStep, Manifest, TensorId};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A host function with its attributes, built once for each step.
pub trait HostFunction: Send + Sync {
    /// Reads the inputs and writes the outputs of the call. Allocates nothing once the scratch memory has grown.
    fn call(&self, call: &mut HostCall<'_>) -> Result<()>;
}

/// Makes a host function, or says why the step is not acceptable.
pub type Build = fn(&Signature<'_>) -> Result<Box<dyn HostFunction>, String>;

/// Element type and rank of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Number of dimensions.
    pub rank: usize,
}

/// What is known of a step when it is built.
pub struct Signature<'a> {
    attributes: &'a Map<String, Value>,
    /// Types of the inputs, `None` for an absent one.
    pub inputs: Vec<Option<TensorType>>,
    /// Types of the outputs.
    pub outputs: Vec<TensorType>,
}

impl Signature<'_> {
    /// Checks the numbers of tensors and that no attribute is unknown. The attribute `absent`, which lists optional inputs
    /// that are left out, repeats what the step says and is always allowed.
    pub fn expect(
        &self,
        inputs: std::ops::RangeInclusive<usize>,
        outputs: std::ops::RangeInclusive<usize>,
        attributes: &[&str],
    ) -> Result<(), String> {
        if !inputs.contains(&self.inputs.len()) {
            return Err(format!("takes {inputs:?} inputs, found {}", self.inputs.len()));
        }
        if !outputs.contains(&self.outputs.len()) {
            return Err(format!("has {outputs:?} outputs, found {}", self.outputs.len()));
        }
        match self.attributes.keys().find(|name| *name != "absent" && !attributes.contains(&name.as_str())) {
            Some(name) => Err(format!("attribute `{name}` is not known")),
            None => Ok(()),
        }
    }

    /// Type of an input that must be there.
    pub fn input(&self, index: usize) -> Result<TensorType, String> {
        self.inputs.get(index).copied().flatten().ok_or_else(|| format!("input {index} is missing"))
    }

    /// Type of an output that must be there.
    pub fn output(&self, index: usize) -> Result<TensorType, String> {
        self.outputs.get(index).copied().ok_or_else(|| format!("output {index} is missing"))
    }

    /// Checks that an output, where there is one, has this type and, where given, rank.
    pub fn expect_output(&self, index: usize, dtype: DType, rank: Option<usize>) -> Result<(), String> {
        match self.outputs.get(index) {
            Some(found) if found.dtype != dtype || rank.is_some_and(|rank| rank != found.rank) => {
                Err(format!("output {index} must be {dtype} of rank {rank:?}, found {found:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Checks that an input, where there is one, has this type.
    pub fn expect_input(&self, index: usize, dtype: DType) -> Result<(), String> {
        match self.inputs.get(index).copied().flatten() {
            Some(found) if found.dtype != dtype => {
                Err(format!("input {index} must be {dtype}, found {}", found.dtype))
            }
            _ => Ok(()),
        }
    }

    /// An integer attribute, or its default.
    pub fn integer(&self, name: &str, default: i64) -> Result<i64, String> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(value) => value.as_i64().ok_or_else(|| format!("attribute `{name}` must be an integer")),
        }
    }

    /// A flag: absent, `true`, `false`, 0 or 1.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, String> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) if value.as_i64() == Some(0) => Ok(false),
            Some(value) if value.as_i64() == Some(1) => Ok(true),
            Some(_) => Err(format!("attribute `{name}` must be true or false")),
        }
    }

    /// A float attribute, or its default.
    pub fn float(&self, name: &str, default: f64) -> Result<f64, String> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| format!("attribute `{name}` must be a number")),
        }
    }

    /// A string.
    pub fn string(&self, name: &str) -> Result<String, String> {
        let value = self.attributes.get(name).and_then(Value::as_str);
        value.map(str::to_owned).ok_or_else(|| format!("attribute `{name}` must be a string"))
    }

    /// A list of strings.
    pub fn strings(&self, name: &str) -> Result<Vec<String>, String> {
        let fail = || format!("attribute `{name}` must be a list of strings");
        let list = self.attributes.get(name).and_then(Value::as_array).ok_or_else(fail)?;
        list.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(fail)).collect()
    }

    /// The elements of a list, or of a tensor, which is an object of `shape` and `data`.
    fn list(&self, name: &str) -> Result<&[Value], String> {
        let value = self.attributes.get(name).ok_or_else(|| format!("attribute `{name}` is missing"))?;
        let list = value.get("data").unwrap_or(value).as_array();
        list.map(Vec::as_slice).ok_or_else(|| format!("attribute `{name}` must be a list"))
    }

    /// A list or tensor of integers.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>, String> {
        let integer = |value: &Value| value.as_i64().or_else(|| value.as_u64().map(|value| value as i64));
        let fail = || format!("attribute `{name}` must be a list of integers");
        self.list(name)?.iter().map(|value| integer(value).ok_or_else(fail)).collect()
    }

    /// A list or tensor of floats; those that JSON lacks are text.
    pub fn floats(&self, name: &str) -> Result<Vec<f64>, String> {
        let float = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
        let fail = || format!("attribute `{name}` must be a list of numbers");
        self.list(name)?.iter().map(|value| float(value).ok_or_else(fail)).collect()
    }

    /// A list or tensor of strings.
    pub fn strings_or_tensor(&self, name: &str) -> Result<Vec<String>, String> {
        let fail = || format!("attribute `{name}` must be a list of strings");
        self.list(name)?.iter().map(|value| value.as_str().map(str::to_owned).ok_or_else(fail)).collect()
    }

    /// The first of two attributes that is there.
    pub fn either<T>(
        &self,
        read: impl Fn(&Self, &str) -> Result<T, String>,
        names: [&str; 2],
    ) -> Result<T, String> {
        read(self, if self.has(names[0]) { names[0] } else { names[1] })
    }

    /// Whether the attribute is there.
    pub fn has(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }

    /// An axis attribute in `-rank..rank`, made positive.
    pub fn axis(&self, name: &str, default: i64, rank: usize) -> Result<usize, String> {
        let axis = self.integer(name, default)?;
        let positive = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(positive)
            .ok()
            .filter(|axis| *axis < rank)
            .ok_or_else(|| format!("attribute `{name}` is {axis}, outside rank {rank}"))
    }
}

/// Host functions by name.
#[derive(Clone)]
pub struct Registry {
    functions: BTreeMap<&'static str, Build>,
}

impl Registry {
    /// No functions.
    pub fn empty() -> Self {
        Registry { functions: BTreeMap::new() }
    }

    /// The functions of this crate.
    pub fn builtin() -> Self {
        let mut registry = Registry::empty();
        for (name, build) in BUILTIN {
            registry.register(name, *build);
        }
        registry
    }

    /// Adds a function, in place of one of the same name.
    pub fn register(&mut self, name: &'static str, build: Build) {
        self.functions.insert(name, build);
    }

    /// Names of all functions, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.functions.keys().copied()
    }

    pub(crate) fn build(
        &self,
        manifest: &Manifest,
        field: &str,
        step: &HostStep,
    ) -> Result<Box<dyn HostFunction>> {
        let Some(build) = self.functions.get(step.function.as_str()) else {
            return Err(Error::UnknownHostFunction { field: field.into(), function: step.function.clone() });
        };
        let kind = |id: TensorId| {
            let tensor = &manifest.tensors[id as usize];
            TensorType { dtype: tensor.dtype, rank: tensor.shape.len() }
        };
        let signature = Signature {
            attributes: &step.attributes,
            inputs: step.inputs.iter().map(|id| id.map(kind)).collect(),
            outputs: step.outputs.iter().map(|&id| kind(id)).collect(),
        };
        build(&signature).map_err(|reason| Error::HostStep {
            field: field.into(),
            function: step.function.clone(),
            reason,
        })
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Default for Registry {
    fn default() -> Self {
        Registry::builtin()
    }
}

const BUILTIN: &[(&str, Build)] = &[
    // Under the names that the tensor IR gives to ONNX operators, and which take the attributes of these as they are.
    ("onnx.Cast", cast::build),
    ("onnx.Compress", compress::build),
    ("onnx.DeformConv", deformable_convolution::build),
    ("onnx.Det", determinant::build),
    ("onnx.Equal", strings::build_equal),
    ("onnx.LabelEncoder", labels::build),
    ("onnx.NonMaxSuppression", non_max_suppression::build),
    ("onnx.NonZero", nonzero::build),
    ("onnx.RegexFullMatch", regular_expression::build),
    ("onnx.StringConcat", strings::build_concat),
    ("onnx.StringNormalizer", normalizer::build),
    ("onnx.StringSplit", strings::build_split),
    ("onnx.TfIdfVectorizer", ngrams::build),
    ("onnx.TopK", sort::build_top_k),
    ("onnx.TreeEnsemble", trees::build),
    ("onnx.Unique", unique::build),
    ("argsort", sort::build_argsort),
    ("bernoulli", random::build_bernoulli),
    ("compress", compress::build),
    ("multinomial", random::build_multinomial),
    ("non_max_suppression", non_max_suppression::build),
    ("nonzero", nonzero::build),
    ("random_normal", random::build_normal),
    ("random_uniform", random::build_uniform),
    ("range", range::build),
    ("shape", strings::build_shape),
    ("sort", sort::build_sort),
    ("string_concat", strings::build_concat),
    ("string_constant", strings::build_constant),
    ("string_equal", strings::build_equal),
    ("string_split", strings::build_split),
    ("top_k", sort::build_top_k),
    ("unique", unique::build),
];
