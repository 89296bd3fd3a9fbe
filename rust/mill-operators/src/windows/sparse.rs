//! Windows with few records each, many of them in one table.
//!
//! ```text
//!   windows       …│ · · · · · · · · │ · · · · · · · · │ · · · · · · · · │…
//!   generations    │ (key, window) ─► row: a table     │                 │
//!                             ▲ complete up to here
//!                  └ read from end to end, then dropped as a whole
//!                                    └ read through for the windows that have become complete; its rows stay until it is dropped
//! ```
//!
//! A table of its own is right for a window that gets many records. Where the records of a frame are scattered over many
//! windows, most windows have few rows, and what a table costs would be paid for each of them. Then windows next to each other
//! share one, and the window is a part of the key. Such a generation has so many windows that its table has some thousands of
//! rows: as many as are read through in some microseconds. So nothing says which rows are those of a window, and none is ever
//! looked up to be removed.
//!
//! Records are held, sorted by window, until there are as many as a table is to have rows, or some of its windows are complete, or
//! a checkpoint comes. Only then they go into the table, all at once. So the table of a generation is in the nearest caches while it
//! is filled and read, and mostly is no more soon after; with thousands of windows open, each record would else wait for memory.
//! Where only some windows are complete and nothing is in the table yet, the generation is split: no table is read through in vain.
//! Memory of records that are held is given back a part of a frame at a time, mostly as its windows become complete. Where more
//! records are gone than held, those of the oldest part go into their tables.
//!
//! Generations do not overlap, and a window is in one of the two forms from its first record on. A table is known by the first
//! window that its generation was begun for; a restart finds from the rows which windows these are. Instances need not agree on
//! where generations begin, so where a task takes up the key groups of several, it moves rows until they do.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Int64Array, PrimitiveArray, RecordBatch, RecordBatchOptions, UInt32Array, downcast_primitive,
};
use arrow::compute::{concat, take_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use mill_plan::AggregateSpec;
use mill_protocol::{Batch, Error, Outbox, Restored, Result, Snapshot};
use mill_state::{Cursor, Span};

use super::period::Period;
use crate::accumulator::Groups;

/// How many rows the table of a generation is to have.
const ROWS: usize = 4096;
/// How many windows a generation has at most while it is not known how many rows a window has: a part of those that the records
/// of a frame are in, but so many at least.
const PART_UNKNOWN: u64 = 256;
const WINDOWS_UNKNOWN: u64 = 16;
/// How many windows a generation ever has at most.
const WINDOWS_MAX: u64 = 1 << 20;
/// Up to so many windows a record between the first and the last one, the generation of each is noted in an array.
const WINDOWS_PER_RECORD: u64 = 4;

/// How many records a generation holds until they go into its table: more if that is larger, though never more than this.
const HELD: usize = 3 * ROWS;
const HELD_MAX: usize = 16 * ROWS;
/// How many records that are gone may be kept, beside as many as are held.
const GONE: usize = 16 * ROWS;
/// About how many records are in memory that is given back as a whole.
const PART: usize = ROWS;

/// Windows in tables that they share, by their ids.
pub(crate) struct Sparse {
    /// The last key column is the id of the window. A pane is a generation, by its name.
    pub(crate) groups: Groups,
    /// How far apart the ids of windows are.
    slide: i64,
    /// By the id of their first window.
    generations: BTreeMap<i64, Generation>,
    /// How many rows a window had in the generation that was dropped last, in 256ths.
    rows_per_window: Option<u64>,
    /// How many rows came of a record there, in 256ths.
    rows_per_record: Option<u64>,
    /// Parts of frames, the oldest first, and the number of that; none where no record is held any more.
    frames: VecDeque<Option<Frame>>,
    first_frame: u64,
    /// How many records frames have in all, and how many of them are held.
    in_frames: usize,
    held: usize,
    /// Whether there are generations with the names of a checkpoint.
    is_restored: bool,
    /// Whether the aggregates ask for event times.
    is_timed: bool,
    room: Room,
}

/// A part of the records of a frame, sorted by window.
struct Frame {
    data: RecordBatch,
    /// Their event times, if the aggregates ask for them.
    times: Option<Vec<i64>>,
    ids: Ids,
    /// How many of them are held.
    held: usize,
}

/// Records that were held, of one generation.
struct Held {
    data: RecordBatch,
    /// Their windows, unless the first column has them.
    ids: Option<ArrayRef>,
    /// Their event times, if the aggregates ask for them.
    times: Option<Vec<i64>>,
}

/// Where the windows of records are.
enum Ids {
    /// The first column of the frame.
    Column,
    Beside(ArrayRef),
}

impl Frame {
    fn id_column(&self) -> &ArrayRef {
        match &self.ids {
            Ids::Beside(ids) => ids,
            Ids::Column => self.data.column(0),
        }
    }

    fn ids(&self) -> Result<&[i64]> {
        ids_of(self.id_column())
    }
}

/// The part of a frame that a piece is of.
fn frame_of<'f>(frames: &'f VecDeque<Option<Frame>>, first: u64, piece: &Piece) -> Result<&'f Frame> {
    let frame = frames.get((piece.frame - first) as usize).and_then(Option::as_ref);
    frame.ok_or_else(|| Error::internal("records that are held are in a frame"))
}

