//! A stand-in for a model: its logits follow from the tokens that it finds in its cache, so that a wrong slot, page or
//! position changes the text.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tcc_runtime::{Batch, PageCopy};

use super::step::{Step, StepLimits};
use super::tokenizer::tests::byte_level;
use super::tokenizer::{Tokenizer, TokenizerSource};
use super::{GenerateError, Generator};

/// The model.
pub struct Toy {
    limits: StepLimits,
    cache: Vec<Option<i64>>,
    tokens: Arc<AtomicUsize>,
}

/// The logits behind a text.
pub fn logits_behind(text: &[i64], vocabulary: usize) -> Vec<f32> {
    let hash = text
        .iter()
        .fold(1u64, |hash, token| hash.wrapping_mul(0x100_0000_01B3).wrapping_add(*token as u64 + 1));
    let of = |token: u64| {
        let mixed = (hash ^ token.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed >> 40) as f32 / (1 << 22) as f32
    };
    (0..vocabulary as u64).map(of).collect()
}

impl Step for Toy {
    fn limits(&self) -> StepLimits {
        self.limits
    }

    fn run(&mut self, batch: &Batch, logits: &mut Vec<f32>) -> Result<(), GenerateError> {
        let fail = |reason: String| Err(GenerateError::Step(reason));
        let count = batch.tokens.len();
        self.tokens.fetch_add(count, Ordering::Relaxed);
        if [&batch.positions, &batch.slots, &batch.rows].iter().any(|list| list.len() != count) {
            return fail("lists of unequal lengths".into());
        }
        let [sequences, pages] = batch.table_shape;
        if batch.block_table.len() != sequences * pages {
            return fail("a table of another size".into());
        }
        for (token, slot) in batch.tokens.iter().zip(&batch.slots) {
            self.cache[*slot as usize] = Some(*token);
        }
        logits.clear();
        for output in &batch.outputs {
            let (row, position) = (batch.rows[*output as usize], batch.positions[*output as usize]);
            let table = &batch.block_table[row as usize * pages..][..pages];
            let page = self.limits.page;
            let slot = |at: usize| table[at / page] as usize * page + at % page;
            let text: Option<Vec<i64>> = (0..=position as usize).map(|at| self.cache[slot(at)]).collect();
            match text {
                Some(text) => logits.extend(logits_behind(&text, self.limits.vocabulary)),
                None => return fail(format!("a position below {position} was never written")),
            }
        }
        Ok(())
    }

    fn copy_page(&mut self, copy: PageCopy) -> Result<(), GenerateError> {
        let page = self.limits.page;
        self.cache.copy_within(copy.from * page..(copy.from + 1) * page, copy.to * page);
        Ok(())
    }
}

/// The logits of the toy are a few more than the tokenizer has tokens, as with padded vocabularies.
pub const PADDING: usize = 3;

/// A generator over a toy, and the number of tokens that it has run.
pub fn generator(slots: usize, page: usize, context: usize) -> (Generator, Arc<AtomicUsize>) {
    let tokenizer = Tokenizer::new(&TokenizerSource::Vocabulary(byte_level())).expect("a good vocabulary");
    let limits = StepLimits {
        vocabulary: tokenizer.size() + PADDING,
        tokens: 8,
        few_tokens: 8,
        sequences: 4,
        slots,
        page,
        context,
    };
    let tokens = Arc::new(AtomicUsize::new(0));
    let toy = Toy { limits, cache: vec![None; slots], tokens: Arc::clone(&tokens) };
    (Generator::new(tokenizer, None, Box::new(toy)).expect("it fits"), tokens)
}
