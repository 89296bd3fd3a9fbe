//! Cuts JSON into values, without interpreting them: where each one is, and of which kind.
//!
//! A value is checked to be JSON as a whole when it is passed, also where nobody reads it, so that whether a line is a
//! record does not depend on the columns that are wanted. What its text means is decided column by column.

/// Arrays and objects may be nested this deep.
const DEPTH_MAX: usize = 128;

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// Where its first byte is.
    pub start: u32,
    /// Where the byte after its last is.
    pub end: u32,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is no value: the key is not there.
    Missing,
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean,
    /// A number.
    Number,
    /// A string without escapes, its quotes left out.
    String,
    /// A string with escapes, its quotes left out.
    Escaped,
    /// An array.
    List,
    /// An object.
    Object,
}

impl Value {
    /// One that is not there.
    pub const MISSING: Value = Value { start: 0, end: 0, kind: Kind::Missing };

    #[inline]
    fn new(kind: Kind, start: usize, end: usize) -> Value {
        Value { start: start as u32, end: end as u32, kind }
    }

    /// Its text in the data, a string without its quotes and with its escapes.
    #[inline]
    pub fn bytes(self, data: &[u8]) -> &[u8] {
        &data[self.start as usize..self.end as usize]
    }
}

/// Why bytes are not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They end too early.
    Open,
    /// Something else is expected at this place.
    At(usize),
    /// What Python and others write for floats that are not finite.
    NotFinite,
    /// It is nested too deep.
    Deep,
    /// A string has an escape that there is not, or half of a surrogate pair.
    Escape,
    /// A string has a line end or another control character.
    Control,
}

impl Fault {
    /// Why a line is no record.
    pub fn message(self, data: &[u8], line: usize) -> String {
        self.message_of("line", "object", data, line)
    }

    /// The same, where what begins at `start` is called so, `line` or `text`, and has to be one JSON `object` or `value`.
    pub fn message_of(self, unit: &str, form: &str, data: &[u8], start: usize) -> String {
        match self {
            Fault::Open => format!("the {unit} is not one complete JSON {form}"),
            Fault::At(at) => {
                let found = String::from_utf8_lossy(&data[at..]).chars().next().unwrap_or('?');
                format!("the {unit} is not one JSON {form}: {found:?} is not expected at its byte {}", at - start + 1)
            }
            Fault::NotFinite => {
                "NaN and Infinity are not JSON: write null, or the texts \"NaN\" and \"Infinity\", which columns of floats \
                 take (in Python, json.dumps(..., allow_nan=False) finds them)"
                    .to_owned()
            }
            Fault::Deep => format!("arrays and objects are nested more than {DEPTH_MAX} deep"),
            Fault::Escape => "a string has an escape that is not JSON, or half of a surrogate pair".to_owned(),
            Fault::Control => "a string has a control character, which JSON writes with an escape".to_owned(),
        }
    }
}

/// Reads values one after the other.
#[derive(Clone)]
pub struct Scanner<'a> {
    data: &'a [u8],
    /// Where the next byte is.
    pub at: usize,
}

impl<'a> Scanner<'a> {
    /// Begins at a place in the data; nothing at or after their end is looked at.
    #[inline]
    pub fn new(data: &'a [u8], at: usize) -> Scanner<'a> {
        Scanner { data, at }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.data.get(self.at).copied()
    }

    /// Passes spaces.
    #[inline]
    pub fn spaces(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    /// Passes spaces and this byte.
    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        self.spaces();
        match self.peek() {
            Some(found) if found == byte => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(Fault::At(self.at)),
            None => Err(Fault::Open),
        }
    }

    /// Whether the next byte after spaces is this one, which is then passed.
    #[inline]
    fn takes(&mut self, byte: u8) -> bool {
        self.spaces();
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    /// Whether nothing but spaces is left.
    #[inline]
    pub fn is_at_end(&mut self) -> bool {
        self.spaces();
        self.at >= self.data.len()
    }

    /// Passes an object, with each of its keys and values.
    #[inline]
    pub fn object<E: From<Fault>>(
        &mut self,
        depth: usize,
        mut visit: impl FnMut(Value, Value) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'{')?;
        if self.takes(b'}') {
            return Ok(());
        }
        loop {
            self.spaces();
            match self.peek() {
                Some(b'"') => {}
                Some(_) => return Err(Fault::At(self.at).into()),
                None => return Err(Fault::Open.into()),
            }
            let key = self.string()?;
            self.expect(b':')?;
            let value = self.value(depth)?;
            visit(key, value)?;
            if self.takes(b',') {
                continue;
            }
            self.expect(b'}')?;
            return Ok(());
        }
    }

    /// Passes an array, with each of its items.
    pub fn list<E: From<Fault>>(
        &mut self,
        depth: usize,
        mut visit: impl FnMut(Value) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'[')?;
        if self.takes(b']') {
            return Ok(());
        }
        loop {
            let value = self.value(depth)?;
            visit(value)?;
            if self.takes(b',') {
                continue;
            }
            self.expect(b']')?;
            return Ok(());
        }
    }

