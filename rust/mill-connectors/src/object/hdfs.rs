//! HDFS as a store of objects: files that appear as a whole, are known by their versions, and change on a condition.
//!
//! ```text
//!   an object            /dir/name                              written as /dir/.name.<id>-<attempt>.writing, and renamed
//!   one that changes     /dir/name/content-<n>-<id>             what version n holds
//!                        /dir/name/version-<n>-<id>             no bytes; its name says which content is the current one
//!
//!   version n to n + 1   create  content-<n+1>-<id'>
//!                        rename  version-<n>-<id>  to  version-<n+1>-<id'>          the change, if n is still the version
//!                        delete  content-<n>-<id>
//! ```
//!
//! What holds:
//!
//! - An object appears by one rename, which the NameNode carries out as a whole or not at all. Its bytes are on the disks of the
//!   DataNodes before (`hsync`), except in directories with erasure coding, which have no such call.
//! - Ids are random, so nobody else writes under a hidden name, and a request that is carried out late finds nothing that it could
//!   change: a rename has no source any more, a create makes another hidden file.
//! - There is one file `version-…` in the directory of an object that changes, and no name of it comes back. So a rename of
//!   it succeeds for one of those who have seen the same version, and for nobody who has seen an older one.
//! - A content is deleted after the version file has left its name, so whoever reads it and finds it gone looks again.
//! - Bytes that were read are of one version: blocks are asked for first, and the time of change and length after that.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _, stream};
use hdfs_native::client::FileStatus;
use hdfs_native::{Client, ClientBuilder, HdfsError, WriteOptions};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::whole::{Changing, Extent, WholeFiles};
use crate::directory::fresh_nonce;

const STORE: &str = "HDFS";
/// The port of a NameNode, if the URL has none and is not the name of several in the configuration of Hadoop.
const PORT: u16 = 8020;
/// How long the NameNode may say nothing.
const SILENCE: Duration = Duration::from_secs(20);
/// How long DataNodes may take for some bytes, beside what they are.
const DATA_WAIT: Duration = Duration::from_secs(180);
/// Slower than this is not waited for.
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Files are written in pieces of at most so many bytes; no file has smaller blocks.
const PIECE_BYTES: u64 = 1 << 20;
/// What the names of files end with that are being written.
const WRITING: &str = ".writing";
/// What `hdfs dfs -put` calls files that are being written.
const COPYING: &str = "._COPYING_";
/// So long after it was begun, a hidden file of nobody's is deleted.
const LEFT_AFTER: Duration = Duration::from_secs(3600);
/// How often a content is looked for that is gone when it is read.
const LOOKS_MAX: usize = 50;
const DELETES_AT_ONCE: usize = 16;
/// Exceptions of the NameNode that pass.
const PASSING: [&str; 6] = [
    "StandbyException", "RetriableException", "SafeModeException", "NotReplicatedYetException", "LeaseExpiredException", "ObserverRetryOnActiveException",
];
const DENIED: [&str; 2] = ["AccessControlException", "AuthorizationException"];
/// A user of simple authentication; all other options are those of Hadoop's configuration.
pub(super) const USER: &str = "hdfs_user";

/// An HDFS, as one user sees it.
#[derive(Clone)]
pub(super) struct Hdfs(Arc<Inner>);

struct Inner {
    address: String,
    connect: Box<dyn Fn() -> hdfs_native::Result<Client> + Send + Sync>,
    client: Mutex<Client>,
    retries: usize,
    time: Duration,
    /// Directories in which hidden files that are left were looked for.
    swept: Mutex<HashSet<String>>,
}

