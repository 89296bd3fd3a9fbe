//! What no byte string may get past: the target of the fuzzers.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use mill_frame::{Frame, partition_by_hash, schema};

use crate::support::{Random, nested_types, plain_types, random_batch};

/// The schemas that bytes are read with.
pub fn schemas() -> Vec<SchemaRef> {
    let mut groups = vec![
        Vec::new(),
        vec![DataType::Int64, DataType::Utf8, DataType::Boolean, DataType::Float64],
        vec![DataType::Utf8View, DataType::BinaryView, DataType::LargeUtf8, DataType::Binary],
        plain_types(),
    ];
    groups.extend([DataType::Int32, DataType::Utf8, DataType::Utf8View].iter().map(nested_types));
    groups.push(nested_types(&DataType::Utf8).iter().flat_map(nested_types).collect());
    let schema = |types: Vec<DataType>| {
        Schema::new(
            types.into_iter().enumerate().map(|(i, t)| Field::new(format!("c{i}"), t, true)).collect::<Vec<_>>(),
        )
    };
    groups.into_iter().map(|types| Arc::new(schema(types))).collect()
}

/// An undamaged frame of this schema.
pub fn good_frame(random: &mut Random, schema: &SchemaRef, rows: usize) -> Vec<u8> {
    let types: Vec<DataType> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
    Frame::encode(&random_batch(random, &types, rows)).unwrap().as_bytes().to_vec()
}

/// Reads bytes with a schema and, if they are taken for a frame, uses all there is in it. Returns what came of it.
///
/// # Panics
/// When something was taken for a frame that is none: that is a find.
pub fn check(schema: &SchemaRef, bytes: &[u8]) -> Result<(), String> {
    let _ = schema::from_bytes(bytes);
    let frame = Frame::from_bytes(bytes.to_vec(), schema).map_err(|error| error.to_string())?;
    let batch = frame.decode(schema).expect("a checked frame can be decoded");
    assert_eq!(batch.rows(), frame.rows());
    for column in batch.data().columns() {
        column.to_data().validate_full().expect("a checked frame holds valid arrays");
        let options = FormatOptions::default();
        // Intervals and times may hold values that have no text; they must not panic either.
        if let Ok(formatter) = ArrayFormatter::try_new(column.as_ref(), &options) {
            for row in 0..column.len().min(200) {
                let _ = formatter.value(row).try_to_string();
            }
        }
    }
    if batch.rows() < 10_000 {
        // Arrow's own decimals may hold more digits than their type says; hashing and encoding look at the bits only.
        let all: Vec<usize> = (0..batch.data().num_columns()).collect();
        let _ = partition_by_hash(&batch, &all, 2);
        let half: Vec<u16> = (0..batch.rows()).map(|row| (row % 2) as u16).collect();
        for frame in mill_frame::partition(&batch, &half, 2).expect("can be cut in two").iter().flatten() {
            frame.decode(schema).expect("a frame of our own can be decoded");
        }
    }
    Ok(())
}
