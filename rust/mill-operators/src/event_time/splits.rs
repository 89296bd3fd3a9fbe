//! What is known of the splits a task reads.
//!
//! State in a snapshot, little-endian:
//! `version u8 = 2 | instance u32 | instances u32 | emitted i64 | greatest i64 | (split u64, latest i64)*`.
//! Version 1 had neither `emitted` nor `greatest`.

use std::collections::{HashMap, HashSet};

use mill_frame::block::SharedBytes;
use mill_protocol::{Error, Result, SplitId};

const VERSION: u8 = 2;
/// Up to where both versions are the same.
const HEADER: usize = 9;
const ENTRY: usize = 16;

/// The splits of a task.
#[derive(Debug, Default)]
pub(super) struct Splits {
    known: HashMap<SplitId, Known>,
    /// The greatest time of any split, finished ones included.
    greatest: Option<i64>,
    /// Whether it is known which splits are open; never so after an exchange.
    is_told: bool,
    /// How long there has been no open split.
    empty: Asked,
    /// The least of the latest times, as it was last computed; `None` when something has changed since.
    least: Option<i64>,
    /// The split that this is the time of, or one that has had no records, as of the last call of [`latest`](Splits::latest).
    holder: Option<SplitId>,
    /// When [`tick`](Splits::tick) has something to do, at the earliest.
    deadline: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The latest event time, if it has had records.
    latest: Option<i64>,
    asked: Asked,
}

/// Whether a split has nothing to give, and since when (processing time).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Asked {
    /// It has had records when it was last asked, or was never asked.
    #[default]
    No,
    /// It had none, and it is not known yet what time it is.
    InVain,
    /// It has had none since then.
    InVainSince(i64),
    /// For so long that it does not count.
    Idle,
}

/// The least of the latest times.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Latest {
    /// Of all that count.
    Of(i64),
    /// One that counts has given nothing yet.
    Unknown,
    /// No split is open.
    Empty,
    /// None counts: all are idle.
    Idle,
}

impl Asked {
    /// Processing time has come this far.
    fn tick(&mut self, now: i64, idleness: i64) {
        match *self {
            Asked::InVain => *self = Asked::InVainSince(now),
            // Time that went back is begun anew.
            Asked::InVainSince(since) if since > now => *self = Asked::InVainSince(now),
            Asked::InVainSince(since) if now - since >= idleness => *self = Asked::Idle,
            _ => {}
        }
    }

    fn deadline(self, idleness: i64) -> Option<i64> {
        match self {
            Asked::InVain => Some(i64::MIN),
            Asked::InVainSince(since) => Some(since.saturating_add(idleness)),
            Asked::No | Asked::Idle => None,
        }
    }
}

impl Splits {
    /// The latest time of one split.
    pub(super) fn latest_of(&self, split: SplitId) -> Option<i64> {
        self.known.get(&split).and_then(|known| known.latest)
    }

    /// The greatest time of any split.
    pub(super) fn greatest(&self) -> Option<i64> {
        self.greatest
    }

    /// The split gave records up to this time.
    pub(super) fn saw(&mut self, split: SplitId, latest: i64) {
        let known = self.known.entry(split).or_default();
        let is_least_the_same = known.asked != Asked::Idle && known.latest.is_some() && known.latest > self.least;
        if !is_least_the_same {
            self.least = None;
        }
        known.latest = Some(latest);
        // After an exchange nobody says that there are no records: all time without them is such.
        known.asked = if self.is_told { Asked::No } else { Asked::InVain };
        if !self.is_told {
            self.deadline = Some(i64::MIN);
        }
        self.greatest = self.greatest.max(Some(latest));
    }

    /// These splits are read or yet to be read; what is known of others is forgotten. Returns whether it is the first time.
    pub(super) fn open(&mut self, open: &[SplitId]) -> bool {
        self.least = None;
        let now_open: HashSet<SplitId> = open.iter().copied().collect();
        self.known.retain(|split, _| now_open.contains(split));
        for split in open {
            self.known.entry(*split).or_default();
        }
        if !open.is_empty() {
            self.empty = Asked::No;
        } else if self.empty == Asked::No {
            self.empty = Asked::InVain;
            self.deadline = Some(i64::MIN);
        }
        !std::mem::replace(&mut self.is_told, true)
    }

    /// The split was asked for records and had none.
    pub(super) fn is_asked_in_vain(&mut self, split: SplitId) {
        if let Some(known) = self.known.get_mut(&split)
            && known.asked == Asked::No
        {
            known.asked = Asked::InVain;
            self.deadline = Some(i64::MIN);
        }
    }

