//! All keyed state of one step: declared by name and kind, snapshotted and restored as one.
//!
//! ```text
//!   declare:  keyed("panes", …), ordered("timers", …), multimap("rows", …)  ─► a handle each
//!   use:      backend[panes], backend[timers]
//!   snapshot: blocks of all states, and the description: which number has which name and kind, and which versions the
//!             encodings within the blocks have
//!   restore:  the description is checked against what was declared, then each state takes its blocks
//! ```
//!
//! A block names its state by number. The numbers of a checkpoint are those of its description: a step that continues from it
//! keeps them, in whatever order it declares its states, since the blocks it adds join those that are there.

mod description;

use std::ops::{Index, IndexMut, Range};
use std::sync::Arc;

use mill_frame::block::{Blocks, RestoredBlock};

use crate::error::{Result, StateError};
use crate::layout::RowLayout;
use crate::multimap::MultiMap;
use crate::ordered::OrderedTable;
use crate::panes::PaneTables;
use crate::table::TableOptions;
use description::Description;

/// All keyed state of one step.
///
/// # Examples
/// ```
/// use mill_frame::block::Blocks;
/// use mill_state::StateBackend;
///
/// let mut backend = StateBackend::new(0..128, true);
/// let timers = backend.ordered("timers", "key");
/// backend[timers].insert(10, 7, b"key", b"")?;
/// let description = backend.snapshot(true, &mut Blocks::default());
///
/// let mut other = StateBackend::new(0..128, true);
/// other.multimap("carts", "item");
/// let error = other.restore(&[description], &[]).unwrap_err();
/// assert!(error.to_string().contains("\"timers\"") && error.to_string().contains("\"carts\""));
/// # Ok::<(), mill_state::StateError>(())
/// ```
#[derive(Debug)]
pub struct StateBackend {
    groups: Range<u16>,
    is_persistent: bool,
    states: Vec<State>,
}

#[derive(Debug)]
struct State {
    name: String,
    number: u16,
    table: Table,
}

#[derive(Debug)]
enum Table {
    Keyed(PaneTables),
    Ordered(OrderedTable),
    MultiMap(MultiMap),
}

/// What a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Keyed = 1,
    Ordered = 2,
    MultiMap = 3,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Keyed => "rows by key",
            Kind::Ordered => "rows in order of time",
            Kind::MultiMap => "entries per key",
        }
    }
}

impl Table {
    fn kind(&self) -> Kind {
        match self {
            Table::Keyed(_) => Kind::Keyed,
            Table::Ordered(_) => Kind::Ordered,
            Table::MultiMap(_) => Kind::MultiMap,
        }
    }
}

/// Leads to the tables of a state with rows by key, of the backend that returned it.
#[derive(Clone, Copy, Debug)]
pub struct KeyedState(usize);

/// Leads to the table of a state in order of time, of the backend that returned it.
#[derive(Clone, Copy, Debug)]
pub struct OrderedState(usize);

/// Leads to the map of a state with entries per key, of the backend that returned it.
#[derive(Clone, Copy, Debug)]
pub struct MultiMapState(usize);

impl StateBackend {
    /// No state yet, for these key groups; `is_persistent`: snapshots will be taken.
    pub fn new(groups: Range<u16>, is_persistent: bool) -> StateBackend {
        StateBackend { groups, is_persistent, states: Vec::new() }
    }

    /// Declares rows by key, in one table for each namespace; `tracks_changes` as of [`TableOptions`].
    ///
    /// # Panics
    /// If a state has this name already; so do the other declarations.
    pub fn keyed(&mut self, name: &str, layout: Arc<RowLayout>, tracks_changes: bool) -> KeyedState {
        let (groups, is_persistent) = (self.groups.clone(), self.is_persistent);
        let declare = |state| Table::Keyed(PaneTables::new(layout, TableOptions { groups, state, is_persistent, tracks_changes }));
        KeyedState(self.declare(name, declare))
    }

    /// Declares rows in order of time; `signature` says in words what they mean.
    pub fn ordered(&mut self, name: &str, signature: &str) -> OrderedState {
        let groups = self.groups.clone();
        OrderedState(self.declare(name, |state| Table::Ordered(OrderedTable::new(groups, state, signature))))
    }

    /// Declares entries per key; `signature` says in words what they mean.
    pub fn multimap(&mut self, name: &str, signature: &str) -> MultiMapState {
        let groups = self.groups.clone();
        MultiMapState(self.declare(name, |state| Table::MultiMap(MultiMap::new(groups, state, signature))))
    }

    fn declare(&mut self, name: &str, table: impl FnOnce(u16) -> Table) -> usize {
        assert!(self.states.iter().all(|state| state.name != name), "state {name:?} is declared twice");
        let number = u16::try_from(self.states.len()).expect("a step has fewer than 65,536 states");
        self.states.push(State { name: name.to_owned(), number, table: table(number) });
        self.states.len() - 1
    }

