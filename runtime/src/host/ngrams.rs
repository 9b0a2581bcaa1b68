//! ONNX `TfIdfVectorizer`: how often the n-grams of a pool occur in rows of words.

use super::{HostCall, HostFunction, Signature};
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{DataRef, TensorRef};
use std::collections::HashMap;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Frequency,
    Inverse,
    Both,
}

/// An n-gram of the pool is a path from the root; words are numbered.
struct Vectorizer {
    texts: HashMap<String, usize>,
    integers: HashMap<i64, usize>,
    /// The node that a word leads to from a node.
    edges: HashMap<(usize, usize), usize>,
    /// Column and weight of the n-gram that ends at a node.
    ends: HashMap<usize, (usize, f32)>,
    columns: usize,
    shortest: usize,
    longest: usize,
    skips: usize,
    mode: Mode,
}

const KNOWN: &[&str] = &[
    "max_gram_length",
    "max_skip_count",
    "min_gram_length",
    "mode",
    "ngram_counts",
    "ngram_indexes",
    "pool_int64s",
    "pool_strings",
    "weights",
];

/// The input is `[words]` or `[rows, words]`, the output has a column for each n-gram in place of the words.
pub(super) fn build(signature: &Signature<'_>) -> Result<Box<dyn HostFunction>, String> {
    signature.expect(1..=1, 1..=1, KNOWN)?;
    let input = signature.input(0)?;
    if !(1..=2).contains(&input.rank) || !matches!(input.dtype, DType::String | DType::I32 | DType::I64) {
        return Err(format!("the input is {} of rank {}", input.dtype, input.rank));
    }
    signature.expect_output(0, DType::F32, Some(input.rank))?;
    let length = |name| {
        let value = signature.integer(name, 0)?;
        usize::try_from(value).map_err(|_| format!("attribute `{name}` is {value}"))
    };
    let mode = match signature.string("mode")?.as_str() {
        "TF" => Mode::Frequency,
        "IDF" => Mode::Inverse,
        "TFIDF" => Mode::Both,
        other => return Err(format!("attribute `mode` is `{other}`")),
    };
    let mut vectorizer = Vectorizer {
        texts: HashMap::new(),
        integers: HashMap::new(),
        edges: HashMap::new(),
        ends: HashMap::new(),
        columns: 0,
        shortest: length("min_gram_length")?.max(1),
        longest: length("max_gram_length")?,
        skips: length("max_skip_count")?,
        mode,
    };
    vectorizer.read_pool(signature)?;
    Ok(Box::new(vectorizer))
}

impl Vectorizer {
    fn read_pool(&mut self, signature: &Signature<'_>) -> Result<(), String> {
        let pool: Vec<usize> = if signature.has("pool_strings") {
            signature.strings("pool_strings")?.into_iter().map(|word| number(&mut self.texts, word)).collect()
        } else {
            signature
                .integers("pool_int64s")?
                .into_iter()
                .map(|word| number(&mut self.integers, word))
                .collect()
        };
        let sizes = |name| -> Result<Vec<usize>, String> {
            let list = signature.integers(name)?;
            list.into_iter()
                .map(|value| usize::try_from(value).map_err(|_| format!("attribute `{name}` has {value}")))
                .collect()
        };
        let (starts, columns) = (sizes("ngram_counts")?, sizes("ngram_indexes")?);
        let weights = if signature.has("weights") { Some(signature.floats("weights")?) } else { None };
        if weights.as_ref().is_some_and(|weights| weights.len() != columns.len()) {
            return Err("attribute `weights` does not go with `ngram_indexes`".into());
        }
        self.columns = columns.iter().max().map_or(0, |last| last.saturating_add(1));
        let (mut nodes, mut ngram) = (1, 0);
        for (index, &start) in starts.iter().enumerate() {
            let end = starts.get(index + 1).copied().unwrap_or(pool.len());
            let part = pool.get(start..end).ok_or("attribute `ngram_counts` does not fit the pool")?;
            for words in part.chunks_exact(index + 1) {
                let mut node = 0;
                for &word in words {
                    node = *self.edges.entry((node, word)).or_insert_with(|| {
                        nodes += 1;
                        nodes - 1
                    });
                }
                let column = *columns.get(ngram).ok_or("attribute `ngram_indexes` is too short")?;
                let weight = weights.as_ref().map_or(1.0, |weights| weights[ngram] as f32);
                self.ends.insert(node, (column, weight));
                ngram += 1;
            }
        }
        Ok(())
    }

    /// The number of a word of the pool.
    fn word(&self, call: &HostCall<'_>, input: &TensorRef<'_>, index: usize) -> Result<Option<usize>> {
        Ok(match input.data() {
            DataRef::Strings(texts) => self.texts.get(&texts[index]).copied(),
            DataRef::Bytes(_) => self.integers.get(&call.integer_element(input, index)?).copied(),
        })
    }

    /// Adds the n-grams of a row to its counts.
    fn count(&self, words: &[usize], counts: &mut [f32]) {
        for skip in 0..=self.skips.min(words.len()) {
            for start in 0..words.len() {
                let mut node = 0;
                for (taken, word) in words[start..].iter().step_by(skip + 1).take(self.longest).enumerate() {
                    let Some(&next) = self.edges.get(&(node, *word)) else { break };
                    node = next;
                    // Single words have no gaps, so they count once.
                    let counted = taken + 1 >= self.shortest && (taken > 0 || skip == 0);
                    if let (true, Some(&(column, weight))) = (counted, self.ends.get(&node)) {
                        match self.mode {
                            Mode::Frequency => counts[column] += 1.0,
                            Mode::Inverse => counts[column] = weight,
                            Mode::Both => counts[column] += weight,
                        }
                    }
                }
            }
        }
    }
}

/// The number of a word, a new one for a new word.
fn number<K: std::hash::Hash + Eq>(numbers: &mut HashMap<K, usize>, word: K) -> usize {
    let next = numbers.len();
    *numbers.entry(word).or_insert(next)
}

impl HostFunction for Vectorizer {
    fn call(&self, call: &mut HostCall<'_>) -> Result<()> {
        let input = call.input(0)?;
        let (rows, length) = match *input.shape() {
            [rows, length] => (rows, length),
            ref shape => (1, shape.first().copied().unwrap_or(0)),
        };
        let with_rows = [rows, self.columns];
        let shape = if input.shape().len() == 2 { &with_rows[..] } else { &with_rows[1..] };
        let counts = call.output::<f32>(0, shape)?;
        counts.fill(0.0);
        let mut words = std::mem::take(&mut call.scratch().indices);
        for row in 0..rows {
            words.clear();
            for index in row * length..(row + 1) * length {
                // A word that is not in the pool is in no n-gram of it.
                words.push(self.word(call, &input, index)?.unwrap_or(usize::MAX));
            }
            self.count(&words, &mut counts[row * self.columns..][..self.columns]);
        }
        call.scratch().indices = words;
        Ok(())
    }
}
