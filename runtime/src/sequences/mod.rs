//! Sequences of tokens over a paged key-value cache.
//!
//! A cache of `slots` slots is cut into pages; a sequence owns the pages of its positions, alone or together with others.
//! [`Sequences`] knows which, and makes the indices that a model function takes for a [`Batch`] of tokens. It never
//! touches the cache itself: where a page has to be copied it says so, and [`State::copy_part`](crate::State::copy_part)
//! does it.
//!
//! The life of a token: [`extend`](Sequences::extend) gives it a position and a slot, a run writes its keys and values,
//! [`commit`](Sequences::commit) says so. Full pages of committed tokens are found by their contents when a new sequence
//! starts with the same tokens ([`create_with`](Sequences::create_with)).

mod pages;
#[cfg(test)]
mod tests;

use pages::{Digest, Pages, digest};

/// Names a sequence; never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(u64);

/// Why an operation on sequences is refused. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SequenceError {
    /// The sequence was dropped, or belongs to others.
    #[error("the sequence does not exist")]
    Unknown,
    /// The cache is full.
    #[error(
        "the cache is full: {needed} pages of {page} tokens are needed, {free} are free; end a sequence or make a larger cache"
    )]
    Full {
        /// Pages that the operation takes.
        needed: usize,
        /// Pages that there are.
        free: usize,
        /// Tokens of a page.
        page: usize,
    },
    /// More tokens than a sequence may have.
    #[error("the context of {context} tokens is full")]
    Context {
        /// Most tokens of a sequence.
        context: usize,
    },
    /// A length or range behind the end of the sequence.
    #[error("the sequence has {length} tokens, {asked} were asked for")]
    Length {
        /// Tokens of the sequence.
        length: usize,
        /// What was asked for.
        asked: usize,
    },
}

/// Result of operations on sequences.
pub type Result<T> = std::result::Result<T, SequenceError>;

/// A page whose contents must be copied before the next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCopy {
    /// The page that has them.
    pub from: usize,
    /// The page that gets them.
    pub to: usize,
}

#[derive(Clone, Debug, Default)]
struct Sequence {
    tokens: Vec<u32>,
    pages: Vec<u32>,
    /// Tokens whose keys and values are in the cache.
    committed: usize,
    /// Digests of the full pages of committed tokens.
    digests: Vec<Digest>,
}

/// Which logits of some tokens are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None.
    None,
    /// Those behind the last token.
    Last,
    /// Those behind every token.
    All,
}

/// What a batch has of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The sequence.
    pub sequence: SequenceId,
    /// The position of the first token; all tokens from there on belong to the batch.
    pub start: usize,
    /// Which logits are wanted.
    pub wanted: Wanted,
}

/// The indices of a batch of tokens, in the form that a model function takes. Reused from run to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// `[n]`: the tokens.
    pub tokens: Vec<i64>,
    /// `[n]`: the position of each token in its sequence.
    pub positions: Vec<i64>,
    /// `[n]`: the cache slot of each token.
    pub slots: Vec<i64>,
    /// `[n]`: the row of the block table of each token.
    pub rows: Vec<i64>,
    /// `[s, p]`: the pages of each sequence; columns behind them are not read, and 0 is a page in any case.
    pub block_table: Vec<i64>,
    /// Extents `s` and `p` of the block table.
    pub table_shape: [usize; 2],
    /// `[o]`: which of the tokens' logits are wanted.
    pub outputs: Vec<i64>,
}

/// All sequences over one cache.
#[derive(Debug)]
pub struct Sequences {
    page: usize,
    context: usize,
    pages: Pages,
    /// In the order of their creation.
    live: std::collections::BTreeMap<SequenceId, Sequence>,
    next: u64,
}

