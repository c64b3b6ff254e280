//! A scanner for JSON records that touches only what a statement reads.
//!
//! Values stay slices of the input until they are converted. Keys are expected in the order of the record
//! before; only a surprise costs a lookup.

use std::collections::HashMap;

use memchr::{memchr, memchr2};

use crate::columns::Value;
use crate::json_value::DEPTH_MAX;

/// The record is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Scans records for a fixed set of columns.
pub(crate) struct Scanner {
    slots: HashMap<Vec<u8>, usize>,
    /// Keys of the last record with their columns.
    expected: Vec<(Vec<u8>, Option<usize>)>,
}

impl Scanner {
    /// `names[i]` goes to slot `i`.
    pub(crate) fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Scanner {
        let slots = names
            .into_iter()
            .enumerate()
            .map(|(slot, name)| (name.as_bytes().to_vec(), slot))
            .collect();
        Scanner {
            slots,
            expected: Vec::new(),
        }
    }

    /// Scans one value at `start`. Returns where it ends. A value that is no object fills nothing.
    pub(crate) fn record<'a>(
        &mut self,
        text: &'a str,
        start: usize,
        values: &mut [Value<'a>],
    ) -> Result<usize, Malformed> {
        values.fill(Value::Null);
        let bytes = text.as_bytes();
        let mut at = skip_space(bytes, start);
        if bytes.get(at) != Some(&b'{') {
            return skip_value(text, at, 0).map(|scanned| scanned.end);
        }
        at = skip_space(bytes, at + 1);
        if bytes.get(at) == Some(&b'}') {
            return Ok(at + 1);
        }
        let mut position = 0;
        loop {
            if bytes.get(at) != Some(&b'"') {
                return Err(Malformed);
            }
            let (key_end, escaped) = string_end(bytes, at + 1)?;
            let slot = self.slot(&text[at + 1..key_end], escaped, position);
            position += 1;
            at = skip_space(bytes, key_end + 1);
            if bytes.get(at) != Some(&b':') {
                return Err(Malformed);
            }
            at = skip_space(bytes, at + 1);
            let Scanned { end, value } = skip_value(text, at, 1)?;
            if let Some(slot) = slot
                && let Some(place) = values.get_mut(slot)
            {
                *place = value;
            }
            at = skip_space(bytes, end);
            match bytes.get(at) {
                Some(b',') => at = skip_space(bytes, at + 1),
                Some(b'}') => return Ok(at + 1),
                _ => return Err(Malformed),
            }
        }
    }

    fn slot(&mut self, key: &str, escaped: bool, position: usize) -> Option<usize> {
        if escaped {
            return self.slots.get(crate::columns::unescape(key).as_bytes()).copied();
        }
        if let Some((expected, slot)) = self.expected.get(position)
            && expected.as_slice() == key.as_bytes()
        {
            return *slot;
        }
        let slot = self.slots.get(key.as_bytes()).copied();
        let entry = (key.as_bytes().to_vec(), slot);
        match self.expected.get_mut(position) {
            Some(place) => *place = entry,
            None => self.expected.push(entry),
        }
        slot
    }
}

#[inline]
pub(crate) fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\r' | b'\n') = bytes.get(at) {
        at += 1;
    }
    at
}

/// Position of the closing quote, and whether there are escapes before it.
#[inline]
pub(crate) fn string_end(bytes: &[u8], start: usize) -> Result<(usize, bool), Malformed> {
    let mut at = start;
    let mut escaped = false;
    loop {
        match memchr2(b'"', b'\\', bytes.get(at..).ok_or(Malformed)?) {
            None => return Err(Malformed),
            Some(offset) if bytes[at + offset] == b'"' => return Ok((at + offset, escaped)),
            Some(offset) => {
                escaped = true;
                at += offset;
                at += escape_length(&bytes[at..]).ok_or(Malformed)?;
            }
        }
    }
}

/// Bytes of the escape at the beginning; none if JSON has no such escape.
fn escape_length(bytes: &[u8]) -> Option<usize> {
    match bytes.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' if bytes.get(2..6)?.iter().all(u8::is_ascii_hexdigit) => Some(6),
        _ => None,
    }
}

/// A value, and where it ends.
pub(crate) struct Scanned<'t> {
    pub end: usize,
    pub value: Value<'t>,
}

/// Scans one value, which has `outside` objects around it.
fn skip_value(text: &str, at: usize, outside: usize) -> Result<Scanned<'_>, Malformed> {
    if let Some(b'{' | b'[') = text.as_bytes().get(at) {
        let end = nested_end(text.as_bytes(), at, DEPTH_MAX - outside)?;
        let inside = &text[at..end];
        // Structure inside is checked, or a broken record would count as good.
        serde_json::from_str::<serde::de::IgnoredAny>(inside).map_err(|_| Malformed)?;
        let value = Value::Nested(inside);
        return Ok(Scanned { end, value });
    }
    scalar(text, at)
}

/// Scans one value that is no list and no object.
pub(crate) fn scalar(text: &str, at: usize) -> Result<Scanned<'_>, Malformed> {
    let bytes = text.as_bytes();
    let scanned = |end, value| Ok(Scanned { end, value });
    match bytes.get(at) {
        Some(b'"') => {
            let (end, escaped) = string_end(bytes, at + 1)?;
            let inside = &text[at + 1..end];
            match escaped {
                true => scanned(end + 1, Value::Escaped(inside)),
                false => scanned(end + 1, Value::Text(inside)),
            }
        }
        Some(b'-' | b'0'..=b'9') => {
            let end = number_end(bytes, at)?;
            scanned(end, Value::Number(&text[at..end]))
        }
        Some(b't') => scanned(literal(bytes, at, b"true")?, Value::Bool(true)),
        Some(b'f') => scanned(literal(bytes, at, b"false")?, Value::Bool(false)),
        Some(b'n') => scanned(literal(bytes, at, b"null")?, Value::Null),
        _ => Err(Malformed),
    }
}

fn literal(bytes: &[u8], at: usize, word: &[u8]) -> Result<usize, Malformed> {
    if bytes[at..].starts_with(word) {
        Ok(at + word.len())
    } else {
        Err(Malformed)
    }
}

/// End of the JSON number that starts at `start`.
pub(crate) fn number_end(bytes: &[u8], start: usize) -> Result<usize, Malformed> {
    let digits = |mut at: usize| {
        let from = at;
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        if at > from { Ok(at) } else { Err(Malformed) }
    };
    let first = start + usize::from(bytes.get(start) == Some(&b'-'));
    let mut at = digits(first)?;
    if bytes.get(first) == Some(&b'0') && at > first + 1 {
        return Err(Malformed);
    }
    if bytes.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        at = digits(at + 1 + sign)?;
    }
    Ok(at)
}

/// End of an object or array that is no deeper than `most`, by counting brackets outside strings.
fn nested_end(bytes: &[u8], start: usize, most: usize) -> Result<usize, Malformed> {
    let mut depth = 0_usize;
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at + 1)?.0,
            b'{' | b'[' if depth == most => return Err(Malformed),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Ok(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    Err(Malformed)
}

/// The line that starts at `at`, without its end, and where the next one starts.
pub(crate) fn line(text: &str, at: usize) -> (&str, usize) {
    let rest = &text.as_bytes()[at..];
    let (end, next) = match memchr(b'\n', rest) {
        Some(offset) => (at + offset, at + offset + 1),
        None => (text.len(), text.len()),
    };
    let line = &text[at..end];
    (line.strip_suffix('\r').unwrap_or(line), next)
}
