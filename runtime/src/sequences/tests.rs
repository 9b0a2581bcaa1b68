use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn part(sequence: SequenceId, start: usize, wanted: Wanted) -> Part {
    Part { sequence, start, wanted }
}

/// A cache that holds, instead of keys and values, the tokens up to each position.
struct Model {
    sequences: Sequences,
    cache: Vec<Vec<u32>>,
    expected: BTreeMap<SequenceId, Vec<u32>>,
}

impl Model {
    fn new(slots: usize, page: usize) -> Model {
        let cache = vec![Vec::new(); slots];
        Model { sequences: Sequences::new(slots, page, slots), cache, expected: BTreeMap::new() }
    }

    fn id(&self, choice: usize) -> Option<SequenceId> {
        let count = self.expected.len();
        (count > 0).then(|| self.expected.keys().nth(choice % count).copied()).flatten()
    }

    /// Extends, copies the page, writes the new tokens as a run would, commits.
    fn extend(&mut self, id: SequenceId, tokens: &[u32]) -> Result<()> {
        let start = self.sequences.tokens(id)?.len();
        let page = self.sequences.page();
        if let Some(copy) = self.sequences.extend(id, tokens)? {
            for offset in 0..page {
                self.cache[copy.to * page + offset] = self.cache[copy.from * page + offset].clone();
            }
        }
        let expected = self.expected.get_mut(&id).unwrap();
        expected.extend_from_slice(tokens);
        let mut batch = Batch::default();
        self.sequences.fill_batch(&[part(id, start, Wanted::Last)], &mut batch)?;
        assert!(
            batch.tokens.iter().eq(tokens.iter().map(|token| i64::from(*token)).collect::<Vec<_>>().iter())
        );
        let last = tokens.len().checked_sub(1).map(|last| last as i64);
        assert_eq!(batch.outputs, Vec::from_iter(last));
        for (position, slot) in batch.positions.iter().zip(&batch.slots) {
            self.cache[*slot as usize] = expected[..=*position as usize].to_vec();
        }
        self.sequences.commit(id, expected.len())
    }

    fn create_with(&mut self, tokens: &[u32]) -> Result<()> {
        let (id, known) = self.sequences.create_with(tokens);
        assert!(known == 0 || known < tokens.len());
        self.expected.insert(id, tokens[..known].to_vec());
        self.check();
        let extended = self.extend(id, &tokens[known..]);
        if extended.is_err() {
            self.remove(id);
        }
        extended
    }

    fn remove(&mut self, id: SequenceId) {
        self.expected.remove(&id);
        self.sequences.remove(id).unwrap();
    }

    /// Every sequence finds its own history in the cache, and the free pages are those that nobody uses.
    fn check(&self) {
        let parts: Vec<_> = self.expected.keys().map(|id| part(*id, 0, Wanted::All)).collect();
        let mut batch = Batch::default();
        self.sequences.fill_batch(&parts, &mut batch).unwrap();
        let page = self.sequences.page();
        let all: Vec<(usize, usize)> = self
            .expected
            .values()
            .enumerate()
            .flat_map(|(row, tokens)| (0..tokens.len()).map(move |position| (row, position)))
            .collect();
        assert_eq!(all.len(), batch.tokens.len());
        assert!(batch.outputs.iter().copied().eq(0..all.len() as i64));
        for (index, (row, position)) in all.into_iter().enumerate() {
            let expected = &self.expected[&parts[row].sequence][..=position];
            let entry = batch.block_table[row * batch.table_shape[1] + position / page] as usize;
            assert_eq!(batch.slots[index] as usize, entry * page + position % page);
            assert_eq!((batch.rows[index], batch.positions[index]), (row as i64, position as i64));
            assert_eq!(self.cache[batch.slots[index] as usize], expected);
        }
        let used: std::collections::BTreeSet<u32> =
            self.sequences.live.values().flat_map(|sequence| sequence.pages.iter().copied()).collect();
        assert_eq!(self.sequences.free_pages() + used.len(), self.sequences.pages());
    }
}

#[derive(Clone, Debug)]
enum Action {
    Create(Vec<u32>),
    Extend(usize, Vec<u32>),
    Truncate(usize, usize),
    Fork(usize),
    Remove(usize),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    // Few different tokens, so that prefixes meet.
    let tokens = || prop::collection::vec(0u32..2, 0..9);
    prop::collection::vec(
        prop_oneof![
            tokens().prop_map(Action::Create),
            (any::<usize>(), tokens()).prop_map(|(id, tokens)| Action::Extend(id, tokens)),
            (any::<usize>(), 0usize..12).prop_map(|(id, length)| Action::Truncate(id, length)),
            any::<usize>().prop_map(Action::Fork),
            any::<usize>().prop_map(Action::Remove),
        ],
        0..60,
    )
}

