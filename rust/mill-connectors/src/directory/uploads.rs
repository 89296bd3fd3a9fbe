//! Files of a prefix in an object store, exactly once.
//!
//! ```text
//!   write        an unnamed file in the directory for temporary files
//!   pre-commit   its bytes become the parts of an upload; key, upload and tags of the parts go into the checkpoint
//!                in HDFS a hidden file, which is written as a whole and synced: its name is what the tags are elsewhere
//!   commit       the upload is completed: now there is an object part-<epoch>-<task>-<run>.csv; in HDFS by a rename
//!   recover      what the checkpoint names is completed, every other upload of this sink is aborted
//!   notes        <state directory>/objects/<sink>-<run>.uploads: a JSON of key and upload a line, synced before its first part
//! ```
//!
//! What holds:
//!
//! - An object appears as a whole, and only by a commit. The key has the number of the run, so no other run, job or attempt writes
//!   to it: an object of that key and size is the one that was to be committed.
//! - A commit whose answer is lost, or that is repeated after a crash, finds the upload or the object. If neither is there, somebody
//!   has removed it, which is an error.
//! - A run that fails or is cancelled aborts its uploads at its end, as far as the store responds within a second.
//! - Only uploads in the notes of this sink are aborted, never others that are pending in the bucket. An upload that began
//!   when the process died before it was noted has no parts, and is left to the bucket's own rules.

use std::collections::{BTreeSet, HashMap};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mill_protocol::{Commit, Committer, Delivery, Ending, Epoch, Error, Recovered, Result, Run};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{FileFormat, OnExisting, Shared, fresh_nonce};
use crate::nearest::quoted;
use crate::object::{Bucket, Extent, Multipart, Patience, Place};

/// How long the end of a run waits for the store to forget uploads.
const LAST_WAIT: Duration = Duration::from_secs(1);
/// The directory within the state directory.
const DIRECTORY: &str = "objects";
const SUFFIX: &str = ".uploads";
/// With more lines of settled uploads than this, the notes are rewritten.
const SETTLED_MAX: usize = 1000;

/// A prefix that objects are written below.
#[derive(Debug)]
pub(super) struct Target {
    bucket: Arc<Bucket>,
    /// Empty, or ending with a slash.
    prefix: String,
    /// What is known once the run is.
    run: Mutex<OfRun>,
}

#[derive(Debug, Default)]
struct OfRun {
    nonce: u64,
    ending: Option<Ending>,
    notes: Option<Notes>,
    /// Uploads that have begun and are neither completed nor given up.
    pending: HashMap<String, Multipart>,
}

/// What a checkpoint holds of a file: an upload that is ready to be completed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Uploaded {
    /// Within the bucket.
    key: String,
    upload: String,
    parts: Vec<String>,
    bytes: u64,
    /// Whether it has no rows: it becomes visible only if no other file does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_empty: bool,
}

/// The files of a task and epoch.
#[derive(Debug, Serialize, Deserialize)]
struct Handles {
    uploads: Vec<Uploaded>,
}

pub(super) fn encode(uploads: Vec<Uploaded>) -> Result<Vec<u8>> {
    serde_json::to_vec(&Handles { uploads }).map_err(|e| Error::internal("a handle is texts and numbers").because(e))
}

impl Target {
    /// The target of a URL, if the store can be written to and answers.
    pub(super) fn new(url: &Path, reader: &str) -> Result<Target> {
        let place = Place::of(url)?;
        if place.scheme.is_web() {
            return Err(Error::plan(format!("{reader}: {url:?} is on the web, which can only be read; write to s3://, gs://, az:// or hdfs://")));
        }
        let bucket = Bucket::of(&place)?;
        let key = place.key.trim_matches('/');
        let prefix = if key.is_empty() { String::new() } else { format!("{key}/") };
        Place { key: key.to_owned(), ..place }.location()?;
        bucket.list_level(&prefix, None)?;
        Ok(Target { bucket, prefix, run: Mutex::default() })
    }

    /// The same target for another run.
    pub(super) fn of_run(&self) -> Target {
        Target { bucket: Arc::clone(&self.bucket), prefix: self.prefix.clone(), run: Mutex::default() }
    }

