//! Pages of cache slots with reference counts, and the index of those whose contents are known.

use std::collections::{HashMap, VecDeque};

/// What identifies the contents of a full page: its tokens and all tokens before it.
pub(super) type Digest = [u8; 32];

/// The digest of a page of tokens behind the pages that `before` stands for.
pub(super) fn digest(before: Option<&Digest>, tokens: &[u32]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before.map_or(&[][..], |digest| &digest[..]));
    tokens.iter().for_each(|token| {
        hasher.update(&token.to_le_bytes());
    });
    *hasher.finalize().as_bytes()
}

/// The pages of a cache.
///
/// A page that nobody uses and whose contents are known stays in the index until its memory is needed; of those the one
/// given back first is taken first.
#[derive(Debug)]
pub(super) struct Pages {
    references: Vec<u32>,
    /// Unused pages: without known contents at the front, others in the order in which they were given back.
    free: VecDeque<u32>,
    digests: Vec<Option<Digest>>,
    known: HashMap<Digest, u32>,
}

impl Pages {
    pub fn new(count: usize) -> Pages {
        Pages {
            references: vec![0; count],
            free: (0..count as u32).collect(),
            digests: vec![None; count],
            known: HashMap::new(),
        }
    }

    /// Pages that nobody uses.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    pub fn count(&self) -> usize {
        self.references.len()
    }

    /// A page of one's own; what it held is forgotten. The caller knows that one is free.
    pub fn take(&mut self) -> Option<u32> {
        let page = self.free.pop_front()?;
        if let Some(digest) = self.digests[page as usize].take() {
            self.known.remove(&digest);
        }
        self.references[page as usize] = 1;
        Some(page)
    }

    /// One more user of a page.
    pub fn share(&mut self, page: u32) {
        let references = &mut self.references[page as usize];
        if *references == 0 {
            self.free.retain(|free| *free != page);
        }
        *references += 1;
    }

    /// One user less.
    pub fn give_back(&mut self, page: u32) {
        let references = &mut self.references[page as usize];
        *references = references.saturating_sub(1);
        if *references == 0 {
            match self.digests[page as usize] {
                Some(_) => self.free.push_back(page),
                None => self.free.push_front(page),
            }
        }
    }

    pub fn users(&self, page: u32) -> u32 {
        self.references[page as usize]
    }

    /// Records what a full page holds; the first page of equal contents stays the one that is found.
    pub fn learn(&mut self, page: u32, digest: Digest) {
        if self.digests[page as usize].is_none() && !self.known.contains_key(&digest) {
            self.digests[page as usize] = Some(digest);
            self.known.insert(digest, page);
        }
    }

    /// What a page is known to hold is about to change.
    pub fn forget(&mut self, page: u32) {
        if let Some(digest) = self.digests[page as usize].take() {
            self.known.remove(&digest);
        }
    }

    /// A page with these contents.
    pub fn find(&self, digest: &Digest) -> Option<u32> {
        self.known.get(digest).copied()
    }
}
