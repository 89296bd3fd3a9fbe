//! Functions of strings that hold JSON, and values as such strings.

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringBuilder};
use arrow::datatypes::DataType;
use mill_frame::json::{Kind, Path, check_writable, decode, encode, is_readable, unescape};
use mill_protocol::{Error, Result};

use super::arguments::{as_string, constant_bool, constant_str, first, mapped, needs};
use super::{Function, method};
use crate::compiled::bind::Typed;
use crate::compiled::value::failed;
use crate::types::type_name;

pub(super) const FUNCTIONS: &[Function] = &[
    method("str.json_decode", 2, 3, json_decode).strict_at(2),
    method("str.json_path_match", 2, 3, json_path_match).strict_at(2),
    method("struct.json_encode", 1, 1, json_encode),
];

const HINT: &str = "strict=False makes it null";

/// `json_decode(null of the type, strict=True)`: each text as a value of the type.
fn json_decode(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let data_type = args[1].data_type.clone();
    let strict = constant_bool(name, "strict", args.get(2), true)?;
    if !is_readable(&data_type) {
        return Err(Error::schema(format!("{name}(): {} cannot be read from JSON", mill_frame::words::with_article(type_name(&data_type)))));
    }
    let arg = as_string(name, first(args)?)?;
    let to = data_type.clone();
    let kernel = mapped(move |array| {
        let (column, misfits) = decode(array.as_string::<i32>(), &to).map_err(failed)?;
        match misfits.into_iter().next() {
            Some((_, message)) if strict => Err(Error::data(format!("{message}; {HINT}"))),
            _ => Ok(column),
        }
    });
    Typed::call(kernel, vec![arg], data_type, text)
}

/// `json_path_match(path, strict=True)`: the value at a place of each text, as text.
fn json_path_match(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let path = constant_str(name, "path", &args[1])?.unwrap_or_default();
    let path = Path::new(&path).map_err(|why| {
        Error::plan(format!("{name}(): {path:?} is no path to a value, such as \"$.user.tags[0]\": {why}"))
    })?;
    let strict = constant_bool(name, "strict", args.get(2), true)?;
    let arg = as_string(name, first(args)?)?;
    let kernel = mapped(move |array| {
        let texts = array.as_string::<i32>();
        let mut result = StringBuilder::with_capacity(texts.len(), texts.value_data().len() / 4);
        let mut plain = Vec::new();
        for text in texts {
            let found = match text.map(|text| (text, path.find(text.as_bytes()))) {
                Some((text, Ok(Some(value)))) => Some((text, value)),
                Some((text, Err(fault))) if strict => {
                    return Err(Error::data(format!("{}; {HINT}", fault.message_of("text", "value", text.as_bytes(), 0))));
                }
                _ => None,
            };
            match found {
                None => result.append_null(),
                Some((text, value)) if value.kind == Kind::Escaped => {
                    plain.clear();
                    unescape(value.bytes(text.as_bytes()), &mut plain);
                    result.append_value(std::str::from_utf8(&plain).map_err(|e| Error::internal("a part of text is text").because(e))?);
                }
                Some((text, value)) => result.append_value(&text[value.start as usize..value.end as usize]),
            }
        }
        Ok(Arc::new(result.finish()) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Utf8, text)
}

/// `json_encode()`: each struct as an object.
fn json_encode(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let arg = first(args)?;
    if !matches!(arg.data_type, DataType::Struct(_) | DataType::Map(..)) {
        return Err(needs(name, "a struct", &arg));
    }
    if let Err(error) = check_writable(&arg.data_type) {
        return Err(needs(name, &format!("a struct of values that JSON has a form for ({error})"), &arg));
    }
    Typed::call(mapped(|array| Ok(Arc::new(encode(array).map_err(failed)?) as _)), vec![arg], DataType::Utf8, text)
}