    fn run(&self) -> std::sync::MutexGuard<'_, OfRun> {
        // Changed by single insertions and removals, so a panic elsewhere leaves it whole.
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ending(&self) -> Option<Ending> {
        self.run().ending.clone()
    }

    /// The path of an object, for messages.
    fn path(&self, key: &str) -> PathBuf {
        PathBuf::from(format!("{}/{key}", self.bucket.root()))
    }

    /// Uploads a file as the object of a task and epoch.
    pub(super) fn upload(&self, file: &Piece, directory: &str, name: (Epoch, usize, usize), extension: &str) -> Result<Uploaded> {
        let (nonce, ending) = {
            let run = self.run();
            (run.nonce, run.ending.clone())
        };
        let directory = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let key = format!("{}{directory}{}", self.prefix, committed(name.0, name.1, name.2, nonce, extension));
        let reach = |step| mill_fault::reach(step).map_err(|e| Error::connector(format!("cannot write {:?}: {e}", self.path(&key))).because(e));
        reach("object.create")?;
        let upload = self.bucket.create(&key, ending.as_ref())?;
        reach("object.note")?;
        {
            let mut run = self.run();
            run.pending.insert(upload.id.clone(), upload.clone());
            if let Some(notes) = &mut run.notes {
                notes.add(&upload)?;
            }
        }
        let data = Extent { file: Arc::clone(&file.file), start: file.start, bytes: file.bytes };
        let parts = self.bucket.send(&upload, &data, ending.as_ref())?;
        Ok(Uploaded { key, upload: upload.id, parts, bytes: file.bytes, is_empty: file.is_empty })
    }
}

/// The bytes of a file that is complete: all of it, or a piece of one in which many are kept.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) file: Arc<File>,
    pub(super) start: u64,
    pub(super) bytes: u64,
    pub(super) is_empty: bool,
}

/// Files that are complete and wait for the checkpoint, one after the other in one file.
#[derive(Debug, Default)]
pub(super) struct Pool {
    file: Option<Arc<File>>,
    bytes: u64,
}

impl Pool {
    /// Takes in the bytes of a file, so that the file itself can be closed.
    pub(super) fn add(&mut self, piece: &Piece) -> Result<Piece> {
        let failed = |e: std::io::Error| {
            Error::connector(format!("cannot keep output in {:?} (TMPDIR chooses another directory): {e}", std::env::temp_dir())).because(e)
        };
        let pool = match &self.file {
            Some(file) => Arc::clone(file),
            None => Arc::clone(self.file.insert(Arc::new(crate::object::spool()?))),
        };
        let start = self.bytes;
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < piece.bytes {
            let bytes = (piece.bytes - at).min(buffer.len() as u64) as usize;
            piece.file.read_exact_at(&mut buffer[..bytes], piece.start + at).map_err(failed)?;
            pool.write_all_at(&buffer[..bytes], start + at).map_err(failed)?;
            at += bytes as u64;
        }
        self.bytes += piece.bytes;
        Ok(Piece { file: pool, start, bytes: piece.bytes, is_empty: piece.is_empty })
    }
}

/// `part-<epoch>-<task>-<run>.<extension>`; the second of an epoch and task is `part-<epoch>-<task>-<run>_2.<extension>`.
fn committed(epoch: Epoch, task: usize, number: usize, nonce: u64, extension: &str) -> String {
    match number {
        1 => format!("part-{:010}-{task}-{nonce:016x}.{extension}", epoch.0),
        number => format!("part-{:010}-{task}-{nonce:016x}_{number}.{extension}", epoch.0),
    }
}

/// The epoch in a name that [`committed`] made.
fn epoch_of(name: &str) -> Option<u64> {
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (numbers, extension) = name.strip_prefix("part-")?.split_once('.')?;
    let (numbers, number) = numbers.split_once('_').map_or((numbers, None), |(numbers, number)| (numbers, Some(number)));
    let [epoch, task, nonce] = numbers.split('-').collect::<Vec<_>>().try_into().ok()?;
    let extension = extension.strip_suffix(".gz").or_else(|| extension.strip_suffix(".zst")).unwrap_or(extension);
    let is_ours = epoch.len() >= 10
        && are_digits(epoch)
        && are_digits(task)
        && number.is_none_or(are_digits)
        && nonce.len() == 16
        && nonce.bytes().all(|byte| byte.is_ascii_hexdigit())
        && FileFormat::ALL.iter().any(|format| format.extension() == extension);
    if is_ours { epoch.parse().ok() } else { None }
}

