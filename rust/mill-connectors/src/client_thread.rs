//! The threads beside a client: they take its events or its answers, or ask it something now and then.
//!
//! They hold up nobody and are waited for by whoever has started them. What they learn is left where those look who need it, so one
//! that panics has told nobody anything wrong.

use std::thread::{Builder, JoinHandle};

use mill_protocol::{Error, Result};

/// Starts a thread that runs until `body` returns.
pub(crate) fn start(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|e| Error::connector(format!("cannot start the thread {name}: {e}")).because(e))
}
