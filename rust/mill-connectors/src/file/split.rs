//! The splits of a set of files.

use std::path::{Path, PathBuf};

use mill_protocol::{Error, Result, SourceProperties, Split};

use super::content::Compression;
use super::path::PathSpec;

/// About so many ranges a file is cut into when order does not matter: enough that tasks that take every n-th one end at
/// nearly the same time.
const RANGES: u64 = 128;
/// How small and how large ranges get. A smaller one costs more to open than to read; of larger ones few tasks get any.
const RANGE_BYTES_MIN: u64 = 512 << 10;
const RANGE_BYTES_MAX: u64 = 16 << 20;
/// More splits than this are refused: a job keeps a position for each.
const SPLITS_MAX: usize = 4_000_000;

/// The files that a source reads: fixed if it is bounded, looked up again if it follows.
#[derive(Clone, Debug)]
pub(crate) struct FileSet {
    pub(crate) paths: PathSpec,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) is_followed: bool,
}

/// One file, or a range of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileSplit {
    pub(crate) path: PathBuf,
    /// The range in units of the format: bytes for lines, row groups for Parquet.
    pub(crate) range: Option<(u64, u64)>,
}

/// Between path and range in the name of a split.
const RANGE_MARK: &str = " range ";

/// How large the ranges of a file of this size are: a power of two, so that a file which has grown until a job is
/// resumed is nearly always cut in the same places.
pub(crate) fn range_bytes(size: u64) -> u64 {
    size.div_ceil(RANGES).clamp(RANGE_BYTES_MIN, RANGE_BYTES_MAX).next_power_of_two()
}

impl FileSplit {
    pub(crate) fn to_split(&self) -> Result<Split> {
        let path = self.path.to_str().ok_or_else(|| {
            Error::connector(format!("{:?} is not a name in UTF-8; rename the file to read it", self.path))
        })?;
        Ok(match self.range {
            None => Split::new(path),
            Some((start, end)) => Split::new(format!("{path}{RANGE_MARK}{start}-{end}")),
        })
    }

    pub(crate) fn of(split: &Split) -> FileSplit {
        let range = split.name.rsplit_once(RANGE_MARK).and_then(|(path, range)| {
            let (start, end) = range.split_once('-')?;
            Some((path, (start.parse().ok()?, end.parse().ok()?)))
        });
        match range {
            Some((path, range)) => FileSplit { path: path.into(), range: Some(range) },
            None => FileSplit { path: PathBuf::from(&split.name), range: None },
        }
    }
}

impl FileSet {
    pub(crate) fn new(paths: PathSpec, is_followed: bool) -> Result<FileSet> {
        let files = paths.files(is_followed)?;
        Ok(FileSet { paths, files, is_followed })
    }

    /// What a source of these files promises.
    pub(crate) fn properties(&self) -> SourceProperties {
        SourceProperties {
            is_bounded: !self.is_followed,
            is_replayable: true,
            discovers_splits: self.is_followed,
            may_block: false,
        }
    }

    /// The files there are now.
    pub(crate) fn current(&self) -> Result<Vec<PathBuf>> {
        if self.is_followed { self.paths.files(true) } else { Ok(self.files.clone()) }
    }

    /// A split a file, or ranges of bytes of those large plain files that `can_cut` says may be cut.
    pub(crate) fn splits(&self, is_ordered: bool, can_cut: impl Fn(&Path) -> Result<bool>) -> Result<Vec<Split>> {
        let mut splits = Vec::new();
        for path in self.current()? {
            let size = if is_ordered || self.is_followed || Compression::of(&path) != Compression::None {
                0
            } else {
                std::fs::metadata(&path)
                    .map_err(|e| Error::connector(format!("cannot stat {path:?}: {e}")).because(e))?
                    .len()
            };
            let range_bytes = range_bytes(size);
            if size <= range_bytes || !can_cut(&path)? {
                splits.push(FileSplit { path, range: None }.to_split()?);
                continue;
            }
            for start in (0..size).step_by(range_bytes as usize) {
                let range = Some((start, start + range_bytes));
                splits.push(FileSplit { path: path.clone(), range }.to_split()?);
            }
            if splits.len() > SPLITS_MAX {
                return Err(Error::connector(format!("{} has more than {SPLITS_MAX} splits", self.paths)));
            }
        }
        Ok(splits)
    }
}
