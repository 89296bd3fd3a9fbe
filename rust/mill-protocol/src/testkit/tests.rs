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
    fn on_batch(&mut self, _input: usize, batch: Batch, _out: &mut Outbox) -> Result<Progress> {
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

/// Emits the sum of each frame, and so shows where frames end.
struct SumOfFrame;

impl Operator for SumOfFrame {
    fn on_batch(&mut self, _input: usize, frame: Batch, out: &mut Outbox) -> Result<Progress> {
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

/// Counts the rows of each of two inputs, and says at the end how many there were and in which order the inputs ended.
#[derive(Default)]
struct CountBoth {
    rows: [u64; 2],
    first_to_end: Option<u64>,
    tells_order: bool,
}

impl Operator for CountBoth {
    fn on_batch(&mut self, input: usize, batch: Batch, _out: &mut Outbox) -> Result<Progress> {
        self.rows[input] += batch.rows() as u64;
        Ok(Progress::Done)
    }

    fn on_input_end(&mut self, input: usize, _out: &mut Outbox) -> Result<Progress> {
        self.first_to_end.get_or_insert(input as u64);
        Ok(Progress::Done)
    }

    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        let first = if self.tells_order { self.first_to_end } else { None };
        let counts = [Some(self.rows[0]), Some(self.rows[1]), first];
        let columns = counts.map(|count| integers(&[count.map(|count| count as i64)]));
        out.push(batch(&[("left", columns[0].clone()), ("right", columns[1].clone()), ("first", columns[2].clone())]));
        Ok(Progress::Done)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        let words = [self.rows[0], self.rows[1], self.first_to_end.map_or(0, |first| first + 1)];
        snapshot.bytes = Some(words.iter().flat_map(|word| word.to_le_bytes()).collect());
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        for bytes in &restored.bytes {
            let word = |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().expect("eight bytes"));
            self.rows = [word(0), word(1)];
            self.first_to_end = word(2).checked_sub(1);
        }
        Ok(())
    }
}

#[test]
fn each_input_has_its_own_events() {
    let lists = [numbers(20), [numbers(3), vec![Input::Watermark(7), Input::Barrier], numbers(2)].concat()];
    let lists = [&lists[0][..], &lists[1][..]];
    assert_eq!(check_inputs(|| Box::<CountBoth>::default(), &lists, &Compare::Ordered).rows, ["0: 20, 5, null"]);
}

#[test]
#[should_panic(expected = "order: Reverse")]
fn operator_that_depends_on_the_order_of_inputs_is_caught() {
    let lists = [numbers(20), numbers(5)];
    let make = || Box::new(CountBoth { tells_order: true, ..CountBoth::default() }) as Box<dyn Operator>;
    check_inputs(make, &[&lists[0], &lists[1]], &Compare::Ordered);
}
