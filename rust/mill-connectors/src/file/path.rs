//! Which files a source reads.
//!
//! What is named may be a file, a glob, a directory (its files, and those of its directories only if that is asked for) or a
//! list of these. The files come sorted by name. In directories and globs, names that begin with `.` are not seen, as they are not
//! committed yet; in directories neither are those that begin with `_`.
//!
//! However a file is spelt, it is one file: its path is made absolute, without dots, and its directory without links. A link
//! to a file is opened under its own name, which says how the file is compressed, and known as the file it leads to.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use mill_protocol::{Error, Result};

use super::pipe::DASH;
use super::stamp::kind_if_irregular;
use crate::nearest::{nearest, quoted};
use crate::object::{self, is_object};

/// How globs are matched: `*` means neither a hidden name nor the end of a directory's.
const GLOB: glob::MatchOptions =
    glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
/// More files than this are refused: a job keeps a split for each.
const FILES_MAX: usize = 1_000_000;
/// At most this many names of a directory are compared with one that does not exist.
const NAMES_COMPARED_MAX: usize = 10_000;

/// What the user named: files, globs, directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathSpec {
    entries: Vec<String>,
    /// Whether the directories in a directory are looked into.
    is_recursive: bool,
}

impl PathSpec {
    /// These files, globs and directories.
    pub fn new(entries: impl IntoIterator<Item = impl Into<String>>) -> PathSpec {
        PathSpec { entries: entries.into_iter().map(Into::into).collect(), is_recursive: false }
    }

    /// Whether standard input is named.
    ///
    /// # Errors
    /// When something else is named too.
    pub(crate) fn is_pipe(&self, reader: &str) -> Result<bool> {
        let is_named = self.entries.iter().any(|entry| entry == DASH);
        if is_named && self.entries.len() > 1 {
            return Err(Error::plan(format!(
                "{reader}: \"-\" is standard input, which is read by itself: unite two streams with union(), or write \"./-\" for a file"
            )));
        }
        Ok(is_named)
    }

    /// The same, looking into the directories of a directory.
    #[must_use]
    pub(crate) fn recursive(mut self, is_recursive: bool) -> PathSpec {
        self.is_recursive = is_recursive;
        self
    }

    /// The files there are now, sorted by name, each once: a link to a file that is named too is left out.
    ///
    /// # Errors
    /// When something named does not exist. A glob or directory without files is an error too, unless more files may
    /// come (`is_followed`).
    pub(crate) fn files(&self, is_followed: bool) -> Result<Listing> {
        if self.entries.is_empty() {
            return Err(Error::connector("no path to read is given"));
        }
        let mut listing = Listing::default();
        for entry in &self.entries {
            let before = listing.files.len();
            if is_object(Path::new(entry)) {
                listing.files.extend(object::files_at(entry, self.is_recursive, is_followed)?);
                continue;
            }
            listing.add(entry, self.is_recursive)?;
            if listing.files.len() == before && !is_followed {
                return Err(nothing_in(entry));
            }
            if listing.files.len() > FILES_MAX {
                return Err(Error::connector(format!("{entry:?} has more than {FILES_MAX} files")));
            }
        }
        listing.sort();
        if !is_followed {
            listing.leave_out_links();
        }
        Ok(listing)
    }

    /// The same while files are followed: what is named need not exist for the moment, as between two steps of a rotation.
    ///
    /// # Errors
    /// When a directory cannot be listed.
    pub(crate) fn files_now(&self) -> Result<Vec<PathBuf>> {
        let mut listing = Listing::default();
        for entry in &self.entries {
            if is_object(Path::new(entry)) {
                listing.files.extend(object::files_at(entry, self.is_recursive, true)?);
                continue;
            }
            let is_absent = !is_glob(entry) && fs::symlink_metadata(entry).is_err_and(|e| e.kind() == ErrorKind::NotFound);
            if !is_absent {
                listing.add(entry, self.is_recursive)?;
            }
        }
        listing.sort();
        Ok(listing.files)
    }

    /// Whether there are objects of stores among them.
    pub(crate) fn has_objects(&self) -> bool {
        self.objects().next().is_some()
    }

