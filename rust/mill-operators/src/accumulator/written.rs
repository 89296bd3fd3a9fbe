//! Keys of rows as bytes, side by side.

use super::Groups;

/// Many keys, each as [`Groups::write_key`] writes it.
#[derive(Debug, Default)]
pub(crate) struct WrittenKeys {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl WrittenKeys {
    pub(crate) fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    /// Adds the key of a record of the frame that these groups have taken up.
    pub(crate) fn push_of(&mut self, groups: &Groups, record: u32) {
        groups.write_key(record, &mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index))
    }
}
