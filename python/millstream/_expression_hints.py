"""What other libraries call the functions of expressions, and what they are called here."""

from __future__ import annotations

__all__ = ["NAMESPACES", "OF_DATES", "OF_EXPR", "OF_LISTS", "OF_MAPS", "OF_STRUCTS", "OF_TEXTS"]

NAMESPACES = {
    "str": "StringNamespace",
    "dt": "DateTimeNamespace",
    "list": "ListNamespace",
    "struct": "StructNamespace",
    "map": "MapNamespace",
}
"""The attributes of an expression that have functions of their own, and their classes."""

_OPERATORS = {
    "+": ("add",),
    "-": ("sub", "subtract"),
    "*": ("mul", "multiply"),
    "/": ("truediv", "div", "divide"),
    "//": ("floordiv", "floor_div"),
    "%": ("mod",),
    "**": ("pow", "power"),
    "==": ("eq", "equals"),
    "!=": ("ne", "ne_missing", "not_equals"),
    "<": ("lt",),
    "<=": ("le",),
    ">": ("gt",),
    ">=": ("ge",),
    "&": ("and_",),
    "|": ("or_",),
    "^": ("xor",),
}
_JOIN = 'use str.join(), as in col("name").str.join(", ")'
_JSON_PATH = 'use str.json_path_match(), as in col("doc").str.json_path_match("$.user.name")'
_JSON_ENCODE = 'use struct.json_encode(), as in col("s").struct.json_encode()'
_IN_ORDER = 'rows come in an order within their key, which is a step: key_by("k").'
_ROLLING = 'it is a step: event_time("at").key_by("k").rolling("10m").agg(…)'
_RUNNING = 'it is a step: key_by("k").agg(total=col("x").sum(), emit="each")'
_UDF = "use @mill.udf for a function of values, or Stream.map_batches() for one of whole batches"
_SORTED = "a stream is not sorted; use key_by(…).top_n(), or collect().sort(…)"
_CONDITION = 'use mill.when(condition).then("a").otherwise("b")'

