use std::collections::HashMap;

use crate::table::tests::{columns_of, expected_key, fixture};
use crate::{KeyBatch, KeyEncoder, Span};

/// Keys written as bytes, as sorted state holds them, find the rows of the keys that they were.
#[test]
fn written_keys_find_their_rows() {
    let numbers: Vec<u16> = (0..900).collect();
    for kind in 0..6 {
        let (types, columns) = columns_of(kind, &numbers);
        let fixture = fixture(&types);
        let mut encoder = KeyEncoder::new(&types).unwrap();
        let mut table = fixture.table(0..128);
        fixture.add(&mut table, &mut encoder, &columns);
        let rows = table.len();
        let key_kind = encoder.kind().clone();
        let keys = encoder.encode(&columns, numbers.len()).unwrap();
        let mut written: Vec<Vec<u8>> = vec![Vec::new(); numbers.len()];
        written.iter_mut().enumerate().for_each(|(record, out)| keys.write_key(&key_kind, record, out));
        let mut names = HashMap::new();
        for (record, key) in written.iter().enumerate() {
            assert_eq!(KeyBatch::hash_of(key), Some(keys.hashes()[record]));
            let name = expected_key(&columns, record);
            assert_eq!(names.entry(key.clone()).or_insert_with(|| name.clone()), &name, "equal keys are equal bytes");
        }
        assert_eq!(names.len(), rows, "other keys are other bytes");
        let read = KeyBatch::of_written(&key_kind, written.iter().map(Vec::as_slice)).unwrap();
        let found = table.find_or_insert(&read, Span { start: 0, len: numbers.len() });
        assert!(found.inserted().is_empty(), "kind {kind}");
        assert!((0..numbers.len()).all(|record| table.remove(&read, record) == names.remove(&written[record]).is_some()));
        assert!(table.is_empty());
        let short = &written[1][..written[1].len().min(8)];
        assert!(KeyBatch::of_written(&key_kind, [short]).is_err());
        if !key_kind.is_view() {
            assert!(KeyBatch::of_written(&key_kind, [&written[1][..written[1].len() - 1]]).is_err());
        }
    }
}
