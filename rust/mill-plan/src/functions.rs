//! The built-in functions, under Polars' names.
//!
//! A function is a row of a table: its name, how many arguments it takes, and how it is bound, that is checked against the
//! types of its arguments and turned into a kernel. Kernels are Arrow's or DataFusion's where these do what Polars does,
//! and small loops of our own where they don't.
//!
//! The arguments are in the order of Polars' parameters, options after them as constants; those in brackets may be left
//! out. Functions that are not listed take only the column.
//!
//! | function | arguments after the column |
//! | --- | --- |
//! | `log` | [base] |
//! | `pow` | exponent |
//! | `round` | [decimals] |
//! | `clip` | lower, [upper]; null for none |
//! | `fill_null`, `fill_nan` | value |
//! | `is_in` | values one by one, or one constant list |
//! | `is_between` | lower, upper, [closed: both, left, right, none] |
//! | `coalesce`, `min_horizontal`, `max_horizontal`, `all_horizontal`, `any_horizontal` | more columns |
//! | `concat_str` | separator first, then the columns |
//! | `str.contains`, `str.find`, `str.count_matches` | pattern, [literal] |
//! | `str.replace`, `str.replace_all` | pattern, value, [literal] |
//! | `str.extract` | pattern, [group: 1] |
//! | `str.extract_all`, `str.split`, `str.starts_with`, `str.ends_with`, `str.strip_prefix`, `str.strip_suffix` | text |
//! | `str.strip_chars`, `str.strip_chars_start`, `str.strip_chars_end` | [characters] |
//! | `str.slice`, `list.slice` | offset, [length] |
//! | `str.head`, `str.tail`, `list.head`, `list.tail`, `str.zfill` | n |
//! | `str.pad_start`, `str.pad_end` | length, [character] |
//! | `str.to_integer` | [base], [strict] |
//! | `str.to_date` | [format], [strict] |
//! | `str.to_datetime` | [format], [unit], [strict] |
//! | `dt.truncate`, `dt.offset_by` | span: `1h30m`, `1d`, `1w`, `1mo`, `1q`, `1y`, or a duration |
//! | `dt.epoch`, `dt.timestamp` | [unit: s, ms, us, ns, d] |
//! | `dt.strftime`, `dt.to_string` | format |
//! | `dt.cast_time_unit` | unit |
//! | `dt.convert_time_zone`, `dt.replace_time_zone` | zone |
//! | `list.get` | index, [null_on_oob] |
//! | `list.contains` | value |
//! | `list.join` | separator |
//! | `list.sort` | [descending] |
//! | `list.set_union`, `list.set_intersection`, `list.set_difference` | another list |
//! | `struct.field` | name |
//! | `map.get`, `map.contains_key` | key |
//! | `by_pair` | what is smallest or largest, for `min_by` and `max_by` |
//!
//! Counts, lengths and fields of times are int64, so that arithmetic on them does not overflow.

mod arguments;
mod choice;
mod json;
mod lists;
mod maps;
mod matching;
mod math;
mod strings;
pub(crate) mod times;
mod words;

use std::sync::{Arc, OnceLock};

use datafusion_common::ScalarValue;
use mill_frame::words::counted;
use mill_protocol::{Error, Result};

use crate::compiled::bind::Typed;
use crate::expr::Expr;
use crate::suggest::nearest;

/// A built-in function.
pub(crate) struct Function {
    /// Polars' name, with its namespace.
    pub(crate) name: &'static str,
    /// The least and the largest number of arguments, with the column it is called on.
    pub(crate) args: (usize, usize),
    /// Checks the arguments and chooses the kernel.
    pub(crate) bind: Binder,
    /// Whether it is called as `name(a, b)` and not as `a.name(b)`.
    pub(crate) is_free: bool,
    /// The argument of a conversion that says whether a value that does not fit is an error of its record. It is unless this
    /// is false.
    strict: Option<usize>,
}

impl Function {
    /// The same as a conversion that takes `strict=` as this argument.
    const fn strict_at(mut self, place: usize) -> Function {
        self.strict = Some(place);
        self
    }
}

type Binder = fn(&str, Vec<Typed>, &Arc<str>) -> Result<Typed>;

/// How many arguments a function of any number of columns takes.
const ANY: usize = usize::MAX;

/// A function that is called on a column.
const fn method(name: &'static str, least: usize, most: usize, bind: Binder) -> Function {
    Function { name, args: (least, most), bind, is_free: false, strict: None }
}

/// A function of several columns.
const fn free(name: &'static str, least: usize, most: usize, bind: Binder) -> Function {
    Function { name, args: (least, most), bind, is_free: true, strict: None }
}

/// All functions.
const TABLES: &[&[Function]] = &[
    choice::FUNCTIONS,
    json::FUNCTIONS,
    lists::FUNCTIONS,
    maps::FUNCTIONS,
    matching::FUNCTIONS,
    math::FUNCTIONS,
    strings::FUNCTIONS,
    times::FUNCTIONS,
];

fn find(name: &str) -> Option<&'static Function> {
    TABLES.iter().flat_map(|table| table.iter()).find(|function| function.name == name)
}

/// The names of all functions, sorted.
pub(crate) fn names() -> &'static [&'static str] {
    static NAMES: OnceLock<Vec<&'static str>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let mut names: Vec<_> = TABLES.iter().flat_map(|table| table.iter()).map(|function| function.name).collect();
        names.sort_unstable();
        names
    })
}

/// Whether the function is called as `name(a, b)`.
pub(crate) fn is_free(name: &str) -> bool {
    find(name).is_some_and(|function| function.is_free)
}

/// Whether the function converts values in such a way that one that does not fit is an error of its record.
pub(crate) fn converts_strictly(name: &str, args: &[Expr]) -> bool {
    let is_false = |arg: &Expr| matches!(arg.without_alias(), Expr::Literal(ScalarValue::Boolean(Some(false))));
    let place = find(name).and_then(|function| function.strict);
    place.is_some_and(|place| !args.get(place).is_some_and(is_false))
}

/// Checks that there is such a function and that it takes so many arguments.
pub(crate) fn check_call(name: &str, args: usize) -> Result<()> {
    let Some(function) = find(name) else {
        let near = nearest(name, names().iter().copied());
        let hint = match near.as_slice() {
            [] => "Expr::functions() lists them".to_owned(),
            near => format!("did you mean {}?", near.iter().map(|n| format!("{n:?}")).collect::<Vec<_>>().join(" or ")),
        };
        return Err(Error::plan(format!("function {name:?} does not exist; {hint}")));
    };
    let (least, most) = function.args;
    if args < least || args > most {
        // The column it is called on does not count for the user.
        let own = usize::from(!function.is_free);
        let wanted = match (least.saturating_sub(own), most.saturating_sub(own)) {
            (a, b) if a == b => counted(a, "argument"),
            (a, b) if b >= ANY - 1 => format!("at least {}", counted(a, "argument")),
            (a, b) => format!("{a} to {b} arguments"),
        };
        return Err(Error::plan(format!("{name}() takes {wanted}, found {}", args.saturating_sub(own))));
    }
    Ok(())
}

/// Binds a call to its arguments.
pub(crate) fn bind(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    check_call(name, args.len())?;
    match find(name) {
        Some(function) => (function.bind)(name, args, text),
        None => Err(Error::internal(format!("function {name:?} has gone"))),
    }
}

pub(crate) use self::lists::eval::list_eval;
pub(crate) use self::math::random;
