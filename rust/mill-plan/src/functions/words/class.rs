//! Classes of bytes, and which bytes of a text are of one.
//!
//! A class is tested sixty-four bytes at a time, as a few comparisons with the ends of its ranges, which compilers turn
//! into vector instructions; the truth values, a byte each, are then packed into bits eight at a time by a multiplication.

/// With more ranges than this a table is faster.
const RANGES_MAX: usize = 8;

/// A class of bytes, from a pattern such as `[a-z']+`, `[^,]+`, `\w+`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::functions) struct ByteClass {
    has: [bool; 256],
    /// The same as ranges, both ends within: so it is tested for many bytes at once.
    ranges: Vec<(u8, u8)>,
    /// Whether the class means more than its bytes beyond ASCII (`\w`), so that it holds for ASCII text only.
    is_for_ascii: bool,
}

impl ByteClass {
    /// The class, if the pattern is one class repeated at least once and nothing else.
    pub(in crate::functions) fn of_pattern(pattern: &str) -> Option<ByteClass> {
        let class = pattern.strip_suffix('+')?;
        let mut result = ByteClass { has: [false; 256], ranges: Vec::new(), is_for_ascii: false };
        if let Some(escape) = class.strip_prefix('\\') {
            return (escape.len() == 1 && result.add_escape(escape.as_bytes()[0])).then(|| result.with_ranges());
        }
        let inner = class.strip_prefix('[')?.strip_suffix(']')?;
        let (is_negated, inner) = inner.strip_prefix('^').map_or((false, inner), |inner| (true, inner));
        // What nests classes or combines them is left to the engine, as is a `]` or `-` in an odd place.
        let is_plain = inner.is_ascii() && !["[", "]", "&&", "--", "~~"].iter().any(|odd| inner.contains(odd));
        if inner.is_empty() || !is_plain {
            return None;
        }
        let bytes = inner.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let first = match bytes[at] {
                b'\\' => {
                    at += 1;
                    let escaped = *bytes.get(at)?;
                    if escaped.is_ascii_alphanumeric() {
                        if !result.add_escape(escaped) {
                            return None;
                        }
                        at += 1;
                        continue;
                    }
                    escaped
                }
                byte => byte,
            };
            at += 1;
            match (bytes.get(at), bytes.get(at + 1)) {
                (Some(b'-'), Some(&last)) if last != b'\\' => {
                    if first > last {
                        return None;
                    }
                    result.has[usize::from(first)..=usize::from(last)].fill(true);
                    at += 2;
                }
                (Some(b'-'), Some(_)) => return None,
                _ => result.has[usize::from(first)] = true,
            }
        }
        if is_negated {
            // All characters beyond ASCII are outside of a class of bytes, with all their bytes; of `[^\w]` only ASCII
            // text is looked at.
            result.has.iter_mut().for_each(|has| *has = !*has);
        }
        Some(result.with_ranges())
    }

    /// The class of this byte alone, which is an ASCII character.
    pub(in crate::functions) fn of_byte(byte: u8) -> ByteClass {
        let mut has = [false; 256];
        has[usize::from(byte)] = true;
        ByteClass { has, ranges: Vec::new(), is_for_ascii: false }.with_ranges()
    }

    fn with_ranges(mut self) -> ByteClass {
        let mut from = None;
        for byte in 0..=255_u8 {
            match (from, self.has[usize::from(byte)]) {
                (None, true) => from = Some(byte),
                (Some(first), false) => {
                    self.ranges.push((first, byte - 1));
                    from = None;
                }
                _ => {}
            }
        }
        self.ranges.extend(from.map(|first| (first, 255)));
        self
    }

    /// Whether it may be looked for in this text.
    pub(in crate::functions) fn is_for(&self, text: &[u8]) -> bool {
        !self.is_for_ascii || text.is_ascii()
    }

    /// A bit for each byte: whether it is of the class.
    pub(in crate::functions) fn bits(&self, text: &[u8]) -> Vec<u64> {
        let mask = if self.ranges.len() <= RANGES_MAX { mask_by_ranges } else { mask_by_table };
        let (blocks, rest) = text.as_chunks::<64>();
        let mut bits: Vec<u64> = Vec::with_capacity(blocks.len() + 1);
        bits.extend(blocks.iter().map(|block| mask(self, block)));
        if !rest.is_empty() {
            let mut block = [0; 64];
            block[..rest.len()].copy_from_slice(rest);
            bits.push(mask(self, &block) & !(!0 << rest.len()));
        }
        bits
    }

    /// Adds what `\w`, `\d`, `\s` and the escapes of single characters stand for.
    fn add_escape(&mut self, escape: u8) -> bool {
        let has: fn(u8) -> bool = match escape {
            b'w' => |b| b.is_ascii_alphanumeric() || b == b'_',
            b'W' => |b| !(b.is_ascii_alphanumeric() || b == b'_'),
            b'd' => |b| b.is_ascii_digit(),
            b'D' => |b| !b.is_ascii_digit(),
            b's' => |b| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c),
            b'S' => |b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c),
            b'n' => |b| b == b'\n',
            b't' => |b| b == b'\t',
            b'r' => |b| b == b'\r',
            _ => return false,
        };
        self.is_for_ascii |= matches!(escape, b'w' | b'd' | b's' | b'W' | b'D' | b'S');
        (0..=255_u8).filter(|&byte| has(byte)).for_each(|byte| self.has[usize::from(byte)] = true);
        true
    }
}

fn mask_by_ranges(class: &ByteClass, block: &[u8; 64]) -> u64 {
    let mut is_in = [0_u8; 64];
    for &(first, last) in &class.ranges {
        let width = last - first;
        for (is_in, &byte) in is_in.iter_mut().zip(block) {
            *is_in |= u8::from(byte.wrapping_sub(first) <= width);
        }
    }
    packed(&is_in)
}

fn mask_by_table(class: &ByteClass, block: &[u8; 64]) -> u64 {
    packed(&block.map(|byte| u8::from(class.has[usize::from(byte)])))
}

/// Sixty-four bytes of 0 or 1 as bits.
fn packed(bytes: &[u8; 64]) -> u64 {
    // Moves bit 0 of byte i to bit 56 + i; the partial products do not overlap, so nothing is carried.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let (eights, _) = bytes.as_chunks::<8>();
    let byte = |(i, eight): (usize, &[u8; 8])| (u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56) << (8 * i);
    eights.iter().enumerate().map(byte).fold(0, |mask, byte| mask | byte)
}
