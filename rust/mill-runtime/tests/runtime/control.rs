//! Stopping, cancelling, failing.
