//! Part of Millstream: see docs/ARCHITECTURE.md.
