//! Applies conditions to a Parquet file: skips row groups and pages without a wanted row, and filters the rows of the
//! others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use ::parquet::arrow::arrow_reader::{ArrowPredicateFn, ArrowReaderMetadata, RowFilter, RowSelection, RowSelector};
use ::parquet::errors::Result;
use ::parquet::schema::types::SchemaDescriptor;
use arrow::array::Array;
use arrow::compute::and;
use arrow::datatypes::Schema;
use mill_protocol::Condition;

use super::footer::OpenFile;
use crate::condition::{may_meet, meets};

/// Looks at so many rows before it judges how many meet the conditions.
const JUDGED_ROWS: u64 = 64 << 10;
/// Where more than one in so many rows meets them, reading the others too costs less than leaving them out.
const KEPT_ONE_IN: u64 = 4;

/// Conditions that a source was passed, and what came of them so far, over all its readers.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) conditions: Arc<[Condition]>,
    counts: Arc<Counts>,
}

/// Rows looked at, and how many of them met the conditions.
#[derive(Debug, Default)]
struct Counts {
    seen: AtomicU64,
    kept: AtomicU64,
}

impl Told {
    pub(super) fn new(conditions: &[Condition]) -> Told {
        Told { conditions: conditions.into(), counts: Arc::default() }
    }
}

/// What the conditions say about one file.
pub(super) struct Pruning {
    told: Told,
    /// Those that can be looked at in this file, with their columns' places in it.
    usable: Vec<(usize, Condition)>,
    is_ruled_out: Vec<bool>,
    metadata: ArrowReaderMetadata,
    has_row_numbers: bool,
}

impl Pruning {
    pub(super) fn new(file: &OpenFile, schema: &Schema, told: &Told) -> Result<Pruning> {
        let OpenFile { metadata, has_row_numbers, .. } = file;
        let groups = metadata.metadata().row_groups();
        let mut pruning = Pruning {
            told: told.clone(),
            usable: Vec::new(),
            is_ruled_out: vec![false; groups.len()],
            metadata: metadata.clone(),
            has_row_numbers: *has_row_numbers,
        };
        for condition in told.conditions.iter() {
            let Ok(place) = metadata.schema().index_of(&condition.column) else { continue };
            // A column that is cast when it is read is compared after that.
            let data_type = metadata.schema().field(place).data_type();
            let is_cast = schema.field_with_name(&condition.column).is_ok_and(|field| field.data_type() != data_type);
            // Statistics of INT96 times are in the order of their bytes.
            if is_cast || file.has_int96[place] || data_type != condition.value.data_type() {
                continue;
            }
            pruning.usable.push((place, condition.clone()));
            let descriptor = metadata.parquet_schema();
            let converter = StatisticsConverter::try_new(&condition.column, metadata.schema(), descriptor)?;
            let Some(leaf) = converter.parquet_column_index() else { continue };
            let (least, greatest) = (converter.row_group_mins(groups)?, converter.row_group_maxes(groups)?);
            if least.data_type() != condition.value.data_type() {
                continue;
            }
            let may = may_meet(condition, &least, &greatest)?;
            for (group, is_ruled_out) in pruning.is_ruled_out.iter_mut().enumerate() {
                // Bounds in the fields of the first version are of signed bytes, whatever the type.
                let is_sound = groups[group].column(leaf).statistics().is_some_and(|of| !of.is_min_max_deprecated());
                *is_ruled_out |= is_sound && may.is_valid(group) && !may.value(group);
            }
        }
        Ok(pruning)
    }

    pub(super) fn is_ruled_out(&self, group: usize) -> bool {
        self.is_ruled_out[group]
    }

    /// Whether rows should be looked at before all their columns are read.
    pub(super) fn is_worth_filtering(&self) -> bool {
        if self.usable.is_empty() || !self.has_row_numbers {
            return false;
        }
        // Only what is read depends on the counts, not what comes out; so they need not be of one moment.
        let (seen, kept) =
            (self.told.counts.seen.load(Ordering::Relaxed), self.told.counts.kept.load(Ordering::Relaxed));
        seen < JUDGED_ROWS || kept <= seen / KEPT_ONE_IN
    }

    /// The rows of a row group that are in pages which are not ruled out; `None` where the file does not say what is in its
    /// pages.
    pub(super) fn pages(&self, group: usize) -> Result<Option<RowSelection>> {
        let whole = self.metadata.metadata();
        let (Some(columns), Some(offsets)) = (whole.column_index(), whole.offset_index()) else { return Ok(None) };
        let group_rows = whole.row_group(group).num_rows();
        let mut selected: Option<RowSelection> = None;
        for (_, condition) in &self.usable {
            let schema = self.metadata.schema();
            let converter = StatisticsConverter::try_new(&condition.column, schema, self.metadata.parquet_schema())?;
            let Some(leaf) = converter.parquet_column_index() else { continue };
            let Some(pages) = offsets.get(group).and_then(|columns| columns.get(leaf)) else { continue };
            // Where each page begins and the last one ends.
            let firsts = pages.page_locations().iter().map(|page| page.first_row_index);
            let borders: Vec<i64> = firsts.chain([group_rows]).collect();
            if borders.len() < 2 || borders[0] != 0 || !borders.is_sorted() || columns.get(group).is_none() {
                continue;
            }
            let least = converter.data_page_mins(columns, offsets, [&group])?;
            let greatest = converter.data_page_maxes(columns, offsets, [&group])?;
            if least.data_type() != condition.value.data_type() || least.len() + 1 != borders.len() {
                continue;
            }
            let may = may_meet(condition, &least, &greatest)?;
            let selectors = borders.windows(2).enumerate().map(|(page, borders)| {
                let rows = (borders[1] - borders[0]) as usize;
                let is_ruled_out = may.is_valid(page) && !may.value(page);
                if is_ruled_out { RowSelector::skip(rows) } else { RowSelector::select(rows) }
            });
            let these: RowSelection = selectors.collect();
            selected = Some(match selected {
                None => these,
                Some(selected) => selected.intersection(&these),
            });
        }
        Ok(selected)
    }

    /// Reads the columns of the conditions, and lets the rows pass that meet them all.
    pub(super) fn row_filter(&self, schema: &SchemaDescriptor) -> RowFilter {
        let mask = ProjectionMask::roots(schema, self.usable.iter().map(|(place, _)| *place));
        let conditions: Vec<Condition> = self.usable.iter().map(|(_, condition)| condition.clone()).collect();
        let counts = Arc::clone(&self.told.counts);
        let predicate = ArrowPredicateFn::new(mask, move |batch| {
            let mut all = None;
            for condition in &conditions {
                let index = batch.schema().index_of(&condition.column)?;
                let these = meets(condition, batch.column(index))?;
                all = Some(match all {
                    None => these,
                    Some(all) => and(&all, &these)?,
                });
            }
            let all = all.unwrap_or_else(|| vec![true; batch.num_rows()].into());
            counts.seen.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            counts.kept.fetch_add(all.true_count() as u64, Ordering::Relaxed);
            Ok(all)
        });
        RowFilter::new(vec![Box::new(predicate)])
    }
}