/// Some records next to each other in a frame.
#[derive(Clone, Copy, Debug)]
struct Piece {
    frame: u64,
    start: u32,
    end: u32,
}

/// The windows of one table.
#[derive(Debug)]
struct Generation {
    /// The id of its last window.
    last: i64,
    /// Which pane of the groups it is.
    name: i64,
    /// Windows up to this id have been taken.
    taken: i64,
    /// Where the table is read on.
    cursor: Cursor,
    /// The records that are not in the table yet.
    pieces: Vec<Piece>,
    held: usize,
    /// How many records have gone into the table.
    records: usize,
    /// Whether they came at once and go at once, and the table has none of them.
    is_once: bool,
}

impl Generation {
    fn new(last: i64, name: i64, taken: i64) -> Generation {
        Generation { last, name, taken, cursor: Cursor::default(), pieces: Vec::new(), held: 0, records: 0, is_once: false }
    }
}

/// Memory for sorting the records of a frame.
#[derive(Default)]
struct Room {
    /// By record: its window, counted from the first one of the frame.
    of_records: Vec<u32>,
    /// By window: how many of the sorted records come before its own.
    begins: Vec<u32>,
    sorted: Vec<u32>,
    /// The windows of the sorted records.
    sorted_ids: Vec<i64>,
}

/// The sorted records up to this one, from the one before on, belong to the generation that begins with this window.
struct Cut {
    first: i64,
    end: u32,
}

/// Rows of windows: their keys, the ids of their windows, their results.
pub(crate) type Taken = (Vec<ArrayRef>, Vec<i64>, Vec<ArrayRef>);

fn parted(mut keys: Vec<ArrayRef>, results: Vec<ArrayRef>) -> Result<Taken> {
    let ids = keys.pop().ok_or_else(|| Error::internal("rows of windows have their id"))?;
    Ok((keys, ids_of(&ids)?.to_vec(), results))
}

fn ids_of(ids: &ArrayRef) -> Result<&[i64]> {
    let ids = ids.as_primitive_opt::<Int64Type>().ok_or_else(|| Error::internal("ids of windows are numbers"))?;
    Ok(ids.values())
}

impl Sparse {
    /// No windows yet; their ids are `slide` apart.
    pub(crate) fn new(mut groups: Groups, slide: i64) -> Sparse {
        groups.allow_once();
        Sparse {
            is_timed: groups.asks_for_times(),
            groups,
            slide,
            generations: BTreeMap::new(),
            rows_per_window: None,
            rows_per_record: None,
            frames: VecDeque::new(),
            first_frame: 0,
            in_frames: 0,
            held: 0,
            is_restored: false,
            room: Room::default(),
        }
    }

