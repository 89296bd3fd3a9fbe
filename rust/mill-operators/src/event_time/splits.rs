//! What is known of the splits a task reads.
//!
//! State in a snapshot, little-endian: `version u8 = 1 | instance u32 | instances u32 | (split u64, latest i64)*`.

use std::collections::HashMap;

use mill_frame::block::SharedBytes;
use mill_protocol::{Error, Result, SplitId};

const VERSION: u8 = 1;
const HEADER: usize = 9;
const ENTRY: usize = 16;

/// The splits of a task.
#[derive(Debug, Default)]
pub(super) struct Splits {
    known: HashMap<SplitId, Known>,
    /// The splits that are read or yet to be read; without it, behind an exchange, those that are known.
    open: Option<Vec<SplitId>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The latest event time, if it has given records.
    latest: Option<i64>,
    /// Whether it has given records since processing time was last looked at.
    is_active: bool,
    /// The processing time at which it was last known to be active.
    active_at: Option<i64>,
    is_idle: bool,
}

/// The least of the latest times.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Latest {
    /// Of all that count.
    Of(i64),
    /// One that counts has given nothing yet.
    Unknown,
    /// None counts: all are idle, or none is open.
    Idle,
}

impl Splits {
    /// The latest time of one split.
    pub(super) fn latest_of(&self, split: SplitId) -> Option<i64> {
        self.known.get(&split).and_then(|known| known.latest)
    }

    /// The split gave records up to this time.
    pub(super) fn saw(&mut self, split: SplitId, latest: i64) {
        let known = self.known.entry(split).or_default();
        known.latest = Some(latest);
        known.is_active = true;
        known.is_idle = false;
    }

    /// These splits are read or yet to be read; what is known of others is forgotten.
    pub(super) fn open(&mut self, open: &[SplitId]) {
        self.open = Some(open.to_vec());
        self.known.retain(|split, _| open.contains(split));
        for split in open {
            self.known.entry(*split).or_default();
        }
    }

    /// Processing time has come this far.
    pub(super) fn tick(&mut self, now: i64, idleness: i64) {
        for known in self.known.values_mut() {
            let since = known.active_at.filter(|_| !known.is_active).unwrap_or(now);
            known.is_active = false;
            known.active_at = Some(since);
            known.is_idle = now.saturating_sub(since) >= idleness;
        }
    }

    /// The least of the latest times of the splits that count.
    pub(super) fn latest(&self) -> Latest {
        let mut least = None;
        for known in self.known.values().filter(|known| !known.is_idle) {
            match known.latest {
                None => return Latest::Unknown,
                Some(latest) => least = Some(least.map_or(latest, |least: i64| least.min(latest))),
            }
        }
        match least {
            Some(least) => Latest::Of(least),
            // Behind an exchange nothing is known before the first record, and nothing is idle then.
            None if self.open.is_none() && self.known.is_empty() => Latest::Unknown,
            None => Latest::Idle,
        }
    }

    pub(super) fn encode(&self, index: usize, parallelism: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + ENTRY * self.known.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&(index as u32).to_le_bytes());
        bytes.extend_from_slice(&(parallelism as u32).to_le_bytes());
        for (split, known) in &self.known {
            if let Some(latest) = known.latest {
                bytes.extend_from_slice(&split.0.to_le_bytes());
                bytes.extend_from_slice(&latest.to_le_bytes());
            }
        }
        bytes
    }

    /// What the former instances knew. Which splits are open is told later.
    pub(super) fn decode(parts: &[SharedBytes], index: usize, parallelism: usize) -> Result<Splits> {
        let mut splits = Splits::default();
        for part in parts {
            let damaged = || Error::checkpoint(format!("the state of event_time() is damaged ({} bytes)", part.len()));
            if part.len() < HEADER || part[0] != VERSION || !(part.len() - HEADER).is_multiple_of(ENTRY) {
                return Err(damaged());
            }
            let is_own = number(&part[1..5]) == index as u64 && number(&part[5..9]) == parallelism as u64;
            for entry in part[HEADER..].chunks_exact(ENTRY) {
                let split = SplitId(number(&entry[..8]));
                let latest = number(&entry[8..]) as i64;
                // Records behind an exchange have no split; what this very instance had seen of them is its own.
                // Under another parallelism nobody's is, and the least is on the safe side: it holds time back.
                if split == SplitId::NONE && !is_own && number(&part[5..9]) == parallelism as u64 {
                    continue;
                }
                let known = splits.known.entry(split).or_default();
                known.latest = Some(known.latest.map_or(latest, |other| {
                    // An instance that was not told yet which splits are its own may still have what it was restored with,
                    // which is older than what the one that reads the split has seen since.
                    if split == SplitId::NONE { other.min(latest) } else { other.max(latest) }
                }));
            }
        }
        Ok(splits)
    }
}

/// A little-endian number of at most eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}
