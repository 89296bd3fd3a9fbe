//! DDSketch: counts of values in buckets whose bounds grow by a fixed factor, so that a quantile is found within one
//! percent of its value.
//!
//! The bytes are buckets in order of their values: a key of 4 bytes and a count of 8. A finite value `v > 0` has the key
//! `ceil(log(v) / log(GAMMA))` shifted to be positive, a negative one the negative of its mirror image; zero has key 0;
//! infinities and NaN are outside of all. There are at most some 150,000 buckets whatever the values.
//!
//! From: C. Masson, J. E. Rim, H. K. Lee, DDSketch: a fast and fully-mergeable quantile sketch with relative-error
//! guarantees (VLDB 2019).

const ACCURACY: f64 = 0.01;
const GAMMA: f64 = (1.0 + ACCURACY) / (1.0 - ACCURACY);
const ENTRY: usize = 12;
/// Added to the keys of positive values: more than the smallest float's logarithm.
const SHIFT: i32 = 1 << 16;
const INFINITE: i32 = i32::MAX - 1;
const NAN: i32 = i32::MAX;

fn key_of(value: f64) -> i32 {
    let positive = |value: f64| (value.ln() / GAMMA.ln()).ceil() as i32 + SHIFT;
    match value {
        _ if value.is_nan() => NAN,
        f64::INFINITY => INFINITE,
        f64::NEG_INFINITY => -INFINITE,
        0.0 => 0,
        _ if value > 0.0 => positive(value),
        _ => -positive(-value),
    }
}

fn value_of(key: i32) -> f64 {
    // The middle of the bucket, as far from either bound in proportion.
    let positive = |key: i32| ((f64::from(key - SHIFT) * GAMMA.ln()).exp() * 2.0 / (GAMMA + 1.0)).min(f64::MAX);
    match key {
        NAN => f64::NAN,
        INFINITE => f64::INFINITY,
        0 => 0.0,
        _ if key == -INFINITE => f64::NEG_INFINITY,
        _ if key > 0 => positive(key),
        _ => -positive(key.saturating_neg()),
    }
}

fn entry(bytes: &[u8], at: usize) -> (i32, u64) {
    let (key, count) = bytes[at * ENTRY..][..ENTRY].split_at(4);
    let key = i32::from_le_bytes(key.try_into().expect("four bytes were split off"));
    (key, u64::from_le_bytes(count.try_into().expect("eight bytes are left")))
}

fn entry_of(key: i32, count: u64) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..4].copy_from_slice(&key.to_le_bytes());
    entry[4..].copy_from_slice(&count.to_le_bytes());
    entry
}

/// Takes a value in.
pub(super) fn add(cell: &mut Vec<u8>, value: f64) {
    put(cell, key_of(value), 1);
}

/// The sketch of one value.
pub(super) fn single(value: f64) -> [u8; ENTRY] {
    entry_of(key_of(value), 1)
}

/// Takes in what another sketch has taken in.
pub(super) fn merge(cell: &mut Vec<u8>, other: &[u8]) {
    let (own, others) = (cell.len() / ENTRY, other.len() / ENTRY);
    if others <= 1 {
        (0..others).map(|at| entry(other, at)).for_each(|(key, count)| put(cell, key, count));
        return;
    }
    let mut merged = Vec::with_capacity((own + others) * ENTRY);
    let (mut at, mut other_at) = (0, 0);
    while at < own || other_at < others {
        let (key, other_key) = ((at < own).then(|| entry(cell, at)), (other_at < others).then(|| entry(other, other_at)));
        let least = key.iter().chain(&other_key).map(|(key, _)| *key).min().expect("one of them has an entry");
        let own_count = key.filter(|(key, _)| *key == least).map(|(_, count)| count);
        let other_count = other_key.filter(|(key, _)| *key == least).map(|(_, count)| count);
        (at, other_at) = (at + usize::from(own_count.is_some()), other_at + usize::from(other_count.is_some()));
        merged.extend(entry_of(least, own_count.unwrap_or(0).saturating_add(other_count.unwrap_or(0))));
    }
    *cell = merged;
}

/// Adds to the count of a bucket.
fn put(cell: &mut Vec<u8>, key: i32, more: u64) {
    let (mut low, mut high) = (0, cell.len() / ENTRY);
    while low < high {
        let middle = low.midpoint(high);
        if entry(cell, middle).0 < key { low = middle + 1 } else { high = middle }
    }
    let at = low * ENTRY;
    if at < cell.len() && entry(cell, low).0 == key {
        let count = entry(cell, low).1.saturating_add(more);
        cell[at + 4..at + ENTRY].copy_from_slice(&count.to_le_bytes());
        return;
    }
    cell.splice(at..at, entry_of(key, more));
}

/// The value below which this share of the values lies.
pub(super) fn quantile(cell: &[u8], at: f64) -> Option<f64> {
    let entries = cell.len() / ENTRY;
    let total: u64 = (0..entries).map(|place| entry(cell, place).1).fold(0, u64::saturating_add);
    let rank = at.clamp(0.0, 1.0) * total.checked_sub(1)? as f64;
    let mut below = 0u64;
    for place in 0..entries {
        let (key, count) = entry(cell, place);
        below = below.saturating_add(count);
        if below as f64 > rank {
            return Some(value_of(key));
        }
    }
    None
}
