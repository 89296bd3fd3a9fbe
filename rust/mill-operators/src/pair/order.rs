//! Lists that are kept in order although rows come out of order.
//!
//! A row that belongs near the end of its list is put there at once. One that belongs far from it would move all rows after it,
//! and so would each of its batch: such rows go to the end, and the list is put in order when the batch is over.

use std::collections::HashMap;

/// How many rows are moved for a single one.
const NEAR: usize = 64;

/// The lists that are out of order while rows of a batch are added, by number: how many rows of each are in order.
#[derive(Default)]
pub(crate) struct OutOfOrder {
    in_order: HashMap<u32, usize>,
}

impl OutOfOrder {
    /// Adds a row to the list of this number, after rows with the same key. Rows before `start` do not count.
    #[inline]
    pub(crate) fn add<T, K: Ord>(&mut self, number: u32, list: &mut Vec<T>, start: usize, row: T, key: impl Fn(&T) -> K) {
        if list[start..].last().is_none_or(|last| key(last) <= key(&row)) || self.in_order.contains_key(&number) {
            list.push(row);
            return;
        }
        let place = start + list[start..].partition_point(|other| key(other) <= key(&row));
        if list.len() - place <= NEAR {
            list.insert(place, row);
        } else {
            self.in_order.insert(number, list.len());
            list.push(row);
        }
    }

    /// The lists that are to be put in order, and how many rows of each are.
    pub(crate) fn lists(self) -> impl Iterator<Item = (u32, usize)> {
        self.in_order.into_iter()
    }
}

/// Puts a list in order, the first rows of which are: so many.
pub(crate) fn put_in_order<T, K: Ord>(list: &mut [T], in_order: usize, key: impl Fn(&T) -> K) {
    let (before, after) = list.split_at_mut(in_order);
    after.sort_by_key(&key);
    let Some(first) = after.first() else { return };
    let from = before.partition_point(|row| key(row) <= key(first));
    match after.len() {
        1 => list[from..].rotate_right(1),
        // Two lists one after the other, which the sort takes as they are.
        _ => list[from..].sort_by_key(&key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accumulator::tests::random;

    #[test]
    fn lists_are_in_order_of_time_and_arrival_after_every_batch() {
        let mut seed = 99;
        for spread in [1, 50, 5000] {
            let (mut lists, mut expected) = (vec![Vec::new(); 2], vec![Vec::new(); 2]);
            let mut arrival = 0;
            for batch in 0..60_u64 {
                let mut out_of_order = OutOfOrder::default();
                for _ in 0..random(&mut seed) % 100 {
                    let (list, time) = ((random(&mut seed) % 2) as usize, 40 * batch + random(&mut seed) % spread);
                    out_of_order.add(list as u32, &mut lists[list], 0, (time, arrival), |row| row.0);
                    expected[list].push((time, arrival));
                    arrival += 1;
                }
                for (list, in_order) in out_of_order.lists() {
                    put_in_order(&mut lists[list as usize], in_order, |row| row.0);
                }
                expected.iter_mut().for_each(|list| list.sort());
                assert_eq!(lists, expected, "spread {spread}, batch {batch}");
            }
        }
    }
}
