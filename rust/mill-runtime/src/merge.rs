//! The merged view of several channels: one watermark an input, one barrier, one end.
//!
//! Used where channels come together in front of a task, and where ports come together in front of a stage. Each channel
//! leads to an input with a number; those that lead to the same one are one stream (a union, the tasks of a producer).
//!
//! Invariants:
//! - The watermark of an input is the least of its channels that have not ended, and never goes back (I8). Every channel
//!   sends watermarks, also one whose source has nothing to read (see [`time_board`](crate::time_board)), so none is left out.
//! - A barrier is complete when every channel has brought it or has ended, whatever inputs they lead to.
//! - An input ends with the last of its channels, and all of it with the last input. Before it ends its time is
//!   [`Watermark::MAX`]. An end that comes twice means nothing.

use mill_protocol::{Epoch, Watermark};

use crate::envelope::Event;

#[derive(Clone, Debug)]
struct Channel {
    input: usize,
    watermark: Watermark,
    is_ended: bool,
    has_barrier: bool,
}

/// Watermarks, barrier and end of several channels.
#[derive(Clone, Debug)]
pub(crate) struct Merge {
    channels: Vec<Channel>,
    /// For each input.
    watermarks: Vec<Watermark>,
    /// The barrier that has come on some channels, but not on all.
    aligning: Option<Epoch>,
}

impl Merge {
    /// A merge of that many inputs; for each channel the input that it leads to.
    pub(crate) fn new(inputs: usize, channels: impl IntoIterator<Item = usize>) -> Merge {
        let channel = |input| Channel { input, watermark: Watermark::MIN, is_ended: false, has_barrier: false };
        let channels = channels.into_iter().map(channel).collect();
        Merge { channels, watermarks: vec![Watermark::MIN; inputs], aligning: None }
    }

    /// How many inputs there are.
    pub(crate) fn inputs(&self) -> usize {
        self.watermarks.len()
    }

    /// Whether all channels of this input have ended.
    pub(crate) fn has_ended(&self, input: usize) -> bool {
        self.channels.iter().all(|channel| channel.is_ended || channel.input != input)
    }

    /// The input that this channel leads to.
    pub(crate) fn input(&self, channel: usize) -> usize {
        self.channels[channel].input
    }

    /// The ends of those inputs to which no channel leads: they have ended before they begin.
    pub(crate) fn absent(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for input in 0..self.watermarks.len() {
            if self.channels.iter().all(|channel| channel.input != input) {
                self.watermarks[input] = Watermark::MAX;
                events.extend([Event::Watermark(input, Watermark::MAX), Event::InputEnd(input)]);
            }
        }
        events.extend(self.channels.is_empty().then_some(Event::End));
        events
    }

    /// Whether a barrier has come on some channels, but not on all.
    pub(crate) fn is_aligning(&self) -> bool {
        self.aligning.is_some()
    }

    /// Whether this channel has brought the barrier that is still missing from others.
    pub(crate) fn is_held_back(&self, channel: usize) -> bool {
        self.channels[channel].has_barrier
    }

    /// A watermark has come; returns that of the input if it has risen.
    pub(crate) fn on_watermark(&mut self, channel: usize, at: Watermark) -> Option<Event> {
        let state = &mut self.channels[channel];
        state.watermark = state.watermark.max(at);
        let input = state.input;
        self.rise(input)
    }

    /// A barrier has come; returns it if it is complete now.
    pub(crate) fn on_barrier(&mut self, channel: usize, epoch: Epoch) -> Option<Event> {
        let state = &mut self.channels[channel];
        if state.is_ended {
            return None;
        }
        assert!(self.aligning.is_none_or(|aligning| aligning == epoch), "{epoch:?} during {:?}", self.aligning);
        assert!(!state.has_barrier, "{epoch:?} came twice on channel {channel}");
        self.aligning = Some(epoch);
        state.has_barrier = true;
        self.complete()
    }

    /// The channel has ended. Returns what that means, in the order in which it passes on. The barrier comes before the
    /// end of time: what the ended channels brought was before the barrier, and no other one is let past it.
    pub(crate) fn on_end(&mut self, channel: usize) -> [Option<Event>; 4] {
        let state = &mut self.channels[channel];
        if std::mem::replace(&mut state.is_ended, true) {
            return [None, None, None, None];
        }
        state.has_barrier = false;
        let input = state.input;
        let is_input_end = self.has_ended(input);
        let is_end = is_input_end && self.channels.iter().all(|channel| channel.is_ended);
        let watermark = if is_input_end { self.raise_to(input, Watermark::MAX) } else { self.rise(input) };
        let barrier = self.complete();
        [barrier, watermark, is_input_end.then_some(Event::InputEnd(input)), is_end.then_some(Event::End)]
    }

    fn complete(&mut self) -> Option<Event> {
        let epoch = self.aligning?;
        if !self.channels.iter().all(|channel| channel.has_barrier || channel.is_ended) {
            return None;
        }
        self.channels.iter_mut().for_each(|channel| channel.has_barrier = false);
        self.aligning = None;
        Some(Event::Barrier(epoch))
    }

    fn rise(&mut self, input: usize) -> Option<Event> {
        let open = self.channels.iter().filter(|channel| channel.input == input && !channel.is_ended);
        open.map(|channel| channel.watermark).min().and_then(|least| self.raise_to(input, least))
    }

    fn raise_to(&mut self, input: usize, at: Watermark) -> Option<Event> {
        (at > self.watermarks[input]).then(|| {
            self.watermarks[input] = at;
            Event::Watermark(input, at)
        })
    }
}

#[cfg(test)]
mod tests;
