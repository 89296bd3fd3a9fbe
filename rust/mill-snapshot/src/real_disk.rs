//! The file system of the machine.
//!
//! Invariant of the mappings: a checkpoint's file is mapped for reading only after it was written, synced and renamed
//! or named by a manifest, and no program of ours writes to it again. Bytes are handed out as plain slices; what they
//! say is checked by the readers above.
//!
//! [`unsafe`] lives here because a mapping's bytes can change under a `&[u8]` if another program writes to the file. We
//! lock the directory against ourselves; against others nothing can be done, as with every mapped file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
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
        // Closing would do, if no process that was forked from this one had the same file open. The kernel gives the
        // lock back when the last of them dies; an error here would mean that it has done so already.
        let _ = self.file.unlock();
    }
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

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
        fs::create_dir_all(path)?;
        // A directory is only there after a crash if the one that holds its name was synced.
        missing.iter().try_for_each(|made| match made.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            _ => self.sync_dir(Path::new(".")),
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // Names that are not text, and files that vanish while we look, are none of ours.
            let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
            entries.push(Entry { name, bytes: metadata.len() });
        }
        Ok(entries)
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn MappedFile>> {
        let kind = Kind::of(path);
        mill_fault::reach(kind.pick(["segment.create", "manifest.create", "mark.create"]))?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let mapped = allocate(&file, bytes).and_then(|()| map_mut(file, kind));
        if mapped.is_err() {
            // Best effort: the name was ours alone, and retention removes what is left over.
            let _ = fs::remove_file(path);
        }
        mapped
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn MappedFile>> {
        map_mut(OpenOptions::new().read(true).write(true).open(path)?, Kind::of(path))
    }

    fn map(&self, path: &Path) -> io::Result<SharedBytes> {
        let file = File::open(path)?;
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
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path, bytes: u64) -> io::Result<Option<Box<dyn Held>>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
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

/// Gives the file all the space it needs, so that a full disk shows now.
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

/// Gives the file all the space it needs, so that a full disk shows now.
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
