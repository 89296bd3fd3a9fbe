//! JSON values that are not lines: one after another, or the items of an array, however they are broken into lines.
//!
//! ```text
//!   [ {"a": 1,          array: the items are records; the reader passes `[`, and stops after an item only once it has seen
//!      "b": 2} ,        what follows it, so that an array that is cut off is told
//!     {"a": 3} ]
//! ```
//!
//! What is no JSON between two values cannot be skipped: what follows it might be a part of something else. It is an error
//! of the file.

use std::path::Path;

use memchr::memchr2;
use mill_protocol::{Error, Result};

use crate::file::{BYTE_ORDER_MARK, Content};

/// How the records of a file are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Lines,
    /// Values one after another.
    Values,
    /// The items of an array.
    Array,
}

/// Why an array has no end.
const CUT_OFF: &str = "the array is not closed: the file is cut off";
/// Why there is no value.
const NO_VALUE: &str = "there is no value where one should begin";

/// Looks at the start of a file: its layout, and the offset of its first record.
pub(super) fn layout_of(content: Content, format: super::JsonLayout) -> Result<(Layout, u64)> {
    if format == super::JsonLayout::Lines {
        return Ok((Layout::Lines, 0));
    }
    let path = content.path().to_owned();
    let mut start = Start { content, data: [0; 4096], at: 0, filled: 0, offset: 0 };
    start.pass_mark()?;
    let Some((b'[', bracket)) = start.next()? else {
        return Ok((if format == super::JsonLayout::Values { Layout::Values } else { Layout::Lines }, 0));
    };
    // Those who read the items may begin at any, and do not know that they are at the first.
    match start.next()? {
        None => Err(no_whole(&path, "the end", CUT_OFF)),
        Some((b',', _)) => Err(no_whole(&path, "\",\"", NO_VALUE)),
        Some(_) => Ok((Layout::Array, bracket + 1)),
    }
}

/// A file that is not JSON from here on.
pub(super) fn no_whole(path: &Path, near: &str, why: &str) -> Error {
    Error::data(format!("{path:?} {}", no_whole_at(near, why)))
}

/// The same without the name of the file.
pub(super) fn no_whole_at(near: &str, why: &str) -> String {
    format!("is no whole JSON, at {near}: {why}")
}

/// The start of a file.
struct Start {
    content: Content,
    data: [u8; 4096],
    at: usize,
    filled: usize,
    /// Where the data begins in the file.
    offset: u64,
}

impl Start {
    /// Passes over a byte order mark.
    fn pass_mark(&mut self) -> Result<()> {
        while self.filled < BYTE_ORDER_MARK.len() {
            match self.content.read(&mut self.data[self.filled..])? {
                0 => break,
                bytes => self.filled += bytes,
            }
        }
        if self.data[..self.filled].starts_with(BYTE_ORDER_MARK) {
            self.at = BYTE_ORDER_MARK.len();
        }
        Ok(())
    }

    /// The next byte that is no space, and its offset.
    fn next(&mut self) -> Result<Option<(u8, u64)>> {
        loop {
            if let Some(spaces) = self.data[self.at..self.filled].iter().position(|byte| !byte.is_ascii_whitespace()) {
                let at = self.at + spaces;
                self.at = at + 1;
                return Ok(Some((self.data[at], self.offset + at as u64)));
            }
            self.offset += self.filled as u64;
            (self.at, self.filled) = (0, self.content.read(&mut self.data)?);
            if self.filled == 0 {
                return Ok(None);
            }
        }
    }
}

/// What was cut off the front of data.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    /// Where values begin and end.
    pub(super) values: Vec<(usize, usize)>,
    /// How many bytes are done with.
    pub(super) bytes: usize,
    /// Whether the array has been closed.
    pub(super) is_closed: bool,
}

