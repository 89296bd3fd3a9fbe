//! What an instance keeps without key, and its rows as `read_state` shows them.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_frame::hash::KEY_GROUPS;
use mill_protocol::{Error, Restored, Result, TaskContext, Watermark};

use super::EMIT_ROWS;
use super::durable::Durable;
use crate::description::{JoinShape, own};
use crate::join::assemble::Assembler;
use crate::row_codec::RowCodec;

/// What an instance keeps without key.
pub(super) struct Own<'a> {
    pub(super) watermarks: [Watermark; 2],
    pub(super) numbers: [Vec<(u16, u64)>; 2],
    pub(super) states: &'a [u8],
}

impl<'a> Own<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Own<'a>> {
        Own::parse(bytes).ok_or_else(|| Error::checkpoint("the state of a join is damaged: it ends too early"))
    }

    fn parse(bytes: &'a [u8]) -> Option<Own<'a>> {
        let (left, rest) = bytes.split_first_chunk::<8>()?;
        let (right, mut rest) = rest.split_first_chunk::<8>()?;
        let mut numbers = [Vec::new(), Vec::new()];
        for numbers in &mut numbers {
            let (count, after) = rest.split_first_chunk::<4>()?;
            rest = after;
            for _ in 0..u32::from_le_bytes(*count) {
                let (group, after) = rest.split_first_chunk::<2>()?;
                let (next, after) = after.split_first_chunk::<8>()?;
                let group = u16::from_le_bytes(*group);
                numbers.push((group < KEY_GROUPS).then_some((group, u64::from_le_bytes(*next)))?);
                rest = after;
            }
        }
        let watermarks = [left, right].map(|bytes| Watermark(i64::from_le_bytes(*bytes)));
        Some(Own { watermarks, numbers, states: rest })
    }
}

/// The kept rows of both sides out of a checkpoint, as rows without a partner: the side, and the columns of the result.
pub(crate) fn kept_rows(shape: &JoinShape, schema: &SchemaRef, restored: &Restored, context: &TaskContext) -> Result<Vec<RecordBatch>> {
    let shown = shown_schema(schema);
    let assembler = Assembler::new(&shape.columns, schema);
    let codecs = [RowCodec::new(Arc::clone(&shape.kept[0]))?, RowCodec::new(Arc::clone(&shape.kept[1]))?];
    let mut kept = Durable::new(context, [&codecs[0], &codecs[1]], true);
    let own = restored.bytes.iter().map(|bytes| Own::read(own(bytes)?)).collect::<Result<Vec<Own<'_>>>>()?;
    let states: Vec<&[u8]> = own.iter().map(|own| own.states).collect();
    kept.restore(&states, restored)?;
    let mut batches = Vec::new();
    for side in 0..2 {
        kept.for_each(side, EMIT_ROWS, |rows| {
            let data = match shape.kept[side].fields().is_empty() {
                true => None,
                false => Some(codecs[side].decode(rows.iter().map(|row| row.bytes))?),
            };
            let columns = assembler.columns_of(side, data.as_ref().map_or(&[], RecordBatch::columns));
            let sides = if side == 0 { [Some(&columns[..]), None] } else { [None, Some(&columns[..])] };
            let joined = assembler.rows(sides, rows.len(), None)?;
            let names: ArrayRef = Arc::new(StringArray::from(vec![["left", "right"][side]; rows.len()]));
            let all = std::iter::once(names).chain(joined.columns().iter().cloned()).collect();
            let batch = RecordBatch::try_new(Arc::clone(&shown), all).map_err(|error| Error::internal(error.to_string()))?;
            batches.push(batch);
            Ok(())
        })?;
    }
    Ok(batches)
}

/// The columns of [`kept_rows`].
pub(crate) fn shown_schema(schema: &SchemaRef) -> SchemaRef {
    let mut name = "side".to_owned();
    while schema.field_with_name(&name).is_ok() {
        name.push('_');
    }
    let side = Arc::new(Field::new(name, DataType::Utf8, false));
    Arc::new(Schema::new(std::iter::once(side).chain(schema.fields().iter().cloned()).collect::<Vec<_>>()))
}
