//! Cells: values of varying length beside a row.
//!
//! ```text
//!   empty   │ 0 │
//!   short   │ 1 │ length │ up to 22 bytes                        a change touches the cell alone
//!   long    │ 2 │        │ ──► count │ vector ──► bytes           shared with the writer of a checkpoint until it changes
//! ```
//!
//! Most values that are kept of a key are short: a name, a number of two words, the state of a user's function. One that is in the
//! cell takes no allocation, and a comparison with it waits for one line of memory instead of three. What grows, like lists, is long
//! from the beginning, so that it can be appended to in place. Readers see bytes and no form.

use std::sync::Arc;

/// How many bytes a cell holds without an allocation.
const SHORT_MAX: usize = 22;

/// A value of varying length beside a row, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Cell(Form);

#[derive(Clone, Debug, Default)]
enum Form {
    #[default]
    Empty,
    Short { length: u8, bytes: [u8; SHORT_MAX] },
    Long(Arc<Vec<u8>>),
}

const _: () = assert!(size_of::<Cell>() == 24, "three cells and a bit share a line of memory");

impl Cell {
    /// The value.
    #[inline(always)]
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Form::Empty => None,
            Form::Short { length, bytes } => Some(&bytes[..usize::from(*length)]),
            Form::Long(bytes) => Some(bytes),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Form::Empty)
    }

    /// Makes this the value.
    #[inline]
    pub fn set(&mut self, value: &[u8]) {
        if value.len() <= SHORT_MAX {
            let mut bytes = [0; SHORT_MAX];
            bytes[..value.len()].copy_from_slice(value);
            self.0 = Form::Short { length: value.len() as u8, bytes };
            return;
        }
        match &mut self.0 {
            Form::Long(bytes) if Arc::strong_count(bytes) == 1 => {
                let bytes = Arc::make_mut(bytes);
                bytes.clear();
                bytes.extend_from_slice(value);
            }
            _ => self.0 = Form::Long(Arc::new(value.to_vec())),
        }
    }

    /// Takes the value out.
    pub fn take(&mut self) -> Cell {
        std::mem::take(self)
    }

    /// The value in memory of its own, to be changed by those who see that it is shared; empty if there was none.
    #[inline(always)]
    pub(crate) fn long_mut(&mut self) -> &mut Arc<Vec<u8>> {
        if !matches!(self.0, Form::Long(_)) {
            self.lengthen();
        }
        match &mut self.0 {
            Form::Long(bytes) => bytes,
            Form::Empty | Form::Short { .. } => unreachable!("it has just been made long"),
        }
    }

    #[cold]
    fn lengthen(&mut self) {
        self.0 = Form::Long(Arc::new(self.bytes().unwrap_or_default().to_vec()));
    }

    /// The value, if it is in memory of its own.
    #[inline(always)]
    pub(crate) fn long(&self) -> Option<&Arc<Vec<u8>>> {
        match &self.0 {
            Form::Long(bytes) => Some(bytes),
            Form::Empty | Form::Short { .. } => None,
        }
    }
}

impl From<&[u8]> for Cell {
    fn from(value: &[u8]) -> Cell {
        let mut cell = Cell::default();
        cell.set(value);
        cell
    }
}

#[cfg(test)]
mod tests;