    /// The first of them that a server of the web has, which does not say what it has.
    pub(crate) fn of_web(&self) -> Option<&str> {
        self.objects().find(|entry| object::is_of_web(Path::new(entry)))
    }

    /// Whether all of them are objects of stores.
    pub(crate) fn is_of_objects(&self) -> bool {
        self.objects().count() == self.entries.len()
    }

    fn objects(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(String::as_str).filter(|entry| is_object(Path::new(entry)))
    }

    /// What is named, however it is spelt.
    pub(crate) fn identity(&self) -> String {
        let mut entries: Vec<PathBuf> = self.entries.iter().map(|entry| real(Path::new(entry))).collect();
        entries.sort();
        entries.dedup();
        format!("{entries:?}")
    }

    /// Whether a file at this path is among those that are named, if it exists.
    pub(crate) fn has(&self, path: &Path) -> bool {
        if is_object(path) {
            return self.objects().any(|entry| object::is_named(entry, self.is_recursive, path));
        }
        let path = real(path);
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return false };
        let is_hidden = matches!(name.as_encoded_bytes().first(), Some(b'.' | b'_'));
        self.entries.iter().any(|entry| {
            let entry = real(Path::new(entry));
            entry == path
                || entry == directory && !is_hidden
                || self.is_recursive && is_below(&entry, &path)
                || is_matched(&entry, &path)
        })
    }
}

/// Files under the one path that every spelling of theirs leads to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listing {
    /// Absolute, each in its real directory, under its own name.
    pub(crate) files: Vec<PathBuf>,
    /// Those that are links, and the files that they lead to.
    pub(crate) links: HashMap<PathBuf, PathBuf>,
    places: Places,
}

impl Listing {
    fn add(&mut self, entry: &str, is_recursive: bool) -> Result<()> {
        let path = Path::new(entry);
        // A name with glob characters that exists as it stands is meant as it stands.
        if path.is_dir() {
            let mut directories = vec![real(path)];
            let mut seen = HashSet::new();
            while let Some(directory) = directories.pop() {
                // Links to directories may lead back up.
                if !seen.insert(directory.clone()) {
                    continue;
                }
                let entries = entries_in(&directory)?;
                for (file, is_link) in entries.files {
                    self.push(file, is_link);
                }
                if is_recursive {
                    directories.extend(entries.directories.iter().map(|directory| real(directory)));
                }
            }
            return Ok(());
        }
        for file in files_of(entry)? {
            let file = self.places.of(&file);
            let is_link = fs::symlink_metadata(&file).is_ok_and(|metadata| metadata.is_symlink());
            self.push(file, is_link);
        }
        Ok(())
    }

    fn push(&mut self, file: PathBuf, is_link: bool) {
        if is_link && let Ok(real) = fs::canonicalize(&file) {
            self.links.insert(file.clone(), real);
        }
        self.files.push(file);
    }

    fn sort(&mut self) {
        self.files.sort();
        self.files.dedup();
    }

    /// Leaves out links to files that are listed under another name.
    fn leave_out_links(&mut self) {
        if self.links.is_empty() {
            return;
        }
        let is_file = |file: &&PathBuf| !self.links.contains_key(*file);
        let mut seen: HashSet<PathBuf> = self.files.iter().filter(is_file).cloned().collect();
        self.files.retain(|file| self.links.get(file).is_none_or(|real| seen.insert(real.clone())));
    }
}

/// Finds the absolute path of a file in its real directory. Directories are remembered: lists may be long.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    directories: HashMap<PathBuf, PathBuf>,
}

impl Places {
    /// The path of this file, under its own name. It need not exist.
    pub(crate) fn of(&mut self, path: &Path) -> PathBuf {
        if is_object(path) {
            return path.to_owned();
        }
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return real(path) };
        match self.directories.get(directory) {
            Some(real) => real.join(name),
            None => {
                // No directory at all is the current one.
                let found = real(if directory.as_os_str().is_empty() { Path::new(".") } else { directory });
                self.directories.insert(directory.to_owned(), found.clone());
                found.join(name)
            }
        }
    }
}

