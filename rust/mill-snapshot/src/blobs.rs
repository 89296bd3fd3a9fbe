//! A store of objects as checkpoints see it: few requests, all of which a test can break.
//!
//! Objects appear as a whole and are written once, except the [`head`](crate::head), each change of which is conditional on
//! the previous version. Names are relative to the place; they may have slashes.
//!
//! A request that fails may have been carried out nevertheless, or may be carried out later. So a write of an object under
//! a unique name may be repeated, and after a change of the head the head is read again.

use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use mill_frame::block::SharedBytes;

/// How often somebody who waits looks whether that is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// Tells one version of an object from all others that were or will be of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// The entity tag.
    pub tag: Option<String>,
    /// What the store has beside it, or in its place.
    pub number: Option<String>,
}

/// On what condition an object is written.
#[derive(Clone, Copy, Debug)]
pub enum OnlyIf<'a> {
    /// There is none of this name.
    Absent,
    /// It is this version that is there.
    Is(&'a Version),
}

/// What came of writing an object on a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is there now, as this version.
    Done(Version),
    /// The condition does not hold.
    Refused,
}

/// An object that was read.
#[derive(Clone, Debug)]
pub struct Blob {
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Which version that is.
    pub version: Version,
}

/// Takes bytes of an object, and where in it they are.
pub type Take = Box<dyn FnMut(u64, &[u8]) -> io::Result<()> + Send>;

/// A place in an object store. Everything but [`read`](Blobs::read), [`put`](Blobs::put) and [`list`](Blobs::list) may continue after the call.
pub trait Blobs: Send + Sync + fmt::Debug {
    /// The place as users write it.
    fn url(&self) -> &str;

    /// Reads a small object; `None` if there is none.
    fn read(&self, name: &str) -> io::Result<Option<Blob>>;

    /// Writes a small object on a condition. After an error it may have been written or not, or may be later.
    fn put(&self, name: &str, bytes: Vec<u8>, only_if: OnlyIf<'_>) -> io::Result<Put>;

    /// Begins to write an object of any size, over one of its name.
    fn upload(&self, name: &str, bytes: SharedBytes) -> Pending;

    /// Begins to read an object of this size, in pieces that come in any order. One of another size is an error.
    fn download(&self, name: &str, bytes: u64, take: Take) -> Pending;

    /// The names of all objects, and their sizes.
    fn list(&self) -> io::Result<Vec<crate::Entry>>;

    /// The name of one object, if there is any.
    fn any(&self) -> io::Result<Option<String>>;

    /// Deletes objects; one that is not there is deleted.
    fn delete(&self, names: &[String]) -> io::Result<()>;

    /// From now on a request is given up after a moment, and not because the job ends.
    fn hurry(&self) {}
}

/// The end of a request that runs in the background. If it is dropped, the request continues.
#[derive(Debug)]
pub struct Pending(Receiver<io::Result<()>>);

impl Pending {
    /// A request, and where its outcome is told.
    pub fn new() -> (SyncSender<io::Result<()>>, Pending) {
        let (send, receive) = sync_channel(1);
        (send, Pending(receive))
    }

    /// A request that is over.
    pub fn done(outcome: io::Result<()>) -> Pending {
        let (send, pending) = Pending::new();
        // There is room for one.
        let _ = send.send(outcome);
        pending
    }

    /// What came of the request, if it is over.
    pub fn outcome(&self) -> Option<io::Result<()>> {
        self.0.try_recv().ok()
    }

    /// Waits for the end, as long as that is wanted.
    ///
    /// # Errors
    /// Of the request; or that nobody wants to wait any more.
    pub fn wait(&self, is_ending: &dyn Fn() -> bool) -> io::Result<()> {
        loop {
            match self.0.recv_timeout(LOOK) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Timeout) if !is_ending() => {}
                Err(RecvTimeoutError::Timeout) => return Err(io::Error::other("the job ends before the store has answered")),
                Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("the request was dropped")),
            }
        }
    }
}
