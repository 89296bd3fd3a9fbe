//! The contract of every source, in one check: reopened at any position, a reader returns exactly the rest.

use std::path::Path;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use mill_protocol::{Read, Rejected, Source, SplitReader};

/// Each row as text, columns separated by `|`, null as `∅`.
pub(crate) fn rows_of(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("∅");
    let columns: Vec<(ArrayRef, &str)> = batch
        .columns()
        .iter()
        .map(|column| match column.data_type() {
            // Named zones are shown in UTC: formatting in them needs a database of zones.
            DataType::Timestamp(unit, Some(_)) => {
                (cast(&cast(column, &DataType::Int64).unwrap(), &DataType::Timestamp(*unit, None)).unwrap(), "Z")
            }
            _ => (column.clone(), ""),
        })
        .collect();
    let columns: Vec<(ArrayFormatter, &str)> =
        columns.iter().map(|(column, zone)| (ArrayFormatter::try_new(column.as_ref(), &options).unwrap(), *zone)).collect();
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|(column, zone)| format!("{}{zone}", column.value(row))).collect::<Vec<_>>().join("|"))
        .collect()
}

/// What a reader returns until its end, or until nothing comes: rows, and rejected records as `!error`.
pub(crate) fn drain(reader: &mut dyn SplitReader, rows_max: usize) -> Vec<String> {
    let mut rows = Vec::new();
    loop {
        match reader.next(rows_max).unwrap() {
            Read::Batch(batch) => {
                assert!(batch.num_rows() <= rows_max, "{} rows, asked for {rows_max}", batch.num_rows());
                rows.extend(rows_of(&batch));
            }
            Read::Partial(batch, rejected) => {
                rows.extend(rows_of(&batch));
                rows.extend(rejected.iter().map(|rejected: &Rejected| format!("!{}", rejected.error)));
            }
            Read::Mark(_) | Read::Truncated(_) => {}
            Read::Pending(_) | Read::End => return rows,
        }
    }
}

/// All rows, read in order of the splits, checked by reopening at every position with other batch sizes.
pub(crate) fn check(source: &dyn Source, rows_max: usize) -> Vec<String> {
    check_kept(source, rows_max, |_| true)
}

/// The same with only the rows that are kept: a source that was passed conditions may give more than meet them, and how many
/// more can differ from one reading to the next.
pub(crate) fn check_kept(source: &dyn Source, rows_max: usize, is_kept: impl Fn(&str) -> bool) -> Vec<String> {
    let kept = |rows: &[String]| sorted(rows.iter().filter(|row| is_kept(row)).cloned().collect());
    let mut all = Vec::new();
    for is_ordered in [true, false] {
        let mut these = Vec::new();
        for split in source.splits(is_ordered).unwrap() {
            let whole = kept(&drain(source.open(&split, None).unwrap().as_mut(), rows_max));
            let mut reader = source.open(&split, None).unwrap();
            let mut given = Vec::new();
            loop {
                let mut again = source.open(&split, Some(&reader.position())).unwrap();
                let mut rows = given.clone();
                rows.extend(drain(again.as_mut(), rows_max + 3));
                assert_eq!(kept(&rows), whole, "{} at {} rows", split.name, given.len());
                match reader.next(rows_max).unwrap() {
                    Read::Batch(batch) => given.extend(rows_of(&batch)),
                    Read::Partial(batch, rejected) => {
                        given.extend(rows_of(&batch));
                        given.extend(rejected.iter().map(|rejected| format!("!{}", rejected.error)));
                    }
                    Read::Mark(_) | Read::Truncated(_) => panic!("no source here tells of its time, or follows files"),
                    Read::Pending(_) => panic!("a bounded source has nothing to wait for"),
                    Read::End => break,
                }
            }
            these.extend(given);
        }
        if is_ordered {
            all = these;
        } else {
            assert_eq!(kept(&these), kept(&all), "cut finer, a source gives the same records");
        }
    }
    all
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

/// Writes a file, compressed as its name says.
pub(crate) fn write(path: &Path, bytes: &[u8]) {
    let bytes = match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, bytes).unwrap();
            encoder.finish().unwrap()
        }
        Some("zst") => zstd::encode_all(bytes, 1).unwrap(),
        Some("bz2") => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            std::io::Write::write_all(&mut encoder, bytes).unwrap();
            encoder.finish().unwrap()
        }
        Some("lz4") => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            std::io::Write::write_all(&mut encoder, bytes).unwrap();
            encoder.finish().unwrap()
        }
        Some("xz") => {
            let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
            std::io::Write::write_all(&mut encoder, bytes).unwrap();
            encoder.finish().unwrap()
        }
        _ => bytes.to_vec(),
    };
    std::fs::write(path, bytes).unwrap();
}
