//! State directories: what is stored and found, damage, and power that is lost at any step. `panics.rs` arms steps of its process, and
//! `processes.rs` starts itself by the names of its tests, so these are binaries of their own.

#[path = "../support/mod.rs"]
mod support;

mod crash;
mod damage;
mod names;
mod objects;
mod remote;
mod small_disk;
mod store;
