//! `indexSpec` of the query context: how segments are encoded in Druid. Trilith keeps it, and refuses what is none.

use serde_json::{Map, Value};
use trilith_proto::error::ApiError;

const COMPRESSIONS: &[&str] = &["lz4", "lzf", "zstd", "uncompressed", "none"];

/// Key, and the words that it may have.
const WORDS: &[(&str, &[&str])] = &[
    ("dimensionCompression", COMPRESSIONS),
    ("metricCompression", COMPRESSIONS),
    ("jsonCompression", COMPRESSIONS),
    ("complexMetricCompression", COMPRESSIONS),
    ("longEncoding", &["auto", "longs"]),
];

/// Key of an object, and the types that it may have.
const TYPES: &[(&str, &[&str])] = &[
    ("bitmap", &["roaring", "concise"]),
    ("stringDictionaryEncoding", &["utf8", "frontCoded"]),
];

/// The object, which may stand in a text.
pub(crate) fn read(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(spec) => Some(spec.clone()),
        Value::String(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}

/// Checks the words of the keys that are known.
pub(crate) fn check(spec: &Map<String, Value>) -> Result<(), ApiError> {
    let given = |key: &str| spec.get(key).filter(|value| !value.is_null());
    for (key, words) in WORDS {
        let Some(value) = given(key) else { continue };
        let known = |text: &str| words.iter().any(|word| word.eq_ignore_ascii_case(text));
        if !value.as_str().is_some_and(known) {
            return Err(wrong(key, words, value));
        }
    }
    for (key, types) in TYPES {
        let Some(value) = given(key) else { continue };
        let kind = value.get("type").unwrap_or(&Value::Null);
        if !kind.as_str().is_some_and(|kind| types.contains(&kind)) {
            return Err(wrong(&format!("{key}.type"), types, kind));
        }
    }
    Ok(())
}

fn wrong(key: &str, words: &[&str], value: &Value) -> ApiError {
    ApiError::invalid_input(format!(
        "Query context key [indexSpec]: [{key}] must be one of {words:?}, but it is {value}"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_words_are_refused() {
        for (spec, right) in [
            (json!({}), true),
            (json!({"dimensionCompression": "LZ4", "longEncoding": null}), true),
            (json!({"bitmap": {"type": "roaring"}, "other": 1}), true),
            (json!({"dimensionCompression": "gzip"}), false),
            (json!({"metricCompression": 1}), false),
            (json!({"bitmap": {"type": "bits"}}), false),
            (json!({"stringDictionaryEncoding": "utf8"}), false),
        ] {
            assert_eq!(check(&read(&spec).unwrap()).is_ok(), right, "{spec}");
        }
    }
}