OF_EXPR = {
    **{name: f"use the operator {operator}" for operator, names in _OPERATORS.items() for name in names},
    **dict.fromkeys(("not_", "invert"), "use the operator ~"),
    "neg": "use the operator -",
    **dict.fromkeys(("arg_min", "argmin", "idxmin"), 'use min_by(), as in col("name").min_by("price")'),
    **dict.fromkeys(("arg_max", "argmax", "idxmax"), 'use max_by(), as in col("name").max_by("price")'),
    **dict.fromkeys(("string_agg", "group_concat", "listagg", "str_join", "str_concat"), _JOIN),
    **dict.fromkeys(("json_path", "json_extract", "json_extract_string", "get_json_object", "json_value"), _JSON_PATH),
    **dict.fromkeys(("json_parse", "from_json"), "use str.json_decode()"),
    "to_json": _JSON_ENCODE,
    **dict.fromkeys(("isnull", "isna"), "use is_null()"),
    **dict.fromkeys(("notnull", "notna", "is_not_none"), "use is_not_null()"),
    **dict.fromkeys(("fillna", "ifnull", "nvl", "coalesce"), "use fill_null(), or mill.coalesce() of several columns"),
    **dict.fromkeys(("astype", "try_cast"), "use cast()"),
    **dict.fromkeys(("rename", "name", "as_", "label"), "use alias(), or the name of an argument: select(total=…)"),
    **dict.fromkeys(("avg", "average"), "use mean()"),
    **dict.fromkeys(("nunique", "count_distinct"), "use n_unique(), or approx_n_unique()"),
    **dict.fromkeys(("approx_count_distinct", "approx_distinct"), "use approx_n_unique()"),
    **dict.fromkeys(("stddev", "stddev_samp"), "use std()"),
    **dict.fromkeys(("variance", "var_samp"), "use var()"),
    **dict.fromkeys(("percentile", "percentile_cont"), "use quantile(), or approx_quantile()"),
    "approx_percentile": "use approx_quantile()",
    **dict.fromkeys(("array_agg", "collect_list", "implode"), "use collect()"),
    **dict.fromkeys(("first_value", "any_value"), "use first()"),
    "last_value": "use last()",
    **dict.fromkeys(("isin", "in_"), "use is_in()"),
    "between": "use is_between()",
    **dict.fromkeys(("ln", "log2"), "use log(), or log(2) for base 2"),
    "asin": "use arcsin()",
    "acos": "use arccos()",
    "atan": "use arctan()",
    **dict.fromkeys(("shift", "lag", "lead"), f'{_IN_ORDER}shift(before="x")'),
    **dict.fromkeys(("diff", "pct_change"), f'{_IN_ORDER}diff(change="x")'),
    **dict.fromkeys(("cum_sum", "cumsum", "cum_count", "cum_max", "cum_min"), _RUNNING),
    "over": 'it is a step: key_by("k").agg(…), or key_by("k").rolling("10m").agg(…)',
    **{f"rolling_{name}": _ROLLING for name in ("sum", "mean", "min", "max", "std", "var", "median", "quantile")},
    **dict.fromkeys(("map_elements", "map_batches", "apply"), _UDF),
    **dict.fromkeys(("sort", "sort_by", "rank", "top_k"), _SORTED),
    **dict.fromkeys(("explode", "flatten"), 'it is a step: stream.explode("items")'),
    "unnest": 'it is a step: stream.unnest("s")',
    **dict.fromkeys(("unique", "distinct"), 'it is a step: key_by("id").deduplicate()'),
    "value_counts": 'it is a step: key_by("x").agg(n=mill.count())',
    **dict.fromkeys(("when", "where", "if_else", "case"), _CONDITION),
    **dict.fromkeys(("lower", "to_lower"), "use str.to_lowercase()"),
    **dict.fromkeys(("upper", "to_upper"), "use str.to_uppercase()"),
    **dict.fromkeys(("strip", "trim"), "use str.strip_chars()"),
    "startswith": "use str.starts_with()",
    "endswith": "use str.ends_with()",
    **dict.fromkeys(("length", "len"), "use str.len_chars() of a text, list.len() of a list, or count() for the number of records"),
    **dict.fromkeys(("substr", "substring"), "use str.slice()"),
    **dict.fromkeys(("concat", "concat_ws"), "use mill.concat_str(), or + of two texts"),
    **dict.fromkeys(("like", "ilike", "rlike"), "use str.contains() with a regular expression"),
    **dict.fromkeys(("to_string", "to_str"), "use cast(str), or dt.strftime() for a time in a format"),
    **dict.fromkeys(("date_trunc", "dt_trunc"), "use dt.truncate()"),
    "getField": 'use struct.field("name")',
    "getItem": "use list.get(0), map.get(key) or struct.field(name)",
}