/// Cuts complete values off the front of `data`, at most `rows_max`; with `is_last` nothing follows it. `after_value` says
/// whether a value was read before.
///
/// # Errors
/// Where what follows is no JSON, and why.
pub(super) fn cut(
    data: &[u8],
    layout: Layout,
    mut after_value: bool,
    is_last: bool,
    rows_max: usize,
) -> std::result::Result<Cut, (usize, &'static str)> {
    let is_array = layout == Layout::Array;
    let mut cut = Cut::default();
    let spaces = |at: usize| data[at..].iter().position(|byte| !byte.is_ascii_whitespace()).map(|spaces| at + spaces);
    let mut at = 0;
    while cut.values.len() < rows_max {
        let Some(mut start) = spaces(at) else {
            return match is_array && is_last {
                true => Err((data.len(), CUT_OFF)),
                false => {
                    cut.bytes = if is_array { cut.bytes } else { data.len() };
                    Ok(cut)
                }
            };
        };
        if is_array {
            if data[start] == b']' {
                if spaces(start + 1).is_some() {
                    return Err((start + 1, "there is text after the end of the array"));
                }
                cut.is_closed = true;
                cut.bytes = data.len();
                return Ok(cut);
            }
            // A reader that begins amid an array does not know what was before.
            if data[start] == b',' {
                match spaces(start + 1) {
                    Some(next) => start = next,
                    None if is_last => return Err((data.len(), CUT_OFF)),
                    None => return Ok(cut),
                }
            } else if after_value {
                return Err((start, "there is no comma between two items of the array"));
            }
        }
        match value_end(data, start, is_last)? {
            // What follows an item of an array says whether there is another.
            Some(end) if !is_array || spaces(end).is_some() => {
                cut.values.push((start, end));
                (at, cut.bytes) = (end, end);
                after_value = true;
            }
            Some(_) | None if is_last => {
                let why = if is_array { CUT_OFF } else { "the file ends within a value" };
                return Err((start, why));
            }
            Some(_) | None => return Ok(cut),
        }
    }
    Ok(cut)
}

/// Where the value that begins at `start` ends; `None` if that is not in the data.
fn value_end(data: &[u8], start: usize, is_last: bool) -> std::result::Result<Option<usize>, (usize, &'static str)> {
    match data[start] {
        b'"' => Ok(string_end(data, start)),
        b'{' | b'[' => {
            let (mut at, mut depth) = (start, 0_usize);
            while at < data.len() {
                match data[at] {
                    b'"' => match string_end(data, at) {
                        Some(end) => at = end - 1,
                        None => return Ok(None),
                    },
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Ok(Some(at + 1));
                        }
                    }
                    _ => {}
                }
                at += 1;
            }
            Ok(None)
        }
        byte if byte.is_ascii_alphanumeric() || byte == b'-' => {
            let is_within = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
            let end = data[start..].iter().position(|byte| !is_within(byte)).map(|bytes| start + bytes);
            Ok(end.or(is_last.then_some(data.len())))
        }
        _ => Err((start, NO_VALUE)),
    }
}

/// Where the string that begins at `start` ends.
fn string_end(data: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at += memchr2(b'"', b'\\', data.get(at..)?)?;
        if data[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(data: &str, layout: Layout, is_last: bool) -> std::result::Result<(Vec<&str>, usize), &'static str> {
        let cut = cut(data.as_bytes(), layout, false, is_last, usize::MAX).map_err(|(_, why)| why)?;
        Ok((cut.values.iter().map(|&(start, end)| &data[start..end]).collect(), cut.bytes))
    }

    #[test]
    fn values_are_cut_whatever_their_line_breaks() {
        let data = "{\"a\": \"}]\\\"\",\n\"b\": [{}]}\n\n{} 12 \"x\"";
        let values = ["{\"a\": \"}]\\\"\",\n\"b\": [{}]}", "{}", "12", "\"x\""];
        assert_eq!(texts(data, Layout::Values, true), Ok((values.to_vec(), data.len())));
        assert_eq!(texts("{} {\"a", Layout::Values, false), Ok((vec!["{}"], 2)));
        assert_eq!(texts("{} {\"a", Layout::Values, true), Err("the file ends within a value"));
        assert_eq!(texts("{} }", Layout::Values, true), Err("there is no value where one should begin"));
        assert_eq!(texts("1", Layout::Values, false), Ok((vec![], 0)));
    }

    #[test]
    fn an_array_is_whole_or_told() {
        let whole = " {\"a\":1} ,\n{\"a\":[2,3]}\n]\n";
        assert_eq!(texts(whole, Layout::Array, true), Ok((vec!["{\"a\":1}", "{\"a\":[2,3]}"], whole.len())));
        assert_eq!(texts("]", Layout::Array, true), Ok((vec![], 1)));
        for end in 1..whole.trim_end().len() {
            let error = texts(&whole[..end], Layout::Array, true).unwrap_err();
            assert!(error.contains("cut off"), "{end}: {error}");
            let (values, bytes) = texts(&whole[..end], Layout::Array, false).unwrap();
            assert!(bytes <= end && values.len() <= 2);
        }
        assert_eq!(texts("{} {}]", Layout::Array, true), Err("there is no comma between two items of the array"));
        assert_eq!(texts("{}] x", Layout::Array, true), Err("there is text after the end of the array"));
    }
}
