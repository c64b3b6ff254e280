//! Text functions.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray};
use datafusion::common::exec_err;
use datafusion::error::Result;

use crate::function::{Args, Function, returns_boolean, returns_long, returns_text};

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new("strlen", (1, 1), returns_long, length).alias(&[
            "length",
            "char_length",
            "character_length",
        ]),
        Function::new("textcat", (2, 2), returns_text, textcat),
        Function::new("contains_string", (2, 2), returns_boolean, |args| {
            contains(args, false)
        }),
        Function::new("icontains_string", (2, 2), returns_boolean, |args| {
            contains(args, true)
        }),
        Function::new("regexp_extract", (2, 3), returns_text, regexp_extract),
        Function::new("string_format", (1, 32), returns_text, string_format),
        Function::new("parse_long", (1, 2), returns_long, parse_long),
    ]
}

fn length(args: &Args) -> Result<ArrayRef> {
    let lengths: Int64Array = args
        .text(0)?
        .iter()
        .map(|text| text.map(|text| text.encode_utf16().count() as i64))
        .collect();
    Ok(Arc::new(lengths))
}

fn textcat(args: &Args) -> Result<ArrayRef> {
    let (left, right) = (args.text(0)?, args.text(1)?);
    let joined: StringArray = left
        .iter()
        .zip(right.iter())
        .map(|(left, right)| Some(format!("{}{}", left?, right?)))
        .collect();
    Ok(Arc::new(joined))
}

fn contains(args: &Args, ignore_case: bool) -> Result<ArrayRef> {
    let Some(part) = args.literal(1)? else {
        return Ok(Arc::new(BooleanArray::new_null(args.rows)));
    };
    let part = if ignore_case { part.to_lowercase() } else { part };
    let found: BooleanArray = args
        .text(0)?
        .iter()
        .map(|text| {
            text.map(|text| {
                if ignore_case {
                    text.to_lowercase().contains(&part)
                } else {
                    text.contains(&part)
                }
            })
        })
        .collect();
    Ok(Arc::new(found))
}

fn regexp_extract(args: &Args) -> Result<ArrayRef> {
    let pattern = args.required(1)?;
    let group = match args.literal(2)? {
        None => 0,
        Some(text) => match text.parse::<usize>() {
            Ok(group) => group,
            Err(_) => return exec_err!("[{text}] is not a group of REGEXP_EXTRACT"),
        },
    };
    let regex = match regex::Regex::new(&pattern) {
        Ok(regex) => regex,
        Err(error) => return exec_err!("[{pattern}] is not a regular expression: {error}"),
    };
    let found: StringArray = args
        .text(0)?
        .iter()
        .map(|text| Some(regex.captures(text?)?.get(group)?.as_str().to_owned()))
        .collect();
    Ok(Arc::new(found))
}

/// `%s`, `%d`, `%05d`, `%.2f`, `%x`, `%%`.
fn string_format(args: &Args) -> Result<ArrayRef> {
    let pattern = args.text(0)?;
    let values = (1..args.len())
        .map(|index| args.text(index))
        .collect::<Result<Vec<_>>>()?;
    let mut out: Vec<Option<String>> = Vec::with_capacity(args.rows);
    for (row, pattern) in pattern.iter().enumerate() {
        let values: Vec<Option<&str>> = values
            .iter()
            .map(|column| column.iter().nth(row).flatten())
            .collect();
        out.push(match pattern {
            Some(pattern) => Some(format_one(pattern, &values)?),
            None => None,
        });
    }
    Ok(Arc::new(StringArray::from(out)))
}

fn format_one(pattern: &str, values: &[Option<&str>]) -> Result<String> {
    let mut out = String::new();
    let mut next = 0;
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(end) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '%') else {
            return exec_err!("STRING_FORMAT: [{pattern}] ends inside a placeholder");
        };
        let (flags, kind) = (&rest[..end], rest[end..].chars().next().unwrap_or('%'));
        rest = &rest[end + 1..];
        if kind == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = values.get(next) else {
            return exec_err!("STRING_FORMAT: [{pattern}] has more placeholders than values");
        };
        next += 1;
        let (width, precision) = match flags.split_once('.') {
            Some((width, precision)) => (width, precision.parse::<usize>().ok()),
            None => (flags, None),
        };
        let text = match (kind, value) {
            (_, None) => "null".to_owned(),
            ('f', Some(value)) => format!(
                "{:.*}",
                precision.unwrap_or(6),
                value.parse::<f64>().unwrap_or(f64::NAN)
            ),
            ('x', Some(value)) => format!("{:x}", value.parse::<i64>().unwrap_or(0)),
            (_, Some(value)) => (*value).to_owned(),
        };
        let left = width.starts_with('-');
        let zeros = width.starts_with('0');
        let length = width.trim_start_matches(['-', '0']).parse::<usize>().unwrap_or(0);
        out.push_str(&match (left, zeros) {
            (true, _) => format!("{text:<length$}"),
            (false, true) => format!("{text:0>length$}"),
            (false, false) => format!("{text:>length$}"),
        });
    }
    out.push_str(rest);
    Ok(out)
}

fn parse_long(args: &Args) -> Result<ArrayRef> {
    let radix = match args.literal(1)? {
        None => 10,
        Some(text) => match text.parse::<u32>() {
            Ok(radix) if (2..=36).contains(&radix) => radix,
            _ => return exec_err!("PARSE_LONG: the radix must be between 2 and 36, not [{text}]"),
        },
    };
    let parse = |text: &str| {
        let digits = if radix == 16 {
            text.trim_start_matches("0x").trim_start_matches("0X")
        } else {
            text
        };
        i64::from_str_radix(digits, radix).ok()
    };
    let numbers: Int64Array = args.text(0)?.iter().map(|text| parse(text?)).collect();
    Ok(Arc::new(numbers))
}
