//! A disk in memory that loses, fails and fills up on command.
//!
//! It distinguishes what a running process sees from what would survive a crash of the machine:
//!
//! ```text
//! name ──► file       both for the running process (`names`, `Data::seen`)
//!                     and for the medium           (`durable_names`, `Data::durable`)
//! ```
//!
//! A sync moves bytes or names from the first to the second. At a crash everything that was not synced is decided at
//! random: every name that differs, and every 512-byte sector that differs, has its old or its new content. That is worse
//! than real file systems, and includes every reordering that they may do.
//!
//! Operations are numbered from 0; faults are bound to these numbers, so that a test can run a scenario once, count, and
//! then break it at every single operation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mill_frame::block::SharedBytes;

use crate::aligned::AlignedBytes;
use crate::disk::{Disk, Entry, Held, MappedFile};

const SECTOR_BYTES: usize = 512;

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// This operation fails; if it was a sync, what it should have made durable never becomes so.
    Fail,
    /// This and all later operations fail: the process is as good as dead.
    Crash,
}

/// A disk in memory. Clones share it.
#[derive(Clone, Default)]
pub struct FaultDisk {
    world: Arc<Mutex<World>>,
}

#[derive(Default)]
struct World {
    names: BTreeMap<PathBuf, Shared>,
    durable_names: BTreeMap<PathBuf, Shared>,
    directories: BTreeSet<PathBuf>,
    faults: BTreeMap<u64, Fault>,
    operations: u64,
    is_crashed: bool,
    space: Option<u64>,
    held: BTreeSet<PathBuf>,
    unique: u64,
}

type Shared = Arc<Mutex<Data>>;

struct Data {
    seen: AlignedBytes,
    durable: AlignedBytes,
}

struct Mapping {
    world: Arc<Mutex<World>>,
    data: Shared,
    bytes: AlignedBytes,
}

struct Lock {
    world: Arc<Mutex<World>>,
    path: PathBuf,
}

impl FaultDisk {
    /// An empty disk without faults.
    pub fn new() -> FaultDisk {
        FaultDisk::default()
    }

    /// Lets the operation of this number fail.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        locked(&self.world).faults.insert(operation, fault);
    }

    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        locked(&self.world).operations
    }

    /// Whether the machine has crashed: every operation fails.
    pub fn is_crashed(&self) -> bool {
        locked(&self.world).is_crashed
    }

    /// How many more bytes can be allocated; `None` for no limit.
    pub fn set_space(&self, bytes: Option<u64>) {
        locked(&self.world).space = bytes;
    }

    /// The disk as it is found after the machine crashed: what was synced, and some of the rest, as the seed decides.
    pub fn after_crash(&self, seed: u64) -> FaultDisk {
        let world = locked(&self.world);
        let mut random = Splitmix(seed);
        let mut next = World { directories: world.directories.clone(), unique: world.unique, ..World::default() };
        let all: BTreeSet<&PathBuf> = world.names.keys().chain(world.durable_names.keys()).collect();
        for path in all {
            let (seen, durable) = (world.names.get(path), world.durable_names.get(path));
            let is_same = matches!((seen, durable), (Some(a), Some(b)) if Arc::ptr_eq(a, b));
            let found = if is_same || random.below(2) == 0 { seen } else { durable };
            let Some(found) = found else { continue };
            let data = locked(found);
            let mut bytes = data.durable.clone();
            let sectors = bytes.chunks_mut(SECTOR_BYTES).zip(data.seen.chunks(SECTOR_BYTES));
            for (old, new) in sectors.filter(|(old, new)| old != new) {
                if random.below(2) == 0 {
                    old.copy_from_slice(new);
                }
            }
            let file = Arc::new(Mutex::new(Data { seen: bytes.clone(), durable: bytes }));
            next.names.insert(path.clone(), Arc::clone(&file));
            next.durable_names.insert(path.clone(), file);
        }
        FaultDisk { world: Arc::new(Mutex::new(next)) }
    }

    /// The disk as it is found after the process was killed: the kernel still has all that was written.
    pub fn after_kill(&self) -> FaultDisk {
        let world = locked(&self.world);
        let mut next = World { directories: world.directories.clone(), unique: world.unique, ..World::default() };
        for (path, file) in &world.names {
            let bytes = locked(file).seen.clone();
            let file = Arc::new(Mutex::new(Data { seen: bytes.clone(), durable: bytes }));
            next.names.insert(path.clone(), Arc::clone(&file));
            next.durable_names.insert(path.clone(), file);
        }
        FaultDisk { world: Arc::new(Mutex::new(next)) }
    }

    /// Changes the bytes of a file behind everybody's back.
    pub fn damage(&self, path: impl AsRef<Path>, change: impl FnOnce(&mut Vec<u8>)) {
        let world = locked(&self.world);
        let file = world.names.get(path.as_ref()).expect("the file to damage is there");
        let mut data = locked(file);
        let mut bytes = data.seen.to_vec();
        change(&mut bytes);
        data.seen = AlignedBytes::copy_of(&bytes);
        data.durable = data.seen.clone();
    }

    /// The bytes of a file.
    pub fn bytes_of(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        locked(&self.world).names.get(path.as_ref()).map(|file| locked(file).seen.to_vec())
    }

    /// The paths of all files.
    pub fn files(&self) -> Vec<PathBuf> {
        locked(&self.world).names.keys().cloned().collect()
    }

    fn operation(&self) -> io::Result<MutexGuard<'_, World>> {
        let mut world = locked(&self.world);
        world.step()?;
        Ok(world)
    }
}

