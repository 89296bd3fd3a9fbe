//! `mill-loop serve`: runs jobs over records that others have made, for `benches/peers`.
//!
//! A line in is `JOB ROWS FOLDER TEXT RESULT`, separated by tabs: FOLDER has the columns (`bids.auction.i64`: 64 bits a value,
//! low byte first), TEXT is the file to read for `words` and `csv`, RESULT is where to write the columns of the result
//! (`RESULT.auction.i64`, `RESULT.price.f64`, `RESULT.word.txt`), or empty. A line out is the seconds that the job took, or
//! `error` and why. Columns are loaded before the clock runs; text files are read while it does.

use std::fs;
use std::hint::black_box;
use std::io::{self, BufRead, Write};
use std::time::Instant;

use crate::jobs;

/// A result: named columns.
enum Column {
    Whole(&'static str, Vec<i64>),
    Real(&'static str, Vec<f64>),
    Text(&'static str, Vec<u8>),
}

/// Answers until the input ends.
pub fn serve() -> io::Result<()> {
    for line in io::stdin().lock().lines() {
        let line = line?;
        let fields: Vec<&str> = line.split('\t').collect();
        let reply = match fields.as_slice() {
            [job, rows, folder, text, result] => answer(job, rows, folder, text, result),
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

fn answer(job: &str, rows: &str, folder: &str, text: &str, result: &str) -> io::Result<f64> {
    let rows = rows.parse().map_err(io::Error::other)?;
    let column = |name: &str| load(&format!("{folder}/{name}.i64"), rows);
    let (seconds, columns) = match job {
        "words" => timed(|| Ok(jobs::words(&fs::read(text)?)), |counts| {
            let words: Vec<&[u8]> = counts.keys().map(|word| &**word).collect();
            vec![Column::Text("word", words.join(&b'\n')), Column::Whole("n", counts.values().copied().collect())]
        })?,
        "csv" => timed(|| Ok(jobs::csv(&fs::read(text)?)), sums)?,
        "map" => {
            let price = column("bids.price")?;
            timed(|| Ok(jobs::map(black_box(&price))), |scaled| vec![Column::Real("price", scaled)])?
        }
        "filter" => {
            let (auction, price) = (column("bids.auction")?, column("bids.price")?);
            timed(|| Ok(jobs::filter(black_box(&auction), &price)), |kept| {
                let (auction, price) = kept.into_iter().unzip();
                vec![Column::Whole("auction", auction), Column::Whole("price", price)]
            })?
        }
        "keyed" | "million" => {
            let name = if job == "keyed" { "bids" } else { "drawn" };
            let (auction, price) = (column(&format!("{name}.auction"))?, column(&format!("{name}.price"))?);
            timed(|| Ok(jobs::keyed(black_box(&auction), &price)), sums)?
        }
        "window" => {
            let (auction, price, at) = (column("bids.auction")?, column("bids.price")?, column("bids.at")?);
            timed(|| Ok(jobs::window(black_box(&auction), &price, &at)), |windows| {
                let of = |field: fn(&jobs::Window) -> i64| windows.iter().map(field).collect();
                vec![
                    Column::Whole("auction", of(|window| window.auction)),
                    Column::Whole("window_start", of(|window| window.start_ms)),
                    Column::Whole("n", of(|window| window.count)),
                    Column::Whole("top", of(|window| window.top)),
                ]
            })?
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

fn timed<T>(job: impl FnOnce() -> io::Result<T>, columns: impl FnOnce(T) -> Vec<Column>) -> io::Result<(f64, Vec<Column>)> {
    let began = Instant::now();
    let result = black_box(job()?);
    let seconds = began.elapsed().as_secs_f64();
    Ok((seconds, columns(result)))
}

fn sums(sums: jobs::Map<i64, (i64, i64)>) -> Vec<Column> {
    vec![
        Column::Whole("auction", sums.keys().copied().collect()),
        Column::Whole("n", sums.values().map(|sum| sum.0).collect()),
        Column::Whole("total", sums.values().map(|sum| sum.1).collect()),
    ]
}

fn load(path: &str, rows: usize) -> io::Result<Vec<i64>> {
    let bytes = fs::read(path)?;
    let (values, _) = bytes.as_chunks::<8>();
    if values.len() < rows {
        return Err(io::Error::other(format!("{path} has {} values, not {rows}", values.len())));
    }
    Ok(values[..rows].iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
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
