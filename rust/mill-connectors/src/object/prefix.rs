//! A prefix of a bucket as a place for files that are written once: the state of jobs.
//!
//! Requests for large objects run in the background, many at a time; a caller asks for all it needs and waits then.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use mill_protocol::{Ending, Error, Result};
use object_store::path::Path as Key;
use object_store::{Error as StoreError, GetOptions, ObjectStoreExt as _, PutMode, PutOptions, UpdateVersion};

use super::bucket::Bucket;
use super::client::{self, Patience};
use super::place::{Place, is_object, location};
use super::whole::Changing;

/// Larger objects are written in parts and read in ranges of this size.
const PIECE_BYTES: u64 = 8 << 20;
/// So many of one object at a time.
const PIECES_AT_ONCE: usize = 4;
/// Larger objects would have too many parts of that size.
const PIECES_MAX: u64 = 9_000;
/// How long requests may take once the end of a job waits for them.
const LAST_WAIT: Duration = Duration::from_secs(3);

/// What came of a request that runs in the background.
#[derive(Debug)]
pub enum Transfer {
    /// It is done.
    Done,
    /// There is no such object.
    Absent,
    /// The object is not the one that was asked for.
    Other(String),
    /// The store did not answer, or refused.
    Failed(Error),
}

/// What came of a write on a condition.
#[derive(Debug)]
pub enum Written {
    /// The object is there, as this version: its entity tag, and what the store has beside it or in its place.
    Done(Option<String>, Option<String>),
    /// The condition does not hold.
    Refused,
}

/// On what condition an object is written.
#[derive(Clone, Debug)]
pub enum Condition {
    /// There is none of this name.
    Absent,
    /// The same, of an object that will be changed on conditions.
    AbsentAndChanging,
    /// It is the version with this entity tag, and with this, that is there.
    Is(Option<String>, Option<String>),
}

/// A prefix of a bucket.
pub struct ObjectPrefix {
    bucket: Arc<Bucket>,
    url: String,
    /// Empty, or with a slash at the end.
    prefix: String,
    ending: Ending,
    is_hurried: AtomicBool,
}

impl fmt::Debug for ObjectPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl ObjectPrefix {
    /// Whether a path is the URL of a prefix, and not a directory of this machine.
    pub fn is_url(path: &Path) -> bool {
        is_object(path)
    }

    /// The prefix of a URL. `ending` ends the waiting for answers.
    ///
    /// # Errors
    /// When it names no bucket, is on the web, or the options of the store do not fit.
    pub fn new(url: &Path, ending: Ending) -> Result<ObjectPrefix> {
        let place = Place::of(url)?;
        if place.scheme.is_web() {
            return Err(Error::plan(format!("{url:?} is on the web, which can only be read: checkpoints go to s3://, gs://, az:// or hdfs://")));
        }
        let key = place.key.trim_matches('/').to_owned();
        let place = Place { key, ..place };
        place.location()?;
        let bucket = Bucket::of(&place)?;
        let prefix = if place.key.is_empty() { String::new() } else { format!("{}/", place.key) };
        let url = format!("{}/{}", place.root(), place.key).trim_end_matches('/').to_owned();
        Ok(ObjectPrefix { bucket, url, prefix, ending, is_hurried: AtomicBool::new(false) })
    }

    /// The URL, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on requests are given up after a moment, and not because the job ends.
    pub fn hurry(&self) {
        // Relaxed: no other memory is published with the flag.
        self.is_hurried.store(true, Ordering::Relaxed);
    }

