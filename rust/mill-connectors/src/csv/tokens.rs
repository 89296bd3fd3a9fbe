//! Cuts CSV into records and fields, without interpreting them.
//!
//! Two loops produce the same fields: one for bytes without any quote, which only looks for delimiters and line ends, and
//! one for quoted records and comments. Fields of columns that nobody reads are counted, and not kept. A field is a pair of
//! offsets; a quoted field keeps its quotes out of the range and is marked, so that it is unescaped only where it is used.

use memchr::{memchr, memchr2, memmem};
use mill_frame::words::counted;

use crate::marks::Marks;
use crate::text::without_return;

/// A quoted record longer than this is taken as one whose closing quote is missing.
const QUOTED_RECORD_BYTES_MAX: usize = 16 << 20;

/// Where a field is; `end` has [`QUOTED`] set if it was quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    start: u32,
    end: u32,
}

const QUOTED: u32 = 1 << 31;

impl Field {
    fn plain(start: usize, end: usize) -> Field {
        Field { start: start as u32, end: end as u32 }
    }

    fn quoted(start: usize, end: usize) -> Field {
        Field { start: start as u32, end: end as u32 | QUOTED }
    }

    #[inline]
    pub(crate) fn is_quoted(self) -> bool {
        self.end & QUOTED != 0
    }

    /// The bytes of the field, still escaped.
    #[inline]
    pub(crate) fn bytes(self, data: &[u8]) -> &[u8] {
        &data[self.start as usize..(self.end & !QUOTED) as usize]
    }
}

/// How the bytes are to be cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect<'a> {
    pub(crate) delimiter: u8,
    pub(crate) quote: Option<u8>,
    /// What makes the next byte stand for itself, within quotes.
    pub(crate) escape: Option<u8>,
    /// What a line begins with that is no record.
    pub(crate) comment: Option<&'a [u8]>,
    /// Whether a record may have too many fields, which are dropped, or too few, which are empty then.
    pub(crate) is_ragged: bool,
}

impl Dialect<'_> {
    /// Where the first quote is.
    pub(crate) fn find_quote(&self, data: &[u8]) -> Option<usize> {
        self.quote.and_then(|quote| memchr(quote, data))
    }

    /// Whether the bytes of a quoted field are not what they stand for.
    #[inline]
    pub(crate) fn is_escaped(&self, bytes: &[u8]) -> bool {
        self.find_quote(bytes).is_some() || self.escape.is_some_and(|escape| memchr(escape, bytes).is_some())
    }

    /// Adds what the bytes of a quoted field stand for.
    pub(crate) fn unescape(&self, bytes: &[u8], out: &mut Vec<u8>) {
        let Some(quote) = self.quote else { return out.extend_from_slice(bytes) };
        let escape = self.escape.unwrap_or(quote);
        let mut rest = bytes;
        while let Some(at) = memchr2(quote, escape, rest) {
            // The byte after it is taken as it is: a quote after a quote, any byte after an escape.
            out.extend_from_slice(&rest[..at]);
            out.extend(rest.get(at + 1));
            rest = &rest[(at + 2).min(rest.len())..];
        }
        out.extend_from_slice(rest);
    }

    /// Which bytes of a record are outside of quotes, quotes aside: calls `visit` with each until it returns true.
    pub(crate) fn any_unquoted(&self, record: &[u8], mut visit: impl FnMut(u8) -> bool) -> bool {
        let (mut is_open, mut is_taken) = (false, false);
        record.iter().any(|&byte| {
            if std::mem::take(&mut is_taken) {
                return false;
            }
            is_taken = is_open && Some(byte) == self.escape;
            is_open ^= Some(byte) == self.quote;
            !is_open && !is_taken && visit(byte)
        })
    }

    /// Where the rows after the first so many begin: of lines whose line end is not within quotes, those that are no
    /// comments. `None` if that is not in the data.
    pub(crate) fn skip(&self, data: &[u8], rows: usize) -> Option<usize> {
        let (mut at, mut left) = (0, rows);
        while left > 0 {
            let line = &data[at..];
            if self.comment.is_some_and(|comment| line.starts_with(comment)) {
                at += memchr(b'\n', line)? + 1;
                continue;
            }
            let (mut is_open, mut is_taken) = (false, false);
            let end = line.iter().position(|&byte| {
                if std::mem::take(&mut is_taken) {
                    return false;
                }
                is_taken = is_open && Some(byte) == self.escape;
                is_open ^= Some(byte) == self.quote;
                byte == b'\n' && !is_open
            })?;
            at += end + 1;
            left -= 1;
        }
        Some(at)
    }
}

