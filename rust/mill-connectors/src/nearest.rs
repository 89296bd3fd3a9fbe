//! Names that the user may have meant.

/// How many suggestions a message carries at most.
const SUGGESTIONS_MAX: usize = 3;
/// Names longer than this are not compared.
const NAME_CHARS_MAX: usize = 256;

/// The names nearest to `wanted`, best first; empty if none is near.
pub(crate) fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let lower = wanted.to_lowercase();
    let limit = (wanted.chars().count() / 3).max(2);
    let mut scored: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let other = name.to_lowercase();
            let distance = distance(&lower, &other);
            let is_part = lower.len() >= 3 && (other.contains(&lower) || lower.contains(&other) && other.len() >= 3);
            (distance <= limit || is_part).then_some((distance, name))
        })
        .collect();
    scored.sort();
    scored.dedup();
    scored.into_iter().take(SUGGESTIONS_MAX).map(|(_, name)| name).collect()
}

/// `; did you mean "a" or "b"?`, or nothing.
pub(crate) fn did_you_mean<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let near = nearest(wanted, names);
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", quoted(&near, " or ")) }
}

/// The names in quotes, at most twenty of them.
pub(crate) fn quoted<S: AsRef<str>>(names: &[S], between: &str) -> String {
    const LISTED_MAX: usize = 20;
    let mut list: Vec<String> = names.iter().take(LISTED_MAX).map(|name| format!("{:?}", name.as_ref())).collect();
    if names.len() > LISTED_MAX {
        list.push(format!("{} more", names.len() - LISTED_MAX));
    }
    list.join(between)
}

/// The number of single-character edits between two names.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(NAME_CHARS_MAX).collect();
    let b: Vec<char> = b.chars().take(NAME_CHARS_MAX).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_come_best_first() {
        assert_eq!(nearest("pirce", ["price", "prince", "quantity"]), ["price", "prince"]);
        assert_eq!(nearest("Price", ["price"]), ["price"]);
        assert!(nearest("zzz", ["price"]).is_empty());
        assert_eq!(did_you_mean("auctoin", ["auction", "bid"]), "; did you mean \"auction\"?");
    }
}
