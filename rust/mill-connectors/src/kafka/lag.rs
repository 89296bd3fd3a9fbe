//! Commits the positions of completed checkpoints to a consumer group, for tools that measure how far behind a consumer is.
//!
//! The engine never reads them but for `start="committed"`, in a job without a checkpoint. A thread commits them, so that
//! completing a checkpoint does not wait for the cluster. Positions that it has not sent when the next checkpoint completes
//! are skipped.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use mill_protocol::{Epoch, PositionListener, Result, SplitState};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::client::{SilentConsumer, group_client};
use super::offsets::{self, Detail};
use super::source::Shared;
use crate::client_thread;

/// How long the end of a job waits until its last positions are committed.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// What the thread shares with those who tell it.
#[derive(Default)]
struct Mail {
    /// What is to be committed next.
    next: Option<TopicPartitionList>,
    is_over: bool,
    /// Whether the thread is gone.
    is_done: bool,
}

/// Commits the positions of one source.
pub(super) struct GroupCommits {
    mail: Arc<(Mutex<Mail>, Condvar)>,
}

impl GroupCommits {
    /// To this group.
    pub(super) fn start(shared: &Shared, group: &str) -> Result<GroupCommits> {
        let client = group_client(&shared.call(), &shared.cluster, group)?;
        let mail: Arc<(Mutex<Mail>, Condvar)> = Arc::default();
        let taken = Arc::clone(&mail);
        client_thread::start("mill-kafka-group", move || commit(&client, &taken))?;
        Ok(GroupCommits { mail })
    }
}

fn commit(client: &BaseConsumer<SilentConsumer>, (mail, changed): &(Mutex<Mail>, Condvar)) {
    loop {
        let mut held = mail.lock().unwrap_or_else(PoisonError::into_inner);
        while held.next.is_none() && !held.is_over {
            held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        let Some(list) = held.next.take() else {
            held.is_done = true;
            changed.notify_all();
            return;
        };
        drop(held);
        // A group that cannot be updated now is updated with the next checkpoint. It is nobody's loss but the tool's.
        let _ = client.commit(&list, CommitMode::Sync);
    }
}

impl PositionListener for GroupCommits {
    fn completed(&mut self, _epoch: Epoch, read: Vec<SplitState>) {
        let mut list = TopicPartitionList::with_capacity(read.len());
        for state in read {
            let Ok(detail) = Detail::of(&state.split) else { continue };
            let offset = match &state.position {
                Some(position) => offsets::decode(position, &detail.at()),
                // Nothing was read of it yet.
                None if !state.is_ended => Ok(detail.start),
                None => continue,
            };
            if let Ok(offset) = offset {
                let _ = list.add_partition_offset(&detail.topic, detail.partition, Offset::Offset(offset));
            }
        }
        if list.count() > 0 {
            self.mail.0.lock().unwrap_or_else(PoisonError::into_inner).next = Some(list);
            self.mail.1.notify_all();
        }
    }
}

impl Drop for GroupCommits {
    fn drop(&mut self) {
        let (mail, changed) = &*self.mail;
        let mut held = mail.lock().unwrap_or_else(PoisonError::into_inner);
        held.is_over = true;
        changed.notify_all();
        drop(changed.wait_timeout_while(held, LAST_WAIT, |held| !held.is_done));
    }
}