impl Hdfs {
    /// A client of the NameNode, or of those of the name, at this address; it connects when it is needed.
    pub(super) fn new(address: &str, options: impl Iterator<Item = (String, String)>, (retries, time): (usize, Duration)) -> Result<Hdfs> {
        let (users, mut config): (Vec<_>, Vec<_>) = options.partition(|(name, _)| name == USER);
        let mut usual = |name: &str, value: &str| {
            if !config.iter().any(|(given, _)| given == name) {
                config.push((name.to_owned(), value.to_owned()));
            }
        };
        // Requests are repeated here, for as long as those of other stores.
        let attempts = if address.contains(':') { "0" } else { "4" };
        usual("dfs.client.failover.max.attempts", attempts);
        usual("dfs.client.failover.sleep.base.millis", "100");
        usual("dfs.client.socket-timeout", "20000");
        let user = users.into_iter().next().map(|(_, value)| value);
        let handle = super::client::handle().map_err(|error| generic(error.to_string()))?;
        let url = format!("hdfs://{address}");
        let connect_to = move |url: &str| {
            let builder = ClientBuilder::new().with_url(url).with_config(config.clone()).with_io_runtime(handle.clone());
            match &user {
                Some(user) => builder.with_user(user.clone()).build(),
                None => builder.build(),
            }
        };
        let connect: Box<dyn Fn() -> hdfs_native::Result<Client> + Send + Sync> = match connect_to(&url) {
            Err(HdfsError::InvalidArgument(what)) if what.contains("No NameNode hosts") => Box::new(move || connect_to(&format!("{url}:{PORT}"))),
            _ => Box::new(move || connect_to(&url)),
        };
        let client = Mutex::new(connect().map_err(|error| generic(error.to_string()))?);
        Ok(Hdfs(Arc::new(Inner { address: address.to_owned(), connect, client, retries, time, swept: Mutex::default() })))
    }

