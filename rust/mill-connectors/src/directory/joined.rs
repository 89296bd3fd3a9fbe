//! One file, written as parts that are joined at the end.
//!
//! ```text
//!   write, commit     .x.csv.parts/part-<epoch>-0.csv       as in any directory: see the module above
//!   the last commit   .x.csv.parts/joined                   the parts as one; of a single part, a second name of it
//!                     .x.csv.parts/.form ─► .complete       from here on the file is made
//!                     .x.csv.parts/joined ─► x.csv
//!                     the parts removed, then .complete, then the directory
//! ```
//!
//! So the file does not exist before the end of the input, and then it is complete. The existing parts show how far a run
//! has come ([`Parts`]): `.form` until the parts have been joined, so that joining is repeated after a crash; `.complete`
//! from then on, where `joined` exists until the file has got its name, which happens once. Neither: the file was made, and
//! is not touched again. Whether it was made by the checkpoint that is restored, or by a later one, the checkpoint knows:
//! it has the handle of the last part, or the receipt that every later one has.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use mill_protocol::{Epoch, Error, Result};

use super::options::Compressed;
use super::output::Output;
use super::{OnExisting, Shared, arrow, name, parquet, sync_directory};
use crate::file::Content;

/// What says beside the parts what form they have, until they have been joined.
const FORM: &str = ".form";
/// The same afterwards.
const COMPLETE: &str = ".complete";
/// The parts as one file, before it has its name.
const JOINED: &str = "joined";
/// What follows the form of parts that only the run that writes them needs.
const KEPT_BY_NOBODY: &str = "no checkpoints\n";
/// How much is copied at once.
const COPY_BYTES: usize = 256 << 10;

/// The directory that the parts of a file are written into.
pub(crate) fn parts_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.parts"))
}

/// Whether something has this name, be it a link that leads nowhere.
pub(super) fn is_taken(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn failed(doing: &str, path: &Path, e: io::Error) -> Error {
    Error::connector(format!("cannot {doing} {path:?}: {e}")).because(e)
}

/// The directory that a file is in.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What there is of the parts of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parts {
    /// Nothing: the file was made, or somebody has removed them.
    Gone,
    /// They are written, or being joined.
    Open,
    /// They have been joined, and are being given up.
    Joined {
        /// Whether the file has got its name.
        is_made: bool,
    },
}

impl Shared {
    /// What all parts of one file have in common: another form or other columns would not be one file.
    fn form(&self) -> String {
        let columns = self.columns.get().map_or("", String::as_str);
        format!("{}{}, columns {columns}\n", self.extension, self.options.text())
    }

