//! Checkpoints that fail, savepoints, and restores that do not fit.