    /// Whether the window belongs to one of the tables, be it that it has no row there yet.
    pub(crate) fn has(&self, window: i64) -> bool {
        self.generation(window).is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.generations.is_empty()
    }

    /// The generation of a window, by its first id.
    fn generation(&self, window: i64) -> Option<i64> {
        let (&first, generation) = self.generations.range(..=window).next_back()?;
        (window <= generation.last).then_some(first)
    }

    /// How many windows there are from `first` to `last`, less one.
    fn distance(&self, first: i64, last: i64) -> u64 {
        last.abs_diff(first) / self.slide as u64
    }

    /// Takes records of a batch; `ids` are the windows of all its records. `has_ids` says whether a column of the batch is these.
    pub(crate) fn update(
        &mut self,
        batch: &Batch,
        records: Option<&[u32]>,
        ids: &[i64],
        has_ids: bool,
        out: &mut Outbox,
    ) -> Result<()> {
        let all: Vec<u32>;
        let records = match records {
            Some(records) => records,
            None => {
                all = (0..ids.len() as u32).collect();
                &all
            }
        };
        let windows = || records.iter().map(|&record| ids[record as usize]);
        let (Some(least), Some(greatest)) = (windows().min(), windows().max()) else { return Ok(()) };
        let mut room = std::mem::take(&mut self.room);
        let cuts = match self.distance(least, greatest) < records.len() as u64 * WINDOWS_PER_RECORD {
            true => self.sort_by_place(records, ids, least..=greatest, &mut room),
            false => self.sort_by_id(records, ids, least..=greatest, &mut room),
        };
        let sorted = UInt32Array::from(std::mem::take(&mut room.sorted));
        let sorted_ids = (!has_ids).then(|| Int64Array::from(std::mem::take(&mut room.sorted_ids)));
        self.room = room;
        let mut start = 0;
        let mut cuts = &cuts[..];
        while let Some(first) = cuts.first() {
            let enough = first.end.max(start + PART as u32);
            let (part, rest) = cuts.split_at(cuts.partition_point(|cut| cut.end <= enough));
            let end = part[part.len() - 1].end;
            let (from, count) = (start as usize, (end - start) as usize);
            let ids = match &sorted_ids {
                Some(ids) => Ids::Beside(Arc::new(ids.slice(from, count))),
                None => Ids::Column,
            };
            self.hold(batch, ids, &sorted.slice(from, count), part, start, out)?;
            (start, cuts) = (end, rest);
        }
        Ok(())
    }

    /// Holds these records of a batch, sorted by window, of which `cuts` says how they belong to generations: counted from `before`
    /// on. Puts those into tables that are enough.
    fn hold(
        &mut self,
        batch: &Batch,
        ids: Ids,
        records: &UInt32Array,
        cuts: &[Cut],
        before: u32,
        out: &mut Outbox,
    ) -> Result<()> {
        let places = records.values();
        let data = take_records(batch.data(), records)?;
        let times = batch.times().filter(|_| self.is_timed);
        let times = times.map(|times| places.iter().map(|&record| times[record as usize]).collect());
        // Dictionaries of many frames may have more values than their indices can tell apart.
        let is_holdable = !data.schema().fields().iter().any(|field| has_dictionary(field.data_type()));
        let frame = self.first_frame + self.frames.len() as u64;
        self.frames.push_back(Some(Frame { data, times, ids, held: places.len() }));
        (self.in_frames, self.held) = (self.in_frames + places.len(), self.held + places.len());
        let mut start = 0;
        for cut in cuts {
            let end = cut.end - before;
            let Some(generation) = self.generations.get_mut(&cut.first) else {
                return Err(Error::internal("a generation is open while records of it come"));
            };
            generation.pieces.push(Piece { frame, start, end });
            generation.held += (end - start) as usize;
            start = end;
            if !is_holdable {
                self.flush(cut.first, out)?;
            } else if generation.held >= HELD.max(2 * self.groups.panes().rows_of(generation.name)).min(HELD_MAX) {
                self.relieve(cut.first, out)?;
            }
        }
        while self.in_frames > self.held * 2 + GONE {
            let oldest = self.first_frame;
            let of_oldest = |it: &Generation| it.pieces.first().is_some_and(|piece| piece.frame == oldest);
            let firsts: Vec<i64> = self.generations.iter().filter(|(_, it)| of_oldest(it)).map(|(&first, _)| first).collect();
            firsts.into_iter().try_for_each(|first| self.flush(first, out))?;
        }
        Ok(())
    }

