//! Whole jobs. One binary, since each links the whole engine; `panics.rs` arms steps of its process and has one of its own.

mod jobs;
mod sources;
mod state;
