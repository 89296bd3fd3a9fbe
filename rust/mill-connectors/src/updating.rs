//! Which updating streams a sink accepts. The plan adds the name of the sink, and how to convert a stream that it refuses.

use mill_protocol::{Error, Result};

use crate::nearest::quoted;

/// Refuses an updating stream, whose latest row of each `key` counts, unless the rows of the sink are replaced by the same key.
pub(crate) fn check_key(key: Option<&[String]>, own: Option<&[String]>) -> Result<()> {
    let sorted = |key: &[String]| {
        let mut key = key.to_vec();
        key.sort_unstable();
        key
    };
    match (key, own) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(Error::plan("it only adds rows")),
        (Some(key), Some(own)) if sorted(key) == sorted(own) => Ok(()),
        (Some(key), Some(own)) => {
            Err(Error::plan(format!("it has another key ({}): pass key=[{}]", quoted(own, ", "), quoted(key, ", "))))
        }
    }
}
