//! First and last: the value, null or not, of the first or last record for which the filter holds.
//!
//! Of groups that are timed, first and last are so by event time; of records with one time, by arrival.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::DataType;
use mill_protocol::{Error, Result};
use mill_state::{Flag, LayoutBuilder, Rows, RowsRead, Select};

use super::cells::Codec;
use super::extreme::{from_ordered, is_word, ordered_words};
use super::input::{Input, passes};
use super::{Accumulator, Problems, Selection, with_selection};

/// The first or last value of a column.
pub(super) fn place(
    input: Input,
    output: &DataType,
    is_first: bool,
    is_timed: bool,
    layout: &mut LayoutBuilder,
) -> Result<Box<dyn Accumulator>> {
    let output = output.clone();
    if is_timed && is_word(&output) {
        let (words, is_set, is_valid) = (layout.words(2), layout.flag(), layout.flag());
        let (values, times, nulls, filter) = (Vec::new(), Vec::new(), None, None);
        return Ok(Box::new(TimedPlace { input, output, is_first, words, is_set, is_valid, values, times, nulls, filter }));
    }
    if is_word(&output) {
        let (word, is_set, is_valid) = (layout.words(1), layout.flag(), layout.flag());
        let (words, nulls, filter) = (Vec::new(), None, None);
        return Ok(Box::new(WordPlace { input, output, is_first, word, is_set, is_valid, words, nulls, filter }));
    }
    let codec = Codec::new(&output)?;
    let (cell, times) = (layout.cell(), is_timed.then(Vec::new));
    Ok(Box::new(BytesPlace { input, output, is_first, codec, cell, encoded: None, times, filter: None }))
}

struct WordPlace {
    input: Input,
    output: DataType,
    is_first: bool,
    word: usize,
    is_set: Flag,
    is_valid: Flag,
    words: Vec<u64>,
    nulls: Option<NullBuffer>,
    filter: Option<BooleanBuffer>,
}

impl Accumulator for WordPlace {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        let values = self.input.column(batch, 0, &self.output)?;
        self.nulls = values.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        self.filter = self.input.filter(batch)?;
        self.words = ordered_words(&values)?;
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let (words, nulls, filter) = (self.words.as_slice(), self.nulls.as_ref(), self.filter.as_ref());
        let (is_first, word, is_set, is_valid) = (self.is_first, self.word, self.is_set, self.is_valid);
        if is_set.word != is_valid.word {
            // The two flags came to be in different words: rare, so without a kernel of its own.
            for i in 0..select.len() {
                let (record, row) = (select.at(i), rows.row(i));
                if passes(filter, record) && !(is_first && row[is_set.word] & is_set.mask != 0) {
                    row[word] = words[record];
                    row[is_set.word] |= is_set.mask;
                    row[is_valid.word] &= !is_valid.mask;
                    row[is_valid.word] |= if nulls.is_none_or(|nulls| nulls.is_valid(record)) { is_valid.mask } else { 0 };
                }
            }
            return Ok(());
        }
        with_selection!(select, s => rows.each_with::<1>(word, is_set.word, |i, value, flags| {
            let record = s.at(i);
            if passes(filter, record) && !(is_first && *flags & is_set.mask != 0) {
                value[0] = words[record];
                *flags = *flags & !is_valid.mask | is_set.mask;
                if nulls.is_none_or(|nulls| nulls.is_valid(record)) {
                    *flags |= is_valid.mask;
                }
            }
        }));
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        from_ordered(rows.words(self.word), Some(NullBuffer::from(rows.flags(self.is_valid))), &self.output)
    }
}

/// The first or last value by event time, which is kept beside it.
struct TimedPlace {
    input: Input,
    output: DataType,
    is_first: bool,
    /// The value, the time.
    words: usize,
    is_set: Flag,
    is_valid: Flag,
    values: Vec<u64>,
    times: Vec<i64>,
    nulls: Option<NullBuffer>,
    filter: Option<BooleanBuffer>,
}

