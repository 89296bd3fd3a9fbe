//! Where checkpoints are: in a directory, or in an object store with a directory as its cache.
//!
//! ```text
//!   s3://bucket/prefix ─┬─ a job works there     <cache>/checkpoints/<name>-<hash of the URL>/     locked, and leased in the store
//!                       └─ somebody looks        <cache>/scratch/<number>/                         goes with whoever looks
//! ```
//!
//! The cache is `MILLSTREAM_CACHE`, or `millstream` in the directory that the system has for caches. It may be removed whenever no job
//! runs: what is missing is fetched.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use mill_connectors::{Condition, ObjectPrefix, Transfer, Written};
use mill_frame::block::SharedBytes;
use mill_protocol::{Ending, Error, Result};
use mill_runtime::{Owner, SavepointCopier, spawn_thread};
use mill_snapshot::{Blob, Blobs, Disk, Entry, Error as StoreError, HEAD, Lease, OnlyIf, Pending, Put, RealDisk, Remote, Store, Take, Version};

use crate::process::{Standing, standing, this};
use crate::recovery::failed;

/// For how long a lease counts that is not renewed.
const LEASE: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(5);
/// How often somebody who waits for a lease looks.
const LOOK: Duration = Duration::from_millis(500);
/// Directories of those who looked, and died, are removed after so long.
const SCRATCH_AGE: Duration = Duration::from_secs(60);
/// The variable that names the cache.
const VARIABLE: &str = "MILLSTREAM_CACHE";

/// What hears that a job waits for the lease of its checkpoints.
pub(crate) type Said<'a> = &'a dyn Fn(&str);

/// The leases of this process.
static HELD: LazyLock<Mutex<HashMap<u64, Weak<Remote>>>> = LazyLock::new(Mutex::default);

/// Whether checkpoints at this path are in an object store.
pub(crate) fn is_remote(path: &Path) -> bool {
    ObjectPrefix::is_url(path)
}

/// Whether two paths are the same place.
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    match (is_remote(one), is_remote(other)) {
        (true, true) => one.to_string_lossy().trim_end_matches('/') == other.to_string_lossy().trim_end_matches('/'),
        (false, false) => matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other),
        _ => false,
    }
}

/// Opens the place of a job's checkpoints to work there; `is_anew`: to start over.
///
/// # Errors
/// When it cannot be used, or another job does.
pub(crate) fn open(path: &Path, is_anew: bool, disk: Arc<dyn Disk>, ending: &Ending, said: Said<'_>) -> Result<Store> {
    if !is_remote(path) {
        let open = if is_anew { Store::open_anew } else { Store::open };
        return open(path, disk).map_err(failed);
    }
    let objects = Arc::new(Objects(ObjectPrefix::new(path, ending.clone())?));
    let url = objects.url().to_owned();
    let directory = cache()?.join("checkpoints").join(directory_name(&url));
    let store = Store::open_remote(directory, &url, disk, is_anew, || acquire(&objects, ending, said)).map_err(failed)?;
    if let Some(remote) = store.remote() {
        let remote = Arc::clone(remote);
        let run = remote.head().lease.map_or(0, |lease| lease.run);
        held().insert(run, Arc::downgrade(&remote));
        spawn_thread("mill-lease", Owner::new(), move || renew(&remote), |_| {})?;
    }
    Ok(store)
}

/// Shows that the job lives, until it has ended.
fn renew(remote: &Remote) {
    while remote.pause(RENEWAL) {
        // A store that does not answer now may do so later; of a lease that was lost the job hears otherwise.
        let _ = remote.renew();
        if !remote.is_held() {
            return;
        }
    }
}

fn held() -> std::sync::MutexGuard<'static, HashMap<u64, Weak<Remote>>> {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.retain(|_, remote| remote.upgrade().is_some_and(|remote| remote.is_held()));
    held
}