    /// Begins to write one file: notes the form of the parts, and the job that they are of, beside them.
    pub(super) fn begin_parts(&self, job: Option<u64>, is_resumable: bool) -> Result<()> {
        super::make(&self.directory)?;
        for left in [COMPLETE, JOINED] {
            remove_file(&self.directory.join(left))?;
        }
        let path = self.directory.join(FORM);
        let mut file = File::create(&path).map_err(|e| failed("create", &path, e))?;
        let whose = if is_resumable { job_line(job) } else { KEPT_BY_NOBODY.to_owned() };
        let text = format!("{}{whose}", self.form());
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| failed("write", &path, e))
    }

    /// Whether the parts are what a run without checkpoints has left when it was killed: no run can continue from them.
    pub(super) fn are_left(&self) -> bool {
        let text = |name| fs::read_to_string(self.directory.join(name));
        text(FORM).or_else(|_| text(COMPLETE)).is_ok_and(|text| text.ends_with(KEPT_BY_NOBODY))
    }

    /// What there is of the parts.
    ///
    /// # Errors
    /// When they are of another job or of another form.
    pub(super) fn parts(&self, job: Option<u64>) -> Result<Parts> {
        let mut found = Parts::Gone;
        for (name, parts) in [(FORM, Parts::Open), (COMPLETE, Parts::Joined { is_made: !is_taken(&self.directory.join(JOINED)) })] {
            let path = self.directory.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => {
                    self.check_form(&text, job)?;
                    found = parts;
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed("read", &path, e)),
            }
        }
        Ok(found)
    }

    fn check_form(&self, found: &str, job: Option<u64>) -> Result<()> {
        let (form, path) = (self.form(), self.path());
        let Some(found_job) = found.strip_prefix(&form) else {
            let found = found.lines().next().unwrap_or_default();
            return Err(Error::checkpoint(format!(
                "{}: the file {path:?} was begun as {found}, and would be continued as {}: one file has one form; go back to that, or \
                 start over with another name and another checkpoint path",
                self.name(),
                form.trim_end()
            )));
        };
        if found_job == job_line(job) {
            return Ok(());
        }
        Err(Error::checkpoint(format!(
            "{}: what there is of the file {path:?}, in {:?}, is of another job, which has replaced what this one had written: start \
             anew with another name and another checkpoint path",
            self.name(),
            self.directory
        )))
    }

    /// Refuses to continue from a checkpoint whose parts are there no more.
    pub(super) fn lost_parts(&self, target: &Path, restored: Option<Epoch>, former: Option<&str>) -> Error {
        let (name, directory) = (self.name(), &self.directory);
        let restored = restored.map_or_else(String::new, |epoch| format!(" {}", epoch.0));
        Error::checkpoint(match is_taken(target) {
            true => format!(
                "{name}: {target:?} was made after checkpoint{restored} was taken, and what that checkpoint has of it went into it: \
                 the file is left as it is; to make it anew, run the job from its start, with another checkpoint path or \
                 mill.Checkpoint(…, restart=True)"
            ),
            false => format!(
                "{name}: what the checkpoint has of this file is in {directory:?}, and that is gone: write to the former path{} again, \
                 or start over with another checkpoint path",
                former.map(|former| format!(" {former:?}")).unwrap_or_default()
            ),
        })
    }

    /// Makes the parts as they were before they were joined.
    pub(super) fn part_again(&self) -> Result<()> {
        rename(&self.directory.join(COMPLETE), &self.directory.join(FORM))?;
        remove_file(&self.directory.join(JOINED))?;
        sync_directory(&self.directory)
    }

    /// Joins the parts, each of which begins with a header of so many bytes, into the one file.
    pub(super) fn join_parts(&self, target: &Path, header_bytes: usize, on_existing: OnExisting) -> Result<()> {
        let mut names = self.names_of(name::is_committed)?;
        names.sort_by_key(|name| name::order_of(name));
        let parts: Vec<PathBuf> = names.iter().map(|name| self.directory.join(name)).collect();
        let joined = self.directory.join(JOINED);
        // A crash may have left a half of it.
        remove_file(&joined)?;
        mill_fault::reach("file.create").map_err(|e| failed("create", &joined, e))?;
        match parts.as_slice() {
            [] => return Err(Error::connector(format!("{target:?} is lost: its parts in {:?} are gone", self.directory))),
            // Not every filesystem has second names.
            [part] if fs::hard_link(part, &joined).is_ok() => {}
            parts => self.copy_parts(parts, &joined, header_bytes)?.sync_all().map_err(|e| failed("sync", &joined, e))?,
        }
        sync_directory(&self.directory)?;
        rename(&self.directory.join(FORM), &self.directory.join(COMPLETE))?;
        sync_directory(&self.directory)?;
        self.finish_file(target, on_existing)
    }

    /// Renames the joined file to its final name, if it does not have it yet, and removes the parts.
    pub(super) fn finish_file(&self, target: &Path, on_existing: OnExisting) -> Result<()> {
        let joined = self.directory.join(JOINED);
        if is_taken(&joined) {
            self.check_free(target, on_existing)?;
            rename(&joined, target)?;
            sync_directory(directory_of(target))?;
        }
        self.drop_parts()
    }

    /// Refuses a file that has come into being where the one file will be.
    pub(super) fn check_free(&self, target: &Path, on_existing: OnExisting) -> Result<()> {
        if on_existing == OnExisting::Replace || !is_taken(target) {
            return Ok(());
        }
        Err(Error::connector(format!(
            "{target:?} has come into being since the job began, and is not its own: move it away and run the job again, which then \
             makes the file"
        )))
    }

    /// Removes the parts; what says that they have been joined goes last.
    pub(super) fn drop_parts(&self) -> Result<()> {
        let parts = self.names_of(|name| name::is_committed(name) || name::is_hidden(name, None) || name == JOINED || name == FORM)?;
        for name in parts {
            remove_file(&self.directory.join(name))?;
        }
        sync_directory(&self.directory)?;
        remove_file(&self.directory.join(COMPLETE))?;
        // Something of somebody else's may be in it.
        let _ = fs::remove_dir(&self.directory);
        sync_directory(directory_of(&self.directory))
    }

    /// Names in the directory of parts.
    fn names_of(&self, is_sought: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(|e| failed("list", &self.directory, e))? {
            let entry = entry.map_err(|e| failed("list", &self.directory, e))?;
            names.extend(entry.file_name().into_string().ok().filter(|name| is_sought(name)));
        }
        Ok(names)
    }

    fn copy_parts(&self, parts: &[PathBuf], joined: &Path, header_bytes: usize) -> Result<File> {
        let file = File::create(joined).map_err(|e| failed("create", joined, e))?;
        let packing = match self.compressed {
            Compressed::Text(packing) => packing,
            Compressed::Pages(_) => return parquet::join(parts, file),
            Compressed::Buffers(buffers) => return arrow::join(parts, file, buffers),
        };
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

/// What follows the form of the parts: the job that they are of.
fn job_line(job: Option<u64>) -> String {
    job.map_or_else(String::new, |job| format!("job {job:016x}\n"))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    mill_fault::reach("file.rename").and_then(|()| fs::rename(from, to)).map_err(|e| {
        Error::connector(format!("cannot rename {from:?} to {to:?}: {e}; run the job again to have it done")).because(e)
    })
}

fn remove_file(path: &Path) -> Result<()> {
    match mill_fault::reach("file.remove").and_then(|()| fs::remove_file(path)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, e)),
        _ => Ok(()),
    }
}
