//! Text functions. Lengths and places count UTF-16 units.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, StringArray, StringBuilder};
use arrow::datatypes::DataType;
use base64::Engine as _;
use datafusion::common::ScalarValue;
use datafusion::error::Result;

use crate::function::{Args, Call, Function, returns_boolean, returns_long, returns_text, scalar_text};
use crate::text;

pub(crate) fn functions() -> Vec<Function> {
    let all = usize::MAX;
    vec![
        Function::new("concat", (1, all), returns_text, concat).maps(),
        Function::new("textcat", (2, 2), returns_text, concat).maps(),
        Function::new("contains_string", (2, 2), returns_boolean, |args| {
            contains(args, false)
        })
        .literals(&[1])
        .maps(),
        Function::new("icontains_string", (2, 2), returns_boolean, |args| {
            contains(args, true)
        })
        .literals(&[1])
        .maps(),
        Function::new("decode_base64_utf8", (1, 1), returns_text, decode_base64).maps(),
        Function::new("left", (2, 2), returns_text, |args| side(args, true)).maps(),
        Function::new("right", (2, 2), returns_text, |args| side(args, false)).maps(),
        Function::new("strlen", (1, 1), returns_integer, length)
            .alias(&["length", "char_length", "character_length"])
            .maps(),
        Function::new("lookup", (2, 3), returns_text, no_lookup).check(check_lookup),
        Function::new("lower", (1, 1), returns_text, |args| {
            each(args, |text, out| out.push_str(&text.to_lowercase()))
        })
        .maps(),
        Function::new("upper", (1, 1), returns_text, |args| {
            each(args, |text, out| out.push_str(&text.to_uppercase()))
        })
        .maps(),
        Function::new("lpad", (2, 3), returns_text, |args| pad(args, true)).maps(),
        Function::new("rpad", (2, 3), returns_text, |args| pad(args, false)).maps(),
        Function::new("parse_long", (1, 2), returns_long, parse_long).maps(),
        Function::new("strpos", (2, 2), returns_integer, position).maps(),
        Function::new("position", (2, 3), returns_integer, position).maps(),
        Function::new("replace", (3, 3), returns_text, replace).maps(),
        Function::new("repeat", (2, 2), returns_text, repeat).maps(),
        Function::new("reverse", (1, 1), returns_text, |args| {
            each(args, |text, out| out.extend(text.chars().rev()))
        })
        .maps(),
        Function::new("substring", (2, 3), returns_text, substring)
            .alias(&["substr"])
            .maps(),
        Function::new("btrim", (1, 2), returns_text, |args| trim(args, true, true)).maps(),
        Function::new("ltrim", (1, 2), returns_text, |args| trim(args, true, false)).maps(),
        Function::new("rtrim", (1, 2), returns_text, |args| trim(args, false, true)).maps(),
    ]
}

pub(crate) fn returns_integer(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Int32)
}

/// Counts as INTEGER.
pub(crate) fn integers(values: impl Iterator<Item = Option<usize>>) -> ArrayRef {
    Arc::new(
        values
            .map(|value| value.map(|value| i32::try_from(value).unwrap_or(i32::MAX)))
            .collect::<arrow::array::Int32Array>(),
    )
}

