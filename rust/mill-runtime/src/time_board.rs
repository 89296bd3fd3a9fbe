//! The watermark of inputs that have no records.
//!
//! A task whose splits are all quiet makes no watermarks of its own, yet those after it wait for one from every task. So
//! each operator that makes watermarks has an entry here, in which it notes how far it has come, and a quiet one adopts the
//! time of the others and sends that:
//!
//! ```text
//!   input A   task 0  Active 50 ──────────────────────────► sends 50
//!             task 1  Active 70 ──────────────────────────► sends 70
//!             task 2  Empty  (has no split) ── follows A ─► sends 50
//!   input B   task 0  Idle   20 ─┐
//!             task 1  Idle   30 ─┴ follows all inputs ────► sends 50
//! ```
//!
//! A task that has no split for now follows the other tasks of its input. An input that is idle follows the inputs that it
//! meets further down; once all of them are idle, time is the greatest that any of them had come to, whichever went idle
//! first. So every task always sends watermarks, and whoever merges them takes the least: no state "idle" travels, and
//! none can be overtaken by the records that end it.
//!
//! Where a task may be given a new split, or one of its splits may wake up, its next record may be older than all it has had.
//! Such an input is *shared*: its active tasks also send the time of the input, not their own, so that no task has closed what
//! its input as a whole has yet to close. Whichever task gets the split, its records are late, or not, by the same time.
//!
//! ```text
//!   shared    task 0  Active 50 ──────────────────────────► sends 50
//!             task 1  Active 70 ──────────────────────────► sends 50
//! ```
//!
//! Invariants:
//! - A follower never sends a watermark that an active entry has yet to reach, for its input is not waited for, but it
//!   waits for others. When it has records again it continues from the watermark it sent last.
//! - What a task sends never exceeds what its own channel has been told; hence a record that is late for a window is late
//!   for every step before that window in the same task as well.

use std::sync::Arc;

use mill_protocol::Watermark;
use mill_queue::Unparker;
use parking_lot::Mutex;

/// What one maker of watermarks says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has come this far, and others wait for it.
    Active(Watermark),
    /// It has nothing to read for now, though its input is not idle; its records had come this far.
    Empty(Watermark),
    /// Its input is idle; its records had come this far.
    Idle(Watermark),
    /// It has ended; it had come this far.
    Ended(Watermark),
}

/// The makers of watermarks whose streams meet further down.
#[derive(Debug, Default)]
pub(crate) struct TimeBoard(Mutex<Board>);

#[derive(Debug, Default)]
struct Board {
    entries: Vec<Entry>,
    inputs: usize,
    /// How many entries are empty or idle.
    quiet: usize,
    /// Whether any input is shared.
    has_shared: bool,
}

#[derive(Debug)]
struct Entry {
    input: usize,
    /// Whether it sends the time of its input also while it is active.
    is_shared: bool,
    standing: Standing,
    /// What its maker sent last.
    sent: Watermark,
    unparker: Unparker,
    /// Whether time has gone on for a follower since it was woken last.
    is_to_wake: bool,
}

/// What time it is for a whole input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InputTime {
    Active(Watermark),
    Idle(Watermark),
    Ended(Watermark),
}

/// One maker's entry.
#[derive(Debug)]
pub(crate) struct Slot {
    board: Arc<TimeBoard>,
    entry: usize,
    is_shared: bool,
    is_quiet: bool,
}

impl TimeBoard {
    /// An entry for each of these makers of one input, in their order.
    pub(crate) fn add_input(self: &Arc<TimeBoard>, unparkers: Vec<Unparker>, is_shared: bool) -> Vec<Slot> {
        let mut board = self.0.lock();
        let input = board.inputs;
        board.inputs += 1;
        board.has_shared |= is_shared;
        let add = |unparker| {
            let standing = Standing::Active(Watermark::MIN);
            board.entries.push(Entry { input, is_shared, standing, sent: Watermark::MIN, unparker, is_to_wake: false });
            Slot { board: Arc::clone(self), entry: board.entries.len() - 1, is_shared, is_quiet: false }
        };
        unparkers.into_iter().map(add).collect()
    }
}

impl Slot {
    /// Notes how things stand.
    pub(crate) fn report(&mut self, standing: Standing) {
        self.is_quiet = matches!(standing, Standing::Empty(_) | Standing::Idle(_));
        self.board.0.lock().report(self.entry, standing);
    }