    /// Passes a value of any kind; `depth` says within how many arrays and objects it is.
    #[inline]
    pub fn value(&mut self, depth: usize) -> Result<Value, Fault> {
        self.spaces();
        let start = self.at;
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", Kind::Boolean),
            Some(b'f') => self.word(b"false", Kind::Boolean),
            Some(b'n') => self.word(b"null", Kind::Null),
            Some(b'{') if depth < DEPTH_MAX => {
                self.object(depth + 1, |_, _| Ok::<(), Fault>(()))?;
                Ok(Value::new(Kind::Object, start, self.at))
            }
            Some(b'[') if depth < DEPTH_MAX => {
                self.list(depth + 1, |_| Ok::<(), Fault>(()))?;
                Ok(Value::new(Kind::List, start, self.at))
            }
            Some(b'{' | b'[') => Err(Fault::Deep),
            Some(_) if self.is_not_finite() => Err(Fault::NotFinite),
            Some(_) => Err(Fault::At(start)),
            None => Err(Fault::Open),
        }
    }

    fn is_not_finite(&self) -> bool {
        let rest = &self.data[self.at..];
        let rest = rest.strip_prefix(b"-").unwrap_or(rest);
        [&b"NaN"[..], b"nan", b"Infinity", b"inf"].iter().any(|word| rest.starts_with(word))
    }

    #[inline]
    fn word(&mut self, word: &[u8], kind: Kind) -> Result<Value, Fault> {
        let start = self.at;
        if self.data[start..].starts_with(word) {
            self.at += word.len();
            return Ok(Value::new(kind, start, self.at));
        }
        if self.is_not_finite() {
            return Err(Fault::NotFinite);
        }
        if word.starts_with(&self.data[start..]) { Err(Fault::Open) } else { Err(Fault::At(start)) }
    }

    /// Passes a string, whose opening quote is next.
    #[inline]
    fn string(&mut self) -> Result<Value, Fault> {
        let start = self.at + 1;
        let mut at = start;
        loop {
            match self.data.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(Value::new(Kind::String, start, at));
                }
                Some(b'\\') => return self.escaped(start, at),
                Some(0..=0x1F) => return Err(Fault::Control),
                Some(_) => at += 1,
                None => return Err(Fault::Open),
            }
        }
    }

    /// Passes the rest of a string that has an escape.
    fn escaped(&mut self, start: usize, mut at: usize) -> Result<Value, Fault> {
        loop {
            match self.data.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(Value::new(Kind::Escaped, start, at));
                }
                Some(b'\\') => match self.data.get(at + 1) {
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => at += 2,
                    Some(b'u') => at += unicode(&self.data[at..])?.1,
                    Some(_) => return Err(Fault::Escape),
                    None => return Err(Fault::Open),
                },
                Some(0..=0x1F) => return Err(Fault::Control),
                Some(_) => at += 1,
                None => return Err(Fault::Open),
            }
        }
    }

    #[inline]
    fn number(&mut self) -> Result<Value, Fault> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            Some(_) if self.is_not_finite() => return Err(Fault::NotFinite),
            Some(_) => return Err(Fault::At(self.at)),
            None => return Err(Fault::Open),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Value::new(Kind::Number, start, self.at))
    }

    /// Passes one digit or more.
    #[inline]
    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        match self.peek() {
            _ if self.at > start => Ok(()),
            Some(_) => Err(Fault::At(self.at)),
            None => Err(Fault::Open),
        }
    }
}

/// The character of the escapes at the front of some bytes, `\uD83D\uDE00`, and how many bytes they take.
fn unicode(bytes: &[u8]) -> Result<(char, usize), Fault> {
    let unit = |at: usize| -> Option<u32> {
        let [b'\\', b'u', digits @ ..] = bytes.get(at..at + 6)? else { return None };
        digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + (*digit as char).to_digit(16)?))
    };
    let first = unit(0).ok_or(Fault::Escape)?;
    if let Some(character) = char::from_u32(first) {
        return Ok((character, 6));
    }
    let second = unit(6).ok_or(Fault::Escape)?;
    let pair = [first as u16, second as u16];
    match char::decode_utf16(pair).next() {
        Some(Ok(character)) if (0xD800..0xDC00).contains(&first) => Ok((character, 12)),
        _ => Err(Fault::Escape),
    }
}

/// Adds a string that has escapes, which the scanner has checked, without them.
pub fn unescape(mut bytes: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = memchr::memchr(b'\\', bytes) {
        out.extend_from_slice(&bytes[..at]);
        let (byte, used) = match bytes.get(at + 1) {
            Some(b'b') => (0x08, 2),
            Some(b'f') => (0x0C, 2),
            Some(b'n') => (b'\n', 2),
            Some(b'r') => (b'\r', 2),
            Some(b't') => (b'\t', 2),
            Some(b'u') => {
                let (character, used) = unicode(&bytes[at..]).unwrap_or((char::REPLACEMENT_CHARACTER, 6));
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                bytes = &bytes[at + used..];
                continue;
            }
            Some(other) => (*other, 2),
            None => (b'\\', 1),
        };
        out.push(byte);
        bytes = &bytes[at + used..];
    }
    out.extend_from_slice(bytes);
}

/// The text of a string or key.
pub fn text_of(value: Value, data: &[u8]) -> String {
    let bytes = value.bytes(data);
    if value.kind != Kind::Escaped {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut out = Vec::with_capacity(bytes.len());
    unescape(bytes, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}