/// Takes the lease of a place; waits until it runs out, if it is of a process of which nothing is known.
fn acquire(objects: &Arc<Objects>, ending: &Ending, said: Said<'_>) -> mill_snapshot::Result<Remote> {
    let holder = this();
    let mut seen: Option<(Lease, Instant)> = None;
    loop {
        let found = Remote::look(&**objects)?;
        if let Some(lease) = found.as_ref().and_then(|found| found.head.lease.as_ref()) {
            let leased = |is_here| StoreError::Leased { url: objects.url().to_owned(), holder: lease.holder.to_string(), is_here };
            match standing(&lease.holder, &holder) {
                Standing::Gone => {}
                Standing::This if !held().contains_key(&lease.run) => {}
                Standing::This | Standing::Alive => return Err(leased(true)),
                Standing::Elsewhere => match &seen {
                    Some((first, _)) if first != lease => return Err(leased(false)),
                    Some((_, since)) if since.elapsed() >= LEASE => {}
                    Some(_) => {
                        wait(ending)?;
                        continue;
                    }
                    None => {
                        said(&format!(
                            "{} has the lease of {}: waiting until it runs out ({} s), or shows that the process lives",
                            lease.holder,
                            objects.url(),
                            LEASE.as_secs()
                        ));
                        seen = Some((lease.clone(), Instant::now()));
                        continue;
                    }
                },
            }
        }
        let ending = ending.clone();
        // Numbers beyond are not exact in all readers of JSON.
        let run = RandomState::new().hash_one(std::process::id()) >> 11;
        if let Some(remote) = Remote::acquire(Arc::clone(objects) as _, found, holder.clone(), run.max(1), Box::new(move || ending.is_set()))? {
            return Ok(remote);
        }
    }
}

fn wait(ending: &Ending) -> mill_snapshot::Result<()> {
    std::thread::sleep(LOOK);
    match ending.is_set() {
        true => Err(StoreError::Unreachable { source: io::Error::other("the job was cancelled while it waited for the lease of its checkpoints") }),
        false => Ok(()),
    }
}

/// A place that is open to look into it.
pub(crate) struct Looked {
    pub(crate) store: Store,
    /// Where what was fetched is.
    scratch: Option<Scratch>,
}

impl Looked {
    /// What has to be there as long as something of the place is in use.
    pub(crate) fn into_scratch(self) -> Option<Scratch> {
        self.scratch
    }
}

/// Opens a state directory, a savepoint or the same in an object store to look into it: takes no lock and changes nothing.
///
/// # Errors
/// When it is not there, or none.
pub(crate) fn look(path: &Path, disk: Arc<dyn Disk>) -> Result<Looked> {
    if !is_remote(path) {
        return Ok(Looked { store: Store::inspect(path, disk).map_err(failed)?, scratch: None });
    }
    let objects = Objects(ObjectPrefix::new(path, Ending::default())?);
    let scratch = Scratch::new()?;
    let store = Store::inspect_remote(&scratch.path, disk, Arc::new(objects)).map_err(failed)?;
    Ok(Looked { store, scratch: Some(scratch) })
}

/// Whether nothing is at a place in an object store, as far as it answers.
pub(crate) fn is_nothing(path: &Path) -> bool {
    ObjectPrefix::new(path, Ending::default()).and_then(|objects| objects.any()).is_ok_and(|found| found.is_none())
}

/// Looks into a place. A job that runs there removes old checkpoints meanwhile, so a failure is looked at again.
///
/// # Errors
/// As of [`look`], and those of what is done.
pub(crate) fn looking<T>(path: &Path, each: impl Fn(&Store) -> Result<T>) -> Result<T> {
    let once = || each(&look(path, Arc::new(RealDisk))?.store);
    let mut outcome = once();
    if is_remote(path) && outcome.is_err() {
        outcome = once();
    }
    outcome
}

/// Copies checkpoints to where users want them.
pub(crate) fn savepoints() -> SavepointCopier {
    SavepointCopier(Arc::new(|store, id, path| {
        if !is_remote(path) {
            return store.savepoint(id, path).map(drop);
        }
        let other = |error: Error| StoreError::Unreachable { source: io::Error::other(error) };
        let objects = Objects(ObjectPrefix::new(path, Ending::default()).map_err(other)?);
        let scratch = Scratch::new().map_err(other)?;
        store.savepoint_remote(id, &scratch.path, &objects).map(drop)
    }))
}

/// The directory for what is here only to be faster.
fn cache() -> Result<PathBuf> {
    let given = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let usual = || given("XDG_CACHE_HOME").or_else(|| given("HOME").map(|home| home.join(".cache"))).map(|cache| cache.join("millstream"));
    given(VARIABLE).or_else(usual).ok_or_else(|| {
        Error::checkpoint(format!("checkpoints in an object store need a directory of this machine as a cache: set {VARIABLE}, or HOME"))
    })
}

/// The name of the directory that is the cache of a URL: what one recognises, and what is unique.
fn directory_name(url: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_') { c } else { '-' };
    let end: String = url.rsplit('/').next().unwrap_or("").chars().take(40).map(plain).collect();
    format!("{end}-{:016x}", hash(url))
}