    /// Does something about a generation that has more records than are held: puts them into its table, or divides it if that would
    /// become too large.
    fn relieve(&mut self, first: i64, out: &mut Outbox) -> Result<()> {
        let Some(generation) = self.generations.get(&first) else { return Ok(()) };
        let rows = self.rows_per_record.unwrap_or(0).saturating_mul(generation.held as u64) >> 8;
        let windows = self.distance(first, generation.last);
        if windows > 0 && rows > ROWS as u64 * 3 / 2 && self.groups.panes().rows_of(generation.name) == 0 {
            return self.split(first, first.saturating_add((windows / 2) as i64 * self.slide));
        }
        self.flush(first, out)
    }

    /// Moves the windows of a generation after this one into a generation of their own, of which nothing is in a table yet.
    fn split(&mut self, first: i64, at: i64) -> Result<()> {
        let next = at.saturating_add(self.slide);
        let name = self.free_name(next);
        let Some(generation) = self.generations.get_mut(&first).filter(|it| it.last >= next) else { return Ok(()) };
        let mut after = Generation::new(generation.last, name, i64::MIN);
        generation.last = at;
        let pieces = std::mem::take(&mut generation.pieces);
        for piece in pieces {
            let ids = frame_of(&self.frames, self.first_frame, &piece)?.ids()?;
            let cut = piece.start + ids[piece.start as usize..piece.end as usize].partition_point(|&id| id <= at) as u32;
            if cut > piece.start {
                generation.pieces.push(Piece { end: cut, ..piece });
            }
            if cut < piece.end {
                after.held += (piece.end - cut) as usize;
                after.pieces.push(Piece { start: cut, ..piece });
            }
        }
        generation.held -= after.held;
        self.generations.insert(next, after);
        Ok(())
    }

    /// A name that no table has, of the generation that begins with this window.
    fn free_name(&self, first: i64) -> i64 {
        // The name of one that comes from a checkpoint may be any number.
        let is_free = |name: &i64| !self.is_restored || !self.generations.values().any(|it| it.name == *name);
        (first..).find(is_free).unwrap_or(first)
    }

    /// Puts the records of a generation that are held into its table.
    fn flush(&mut self, first: i64, out: &mut Outbox) -> Result<()> {
        self.take_up(first, false, out)
    }

    /// Takes up the records of a generation that are held. If all of its windows are complete and nothing is in its table, they go out
    /// at once, and no row of theirs is looked for again.
    fn take_up(&mut self, first: i64, at_once: bool, out: &mut Outbox) -> Result<()> {
        let Some(Held { data, ids, times }) = self.take_held(first)? else { return Ok(()) };
        let windows = |last: i64| last.abs_diff(first) / self.slide as u64 + 1;
        let Some(generation) = self.generations.get_mut(&first) else { return Ok(()) };
        let (name, count) = (generation.name, data.num_rows());
        self.groups.times(times.as_deref());
        generation.is_once = at_once && self.groups.update_once(name, &data, ids.clone(), self.slide as u64)?;
        if !generation.is_once {
            let known = |rows_per_window: u64| count.min((rows_per_window.saturating_mul(windows(generation.last)) >> 8) as usize);
            self.groups.prepare_keys(&data, ids, None)?;
            self.groups.expect(name, self.rows_per_window.map_or(count, known));
            self.groups.update_span(name, Span { start: 0, len: count })?;
        }
        self.groups.reject_problems(&data, out);
        Ok(())
    }