impl Sequences {
    /// No sequences over a cache of `slots` slots in pages of `page`; slots that fill no page are not used. A sequence has
    /// at most `context` tokens.
    pub fn new(slots: usize, page: usize, context: usize) -> Sequences {
        let page = page.max(1);
        Sequences { page, context, pages: Pages::new(slots / page), live: Default::default(), next: 0 }
    }

    /// Tokens of a page.
    pub fn page(&self) -> usize {
        self.page
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.pages.count()
    }

    /// Pages that no sequence uses.
    pub fn free_pages(&self) -> usize {
        self.pages.free()
    }

    /// An empty sequence.
    pub fn create(&mut self) -> SequenceId {
        self.next += 1;
        let id = SequenceId(self.next);
        self.live.insert(id, Sequence::default());
        id
    }

    /// A sequence that starts with these tokens, as far as full pages of them are in the cache: returns how many tokens
    /// it has. The last token is always left out, because what follows it has to be computed.
    pub fn create_with(&mut self, tokens: &[u32]) -> (SequenceId, usize) {
        let id = self.create();
        let mut sequence = Sequence::default();
        for block in tokens[..tokens.len().saturating_sub(1)].chunks_exact(self.page) {
            let digest = digest(sequence.digests.last(), block);
            let Some(page) = self.pages.find(&digest) else { break };
            self.pages.share(page);
            sequence.pages.push(page);
            sequence.digests.push(digest);
            sequence.tokens.extend_from_slice(block);
        }
        let length = sequence.tokens.len();
        sequence.committed = length;
        self.live.insert(id, sequence);
        (id, length)
    }

    fn get(&self, id: SequenceId) -> Result<&Sequence> {
        self.live.get(&id).ok_or(SequenceError::Unknown)
    }

    /// The tokens of a sequence.
    pub fn tokens(&self, id: SequenceId) -> Result<&[u32]> {
        Ok(&self.get(id)?.tokens)
    }

    /// Tokens whose keys and values are in the cache.
    pub fn committed(&self, id: SequenceId) -> Result<usize> {
        Ok(self.get(id)?.committed)
    }

    /// Sequences in the order of their creation.
    pub fn ids(&self) -> impl Iterator<Item = SequenceId> {
        self.live.keys().copied()
    }

    /// Appends tokens, with slots for them. Where the last page is shared with another sequence, the tokens go to a
    /// copy of it: the copy returned must be made before the next run.
    pub fn extend(&mut self, id: SequenceId, tokens: &[u32]) -> Result<Option<PageCopy>> {
        let page = self.page;
        let sequence = self.live.get_mut(&id).ok_or(SequenceError::Unknown)?;
        if tokens.is_empty() {
            return Ok(None);
        }
        if self.context.saturating_sub(sequence.tokens.len()) < tokens.len() {
            return Err(SequenceError::Context { context: self.context });
        }
        let begun = sequence.tokens.len() % page != 0;
        let shared = sequence.pages.last().copied().filter(|last| begun && self.pages.users(*last) > 1);
        let total = (sequence.tokens.len() + tokens.len()).div_ceil(page);
        let needed = total - sequence.pages.len() + usize::from(shared.is_some());
        if needed > self.pages.free() {
            return Err(SequenceError::Full { needed, free: self.pages.free(), page });
        }
        let mut copy = None;
        if let (Some(last), Some(own)) = (shared, shared.and_then(|_| self.pages.take())) {
            sequence.pages.pop();
            sequence.pages.push(own);
            self.pages.give_back(last);
            copy = Some(PageCopy { from: last as usize, to: own as usize });
        } else if let Some(last) = sequence.pages.last().filter(|_| begun) {
            // Its known contents end here: the page was full before a truncation.
            self.pages.forget(*last);
        }
        while sequence.pages.len() < total {
            sequence.pages.extend(self.pages.take());
        }
        sequence.tokens.extend_from_slice(tokens);
        Ok(copy)
    }

