use super::vocabulary::{Algorithm, Marks, TokenKind, Vocabulary};
use super::*;

/// Ten merges over a byte-level alphabet, with two control tokens and one user-defined token.
pub(crate) fn byte_level() -> Vocabulary {
    let mut tokens: Vec<String> = vec!["<|begin|>".into(), "<|end|>".into(), "    ".into()];
    let mut kinds = vec![TokenKind::Control, TokenKind::Control, TokenKind::UserDefined];
    let mut alphabet: Vec<(u8, char)> =
        build::alphabet().into_iter().map(|(character, byte)| (byte, character)).collect();
    alphabet.sort_unstable();
    tokens.extend(alphabet.iter().map(|(_, character)| character.to_string()));
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "Ġwor l", "Ġworl d", "1 2"];
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    kinds.resize(tokens.len(), TokenKind::Normal);
    Vocabulary {
        algorithm: Algorithm::ByteLevel,
        pre_tokenizer: "gpt-2".into(),
        scores: Vec::new(),
        merges: merges.map(String::from).to_vec(),
        add_space: false,
        strip_after: Vec::new(),
        marks: Marks { begin: Some(0), end: Some(1), stops: vec![1], add_begin: true, ..Marks::default() },
        tokens,
        kinds,
    }
}

/// A small SentencePiece vocabulary with byte tokens.
fn sentence_piece() -> Vocabulary {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    let mut kinds = vec![TokenKind::Unknown, TokenKind::Control, TokenKind::Control];
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    kinds.resize(tokens.len(), TokenKind::Byte);
    let pieces = ["▁a", "ab", "▁ab", "abc", "▁", "a", "b", "c"];
    let mut scores = vec![0.0; tokens.len()];
    tokens.extend(pieces.map(String::from));
    kinds.resize(tokens.len(), TokenKind::Normal);
    scores.extend((0u8..).map(|rank| -f32::from(rank)).take(pieces.len()));
    let marks = Marks {
        begin: Some(1),
        end: Some(2),
        unknown: Some(0),
        stops: vec![2],
        add_begin: true,
        add_end: false,
    };
    Vocabulary {
        algorithm: Algorithm::SentencePiece,
        pre_tokenizer: String::new(),
        merges: Vec::new(),
        add_space: true,
        strip_after: Vec::new(),
        scores,
        tokens,
        kinds,
        marks,
    }
}

fn make(vocabulary: Vocabulary) -> Tokenizer {
    Tokenizer::new(&TokenizerSource::Vocabulary(vocabulary)).expect("a good vocabulary")
}

fn texts(vocabulary: &Vocabulary, tokens: &[u32]) -> Vec<String> {
    tokens.iter().map(|token| vocabulary.tokens[*token as usize].clone()).collect()
}

#[test]
fn byte_level_words_merge() {
    let vocabulary = byte_level();
    let tokenizer = make(vocabulary.clone());
    let tokens = tokenizer.encode("hello world 12\u{e9}").expect("it encodes");
    assert_eq!(texts(&vocabulary, &tokens), ["<|begin|>", "hello", "Ġworld", "Ġ", "12", "Ã", "©"]);
    assert_eq!(tokenizer.decode(&tokens), "hello world 12\u{e9}");
}

#[test]
fn control_tokens_in_a_text() {
    let vocabulary = byte_level();
    let mut tokenizer = make(vocabulary.clone());
    let tokens = tokenizer.encode_chat("<|begin|>he<|end|>").expect("it encodes");
    assert_eq!(texts(&vocabulary, &tokens), ["<|begin|>", "he", "<|end|>"]);
    assert_eq!(tokenizer.encode_chat("he").expect("it encodes")[0], 0);
    assert_eq!(tokenizer.decode(&tokens), "he");
    tokenizer.set_control_as_text(true);
    let tokens = tokenizer.encode_bare("<|end|>    ").expect("it encodes");
    assert_eq!(texts(&vocabulary, &tokens).concat(), "<|end|>    ");
    // User-defined tokens are text in any case.
    assert_eq!(tokens.last(), Some(&2));
    assert_eq!(tokens.len(), "<|end|>".len() + 1);
}

