//! C++ identifiers for the names of a model.

/// Words that are no identifiers in C++, and names that the generated code uses itself.
const RESERVED: &[&str] = &[
    "and",
    "asm",
    "auto",
    "bool",
    "break",
    "case",
    "catch",
    "char",
    "class",
    "const",
    "continue",
    "default",
    "delete",
    "do",
    "double",
    "else",
    "enum",
    "exp",
    "explicit",
    "extern",
    "false",
    "float",
    "for",
    "friend",
    "goto",
    "if",
    "inline",
    "int",
    "larger",
    "log",
    "long",
    "lookup",
    "magnitude",
    "main",
    "modulo",
    "namespace",
    "new",
    "not",
    "operator",
    "or",
    "private",
    "protected",
    "public",
    "quotient",
    "register",
    "return",
    "scalar",
    "short",
    "sigmoid",
    "sign",
    "signed",
    "sizeof",
    "smaller",
    "static",
    "struct",
    "sum_t",
    "switch",
    "template",
    "this",
    "throw",
    "true",
    "try",
    "typedef",
    "union",
    "unsigned",
    "using",
    "value_t",
    "virtual",
    "void",
    "volatile",
    "while",
    "xor",
];

/// Longest identifier: names of fused layers would be too long for files.
const LONGEST: usize = 48;

/// The name with other characters than letters, digits and underscores replaced; never empty, reserved or led by a digit, and
/// cut to 48 characters.
pub fn identifier(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        let keeps = character.is_ascii_alphanumeric() || (character == '_' && !text.ends_with('_'));
        if keeps {
            text.push(character);
        } else if !text.ends_with('_') && !text.is_empty() {
            text.push('_');
        }
    }
    // All characters are ASCII now.
    text.truncate(LONGEST);
    let text = text.trim_matches('_');
    if text.is_empty() {
        "x".to_string()
    } else if text.starts_with(|first: char| first.is_ascii_digit()) || RESERVED.contains(&text) {
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
