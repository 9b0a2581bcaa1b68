//! Deterministic inputs described by a line of text, the same bits as `tools/reference/inputs.py` makes.
//!
//! `TYPE[SHAPE] GENERATOR`, as `f32[n,3,64,w] image(0,1)`. A dimension is a number or a name; so is an argument.
//!
//! | generator | values |
//! |---|---|
//! | `constant(v)` | all `v` |
//! | `uniform(a,b)` | uniform in `[a, b)` |
//! | `integers(a,b)` | whole numbers from `a` to `b - 1` |
//! | `image(a,b)` | smooth bands along the last three axes with noise, in `[a, b]` |
//! | `imagenet` | the same in `[0, 1]`, less mean over deviation of the ImageNet channels on axis 1 |
//! | `imagenet_page` | dark strokes on a light page, normalised likewise; a text detector answers to it |
//! | `audio` | two tones and noise, in `[-1, 1]` |
//!
//! Noise is SplitMix64 (Steele, Lea, Flood 2014) seeded with the first eight bytes, little endian, of the SHA-256 of a
//! text, here `CASE/INPUT`. Everything is computed in `f64` with operations that IEEE 754 rounds exactly, then rounded to
//! the element type, so that two languages agree to the last bit.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use tcc_ir::convert::push_scalar;
use tcc_ir::data::Data;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::Scalar;

const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const IMAGENET_DEVIATION: [f64; 3] = [0.229, 0.224, 0.225];

/// Values of the names that a description uses.
pub type Dims = BTreeMap<String, u64>;

/// SplitMix64 as a source of numbers in `[0, 1)` with 53 bits.
#[derive(Clone, Debug)]
pub struct Noise(u64);

impl Noise {
    /// Noise that depends on nothing but `text`.
    pub fn seeded(text: &str) -> Noise {
        let digest = Sha256::digest(text.as_bytes());
        let mut seed = [0; 8];
        seed.copy_from_slice(&digest[..8]);
        Noise(u64::from_le_bytes(seed))
    }
}

impl Iterator for Noise {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        Some((z >> 11) as f64 * 2f64.powi(-53))
    }
}

/// A description that was read: type, shape, generator and its arguments.
#[derive(Clone, PartialEq, Debug)]
pub struct InputSpec {
    /// Element type.
    pub dtype: DType,
    /// Concrete shape.
    pub shape: Vec<usize>,
    /// Name of the generator.
    pub generator: String,
    /// Its arguments.
    pub arguments: Vec<f64>,
}

impl InputSpec {
    /// Reads `TYPE[SHAPE] GENERATOR`, with `dims` for the names in it.
    ///
    /// # Errors
    /// A message that names the part that cannot be read.
    pub fn parse(text: &str, dims: &Dims) -> Result<InputSpec, String> {
        let (dtype, shape, rest) = parse_type(text, dims)?;
        let rest = rest.trim();
        let (generator, arguments) = match rest.split_once('(') {
            None => (rest, ""),
            Some((name, tail)) => {
                (name, tail.strip_suffix(')').ok_or_else(|| format!("`{rest}` lacks a `)`"))?)
            }
        };
        let arguments = words(arguments).map(|word| number(word, dims)).collect::<Result<_, _>>()?;
        Ok(InputSpec { dtype, shape, generator: generator.to_owned(), arguments })
    }

    /// The tensor described.
    ///
    /// # Errors
    /// No generator has this name or takes these arguments.
    pub fn generate(&self, seed: &str) -> Result<Data, String> {
        let count = self.shape.iter().product();
        let noise: Vec<f64> = Noise::seeded(seed).take(count).collect();
        let values: Vec<f64> = match (&self.generator[..], &self.arguments[..]) {
            ("constant", &[value]) => vec![value; count],
            ("uniform", &[low, high]) => noise.iter().map(|u| low + (high - low) * u).collect(),
            ("integers", &[low, high]) => noise.iter().map(|u| low + ((high - low) * u).floor()).collect(),
            ("image", &[low, high]) => {
                picture(&noise, &self.shape).into_iter().map(|value| low + (high - low) * value).collect()
            }
            ("imagenet", &[]) => self.normalised(picture(&noise, &self.shape))?,
            ("imagenet_page", &[]) => self.normalised(page(&noise, &self.shape)?)?,
            ("audio", &[]) => noise.iter().enumerate().map(|(time, u)| tone(time as f64, *u)).collect(),
            (name, arguments) => {
                return Err(format!("no generator {name} takes {} arguments", arguments.len()));
            }
        };
        let mut bytes = Vec::with_capacity(count * self.dtype.size());
        for value in values {
            push_scalar(Scalar::of(self.dtype, value), &mut bytes);
        }
        Data::new(self.dtype, &self.shape, bytes.into()).map_err(|error| error.to_string())
    }

    fn normalised(&self, values: Vec<f64>) -> Result<Vec<f64>, String> {
        if self.shape.get(1) != Some(&3) {
            return Err(format!(
                "{} needs three channels on axis 1, the shape is {:?}",
                self.generator, self.shape
            ));
        }
        let plane: usize = self.shape[2..].iter().product();
        let channel = |index: usize| index / plane.max(1) % 3;
        let normalise =
            |(i, value): (usize, f64)| (value - IMAGENET_MEAN[channel(i)]) / IMAGENET_DEVIATION[channel(i)];
        Ok(values.into_iter().enumerate().map(normalise).collect())
    }
}

