//! Both kinds of sorted state against a `BTreeMap`, through snapshots, restores and other parallelisms.

use std::collections::BTreeMap;
use std::time::Instant;

use mill_frame::hash::{key_group, task_of_group};
use proptest::prelude::*;

use super::*;
use crate::table::tests::laid_out;
use crate::{MultiMap, OrderedTable};

/// A hash for a small number, whose key group is its high bits.
fn hash_of(key: u16) -> u64 {
    (u64::from(key) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A key for a number; some are long, one is empty.
fn key_of(key: u16) -> Vec<u8> {
    if key == 0 { Vec::new() } else { format!("{}{key}", "long ".repeat(usize::from(key % 5) * 7)).into_bytes() }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<(i64, u16, u8)>),
    Remove(Vec<(i64, u16)>),
    /// Rows that come out in order up to a time, or all entries of a key.
    Take(i64, usize),
    Snapshot(bool, bool),
    Restore(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let time = prop_oneof![-5i64..40, any::<i64>()];
    let row = (time, 0u16..60, any::<u8>());
    let step = prop_oneof![
        4 => proptest::collection::vec(row.clone(), 0..900).prop_map(Step::Insert),
        2 => proptest::collection::vec((-5i64..40, 0u16..60), 0..300).prop_map(Step::Remove),
        2 => (-5i64..40, prop_oneof![0usize..50, Just(usize::MAX)]).prop_map(|(time, rows)| Step::Take(time, rows)),
        3 => (proptest::bool::weighted(0.2), any::<bool>()).prop_map(|(is_full, is_late)| Step::Snapshot(is_full, is_late)),
        1 => (1usize..4).prop_map(Step::Restore),
    ];
    proptest::collection::vec(step, 1..25)
}

/// What a kind of state has to do to be tested; a row is (time, key, value), or (entry key, key, value).
trait Kind: Sized {
    fn new(groups: Range<u16>) -> Self;
    fn insert(&mut self, row: i64, key: u16, value: &[u8]) -> bool;
    fn remove(&mut self, row: i64, key: u16) -> bool;
    /// Takes rows out as the kind does, and the same of the model.
    fn take(tables: &mut [Self], model: &mut BTreeMap<(i64, u16), Vec<u8>>, step: (i64, usize));
    fn snapshot(&mut self, is_full: bool, out: &mut Blocks);
    fn restore(&mut self, blocks: &[RestoredBlock]) -> Result<()>;
    fn content(&self) -> BTreeMap<(i64, u16), Vec<u8>>;
    fn len(&self) -> usize;
}

fn keys() -> BTreeMap<Vec<u8>, u16> {
    (0..60).map(|key| (key_of(key), key)).collect()
}

impl Kind for OrderedTable {
    fn new(groups: Range<u16>) -> Self {
        OrderedTable::new(groups, 5, "test")
    }
    fn insert(&mut self, row: i64, key: u16, value: &[u8]) -> bool {
        self.insert(row, hash_of(key), &key_of(key), value).unwrap()
    }
    fn remove(&mut self, row: i64, key: u16) -> bool {
        self.remove(row, hash_of(key), &key_of(key))
    }
    fn take(tables: &mut [Self], model: &mut BTreeMap<(i64, u16), Vec<u8>>, (time, rows_max): (i64, usize)) {
        let (keys, count) = (keys(), tables.len());
        for (index, table) in tables.iter_mut().enumerate() {
            let taken = table.pop_until(time, rows_max);
            let mut due: Vec<(i64, Vec<u8>, u16)> = model
                .keys()
                .filter(|(at, key)| *at <= time && task_of_group(key_group(hash_of(*key)), count) == index)
                .map(|&(at, key)| (at, key_of(key), key))
                .collect();
            due.sort();
            due.truncate(rows_max);
            let found: Vec<(i64, Vec<u8>, u16)> =
                taken.iter().map(|row| (row.time, row.key.to_vec(), keys[row.key])).collect();
            assert_eq!(found, due);
            assert_eq!(taken.len(), due.len());
            for (row, (at, _, key)) in taken.iter().zip(due) {
                assert_eq!(model.remove(&(at, key)).as_deref(), Some(row.value));
            }
            assert!(table.first_time().is_none_or(|first| first > time || taken.len() == rows_max));
        }
    }
    fn snapshot(&mut self, is_full: bool, out: &mut Blocks) {
        self.snapshot(is_full, out);
    }
    fn restore(&mut self, blocks: &[RestoredBlock]) -> Result<()> {
        self.restore(blocks)
    }
    fn content(&self) -> BTreeMap<(i64, u16), Vec<u8>> {
        let mut content = BTreeMap::new();
        for key in 0..60 {
            let groups = self.groups();
            if groups.contains(&key_group(hash_of(key))) {
                let text = key_of(key);
                let rows: Vec<_> = self.range_of(hash_of(key), &text, i64::MIN..i64::MAX).collect();
                assert!(rows.is_sorted_by(|a, b| a.time < b.time));
                for row in rows {
                    assert_eq!(self.get(row.time, hash_of(key), &text), Some(row.value));
                    content.insert((row.time, key), row.value.to_vec());
                }
            }
        }
        content
    }
    fn len(&self) -> usize {
        self.len()
    }
}

/// Bytes that sort as the number does.
fn entry_of(row: i64) -> [u8; 8] {
    (row as u64 ^ 1 << 63).to_be_bytes()
}

impl Kind for MultiMap {
    fn new(groups: Range<u16>) -> Self {
        MultiMap::new(groups, 5, "test")
    }
    fn insert(&mut self, row: i64, key: u16, value: &[u8]) -> bool {
        self.insert(hash_of(key), &key_of(key), &entry_of(row), value).unwrap()
    }
    fn remove(&mut self, row: i64, key: u16) -> bool {
        self.remove(hash_of(key), &key_of(key), &entry_of(row))
    }
    fn take(tables: &mut [Self], model: &mut BTreeMap<(i64, u16), Vec<u8>>, (row, _): (i64, usize)) {
        let key = row.unsigned_abs() as u16;
        let index = task_of_group(key_group(hash_of(key)), tables.len());
        let before = model.len();
        model.retain(|&(_, other), _| other != key);
        assert_eq!(tables[index].remove_all(hash_of(key), &key_of(key)), before - model.len());
    }
    fn snapshot(&mut self, is_full: bool, out: &mut Blocks) {
        self.snapshot(is_full, out);
    }
    fn restore(&mut self, blocks: &[RestoredBlock]) -> Result<()> {
        self.restore(blocks)
    }
    fn content(&self) -> BTreeMap<(i64, u16), Vec<u8>> {
        let mut content = BTreeMap::new();
        for key in 0..60 {
            let groups = self.groups();
            if groups.contains(&key_group(hash_of(key))) {
                let text = key_of(key);
                let entries: Vec<_> = self.entries(hash_of(key), &text).collect();
                assert!(entries.is_sorted_by(|a, b| a.key < b.key));
                for entry in entries {
                    assert_eq!(self.get(hash_of(key), &text, entry.key), Some(entry.value));
                    let row = (u64::from_be_bytes(entry.key.try_into().unwrap()) ^ 1 << 63) as i64;
                    content.insert((row, key), entry.value.to_vec());
                }
            }
        }
        content
    }
    fn len(&self) -> usize {
        self.len()
    }
}

fn tables<K: Kind>(count: usize) -> Vec<K> {
    (0..count).map(|index| K::new(mill_frame::hash::groups_of_task(index, count))).collect()
}

/// Runs the steps against the model; every state is compared after each.
fn is_a_map<K: Kind>(steps: Vec<Step>) {
    let mut tables: Vec<K> = tables(1);
    let (mut model, mut durable) = (BTreeMap::<(i64, u16), Vec<u8>>::new(), BTreeMap::new());
    let (mut chain, mut late) = (Vec::<RestoredBlock>::new(), Vec::<Blocks>::new());
    let make = |late: &mut Vec<Blocks>| -> Vec<RestoredBlock> {
        late.drain(..).flat_map(Blocks::make).map(|block| laid_out(&block)).collect()
    };
    for step in steps {
        let count = tables.len();
        let task = |key: u16| task_of_group(key_group(hash_of(key)), count);
        match step {
            Step::Insert(rows) => {
                for (row, key, length) in rows {
                    let row = row.min(i64::MAX - 1);
                    let value = vec![length; usize::from(length % 32)];
                    let is_new = model.insert((row, key), value.clone()).is_none();
                    assert_eq!(tables[task(key)].insert(row, key, &value), is_new);
                }
            }
            Step::Remove(rows) => {
                for (row, key) in rows {
                    assert_eq!(tables[task(key)].remove(row, key), model.remove(&(row, key)).is_some());
                }
            }
            Step::Take(row, rows_max) => K::take(&mut tables, &mut model, (row, rows_max)),
            Step::Snapshot(is_full, is_late) => {
                if is_full {
                    (chain, late) = Default::default();
                }
                for table in &mut tables {
                    let mut blocks = Blocks::default();
                    table.snapshot(is_full, &mut blocks);
                    late.push(blocks);
                }
                if !is_late {
                    chain.extend(make(&mut late));
                }
                durable = model.clone();
            }
            Step::Restore(count) => {
                chain.extend(make(&mut late));
                tables = self::tables(count);
                tables.iter_mut().for_each(|table| table.restore(&chain).unwrap());
                model = durable.clone();
            }
        }
        let mut content = BTreeMap::new();
        tables.iter().for_each(|table| content.extend(table.content()));
        assert_eq!(content, model);
        assert_eq!(tables.iter().map(Kind::len).sum::<usize>(), model.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 120 }))]

    #[test]
    fn ordered_rows_are_a_map_through_snapshots_and_rescaling(steps in steps()) {
        is_a_map::<OrderedTable>(steps);
    }

    #[test]
    fn a_multimap_is_a_map_through_snapshots_and_rescaling(steps in steps()) {
        is_a_map::<MultiMap>(steps);
    }
}

