//! Random texts: pieces of pools of letters, so that a text costs one draw and one copy.

use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};

use super::numbers::{Draw, Draws};

/// How large a pool is: it stays in the cache.
const POOL_BYTES: u64 = 64 * 1024;
/// The longest piece that is taken of a pool.
const PIECE_BYTES_MAX: u64 = 512;
/// The pools and the channels are the same under every seed.
const POOL_SEED: u64 = 0;
/// One letter in so many is the special one.
const SPECIAL_RATIO: u64 = 13;
/// How many channels there are besides the hot ones.
const CHANNELS: u64 = 10_000;
/// The channels that half of all bids come from.
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
/// Of a random text the shortest is so long.
const TEXT_BYTES_MIN: u64 = 3;

/// A pool of letters, some of them special.
pub(super) struct Pool(Vec<u8>);

impl Pool {
    fn new(purpose: u64, special: Option<u8>) -> Pool {
        let draws = Draws::new(POOL_SEED, purpose);
        let letter = |at| {
            let draw = draws.of(at);
            match special {
                Some(special) if draw.high(SPECIAL_RATIO) == 0 => special,
                _ => b'a' + draw.low(26) as u8,
            }
        };
        Pool((0..POOL_BYTES + PIECE_BYTES_MAX).map(letter).collect())
    }

    /// Letters alone.
    pub(super) fn letters() -> &'static Pool {
        static POOL: OnceLock<Pool> = OnceLock::new();
        POOL.get_or_init(|| Pool::new(1, None))
    }

    /// Letters and spaces.
    pub(super) fn words() -> &'static Pool {
        static POOL: OnceLock<Pool> = OnceLock::new();
        POOL.get_or_init(|| Pool::new(2, Some(b' ')))
    }

    /// So many bytes of it.
    #[inline]
    pub(super) fn piece(&self, at: u64, bytes: u64) -> &[u8] {
        debug_assert!(at < POOL_BYTES && bytes <= PIECE_BYTES_MAX, "at={at} bytes={bytes}");
        &self.0[at as usize..(at + bytes) as usize]
    }

    /// A text that is a little longer or shorter than this: by a fifth at most.
    #[inline]
    pub(super) fn about(&self, draw: Draw, bytes: u64) -> &[u8] {
        let spread = bytes / 5;
        self.piece(draw.low(POOL_BYTES), bytes - spread + draw.high(2 * spread))
    }

    /// A text of 3 to `bytes_max` bytes, without spaces at its ends.
    #[inline]
    pub(super) fn text(&self, draw: Draw, bytes_max: u64) -> &[u8] {
        self.piece(draw.low(POOL_BYTES), TEXT_BYTES_MIN + draw.high(bytes_max - TEXT_BYTES_MIN)).trim_ascii()
    }
}

/// The channels that bids come from, and their addresses.
pub(super) struct Channels {
    pub(super) names: Vec<String>,
    pub(super) urls: Vec<String>,
}

impl Channels {
    /// The table, made on first use.
    pub(super) fn table() -> &'static Channels {
        static TABLE: OnceLock<Channels> = OnceLock::new();
        TABLE.get_or_init(|| {
            let (pool, draws) = (Pool::new(3, Some(b'_')), Draws::new(POOL_SEED, 4));
            let base = |number: u64| {
                let word = |which: u64| {
                    let word = pool.text(draws.of(4 * number + which), 5);
                    word.iter().map(|&letter| char::from(letter)).collect::<String>()
                };
                format!("https://www.nexmark.com/{}/{}/{}/item.htm?query=1", word(0), word(1), word(2))
            };
            let hot = HOT_CHANNELS.len() as u64;
            let mut channels = Channels {
                names: HOT_CHANNELS.iter().map(|&name| name.to_owned()).collect(),
                urls: (0..hot).map(base).collect(),
            };
            for number in 0..CHANNELS {
                let mut url = base(hot + number);
                if draws.of(4 * (hot + number) + 3).high(10) > 0 {
                    url.push_str(&format!("&channel_id={}", (number as i32).reverse_bits().unsigned_abs()));
                }
                channels.names.push(format!("channel-{number}"));
                channels.urls.push(url);
            }
            channels
        })
    }

    /// The place in the table of what a draw chooses: a hot one for every other bid.
    #[inline]
    pub(super) fn place(draw: Draw) -> usize {
        let hot = HOT_CHANNELS.len() as u64;
        let place = if draw.high(2) > 0 { draw.low(hot) } else { hot + draw.low(CHANNELS) };
        place as usize
    }
}

/// A column of texts that is being written.
pub(super) struct TextColumn {
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

impl TextColumn {
    /// A column for so many rows of about so many bytes each.
    pub(super) fn new(rows: usize, bytes: usize) -> TextColumn {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        TextColumn { ends, bytes: Vec::with_capacity(rows * bytes) }
    }

    /// Adds to the text of the row.
    #[inline]
    pub(super) fn add(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(part);
    }

    /// Ends the row.
    #[inline]
    pub(super) fn end(&mut self) {
        self.ends.push(self.bytes.len() as i32);
    }

    /// The column.
    pub(super) fn finish(self) -> ArrayRef {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.ends));
        let column = StringArray::try_new(offsets, Buffer::from_vec(self.bytes), None);
        Arc::new(column.expect("all texts are of ASCII, and offsets grow with the bytes"))
    }
}
