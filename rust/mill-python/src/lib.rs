//! The Python face of Millstream: the only crate that knows Python.
