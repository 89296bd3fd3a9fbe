//! One result of sessions that became one.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_frame::hash::KEY_GROUPS;
use mill_plan::AggregateSpec;
use mill_protocol::{Outbox, Result};
use mill_state::{Cursor, TableOptions};

use crate::accumulator::{GroupOptions, Groups, records};

/// Adds up partial results.
pub(super) struct Merger {
    groups: Groups,
    schema: SchemaRef,
}

impl Merger {
    /// For keys of these types, the last of which is the id of a session.
    pub(super) fn new(key_types: &[DataType], aggregates: &[AggregateSpec]) -> Result<Merger> {
        let key = |(place, data_type): (usize, &DataType)| Field::new(format!("key {place}"), data_type.clone(), true);
        let mut fields: Vec<Field> = key_types.iter().enumerate().map(key).collect();
        let mut merged = Vec::with_capacity(aggregates.len());
        for spec in aggregates {
            merged.push(AggregateSpec { input: Some(fields.len()), filter: None, ..spec.clone() });
            fields.extend(spec.partial_fields());
        }
        let places: Vec<usize> = (0..key_types.len()).collect();
        let options = GroupOptions {
            table: TableOptions::new(0..KEY_GROUPS),
            is_partial: true,
            keeps_pending: false,
            is_ahead: false,
            is_timed: false,
            owner_columns: None,
            has_tally: false,
            carries_at: Some(fields.len()),
        };
        let groups = Groups::new(&places, key_types, &merged, &options)?;
        fields.extend(groups.carry_fields());
        Ok(Merger { groups, schema: Arc::new(Schema::new(fields)) })
    }

    /// The keys and results of these partial results, one a key. Results that do not fit are left out, see `groups`.
    pub(super) fn merge(&mut self, columns: Vec<ArrayRef>, out: &mut Outbox) -> Result<Vec<(Vec<ArrayRef>, Vec<ArrayRef>)>> {
        let parts: RecordBatch = records(&self.schema, columns)?.data().clone();
        self.groups.absorb(0, &parts, out)?;
        let (mut cursor, mut merged) = (Cursor::default(), Vec::new());
        while let Some(rows) = self.groups.results(0, &mut cursor, parts.num_rows(), false)? {
            merged.push(rows);
        }
        self.groups.reset(0);
        Ok(merged)
    }

    pub(super) fn groups(&mut self) -> &mut Groups {
        &mut self.groups
    }
}
