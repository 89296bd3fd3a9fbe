//! The events of an online auction, after the rules of the Nexmark benchmark: persons who sign up, auctions that they open,
//! and bids.
//!
//! ```text
//!   event      0   1 2 3   4 … 49   50   51 52 53   54 … 99    …        an epoch: 50 events, 1 : 3 : 46
//!              P   A A A   B … B    P    A  A  A    B  … B
//!
//!   split k    blocks k, k + splits, k + 2 · splits, …  of 20 epochs each; a split of one kind has its events of that kind
//! ```
//!
//! An event is a function of the seed and its number alone: every value is drawn by hashing the seed, the column and the
//! number. So any split can be read from any position, a source of bids makes no persons, and a column that nobody needs is
//! not made. What a bid or an auction refers to is computed from its number as well: half of all bids are on one hot auction
//! of the last hundred, three quarters are by one hot bidder, three quarters of the auctions are of one hot seller; the
//! others are spread evenly over what is active, and a little beyond it, so that some are on auctions that open only later.
//!
//! Event `n` happens `n` intervals after the start. A tenth of all events arrive late: their time is up to `delay_ms_max`
//! before that. So within a split no record is older than the greatest time before it by more than that bound. All splits
//! cover the same time side by side, so they are read in turn.

mod columns;
mod numbers;
mod reader;
mod texts;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use mill_protocol::{Clock, Error, Result, Source, SourceProperties, Split, SplitReader, SteadyClock, SystemClock};

use self::columns::{Column, Rules};
use self::reader::{Lane, NexmarkReader, Pace};

/// More events than this have no exact time.
const EVENTS_MAX: u64 = 1 << 53;
/// How many splits there are at most.
const SPLITS_MAX: u64 = 1024;
/// The longest that an event may be late: some 49 days. A draw has 32 bits.
const DELAY_MS_MAX: u64 = u32::MAX as u64;

/// What kind of events a source makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NexmarkKind {
    /// Persons who sign up.
    Persons,
    /// Auctions that they open.
    Auctions,
    /// Bids on auctions.
    Bids,
}

impl NexmarkKind {
    /// The word for it, as users write it.
    fn word(self) -> &'static str {
        match self {
            NexmarkKind::Persons => "persons",
            NexmarkKind::Auctions => "auctions",
            NexmarkKind::Bids => "bids",
        }
    }
}

/// Which events there are, and how fast they come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NexmarkOptions {
    /// How many events of all kinds, or without end.
    pub events: Option<u64>,
    /// How many events of all kinds a second come at most; without it they come as fast as they are taken.
    pub rate: Option<f64>,
    /// How many events of all kinds there are in a second of event time.
    pub event_rate: f64,
    /// What the random values depend on.
    pub seed: u64,
    /// How many splits.
    pub splits: u64,
    /// How late an event is at most, in milliseconds.
    pub delay_ms_max: u64,
}

/// The events of one kind.
#[derive(Clone)]
pub struct NexmarkSource {
    kind: NexmarkKind,
    options: NexmarkOptions,
    columns: Vec<&'static Column>,
    clock: Arc<dyn Clock>,
}

impl NexmarkSource {
    /// The events of this kind.
    ///
    /// # Errors
    /// When a number is out of range.
    pub fn new(kind: NexmarkKind, options: NexmarkOptions) -> Result<NexmarkSource> {
        if let Some(events) = options.events
            && events > EVENTS_MAX
        {
            return Err(Error::plan(format!("nexmark(events={events}) is more than {EVENTS_MAX}, and later events have no exact time")));
        }
        for (name, rate) in [("rate", options.rate), ("event_rate", Some(options.event_rate))] {
            if let Some(rate) = rate
                && !(rate.is_finite() && rate > 0.0)
            {
                return Err(Error::plan(format!("nexmark({name}={rate}): a rate is events a second, above 0")));
            }
        }
        if options.splits == 0 || options.splits > SPLITS_MAX {
            return Err(Error::plan(format!("nexmark(splits={}): there are 1 to {SPLITS_MAX} splits", options.splits)));
        }
        if options.delay_ms_max > DELAY_MS_MAX {
            return Err(Error::plan("nexmark(out_of_order=…): an event is at most 49 days late"));
        }
        let columns = columns::of(kind).iter().collect();
        Ok(NexmarkSource { kind, options, columns, clock: Arc::new(SteadyClock::agreeing_with(&SystemClock)) })
    }

    /// The same source with this clock to keep its rate by.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> NexmarkSource {
        self.clock = clock;
        self
    }

    fn split_name(&self, index: u64) -> String {
        format!("{} {index} of {}", self.kind.word(), self.options.splits)
    }
}

impl fmt::Debug for NexmarkSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Source for NexmarkSource {
    fn name(&self) -> String {
        let NexmarkOptions { events, rate, event_rate, seed, splits, delay_ms_max } = &self.options;
        let events = events.map(|events| format!("events={events}, ")).unwrap_or_default();
        let rate = rate.map(|rate| format!("rate={rate}, ")).unwrap_or_default();
        format!(
            "nexmark.{}({events}{rate}event_rate={event_rate}, seed={seed}, splits={splits}, out_of_order={delay_ms_max}ms)",
            self.kind.word()
        )
    }

    fn identity(&self) -> Option<String> {
        Some(self.name())
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(|column| column.field()).collect::<Vec<_>>()))
    }

    fn properties(&self) -> SourceProperties {
        SourceProperties {
            is_bounded: self.options.events.is_some(),
            is_replayable: true,
            discovers_splits: false,
            may_block: false,
        }
    }

    fn splits(&self, _is_ordered: bool) -> Result<Vec<Split>> {
        Ok((0..self.options.splits).map(|index| Split::new(self.split_name(index))).collect())
    }

    fn is_read_in_turn(&self) -> bool {
        true
    }

    fn open(&self, split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        let splits = self.options.splits;
        let index = (0..splits).find(|&index| self.split_name(index) == split.name);
        let index = index.ok_or_else(|| Error::connector(format!("{} has no split {:?}", self.name(), split.name)))?;
        let passed = match position {
            None => 0,
            Some(bytes) => u64::from_le_bytes(bytes.try_into().map_err(|_| {
                Error::checkpoint(format!("the position in {:?} is not readable", split.name))
            })?),
        };
        let lane = Lane { index, lanes: splits };
        let pace = self.options.rate.map(|rate| Pace {
            rate,
            clock: Arc::clone(&self.clock),
            started: self.clock.now(),
            base: lane.number(passed),
        });
        Ok(Box::new(NexmarkReader {
            lane,
            passed,
            events: self.options.events.unwrap_or(EVENTS_MAX),
            offsets: columns::offsets(self.kind),
            rules: Rules::new(&self.options),
            columns: self.columns.clone(),
            schema: self.schema(),
            pace,
        }))
    }

    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        let columns = columns.iter().map(|&index| self.columns[index]).collect();
        Some(Arc::new(NexmarkSource { columns, ..self.clone() }))
    }

    fn rows_hint(&self) -> Option<u64> {
        let events = self.options.events?;
        let (epochs, rest) = (events / columns::EPOCH_EVENTS, events % columns::EPOCH_EVENTS);
        let of_kind = columns::offsets(self.kind);
        Some(epochs * (of_kind.end - of_kind.start) + rest.clamp(of_kind.start, of_kind.end) - of_kind.start)
    }
}

#[cfg(test)]
mod tests;
