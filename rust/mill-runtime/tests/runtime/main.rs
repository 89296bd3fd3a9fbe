//! Whole jobs of toy operators, run on threads and stepped by hand.

mod awaiting;
mod backpressure;
mod checkpoints;
mod control;
mod exactly_once;
mod inputs;
mod marks;
mod modes;
mod pending;
mod plain;
mod slow;
mod support;
mod threads;
mod time;