OF_TEXTS = {
    **dict.fromkeys(("lower", "to_lower"), "use to_lowercase()"),
    **dict.fromkeys(("upper", "to_upper"), "use to_uppercase()"),
    **dict.fromkeys(("title", "capitalize", "initcap"), "use to_titlecase()"),
    **dict.fromkeys(("strip", "trim"), "use strip_chars()"),
    **dict.fromkeys(("lstrip", "ltrim"), "use strip_chars_start()"),
    **dict.fromkeys(("rstrip", "rtrim"), "use strip_chars_end()"),
    "removeprefix": "use strip_prefix()",
    "removesuffix": "use strip_suffix()",
    **dict.fromkeys(("len", "length", "n_chars"), "use len_chars(), or len_bytes()"),
    "startswith": "use starts_with()",
    "endswith": "use ends_with()",
    **dict.fromkeys(("substr", "substring", "sub"), "use slice()"),
    **dict.fromkeys(("match", "regexp_matches", "like", "contains_any"), "use contains() with a regular expression"),
    **dict.fromkeys(("regexp_extract", "re_extract"), "use extract()"),
    **dict.fromkeys(("findall", "find_all"), "use extract_all()"),
    **dict.fromkeys(("regexp_replace", "replace_many"), "use replace_all()"),
    **dict.fromkeys(("index", "position", "strpos"), "use find()"),
    **dict.fromkeys(("rjust", "lpad"), "use pad_start()"),
    **dict.fromkeys(("ljust", "rpad"), "use pad_end()"),
    **dict.fromkeys(("to_int", "parse_int"), "use to_integer()"),
    **dict.fromkeys(("strptime", "to_timestamp"), "use to_datetime(), or to_date()"),
    **dict.fromkeys(("json_path", "json_extract", "get_json_object", "json_value"), 'use json_path_match(), as in json_path_match("$.user.name")'),
    **dict.fromkeys(("json_parse", "from_json"), "use json_decode()"),
    **dict.fromkeys(("string_agg", "group_concat", "listagg", "agg"), 'use join(), as in col("name").str.join(", ")'),
    **dict.fromkeys(("concat", "cat", "concat_ws"), "use mill.concat_str(), or + of two texts; join() puts the texts of all records together"),
    **dict.fromkeys(("split_exact", "splitn", "split_part"), "use split(), and list.get() of the result"),
    "count": "use count_matches()",
}

OF_DATES = {
    **dict.fromkeys(("to_string", "format", "date_format"), 'use strftime(), as in strftime("%Y-%m-%d")'),
    **dict.fromkeys(("month_name", "day_name"), 'use strftime("%B") for the month, strftime("%A") for the day'),
    **dict.fromkeys(("strptime", "to_datetime"), "it is a function of a text: str.to_datetime()"),
    **dict.fromkeys(("dayofweek", "day_of_week"), "use weekday()"),
    **dict.fromkeys(("dayofyear", "day_of_year"), "use ordinal_day()"),
    **dict.fromkeys(("weekofyear", "isocalendar"), "use week(), and iso_year()"),
    **dict.fromkeys(("trunc", "date_trunc", "floor"), 'use truncate(), as in truncate("1h")'),
    **dict.fromkeys(("timestamp", "unix_timestamp", "to_unix"), "use epoch()"),
    "tz_convert": "use convert_time_zone()",
    "tz_localize": "use replace_time_zone()",
    "add": "use + with a timedelta, or offset_by()",
    **dict.fromkeys(("last_day", "eomonth"), "use month_end()"),
    **{name: f"use total_{name}()" for name in ("days", "hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds")},
}

OF_LISTS = {
    **dict.fromkeys(("length", "size", "count"), "use len()"),
    **dict.fromkeys(("arr_contains", "includes"), "use contains()"),
    **dict.fromkeys(("filter", "map", "apply", "transform"), "use eval(), as in eval(mill.element() * 2)"),
    **dict.fromkeys(("item", "nth", "getItem"), "use get()"),
    "distinct": "use unique()",
    "n_unique": "use unique(), and list.len() of the result",
    **dict.fromkeys(("explode", "unnest", "flatten"), 'it is a step: stream.explode("items")'),
    "concat": "use mill.concat_list()",
    "intersect": "use set_intersection()",
    "union": "use set_union()",
    "sort_values": "use sort()",
}

OF_MAPS = {
    **dict.fromkeys(("has_key", "contains", "has"), "use contains_key()"),
    **dict.fromkeys(("length", "size", "cardinality"), "use len()"),
    **dict.fromkeys(("element_at", "getItem"), "use get()"),
    **dict.fromkeys(("map_keys",), "use keys()"),
    **dict.fromkeys(("map_values",), "use values()"),
}

OF_STRUCTS = {
    **dict.fromkeys(("get", "getField", "get_field"), 'use field(), as in col("s").struct.field("name")'),
    **dict.fromkeys(("to_json", "json", "encode"), "use json_encode()"),
    **dict.fromkeys(("unnest", "explode", "fields"), 'it is a step: stream.unnest("s")'),
}
