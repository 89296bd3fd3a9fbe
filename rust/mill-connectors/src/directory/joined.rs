//! One file, written as parts that are joined at the end.
//!
//! ```text
//!   write, commit    .x.csv.parts/part-<epoch>-0.csv       as in any directory: see the module above
//!   the last commit  .x.csv.parts/joined ─► x.csv          one part: the part itself is renamed
//!                    .x.csv.parts ─► .x.csv.done, removed
//! ```
//!
//! So the file is not there before the end of the input, and then it is complete. A crash before the rename leaves the parts,
//! which the next run joins. One after it leaves parts too, and joining them makes the same file again; they are given up in
//! one step, by the name of their directory, so they are there as a whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use mill_protocol::{Error, Result};

use super::options::Compressed;
use super::output::Output;
use super::{FileFormat, OnExisting, Shared, name, parquet, sync_directory};
use crate::file::Content;

/// What says beside the parts what form they have.
const FORM: &str = ".form";
/// How much is copied at once.
const COPY_BYTES: usize = 256 << 10;

/// Endings of compressed files, of which two are written.
const COMPRESSED: [&str; 10] = ["gz", "zst", "gzip", "zstd", "bz2", "xz", "lz4", "br", "sz", "zip"];
/// Endings of formats that are not written.
const OTHERS: [&str; 8] = ["arrow", "avro", "feather", "ipc", "orc", "xls", "xlsx", "xml"];

/// The endings of files of a format.
fn endings(format: FileFormat) -> &'static [&'static str] {
    match format {
        FileFormat::Csv => &["csv", "tsv", "txt"],
        FileFormat::Json => &["json", "jsonl", "ndjson"],
        FileFormat::Parquet => &["parquet", "pq"],
    }
}

/// The ending of the name of a file, and the one before that; `None` where the path is that of a directory.
fn endings_of(path: &Path) -> Option<(&str, &str)> {
    let text = path.as_os_str().to_str()?;
    if text.ends_with('/') || path.is_dir() {
        return None;
    }
    let last = path.extension()?.to_str()?;
    let stem = Path::new(path.file_stem()?);
    Some((last, stem.extension().and_then(|ending| ending.to_str()).unwrap_or("")))
}

/// Whether a path names one file of this format, and then how its name says that it is compressed.
pub(super) fn names_file(path: &Path, format: FileFormat) -> Option<&'static str> {
    let (last, before) = endings_of(path)?;
    let (ending, compression) = match last {
        "gz" => (before, "gzip"),
        "zst" => (before, "zstd"),
        _ => (last, "uncompressed"),
    };
    endings(format).contains(&ending).then_some(compression)
}

/// Refuses a path whose ending promises a file that would not be written: of another format, compressed in another way, or with
/// tabs between fields. Any other ending, such as that of `v1.2`, is part of the name of a directory.
pub(super) fn check_ending(path: &Path, format: FileFormat, separator: u8) -> Result<()> {
    let Some((last, before)) = endings_of(path) else { return Ok(()) };
    let own = format.extension();
    let refused = |what: &str, instead: &str| {
        Err(Error::plan(format!(
            "write_{own}: {path:?} has the ending of {what}: {instead}, or end the path with \"/\" if it is to be a directory"
        )))
    };
    let (last, before) = (last.to_ascii_lowercase(), before.to_ascii_lowercase());
    let is_compressed = COMPRESSED.contains(&last.as_str());
    if is_compressed && format == FileFormat::Parquet {
        return refused("a compressed file", "Parquet is compressed inside, so write \".parquet\" and compression=…");
    }
    if names_file(path, format).is_some() {
        let is_tsv = (if is_compressed { &before } else { &last }) == "tsv";
        return match is_tsv && separator != b'\t' {
            true => refused("a file with tabs between its fields", "pass separator=\"\\t\", or write \".csv\""),
            false => Ok(()),
        };
    }
    if is_compressed {
        return refused(
            "a compressed file of a kind that is not written",
            &format!("write \".{own}\", \".{own}.gz\" or \".{own}.zst\""),
        );
    }
    for other in [FileFormat::Csv, FileFormat::Json, FileFormat::Parquet] {
        if endings(other).contains(&last.as_str()) {
            let other = other.extension();
            return match other == own {
                true => refused("a file in capitals", &format!("write \".{last}\"")),
                false => refused("another format", &format!("write \".{own}\", or call write_{other}()")),
            };
        }
    }
    if OTHERS.contains(&last.as_str()) {
        return refused("another format, which is not written", &format!("write \".{own}\""));
    }
    Ok(())
}

/// The directory that the parts of a file are written into.
pub(crate) fn parts_of(path: &Path) -> PathBuf {
    beside(path, "parts")
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}"))
}

fn failed(doing: &str, path: &Path, e: io::Error) -> Error {
    Error::connector(format!("cannot {doing} {path:?}: {e}")).because(e)
}

