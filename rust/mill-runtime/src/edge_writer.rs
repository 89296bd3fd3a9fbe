//! The writing end of an edge: gathers records, splits them by consumer, and keeps those for which there is no room.
//!
//! ```text
//!   batches ─► gathered ─► joined ─► cut by consumer ─► frames ─► unsent ─► queue 0
//!                                                                           queue 1 …
//! ```
//!
//! Only what is cut has to be gathered into frames. Where all of a batch goes to one consumer its columns are handed over
//! as they are. Small batches are gathered until they are worth a frame, or until the stream goes quiet, or until something
//! that must not overtake them has to be sent (a barrier, the end). A batch that is large enough is cut as it is. A
//! watermark waits for the rows that were gathered before it, and for nothing else. A slow consumer has frames cut to the
//! number of rows that it works off in a short time.
//!
//! Invariant: while [`try_flush`](EdgeWriter::try_flush) says false the chain passes the writer nothing more, so unsent
//! data is bounded by the output of one event.

use std::collections::VecDeque;

use mill_protocol::{Batch, Result, Watermark};

use crate::channel::Sender;
use crate::envelope::{Envelope, Event};
use crate::graph::EdgeKind;
use crate::wire;

/// A batch of more than that many times the usual rows is cut, so that a queue is bounded in bytes as well.
const ROWS_FACTOR_MAX: usize = 4;

/// The writing end of an edge, of one task.
pub(crate) struct EdgeWriter {
    kind: EdgeKind,
    outs: Vec<Out>,
    /// Whose turn it is, when all take turns.
    turn: usize,
    frame_rows: usize,
    gathered: Vec<Batch>,
    rows: usize,
    /// What is to be sent, and what was sent last.
    watermark: Option<Watermark>,
    sent: Watermark,
    /// How many envelopes are unsent over all consumers.
    unsent: usize,
}

struct Out {
    sender: Sender,
    unsent: VecDeque<Envelope>,
}

impl EdgeWriter {
    /// A writer over the queues to the consumers, in the order of their index.
    pub(crate) fn new(kind: EdgeKind, senders: Vec<Sender>, turn: usize, frame_rows: usize) -> EdgeWriter {
        let outs: Vec<Out> = senders.into_iter().map(|sender| Out { sender, unsent: VecDeque::new() }).collect();
        assert!(!outs.is_empty(), "an edge needs a consumer");
        let turn = turn % outs.len();
        EdgeWriter { kind, outs, turn, frame_rows, gathered: Vec::new(), rows: 0, watermark: None, sent: Watermark::MIN, unsent: 0 }
    }

    /// Takes an event; records may be held until they are worth a frame or [`quiet`](EdgeWriter::quiet) is called.
    pub(crate) fn push(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Batch(_, batch) => {
                if self.gathered.is_empty() {
                    self.send_watermark();
                }
                self.rows += batch.rows();
                self.gathered.push(batch);
                if self.rows >= self.frame_rows.div_ceil(2).min(self.piece()) {
                    self.quiet()?;
                }
                Ok(())
            }
            Event::Watermark(_, at) => {
                if at > self.sent {
                    self.watermark = Some(at);
                }
                Ok(())
            }
            Event::InputEnd(_) | Event::Splits(_) | Event::Quiet(_) | Event::Mark(..) => Ok(()),
            Event::Barrier(epoch) => self.broadcast(|| Envelope::Barrier(epoch)),
            Event::End => self.broadcast(|| Envelope::End),
        }
    }

    /// Sends what was gathered: nothing more is to be expected for now.
    pub(crate) fn quiet(&mut self) -> Result<()> {
        if !self.gathered.is_empty() {
            let gathered = std::mem::take(&mut self.gathered);
            self.rows = 0;
            if !self.is_closed() {
                let batch = wire::join(&gathered)?;
                let rows_max = self.frame_rows.saturating_mul(ROWS_FACTOR_MAX).min(self.piece());
                for start in (0..batch.rows()).step_by(rows_max) {
                    self.send_records(&batch.slice(start, rows_max.min(batch.rows() - start)))?;
                }
            }
        }
        self.send_watermark();
        Ok(())
    }

    fn send_watermark(&mut self) {
        if let Some(at) = self.watermark.take() {
            self.sent = at;
            self.send_to_all(|| Envelope::Watermark(at));
        }
    }

    /// Sends what has room; returns whether nothing is left unsent.
    pub(crate) fn try_flush(&mut self) -> bool {
        if self.unsent == 0 {
            return true;
        }
        for out in &mut self.outs {
            while let Some(envelope) = out.unsent.pop_front() {
                match out.sender.try_send(envelope) {
                    Ok(()) => self.unsent -= 1,
                    Err(envelope) => {
                        out.unsent.push_front(envelope);
                        break;
                    }
                }
            }
        }
        self.unsent == 0
    }

    /// Whether no consumer needs anything any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.outs.iter().all(|out| out.sender.is_closed())
    }

    /// How many rows a frame should have at most, for the slowest consumer.
    fn piece(&self) -> usize {
        self.outs.iter().map(|out| out.sender.piece()).min().unwrap_or(usize::MAX).max(1)
    }

    /// How many rows should be sent at once at least, for the consumer that wants the most.
    pub(crate) fn floor(&self) -> usize {
        self.outs.iter().map(|out| out.sender.floor()).max().unwrap_or(1)
    }

    /// How many envelopes wait in the queues, at most of any.
    pub(crate) fn fill(&self) -> usize {
        self.outs.iter().map(|out| out.sender.len()).max().unwrap_or(0)
    }

    fn send_records(&mut self, batch: &Batch) -> Result<()> {
        match &self.kind {
            EdgeKind::Hash(columns) if self.outs.len() > 1 => {
                let frames = wire::frames_by_key(batch, columns, self.outs.len())?;
                for (consumer, frame) in frames.into_iter().enumerate() {
                    frame.into_iter().for_each(|frame| self.send(consumer, Envelope::Frame(frame)));
                }
            }
            EdgeKind::Rebalance => {
                let consumer = self.least_busy();
                self.turn = (consumer + 1) % self.outs.len();
                self.send(consumer, Envelope::Batch(wire::whole(batch)));
            }
            EdgeKind::Broadcast => {
                (0..self.outs.len()).for_each(|consumer| self.send(consumer, Envelope::Batch(wire::whole(batch))));
            }
            EdgeKind::Hash(_) | EdgeKind::Gather | EdgeKind::Forward => self.send(0, Envelope::Batch(wire::whole(batch))),
        }
        Ok(())
    }

    /// The consumer with the least before it; of equals the one whose turn it is.
    fn least_busy(&self) -> usize {
        let consumers = self.outs.len();
        let waiting = |&consumer: &usize| self.outs[consumer].sender.len() + self.outs[consumer].unsent.len();
        (0..consumers).map(|step| (self.turn + step) % consumers).min_by_key(waiting).unwrap_or(self.turn)
    }

    fn send(&mut self, consumer: usize, envelope: Envelope) {
        self.outs[consumer].unsent.push_back(envelope);
        self.unsent += 1;
    }

    /// Sends to all consumers, after everything that was gathered.
    fn broadcast(&mut self, make: impl Fn() -> Envelope) -> Result<()> {
        self.quiet()?;
        self.send_to_all(make);
        Ok(())
    }

    fn send_to_all(&mut self, make: impl Fn() -> Envelope) {
        for out in &mut self.outs {
            out.unsent.push_back(make());
        }
        self.unsent += self.outs.len();
    }
}
