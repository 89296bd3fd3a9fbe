//! The allocator of the module, and how long it keeps memory that is free.

/// What one thread frees another may take again without asking the system for it: frames and results live that way.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The option `purge_delay` of mimalloc 3, for which `libmimalloc-sys` has no name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Pages go back to the system this many milliseconds after they are free, and larger pieces ten times later. Where they go back
/// after the 10 of the default, a job that keeps records for a while spends up to a quarter of its time on pages that the
/// system has to clear again. After 100 it is more than half of the time where one job after the other has a wide result.
const KEPT_MS: std::ffi::c_long = 1000;

/// Has the allocator keep free memory a little longer, unless `MIMALLOC_PURGE_DELAY` is set.
pub(crate) fn keep_what_is_freed() {
    // SAFETY: sets a number of the allocator, which checks the option.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEPT_MS) }
}
