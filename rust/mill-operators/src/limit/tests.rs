use mill_protocol::testkit::{Compare, Input, check};

use super::*;
use crate::fixture::records;

#[test]
fn first_records_are_given_across_batches_and_restarts() {
    let inputs = [Input::Batch(records()), Input::Batch(records())];
    for (rows, given) in [(0, 0), (3, 3), (7, 7), (9, 9), (14, 14), (100, 14)] {
        let make = || -> Box<dyn Operator> { Box::new(Limit::new(rows)) };
        assert_eq!(check(make, &inputs, &Compare::Ordered).rows.len(), given, "limit({rows})");
    }
}

#[test]
fn damaged_state_is_refused() {
    let restored = Restored { bytes: vec![vec![1, 2, 3].into()], ..Restored::default() };
    let error = Limit::new(3).restore(&restored).expect_err("three bytes are no number");
    assert_eq!(error.message(), "the state of a limit has 8 bytes, found 3");
}
