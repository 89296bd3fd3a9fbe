//! Keyed state: chunked, copy-on-write tables of fixed-size rows.
//!
//! ```text
//!   key columns ─ KeyEncoder ─► KeyBatch ─ StateTable::find_or_insert ─► Rows ─ kernels ─► changed rows
//!                                             │                                                │
//!   snapshot: Arc'd chunks + dirty marks  ◄───┘          scan ─► RowsRead ─ KeyDecoder ─► columns
//!        │
//!        └─► blocks (mill_frame::block), laid out on the writer's thread ─► restore, mapped and used in place
//! ```
//!
//! An update touches one cache line: the tag (hash and flags), the key and its accumulators are next to each other. Values
//! of variable length are in cells outside the rows. See [`RowLayout`] for the row, [`StateTable`] for how tables grow and
//! are shared, [`PaneTables`] for windows, [`DirectTable`] for keys that need no search, and [`GridTable`] for records that
//! come and go at once.
//!
//! A [`StateBackend`] holds several states by name, and snapshots and restores them as one; today's operators keep their
//! tables themselves.
//! Two kinds of state are sorted: an [`OrderedTable`] by time, for timers and deadlines, and a [`MultiMap`] has several
//! entries per key.
//!
//! `unsafe` is used only in `chunk` and `pool` (the memory), `shared` (between table and writer), `probe` (searching it),
//! `rows` (views for kernels), `bucket`, `direct`, `grid` and `table` (which hold the pointers); each names the invariants
//! that it relies on.

mod backend;
mod bucket;
mod cell;
mod chunk;
mod direct;
mod error;
mod grid;
mod handover;
mod image;
mod key;
mod layout;
mod multimap;
mod ordered;
mod panes;
mod pool;
mod probe;
mod restore;
mod rows;
mod select;
mod shared;
mod snapshot;
mod sorted;
mod table;

pub use backend::{KeyedState, MultiMapState, OrderedState, StateBackend};
pub use cell::Cell;
pub use direct::{DirectTable, KeyRange};
pub use error::{Result, StateError};
pub use grid::GridTable;
pub use image::inspect;
pub use key::{DistinctKeys, HASH_OF_NOTHING, KEY_BYTES_MAX, KeyBatch, KeyCoder, KeyDecoder, KeyEncoder, KeyKind, Renumbering};
pub use layout::{CELLS_MAX, Flag, LayoutBuilder, ROW_WORDS_MAX, RowLayout, Taken};
pub use multimap::{MapEntry, MultiMap};
pub use ordered::{OrderedRow, OrderedRows, OrderedTable};
pub use panes::PaneTables;
pub use rows::{RowValues, Rows, RowsRead};
pub use select::{Select, Span};
pub use table::{Cursor, LOOKUP_ROWS_MAX, StateTable, TableOptions};
