//! Which objects a URL names: one, those that match a glob, those below a prefix.
//!
//! A key that ends with `/` is a directory: the objects directly below it, or at any depth if that is asked for. Names that begin
//! with `.` or `_` are not seen in directories, as with files; a glob sees none that begin with `.`.

use std::path::{Path, PathBuf};

use mill_protocol::{Error, Result};
use object_store::ObjectMeta;

use super::bucket::Bucket;
use super::place::Place;
use super::spooled::{Meta, remember};

const GLOB: glob::MatchOptions =
    glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
/// So many names are shown where one is not found.
const NAMES_SHOWN: usize = 5;

fn is_glob(key: &str) -> bool {
    key.contains(['*', '?', '['])
}

/// Where the part of a key ends that no glob character changes: after a slash.
fn fixed(key: &str) -> &str {
    let first = key.find(['*', '?', '[']).unwrap_or(key.len());
    key[..first].rfind('/').map_or("", |at| &key[..=at])
}

/// The objects that a URL names; none is an error unless more may come.
///
/// # Errors
/// When there is none, or the store refuses.
pub(crate) fn files_at(entry: &str, is_recursive: bool, may_be_none: bool) -> Result<Vec<PathBuf>> {
    let place = Place::of(Path::new(entry))?;
    let bucket = Bucket::of(&place)?;
    if place.scheme.is_web() {
        return one_of_web(entry, &place, &bucket);
    }
    let key = place.key.as_str();
    let mut found = if is_glob(key) {
        let pattern = glob::Pattern::new(key).map_err(|e| Error::connector(format!("{entry:?} is not a glob: {e}")))?;
        let mut found = bucket.list(fixed(key), None)?;
        found.retain(|object| pattern.matches_with(object.location.as_ref(), GLOB));
        found
    } else if key.is_empty() || key.ends_with('/') {
        below(&bucket, key, is_recursive)?
    } else {
        match bucket.look(&place.location()?, true, None)? {
            Some(object) => vec![object],
            None => below(&bucket, &format!("{key}/"), is_recursive)?,
        }
    };
    // Some programs make an object of no bytes for a directory.
    let directory = key.trim_end_matches('/');
    found.retain(|object| !(object.size == 0 && (object.location.as_ref() == directory && key.ends_with('/'))));
    if found.is_empty() && !may_be_none {
        return Err(nothing(entry, key, &bucket));
    }
    let mut paths = Vec::with_capacity(found.len());
    for object in found {
        let path = place.at(object.location.as_ref());
        remember(&path, Meta::of(&object));
        paths.push(path);
    }
    paths.sort();
    Ok(paths)
}

fn one_of_web(entry: &str, place: &Place, bucket: &Bucket) -> Result<Vec<PathBuf>> {
    if place.key.is_empty() || place.key.ends_with('/') || place.key.contains('*') {
        return Err(Error::plan(format!("{entry:?}: a server of the web does not say what it has: name each object, in a list if they are several")));
    }
    match bucket.look(&place.location()?, true, None)? {
        Some(object) => {
            let path = PathBuf::from(entry);
            remember(&path, Meta::of(&object));
            Ok(vec![path])
        }
        None => Err(Error::connector(format!("{entry:?} is not there"))),
    }
}

/// The objects below a prefix that are to be read.
fn below(bucket: &Bucket, prefix: &str, is_recursive: bool) -> Result<Vec<ObjectMeta>> {
    let mut found = if is_recursive { bucket.list(prefix, None)? } else { bucket.list_level(prefix, None)?.0 };
    found.retain(|object| is_seen(prefix, object.location.as_ref()));
    Ok(found)
}

/// Whether no part of a key below a prefix is hidden.
fn is_seen(prefix: &str, key: &str) -> bool {
    key.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.split('/').all(|part| !part.starts_with(['.', '_'])))
}

/// The error for a URL that names no object, with what there is nearby.
fn nothing(entry: &str, key: &str, bucket: &Bucket) -> Error {
    let up = match is_glob(key) {
        true => fixed(key),
        false => key.trim_end_matches('/').rfind('/').map_or("", |at| &key[..=at]),
    };
    let what = match (is_glob(key), key.is_empty() || key.ends_with('/')) {
        (true, _) => format!("no object matches {entry:?}"),
        (_, true) => format!("{entry:?} has no objects to read (names that begin with '.' or '_' do not count)"),
        _ => format!("there is no object {entry:?}, and none below it"),
    };
    let (objects, prefixes) = match bucket.list_level(up, None) {
        Ok(found) => found,
        Err(error) => return error,
    };
    let mut names: Vec<String> = objects.iter().map(|object| object.location.to_string()).collect();
    names.extend(prefixes.iter().map(|prefix| format!("{prefix}/")));
    let place = |name: &String| format!("{}/{name}", bucket.root());
    let names: Vec<String> = names.iter().map(place).collect();
    let near = crate::nearest::nearest(entry, names.iter().map(String::as_str));
    let shown: Vec<&str> = if near.is_empty() { names.iter().map(String::as_str).take(NAMES_SHOWN).collect() } else { near };
    let hint = if shown.is_empty() { String::new() } else { format!("; there are {}", crate::nearest::quoted(&shown, ", ")) };
    Error::connector(format!("{what}{hint}"))
}

/// Whether a URL names an object at this path, if it exists.
pub(crate) fn is_named(entry: &str, is_recursive: bool, path: &Path) -> bool {
    let (Ok(entry), Ok(place)) = (Place::of(Path::new(entry)), Place::of(path)) else { return false };
    if entry.root() != place.root() {
        return false;
    }
    let (named, key) = (entry.key.as_str(), place.key.as_str());
    if is_glob(named) && glob::Pattern::new(named).is_ok_and(|pattern| pattern.matches_with(key, GLOB)) {
        return true;
    }
    let prefix = if named.is_empty() || named.ends_with('/') { named.to_owned() } else { format!("{named}/") };
    let is_below = is_seen(&prefix, key) && (is_recursive || key.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/')));
    named == key || is_below
}