/// A stretch of bytes that is no record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) message: String,
}

/// Records cut into fields: `fields` has an entry for each column that is kept, record after record.
#[derive(Default)]
pub(crate) struct Tokens {
    /// Whether each column is kept; all are where it says nothing.
    pub(crate) is_kept: Vec<bool>,
    pub(crate) fields: Vec<Field>,
    /// Where each record begins and ends, without its line end.
    pub(crate) records: Vec<(u32, u32)>,
    pub(crate) malformed: Vec<Malformed>,
    /// How many bytes the records take.
    pub(crate) bytes: usize,
}

/// Cuts complete records off the front of `data`, at most `rows_max` of them; with `is_last` also the rest.
///
/// With `columns` given, a record of another number of fields is malformed; without, all records must be as wide as the
/// first, which is how a header or a sample is read.
pub(crate) fn tokenize(
    data: &[u8],
    dialect: Dialect<'_>,
    columns: Option<usize>,
    is_last: bool,
    rows_max: usize,
    tokens: &mut Tokens,
) {
    tokens.fields.clear();
    tokens.records.clear();
    tokens.malformed.clear();
    tokens.bytes = 0;
    let mut cutter = Cutter { data, dialect, columns, found: 0, tokens };
    // Bytes before the first quote are cut by the loop that knows none, up to the last line that has no quote.
    let plain_end = match dialect.find_quote(data) {
        _ if dialect.comment.is_some_and(|comment| memmem::find(data, comment).is_some()) => 0,
        None => data.len(),
        Some(quote) => memchr::memrchr(b'\n', &data[..quote]).map_or(0, |line_end| line_end + 1),
    };
    let is_all_plain = plain_end == data.len();
    let at = cutter.cut_plain(plain_end, rows_max, is_last && is_all_plain);
    let at = if is_all_plain { at } else { cutter.cut_quoted(at, rows_max, is_last) };
    cutter.tokens.bytes = at;
}

struct Cutter<'a> {
    data: &'a [u8],
    dialect: Dialect<'a>,
    columns: Option<usize>,
    /// How many fields the record has that is being cut.
    found: usize,
    tokens: &'a mut Tokens,
}

