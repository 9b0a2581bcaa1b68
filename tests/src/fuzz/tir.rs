//! Tensor IR as text: the changes are of words, not of letters.

use std::fs;
use std::path::Path;

use arbitrary::{Arbitrary, Result, Unstructured};
use tcc_ir::{parse, print, verify};

use super::Reader;
use crate::cache::tests_folder;

pub const READER: Reader = Reader { name: "tir", seeds, mutate, read };

/// The modules of the file tests.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    collect(&tests_folder().join("filetests"), &mut seeds);
    seeds
}

fn collect(folder: &Path, seeds: &mut Vec<Vec<u8>>) {
    let entries = fs::read_dir(folder).expect("the folder of file tests can be read");
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, seeds);
        } else if let Ok(text) = fs::read(&path) {
            seeds.push(text);
        }
    }
}

/// Words, numbers, quoted texts and single marks, with the spaces before them.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let start = rest.len() - rest.trim_start().len();
        let body = &rest[start..];
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '%' | '@' | '-');
        let length = match body.chars().next() {
            Some('"') => body[1..].find('"').map_or(body.len(), |end| end + 2),
            Some(first) if plain(first) => body.find(|c: char| !plain(c)).unwrap_or(body.len()),
            Some(first) => first.len_utf8(),
            None => 0,
        };
        words.push(&rest[..start + length]);
        rest = &rest[start + length..];
    }
    words
}

/// What happens to one word.
#[derive(Arbitrary)]
enum Change {
    Remove,
    Repeat,
    /// Another word of the file.
    Copy,
    /// Two words change places.
    Swap,
    Number(Number),
    /// A mark.
    Mark(u8),
    /// The same bracket many times.
    Nest(u16),
}

#[derive(Arbitrary)]
enum Number {
    Zero,
    Minus,
    Large,
    Larger,
    Float,
}

fn mutate(file: &[u8], source: &mut Unstructured) -> Result<Vec<u8>> {
    let Ok(text) = std::str::from_utf8(file) else { return super::bytes(file, source) };
    let mut words: Vec<String> = words(text).into_iter().map(str::to_string).collect();
    if words.is_empty() {
        return Ok(Vec::new());
    }
    let at = source.choose_index(words.len())?;
    match Change::arbitrary(source)? {
        Change::Remove => {
            words.remove(at);
        }
        Change::Repeat => words.insert(at, words[at].clone()),
        Change::Copy => words[at] = words[source.choose_index(words.len())?].clone(),
        Change::Swap => {
            let other = source.choose_index(words.len())?;
            words.swap(at, other);
        }
        Change::Number(number) => {
            // The nearest number from here on.
            let digits = |word: &String| word.trim_start().starts_with(|c: char| c.is_ascii_digit());
            let at = (at..words.len()).find(|index| digits(&words[*index])).unwrap_or(at);
            words[at] = match number {
                Number::Zero => " 0",
                Number::Minus => " -1",
                Number::Large => " 4294967296",
                Number::Larger => " 9223372036854775807",
                Number::Float => " 1.0e+300",
            }
            .to_string();
        }
        Change::Mark(mark) => {
            words[at] = ["{", "}", "(", ")", "[", "]", "<", ">", "\"", ",", ":", "->", "x", "?", "!"]
                [usize::from(mark) % 15]
                .to_string();
        }
        Change::Nest(count) => words[at] = words[at].repeat(usize::from(count)),
    }
    Ok(words.concat().into_bytes())
}

fn read(file: &[u8]) {
    let Ok(text) = std::str::from_utf8(file) else { return };
    let Ok(module) = parse::module(text) else { return };
    let _ = verify::verify(&module);
    let printed = print::module(&module);
    let again = parse::module(&printed).expect("what is printed parses");
    assert_eq!(print::module(&again), printed, "printing and parsing lose nothing");
}
