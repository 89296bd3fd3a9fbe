//! Keys and accumulators together: what the aggregating operators share.

mod once;
mod read;
mod tally;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use mill_frame::block::RestoredBlock;
use mill_frame::hash::hash_columns;
use mill_frame::text::record_json;
use mill_plan::{AggregateKind, AggregateSpec};
use mill_protocol::{Batch, Error, Outbox, Rejected, Restored, Result, Snapshot};
use mill_state::{
    Flag, GridTable, Taken, HASH_OF_NOTHING, KeyBatch, KeyDecoder, KeyEncoder, KeyRange, LOOKUP_ROWS_MAX, PaneTables, RowLayout, Rows, Select, Span,
    TableOptions,
};

pub(crate) use self::read::UnfitRow;
pub(crate) use self::tally::{Results, Tally};
use self::once::Once;
use self::tally::TALLY_WORDS;
use super::input::state_error;
use super::carries::{Carries, Wraps};
use super::coded::CodedKeys;
use super::near::NearTables;
use super::{Accumulator, Problems, Selection, accumulator, with_selection};

/// How many records go through the table at a time: their rows stay in the nearest cache from kernel to kernel.
const LOOKUP_ROWS: usize = 256;

/// Rows of keys and accumulators, a table a pane.
pub(crate) struct Groups {
    pub(super) keys: Vec<usize>,
    /// Whether what comes in are partial results.
    is_partial: bool,
    encoder: KeyEncoder,
    decoder: KeyDecoder,
    accumulators: Vec<Box<dyn Accumulator>>,
    pub(super) panes: PaneTables,
    /// Where records go whose keys are numbers near each other, or have such numbers; only before the exchange.
    near: Option<NearTables>,
    /// The numbers of keys that are none themselves.
    coded: Option<CodedKeys>,
    /// Where records go that come and go at once; see [`Groups::update_once`].
    once: Option<Once>,
    /// The keys of the prepared frame, if they are not hashed yet.
    unhashed: Option<(Vec<ArrayRef>, KeyRange)>,
    /// Set in a row from its change until it is emitted, if that may be after a checkpoint.
    pending: Option<Flag>,
    /// The first word of the tally of a row, where rows have one.
    tally: Option<usize>,
    lookup_rows: usize,
    problems: Problems,
    /// If fewer columns than all say to which key group a key belongs: these, and the hashes of them.
    owners: Option<(usize, Vec<u64>)>,
    /// Records that are the first of their key, if that is asked.
    firsts: Vec<u32>,
    /// How often sums wrapped around, where rows are kept.
    carries: Option<Carries>,
    /// Values that would make a sum wrap around, before the exchange: accumulator, pane and record.
    spilled: Vec<(usize, i64, usize)>,
    /// The keys of results that do not fit, and why.
    unfit: Vec<UnfitRow>,
    /// What they are made of.
    pub(super) recipe: Recipe,
}

/// What groups are made of, and where each aggregate has its values in a row.
pub(super) struct Recipe {
    pub(super) key_types: Vec<DataType>,
    pub(super) aggregates: Vec<AggregateSpec>,
    pub(super) options: GroupOptions,
    /// What each aggregate has taken of a row, and at last what is of none of them.
    pub(super) taken: Vec<Vec<Taken>>,
}

/// What the step asks of its groups.
#[derive(Clone)]
pub(crate) struct GroupOptions {
    pub(crate) table: TableOptions,
    pub(crate) is_partial: bool,
    /// Whether changes may be emitted later than the checkpoint that holds them.
    pub(crate) keeps_pending: bool,
    /// Whether records are only combined, before the exchange.
    pub(crate) is_ahead: bool,
    /// Whether the order of records is that of their event time, and not that in which they come.
    pub(crate) is_timed: bool,
    /// How many key columns, from the first on, say to which key group a key belongs; all of them if not set. Then it is also
    /// noted which records are the first of their key.
    pub(crate) owner_columns: Option<usize>,
    /// Whether rows know of how many records they are and what has been emitted of them; see [`Tally`].
    pub(crate) has_tally: bool,
    /// Where in partial results the counts of sums that wrapped around begin; see [`Groups::carry_fields`].
    pub(crate) carries_at: Option<usize>,
}

