//! Java's classes of characters, as they stand between brackets.

pub(super) const DIGIT: &str = "0-9";
pub(super) const WORD: &str = "a-zA-Z_0-9";
pub(super) const SPACE: &str = " \\t\\n\\x0B\\f\\r";
pub(super) const HORIZONTAL_SPACE: &str =
    " \\t\\x{a0}\\x{1680}\\x{180e}\\x{2000}-\\x{200a}\\x{202f}\\x{205f}\\x{3000}";
pub(super) const VERTICAL_SPACE: &str = "\\n\\x0B\\f\\r\\x{85}\\x{2028}\\x{2029}";

/// Names in `\p{…}` that Unicode does not have, or has with another meaning.
const NAMED: [(&str, &str); 30] = [
    ("Lower", "a-z"),
    ("Upper", "A-Z"),
    ("ASCII", "\\x00-\\x7F"),
    ("Alpha", "a-zA-Z"),
    ("Digit", "0-9"),
    ("Alnum", "a-zA-Z0-9"),
    ("Punct", "!-/:-@\\[-`\\{-\\x7E"),
    ("Graph", "!-\\x7E"),
    ("Print", " -\\x7E"),
    ("Blank", " \\t"),
    ("Cntrl", "\\x00-\\x1F\\x7F"),
    ("XDigit", "0-9a-fA-F"),
    ("Space", SPACE),
    ("L1", "\\x00-\\x{ff}"),
    ("javaLowerCase", "\\p{Lowercase}"),
    ("javaUpperCase", "\\p{Uppercase}"),
    ("javaTitleCase", "\\p{Lt}"),
    ("javaAlphabetic", "\\p{Alphabetic}"),
    ("javaLetter", "\\p{L}"),
    ("javaDigit", "\\p{Nd}"),
    ("javaLetterOrDigit", "\\p{L}\\p{Nd}"),
    ("javaSpaceChar", "\\p{Z}"),
    (
        "javaWhitespace",
        "\\t-\\r\\x1C-\\x20\\x{1680}\\x{2000}-\\x{2006}\\x{2008}-\\x{200a}\\x{2028}\\x{2029}\\x{205f}\\x{3000}",
    ),
    ("InBasicLatin", "\\x00-\\x7F"),
    ("InLatin-1Supplement", "\\x{80}-\\x{ff}"),
    ("InGreek", "\\x{370}-\\x{3ff}"),
    ("InCyrillic", "\\x{400}-\\x{4ff}"),
    ("InHebrew", "\\x{590}-\\x{5ff}"),
    ("InArabic", "\\x{600}-\\x{6ff}"),
    ("InCJKUnifiedIdeographs", "\\x{4e00}-\\x{9fff}"),
];

/// The characters that a name in `\p{…}` stands for.
pub(super) fn named(name: &str) -> String {
    match NAMED.iter().find(|(known, _)| *known == name) {
        Some((_, set)) => (*set).to_owned(),
        None => format!("\\p{{{}}}", name.strip_prefix("Is").unwrap_or(name)),
    }
}
