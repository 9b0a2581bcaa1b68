//! Identifiers of C and C++ for names of a model, which are any text.

/// Words that are no identifiers in C or in C++, and `main`.
const KEYWORDS: &[&str] = &[
    "alignas",
    "alignof",
    "and",
    "and_eq",
    "asm",
    "auto",
    "bitand",
    "bitor",
    "bool",
    "break",
    "case",
    "catch",
    "char",
    "char16_t",
    "char32_t",
    "char8_t",
    "class",
    "co_await",
    "co_return",
    "co_yield",
    "compl",
    "concept",
    "const",
    "const_cast",
    "consteval",
    "constexpr",
    "constinit",
    "continue",
    "decltype",
    "default",
    "delete",
    "do",
    "double",
    "dynamic_cast",
    "else",
    "enum",
    "explicit",
    "export",
    "extern",
    "false",
    "float",
    "for",
    "friend",
    "goto",
    "if",
    "inline",
    "int",
    "long",
    "main",
    "mutable",
    "namespace",
    "new",
    "noexcept",
    "not",
    "not_eq",
    "nullptr",
    "operator",
    "or",
    "or_eq",
    "private",
    "protected",
    "public",
    "register",
    "reinterpret_cast",
    "requires",
    "restrict",
    "return",
    "short",
    "signed",
    "sizeof",
    "static",
    "static_assert",
    "static_cast",
    "struct",
    "switch",
    "template",
    "this",
    "thread_local",
    "throw",
    "true",
    "try",
    "typedef",
    "typeid",
    "typename",
    "typeof",
    "union",
    "unsigned",
    "using",
    "virtual",
    "void",
    "volatile",
    "wchar_t",
    "while",
    "xor",
    "xor_eq",
];

/// The text with everything but letters, digits and underscores replaced, and `lead` in front where it does not start with a
/// letter: names that start with an underscore belong to the implementation. It may be a keyword.
pub fn plain(text: &str, lead: &str) -> String {
    let identifier: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    match identifier.starts_with(|c: char| c.is_ascii_alphabetic()) {
        true => identifier,
        false => format!("{lead}{identifier}"),
    }
}

/// True for a word that cannot name anything in C or in C++.
pub fn is_keyword(word: &str) -> bool {
    KEYWORDS.binary_search(&word).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_identifiers() {
        for (text, expected) in [("a/b:0", "a_b_0"), ("8bit", "m8bit"), ("_x", "m_x"), ("", "m"), ("é", "m_")]
        {
            assert_eq!(plain(text, "m"), expected, "{text}");
        }
    }

    #[test]
    fn keywords_are_sorted_and_found() {
        assert!(KEYWORDS.is_sorted());
        assert!(is_keyword("for") && is_keyword("template") && !is_keyword("input"));
    }
}
