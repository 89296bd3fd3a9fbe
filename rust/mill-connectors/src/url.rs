//! Parts of URLs of servers.

/// A value of a URL without its escapes; `None` if it is not text.
pub(crate) fn unescaped(value: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), value.as_bytes());
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.map(|digits| u8::from_str_radix(digits, 16)) {
            Some(Ok(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// A text without these secrets.
pub(crate) fn without(secrets: &[String], text: &str) -> String {
    // A short one is in every text by chance, and nobody repeats it.
    let secrets = secrets.iter().filter(|secret| secret.len() >= 3);
    secrets.fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "…"))
}
