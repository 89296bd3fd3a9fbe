//! The names of operators and tasks, written once a segment and referred to by number in its blocks.
//!
//! ```text
//! u16 operators │ u16 tasks
//! operator: u16 number │ u16 bytes │ utf-8
//! task:     u16 number │ u16 bytes │ u32 index │ u32 parallelism │ utf-8
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::error::{Error, Result};
use crate::segment::{TaskId, u16_at, u32_at};

/// Numbers given to names, shared by all segments of a checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Names {
    operators: Vec<String>,
    tasks: Vec<TaskId>,
    operator_numbers: HashMap<String, u16>,
    task_numbers: HashMap<TaskId, u16>,
}

/// The numbers that occur in one segment.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamesUsed {
    pub operators: BTreeSet<u16>,
    pub tasks: BTreeSet<u16>,
}

impl NamesUsed {
    pub(crate) fn merge(&mut self, other: &NamesUsed) {
        self.operators.extend(&other.operators);
        self.tasks.extend(&other.tasks);
    }
}

impl Names {
    /// The number of an operator.
    pub(crate) fn operator(&mut self, uid: &str) -> Result<u16> {
        if let Some(number) = self.operator_numbers.get(uid) {
            return Ok(*number);
        }
        check("the name of an operator in bytes", uid.len())?;
        let number = check("the count of operators", self.operators.len())?;
        self.operators.push(uid.to_owned());
        self.operator_numbers.insert(uid.to_owned(), number);
        Ok(number)
    }

    /// The number of a task.
    pub(crate) fn task(&mut self, task: &TaskId) -> Result<u16> {
        if let Some(number) = self.task_numbers.get(task) {
            return Ok(*number);
        }
        check("the name of a task in bytes", task.chain.len())?;
        let number = check("the count of tasks", self.tasks.len())?;
        self.tasks.push(task.clone());
        self.task_numbers.insert(task.clone(), number);
        Ok(number)
    }

    /// All operators that were given a number.
    pub(crate) fn operators(&self) -> &[String] {
        &self.operators
    }

    /// The names that a segment uses, as they are written.
    pub(crate) fn encode(&self, used: &NamesUsed) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend((used.operators.len() as u16).to_le_bytes());
        out.extend((used.tasks.len() as u16).to_le_bytes());
        for &number in &used.operators {
            let uid = &self.operators[usize::from(number)];
            out.extend(number.to_le_bytes());
            out.extend((uid.len() as u16).to_le_bytes());
            out.extend(uid.as_bytes());
        }
        for &number in &used.tasks {
            let task = &self.tasks[usize::from(number)];
            out.extend(number.to_le_bytes());
            out.extend((task.chain.len() as u16).to_le_bytes());
            out.extend(task.index.to_le_bytes());
            out.extend(task.parallelism.to_le_bytes());
            out.extend(task.chain.as_bytes());
        }
        out
    }
}

/// The names as a reader has them.
#[derive(Debug, Default)]
pub(crate) struct NamesRead {
    pub operators: BTreeMap<u16, String>,
    pub tasks: BTreeMap<u16, TaskId>,
}

impl NamesRead {
    /// Reads the names; says what is wrong otherwise.
    pub(crate) fn decode(raw: &[u8]) -> std::result::Result<NamesRead, &'static str> {
        let mut names = NamesRead::default();
        let mut rest = raw;
        let counts = take(&mut rest, 4)?;
        let (operators, tasks) = (u16_at(counts, 0), u16_at(counts, 2));
        for _ in 0..operators {
            let head = take(&mut rest, 4)?;
            let uid = text(take(&mut rest, usize::from(u16_at(head, 2)))?)?;
            names.operators.insert(u16_at(head, 0), uid);
        }
        for _ in 0..tasks {
            let head = take(&mut rest, 12)?;
            let chain = text(take(&mut rest, usize::from(u16_at(head, 2)))?)?;
            let task = TaskId { chain, index: u32_at(head, 4), parallelism: u32_at(head, 8) };
            if task.index >= task.parallelism || task.parallelism > u32::from(u16::MAX) {
                return Err("a task has an index that its parallelism does not allow");
            }
            names.tasks.insert(u16_at(head, 0), task);
        }
        if rest.is_empty() { Ok(names) } else { Err("the names do not fill their section") }
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> std::result::Result<&'a [u8], &'static str> {
    let (taken, left) = rest.split_at_checked(count).ok_or("the names end too early")?;
    *rest = left;
    Ok(taken)
}

fn text(raw: &[u8]) -> std::result::Result<String, &'static str> {
    std::str::from_utf8(raw).map(str::to_owned).map_err(|_| "a name is not text")
}

fn check(what: &str, size: usize) -> Result<u16> {
    u16::try_from(size).map_err(|_| Error::TooLarge {
        what: what.to_owned(),
        size: size as u64,
        limit: u64::from(u16::MAX),
    })
}
