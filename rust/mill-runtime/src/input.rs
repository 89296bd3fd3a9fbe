//! The reading side of a task that reads from other tasks: many channels become one stream of events.
//!
//! Channels are polled in turn, one envelope each. What they say of time, barriers and ends is merged
//! ([`Merge`](crate::merge::Merge)). With alignment a channel that has brought the barrier of epoch n is not polled
//! until all others have brought it or ended: nothing after the barrier is seen before the snapshot. Without, it is
//! polled on, and the barrier passes when the last channel brings it.
//!
//! A channel whose entry is not wanted now is not polled either, so that its producer waits; unless a barrier has come on
//! another one, for then the rest of its own epoch is needed.

use std::collections::VecDeque;

use mill_protocol::Result;

use crate::channel::Receiver;
use crate::envelope::{Envelope, Event};
use crate::merge::Merge;
use crate::wire;

/// The result of polling.
pub(crate) enum Polled {
    /// An event.
    Event(Event),
    /// An envelope that means nothing by itself: a watermark that other channels hold up, say.
    Taken,
    /// Nothing is there.
    Nothing,
}

/// All channels of one task.
pub(crate) struct Input {
    channels: Vec<Option<Receiver>>,
    merge: Merge,
    is_aligned: bool,
    /// The channel to poll next.
    turn: usize,
    /// What one envelope meant beyond its first event.
    ready: VecDeque<Event>,
}

impl Input {
    /// The channels, each with the entry that it leads to, of that many entries, and whether barriers hold them back.
    pub(crate) fn new(entries: usize, channels: Vec<(usize, Receiver)>, is_aligned: bool) -> Input {
        let mut merge = Merge::new(entries, channels.iter().map(|(entry, _)| *entry));
        // An entry that nobody writes to in this task (a gather to another one, say) has ended before it begins.
        let ready = VecDeque::from(merge.absent());
        let channels = channels.into_iter().map(|(_, channel)| Some(channel)).collect();
        Input { channels, merge, is_aligned, turn: 0, ready }
    }

    /// Takes the next envelope, if there is one now, of an entry that is wanted.
    pub(crate) fn poll(&mut self, is_wanted: impl Fn(usize) -> bool) -> Result<Polled> {
        if let Some(event) = self.ready.pop_front() {
            return Ok(Polled::Event(event));
        }
        for _ in 0..self.channels.len() {
            let channel = self.turn;
            self.turn = (channel + 1) % self.channels.len();
            let is_left = match self.merge.is_aligning() {
                true => self.is_aligned && self.merge.is_held_back(channel),
                false => !is_wanted(self.merge.input(channel)),
            };
            let envelope = match &mut self.channels[channel] {
                Some(receiver) if !is_left => receiver.try_receive(),
                _ => None,
            };
            if let Some(envelope) = envelope {
                return Ok(self.take(channel, envelope)?.map_or(Polled::Taken, Polled::Event));
            }
        }
        Ok(Polled::Nothing)
    }

    /// Tells the producers that nothing more is needed.
    pub(crate) fn close(&mut self) {
        self.channels.iter_mut().for_each(|channel| *channel = None);
        self.ready.clear();
    }

    fn take(&mut self, channel: usize, envelope: Envelope) -> Result<Option<Event>> {
        match envelope {
            Envelope::Frame(frame) => return Ok(Some(Event::Batch(self.merge.input(channel), wire::batch(&frame)?))),
            Envelope::Batch(batch) => return Ok(Some(Event::Batch(self.merge.input(channel), batch))),
            Envelope::Watermark(at) => self.ready.extend(self.merge.on_watermark(channel, at)),
            Envelope::Barrier(epoch) => self.ready.extend(self.merge.on_barrier(channel, epoch)),
            Envelope::End => {
                self.channels[channel] = None;
                self.ready.extend(self.merge.on_end(channel).into_iter().flatten());
            }
        }
        Ok(self.ready.pop_front())
    }
}

#[cfg(test)]
mod tests;