proptest! {
    #[test]
    fn every_sequence_keeps_its_history(slots in 0usize..40, page in 1usize..6, actions in actions()) {
        let mut model = Model::new(slots, page);
        for action in actions {
            match action {
                Action::Create(tokens) => drop(model.create_with(&tokens)),
                Action::Extend(choice, tokens) => {
                    if let Some(id) = model.id(choice) {
                        drop(model.extend(id, &tokens));
                    }
                }
                Action::Truncate(choice, length) => {
                    if let Some(id) = model.id(choice)
                        && model.sequences.truncate(id, length).is_ok()
                    {
                        model.expected.get_mut(&id).unwrap().truncate(length);
                    }
                }
                Action::Fork(choice) => {
                    if let Some(id) = model.id(choice) {
                        let tokens = model.expected[&id].clone();
                        model.expected.insert(model.sequences.fork(id).unwrap(), tokens);
                    }
                }
                Action::Remove(choice) => {
                    if let Some(id) = model.id(choice) {
                        model.remove(id);
                    }
                }
            }
            model.check();
        }
        while let Some(id) = model.id(0) {
            model.remove(id);
        }
        prop_assert_eq!(model.sequences.free_pages(), model.sequences.pages());
    }
}

#[test]
fn prefixes_are_found_after_their_sequence_ended() {
    let mut model = Model::new(32, 4);
    let prompt: Vec<u32> = (0..10).collect();
    model.create_with(&prompt).unwrap();
    let first = model.id(0).unwrap();
    let (second, known) = model.sequences.create_with(&prompt);
    assert_eq!(known, 8);
    model.sequences.remove(second).unwrap();
    model.remove(first);
    assert_eq!(model.sequences.free_pages(), 8);
    assert_eq!(model.sequences.create_with(&prompt[..8]).1, 4, "the last token is left to compute");
    assert_eq!(model.sequences.create_with(&[0, 1, 2, 9, 4]).1, 0);
}

#[test]
fn a_full_cache_refuses_and_changes_nothing() {
    let mut sequences = Sequences::new(9, 4, 100);
    let id = sequences.create();
    assert_eq!(sequences.extend(id, &[1; 9]), Err(SequenceError::Full { needed: 3, free: 2, page: 4 }));
    assert_eq!(sequences.tokens(id).unwrap(), &[] as &[u32]);
    assert_eq!(sequences.extend(id, &[1; 8]), Ok(None));
    assert!(sequences.extend(id, &[1]).is_err());
    assert_eq!(sequences.commit(id, 9), Err(SequenceError::Length { length: 8, asked: 9 }));
    sequences.remove(id).unwrap();
    assert_eq!(sequences.extend(id, &[1]), Err(SequenceError::Unknown));
}

#[test]
fn forks_copy_the_page_that_they_write() {
    let mut sequences = Sequences::new(16, 4, 16);
    let a = sequences.create();
    sequences.extend(a, &[1, 2, 3, 4, 5]).unwrap();
    let b = sequences.fork(a).unwrap();
    assert_eq!(sequences.free_pages(), 2);
    assert_eq!(sequences.extend(b, &[6]), Ok(Some(PageCopy { from: 1, to: 2 })));
    assert_eq!(sequences.extend(a, &[7]), Ok(None), "the page is its own again");
    let mut batch = Batch::default();
    sequences.fill_batch(&[part(a, 5, Wanted::None), part(b, 4, Wanted::Last)], &mut batch).unwrap();
    assert_eq!((&batch.tokens[..], &batch.positions[..]), (&[7, 5, 6][..], &[5, 4, 5][..]));
    assert_eq!((&batch.slots[..], &batch.rows[..]), (&[5, 8, 9][..], &[0, 1, 1][..]));
    assert_eq!((&batch.block_table[..], batch.table_shape), (&[0, 1, 0, 2][..], [2, 2]));
    assert_eq!(batch.outputs, [2]);
}

#[test]
fn a_sequence_ends_at_the_context() {
    let mut sequences = Sequences::new(40, 4, 11);
    let id = sequences.create();
    assert_eq!(sequences.extend(id, &[1; 12]), Err(SequenceError::Context { context: 11 }));
    assert_eq!(sequences.extend(id, &[1; 10]), Ok(None));
    assert_eq!(sequences.extend(id, &[1; 2]), Err(SequenceError::Context { context: 11 }));
    assert_eq!(sequences.extend(id, &[1]), Ok(None));
    // The table doubles up to what the context needs.
    let mut batch = Batch::default();
    sequences.fill_batch(&[part(id, 0, Wanted::None)], &mut batch).unwrap();
    assert_eq!(batch.table_shape, [1, 3]);
}
