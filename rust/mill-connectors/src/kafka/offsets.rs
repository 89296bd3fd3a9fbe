//! Where partitions begin and end, as numbers: decided once, when a job first sees them, and kept in its checkpoints.

use std::collections::HashMap;

use mill_protocol::{Ending, Error, Position, Result, Split, SplitId, SplitState};
use serde::{Deserialize, Serialize};

use super::ANSWER_WAIT;
use super::client::{Asker, Partition, group_client, noted};
use super::source::{Shared, Start, Until};
use crate::nearest::quoted;

/// What a checkpoint keeps of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Detail {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// The offset of the first message that is read.
    pub(super) start: i64,
    /// The offset after the last one, if the input is bounded.
    pub(super) end: Option<i64>,
}

impl Detail {
    pub(super) fn of(split: &Split) -> Result<Detail> {
        serde_json::from_slice(&split.detail)
            .map_err(|e| Error::checkpoint(format!("what the checkpoint knows of {:?} is damaged", split.name)).because(e))
    }

    fn split(&self) -> Result<Split> {
        let name = self.at().to_string();
        let detail = serde_json::to_vec(self).map_err(|e| Error::internal("a detail is names and numbers").because(e))?;
        Ok(Split::with_detail(SplitId::of(&name), name, detail))
    }

    pub(super) fn at(&self) -> Partition {
        Partition { topic: self.topic.clone(), number: self.partition }
    }
}

/// A position: the offset of the next message.
pub(super) fn encode(offset: i64) -> Position {
    offset.to_le_bytes().to_vec()
}

pub(super) fn decode(position: &[u8], partition: &Partition) -> Result<i64> {
    let bytes = position.try_into();
    bytes.map(i64::from_le_bytes).map_err(|_| Error::checkpoint(format!("the position in {partition} is damaged")))
}

/// The partitions that a job begins with.
pub(super) fn begin(asker: &Asker, shared: &Shared, partitions: &[Partition]) -> Result<Vec<Split>> {
    let call = shared.call();
    let committed = match (&shared.start, &shared.group) {
        (Start::Committed, Some(group)) => {
            let client = group_client(&call, &shared.cluster, group)?;
            Some(noted(&call, &client, group, partitions, ANSWER_WAIT, &Ending::default())?)
        }
        _ => None,
    };
    if let Start::Offsets(given) = &shared.start {
        check_given(&call, "start", given, partitions)?;
    }
    if let Some(Until::Offsets(given)) = &shared.until {
        check_given(&call, "until", given, partitions)?;
    }
    let mut splits = Vec::with_capacity(partitions.len());
    for (index, partition) in partitions.iter().enumerate() {
        let (first, last) = asker.bounds(partition)?;
        let asked = match &shared.start {
            Start::Earliest => first,
            Start::Latest => last,
            Start::Committed => match committed.as_ref().and_then(|noted| noted[index].as_ref()) {
                Some((offset, _)) => *offset,
                None => {
                    let group = shared.group.as_deref().unwrap_or_default();
                    shared.reset(partition, (first, last), &format!("group {group:?} has no offset for {partition}"))?
                }
            },
            Start::Time(at) => asker.offset_at(partition, *at)?.unwrap_or(last),
            Start::Offsets(given) => given[partition],
        };
        let start = match asked {
            offset if (first..=last).contains(&offset) => offset,
            offset => shared.reset(partition, (first, last), &outside("the job is to begin", partition, offset, first))?,
        };
        let end = end_of(asker, shared, partition, start, last)?;
        let detail = Detail { topic: partition.topic.clone(), partition: partition.number, start, end };
        splits.push(detail.split()?);
    }
    Ok(splits)
}

/// Where a partition ends, if the input is bounded.
fn end_of(asker: &Asker, shared: &Shared, partition: &Partition, start: i64, last: i64) -> Result<Option<i64>> {
    let end = match &shared.until {
        None => return Ok(None),
        Some(Until::End) => last,
        Some(Until::Time(at)) => asker.offset_at(partition, *at)?.unwrap_or(last),
        Some(Until::Offsets(given)) => match given.get(partition) {
            None => {
                return Err(Error::plan(format!("{}: until has no offset for {:?}", shared.call(), partition.to_string())));
            }
            Some(end) if *end > last => {
                return Err(Error::connector(format!(
                    "{}: {partition} is to be read until offset {end}, and ends at {last}; leave until= out to wait for more",
                    shared.call()
                )));
            }
            Some(end) => *end,
        },
    };
    Ok(Some(end.max(start)))
}

/// A partition that has turned up since: it is read from its first message, and to the same end as others.
pub(super) fn found(asker: &Asker, shared: &Shared, partition: &Partition) -> Result<Split> {
    let (first, last) = asker.bounds(partition)?;
    let end = end_of(asker, shared, partition, first, last)?;
    Detail { topic: partition.topic.clone(), partition: partition.number, start: first, end }.split()
}

/// The partitions of a job that continues from a checkpoint: those of the checkpoint, with what it knows of them, and new ones.
pub(super) fn resume(
    asker: &Asker,
    shared: &Shared,
    partitions: &[Partition],
    left: Vec<SplitState>,
) -> Result<Vec<SplitState>> {
    let mut left: HashMap<SplitId, SplitState> = left.into_iter().map(|state| (state.split.id, state)).collect();
    let mut states = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let Some(mut state) = left.remove(&SplitId::of(&partition.to_string())) else {
            states.push(SplitState::unread(found(asker, shared, partition)?));
            continue;
        };
        if !state.is_ended {
            let detail = Detail::of(&state.split)?;
            let at = match &state.position {
                Some(position) => decode(position, partition)?,
                None => detail.start,
            };
            let bounds = asker.bounds(partition)?;
            if !(bounds.0..=bounds.1).contains(&at) {
                let offset = shared.reset(partition, bounds, &outside("the checkpoint continues", partition, at, bounds.0))?;
                state.position = Some(encode(offset));
            }
        }
        states.push(state);
    }
    match left.into_values().find(|state| !state.is_ended) {
        Some(state) => Err(Error::checkpoint(format!(
            "{}: the checkpoint is in the middle of {}, and the input has no such partition any more; read its topic as before, or \
             start with another checkpoint directory",
            shared.call(),
            state.split.name
        ))),
        None => Ok(states),
    }
}

/// What is wrong with an offset that a partition does not have.
fn outside(what: &str, partition: &Partition, offset: i64, first: i64) -> String {
    let why = if offset < first { "was removed, by retention or with the topic" } else { "is not there, as if the topic were a new one" };
    format!("{what} at offset {offset} of {partition}, which {why}")
}

fn check_given(call: &str, argument: &str, given: &HashMap<Partition, i64>, partitions: &[Partition]) -> Result<()> {
    let missing: Vec<String> =
        partitions.iter().filter(|partition| !given.contains_key(partition)).map(ToString::to_string).collect();
    if !missing.is_empty() {
        return Err(Error::plan(format!("{call}: {argument} has no offset for {}", quoted(&missing, ", "))));
    }
    let mut unknown: Vec<String> =
        given.keys().filter(|partition| !partitions.contains(partition)).map(ToString::to_string).collect();
    unknown.sort();
    if !unknown.is_empty() {
        return Err(Error::plan(format!("{call}: {argument} has offsets for {}, which is not read", quoted(&unknown, ", "))));
    }
    Ok(())
}
