//! The names of files before and after their commit.

use mill_protocol::Epoch;

use super::FileFormat;

/// `.part-<nonce>-<task>-<n>.<extension>`: written, not committed.
pub(super) fn hidden(nonce: u64, task: usize, number: u64, extension: &str) -> String {
    format!(".part-{nonce:016x}-{task}-{number}.{extension}")
}

/// `part-<epoch>-<task>.<extension>`: committed; the second file of an epoch and task is `part-<epoch>-<task>_2.<extension>`.
pub(super) fn committed(epoch: Epoch, task: usize, number: usize, extension: &str) -> String {
    match number {
        1 => format!("part-{:010}-{task}.{extension}", epoch.0),
        number => format!("part-{:010}-{task}_{number}.{extension}", epoch.0),
    }
}

/// Whether [`hidden`] made this name; of this run only, if its nonce is given.
pub(super) fn is_hidden(name: &str, of: Option<u64>) -> bool {
    let Some((nonce, rest)) = name.strip_prefix(".part-").and_then(|rest| rest.split_once('-')) else { return false };
    let Some((numbers, extension)) = rest.split_once('.') else { return false };
    let is_nonce = nonce.len() == 16 && nonce.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_nonce
        && are_numbers(numbers, 2)
        && is_extension(extension)
        && of.is_none_or(|of| u64::from_str_radix(nonce, 16) == Ok(of))
}

/// The task in a name that [`hidden`] made.
pub(super) fn task_of(name: &str) -> Option<usize> {
    let numbers = is_hidden(name, None).then(|| name.strip_prefix(".part-")?.split('-').nth(1))??;
    numbers.parse().ok()
}

/// The same name with a number after it, for output that is published a second time.
pub(super) fn again(committed: &str, number: u32) -> String {
    committed.replacen('.', &format!("-{number}."), 1)
}

/// The epoch in a name that [`committed`] or [`again`] made.
pub(super) fn epoch_of(name: &str) -> Option<u64> {
    let (numbers, extension) = name.strip_prefix("part-")?.split_once('.')?;
    let (epoch, _) = numbers.split_once('-')?;
    let is_ours = epoch.len() >= 10
        && (are_numbers(numbers, 2) || are_numbers(numbers, 3))
        && is_extension(extension);
    if is_ours { epoch.parse().ok() } else { None }
}

/// What files of a sink are put in order by: the epoch and the number.
pub(super) fn order_of(name: &str) -> (u64, u64) {
    let number = name.split_once('.').and_then(|(name, _)| name.rsplit_once('_')?.1.parse().ok());
    (epoch_of(name).unwrap_or(0), number.unwrap_or(1))
}

/// Whether [`committed`] or [`again`] made this name.
pub(super) fn is_committed(name: &str) -> bool {
    epoch_of(name).is_some()
}

fn are_numbers(text: &str, count: usize) -> bool {
    let numbers = text.split('-');
    numbers.clone().count() == count
        && numbers.flat_map(|number| number.split('_')).all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_extension(extension: &str) -> bool {
    let extension = extension.strip_suffix(".gz").or_else(|| extension.strip_suffix(".zst")).unwrap_or(extension);
    FileFormat::ALL.iter().any(|format| format.extension() == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_again_and_others_are_not() {
        assert_eq!(committed(Epoch(7), 3, 1, "csv"), "part-0000000007-3.csv");
        assert!(is_committed("part-0000000007-3.csv") && is_committed(&committed(Epoch(7), 12, 1, "parquet")));
        let long = committed(Epoch(1_795_239_456_344_262), 0, 1, "csv");
        assert_eq!(epoch_of(&again(&long, 2)), Some(1_795_239_456_344_262));
        assert!(is_hidden(&hidden(7, 3, 1, "json"), None) && is_hidden(&hidden(7, 3, 1, "json"), Some(7)));
        assert!(!is_hidden(&hidden(7, 3, 1, "json"), Some(8)));
        let second = committed(Epoch(7), 3, 2, "csv.gz");
        assert_eq!((second.as_str(), is_committed(&second)), ("part-0000000007-3_2.csv.gz", true));
        assert_eq!((order_of(&second), order_of(&committed(Epoch(7), 3, 1, "csv"))), ((7, 2), (7, 1)));
        assert_eq!(task_of(&hidden(7, 13, 1, "json")), Some(13));
        for other in [".part-1-2-3.csv", "part-7-3.csv", ".hidden", "part-0000000007.csv", "part-0000000007-3.txt",
            "../part-0000000007-3.csv", "part-0000000007-3-4-5.csv", ".part-zzzzzzzzzzzzzzzz-1-1.csv"]
        {
            assert!(!is_hidden(other, None) && !is_committed(other), "{other}");
        }
    }
}
