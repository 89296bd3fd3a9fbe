//! What each mode promises.
