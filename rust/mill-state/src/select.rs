//! Which records of a batch a look-up is about.

/// Which records of a batch are meant.
pub trait Select: Copy {
    /// How many.
    fn len(self) -> usize;
    /// The place in the batch of the `index`-th.
    fn at(self, index: usize) -> usize;
    /// Whether none are.
    fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Consecutive records.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The first.
    pub start: usize,
    /// How many.
    pub len: usize,
}

impl Select for Span {
    #[inline(always)]
    fn len(self) -> usize {
        self.len
    }
    #[inline(always)]
    fn at(self, index: usize) -> usize {
        self.start + index
    }
}

impl Select for &[u32] {
    #[inline(always)]
    fn len(self) -> usize {
        <[u32]>::len(self)
    }
    #[inline(always)]
    fn at(self, index: usize) -> usize {
        self[index] as usize
    }
}