impl World {
    fn step(&mut self) -> io::Result<()> {
        let fault = self.faults.get(&self.operations).copied();
        self.operations += 1;
        self.is_crashed |= fault == Some(Fault::Crash);
        if self.is_crashed {
            return Err(io::Error::other("the machine crashed"));
        }
        if fault.is_some() { Err(io::Error::other("the disk failed")) } else { Ok(()) }
    }

    fn find(&self, path: &Path) -> io::Result<Shared> {
        self.names.get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn allocate(&mut self, bytes: u64) -> io::Result<()> {
        let Some(space) = &mut self.space else { return Ok(()) };
        *space = space.checked_sub(bytes).ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))?;
        Ok(())
    }
}

impl Disk for FaultDisk {
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        Ok(self.operation()?.directories.insert(path.to_path_buf()))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.operation()?;
        if world.names.keys().any(|file| file.parent() == Some(path)) {
            return Err(io::Error::from(io::ErrorKind::DirectoryNotEmpty));
        }
        if world.directories.remove(path) { Ok(()) } else { Err(io::Error::from(io::ErrorKind::NotFound)) }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let world = self.operation()?;
        if !world.directories.contains(dir) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        let inside = world.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let entry = |(path, file): (&PathBuf, &Shared)| Entry {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: locked(file).seen.len() as u64,
        };
        Ok(inside.map(entry).collect())
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn MappedFile>> {
        let mut world = self.operation()?;
        if world.names.contains_key(path) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        world.allocate(bytes)?;
        let zeros = AlignedBytes::zeroed(bytes as usize);
        let data = Arc::new(Mutex::new(Data { seen: zeros.clone(), durable: zeros.clone() }));
        world.names.insert(path.to_path_buf(), Arc::clone(&data));
        Ok(Box::new(Mapping { world: Arc::clone(&self.world), data, bytes: zeros }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn MappedFile>> {
        let data = self.operation()?.find(path)?;
        let bytes = locked(&data).seen.clone();
        Ok(Box::new(Mapping { world: Arc::clone(&self.world), data, bytes }))
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let data = self.operation()?.find(path)?;
        let bytes = locked(&data).seen.to_vec();
        if bytes.len() as u64 > bytes_max { Err(io::Error::from(io::ErrorKind::FileTooLarge)) } else { Ok(bytes) }
    }

    fn map(&self, path: &Path) -> io::Result<SharedBytes> {
        let data = self.operation()?.find(path)?;
        let bytes = locked(&data).seen.clone();
        Ok(SharedBytes::new(Arc::new(bytes)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.operation()?;
        let file = world.find(from)?;
        world.names.remove(from);
        world.names.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.operation()?;
        let file = world.find(path)?;
        world.names.remove(path);
        let bytes = locked(&file).seen.len() as u64;
        if let Some(space) = &mut world.space {
            *space += bytes;
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.operation()?;
        world.durable_names.retain(|path, _| path.parent() != Some(dir));
        let inside: Vec<_> = world
            .names
            .iter()
            .filter(|(path, _)| path.parent() == Some(dir))
            .map(|(path, file)| (path.clone(), Arc::clone(file)))
            .collect();
        world.durable_names.extend(inside);
        Ok(())
    }

    fn lock(&self, path: &Path, bytes: u64) -> io::Result<Option<Box<dyn Held>>> {
        let mut world = self.operation()?;
        if !world.held.insert(path.to_path_buf()) {
            return Ok(None);
        }
        // Made before anything can fail, so that the lock is released then.
        let lock = Lock { world: Arc::clone(&self.world), path: path.to_path_buf() };
        let grown = match world.find(path) {
            Ok(file) => {
                let mut data = locked(&file);
                if (data.seen.len() as u64) < bytes {
                    let mut seen = AlignedBytes::zeroed(bytes as usize);
                    seen[..data.seen.len()].copy_from_slice(&data.seen);
                    let mut durable = AlignedBytes::zeroed(bytes as usize);
                    durable[..data.durable.len()].copy_from_slice(&data.durable);
                    (data.seen, data.durable) = (seen, durable);
                }
                Ok(())
            }
            Err(_) => world.allocate(bytes).map(|()| {
                let zeros = AlignedBytes::zeroed(bytes as usize);
                let data = Data { seen: zeros.clone(), durable: zeros };
                world.names.insert(path.to_path_buf(), Arc::new(Mutex::new(data)));
            }),
        };
        drop(world);
        grown.map(|()| Some(Box::new(lock) as Box<dyn Held>))
    }

    fn free_space(&self, _: &Path) -> io::Result<u64> {
        Ok(self.operation()?.space.unwrap_or(u64::MAX))
    }

    fn unique(&self) -> u64 {
        let mut world = locked(&self.world);
        world.unique += 1;
        world.unique
    }
}

impl MappedFile for Mapping {
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn sync(&mut self) -> io::Result<()> {
        let step = locked(&self.world).step();
        let mut data = locked(&self.data);
        data.seen = self.bytes.clone();
        // A failed sync drops the pages: what the process sees afterwards is not what the medium has.
        step.map(|()| data.durable = data.seen.clone())
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.sync()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // The kernel has what was written to the mapping, whether the process lives or not.
        locked(&self.data).seen = self.bytes.clone();
    }
}

impl Held for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        locked(&self.world).held.remove(&self.path);
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lock({})", self.path.display())
    }
}

impl fmt::Debug for FaultDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultDisk").field("files", &self.files()).finish()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A small generator of random numbers (splitmix64), which a test can repeat from its seed.
pub(crate) struct Splitmix(pub u64);

impl Splitmix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
