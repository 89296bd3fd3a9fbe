//! Reads followed files that are written as a whole: each is read once to its end, and again if it is rewritten.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mill_protocol::{Error, Position, Read, Result, Split, SplitReader};

use super::identity::{FileIdentity, Since};
use super::position::FilePosition;
use super::replaced::Replaced;
use super::slots::Slot;
use super::split::{FileSet, FileSplit};
use super::whereabouts::{self, Whereabouts};

/// How long a file waits that cannot be opened because too many are.
const SLOT_WAIT: Duration = Duration::from_millis(20);

/// Opens the file at this path after so many of its rows.
pub(crate) type OpenWhole = Box<dyn Fn(&Path, u64) -> Result<Box<dyn SplitReader>> + Send>;

impl FileSet {
    /// Opens a split of files that are written as a whole; `open` takes the path and how many rows to pass over.
    pub(crate) fn open_whole(&self, split: &Split, position: Option<&[u8]>, open: OpenWhole) -> Result<Box<dyn SplitReader>> {
        let file = FileSplit::of(split)?;
        let position = position.map(|bytes| FilePosition::decode(bytes, &split.name)).transpose()?;
        if position.is_none() && self.is_replaced(&file)? {
            return Ok(Box::new(Replaced));
        }
        if !self.may_change() {
            let passed = passed(&file.path, position.as_ref(), false)?;
            return open(&file.path, passed);
        }
        let (files, state) = (self.clone(), State::Unopened);
        Ok(Box::new(WholeReader { files, file, open, position, state, slot: None, rows_most: None }))
    }
}

/// How many rows of the file at this path are before the position; none of one that was rewritten.
fn passed(path: &Path, position: Option<&FilePosition>, is_followed: bool) -> Result<u64> {
    let Some(position) = position else { return Ok(0) };
    match FileIdentity::open(path)?.whole_since(position)? {
        Since::Same => Ok(position.offset),
        _ if is_followed && (position.is_at_end || position.offset == 0) => Ok(0),
        since => Err(since.refused(path).unwrap_or_else(|| Error::internal("a file is the same and is not"))),
    }
}

struct WholeReader {
    files: FileSet,
    file: FileSplit,
    open: OpenWhole,
    /// Where to begin, then where it ended.
    position: Option<FilePosition>,
    state: State,
    slot: Option<Slot>,
    /// How many rows are asked for at most.
    rows_most: Option<usize>,
}

enum State {
    Unopened,
    Open(Box<dyn SplitReader>),
    Over,
}

impl WholeReader {
    /// The path that the file has now; `None` if it is gone.
    fn path(&self) -> Option<PathBuf> {
        let Some(key) = self.file.key else { return Some(self.file.path.clone()) };
        match whereabouts::look(&self.file.path, key) {
            Whereabouts::Here(_) => Some(self.file.path.clone()),
            Whereabouts::Renamed(path, _) => Some(path),
            Whereabouts::Gone => None,
        }
    }

    /// Opens the file; whether that was possible now.
    fn start(&mut self) -> Result<bool> {
        self.slot = self.files.slots.try_take();
        if self.slot.is_none() {
            return Ok(false);
        }
        self.state = match (self.path(), &self.position) {
            (Some(path), position) => {
                let mut reader = (self.open)(&path, passed(&path, position.as_ref(), true)?)?;
                if let Some(rows) = self.rows_most {
                    reader.set_rows_most(rows);
                }
                State::Open(reader)
            }
            (None, Some(position)) if !position.is_at_end && position.offset > 0 => {
                return Err(Error::connector(format!(
                    "the checkpoint is in the middle of {:?} ({} of {} rows were read), which is gone; put it back, or start \
                     with another checkpoint directory",
                    self.file.path, position.offset, position.known
                )));
            }
            (None, _) => State::Over,
        };
        Ok(true)
    }
}

impl SplitReader for WholeReader {
    fn set_rows_most(&mut self, rows: usize) {
        self.rows_most = Some(rows);
    }

    fn next(&mut self, rows_max: usize) -> Result<Read> {
        if matches!(self.state, State::Unopened) && !self.start()? {
            return Ok(Read::Pending(SLOT_WAIT));
        }
        let State::Open(reader) = &mut self.state else { return Ok(Read::End) };
        let read = reader.next(rows_max)?;
        if matches!(read, Read::End) {
            self.position = Some(FilePosition::decode(&reader.position(), "a file that was read to its end")?);
            self.state = State::Over;
            self.slot = None;
        }
        Ok(read)
    }

    fn position(&self) -> Position {
        match &self.state {
            State::Open(reader) => reader.position(),
            State::Unopened | State::Over => self.position.unwrap_or_default().encode(),
        }
    }
}
