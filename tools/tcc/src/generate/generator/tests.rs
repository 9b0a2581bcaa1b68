use tcc_runtime::SequenceError;

use super::*;
use crate::generate::toy::{generator, logits_behind};

/// The logits that the toy must have given behind these tokens.
fn expected(generator: &Generator, tokens: &[u32]) -> Vec<f32> {
    let text: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
    logits_behind(&text, generator.limits().vocabulary)
}

#[track_caller]
fn check(generator: &Generator, sequence: SequenceId, tokens: &[u32]) {
    assert_eq!(generator.tokens(sequence).expect("it exists"), tokens);
    assert_eq!(generator.logits(sequence).expect("it has logits"), expected(generator, tokens));
}

fn tokens(count: u32) -> Vec<u32> {
    (0..count).map(|token| 20 + token * 7 % 90).collect()
}

#[test]
fn long_prompts_run_in_chunks() {
    let (mut generator, run) = generator(64, 4, 64);
    for count in [1, 7, 8, 9, 16, 23] {
        let sequence = generator.create();
        generator.extend(sequence, &tokens(count)).expect("it fits");
        check(&generator, sequence, &tokens(count));
        generator.extend(sequence, &[5]).expect("it fits");
        check(&generator, sequence, &[tokens(count), vec![5]].concat());
        generator.remove(sequence).expect("it exists");
    }
    assert_eq!(run.load(std::sync::atomic::Ordering::Relaxed), 1 + 7 + 8 + 9 + 16 + 23 + 6);
}

#[test]
fn sequences_do_not_disturb_each_other() {
    let (mut generator, _) = generator(64, 4, 32);
    let (a, b) = (generator.create(), generator.create());
    let (mut in_a, mut in_b) = (Vec::new(), Vec::new());
    for step in 0..9 {
        let (for_a, for_b) = (vec![step + 10, step + 11], vec![step + 30]);
        let work = |sequence, tokens| Work { sequence, tokens, wanted: Wanted::Last };
        generator.advance(&[work(a, &for_a), work(b, &for_b)]).expect("it fits");
        in_a.extend(&for_a);
        in_b.extend(&for_b);
        check(&generator, a, &in_a);
        check(&generator, b, &in_b);
    }
}

#[test]
fn forks_share_and_part() {
    let (mut generator, _) = generator(32, 4, 32);
    let a = generator.create();
    generator.extend(a, &tokens(10)).expect("it fits");
    let b = generator.fork(a).expect("there is room");
    check(&generator, b, &tokens(10));
    // All three pages are shared until one of both goes on, on a page of its own.
    assert_eq!(generator.free_slots(), 5 * 4);
    generator.extend(a, &[1, 2, 3]).expect("it fits");
    generator.extend(b, &[4, 5, 6, 7]).expect("it fits");
    check(&generator, a, &[tokens(10), vec![1, 2, 3]].concat());
    check(&generator, b, &[tokens(10), vec![4, 5, 6, 7]].concat());
    generator.remove(a).expect("it exists");
    generator.extend(b, &[8]).expect("it fits");
    check(&generator, b, &[tokens(10), vec![4, 5, 6, 7, 8]].concat());
    generator.remove(b).expect("it exists");
    assert_eq!(generator.free_slots(), 32);
}

#[test]
fn truncation_goes_back() {
    let (mut generator, _) = generator(48, 4, 32);
    let a = generator.create();
    generator.extend(a, &tokens(15)).expect("it fits");
    let b = generator.fork(a).expect("there is room");
    for length in [14, 6] {
        generator.truncate(a, length).expect("it exists");
        assert!(matches!(generator.logits(a), Err(GenerateError::NoLogits)) || length == 6);
        generator.extend(a, &[9]).expect("it fits");
        let mut kept = tokens(length as u32);
        kept.push(9);
        check(&generator, a, &kept);
        generator.truncate(a, length).expect("it exists");
        generator.extend(a, &tokens(15)[length..]).expect("it fits");
        check(&generator, a, &tokens(15));
    }
    // The fork did not notice.
    check(&generator, b, &tokens(15));
    generator.extend(b, &[3]).expect("it fits");
    check(&generator, b, &[tokens(15), vec![3]].concat());
    generator.truncate(a, 0).expect("it exists");
    assert!(generator.tokens(a).expect("it exists").is_empty());
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_things_as_they_were() {
    let (mut generator, _) = generator(16, 4, 12);
    let a = generator.create();
    let error = generator.extend(a, &tokens(13)).expect_err("too long");
    assert!(matches!(error, GenerateError::PromptTooLong { prompt: 13, context: 12 }));
    generator.extend(a, &tokens(12)).expect("it fits");
    assert!(matches!(generator.extend(a, &[1]), Err(GenerateError::PromptTooLong { .. })));
    let b = generator.create();
    assert!(matches!(
        generator.extend(b, &tokens(5)),
        Err(GenerateError::Sequence(SequenceError::Full { needed: 2, free: 1, page: 4 }))
    ));
    check(&generator, a, &tokens(12));
    generator.extend(b, &tokens(4)).expect("a page is left");
    check(&generator, b, &tokens(4));
    assert!(matches!(generator.extend(b, &[100_000]), Err(GenerateError::Token { token: 100_000, .. })));
    generator.remove(b).expect("it exists");
    assert!(matches!(generator.remove(b), Err(GenerateError::Sequence(SequenceError::Unknown))));
    assert!(matches!(generator.extend(b, &[1]), Err(GenerateError::Sequence(SequenceError::Unknown))));
    let empty = generator.create();
    assert!(matches!(generator.logits(empty), Err(GenerateError::NoLogits)));
}

#[test]
fn sampling_follows_the_logits() {
    let (mut generator, _) = generator(16, 4, 12);
    let a = generator.create();
    generator.extend(a, &tokens(3)).expect("it fits");
    let mut sampler = Sampler::new(&crate::generate::Sampling::default()).expect("good options");
    let token = generator.sample(a, &mut sampler).expect("a token");
    assert_eq!(token, crate::generate::sampler::largest(&expected(&generator, &tokens(3))).expect("a token"));
}