impl Cutter<'_> {
    fn is_full(&self, rows_max: usize) -> bool {
        self.tokens.records.len() + self.tokens.malformed.len() >= rows_max
    }

    #[inline(always)]
    fn push(&mut self, field: Field) {
        if self.tokens.is_kept.get(self.found).copied().unwrap_or(true) {
            self.tokens.fields.push(field);
        }
        self.found += 1;
    }

    /// Cuts `data[..end]`, which has no quote; returns where it stopped.
    fn cut_plain(&mut self, end: usize, rows_max: usize, is_last: bool) -> usize {
        let data = &self.data[..end];
        let (mut start, mut field, mut first) = (0, 0, self.tokens.fields.len());
        Marks::new(self.dialect.delimiter, b'\n').each(data, |at| {
            if data[at] != b'\n' {
                self.push(Field::plain(field, at));
                field = at + 1;
                return true;
            }
            let line_end = field + without_return(&data[field..at]).len();
            self.push(Field::plain(field, line_end));
            first = self.finish(start, line_end, first);
            start = at + 1;
            field = start;
            !self.is_full(rows_max)
        });
        if is_last && start < end && !self.is_full(rows_max) {
            let line_end = field + without_return(&data[field..]).len();
            self.push(Field::plain(field, line_end));
            self.finish(start, line_end, first);
            return end;
        }
        self.give_up(first);
        start
    }

    /// Forgets the fields of a record that is not complete.
    fn give_up(&mut self, first: usize) {
        self.tokens.fields.truncate(first);
        self.found = 0;
    }

    /// Ends a record whose fields begin at `first`; returns where the next one's begin.
    #[inline]
    fn finish(&mut self, start: usize, end: usize, first: usize) -> usize {
        let found = std::mem::take(&mut self.found);
        let columns = *self.columns.get_or_insert(found);
        if found == columns {
            self.tokens.records.push((start as u32, end as u32));
            return self.tokens.fields.len();
        }
        if self.dialect.is_ragged && end > start {
            let is_kept = &self.tokens.is_kept;
            let wanted = first + (0..columns).filter(|&column| is_kept.get(column).copied().unwrap_or(true)).count();
            self.tokens.fields.resize(wanted, Field::plain(end, end));
            self.tokens.records.push((start as u32, end as u32));
            return wanted;
        }
        self.tokens.fields.truncate(first);
        // A blank line is nothing, but where the only column may be empty it is that.
        if end > start {
            let message = format!("{} where {columns} {} expected", counted(found, "field"), if columns == 1 { "is" } else { "are" });
            self.tokens.malformed.push(Malformed { start, end, message });
        }
        first
    }

    /// Cuts records that may be quoted; returns where it stopped.
    fn cut_quoted(&mut self, from: usize, rows_max: usize, is_last: bool) -> usize {
        let mut start = from;
        while start < self.data.len() && !self.is_full(rows_max) {
            if self.dialect.comment.is_some_and(|comment| self.data[start..].starts_with(comment)) {
                match memchr(b'\n', &self.data[start..]) {
                    Some(line_end) => start += line_end + 1,
                    None if is_last => start = self.data.len(),
                    None => return start,
                }
                continue;
            }
            let first = self.tokens.fields.len();
            match self.cut_record(start) {
                Cut::Record { end, next, is_terminated } => {
                    if !is_terminated && !is_last {
                        self.give_up(first);
                        return start;
                    }
                    self.finish(start, end, first);
                    start = next;
                }
                Cut::Open if !is_last && self.data.len() - start < QUOTED_RECORD_BYTES_MAX => {
                    self.give_up(first);
                    return start;
                }
                cut => {
                    // What is wrong may swallow any number of good lines: only its first line is given up.
                    self.give_up(first);
                    let line_end = memchr(b'\n', &self.data[start..]).map(|at| start + at);
                    if line_end.is_none() && !is_last {
                        return start;
                    }
                    let end = line_end.unwrap_or(self.data.len());
                    let message = match cut {
                        Cut::Open => "a quote is opened and not closed".to_owned(),
                        _ => "text after the closing quote of a field".to_owned(),
                    };
                    self.tokens.malformed.push(Malformed { start, end, message });
                    start = line_end.map_or(end, |end| end + 1);
                }
            }
        }
        start
    }

    /// Cuts one record beginning at `start`.
    fn cut_record(&mut self, start: usize) -> Cut {
        let (data, Dialect { delimiter, quote, escape, .. }) = (self.data, self.dialect);
        let mut at = start;
        loop {
            if let Some(quote) = quote.filter(|quote| data.get(at) == Some(quote)) {
                let field = at + 1;
                let mut search = field;
                let close = loop {
                    let found = memchr2(quote, escape.unwrap_or(quote), data.get(search..).unwrap_or_default());
                    let Some(found) = found else { return Cut::Open };
                    let found = search + found;
                    if data[found] != quote || data.get(found + 1) == Some(&quote) {
                        search = found + 2;
                    } else {
                        break found;
                    }
                };
                self.push(Field::quoted(field, close));
                let end = close + 1;
                let terminated = |next| Cut::Record { end, next, is_terminated: true };
                match &data[end..] {
                    [byte, ..] if *byte == delimiter => {
                        at = end + 1;
                        continue;
                    }
                    [b'\n', ..] => return terminated(end + 1),
                    [b'\r', b'\n', ..] => return terminated(end + 2),
                    // At the end of the data it is not known yet whether the quote closes or begins an escaped one.
                    [] | [b'\r'] => return Cut::Record { end, next: data.len(), is_terminated: false },
                    _ => return Cut::Trailing,
                }
            }
            let Some(found) = memchr::memchr2(delimiter, b'\n', &data[at..]) else {
                let end = at + without_return(&data[at..]).len();
                self.push(Field::plain(at, end));
                return Cut::Record { end, next: data.len(), is_terminated: false };
            };
            let found = at + found;
            if data[found] == b'\n' {
                let end = at + without_return(&data[at..found]).len();
                self.push(Field::plain(at, end));
                return Cut::Record { end, next: found + 1, is_terminated: true };
            }
            self.push(Field::plain(at, found));
            at = found + 1;
        }
    }
}

enum Cut {
    /// A record up to `end`; the next one begins at `next`. Without a line end it may continue in bytes still to come.
    Record { end: usize, next: usize, is_terminated: bool },
    /// A quote is open at the end of the data.
    Open,
    /// A closing quote is followed by something else than a delimiter or line end.
    Trailing,
}

#[cfg(test)]
mod tests;
