use super::*;

/// The offsets that `docs/format/frame.md` draws.
#[test]
fn the_layout_is_the_documented_one() {
    assert_eq!(std::mem::offset_of!(ArchivedForm, magic), 0);
    assert_eq!(std::mem::offset_of!(ArchivedForm, version), 4);
    assert_eq!(std::mem::offset_of!(ArchivedForm, schema), 8);
    assert_eq!(std::mem::offset_of!(ArchivedForm, rows), 16);
    assert_eq!(std::mem::offset_of!(ArchivedForm, parts), 20);
    assert_eq!(std::mem::offset_of!(ArchivedForm, min_time), 24);
    assert_eq!(std::mem::offset_of!(ArchivedForm, max_time), 32);
    assert_eq!(std::mem::offset_of!(ArchivedForm, slabs), 40);
    assert_eq!(std::mem::offset_of!(ArchivedForm, nodes), 48);
    assert_eq!(size_of::<ArchivedForm>(), 56);
    assert_eq!(size_of::<ArchivedNode>(), 12);
    assert_eq!(size_of::<ArchivedSlab>(), 12);
}
