//! The merged view of several inputs: one watermark, one idleness, one barrier, one end.
//!
//! Used where channels come together in front of a task, and where ports come together in front of a stage.
//!
//! Invariants:
//! - The merged watermark is the least of all inputs that are neither idle nor at their end, and never goes back (I8): an
//!   input that wakes up behind it does not pull it back. The end of time comes when every input has reached it: one
//!   that is idle has not.
//! - Idleness is passed on once all inputs that have not ended are idle, and taken back by whatever comes next.
//! - A barrier is complete when every input has brought it or has ended; the end, when every input has ended.

use mill_protocol::{Epoch, Watermark};

use crate::envelope::Event;

#[derive(Clone, Debug)]
struct Input {
    watermark: Watermark,
    is_idle: bool,
    is_ended: bool,
    has_barrier: bool,
}

/// Watermark, idleness, barrier and end of several inputs as one.
#[derive(Clone, Debug)]
pub(crate) struct Merge {
    inputs: Vec<Input>,
    watermark: Watermark,
    is_idle: bool,
    /// The barrier that has come on some inputs, but not on all.
    aligning: Option<Epoch>,
}

impl Merge {
    /// A merge of that many inputs.
    pub(crate) fn new(inputs: usize) -> Merge {
        let input = Input { watermark: Watermark::MIN, is_idle: false, is_ended: false, has_barrier: false };
        Merge { inputs: vec![input; inputs], watermark: Watermark::MIN, is_idle: false, aligning: None }
    }

    /// Whether this input has brought the barrier that others still owe.
    pub(crate) fn is_held_back(&self, input: usize) -> bool {
        self.inputs[input].has_barrier
    }

    /// Records have come: the input is not idle.
    pub(crate) fn on_records(&mut self, input: usize) {
        self.inputs[input].is_idle = false;
        self.is_idle = false;
    }

    /// A watermark has come; gives the merged one if that has risen.
    pub(crate) fn on_watermark(&mut self, input: usize, at: Watermark) -> Option<Watermark> {
        let state = &mut self.inputs[input];
        state.watermark = state.watermark.max(at);
        state.is_idle = false;
        self.is_idle = false;
        self.rise()
    }

    /// The input has gone idle; gives the merged watermark if it has risen thereby, and whether all are idle now.
    pub(crate) fn on_idle(&mut self, input: usize) -> (Option<Watermark>, bool) {
        self.inputs[input].is_idle = true;
        (self.rise(), self.turn_idle())
    }

    /// A barrier has come; gives it if it is complete now.
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
        Ended { watermark, barrier: self.complete(), is_idle: !is_end && self.turn_idle(), is_end }
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
        // An input whose time has ended is as good as ended: it holds nothing back, and it must not end the time of an
        // input that is only idle.
        let open = self.inputs.iter().filter(|input| !input.is_ended && input.watermark < Watermark::MAX);
        let mut is_open = false;
        let active = open.inspect(|_| is_open = true).filter(|input| !input.is_idle);
        let least = active.map(|input| input.watermark).min();
        match (least, is_open) {
            (Some(least), _) => self.raise_to(least),
            (None, true) => None,
            // `on_end` tells the end of all inputs; what is left here has said that its time has ended.
            (None, false) if self.inputs.iter().any(|input| !input.is_ended) => self.raise_to(Watermark::MAX),
            (None, false) => None,
        }
    }

    fn raise_to(&mut self, at: Watermark) -> Option<Watermark> {
        (at > self.watermark).then(|| {
            self.watermark = at;
            at
        })
    }

    fn turn_idle(&mut self) -> bool {
        let is_idle = self.inputs.iter().all(|input| input.is_idle || input.is_ended);
        is_idle && !std::mem::replace(&mut self.is_idle, is_idle)
    }
}

/// What the end of one input means for the whole.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The merged watermark, if it has risen.
    pub(crate) watermark: Option<Watermark>,
    /// The barrier that waited for this input alone.
    pub(crate) barrier: Option<Epoch>,
    /// Whether all inputs that are left are idle.
    pub(crate) is_idle: bool,
    /// Whether all inputs have ended.
    pub(crate) is_end: bool,
}

impl Ended {
    /// The events it is made of, in the order in which they pass on. The barrier comes before the end of time: what the
    /// ended inputs brought was before the barrier, and no other input is let past it.
    pub(crate) fn into_events(self) -> impl Iterator<Item = Event> {
        let barrier = self.barrier.map(Event::Barrier);
        let watermark = self.watermark.map(Event::Watermark);
        let idle = self.is_idle.then_some(Event::Idle);
        barrier.into_iter().chain(watermark).chain(idle).chain(self.is_end.then_some(Event::End))
    }
}

#[cfg(test)]
mod tests;
