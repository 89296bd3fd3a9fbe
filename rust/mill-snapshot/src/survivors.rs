//! Which blocks of a chain of segments still count.
//!
//! Blocks are visited from the newest to the oldest, and each is kept unless a newer one supersedes it:
//!
//! | newer block | settles |
//! | --- | --- |
//! | `Full`, `Drop` of an address | older blocks of that address |
//! | `DropTable` of a namespace of a state by a task | older blocks of both in the key groups that task owned |
//! | the operator's `since` | blocks of checkpoints before it: they are of a former operator of that name |
//!
//! The remaining blocks are returned oldest first: for every address at most one `Full` and then `Rows`. `Drop` blocks have
//! taken effect and are left out, unless the chain does not begin at the beginning.
//!
//! A gigabyte of state has some sixty thousand blocks, and a job waits for this before its first record: so names become
//! numbers first, and a block costs one look into a table of hashes.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use mill_frame::block::{BlockAddress, BlockKind};

use crate::segment::{Class, Segment, StoredBlock};

/// What still counts of a chain.
pub(crate) struct Survivors<'a> {
    /// The operators that occur in the chain.
    pub operators: Vec<&'a str>,
    /// Their blocks, oldest first.
    pub blocks: Vec<Survivor<'a>>,
}

/// A block that counts.
pub(crate) struct Survivor<'a> {
    pub segment: &'a Segment,
    pub block: &'a StoredBlock,
    /// Its place in the list of operators.
    pub operator: usize,
}

/// Looks through a chain, oldest segment first. `keeps_marks`: marks of what was dropped count too. `since`: the first
/// checkpoint that counts for an operator.
pub(crate) fn survivors<'a>(chain: &'a [Segment], keeps_marks: bool, since: impl Fn(&str) -> u64) -> Survivors<'a> {
    let mut operators: Vec<&'a str> = Vec::new();
    let mut places: HashMap<&'a str, usize> = HashMap::new();
    let mut settled: HashSet<(usize, BlockAddress), BuildHasherDefault<AddressHasher>> = HashSet::default();
    let mut dropped: HashMap<(usize, u16, i64), Vec<Range<u16>>> = HashMap::new();
    let mut kept = Vec::with_capacity(chain.iter().map(|segment| segment.blocks.len()).sum());
    for segment in chain.iter().rev() {
        let numbered: HashMap<u16, (usize, u64), BuildHasherDefault<AddressHasher>> = segment
            .operators()
            .map(|(number, uid)| {
                let place = *places.entry(uid).or_insert_with(|| {
                    operators.push(uid);
                    operators.len() - 1
                });
                (number, (place, since(uid)))
            })
            .collect();
        settled.reserve(segment.blocks.len());
        for block in segment.blocks.iter().rev() {
            let header = &block.header;
            let (operator, since) = numbered[&header.operator];
            if header.epoch < since {
                continue;
            }
            let survivor = Survivor { segment, block, operator };
            if header.class != Class::Keyed {
                kept.push(survivor);
                continue;
            }
            let address = header.address;
            if header.kind == BlockKind::DropTable {
                dropped.entry((operator, address.state, address.namespace)).or_default().push(segment.task(block).groups());
                if keeps_marks {
                    kept.push(survivor);
                }
                continue;
            }
            let is_dropped = || {
                let ranges = dropped.get(&(operator, address.state, address.namespace));
                ranges.is_some_and(|ranges| ranges.iter().any(|groups| groups.contains(&address.group)))
            };
            if !dropped.is_empty() && is_dropped() {
                continue;
            }
            let is_new = match header.kind {
                BlockKind::Rows => !settled.contains(&(operator, address)),
                _ => settled.insert((operator, address)),
            };
            if !is_new {
                continue;
            }
            if header.kind != BlockKind::Drop || keeps_marks {
                kept.push(survivor);
            }
        }
    }
    kept.reverse();
    Survivors { operators, blocks: kept }
}

/// Mixes small numbers: addresses are not chosen by anybody who wants them to collide.
#[derive(Default)]
struct AddressHasher(u64);

impl AddressHasher {
    fn mix(&mut self, value: u64) {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        self.0 = (self.0 ^ value).wrapping_mul(ODD).rotate_left(29);
    }
}

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.mix(u64::from(byte)));
    }
    fn write_u16(&mut self, value: u16) {
        self.mix(u64::from(value));
    }
    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }
    fn write_i64(&mut self, value: i64) {
        self.mix(value as u64);
    }
    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}
