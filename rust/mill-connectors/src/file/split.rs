//! The splits of a set of files: which there are, what identifies them, and how a checkpoint keeps them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mill_protocol::{Error, Result, Source, SourceProperties, Split, SplitId};

use super::content::Compression;
use super::copies::Copies;
use super::input::{size_at, stamp_at};
use super::options::FileOptions;
use super::path::PathSpec;
use super::pipe::{STANDARD_INPUT, is_pipe};
use super::slots::Slots;
use super::stamp::{FileKey, Stamp, open_failed};
use crate::object::is_object;

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
    /// Those that are links, and the files that they lead to.
    links: HashMap<PathBuf, PathBuf>,
    pub(crate) is_followed: bool,
    /// The options of the reader, and as Python spells them with those of the format.
    options: Arc<FileOptions>,
    text: String,
    /// How many followed files are held open.
    pub(crate) slots: Arc<Slots>,
    /// The copies among followed files.
    pub(crate) copies: Arc<Copies>,
}

/// One file, or a range of it.
///
/// ```text
///   version u8 = 1 | flags u8 (1 = range, 2 = key) | generation u32 | start u64 | end u64
///   device u64 | inode u64 | born i64 | path, as the system has it              little endian
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileSplit {
    pub(crate) path: PathBuf,
    /// The range in units of the format: bytes for lines, row groups for Parquet. The last range of a file of lines has no
    /// end (`u64::MAX`), so that one which has grown until a job is resumed is cut in the same places.
    pub(crate) range: Option<(u64, u64)>,
    /// How many files had been followed under this name before.
    pub(crate) generation: u32,
    /// Which file it is, if it is followed: its name may change, and the name may come to be another file's.
    pub(crate) key: Option<FileKey>,
}

const VERSION: u8 = 1;
const HAS_RANGE: u8 = 1;
const HAS_KEY: u8 = 2;
const HEADER_BYTES: usize = 2 + 4 + 5 * 8;

/// Of an object they are larger: each begins with a request.
const OBJECT_RANGE_BYTES_MIN: u64 = 8 << 20;

/// How large the ranges of the file at this path are, which has this size.
fn range_bytes_at(path: &Path, size: u64) -> u64 {
    if is_object(path) { range_bytes(size).max(OBJECT_RANGE_BYTES_MIN) } else { range_bytes(size) }
}

/// How large the ranges of a file of this size are.
pub(crate) fn range_bytes(size: u64) -> u64 {
    size.div_ceil(RANGES).clamp(RANGE_BYTES_MIN, RANGE_BYTES_MAX).next_power_of_two()
}

/// Runs of the parts of a file of about [`range_bytes`] on disk; none for a file that is smaller than that.
fn runs_of_parts(path: &Path, parts: impl Fn(&Path) -> Result<Vec<u64>>) -> Result<Vec<(u64, u64)>> {
    let size = size_at(path)?;
    let range_bytes = range_bytes_at(path, size);
    if size <= range_bytes {
        return Ok(Vec::new());
    }
    let mut ranges = Vec::new();
    let (mut start, mut end, mut bytes) = (0, 0, 0);
    for part in parts(path)? {
        (end, bytes) = (end + 1, bytes + part);
        if bytes >= range_bytes {
            ranges.push((start, end));
            (start, bytes) = (end, 0);
        }
    }
    if start < end {
        ranges.push((start, end));
    }
    Ok(ranges)
}

impl FileSplit {
    pub(crate) fn whole(path: PathBuf) -> FileSplit {
        FileSplit { path, ..FileSplit::default() }
    }

    pub(crate) fn to_split(&self) -> Split {
        Split::with_detail(self.id_of(&self.path), self.path.to_string_lossy(), self.encode())
    }

    /// The identity under this path: no name has a zero byte, so what follows one cannot be taken for part of a name.
    fn id_of(&self, path: &Path) -> SplitId {
        let mut bytes = path.as_os_str().as_bytes().to_vec();
        if let Some((start, end)) = self.range {
            bytes.push(0);
            bytes.extend_from_slice(&start.to_le_bytes());
            bytes.extend_from_slice(&end.to_le_bytes());
        }
        if self.generation > 0 {
            bytes.extend_from_slice(&[0, 1]);
            bytes.extend_from_slice(&self.generation.to_le_bytes());
        }
        SplitId::of_bytes(&bytes)
    }