/// The notes of the uploads of a run.
#[derive(Debug)]
struct Notes {
    path: PathBuf,
    file: File,
    lines: usize,
}

/// A line of the notes.
#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    upload: String,
    /// Whether it was completed or given up. Such a line is not synced: without it the upload is given up once more, in vain.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_settled: bool,
}

impl Notes {
    fn create(directory: &Path, sink: &str, nonce: u64) -> Result<Notes> {
        let failed = |e| cannot("create", directory, e);
        // As all of the state directory: for nobody else's eyes.
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let path = directory.join(format!("{sink}-{nonce:016x}{SUFFIX}"));
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path).map_err(|e| cannot("create", &path, e))?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(Notes { path, file, lines: 0 })
    }

    /// Notes that an upload needs nothing any more.
    fn settle(&mut self, upload: &Multipart) -> Result<()> {
        self.lines += 1;
        self.file.write_all(&line_of(upload, true)?).map_err(|e| cannot("write", &self.path, e))
    }

    /// Notes an upload, durably.
    fn add(&mut self, upload: &Multipart) -> Result<()> {
        let line = line_of(upload, false)?;
        let added = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        self.lines += 1;
        added.map_err(|e| cannot("write", &self.path, e))
    }

    /// Rewrites the notes if most of what they hold is settled.
    fn shorten(&mut self, pending: &HashMap<String, Multipart>) -> Result<()> {
        if self.lines < SETTLED_MAX + 2 * pending.len() {
            return Ok(());
        }
        let failed = |e| cannot("write", &self.path, e);
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(failed)?;
        for upload in pending.values() {
            file.write_all(&line_of(upload, false)?).map_err(failed)?;
        }
        file.sync_all().and_then(|()| std::fs::rename(&new, &self.path)).map_err(failed)?;
        self.file = OpenOptions::new().append(true).open(&self.path).map_err(failed)?;
        self.lines = pending.len();
        Ok(())
    }
}

fn line_of(upload: &Multipart, is_settled: bool) -> Result<Vec<u8>> {
    let line = serde_json::to_vec(&Line { key: upload.key.clone(), upload: upload.id.clone(), is_settled });
    let mut line = line.map_err(|e| Error::internal("a note is texts and a flag").because(e))?;
    line.push(b'\n');
    Ok(line)
}

fn cannot(what: &str, path: &Path, e: std::io::Error) -> Error {
    Error::connector(format!("cannot {what} {path:?}: {e}")).because(e)
}

/// The uploads that former runs of a sink have noted, and the files they are noted in. A line that a crash has cut off names an
/// upload that had no part yet.
fn noted(directory: &Path, sink: &str) -> Result<(Vec<Multipart>, Vec<PathBuf>)> {
    let (mut uploads, mut files) = (Vec::new(), Vec::new());
    let entries = match std::fs::read_dir(directory) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((uploads, files)),
        entries => entries.map_err(|e| cannot("list", directory, e))?,
    };
    for entry in entries {
        let path = entry.map_err(|e| cannot("list", directory, e))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with(&format!("{sink}-")) {
            continue;
        }
        let text = std::fs::read(&path).map_err(|e| cannot("read", &path, e))?;
        let lines: Vec<Line> = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let settled: BTreeSet<&str> = lines.iter().filter(|line| line.is_settled).map(|line| line.upload.as_str()).collect();
        let pending = lines.iter().filter(|line| !settled.contains(line.upload.as_str()));
        uploads.extend(pending.map(|line| Multipart { key: line.key.clone(), id: line.upload.clone() }));
        files.push(path);
    }
    Ok((uploads, files))
}