/// The path without links and dots, as far as it exists.
pub(crate) fn real(path: &Path) -> PathBuf {
    if is_object(path) {
        return path.to_owned();
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut real = PathBuf::new();
    for component in absolute.components() {
        match component {
            // What comes before it has no links any more, so the way up is the one on paper.
            Component::ParentDir => {
                real.pop();
            }
            component => real.push(component),
        }
        real = fs::canonicalize(&real).unwrap_or(real);
    }
    real
}

/// Whether a path without links matches a glob, whose directories may be links.
fn is_matched(pattern: &Path, path: &Path) -> bool {
    let (Some(pattern_text), true) = (pattern.to_str(), is_glob(&pattern.to_string_lossy())) else { return false };
    let matches = |pattern: &str, path: &Path| glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches_path_with(path, GLOB));
    if matches(pattern_text, path) {
        return true;
    }
    let (Some(within), Some(last)) = (pattern.parent().and_then(Path::to_str), pattern.file_name().and_then(|last| last.to_str())) else {
        return false;
    };
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return false };
    is_glob(within)
        && last != "**"
        && matches(last, Path::new(name))
        && glob::glob_with(within, GLOB)
            .is_ok_and(|found| found.flatten().any(|found| fs::canonicalize(found).is_ok_and(|found| found == directory)))
}

impl From<&str> for PathSpec {
    fn from(entry: &str) -> PathSpec {
        PathSpec::new([entry])
    }
}

impl From<&Path> for PathSpec {
    fn from(entry: &Path) -> PathSpec {
        PathSpec::new([entry.to_string_lossy().into_owned()])
    }
}

impl std::fmt::Display for PathSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.entries.as_slice() {
            [entry] => write!(f, "{entry:?}"),
            entries => write!(f, "[{}]", quoted(entries, ", ")),
        }
    }
}

fn is_glob(entry: &str) -> bool {
    entry.contains(['*', '?', '['])
}

/// The files of what is no directory.
fn files_of(entry: &str) -> Result<Vec<PathBuf>> {
    let path = Path::new(entry);
    match fs::metadata(path) {
        Ok(metadata) => {
            return match kind_if_irregular(&metadata) {
                None => Ok(vec![path.to_owned()]),
                Some(kind) => Err(Error::connector(format!(
                    "{path:?} is {kind}, not a file; only files can be read again after a restart: write it to one first"
                ))),
            };
        }
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(Error::connector(format!("cannot look at {path:?}: {e}")).because(e));
        }
        Err(_) if !is_glob(entry) => return Err(missing(path)),
        Err(_) => {}
    }
    let matches = glob::glob_with(entry, GLOB)
        .map_err(|e| Error::connector(format!("{entry:?} is not a glob: {e}")))?;
    let mut files = Vec::new();
    for found in matches {
        let found = found.map_err(|e| Error::connector(format!("cannot list {entry:?}: {e}")))?;
        if found.is_file() {
            files.push(found);
        }
    }
    Ok(files)
}

/// What is in a directory.
#[derive(Default)]
struct Entries {
    /// The files, and whether each is a link.
    files: Vec<(PathBuf, bool)>,
    directories: Vec<PathBuf>,
}

/// The files of a directory, and whether each is a link.
fn files_in(directory: &Path) -> Result<Vec<(PathBuf, bool)>> {
    Ok(entries_in(directory)?.files)
}

fn entries_in(directory: &Path) -> Result<Entries> {
    let failed = |e: std::io::Error| Error::connector(format!("cannot list the directory {directory:?}: {e}")).because(e);
    let mut entries = Entries::default();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name.as_encoded_bytes().first().is_some_and(|first| matches!(first, b'.' | b'_')) {
            continue;
        }
        // The directory mostly says itself what an entry is; only links have to be followed.
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_file() || kind.is_symlink() && is_linked_file(&entry.path())? {
            entries.files.push((entry.path(), kind.is_symlink()));
        } else if kind.is_dir() || kind.is_symlink() && entry.path().is_dir() {
            entries.directories.push(entry.path());
        }
    }
    Ok(entries)
}

