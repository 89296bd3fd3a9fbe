//! Types of columns: their names in messages, the one form in which a stream carries each, and what no stream carries.
//!
//! Arrow has several layouts for the same values: lists with offsets of 32 or 64 bits or as views, element fields of any
//! name, dictionaries with codes of any width, values in runs. If each layout were a type of its own, two streams of the
//! same values could not be united, and a dictionary whose codes have 8 bits would overflow as it grows over files. So
//! every way in (Parquet, Arrow tables, declared schemas, results of functions) converts to the [plain form](plain)
//! once, and everything downstream compares types with `==`.
//!
//! ```text
//!   from outside ──check_fields──► plain_schema / plain_array ──► streams
//! ```

mod canonical;
mod check;
mod digits;
mod name;
mod plain;
mod unite;

#[cfg(test)]
mod tests;

pub use canonical::{canonical_array, canonical_type, float_bits};
pub(crate) use check::children_fields;
pub use check::{NESTING_MAX, check_fields, children};
pub use digits::{Digits, too_many_digits};
pub use name::type_name;
pub use plain::{plain_array, plain_batch, plain_field, plain_schema, plain_type};
pub use unite::{is_same_zone, unite};
