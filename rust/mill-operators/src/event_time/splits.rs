//! What is known of the splits a task reads.
//!
//! State in a snapshot, little-endian:
//!
//! ```text
//!   "MILLTIME" | version u8 = 3 | instance u32 | instances u32 | emitted i64 | greatest i64
//!   is_told u8     | marks u32    | (split u64, mark i64)*
//!                  | states u32   | (split u64, bytes u32, what the generator of the split needs)*
//! ```
//!
//! Versions 1 and 2 did not begin with that word, and ended with marks up to the end; version 1 had neither `emitted` nor
//! `greatest`.

use std::collections::{HashMap, HashSet};

use mill_frame::block::SharedBytes;
use mill_protocol::{Error, Result, SplitId};

/// What the state begins with.
const MAGIC: &[u8; 8] = b"MILLTIME";
const VERSION: u8 = 3;

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
    /// Its mark: the latest event time or the watermark, once there is one.
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
    /// One that counts has had no record yet.
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
            // Time that went back is started over.
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
    /// The mark of one split: the latest time, or the watermark where that is made in another way.
    pub(super) fn latest_of(&self, split: SplitId) -> Option<i64> {
        self.known.get(&split).and_then(|known| known.latest)
    }

    /// The greatest time of any split.
    pub(super) fn greatest(&self) -> Option<i64> {
        self.greatest
    }

    /// The split had records, and has this mark now.
    pub(super) fn saw(&mut self, split: SplitId, latest: Option<i64>) {
        let known = self.known.entry(split).or_default();
        let is_least_the_same = known.asked != Asked::Idle && known.latest.is_some() && known.latest > self.least;
        if !is_least_the_same {
            self.least = None;
        }
        known.latest = latest;
        // After an exchange nobody says that there are no records: all time without them is such.
        known.asked = if self.is_told { Asked::No } else { Asked::InVain };
        if !self.is_told {
            self.deadline = Some(i64::MIN);
        }
        self.greatest = self.greatest.max(latest);
    }

    /// The mark of an open split has risen to this without any records.
    pub(super) fn raise(&mut self, split: SplitId, mark: i64) {
        if let Some(known) = self.known.get_mut(&split).filter(|known| known.latest < Some(mark)) {
            known.latest = Some(mark);
            self.least = None;
            self.greatest = self.greatest.max(Some(mark));
        }
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

    /// The state, with what the generators of splits need.
    pub(super) fn encode(&self, index: usize, parallelism: usize, emitted: i64, states: &[(SplitId, Vec<u8>)]) -> Vec<u8> {
        let marks: Vec<(SplitId, i64)> = self.known.iter().filter_map(|(split, known)| Some((*split, known.latest?))).collect();
        let mut bytes = [MAGIC.as_slice(), &[VERSION]].concat();
        bytes.extend_from_slice(&(index as u32).to_le_bytes());
        bytes.extend_from_slice(&(parallelism as u32).to_le_bytes());
        bytes.extend_from_slice(&emitted.to_le_bytes());
        bytes.extend_from_slice(&self.greatest.unwrap_or(i64::MIN).to_le_bytes());
        bytes.push(u8::from(self.is_told));
        bytes.extend_from_slice(&(marks.len() as u32).to_le_bytes());
        for (split, mark) in marks {
            bytes.extend_from_slice(&split.0.to_le_bytes());
            bytes.extend_from_slice(&mark.to_le_bytes());
        }
        bytes.extend_from_slice(&(states.len() as u32).to_le_bytes());
        for (split, state) in states {
            bytes.extend_from_slice(&split.0.to_le_bytes());
            bytes.extend_from_slice(&(state.len() as u32).to_le_bytes());
            bytes.extend_from_slice(state);
        }
        bytes
    }

    /// What the former instances knew, and the least watermark that any had sent. Which splits are open is told later.
    pub(super) fn decode(parts: &[SharedBytes], index: usize, parallelism: usize) -> Result<Decoded> {
        let mut decoded = Decoded { splits: Splits::default(), emitted: i64::MIN, states: HashMap::new() };
        let mut emitted = None;
        // For each split whether what is known of it comes from the instance that read it.
        let mut is_of_reader: HashMap<SplitId, bool> = HashMap::new();
        for part in parts {
            let damaged = || Error::checkpoint(format!("the state of event_time() is damaged ({} bytes)", part.len()));
            let part = Part::read(part).ok_or_else(damaged)?;
            // An instance that had ended holds nobody back.
            if part.emitted < i64::MAX {
                emitted = Some(emitted.map_or(part.emitted, |least: i64| least.min(part.emitted)));
            }
            let greatest = part.marks.iter().map(|(_, mark)| *mark).max();
            let splits = &mut decoded.splits;
            splits.greatest = splits.greatest.max(greatest).max(Some(part.greatest).filter(|&greatest| greatest > i64::MIN));
            let is_own = part.instance == index as u64 && part.instances == parallelism as u64;
            // Records after an exchange have no split; what this very instance had seen of them is its own.
            // Under another parallelism nobody's is, and the least is on the safe side: it holds time back.
            let is_others = |split: SplitId| split == SplitId::NONE && !is_own && part.instances == parallelism as u64;
            for (split, latest) in part.marks.into_iter().filter(|(split, _)| !is_others(*split)) {
                let known = splits.known.entry(split).or_default();
                known.latest = Some(known.latest.map_or(latest, |other| {
                    // An instance that was not told yet which splits are its own may still have what it was restored with,
                    // which is older than what the one that reads the split has seen since.
                    if split == SplitId::NONE { other.min(latest) } else { other.max(latest) }
                }));
            }
            for (split, state) in part.states.into_iter().filter(|(split, _)| !is_others(*split)) {
                let has_readers = is_of_reader.entry(split).or_default();
                if !*has_readers || part.is_told {
                    decoded.states.insert(split, state);
                }
                *has_readers |= part.is_told;
            }
        }
        decoded.emitted = emitted.unwrap_or(i64::MIN);
        Ok(decoded)
    }
}

