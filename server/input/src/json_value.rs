//! Whole JSON values of external data. More is read than strict JSON: lone surrogates are replaced, and numbers
//! of any size are doubles.

use serde_json::{Map, Value as Json};

use crate::columns::{Value, unescape};
use crate::json::{Scanned, scalar, skip_space, string_end};
use crate::number::json_number;

/// How deep lists and objects may lie within each other; a record that goes deeper is malformed.
pub(crate) const DEPTH_MAX: usize = 1_000;

/// The value at the beginning of a text; what follows it counts for nothing. None if it is malformed.
pub(crate) fn read(text: &str) -> Option<Json> {
    // Almost all values are within the limits of the strict parser, which is faster.
    serde_json::from_str(text)
        .ok()
        .or_else(|| Reader { text, at: 0 }.value(0))
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    /// The next byte that is no space.
    fn next(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        self.at = skip_space(bytes, self.at);
        bytes.get(self.at).copied()
    }

    fn take(&mut self, token: u8) -> bool {
        let found = self.next() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        match self.next()? {
            b'{' | b'[' if depth >= DEPTH_MAX => None,
            b'{' => self.object(depth + 1),
            b'[' => self.list(depth + 1),
            _ => {
                let Scanned { end, value } = scalar(self.text, self.at).ok()?;
                self.at = end;
                match value {
                    Value::Bool(value) => Some(Json::Bool(value)),
                    Value::Number(number) => json_number(number),
                    Value::Text(text) => Some(Json::from(text)),
                    Value::Escaped(raw) => Some(Json::String(unescape(raw))),
                    Value::Null | Value::Nested(_) | Value::Bytes(_) => Some(Json::Null),
                }
            }
        }
    }

    fn list(&mut self, depth: usize) -> Option<Json> {
        self.at += 1;
        let mut items = Vec::new();
        if self.take(b']') {
            return Some(Json::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            if self.take(b']') {
                return Some(Json::Array(items));
            }
            if !self.take(b',') {
                return None;
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        self.at += 1;
        let mut fields = Map::new();
        if self.take(b'}') {
            return Some(Json::Object(fields));
        }
        loop {
            if !self.take(b'"') {
                return None;
            }
            let (end, escaped) = string_end(self.text.as_bytes(), self.at).ok()?;
            let name = &self.text[self.at..end];
            let name = if escaped { unescape(name) } else { name.to_owned() };
            self.at = end + 1;
            if !self.take(b':') {
                return None;
            }
            let value = self.value(depth)?;
            // The last of several counts.
            fields.insert(name, value);
            if self.take(b'}') {
                return Some(Json::Object(fields));
            }
            if !self.take(b',') {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_strict_parsers_refuse() {
        let cases = [
            (r#"{"a":"x\uD900","b":1}"#, json!({"a": "x\u{fffd}", "b": 1})),
            (
                r#" [ "\uD900\uD83D\uDE00" , 1e400 , -1e400 , [ ] , { } ] rest"#,
                json!(["\u{fffd}\u{1f600}", "Infinity", "-Infinity", [], {}]),
            ),
            (
                r#"{"\uD900k":[true,null],"n":12345678901234567890, "n" : 2}"#,
                json!({"\u{fffd}k": [true, null], "n": 2}),
            ),
            (r#"{"a":1} x"#, json!({"a": 1})),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for text in [
            r#"["\uD900""#,
            r#"["\uD900",]"#,
            r#"{"\uD900"}"#,
            r#"{"\uD900":1,}"#,
            "[1e400 2]",
            "",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn depth_has_a_limit() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&nested(DEPTH_MAX)).is_some());
        assert!(read(&nested(DEPTH_MAX + 1)).is_none());
    }
}
