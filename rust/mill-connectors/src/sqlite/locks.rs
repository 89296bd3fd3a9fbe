//! Locks of a database that also hold against another copy of SQLite in this process.
//!
//! SQLite locks a file with POSIX record locks, which belong to the process: it never waits for a lock of its own, and
//! loses all of them when any descriptor of the file is closed. SQLite itself minds both, but only within one copy of its
//! code. Python's `sqlite3` is another copy. A notebook that looks into the table while a job writes it would read pages
//! of two commits, roll back the journal of a commit that goes on, and let go of the job's locks when it closes.
//!
//! So the lock calls of our copy are replaced. They take the same bytes of the file by locks of an open file description
//! (`F_OFD_SETLK`), which exclude the record locks of everybody else, also in this process. To our copy they behave as
//! record locks do, which it counts on:
//!
//! ```text
//!   fcntl(fd, F_SETLK)   one description per file, opened at its first lock, takes the lock for all of our descriptors
//!   close(fd)            closes the description of the file as well, and with it all of our locks on it
//! ```
//!
//! The kernel has such locks since Linux 3.15. Elsewhere SQLite's own calls stay, and a database should not be read in the
//! process that writes it. <https://www.sqlite.org/howtocorrupt.html>, section 2.2.1.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// Opens a database; the only place that does.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    open_with(path, OpenFlags::default())
}

/// Opens a database with these flags.
pub(super) fn open_with(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    #[cfg(target_os = "linux")]
    linux::install();
    Connection::open_with_flags(path, flags)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::ffi::{CStr, c_int};
    use std::fs::{File, OpenOptions};
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;
    use std::sync::{LazyLock, Mutex, Once, PoisonError};

    use rusqlite::ffi;

    /// Device and number of a file.
    type FileId = (libc::dev_t, libc::ino_t);

    /// The description that holds our locks of a file. Its own descriptor is known to nobody else.
    static HELD: LazyLock<Mutex<HashMap<FileId, File>>> = LazyLock::new(|| Mutex::new(HashMap::new()));
    static INSTALLED: Once = Once::new();

    /// Replaces the calls in our copy of SQLite, before it opens its first database.
    pub(super) fn install() {
        INSTALLED.call_once(|| {
            // SAFETY: initialises SQLite; returns null or a file system that lives as long as the process.
            let vfs = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
            // SAFETY: as above; the version tells whether the member is there.
            let Some(vfs) = (unsafe { vfs.as_mut() }).filter(|vfs| vfs.iVersion >= 3) else { return };
            let Some(set) = vfs.xSetSystemCall else { return };
            let calls: [(&CStr, ffi::sqlite3_syscall_ptr); 2] = [
                // SAFETY: SQLite calls it with three arguments as a variadic function, which on the ABIs of Linux passes three
                // arguments of the size of a register as a plain one does.
                (c"fcntl", Some(unsafe { std::mem::transmute::<Fcntl, unsafe extern "C" fn()>(fcntl) })),
                // SAFETY: SQLite calls it with this signature.
                (c"close", Some(unsafe { std::mem::transmute::<Close, unsafe extern "C" fn()>(close) })),
            ];
            for (name, call) in calls {
                // SAFETY: the name is one of the table of system calls, and no database is open yet.
                unsafe { set(vfs, name.as_ptr(), call) };
            }
        });
    }

    type Fcntl = unsafe extern "C" fn(c_int, c_int, usize) -> c_int;
    type Close = unsafe extern "C" fn(c_int) -> c_int;

    unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
        let command_of_description = match command {
            libc::F_SETLK => libc::F_OFD_SETLK,
            libc::F_GETLK => libc::F_OFD_GETLK,
            // SAFETY: what was asked for, as it was.
            _ => return unsafe { libc::fcntl(fd, command, argument) },
        };
        let lock = argument as *mut libc::flock;
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match id_of(fd) {
            Some(id) => match held.entry(id) {
                std::collections::hash_map::Entry::Occupied(entry) => Some(entry.into_mut()),
                std::collections::hash_map::Entry::Vacant(entry) => reopened(fd).map(|file| entry.insert(file)),
            },
            None => None,
        };
        let Some(file) = file else {
            // Without another description there are the locks of the process.
            // SAFETY: what was asked for, as it was.
            return unsafe { libc::fcntl(fd, command, argument) };
        };
        // SAFETY: with these commands the argument is a lock of the caller's, which nobody else looks at meanwhile; the
        // kernel wants no process in it.
        unsafe { (*lock).l_pid = 0 };
        // SAFETY: the descriptor is open, and the lock is valid as above.
        unsafe { libc::fcntl(file.as_raw_fd(), command_of_description, lock) }
    }

    unsafe extern "C" fn close(fd: c_int) -> c_int {
        let released = id_of(fd).and_then(|id| HELD.lock().unwrap_or_else(PoisonError::into_inner).remove(&id));
        if let Some(file) = &released {
            // A forked child may have the description, too: closing alone would leave the locks to it.
            // SAFETY: plain old data.
            let mut all: libc::flock = unsafe { std::mem::zeroed() };
            all.l_type = libc::F_UNLCK as _;
            all.l_whence = libc::SEEK_SET as _;
            // SAFETY: the descriptor is open, and the lock covers the whole file.
            unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut all) };
        }
        // SAFETY: SQLite closes a descriptor of its own.
        unsafe { libc::close(fd) }
    }

    fn id_of(fd: c_int) -> Option<FileId> {
        let mut found = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: fills in what it is given, if it succeeds.
        if unsafe { libc::fstat(fd, found.as_mut_ptr()) } != 0 {
            return None;
        }
        // SAFETY: it succeeded.
        let found = unsafe { found.assume_init() };
        Some((found.st_dev, found.st_ino))
    }

    /// Another description of an open file; a read lock needs one that can be read, a write lock one that can be written.
    fn reopened(fd: c_int) -> Option<File> {
        let path = format!("/proc/self/fd/{fd}");
        let of_both = OpenOptions::new().read(true).write(true).open(&path);
        of_both.or_else(|_| OpenOptions::new().read(true).open(&path)).ok()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn our_locks_exclude_record_locks_of_the_same_process_until_our_transaction_ends() {
        use std::os::fd::AsRawFd;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db");
        let ours = super::open(&path).unwrap();
        ours.execute_batch("CREATE TABLE t (x)").unwrap();
        // What another copy of SQLite does: a record lock on the bytes of its locks, by a descriptor of its own.
        let is_free = || {
            let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
            // SAFETY: plain old data.
            let mut lock: libc::flock = unsafe { std::mem::zeroed() };
            lock.l_type = libc::F_WRLCK as _;
            lock.l_whence = libc::SEEK_SET as _;
            lock.l_start = 0x4000_0000;
            lock.l_len = 512;
            // SAFETY: the descriptor is open; it is closed at the end of this closure, which releases the lock.
            unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock) == 0 }
        };
        assert!(is_free());
        ours.execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES (1)").unwrap();
        // Twice: the descriptor that was closed has taken no lock of ours with it.
        assert!(!is_free() && !is_free());
        let second = super::open(&path).unwrap();
        assert!(second.execute_batch("BEGIN IMMEDIATE").is_err(), "our own connections exclude each other");
        drop(second);
        assert!(!is_free(), "closing another connection of ours keeps the lock");
        ours.execute_batch("COMMIT").unwrap();
        assert!(is_free());
        let second = super::open(&path).unwrap();
        second.execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES (2); COMMIT").unwrap();
        assert_eq!(ours.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 2);
    }
}
