//! STRING_FORMAT: Java's `String.format`.

mod java;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, StringArray, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::error::Result;

use crate::function::{Args, Function, returns_text};

pub(crate) fn functions() -> Vec<Function> {
    vec![Function::new("string_format", (1, usize::MAX), returns_text, string_format).maps()]
}

enum Column {
    Longs(Int64Array),
    Doubles(Float64Array),
    Texts(StringArray),
}

enum Value<'a> {
    Null,
    Long(i64),
    Double(f64),
    Text(&'a str),
}

impl Value<'_> {
    fn text(&self) -> String {
        match self {
            Value::Null => "null".to_owned(),
            Value::Long(value) => value.to_string(),
            Value::Double(value) => trilith_proto::java::double(*value),
            Value::Text(text) => (*text).to_owned(),
        }
    }
}

fn string_format(args: &Args) -> Result<ArrayRef> {
    let patterns = args.text(0)?;
    let columns = (1..args.len())
        .map(|index| {
            Ok(match args.data_type(index) {
                DataType::Float32 | DataType::Float64 => Column::Doubles(args.double(index)?),
                data_type
                    if data_type.is_integer()
                        || data_type.is_temporal()
                        || data_type == DataType::Boolean =>
                {
                    Column::Longs(args.long(index)?)
                }
                _ => Column::Texts(args.text(index)?),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut builder = StringBuilder::new();
    for (row, pattern) in patterns.iter().enumerate() {
        let values: Vec<Value<'_>> = columns
            .iter()
            .map(|column| match column {
                Column::Longs(values) if values.is_valid(row) => Value::Long(values.value(row)),
                Column::Doubles(values) if values.is_valid(row) => Value::Double(values.value(row)),
                Column::Texts(values) if values.is_valid(row) => Value::Text(values.value(row)),
                _ => Value::Null,
            })
            .collect();
        builder.append_option(pattern.map(|pattern| format(pattern, &values)));
    }
    Ok(Arc::new(builder.finish()))
}

/// A pattern that does not fit is given back with the values behind it.
fn format(pattern: &str, values: &[Value<'_>]) -> String {
    if values.is_empty() {
        return pattern.to_owned();
    }
    strict(pattern, values).unwrap_or_else(|| {
        let mut out = pattern.to_owned();
        for value in values {
            out.push_str("; ");
            out.push_str(&value.text());
        }
        out
    })
}

#[derive(Default)]
struct Spec {
    flags: String,
    width: usize,
    precision: Option<usize>,
}

impl Spec {
    fn has(&self, flag: char) -> bool {
        self.flags.contains(flag)
    }
}

fn strict(pattern: &str, values: &[Value<'_>]) -> Option<String> {
    let mut out = String::new();
    let mut next = 0;
    let mut last = None;
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let index = match rest[digits..].strip_prefix('$') {
            Some(after) if digits > 0 => {
                let index: usize = rest[..digits].parse().ok()?;
                rest = after;
                Some(index.checked_sub(1)?)
            }
            _ => None,
        };
        let flags = rest.chars().take_while(|c| "-#+ 0,(<".contains(*c)).count();
        let mut spec = Spec {
            flags: rest[..flags].to_owned(),
            ..Spec::default()
        };
        rest = &rest[flags..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            spec.width = rest[..digits].parse().ok().filter(|width| *width < 1 << 20)?;
            rest = &rest[digits..];
        }
        if let Some(after) = rest.strip_prefix('.') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            spec.precision = Some(
                after[..digits]
                    .parse()
                    .ok()
                    .filter(|precision| *precision < 1 << 16)?,
            );
            rest = &after[digits..];
        }
        if (spec.has('-') || spec.has('0')) && spec.width == 0 || spec.has('-') && spec.has('0') {
            return None;
        }
        let mut letters = rest.chars();
        let conversion = letters.next()?;
        let part = match conversion {
            't' | 'T' => letters.next()?,
            _ => ' ',
        };
        rest = letters.as_str();
        match conversion {
            'n' => {
                out.push('\n');
                continue;
            }
            '%' => {
                out.push_str(&aligned("%".to_owned(), &spec));
                continue;
            }
            _ => {}
        }
        let index = match index {
            _ if spec.has('<') => last?,
            Some(index) => index,
            None => {
                next += 1;
                next - 1
            }
        };
        last = Some(index);
        let value = values.get(index)?;
        let text = match conversion {
            't' | 'T' => timed(part, value, &spec)?,
            _ => convert(conversion.to_ascii_lowercase(), value, &spec)?,
        };
        let text = if conversion.is_ascii_uppercase() {
            text.to_uppercase()
        } else {
            text
        };
        out.push_str(&aligned(text, &spec));
    }
    out.push_str(rest);
    Some(out)
}

fn aligned(text: String, spec: &Spec) -> String {
    let width = spec.width;
    if spec.has('-') {
        format!("{text:<width$}")
    } else {
        format!("{text:>width$}")
    }
}

/// A part of a time, which is milliseconds.
fn timed(part: char, value: &Value<'_>, spec: &Spec) -> Option<String> {
    if spec.precision.is_some() || "#+ 0,(".chars().any(|flag| spec.has(flag)) {
        return None;
    }
    match value {
        Value::Long(ms) => java::time_part(part, *ms),
        Value::Null => Some("null".to_owned()),
        _ => None,
    }
}

/// None if the conversion does not exist or the value does not fit it.
fn convert(conversion: char, value: &Value<'_>, spec: &Spec) -> Option<String> {
    let cut = |text: String| match spec.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text,
    };
    match (conversion, value) {
        ('s' | 'd' | 'b' | 'h', _) if spec.has('#') => None,
        ('s', value) => Some(cut(value.text())),
        ('b', Value::Null) => Some(cut("false".to_owned())),
        ('b', _) => Some(cut("true".to_owned())),
        ('d' | 'x' | 'o' | 'f' | 'e' | 'g' | 'a' | 'c' | 'h', Value::Null) => Some(cut("null".to_owned())),
        ('d', Value::Long(_)) if spec.precision.is_some() => None,
        ('d', Value::Long(value)) => Some(signed(value.unsigned_abs().to_string(), *value < 0, spec)),
        ('x', Value::Long(value)) => Some(based("0x", format!("{value:x}"), spec)),
        ('o', Value::Long(value)) => Some(based("0", format!("{value:o}"), spec)),
        ('h', Value::Long(value)) => Some(cut(format!("{:x}", java::long_hash(*value)))),
        ('h', Value::Double(value)) => Some(cut(format!("{:x}", java::double_hash(*value)))),
        ('h', Value::Text(text)) => Some(cut(format!("{:x}", java::text_hash(text)))),
        ('a', Value::Double(_)) if spec.precision.is_some() => None,
        ('f' | 'e' | 'g' | 'a', Value::Double(value)) => {
            if value.is_nan() {
                return Some("NaN".to_owned());
            }
            if value.is_infinite() {
                let text = if *value > 0.0 { "Infinity" } else { "-Infinity" };
                return Some(text.to_owned());
            }
            let precision = spec.precision.unwrap_or(6);
            let magnitude = value.abs();
            let text = match conversion {
                'f' => fixed(magnitude, precision),
                'e' => scientific(magnitude, precision),
                'a' => java::hex_double(magnitude),
                _ => {
                    let precision = precision.max(1);
                    if magnitude == 0.0 || (1e-4..10_f64.powi(precision as i32)).contains(&magnitude) {
                        let before = if magnitude == 0.0 {
                            1
                        } else {
                            magnitude.log10().floor() as i64 + 1
                        };
                        fixed(magnitude, (precision as i64 - before).max(0) as usize)
                    } else {
                        scientific(magnitude, precision - 1)
                    }
                }
            };
            Some(signed(text, value.is_sign_negative(), spec))
        }
        _ => None,
    }
}

/// Digits of another base, with its sign before them if it is asked for.
fn based(sign: &str, digits: String, spec: &Spec) -> String {
    let sign = if spec.has('#') { sign } else { "" };
    if spec.has('0') {
        let width = spec.width.saturating_sub(sign.len());
        return format!("{sign}{digits:0>width$}");
    }
    format!("{sign}{digits}")
}

fn signed(digits: String, negative: bool, spec: &Spec) -> String {
    let digits = if spec.has(',') { grouped(&digits) } else { digits };
    let (before, after) = match negative {
        true if spec.has('(') => ("(", ")"),
        true => ("-", ""),
        false if spec.has('+') => ("+", ""),
        false if spec.has(' ') => (" ", ""),
        false => ("", ""),
    };
    let width = spec.width.saturating_sub(before.len() + after.len());
    let digits = if spec.has('0') {
        format!("{digits:0>width$}")
    } else {
        digits
    };
    format!("{before}{digits}{after}")
}

fn grouped(digits: &str) -> String {
    let (whole, fraction) = match digits.find('.') {
        Some(point) => digits.split_at(point),
        None => (digits, ""),
    };
    let mut out = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}

/// Decimal digits of a number, rounded half up on its shortest text as Java does; never negative.
pub(crate) fn fixed(magnitude: f64, places: usize) -> String {
    let shortest = format!("{magnitude}");
    let (whole, fraction) = shortest.split_once('.').unwrap_or((&shortest, ""));
    if fraction.len() <= places {
        let point = if places == 0 { "" } else { "." };
        return format!("{whole}{point}{fraction:0<places$}");
    }
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes().take(places)).collect();
    if fraction
        .as_bytes()
        .get(places)
        .is_some_and(|digit| *digit >= b'5')
    {
        let mut at = digits.len();
        loop {
            if at == 0 {
                digits.insert(0, b'1');
                break;
            }
            at -= 1;
            if digits[at] == b'9' {
                digits[at] = b'0';
            } else {
                digits[at] += 1;
                break;
            }
        }
    }
    let mut text = String::from_utf8_lossy(&digits).into_owned();
    if places > 0 {
        text.insert(text.len() - places, '.');
    }
    text
}

fn scientific(magnitude: f64, places: usize) -> String {
    let shortest = format!("{magnitude:e}");
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let mut exponent: i32 = exponent.parse().unwrap_or(0);
    let mut mantissa = fixed(mantissa.parse().unwrap_or(0.0), places);
    if mantissa.starts_with("10") {
        mantissa = fixed(1.0, places);
        exponent += 1;
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}
