//! Which records of a batch a look-up is about.

/// Which records of a batch are meant.
pub trait Select: Copy {
    /// How many.
    fn len(self) -> usize;
    /// The place in the batch of the `index`-th.
    fn at(self, index: usize) -> usize;
    /// The values of these records side by side: where they are, or copied into `room`.
    fn gather<'a, T: Copy>(self, values: &'a [T], room: &'a mut Vec<T>) -> &'a [T] {
        room.clear();
        room.extend((0..self.len()).map(|index| values[self.at(index)]));
        room
    }
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
    #[inline(always)]
    fn gather<'a, T: Copy>(self, values: &'a [T], _room: &'a mut Vec<T>) -> &'a [T] {
        &values[self.start..][..self.len]
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