impl Groups {
    pub(crate) fn new(
        keys: &[usize],
        key_types: &[DataType],
        aggregates: &[AggregateSpec],
        options: &GroupOptions,
    ) -> Result<Groups> {
        let encoder = KeyEncoder::new(key_types).map_err(state_error)?;
        let decoder = KeyDecoder::new(key_types).map_err(state_error)?;
        let mut layout = RowLayout::builder(encoder.kind().clone());
        // The states of the step beside its rows, which are state 0.
        let mut states = 0;
        let mut accumulators = Vec::with_capacity(aggregates.len());
        let mut taken = Vec::with_capacity(aggregates.len() + 1);
        for spec in aggregates {
            let before = layout.taken().len();
            accumulators.push(accumulator(
                spec,
                keys,
                key_types,
                &mut states,
                &mut layout,
                options,
            )?);
            taken.push(layout.taken()[before..].to_vec());
        }
        let before = layout.taken().len();
        let pending = options.keeps_pending.then(|| layout.flag());
        let tally = options.has_tally.then(|| layout.words(TALLY_WORDS));
        taken.push(layout.taken()[before..].to_vec());
        let described = |spec: &AggregateSpec| described(spec, options.is_timed);
        let mut signature: Vec<String> = aggregates.iter().map(described).collect();
        signature.extend(tally.map(|_| "records, records of the last result, results".to_owned()));
        let layout = Arc::new(layout.finish(&signature.join("; ")).map_err(state_error)?);
        let carries = match options.is_ahead {
            true => None,
            false => {
                let owners = options.owner_columns;
                Carries::new(&mut accumulators, key_types, &options.table, options.carries_at, owners)?
            }
        };
        let coded = if options.is_ahead { CodedKeys::new(key_types)? } else { None };
        let is_costly = accumulators.iter().any(|accumulator| accumulator.is_costly());
        Ok(Groups {
            keys: keys.to_vec(),
            is_partial: options.is_partial,
            encoder,
            decoder,
            accumulators,
            near: if options.is_ahead { NearTables::new(&layout, coded.is_some()) } else { None },
            coded,
            once: None,
            unhashed: None,
            panes: PaneTables::new(layout, options.table.clone()),
            pending,
            tally,
            lookup_rows: if is_costly { LOOKUP_ROWS_MAX } else { LOOKUP_ROWS },
            problems: Problems::new(),
            owners: options.owner_columns.map(|columns| (columns, Vec::new())),
            firsts: Vec::new(),
            carries,
            spilled: Vec::new(),
            unfit: Vec::new(),
            recipe: Recipe { key_types: key_types.to_vec(), aggregates: aggregates.to_vec(), options: options.clone(), taken },
        })
    }

    /// Lets records come and go at once where that costs less than rows that are kept. No aggregate keeps anything beside its rows.
    pub(crate) fn allow_once(&mut self) {
        self.once = GridTable::new(self.panes.layout()).map(Once::new);
    }

    /// The key columns of a frame; the last one is this, if it is none of the frame's.
    fn key_columns(&self, batch: &RecordBatch, last: Option<ArrayRef>) -> Vec<ArrayRef> {
        let of_frame = &self.keys[..self.keys.len() - usize::from(last.is_some())];
        let columns = of_frame.iter().map(|&key| Arc::clone(batch.column(key)));
        columns.chain(last).collect()
    }

    /// Whether an aggregate asks for event times.
    pub(crate) fn asks_for_times(&self) -> bool {
        self.accumulators.iter().any(|accumulator| accumulator.asks_for_times())
    }

    /// The event times of the frame that is taken up next, of groups that are timed.
    pub(crate) fn times(&mut self, times: Option<&[i64]>) {
        if let Some(times) = times {
            self.accumulators.iter_mut().for_each(|accumulator| accumulator.times(times));
        }
    }

    /// Takes up a frame; updates then speak of its records by their place.
    pub(crate) fn prepare(&mut self, batch: &RecordBatch) -> Result<()> {
        self.prepare_keys(batch, None, None)
    }

    /// The same; the last key column is this one, if it is none of the frame's. `hashes` are those of the columns that say to
    /// which key group a key belongs, if they are known.
    pub(crate) fn prepare_keys(&mut self, batch: &RecordBatch, last: Option<ArrayRef>, hashes: Option<&[u64]>) -> Result<()> {
        let columns = self.key_columns(batch, last);
        self.unhashed = None;
        if let Some(near) = &mut self.near {
            let range = match &mut self.coded {
                Some(coded) => coded.encode(&columns, batch.num_rows(), near)?,
                None => self.encoder.encode_numbers(&columns, batch.num_rows(), near.keys_max()).map_err(state_error)?,
            };
            if let Some(range) = range {
                self.unhashed = Some((columns, range));
                return self.prepare_values(batch);
            }
        }
        let keys = self.encoder.encode(&columns, batch.num_rows()).map_err(state_error)?;
        self.firsts.clear();
        match (&mut self.owners, hashes) {
            (Some(_), Some(hashes)) => keys.adopt_groups(hashes),
            (Some((owners, room)), None) => own(keys, &columns[..*owners], room)?,
            (None, _) => {}
        }
        for accumulator in &mut self.accumulators {
            accumulator.prepare(batch, keys.hashes())?;
        }
        if let Some(carries) = &mut self.carries {
            carries.prepare(batch);
        }
        Ok(())
    }