    /// Takes the records of a generation that are held, as one frame; `None` if there are none.
    fn take_held(&mut self, first: i64) -> Result<Option<Held>> {
        let Some(generation) = self.generations.get_mut(&first).filter(|it| it.held > 0) else { return Ok(None) };
        let pieces = std::mem::take(&mut generation.pieces);
        let count = std::mem::take(&mut generation.held);
        generation.records += count;
        let of = |piece: &Piece| frame_of(&self.frames, self.first_frame, piece);
        let frames = pieces.iter().map(of).collect::<Result<Vec<&Frame>>>()?;
        let joined = |column: &dyn Fn(&Frame) -> &ArrayRef| -> Result<ArrayRef> {
            let columns: Vec<&ArrayRef> = frames.iter().map(|frame| column(frame)).collect();
            concat_pieces(&columns, &pieces, count)
        };
        let schema = frames[0].data.schema();
        let columns = (0..schema.fields().len()).map(|index| joined(&|frame| frame.data.column(index)));
        let data = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let data = RecordBatch::try_new_with_options(schema, data, &options).map_err(|error| Error::internal(error.to_string()))?;
        let ids = match &frames[0].ids {
            Ids::Beside(_) => Some(joined(&|frame| frame.id_column())?),
            Ids::Column => None,
        };
        let mut times: Option<Vec<i64>> = frames[0].times.as_ref().map(|_| Vec::with_capacity(count));
        if let Some(times) = &mut times {
            for (frame, piece) in frames.iter().zip(&pieces) {
                let of_frame = frame.times.as_ref().map(|times| &times[piece.start as usize..piece.end as usize]);
                times.extend_from_slice(of_frame.ok_or_else(|| Error::internal("all records of a stream have a time, or none"))?);
            }
        }
        self.held -= count;
        for piece in pieces {
            let Some(slot) = self.frames.get_mut((piece.frame - self.first_frame) as usize) else { continue };
            if let Some(frame) = slot {
                frame.held -= (piece.end - piece.start) as usize;
                if frame.held == 0 {
                    self.in_frames -= frame.data.num_rows();
                    *slot = None;
                }
            }
        }
        while self.frames.pop_front_if(|frame| frame.is_none()).is_some() {
            self.first_frame += 1;
        }
        Ok(Some(Held { data, ids, times }))
    }

    /// Puts all records that are held into their tables, before a snapshot.
    pub(crate) fn flush_all(&mut self, out: &mut Outbox) -> Result<()> {
        let firsts: Vec<i64> = self.generations.keys().copied().collect();
        firsts.into_iter().try_for_each(|first| self.flush(first, out))
    }

    /// Sorts records by window, in their order within each; returns how they belong to generations.
    fn sort_by_place(&mut self, records: &[u32], ids: &[i64], span: RangeInclusive<i64>, room: &mut Room) -> Vec<Cut> {
        let windows = self.distance(*span.start(), *span.end()) + 1;
        let (least, slide, period) = (*span.start(), self.slide, Period::new(self.slide));
        let at = |id: i64| period.divide(id.wrapping_sub(least) as u64).0 as usize;
        room.begins.clear();
        room.begins.resize(windows as usize, 0);
        room.of_records.clear();
        room.of_records.extend(records.iter().map(|&record| at(ids[record as usize]) as u32));
        room.of_records.iter().for_each(|&window| room.begins[window as usize] += 1);
        // From how many records each window has to where they begin.
        let (mut cuts, mut begin): (Vec<Cut>, u32) = (Vec::new(), 0);
        let mut until = 0;
        for window in 0..windows as usize {
            let count = std::mem::replace(&mut room.begins[window], begin);
            if count == 0 {
                continue;
            }
            if window >= until {
                let first = self.open(least + window as i64 * slide, (windows, records.len()));
                until = at(self.generations[&first].last.min(*span.end())) + 1;
                cuts.push(Cut { first, end: begin });
            }
            begin += count;
            if let Some(cut) = cuts.last_mut() {
                cut.end = begin;
            }
        }
        room.sorted.resize(records.len(), 0);
        room.sorted_ids.resize(records.len(), 0);
        for (&record, &window) in records.iter().zip(&room.of_records) {
            let place = &mut room.begins[window as usize];
            room.sorted[*place as usize] = record;
            room.sorted_ids[*place as usize] = ids[record as usize];
            *place += 1;
        }
        cuts
    }

