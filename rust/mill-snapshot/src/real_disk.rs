//! The file system of the machine.
//!
//! Invariant of the mappings: a checkpoint's file is mapped for reading only after it was written, synced and renamed or
//! named by a manifest, and no program of ours writes to it again. Bytes are handed out as plain slices; the readers above
//! check their contents.
//!
//! [`unsafe`] lives here because a mapping's bytes can change under a `&[u8]` if another program writes to the file. We
//! lock the directory against ourselves; against others nothing can be done, as with every mapped file.
//!
//! Files are opened without following links and without waiting, and used only if they are regular: anybody who may write
//! to the directory can choose its names, and must not be able to choose by them which files elsewhere are read or written.
//! Files that are created here can be read only by their owner.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use memmap2::{Mmap, MmapMut};
use mill_frame::block::SharedBytes;

use crate::disk::{Disk, Entry, Held, MappedFile};
use crate::manifest::Manifest;
use crate::store::segment_epoch;

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealLock {
    file: File,
}

impl Held for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Closing would do, if no process that was forked from this one had the same file open. The kernel releases the
        // lock when the last of them dies; an error here would mean that it has done so already.
        let _ = self.file.unlock();
    }
}

/// What is made in a state directory only its owner may read and write.
const FILE_MODE: u32 = 0o600;
/// The same of the directory.
const DIRECTORY_MODE: u32 = 0o700;

/// Opens a file that may have been put there by somebody else.
///
/// # Errors
/// Also if it is a link, a pipe, a device or a directory.
fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let refused = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, not a regular file"));
    // Without waiting: the open of a pipe would wait for its other end.
    let file = match options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(refused("a symbolic link")),
        // A pipe without a reader, or a socket.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Err(refused("a pipe or a socket")),
        Err(error) if error.raw_os_error() == Some(libc::EISDIR) => return Err(refused("a directory")),
        Err(error) => return Err(error),
    };
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    Err(refused(if kind.is_dir() { "a directory" } else { "a pipe or a device" }))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

struct RealFile {
    file: File,
    map: MmapMut,
    kind: Kind,
}

/// What a file is, as the steps of `mill-fault` name it.
#[derive(Clone, Copy)]
enum Kind {
    Segment,
    Manifest,
    /// The marks and the positions.
    Mark,
}

impl Kind {
    fn of(path: &Path) -> Kind {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if segment_epoch(name).is_some() {
            Kind::Segment
        } else if Manifest::id_of(name.strip_suffix("-new").unwrap_or(name)).is_some() {
            Kind::Manifest
        } else {
            Kind::Mark
        }
    }

