//! Every file of a state directory truncated, deleted, flipped, emptied, swapped: recovery goes back to an older
//! checkpoint and says so, or refuses with a clear error. Never a wrong state, a panic, or a silent start from nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mill_snapshot::{Disk, Error, FaultDisk, LOCK, MARKER, Store};
use crate::support::{Job, Model, Random, assert_is};

/// A directory with several checkpoints, and what the state was at each.
fn directory(seed: u64) -> (FaultDisk, BTreeMap<u64, Model>) {
    let disk = FaultDisk::new();
    let store = Store::open("state", Arc::new(disk.clone())).unwrap();
    let mut job = Job::new(seed);
    let mut models = BTreeMap::new();
    for _ in 0..5 {
        let manifest = job.checkpoint(&store).unwrap();
        models.insert(manifest.id, job.model.clone());
        store.retire(3, manifest.id).unwrap();
    }
    (disk, models)
}

/// What came of a start from a damaged directory.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The newest checkpoint, whole.
    Newest,
    /// An older one, which was said.
    Older(u64),
    /// A clear error.
    Refused,
}

/// Starts from a directory and checks that what comes is right, or is an error.
fn start(disk: &FaultDisk, models: &BTreeMap<u64, Model>, what: &str) -> Outcome {
    let outcome = look(disk, models, what);
    // Looking without a lock finds the same.
    let store = Store::inspect("state", Arc::new(disk.clone()));
    let looked = store.and_then(|store| store.latest(&mut Vec::new()));
    match &outcome {
        Outcome::Refused => assert!(looked.is_err(), "{what}: {looked:?}"),
        Outcome::Newest => {
            assert_is(&looked.unwrap().unwrap(), *models.keys().last().unwrap(), models.values().last().unwrap())
        }
        Outcome::Older(id) => assert_eq!(looked.unwrap().unwrap().id(), *id, "{what}"),
    }
    outcome
}

fn look(disk: &FaultDisk, models: &BTreeMap<u64, Model>, what: &str) -> Outcome {
    let newest = *models.keys().last().unwrap();
    let disk = disk.after_kill();
    let mut notes = Vec::new();
    let found = Store::open("state", Arc::new(disk.clone())).and_then(|store| {
        let checkpoint = store.latest(&mut notes)?;
        Ok((store, checkpoint))
    });
    let (store, checkpoint) = match found {
        Ok((store, Some(checkpoint))) => (store, checkpoint),
        Ok((_, None)) => panic!("{what}: started from nothing"),
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with(|c: char| c.is_lowercase()) && text.contains("state"), "{what}: {text}");
            return Outcome::Refused;
        }
    };
    let id = checkpoint.id();
    assert_is(&checkpoint, id, &models[&id]);
    if id != newest {
        assert!(notes.iter().any(|note| note.contains(&format!("going back to checkpoint {id}"))), "{what}: {notes:?}");
    }
    // The job continues from there, and its next checkpoint is the newest.
    store.continue_from(&checkpoint).unwrap();
    let mut job = Job { model: models[&id].clone(), ..Job::new(id) };
    let manifest = job.checkpoint(&store).unwrap();
    assert!(manifest.id > newest, "{what}");
    let mut notes = Vec::new();
    assert_is(&store.latest(&mut notes).unwrap().unwrap(), manifest.id, &job.model);
    store.retire(1, manifest.id).unwrap();
    assert_is(&store.latest(&mut notes).unwrap().unwrap(), manifest.id, &job.model);
    if id == newest { Outcome::Newest } else { Outcome::Older(id) }
}

fn is_mark(path: &Path) -> bool {
    let name = path.file_name().unwrap();
    name == MARKER || name == LOCK
}

#[test]
fn flipped_bits_are_noticed_or_make_no_difference() {
    let (disk, models) = directory(1);
    let mut random = Random(1);
    for path in disk.files() {
        let bytes = disk.bytes_of(&path).unwrap();
        let mut outcomes = Vec::new();
        for _ in 0..60 {
            let bit = random.below(bytes.len() as u64 * 8) as usize;
            disk.damage(&path, |raw| raw[bit / 8] ^= 1 << (bit % 8));
            let outcome = start(&disk, &models, &format!("{} bit {bit}", path.display()));
            // Only the marks have bytes that say nothing.
            let newest_only = path.to_string_lossy().contains(&format!("{:020}", 5));
            assert!(is_mark(&path) || outcome != Outcome::Newest || !newest_only, "{} bit {bit}", path.display());
            outcomes.push(outcome);
            disk.damage(&path, |raw| raw.copy_from_slice(&bytes));
        }
        if is_mark(&path) {
            assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Newest), "{}", path.display());
        }
    }
    assert_eq!(start(&disk, &models, "untouched"), Outcome::Newest);
}

#[test]
fn cut_emptied_and_extended_files_are_noticed() {
    let (disk, models) = directory(2);
    for path in disk.files() {
        let bytes = disk.bytes_of(&path).unwrap();
        let length = bytes.len();
        let lengths = [0, 1, 63, 64, 65, length / 4, length / 2, length - 64, length - 1, length + 1, length + 64];
        for cut in lengths {
            disk.damage(&path, |raw| raw.resize(cut, 0));
            start(&disk, &models, &format!("{} of {cut} bytes", path.display()));
            disk.damage(&path, |raw| *raw = bytes.clone());
        }
        for start_of_zeros in [0, length / 3, length - 64] {
            disk.damage(&path, |raw| raw[start_of_zeros..].fill(0));
            start(&disk, &models, &format!("{} zero from {start_of_zeros}", path.display()));
            disk.damage(&path, |raw| *raw = bytes.clone());
        }
    }
}

