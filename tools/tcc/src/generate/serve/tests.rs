use std::sync::atomic::Ordering;

use super::*;
use crate::generate::grammar::GrammarSource;
use crate::generate::toy;

fn request(prompt: &[u32], max_tokens: usize) -> Request {
    Request { prompt: prompt.to_vec(), max_tokens, ignore_end: true, ..Request::default() }
}

fn run(generator: &mut Generator, requests: &[Request]) -> Vec<Completion> {
    complete(generator, requests, &mut |_, _| ControlFlow::Continue(())).expect("it works")
}

/// The greedy continuation, token by token, from the toy's definition.
fn greedy(vocabulary: usize, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut text: Vec<i64> = prompt.iter().map(|token| i64::from(*token)).collect();
    let mut made = Vec::new();
    for _ in 0..count {
        let logits = toy::logits_behind(&text, vocabulary);
        let token = crate::generate::sampler::largest(&logits).expect("a token");
        text.push(i64::from(token));
        made.push(token);
    }
    made
}

#[test]
fn a_batch_gives_what_each_prompt_gives_alone() {
    let (mut generator, _) = toy::generator(64, 4, 32);
    let vocabulary = generator.limits().vocabulary;
    let prompts: Vec<Vec<u32>> =
        (1..10u32).map(|length| (0..length * 2).map(|token| 30 + token * length).collect()).collect();
    let requests: Vec<Request> =
        prompts.iter().zip(3..).map(|(prompt, count)| request(prompt, count)).collect();
    let together = run(&mut generator, &requests);
    for (request, completion) in requests.iter().zip(&together) {
        assert_eq!(completion.tokens, greedy(vocabulary, &request.prompt, request.max_tokens));
        assert_eq!(completion.finish, Finish::Length);
    }
    let (mut alone, _) = toy::generator(64, 4, 32);
    for (request, completion) in requests.iter().zip(&together) {
        let single = run(&mut alone, std::slice::from_ref(request)).remove(0);
        assert_eq!((single.tokens, single.text), (completion.tokens.clone(), completion.text.clone()));
    }
}

#[test]
fn seeds_do_not_depend_on_the_batch() {
    let (mut generator, _) = toy::generator(256, 4, 32);
    let sampling = Sampling { temperature: 1.5, top_k: 40, seed: 3, ..Sampling::default() };
    let of = |index: u64| Request { sampling: sampling.for_text(index), ..request(&[40, 41, 42], 6) };
    let together = run(&mut generator, &[of(0), of(1), of(2)]);
    let single = run(&mut generator, &[of(1)]);
    assert_eq!(together[1].tokens, single[0].tokens);
    assert_ne!(together[0].tokens, together[1].tokens);
}

#[test]
fn equal_beginnings_are_read_once() {
    let (mut generator, ran) = toy::generator(128, 4, 64);
    let vocabulary = generator.limits().vocabulary;
    let beginning: Vec<u32> = (0..21).map(|token| 50 + token).collect();
    let requests: Vec<Request> =
        (0..3u32).map(|last| request(&[beginning.clone(), vec![last + 100]].concat(), 5)).collect();
    let completions = run(&mut generator, &requests);
    for (request, completion) in requests.iter().zip(&completions) {
        assert_eq!(completion.tokens, greedy(vocabulary, &request.prompt, 5));
    }
    // 22 tokens of the first prompt, 2 of each other one behind five full pages, and 4 of each continuation.
    assert_eq!(ran.load(Ordering::Relaxed), 22 + 2 * 2 + 3 * 4);
}

#[test]
fn a_small_cache_makes_requests_wait() {
    let (mut generator, _) = toy::generator(16, 4, 16);
    let vocabulary = generator.limits().vocabulary;
    let requests: Vec<Request> = (0..5u32).map(|index| request(&[60 + index, 61, 62], 6)).collect();
    for (request, completion) in requests.iter().zip(run(&mut generator, &requests)) {
        assert_eq!(completion.tokens, greedy(vocabulary, &request.prompt, 6));
    }
}

#[test]
fn the_context_ends_a_text() {
    let (mut generator, _) = toy::generator(16, 4, 10);
    let completion = run(&mut generator, &[request(&[60; 7], 100)]).remove(0);
    assert_eq!(completion.finish, Finish::Context);
    // Seven tokens of the prompt and three of the text are run; one more comes from the logits of the last.
    assert_eq!(completion.tokens.len(), 4);
}

#[test]
fn stop_strings_and_streams() {
    let (mut generator, _) = toy::generator(64, 4, 64);
    let whole = run(&mut generator, &[request(&[60, 61], 20)]).remove(0);
    let mut streamed = String::new();
    let completions = complete(&mut generator, &[request(&[60, 61], 20)], &mut |index, text| {
        assert_eq!(index, 0);
        streamed.push_str(text);
        ControlFlow::Continue(())
    });
    assert_eq!(completions.expect("it works")[0].text, streamed);
    assert_eq!(whole.text, streamed);
    // What is no text on its own shows as replacement characters, which a stop string cannot name.
    let characters: Vec<char> = whole.text.chars().collect();
    let plain = |pair: &&[char]| pair.iter().all(char::is_ascii);
    let stop: String = characters.windows(2).skip(4).find(plain).expect("some plain text").iter().collect();
    let stopped = Request { stops: vec![stop.clone()], ..request(&[60, 61], 20) };
    let completion = run(&mut generator, &[stopped]).remove(0);
    assert_eq!(completion.finish, Finish::Stop);
    assert_eq!(completion.text, whole.text[..whole.text.find(&stop).expect("it is there")]);
}

