//! What travels between tasks.

use std::sync::Arc;

use mill_frame::Frame;
use mill_protocol::{Batch, Epoch, Mark, SplitId, Watermark};

/// One entry of a queue. The order in a queue is the order of the stream.
pub(crate) enum Envelope {
    /// Records that were gathered for this channel.
    Frame(Frame),
    /// Records as they were, where nothing had to be gathered: their columns are shared, not copied.
    Batch(Batch),
    /// No record with an older event time follows on this channel, but late ones.
    Watermark(Watermark),
    /// What came before belongs to this epoch, what follows does not.
    Barrier(Epoch),
    /// Nothing follows.
    End,
}

impl Envelope {
    /// How many records it holds.
    pub(crate) fn rows(&self) -> u64 {
        match self {
            Envelope::Frame(frame) => frame.rows() as u64,
            Envelope::Batch(batch) => batch.rows() as u64,
            Envelope::Watermark(_) | Envelope::Barrier(_) | Envelope::End => 0,
        }
    }
}

/// What a stage is given, once the inputs it comes from have been merged.
#[derive(Debug)]
pub(crate) enum Event {
    /// Records of this input.
    Batch(usize, Batch),
    /// Event time has come this far on this input.
    Watermark(usize, Watermark),
    /// This input has ended.
    InputEnd(usize),
    /// The splits that the task's source has not finished.
    Splits(Arc<[SplitId]>),
    /// A split that was asked for records and has none for now.
    Quiet(SplitId),
    /// What the reader of a split has told of its time.
    Mark(SplitId, Mark),
    /// The barrier has come on all inputs.
    Barrier(Epoch),
    /// All inputs have ended.
    End,
}
