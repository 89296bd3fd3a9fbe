//! A way to a value within a JSON text: `$.user.tags[0]`.
//!
//! Of JSONPath (RFC 9535) it has what names one value: keys and places. What finds several values (`*`, `..`, slices,
//! filters) is refused.

use super::scan::{Fault, Kind, Scanner, Value, text_of};

/// A way to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    /// Counted from the end if it is negative.
    Item(i64),
}

impl Path {
    /// Reads `$.user['first name'].tags[-1]`.
    ///
    /// # Errors
    /// Why it is none.
    ///
    /// # Examples
    /// ```
    /// use mill_frame::json::Path;
    ///
    /// assert!(Path::new("$.user.tags[0]").is_ok());
    /// assert!(Path::new("$.users[*].name").unwrap_err().contains("several values"));
    /// ```
    pub fn new(text: &str) -> Result<Path, String> {
        let mut rest = text.strip_prefix('$').ok_or("it begins with $, the whole value")?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if rest.starts_with("..") || rest.starts_with(".*") {
                return Err(SEVERAL.to_owned());
            }
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let key = &after[..end];
                let is_name = |c: char| c == '_' || c.is_ascii_alphanumeric() || !c.is_ascii();
                if key.is_empty() || key.starts_with(|c: char| c.is_ascii_digit()) || !key.chars().all(is_name) {
                    return Err(format!("{key:?} after a dot is no name; write it as [{}]", quoted(key)));
                }
                steps.push(Step::Key(key.to_owned()));
                rest = &after[end..];
                continue;
            }
            let after = rest.strip_prefix('[').ok_or_else(|| format!("a dot or [ is expected at {rest:?}"))?;
            let (step, after) = match after.chars().next() {
                Some(quote @ ('\'' | '"')) => {
                    let (key, after) = key_in(quote, &after[1..]).ok_or("a name in quotes is not closed")?;
                    (Step::Key(key), after)
                }
                _ => {
                    let end = after.find(']').ok_or("a [ is not closed")?;
                    let place = &after[..end];
                    if place == "*" || place.contains([':', ',', '?']) {
                        return Err(SEVERAL.to_owned());
                    }
                    let item = place.parse().map_err(|_| format!("[{place}] is neither a number nor a name in quotes"))?;
                    (Step::Item(item), &after[end..])
                }
            };
            steps.push(step);
            rest = after.strip_prefix(']').ok_or("a [ is not closed")?;
        }
        Ok(Path { steps })
    }

    /// Finds the value in a text, which is one JSON value as a whole; of a key that an object has twice, the last. A null is
    /// none.
    ///
    /// # Errors
    /// When the text is not JSON.
    ///
    /// # Examples
    /// ```
    /// use mill_frame::json::Path;
    ///
    /// let path = Path::new("$.user.tags[-1]").unwrap();
    /// let text = br#"{"user": {"tags": ["a", "b"]}}"#;
    /// assert_eq!(path.find(text).unwrap().unwrap().bytes(text), b"b");
    /// assert_eq!(path.find(b"{}"), Ok(None));
    /// assert!(path.find(b"{").is_err());
    /// ```
    pub fn find(&self, text: &[u8]) -> Result<Option<Value>, Fault> {
        let mut scanner = Scanner::new(text, 0);
        let mut value = scanner.value(0)?;
        if !scanner.is_at_end() {
            return Err(Fault::At(scanner.at));
        }
        for step in &self.steps {
            let mut scanner = Scanner::new(&text[..value.end as usize], value.start as usize);
            let mut found = None;
            match (step, value.kind) {
                (Step::Key(wanted), Kind::Object) => scanner.object::<Fault>(0, |key, value| {
                    let is_it = match key.kind {
                        Kind::Escaped => text_of(key, text) == *wanted,
                        _ => key.bytes(text) == wanted.as_bytes(),
                    };
                    if is_it {
                        found = Some(value);
                    }
                    Ok(())
                })?,
                (Step::Item(wanted), Kind::List) => {
                    // Counted from the front; how many there are has to be known only where it is counted from the end.
                    let at = if *wanted < 0 { items(scanner.clone())? + wanted } else { *wanted };
                    let mut place = 0;
                    scanner.list::<Fault>(0, |item| {
                        if place == at {
                            found = Some(item);
                        }
                        place += 1;
                        Ok(())
                    })?;
                }
                _ => {}
            }
            let Some(next) = found else { return Ok(None) };
            value = next;
        }
        Ok((value.kind != Kind::Null).then_some(value))
    }
}

/// How many items a list has.
fn items(mut scanner: Scanner<'_>) -> Result<i64, Fault> {
    let mut count = 0;
    scanner.list::<Fault>(0, |_| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

const SEVERAL: &str = "*, .., slices and filters find several values; decode the text as a list instead";

/// A name in quotes that ends at the next such quote, and what follows it. A backslash keeps the character after it.
fn key_in(quote: char, text: &str) -> Option<(String, &str)> {
    let mut key = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => key.push(characters.next()?.1),
            _ if character == quote => return Some((key, &text[at + character.len_utf8()..])),
            _ => key.push(character),
        }
    }
    None
}

fn quoted(key: &str) -> String {
    format!("'{}'", key.replace('\\', "\\\\").replace('\'', "\\'"))
}
