//! Accumulators: what each aggregate stores in a row of state, and how a frame of values is added to it.
//!
//! ```text
//!   frame ──prepare──► values, typed, and a mask (not null and the filter holds)
//!            for a few hundred records at a time: rows of the table, in the nearest cache
//!                 update: one kernel an aggregate, a loop over rows and values
//!   rows ──finish──► the column of results          ──partial──► the columns that travel to the task that merges
//! ```
//!
//! | aggregate | in the row | beside it |
//! | --- | --- | --- |
//! | count | n | |
//! | sum | the sum (two words for floats and decimals), a flag: any value | how often it wrapped around, if ever |
//! | mean | n, the sum, in twice the precision | as the sum |
//! | std, var | n, the sum, the squared distances from the mean, in twice the precision | |
//! | min, max, first, last | the value, flags; first and last of windows: its time | the value, if it does not fit two words |
//! | n_unique | n | a table of the pairs of key and value |
//! | approx_n_unique | | HyperLogLog registers |
//! | product | the product, or its exponent and, in twice the precision, its digits | |
//! | min_by, max_by | | both values |
//! | quantile, median, collect | | the values |
//! | approx_quantile | | DDSketch buckets |
//! | a user's | | the state's bytes |
//!
//! Every result is a function of the values alone and not of the order in which they came or were merged (I9), but for
//! first, last and collect, which are about the order: that of event time in windows, ties in the order of arrival; else that of
//! arrival. That is why sums of floats carry their rounding error along, and
//! why the sketches are those whose merge is exact.

mod by;
mod carries;
mod cells;
mod coded;
mod distinct;
mod double;
mod evolve;
mod extreme;
mod fixed;
mod groups;
mod input;
mod moments;
mod near;
mod number;
mod place;
mod product;
mod quantile;
mod sketch;
mod spread;
mod user;
mod written;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use mill_frame::block::{Blocks, RestoredBlock};
use mill_plan::{AggregateKind, AggregateSpec};
use mill_protocol::{Error, Result};
use mill_state::{LayoutBuilder, Rows, RowsRead, Select, Span, TableOptions};

pub(crate) use evolve::{check as check_aggregates, former_aggregates};
pub(crate) use groups::{GroupOptions, Groups, Results, Tally, UnfitRow, records, reject};
pub(crate) use input::state_error;
pub(crate) use user::by_row;
pub(crate) use written::WrittenKeys;
use carries::{Unfit, Wraps};
use input::Input;
use moments::{Moment, Moments};

/// Which records of the prepared frame an update is about.
#[derive(Clone, Copy)]
pub(crate) enum Selection<'a> {
    /// Consecutive ones.
    Span(Span),
    /// These.
    Picked(&'a [u32]),
}

impl Select for Selection<'_> {
    #[inline(always)]
    fn len(self) -> usize {
        match self {
            Selection::Span(span) => span.len(),
            Selection::Picked(picked) => Select::len(picked),
        }
    }
    #[inline(always)]
    fn at(self, index: usize) -> usize {
        match self {
            Selection::Span(span) => span.at(index),
            Selection::Picked(picked) => picked.at(index),
        }
    }
}

/// Runs a kernel for the selection as what it is, so that the loop does not ask for each record.
macro_rules! with_selection {
    ($select:expr, $name:ident => $body:expr) => {
        match $select {
            $crate::accumulator::Selection::Span($name) => $body,
            $crate::accumulator::Selection::Picked($name) => $body,
        }
    };
}
use with_selection;

/// Records that could not be taken in, and why; the state is as if they had not been there.
pub(crate) type Problems = Vec<(usize, Error)>;

/// One aggregate of a step.
pub(crate) trait Accumulator: Send {
    /// Takes up a frame; updates then speak of its records by their place. `hashes` are those of its keys.
    fn prepare(&mut self, batch: &RecordBatch, hashes: &[u64]) -> Result<()>;

    /// Whether it is about the order of records, in groups that are of event time.
    fn asks_for_times(&self) -> bool {
        false
    }

    /// The event times of the frame that is taken up next; only to those of groups that are of event time. Of interest to
    /// those that are about the order of records.
    fn times(&mut self, times: &[i64]) {
        let _ = times;
    }

    /// Takes records into their rows: record `select.at(i)` into row `i`.
    fn update(&mut self, rows: &mut Rows<'_>, select: Selection<'_>, problems: &mut Problems) -> Result<()>;

    /// The records of the last update at which its sums wrapped around; `None` if they never do.
    fn wraps(&mut self) -> Option<&mut Wraps> {
        None
    }

    /// The results of these rows, of which each has wrapped around so many times; and the rows whose result does not fit.
    fn finish_carried(&self, rows: &RowsRead<'_>, carries: &[i64]) -> Result<(ArrayRef, Unfit)> {
        let _ = carries;
        Ok((self.finish(rows)?, Unfit::new()))
    }

