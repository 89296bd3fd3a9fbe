//! Numbers and articles in messages.

use std::fmt::Display;

/// A number of things, in the plural but for one; the plural is the noun with an `s`.
///
/// ```
/// use mill_frame::words::counted;
/// assert_eq!((counted(1, "field"), counted(0, "row")), ("1 field".to_owned(), "0 rows".to_owned()));
/// ```
pub fn counted(number: impl Display, noun: &str) -> String {
    let number = number.to_string();
    let plural = if number == "1" { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// A noun with its article: by its first letter, which is right for the names of types and of other things in messages.
///
/// ```
/// use mill_frame::words::with_article;
/// assert_eq!((with_article("int64"), with_article("list<str>")), ("an int64".to_owned(), "a list<str>".to_owned()));
/// assert_eq!(with_article("uint8"), "a uint8");
/// ```
pub fn with_article(noun: impl Display) -> String {
    let noun = noun.to_string();
    let is_vowel = noun.starts_with(['a', 'e', 'i', 'o', 'A', 'E', 'I', 'O']) || noun.starts_with("un") && !noun.starts_with("uni");
    format!("{} {noun}", if is_vowel { "an" } else { "a" })
}
