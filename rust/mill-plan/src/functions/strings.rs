//! Functions of strings that change or convert them.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, StringBuilder};
use arrow::datatypes::DataType;
use mill_protocol::{Error, Result};

use super::arguments::{
    as_int64, as_string, constant_bool, constant_int, constant_str, first, mapped, of_datafusion, zipped,
};
use super::matching::each;
use super::{ANY, Function, free, method};
use crate::compiled::bind::Typed;
use crate::compiled::value::failed;

pub(super) const FUNCTIONS: &[Function] = &[
    method("str.to_lowercase", 1, 1, case),
    method("str.to_uppercase", 1, 1, case),
    method("str.to_titlecase", 1, 1, titlecase),
    method("str.reverse", 1, 1, reverse),
    method("str.len_chars", 1, 1, length),
    method("str.len_bytes", 1, 1, length),
    method("str.strip_chars", 1, 2, strip),
    method("str.strip_chars_start", 1, 2, strip),
    method("str.strip_chars_end", 1, 2, strip),
    method("str.strip_prefix", 2, 2, strip_affix),
    method("str.strip_suffix", 2, 2, strip_affix),
    method("str.slice", 2, 3, slice),
    method("str.head", 2, 2, slice),
    method("str.tail", 2, 2, slice),
    method("str.pad_start", 2, 3, pad),
    method("str.pad_end", 2, 3, pad),
    method("str.zfill", 2, 2, zfill),
    method("str.to_integer", 1, 3, to_integer).strict_at(2),
    free("concat_str", 2, ANY, concat_str),
];

/// How long a padded string may get.
const PAD_MAX: i64 = 1 << 20;

/// A kernel over strings that returns strings.
fn texts(
    name: &str,
    arg: Typed,
    text: &Arc<str>,
    f: impl Fn(&StringArray) -> Result<ArrayRef> + Send + Sync + 'static,
) -> Result<Typed> {
    let arg = as_string(name, arg)?;
    Typed::call(mapped(move |array| f(array.as_string::<i32>())), vec![arg], DataType::Utf8, text)
}

fn case(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let is_lower = name == "str.to_lowercase";
    texts(name, first(args)?, text, move |array| match is_lower {
        true => cased(array, <[u8]>::make_ascii_lowercase, str::to_lowercase),
        false => cased(array, <[u8]>::make_ascii_uppercase, str::to_uppercase),
    })
}

/// Changes the case of ASCII in one go for all rows, and then rows with other characters one by one.
fn cased(array: &StringArray, ascii: fn(&mut [u8]), full: fn(&str) -> String) -> Result<ArrayRef> {
    const BLOCK: usize = 256;
    let offsets = array.value_offsets();
    let (first, last) = (offsets[0] as usize, offsets[array.len()] as usize);
    let mut bytes = array.value_data()[first..last].to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let block = &bytes[at..bytes.len().min(at + BLOCK)];
        if block.is_ascii() {
            at += block.len();
            continue;
        }
        at += block.iter().position(|byte| !byte.is_ascii()).unwrap_or(0);
        let row = offsets.partition_point(|&offset| offset as usize - first <= at) - 1;
        let (start, end) = (offsets[row] as usize - first, offsets[row + 1] as usize - first);
        let changed = full(array.value(row));
        if changed.len() != end - start {
            // The lengths change, and with them the offsets.
            return Ok(each(array, |text| Cow::Owned(full(text))));
        }
        bytes[start..end].copy_from_slice(changed.as_bytes());
        at = end;
    }
    // What is beyond ASCII has been changed already, and what was changed has no other case left to change to.
    ascii(&mut bytes);
    let offsets = match first {
        0 => array.offsets().clone(),
        _ => arrow::buffer::OffsetBuffer::new(offsets.iter().map(|&offset| offset - first as i32).collect()),
    };
    Ok(Arc::new(StringArray::try_new(offsets, bytes.into(), array.nulls().cloned()).map_err(failed)?))
}

fn titlecase(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    of_datafusion(&datafusion_functions::unicode::initcap(), vec![as_string(name, first(args)?)?], text)
}

fn reverse(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let reversed = of_datafusion(&datafusion_functions::unicode::reverse(), vec![as_string(name, first(args)?)?], text)?;
    reversed.coerce(&DataType::Utf8)
}

