//! What is read of a database: a table by its name, or a query.

/// Whether a text is a query; else it is the name of a table.
pub(crate) fn is_query(text: &str) -> bool {
    let text = text.trim_start();
    let word: String = text.chars().take_while(char::is_ascii_alphabetic).collect();
    let after = text[word.len()..].chars().next();
    text.starts_with('(')
        || (["select", "with", "values", "table"].iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
            && after.is_some_and(|next| next.is_whitespace() || matches!(next, '(' | '*' | '/' | '-' | '\'' | '"')))
}

/// The parts of a name that are joined by dots. They are taken as they are written; a part with a dot in it is in quotes. `None` if it is
/// no such name.
pub(crate) fn parts(text: &str, quote: char) -> Option<Vec<String>> {
    let (mut parts, mut rest) = (Vec::new(), text);
    loop {
        let part;
        (part, rest) = match rest.strip_prefix(quote) {
            Some(quoted) => unquoted(quoted, quote)?,
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        if part.is_empty() || part.contains('\0') {
            return None;
        }
        parts.push(part);
        match rest.strip_prefix('.') {
            Some(next) => rest = next,
            None => return rest.is_empty().then_some(parts),
        }
    }
}

/// The name before the closing quote, and what follows it.
fn unquoted(quoted: &str, quote: char) -> Option<(String, &str)> {
    let (mut name, mut rest) = (String::new(), quoted);
    loop {
        let end = rest.find(quote)?;
        name.push_str(&rest[..end]);
        rest = &rest[end + quote.len_utf8()..];
        match rest.strip_prefix(quote) {
            Some(more) => {
                name.push(quote);
                rest = more;
            }
            None => return Some((name, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_told_from_a_table() {
        for query in ["select 1", " SELECT * from x", "with a as (select 1) select * from a", "(select 1)", "values (1)", "table\tx"] {
            assert!(is_query(query), "{query}");
        }
        for table in ["selection", "select", "shop.orders", "with", "table", "values.x", "withdrawals"] {
            assert!(!is_query(table), "{table}");
        }
    }
}
