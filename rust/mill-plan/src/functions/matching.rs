//! Functions of strings that look for something in them.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListBuilder, StringArray, StringBuilder, StructArray,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::comparison;
use arrow::datatypes::{DataType, Field, Fields};
use memchr::memmem::Finder;
use mill_protocol::{Error, Result};
use regex::Regex;

use super::arguments::{as_string, constant_bool, constant_int, constant_str, first, mapped, zipped};
use super::words::{self, ByteClass, extract_all};
use super::{Function, method};
use crate::compiled::bind::Typed;
use crate::compiled::value::failed;

pub(super) const FUNCTIONS: &[Function] = &[
    method("str.contains", 2, 3, contains),
    method("str.starts_with", 2, 2, affix),
    method("str.ends_with", 2, 2, affix),
    method("str.find", 2, 3, find),
    method("str.count_matches", 2, 3, count_matches),
    method("str.replace", 3, 4, replace),
    method("str.replace_all", 3, 4, replace),
    method("str.extract", 2, 3, extract),
    method("str.extract_groups", 2, 2, extract_groups),
    method("str.extract_all", 2, 2, bind_extract_all),
    method("str.split", 2, 2, split),
];

/// How large a compiled pattern may be.
const PATTERN_BYTES_MAX: usize = 10 << 20;

/// What is looked for.
enum Needle {
    Text(Finder<'static>),
    Pattern(Regex),
}

impl Needle {
    /// From the arguments `pattern, literal=False`.
    fn new(name: &str, args: &[Typed], literal: Option<&Typed>) -> Result<Option<Needle>> {
        let Some(pattern) = constant_str(name, "pattern", &args[1])? else { return Ok(None) };
        // A pattern without special characters is looked for as it is; the empty one matches between characters, not bytes.
        let is_literal = constant_bool(name, "literal", literal, false)? || regex::escape(&pattern) == pattern;
        let is_literal = is_literal && !pattern.is_empty();
        Ok(Some(match is_literal {
            true => Needle::Text(Finder::new(pattern.as_bytes()).into_owned()),
            false => Needle::Pattern(compile(name, &pattern)?),
        }))
    }
}

fn compile(name: &str, pattern: &str) -> Result<Regex> {
    regex::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build().map_err(|error| {
        let hint = if ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|look| pattern.contains(look)) {
            "; look-around is not supported"
        } else {
            ""
        };
        Error::plan(format!("{name}(): the pattern {pattern:?} is no regular expression: {error}{hint}"))
    })
}

/// A result of nulls, for a pattern that is null.
fn nulls(arg: Typed, data_type: DataType, text: &Arc<str>) -> Result<Typed> {
    let to = data_type.clone();
    Typed::call(mapped(move |array| Ok(arrow::array::new_null_array(&to, array.len()))), vec![arg], data_type, text)
}

