use arrow::array::{ArrayRef, Int64Array, RecordBatch};

use super::*;

fn batch(rows: i64) -> Event {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    Event::Batch(0, Batch::new(RecordBatch::try_from_iter([("v", column)]).unwrap()))
}

struct Kit {
    log: InputLog,
    published: Arc<AtomicU64>,
}

impl Kit {
    fn new(bytes_max: usize) -> Kit {
        let published = Arc::new(AtomicU64::new(0));
        Kit { log: InputLog::new(Epoch(0), Vec::new(), true, bytes_max, Arc::clone(&published)), published }
    }

    fn apply(&mut self, event: Event) -> usize {
        self.log.begin(Taken::Event(event), || 7);
        self.log.apply(Vec::new(), Vec::new).len()
    }

    /// What is repeated from a checkpoint on: rows of batches, and barriers as negative numbers.
    fn repeated(&mut self, from: u64) -> Vec<i64> {
        self.log.rewind(Epoch(from)).expect("a mark");
        let mut found = Vec::new();
        loop {
            match self.log.replay() {
                ReplayStep::Input(taken, cuts) => {
                    assert!(cuts.is_empty());
                    assert_eq!(self.log.now(), Some(7), "operators are told the time of then");
                    for taken in taken {
                        let Taken::Event(Event::Batch(_, batch)) = taken else { panic!("{taken:?}") };
                        found.push(batch.rows() as i64);
                    }
                }
                ReplayStep::Watermarks(made) => assert!(made.is_empty()),
                ReplayStep::Barrier(epoch) => found.push(-(epoch.0 as i64)),
                ReplayStep::Done(Replayed { rows, entries }) => {
                    assert_eq!(entries as usize, found.iter().filter(|rows| **rows >= 0).count());
                    assert_eq!(rows as i64, found.iter().filter(|rows| **rows >= 0).sum::<i64>());
                    return found;
                }
            }
        }
    }
}

#[test]
fn what_was_applied_is_repeated_in_order_from_any_mark_that_is_kept() {
    let mut kit = Kit::new(1 << 20);
    for rows in [3, 4] {
        kit.apply(batch(rows));
    }
    kit.apply(Event::Barrier(Epoch(1)));
    kit.apply(batch(5));
    assert_eq!(kit.repeated(0), [3, 4, -1, 5]);
    assert_eq!(kit.repeated(1), [5]);
    // The checkpoint is complete: what is before it is let go of with the next entry.
    kit.published.store(1, Ordering::Relaxed);
    kit.apply(batch(6));
    assert!(kit.log.rewind(Epoch(0)).is_none());
    assert_eq!(kit.repeated(1), [5, 6]);
}

#[test]
fn output_waits_until_the_entry_is_applied_and_is_dropped_when_it_is_taken_back() {
    let mut kit = Kit::new(1 << 20);
    let route = Route::Writer { writer: 0, channel: 0 };
    kit.log.begin(Taken::Event(batch(3)), || 7);
    assert!(!kit.log.hold(route, batch(2)));
    assert_eq!(kit.log.take_back(), Reach::To(vec![Epoch(0)]));
    assert_eq!(kit.repeated(0), [0i64; 0], "what had failed was not applied");
    // It goes in again, and this time it works.
    let mut pending = kit.log.take_pending();
    assert!(matches!(pending.pop(), Some(Taken::Event(Event::Batch(0, batch))) if batch.rows() == 3));
    kit.log.begin(Taken::Event(batch(3)), || 7);
    kit.log.hold(route, batch(2));
    assert_eq!(kit.log.apply(Vec::new(), Vec::new).len(), 1);
    assert_eq!(kit.repeated(0), [3]);
}

#[test]
fn an_entry_whose_output_is_out_in_part_cannot_be_taken_back() {
    let mut kit = Kit::new(1 << 20);
    let route = Route::Writer { writer: 0, channel: 0 };
    kit.log.begin(Taken::Event(batch(1)), || 7);
    assert!(kit.log.hold(route, batch((HELD_BYTES_MAX / 8) as i64 + 1)), "more than is held");
    assert_eq!(kit.log.tear().len(), 1);
    assert_eq!(kit.log.take_back(), Reach::Nothing);
    // Nor can what is not in the log: a failure between two entries.
    let mut kit = Kit::new(1 << 20);
    kit.apply(batch(1));
    assert_eq!(kit.log.take_back(), Reach::Nothing);
}

#[test]
fn a_long_log_asks_for_a_checkpoint_once_and_is_given_up_when_it_gets_too_long() {
    let mut kit = Kit::new(10_000);
    kit.apply(batch(100));
    assert!(!kit.log.asks_for_checkpoint());
    kit.apply(batch(600));
    assert!(kit.log.asks_for_checkpoint());
    assert!(!kit.log.asks_for_checkpoint());
    kit.apply(batch(800));
    assert!(kit.log.rewind(Epoch(0)).is_none(), "it was given up");
    kit.apply(batch(2));
    // From the next barrier on there is a log again.
    kit.apply(Event::Barrier(Epoch(4)));
    kit.apply(batch(9));
    assert_eq!(kit.repeated(4), [9]);
}

#[test]
fn of_a_chain_without_state_nothing_is_kept() {
    let published = Arc::new(AtomicU64::new(0));
    let mut kit = Kit { log: InputLog::new(Epoch(0), Vec::new(), false, 1000, Arc::clone(&published)), published };
    for _ in 0..10 {
        kit.apply(batch(100));
    }
    kit.apply(Event::Barrier(Epoch(3)));
    kit.log.begin(Taken::Event(batch(5)), || 7);
    assert_eq!(kit.log.take_back(), Reach::Anywhere);
    assert_eq!(kit.repeated(3), [0i64; 0]);
    assert_eq!(kit.log.take_pending().len(), 1);
}
