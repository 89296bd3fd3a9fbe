//! `top_n(within=…)`: the first rows of each key and window, once the window is complete.
//!
//! Each window has a table of boards; a record of windows that overlap goes into each of them, as the first rows of a window
//! do not follow from those of its panes without keeping as many for every pane.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_plan::{Ordering, Stage, WindowSpec};
use mill_protocol::{Batch, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext, Watermark};
use mill_state::{Cursor, PaneTables, Span, TableOptions};

use super::boards::Boards;
use super::{keys_at_once, rows_of};
use crate::accumulator::{records, state_error};
use crate::attempt::attempt;
use crate::description::{Described, Description, Shape, restored_watermark};
use crate::windows::{Aligned, Assigner, Part, push_late, time_column, within_reach};

/// How many columns follow those of a row: the bounds of the window and the rank.
const ADDED: usize = 3;

/// Keeps the first rows of each key and open window.
pub(crate) struct WindowTopN {
    boards: Boards,
    /// By the id of the window.
    windows: PaneTables,
    assigner: Assigner,
    watermark: Watermark,
    schema: SchemaRef,
    described: Described,
    /// The window that is being emitted.
    firing: Option<(i64, Cursor)>,
}

impl WindowTopN {
    pub(crate) fn new(
        stage: &Stage,
        context: &TaskContext,
        keys: &[usize],
        by: Vec<Ordering>,
        rows: usize,
        spec: &WindowSpec,
    ) -> Result<WindowTopN> {
        let schema = Arc::clone(&stage.schema);
        let boards = Boards::new(rows_of(&schema, ADDED), keys, by, rows, false)?;
        let options = TableOptions {
            groups: context.groups.clone(),
            state: 0,
            is_persistent: context.is_persistent,
            tracks_changes: false,
        };
        let windows = PaneTables::new(Arc::clone(boards.layout()), options);
        let shape = Shape::TopN { keys: keys.to_vec(), window: Some(*spec) };
        let described = Description { schema: Arc::clone(&schema), keeps_pending: false, shape }.described();
        let assigner = Assigner { windows: Aligned::of(spec), shares_panes: false };
        Ok(WindowTopN { boards, windows, assigner, watermark: Watermark::MIN, schema, described, firing: None })
    }

    fn fire(&mut self, out: &mut Outbox) -> Result<Progress> {
        let aligned = self.assigner.windows;
        loop {
            let (id, mut cursor) = match self.firing.take() {
                Some(firing) => firing,
                None => match self.windows.first() {
                    Some(id) if aligned.is_complete(aligned.end_of(id), self.watermark) => (id, Cursor::default()),
                    _ => return Ok(Progress::Done),
                },
            };
            let rows = self.windows.open(id).scan(&mut cursor, keys_at_once(&self.boards));
            if rows.is_empty() {
                self.windows.close(id);
                continue;
            }
            let (data, ranks) = self.boards.read(&rows, false)?;
            let (end, count) = (aligned.end_of(id), data.num_rows());
            let mut columns = data.columns().to_vec();
            let first = columns.len();
            for (place, bound) in [aligned.start_of(end), end].into_iter().enumerate() {
                columns.push(time_column(bound, count, self.schema.field(first + place).data_type())?);
            }
            columns.push(ranks);
            let times = std::iter::repeat_n(end.saturating_sub(1), count).collect();
            out.push(records(&self.schema, columns)?.with_times(Some(times)));
            self.firing = Some((id, cursor));
            return Ok(Progress::More);
        }
    }
}

impl Operator for WindowTopN {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let bound_type = self.schema.field(self.schema.fields().len() - ADDED).data_type();
        let batch = within_reach(batch, self.assigner.windows.reach(), Some(bound_type), out)?;
        let (boards, windows) = (&mut self.boards, &mut self.windows);
        let (assigner, watermark) = (self.assigner, self.watermark);
        attempt(batch, out, &mut |batch, out| {
            let frame = boards.prepare(batch.data())?;
            let assigned = assigner.assign(&batch, watermark)?;
            if let Some(Part::Pane(id) | Part::Window(id)) = assigned.whole {
                boards.update(windows.open(id), &frame, Span { start: 0, len: batch.rows() })?;
            }
            for (Part::Pane(id) | Part::Window(id), picked) in &assigned.parts {
                boards.update(windows.open(*id), &frame, &picked[..])?;
            }
            push_late(&batch, assigned.late, out)
        })?;
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        self.watermark = self.watermark.max(at);
        self.fire(out)
    }

    fn earliest_result(&self) -> Watermark {
        self.assigner.windows.earliest_result(self.watermark)
    }

    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.on_watermark(0, Watermark::MAX, out)
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.fire(out)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.windows.snapshot(snapshot.is_full, &mut snapshot.blocks);
        snapshot.bytes = Some(self.described.of(&self.watermark.0.to_le_bytes()));
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        self.watermark = restored_watermark(restored)?;
        self.windows.restore(&restored.blocks).map_err(state_error)
    }
}
