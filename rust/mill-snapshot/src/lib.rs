//! Checkpoints on disk: segments, manifests, recovery, compaction, savepoints, and the lock on the directory.
//!
//! ```text
//! <state directory>
//! ├── MILLSTREAM                             marks: state is to be expected here, up to checkpoint n
//! ├── lock                                   the same marks again; locked by the job that works here
//! ├── manifest-00000000000000000042          makes checkpoint 42 exist: what it consists of
//! ├── segment-00000000000000000042-0000      blocks: what changed up to checkpoint 42
//! ├── segment-00000000000000000040-merged-0001
//! └── positions                              in mode `none` only: how far each split was read
//! ```
//!
//! Invariants:
//! * a checkpoint is visible (its manifest has its name) only after all it refers to is durable;
//! * every byte of every file is covered by a checksum, and recovery checks all of them before it hands out any;
//! * a file that is missing, cut, flipped or of another directory is noticed: recovery goes back to the newest
//!   checkpoint that is whole and says so, or refuses; it never starts from nothing where state was expected;
//! * files are written once, into space that was allocated before they were mapped; a file whose sync failed is never used
//!   again;
//! * only files that no kept checkpoint refers to are removed.
//!
//! Checkpoints may also be in an object store, with the directory as its cache: `remote` documents the rules there, and
//! [`Blobs`] is the interface to the store.
//!
//! The crate knows nothing of operators, tasks or tables but what `mill_frame::block` says. Time and the disk are passed in
//! from outside; [`FaultDisk`] is a disk that loses, fails and fills up on command, and the steps of a checkpoint on the
//! real disk have names at which a test lets the process die (`mill-fault`).
//!
//! # Examples
//!
//! ```
//! use std::sync::Arc;
//! use mill_snapshot::{FaultDisk, ManifestParts, OperatorInfo, OperatorState, Store, TaskId};
//!
//! let disk = Arc::new(FaultDisk::new());
//! let store = Store::open("state", disk)?;
//! let writer = store.begin(store.next_epoch(), store.should_rebase())?;
//! let task = TaskId { chain: "count".to_owned(), index: 0, parallelism: 1 };
//! let state = OperatorState { uid: "count".to_owned(), bytes: Some(b"7".to_vec()), ..OperatorState::default() };
//! writer.write_task(&task, vec![state])?;
//! let info = OperatorInfo { uid: "count".to_owned(), parallelism: 1, ..OperatorInfo::default() };
//! writer.finish(ManifestParts { operators: vec![info], ..ManifestParts::default() })?;
//!
//! let checkpoint = store.latest(&mut Vec::new())?.expect("one was published");
//! assert_eq!(&*checkpoint.restored("count", 0..128).0[0], b"7");
//! # Ok::<(), mill_snapshot::Error>(())
//! ```

mod aligned;
mod blobs;
mod checkpoint;
mod compact;
mod disk;
mod error;
mod fault_disk;
mod head;
mod manifest;
mod marks;
mod mirror;
mod positions;
mod real_disk;
mod remote;
mod retire;
mod savepoint;
mod segment;
mod store;
mod survivors;
mod verify;
mod writer;

pub use blobs::{Blob, Blobs, OnlyIf, Pending, Put, Take, Version};
pub use checkpoint::Checkpoint;
pub use disk::{Disk, Entry, Held, MappedFile};
pub use error::{Error, Result};
pub use fault_disk::{Fault, FaultDisk};
pub use head::{HEAD, HEAD_VERSION, Head, Holder, Lease};
pub use manifest::{FileRef, MANIFEST_BYTES_MAX, MANIFEST_VERSION, Manifest, OperatorEntry};
pub use marks::{DIRECTORY_VERSION, LOCK, MARKER};
pub use positions::{POSITION_BYTES_MAX, POSITIONS, POSITIONS_VERSION, Positions, SLOT_NAME_BYTES_MAX, SLOTS_MAX};
pub use real_disk::RealDisk;
pub use remote::{FoundHead, IsEnding, Remote};
pub use segment::{BLOCK_BYTES_MAX, SEGMENT_VERSION, SegmentRef, TaskId};
pub use store::{CheckpointInfo, Store};
pub use verify::{VerifyReport, verify, verify_all};
pub use writer::{CheckpointWriter, Handle, ManifestParts, OperatorInfo, OperatorState};
