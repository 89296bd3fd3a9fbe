//! Splitting a batch between tasks: the gather and the encoding in one go.
//!
//! ```text
//!   task_of_row  1 0 1 2 0 1        rows, by counting sort   │ 1 4 │ 0 2 5 │ 3 │
//!                                                              task 0  task 1  task 2
//! ```
//!
//! Rows keep their order within a task. The values of each task's rows go from the batch's columns straight into that
//! task's frame; where all rows go to one task nothing is gathered at all.

use arrow::buffer::ScalarBuffer;

use crate::frame::{Flat, Slab, Width, gather_bits, min_max};
use crate::hash::{KEY_GROUPS, groups_of_task, hash_columns, key_group, task_of_group};
use crate::{Batch, Frame, FrameError, schema};

/// Cuts a batch into one frame a task: row `i` goes to task `task_of_row[i]`. A task without rows gets `None`.
///
/// # Errors
/// When there is not one task a row, a task is out of range, or a column cannot be encoded.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// use mill_frame::{Batch, partition};
///
/// let values: ArrayRef = Arc::new(Int64Array::from(vec![10, 11, 12]));
/// let batch = Batch::new(RecordBatch::try_from_iter([("v", values)])?);
/// let frames = partition(&batch, &[2, 0, 2], 3)?;
/// let rows: Vec<usize> = frames.iter().map(|frame| frame.as_ref().map_or(0, |frame| frame.rows())).collect();
/// assert_eq!(rows, [1, 0, 2]);
/// assert!(partition(&batch, &[0, 1, 3], 3).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn partition(batch: &Batch, task_of_row: &[u16], tasks: usize) -> Result<Vec<Option<Frame>>, FrameError> {
    if task_of_row.len() != batch.rows() {
        return Err(FrameError::Length { expected: batch.rows(), found: task_of_row.len() });
    }
    if task_of_row.is_empty() {
        return Ok(vec![None; tasks]);
    }
    let highest = usize::from(task_of_row.iter().copied().max().unwrap_or(0));
    if highest >= tasks {
        return Err(FrameError::OutOfRange { what: "task", index: highest, count: tasks });
    }
    match tasks {
        2 => gather_each(batch, &halves(task_of_row.iter().map(|&task| task == 1))),
        _ => gather_each(batch, &sort_rows(task_of_row, tasks)),
    }
}

/// Cuts a batch by the key groups of its key columns, as the tasks of a keyed step own them.
///
/// # Errors
/// When a column is out of range, or cannot be a key or be encoded.
pub fn partition_by_hash(batch: &Batch, key_columns: &[usize], tasks: usize) -> Result<Vec<Option<Frame>>, FrameError> {
    if tasks == 1 {
        return Ok(vec![if batch.rows() == 0 { None } else { Some(Frame::encode(batch)?) }]);
    }
    let mut columns = Vec::with_capacity(key_columns.len());
    for &index in key_columns {
        let count = batch.data().num_columns();
        let column =
            batch.data().columns().get(index).ok_or(FrameError::OutOfRange { what: "column", index, count })?;
        columns.push(column.clone());
    }
    let mut hashes = Vec::new();
    hash_columns(&columns, &mut hashes)?;
    // Without a key there is one key, and one task that owns it.
    hashes.resize(batch.rows(), 0);
    if tasks == 2 && !hashes.is_empty() {
        // The key groups of the second task are the upper ones, and a group is the top of the hash.
        let first = groups_of_task(1, 2).start;
        return gather_each(batch, &halves(hashes.iter().map(|&hash| key_group(hash) >= first)));
    }
    let mut task_of = [0; KEY_GROUPS as usize];
    for (group, task) in task_of.iter_mut().enumerate() {
        *task = task_of_group(group as u16, tasks) as u16;
    }
    let task_of_row: Vec<u16> = hashes.iter().map(|&hash| task_of[usize::from(key_group(hash))]).collect();
    partition(batch, &task_of_row, tasks)
}

/// How many stretches of a batch are counted and sorted at once: each has counters of its own, so that the processor
/// need not wait for one row's counter before it takes the next row.
const STRETCHES: usize = 4;