#[test]
fn sentence_piece_merges_by_score() {
    let vocabulary = sentence_piece();
    let tokenizer = make(vocabulary.clone());
    // `▁a` scores higher than `ab`, so that it merges first; `▁ab` is then made from it.
    assert_eq!(texts(&vocabulary, &tokenizer.encode("abc").expect("it encodes")), ["<s>", "▁ab", "c"]);
    assert_eq!(texts(&vocabulary, &tokenizer.encode_bare("cabc").expect("it encodes")), ["▁", "c", "abc"]);
    let tokens = tokenizer.encode_bare("a\u{e9}").expect("it encodes");
    assert_eq!(texts(&vocabulary, &tokens), ["▁a", "<0xC3>", "<0xA9>"]);
    assert_eq!(tokenizer.decode(&tokens), "a\u{e9}");
    // A space is put before the text after a control token, too.
    let tokens = tokenizer.encode_bare("a</s>b").expect("it encodes");
    assert_eq!(texts(&vocabulary, &tokens), ["▁a", "</s>", "▁", "b"]);
}

#[test]
fn an_empty_text_has_no_tokens_of_its_own() {
    assert_eq!(make(byte_level()).encode("").expect("it encodes"), [0]);
    assert_eq!(make(sentence_piece()).encode_bare("").expect("it encodes"), [0u32; 0]);
}

#[test]
fn white_space_after_control_tokens_may_belong_to_them() {
    let mut vocabulary = byte_level();
    vocabulary.strip_after = vec![1];
    let tokenizer = make(vocabulary);
    assert_eq!(
        tokenizer.encode_bare("<|end|> \n he").expect("it encodes"),
        tokenizer.encode_bare("<|end|>he").expect("it encodes")
    );
}

#[test]
fn bad_vocabularies_are_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Vocabulary), expected: &str| {
        let mut vocabulary = byte_level();
        change(&mut vocabulary);
        let error = Tokenizer::new(&TokenizerSource::Vocabulary(vocabulary)).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    };
    refused(&|vocabulary| vocabulary.merges.push("he world".into()), "needs the token 'world'");
    refused(&|vocabulary| vocabulary.merges.push("l o".into()), "needs the token 'lo'");
    refused(&|vocabulary| vocabulary.merges.push("one".into()), "is not two texts");
    refused(&|vocabulary| vocabulary.merges.push(String::new()), "is not two texts");
    refused(&|vocabulary| vocabulary.marks.end = Some(9999), "token 9999 is outside");
    refused(&|vocabulary| vocabulary.pre_tokenizer = "unheard-of".into(), "known are a.x-4.0, bailingmoe");
    refused(&|vocabulary| vocabulary.kinds.truncate(3), "3 token types");
    refused(&|vocabulary| vocabulary.kinds[3] = TokenKind::Byte, "not of the form <0xNN>");
    refused(&|vocabulary| vocabulary.tokens.clear(), "the vocabulary is empty");
}

/// The same vocabulary as `tokenizer.json` has it.
fn json() -> serde_json::Value {
    let vocabulary = byte_level();
    let ids: serde_json::Map<String, serde_json::Value> =
        vocabulary.tokens.iter().enumerate().map(|(token, text)| (text.clone(), token.into())).collect();
    let added = |token: u32, special: bool| {
        serde_json::json!({
            "id": token, "content": vocabulary.tokens[token as usize], "special": special,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, true), added(1, true), added(2, false)],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|begin|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|begin|>": {"id": "<|begin|>", "ids": [0], "tokens": ["<|begin|>"]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "vocab": ids, "merges": vocabulary.merges},
    })
}

#[test]
fn tokenizer_json_agrees_with_the_vocabulary() {
    let source =
        TokenizerSource::Json { text: json().to_string(), marks: Marks { end: Some(1), ..Marks::default() } };
    let (a, b) = (Tokenizer::new(&source).expect("a good file"), make(byte_level()));
    assert_eq!(a.marks(), b.marks());
    assert_eq!(a.size(), b.size());
    for text in ["hello world 12\u{e9}", "", "<|end|>    x", "  \n\n a's 12345"] {
        let tokens = a.encode(text).expect("it encodes");
        assert_eq!(tokens, b.encode(text).expect("it encodes"), "{text:?}");
        assert_eq!(a.decode(&tokens), b.decode(&tokens), "{text:?}");
    }
    assert!((0..a.size() as u32).all(|token| a.piece(token) == b.piece(token)));
}

#[test]
fn bad_json_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut serde_json::Value), expected: &str| {
        let mut file = json();
        change(&mut file);
        let source = TokenizerSource::Json { text: file.to_string(), marks: Marks::default() };
        let error = Tokenizer::new(&source).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    };
    refused(&|file| file["model"]["merges"] = serde_json::json!(["l o"]), "needs the token 'lo'");
    refused(
        &|file| file["decoder"] = serde_json::json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        "its decoder",
    );
    refused(&|file| file["model"]["vocab"]["far"] = 4_000_000_000u32.into(), "are numbered up to 4000000000");
    refused(&|file| file["model"]["type"] = "Unheard".into(), "tokenizer.json: ");
}
