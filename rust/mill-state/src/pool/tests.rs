use super::*;

#[test]
fn blocks_are_zero_apart_from_each_other_and_come_back() {
    let pool = Pool::new(160);
    let mut blocks: Vec<PoolBlock> = (0..2000).map(|_| pool.take().unwrap()).collect();
    let mut starts: Vec<usize> = blocks.iter().map(|block| block.lines().as_ptr().addr()).collect();
    for block in &mut blocks {
        assert!(block.lines().iter().all(|line| line.is_zero()));
        assert_eq!(block.lines().as_ptr().addr() % 64, 0);
        block.lines_mut().fill(Line::ONES);
    }
    starts.sort_unstable();
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= 160 * 64));
    drop(blocks);
    let again = pool.take().unwrap();
    assert!(starts.binary_search(&again.lines().as_ptr().addr()).is_ok(), "memory that came back is taken first");
    assert!(again.lines().iter().all(|line| line.is_zero()));
}

#[test]
fn a_block_outlives_its_pool_on_another_thread() {
    let pool = Pool::new(16);
    let mut block = pool.take().unwrap();
    drop(pool);
    std::thread::spawn(move || {
        block.lines_mut().fill(Line::ONES);
        assert!(block.lines().iter().all(|line| !line.is_zero()));
    })
    .join()
    .unwrap();
}
