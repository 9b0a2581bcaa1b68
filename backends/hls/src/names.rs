//! C++ identifiers for the names of a model.

use tcc_kernel::identifier::{is_keyword, plain};

/// Names that the generated code uses itself.
const RESERVED: &[&str] = &[
    "duplicate",
    "exp",
    "forward",
    "larger",
    "load",
    "log",
    "lookup",
    "magnitude",
    "modulo",
    "quotient",
    "scalar",
    "sigmoid",
    "sign",
    "smaller",
    "store",
    "top",
];

/// Longest identifier: names of fused layers would be too long for files.
const LONGEST: usize = 48;

/// The name with other characters than letters, digits and underscores replaced; never empty, reserved or led by a digit, and
/// cut to 48 characters.
pub fn identifier(name: &str) -> String {
    let mut text = plain(name, "");
    while text.contains("__") {
        text = text.replace("__", "_");
    }
    let text = text.trim_start_matches('_');
    // All characters are ASCII now.
    let text = text[..text.len().min(LONGEST)].trim_end_matches('_');
    if text.is_empty() {
        "x".to_string()
    } else if text.starts_with(|first: char| first.is_ascii_digit())
        || is_keyword(text)
        || RESERVED.contains(&text)
    {
        format!("n_{text}")
    } else {
        text.to_string()
    }
}

/// The name as an identifier that `taken` does not have.
pub fn distinct(name: &str, taken: &dyn Fn(&str) -> bool) -> String {
    let base = identifier(name);
    if !taken(&base) {
        return base;
    }
    let mut number = 2u64;
    loop {
        let candidate = format!("{base}_{number}");
        if !taken(&candidate) {
            return candidate;
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_identifiers() {
        for (name, expected) in [
            ("/model/fc1/Gemm", "model_fc1_Gemm"),
            ("for", "n_for"),
            ("1x", "n_1x"),
            ("é", "x"),
            ("a__b", "a_b"),
            ("", "x"),
        ] {
            assert_eq!(identifier(name), expected, "{name}");
        }
        assert_eq!(identifier(&"ab".repeat(200)).len(), LONGEST);
        assert_eq!(distinct("a", &|name| name == "a" || name == "a_2"), "a_3");
    }
}
