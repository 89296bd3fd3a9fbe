//! What the ending of a path says: one file or a directory, its format, how it is compressed.

use std::path::Path;

use mill_protocol::{Error, Result};

use super::FileFormat;

/// Endings of compressed files, of which those of gzip and Zstandard are written.
const COMPRESSED: [&str; 10] = ["gz", "gzip", "zst", "zstd", "bz2", "xz", "lz4", "br", "sz", "zip"];
/// Endings of formats that are not written.
const OTHERS: [&str; 6] = ["arrows", "avro", "orc", "xls", "xlsx", "xml"];

/// The endings of files of a format.
fn endings(format: FileFormat) -> &'static [&'static str] {
    match format {
        FileFormat::Csv => &["csv", "tsv", "txt"],
        FileFormat::Json => &["json", "jsonl", "ndjson"],
        FileFormat::Parquet => &["parquet", "pq"],
        FileFormat::Arrow => &["arrow", "feather", "ipc"],
    }
}

/// The ending of the name of a file, and the one before that, in lower case; `None` where the path is that of a directory.
fn endings_of(path: &Path) -> Option<(String, String)> {
    let text = path.as_os_str().to_str()?;
    if text.ends_with('/') || path.is_dir() {
        return None;
    }
    let ending = |path: &Path| path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    Some((ending(path)?, ending(Path::new(path.file_stem()?)).unwrap_or_default()))
}

/// Whether a path names one file of this format, and then how its name says that it is compressed.
///
/// # Errors
/// When its ending promises a file that would not be written: of another format, compressed in another way, or with tabs
/// between fields. Any other ending, such as that of `v1.2`, is part of the name of a directory.
pub(super) fn names_file(path: &Path, format: FileFormat, separator: u8) -> Result<Option<&'static str>> {
    let Some((last, before)) = endings_of(path) else { return Ok(None) };
    let own = format.extension();
    let refused = |what: &str, instead: &str| {
        Err(Error::plan(format!(
            "write_{own}: {path:?} has the ending of {what}: {instead}, or end the path with \"/\" if it is to be a directory"
        )))
    };
    let is_compressed = COMPRESSED.contains(&last.as_str());
    if is_compressed && matches!(format, FileFormat::Parquet | FileFormat::Arrow) {
        let name = if format == FileFormat::Parquet { "Parquet" } else { "Arrow" };
        return refused("a compressed file", &format!("{name} is compressed inside, so write \".{own}\" and compression=…"));
    }
    let (ending, compression) = match last.as_str() {
        "gz" | "gzip" => (&before, "gzip"),
        "zst" | "zstd" => (&before, "zstd"),
        _ => (&last, "uncompressed"),
    };
    if endings(format).contains(&ending.as_str()) {
        return match ending == "tsv" && separator != b'\t' {
            true => refused("a file with tabs between its fields", "pass separator=\"\\t\", or write \".csv\""),
            false => Ok(Some(compression)),
        };
    }
    if is_compressed {
        return refused(
            "a compressed file of a kind that is not written",
            &format!("write \".{own}\", \".{own}.gz\" or \".{own}.zst\""),
        );
    }
    if let Some(other) = FileFormat::ALL.into_iter().find(|other| endings(*other).contains(&last.as_str())) {
        return refused("another format", &format!("write \".{own}\", or call write_{}()", other.extension()));
    }
    if OTHERS.contains(&last.as_str()) {
        return refused("another format, which is not written", &format!("write \".{own}\""));
    }
    Ok(None)
}
