//! Tokenizers against llama.cpp on tricky texts: `tools/tokenizer-reference` wrote what it makes of them.
//!
//! The vocabularies are those of models in the cache; where one is missing, its tests are skipped by name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use tcc::generate::tokenizer::{Tokenizer, TokenizerSource};
use tcc_frontend::language_model::LanguageModel;
use tcc_tests::cache;

#[derive(Deserialize)]
struct References {
    texts: Vec<String>,
    tokens: BTreeMap<String, Vec<Tokens>>,
}

/// The tokens of a text where the names of control tokens mean these, and where they are plain text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Tokens {
    Same(Vec<u32>),
    Different { marks: Vec<u32>, text: Vec<u32> },
}

fn references() -> References {
    let path = cache::tests_folder().join("references/tokenizers.json");
    let text = std::fs::read_to_string(path).expect("the references are in the repository");
    serde_json::from_str(&text).expect("the references are JSON")
}

/// The tokenizer of a cached model, or why there is none.
fn source(entry: &str, file: &str) -> Result<TokenizerSource, String> {
    let path: PathBuf = cache::folder(entry)?.join(file);
    let model = LanguageModel::open(&path).map_err(|error| error.to_string())?;
    TokenizerSource::of_model(&model).map_err(|error| error.to_string())
}

/// Texts on which the expressions of a model's authors and their approximations in llama.cpp part: it has no classes for
/// upper- and lower-case letters beyond ASCII, and none for combining marks.
fn approximated(name: &str, text: &str) -> bool {
    let cased = matches!(name, "tekken" | "gpt-4o");
    cased && !text.is_ascii()
}

fn compare(name: &str, source: &TokenizerSource, references: &References) {
    let mut tokenizer = Tokenizer::new(source).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut wrong = Vec::new();
    for (text, expected) in references.texts.iter().zip(&references.tokens[name]) {
        if approximated(name, text) {
            continue;
        }
        let (marks, plain) = match expected {
            Tokens::Same(tokens) => (tokens, tokens),
            Tokens::Different { marks, text } => (marks, text),
        };
        for (as_text, expected) in [(false, marks), (true, plain)] {
            tokenizer.set_control_as_text(as_text);
            let found = tokenizer.encode(text).unwrap_or_else(|error| panic!("{name}: {text:?}: {error}"));
            if found != *expected {
                wrong.push(format!(
                    "{text:?} (control as text: {as_text}): {found:?}, llama.cpp {expected:?}"
                ));
            }
            let back = tokenizer.decode(&found);
            // SentencePiece has no token for the character that stands for its spaces.
            let ambiguous = name == "llama" && text.contains('\u{2581}');
            if as_text && back != *text && !ambiguous {
                wrong.push(format!("{text:?} comes back as {back:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
}

#[test]
fn byte_level_vocabularies_agree_with_llama_cpp() {
    let source = match source("smollm2-135m", "SmolLM2-135M-Instruct.Q4_1.gguf") {
        Ok(source) => source,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let TokenizerSource::Vocabulary(vocabulary) = source else { panic!("a GGUF file has a vocabulary") };
    let references = references();
    for name in references.tokens.keys().filter(|name| *name != "llama") {
        let mut vocabulary = vocabulary.clone();
        vocabulary.pre_tokenizer = name.clone();
        compare(name, &TokenizerSource::Vocabulary(vocabulary), &references);
    }
}

#[test]
fn sentence_piece_vocabularies_agree_with_llama_cpp() {
    match source("tinycoder", "tiny.gguf") {
        Ok(source) => compare("llama", &source, &references()),
        Err(reason) => println!("skipped: {reason}"),
    }
}
