//! The note that says which epochs are in the topic: the offset of a consumer group of the sink's own, with words beside it.
//!
//! It is written in the transaction of the epoch, so the two become visible together or not at all.
//!
//! ```json
//!   {"job": "…", "sink": "…", "run": "…", "epoch": 7, "before": ["<run>", 5]}
//! ```
//!
//! `run` is the run that holds the sink, `epoch` the last one that was committed. `before` is the run that it took over from, with the
//! last epoch that this one had committed by then. Handles that a checkpoint names are always of one run, and of it or of the one
//! before the note speaks; of any other it does not know, and then nothing is sent.

use mill_protocol::{Error, Result};
use serde::{Deserialize, Serialize};

/// Who has the sink, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    job: String,
    sink: String,
    run: String,
    pub(super) epoch: u64,
    before: Option<(String, u64)>,
}

/// What a note says of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It is in the topic.
    Committed,
    /// It is not.
    NotCommitted,
    /// Another run has gone on from the same place.
    Unknown,
}

impl Note {
    /// The note of a run that begins from nothing.
    pub(super) fn first(job: u64, sink: &str, run: u64, epoch: u64) -> Note {
        Note { job: format!("{job:016x}"), sink: sink.to_owned(), run: format!("{run:016x}"), epoch, before: None }
    }

    /// The note of the run that takes over after this one. A run that has committed nothing of its own is skipped: what
    /// checkpoints name is still of the one before it.
    pub(super) fn taken_over(&self, run: u64) -> Note {
        let before = match &self.before {
            Some((before, last)) if *last == self.epoch => (before.clone(), *last),
            _ => (self.run.clone(), self.epoch),
        };
        Note { run: format!("{run:016x}"), before: Some(before), ..self.clone() }
    }

    /// The note once this epoch of a run is committed; by the run itself, or by its successor, which commits it first of all.
    pub(super) fn of_run(&self, run: u64, epoch: u64) -> Note {
        Note { run: format!("{run:016x}"), epoch, ..self.clone() }
    }

    /// What it says of an epoch of a run.
    pub(super) fn tells(&self, run: u64, epoch: u64) -> Told {
        let run = format!("{run:016x}");
        let committed = |is_committed: bool| if is_committed { Told::Committed } else { Told::NotCommitted };
        match &self.before {
            _ if self.run == run => committed(epoch <= self.epoch),
            Some((before, last)) if *before == run && epoch <= *last => Told::Committed,
            _ if epoch > self.epoch => Told::NotCommitted,
            _ => Told::Unknown,
        }
    }

    pub(super) fn encode(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::internal("a note is names and numbers").because(e))
    }

    /// Reads a note; `None` if it is not one of this job's sink.
    pub(super) fn decode(text: &str, job: u64, sink: &str) -> Option<Note> {
        let note: Note = serde_json::from_str(text).ok()?;
        (note.job == format!("{job:016x}") && note.sink == sink).then_some(note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_tells_of_its_own_run_and_of_the_one_before() {
        let first = Note::first(1, "out", 10, 0).of_run(10, 5);
        assert_eq!(first.tells(10, 5), Told::Committed);
        assert_eq!(first.tells(10, 6), Told::NotCommitted);
        let second = first.taken_over(20);
        assert_eq!(second.tells(10, 5), Told::Committed);
        // The run that was taken over from, whose last epoch was never committed.
        assert_eq!(second.tells(10, 6), Told::NotCommitted);
        assert_eq!(second.of_run(20, 6).tells(20, 6), Told::Committed);
        // Both have gone on from epoch 5: its epoch 6 is not the other one's.
        assert_eq!(second.of_run(20, 6).tells(10, 6), Told::Unknown);
        // The second has died before its first checkpoint: handles are still of the first.
        assert_eq!(second.taken_over(30).taken_over(40).tells(10, 5), Told::Committed);
        assert_eq!(second.taken_over(30).tells(10, 6), Told::NotCommitted);
        assert_eq!(second.of_run(20, 6).taken_over(30).tells(10, 5), Told::Unknown);
        // The second has published a checkpoint, and its successor commits it.
        let third = second.of_run(20, 6).taken_over(30);
        assert_eq!((third.tells(20, 6), third.tells(20, 7), third.tells(30, 7)), (Told::Committed, Told::NotCommitted, Told::NotCommitted));
    }

    #[test]
    fn a_note_of_another_sink_is_none() {
        let text = Note::first(1, "out", 10, 3).encode().unwrap();
        assert_eq!(Note::decode(&text, 1, "out").unwrap().epoch, 3);
        assert_eq!(Note::decode(&text, 2, "out"), None);
        assert_eq!(Note::decode(&text, 1, "other"), None);
        assert_eq!(Note::decode("", 1, "out"), None);
    }
}