    /// Records that the keys and values of the first `length` tokens are in the cache.
    pub fn commit(&mut self, id: SequenceId, length: usize) -> Result<()> {
        let page = self.page;
        let sequence = self.live.get_mut(&id).ok_or(SequenceError::Unknown)?;
        if length > sequence.tokens.len() {
            return Err(SequenceError::Length { length: sequence.tokens.len(), asked: length });
        }
        sequence.committed = sequence.committed.max(length);
        while (sequence.digests.len() + 1) * page <= sequence.committed {
            let number = sequence.digests.len();
            let next = digest(sequence.digests.last(), &sequence.tokens[number * page..(number + 1) * page]);
            self.pages.learn(sequence.pages[number], next);
            sequence.digests.push(next);
        }
        Ok(())
    }

    /// Forgets all tokens behind the first `length`.
    pub fn truncate(&mut self, id: SequenceId, length: usize) -> Result<()> {
        let page = self.page;
        let sequence = self.live.get_mut(&id).ok_or(SequenceError::Unknown)?;
        if length > sequence.tokens.len() {
            return Err(SequenceError::Length { length: sequence.tokens.len(), asked: length });
        }
        sequence.tokens.truncate(length);
        sequence.committed = sequence.committed.min(length);
        sequence.digests.truncate(length / page);
        for page in sequence.pages.drain(length.div_ceil(page)..) {
            self.pages.give_back(page);
        }
        Ok(())
    }

    /// Another sequence of the same tokens, over the same pages until one of the two is extended.
    pub fn fork(&mut self, id: SequenceId) -> Result<SequenceId> {
        let copy = self.get(id)?.clone();
        copy.pages.iter().for_each(|page| self.pages.share(*page));
        let id = self.create();
        self.live.insert(id, copy);
        Ok(id)
    }

    /// Ends a sequence; pages of its own become free, those whose contents are known last.
    pub fn remove(&mut self, id: SequenceId) -> Result<()> {
        let sequence = self.live.remove(&id).ok_or(SequenceError::Unknown)?;
        // The end of a prefix goes before its start, so that what remains is still a prefix.
        sequence.pages.iter().rev().for_each(|page| self.pages.give_back(*page));
        Ok(())
    }

    /// The indices of a batch. Replaces the contents of `batch`.
    pub fn fill_batch(&self, parts: &[Part], batch: &mut Batch) -> Result<()> {
        let Batch { tokens, positions, slots, rows, block_table, table_shape, outputs } = batch;
        for list in [&mut *tokens, &mut *positions, &mut *slots, &mut *rows, &mut *block_table, &mut *outputs]
        {
            list.clear();
        }
        let mut width = 1;
        for part in parts {
            let sequence = self.get(part.sequence)?;
            if part.start > sequence.tokens.len() {
                return Err(SequenceError::Length { length: sequence.tokens.len(), asked: part.start });
            }
            width = width.max(sequence.pages.len());
        }
        // A table that grows by doubling changes shape seldom, and a new shape costs a session new memory.
        let columns = width.next_power_of_two().min(self.context.div_ceil(self.page)).max(width);
        *table_shape = [parts.len(), columns];
        for (row, part) in parts.iter().enumerate() {
            let sequence = self.get(part.sequence)?;
            let before = tokens.len() as i64;
            for (position, token) in sequence.tokens.iter().enumerate().skip(part.start) {
                let page = sequence.pages[position / self.page] as usize;
                tokens.push(i64::from(*token));
                positions.push(position as i64);
                slots.push((page * self.page + position % self.page) as i64);
                rows.push(row as i64);
            }
            let after = tokens.len() as i64;
            match part.wanted {
                Wanted::None => {}
                Wanted::Last => outputs.extend((before..after).last()),
                Wanted::All => outputs.extend(before..after),
            }
            block_table.extend(sequence.pages.iter().map(|page| i64::from(*page)));
            block_table.resize((row + 1) * columns, 0);
        }
        Ok(())
    }
}
