use proptest::prelude::*;

use super::*;

fn sampling(change: impl FnOnce(&mut Sampling)) -> Sampling {
    let mut options = Sampling { temperature: 1.0, ..Sampling::default() };
    change(&mut options);
    options
}

/// How often each token is drawn.
fn frequencies(options: &Sampling, logits: &[f32], draws: usize) -> Vec<f64> {
    let mut sampler = Sampler::new(options).expect("good options");
    let mut counts = vec![0.0; logits.len()];
    for _ in 0..draws {
        counts[sampler.sample(logits, &[], None).expect("a token") as usize] += 1.0 / draws as f64;
    }
    counts
}

#[test]
fn greedy_takes_the_first_of_the_largest() {
    assert_eq!(largest(&[0.0, 2.0, f32::NAN, 2.0]).expect("a token"), 1);
    assert_eq!(largest(&[-3.0]).expect("a token"), 0);
    let mut logits = vec![-1.0; 1000];
    logits[37] = 5.0;
    logits[990] = 5.0;
    assert_eq!(largest(&logits).expect("a token"), 37);
    logits[999] = 6.0;
    assert_eq!(largest(&logits).expect("a token"), 999);
}

#[test]
fn logits_that_are_no_numbers_are_refused() {
    for logits in [&[][..], &[f32::NAN], &[f32::NEG_INFINITY], &[1.0, f32::INFINITY]] {
        largest(logits).expect_err("no largest");
        let mut sampler = Sampler::new(&sampling(|_| ())).expect("good options");
        sampler.sample(logits, &[], None).expect_err("nothing to draw");
        log_probability(logits, 0, 1).expect_err("no probability");
    }
}

#[test]
fn draws_follow_the_probabilities() {
    let logits = [1f32.ln(), 2f32.ln(), 3f32.ln(), 4f32.ln()];
    // The standard deviation of a frequency is below 0.5 / sqrt(draws); six of them.
    let (draws, bound) = (20_000, 6.0 * 0.5 / 20_000f64.sqrt());
    for (frequency, expected) in
        frequencies(&sampling(|_| ()), &logits, draws).iter().zip([0.1, 0.2, 0.3, 0.4])
    {
        assert!((frequency - expected).abs() < bound, "{frequency} for {expected}");
    }
    // Temperature 1/2 squares the probabilities.
    let cold = frequencies(&sampling(|options| options.temperature = 0.5), &logits, draws);
    for (frequency, expected) in cold.iter().zip([1.0, 4.0, 9.0, 16.0].map(|weight| weight / 30.0)) {
        assert!((frequency - expected).abs() < bound, "{frequency} for {expected}");
    }
}

#[test]
fn each_option_cuts_where_it_says() {
    let logits = [1f32.ln(), 4f32.ln(), 2f32.ln(), 3f32.ln(), 2f32.ln()];
    let drawn = |options: &Sampling| -> Vec<usize> {
        let frequencies = frequencies(options, &logits, 2000);
        (0..logits.len()).filter(|token| frequencies[*token] > 0.0).collect()
    };
    assert_eq!(drawn(&sampling(|_| ())), [0, 1, 2, 3, 4]);
    // Tokens 2 and 4 are equally likely: the smaller number stays.
    assert_eq!(drawn(&sampling(|options| options.top_k = 3)), [1, 2, 3]);
    assert_eq!(drawn(&sampling(|options| options.top_k = 99)), [0, 1, 2, 3, 4]);
    // 4/12 is not enough, 7/12 is.
    assert_eq!(drawn(&sampling(|options| options.top_p = 0.5)), [1, 3]);
    assert_eq!(drawn(&sampling(|options| options.top_p = 0.01)), [1]);
    assert_eq!(drawn(&sampling(|options| options.min_p = 0.45)), [1, 2, 3, 4]);
    assert_eq!(drawn(&sampling(|options| options.min_p = 1.0)), [1]);
    // Of the three that top-k leaves, 4/9 is not enough and 7/9 is.
    assert_eq!(
        drawn(&sampling(|options| {
            options.top_k = 3;
            options.top_p = 0.7;
        })),
        [1, 3]
    );
}

#[test]
fn the_penalty_weakens_recent_tokens() {
    let options = Sampling { repeat_penalty: 2.0, repeat_last: 2, ..Sampling::default() };
    let mut sampler = Sampler::new(&options).expect("good options");
    assert_eq!(sampler.sample(&[4.0, 3.0, -1.0], &[0], None).expect("a token"), 1);
    assert_eq!(sampler.sample(&[4.0, 3.0, -1.0], &[0, 1], None).expect("a token"), 0);
    // Token 0 is too long ago, and repetition counts once.
    assert_eq!(sampler.sample(&[4.0, 3.0, -1.0], &[0, 1, 1], None).expect("a token"), 0);
    // Negative logits become more negative.
    assert_eq!(sampler.sample(&[-1.0, -1.5], &[0], None).expect("a token"), 1);
    // Tokens that the model has no logit for do not matter.
    assert_eq!(sampler.sample(&[-1.0, -1.5], &[77], None).expect("a token"), 0);
}