    /// About how many bytes of memory all states take.
    pub fn memory(&self) -> usize {
        let of_table = |state: &State| match &state.table {
            Table::Keyed(panes) => panes.memory(),
            Table::Ordered(table) => table.memory(),
            Table::MultiMap(map) => map.memory(),
        };
        self.states.iter().map(of_table).sum()
    }

    /// Returns what changed since the last snapshot (or everything), to be made blocks of, and the description, which is
    /// needed to restore from them.
    ///
    /// # Panics
    /// If the backend was made without persistence.
    pub fn snapshot(&mut self, is_full: bool, out: &mut Blocks) -> Vec<u8> {
        assert!(self.is_persistent, "the state is not persistent");
        for state in &mut self.states {
            match &mut state.table {
                Table::Keyed(panes) => panes.snapshot(is_full, out),
                Table::Ordered(table) => table.snapshot(is_full, out),
                Table::MultiMap(map) => map.snapshot(is_full, out),
            }
        }
        Description::of(self.states.iter().map(|state| (state.name.as_str(), state.number, state.table.kind()))).write()
    }

    /// Takes up what these blocks leave, oldest first, in place of what is there. `descriptions` are those that the former
    /// instances of the step gave with their last snapshot; without any there is nothing to restore.
    ///
    /// # Errors
    /// When a state is declared and not in the checkpoint or the other way round, when one is of another kind, when an
    /// encoding has another version, or when blocks are of another layout or contradict each other or themselves.
    pub fn restore(&mut self, descriptions: &[impl AsRef<[u8]>], blocks: &[RestoredBlock]) -> Result<()> {
        let Some(first) = descriptions.first() else { return Ok(()) };
        if descriptions.iter().any(|other| other.as_ref() != first.as_ref()) {
            return Err(StateError::Description("the instances of the step describe different states".to_owned()));
        }
        let described = Description::read(first.as_ref())?;
        let names: Vec<&str> = self.states.iter().map(|state| state.name.as_str()).collect();
        let unknown: Vec<String> = described.names().filter(|name| !names.contains(name)).map(str::to_owned).collect();
        let missing: Vec<String> =
            names.iter().filter(|name| described.find(name).is_none()).map(|&name| name.to_owned()).collect();
        if !unknown.is_empty() || !missing.is_empty() {
            return Err(StateError::States { missing, unknown });
        }
        for State { name, number, table } in &mut self.states {
            let (found, kind) = described.find(name).expect("missing states were looked for above");
            if kind != table.kind() {
                let what = format!("state {name:?} has {}, this step keeps {}", kind.name(), table.kind().name());
                return Err(StateError::Description(what));
            }
            *number = found;
            match table {
                Table::Keyed(panes) => {
                    panes.set_state(found);
                    panes.restore(blocks)?;
                }
                Table::Ordered(table) => {
                    table.set_state(found);
                    table.restore(blocks)?;
                }
                Table::MultiMap(map) => {
                    map.set_state(found);
                    map.restore(blocks)?;
                }
            }
        }
        Ok(())
    }
}

/// The handle is of another backend.
fn foreign() -> ! {
    panic!("a handle is used with the backend that returned it")
}

impl Index<KeyedState> for StateBackend {
    type Output = PaneTables;
    fn index(&self, KeyedState(index): KeyedState) -> &PaneTables {
        match &self.states[index].table {
            Table::Keyed(panes) => panes,
            _ => foreign(),
        }
    }
}

impl IndexMut<KeyedState> for StateBackend {
    fn index_mut(&mut self, KeyedState(index): KeyedState) -> &mut PaneTables {
        match &mut self.states[index].table {
            Table::Keyed(panes) => panes,
            _ => foreign(),
        }
    }
}

impl Index<OrderedState> for StateBackend {
    type Output = OrderedTable;
    fn index(&self, OrderedState(index): OrderedState) -> &OrderedTable {
        match &self.states[index].table {
            Table::Ordered(table) => table,
            _ => foreign(),
        }
    }
}

impl IndexMut<OrderedState> for StateBackend {
    fn index_mut(&mut self, OrderedState(index): OrderedState) -> &mut OrderedTable {
        match &mut self.states[index].table {
            Table::Ordered(table) => table,
            _ => foreign(),
        }
    }
}

impl Index<MultiMapState> for StateBackend {
    type Output = MultiMap;
    fn index(&self, MultiMapState(index): MultiMapState) -> &MultiMap {
        match &self.states[index].table {
            Table::MultiMap(map) => map,
            _ => foreign(),
        }
    }
}

impl IndexMut<MultiMapState> for StateBackend {
    fn index_mut(&mut self, MultiMapState(index): MultiMapState) -> &mut MultiMap {
        match &mut self.states[index].table {
            Table::MultiMap(map) => map,
            _ => foreign(),
        }
    }
}

#[cfg(test)]
mod tests;
