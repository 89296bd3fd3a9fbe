//! The runtime on which clients of stores run, and how others wait for them.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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

/// Runs a request and waits for it, unless the job is to end.
///
/// # Errors
/// When the job ends, or the client panics; what the request itself says is in the value.
pub(super) fn wait<T: Send + 'static>(
    what: &str,
    ending: Option<&Ending>,
    request: impl Future<Output = T> + Send + 'static,
) -> Result<T> {
    let runtime = runtime()?;
    let (send, receive) = sync_channel(1);
    let task = runtime.spawn(async move {
        // The receiver is gone once nobody waits any more.
        let _ = send.send(AssertUnwindSafe(request).catch_unwind().await);
    });
    loop {
        match receive.recv_timeout(LOOK) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(panic)) => return Err(Error::connector(format!("{what}: the client of the store panicked: {}", text_of(&*panic)))),
            Err(RecvTimeoutError::Timeout) if ending.is_some_and(Ending::is_set) => {
                task.abort();
                return Err(Error::connector(format!("{what}: the job ends before the store has answered")));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Error::connector(format!("{what}: the request was dropped"))),
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason is known".to_owned())
}