    fn encode(&self) -> Vec<u8> {
        let name = self.path.as_os_str().as_bytes();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + name.len());
        let flags = if self.range.is_some() { HAS_RANGE } else { 0 } | if self.key.is_some() { HAS_KEY } else { 0 };
        bytes.extend_from_slice(&[VERSION, flags]);
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        let (start, end) = self.range.unwrap_or_default();
        let key = self.key.unwrap_or_default();
        for number in [start, end, key.device, key.inode, key.born as u64] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(name);
        bytes
    }

    /// # Errors
    /// When another version has made the split.
    pub(crate) fn of(split: &Split) -> Result<FileSplit> {
        let unreadable = || {
            Error::checkpoint(format!("what the checkpoint notes of {:?} is not readable by this version of Millstream", split.name))
        };
        let (header, name) = split.detail.split_at_checked(HEADER_BYTES).ok_or_else(unreadable)?;
        if header[0] != VERSION {
            return Err(unreadable());
        }
        let number = |index: usize| u64::from_le_bytes(std::array::from_fn(|i| header[6 + 8 * index + i]));
        let key = FileKey { device: number(2), inode: number(3), born: number(4) as i64 };
        Ok(FileSplit {
            path: PathBuf::from(OsStr::from_bytes(name)),
            range: (header[1] & HAS_RANGE != 0).then(|| (number(0), number(1))),
            generation: u32::from_le_bytes(std::array::from_fn(|i| header[2 + i])),
            key: (header[1] & HAS_KEY != 0).then_some(key),
        })
    }

    /// Whether the rest of the file, however long, belongs to it.
    pub(crate) fn is_to_the_end(&self) -> bool {
        self.range.is_none_or(|(_, end)| end == u64::MAX)
    }
}

impl FileSet {
    /// The files that are named; `of_format` are the options of their format, as Python spells them.
    pub(crate) fn new(reader: &str, paths: PathSpec, options: &FileOptions, of_format: String) -> Result<FileSet> {
        options.check(reader)?;
        let is_followed = options.follow;
        if paths.is_pipe(reader)? {
            options.check_pipe(reader)?;
            let (files, links) = (vec![PathBuf::from(STANDARD_INPUT)], HashMap::new());
            let text = of_format + &options.text();
            let copies = Arc::new(Copies::new(paths.clone()));
            return Ok(FileSet { paths, files, links, is_followed, options: Arc::new(options.clone()), text, slots: Arc::default(), copies });
        }
        if let (true, Some(entry)) = (is_followed, paths.of_web()) {
            return Err(Error::plan(format!(
                "{reader}: a server of the web does not say what is new, so follow=True is not possible for {entry:?}; leave it out, and run the job \
                 again for what has changed"
            )));
        }
        if is_followed && paths.has_objects() && !paths.is_of_objects() {
            return Err(Error::plan(format!(
                "{reader}: follow=True takes files of this machine or objects of a store, not both: read each by itself and unite the streams \
                 with union()"
            )));
        }
        let paths = paths.recursive(options.recursive || options.hive_partitioning);
        let listing = paths.files(is_followed)?;
        let text = of_format + &options.text();
        let (options, slots) = (Arc::new(options.clone()), Arc::default());
        let copies = Arc::new(Copies::new(paths.clone()));
        Ok(FileSet { paths, files: listing.files, links: listing.links, is_followed, options, text, slots, copies })
    }

    /// A source of these files as the options of the reader want it.
    pub(crate) fn apply(&self, source: impl Source + 'static) -> Result<Arc<dyn Source>> {
        self.options.apply(Arc::new(source), &self.files)
    }

    /// Whether files may grow, be renamed or be cut off while they are read. Objects are what they are.
    pub(crate) fn may_change(&self) -> bool {
        self.is_followed && !self.paths.has_objects()
    }

    /// Whether an object that is followed is no longer what it was when it was found: what is there now has a split of its own.
    pub(crate) fn is_replaced(&self, file: &FileSplit) -> Result<bool> {
        let Some(key) = file.key.filter(|_| self.is_followed && !self.may_change()) else { return Ok(false) };
        match stamp_at(&file.path) {
            Ok(stamp) => Ok(stamp.of_version().key != key),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(true),
            Err(e) => Err(open_failed(&file.path, e)),
        }
    }

    /// Whether it is standard input.
    pub(crate) fn is_pipe(&self) -> bool {
        self.files.first().is_some_and(|path| is_pipe(path))
    }

    /// The columns that are read, if some were named: what the others are does not matter.
    pub(crate) fn chosen(&self) -> Option<&[String]> {
        self.options.columns.as_deref()
    }

    /// Refuses columns that were named and that no file has; `names` are those that files have.
    pub(crate) fn check_chosen(&self, reader: &str, names: &[String]) -> Result<()> {
        self.options.check_chosen(&self.name(reader), names)
    }

    /// Whether a column that a file does not have is null in its records.
    pub(crate) fn inserts_missing_columns(&self) -> bool {
        self.options.insert_missing_columns
    }