fn length(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let in_bytes = name == "str.len_bytes";
    let arg = as_string(name, first(args)?)?;
    let kernel = mapped(move |array| {
        let texts = array.as_string::<i32>();
        let lengths = texts.value_offsets().windows(2).map(|pair| i64::from(pair[1] - pair[0]));
        let lengths: Vec<i64> = if in_bytes || texts.is_ascii() {
            lengths.collect()
        } else {
            (0..texts.len()).map(|row| texts.value(row).chars().count() as i64).collect()
        };
        Ok(Arc::new(Int64Array::new(lengths.into(), texts.nulls().cloned())) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Int64, text)
}

/// Strips white space, or any of the characters given.
fn strip(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let chars = args.get(1).map(|arg| constant_str(name, "characters", arg)).transpose()?.flatten();
    let (at_start, at_end) = (name != "str.strip_chars_end", name != "str.strip_chars_start");
    texts(name, first(args)?, text, move |array| {
        let is_stripped = |c: char| match &chars {
            Some(chars) => chars.contains(c),
            None => c.is_whitespace(),
        };
        Ok(each(array, |text| {
            let text = if at_start { text.trim_start_matches(is_stripped) } else { text };
            Cow::Borrowed(if at_end { text.trim_end_matches(is_stripped) } else { text })
        }))
    })
}

fn strip_affix(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let part = constant_str(name, "argument", &args[1])?.unwrap_or_default();
    let is_start = name == "str.strip_prefix";
    texts(name, first(args)?, text, move |array| {
        Ok(each(array, |text| {
            let rest = if is_start { text.strip_prefix(part.as_str()) } else { text.strip_suffix(part.as_str()) };
            Cow::Borrowed(rest.unwrap_or(text))
        }))
    })
}

/// `slice(offset, length=None)`, `head(n)`, `tail(n)`, in characters; what is negative counts from the end.
fn slice(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let short = name.rsplit('.').next().unwrap_or(name).to_owned();
    let mut args = args.into_iter();
    let Some(arg) = args.next() else { return Err(Error::internal("slice without a string")) };
    let mut all = vec![as_string(name, arg)?];
    for arg in args {
        all.push(as_int64(name, arg)?);
    }
    let kernel = zipped(move |arrays| {
        let texts = arrays[0].as_string::<i32>();
        let number = |at: usize, row: usize| {
            let numbers = arrays.get(at)?.as_primitive::<arrow::datatypes::Int64Type>();
            numbers.is_valid(row).then(|| numbers.value(row))
        };
        let mut result = StringBuilder::with_capacity(texts.len(), texts.value_data().len());
        for row in 0..texts.len() {
            let first = number(1, row);
            if texts.is_null(row) || first.is_none() {
                result.append_null();
                continue;
            }
            let text = texts.value(row);
            let first = first.unwrap_or(0);
            let (start, length) = match short.as_str() {
                "head" => (0, Some(first)),
                "tail" if first >= 0 => (-first, Some(first)),
                // All but the first ones.
                "tail" => (first.saturating_neg(), None),
                _ => (first, number(2, row)),
            };
            result.append_value(part(text, start, length, short == "tail" && first == 0));
        }
        Ok(Arc::new(result.finish()) as ArrayRef)
    });
    Typed::call(kernel, all, DataType::Utf8, text)
}

/// A part of the text, in characters.
fn part(text: &str, start: i64, length: Option<i64>, is_nothing: bool) -> &str {
    if is_nothing {
        return "";
    }
    let count = if text.is_ascii() { text.len() } else { text.chars().count() } as i64;
    let from = if start < 0 { (count + start).max(0) } else { start.min(count) };
    let shift = if start < 0 { (count + start).min(0) } else { 0 };
    let to = match length {
        None => count,
        // `head(-n)` is all but the last ones.
        Some(length) if length < 0 => (count + length).max(from),
        Some(length) => from.saturating_add(length.saturating_add(shift).max(0)).min(count),
    };
    let byte = |place: i64| match text.is_ascii() {
        true => place as usize,
        false => text.char_indices().nth(place as usize).map_or(text.len(), |(at, _)| at),
    };
    &text[byte(from)..byte(to.max(from))]
}

/// `pad_start(length, fill_char=" ")` and `pad_end`; a string that is long enough stays.
fn pad(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let length = width(name, &args[1])?;
    let fill = args.get(2).map(|arg| constant_str(name, "fill character", arg)).transpose()?.flatten();
    let fill = fill.unwrap_or_else(|| " ".to_owned());
    let mut chars = fill.chars();
    let (Some(fill), None) = (chars.next(), chars.next()) else {
        return Err(Error::plan(format!("{name}() fills with one character, found {fill:?}")));
    };
    let at_start = name == "str.pad_start";
    texts(name, first(args)?, text, move |array| {
        Ok(each(array, |text| {
            let missing = length.saturating_sub(text.chars().count());
            if missing == 0 {
                return Cow::Borrowed(text);
            }
            let fill: String = std::iter::repeat_n(fill, missing).collect();
            Cow::Owned(if at_start { fill + text } else { text.to_owned() + &fill })
        }))
    })
}

fn width(name: &str, arg: &Typed) -> Result<usize> {
    match constant_int(name, "length", arg)? {
        Some(length) if (0..=PAD_MAX).contains(&length) => Ok(length as usize),
        Some(found) => Err(Error::plan(format!("{name}() takes a length of 0 to {PAD_MAX}, found {found}"))),
        None => Err(Error::plan(format!("{name}() takes a length of 0 to {PAD_MAX}, found null"))),
    }
}

/// Zeros before the number, after its sign.
fn zfill(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let length = width(name, &args[1])?;
    texts(name, first(args)?, text, move |array| {
        Ok(each(array, |text| {
            let missing = length.saturating_sub(text.chars().count());
            if missing == 0 {
                return Cow::Borrowed(text);
            }
            let (sign, rest) = match text.strip_prefix(['-', '+']) {
                Some(rest) => text.split_at(text.len() - rest.len()),
                None => ("", text),
            };
            Cow::Owned(format!("{sign}{}{rest}", "0".repeat(missing)))
        }))
    })
}

/// `to_integer(base=10, strict=True)`.
fn to_integer(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let base = args.get(1).map(|arg| constant_int(name, "base", arg)).transpose()?.flatten().unwrap_or(10);
    let strict = constant_bool(name, "strict", args.get(2), true)?;
    let Some(base) = u32::try_from(base).ok().filter(|base| (2..=36).contains(base)) else {
        return Err(Error::plan(format!("{name}() takes a base of 2 to 36, found {base}")));
    };
    let arg = as_string(name, first(args)?)?;
    let kernel = mapped(move |array| {
        let texts = array.as_string::<i32>();
        let mut numbers: Vec<Option<i64>> = Vec::with_capacity(texts.len());
        for text in texts {
            let Some(text) = text else {
                numbers.push(None);
                continue;
            };
            match i64::from_str_radix(text, base) {
                Ok(number) => numbers.push(Some(number)),
                Err(_) if !strict => numbers.push(None),
                Err(_) => {
                    return Err(Error::data(format!("{text:?} is no integer in base {base}; strict=False makes it null")));
                }
            }
        }
        Ok(Arc::new(Int64Array::from(numbers)) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Int64, text)
}

/// `concat_str(separator, a, b, …)`; null if any is null.
fn concat_str(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let separator = constant_str(name, "separator", &args[0])?.unwrap_or_default();
    let mut parts = Vec::with_capacity(args.len() - 1);
    for arg in args.into_iter().skip(1) {
        parts.push(match arg.data_type.is_nested() {
            true => return Err(super::arguments::needs(name, "strings, numbers or times", &arg)),
            false => arg.coerce(&DataType::Utf8)?,
        });
    }
    let kernel = zipped(move |arrays| {
        let columns: Vec<&StringArray> = arrays.iter().map(|array| array.as_string::<i32>()).collect();
        let rows = columns[0].len();
        let bytes: usize = columns.iter().map(|column| column.value_data().len() + separator.len() * rows).sum();
        let mut result = StringBuilder::with_capacity(rows, bytes);
        let mut joined = String::new();
        for row in 0..rows {
            if columns.iter().any(|column| column.is_null(row)) {
                result.append_null();
                continue;
            }
            joined.clear();
            for (i, column) in columns.iter().enumerate() {
                if i > 0 {
                    joined.push_str(&separator);
                }
                joined.push_str(column.value(row));
            }
            result.append_value(&joined);
        }
        Ok(Arc::new(result.finish()) as ArrayRef)
    });
    Typed::call(kernel, parts, DataType::Utf8, text)
}

#[cfg(test)]
mod tests;