    /// The same of rows none of which has wrapped around.
    fn finish_fitting(&self, rows: &RowsRead<'_>) -> Result<(ArrayRef, Unfit)> {
        Ok((self.finish(rows)?, Unfit::new()))
    }

    /// The results of these rows, none of which has wrapped around.
    fn finish(&self, rows: &RowsRead<'_>) -> Result<ArrayRef>;

    /// The partial results of these rows, in the columns that `AggregateSpec::partial_fields` names.
    fn partial(&self, rows: &RowsRead<'_>) -> Result<Vec<ArrayRef>> {
        let _ = rows;
        Err(Error::internal("this aggregate has no partial results"))
    }

    /// The partial result of each record of the frame by itself.
    fn singles(&self) -> Result<Vec<ArrayRef>> {
        Err(Error::internal("this aggregate has no partial results"))
    }

    /// Whether a call of `update` costs so much that it should get as many records as possible.
    fn is_costly(&self) -> bool {
        false
    }

    /// The pane that the next updates are for. Of interest to those that keep tables of their own, as are the next ones.
    fn open(&mut self, pane: i64) {
        let _ = pane;
    }

    /// Forgets a pane.
    fn close(&mut self, pane: i64) {
        let _ = pane;
    }

    /// Returns what changed in tables of its own.
    fn snapshot(&mut self, is_full: bool, out: &mut Blocks) {
        let _ = (is_full, out);
    }

    /// Takes up tables of its own.
    fn restore(&mut self, blocks: &[RestoredBlock]) -> Result<()> {
        let _ = blocks;
        Ok(())
    }
}

/// Makes the accumulator of an aggregate and takes its place in the row.
fn accumulator(
    spec: &AggregateSpec,
    keys: &[usize],
    key_types: &[DataType],
    states: &mut u16,
    layout: &mut LayoutBuilder,
    options: &GroupOptions,
) -> Result<Box<dyn Accumulator>> {
    let input = Input::of(spec);
    let (name, output) = (spec.name.clone(), &spec.output_type);
    let GroupOptions { is_partial, is_timed, table, .. } = options;
    let (is_partial, is_timed, is_ahead) = (*is_partial, *is_timed || spec.by_time, options.is_ahead);
    Ok(match &spec.kind {
        AggregateKind::Count => Box::new(number::Count::new(input, is_partial, layout)),
        AggregateKind::Sum => number::sum(input, is_partial, name, output, is_ahead, layout)?,
        AggregateKind::Mean => Box::new(Moments::new(input, name, output, is_partial, Moment::Mean, is_ahead, layout)),
        AggregateKind::Var => Box::new(Moments::new(input, name, output, is_partial, Moment::Var, is_ahead, layout)),
        AggregateKind::Std => Box::new(Moments::new(input, name, output, is_partial, Moment::Std, is_ahead, layout)),
        AggregateKind::Min => extreme::extreme(input, output, true, layout)?,
        AggregateKind::Max => extreme::extreme(input, output, false, layout)?,
        AggregateKind::MinBy => Box::new(by::By::new(input, spec, true, layout)?),
        AggregateKind::MaxBy => Box::new(by::By::new(input, spec, false, layout)?),
        AggregateKind::Product => Box::new(product::Product::new(input, name, output, layout)),
        AggregateKind::First => place::place(input, output, true, is_timed, layout)?,
        AggregateKind::Last => place::place(input, output, false, is_timed, layout)?,
        AggregateKind::NUnique => {
            let too_many = || Error::plan("one step has at most 65,535 n_unique() aggregates; split it");
            *states = states.checked_add(1).ok_or_else(too_many)?;
            let options = TableOptions { state: *states, tracks_changes: false, ..table.clone() };
            let mut types = key_types.to_vec();
            types.push(spec.input_type.clone().unwrap_or(DataType::Null));
            Box::new(distinct::Distinct::new(input, keys, &types, options, layout)?)
        }
        AggregateKind::ApproxNUnique => Box::new(sketch::ApproxDistinct::new(input, is_partial, layout)),
        AggregateKind::Quantile(at) => Box::new(quantile::Quantile::new(input, *at, spec, layout)),
        AggregateKind::Median => Box::new(quantile::Quantile::new(input, 0.5, spec, layout)),
        AggregateKind::ApproxQuantile(at) => Box::new(sketch::ApproxQuantile::new(input, *at, output, is_partial, layout)),
        AggregateKind::Collect => Box::new(cells::Collect::new(input, output, is_timed, layout)?),
        AggregateKind::User(function) => {
            // Asked of the function and not of the plan: one that stands for a function that is not at hand gives bytes.
            let output = function.return_type(spec.input_type.as_ref().unwrap_or(&DataType::Null))?;
            Box::new(user::User::new(input, function.clone(), &output, layout))
        }
    })
}

#[cfg(test)]
pub(crate) mod tests;