#[test]
fn a_million_timers_fire_in_order_and_soon() {
    const COUNT: u64 = if cfg!(miri) { 2000 } else { 1_000_000 };
    let mut timers = OrderedTable::new(0..128, 0, "timers");
    for number in 0..COUNT {
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        timers.insert((mixed >> 20) as i64, mixed, &number.to_le_bytes(), b"").unwrap();
    }
    assert_eq!(timers.len() as u64, COUNT);
    // Eight bytes of time, eight of key: what there is besides is at most as much again, and half of the leaves are halves.
    assert!((timers.memory() as u64) < COUNT * 120, "{} bytes a row", timers.memory() as u64 / COUNT);
    let start = Instant::now();
    let (mut popped, mut last) = (0, (i64::MIN, Vec::new()));
    loop {
        let rows = timers.pop_until(i64::MAX, 50_000);
        if rows.is_empty() {
            break;
        }
        for row in rows.iter() {
            let next = (row.time, row.key.to_vec());
            assert!(next > last);
            (last, popped) = (next, popped + 1);
        }
    }
    println!("popped {popped} in {:?}", start.elapsed());
    assert_eq!(popped, COUNT);
    assert!(timers.is_empty() && timers.memory() < 64 << 10, "{} bytes of nothing", timers.memory());
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

/// A new key a step, an old one gone a step: neither memory nor the snapshots grow.
#[test]
fn rows_that_come_and_go_leave_nothing() {
    fn bytes(blocks: Blocks) -> usize {
        blocks.make().iter().map(|block| block.payload.size()).sum()
    }
    let mut timers = OrderedTable::new(0..128, 0, "timers");
    let mut lists = MultiMap::new(0..128, 1, "lists");
    let (mut memory, mut written) = (Vec::new(), Vec::new());
    for round in 0..if cfg!(miri) { 3u64 } else { 60 } {
        for number in 0..500u64 {
            let name = |round: u64| format!("a key of some length {}", round * 500 + number).into_bytes();
            let hash = |round: u64| (round * 500 + number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            timers.insert((round * 500 + number) as i64, hash(round), &name(round), b"value").unwrap();
            lists.push(hash(round), &name(round), b"first").unwrap();
            lists.push(hash(round), &name(round), b"second").unwrap();
            if let Some(old) = round.checked_sub(10) {
                assert_eq!(lists.remove_all(hash(old), &name(old)), 2);
            }
        }
        timers.pop_until((round as i64 - 10) * 500, usize::MAX);
        let mut blocks = Blocks::default();
        timers.snapshot(false, &mut blocks);
        lists.snapshot(false, &mut blocks);
        memory.push(timers.memory() + lists.memory());
        written.push(bytes(blocks));
    }
    if !cfg!(miri) {
        let (early, end) = (memory[15..20].iter().max().unwrap(), memory[55..].iter().max().unwrap());
        assert!(end * 10 < early * 13, "{memory:?}");
        let (early, end) = (written[15..20].iter().max().unwrap(), written[55..].iter().max().unwrap());
        assert!(end * 10 < early * 13, "{written:?}");
        // A snapshot is about what changed, a tenth of what is there.
        let mut all = Blocks::default();
        timers.snapshot(true, &mut all);
        lists.snapshot(true, &mut all);
        let all = bytes(all);
        assert!(*end < all / 3, "{end} of {all}");
    }
}

#[test]
fn damaged_blocks_of_sorted_rows_are_errors_or_other_rows() {
    let mut table = OrderedTable::new(0..128, 0, "timers");
    let mut snapshot = |change: &dyn Fn(&mut OrderedTable)| -> Vec<RestoredBlock> {
        change(&mut table);
        let mut blocks = Blocks::default();
        table.snapshot(false, &mut blocks);
        blocks.make().iter().map(laid_out).collect()
    };
    let full = snapshot(&|table| {
        for time in 0..200 {
            table.insert(time, 3, format!("key {time}").as_bytes(), b"value").unwrap();
        }
    });
    let rows = snapshot(&|table| {
        table.insert(70, 3, b"key", b"").unwrap();
        table.remove(90, 3, b"key 90");
        assert_eq!(table.pop_until(5, 3).len(), 3);
    });
    assert_eq!((full.len(), full[0].kind, rows.len(), rows[0].kind), (1, BlockKind::Full, 1, BlockKind::Rows));
    assert!(rows[0].bytes.len() < 120);
    let restore = |blocks: &[RestoredBlock]| {
        let mut table = OrderedTable::new(0..128, 0, "timers");
        table.restore(blocks).map(|()| table)
    };
    assert_eq!(restore(&[full[0].clone(), rows[0].clone()]).unwrap().len(), 197);
    assert!(restore(&rows).is_err(), "changes without what they change");
    assert!(restore(&[full[0].clone(), rows[0].clone(), rows[0].clone()]).is_err(), "a row that is gone is removed");
    for (block, before) in [(&full[0], None), (&rows[0], Some(&full[0]))] {
        let damaged = |bytes: Vec<u8>| {
            let block = RestoredBlock { bytes: bytes.into(), ..block.clone() };
            restore(&before.into_iter().cloned().chain([block]).collect::<Vec<_>>())
        };
        for length in 0..block.bytes.len() {
            assert!(damaged(block.bytes[..length].to_vec()).is_err(), "cut to {length}");
        }
        for bit in 0..block.bytes.len() * 8 {
            let mut bytes = block.bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(mut table) = damaged(bytes) {
                table.pop_until(i64::MAX, usize::MAX);
            }
        }
    }
    let error = OrderedTable::new(0..128, 0, "deadlines").restore(&full).unwrap_err();
    assert!(matches!(error, StateError::Layout { .. }), "{error}");
    let error = crate::MultiMap::new(0..128, 0, "timers").restore(&full).unwrap_err();
    assert!(matches!(error, StateError::Layout { .. }), "{error}");
}
