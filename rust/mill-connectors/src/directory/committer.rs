//! Makes hidden files visible, and cleans up.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use mill_protocol::{Commit, Committer, Delivery, Epoch, Error, Recovered, Result, Run};

use super::joined::{Parts, is_taken};
use super::writer::{Handle, Handles};
use super::{OnExisting, Shared, make, name, sync_directory};
use crate::lock::FileLock;
use crate::nearest::quoted;

pub(super) struct DirectoryCommitter {
    shared: Arc<Shared>,
    on_existing: OnExisting,
    _lock: Arc<FileLock>,
    /// Hidden files whose commit was asked for: a checkpoint may name them, so `abort` leaves them alone.
    named: HashSet<String>,
    delivery: Delivery,
    /// Whether a later run may continue from what this one leaves.
    is_resumable: bool,
    /// The identity of the job, and the checkpoint that it continues from.
    job: Option<u64>,
    restored: Option<Epoch>,
    /// Whether it has begun from nothing.
    has_begun: bool,
    /// How many parts of one file are there.
    parts: usize,
}

/// The receipt of one file that is complete; of another it is the number of its parts.
const IS_COMPLETE: &str = "complete";

impl DirectoryCommitter {
    pub(super) fn new(shared: Arc<Shared>, on_existing: OnExisting, lock: Arc<FileLock>) -> DirectoryCommitter {
        DirectoryCommitter {
            shared,
            on_existing,
            _lock: lock,
            named: HashSet::new(),
            delivery: Delivery::ExactlyOnce,
            is_resumable: false,
            job: None,
            restored: None,
            has_begun: false,
            parts: 0,
        }
    }

