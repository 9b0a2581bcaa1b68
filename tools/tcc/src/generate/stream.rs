//! Text from tokens as they come: whole characters only, and nothing of a stop string.

/// What became of a piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streamed {
    /// Text that is certain.
    pub text: String,
    /// True where a stop string was found; it and what follows are left out.
    pub stopped: bool,
}

/// Holds back bytes that may yet become part of a character or of a stop string.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    stops: Vec<Vec<u8>>,
    pending: Vec<u8>,
}

impl TextStream {
    /// A stream that ends at the first of these strings; empty ones are ignored.
    pub fn new(stops: &[String]) -> TextStream {
        let stops =
            stops.iter().filter(|stop| !stop.is_empty()).map(|stop| stop.as_bytes().to_vec()).collect();
        TextStream { stops, pending: Vec::new() }
    }

    /// Adds the bytes of a token.
    pub fn push(&mut self, bytes: &[u8]) -> Streamed {
        self.pending.extend_from_slice(bytes);
        if let Some(at) = self.stops.iter().filter_map(|stop| find(&self.pending, stop)).min() {
            let text = String::from_utf8_lossy(&self.pending[..at]).into_owned();
            self.pending.clear();
            return Streamed { text, stopped: true };
        }
        let certain = self.pending.len() - self.held_back();
        let ready: Vec<u8> = self.pending.drain(..certain).collect();
        Streamed { text: String::from_utf8_lossy(&ready).into_owned(), stopped: false }
    }

    /// What was held back, at the end of the text.
    pub fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.pending);
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Bytes at the end that may be the beginning of a stop string or of a character.
    fn held_back(&self) -> usize {
        let pending = &self.pending;
        let of_stop = |stop: &Vec<u8>| {
            (1..stop.len().min(pending.len() + 1)).rev().find(|length| pending.ends_with(&stop[..*length]))
        };
        let stop = self.stops.iter().filter_map(of_stop).max().unwrap_or(0);
        // The character that a held-back stop string cuts stays whole as well.
        stop + unfinished_character(&pending[..pending.len() - stop])
    }
}

/// Bytes at the end of which a character can still be made.
fn unfinished_character(bytes: &[u8]) -> usize {
    for length in 1..=3.min(bytes.len()) {
        let tail = &bytes[bytes.len() - length..];
        let needed = match tail[0] {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            // A byte inside of a character: look further back.
            0x80..=0xBF => continue,
            _ => return 0,
        };
        let open =
            length < needed && std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none());
        return if open { length } else { 0 };
    }
    0
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stream: &mut TextStream, pieces: &[&[u8]]) -> (String, bool) {
        let mut text = String::new();
        for piece in pieces {
            let streamed = stream.push(piece);
            text.push_str(&streamed.text);
            if streamed.stopped {
                return (text, true);
            }
        }
        text.push_str(&stream.finish());
        (text, false)
    }

    #[test]
    fn characters_stay_whole() {
        let mut stream = TextStream::new(&[]);
        assert_eq!(stream.push(b"a\xF0\x9F").text, "a");
        assert_eq!(stream.push(b"\x99").text, "");
        assert_eq!(stream.push(b"\x82b").text, "\u{1F642}b");
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        let mut stream = TextStream::new(&[]);
        assert_eq!(stream.push(b"\xFFa").text, "\u{FFFD}a");
        assert_eq!(stream.push(b"\x80\xC3").text, "\u{FFFD}");
        assert_eq!(stream.finish(), "\u{FFFD}");
    }

    #[test]
    fn stop_strings_across_tokens() {
        let mut stream = TextStream::new(&["END".into(), "\n\n".into()]);
        assert_eq!(run(&mut stream, &[b"one E", b"N", b"D two"]), ("one ".into(), true));
        let mut stream = TextStream::new(&["END".into()]);
        assert_eq!(run(&mut stream, &[b"E", b"NE", b"ND"]), ("EN".into(), true));
        let mut stream = TextStream::new(&["END".into()]);
        assert_eq!(run(&mut stream, &[b"EN", b"D"]), (String::new(), true));
        let mut stream = TextStream::new(&["END".into(), String::new()]);
        assert_eq!(run(&mut stream, &[b"EN", b"C"]), ("ENC".into(), false));
    }

    #[test]
    fn the_first_stop_string_wins() {
        let mut stream = TextStream::new(&["bc".into(), "b".into()]);
        assert_eq!(run(&mut stream, &[b"abcd"]), ("a".into(), true));
    }

    #[test]
    fn a_stop_string_may_cut_a_character() {
        // The stop string is a whole character whose first bytes another character shares.
        let mut stream = TextStream::new(&["\u{20AC}".into()]);
        assert_eq!(run(&mut stream, &[b"\xE2\x82", b"\xAD"]), ("\u{20AD}".into(), false));
        let mut stream = TextStream::new(&["\u{20AC}".into()]);
        assert_eq!(run(&mut stream, &[b"x\xE2\x82", b"\xACy"]), ("x".into(), true));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in "[a-c\u{e9}\u{20ac}\u{1F642}]{0,24}", stop in "[a-c\u{e9}]{1,3}", seed in 0usize..1000) {
            let bytes = text.as_bytes();
            let mut stream = TextStream::new(std::slice::from_ref(&stop));
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut at = 0;
            while at < bytes.len() {
                let end = (at + 1 + (seed * 7 + at * 13) % 4).min(bytes.len());
                pieces.push(&bytes[at..end]);
                at = end;
            }
            let expected = match text.find(&stop) {
                Some(at) => (text[..at].to_string(), true),
                None => (text.clone(), false),
            };
            prop_assert_eq!(run(&mut stream, &pieces), expected);
        }
    }
}
