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

/// Takes a value in.
pub(super) fn add(cell: &mut Vec<u8>, value: f64) {
    let key = key_of(value);
    let (mut low, mut high) = (0, cell.len() / ENTRY);
    while low < high {
        let middle = low.midpoint(high);
        if entry(cell, middle).0 < key { low = middle + 1 } else { high = middle }
    }
    let at = low * ENTRY;
    if at < cell.len() && entry(cell, low).0 == key {
        let count = entry(cell, low).1.saturating_add(1);
        cell[at + 4..at + ENTRY].copy_from_slice(&count.to_le_bytes());
        return;
    }
    cell.splice(at..at, key.to_le_bytes().into_iter().chain(1u64.to_le_bytes()));
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