/// Each text by a function that writes into a common buffer.
fn each(args: &Args, write: impl Fn(&str, &mut String)) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    let mut builder = StringBuilder::with_capacity(texts.len(), texts.value_data().len());
    let mut buffer = String::new();
    for text in &texts {
        match text {
            Some(text) => {
                buffer.clear();
                write(text, &mut buffer);
                builder.append_value(&buffer);
            }
            None => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn concat(args: &Args) -> Result<ArrayRef> {
    let columns = (0..args.len())
        .map(|index| args.text(index))
        .collect::<Result<Vec<_>>>()?;
    let mut builder = StringBuilder::new();
    let mut buffer = String::new();
    for row in 0..args.rows {
        if columns.iter().any(|column| column.is_null(row)) {
            builder.append_null();
            continue;
        }
        buffer.clear();
        for column in &columns {
            buffer.push_str(column.value(row));
        }
        builder.append_value(&buffer);
    }
    Ok(Arc::new(builder.finish()))
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

fn decode_base64(args: &Args) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    let mut builder = StringBuilder::new();
    for text in &texts {
        let Some(text) = text else {
            builder.append_null();
            continue;
        };
        let trimmed = text.trim_end_matches('=');
        match base64::engine::general_purpose::STANDARD_NO_PAD.decode(trimmed) {
            Ok(bytes) => builder.append_value(String::from_utf8_lossy(&bytes)),
            Err(_) => return args.wrong(format!("cannot decode [{text}]: it is no base64 text")),
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn side(args: &Args, left: bool) -> Result<ArrayRef> {
    let (texts, counts) = (args.text(0)?, args.long(1)?);
    let mut builder = StringBuilder::new();
    for (text, count) in texts.iter().zip(counts.iter()) {
        let (Some(text), Some(count)) = (text, count) else {
            builder.append_null();
            continue;
        };
        let Ok(count) = usize::try_from(count) else {
            return args.wrong("needs a positive integer as the second argument");
        };
        let length = text::units(text);
        builder.append_value(if count >= length {
            text.into()
        } else if left {
            text::slice(text, 0, count)
        } else {
            text::slice(text, length - count, length)
        });
    }
    Ok(Arc::new(builder.finish()))
}

fn length(args: &Args) -> Result<ArrayRef> {
    Ok(integers(args.text(0)?.iter().map(|text| text.map(text::units))))
}

/// There are no lookups here, so none of any name.
fn check_lookup(_: &Call, literals: &[Option<&ScalarValue>]) -> Result<()> {
    let name = literals.get(1).copied().flatten().and_then(scalar_text);
    datafusion::common::plan_err!("Lookup [{}] not found", name.unwrap_or_default())
}

fn no_lookup(args: &Args) -> Result<ArrayRef> {
    args.wrong("lookup not found")
}

fn pad(args: &Args, left: bool) -> Result<ArrayRef> {
    let (texts, lengths) = (args.text(0)?, args.long(1)?);
    let pads = (args.len() > 2).then(|| args.text(2)).transpose()?;
    let mut builder = StringBuilder::new();
    for (row, (text, length)) in texts.iter().zip(lengths.iter()).enumerate() {
        let pad = match &pads {
            None => Some(" "),
            Some(pads) => pads.is_valid(row).then(|| pads.value(row)),
        };
        let (Some(text), Some(length), Some(pad)) = (text, length, pad) else {
            builder.append_null();
            continue;
        };
        if length == 0 {
            builder.append_null();
            continue;
        }
        let Ok(length) = usize::try_from(length) else {
            builder.append_value("");
            continue;
        };
        if length > 1 << 30 {
            return args.wrong(format!("cannot make a text of [{length}] characters"));
        }
        let has = text::units(text);
        if has >= length {
            builder.append_value(text::slice(text, 0, length));
        } else if pad.is_empty() {
            builder.append_value(text);
        } else {
            let mut units: Vec<u16> = pad.encode_utf16().cycle().take(length - has).collect();
            if left {
                units.extend(text.encode_utf16());
            } else {
                units.splice(0..0, text.encode_utf16());
            }
            builder.append_value(String::from_utf16_lossy(&units));
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn parse_long(args: &Args) -> Result<ArrayRef> {
    let radixes = (args.len() > 1).then(|| args.long(1)).transpose()?;
    let mut numbers = Vec::with_capacity(args.rows);
    for (row, text) in args.text(0)?.iter().enumerate() {
        let radix = match &radixes {
            None => 10,
            Some(radixes) => match u32::try_from(radixes.value(row)) {
                Ok(radix) if (2..=36).contains(&radix) => radix,
                _ => {
                    let radix = radixes.value(row);
                    return args.wrong(format!("radix must be between 2 and 36, not [{radix}]"));
                }
            },
        };
        numbers.push(text.and_then(|text| {
            let digits = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
                Some(digits) if radix == 16 => digits,
                _ => text,
            };
            i64::from_str_radix(digits, radix).ok()
        }));
    }
    Ok(Arc::new(Int64Array::from(numbers)))
}

/// Place of the second text in the first, from 1; 0 if it is not there.
fn position(args: &Args) -> Result<ArrayRef> {
    let (texts, parts) = (args.text(0)?, args.text(1)?);
    let starts = (args.len() > 2).then(|| args.long(2)).transpose()?;
    let place = |row: usize| {
        let (text, part) = (
            texts.is_valid(row).then(|| texts.value(row))?,
            parts.is_valid(row).then(|| parts.value(row))?,
        );
        let skip = match &starts {
            None => 0,
            Some(starts) if starts.is_null(row) => return None,
            Some(starts) => usize::try_from(starts.value(row).saturating_sub(1)).unwrap_or(0),
        };
        let from = text
            .char_indices()
            .map(|(byte, _)| byte)
            .chain([text.len()])
            .find(|byte| text::unit_index(text, *byte) >= skip)
            .unwrap_or(text.len());
        Some(match text[from..].find(part) {
            Some(at) => text::unit_index(text, from + at) + 1,
            None => 0,
        })
    };
    Ok(integers((0..args.rows).map(place)))
}

fn replace(args: &Args) -> Result<ArrayRef> {
    let (texts, parts, by) = (args.text(0)?, args.text(1)?, args.text(2)?);
    let replaced: StringArray = (0..args.rows)
        .map(|row| {
            let valid = texts.is_valid(row) && parts.is_valid(row) && by.is_valid(row);
            valid.then(|| texts.value(row).replace(parts.value(row), by.value(row)))
        })
        .collect();
    Ok(Arc::new(replaced))
}

fn repeat(args: &Args) -> Result<ArrayRef> {
    let (texts, counts) = (args.text(0)?, args.long(1)?);
    let mut builder = StringBuilder::new();
    for (text, count) in texts.iter().zip(counts.iter()) {
        match (text, count) {
            (Some(text), Some(count)) if count >= 1 => {
                if i32::try_from(count).is_err() || text.len().saturating_mul(count as usize) > 1 << 30 {
                    return args.wrong(format!("cannot repeat a text [{count}] times"));
                }
                builder.append_value(text.repeat(count as usize));
            }
            _ => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn substring(args: &Args) -> Result<ArrayRef> {
    let (texts, starts) = (args.text(0)?, args.long(1)?);
    let counts = (args.len() > 2).then(|| args.long(2)).transpose()?;
    let mut builder = StringBuilder::new();
    for (row, (text, start)) in texts.iter().zip(starts.iter()).enumerate() {
        let count = match &counts {
            None => Some(-1),
            Some(counts) => counts.is_valid(row).then(|| counts.value(row)),
        };
        let (Some(text), Some(start), Some(count)) = (text, start, count) else {
            builder.append_null();
            continue;
        };
        let Some(start) = usize::try_from(start).ok().and_then(|start| start.checked_sub(1)) else {
            return args.wrong(format!("needs a start of at least 1, not [{start}]"));
        };
        let length = text::units(text);
        if start >= length {
            builder.append_null();
            continue;
        }
        let end = match usize::try_from(count) {
            Ok(count) => start.saturating_add(count).min(length),
            Err(_) => length,
        };
        builder.append_value(text::slice(text, start, end));
    }
    Ok(Arc::new(builder.finish()))
}

fn trim(args: &Args, start: bool, end: bool) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    let sets = (args.len() > 1).then(|| args.text(1)).transpose()?;
    let mut builder = StringBuilder::with_capacity(texts.len(), texts.value_data().len());
    for (row, text) in texts.iter().enumerate() {
        let set = match &sets {
            None => Some(" "),
            Some(sets) => sets.is_valid(row).then(|| sets.value(row)),
        };
        let (Some(mut text), Some(set)) = (text, set) else {
            builder.append_null();
            continue;
        };
        if start {
            text = text.trim_start_matches(|c| set.contains(c));
        }
        if end {
            text = text.trim_end_matches(|c| set.contains(c));
        }
        builder.append_value(text);
    }
    Ok(Arc::new(builder.finish()))
}
