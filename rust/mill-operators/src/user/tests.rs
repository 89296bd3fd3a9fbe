use arrow::array::Array;
use arrow::array::UInt32Array;
use mill_protocol::testkit::{Compare, check};
use mill_protocol::Rejected;

use super::*;
use crate::fixture::{input, records};

/// Emits what its closure makes of the rows.
struct Closure(fn(&RecordBatch) -> UserOutput);

impl std::fmt::Debug for Closure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closure")
    }
}

impl BatchFunction for Closure {
    fn name(&self) -> String {
        "closure".to_owned()
    }

    fn call(&self, batch: &RecordBatch) -> Result<UserCall> {
        Ok(UserCall::Whole((self.0)(batch)))
    }
}

/// Makes each record as often as this, one round over the batch a piece.
#[derive(Debug)]
struct Rounds(usize);

struct Round(RecordBatch, usize);

impl BatchFunction for Rounds {
    fn name(&self) -> String {
        "rounds".to_owned()
    }

    fn call(&self, batch: &RecordBatch) -> Result<UserCall> {
        Ok(UserCall::Pieces(Box::new(Round(batch.clone(), self.0))))
    }
}

impl UserPieces for Round {
    fn next(&mut self) -> Result<(UserOutput, Progress)> {
        self.1 -= 1;
        let progress = if self.1 == 0 { Progress::Done } else { Progress::More };
        Ok((UserOutput { data: self.0.clone(), origin: Origin::Same, rejected: Vec::new() }, progress))
    }
}

fn user(kind: UserStepKind, function: fn(&RecordBatch) -> UserOutput) -> Box<dyn Operator> {
    Box::new(User::new(kind, Arc::new(Closure(function)), records().schema()))
}

/// Each record twice, but the ones without a number are rejected.
fn twice(batch: &RecordBatch) -> UserOutput {
    let numbers = batch.column(0);
    let good = (0..batch.num_rows() as u32).filter(|&row| numbers.is_valid(row as usize));
    let rows: UInt32Array = good.flat_map(|row| [row, row]).collect::<Vec<_>>().into();
    let data = arrow::compute::take_record_batch(batch, &rows).expect("rows are there");
    let bad = (0..batch.num_rows()).filter(|&row| numbers.is_null(row));
    let rejected = bad.map(|_| Rejected::new("no number", "")).collect();
    UserOutput { data, origin: Origin::Rows(rows), rejected }
}

fn nothing(batch: &RecordBatch) -> UserOutput {
    UserOutput { data: batch.slice(0, 0), origin: Origin::Unknown, rejected: Vec::new() }
}

fn same(batch: &RecordBatch) -> UserOutput {
    UserOutput { data: batch.clone(), origin: Origin::Unknown, rejected: Vec::new() }
}

#[test]
fn event_time_follows_the_origin_and_failed_records_are_rejected() {
    let given = check(|| user(UserStepKind::FlatMap, twice), &input(records()), &Compare::Ordered);
    assert_eq!(given.rows[..3], ["0: 1, \"a\" @0", "0: 1, \"a\" @0", "0: 3, null @20"]);
    assert_eq!(given.rejected, ["no number | "]);
}

#[test]
fn row_for_row_keeps_event_time() {
    let given = check(|| user(UserStepKind::MapBatches, same), &input(records()), &Compare::Ordered);
    assert_eq!(given.rows[6], "0: -7, \"g\" @60");
}

#[test]
fn another_number_of_rows_without_origin_is_an_error_in_a_stream_with_event_time() {
    let mut operator = user(UserStepKind::MapBatches, nothing);
    let error = operator.on_batch(0, records(), &mut Outbox::default()).expect_err("event time would be lost");
    assert!(error.message().contains("call event_time() after map_batches()"), "{error}");
    let plain = records().with_times(None);
    let given = check(|| user(UserStepKind::MapBatches, nothing), &input(plain), &Compare::Ordered);
    assert!(given.rows.is_empty());
}

#[test]
fn inspect_passes_on_what_it_looked_at() {
    let plain = records().with_times(None);
    let given = check(|| user(UserStepKind::Inspect, nothing), &input(plain), &Compare::Ordered);
    assert_eq!(given.rows.len(), 7);
}

#[test]
fn columns_of_another_type_are_refused() {
    let swapped = |batch: &RecordBatch| UserOutput {
        data: batch.project(&[1, 0]).expect("two columns"),
        origin: Origin::Same,
        rejected: Vec::new(),
    };
    let mut operator = user(UserStepKind::Map, swapped);
    let error = operator.on_batch(0, records(), &mut Outbox::default()).expect_err("the columns are swapped");
    assert!(error.message().starts_with("closure returned (s: "), "{error}");
}

#[test]
fn results_in_pieces_are_emitted_one_piece_a_call() {
    let schema = records().schema();
    let rounds = || Box::new(User::new(UserStepKind::FlatMap, Arc::new(Rounds(3)), schema.clone())) as Box<dyn Operator>;
    let given = check(rounds, &input(records()), &Compare::Unordered);
    assert_eq!(given.rows.len(), 21);
    let (mut operator, mut out) = (rounds(), Outbox::default());
    let mut progress = operator.on_batch(0, records(), &mut out).expect("it cannot fail");
    for piece in 1..=3 {
        assert_eq!((out.len(), progress == Progress::More), (1, piece < 3), "piece {piece}");
        while out.pop().is_some() {}
        progress = operator.resume(&mut out).expect("it cannot fail");
    }
    assert!(out.is_empty(), "nothing follows the last piece");
}
