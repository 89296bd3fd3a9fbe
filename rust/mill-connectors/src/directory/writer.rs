//! Writes one task's share of the output into hidden files, one an epoch.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Batch, Epoch, Error, PreCommit, Result, SinkWriter};
use serde::{Deserialize, Serialize};

use super::{Encoder, Shared, make, name, sync_directory};

/// What a checkpoint holds of a pre-committed file: its names, within the directory.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Handle {
    pub(super) hidden: String,
    pub(super) name: String,
    /// Whether it has no rows: it becomes visible only if no other file does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_empty: bool,
}

impl Handle {
    /// Whether these are the names that a file of this epoch and kind has, and none of another.
    pub(super) fn is_of(&self, epoch: Epoch, extension: &str) -> bool {
        let task = name::task_of(&self.hidden);
        task.is_some_and(|task| self.hidden.ends_with(&format!(".{extension}")) && self.name == name::committed(epoch, task, extension))
    }
}

pub(super) struct DirectoryWriter {
    shared: Arc<Shared>,
    schema: SchemaRef,
    task: usize,
    open: Option<OpenFile>,
    has_rows: bool,
}

struct OpenFile {
    hidden: String,
    path: PathBuf,
    encoder: Box<dyn Encoder>,
    is_empty: bool,
}

impl DirectoryWriter {
    pub(super) fn new(shared: Arc<Shared>, schema: SchemaRef, task: usize) -> DirectoryWriter {
        DirectoryWriter { shared, schema, task, open: None, has_rows: false }
    }

    fn create(&self) -> Result<OpenFile> {
        let Shared { directory, format, nonce, .. } = self.shared.as_ref();
        make(directory)?;
        // Relaxed: only that each file gets another number counts.
        let number = self.shared.files.fetch_add(1, Ordering::Relaxed);
        let hidden = name::hidden(*nonce, self.task, number, format.extension());
        let path = directory.join(&hidden);
        let file: File = mill_fault::reach("file.create")
            .and_then(|()| OpenOptions::new().write(true).create_new(true).open(&path))
            .map_err(|e| Error::connector(format!("cannot create {path:?}: {e}")).because(e))?;
        let encoder = format.encoder(&self.schema, file)?;
        Ok(OpenFile { hidden, path, encoder, is_empty: true })
    }
}

/// The same error, naming the file.
fn in_file(path: &Path, error: Error) -> Error {
    Error::new(error.kind(), format!("{path:?}: {}", error.message())).because(error)
}

impl SinkWriter for DirectoryWriter {
    fn write(&mut self, batch: Batch) -> Result<()> {
        if batch.rows() == 0 {
            return Ok(());
        }
        if self.open.is_none() {
            self.open = Some(self.create()?);
        }
        match &mut self.open {
            Some(open) => {
                self.has_rows = true;
                open.is_empty = false;
                mill_fault::reach("file.write")
                    .map_err(|e| Error::connector(format!("cannot write {:?}: {e}", open.path)).because(e))?;
                open.encoder.write(batch.data()).map_err(|e| in_file(&open.path, e))
            }
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Result<()> {
        // A result without rows is a file with its columns. The other tasks may have had rows: the committer decides.
        if self.task == 0 && !self.has_rows {
            self.open = Some(self.create()?);
        }
        Ok(())
    }

    fn pre_commit(&mut self, epoch: Epoch) -> Result<Option<PreCommit>> {
        let Some(OpenFile { hidden, path, encoder, is_empty }) = self.open.take() else { return Ok(None) };
        let file = encoder.finish().map_err(|e| in_file(&path, e))?;
        let directory = self.shared.directory.clone();
        let name = name::committed(epoch, self.task, self.shared.format.extension());
        Ok(Some(Box::new(move || {
            // After a failed sync the pages are gone: the epoch must fail, and is written anew from the checkpoint.
            mill_fault::reach("file.sync").and_then(|()| file.sync_all()).map_err(|e| Error::connector(format!("cannot sync {path:?}: {e}")).because(e))?;
            sync_directory(&directory)?;
            serde_json::to_vec(&Handle { hidden, name, is_empty })
                .map_err(|e| Error::internal("a handle is two names").because(e))
        })))
    }
}

impl Drop for DirectoryWriter {
    fn drop(&mut self) {
        // Nothing names this file yet. What cannot be removed now is removed by the next recovery.
        if let Some(open) = self.open.take() {
            drop(open.encoder);
            let _ = mill_fault::reach("file.remove").and_then(|()| std::fs::remove_file(open.path));
        }
    }
}
