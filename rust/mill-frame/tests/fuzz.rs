//! A mutational fuzzer that needs no nightly compiler, and the corpus of what it found worth keeping.
//!
//! It runs for a moment as a plain test. To run it for longer, from a seed of one's own, and to keep what is new:
//!
//! ```text
//! MILL_FUZZ_SECONDS=600 MILL_FUZZ_SEED=7 MILL_FUZZ_KEEP=/some/directory \
//!     cargo test --release -p mill-frame --test fuzz -- --nocapture
//! ```
//!
//! Kept is the first input of each outcome (an error's text without its numbers) and each input that panics. Put into
//! `tests/corpus` they are run by `the_corpus_is_safe` forever. `fuzz/` has the same target for cargo-fuzz.

#[path = "support/mod.rs"]
mod support;
#[path = "support/target.rs"]
mod target;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::Random;
use target::{check, good_frame, schemas};

/// How many inputs a plain test run tries.
const INPUTS: usize = 10_000;

/// Changes some bytes; most changes go to the end, where tables and root lie.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    const ODD: [u64; 12] =
        [0, 1, 63, 64, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0xffff_ffff_ffff_ffff];
    for _ in 0..1 + random.below(3) {
        if bytes.is_empty() {
            return;
        }
        let tail = bytes.len().min(if random.below(2) == 0 { 200 } else { 1200 });
        let at = match random.below(4) {
            0 => random.below(bytes.len()),
            _ => bytes.len() - 1 - random.below(tail),
        };
        match random.below(9) {
            0 | 1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = random.next() as u8,
            3 | 4 => {
                let (start, odd) = (at & !3, ODD[random.below(ODD.len())] as u32);
                if let Some(word) = bytes.get_mut(start..start + 4) {
                    word.copy_from_slice(&odd.to_le_bytes());
                }
            }
            5 => {
                let start = at & !3;
                if let Some(word) = bytes.get_mut(start..start + 4) {
                    let old = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                    let step = [1, 4, 8, 16, 64][random.below(5)];
                    let new = if random.below(2) == 0 { old.wrapping_add(step) } else { old.wrapping_sub(step) };
                    word.copy_from_slice(&new.to_le_bytes());
                }
            }
            6 => {
                // A piece from elsewhere in the same frame.
                let length = [4, 8, 12, 16][random.below(4)].min(bytes.len());
                let from = random.below(bytes.len() - length + 1) & !3;
                let to = (at.min(bytes.len() - length)) & !3;
                bytes.copy_within(from..from + length, to);
            }
            7 => bytes.truncate(match random.below(2) {
                0 => at,
                _ => at & !15,
            }),
            _ => {
                let from = random.below(other.len().max(1)).min(other.len());
                let piece = &other[from..other.len().min(from + random.below(300))];
                match random.below(2) {
                    0 => bytes.splice(at..at, piece.iter().copied()).for_each(drop),
                    _ => bytes.extend_from_slice(piece),
                }
            }
        }
    }
}

/// The outcome without numbers, so that outcomes can be counted.
fn class(outcome: &Result<(), String>) -> String {
    let Err(text) = outcome else { return "taken".to_owned() };
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.contains(|c: char| c.is_ascii_digit()));
    let mut class = words.filter(|w| !w.is_empty()).take(12).collect::<Vec<_>>().join("-").to_lowercase();
    class.truncate(80);
    class
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

#[test]
fn no_byte_string_gets_past() {
    let seconds = number("MILL_FUZZ_SECONDS").map(Duration::from_secs);
    let seed = number("MILL_FUZZ_SEED").unwrap_or(20_130_101);
    let keep = std::env::var_os("MILL_FUZZ_KEEP").map(PathBuf::from);
    println!("seed {seed}");
    let (started, mut random, schemas) = (Instant::now(), Random(seed), schemas());
    let mut outcomes: BTreeMap<(usize, String), usize> = BTreeMap::new();
    let mut finds = Vec::new();
    let mut inputs = 0;
    let mut good = Vec::new();
    while seconds.map_or(inputs < INPUTS, |seconds| started.elapsed() < seconds) {
        if inputs % 500 == 0 {
            let sizes = [0, 1, 3, 9, 70];
            good = schemas
                .iter()
                .map(|s| {
                    let rows = sizes[random.below(5)];
                    good_frame(&mut random, s, rows)
                })
                .collect();
        }
        inputs += 1;
        let index = random.below(schemas.len());
        let mut bytes = good[index].clone();
        let other = &good[random.below(good.len())];
        mutate(&mut random, &mut bytes, other);
        let result = catch_unwind(AssertUnwindSafe(|| check(&schemas[index], &bytes)));
        let class = match &result {
            Ok(outcome) => class(outcome),
            Err(_) => format!("panic-{inputs}"),
        };
        let count = outcomes.entry((index, class.clone())).or_default();
        *count += 1;
        if let Some(keep) = keep.as_ref().filter(|_| *count == 1 && bytes.len() < 16_384) {
            std::fs::write(keep.join(format!("{index}-{class}.frame")), &bytes).unwrap();
        }
        if result.is_err() {
            finds.push((inputs, index, bytes));
        }
        if finds.len() > 20 {
            break;
        }
    }
    println!("{inputs} inputs, {} outcomes, {:?}", outcomes.len(), started.elapsed());
    let taken: usize = outcomes.iter().filter(|((_, class), _)| class == "taken").map(|(_, count)| count).sum();
    for ((index, class), count) in outcomes.iter().filter(|_| keep.is_some()) {
        println!("{count:9} {index} {class}");
    }
    println!("{taken} were taken for frames, {} panicked", finds.len());
    assert!(finds.is_empty(), "seed {seed}: inputs {:?} panic", finds.iter().map(|f| (f.0, f.1)).collect::<Vec<_>>());
}

/// Each file is named after the schema it is read with: `3-what-came-of-it.frame`.
#[test]
fn the_corpus_is_safe() {
    let schemas = schemas();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (index, expected) = name.split_once('-').unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let outcome = check(&schemas[index.parse::<usize>().unwrap()], &bytes);
        assert_eq!(class(&outcome).starts_with("taken"), expected.starts_with("taken"), "{name}: {outcome:?}");
        // Read with any other schema the bytes are as harmless.
        for schema in &schemas {
            let _ = check(schema, &bytes);
        }
        files += 1;
    }
    assert!(files > 20, "the corpus has {files} files");
}

/// Every single bit of a small frame, and every length it may be cut to.
#[test]
fn every_flipped_bit_and_every_cut_is_harmless() {
    let schemas = schemas();
    let bytes = good_frame(&mut Random(5), &schemas[1], 3);
    for cut in 0..bytes.len() {
        assert!(check(&schemas[1], &bytes[..cut]).is_err(), "cut at {cut}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let _ = check(&schemas[1], &flipped);
    }
}