    /// The same where there are far more windows than records.
    fn sort_by_id(&mut self, records: &[u32], ids: &[i64], span: RangeInclusive<i64>, room: &mut Room) -> Vec<Cut> {
        let windows = self.distance(*span.start(), *span.end()).saturating_add(1);
        room.sorted.clear();
        room.sorted.extend_from_slice(records);
        room.sorted.sort_by_key(|&record| ids[record as usize]);
        room.sorted_ids.clear();
        room.sorted_ids.extend(room.sorted.iter().map(|&record| ids[record as usize]));
        let (mut cuts, mut last): (Vec<Cut>, i64) = (Vec::new(), i64::MIN);
        for (index, &record) in room.sorted.iter().enumerate() {
            let id = ids[record as usize];
            if cuts.is_empty() || id > last {
                let first = self.open(id, (windows, records.len()));
                last = self.generations[&first].last;
                cuts.push(Cut { first, end: 0 });
            }
            if let Some(cut) = cuts.last_mut() {
                cut.end = index as u32 + 1;
            }
        }
        cuts
    }

    /// The generation of a window, begun if need be, by its first id; `frame` is in how many windows how many records are.
    fn open(&mut self, window: i64, frame: (u64, usize)) -> i64 {
        if let Some(first) = self.generation(window) {
            return first;
        }
        let windows = self.windows_of_next(frame) as i64;
        let width = self.slide.saturating_mul(windows);
        // Generations of one width begin at multiples of it, so that they fill the time between each other.
        let ahead = window.rem_euclid(width) / self.slide * self.slide;
        let mut first = window.saturating_sub(ahead);
        let mut last = first.saturating_add(width - self.slide);
        if let Some((_, before)) = self.generations.range(..window).next_back()
            && before.last >= first
        {
            first = before.last + self.slide;
        }
        if let Some((&next, _)) = self.generations.range(window..).next() {
            last = last.min(next - self.slide);
        }
        let name = self.free_name(first);
        self.generations.insert(first, Generation::new(last, name, i64::MIN));
        first
    }

    /// How many windows the next generation is to have.
    fn windows_of_next(&self, (windows, records): (u64, usize)) -> u64 {
        let rows = (ROWS as u64) << 8;
        let of = |(&first, it): (&i64, &Generation)| self.rows_per_window_of(first, it);
        let known = self.generations.iter().map(of).max().unwrap_or(0).max(self.rows_per_window.unwrap_or(0));
        let in_frame = ((records as u64) << 8) / windows;
        let fitting = (rows / known.max(in_frame).max(1)).max(1).next_power_of_two();
        let most = match self.rows_per_window {
            Some(_) => WINDOWS_MAX,
            None => (windows / PART_UNKNOWN).next_power_of_two().max(WINDOWS_UNKNOWN),
        };
        fitting.min(most).min(WINDOWS_MAX)
    }

    /// How many rows a window has in a generation, in 256ths.
    fn rows_per_window_of(&self, first: i64, generation: &Generation) -> u64 {
        let rows = ((self.groups.panes().rows_of(generation.name) + generation.held) as u64) << 8;
        rows / self.distance(first, generation.last).saturating_add(1)
    }

