//! The places of bytes of interest: a bit for each byte of a piece that equals one of two.
//!
//! Records and fields are short, so that a search from each line end or delimiter to the next one begins more often than
//! it runs. Here all of a piece are found first, sixty-four bytes a word, and then taken bit by bit.
//!
//! The only unsafe code is loads of 32 bytes from arrays of 64, and the call of the AVX2 version, which is made only if the
//! processor supports it.

/// A piece has at most so many bytes, a word for each 64 of them.
pub(crate) const PIECE_BYTES: usize = 4096;
const WORDS: usize = PIECE_BYTES / 64;

/// Finds two bytes.
#[derive(Clone, Copy)]
pub(crate) struct Marks {
    bytes: [u8; 2],
    find: Find,
}

type Find = fn([u8; 2], &[u8], &mut [u64; WORDS]);

impl Marks {
    pub(crate) fn new(a: u8, b: u8) -> Marks {
        Marks { bytes: [a, b], find: fastest() }
    }

    /// Calls `visit` with the place of each of the bytes in `data`, in order, until it returns `false`.
    #[inline(always)]
    pub(crate) fn each(&self, data: &[u8], mut visit: impl FnMut(usize) -> bool) {
        let mut words = [0; WORDS];
        for (number, piece) in data.chunks(PIECE_BYTES).enumerate() {
            (self.find)(self.bytes, piece, &mut words);
            for (word, &found) in words[..piece.len().div_ceil(64)].iter().enumerate() {
                let mut found = found;
                while found != 0 {
                    let bit = found.trailing_zeros() as usize;
                    found &= found - 1;
                    if !visit(number * PIECE_BYTES + word * 64 + bit) {
                        return;
                    }
                }
            }
        }
    }
}

fn fastest() -> Find {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return |bytes, piece, words| unsafe { avx2::find(bytes, piece, words) };
    }
    find
}

/// What is left of a piece after its last whole block, filled up with a byte that is none of the two.
fn last_block(bytes: [u8; 2], rest: &[u8]) -> [u8; 64] {
    let filler = (0..3).find(|filler| !bytes.contains(filler)).unwrap_or(0);
    let mut block = [filler; 64];
    block[..rest.len()].copy_from_slice(rest);
    block
}

fn find(bytes: [u8; 2], piece: &[u8], words: &mut [u64; WORDS]) {
    let (blocks, rest) = piece.as_chunks::<64>();
    for (block, word) in blocks.iter().zip(words.iter_mut()) {
        *word = block_marks(bytes, block);
    }
    if !rest.is_empty() {
        words[blocks.len()] = block_marks(bytes, &last_block(bytes, rest));
    }
}

fn block_marks(bytes: [u8; 2], block: &[u8; 64]) -> u64 {
    // Truth values, a byte each, eight at a time: the product has bit 0 of byte i at bit 56 + i.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let is_found = block.map(|byte| u8::from(byte == bytes[0] || byte == bytes[1]));
    let (eights, _) = is_found.as_chunks::<8>();
    let word = |(i, eight): (usize, &[u8; 8])| (u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56) << (8 * i);
    eights.iter().enumerate().map(word).fold(0, |all, these| all | these)
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8,
    };

    use super::{WORDS, last_block};

    #[target_feature(enable = "avx2")]
    pub(super) fn find(bytes: [u8; 2], piece: &[u8], words: &mut [u64; WORDS]) {
        let (blocks, rest) = piece.as_chunks::<64>();
        for (block, word) in blocks.iter().zip(words.iter_mut()) {
            *word = block_marks(bytes, block);
        }
        if !rest.is_empty() {
            words[blocks.len()] = block_marks(bytes, &last_block(bytes, rest));
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn block_marks(bytes: [u8; 2], block: &[u8; 64]) -> u64 {
        let (a, b) = (_mm256_set1_epi8(bytes[0] as i8), _mm256_set1_epi8(bytes[1] as i8));
        let mut word = 0;
        for (i, half) in block.as_chunks::<32>().0.iter().enumerate() {
            // SAFETY: the array has the 32 bytes that are loaded, and the load needs no alignment.
            let values = unsafe { _mm256_loadu_si256(half.as_ptr().cast()) };
            let found = _mm256_or_si256(_mm256_cmpeq_epi8(values, a), _mm256_cmpeq_epi8(values, b));
            word |= u64::from(_mm256_movemask_epi8(found) as u32) << (32 * i);
        }
        word
    }
}

#[cfg(test)]
mod tests;