    fn client(&self) -> Client {
        // Replaced as a whole, so a panic elsewhere leaves a client.
        self.0.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests go over another connection from now on.
    fn reconnect(&self) {
        if let Ok(client) = (self.0.connect)() {
            *self.0.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
        }
    }

    /// Repeats a request while its failure passes, as long as that is worth it; it is told which attempt it is.
    async fn tried<T, F>(&self, path: &str, limit: Duration, request: impl Fn(Client, usize) -> F) -> Result<T>
    where
        F: Future<Output = hdfs_native::Result<T>>,
    {
        let begun = Instant::now();
        let mut pause = PAUSE_MIN;
        let mut attempt = 1;
        loop {
            let error = match tokio::time::timeout(limit, request(self.client(), attempt)).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => {
                    self.reconnect();
                    std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no response for {} seconds", limit.as_secs())).into()
                }
            };
            if !is_passing(&error) || attempt > self.0.retries || begun.elapsed() >= self.0.time {
                return Err(self.told(path, attempt, error));
            }
            attempt += 1;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn told(&self, path: &str, attempts: usize, error: HdfsError) -> StoreError {
        let path = path.trim_start_matches('/').to_owned();
        match kind(&error) {
            Kind::Absent => StoreError::NotFound { path, source: said(&error).into() },
            Kind::Present => StoreError::AlreadyExists { path, source: said(&error).into() },
            Kind::Denied => StoreError::PermissionDenied { path, source: said(&error).into() },
            Kind::Silent => {
                let tries = if attempts > 1 { format!(" after {attempts} attempts") } else { String::new() };
                generic(format!(
                    "{} does not respond{tries} ({}): check that HDFS runs, and that this is the address of its RPC, as in fs.defaultFS",
                    self.0.address,
                    said(&error)
                ))
            }
            Kind::Other => generic(said(&error)),
        }
    }

    async fn status(&self, path: &str) -> Result<Option<FileStatus>> {
        match self.tried(path, SILENCE, |client, _| async move { client.get_file_info(path).await }).await {
            Ok(status) => Ok(Some(status)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Renames without overwriting, unless that is asked for.
    async fn rename(&self, from: &str, to: &str, is_over: bool) -> Result<()> {
        let attempts = Mutex::new(0);
        let renamed = self.tried(to, SILENCE, |client, attempt| {
            *attempts.lock().unwrap_or_else(PoisonError::into_inner) = attempt;
            async move { client.rename(from, to, is_over).await }
        });
        let outcome = renamed.await;
        let is_repeated = *attempts.lock().unwrap_or_else(PoisonError::into_inner) > 1;
        match outcome {
            // An attempt whose answer was lost may have done it: the source has a name that nobody else has.
            Err(error @ (StoreError::NotFound { .. } | StoreError::AlreadyExists { .. })) if is_repeated => {
                let is_done = self.status(from).await?.is_none() && self.status(to).await?.is_some();
                if is_done { Ok(()) } else { Err(error) }
            }
            outcome => outcome,
        }
    }

    async fn delete_path(&self, path: &str, is_recursive: bool) -> Result<bool> {
        self.tried(path, SILENCE, |client, _| async move { client.delete(path, is_recursive).await }).await
    }

    /// Writes a file under a name that was never used, made for each attempt; returns the name.
    async fn write_new(&self, name: &(dyn Fn(usize) -> String + Sync), source: &Source, is_in_directory: bool) -> Result<String> {
        let limit = DATA_WAIT + Duration::from_secs(source.len() / BYTES_PER_SECOND_MIN);
        let shown = name(1);
        let written = self.tried(&shown, limit, |client, attempt| {
            let path = name(attempt);
            async move {
                let written = write(&client, &path, source, !is_in_directory).await;
                match written {
                    Ok(()) => Ok(path),
                    Err(error) => {
                        // Best effort: the next attempt has another name.
                        let _ = tokio::time::timeout(SILENCE, client.delete(&path, false)).await;
                        Err(error)
                    }
                }
            }
        });
        written.await
    }

    /// Writes an object, over one of its name or only if there is none.
    async fn put_whole(&self, path: &str, bytes: Bytes, is_over: bool) -> Result<PutResult> {
        let id = fresh_nonce();
        let hidden = self.write_new(&|attempt| hidden(path, id, attempt), &Source::Bytes(bytes), false).await?;
        if let Err(error) = self.rename(&hidden, path, is_over).await {
            let _ = self.delete_path(&hidden, false).await;
            return Err(error);
        }
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    /// Writes the first version of an object that changes, only if there is none of its name.
    async fn put_changing(&self, path: &str, bytes: Bytes) -> Result<PutResult> {
        let made = hidden(path, fresh_nonce(), 1);
        let at = Mutex::new(Version { number: 1, id: 0 });
        let name = |_| {
            let version = Version { number: 1, id: fresh_nonce() };
            *at.lock().unwrap_or_else(PoisonError::into_inner) = version;
            format!("{made}/{}", version.content())
        };
        let content = self.write_new(&name, &Source::Bytes(bytes), false).await;
        let version = *at.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match content {
            Ok(_) => {
                let pointer = format!("{made}/{}", version.pointer());
                // It has no bytes, so an attempt that was carried out is as good as this one.
                match self.write_new(&|_| pointer.clone(), &Source::Bytes(Bytes::new()), true).await {
                    Ok(_) | Err(StoreError::AlreadyExists { .. }) => self.rename(&made, path, false).await,
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            let _ = self.delete_path(&made, true).await;
            return Err(error);
        }
        self.sweep(path).await;
        Ok(PutResult { e_tag: None, version: Some(version.text()), extensions: Default::default() })
    }

    /// Writes the next version of an object that changes, if this is still the version that it has.
    async fn change(&self, path: &str, bytes: Bytes, known: Option<&str>) -> Result<PutResult> {
        let refused = || StoreError::Precondition { path: path.to_owned(), source: "it has another version".into() };
        let was = known.and_then(Version::parse).ok_or_else(refused)?;
        let at = Mutex::new(was);
        let name = |_| {
            let version = Version { number: was.number + 1, id: fresh_nonce() };
            *at.lock().unwrap_or_else(PoisonError::into_inner) = version;
            format!("{path}/{}", version.content())
        };
        // Without the directory, there is no object that could be changed.
        let content = self.write_new(&name, &Source::Bytes(bytes), true).await.map_err(|error| match error {
            StoreError::NotFound { .. } => refused(),
            error => error,
        })?;
        let version = *at.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, to) = (format!("{path}/{}", was.pointer()), format!("{path}/{}", version.pointer()));
        match self.rename(&from, &to, false).await {
            Ok(()) => {}
            Err(StoreError::NotFound { .. }) => {
                let _ = self.delete_path(&content, false).await;
                return Err(refused());
            }
            Err(error) => return Err(error),
        }
        // Best effort, as all that is left: a later change in another process deletes it.
        let _ = self.delete_path(&format!("{path}/{}", was.content()), false).await;
        self.sweep(path).await;
        Ok(PutResult { e_tag: None, version: Some(version.text()), extensions: Default::default() })
    }

    /// Deletes what was left by kills in the directory of an object that changes and beside it, once.
    async fn sweep(&self, path: &str) {
        if !self.0.swept.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned()) {
            return;
        }
        let mut left = Vec::new();
        if let Ok(entries) = self.entries(path).await {
            let current = entries.iter().filter_map(|entry| Version::of(name_of(&entry.path), POINTER)).next_back();
            // Nobody can make the current version one with this number any more.
            let is_over = |entry: &&FileStatus| match (Version::of(name_of(&entry.path), CONTENT), current) {
                (Some(version), Some(current)) => version.number <= current.number && version != current,
                _ => false,
            };
            left.extend(entries.iter().filter(is_over).map(|entry| entry.path.clone()));
        }
        let now = Utc::now().timestamp_millis().max(0) as u64;
        if let Some((parent, _)) = path.rsplit_once('/')
            && let Ok(entries) = self.entries(parent).await
        {
            let is_old = |entry: &&FileStatus| is_writing(name_of(&entry.path)) && entry.modification_time + (LEFT_AFTER.as_millis() as u64) < now;
            left.extend(entries.iter().filter(is_old).map(|entry| entry.path.clone()));
        }
        for path in left {
            let _ = self.delete_path(&path, true).await;
        }
    }

    async fn entries(&self, directory: &str) -> Result<Vec<FileStatus>> {
        let directory = if directory.is_empty() { "/" } else { directory };
        self.tried(directory, SILENCE, |client, _| async move { client.list_status(directory, false).await }).await
    }

    /// The version that an object that changes has now, and its bytes; `None` if there is no such object.
    async fn read_changing(&self, path: &str) -> Result<Option<(ObjectMeta, Bytes)>> {
        for _ in 0..LOOKS_MAX {
            let entries = match self.entries(path).await {
                Ok(entries) => entries,
                Err(StoreError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let Some(version) = entries.iter().find_map(|entry| Version::of(name_of(&entry.path), POINTER)) else { return Ok(None) };
            let content = format!("{path}/{}", version.content());
            match self.read_file(&content, |status| Ok(0..status.length as u64)).await {
                Ok((status, _, bytes)) => {
                    let meta = ObjectMeta { e_tag: None, version: Some(version.text()), ..meta_of(&status, path)? };
                    return Ok(Some((meta, bytes)));
                }
                // Somebody has changed it since.
                Err(StoreError::NotFound { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => return Err(error),
            }
        }
        Err(generic(format!("{path} changes all the time")))
    }

    /// Some bytes of a file, all of one version; `range` is told which.
    async fn read_file(
        &self,
        path: &str,
        range: impl Fn(&FileStatus) -> Result<std::ops::Range<u64>> + Sync,
    ) -> Result<(FileStatus, std::ops::Range<u64>, Bytes)> {
        let range = &range;
        let read = self.tried(path, DATA_WAIT, |client, _| async move {
            let reader = client.read(path).await?;
            // The blocks are those of this version, or of one before it: then it has another time of change.
            let status = client.get_file_info(path).await?;
            let range = match range(&status) {
                Ok(range) => range,
                Err(error) => return Ok(Err(error)),
            };
            if reader.file_length() != status.length {
                return Err(HdfsError::OperationFailed(format!("{path} is being written")));
            }
            let bytes = match (range.end - range.start) as usize {
                0 => Bytes::new(),
                bytes => reader.read_range(range.start as usize, bytes).await?,
            };
            Ok(Ok((status, range, bytes)))
        });
        read.await?
    }
}

/// What is written.
enum Source {
    Bytes(Bytes),
    File(Extent),
}

impl Source {
    fn len(&self) -> u64 {
        match self {
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::File(extent) => extent.bytes,
        }
    }

    fn piece(&self, at: u64, bytes: u64) -> std::io::Result<Bytes> {
        match self {
            Source::Bytes(all) => Ok(all.slice(at as usize..(at + bytes) as usize)),
            Source::File(extent) => {
                let mut data = vec![0; bytes as usize];
                tokio::task::block_in_place(|| extent.file.read_exact_at(&mut data, extent.start + at))?;
                Ok(data.into())
            }
        }
    }
}

/// Writes a file that does not exist yet; its bytes are on disks when this returns.
async fn write(client: &Client, path: &str, source: &Source, makes_parents: bool) -> hdfs_native::Result<()> {
    let mut file = client.create(path, WriteOptions::default().create_parent(makes_parents)).await?;
    let bytes = source.len();
    let block = match bytes > PIECE_BYTES {
        true => client.get_file_info(path).await?.blocksize.unwrap_or(0).max(PIECE_BYTES),
        false => PIECE_BYTES,
    };
    let mut at = 0;
    while at < bytes {
        let end = bytes.min(at + PIECE_BYTES).min((at / block + 1) * block);
        file.write_bytes(source.piece(at, end - at)?).await?;
        at = end;
        // Each block is synced while it is the current one.
        if at == bytes || at % block == 0 {
            match file.hsync().await {
                Err(HdfsError::UnsupportedFeature(_)) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
    }
    file.close().await
}

const POINTER: &str = "version-";
const CONTENT: &str = "content-";

/// A version of an object that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    number: u64,
    id: u64,
}

impl Version {
    fn text(self) -> String {
        format!("{:020}-{:016x}", self.number, self.id)
    }

    fn pointer(self) -> String {
        format!("{POINTER}{}", self.text())
    }

    fn content(self) -> String {
        format!("{CONTENT}{}", self.text())
    }

    fn parse(text: &str) -> Option<Version> {
        let (number, id) = text.split_once('-').filter(|(number, id)| number.len() == 20 && id.len() == 16)?;
        let version = Version { number: number.parse().ok()?, id: u64::from_str_radix(id, 16).ok()? };
        Some(version).filter(|version| version.text() == text)
    }

    fn of(name: &str, kind: &str) -> Option<Version> {
        Version::parse(name.strip_prefix(kind)?)
    }
}

/// The hidden name under which an attempt writes a file.
fn hidden(path: &str, id: u64, attempt: usize) -> String {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    format!("{parent}/.{name}.{id:016x}-{attempt}{WRITING}")
}

fn is_writing(name: &str) -> bool {
    let id = name.strip_prefix('.').and_then(|name| name.strip_suffix(WRITING)).and_then(|name| name.rsplit('.').next());
    let id = id.and_then(|id| id.split_once('-')).map(|(id, _)| id);
    id.is_some_and(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn absolute(location: &Path) -> String {
    format!("/{location}")
}

fn generic(what: impl Into<String>) -> StoreError {
    StoreError::Generic { store: STORE, source: what.into().into() }
}

fn meta_of(status: &FileStatus, path: &str) -> Result<ObjectMeta> {
    let millis = status.modification_time as i64;
    Ok(ObjectMeta {
        location: Path::parse(path)?,
        last_modified: DateTime::<Utc>::from_timestamp_millis(millis).unwrap_or_default(),
        size: status.length as u64,
        e_tag: Some(format!("\"{:x}-{:x}\"", status.modification_time, status.length)),
        version: None,
    })
}

/// What the entries of a directory are, in the order of their names: files that are being written are none, and one that changes
/// is a single object.
fn objects_of(
    entries: impl futures_util::Stream<Item = hdfs_native::Result<FileStatus>>,
    directory: String,
) -> impl futures_util::Stream<Item = hdfs_native::Result<FileStatus>> {
    let mut contents: Vec<(String, usize)> = Vec::new();
    entries.filter_map(move |entry| {
        let shown = match entry {
            Ok(mut status) => {
                let (parent, name) = status.path.rsplit_once('/').unwrap_or(("", &status.path));
                if status.isdir && !is_writing(name) {
                    Some(Ok(status))
                } else if status.path == directory || status.path.rsplit('/').any(is_writing) || name.ends_with(COPYING) {
                    None
                } else if let Some(version) = Version::of(name, CONTENT) {
                    // Several are there for a moment; the pointer comes after all of them.
                    contents.push((format!("{parent}/{}", version.pointer()), status.length));
                    None
                } else if Version::of(name, POINTER).is_some() {
                    status.length = contents.drain(..).find(|(pointer, _)| *pointer == status.path).map_or(0, |(_, length)| length);
                    status.path = parent.to_owned();
                    Some(Ok(status))
                } else {
                    Some(Ok(status))
                }
            }
            Err(HdfsError::FileNotFound(_)) => None,
            Err(error) => Some(Err(error)),
        };
        std::future::ready(shown)
    })
}

enum Kind {
    Absent,
    Present,
    Denied,
    Silent,
    Other,
}

fn kind(error: &HdfsError) -> Kind {
    match error {
        HdfsError::FileNotFound(_) => Kind::Absent,
        HdfsError::AlreadyExists(_) => Kind::Present,
        HdfsError::SASLError(_) | HdfsError::GSSAPIError(..) | HdfsError::NoSASLMechanism => Kind::Denied,
        HdfsError::RPCError(class, _) | HdfsError::FatalRPCError(class, _) => match short(class) {
            "FileNotFoundException" => Kind::Absent,
            class if DENIED.contains(&class) => Kind::Denied,
            _ => Kind::Other,
        },
        HdfsError::IOError(_) => Kind::Silent,
        _ => Kind::Other,
    }
}

/// Whether the same request may succeed a little later.
fn is_passing(error: &HdfsError) -> bool {
    match error {
        HdfsError::IOError(_) | HdfsError::DataTransferError(_) | HdfsError::ChecksumError | HdfsError::BlocksNotFound(_) | HdfsError::OperationFailed(_) => true,
        HdfsError::RPCError(class, said) | HdfsError::FatalRPCError(class, said) => {
            // No DataNode takes the block now.
            PASSING.contains(&short(class)) || said.contains("could only be written to") || said.contains("could only be replicated to")
        }
        _ => false,
    }
}

fn short(class: &str) -> &str {
    class.rsplit(['.', '$']).next().unwrap_or(class)
}

/// What an error says, without the stack of the server.
fn said(error: &HdfsError) -> String {
    match error {
        HdfsError::RPCError(class, said) | HdfsError::FatalRPCError(class, said) => format!("{}: {}", short(class), said.lines().next().unwrap_or_default()),
        HdfsError::IOError(error) => error.to_string(),
        error => error.to_string(),
    }
}

impl fmt::Display for Hdfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hdfs://{}", self.0.address)
    }
}

impl fmt::Debug for Hdfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl WholeFiles for Hdfs {
    fn write(&self, key: Path, id: String, data: Extent) -> BoxFuture<'static, Result<String>> {
        let hdfs = self.clone();
        async move {
            let path = absolute(&key);
            let id = u64::from_str_radix(&id, 16).map_err(|_| generic(format!("{id:?} is no number of an upload")))?;
            let hidden = hdfs.write_new(&|attempt| hidden(&path, id, attempt), &Source::File(data), false).await?;
            Ok(name_of(&hidden).to_owned())
        }
        .boxed()
    }

    fn complete(&self, key: Path, id: String, written: String) -> BoxFuture<'static, Result<()>> {
        let hdfs = self.clone();
        async move {
            let path = absolute(&key);
            // The name comes from a checkpoint, which may be damaged.
            if written.contains('/') || !is_writing(&written) || !written.contains(&id) {
                return Err(generic(format!("{written:?} is no name of a file that is being written")));
            }
            let (parent, _) = path.rsplit_once('/').unwrap_or(("", &path));
            hdfs.rename(&format!("{parent}/{written}"), &path, false).await
        }
        .boxed()
    }

    fn abort(&self, key: Path, id: String) -> BoxFuture<'static, Result<()>> {
        let hdfs = self.clone();
        async move {
            let path = absolute(&key);
            let id = u64::from_str_radix(&id, 16).map_err(|_| generic(format!("{id:?} is no number of an upload")))?;
            let attempts = hdfs.0.retries.max(super::bucket::RETRIES.0) + 1;
            let deletes = (1..=attempts).map(|attempt| {
                let (hdfs, path) = (hdfs.clone(), hidden(&path, id, attempt));
                async move { hdfs.delete_path(&path, false).await }
            });
            stream::iter(deletes.collect::<Vec<_>>()).buffer_unordered(DELETES_AT_ONCE).try_collect::<Vec<bool>>().await.map(drop)
        }
        .boxed()
    }
}

#[async_trait]
impl ObjectStore for Hdfs {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let (path, bytes) = (absolute(location), Bytes::from(payload));
        match options.mode {
            PutMode::Overwrite => self.put_whole(&path, bytes, true).await,
            PutMode::Create if options.extensions.get::<Changing>().is_some() => self.put_changing(&path, bytes).await,
            PutMode::Create => match self.status(&path).await? {
                // Otherwise the whole file would be written to hear that it is refused.
                Some(_) => Err(StoreError::AlreadyExists { path, source: "it is there".into() }),
                None => self.put_whole(&path, bytes, false).await,
            },
            PutMode::Update(known) => self.change(&path, bytes, known.version.as_deref()).await,
        }
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(StoreError::NotSupported { source: format!("{location}: files of HDFS are written as a whole").into() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let path = absolute(location);
        let absent = || StoreError::NotFound { path: location.to_string(), source: "there is no file of this name".into() };
        let result = |meta, range, bytes: Bytes| GetResult {
            payload: GetResultPayload::Stream(stream::once(std::future::ready(Ok(bytes))).boxed()),
            meta,
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        };
        if options.head {
            let status = self.status(&path).await?.ok_or_else(absent)?;
            let meta = match status.isdir {
                true => self.read_changing(&path).await?.ok_or_else(absent)?.0,
                false => meta_of(&status, &path)?,
            };
            options.check_preconditions(&meta)?;
            return Ok(result(meta, 0..0, Bytes::new()));
        }
        let range_of = |status: &FileStatus| {
            let meta = meta_of(status, &path)?;
            options.check_preconditions(&meta)?;
            let range = options.range.as_ref().map(|range| range.as_range(meta.size)).transpose();
            Ok(range.map_err(|error| generic(error.to_string()))?.unwrap_or(0..meta.size))
        };
        match self.read_file(&path, range_of).await {
            Ok((status, range, bytes)) => Ok(result(meta_of(&status, &path)?, range, bytes)),
            Err(StoreError::NotFound { .. }) => {
                let (meta, bytes) = self.read_changing(&path).await?.ok_or_else(absent)?;
                options.check_preconditions(&meta)?;
                let range = options.range.as_ref().map(|range| range.as_range(meta.size)).transpose();
                let range = range.map_err(|error| generic(error.to_string()))?.unwrap_or(0..meta.size);
                let bytes = bytes.slice(range.start as usize..range.end as usize);
                Ok(result(meta, range, bytes))
            }
            Err(error) => Err(error),
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let hdfs = self.clone();
        let delete = move |location: Result<Path>| {
            let hdfs = hdfs.clone();
            async move {
                let location = location?;
                let path = absolute(&location);
                // An object that changes is a directory; no other one is deleted.
                let is_changing = match hdfs.status(&path).await? {
                    Some(status) if status.isdir => hdfs.read_changing(&path).await?.is_some(),
                    Some(_) => false,
                    None => return Ok(location),
                };
                hdfs.delete_path(&path, is_changing).await.map(|_| location)
            }
        };
        locations.map(delete).buffered(DELETES_AT_ONCE).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let directory = prefix.map_or_else(|| "/".to_owned(), absolute);
        let hdfs = self.clone();
        // A failure is that of the first answer, mostly; it is asked for again by itself.
        let begun = async move {
            let at = directory.as_str();
            hdfs.tried(at, SILENCE, |client, _| async move {
                match client.get_file_info(at).await {
                    Ok(_) | Err(HdfsError::FileNotFound(_)) => Ok(()),
                    Err(error) => Err(error),
                }
            })
            .await?;
            let entries = hdfs.client().list_status_iter(at, true).into_stream();
            let listed = objects_of(entries, directory.clone()).filter(|entry| std::future::ready(entry.as_ref().map_or(true, |status| !status.isdir)));
            Ok::<_, StoreError>(listed.map(move |entry| match entry {
                Ok(status) => meta_of(&status, &status.path),
                Err(error) => Err(hdfs.told(&directory, 1, error)),
            }))
        };
        begun.try_flatten_stream().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let directory = prefix.map_or_else(|| "/".to_owned(), absolute);
        let entries = match self.entries(&directory).await {
            Err(StoreError::NotFound { .. }) => Vec::new(),
            entries => entries?,
        };
        let entries = stream::iter(entries.into_iter().map(Ok));
        let entries: Vec<FileStatus> = objects_of(entries, directory.clone()).try_collect().await.map_err(|error| self.told(&directory, 1, error))?;
        let (directories, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|status| status.isdir);
        Ok(ListResult {
            common_prefixes: directories.iter().map(|status| Path::parse(&status.path)).collect::<std::result::Result<_, _>>()?,
            objects: files.iter().map(|status| meta_of(status, &status.path)).collect::<Result<_>>()?,
            extensions: Default::default(),
        })
    }

    async fn copy_opts(&self, from: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(StoreError::NotSupported { source: format!("{from}: HDFS does not copy files").into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_names_are_known_again_and_others_are_not() {
        let name = hidden("/in/a.csv", 7, 2);
        assert_eq!(name, "/in/.a.csv.0000000000000007-2.writing");
        assert!(is_writing(name_of(&name)));
        for other in ["a.csv", ".a.csv", ".a.csv.writing", ".a.csv.12-1.writing", "a.csv.0000000000000007-2.writing", ".0000000000000007.writing"] {
            assert!(!is_writing(other), "{other}");
        }
    }

    #[test]
    fn a_version_is_its_name() {
        let version = Version { number: 12, id: 0xab };
        assert_eq!(version.pointer(), "version-00000000000000000012-00000000000000ab");
        assert_eq!(Version::of(&version.pointer(), POINTER), Some(version));
        assert_eq!(Version::of(&version.content(), CONTENT), Some(version));
        for other in ["1", "", "00000000000000000012-00000000000000AB", "0000000000000000012-00000000000000ab", "+0000000000000000012-00000000000000ab"] {
            assert_eq!(Version::parse(other), None, "{other}");
        }
        // The content of a version comes before its pointer in a list by name.
        assert!(CONTENT < POINTER);
    }

    #[test]
    fn what_passes_is_tried_again_and_what_does_not_is_not() {
        let rpc = |class: &str, said: &str| HdfsError::RPCError(class.to_owned(), said.to_owned());
        assert!(is_passing(&rpc("org.apache.hadoop.hdfs.server.namenode.SafeModeException", "it is in safe mode")));
        assert!(is_passing(&rpc("java.io.IOException", "File /a could only be written to 0 of the 1 minReplication nodes.")));
        assert!(!is_passing(&rpc("org.apache.hadoop.security.AccessControlException", "Permission denied")));
        assert!(!is_passing(&rpc("java.io.IOException", "something else")));
        assert!(matches!(kind(&rpc("java.io.FileNotFoundException", "")), Kind::Absent));
        assert_eq!(said(&rpc("org.apache.hadoop.security.AccessControlException", "Permission denied\n\tat x")), "AccessControlException: Permission denied");
    }
}