#[test]
fn whoever_takes_the_text_may_end_it() {
    let (mut generator, _) = toy::generator(64, 4, 64);
    let mut pieces = 0;
    let completions = complete(&mut generator, &[request(&[60, 61], 20)], &mut |_, _| {
        pieces += 1;
        if pieces == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(completions.expect("it works")[0].finish, Finish::Cancelled);
    assert_eq!(pieces, 3);
}

#[test]
fn the_end_token_ends_a_text() {
    let (mut generator, _) = toy::generator(64, 4, 64);
    // A grammar that allows nothing but the end makes the end certain.
    let source = GrammarSource::Lark("start: \"hello\"".into());
    let grammar = Arc::new(Grammar::new(&source, generator.tokenizer()).expect("it compiles"));
    let request = Request { grammar: Some(grammar), ignore_end: false, ..request(&[60, 61], 20) };
    let completion = run(&mut generator, &[request]).remove(0);
    assert_eq!((completion.text.as_str(), completion.finish), ("hello", Finish::End));
}

#[test]
fn grammars_hold() {
    let (mut generator, _) = toy::generator(256, 4, 64);
    let schema = r#"{"type": "object", "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer", "maximum": 99, "minimum": 0}},
                     "required": ["ok", "n"], "additionalProperties": false}"#;
    let grammar =
        Grammar::new(&GrammarSource::JsonSchema(schema.into()), generator.tokenizer()).expect("it compiles");
    let grammar = Arc::new(grammar);
    for seed in 0..4 {
        let request = Request {
            grammar: Some(Arc::clone(&grammar)),
            sampling: Sampling { temperature: 1.0, seed, ..Sampling::default() },
            ignore_end: false,
            // White space is allowed anywhere, and a toy likes it.
            ..request(&[60, 61], 60)
        };
        let completion = run(&mut generator, &[request]).remove(0);
        if completion.finish == Finish::End {
            let value: serde_json::Value = serde_json::from_str(&completion.text).expect("it is JSON");
            assert!(value["ok"].is_boolean() && value["n"].is_u64(), "{value}");
        }
    }
    let error = Grammar::new(&GrammarSource::Lark("start: missing".into()), generator.tokenizer())
        .expect_err("there is no rule of this name");
    assert!(error.to_string().starts_with("grammar: "), "{error}");
    let error =
        Grammar::new(&GrammarSource::JsonSchema("{".into()), generator.tokenizer()).expect_err("no JSON");
    assert!(error.to_string().starts_with("grammar: JSON schema: "), "{error}");
}

#[test]
fn log_probabilities_of_each_token() {
    let (mut generator, _) = toy::generator(64, 4, 64);
    let request = Request { log_probabilities: Some(3), ..request(&[60, 61], 5) };
    let completion = run(&mut generator, &[request]).remove(0);
    assert_eq!(completion.log_probabilities.len(), 5);
    for (token, found) in completion.tokens.iter().zip(&completion.log_probabilities) {
        assert_eq!((found.token, found.top[0].0, found.top.len()), (*token, *token, 3));
        assert!(found.log_probability < 0.0);
    }
}

#[test]
fn bad_requests_are_refused_before_anything_runs() {
    let (mut generator, ran) = toy::generator(16, 4, 12);
    let refused = |generator: &mut Generator, bad: Request| {
        let requests = [request(&[60], 2), bad];
        complete(generator, &requests, &mut |_, _| ControlFlow::Continue(())).expect_err("it is refused")
    };
    assert!(matches!(refused(&mut generator, request(&[], 1)), GenerateError::EmptyPrompt));
    let error = refused(&mut generator, request(&[60; 12], 1));
    assert!(matches!(error, GenerateError::PromptTooLong { prompt: 12, context: 12 }), "{error}");
    assert!(matches!(refused(&mut generator, request(&[9999], 1)), GenerateError::Token { token: 9999, .. }));
    let sampling = Sampling { temperature: -1.0, ..Sampling::default() };
    let bad = Request { sampling, ..request(&[60], 1) };
    assert!(matches!(refused(&mut generator, bad), GenerateError::Option { option: "--temperature", .. }));
    assert_eq!(ran.load(Ordering::Relaxed), 0);
    assert!(run(&mut generator, &[request(&[60], 0)])[0].tokens.is_empty());
    assert!(run(&mut generator, &[]).is_empty());
}

#[test]
fn a_conversation_goes_on_in_its_sequence() {
    let (mut generator, ran) = toy::generator(64, 4, 64);
    let vocabulary = generator.limits().vocabulary;
    let sequence = generator.create();
    let turn = |prompt: &[u32]| Request { sequence: Some(sequence), ..request(prompt, 4) };
    let first: Vec<u32> = (0..9).map(|token| 70 + token).collect();
    let answer = run(&mut generator, &[turn(&first)]).remove(0).tokens;
    assert_eq!(ran.load(Ordering::Relaxed), 9 + 3);
    // The last token of the answer was not run; then come three new ones.
    let second = [first.clone(), answer, vec![90, 91, 92]].concat();
    let completion = run(&mut generator, &[turn(&second)]).remove(0);
    assert_eq!(completion.tokens, greedy(vocabulary, &second, 4));
    assert_eq!(ran.load(Ordering::Relaxed), 12 + 4 + 3);
    // Another history goes back to where the two part.
    let other = [first[..5].to_vec(), vec![100, 101]].concat();
    assert_eq!(run(&mut generator, &[turn(&other)])[0].tokens, greedy(vocabulary, &other, 4));
    assert_eq!(ran.load(Ordering::Relaxed), 19 + 2 + 3);
    // The same once more: its last token is run again for its logits.
    assert_eq!(run(&mut generator, &[turn(&other)])[0].tokens, greedy(vocabulary, &other, 4));
    generator.remove(sequence).expect("it is still there");
}
