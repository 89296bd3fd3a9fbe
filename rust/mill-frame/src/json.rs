//! JSON values as columns: of files, of messages, and of text that holds JSON.
//!
//! ```text
//!   bytes ─► Scanner: where each value is, and that it is JSON ─► Source::column: one column after the other
//!   a column of text ─► decode ─► a column of any type
//!                    ─► Path::find ─► a value within each
//!   columns ─► JsonRows: an object a row;  a column ─► encode: a text a value
//! ```

mod column;
mod path;
mod scan;
mod write;

pub use column::{Misfits, Names, Source, Told, Values, decode, is_readable, twice, unknown};
pub use path::Path;
pub use scan::{Fault, Kind, Scanner, Value, text_of, unescape};
pub use write::{JsonRows, check_writable, encode, names};
