//! The helper threads of a client: they take its events or responses, or poll it from time to time.
//!
//! They block nothing, and the code that started them waits for their end. They publish their findings where others read
//! them, so one that panics has published nothing wrong.

use std::thread::{Builder, JoinHandle};

use mill_protocol::{Error, Result};

/// Starts a thread that runs until `body` returns.
pub(crate) fn start(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|e| Error::connector(format!("cannot start the thread {name}: {e}")).because(e))
}