fn contains(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let needle = Needle::new(name, &args, args.get(2))?;
    let arg = as_string(name, first(args)?)?;
    let Some(needle) = needle else { return nulls(arg, DataType::Boolean, text) };
    let kernel = mapped(move |array| {
        let texts = array.as_string::<i32>();
        let found = match &needle {
            Needle::Text(finder) => collect(texts, |text| finder.find(text.as_bytes()).is_some()),
            Needle::Pattern(pattern) => collect(texts, |text| pattern.is_match(text)),
        };
        Ok(Arc::new(found) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Boolean, text)
}

/// One truth value a string, null for null.
fn collect(texts: &StringArray, f: impl Fn(&str) -> bool) -> BooleanArray {
    let found = BooleanBuffer::collect_bool(texts.len(), |row| f(texts.value(row)));
    BooleanArray::new(found, texts.nulls().cloned())
}

fn affix(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let args = args.into_iter().map(|arg| as_string(name, arg)).collect::<Result<Vec<_>>>()?;
    let is_start = name == "str.starts_with";
    if let Some(part) = args[1].constant.is_some().then(|| constant_str(name, "argument", &args[1])).transpose()?.flatten() {
        let kernel = mapped(move |array| {
            let texts = array.as_string::<i32>();
            Ok(Arc::new(match is_start {
                true => collect(texts, |text| text.as_bytes().starts_with(part.as_bytes())),
                false => collect(texts, |text| text.as_bytes().ends_with(part.as_bytes())),
            }) as _)
        });
        return Typed::call(kernel, vec![first(args)?], DataType::Boolean, text);
    }
    let kernel = zipped(move |arrays| {
        let result = match is_start {
            true => comparison::starts_with(&arrays[0], &arrays[1]),
            false => comparison::ends_with(&arrays[0], &arrays[1]),
        };
        Ok(Arc::new(result.map_err(failed)?) as _)
    });
    Typed::call(kernel, args, DataType::Boolean, text)
}

/// Where the first match begins, in bytes; null if there is none.
fn find(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let needle = Needle::new(name, &args, args.get(2))?;
    let arg = as_string(name, first(args)?)?;
    let Some(needle) = needle else { return nulls(arg, DataType::Int64, text) };
    let kernel = mapped(move |array| {
        let place = |text: &str| match &needle {
            Needle::Text(finder) => finder.find(text.as_bytes()),
            Needle::Pattern(pattern) => pattern.find(text).map(|found| found.start()),
        };
        let texts = array.as_string::<i32>().iter();
        Ok(Arc::new(texts.map(|text| place(text?).map(|at| at as i64)).collect::<Int64Array>()) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Int64, text)
}

fn count_matches(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let needle = Needle::new(name, &args, args.get(2))?;
    let arg = as_string(name, first(args)?)?;
    let Some(needle) = needle else { return nulls(arg, DataType::Int64, text) };
    let kernel = mapped(move |array| {
        let count = |text: &str| match &needle {
            Needle::Text(finder) => finder.find_iter(text.as_bytes()).count(),
            Needle::Pattern(pattern) => pattern.find_iter(text).count(),
        };
        let texts = array.as_string::<i32>().iter();
        Ok(Arc::new(texts.map(|text| Some(count(text?) as i64)).collect::<Int64Array>()) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Int64, text)
}

/// `replace(pattern, value, literal=False)`; `$1` in the value stands for a group.
fn replace(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let is_all = name == "str.replace_all";
    let literal = constant_bool(name, "literal", args.get(3), false)?;
    let pattern = constant_str(name, "pattern", &args[1])?;
    let value = constant_str(name, "value", &args[2])?;
    let arg = as_string(name, first(args)?)?;
    let (Some(pattern), Some(value)) = (pattern, value) else { return nulls(arg, DataType::Utf8, text) };
    let limit = if is_all { 0 } else { 1 };
    let is_plain = literal || (regex::escape(&pattern) == pattern && !value.contains('$'));
    let regex = if is_plain { compile(name, &regex::escape(&pattern))? } else { compile(name, &pattern)? };
    let kernel = mapped(move |array| {
        let texts = array.as_string::<i32>();
        let mut result = StringBuilder::with_capacity(texts.len(), texts.value_data().len());
        for text in texts {
            result.append_option(text.map(|text| match is_plain {
                true => regex.replacen(text, limit, regex::NoExpand(&value)),
                false => regex.replacen(text, limit, value.as_str()),
            }));
        }
        Ok(Arc::new(result.finish()) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Utf8, text)
}

/// `extract(pattern, group_index=1)`: a group of the first match.
fn extract(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let pattern = constant_str(name, "pattern", &args[1])?;
    let group = args.get(2).map(|arg| constant_int(name, "group", arg)).transpose()?.flatten().unwrap_or(1);
    let arg = as_string(name, first(args)?)?;
    let Some(pattern) = pattern else { return nulls(arg, DataType::Utf8, text) };
    let regex = compile(name, &pattern)?;
    let groups = regex.captures_len() - 1;
    let Some(group) = usize::try_from(group).ok().filter(|&group| group <= groups) else {
        return Err(Error::plan(format!(
            "{name}(): the pattern {pattern:?} has {groups} groups, and group {group} was asked for; put what you want \
             in brackets (…), or ask for group 0, the whole match"
        )));
    };
    let kernel = mapped(move |array| {
        let texts = array.as_string::<i32>();
        let mut places = regex.capture_locations();
        let mut result = StringBuilder::with_capacity(texts.len(), texts.value_data().len() / 2);
        for text in texts {
            let found = text.and_then(|text| {
                regex.captures_read(&mut places, text)?;
                let (start, end) = places.get(group)?;
                Some(&text[start..end])
            });
            result.append_option(found);
        }
        Ok(Arc::new(result.finish()) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Utf8, text)
}

/// `extract_groups(pattern)`: all groups of the first match as a struct; those without a name are called by their numbers.
fn extract_groups(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let Some(pattern) = constant_str(name, "pattern", &args[1])? else {
        return Err(Error::plan(format!("{name}() needs a pattern, which says what fields the result has; found null")));
    };
    let arg = as_string(name, first(args)?)?;
    let regex = compile(name, &pattern)?;
    let names = regex.capture_names().enumerate().skip(1);
    let names: Vec<String> = names.map(|(group, name)| name.map_or_else(|| group.to_string(), str::to_owned)).collect();
    if names.is_empty() {
        return Err(Error::plan(format!(
            "{name}(): the pattern {pattern:?} has no groups; put what you want in brackets, as in (?<name>…)"
        )));
    }
    let fields: Fields = names.into_iter().map(|name| Field::new(name, DataType::Utf8, true)).collect();
    let data_type = DataType::Struct(fields.clone());
    let kernel = mapped(move |array| {
        let texts = array.as_string::<i32>();
        let mut places = regex.capture_locations();
        let bytes = texts.value_data().len() / (2 * fields.len());
        let mut columns: Vec<_> = fields.iter().map(|_| StringBuilder::with_capacity(texts.len(), bytes)).collect();
        for text in texts {
            let found = text.filter(|text| regex.captures_read(&mut places, text).is_some());
            for (group, column) in columns.iter_mut().enumerate() {
                let place = found.and_then(|text| places.get(group + 1).map(|(start, end)| &text[start..end]));
                column.append_option(place);
            }
        }
        let columns = columns.into_iter().map(|mut column| Arc::new(column.finish()) as ArrayRef).collect();
        let result = StructArray::try_new(fields.clone(), columns, texts.nulls().cloned()).map_err(failed)?;
        Ok(Arc::new(result) as _)
    });
    Typed::call(kernel, vec![arg], data_type, text)
}

fn bind_extract_all(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let pattern = constant_str(name, "pattern", &args[1])?;
    let arg = as_string(name, first(args)?)?;
    let list = DataType::new_list(DataType::Utf8, true);
    let Some(pattern) = pattern else { return nulls(arg, list, text) };
    let regex = compile(name, &pattern)?;
    let class = ByteClass::of_pattern(&pattern);
    let kernel = mapped(move |array| extract_all(array.as_string::<i32>(), class.as_ref(), &regex));
    Typed::call(kernel, vec![arg], list, text)
}

/// Parts between a separator; with an empty one, the characters.
fn split(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let args = args.into_iter().map(|arg| as_string(name, arg)).collect::<Result<Vec<_>>>()?;
    let list = DataType::new_list(DataType::Utf8, true);
    let separator = args[1].constant.is_some().then(|| constant_str(name, "separator", &args[1])).transpose()?.flatten();
    if let Some(separator) = separator.filter(|separator| !separator.is_empty()) {
        let kernel = mapped(move |array| words::split(array.as_string::<i32>(), &separator));
        return Typed::call(kernel, vec![first(args)?], list, text);
    }
    let kernel = zipped(|arrays| {
        let (texts, separators) = (arrays[0].as_string::<i32>(), arrays[1].as_string::<i32>());
        let values = StringBuilder::with_capacity(texts.len() * 4, texts.value_data().len());
        let mut result = ListBuilder::with_capacity(values, texts.len());
        for (text, separator) in texts.iter().zip(separators) {
            let (Some(text), Some(separator)) = (text, separator) else {
                result.append(false);
                continue;
            };
            if separator.is_empty() {
                let mut buffer = [0; 4];
                text.chars().for_each(|c| result.values().append_value(c.encode_utf8(&mut buffer)));
            } else {
                text.split(separator).for_each(|part| result.values().append_value(part));
            }
            result.append(true);
        }
        Ok(Arc::new(result.finish()) as ArrayRef)
    });
    Typed::call(kernel, args, list, text)
}

/// Builds strings one by one from strings one by one.
pub(super) fn each(texts: &StringArray, f: impl for<'a> Fn(&'a str) -> Cow<'a, str>) -> ArrayRef {
    let mut result = StringBuilder::with_capacity(texts.len(), texts.value_data().len());
    for text in texts {
        result.append_option(text.map(&f));
    }
    Arc::new(result.finish())
}
