use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use super::*;
use crate::Result;

/// Counts rows, and says how many there were at the end.
#[derive(Default)]
struct Count {
    rows: u64,
    forgets: bool,
}

impl Operator for Count {
    fn on_batch(&mut self, batch: Batch, _out: &mut Outbox) -> Result<Progress> {
        self.rows += batch.rows() as u64;
        Ok(Progress::Done)
    }

    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        out.push(batch(&[("rows", integers(&[Some(self.rows as i64)]))]));
        Ok(Progress::Done)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        if !self.forgets {
            snapshot.bytes = Some(self.rows.to_le_bytes().to_vec());
        }
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        for bytes in &restored.bytes {
            self.rows += u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        }
        Ok(())
    }
}

/// Gives the sum of each frame, and so shows where frames end.
struct SumOfFrame;

impl Operator for SumOfFrame {
    fn on_batch(&mut self, frame: Batch, out: &mut Outbox) -> Result<Progress> {
        let sum = frame.column(0).as_primitive::<Int64Type>().values().iter().sum();
        out.push(batch(&[("sum", integers(&[Some(sum)]))]));
        Ok(Progress::Done)
    }
}

fn numbers(rows: i64) -> Vec<Input> {
    vec![Input::Batch(batch(&[("n", integers(&(0..rows).map(Some).collect::<Vec<_>>()))]))]
}

#[test]
fn operator_that_keeps_its_state_passes() {
    let given = check(|| Box::<Count>::default(), &numbers(20), &Compare::Ordered);
    assert_eq!(given.rows, ["0: 20"]);
}

#[test]
#[should_panic(expected = "restore: Full")]
fn operator_that_forgets_is_caught() {
    check(|| Box::new(Count { rows: 0, forgets: true }), &numbers(20), &Compare::Ordered);
}

#[test]
#[should_panic(expected = "cut: Single")]
fn operator_that_depends_on_frames_is_caught() {
    check(|| Box::new(SumOfFrame), &numbers(20), &Compare::Ordered);
}