/// FNV-1a: the same in every process and version.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A directory that goes when this is dropped; those of processes that died go when another is made.
pub(crate) struct Scratch {
    path: PathBuf,
    lock: PathBuf,
    _locked: File,
}

impl Scratch {
    fn new() -> Result<Scratch> {
        let root = cache()?.join("scratch");
        let cannot = |error: io::Error| Error::checkpoint(format!("cannot make a directory in {}: {error}", root.display())).because(error);
        DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(cannot)?;
        clear(&root);
        let name = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
        let (path, lock) = (root.join(&name), root.join(format!("{name}.lock")));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock).map_err(cannot)?;
        file.lock().map_err(cannot)?;
        DirBuilder::new().mode(0o700).create(&path).map_err(cannot)?;
        Ok(Scratch { path, lock, _locked: file })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: what is left goes when another is made. Files that are mapped stay until nobody uses them.
        let _ = std::fs::remove_dir_all(&self.path);
        let _ = std::fs::remove_file(&self.lock);
    }
}

/// Removes what others have left that died.
fn clear(root: &Path) {
    let Ok(entries) = std::fs::read_dir(root) else { return };
    for lock in entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "lock")) {
        let age = lock.metadata().and_then(|found| found.modified()).ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        let is_old = age.is_some_and(|age| age > SCRATCH_AGE);
        if is_old && File::open(&lock).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = std::fs::remove_dir_all(lock.with_extension(""));
            let _ = std::fs::remove_file(&lock);
        }
    }
}

/// A prefix of a bucket as checkpoints see it.
#[derive(Debug)]
struct Objects(ObjectPrefix);

impl Blobs for Objects {
    fn url(&self) -> &str {
        self.0.url()
    }

    fn read(&self, name: &str) -> io::Result<Option<Blob>> {
        let found = self.0.read(name).map_err(io::Error::other)?;
        Ok(found.map(|(bytes, tag, number)| Blob { bytes: bytes.into(), version: Version { tag, number } }))
    }

    fn put(&self, name: &str, bytes: Vec<u8>, only_if: OnlyIf<'_>) -> io::Result<Put> {
        let condition = match only_if {
            OnlyIf::Absent if name == HEAD => Condition::AbsentAndChanging,
            OnlyIf::Absent => Condition::Absent,
            OnlyIf::Is(version) => Condition::Is(version.tag.clone(), version.number.clone()),
        };
        Ok(match self.0.put(name, bytes, condition).map_err(io::Error::other)? {
            Written::Done(tag, number) => Put::Done(Version { tag, number }),
            Written::Refused => Put::Refused,
        })
    }

    fn upload(&self, name: &str, bytes: SharedBytes) -> Pending {
        let (send, pending) = Pending::new();
        // Nobody may wait any more.
        self.0.upload(name, bytes::Bytes::from_owner(Shared(bytes)), move |outcome| drop(send.try_send(told(outcome))));
        pending
    }

    fn download(&self, name: &str, bytes: u64, take: Take) -> Pending {
        let (send, pending) = Pending::new();
        self.0.download(name, bytes, take, move |outcome| drop(send.try_send(told(outcome))));
        pending
    }

    fn list(&self) -> io::Result<Vec<Entry>> {
        let found = self.0.list().map_err(io::Error::other)?;
        Ok(found.into_iter().map(|(name, bytes)| Entry { name, bytes }).collect())
    }

    fn any(&self) -> io::Result<Option<String>> {
        self.0.any().map_err(io::Error::other)
    }

    fn delete(&self, names: &[String]) -> io::Result<()> {
        self.0.delete(names).map_err(io::Error::other)
    }

    fn hurry(&self) {
        self.0.hurry();
    }
}

/// Bytes that a request shares with the file that they are mapped from.
struct Shared(SharedBytes);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn told(outcome: Transfer) -> io::Result<()> {
    match outcome {
        Transfer::Done => Ok(()),
        Transfer::Absent => Err(io::Error::from(io::ErrorKind::NotFound)),
        Transfer::Other(what) => Err(io::Error::new(io::ErrorKind::InvalidData, what)),
        Transfer::Failed(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_url_has_a_directory_of_its_own() {
        let name = directory_name("s3://bucket/jobs/orders v2");
        assert!(name.starts_with("orders-v2-"), "{name}");
        assert_ne!(name, directory_name("s3://bucket/other/orders v2"));
        assert!(is_same(Path::new("s3://b/p/"), Path::new("s3://b/p")) && !is_same(Path::new("s3://b/p"), Path::new("/b/p")));
    }
}