/// Completes uploads, and gives up others.
pub(super) struct UploadCommitter {
    shared: Arc<Shared>,
    target: Arc<Target>,
    on_existing: OnExisting,
    delivery: Delivery,
    restored: Option<Epoch>,
    /// Where the notes are, and what tells this sink from the others of the job.
    directory: Option<PathBuf>,
    sink: String,
    /// Uploads whose commit was asked for: a checkpoint may name them, so `abort` leaves them alone.
    named: BTreeSet<String>,
    /// Whether an object of this sink is known to be there.
    has_objects: bool,
}

impl UploadCommitter {
    pub(super) fn new(shared: Arc<Shared>, target: Arc<Target>, on_existing: OnExisting) -> UploadCommitter {
        UploadCommitter {
            shared,
            target,
            on_existing,
            delivery: Delivery::ExactlyOnce,
            restored: None,
            directory: None,
            sink: String::new(),
            named: BTreeSet::new(),
            has_objects: false,
        }
    }

    /// The keys of the objects below the prefix that sinks of files have made.
    fn keys(&self) -> Result<Vec<String>> {
        let Target { bucket, prefix, .. } = self.target.as_ref();
        let found = bucket.list(prefix, self.target.ending().as_ref())?;
        let is_ours = |key: &String| {
            let Some(rest) = key.strip_prefix(prefix.as_str()) else { return false };
            let mut parts = rest.split('/').rev();
            parts.next().and_then(epoch_of).is_some() && parts.all(|part| part.contains('='))
        };
        Ok(found.into_iter().map(|object| object.location.to_string()).filter(is_ours).collect())
    }

    fn epoch_of_key(key: &str) -> Option<u64> {
        epoch_of(key.rsplit('/').next().unwrap_or(key))
    }

    /// Refuses to continue from a checkpoint while there is output of later ones.
    fn check_newer(&self) -> Result<()> {
        let (Delivery::ExactlyOnce, Some(restored)) = (self.delivery, self.restored) else { return Ok(()) };
        let mut newer = self.keys()?;
        newer.retain(|key| UploadCommitter::epoch_of_key(key).is_some_and(|epoch| epoch > restored.0));
        if newer.is_empty() {
            return Ok(());
        }
        newer.truncate(5);
        Err(Error::connector(format!(
            "{:?} already shows output of later checkpoints than {}, which was restored, and it would come again: remove {} and run \
             the job again to have it written anew, or write to another prefix",
            self.shared.directory,
            restored.0,
            quoted(&newer, ", ")
        )))
    }

    fn uploads_of(&self, commit: &Commit) -> Result<Vec<Uploaded>> {
        let handles = serde_json::from_slice::<Handles>(&commit.handle).ok().map(|handles| handles.uploads);
        let is_of = |upload: &Uploaded| {
            upload.key.starts_with(&self.target.prefix) && UploadCommitter::epoch_of_key(&upload.key) == Some(commit.epoch.0)
        };
        handles.filter(|uploads| uploads.iter().all(is_of)).ok_or_else(|| {
            Error::checkpoint(format!(
                "epoch {}: the checkpoint's note of an upload to {:?} is damaged",
                commit.epoch.0, self.shared.directory
            ))
        })
    }

    fn commit_all(&mut self, commits: &[Commit], is_settled: bool) -> Result<()> {
        let mut uploads = Vec::new();
        for commit in commits {
            uploads.extend(self.uploads_of(commit)?.into_iter().map(|upload| (commit.epoch, upload)));
        }
        // Whether a file without rows is needed is known once all others are there.
        uploads.sort_by_key(|(_, upload)| upload.is_empty);
        for (_, upload) in &uploads {
            self.named.insert(upload.upload.clone());
        }
        if is_settled {
            return Ok(());
        }
        for (epoch, upload) in uploads {
            self.commit_one(epoch, &upload)?;
            let mut run = self.target.run();
            let OfRun { notes, pending, .. } = &mut *run;
            if let (Some(upload), Some(notes)) = (pending.remove(&upload.upload), notes) {
                notes.settle(&upload)?;
            }
        }
        let mut run = self.target.run();
        let OfRun { notes, pending, .. } = &mut *run;
        if let Some(notes) = notes {
            notes.shorten(pending)?;
        }
        drop(run);
        self.named.clear();
        Ok(())
    }

