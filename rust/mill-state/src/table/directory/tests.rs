use super::*;

/// Entries written in some epochs are ready in those alone, however long the table lives and however the directory grows.
#[test]
fn an_entry_is_ready_in_its_own_epoch_alone() {
    let mut directory = Directory::new(&(2..7));
    // What chunk each entry of the deepest directory has, and the epoch it was written in.
    let mut chunks: Vec<(u16, u32, u64)> = (2..7).map(|group| (group, 1, 0)).collect();
    let mut dice = 1u64;
    let mut ready = 0;
    for epoch in 1..5000u64 {
        for (place, chunk) in chunks.iter_mut().enumerate() {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if (dice >> 33) % 200 == 0 {
                chunk.2 = epoch;
                let base = std::ptr::without_provenance_mut(8 * (place + 1));
                directory.enter(chunk.0, chunk.1, place as u32, base, 15, true);
            }
        }
        if epoch % 700 == 300 {
            directory.deepen();
            let split = std::mem::take(&mut chunks).into_iter();
            chunks = split.flat_map(|(group, id, at)| [(group, id * 2, at), (group, id * 2 + 1, at)]).collect();
        }
        let view = directory.view();
        for &(group, id, at) in &chunks {
            let prefix = u64::from(id) - (1 << id.ilog2());
            let hash = u64::from(group) << TAG_FLAG_FIRST | prefix << (TAG_FLAG_FIRST - id.ilog2());
            assert_eq!(view.at(hash).is_ready(view.tag), at == epoch, "group {group}, chunk {id}, written in epoch {at}");
            ready += usize::from(at == epoch);
        }
        directory.begin_epoch(epoch + 1);
    }
    assert!(ready > 1000, "{ready} entries were found ready");
}

#[test]
fn what_is_cleared_is_not_ready() {
    let mut directory = Directory::new(&(0..1));
    directory.enter(0, 1, 0, std::ptr::null_mut(), 15, true);
    assert!(directory.at(0).is_ready(directory.view().tag));
    directory.clear(2);
    assert!((0..4u64).all(|prefix| directory.at(prefix << (TAG_FLAG_FIRST - 2)).chunk_index() == NO_CHUNK));
    assert!(!directory.at(0).is_ready(directory.view().tag));
}