    /// The split has nothing, and need not be waited for until it has something again.
    pub(super) fn is_idle(&mut self, split: SplitId) {
        if let Some(known) = self.known.get_mut(&split) {
            known.asked = Asked::Idle;
            self.least = None;
        }
    }

    /// When [`tick`](Splits::tick) has something to do, at the earliest.
    pub(super) fn deadline(&self) -> Option<i64> {
        self.deadline
    }

    /// Processing time has come this far.
    pub(super) fn tick(&mut self, now: i64, idleness: i64) {
        self.least = None;
        self.empty.tick(now, idleness);
        for known in self.known.values_mut() {
            known.asked.tick(now, idleness);
        }
        let asked = self.known.values().map(|known| known.asked).chain([self.empty]);
        self.deadline = asked.filter_map(|asked| asked.deadline(idleness)).min();
    }

    /// The least of the latest times of the splits that count.
    pub(super) fn latest(&mut self) -> Latest {
        if let Some(least) = self.least {
            return Latest::Of(least);
        }
        self.holder = None;
        if self.known.is_empty() {
            return match self.is_told {
                // After an exchange nothing is known before the first record, and nothing is idle then.
                false => Latest::Unknown,
                true if self.empty == Asked::Idle => Latest::Idle,
                true => Latest::Empty,
            };
        }
        let mut least: Option<(i64, SplitId)> = None;
        for (&split, known) in self.known.iter().filter(|(_, known)| known.asked != Asked::Idle) {
            let Some(latest) = known.latest else {
                self.holder = Some(split);
                return Latest::Unknown;
            };
            if least.is_none_or(|(other, _)| latest < other) {
                least = Some((latest, split));
            }
        }
        self.least = least.map(|(latest, _)| latest);
        self.holder = least.map(|(_, split)| split);
        self.least.map_or(Latest::Idle, Latest::Of)
    }

    /// The split that holds the others back, and its latest time, as of the last call of [`latest`](Splits::latest).
    pub(super) fn holder(&self) -> Option<(SplitId, Option<i64>)> {
        self.holder.map(|split| (split, self.latest_of(split)))
    }

    pub(super) fn encode(&self, index: usize, parallelism: usize, emitted: i64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + 16 + ENTRY * self.known.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&(index as u32).to_le_bytes());
        bytes.extend_from_slice(&(parallelism as u32).to_le_bytes());
        bytes.extend_from_slice(&emitted.to_le_bytes());
        bytes.extend_from_slice(&self.greatest.unwrap_or(i64::MIN).to_le_bytes());
        for (split, known) in &self.known {
            if let Some(latest) = known.latest {
                bytes.extend_from_slice(&split.0.to_le_bytes());
                bytes.extend_from_slice(&latest.to_le_bytes());
            }
        }
        bytes
    }

    /// What the former instances knew, and the least watermark that any had sent. Which splits are open is told later.
    pub(super) fn decode(parts: &[SharedBytes], index: usize, parallelism: usize) -> Result<(Splits, i64)> {
        let mut splits = Splits::default();
        let mut emitted = None;
        for part in parts {
            let damaged = || Error::checkpoint(format!("the state of event_time() is damaged ({} bytes)", part.len()));
            let header = match part.first() {
                Some(1) => HEADER,
                Some(&VERSION) => HEADER + 16,
                _ => return Err(damaged()),
            };
            if part.len() < header || !(part.len() - header).is_multiple_of(ENTRY) {
                return Err(damaged());
            }
            let of_part = if header == HEADER { i64::MIN } else { number(&part[HEADER..HEADER + 8]) as i64 };
            // An instance that had ended holds nobody back.
            if of_part < i64::MAX {
                emitted = Some(emitted.map_or(of_part, |least: i64| least.min(of_part)));
            }
            if header > HEADER {
                let greatest = number(&part[HEADER + 8..header]) as i64;
                splits.greatest = splits.greatest.max(Some(greatest).filter(|&greatest| greatest > i64::MIN));
            }
            let is_own = number(&part[1..5]) == index as u64 && number(&part[5..9]) == parallelism as u64;
            for entry in part[header..].chunks_exact(ENTRY) {
                let split = SplitId(number(&entry[..8]));
                let latest = number(&entry[8..]) as i64;
                splits.greatest = splits.greatest.max(Some(latest));
                // Records after an exchange have no split; what this very instance had seen of them is its own.
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
        Ok((splits, emitted.unwrap_or(i64::MIN)))
    }
}

/// A little-endian number of at most eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}