    /// Takes up the values of a frame and not its keys: enough for [`singles`](Groups::singles).
    pub(crate) fn prepare_values(&mut self, batch: &RecordBatch) -> Result<()> {
        self.accumulators.iter_mut().try_for_each(|accumulator| accumulator.prepare(batch, &[]))
    }

    /// Takes consecutive records of the frame into a pane.
    pub(crate) fn update_span(&mut self, pane: i64, span: Span) -> Result<()> {
        let place = self.open(pane)?;
        let mut start = span.start;
        while start < span.start + span.len {
            let len = (span.start + span.len - start).min(self.lookup_rows);
            self.update(pane, place, Selection::Span(Span { start, len }))?;
            start += len;
        }
        Ok(())
    }

    /// Opens a pane, if it is not open, for about so many rows.
    pub(crate) fn expect(&mut self, pane: i64, rows: usize) {
        self.panes.open_for(pane, rows);
    }

    /// Takes these records of the frame into a pane.
    pub(crate) fn update_picked(&mut self, pane: i64, records: &[u32]) -> Result<()> {
        let place = self.open(pane)?;
        for records in records.chunks(self.lookup_rows) {
            self.update(pane, place, Selection::Picked(records))?;
        }
        Ok(())
    }

    /// Gets ready for updates of a pane; returns which of the tables of dense keys they go to, if any.
    fn open(&mut self, pane: i64) -> Result<Option<usize>> {
        for accumulator in &mut self.accumulators {
            accumulator.open(pane);
        }
        let (Some(near), Some((columns, range))) = (&mut self.near, &self.unhashed) else { return Ok(None) };
        let records = columns[0].len();
        let place = near.place(pane, *range, records);
        if place.is_none() {
            if let Some(coded) = self.coded.as_mut().filter(|_| !near.is_crowded()) {
                coded.pause(records);
            }
            self.encoder.encode(columns, records).map_err(state_error)?;
            self.unhashed = None;
        }
        Ok(place)
    }

    fn update(&mut self, pane: i64, place: Option<usize>, select: Selection<'_>) -> Result<()> {
        let keys = self.encoder.batch();
        let mut rows = match (place, &mut self.near) {
            (Some(place), Some(near)) => {
                let numbers = self.coded.as_ref().map_or(keys.words(), CodedKeys::numbers);
                with_selection!(select, s => near.table(place).find_or_insert(numbers, s))
            }
            _ => with_selection!(select, s => self.panes.open(pane).find_or_insert(keys, s)),
        };
        if let Some(pending) = self.pending {
            rows.set_flag(pending);
        }
        if self.owners.is_some() {
            self.firsts.extend(rows.inserted().iter().map(|&new| select.at(new as usize) as u32));
        }
        rows.fetch_cells();
        let taking = Taking {
            accumulators: &mut self.accumulators,
            problems: &mut self.problems,
            carries: &mut self.carries,
            spilled: &mut self.spilled,
        };
        taking.take(pane, keys, &mut rows, select)
    }