/// Whether a path is in a directory or in one below it, and no name on the way is hidden.
fn is_below(directory: &Path, path: &Path) -> bool {
    let is_hidden = |name: &std::ffi::OsStr| matches!(name.as_encoded_bytes().first(), Some(b'.' | b'_'));
    path.strip_prefix(directory).is_ok_and(|rest| rest.components().all(|component| !is_hidden(component.as_os_str())))
}

/// Whether a link leads to a file. One that leads nowhere is not passed over: its data would be missing without a word.
fn is_linked_file(link: &Path) -> Result<bool> {
    match fs::metadata(link) {
        Ok(metadata) => Ok(metadata.is_file()),
        // It may have been taken away in between.
        Err(_) if fs::symlink_metadata(link).is_err() => Ok(false),
        Err(e) => Err(Error::connector(format!("{link:?} is a link that cannot be followed: {e}")).because(e)),
    }
}

/// The error for a file or directory that does not exist, with the names it may have been meant to be.
pub(crate) fn missing(path: &Path) -> Error {
    if is_object(path) {
        return Error::connector(format!("there is no object {path:?}"));
    }
    let mut parent = path;
    let mut wanted = path.file_name();
    // Up to the deepest directory that exists: the first name below it is the one that is wrong.
    while let Some(up) = parent.parent() {
        wanted = parent.file_name();
        parent = up;
        if up.as_os_str().is_empty() || up.is_dir() {
            break;
        }
    }
    let directory = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let names: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .take(NAMES_COMPARED_MAX)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    let wanted = wanted.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let near = nearest(&wanted, names.iter().map(String::as_str));
    let hint = match (near.is_empty(), names.is_empty()) {
        (false, _) => format!("; {directory:?} has {}", quoted(&near, ", ")),
        (true, true) if directory.is_dir() => format!("; {directory:?} is empty"),
        (true, false) => {
            let mut sorted = names;
            sorted.sort();
            sorted.truncate(5);
            format!("; {directory:?} has {}", quoted(&sorted, ", "))
        }
        _ => String::new(),
    };
    Error::connector(format!("no such file or directory: {path:?}{hint}"))
}

