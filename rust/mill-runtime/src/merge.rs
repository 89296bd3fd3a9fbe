//! The merged view of several inputs: one watermark, one barrier, one end.
//!
//! Used where channels come together in front of a task, and where ports come together in front of a stage.
//!
//! Invariants:
//! - The merged watermark is the least of all inputs that have not ended, and never goes back (I8). Every input sends
//!   watermarks, also one whose source has nothing to read (see [`time_board`](crate::time_board)), so none is left out.
//! - A barrier is complete when every input has brought it or has ended; the end, when every input has ended.

use mill_protocol::{Epoch, Watermark};

use crate::envelope::Event;

#[derive(Clone, Debug)]
struct Input {
    watermark: Watermark,
    is_ended: bool,
    has_barrier: bool,
}

/// Watermark, barrier and end of several inputs as one.
#[derive(Clone, Debug)]
pub(crate) struct Merge {
    inputs: Vec<Input>,
    watermark: Watermark,
    /// The barrier that has come on some inputs, but not on all.
    aligning: Option<Epoch>,
}

impl Merge {
    /// A merge of that many inputs.
    pub(crate) fn new(inputs: usize) -> Merge {
        let input = Input { watermark: Watermark::MIN, is_ended: false, has_barrier: false };
        Merge { inputs: vec![input; inputs], watermark: Watermark::MIN, aligning: None }
    }

    /// Whether this input has brought the barrier that is still missing from others.
    pub(crate) fn is_held_back(&self, input: usize) -> bool {
        self.inputs[input].has_barrier
    }

    /// A watermark has come; returns the merged one if that has risen.
    pub(crate) fn on_watermark(&mut self, input: usize, at: Watermark) -> Option<Watermark> {
        let state = &mut self.inputs[input];
        state.watermark = state.watermark.max(at);
        self.rise()
    }

    /// A barrier has come; returns it if it is complete now.
    pub(crate) fn on_barrier(&mut self, input: usize, epoch: Epoch) -> Option<Epoch> {
        assert!(self.aligning.is_none_or(|aligning| aligning == epoch), "{epoch:?} during {:?}", self.aligning);
        assert!(!self.inputs[input].has_barrier, "{epoch:?} came twice on input {input}");
        self.aligning = Some(epoch);
        self.inputs[input].has_barrier = true;
        self.complete()
    }

    /// The input has ended.
    pub(crate) fn on_end(&mut self, input: usize) -> Ended {
        self.inputs[input].is_ended = true;
        self.inputs[input].has_barrier = false;
        let is_end = self.inputs.iter().all(|input| input.is_ended);
        let watermark = if is_end { self.raise_to(Watermark::MAX) } else { self.rise() };
        Ended { watermark, barrier: self.complete(), is_end }
    }

    fn complete(&mut self) -> Option<Epoch> {
        let epoch = self.aligning?;
        if !self.inputs.iter().all(|input| input.has_barrier || input.is_ended) {
            return None;
        }
        self.inputs.iter_mut().for_each(|input| input.has_barrier = false);
        self.aligning = None;
        Some(epoch)
    }

    fn rise(&mut self) -> Option<Watermark> {
        let open = self.inputs.iter().filter(|input| !input.is_ended);
        open.map(|input| input.watermark).min().and_then(|least| self.raise_to(least))
    }

    fn raise_to(&mut self, at: Watermark) -> Option<Watermark> {
        (at > self.watermark).then(|| {
            self.watermark = at;
            at
        })
    }
}

/// What the end of one input means for the whole.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The merged watermark, if it has risen.
    pub(crate) watermark: Option<Watermark>,
    /// The barrier that waited for this input alone.
    pub(crate) barrier: Option<Epoch>,
    /// Whether all inputs have ended.
    pub(crate) is_end: bool,
}

impl Ended {
    /// The events it is made of, in the order in which they pass on. The barrier comes before the end of time: what the
    /// ended inputs brought was before the barrier, and no other input is let past it.
    pub(crate) fn into_events(self) -> impl Iterator<Item = Event> {
        let barrier = self.barrier.map(Event::Barrier);
        let watermark = self.watermark.map(Event::Watermark);
        barrier.into_iter().chain(watermark).chain(self.is_end.then_some(Event::End))
    }
}

#[cfg(test)]
mod tests;