    fn commit_one(&mut self, epoch: Epoch, uploaded: &Uploaded) -> Result<()> {
        let Target { bucket, .. } = self.target.as_ref();
        let ending = self.target.ending();
        let upload = Multipart { key: uploaded.key.clone(), id: uploaded.upload.clone() };
        if uploaded.is_empty {
            // One that was completed by a former attempt stays.
            self.has_objects = self.has_objects || self.keys()?.iter().any(|key| *key != uploaded.key);
            if self.has_objects {
                return bucket.abort_all(&[upload], ending.as_ref().into());
            }
        }
        let path = self.target.path(&uploaded.key);
        mill_fault::reach("object.complete")
            .map_err(|e| Error::connector(format!("cannot complete the upload of {path:?}: {e}; run the job again to commit it")).because(e))?;
        let completed = bucket.complete(&upload, &uploaded.parts, ending.as_ref());
        if !matches!(completed, Ok(true)) {
            // It may be there all the same: completed by a run that died, or by a request whose answer was lost.
            let location = Place::of(&path)?.location()?;
            match bucket.look(&location, false, ending.as_ref())? {
                Some(object) if object.size == uploaded.bytes => {}
                Some(object) => {
                    return Err(Error::connector(format!(
                        "{path:?} has {} bytes and not the {} of epoch {}: somebody else has written it; nothing was changed: remove it \
                         and run the job again",
                        object.size, uploaded.bytes, epoch.0
                    )));
                }
                None => {
                    return Err(match completed {
                        Err(error) => Error::new(error.kind(), format!("{}; run the job again to commit it", error.message())).because(error),
                        Ok(_) => Error::connector(format!(
                            "the output of epoch {} is lost: neither the upload of {path:?} nor the object is there; a rule of the bucket \
                             or somebody has removed it, and whether it was visible before is not known: restore an older checkpoint, or \
                             start over with another prefix",
                            epoch.0
                        )),
                    });
                }
            }
        }
        self.has_objects = true;
        Ok(())
    }

    /// Aborts uploads that nobody will complete.
    fn give_up(&self, uploads: Vec<Multipart>, patience: Patience<'_>) -> Result<()> {
        // Notes are of this sink, and a damaged one must not reach out of its prefix.
        let (ours, others): (Vec<_>, Vec<_>) = uploads.into_iter().partition(|upload| upload.key.starts_with(&self.target.prefix));
        for _ in &ours {
            mill_fault::reach("object.abort")
                .map_err(|e| Error::connector(format!("cannot give up an upload to {:?}: {e}", self.shared.directory)).because(e))?;
        }
        self.target.bucket.abort_all(&ours, patience)?;
        let mut run = self.target.run();
        let OfRun { notes, pending, .. } = &mut *run;
        for upload in ours.iter().chain(&others) {
            if let (Some(upload), Some(notes)) = (pending.remove(&upload.id), notes.as_mut()) {
                notes.settle(&upload)?;
            }
        }
        Ok(())
    }

    /// Aborts uploads that former runs have begun and the checkpoint does not name, and begins notes of this run.
    fn clean(&mut self, keep: &BTreeSet<String>) -> Result<()> {
        let Some(directory) = self.directory.clone() else { return Ok(()) };
        let (uploads, files) = noted(&directory, &self.sink)?;
        let ending = self.target.ending();
        self.give_up(uploads.into_iter().filter(|upload| !keep.contains(&upload.id)).collect(), ending.as_ref().into())?;
        let nonce = self.target.run().nonce;
        let notes = Notes::create(&directory, &self.sink, nonce)?;
        self.target.run().notes = Some(notes);
        for path in files {
            std::fs::remove_file(&path).map_err(|e| cannot("remove", &path, e))?;
        }
        Ok(())
    }
}

impl Committer for UploadCommitter {
    fn promise(&mut self, run: &Run<'_>) -> Result<()> {
        (self.delivery, self.restored) = (run.delivery, run.restored);
        self.directory = run.directory.map(|directory| directory.join(DIRECTORY));
        self.sink = format!("{:016x}", xxh3_64(run.sink.as_bytes()));
        *self.target.run() =
            OfRun { nonce: fresh_nonce(), ending: run.ending.cloned(), notes: None, pending: HashMap::new() };
        self.check_newer()
    }