fn nothing_in(entry: &str) -> Error {
    let path = Path::new(entry);
    if path.is_dir() {
        let mut directories: Vec<String> = fs::read_dir(path)
            .into_iter()
            .flatten()
            .take(NAMES_COMPARED_MAX)
            .filter_map(|found| found.ok().filter(|found| found.path().is_dir())?.file_name().into_string().ok())
            .filter(|name| !name.starts_with(['.', '_']))
            .collect();
        directories.sort();
        directories.truncate(3);
        let within = path.join("**").join("*");
        return Error::connector(match directories.is_empty() {
            true => format!("the directory {entry:?} has no files to read (names that begin with '.' or '_' do not count)"),
            false => format!(
                "the directory {entry:?} has no files to read, but directories ({}), which are not looked into; for the files \
                 in them write recursive=True, or {within:?}",
                quoted(&directories, ", ")
            ),
        });
    }
    // Of a glob, the fixed part before the first wildcard is what can be wrong about the directory.
    let fixed: PathBuf = path
        .components()
        .take_while(|component| !is_glob(&component.as_os_str().to_string_lossy()))
        .collect();
    if !fixed.as_os_str().is_empty() && !fixed.is_dir() {
        let error = missing(&fixed);
        return Error::connector(format!("no file matches {entry:?}: {}", error.message()));
    }
    let directory = if fixed.as_os_str().is_empty() { PathBuf::from(".") } else { fixed };
    let mut names: Vec<String> = files_in(&directory)
        .unwrap_or_default()
        .iter()
        .filter_map(|(path, _)| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    let pattern: String = path.file_name().map(|n| n.to_string_lossy().replace(['*', '?'], "")).unwrap_or_default();
    let near = nearest(&pattern, names.iter().map(String::as_str));
    let shown = if near.is_empty() { names.iter().map(String::as_str).take(5).collect() } else { near };
    let hint = if shown.is_empty() { "no files".to_owned() } else { quoted(&shown, ", ") };
    Error::connector(format!("no file matches {entry:?}; {directory:?} has {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b.txt", "a.txt", ".part-x.txt", "_SUCCESS", "c.csv"] {
            fs::write(directory.path().join(name), "x\n").unwrap();
        }
        fs::create_dir(directory.path().join("sub")).unwrap();
        directory
    }

    fn names(files: Vec<PathBuf>) -> Vec<String> {
        files.iter().map(|f| f.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn directories_globs_and_lists_are_sorted_and_hide_what_is_hidden() {
        let directory = directory();
        let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        assert_eq!(names(PathSpec::new([at("")]).files(false).unwrap().files), ["a.txt", "b.txt", "c.csv"]);
        assert_eq!(names(PathSpec::new([at("*.txt")]).files(false).unwrap().files), ["a.txt", "b.txt"]);
        assert_eq!(names(PathSpec::new([at("b.txt"), at("[ab].txt")]).files(false).unwrap().files), ["a.txt", "b.txt"]);
    }

    #[test]
    fn what_does_not_exist_is_named_with_what_does() {
        let directory = directory();
        let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        let message = |entry: String, is_followed| {
            PathSpec::new([entry]).files(is_followed).map(|found| found.files).map_err(|e| e.message().to_owned())
        };
        let error = message(at("aa.txt"), false).unwrap_err();
        assert!(error.contains("aa.txt") && error.contains("\"a.txt\""), "{error}");
        let error = message(at("sbu/x.txt"), false).unwrap_err();
        assert!(error.contains("\"sub\""), "{error}");
        let error = message(at("*.cvs"), false).unwrap_err();
        assert!(error.contains("\"c.csv\""), "{error}");
        let error = message(at("sub"), false).unwrap_err();
        assert!(error.contains("no files to read"), "{error}");
        assert!(message(at("sub"), true).unwrap().is_empty());
        fs::create_dir_all(directory.path().join("sub/year=2024")).unwrap();
        let error = message(at("sub"), false).unwrap_err();
        assert!(error.contains("\"year=2024\"") && error.contains("/**/*\""), "{error}");
        fs::write(directory.path().join("sub/year=2024/a.txt"), "x\n").unwrap();
        assert_eq!(names(PathSpec::new([at("sub/**/*")]).files(false).unwrap().files), ["a.txt"]);
        assert!(message(at("nowhere.txt"), true).is_err());
    }

    #[test]
    fn what_would_be_read_is_known_before_it_is_there() {
        let directory = directory();
        let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        std::os::unix::fs::symlink(directory.path().join("sub"), directory.path().join("link")).unwrap();
        let cases = [
            ("sub", "sub/part-1-0.csv", true),
            ("sub/../sub/.", "sub/part-1-0.csv", true),
            ("link", "sub/part-1-0.csv", true),
            ("sub", "link/part-1-0.csv", true),
            ("link/*.csv", "sub/part-1-0.csv", true),
            ("*/*.csv", "sub/part-1-0.csv", true),
            ("*/*.csv", "new/part-1-0.csv", true),
            ("l*k/*.csv", "sub/part-1-0.csv", true),
            ("**/*.csv", "sub/deep/part-1-0.csv", true),
            ("sub/part-1-0.csv", "sub/part-1-0.csv", true),
            ("", "part-1-0.csv", true),
            ("", "sub/part-1-0.csv", false),
            ("*.csv", "sub/part-1-0.csv", false),
            ("sub/*.parquet", "sub/part-1-0.csv", false),
            ("sub", "sub2/part-1-0.csv", false),
            ("sub/*.csv", "sub/.part-1-0.csv", false),
        ];
        for (entry, path, expected) in cases {
            let found = PathSpec::new([at("nowhere"), at(entry)]).has(Path::new(&at(path)));
            assert_eq!(found, expected, "{entry:?} and {path:?}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_by_its_kind() {
        let directory = directory();
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let looped = directory.path().join("loop");
        std::os::unix::fs::symlink(&looped, &looped).unwrap();
        for (path, expected) in
            [(socket.as_path(), "is a socket"), (Path::new("/dev/null"), "is a device"), (looped.as_path(), "cannot look at")]
        {
            let error = PathSpec::from(path).files(false).unwrap_err();
            assert!(error.message().contains(expected), "{error}");
        }
        let error = PathSpec::from(directory.path()).files(false).unwrap_err();
        assert!(error.message().contains("link that cannot be followed"), "{error}");
    }
}
