//! Where an object is: its store, its bucket, its key.

use std::path::{Path, PathBuf};

use mill_protocol::{Error, Result};

use crate::nearest::{did_you_mean, quoted};

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    S3,
    Gs,
    Az,
    Hdfs,
    Http,
    Https,
}

const SCHEMES: [(&str, Scheme); 6] = [
    ("s3", Scheme::S3),
    ("gs", Scheme::Gs),
    ("az", Scheme::Az),
    ("hdfs", Scheme::Hdfs),
    ("http", Scheme::Http),
    ("https", Scheme::Https),
];

/// An object, or what the keys of objects begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) scheme: Scheme,
    /// The bucket, or the host with its port, or the name of several NameNodes.
    pub(crate) bucket: String,
    /// As the store has it, without a slash at the front.
    pub(crate) key: String,
}

/// Whether a path names an object and not a file of this machine.
pub(crate) fn is_object(path: &Path) -> bool {
    path.to_str().is_some_and(|text| scheme_of(text).is_some())
}

/// Whether a path is a URL of a server of the web.
pub(crate) fn is_of_web(path: &Path) -> bool {
    path.to_str().and_then(scheme_of).is_some_and(|(scheme, _)| scheme.is_web())
}

fn scheme_of(text: &str) -> Option<(Scheme, &str)> {
    SCHEMES.iter().find_map(|(name, scheme)| Some((*scheme, text.strip_prefix(name)?.strip_prefix("://")?)))
}

impl Scheme {
    pub(crate) fn is_web(self) -> bool {
        matches!(self, Scheme::Http | Scheme::Https)
    }

    pub(crate) fn name(self) -> &'static str {
        SCHEMES.iter().find(|(_, scheme)| *scheme == self).map_or("", |(name, _)| name)
    }
}

impl Place {
    /// # Errors
    /// When the URL names no bucket, or has parts that no object has.
    pub(crate) fn of(path: &Path) -> Result<Place> {
        let text = path.to_string_lossy();
        let Some((scheme, rest)) = scheme_of(&text) else {
            let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
            let names = SCHEMES.map(|(name, _)| name);
            let near = did_you_mean(scheme, names.iter().copied());
            return Err(Error::plan(format!("{text:?}: there are no stores of the scheme {scheme:?}{near} (it is one of {})", quoted(&names, ", "))));
        };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let name = scheme.name();
        let has_user = bucket.contains('@') || (scheme.is_web() && bucket.contains(':') && key.contains('@'));
        if has_user {
            // The text may hold a password, so it is not shown.
            return Err(Error::plan(format!("a URL {name}://… has a user or password in it: give credentials with mill.storage() instead")));
        }
        if bucket.is_empty() {
            let what = if scheme.is_web() || scheme == Scheme::Hdfs { "host" } else { "bucket" };
            return Err(Error::plan(format!("{text:?} names no {what}: write {name}://{what}/path")));
        }
        if scheme.is_web() && key.contains(['?', '#']) {
            return Err(Error::plan(format!(
                "a URL {name}://{bucket}/… has a query, and queries are not supported: name the object by its path alone"
            )));
        }
        let key = if scheme.is_web() { decoded(key) } else { key.to_owned() };
        Ok(Place { scheme, bucket: bucket.to_owned(), key })
    }

    /// The bucket alone, as in `s3://bucket`.
    pub(crate) fn root(&self) -> String {
        format!("{}://{}", self.scheme.name(), self.bucket)
    }

    /// The path of an object of the same bucket.
    pub(crate) fn at(&self, key: &str) -> PathBuf {
        PathBuf::from(format!("{}/{key}", self.root()))
    }

    /// The key as the client takes it.
    pub(crate) fn location(&self) -> Result<object_store::path::Path> {
        location(&self.key)
            .map_err(|e| Error::plan(format!("{:?}: a key has no empty parts and none that are \".\" or \"..\": {e}", self.at(&self.key))))
    }
}

pub(crate) fn location(key: &str) -> std::result::Result<object_store::path::Path, object_store::path::Error> {
    object_store::path::Path::parse(key)
}

/// A text in which `%` and two hexadecimal digits are a byte; one that cannot be read so stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|digits| !digits.starts_with('+')).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}