/// Whether these bytes are the state of an `event_time` with what generators of the user's need, which is pickled.
pub(crate) fn has_generators(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC) && Part::read(bytes).is_some_and(|part| !part.states.is_empty())
}

/// What is restored.
#[derive(Debug)]
pub(super) struct Decoded {
    /// The splits.
    pub(super) splits: Splits,
    /// The least watermark that any instance had sent.
    pub(super) emitted: i64,
    /// What the generators of splits need.
    pub(super) states: HashMap<SplitId, Vec<u8>>,
}

/// The state of one instance.
struct Part {
    instance: u64,
    instances: u64,
    emitted: i64,
    greatest: i64,
    is_told: bool,
    marks: Vec<(SplitId, i64)>,
    states: Vec<(SplitId, Vec<u8>)>,
}

impl Part {
    /// `None` if the bytes are no such state.
    fn read(bytes: &[u8]) -> Option<Part> {
        let (mut rest, known) = match bytes.strip_prefix(MAGIC.as_slice()) {
            Some(rest) => (rest, VERSION..=VERSION),
            None => (bytes, 1..=2),
        };
        let version = number(&mut rest, 1)? as u8;
        if !known.contains(&version) {
            return None;
        }
        let (instance, instances) = (number(&mut rest, 4)?, number(&mut rest, 4)?);
        let mut part = Part {
            instance,
            instances,
            emitted: i64::MIN,
            greatest: i64::MIN,
            is_told: false,
            marks: Vec::new(),
            states: Vec::new(),
        };
        if version >= 2 {
            (part.emitted, part.greatest) = (number(&mut rest, 8)? as i64, number(&mut rest, 8)? as i64);
        }
        if version < 3 {
            while !rest.is_empty() {
                part.marks.push((SplitId(number(&mut rest, 8)?), number(&mut rest, 8)? as i64));
            }
            return Some(part);
        }
        part.is_told = number(&mut rest, 1)? != 0;
        for _ in 0..number(&mut rest, 4)? {
            part.marks.push((SplitId(number(&mut rest, 8)?), number(&mut rest, 8)? as i64));
        }
        for _ in 0..number(&mut rest, 4)? {
            let split = SplitId(number(&mut rest, 8)?);
            let length = number(&mut rest, 4)? as usize;
            let (state, after) = rest.split_at_checked(length)?;
            part.states.push((split, state.to_vec()));
            rest = after;
        }
        rest.is_empty().then_some(part)
    }
}

/// Takes a little-endian number of that many bytes, at most eight.
fn number(rest: &mut &[u8], bytes: usize) -> Option<u64> {
    let (number, after) = rest.split_at_checked(bytes)?;
    *rest = after;
    Some(number.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}
