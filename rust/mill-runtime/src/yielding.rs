//! Threads that give way: their work can wait a moment, that of the workers cannot.

/// How much nicer a thread becomes that gives way; with 5, a worker beside it on the same core gets three times its share.
const NICER: i32 = 5;

/// Lowers the priority of the calling thread for good.
///
/// Only where a priority belongs to a thread, not to the process: on Linux. If it is refused, nothing changes: only
/// speed depends on it.
pub(crate) fn give_way() {
    #[cfg(target_os = "linux")]
    // SAFETY: takes no pointers and touches no memory; on Linux it changes the calling thread alone.
    let _ = unsafe { libc::nice(NICER) };
}