    fn begin(&mut self) -> Result<()> {
        let keys = self.keys()?;
        if !keys.is_empty() && self.on_existing == OnExisting::Refuse {
            return Err(Error::connector(format!(
                "{:?} already has the output of another run ({}): resume that run with its checkpoint, replace it with \
                 on_existing=\"replace\", or choose another prefix",
                self.shared.directory,
                quoted(&keys[..keys.len().min(3)], ", ")
            )));
        }
        let ending = self.target.ending();
        for key in keys {
            self.target.bucket.delete(&key, ending.as_ref())?;
        }
        self.clean(&BTreeSet::new())
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<()> {
        self.commit_all(commits, false)
    }

    fn recover(&mut self, recovered: &Recovered<'_>) -> Result<()> {
        recovered.target.map_or(Ok(()), |was| self.shared.check_target(was))?;
        self.commit_all(recovered.commits, recovered.is_settled)?;
        // What was completed is not pending any more; giving it up would change nothing.
        self.clean(&BTreeSet::new())
    }

    fn abort(&mut self) -> Result<()> {
        let pending: Vec<Multipart> = self.target.run().pending.values().cloned().collect();
        // The run is to end already: what the store does not answer in this time is left to the next run, or to rules of the bucket.
        let until = Instant::now() + LAST_WAIT;
        self.give_up(pending.into_iter().filter(|upload| !self.named.contains(&upload.id)).collect(), Patience::Until(until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_again_and_others_are_not() {
        let name = committed(Epoch(7), 3, 1, 0xab, "csv");
        assert_eq!(name, "part-0000000007-3-00000000000000ab.csv");
        assert_eq!(epoch_of(&name), Some(7));
        assert_eq!(epoch_of(&committed(Epoch(1_795_239_456_344_262), 12, 2, 1, "json.gz")), Some(1_795_239_456_344_262));
        for other in ["part-0000000007-3.csv", "part-0000000007-3-xyz.csv", "part-0000000007-3-00000000000000ab.txt", "part-7-3-00000000000000ab.csv"] {
            assert_eq!(epoch_of(other), None, "{other}");
        }
    }

    #[test]
    fn notes_are_read_back_without_a_line_that_was_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let upload = |n: usize| Multipart { key: format!("out/{n}"), id: format!("id \"{n}\"") };
        let mut notes = Notes::create(directory.path(), "sink", 1).unwrap();
        notes.add(&upload(1)).unwrap();
        notes.add(&upload(2)).unwrap();
        notes.file.write_all(b"{\"key\":\"out/3\",\"upl").unwrap();
        Notes::create(directory.path(), "other", 1).unwrap().add(&upload(4)).unwrap();
        let (uploads, files) = noted(directory.path(), "sink").unwrap();
        assert_eq!((uploads, files.len()), (vec![upload(1), upload(2)], 1));
        notes.settle(&upload(1)).unwrap();
        // The line that was cut off goes with the one after it, and an upload that is not known to be settled is pending.
        assert_eq!(noted(directory.path(), "sink").unwrap().0, [upload(1), upload(2)]);
        notes.settle(&upload(1)).unwrap();
        assert_eq!(noted(directory.path(), "sink").unwrap().0, [upload(2)]);
        notes.lines = SETTLED_MAX + 2;
        notes.shorten(&HashMap::from([("x".to_owned(), upload(2))])).unwrap();
        notes.add(&upload(5)).unwrap();
        assert_eq!(noted(directory.path(), "sink").unwrap().0, [upload(2), upload(5)]);
    }

    #[test]
    fn files_are_kept_one_behind_the_other() {
        let mut pool = Pool::default();
        let piece = |text: &str| {
            let file = crate::object::spool().unwrap();
            file.write_all_at(text.as_bytes(), 0).unwrap();
            Piece { file: Arc::new(file), start: 0, bytes: text.len() as u64, is_empty: false }
        };
        let kept = ["first", "", "second"].map(|text| pool.add(&piece(text)).unwrap());
        let text = |piece: &Piece| {
            let mut bytes = vec![0; piece.bytes as usize];
            piece.file.read_exact_at(&mut bytes, piece.start).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(kept.each_ref().map(text), ["first", "", "second"]);
    }
}