    /// The one of these names that is this kind's.
    fn pick(self, [segment, manifest, mark]: [&'static str; 3]) -> &'static str {
        match self {
            Kind::Segment => segment,
            Kind::Manifest => manifest,
            Kind::Mark => mark,
        }
    }
}

impl MappedFile for RealFile {
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.map
    }

    fn sync(&mut self) -> io::Result<()> {
        mill_fault::reach(self.kind.pick(["segment.sync", "manifest.sync", "mark.sync"]))?;
        // Linux writes dirty pages of shared mappings back in fsync; elsewhere only msync is sure to see them.
        if !cfg!(target_os = "linux") {
            self.map.flush()?;
        }
        self.file.sync_all()
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        let RealFile { file, map, kind } = *self;
        mill_fault::reach(kind.pick(["segment.sync", "manifest.sync", "mark.sync"]))?;
        if !cfg!(target_os = "linux") {
            map.flush()?;
        }
        // First the mapping goes: of pages that are mapped the kernel takes the right to write back one by one before it
        // writes them, and stops every thread of the process for each.
        drop(map);
        file.sync_all()
    }
}

impl RealDisk {
    /// Creates a directory in which the one that is ours will be: its mode is that of the process.
    fn create_dir_of_others(&self, path: &Path) -> io::Result<()> {
        let made: Vec<&Path> = path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.is_dir()).collect();
        fs::create_dir_all(path)?;
        for path in made {
            sync_dir(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
        }
        Ok(())
    }
}

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        if path.is_dir() {
            return Ok(false);
        }
        // A path that is a single name is in the directory of the process.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !parent.is_dir() {
            self.create_dir_of_others(parent)?;
        }
        match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(false),
            Err(error) => return Err(error),
        }
        if let Err(error) = sync_dir(parent) {
            // A name that is not durable is as good as none: it is taken back, if that works.
            let _ = fs::remove_dir(path);
            return Err(error);
        }
        Ok(true)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // Names that are not text, and files that vanish while we look, are none of ours. Links are not followed.
            let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
            entries.push(Entry { name, bytes: metadata.len() });
        }
        Ok(entries)
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn MappedFile>> {
        let kind = Kind::of(path);
        mill_fault::reach(kind.pick(["segment.create", "manifest.create", "mark.create"]))?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
        let mapped = allocate(&file, bytes).and_then(|()| map_mut(file, kind));
        if mapped.is_err() {
            // Best effort: the name was ours alone, and retention removes what is left over.
            let _ = fs::remove_file(path);
        }
        mapped
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn MappedFile>> {
        map_mut(open_regular(path, OpenOptions::new().read(true).write(true))?, Kind::of(path))
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        let file = open_regular(path, OpenOptions::new().read(true))?;
        if file.metadata()?.len() > bytes_max {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn map(&self, path: &Path) -> io::Result<SharedBytes> {
        let file = open_regular(path, OpenOptions::new().read(true))?;
        if file.metadata()?.len() == 0 {
            return Ok(SharedBytes::from(Vec::new()));
        }
        // SAFETY: the file is write-once (module invariant), so the bytes do not change while they are mapped.
        let map = unsafe { Mmap::map(&file) }?;
        #[cfg(target_os = "linux")]
        populate(map.advise(memmap2::Advice::PopulateRead))?;
        Ok(SharedBytes::new(Arc::new(map)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        mill_fault::reach(Kind::of(from).pick(["segment.rename", "manifest.rename", "mark.rename"]))?;
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        mill_fault::reach(Kind::of(path).pick(["segment.remove", "manifest.remove", "mark.remove"]))?;
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        mill_fault::reach("state.sync_dir")?;
        sync_dir(dir)
    }

    fn lock(&self, path: &Path, bytes: u64) -> io::Result<Option<Box<dyn Held>>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let file = open_regular(path, &mut options)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if file.metadata()?.len() < bytes {
            allocate(&file, bytes)?;
        }
        Ok(Some(Box::new(RealLock { file })))
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        free_space(dir)
    }

    fn unique(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }
}

fn map_mut(file: File, kind: Kind) -> io::Result<Box<dyn MappedFile>> {
    // SAFETY: the file is ours: new, or one that the lock on the directory keeps others from changing.
    let map = unsafe { MmapMut::map_mut(&file) }?;
    #[cfg(target_os = "linux")]
    populate(map.advise(memmap2::Advice::PopulateWrite))?;
    Ok(Box::new(RealFile { file, map, kind }))
}

/// Touches all pages at once, so that a page that cannot be had is an error here and not a signal later.
#[cfg(target_os = "linux")]
fn populate(advised: io::Result<()>) -> io::Result<()> {
    match advised {
        // Kernels before 5.14 don't know the advice; pages then come in one by one.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        // What would have been a SIGBUS: the medium does not give the page.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EFAULT | libc::EHWPOISON)) => {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
        other => other,
    }
}

/// Allocates all the space that the file needs, so that a full disk shows now.
#[cfg(target_os = "linux")]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    const INTERRUPTS_MAX: usize = 1000;
    let length = libc::off_t::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    for _ in 0..INTERRUPTS_MAX {
        // SAFETY: the descriptor is open for writing as long as `file` is borrowed.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
            0 => return Ok(()),
            libc::EINTR => {}
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
    Err(io::Error::from(io::ErrorKind::Interrupted))
}

/// Allocates all the space that the file needs, so that a full disk shows now.
#[cfg(not(target_os = "linux"))]
fn allocate(mut file: &File, bytes: u64) -> io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};
    let zeros = vec![0_u8; 1 << 20];
    let mut at = file.seek(SeekFrom::End(0))?;
    while at < bytes {
        let count = (bytes - at).min(zeros.len() as u64) as usize;
        file.write_all(&zeros[..count])?;
        at += count as u64;
    }
    Ok(())
}

fn free_space(dir: &Path) -> io::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::CString::new(dir.as_os_str().as_bytes())?;
    let mut figures = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `name` ends in zero, and `figures` has room for what the call writes.
    if unsafe { libc::statvfs(name.as_ptr(), figures.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so all of `figures` is written.
    let figures = unsafe { figures.assume_init() };
    #[allow(clippy::unnecessary_cast, reason = "the widths differ between systems")]
    Ok(figures.f_bavail as u64 * figures.f_frsize as u64)
}
