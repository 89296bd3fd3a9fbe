//! The runtime on which clients of stores run, and how others wait for them.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use mill_protocol::{Ending, Error, Result};
use tokio::runtime::{Builder, Runtime};

/// The threads of the runtime. They wait for sockets, sign requests and check TLS.
const THREADS: usize = 2;
/// How often a caller who waits looks whether the job ends.
const LOOK: Duration = Duration::from_millis(50);

/// The runtime, and the process that it is of: threads do not live on in a forked one.
static RUNTIME: Mutex<Option<(u32, Arc<Runtime>)>> = Mutex::new(None);

fn runtime() -> Result<Arc<Runtime>> {
    let mut held = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if let Some((of, runtime)) = held.as_ref()
        && *of == process
    {
        return Ok(Arc::clone(runtime));
    }
    let made = Builder::new_multi_thread().worker_threads(THREADS).thread_name("mill-objects").enable_all().build();
    let made = made.map_err(|e| Error::connector(format!("cannot start the threads of object stores: {e}")).because(e))?;
    let runtime = Arc::new(made);
    // That of another process is not dropped: its threads, which would be waited for, are not there.
    std::mem::forget(held.replace((process, Arc::clone(&runtime))));
    Ok(runtime)
}

/// The runtime, for clients that start tasks of their own.
#[cfg(feature = "hdfs")]
pub(super) fn handle() -> Result<tokio::runtime::Handle> {
    Ok(runtime()?.handle().clone())
}

/// For how long a request is waited for; the client itself gives up after a while, too.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience<'a> {
    /// As long as the client tries.
    Whole,
    /// Until the job is to end.
    Run(&'a Ending),
    /// Until then, also if the job is to end.
    Until(Instant),
}

impl<'a> From<Option<&'a Ending>> for Patience<'a> {
    fn from(ending: Option<&'a Ending>) -> Patience<'a> {
        ending.map_or(Patience::Whole, Patience::Run)
    }
}

impl Patience<'_> {
    /// Why it is over, if it is.
    fn is_over(self) -> Option<&'static str> {
        match self {
            Patience::Run(ending) if ending.is_set() => Some("the job ends before the store has answered"),
            Patience::Until(until) if Instant::now() >= until => Some("the store has not answered in time"),
            _ => None,
        }
    }
}

/// Runs a request and waits for it, as long as that is worth it.
///
/// # Errors
/// When patience is over, or the client panics; what the request itself says is in the value.
pub(super) fn wait<'a, T: Send + 'static>(
    what: &str,
    patience: impl Into<Patience<'a>>,
    request: impl Future<Output = T> + Send + 'static,
) -> Result<T> {
    let (runtime, patience) = (runtime()?, patience.into());
    let (send, receive) = sync_channel(1);
    let task = runtime.spawn(async move {
        // The receiver is gone once nobody waits any more.
        let _ = send.send(AssertUnwindSafe(request).catch_unwind().await);
    });
    loop {
        match receive.recv_timeout(LOOK) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(panic)) => return Err(Error::connector(format!("{what}: the client of the store panicked: {}", text_of(&*panic)))),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(reason) = patience.is_over() {
                    task.abort();
                    return Err(Error::connector(format!("{what}: {reason}")));
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Err(Error::connector(format!("{what}: the request was dropped"))),
        }
    }
}

/// Runs a request in the background, and tells what it came to, or that the client panicked; on a thread of the runtime.
pub(super) fn begin<T: Send + 'static>(request: impl Future<Output = T> + Send + 'static, told: impl FnOnce(Result<T>) + Send + 'static) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return told(Err(error)),
    };
    runtime.spawn(async move {
        let done = AssertUnwindSafe(request).catch_unwind().await;
        told(done.map_err(|panic| Error::connector(format!("the client of the store panicked: {}", text_of(&*panic)))));
    });
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason is known".to_owned())
}
