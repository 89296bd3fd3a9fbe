//! Types of columns: their names in messages.

mod name;

pub use name::type_name;