    /// The records that were the first of their keys since the frame was taken up.
    pub(crate) fn take_firsts(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.firsts)
    }

    /// Appends the key of a record of the frame as bytes.
    pub(crate) fn write_key(&self, record: u32, out: &mut Vec<u8>) {
        self.encoder.batch().write_key(self.encoder.kind(), record as usize, out);
    }

    /// Encodes these keys.
    fn encode(&mut self, columns: &[ArrayRef], rows: usize) -> Result<()> {
        let keys = self.encoder.encode(columns, rows).map_err(state_error)?;
        match &mut self.owners {
            Some((owners, hashes)) => own(keys, &columns[..*owners], hashes),
            None => Ok(()),
        }
    }

    /// Merges partial results into a pane: keys, then the columns that [`partials`](Groups::partials) returns.
    pub(crate) fn absorb(&mut self, pane: i64, batch: &RecordBatch, out: &mut Outbox) -> Result<()> {
        self.prepare(batch)?;
        self.update_span(pane, Span { start: 0, len: batch.num_rows() })?;
        self.reject_problems(batch, out);
        Ok(())
    }

    /// Adds to a pane without rows the row of the one key that a step without key columns has.
    pub(crate) fn fill(&mut self, pane: i64) -> Result<()> {
        if self.keys.is_empty() && self.panes.open(pane).is_empty() {
            let keys = self.encoder.encode(&[], 1).map_err(state_error)?;
            let mut rows = self.panes.open(pane).find_or_insert(keys, Span { start: 0, len: 1 });
            if let Some(pending) = self.pending {
                rows.set_flag(pending);
            }
        }
        Ok(())
    }

    /// Makes the rows of these keys in a pane as new.
    pub(crate) fn clear(&mut self, pane: i64, keys: &[ArrayRef], rows: usize) -> Result<()> {
        if let Some(carries) = &mut self.carries {
            carries.remove(pane, keys, |_| true, rows)?;
        }
        self.encode(keys, rows)?;
        let table = self.panes.open(pane);
        let layout = Arc::clone(table.layout());
        for start in (0..rows).step_by(LOOKUP_ROWS) {
            table.find_or_insert(self.encoder.batch(), Span { start, len: LOOKUP_ROWS.min(rows - start) }).clear(&layout);
        }
        Ok(())
    }

    /// Removes the rows of those keys from a pane for which this holds.
    pub(crate) fn remove(&mut self, pane: i64, keys: &[ArrayRef], is_gone: &[bool]) -> Result<()> {
        if !is_gone.contains(&true) {
            return Ok(());
        }
        if let Some(carries) = &mut self.carries {
            carries.remove(pane, keys, |record| is_gone[record], is_gone.len())?;
        }
        self.encode(keys, is_gone.len())?;
        let table = self.panes.open(pane);
        for record in (0..is_gone.len()).filter(|&record| is_gone[record]) {
            table.remove(self.encoder.batch(), record);
        }
        Ok(())
    }

    /// Hands over the records that could not be taken in; of partial results, which mean nothing to anyone, their keys.
    pub(crate) fn reject_problems(&mut self, batch: &RecordBatch, out: &mut Outbox) {
        if self.problems.is_empty() {
            return;
        }
        let keys: Vec<usize> = self.keys.iter().copied().filter(|&key| key < batch.num_columns()).collect();
        match batch.project(&keys) {
            Ok(keys) if self.is_partial => reject(&mut self.problems, &keys, out),
            _ => reject(&mut self.problems, batch, out),
        }
    }

    /// Values that would have made a sum wrap around, and have to travel by themselves: accumulator, pane and record of the
    /// prepared frame.
    pub(crate) fn take_spilled(&mut self) -> Vec<(usize, i64, usize)> {
        std::mem::take(&mut self.spilled)
    }

    pub(crate) fn panes(&self) -> &PaneTables {
        &self.panes
    }

    /// Whether records of the frame were hashed.
    pub(crate) fn is_hashed(&self) -> bool {
        self.unhashed.is_none()
    }

    /// If rows of dense keys had better go out, so that others have room: how many records they are of, and how many they are.
    pub(crate) fn crowd(&self) -> Option<(usize, usize)> {
        self.near.as_ref().and_then(NearTables::crowd)
    }

    /// How many rows there are, hashed or not.
    pub(crate) fn rows(&self) -> usize {
        self.panes.rows() + self.near.as_ref().map_or(0, NearTables::rows)
    }

    /// The earliest pane that has rows.
    pub(crate) fn first_filled(&self) -> Option<i64> {
        earlier(self.panes.first_filled(), self.near.as_ref().and_then(NearTables::first_pane))
    }

    /// The earliest pane that is open.
    pub(crate) fn first_pane(&self) -> Option<i64> {
        earlier(self.panes.first(), self.near.as_ref().and_then(NearTables::first_pane))
    }

    /// Forgets a pane.
    pub(crate) fn close(&mut self, pane: i64) {
        self.panes.close(pane);
        if let Some(carries) = &mut self.carries {
            carries.close(pane);
        }
        for accumulator in &mut self.accumulators {
            accumulator.close(pane);
        }
    }

    /// Empties a pane but keeps its memory.
    pub(crate) fn reset(&mut self, pane: i64) {
        self.panes.reset(pane);
        if let Some(carries) = &mut self.carries {
            carries.close(pane);
        }
    }

    pub(crate) fn snapshot(&mut self, snapshot: &mut Snapshot) {
        self.panes.snapshot(snapshot.is_full, &mut snapshot.blocks);
        for accumulator in &mut self.accumulators {
            accumulator.snapshot(snapshot.is_full, &mut snapshot.blocks);
        }
        if let Some(carries) = &mut self.carries {
            carries.snapshot(snapshot.is_full, &mut snapshot.blocks);
        }
    }

    /// Takes up the rows of a checkpoint, which are of `former` aggregates if that is known. Aggregates that are not among them
    /// start empty.
    pub(crate) fn restore(&mut self, restored: &Restored, former: Option<&[AggregateSpec]>) -> Result<()> {
        match former {
            Some(former) if !self.is_of(former) => self.evolve(restored, former),
            _ => self.restore_alike(restored),
        }
    }

    pub(super) fn restore_alike(&mut self, restored: &Restored) -> Result<()> {
        let blocks: &[RestoredBlock] = &restored.blocks;
        self.panes.restore(blocks).map_err(state_error)?;
        for accumulator in &mut self.accumulators {
            accumulator.restore(blocks)?;
        }
        if let Some(carries) = &mut self.carries {
            carries.restore(blocks)?;
        }
        if self.pending.is_some() {
            let starts: Vec<i64> = self.panes.starts().collect();
            for start in starts {
                self.panes.open(start).mark_changed();
            }
        }
        Ok(())
    }
}

