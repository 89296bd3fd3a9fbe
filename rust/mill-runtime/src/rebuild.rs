//! Operators rebuilt from a checkpoint, for a task that goes back alone.

use std::sync::Arc;

use mill_protocol::{Epoch, Error, Operator, Restored, Result, TaskContext};
use mill_snapshot::{Checkpoint, Store};
use parking_lot::Mutex;

use crate::graph::OperatorFactory;
use crate::recovery::Recovery;
use crate::storage;

/// Where tasks find the checkpoints that they go back to.
pub(crate) struct Origins {
    store: Store,
    /// What the job began with, and the number of that checkpoint, 0 for none; let go of once there is a checkpoint of its own.
    first: Mutex<Option<Arc<Recovery>>>,
    first_id: Epoch,
}

/// A checkpoint that a task goes back to.
enum Origin {
    /// What the job began with.
    First(Arc<Recovery>),
    /// One of its own.
    Own(Checkpoint),
}

/// What a task needs to rebuild its operators.
pub(crate) struct Rebuild {
    origins: Arc<Origins>,
    /// For each stage; `None` for a sink.
    stages: Vec<Option<OperatorParts>>,
    has_state: bool,
}

/// What one operator is made of.
pub(crate) struct OperatorParts {
    pub(crate) uid: String,
    pub(crate) step: String,
    pub(crate) make: OperatorFactory,
    pub(crate) context: TaskContext,
}

impl Origins {
    /// The checkpoints of a job that begins with this.
    pub(crate) fn new(store: Store, first: Arc<Recovery>) -> Arc<Origins> {
        let first_id = Epoch(first.restored_id().unwrap_or(0));
        Arc::new(Origins { store, first: Mutex::new(Some(first)), first_id })
    }

    /// The number of what the job began with.
    pub(crate) fn first_id(&self) -> Epoch {
        self.first_id
    }

    /// The job has a checkpoint of its own: nobody goes back to what it began with.
    pub(crate) fn forget_first(&self) {
        *self.first.lock() = None;
    }

    fn at(&self, epoch: Epoch) -> Result<Origin> {
        if epoch == self.first_id {
            let first = self.first.lock().clone();
            return Ok(Origin::First(first.ok_or_else(|| Error::internal("a task goes back further than the last checkpoint"))?));
        }
        Ok(Origin::Own(self.store.checkpoint(epoch.0).map_err(storage::error)?))
    }
}

impl Rebuild {
    pub(crate) fn new(origins: Arc<Origins>, stages: Vec<Option<OperatorParts>>, has_state: bool) -> Rebuild {
        Rebuild { origins, stages, has_state }
    }

    /// Makes the operators as they were at this checkpoint.
    ///
    /// # Errors
    /// When the checkpoint cannot be read, or an operator cannot be made.
    pub(crate) fn operators(&self, epoch: Epoch) -> Result<Vec<Option<Box<dyn Operator>>>> {
        let origin = if self.has_state { Some(self.origins.at(epoch)?) } else { None };
        let make = |parts: &OperatorParts| -> Result<Box<dyn Operator>> {
            let mut operator = (parts.make)(&parts.context)?;
            if let Some(restored) = origin.as_ref().and_then(|origin| origin.restored(&parts.uid, &parts.context)) {
                operator.restore(&restored)?;
            }
            Ok(operator)
        };
        let operator = |parts: &Option<OperatorParts>| {
            parts.as_ref().map(|parts| make(parts).map_err(|error| error.in_step(&parts.step))).transpose()
        };
        self.stages.iter().map(operator).collect()
    }
}

impl Origin {
    fn restored(&self, uid: &str, context: &TaskContext) -> Option<Restored> {
        match self {
            Origin::First(recovery) => recovery.restored(uid, context.groups.clone()),
            Origin::Own(checkpoint) => {
                let (bytes, blocks) = checkpoint.restored(uid, context.groups.clone());
                Some(Restored { bytes, blocks, has_other_parts: false })
            }
        }
    }
}
