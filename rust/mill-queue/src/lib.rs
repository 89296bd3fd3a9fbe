//! The lock-free channel between two tasks, and how a worker sleeps when all its channels are quiet.
//!
//! ```text
//!   task a ──► Producer ─[ ring of slots ]─ Consumer ──► task b      one thread at each end, no lock, no allocation
//!                 │                                         │
//!                 └── Unparker ─────────── wakes ──────► Parker      one a worker, shared by all its consumers
//! ```
//!
//! A queue is bounded: a push into a full one returns the value, which is the engine's backpressure. Dropping one end
//! closes the queue for the other; what was pushed before can still be popped. A worker that finds nothing to do in any of
//! its tasks calls [`Parker::park`]; whoever makes work for one of them, by pushing into its queue or making room in the
//! queue it pushes to, calls [`Unparker::unpark`] afterwards. A task that waits for something outside has a [`Signal`],
//! which its answer raises.
//!
//! # Model checking
//!
//! Atomics and cells come from [`sync`]: those of `std`, or loom's when compiled with `--cfg loom`, which then runs
//! the tests in `tests/loom.rs` under every schedule and every order that the memory model allows:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 CARGO_TARGET_DIR=target/loom \
//!     cargo test --release -p mill-queue --test loom
//! ```

mod park;
mod signal;
mod spsc;
pub mod sync;

pub use park::{Parker, Unparker};
pub use signal::Signal;
pub use spsc::{Consumer, Producer, queue};
