//! How fast a file is read, one thread, all columns or those named:
//! `cargo run --release -p mill-connectors --example read_speed -- FILE [ROWS] [COLUMN …]`.

use std::sync::Arc;
use std::time::Instant;

use mill_connectors::{CsvSource, JsonSource, ParquetSource, PathSpec, TextSource};
use mill_protocol::{Read, Result, Source};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_default();
    let rows_max = arguments.next().and_then(|rows| rows.parse().ok()).unwrap_or(8192);
    let paths = PathSpec::from(path.as_str());
    let plain = path.trim_end_matches(".gz").trim_end_matches(".zst");
    let mut source: Arc<dyn Source> = match plain.rsplit('.').next() {
        Some("csv") => Arc::new(CsvSource::new(paths, None, Default::default())?),
        Some("json") => Arc::new(JsonSource::new(paths, None, Default::default())?),
        Some("parquet") => Arc::new(ParquetSource::new(paths, None, Default::default())?),
        _ => Arc::new(TextSource::new(paths, Default::default())?),
    };
    let columns: Vec<usize> = arguments.filter_map(|name| source.schema().index_of(&name).ok()).collect();
    if let Some(projected) = (!columns.is_empty()).then(|| source.project(&columns)).flatten() {
        source = projected;
    }
    let start = Instant::now();
    let (mut rows, mut rejected) = (0, 0);
    let splits = source.splits(false)?;
    for split in &splits {
        let mut reader = source.open(split, None)?;
        loop {
            match reader.next(rows_max)? {
                Read::Batch(batch) => rows += batch.num_rows(),
                Read::Partial(batch, bad) => {
                    rows += batch.num_rows();
                    rejected += bad.len();
                }
                Read::Mark(_) | Read::Truncated(_) => {}
                Read::Pending(wait) => std::thread::sleep(wait),
                Read::End => break,
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let rate = rows as f64 / seconds / 1e6;
    println!("{rows} rows, {rejected} rejected, {} splits, {seconds:.3} s, {rate:.2} M rows/s", splits.len());
    Ok(())
}
