//! Answers that wait until earlier ones have come.
//!
//! ```text
//!   tickets   4 5 6 7 8 9 …          base = 4: all before it are settled
//!   slots     · ✓ ✓ · ✓ ·            ✓ rows of a piece, or none
//!   pieces    results as they came, each kept until its last row has gone
//! ```

use std::collections::VecDeque;
use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;

/// The answer to one ticket.
#[derive(Clone, Copy, Debug)]
enum Slot {
    Waits,
    /// Rows of a piece.
    Answered {
        piece: u64,
        start: u32,
        rows: u32,
    },
}

/// Results that came together.
struct Piece {
    data: RecordBatch,
    /// How many rows have not been emitted.
    left: usize,
}

/// Answers in the order of tickets.
#[derive(Default)]
pub(super) struct Ordered {
    /// The ticket of the first slot.
    base: u64,
    slots: VecDeque<Slot>,
    /// For each call that counts: the ticket after its last one.
    calls: VecDeque<u64>,
    pieces: VecDeque<Piece>,
    /// The number of the first piece.
    piece_base: u64,
}

/// What can be emitted.
pub(super) struct Ready {
    /// Rows with the ticket of each, if there are any.
    pub(super) rows: Option<(RecordBatch, Vec<u64>)>,
    /// The tickets that are settled with them.
    pub(super) tickets: Range<u64>,
}

impl Ordered {
    /// How many calls were started whose records are not all settled.
    pub(super) fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Records are started on, so many, in so many calls.
    pub(super) fn start(&mut self, first: u64, rows: usize, calls: usize) {
        if self.slots.is_empty() {
            self.base = first;
        }
        self.slots.resize(self.slots.len() + rows, Slot::Waits);
        let end = first + rows as u64;
        if calls == rows {
            self.calls.extend(first + 1..=end);
        } else {
            self.calls.push_back(end);
        }
    }

    /// Takes answers.
    pub(super) fn take(
        &mut self,
        results: Vec<(RecordBatch, Vec<u64>)>,
        answered: Vec<Range<u64>>,
    ) -> Result<(), &'static str> {
        for (data, origin) in results {
            if origin.len() != data.num_rows() {
                return Err("it returned results without the origin of each");
            }
            let piece = self.piece_base + self.pieces.len() as u64;
            let mut start = 0;
            for of_ticket in origin.chunk_by(|a, b| a == b) {
                let slot = self.slot(of_ticket[0])?;
                if !matches!(slot, Slot::Waits) {
                    return Err("it answered a record twice");
                }
                *slot = Slot::Answered { piece, start, rows: of_ticket.len() as u32 };
                start += of_ticket.len() as u32;
            }
            self.pieces.push_back(Piece { left: data.num_rows(), data });
        }
        for ticket in answered.into_iter().flatten() {
            let slot = self.slot(ticket)?;
            if matches!(slot, Slot::Waits) {
                *slot = Slot::Answered { piece: 0, start: 0, rows: 0 };
            }
        }
        Ok(())
    }

    fn slot(&mut self, ticket: u64) -> Result<&mut Slot, &'static str> {
        let place = ticket.checked_sub(self.base).ok_or("it answered a record twice")?;
        self.slots.get_mut(place as usize).ok_or("it answered a record that was not started")
    }

    /// Takes what has been answered up to the first that has not.
    pub(super) fn ready(&mut self) -> Ready {
        let first = self.base;
        let (mut places, mut origin) = (Vec::new(), Vec::new());
        while let Some(&Slot::Answered { piece, start, rows }) = self.slots.front() {
            if rows > 0 {
                let piece = (piece - self.piece_base) as usize;
                places.extend((start..start + rows).map(|row| (piece, row as usize)));
                origin.extend(std::iter::repeat_n(self.base, rows as usize));
                self.pieces[piece].left -= rows as usize;
            }
            self.slots.pop_front();
            self.base += 1;
        }
        while self.calls.front().is_some_and(|&end| end <= self.base) {
            self.calls.pop_front();
        }
        let rows = (!places.is_empty()).then(|| (self.gather(&places), origin));
        while self.pieces.front().is_some_and(|piece| piece.left == 0) {
            self.pieces.pop_front();
            self.piece_base += 1;
        }
        Ready { rows, tickets: first..self.base }
    }

    /// The rows at these places, of a piece each.
    fn gather(&self, places: &[(usize, usize)]) -> RecordBatch {
        let (first, start) = places[0];
        let is_run = places.iter().zip(start..).all(|(&place, row)| place == (first, row));
        if is_run {
            return self.pieces[first].data.slice(start, places.len());
        }
        let pieces: Vec<&RecordBatch> = self.pieces.iter().map(|piece| &piece.data).collect();
        interleave_record_batch(&pieces, places).expect("all pieces have the planned columns, and the places are in them")
    }
}