#[test]
fn a_seed_repeats_and_another_differs() {
    let logits: Vec<f32> = (0..100).map(|token| (token as f32 * 0.7).sin()).collect();
    let run = |seed, text| -> Vec<u32> {
        let options = sampling(|options| options.seed = seed).for_text(text);
        let mut sampler = Sampler::new(&options).expect("good options");
        (0..20).map(|_| sampler.sample(&logits, &[], None).expect("a token")).collect()
    };
    assert_eq!(run(7, 0), run(7, 0));
    assert_ne!(run(7, 0), run(8, 0));
    assert_ne!(run(7, 0), run(7, 1));
    assert_ne!(run(7, 2), run(7, 1));
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Sampling), name: &str| {
        let error = Sampler::new(&sampling(|options| change(options))).expect_err(name);
        assert!(error.to_string().starts_with(name), "{error}");
    };
    for value in [-0.5, f32::NAN, f32::INFINITY] {
        refused(&|options| options.temperature = value, "--temperature");
    }
    refused(&|options| options.top_p = 0.0, "--top-p");
    refused(&|options| options.top_p = 1.5, "--top-p");
    refused(&|options| options.min_p = -0.1, "--min-p");
    refused(&|options| options.repeat_penalty = 0.0, "--repeat-penalty");
}

#[test]
fn log_probabilities() {
    let logits = [1f32.ln(), 2f32.ln(), 5f32.ln()];
    let result = log_probability(&logits, 1, 2).expect("probabilities");
    assert!((result.log_probability - 0.25f32.ln()).abs() < 1e-6);
    assert_eq!(result.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [2, 1]);
    assert!((result.top[0].1 - 0.625f32.ln()).abs() < 1e-6);
    assert!(log_probability(&logits, 1, 0).expect("probabilities").top.is_empty());
    assert_eq!(log_probability(&logits, 1, 9).expect("probabilities").top.len(), 3);
    log_probability(&logits, 3, 1).expect_err("there is no token 3");
}

/// Which tokens the definition keeps, by sorting everything.
fn kept(options: &Sampling, logits: &[f32]) -> Vec<u32> {
    let mut all: Vec<(f32, u32)> = logits.iter().copied().zip(0..).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    if options.top_k > 0 {
        all.truncate(options.top_k);
    }
    let best = all[0].0;
    let weight = |logit: f32| f64::from(logit - best).exp();
    if options.top_p < 1.0 {
        let total: f64 = all.iter().map(|(logit, _)| weight(*logit)).sum();
        let mut sum = 0.0;
        let count = all.iter().position(|(logit, _)| {
            sum += weight(*logit);
            sum >= f64::from(options.top_p) * total
        });
        all.truncate(count.map_or(all.len(), |last| last + 1));
    }
    all.retain(|(logit, _)| {
        options.min_p == 0.0 || f64::from(logit - best) >= f64::from(options.min_p).ln() - 1e-6
    });
    all.into_iter().map(|(_, token)| token).collect()
}

proptest! {
    #[test]
    fn what_is_drawn_is_kept_by_the_definition(
        logits in prop::collection::vec(-8f32..8.0, 1..700),
        top_k in 0usize..50,
        top_p in 0.05f32..1.0,
        min_p in 0f32..0.3,
        seed in any::<u64>(),
    ) {
        let options = sampling(|options| {
            (options.top_k, options.top_p, options.min_p, options.seed) = (top_k, top_p, min_p, seed);
        });
        let kept = kept(&options, &logits);
        let mut sampler = Sampler::new(&options).expect("good options");
        for _ in 0..10 {
            let token = sampler.sample(&logits, &[], None).expect("a token");
            // A sum of at most 700 terms in another order differs by less than 700 roundings, far below the weight of
            // a token here, except exactly at the edge: there one token more may be kept.
            prop_assert!(kept.contains(&token) || frontier(&logits, &kept, token), "{token} is not in {kept:?}");
        }
    }
}

/// True for the most likely token that is not kept.
fn frontier(logits: &[f32], kept: &[u32], token: u32) -> bool {
    let others = logits.iter().zip(0u32..).filter(|(_, other)| !kept.contains(other));
    let next = others.min_by(|a, b| b.0.total_cmp(a.0).then(a.1.cmp(&b.1)));
    next.is_some_and(|(_, other)| other == token)
}
