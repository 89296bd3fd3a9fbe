//! The writing end of an edge: partitions records over the consumers and keeps what does not fit.
//!
//! ```text
//!   batch ─► rows of consumer 0 ─► gathered ─► parcel ─► unsent ─► queue 0
//!            rows of consumer 1 ─► …                              queue 1
//! ```
//!
//! Rows are gathered until a frame is full, or until the stream goes quiet, or until something that must not overtake
//! them has to be sent (a barrier, idleness, the end). A watermark waits for the rows before it and may wait for rows
//! behind it: a watermark that comes later than it could is never wrong.
//!
//! Invariant: while [`try_flush`](EdgeWriter::try_flush) says false the chain gives the writer nothing more, so what is
//! unsent is bounded by what one event makes.

use std::collections::VecDeque;

use mill_frame::hash::{key_group, task_of_group};
use mill_protocol::{Batch, Epoch, Result, Watermark};

use crate::channel::Sender;
use crate::envelope::{Envelope, Event};
use crate::graph::EdgeKind;
use crate::wire::{self, Parcel};

/// The writing end of an edge, of one task.
pub(crate) struct EdgeWriter {
    kind: EdgeKind,
    outs: Vec<Out>,
    /// Whose turn it is, when all take turns.
    turn: usize,
    frame_rows: usize,
    hashes: Vec<u64>,
    /// Some rows or a watermark have been gathered and not sent.
    is_holding: bool,
    /// How many envelopes are unsent over all consumers.
    unsent: usize,
}

struct Out {
    sender: Sender,
    gathered: Vec<Batch>,
    rows: usize,
    watermark: Option<Watermark>,
    unsent: VecDeque<Envelope>,
}

impl EdgeWriter {
    /// A writer over the queues to the consumers, in the order of their index.
    pub(crate) fn new(kind: EdgeKind, senders: Vec<Sender>, turn: usize, frame_rows: usize) -> EdgeWriter {
        let out = |sender| Out { sender, gathered: Vec::new(), rows: 0, watermark: None, unsent: VecDeque::new() };
        let outs: Vec<Out> = senders.into_iter().map(out).collect();
        assert!(!outs.is_empty(), "an edge needs a consumer");
        let turn = turn % outs.len();
        EdgeWriter { kind, outs, turn, frame_rows, hashes: Vec::new(), is_holding: false, unsent: 0 }
    }

    /// Takes an event; records may be held until the frame is full or [`quiet`](EdgeWriter::quiet) is called.
    pub(crate) fn push(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Batch(batch) => self.push_batch(batch)?,
            Event::Watermark(at) => {
                self.is_holding = true;
                for out in &mut self.outs {
                    out.watermark = Some(at);
                }
            }
            Event::Idle => self.broadcast(|| Envelope::Idle)?,
            Event::Splits(_) => {}
            Event::Barrier(Epoch(epoch)) => self.broadcast(|| Envelope::Barrier(Epoch(epoch)))?,
            Event::End => self.broadcast(|| Envelope::End)?,
        }
        Ok(())
    }

    /// Sends what was gathered: nothing more is to be expected for now.
    pub(crate) fn quiet(&mut self) -> Result<()> {
        if !self.is_holding {
            return Ok(());
        }
        self.is_holding = false;
        for out in &mut self.outs {
            self.unsent += out.close()?;
        }
        Ok(())
    }

    /// Sends what has room; gives whether nothing is left unsent.
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

    /// How many envelopes wait in the queues, at most of any.
    pub(crate) fn fill(&self) -> usize {
        self.outs.iter().map(|out| out.sender.len()).max().unwrap_or(0)
    }

    fn push_batch(&mut self, batch: Batch) -> Result<()> {
        if self.outs.len() == 1 {
            return self.gather(0, batch);
        }
        match &self.kind {
            EdgeKind::Gather | EdgeKind::Forward => self.gather(0, batch),
            EdgeKind::Rebalance => {
                let turn = self.turn;
                self.turn = (turn + 1) % self.outs.len();
                self.gather(turn, batch)
            }
            EdgeKind::Hash(columns) => {
                wire::hash_rows(&batch, columns, &mut self.hashes)?;
                let consumers = self.outs.len();
                let parts = wire::partition(&batch, consumers, |row| {
                    task_of_group(key_group(self.hashes[row]), consumers)
                })?;
                for (consumer, part) in parts.into_iter().enumerate() {
                    if let Some(part) = part {
                        self.gather(consumer, part)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn gather(&mut self, consumer: usize, batch: Batch) -> Result<()> {
        let out = &mut self.outs[consumer];
        out.rows += batch.rows();
        out.gathered.push(batch);
        self.is_holding = true;
        if out.rows >= self.frame_rows {
            self.unsent += out.close()?;
        }
        Ok(())
    }

    fn broadcast(&mut self, make: impl Fn() -> Envelope) -> Result<()> {
        self.quiet()?;
        for out in &mut self.outs {
            out.unsent.push_back(make());
            self.unsent += 1;
        }
        Ok(())
    }
}

impl Out {
    /// Turns what was gathered into envelopes; gives how many.
    fn close(&mut self) -> Result<usize> {
        let before = self.unsent.len();
        if self.sender.is_closed() {
            self.gathered.clear();
            self.watermark = None;
        }
        let gathered = std::mem::take(&mut self.gathered);
        self.rows = 0;
        for parcel in Parcel::pack(gathered)? {
            self.unsent.push_back(Envelope::Frame(parcel));
        }
        if let Some(at) = self.watermark.take() {
            self.unsent.push_back(Envelope::Watermark(at));
        }
        Ok(self.unsent.len() - before)
    }
}
