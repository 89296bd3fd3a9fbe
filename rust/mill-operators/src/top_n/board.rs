//! The first rows of a key as bytes: sorted entries side by side.
//!
//! ```text
//!   entry, the best first ─ entry ─ … ─ entry, the worst        start of the worst: u32    how many: u32
//!     └ length of the sort key: u32, length of the row: u32, sort key, row                   little endian
//! ```
//!
//! Sort keys are bytes that compare as the rows do, less is better. Whether a row may enter at all is one comparison with
//! the worst, which most rows of a long stream lose.

/// What an entry has before its bytes.
const HEADER: usize = 8;
/// What comes after all entries.
const TRAILER: usize = 8;

/// The rows of a key, to be read.
#[derive(Clone, Copy)]
pub(super) struct Board<'a> {
    entries: &'a [u8],
    worst: usize,
    rows: usize,
}

fn number(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, |bytes| u32::from_le_bytes(bytes) as usize)
}

fn bytes_of(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("the rows of a key have fewer than 2^32 bytes").to_le_bytes()
}

impl<'a> Board<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Board<'a> {
        let Some(end) = bytes.len().checked_sub(TRAILER) else { return Board { entries: &[], worst: 0, rows: 0 } };
        Board { entries: &bytes[..end], worst: number(bytes, end), rows: number(bytes, end + 4) }
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether a row with this sort key would be among the first `rows_max`. Of equal rows the first one stays.
    pub(super) fn takes(&self, sort: &[u8], rows_max: usize) -> bool {
        self.rows < rows_max || self.from(self.worst).next().is_none_or(|worst| sort < worst.sort)
    }

    /// The entries, the best first. Fewer than [`rows`](Board::rows) if the bytes are damaged.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        self.from(0)
    }

    fn from(&self, start: usize) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let (entries, mut at) = (self.entries, start);
        std::iter::from_fn(move || {
            let rest = entries.get(at..).filter(|rest| rest.len() >= HEADER)?;
            let (sort, row) = (number(rest, 0), number(rest, 4));
            let (sort, rest) = rest[HEADER..].split_at_checked(sort)?;
            let row = rest.get(..row)?;
            let entry = Entry { start: at, sort, row };
            at = entry.end();
            Some(entry)
        })
    }
}

/// One row of a board.
pub(super) struct Entry<'a> {
    start: usize,
    pub(super) sort: &'a [u8],
    pub(super) row: &'a [u8],
}

impl Entry<'_> {
    fn end(&self) -> usize {
        self.start + HEADER + self.sort.len() + self.row.len()
    }
}

/// Puts a row among the first `rows_max`, after all that are as good. Its place from zero; `None` if it is not one of them.
pub(super) fn insert(board: &mut Vec<u8>, rows_max: usize, sort: &[u8], row: &[u8]) -> Option<usize> {
    let now = Board::new(board);
    if !now.takes(sort, rows_max) {
        return None;
    }
    let (rows, worst) = (now.rows, now.worst);
    let (mut place, mut at) = (0, 0);
    for entry in now.entries().take_while(|entry| entry.sort <= sort) {
        (place, at) = (place + 1, entry.end());
    }
    let is_full = rows == rows_max;
    let end = if is_full { worst } else { now.entries.len() };
    let length = HEADER + sort.len() + row.len();
    board.truncate(end);
    board.resize(end + length, 0);
    board.copy_within(at..end, at + length);
    board[at..at + 4].copy_from_slice(&bytes_of(sort.len()));
    board[at + 4..at + HEADER].copy_from_slice(&bytes_of(row.len()));
    board[at + HEADER..][..sort.len()].copy_from_slice(sort);
    board[at + HEADER + sort.len()..][..row.len()].copy_from_slice(row);
    let rows = if is_full { rows } else { rows + 1 };
    let entries = Board { entries: board, worst: 0, rows };
    let worst = entries.from(at).last().map_or(0, |entry| entry.start);
    board.extend(bytes_of(worst));
    board.extend(bytes_of(rows));
    Some(place)
}

#[cfg(test)]
mod tests {
    use super::{Board, insert};
    use crate::accumulator::tests::random;

    #[test]
    fn a_board_is_the_head_of_a_stable_sort() {
        let mut seed = 7;
        for rows_max in [1, 2, 3, 7] {
            let (mut board, mut all) = (Vec::new(), Vec::new());
            for number in 0..60u8 {
                let sort = vec![b'x'; (random(&mut seed) % 9) as usize];
                let row = vec![number; (random(&mut seed) % 5) as usize];
                let takes = Board::new(&board).takes(&sort, rows_max);
                let place = insert(&mut board, rows_max, &sort, &row);
                assert_eq!(takes, place.is_some());
                all.push((sort, row));
                let mut sorted = all.clone();
                sorted.sort_by(|a, b| a.0.cmp(&b.0));
                sorted.truncate(rows_max);
                let found: Vec<_> = Board::new(&board).entries().map(|e| (e.sort.to_vec(), e.row.to_vec())).collect();
                assert_eq!(found, sorted);
                assert_eq!(Board::new(&board).rows(), sorted.len());
                if let Some(place) = place {
                    assert_eq!(found[place], *all.last().unwrap());
                }
            }
        }
    }
}
