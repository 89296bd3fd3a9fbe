//! No byte string gets past the check of frames: `cargo +nightly fuzz run frame` in `rust/mill-frame`.
//!
//! The first byte chooses the schema, the rest is read as a frame. `tests/corpus` is a good start for a corpus (its
//! files lack that first byte, so the first run finds them anew). The same target runs without nightly in
//! `tests/fuzz.rs`.
#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "../../tests/support/target.rs"]
mod target;

use std::sync::LazyLock;

use arrow::datatypes::SchemaRef;
use libfuzzer_sys::fuzz_target;

static SCHEMAS: LazyLock<Vec<SchemaRef>> = LazyLock::new(target::schemas);

fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else { return };
    let _ = target::check(&SCHEMAS[usize::from(*first) % SCHEMAS.len()], bytes);
});
