use super::*;
use crate::generate::toy;

/// Perplexity by its definition, window by window.
fn by_hand(text: &[u32], begin: u32, windows: Windows, vocabulary: usize) -> (f64, usize) {
    let body = windows.window - 1;
    let (mut sum, mut count, mut start, mut counted) = (0.0, 0, 0, 0);
    while counted < text.len() {
        let end = (start + body).min(text.len());
        for target in counted.max(start)..end {
            let before: Vec<i64> =
                std::iter::once(begin).chain(text[start..target].iter().copied()).map(i64::from).collect();
            let logits = toy::logits_behind(&before, vocabulary);
            let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
            sum -= f64::from(logits[text[target] as usize]) - total.ln();
            count += 1;
        }
        counted = end;
        start += windows.stride.min(body - 1);
    }
    ((sum / count as f64).exp(), count)
}

#[test]
fn windows_count_every_token_once() {
    let text = "hello world, this is a text of some length; hello again 123 456";
    let (mut generator, _) = toy::generator(64, 4, 64);
    let tokens = generator.tokenizer().encode_bare(text).expect("it encodes");
    let vocabulary = generator.limits().vocabulary;
    for (window, stride) in [(16, 8), (10, 9), (10, 1), (64, 32), (3, 1), (60, 59)] {
        let windows = Windows { window, stride };
        let mut heard = 0;
        let found = perplexity(&mut generator, text, windows, &mut |_| heard += 1).expect("it works");
        let (expected, count) = by_hand(&tokens, 0, windows, vocabulary);
        assert_eq!((found.tokens, count), (tokens.len(), tokens.len()));
        // Log-probabilities are rounded to f32, the sums run in f64.
        assert!((found.perplexity / expected - 1.0).abs() < 1e-6, "{} for {expected}", found.perplexity);
        assert!(heard > 0);
    }
}

#[test]
fn bad_windows_are_refused() {
    let (mut generator, _) = toy::generator(64, 4, 32);
    for (window, stride, name) in
        [(1, 1, "--window"), (33, 1, "--window"), (16, 0, "--stride"), (16, 16, "--stride")]
    {
        let windows = Windows { window, stride };
        let error =
            perplexity(&mut generator, "hello world", windows, &mut |_| ()).expect_err("it is refused");
        assert!(error.to_string().starts_with(name), "{error}");
    }
    let windows = Windows { window: 8, stride: 4 };
    perplexity(&mut generator, "h", windows, &mut |_| ()).expect_err("too short");
}