    /// That its maker has ended, having come as far as was reported last.
    pub(crate) fn end(&mut self) {
        self.is_quiet = false;
        let mut board = self.board.0.lock();
        let at = board.entries[self.entry].standing.at();
        board.report(self.entry, Standing::Ended(at));
    }

    /// Its maker was rebuilt, and does not know that it had nothing to say of time: others wait for it until it says so again.
    pub(crate) fn count_again(&mut self) {
        if self.is_quiet {
            self.is_quiet = false;
            let mut board = self.board.0.lock();
            let at = board.entries[self.entry].standing.at();
            board.report(self.entry, Standing::Active(at));
        }
    }

    /// Whether its maker has nothing to say of time.
    pub(crate) fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// Whether its maker sends what [`follow`](Slot::follow) says, and nothing else.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Where its maker is quiet, or shares the time of its input: the time to take on, if that has gone on since it was last
    /// asked for.
    pub(crate) fn follow(&self) -> Option<Watermark> {
        if !self.is_quiet && !self.is_shared {
            return None;
        }
        let mut board = self.board.0.lock();
        let at = board.time_of_follower(self.entry);
        let entry = &mut board.entries[self.entry];
        (at > entry.sent).then(|| {
            entry.sent = at;
            at
        })
    }

    /// Wakes the followers for whom time has gone on.
    pub(crate) fn wake_followers(&self) {
        let mut board = self.board.0.lock();
        if board.has_followers() {
            for entry in &mut board.entries {
                if std::mem::take(&mut entry.is_to_wake) {
                    entry.unparker.unpark();
                }
            }
        }
    }
}

impl Standing {
    fn at(self) -> Watermark {
        let (Standing::Active(at) | Standing::Empty(at) | Standing::Idle(at) | Standing::Ended(at)) = self;
        at
    }

    fn is_quiet(self) -> bool {
        matches!(self, Standing::Empty(_) | Standing::Idle(_))
    }
}

impl Entry {
    /// Whether it takes on the time of others.
    fn follows(&self) -> bool {
        match self.standing {
            Standing::Active(_) => self.is_shared,
            Standing::Empty(_) | Standing::Idle(_) => true,
            Standing::Ended(_) => false,
        }
    }
}

impl Board {
    fn report(&mut self, entry: usize, standing: Standing) {
        let of_it = &mut self.entries[entry];
        let former = std::mem::replace(&mut of_it.standing, standing);
        if let Standing::Active(at) = standing
            && !of_it.is_shared
        {
            of_it.sent = of_it.sent.max(at);
        }
        self.quiet = self.quiet + usize::from(standing.is_quiet()) - usize::from(former.is_quiet());
        if !self.has_followers() {
            return;
        }
        for follower in (0..self.entries.len()).filter(|&other| other != entry) {
            if self.entries[follower].follows() && self.time_of_follower(follower) > self.entries[follower].sent {
                self.entries[follower].is_to_wake = true;
            }
        }
    }

    fn has_followers(&self) -> bool {
        self.quiet > 0 || self.has_shared
    }

    fn time_of_follower(&self, entry: usize) -> Watermark {
        match self.time_of_input(self.entries[entry].input) {
            InputTime::Active(at) => at,
            InputTime::Idle(_) | InputTime::Ended(_) => self.time_of_all(),
        }
    }

    fn time_of_input(&self, input: usize) -> InputTime {
        let of_input = || self.entries.iter().filter(|entry| entry.input == input).map(|entry| entry.standing);
        let active = of_input().filter(|standing| matches!(standing, Standing::Active(_))).map(Standing::at).min();
        if let Some(at) = active {
            return InputTime::Active(at);
        }
        let greatest = of_input().map(Standing::at).max().unwrap_or(Watermark::MIN);
        if of_input().any(|standing| matches!(standing, Standing::Empty(_))) {
            // Nobody has a split, and nobody says that it may be skipped: what turns up next is waited for.
            InputTime::Active(greatest)
        } else if of_input().any(|standing| matches!(standing, Standing::Idle(_))) {
            InputTime::Idle(greatest)
        } else {
            InputTime::Ended(greatest)
        }
    }

    fn time_of_all(&self) -> Watermark {
        let (mut active, mut greatest) = (None::<Watermark>, Watermark::MIN);
        for input in 0..self.inputs {
            match self.time_of_input(input) {
                InputTime::Active(at) => active = Some(active.map_or(at, |least| least.min(at))),
                InputTime::Idle(at) | InputTime::Ended(at) => greatest = greatest.max(at),
            }
        }
        active.unwrap_or(greatest)
    }
}

#[cfg(test)]
mod tests;