    /// Takes the rows of windows with ids up to this one, about so many rows at a time: their keys, the ids of their windows,
    /// their results.
    pub(crate) fn take(&mut self, complete: i64, rows_max: usize, out: &mut Outbox) -> Result<Option<Taken>> {
        while let Some((&first, generation)) = self.generations.first_key_value()
            && first <= complete
            && generation.taken < complete
        {
            let is_kept = self.groups.panes().rows_of(generation.name) > 0;
            if complete < generation.last && !is_kept {
                self.split(first, complete)?;
            }
            let at_once = !is_kept && self.generations.get(&first).is_some_and(|it| it.last <= complete);
            self.take_up(first, at_once, out)?;
            let Some(generation) = self.generations.get_mut(&first) else { break };
            let is_all = generation.last <= complete;
            // Where no window has been taken and none stays, the table is read from end to end.
            let ids = match is_all && generation.taken == i64::MIN {
                true => None,
                false => Some(generation.taken.saturating_add(1)..=complete),
            };
            let taken = match generation.is_once {
                true => self.groups.results_once(generation.name, rows_max)?,
                false => self.groups.results_within(generation.name, &mut generation.cursor, rows_max, ids)?,
            };
            if let Some((keys, results)) = taken {
                return parted(keys, results).map(Some);
            }
            (generation.taken, generation.cursor) = (complete, Cursor::default());
            if is_all && let Some(generation) = self.generations.remove(&first) {
                let rows = if generation.is_once { self.groups.rows_once() } else { self.groups.panes().rows_of(generation.name) };
                let windows = self.distance(first, generation.last).saturating_add(1);
                self.rows_per_window = Some(((rows as u64) << 8) / windows);
                self.rows_per_record = ((rows as u64) << 8).checked_div(generation.records as u64).or(self.rows_per_record);
                self.groups.close_once();
                self.groups.close(generation.name);
            }
        }
        Ok(None)
    }

    pub(crate) fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        if self.held > 0 {
            return Err(Error::internal("records of windows are not in their tables as a snapshot is taken"));
        }
        self.groups.snapshot(snapshot);
        Ok(())
    }

    /// Takes up rows of a checkpoint, of which those of windows up to this id have been taken. Of windows of which some rows are
    /// here, and some in these groups of single windows, all will be here.
    pub(crate) fn restore(
        &mut self,
        restored: &Restored,
        former: Option<&[AggregateSpec]>,
        complete: i64,
        windows: &mut Groups,
    ) -> Result<()> {
        self.groups.restore(restored, former)?;
        self.generations.clear();
        self.frames.clear();
        (self.in_frames, self.held, self.is_restored) = (0, 0, true);
        let own: HashSet<i64> = windows.panes().starts().collect();
        let mut shared = BTreeSet::new();
        let mut found = Vec::new();
        for name in self.groups.panes().starts().collect::<Vec<_>>() {
            let (mut cursor, mut ids) = (Cursor::default(), None);
            while let Some(columns) = self.groups.keys(name, &mut cursor)? {
                for &id in columns.last().map(ids_of).transpose()?.unwrap_or_default() {
                    let (first, last) = ids.get_or_insert((id, id));
                    (*first, *last) = (id.min(*first), id.max(*last));
                    if own.contains(&id) {
                        shared.insert(id);
                    }
                }
            }
            match ids {
                Some((first, last)) => found.push((first, last, name)),
                None => self.groups.close(name),
            }
        }
        found.sort_unstable();
        for (first, last, name) in found {
            // Those of instances with other generations are put together.
            if let Some(mut before) = self.generations.last_entry()
                && before.get().last >= first
            {
                self.groups.move_rows(name, before.get().name)?;
                let before = before.get_mut();
                before.last = before.last.max(last);
                continue;
            }
            let records = self.groups.panes().rows_of(name);
            self.generations.insert(first, Generation { records, ..Generation::new(last, name, complete) });
        }
        for id in shared {
            let Some(generation) = self.generation(id).and_then(|first| self.generations.get(&first)) else { continue };
            self.groups.adopt_rows(generation.name, windows, id)?;
        }
        Ok(())
    }
}