    fn patience(&self) -> Patience<'_> {
        match self.is_hurried.load(Ordering::Relaxed) {
            true => Patience::Until(Instant::now() + LAST_WAIT),
            false => Patience::Run(&self.ending),
        }
    }

    fn key(&self, name: &str) -> Result<Key> {
        let key = format!("{}{name}", self.prefix);
        location(&key).map_err(|e| Error::plan(format!("{key:?} is no key of an object: {e}")))
    }

    fn shown(&self, name: &str) -> String {
        format!("{}/{name}", self.url)
    }

    /// Reads a small object, with its entity tag and what the store has beside it; `None` if there is none.
    ///
    /// # Errors
    /// When the store does not answer, or refuses.
    #[allow(clippy::type_complexity)]
    pub fn read(&self, name: &str) -> Result<Option<(Bytes, Option<String>, Option<String>)>> {
        let (objects, key) = (self.bucket.objects(), self.key(name)?);
        let request = async move {
            let found = objects.get_opts(&key, GetOptions::default()).await?;
            let (tag, version) = (found.meta.e_tag.clone(), found.meta.version.clone());
            Ok::<_, StoreError>((found.bytes().await?, tag, version))
        };
        match client::wait(&self.shown(name), self.patience(), request)? {
            Ok(found) => Ok(Some(found)),
            Err(error @ StoreError::NotFound { .. }) if !Bucket::is_gone(&error) => Ok(None),
            Err(error) => Err(self.failed("read", name, &error)),
        }
    }

    /// Writes a small object on a condition.
    ///
    /// # Errors
    /// When the store does not answer, or refuses for another reason; the object may have been written all the same.
    pub fn put(&self, name: &str, bytes: Vec<u8>, condition: Condition) -> Result<Written> {
        let (objects, key) = (self.bucket.objects(), self.key(name)?);
        let mut options = PutOptions::default();
        if matches!(condition, Condition::AbsentAndChanging) {
            options.extensions.insert(Changing);
        }
        options.mode = match condition {
            Condition::Absent | Condition::AbsentAndChanging => PutMode::Create,
            Condition::Is(e_tag, version) => PutMode::Update(UpdateVersion { e_tag, version }),
        };
        let request = async move { objects.put_opts(&key, bytes.into(), options).await };
        match client::wait(&self.shown(name), self.patience(), request)? {
            Ok(put) => Ok(Written::Done(put.e_tag, put.version)),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(Written::Refused),
            Err(error) => Err(self.failed("write", name, &error)),
        }
    }

    /// Begins to write an object, over one of its name; `told` hears what came of it, on a thread that must not wait.
    pub fn upload(&self, name: &str, bytes: Bytes, told: impl FnOnce(Transfer) + Send + 'static) {
        let key = match self.key(name) {
            Ok(key) => key,
            Err(error) => return told(Transfer::Failed(error)),
        };
        let (objects, parts) = (self.bucket.objects(), self.bucket.parts());
        let request = async move {
            let total = bytes.len() as u64;
            let Some(parts) = parts.filter(|_| total > PIECE_BYTES) else { return objects.put(&key, bytes.into()).await.map(drop) };
            let piece = PIECE_BYTES.max(total.div_ceil(PIECES_MAX)) as usize;
            let id = parts.create_multipart(&key).await?;
            let pieces = (0..bytes.len().div_ceil(piece)).map(|index| {
                let (parts, key, id) = (Arc::clone(&parts), key.clone(), id.clone());
                let data = bytes.slice(index * piece..bytes.len().min((index + 1) * piece));
                async move { parts.put_part(&key, &id, index, data.into()).await }
            });
            let put = stream::iter(pieces).buffered(PIECES_AT_ONCE).try_collect::<Vec<_>>().await;
            let outcome = match put {
                Ok(put) => parts.complete_multipart(&key, &id, put).await.map(drop),
                Err(error) => Err(error),
            };
            if outcome.is_err() {
                // Best effort: the rules of the bucket remove what is left.
                let _ = parts.abort_multipart(&key, &id).await;
            }
            outcome
        };
        let (bucket, name) = (Arc::clone(&self.bucket), format!("{}{name}", self.prefix));
        let outcome = move |outcome: std::result::Result<(), StoreError>| match outcome {
            Ok(()) => Transfer::Done,
            Err(error) => Transfer::Failed(bucket.failed("write", &name, &error)),
        };
        client::begin(request, move |done| told(done.map_or_else(Transfer::Failed, outcome)));
    }

    /// Begins to read an object of this size; `take` gets its bytes in any order, with where they are.
    pub fn download(
        &self,
        name: &str,
        bytes: u64,
        mut take: impl FnMut(u64, &[u8]) -> std::io::Result<()> + Send + 'static,
        told: impl FnOnce(Transfer) + Send + 'static,
    ) {
        let key = match self.key(name) {
            Ok(key) => key,
            Err(error) => return told(Transfer::Failed(error)),
        };
        let objects = self.bucket.objects();
        let request = async move {
            let meta = objects.head(&key).await?;
            if meta.size != bytes {
                return Ok(Transfer::Other(format!("the object has {} bytes, {bytes} were written", meta.size)));
            }
            let pieces = (0..bytes.div_ceil(PIECE_BYTES)).map(|index| {
                let (objects, key) = (Arc::clone(&objects), key.clone());
                let range = index * PIECE_BYTES..bytes.min((index + 1) * PIECE_BYTES);
                async move { fetch(&*objects, &key, range.clone()).await.map(|piece| (range, piece)) }
            });
            let mut pieces = stream::iter(pieces).buffer_unordered(PIECES_AT_ONCE);
            while let Some((range, piece)) = pieces.try_next().await? {
                if piece.len() as u64 != range.end - range.start {
                    return Ok(Transfer::Other(format!("the store returned {} bytes instead of {}", piece.len(), range.end - range.start)));
                }
                if let Err(error) = take(range.start, &piece) {
                    return Ok(Transfer::Failed(Error::checkpoint(format!("what was read of {key} cannot be kept: {error}")).because(error)));
                }
            }
            Ok(Transfer::Done)
        };
        let (bucket, name) = (Arc::clone(&self.bucket), format!("{}{name}", self.prefix));
        let outcome = move |outcome: std::result::Result<Transfer, StoreError>| match outcome {
            Ok(transfer) => transfer,
            Err(StoreError::NotFound { .. }) => Transfer::Absent,
            Err(error) => Transfer::Failed(bucket.failed("read", &name, &error)),
        };
        client::begin(request, move |done| told(done.map_or_else(Transfer::Failed, outcome)));
    }

    /// The names of all objects below the prefix, and their sizes.
    ///
    /// # Errors
    /// When the store does not answer, or refuses.
    pub fn list(&self) -> Result<Vec<(String, u64)>> {
        let mut found = self.bucket.list(&self.prefix, Some(&self.ending))?;
        found.retain(|object| object.location.as_ref().starts_with(&self.prefix));
        Ok(found.into_iter().map(|object| (object.location.as_ref()[self.prefix.len()..].to_owned(), object.size)).collect())
    }

    /// The name of one object below the prefix, if there is any.
    ///
    /// # Errors
    /// When the store does not answer, or refuses.
    pub fn any(&self) -> Result<Option<String>> {
        let found = self.bucket.first(&self.prefix, Some(&self.ending))?;
        Ok(found.and_then(|object| object.location.as_ref().strip_prefix(&self.prefix).map(str::to_owned)))
    }

    /// Deletes objects; one that is not there is deleted.
    ///
    /// # Errors
    /// Of the first that cannot be deleted.
    pub fn delete(&self, names: &[String]) -> Result<()> {
        let [first, ..] = names else { return Ok(()) };
        let keys = names.iter().map(|name| self.key(name)).collect::<Result<Vec<_>>>()?;
        let objects = self.bucket.objects();
        let request = async move {
            let keys = stream::iter(keys.into_iter().map(Ok)).boxed();
            objects.delete_stream(keys).filter(|outcome| {
                let is_absent = matches!(outcome, Err(StoreError::NotFound { .. }));
                std::future::ready(!is_absent)
            }).try_collect::<Vec<_>>().await
        };
        client::wait(&self.shown(first), self.patience(), request)?.map(drop).map_err(|error| self.failed("delete", first, &error))
    }

    fn failed(&self, doing: &str, name: &str, error: &StoreError) -> Error {
        self.bucket.failed(doing, &format!("{}{name}", self.prefix), error)
    }
}

/// Some bytes of an object; an answer that breaks off is asked for again.
async fn fetch(objects: &dyn object_store::ObjectStore, key: &Key, range: std::ops::Range<u64>) -> object_store::Result<Bytes> {
    let mut left = 5;
    loop {
        match objects.get_range(key, range.clone()).await {
            Err(StoreError::Generic { .. }) if left > 0 => left -= 1,
            outcome => return outcome,
        }
    }
}