    /// What it is, for messages: `read_csv("a.csv", separator=";")`.
    pub(crate) fn name(&self, reader: &str) -> String {
        format!("{reader}({}{})", self.paths, self.text)
    }

    /// The file that a listed path leads to.
    pub(crate) fn real<'a>(&'a self, path: &'a Path) -> &'a Path {
        self.links.get(path).map_or(path, PathBuf::as_path)
    }

    /// What tells these files from others, however they are spelt.
    pub(crate) fn identity(&self, reader: &str) -> String {
        let paths = if self.is_pipe() { STANDARD_INPUT.to_owned() } else { self.paths.identity() };
        format!("{reader}({paths}{})", self.text)
    }

    /// What a source of these files promises.
    pub(crate) fn properties(&self) -> SourceProperties {
        if self.is_pipe() {
            let is_bounded = !self.is_followed;
            return SourceProperties { is_bounded, is_replayable: false, discovers_splits: false, may_block: true };
        }
        SourceProperties {
            is_bounded: !self.is_followed,
            is_replayable: true,
            discovers_splits: self.is_followed,
            may_block: self.paths.has_objects(),
        }
    }

    /// The splits there are now: of followed files, each as the first of its name; of others what `cut` makes of a path.
    pub(crate) fn splits_by(&self, cut: impl Fn(&Path, &mut Vec<FileSplit>) -> Result<()>) -> Result<Vec<Split>> {
        let mut found = Vec::new();
        if self.is_pipe() {
            return Ok(vec![FileSplit::whole(PathBuf::from(STANDARD_INPUT)).to_split()]);
        }
        if self.is_followed {
            self.copies.clear();
            for (path, stamp) in self.followed()? {
                found.push(FileSplit { path, key: Some(stamp.key), ..FileSplit::default() });
            }
            return Ok(found.iter().map(FileSplit::to_split).collect());
        }
        for path in &self.files {
            cut(path, &mut found)?;
            if found.len() > SPLITS_MAX {
                return Err(Error::connector(format!("{} has more than {SPLITS_MAX} splits", self.paths)));
            }
        }
        Ok(found.iter().map(|file| Split { id: file.id_of(self.real(&file.path)), ..file.to_split() }).collect())
    }

    /// The splits of files that are made of parts: each file as a whole if the order counts or it is small, else runs of parts of
    /// about [`range_bytes`]. `parts` looks into a file for how many bytes each of its parts takes.
    pub(crate) fn splits_of_parts(&self, is_ordered: bool, parts: impl Fn(&Path) -> Result<Vec<u64>>) -> Result<Vec<Split>> {
        self.splits_by(|path, found| {
            let ranges = if is_ordered { Vec::new() } else { runs_of_parts(path, &parts)? };
            let whole = FileSplit::whole(path.to_owned());
            if ranges.len() <= 1 {
                found.push(whole);
            } else {
                found.extend(ranges.into_iter().map(|range| FileSplit { range: Some(range), ..whole.clone() }));
            }
            Ok(())
        })
    }

    /// The followed files there are now. A name that leads to no file, or to one that has another name too and was met
    /// already, is left out.
    pub(crate) fn followed(&self) -> Result<Vec<(PathBuf, Stamp)>> {
        let mut found = Vec::new();
        if !self.may_change() {
            for path in self.paths.files_now()? {
                match stamp_at(&path) {
                    Ok(stamp) => found.push((path, stamp.of_version())),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    Err(e) => return Err(open_failed(&path, e)),
                }
            }
            return Ok(found);
        }
        let mut keys = std::collections::HashSet::new();
        for path in self.paths.files_now()? {
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            let stamp = Stamp::of(&metadata);
            if metadata.is_file() && keys.insert(stamp.key) {
                found.push((path, stamp));
            }
        }
        Ok(found)
    }
}

/// Adds the splits of a file of lines: one, or ranges of bytes of a large plain file that `can_cut` says may be cut.
pub(crate) fn cut_lines(
    path: &Path,
    is_ordered: bool,
    can_cut: impl Fn(&Path) -> Result<bool>,
    found: &mut Vec<FileSplit>,
) -> Result<()> {
    let size = if is_ordered || Compression::of(path) != Compression::None {
        0
    } else {
        size_at(path)?
    };
    let range_bytes = range_bytes_at(path, size);
    if size <= range_bytes || !can_cut(path)? {
        found.push(FileSplit::whole(path.to_owned()));
        return Ok(());
    }
    for start in (0..size).step_by(range_bytes as usize) {
        let end = if start + range_bytes < size { start + range_bytes } else { u64::MAX };
        found.push(FileSplit { range: Some((start, end)), ..FileSplit::whole(path.to_owned()) });
    }
    Ok(())
}
