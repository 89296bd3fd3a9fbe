//! Whose files lie beside a database: their names, and the lock that says that their owner is at work.
//!
//! ```text
//!   .<database>-millstream-<owner>-lock                                 held while a run of the owner writes
//!   .<database>-millstream-<owner>-<run>-<task>-<n>.rows                rows of an epoch that wait for their commit
//! ```
//!
//! The owner is one sink of one job, writing one table: `job-` and 16 hexadecimal digits. A job that keeps no state is an
//! owner of its own in each run (`run-` …): nobody comes back for its files, so whoever finds its lock free removes them.

use std::path::{Path, PathBuf};

use mill_protocol::{Error, Result, Run};
use xxhash_rust::xxh3::xxh3_64;

use crate::directory::fresh_nonce;
use crate::lock::FileLock;

const SUFFIX: &str = ".rows";
/// How often the name of a job that keeps no state may be taken by somebody who clears up.
const ATTEMPTS_MAX: usize = 10;

/// The owner of files beside a database, with its lock.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) name: String,
    _lock: FileLock,
}

impl Owner {
    /// Takes the files of this run's sink.
    pub(super) fn take(database: &Path, table: &str, run: &Run<'_>) -> Result<Owner> {
        let cannot = |path: &Path, e: std::io::Error| {
            Error::connector(format!("write_sqlite({database:?}, {table:?}): cannot lock {path:?}: {e}")).because(e)
        };
        let lock_path = |name: &str| directory_of(database).join(format!("{}{name}-lock", prefix(database)));
        let Some(job) = run.job else {
            remove_abandoned(database);
            for _ in 0..ATTEMPTS_MAX {
                let name = format!("run-{:016x}", fresh_nonce());
                let path = lock_path(&name);
                if let Some(lock) = FileLock::of_file(&path).map_err(|e| cannot(&path, e))? {
                    return Ok(Owner { name, _lock: lock });
                }
            }
            return Err(Error::connector(format!("write_sqlite({database:?}, {table:?}): cannot lock a file beside it")));
        };
        let name = format!("job-{:016x}", xxh3_64(format!("{job:016x} {} {table}", run.sink).as_bytes()));
        let path = lock_path(&name);
        let lock = FileLock::of_file(&path).map_err(|e| cannot(&path, e))?.ok_or_else(|| {
            Error::connector(format!(
                "another run of this job writes write_sqlite({database:?}, {table:?}); a job that continues from a savepoint of \
                 a job that still runs needs a table of its own"
            ))
        })?;
        Ok(Owner { name, _lock: lock })
    }

    /// The hidden files of this owner; of one run only, if asked for.
    pub(super) fn spools(&self, database: &Path, run: Option<u64>) -> Result<Vec<PathBuf>> {
        let directory = directory_of(database);
        let names = spools_of(directory, &format!("{}{}-", prefix(database), self.name))
            .map_err(|e| Error::connector(format!("cannot list the directory {directory:?}: {e}")).because(e))?;
        let is_wanted = |(part, _): &(String, PathBuf)| run.is_none_or(|run| run_of(part) == Some(run));
        Ok(names.into_iter().filter(is_wanted).map(|(_, path)| path).collect())
    }

    /// The name of the file for a part.
    pub(super) fn spool_name(&self, database: &Path, part: &str) -> String {
        format!("{}{}-{part}{SUFFIX}", prefix(database), self.name)
    }
}

/// The files with this prefix that are spools, and the part each is of.
fn spools_of(directory: &Path, prefix: &str) -> std::io::Result<Vec<(String, PathBuf)>> {
    let entries = std::fs::read_dir(directory)?;
    let part_of = |name: &str| Some(name.strip_prefix(prefix)?.strip_suffix(SUFFIX)?.to_owned());
    Ok(entries
        .flatten()
        .filter_map(|entry| Some((part_of(entry.file_name().to_str()?)?, entry.path())))
        .filter(|(part, _)| run_of(part).is_some())
        .collect())
}

/// Removes what jobs without state have left that were killed: their locks are free. What cannot be removed stays.
fn remove_abandoned(database: &Path) {
    let directory = directory_of(database);
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let prefix = prefix(database);
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.strip_suffix("-lock"));
        let is_run = |owner: &&str| owner.strip_prefix("run-").is_some_and(is_number);
        let Some(owner) = owner.filter(is_run) else { continue };
        if let Ok(Some(_lock)) = FileLock::of_file(&entry.path()) {
            for (_, path) in spools_of(directory, &format!("{prefix}{owner}-")).unwrap_or_default() {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// `<run>-<task>-<n>`: tells a handle from every other handle of every run.
pub(super) fn part(run: u64, task: usize, number: u64) -> String {
    format!("{run:016x}-{task}-{number}")
}

/// The run in a part; `None` if it is not one.
pub(super) fn run_of(part: &str) -> Option<u64> {
    let mut fields = part.split('-');
    let (run, task, number, rest) = (fields.next()?, fields.next()?, fields.next()?, fields.next());
    let is_count = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (rest.is_none() && is_number(run) && is_count(task) && is_count(number)).then(|| u64::from_str_radix(run, 16).ok())?
}

fn is_number(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The directory of the database.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// What the names of all hidden files beside this database begin with.
fn prefix(path: &Path) -> String {
    let database = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!(".{database}-millstream-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_known_and_nothing_else_is() {
        assert_eq!(run_of(&part(0xabc, 3, 12)), Some(0xabc));
        for other in ["", "abc", "0000000000000abc-1", "0000000000000ABC-1-2", "0000000000000abc-1-2-3",
            "0000000000000abc-1-x", "0000000000000abc--1", "../0000000000000abc-1-2", "+000000000000abc-1-2"]
        {
            assert_eq!(run_of(other), None, "{other:?}");
        }
    }
}
