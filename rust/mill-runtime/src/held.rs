//! Which split holds back the watermark of a step, noted by its tasks to explain why no results are emitted.
//!
//! ```text
//!   task 0   split a  12:00 ─┐ noted after each step of the task
//!   task 1   split b  11:58 ─┼──► asked for: "b", 11:58, for 7 s, while others have come to 12:04
//!   task 1   split c  12:04 ─┘
//! ```
//!
//! Only steps that read an unbounded source are noted: a bounded one is read split after split, and each of them ends.
//! A step is held if its slowest task has waited for one time at least [`HELD_US_MIN`]. The others are its own splits and those
//! of the inputs that it meets further down. Waiting is measured by the clock of the job, which nobody can set.
//!
//! A split may have stood still for long before it came to be the slowest. A step counts from when its watermark came to where
//! it is, and knows that as exactly as it is asked: a job that runs asks all the time.

use std::sync::Arc;
use std::time::Duration;

use mill_protocol::{Clock, SplitId, Waiting, Watermark};
use parking_lot::Mutex;

/// How long the watermark of a step has to stand still before its split is named.
const HELD_US_MIN: i64 = 5_000_000;

/// The split that has held the watermark of a step for some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub split: String,
    /// How far its records have come; `None` if it has had none.
    pub watermark: Option<Watermark>,
    /// How far others have come, of this step or of those it meets; `None` if nobody has come further.
    pub others: Option<Watermark>,
    /// For how long.
    pub since: Duration,
}

/// What one task waits for.
#[derive(Debug, Default)]
pub(crate) struct HeldNote(Mutex<Noted>);

#[derive(Clone, Debug, Default)]
struct Noted {
    furthest: Option<Watermark>,
    split: Option<NotedSplit>,
}

#[derive(Clone, Debug)]
struct NotedSplit {
    name: String,
    at: Watermark,
    /// When the watermark came to stand there, in microseconds of the job's clock.
    since: i64,
}

/// What a task has noted last; compared first, so that a note is only written when something has changed.
#[derive(Debug)]
pub(crate) struct HeldWriter {
    note: Arc<HeldNote>,
    last: Option<Waiting>,
}

impl HeldWriter {
    pub(crate) fn new(note: Arc<HeldNote>) -> HeldWriter {
        HeldWriter { note, last: None }
    }

    /// Notes what the task waits for now.
    pub(crate) fn note<'a>(
        &mut self,
        waiting: Option<Waiting>,
        clock: &dyn Clock,
        name: impl FnOnce(SplitId) -> Option<&'a str>,
    ) {
        if waiting == self.last {
            return;
        }
        let former = std::mem::replace(&mut self.last, waiting).and_then(|waiting| waiting.split);
        let mut noted = self.note.0.lock();
        noted.furthest = waiting.map(|waiting| waiting.furthest).filter(|at| *at > Watermark::MIN);
        let Some((split, at)) = waiting.and_then(|waiting| waiting.split) else {
            noted.split = None;
            return;
        };
        if former.map(|(split, _)| split) == Some(split)
            && let Some(noted) = &mut noted.split
        {
            if noted.at != at {
                (noted.at, noted.since) = (at, clock.now());
            }
            return;
        }
        // Another split that has come just as far: the watermark stands where it stood.
        let since = noted.split.as_ref().filter(|noted| noted.at == at).map_or_else(|| clock.now(), |noted| noted.since);
        noted.split = name(split).map(|name| NotedSplit { name: name.to_owned(), at, since });
    }
}

/// A step that makes watermarks of an unbounded source.
#[derive(Debug)]
pub(crate) struct HeldStep {
    /// Its place among all steps.
    pub(crate) step: usize,
    /// The same for steps whose streams meet further down.
    pub(crate) meeting: usize,
    /// What its tasks have noted.
    pub(crate) notes: Vec<Arc<HeldNote>>,
    /// Where its watermark was when it was last asked for, and when it was first seen there.
    pub(crate) seen: Mutex<Option<Seen>>,
}

/// A watermark, if a split holds one, and when it was first seen, in microseconds of the job's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    at: Option<Watermark>,
    since: i64,
}

impl HeldStep {
    /// When the watermark came to where it is, as far as that is known.
    fn since(&self, at: Option<Watermark>, now: i64) -> i64 {
        let mut seen = self.seen.lock();
        match *seen {
            Some(seen) if seen.at == at => seen.since,
            former => {
                // Who asks for the first time takes the word of the split.
                let since = if former.is_some() { now } else { i64::MIN };
                *seen = Some(Seen { at, since });
                since
            }
        }
    }
}

/// What holds each of these steps, if anything has for long enough.
pub(crate) fn held(steps: &[HeldStep], now: i64) -> Vec<(usize, Held)> {
    let noted: Vec<Vec<Noted>> =
        steps.iter().map(|step| step.notes.iter().map(|note| note.0.lock().clone()).collect()).collect();
    let furthest = |meeting: usize| {
        let meeting = steps.iter().zip(&noted).filter(|(step, _)| step.meeting == meeting);
        meeting.flat_map(|(_, noted)| noted).filter_map(|noted| noted.furthest).max()
    };
    let held = steps.iter().zip(&noted).filter_map(|(step, noted)| {
        let split = noted.iter().filter_map(|noted| noted.split.as_ref()).min_by_key(|split| split.at);
        let seen = step.since(split.map(|split| split.at), now);
        let split = split?;
        let since = now.saturating_sub(split.since.max(seen));
        (since >= HELD_US_MIN).then(|| {
            let held = Held {
                split: split.name.clone(),
                watermark: Some(split.at).filter(|at| *at > Watermark::MIN),
                others: furthest(step.meeting).filter(|others| *others > split.at),
                since: Duration::from_micros(since as u64),
            };
            (step.step, held)
        })
    });
    held.collect()
}

#[cfg(test)]
mod tests;
