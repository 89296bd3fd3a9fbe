//! Rows of a step before the exchange whose keys are numbers near each other: no hashes, no search.

use std::sync::Arc;

use mill_state::{DirectTable, KeyRange, RowLayout, RowsRead};

/// How many tables there are at most: for panes side by side, and for sources that are at different keys.
const TABLES_MAX: usize = 4;
/// A frame from which a table is begun has at least so many records …
const RECORDS_MIN: usize = 1024;
/// … and at most so many possible keys a record.
const KEYS_PER_RECORD_MAX: u64 = 16;

/// Tables for ranges of keys, each of one pane.
pub(super) struct NearTables {
    layout: Arc<RowLayout>,
    slots: usize,
    tables: Vec<(i64, DirectTable)>,
    /// Empty ones; their memory is used again.
    spare: Vec<DirectTable>,
    /// Where the first table of the pane that is being read is read on.
    read_at: usize,
    /// How many records went into the tables since they were last empty.
    taken: usize,
    /// Whether a frame would have had a table if there were fewer, and reading all of them costs little for what they took.
    is_crowded: bool,
}

impl NearTables {
    /// Tables for rows of this layout, whose keys are numbers or, if they are `numbered`, have some; `None` if there can be none.
    pub(super) fn new(layout: &Arc<RowLayout>, is_numbered: bool) -> Option<NearTables> {
        let slots = DirectTable::slots_of(layout, is_numbered);
        let tables = NearTables {
            layout: Arc::clone(layout),
            slots,
            tables: Vec::new(),
            spare: Vec::new(),
            read_at: 0,
            taken: 0,
            is_crowded: false,
        };
        (slots > 0).then_some(tables)
    }

    /// How many keys a table has room for.
    pub(super) fn keys_max(&self) -> u64 {
        self.slots as u64
    }

    /// The table for the records of a frame in this pane, begun if that pays; `None` if they have to be hashed.
    pub(super) fn place(&mut self, pane: i64, range: KeyRange, records: usize) -> Option<usize> {
        if let Some(place) = self.tables.iter().position(|(of, table)| *of == pane && table.holds(range)) {
            self.taken += records;
            return Some(place);
        }
        let keys = range.keys();
        let is_worth_it = records >= RECORDS_MIN && keys <= self.keys_max() && keys / KEYS_PER_RECORD_MAX <= records as u64;
        if !is_worth_it {
            return None;
        }
        // To empty a table is to look at each of its places. Until that is paid for, records for which there is no table left are
        // hashed; once it is, emptying tables that are used widely is better than touching the memory of another.
        let places: usize = self.tables.iter().map(|(_, table)| table.span()).sum();
        let is_paid = self.taken >= places;
        if self.tables.len() == TABLES_MAX || (is_paid && places >= self.slots / 2) {
            self.is_crowded = is_paid;
            return None;
        }
        self.taken += records;
        let table = Self::begun(&self.layout, &mut self.spare, range);
        self.tables.push((pane, table));
        Some(self.tables.len() - 1)
    }

    /// Whether a frame of so many records may get a table, whatever its keys are.
    pub(super) fn may_take(&self, records: usize) -> bool {
        records >= RECORDS_MIN || !self.tables.is_empty()
    }

    /// Whether there are no tables.
    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Whether they are to be emptied because there are too many.
    pub(super) fn is_crowded(&self) -> bool {
        self.is_crowded
    }

    /// Renumbers all keys within this range.
    pub(super) fn renumber(&mut self, range: KeyRange, renumbered: impl Fn(u64) -> u64) {
        for (_, table) in &mut self.tables {
            let mut into = Self::begun(&self.layout, &mut self.spare, range);
            table.move_into(&mut into, &renumbered);
            self.spare.push(std::mem::replace(table, into));
        }
    }

    /// An empty table for keys of this range.
    fn begun(layout: &Arc<RowLayout>, spare: &mut Vec<DirectTable>, range: KeyRange) -> DirectTable {
        match spare.pop() {
            Some(mut table) => {
                table.aim(range);
                table
            }
            None => DirectTable::new(layout, range),
        }
    }

    /// A table by its place.
    pub(super) fn table(&mut self, place: usize) -> &mut DirectTable {
        &mut self.tables[place].1
    }

    /// If they are better emptied: how many records they took, and how many rows they have.
    pub(super) fn crowd(&self) -> Option<(usize, usize)> {
        self.is_crowded.then(|| (self.taken, self.rows()))
    }

    /// How many rows they have.
    pub(super) fn rows(&self) -> usize {
        self.tables.iter().map(|(_, table)| table.len()).sum()
    }

    /// The earliest pane that has a table.
    pub(super) fn first_pane(&self) -> Option<i64> {
        self.tables.iter().map(|(pane, _)| *pane).min()
    }

    /// Reads on in a pane; what has been read to its end is empty. `None` when all of it is.
    pub(super) fn read(&mut self, pane: i64, rows_max: usize) -> Option<RowsRead<'_>> {
        loop {
            let place = self.tables.iter().position(|(of, _)| *of == pane)?;
            if self.read_at < self.tables[place].1.end() {
                return Some(self.tables[place].1.scan(&mut self.read_at, rows_max));
            }
            let (_, mut table) = self.tables.remove(place);
            table.clear();
            self.spare.push(table);
            self.read_at = 0;
            self.is_crowded = false;
            if self.tables.is_empty() {
                self.taken = 0;
            }
        }
    }
}