/// The values of these pieces, `count` of them, each of the column beside it.
fn concat_pieces(columns: &[&ArrayRef], pieces: &[Piece], count: usize) -> Result<ArrayRef> {
    macro_rules! numbers {
        ($type:ty) => {
            concat_numbers::<$type>(columns, pieces, count)
        };
    }
    let numbers = downcast_primitive! {
        columns[0].data_type() => (numbers),
        _ => None,
    };
    if let Some(numbers) = numbers {
        return Ok(numbers);
    }
    let cut = |(column, piece): (&&ArrayRef, &Piece)| column.slice(piece.start as usize, (piece.end - piece.start) as usize);
    let parts: Vec<ArrayRef> = columns.iter().zip(pieces).map(cut).collect();
    let parts: Vec<&dyn Array> = parts.iter().map(|part| &**part).collect();
    concat(&parts).map_err(|error| Error::internal(error.to_string()))
}

/// The same of numbers none of which is null: pieces may have few records each, and then a slice costs more than they do.
fn concat_numbers<T: ArrowPrimitiveType>(columns: &[&ArrayRef], pieces: &[Piece], count: usize) -> Option<ArrayRef> {
    let mut values: Vec<T::Native> = Vec::with_capacity(count);
    for (column, piece) in columns.iter().zip(pieces) {
        let column = column.as_primitive_opt::<T>().filter(|column| column.null_count() == 0)?;
        values.extend_from_slice(&column.values()[piece.start as usize..piece.end as usize]);
    }
    let data_type = columns[0].data_type().clone();
    Some(Arc::new(PrimitiveArray::<T>::new(values.into(), None).with_data_type(data_type)))
}

/// These records.
fn take_records(data: &RecordBatch, records: &UInt32Array) -> Result<RecordBatch> {
    let taken = match data.num_columns() {
        0 => RecordBatch::try_new_with_options(
            data.schema(),
            Vec::new(),
            &RecordBatchOptions::new().with_row_count(Some(records.len())),
        ),
        _ => take_record_batch(data, records),
    };
    taken.map_err(|error| Error::internal(error.to_string()))
}

/// Whether values of this type, or parts of them, are indices into a dictionary.
fn has_dictionary(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(..) => true,
        DataType::Struct(fields) => fields.iter().any(|field| has_dictionary(field.data_type())),
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) | DataType::Map(field, _) => {
            has_dictionary(field.data_type())
        }
        _ => false,
    }
}

/// In how many windows the records of a sample have to be for their frame to count as scattered.
const WINDOWS_MIN: usize = 16;
/// So many are enough where small ones count too: windows with no more than so many records of the frame.
const SMALL_WINDOWS_MIN: usize = 4;
const SMALL_WINDOW: usize = 2048;
/// How many records a sample has at most.
const SAMPLE: usize = 128;

/// Whether these windows of records are so many that most of them have few records of the frame; `small` asks whether a table for
/// each of them would cost more than its records do.
pub(crate) fn is_scattered(rows: usize, small: bool, window_of: impl Fn(usize) -> i64) -> bool {
    if rows < WINDOWS_MIN {
        return false;
    }
    let step = rows.div_ceil(SAMPLE);
    let mut sample: Vec<i64> = (0..rows).step_by(step).map(window_of).collect();
    sample.sort_unstable();
    sample.dedup();
    sample.len() >= WINDOWS_MIN || small && sample.len() >= SMALL_WINDOWS_MIN && rows <= sample.len() * SMALL_WINDOW
}

#[cfg(test)]
mod tests {
    use super::is_scattered;

    #[test]
    fn small_windows_count_as_scattered_where_a_table_each_would_cost_more() {
        let is = |rows: usize, windows: usize, small| is_scattered(rows, small, |row| (row * windows / rows) as i64);
        assert!(!is(8192, 8, false) && is(8192, 8, true), "a thousand records each");
        assert!(is(8192, 16, false) && is(8192, 16, true), "many windows");
        assert!(!is(65_536, 8, true), "thousands of records each");
        assert!(!is(4096, 3, true) && !is(15, 15, true), "too few to say");
    }
}