/// What the values of an aggregate in a row mean, in words.
pub(super) fn described(spec: &AggregateSpec, is_timed: bool) -> String {
    // Rows of variances from before they kept squared distances from the mean must not be taken for such rows.
    let form = match &spec.kind {
        AggregateKind::Var | AggregateKind::Std => " about the mean",
        kind if (is_timed || spec.by_time) && kind.is_ordered() => " by event time",
        _ => "",
    };
    // Where the filter is applied (here, or before the exchange) does not change what a row means.
    format!("{} {}{form}", AggregateSpec { filter: None, ..spec.clone() }, spec.output_type)
}

/// What takes records into rows that have been found.
struct Taking<'g> {
    accumulators: &'g mut [Box<dyn Accumulator>],
    problems: &'g mut Problems,
    carries: &'g mut Option<Carries>,
    spilled: &'g mut Vec<(usize, i64, usize)>,
}

impl Taking<'_> {
    /// Takes these records with these keys into their rows.
    fn take(self, pane: i64, keys: &KeyBatch, rows: &mut Rows<'_>, select: Selection<'_>) -> Result<()> {
        for (index, accumulator) in self.accumulators.iter_mut().enumerate() {
            accumulator.update(rows, select, self.problems)?;
            let wraps = accumulator.wraps().map(Wraps::take).unwrap_or_default();
            match self.carries {
                _ if wraps.is_empty() => {}
                Some(carries) => carries.add(pane, keys, index, &wraps),
                None => self.spilled.extend(wraps.iter().map(|&(record, _)| (index, pane, record))),
            }
        }
        if let Some(carries) = self.carries {
            with_selection!(select, s => carries.merge(pane, keys, s));
        }
        Ok(())
    }
}

/// Puts keys into the key groups of the keys that these columns are.
pub(super) fn own(keys: &mut KeyBatch, columns: &[ArrayRef], hashes: &mut Vec<u64>) -> Result<()> {
    if columns.is_empty() {
        // The one key that a step without key columns has.
        hashes.clear();
        hashes.resize(keys.len(), HASH_OF_NOTHING);
    } else {
        hash_columns(columns, hashes).map_err(|error| Error::internal(error.to_string()))?;
    }
    keys.adopt_groups(hashes);
    Ok(())
}

fn earlier(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    [a, b].into_iter().flatten().min()
}

/// Hands over records that could not be taken in, in their order.
pub(crate) fn reject(problems: &mut Problems, batch: &RecordBatch, out: &mut Outbox) {
    problems.sort_by_key(|(record, _)| *record);
    for (record, error) in problems.drain(..) {
        out.reject(Rejected::of(error, record_json(batch, record)));
    }
}

/// Columns as records of this schema.
pub(crate) fn records(schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<Batch> {
    let rows = columns.first().map_or(0, |column| column.len());
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    let data = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| Error::internal(format!("results do not fit their columns: {error}")))?;
    Ok(data.into())
}