/// The directory that a file is in.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Shared {
    /// What all parts of one file have in common: another form or other columns would not be one file.
    fn form(&self) -> String {
        let columns = self.columns.get().map_or("", String::as_str);
        format!("{}{}, columns {columns}\n", self.extension, self.options.text())
    }

    /// Notes the form of the parts beside them.
    pub(super) fn begin_parts(&self) -> Result<()> {
        if self.joined.is_none() {
            return Ok(());
        }
        let path = self.directory.join(FORM);
        let mut file = File::create(&path).map_err(|e| failed("create", &path, e))?;
        file.write_all(self.form().as_bytes()).and_then(|()| file.sync_all()).map_err(|e| failed("write", &path, e))
    }

    /// Removes the directory of parts if there are none in it.
    pub(super) fn drop_empty_parts(&self) {
        let mut names = fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
        if names.all(|name| name == FORM) {
            let _ = fs::remove_file(self.directory.join(FORM));
            let _ = fs::remove_dir(&self.directory);
        }
    }

    /// Refuses parts that are not of this form, or are not there though a checkpoint has been taken with this target.
    pub(super) fn check_parts(&self, former: Option<&str>) -> Result<()> {
        let Some(target) = &self.joined else { return Ok(()) };
        let (path, form) = (self.directory.join(FORM), self.form());
        match fs::read_to_string(&path) {
            Ok(found) if found == form => Ok(()),
            Ok(found) => Err(Error::checkpoint(format!(
                "{}: the file {target:?} was begun as {}, and would be continued as {}: one file has one form; go back to that, or \
                 start anew with another name and another checkpoint path",
                self.name(),
                found.trim_end(),
                form.trim_end()
            ))),
            Err(e) if e.kind() == io::ErrorKind::NotFound && former.is_none() => {
                super::make(&self.directory)?;
                self.begin_parts()
            }
            // The job had ended, and the file is there.
            Err(e) if e.kind() == io::ErrorKind::NotFound && target.exists() => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::checkpoint(format!(
                "{}: what the checkpoint has of this file is in {:?}, and that is gone: write to the former path{} again, or start anew \
                 with another checkpoint path",
                self.name(),
                self.directory,
                former.map(|former| format!(" {former:?}")).unwrap_or_default()
            ))),
            Err(e) => Err(failed("read", &path, e)),
        }
    }

    /// Joins the parts, each of which begins with a header of so many bytes, into the one file.
    pub(super) fn join_parts(&self, target: &Path, header_bytes: usize, on_existing: OnExisting) -> Result<()> {
        let mut names: Vec<String> = Vec::new();
        match fs::read_dir(&self.directory) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry.map_err(|e| failed("list", &self.directory, e))?;
                    names.extend(entry.file_name().into_string().ok().filter(|name| name::is_committed(name)));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("list", &self.directory, e)),
        }
        names.sort_by_key(|name| name::order_of(name));
        let parts: Vec<PathBuf> = names.iter().map(|name| self.directory.join(name)).collect();
        let made = match parts.as_slice() {
            [] if target.exists() => return Ok(()),
            [] => return Err(Error::connector(format!("{target:?} is lost: neither it nor its parts exist"))),
            [part] => part.clone(),
            parts => {
                let joined = self.directory.join("joined");
                self.copy_parts(parts, &joined, header_bytes)?.sync_all().map_err(|e| failed("sync", &joined, e))?;
                joined
            }
        };
        let rename = |from: &Path, to: &Path| {
            mill_fault::reach("file.rename").and_then(|()| fs::rename(from, to)).map_err(|e| {
                Error::connector(format!("cannot rename {from:?} to {to:?}: {e}; run the job again to have it done")).because(e)
            })
        };
        // One that a crash has left after this rename is the same.
        if on_existing == OnExisting::Refuse && target.exists() && !is_same(&made, target)? {
            return Err(Error::connector(format!(
                "{target:?} has come into being since the job began, and is not its own: move it away and run the job again, which then \
                 makes the file"
            )));
        }
        rename(&made, target)?;
        sync_directory(directory_of(target))?;
        let done = beside(target, "done");
        remove(&done)?;
        rename(&self.directory, &done)?;
        remove(&done)
    }

    fn copy_parts(&self, parts: &[PathBuf], joined: &Path, header_bytes: usize) -> Result<File> {
        let file = File::create(joined).map_err(|e| failed("create", joined, e))?;
        let Compressed::Text(packing) = self.compressed else { return parquet::join(parts, file) };
        let write = |e: io::Error| failed("write", joined, e);
        let mut output = Output::new(file, packing).map_err(write)?;
        let mut buffer = vec![0; COPY_BYTES];
        for (index, part) in parts.iter().enumerate() {
            let mut content = Content::open(part)?;
            let mut left_out = if index == 0 { 0 } else { header_bytes };
            loop {
                let bytes = content.read(&mut buffer)?;
                if bytes == 0 {
                    break;
                }
                let skipped = left_out.min(bytes);
                left_out -= skipped;
                output.write_all(&buffer[skipped..bytes]).map_err(write)?;
            }
        }
        output.finish().map_err(write)
    }
}

/// Whether two files have the same content.
fn is_same(a: &Path, b: &Path) -> Result<bool> {
    let open = |path: &Path| File::open(path).map(io::BufReader::new).map_err(|e| failed("open", path, e));
    let size = |path: &Path| fs::metadata(path).map(|found| found.len()).map_err(|e| failed("look at", path, e));
    if size(a)? != size(b)? {
        return Ok(false);
    }
    let mut bytes = open(a)?.bytes().zip(open(b)?.bytes());
    Ok(bytes.all(|pair| matches!(pair, (Ok(a), Ok(b)) if a == b)))
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", directory, e)),
        _ => Ok(()),
    }
}