    /// The names of what is in the directory, and in those of partitions: also of others than are written now, which another run
    /// may have written.
    fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.add_names("", &mut names)?;
        names.sort();
        Ok(names)
    }

    fn add_names(&self, within: &str, names: &mut Vec<String>) -> Result<()> {
        let directory = self.shared.directory.join(within);
        let failed =
            |e: std::io::Error| Error::connector(format!("cannot list the directory {directory:?}: {e}")).because(e);
        let entries = match std::fs::read_dir(&directory) {
            // The parts of one file are gone once it is there.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && self.shared.joined.is_some() => return Ok(()),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = if within.is_empty() { name } else { format!("{within}/{name}") };
            if last_of(&name).contains('=') && entry.file_type().map_err(failed)?.is_dir() {
                self.add_names(&name, names)?;
            }
            names.push(name);
        }
        Ok(())
    }

    fn remove(&self, names: impl IntoIterator<Item = String>) -> Result<()> {
        for name in names {
            let path = self.shared.directory.join(&name);
            match mill_fault::reach("file.remove").and_then(|()| std::fs::remove_file(&path)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::connector(format!("cannot remove {path:?}: {e}")).because(e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn handles_of(&self, commit: &Commit) -> Result<Vec<Handle>> {
        serde_json::from_slice(&commit.handle)
            .ok()
            .map(Handles::into_vec)
            .filter(|handles| handles.iter().all(|handle| handle.is_of(commit.epoch)))
            .ok_or_else(|| {
                Error::checkpoint(format!(
                    "epoch {}: the checkpoint's note of a file in {:?} is damaged",
                    commit.epoch.0, self.shared.directory
                ))
            })
    }

    /// A file without rows is left out if another file shows the columns: it is removed where it is hidden.
    fn is_left_out(&self, handle: &Handle) -> Result<bool> {
        if !handle.is_empty {
            return Ok(false);
        }
        let is_other = |name: &String| name::is_committed(last_of(name)) && *name != handle.name;
        let is_left_out = self.names()?.iter().any(is_other);
        if is_left_out {
            self.remove([handle.hidden.clone()])?;
        }
        Ok(is_left_out)
    }

    /// Makes one file visible; one that is known to have been visible need not be there any more.
    fn commit_one(&mut self, commit: &Commit, handle: Handle, is_settled: bool) -> Result<()> {
        self.named.insert(handle.hidden.clone());
        let hidden = self.shared.directory.join(&handle.hidden);
        let path = self.shared.directory.join(&handle.name);
        let exists = |path: &Path| {
            path.try_exists().map_err(|e| Error::connector(format!("cannot look at {path:?}: {e}")).because(e))
        };
        // A link or a directory of that name is not what was written.
        let is_file = |path: &Path| match std::fs::symlink_metadata(path) {
            Ok(found) => Ok(found.is_file()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::connector(format!("cannot look at {path:?}: {e}")).because(e)),
        };
        match (is_file(&hidden)?, exists(&path)?) {
            (false, true) => Ok(()),
            // Files may have been taken away since; parts of one file may not.
            (false, false) if is_settled && self.shared.joined.is_none() => Ok(()),
            (true, true) if is_settled => Ok(()),
            (true, false) => {
                if let Some(partition) = path.parent().filter(|parent| *parent != self.shared.directory) {
                    make(partition)?;
                    rename(&hidden, &path)?;
                    return sync_directory(partition);
                }
                rename(&hidden, &path)
            }
            // A former run published an epoch of this number before its checkpoint, and died.
            (true, true) if self.delivery == Delivery::AtLeastOnce => {
                const PUBLISHED_MAX: u32 = 1000;
                let mut paths = (2..PUBLISHED_MAX).map(|n| self.shared.directory.join(name::again(&handle.name, n)));
                match paths.find(|path| !path.exists()) {
                    Some(path) => rename(&hidden, &path),
                    None => Err(Error::connector(format!("{path:?} was published {PUBLISHED_MAX} times"))),
                }
            }
            (true, true) => Err(Error::connector(format!(
                "{path:?} already exists and is not this job's output of epoch {}: the directory has the output of \
                 another run, or of a newer checkpoint than was restored; nothing was changed: move that \
                 output away and run the job again",
                commit.epoch.0
            ))),
            (false, false) => Err(Error::connector(format!(
                "the output of epoch {} is lost: neither {hidden:?} nor {path:?} exists; somebody removed it, and \
                 whether it was visible before is not known: restore an older checkpoint, or start \
                 anew with other directories",
                commit.epoch.0
            ))),
        }
    }
}

impl DirectoryCommitter {
    fn commit_all(&mut self, commits: &[Commit], is_settled: bool) -> Result<()> {
        if commits.is_empty() {
            return Ok(());
        }
        let mut handles = Vec::with_capacity(commits.len());
        for commit in commits {
            handles.extend(self.handles_of(commit)?.into_iter().map(|handle| (commit, handle)));
        }
        let last = handles.iter().find_map(|(_, handle)| handle.last);
        // Whether a file without rows is needed is known once all others are there.
        handles.sort_by_key(|(_, handle)| handle.is_empty);
        for (commit, handle) in handles {
            if !self.is_left_out(&handle)? {
                self.commit_one(commit, handle, is_settled)?;
                self.parts += 1;
            }
        }
        sync_directory(&self.shared.directory)?;
        self.named.clear();
        if let (Some(target), Some(header_bytes)) = (&self.shared.joined, last) {
            self.shared.join_parts(target, header_bytes, self.on_existing)?;
            self.shared.set_complete(true);
        }
        Ok(())
    }

    /// Takes up one file where a former run has left it; returns whether that is all there is to recover.
    ///
    /// The checkpoint knows whether the file was complete when it was taken. If it was not, the parts have to be there. If they
    /// have been joined all the same, a later checkpoint has done that, or a run that kept none.
    fn recover_file(&mut self, target: &Path, recovered: &Recovered<'_>) -> Result<bool> {
        let is_replaying = self.delivery != Delivery::AtMostOnce;
        if is_replaying && recovered.target.is_none() {
            // The checkpoint knows nothing of this sink: all that is there is of others.
            return self.begin().map(|()| true);
        }
        let is_noted = recovered.receipt == Some(IS_COMPLETE);
        let mut is_complete = is_noted;
        for commit in recovered.commits {
            is_complete |= self.handles_of(commit)?.iter().any(|handle| handle.last.is_some());
        }
        if is_complete && (is_noted || recovered.is_settled) {
            // What there is beside it now is of others.
            self.shared.set_complete(true);
            return Ok(true);
        }
        match (self.shared.parts(self.job)?, is_complete) {
            (Parts::Open, _) => {
                self.check_newer()?;
                self.shared.check_free(target, self.on_existing)?;
                self.check_count(recovered)?;
                return Ok(false);
            }
            (Parts::Joined { .. }, true) => self.shared.finish_file(target, self.on_existing)?,
            (Parts::Joined { .. }, false) if !is_replaying => self.shared.finish_file(target, self.on_existing)?,
            (Parts::Joined { is_made: false }, false) => {
                self.check_newer()?;
                self.shared.part_again()?;
                self.check_count(recovered)?;
                return Ok(false);
            }
            (Parts::Gone, true) if is_taken(target) => {}
            (Parts::Gone, false) if !is_replaying && is_taken(target) => {}
            (Parts::Gone, false) if !is_replaying => {
                self.shared.begin_parts(self.job, self.is_resumable)?;
                return Ok(false);
            }
            (Parts::Gone | Parts::Joined { is_made: true }, _) => {
                return Err(self.shared.lost_parts(target, self.restored, recovered.target));
            }
        }
        self.shared.set_complete(true);
        Ok(true)
    }

    /// Refuses to continue from a checkpoint while there is output of later ones.
    fn check_newer(&self) -> Result<()> {
        let (Delivery::ExactlyOnce, Some(restored)) = (self.delivery, self.restored) else { return Ok(()) };
        let is_newer = |name: &String| name::epoch_of(last_of(name)).is_some_and(|epoch| epoch > restored.0);
        let newer: Vec<String> = self.names()?.into_iter().filter(is_newer).collect();
        if newer.is_empty() {
            return Ok(());
        }
        Err(Error::connector(format!(
            "{:?} already shows output of later checkpoints than {}, which was restored, and it would come again: remove \
             {} and run the job again to have it written anew, or write into another directory",
            self.shared.directory,
            restored.0,
            quoted(&newer, ", ")
        )))
    }

    /// Counts the parts of one file, and refuses to continue if there are fewer than the checkpoint knows of.
    fn check_count(&mut self, recovered: &Recovered<'_>) -> Result<()> {
        let mut former = self.names()?;
        former.retain(|name| name::is_committed(name));
        for commit in recovered.commits {
            let handles = self.handles_of(commit)?;
            former.retain(|name| handles.iter().all(|handle| handle.name != *name));
        }
        self.parts = former.len();
        let Some(receipt) = recovered.receipt else { return Ok(()) };
        let noted: usize = receipt.parse().map_err(|e| {
            Error::checkpoint(format!("what the checkpoint knows of {:?} is damaged: {receipt:?}", self.shared.path())).because(e)
        })?;
        if self.parts >= noted {
            return Ok(());
        }
        Err(Error::connector(format!(
            "{:?} has {} of the {noted} parts of {:?} that were committed: restore them, or start over with another checkpoint path",
            self.shared.directory,
            self.parts,
            self.shared.path()
        )))
    }
}

/// The name of a file in the path of one.
fn last_of(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, last)| last)
}

fn rename(hidden: &Path, path: &Path) -> Result<()> {
    mill_fault::reach("file.rename").and_then(|()| std::fs::rename(hidden, path)).map_err(|e| {
        Error::connector(format!(
            "cannot rename {hidden:?} to {path:?}: {e}; nothing was changed: run the job again to commit it"
        ))
        .because(e)
    })
}

impl Drop for DirectoryCommitter {
    fn drop(&mut self) {
        if self.shared.joined.is_none() {
            return;
        }
        // No later run takes up what one that keeps nothing has left. What cannot be removed is removed by the next.
        if self.has_begun && !self.is_resumable && self.shared.directory.exists() {
            let _ = self.shared.drop_parts();
        }
        // A directory with anything in it is not removed.
        let _ = std::fs::remove_dir(&self.shared.directory);
    }
}

impl Committer for DirectoryCommitter {
    fn promise(&mut self, run: &Run<'_>) -> Result<()> {
        self.delivery = run.delivery;
        self.is_resumable = run.directory.is_some() || run.delivery == Delivery::AtMostOnce;
        (self.job, self.restored) = (run.job, run.restored);
        // A sink may be run more than once.
        self.shared.set_complete(false);
        // Of one file it is not known yet whose the parts are.
        if self.shared.joined.is_some() { Ok(()) } else { self.check_newer() }
    }

    fn begin(&mut self) -> Result<()> {
        let (hidden, rest): (Vec<String>, Vec<String>) =
            self.names()?.into_iter().partition(|name| name::is_hidden(name, None));
        let parts: Vec<String> = rest.into_iter().filter(|name| name::is_committed(last_of(name))).collect();
        if let Some(target) = self.shared.joined.as_ref().filter(|target| is_taken(target))
            && self.on_existing == OnExisting::Refuse
        {
            return Err(Error::connector(format!(
                "{target:?} already exists: replace it with on_existing=\"replace\", or choose another name"
            )));
        }
        let are_left = self.shared.joined.is_some() && self.shared.are_left();
        if !parts.is_empty() && !are_left && self.on_existing == OnExisting::Refuse {
            return Err(Error::connector(format!(
                "{:?} already has the output of another run ({}): resume that run with its checkpoint, replace it \
                 with on_existing=\"replace\", or choose another directory",
                self.shared.directory,
                quoted(&parts[..parts.len().min(3)], ", ")
            )));
        }
        self.remove(parts)?;
        self.remove(hidden)?;
        if self.shared.joined.is_some() {
            self.shared.begin_parts(self.job, self.is_resumable)?;
        }
        self.has_begun = true;
        sync_directory(&self.shared.directory)
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<()> {
        self.commit_all(commits, false)
    }

    fn commits_early(&self) -> bool {
        // The last commit of one file gives up the parts, which the checkpoint before it needs.
        self.shared.joined.is_none()
    }

    fn receipt(&self) -> Option<String> {
        self.shared.joined.as_ref()?;
        Some(if self.shared.is_complete() { IS_COMPLETE.to_owned() } else { self.parts.to_string() })
    }

    fn recover(&mut self, recovered: &Recovered<'_>) -> Result<()> {
        recovered.target.map_or(Ok(()), |was| self.shared.check_target(was))?;
        if let Some(target) = self.shared.joined.clone()
            && self.recover_file(&target, recovered)?
        {
            return Ok(());
        }
        self.commit_all(recovered.commits, recovered.is_settled)?;
        let stale: Vec<String> = self.names()?.into_iter().filter(|name| name::is_hidden(name, None)).collect();
        self.remove(stale)
    }

    fn abort(&mut self) -> Result<()> {
        let nonce = self.shared.nonce;
        let of_this_run = self.names()?.into_iter().filter(|name| name::is_hidden(name, Some(nonce)));
        let unnamed: Vec<String> = of_this_run.filter(|name| !self.named.contains(name)).collect();
        self.remove(unnamed)
    }
}
