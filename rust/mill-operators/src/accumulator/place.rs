//! First and last: the value, null or not, of the first or last record for which the filter holds.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::DataType;
use mill_protocol::Result;
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
    layout: &mut LayoutBuilder,
) -> Result<Box<dyn Accumulator>> {
    let output = output.clone();
    if is_word(&output) {
        let (word, is_set, is_valid) = (layout.words(1), layout.flag(), layout.flag());
        let (words, nulls, filter) = (Vec::new(), None, None);
        return Ok(Box::new(WordPlace { input, output, is_first, word, is_set, is_valid, words, nulls, filter }));
    }
    let codec = Codec::new(&output)?;
    Ok(Box::new(BytesPlace { input, output, is_first, codec, cell: layout.cell(), encoded: None, filter: None }))
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
            // The two flags came to lie in different words: rare, so without a kernel of its own.
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

struct BytesPlace {
    input: Input,
    output: DataType,
    is_first: bool,
    codec: Codec,
    cell: usize,
    encoded: Option<arrow_row::Rows>,
    filter: Option<BooleanBuffer>,
}

impl Accumulator for BytesPlace {
    fn prepare(&mut self, batch: &RecordBatch, _hashes: &[u64]) -> Result<()> {
        let values = self.input.column(batch, 0, &self.output)?;
        self.filter = self.input.filter(batch)?;
        self.encoded = Some(self.codec.encode(&values)?);
        Ok(())
    }

    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, _problems: &mut Problems) -> Result<()> {
        let encoded = self.encoded.as_ref().expect("prepared");
        for i in 0..select.len() {
            let record = select.at(i);
            if !passes(self.filter.as_ref(), record) || (self.is_first && rows.cell(i, self.cell).is_some()) {
                continue;
            }
            let cell = rows.cell_mut(i, self.cell);
            cell.clear();
            cell.extend_from_slice(encoded.row(record).as_ref());
        }
        Ok(())
    }

    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef> {
        let null = self.codec.null()?;
        self.codec.decode((0..rows.len()).map(|row| rows.cell(row, self.cell).unwrap_or(&null)))
    }
}
