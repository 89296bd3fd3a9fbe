//! Leads from hashes to slots: an open table that is probed from place to place.
//!
//! ```text
//!   hash ──► tag (32 bits) ──► home: the low bits of the tag     [tag slot] [tag slot] [ free ] …
//! ```
//!
//! A hash may have several slots, one a key. Invariant: between the home of an entry and its place no place is free. So a search
//! ends at the first free place, and a removal moves the entries after it up.

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;

/// How many keys are looked for together.
pub(crate) const TOGETHER: usize = 32;

const PLACES_MIN: usize = 64;

#[derive(Clone, Copy)]
struct Place {
    tag: u32,
    slot: u32,
}

const FREE: Place = Place { tag: 0, slot: NONE };

/// The slots by hash.
#[derive(Default)]
pub(crate) struct Heads {
    /// None, or a power of two.
    places: Vec<Place>,
    taken: usize,
}

/// What of a hash is kept.
#[inline]
fn tag(hash: u64) -> u32 {
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

impl Heads {
    /// Where a search for this hash begins, with what is there. Reads one place and decides nothing, so that the reads for several
    /// hashes overlap.
    #[inline]
    pub(crate) fn begin(&self, hash: u64) -> Search {
        let tag = tag(hash);
        let at = self.home(tag);
        Search { tag, at, place: self.places.get(at).copied().unwrap_or(FREE) }
    }

    /// The next slot of this tag, from where the search is; [`NONE`] once there is none.
    #[inline]
    pub(crate) fn next(&self, search: &mut Search) -> u32 {
        loop {
            let Place { tag, slot } = search.place;
            if slot == NONE {
                return NONE;
            }
            let at = search.at;
            search.at = self.after(at);
            search.place = self.places[search.at];
            if tag == search.tag {
                return slot;
            }
        }
    }

    /// Begins searches for up to [`TOGETHER`] hashes; returns them after their first step, and the slots that this found. The reads from
    /// memory overlap.
    #[inline]
    pub(crate) fn begin_all(&self, count: usize, hash: impl Fn(usize) -> u64) -> ([Search; TOGETHER], [u32; TOGETHER]) {
        let (mut searches, mut firsts) = ([Search::default(); TOGETHER], [NONE; TOGETHER]);
        for (place, search) in searches[..count].iter_mut().enumerate() {
            *search = self.begin(hash(place));
        }
        for (search, first) in searches[..count].iter_mut().zip(&mut firsts) {
            *first = self.next(search);
        }
        (searches, firsts)
    }

    /// Adds a slot.
    pub(crate) fn insert(&mut self, hash: u64, slot: u32) {
        if (self.taken + 1) * 8 > self.places.len() * 5 {
            self.resize((self.places.len() * 2).max(PLACES_MIN));
        }
        self.put(Place { tag: tag(hash), slot });
        self.taken += 1;
    }

    /// Where a slot of this hash is; `None` if it is not there.
    fn place_of(&self, hash: u64, slot: u32) -> Option<usize> {
        let mut at = self.home(tag(hash));
        loop {
            match self.places.get(at)?.slot {
                NONE => return None,
                found if found == slot => return Some(at),
                _ => at = self.after(at),
            }
        }
    }

    /// Removes a slot of this hash, which is there. `begun`: a search for the hash, which others may have overtaken since.
    pub(crate) fn remove(&mut self, hash: u64, slot: u32, begun: Search) {
        let is_there = self.places.get(begun.at).is_some_and(|place| place.slot == slot);
        let place = if is_there { Some(begun.at) } else { self.place_of(hash, slot) };
        let mut hole = place.expect("a slot with rows is found by its hash");
        let mut at = hole;
        loop {
            at = self.after(at);
            let place = self.places[at];
            if place.slot == NONE {
                break;
            }
            // It may move up to the hole if that is not before its home.
            let mask = self.places.len() - 1;
            let from_home = at.wrapping_sub(self.home(place.tag)) & mask;
            if from_home >= at.wrapping_sub(hole) & mask {
                self.places[hole] = place;
                hole = at;
            }
        }
        self.places[hole] = FREE;
        self.taken -= 1;
        if self.places.len() > PLACES_MIN && self.taken * 16 < self.places.len() {
            self.resize(self.places.len() / 2);
        }
    }

    fn put(&mut self, place: Place) {
        let mut at = self.home(place.tag);
        while self.places[at].slot != NONE {
            at = self.after(at);
        }
        self.places[at] = place;
    }

    fn resize(&mut self, places: usize) {
        let former = std::mem::replace(&mut self.places, vec![FREE; places]);
        former.into_iter().filter(|place| place.slot != NONE).for_each(|place| self.put(place));
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        tag as usize & self.places.len().wrapping_sub(1)
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.places.len() - 1)
    }
}

/// How far a search has come.
#[derive(Clone, Copy)]
pub(crate) struct Search {
    tag: u32,
    at: usize,
    place: Place,
}

impl Default for Search {
    fn default() -> Search {
        Search { tag: 0, at: 0, place: FREE }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn slots(heads: &Heads, hash: u64) -> BTreeSet<u32> {
        let mut search = heads.begin(hash);
        let mut found = BTreeSet::new();
        loop {
            match heads.next(&mut search) {
                NONE => return found,
                slot => assert!(found.insert(slot), "slot {slot} was found twice"),
            }
        }
    }

    #[test]
    fn it_is_as_a_list_of_pairs() {
        let mut heads = Heads::default();
        assert_eq!(slots(&heads, 7), BTreeSet::new());
        let mut kept: Vec<(u64, u32)> = Vec::new();
        let mut seed = 1_u64;
        for step in 0..40_000_u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Few hashes, so that many have several slots; it grows for a while, and shrinks for a while.
            let is_growing = (step / 4000) % 2 == 0;
            if kept.is_empty() || (seed >> 40) % 10 < if is_growing { 7 } else { 3 } {
                let hash = (seed >> 33) % 700 * 0x1_0000_0001;
                heads.insert(hash, step);
                kept.push((hash, step));
            } else {
                let (hash, slot) = kept.swap_remove((seed >> 33) as usize % kept.len());
                let begun = if step % 3 == 0 { heads.begin(hash) } else { heads.begin(u64::from(step)) };
                heads.remove(hash, slot, begun);
                assert_eq!(heads.place_of(hash, slot), None);
            }
            if step % 500 == 0 {
                for hash in kept.iter().map(|pair| pair.0).collect::<BTreeSet<u64>>() {
                    let wanted: BTreeSet<u32> = kept.iter().filter(|pair| pair.0 == hash).map(|pair| pair.1).collect();
                    let found: BTreeSet<u32> = slots(&heads, hash);
                    assert!(found.is_superset(&wanted), "hash {hash}: {found:?}, wanted {wanted:?}");
                    // Others may share the tag, and only what was kept is found.
                    assert!(found.iter().all(|slot| kept.iter().any(|pair| pair.1 == *slot)));
                }
            }
        }
        assert!(kept.len() > 100);
        for (hash, slot) in std::mem::take(&mut kept) {
            heads.remove(hash, slot, Search::default());
        }
        assert_eq!(heads.taken, 0);
        assert_eq!(heads.places.len(), PLACES_MIN);
    }
}