#[test]
fn every_set_of_missing_files_is_noticed() {
    let (disk, models) = directory(3);
    let files = disk.files();
    let mut sets: Vec<Vec<PathBuf>> = files.iter().map(|file| vec![file.clone()]).collect();
    let mut random = Random(3);
    for _ in 0..200 {
        sets.push(files.iter().filter(|_| random.below(2) == 0).cloned().collect());
    }
    let of_kind = |kind: &str| files.iter().filter(|f| f.to_string_lossy().contains(kind)).cloned().collect::<Vec<_>>();
    let (manifests, segments) = (of_kind("manifest-"), of_kind("segment-"));
    let (marker, lock) = (of_kind(MARKER), of_kind(LOCK));
    sets.push(manifests.clone());
    sets.push(segments.clone());
    sets.push([manifests.clone(), segments.clone()].concat());
    sets.push([manifests.clone(), marker.clone()].concat());
    sets.push([manifests.clone(), segments.clone(), marker.clone()].concat());
    sets.push([manifests.clone(), segments.clone(), lock.clone()].concat());
    sets.push([manifests.clone(), marker.clone(), lock.clone()].concat());
    sets.push([segments, marker, lock].concat());
    for set in sets {
        if set.len() == files.len() {
            continue; // Nothing is left, so nothing can be known.
        }
        let broken = disk.after_kill();
        set.iter().for_each(|file| broken.remove(file).unwrap());
        let left: Vec<PathBuf> = broken.files();
        let outcome = start(&broken, &models, &format!("left are {left:?}"));
        if manifests.iter().all(|manifest| set.contains(manifest)) {
            assert_eq!(outcome, Outcome::Refused, "left are {left:?}");
        }
    }
}

#[test]
fn the_newest_checkpoint_is_missed_when_its_manifest_is_gone() {
    let (disk, models) = directory(4);
    disk.remove("state/manifest-00000000000000000005".as_ref()).unwrap();
    assert_eq!(start(&disk, &models, "manifest 5 is gone"), Outcome::Older(4));
}

#[test]
fn files_of_another_directory_are_not_taken_for_ours() {
    let (disk, models) = directory(5);
    // The same job in a second directory on the same disk: same names, same sizes, another identity.
    let store = Store::open("other", Arc::new(disk.clone())).unwrap();
    let mut job = Job::new(5);
    for _ in 0..5 {
        job.checkpoint(&store).unwrap();
    }
    drop(store);
    for path in disk.files().into_iter().filter(|path| path.starts_with("state")) {
        let Some(stranger) = disk.bytes_of(Path::new("other").join(path.file_name().unwrap())) else { continue };
        let ours = disk.bytes_of(&path).unwrap();
        disk.damage(&path, |raw| *raw = stranger);
        let outcome = start(&disk, &models, &format!("foreign {}", path.display()));
        // The manifest of an older checkpoint is not looked at while the newest is whole.
        let is_needed = !path.to_string_lossy().contains("manifest") || path.to_string_lossy().ends_with('5');
        assert!(!is_needed || outcome != Outcome::Newest, "{}", path.display());
        disk.damage(&path, |raw| *raw = ours);
    }
}

#[test]
fn swapped_files_are_noticed() {
    let (disk, models) = directory(6);
    let files: Vec<PathBuf> = disk.files().into_iter().filter(|path| !is_mark(path)).collect();
    for (first, second) in files.iter().zip(files.iter().skip(1)) {
        let (a, b) = (disk.bytes_of(first).unwrap(), disk.bytes_of(second).unwrap());
        disk.damage(first, |raw| *raw = b.clone());
        disk.damage(second, |raw| *raw = a.clone());
        start(&disk, &models, &format!("{} and {} swapped", first.display(), second.display()));
        disk.damage(first, |raw| *raw = a.clone());
        disk.damage(second, |raw| *raw = b.clone());
    }
}

#[test]
fn a_newer_format_is_refused_and_not_passed_over() {
    let (disk, _) = directory(7);
    disk.damage("state/MILLSTREAM", |raw| {
        raw[500] = 2;
        let crc = crc32c::crc32c(&raw[..508]);
        raw[508..512].copy_from_slice(&crc.to_le_bytes());
    });
    let error = Store::open("state", Arc::new(disk.clone())).unwrap_err();
    assert!(matches!(error, Error::NewerFormat { found: 2, known: 1, .. }), "{error}");

    let (disk, _) = directory(7);
    disk.damage("state/manifest-00000000000000000005", |raw| {
        let text = String::from_utf8(raw[..raw.len() - 16].to_vec()).unwrap().replacen("manifest 1", "manifest 7", 1);
        *raw = format!("{text}crc32c {:08x}\n", crc32c::crc32c(text.as_bytes())).into_bytes();
    });
    let store = Store::open("state", Arc::new(disk)).unwrap();
    let error = store.latest(&mut Vec::new()).unwrap_err();
    assert!(matches!(error, Error::NewerFormat { found: 7, .. }), "{error}");
    assert!(error.to_string().contains("use a newer version"), "{error}");
}
