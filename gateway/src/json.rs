//! JSON whose numbers have the text that Java gives them.

use std::fmt::Write;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use trilith_proto::java;

/// A value as JSON.
pub(crate) fn text(value: &Value) -> String {
    let mut out = String::new();
    push(&mut out, value);
    out
}

/// Adds a value as JSON.
pub(crate) fn push(out: &mut String, value: &Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            out.push_str(&java::double(number.as_f64().unwrap_or_default()));
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push(out, item);
            }
            out.push(']');
        }
        Value::Object(entries) => {
            out.push('{');
            for (index, (key, item)) in entries.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push(out, &Value::from(key.as_str()));
                out.push(':');
                push(out, item);
            }
            out.push('}');
        }
        // Writing to a text does not fail.
        other => drop(write!(out, "{other}")),
    }
}

/// An answer whose body is a value.
pub(crate) struct JavaJson(pub Value);

impl IntoResponse for JavaJson {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], text(&self.0)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn doubles_look_as_in_java() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (100.0, "100.0"),
            (0.001, "0.001"),
            (-0.000_99, "-9.9E-4"),
            (1e-5, "1.0E-5"),
            (9_999_999.5, "9999999.5"),
            (1e7, "1.0E7"),
            (12_345_678.9, "1.23456789E7"),
            (-1e300, "-1.0E300"),
        ] {
            assert_eq!(java::double(value), expected);
        }
    }

    #[test]
    fn values_are_json() {
        let value = json!({"a\"": [1, 1e7, null, true, "x\n"], "b": {"c": 1e-5}});
        assert_eq!(
            text(&value),
            r#"{"a\"":[1,1.0E7,null,true,"x\n"],"b":{"c":1.0E-5}}"#
        );
        assert_eq!(serde_json::from_str::<Value>(&text(&value)).unwrap(), value);
    }
}
