//! Stores in which a file is written as a whole under a hidden name, and gets its own by a rename.

use std::fs::File;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use object_store::Result;
use object_store::path::Path;

/// Some bytes of a file of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub(crate) file: Arc<File>,
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

/// A store that has renames, and no uploads in parts.
///
/// ```text
///   write      .part-7.json.<id>-1.writing    hidden, complete and synced once this returns
///   complete   part-7.json                    a rename, which overwrites nothing
///   abort      whatever was written under the id is deleted
/// ```
pub(super) trait WholeFiles: Send + Sync {
    /// Writes a hidden file that is to become this object; returns its name.
    fn write(&self, key: Path, id: String, data: Extent) -> BoxFuture<'static, Result<String>>;

    /// Gives the hidden file its name; an error of the kind `NotFound` if it is not there, `AlreadyExists` if the object is.
    fn complete(&self, key: Path, id: String, written: String) -> BoxFuture<'static, Result<()>>;

    /// Deletes what was written under an id.
    fn abort(&self, key: Path, id: String) -> BoxFuture<'static, Result<()>>;
}

/// Asks for an object that will be changed on conditions later; beside the options of a write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changing;