/// Whether a record is before or after the one that is kept.
#[inline(always)]
fn replaces(time: i64, kept: i64, is_first: bool) -> bool {
    if is_first { time < kept } else { time >= kept }
}

impl Accumulator for TimedPlace {
    fn asks_for_times(&self) -> bool {
        true
    }

    fn times(&mut self, times: &[i64]) {
        self.times.clear();
        self.times.extend_from_slice(times);
    }

    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        let values = self.input.column(batch, 0, &self.output)?;
        if self.times.len() != batch.num_rows() {
            return Err(Error::internal("first and last of windows are by event time"));
        }
        self.nulls = values.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        self.filter = self.input.filter(batch)?;
        self.values = ordered_words(&values)?;
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let (values, times, nulls) = (self.values.as_slice(), self.times.as_slice(), self.nulls.as_ref());
        let (is_first, words, is_set, is_valid) = (self.is_first, self.words, self.is_set, self.is_valid);
        let filter = self.filter.as_ref();
        for i in 0..select.len() {
            let (record, row) = (select.at(i), rows.row(i));
            let is_kept = row[is_set.word] & is_set.mask != 0;
            if !passes(filter, record) || (is_kept && !replaces(times[record], row[words + 1] as i64, is_first)) {
                continue;
            }
            row[words] = values[record];
            row[words + 1] = times[record] as u64;
            row[is_set.word] |= is_set.mask;
            row[is_valid.word] &= !is_valid.mask;
            row[is_valid.word] |= if nulls.is_none_or(|nulls| nulls.is_valid(record)) { is_valid.mask } else { 0 };
        }
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        from_ordered(rows.words(self.words), Some(NullBuffer::from(rows.flags(self.is_valid))), &self.output)
    }
}

struct BytesPlace {
    input: Input,
    output: DataType,
    is_first: bool,
    codec: Codec,
    /// The value; before it, in 8 bytes, its time if times count.
    cell: usize,
    encoded: Option<arrow_row::Rows>,
    times: Option<Vec<i64>>,
    filter: Option<BooleanBuffer>,
}

impl Accumulator for BytesPlace {
    fn asks_for_times(&self) -> bool {
        self.times.is_some()
    }

    fn times(&mut self, times: &[i64]) {
        if let Some(own) = &mut self.times {
            own.clear();
            own.extend_from_slice(times);
        }
    }

    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        let values = self.input.column(batch, 0, &self.output)?;
        if self.times.as_ref().is_some_and(|times| times.len() != batch.num_rows()) {
            return Err(Error::internal("first and last of windows are by event time"));
        }
        self.filter = self.input.filter(batch)?;
        self.encoded = Some(self.codec.encode(&values)?);
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let encoded = self.encoded.as_ref().expect("prepared");
        // The time of a value, and its bytes.
        let mut timed = Vec::new();
        for i in 0..select.len() {
            let record = select.at(i);
            let time = self.times.as_ref().map(|times| times[record]);
            let is_kept = match (rows.cell(i, self.cell).bytes(), time) {
                (None, _) => false,
                (Some(_), None) => self.is_first,
                (Some(cell), Some(time)) => {
                    cell.first_chunk().is_some_and(|kept| !replaces(time, i64::from_le_bytes(*kept), self.is_first))
                }
            };
            if is_kept || !passes(self.filter.as_ref(), record) {
                continue;
            }
            let value = encoded.row(record);
            match time {
                None => rows.cell(i, self.cell).set(value.as_ref()),
                Some(time) => {
                    timed.clear();
                    timed.extend_from_slice(&time.to_le_bytes());
                    timed.extend_from_slice(value.as_ref());
                    rows.cell(i, self.cell).set(&timed);
                }
            }
        }
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        let null = self.codec.null()?;
        let header = if self.times.is_some() { 8 } else { 0 };
        let value = |row| rows.cell(row, self.cell).and_then(|cell| cell.get(header..)).unwrap_or(&null);
        self.codec.decode((0..rows.len()).map(value))
    }
}
