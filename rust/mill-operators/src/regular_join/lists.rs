//! Lists of row numbers, the rows of a key each: contiguous, in blocks of one arena.
//!
//! Most keys have one row of a side, whose number is in the list itself. Longer lists have a block of 2, 4, 8, … places, and move to a
//! larger or smaller one as rows come and go. A block that is left is used by the next list of its size.

/// A list of [`Lists`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct List {
    /// Where its block begins; of a list of one row in no block, the row.
    at: u32,
    len: u32,
    /// Its block has two to the power of so many places; 0 if it has none.
    class: u8,
}

impl List {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The blocks of all lists.
#[derive(Default)]
pub(super) struct Lists {
    rows: Vec<u32>,
    /// Blocks that are in no use, by class.
    free: [Vec<u32>; 32],
}

impl Lists {
    /// The rows of a list.
    #[inline]
    pub(super) fn rows<'s>(&'s self, list: &'s List) -> &'s [u32] {
        match list.class {
            0 if list.len == 0 => &[],
            0 => std::slice::from_ref(&list.at),
            _ => &self.rows[list.at as usize..][..list.len as usize],
        }
    }

    /// Adds a row behind the others; returns its place.
    #[inline]
    pub(super) fn push(&mut self, list: &mut List, row: u32) -> u32 {
        let place = list.len;
        if place == 0 {
            *list = List { at: row, len: 1, class: 0 };
            return 0;
        }
        if place == 1 << list.class {
            self.resize(list, list.class + 1);
        }
        self.rows[(list.at + place) as usize] = row;
        list.len += 1;
        place
    }

    /// Removes the row at a place; returns the row that is there now, which was the last one.
    pub(super) fn remove(&mut self, list: &mut List, place: u32) -> Option<u32> {
        list.len -= 1;
        if list.len == 0 {
            self.leave(list);
            *list = List::default();
            return None;
        }
        let last = list.at + list.len;
        let moved = (place != list.len).then(|| self.rows[last as usize]);
        if let Some(moved) = moved {
            self.rows[(list.at + place) as usize] = moved;
        }
        if list.class > 2 && list.len < 1 << (list.class - 2) {
            self.resize(list, list.class - 1);
        }
        moved
    }

    /// Puts another row in the place of one.
    #[inline]
    pub(super) fn set(&mut self, list: &mut List, place: u32, row: u32) {
        match list.class {
            0 => list.at = row,
            _ => self.rows[(list.at + place) as usize] = row,
        }
    }

    /// How many places all blocks have, those in no use included.
    pub(super) fn places(&self) -> usize {
        self.rows.len()
    }

    fn resize(&mut self, list: &mut List, class: u8) {
        let places = 1_usize << class;
        let to = self.free[usize::from(class)].pop().unwrap_or_else(|| {
            let to = self.rows.len();
            self.rows.resize(to + places, 0);
            u32::try_from(self.rows.len()).expect("a join keeps fewer than 2^32 rows a task");
            to as u32
        });
        match list.class {
            0 => self.rows[to as usize] = list.at,
            _ => self.rows.copy_within(list.at as usize..(list.at + list.len) as usize, to as usize),
        }
        self.leave(list);
        (list.at, list.class) = (to, class);
    }

    fn leave(&mut self, list: &List) {
        if list.class > 0 {
            self.free[usize::from(list.class)].push(list.at);
        }
    }

    /// About how many bytes they take.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        (self.rows.capacity() + self.free.iter().map(Vec::capacity).sum::<usize>()) * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accumulator::tests::random;

    #[test]
    fn lists_are_as_vectors_from_which_the_last_row_fills_gaps() {
        let mut seed = 3;
        let mut lists = Lists::default();
        let mut found = vec![(List::default(), Vec::<u32>::new()); 20];
        for step in 0..60_000_u32 {
            let (list, expected) = &mut found[(random(&mut seed) % 20) as usize];
            let is_growing = (step / 6000).is_multiple_of(2);
            if expected.is_empty() || random(&mut seed) % 10 < if is_growing { 7 } else { 3 } {
                assert_eq!(lists.push(list, step) as usize, expected.len());
                expected.push(step);
            } else {
                let place = (random(&mut seed) % expected.len() as u64) as usize;
                expected.swap_remove(place);
                assert_eq!(lists.remove(list, place as u32), expected.get(place).copied());
            }
            if !expected.is_empty() && step.is_multiple_of(7) {
                let place = (random(&mut seed) % expected.len() as u64) as usize;
                expected[place] = step;
                lists.set(list, place as u32, step);
            }
            assert_eq!(lists.rows(list), expected);
            assert_eq!(list.is_empty(), expected.is_empty());
        }
        for (list, rows) in &mut found {
            while !rows.is_empty() {
                rows.swap_remove(0);
                lists.remove(list, 0);
            }
        }
        // Every block has been left.
        let places: usize = lists.free.iter().enumerate().map(|(class, blocks)| blocks.len() << class).sum();
        assert_eq!(places, lists.rows.len());
    }
}
