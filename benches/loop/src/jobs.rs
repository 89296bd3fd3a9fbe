//! The jobs as plain loops over columns; each gives its whole result.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

const WINDOW_MS: i64 = 10_000;

/// One multiplication: integer keys need no more.
#[derive(Default)]
pub struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64(bytes);
    }
    fn write_i64(&mut self, value: i64) {
        let product = u128::from(value as u64 ^ self.0) * 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
}

pub type Map<K, V> = HashMap<K, V, BuildHasherDefault<Folded>>;

/// The highest price of a key's bids in a window, and how many there are.
pub struct Window {
    pub auction: i64,
    pub start_ms: i64,
    pub count: i64,
    pub top: i64,
}

/// Scales whole prices.
pub fn map(price: &[i64]) -> Vec<f64> {
    price.iter().map(|price| *price as f64 * 0.908).collect()
}

/// Keeps the bids on every 123rd auction.
pub fn filter(auction: &[i64], price: &[i64]) -> Vec<(i64, i64)> {
    let pairs = auction.iter().zip(price);
    pairs.filter(|(auction, _)| *auction % 123 == 0).map(|(auction, price)| (*auction, *price)).collect()
}

/// Counts and sums by key.
pub fn keyed(auction: &[i64], price: &[i64]) -> Map<i64, (i64, i64)> {
    let mut sums: Map<i64, (i64, i64)> = Map::default();
    for (auction, price) in auction.iter().zip(price) {
        let entry = sums.entry(*auction).or_default();
        entry.0 += 1;
        entry.1 += price;
    }
    sums
}

/// Counts by key and window, with the highest price; times come in order.
pub fn window(auction: &[i64], price: &[i64], at_ms: &[i64]) -> Vec<Window> {
    let mut open: Map<i64, (i64, i64)> = Map::default();
    let mut closed = Vec::new();
    let mut current = at_ms.first().map_or(0, |at| at.div_euclid(WINDOW_MS));
    let mut close = |open: &mut Map<i64, (i64, i64)>, window: i64| {
        let start_ms = window * WINDOW_MS;
        closed.extend(open.drain().map(|(auction, (count, top))| Window { auction, start_ms, count, top }));
    };
    for ((auction, price), at) in auction.iter().zip(price).zip(at_ms) {
        let window = at.div_euclid(WINDOW_MS);
        if window != current {
            close(&mut open, current);
            current = window;
        }
        let entry = open.entry(*auction).or_insert((0, i64::MIN));
        entry.0 += 1;
        entry.1 = entry.1.max(*price);
    }
    close(&mut open, current);
    closed
}

/// Counts words of letters and apostrophes, in lower case.
pub fn words(text: &[u8]) -> Map<Box<[u8]>, i64> {
    let mut counts: Map<Box<[u8]>, i64> = Map::default();
    let mut word = Vec::new();
    for &byte in text.iter().chain(b" ") {
        let byte = byte.to_ascii_lowercase();
        if byte.is_ascii_lowercase() || byte == b'\'' {
            word.push(byte);
        } else if !word.is_empty() {
            match counts.get_mut(word.as_slice()) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(word.as_slice().into(), 1);
                }
            }
            word.clear();
        }
    }
    counts
}

/// Counts and sums by the first column of lines of numbers, with the price in the third; one line of names comes first.
pub fn csv(text: &[u8]) -> Map<i64, (i64, i64)> {
    let mut sums: Map<i64, (i64, i64)> = Map::default();
    for line in text.split(|&byte| byte == b'\n').skip(1).filter(|line| !line.is_empty()) {
        let mut fields = line.split(|&byte| byte == b',').map(number);
        let (Some(auction), Some(price)) = (fields.next(), fields.nth(1)) else { continue };
        let entry = sums.entry(auction).or_default();
        entry.0 += 1;
        entry.1 += price;
    }
    sums
}

fn number(field: &[u8]) -> i64 {
    field.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'))
}
