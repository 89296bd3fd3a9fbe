//! "Did you mean": the names nearest to one that does not exist.

use arrow::datatypes::Schema;
use mill_protocol::Error;

/// How many names a message lists at most.
const LISTED_MAX: usize = 30;

/// The names nearest to `name`, best first, at most three; none if nothing is near.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = name.to_lowercase();
    // Of a function with a namespace the name itself is what was mistyped.
    let wanted_last = wanted.rsplit('.').next().unwrap_or(&wanted).to_owned();
    let limit = (wanted_last.chars().count() / 3).max(1);
    let mut near: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|candidate| {
            let other = candidate.to_lowercase();
            let last = other.rsplit('.').next().unwrap_or(&other);
            let distance = distance(&wanted, &other).min(distance(&wanted_last, last));
            let is_part = wanted_last.len() >= 3
                && (last.contains(&wanted_last) || wanted_last.contains(last) && last.len() >= 3);
            (distance <= limit || is_part).then_some((if is_part { distance.min(limit + 1) } else { distance }, candidate))
        })
        .collect();
    near.sort();
    near.into_iter().take(3).map(|(_, candidate)| candidate).collect()
}

/// The error of a column that does not exist, named in an expression: a text may have been meant instead.
pub(crate) fn unknown_operand(name: &str, schema: &Schema) -> Error {
    let error = unknown_column(name, schema);
    Error::schema(format!("{}; if a text is meant, write lit({name:?})", error.message()))
}

/// The error of a column that does not exist.
pub(crate) fn unknown_column(name: &str, schema: &Schema) -> Error {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    Error::schema(format!(
        "column {name:?} does not exist{} {}",
        did_you_mean(name, names.iter().copied()),
        columns(&names)
    ))
}

/// `; did you mean "a" or "b"?`, or nothing.
pub(crate) fn did_you_mean<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let near: Vec<String> = nearest(name, names).into_iter().map(|near| format!("{near:?}")).collect();
    match near.is_empty() {
        true => ";".to_owned(),
        false => format!("; did you mean {}?", near.join(" or ")),
    }
}

/// Which columns there are. A header that was cut at the wrong character is one name.
fn columns(names: &[&str]) -> String {
    match names {
        [name] if name.contains([',', ';', '\t', '|']) => format!(
            "the only column is {name:?}: if that is the header of a file, give the reader its separator, as in read_csv(…, separator=\";\")"
        ),
        names => format!("columns: {}", listed(names)),
    }
}

/// The names in one line, cut where there are too many.
pub(crate) fn listed(names: &[&str]) -> String {
    match names.len() {
        0 => "none".to_owned(),
        n if n <= LISTED_MAX => shown(names),
        n => format!("{}, … ({n} in all)", shown(&names[..LISTED_MAX])),
    }
}

/// Names, in quotes where one could be taken for several.
fn shown(names: &[&str]) -> String {
    let quoted = |name: &&str| if name.contains(',') { format!("{name:?}") } else { (*name).to_owned() };
    names.iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// How many insertions, deletions, replacements and swaps of neighbours lead from one to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests;
