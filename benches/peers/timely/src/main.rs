//! The benchmark jobs as timely dataflows: records come in batches, are exchanged by key, and end in hash maps.
//!
//! `TIMELY_THREADS` says how many workers there are. A line in is `JOB ROWS FOLDER TEXT RESULT`, separated by tabs, as
//! `benches/loop/src/serve.rs` has it; a line out is the seconds from the start of the workers until all have ended.

mod jobs;

use std::fs;
use std::io::{self, BufRead, Write};
use std::sync::Arc;

/// A column of a result.
enum Column {
    Whole(&'static str, Vec<i64>),
    Real(&'static str, Vec<f64>),
    Text(&'static str, Vec<u8>),
}

fn main() -> io::Result<()> {
    let threads = std::env::var("TIMELY_THREADS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    for line in io::stdin().lock().lines() {
        let line = line?;
        let fields: Vec<&str> = line.split('\t').collect();
        let reply = match fields.as_slice() {
            [job, rows, folder, text, result] => answer(job, rows, folder, text, result, threads),
            _ => Err(io::Error::other(format!("{} fields, not five", fields.len()))),
        };
        match reply {
            Ok(seconds) => println!("{seconds}"),
            Err(problem) => println!("error {problem}"),
        }
        io::stdout().flush()?;
    }
    Ok(())
}

fn answer(job: &str, rows: &str, folder: &str, text: &str, result: &str, threads: usize) -> io::Result<f64> {
    let rows = rows.parse().map_err(io::Error::other)?;
    let load = |name: &str| load(&format!("{folder}/{name}.i64"), rows);
    let (seconds, columns) = match job {
        "words" => {
            let (seconds, counts) = jobs::words(threads, text)?;
            let words: Vec<&[u8]> = counts.iter().map(|(word, _)| word.as_slice()).collect();
            (seconds, vec![Column::Text("word", words.join(&b'\n')), whole("n", &counts, |count| count.1)])
        }
        "map" => {
            let (seconds, prices) = jobs::map(threads, load("bids.price")?);
            (seconds, vec![Column::Real("price", prices.concat())])
        }
        "filter" => {
            let (seconds, kept) = jobs::filter(threads, load("bids.auction")?, load("bids.price")?);
            let kept = kept.concat();
            (seconds, vec![whole("auction", &kept, |bid| bid.0), whole("price", &kept, |bid| bid.1)])
        }
        "keyed" | "million" => {
            let name = if job == "keyed" { "bids" } else { "drawn" };
            let (seconds, sums) = jobs::keyed(threads, load(&format!("{name}.auction"))?, load(&format!("{name}.price"))?);
            (seconds, vec![whole("auction", &sums, |sum| sum.0), whole("n", &sums, |sum| sum.1.0), whole("total", &sums, |sum| sum.1.1)])
        }
        "window" => {
            let (seconds, windows) = jobs::window(threads, load("bids.auction")?, load("bids.price")?, load("bids.at")?);
            let keys = vec![whole("auction", &windows, |window| window.auction), whole("window_start", &windows, |window| window.start_ms)];
            let values = vec![whole("n", &windows, |window| window.count), whole("top", &windows, |window| window.top)];
            (seconds, keys.into_iter().chain(values).collect())
        }
        other => return Err(io::Error::other(format!("no job {other:?}"))),
    };
    if !result.is_empty() {
        for column in columns {
            save(result, column)?;
        }
    }
    Ok(seconds)
}

fn whole<T>(name: &'static str, rows: &[T], value: impl Fn(&T) -> i64) -> Column {
    Column::Whole(name, rows.iter().map(value).collect())
}

fn load(path: &str, rows: usize) -> io::Result<Arc<Vec<i64>>> {
    let bytes = fs::read(path)?;
    let (values, _) = bytes.as_chunks::<8>();
    if values.len() < rows {
        return Err(io::Error::other(format!("{path} has {} values, not {rows}", values.len())));
    }
    Ok(Arc::new(values[..rows].iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()))
}

fn save(result: &str, column: Column) -> io::Result<()> {
    match column {
        Column::Whole(name, values) => {
            fs::write(format!("{result}.{name}.i64"), values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
        }
        Column::Real(name, values) => {
            fs::write(format!("{result}.{name}.f64"), values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
        }
        Column::Text(name, bytes) => fs::write(format!("{result}.{name}.txt"), bytes),
    }
}