/// Reads `TYPE[SHAPE]` off the front of a text; the rest follows.
///
/// # Errors
/// A message that names the part that cannot be read.
pub fn parse_type<'a>(text: &'a str, dims: &Dims) -> Result<(DType, Vec<usize>, &'a str), String> {
    let (dtype, rest) = text.trim().split_once('[').ok_or_else(|| format!("`{text}` is not TYPE[SHAPE]"))?;
    let (shape, rest) = rest.split_once(']').ok_or_else(|| format!("`{text}` lacks a `]`"))?;
    let shape = words(shape)
        .map(|word| match number(word, dims)? {
            size if size >= 0.0 && size.fract() == 0.0 => Ok(size as usize),
            _ => Err(format!("`{word}` is no size")),
        })
        .collect::<Result<_, String>>()?;
    Ok((dtype_of(dtype)?, shape, rest))
}

/// The names that inputs use beside those of the IR.
fn dtype_of(text: &str) -> Result<DType, String> {
    match text {
        "bool" => Ok(DType::Bool),
        "u8" => Ok(DType::U8),
        "u16" => Ok(DType::U16),
        "u32" => Ok(DType::U32),
        "u64" => Ok(DType::U64),
        _ => text.parse(),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn number(word: &str, dims: &Dims) -> Result<f64, String> {
    match dims.get(word) {
        Some(&value) => Ok(value as f64),
        None => word.parse().map_err(|_| format!("`{word}` is neither a number nor a known dimension")),
    }
}

/// A triangle wave of period 1 between -1 and 1.
fn triangle(x: f64) -> f64 {
    4.0 * (x - (x + 0.5).floor()).abs() - 1.0
}

fn tone(time: f64, noise: f64) -> f64 {
    0.5 * triangle(time / 73.0) + 0.25 * triangle(time / 11.3) + 0.1 * (noise - 0.5)
}

fn picture(noise: &[f64], shape: &[usize]) -> Vec<f64> {
    let bands = [(0.2, 37.0), (0.15, 23.0), (0.1, 7.0)];
    let value = |(flat, noise): (usize, &f64)| {
        let (mut value, mut rest) = (0.5, flat);
        for (&size, (weight, period)) in shape.iter().rev().zip(bands) {
            value += weight * triangle((rest % size) as f64 / period);
            rest /= size;
        }
        value + 0.1 * (noise - 0.5)
    };
    noise.iter().enumerate().map(value).collect()
}

fn page(noise: &[f64], shape: &[usize]) -> Result<Vec<f64>, String> {
    let &[.., height, width] = shape else {
        return Err(format!("a page needs two axes, the shape is {shape:?}"));
    };
    let value = |flat: usize| {
        let (plane, row, column) = (flat / (height * width), flat / width % height, flat % width);
        let ink = noise[(plane * height + row / 5 * 5) * width + column / 3 * 3] < 0.5;
        let line = (10..30).contains(&(row % 40)) && column % 15 < 12;
        if line && ink { 0.05 } else { 0.95 }
    };
    Ok((0..noise.len()).map(value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generate(text: &str) -> Data {
        InputSpec::parse(text, &Dims::from([("n".to_owned(), 2)])).unwrap().generate("seed").unwrap()
    }

    #[test]
    fn the_same_text_gives_the_same_bits() {
        assert_eq!(generate("f32[n,3,8,9] image(0,1)"), generate("f32[2,3,8,9] image(0,1)"));
        assert_eq!(generate("i64[] constant(n)"), Data::from_i64(&[], &[2]).unwrap());
        assert_eq!(generate("f32[0,n] uniform(0,1)").count(), 0);
    }

    #[test]
    fn values_stay_in_their_range() {
        let between = |text, low, high| {
            let data = generate(text);
            let values = data.to_f32().unwrap();
            assert!(values.iter().all(|v| (low..=high).contains(v)), "{text}");
        };
        between("f32[500] uniform(-2,3)", -2.0, 3.0);
        between("f32[n,3,40,40] image(-1,1)", -1.0, 1.0);
        between("f32[n,500] audio", -1.0, 1.0);
        let tokens = generate("i64[500] integers(3,7)").to_integers().unwrap();
        assert!((3..7).all(|token| tokens.contains(&token)) && tokens.iter().all(|t| (3..7).contains(t)));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error =
            |text| InputSpec::parse(text, &Dims::new()).and_then(|spec| spec.generate("")).unwrap_err();
        assert!(error("f32[k] audio").contains("`k`"));
        assert!(error("f31[2] audio").contains("f31"));
        assert!(error("f32[2] hum").contains("hum"));
        assert!(error("f32[2] uniform(1)").contains("1 arguments"));
        assert!(error("f32[1,4,2,2] imagenet").contains("three channels"));
        assert!(error("f32[1.5] audio").contains("1.5"));
    }
}