/// The rows of the first and of the second of two tasks. Both lists are written to for every row, and one of them goes on: a
/// processor can't guess which, and need not.
fn halves(is_second: impl ExactSizeIterator<Item = bool>) -> [ScalarBuffer<u32>; 2] {
    let rows = is_second.len();
    let (mut first, mut second) = (vec![0; rows], vec![0; rows]);
    let (mut firsts, mut seconds) = (0, 0);
    for (row, is_second) in is_second.enumerate() {
        first[firsts] = row as u32;
        second[seconds] = row as u32;
        firsts += usize::from(!is_second);
        seconds += usize::from(is_second);
    }
    [ScalarBuffer::from(first).slice(0, firsts), ScalarBuffer::from(second).slice(0, seconds)]
}

/// The rows of each task, in order, by counting sort.
fn sort_rows(task_of_row: &[u16], tasks: usize) -> Vec<ScalarBuffer<u32>> {
    let stretch = task_of_row.len() / STRETCHES;
    // The last stretch has what does not divide evenly.
    let (even, rest) = task_of_row.split_at(stretch * STRETCHES);
    let mut counts = vec![0u32; tasks * STRETCHES];
    for i in 0..stretch {
        for s in 0..STRETCHES {
            counts[s * tasks + usize::from(even[s * stretch + i])] += 1;
        }
    }
    for &task in rest {
        counts[(STRETCHES - 1) * tasks + usize::from(task)] += 1;
    }
    // From counts to places: task by task, within a task stretch by stretch.
    let mut starts = vec![0; tasks + 1];
    let mut place = 0;
    for task in 0..tasks {
        starts[task] = place as usize;
        for s in 0..STRETCHES {
            let count = std::mem::replace(&mut counts[s * tasks + task], place);
            place += count;
        }
    }
    starts[tasks] = place as usize;
    let mut rows = vec![0; task_of_row.len()];
    let mut put = |s: usize, row: usize, task: u16| {
        let place = &mut counts[s * tasks + usize::from(task)];
        rows[*place as usize] = row as u32;
        *place += 1;
    };
    for i in 0..stretch {
        for s in 0..STRETCHES {
            put(s, s * stretch + i, even[s * stretch + i]);
        }
    }
    for (i, &task) in rest.iter().enumerate() {
        put(STRETCHES - 1, even.len() + i, task);
    }
    let rows = ScalarBuffer::from(rows);
    starts.windows(2).map(|ends| rows.slice(ends[0], ends[1] - ends[0])).collect()
}

/// A frame for each list of rows that is not empty.
fn gather_each(batch: &Batch, rows_of_task: &[ScalarBuffer<u32>]) -> Result<Vec<Option<Frame>>, FrameError> {
    let fingerprint = schema::fingerprint(&batch.schema());
    let frames = rows_of_task.iter().map(|rows| match rows.len() {
        0 => Ok(None),
        all if all == batch.rows() => Frame::encode_with(batch, fingerprint).map(Some),
        _ => gather(batch, rows, fingerprint).map(Some),
    });
    frames.collect()
}

fn gather(batch: &Batch, rows: &ScalarBuffer<u32>, fingerprint: u64) -> Result<Frame, FrameError> {
    let mut flat = Flat::default();
    let mut times = None;
    if let Some(values) = batch.times() {
        let gathered: Vec<i64> = rows.iter().map(|&row| values[row as usize]).collect();
        times = Some(min_max(&gathered));
        flat.push(ScalarBuffer::from(gathered).into_inner());
    }
    if let Some(behind) = batch.behind() {
        flat.slabs.push(Slab::Gathered { values: behind.inner().clone(), width: Width::W8, rows: rows.clone() });
    }
    if let Some(deletes) = batch.deletes() {
        flat.push(gather_bits(deletes, rows).into_inner());
    }
    for column in batch.data().columns() {
        flat.gather(column, rows)?;
    }
    Frame::write(flat, batch, rows.len(), times, fingerprint)
}
