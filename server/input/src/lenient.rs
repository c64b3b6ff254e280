//! JSON that is almost JSON: what `featureSpec` of the json format allows, made strict before it is scanned.

use serde_json::{Map, Value};

use crate::json::number_end;
use crate::json_value::DEPTH_MAX;
use crate::spec::{SpecError, error};

/// Deviations that are allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Features {
    single_quotes: bool,
    unquoted_names: bool,
    comments: bool,
    hash_comments: bool,
    trailing_comma: bool,
    missing_values: bool,
    non_numbers: bool,
    leading_zeros: bool,
    leading_plus: bool,
    leading_point: bool,
    trailing_point: bool,
    any_escape: bool,
}

impl Features {
    /// Reads `featureSpec`: names of parser features with true or false.
    pub(crate) fn parse(spec: Option<&Value>) -> Result<Features, SpecError> {
        let mut features = Features::default();
        let map = match spec {
            None | Some(Value::Null) => return Ok(features),
            Some(Value::Object(map)) => map,
            Some(_) => return Err(error("field [featureSpec] of the json format must be an object")),
        };
        features.set(map)?;
        Ok(features)
    }

    fn set(&mut self, map: &Map<String, Value>) -> Result<(), SpecError> {
        for (name, value) in map {
            let on = match value {
                Value::Bool(on) => *on,
                _ => {
                    return Err(error(format!(
                        "feature [{name}] of featureSpec must be true or false"
                    )));
                }
            };
            let mut unheard = false;
            let feature = match name.as_str() {
                "ALLOW_SINGLE_QUOTES" => &mut self.single_quotes,
                "ALLOW_UNQUOTED_FIELD_NAMES" => &mut self.unquoted_names,
                "ALLOW_COMMENTS" => &mut self.comments,
                "ALLOW_YAML_COMMENTS" => &mut self.hash_comments,
                "ALLOW_TRAILING_COMMA" => &mut self.trailing_comma,
                "ALLOW_MISSING_VALUES" => &mut self.missing_values,
                "ALLOW_NON_NUMERIC_NUMBERS" => &mut self.non_numbers,
                "ALLOW_NUMERIC_LEADING_ZEROS" => &mut self.leading_zeros,
                "ALLOW_LEADING_PLUS_SIGN_FOR_NUMBERS" => &mut self.leading_plus,
                "ALLOW_LEADING_DECIMAL_POINT_FOR_NUMBERS" => &mut self.leading_point,
                "ALLOW_TRAILING_DECIMAL_POINT_FOR_NUMBERS" => &mut self.trailing_point,
                "ALLOW_BACKSLASH_ESCAPING_ANY_CHARACTER" => &mut self.any_escape,
                // Control characters in strings are read as they are; the others change no value.
                "ALLOW_UNQUOTED_CONTROL_CHARS"
                | "AUTO_CLOSE_SOURCE"
                | "STRICT_DUPLICATE_DETECTION"
                | "IGNORE_UNDEFINED"
                | "INCLUDE_SOURCE_IN_LOCATION"
                | "USE_FAST_DOUBLE_PARSER"
                | "USE_FAST_BIG_NUMBER_PARSER" => &mut unheard,
                _ => return Err(error(format!("feature [{name}] of featureSpec is unknown"))),
            };
            *feature = on;
        }
        Ok(())
    }

    /// Nothing is allowed beyond JSON.
    pub(crate) fn is_strict(self) -> bool {
        self == Features::default()
    }

    /// The line as JSON; none if it is malformed even so.
    pub(crate) fn strict(self, line: &str) -> Option<String> {
        let mut writer = Writer {
            features: self,
            rest: line,
            depth: 0,
            out: String::with_capacity(line.len() + 16),
        };
        writer.value()?;
        Some(writer.out)
    }
}

struct Writer<'t> {
    features: Features,
    rest: &'t str,
    /// Lists and objects that are open.
    depth: usize,
    out: String,
}

impl Writer<'_> {
    fn space(&mut self) -> Option<()> {
        loop {
            self.rest = self.rest.trim_start();
            let to_the_end = (self.features.comments && self.rest.starts_with("//"))
                || (self.features.hash_comments && self.rest.starts_with('#'));
            let after = if to_the_end {
                ""
            } else if self.features.comments && self.rest.starts_with("/*") {
                let (_, after) = self.rest[2..].split_once("*/")?;
                after
            } else {
                return Some(());
            };
            self.rest = after;
        }
    }

    fn take(&mut self, token: char) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self) -> Option<()> {
        self.space()?;
        match self.rest.chars().next()? {
            '{' | '[' if self.depth == DEPTH_MAX => None,
            '{' => self.list('{', '}', true),
            '[' => self.list('[', ']', false),
            '"' => self.text('"'),
            '\'' if self.features.single_quotes => self.text('\''),
            _ => self.word(),
        }
    }

    fn list(&mut self, open: char, close: char, named: bool) -> Option<()> {
        self.take(open);
        self.out.push(open);
        self.space()?;
        if self.take(close) {
            self.out.push(close);
            return Some(());
        }
        self.depth += 1;
        loop {
            self.space()?;
            if named {
                self.key()?;
                self.space()?;
                if !self.take(':') {
                    return None;
                }
                self.out.push(':');
            }
            self.space()?;
            // `[1,,2]`: what is not there is null.
            if self.features.missing_values && self.rest.starts_with([',', close]) {
                self.out.push_str("null");
            } else {
                self.value()?;
            }
            self.space()?;
            if self.take(',') {
                self.space()?;
                if self.features.trailing_comma && self.take(close) {
                    break;
                }
                self.out.push(',');
            } else if self.take(close) {
                break;
            } else {
                return None;
            }
        }
        self.depth -= 1;
        self.out.push(close);
        Some(())
    }

    fn key(&mut self) -> Option<()> {
        match self.rest.chars().next()? {
            '"' => self.text('"'),
            '\'' if self.features.single_quotes => self.text('\''),
            _ if self.features.unquoted_names => {
                let end = self
                    .rest
                    .find(|c: char| !(c.is_alphanumeric() || "_$-".contains(c)))?;
                let (name, rest) = self.rest.split_at(end);
                if name.is_empty() {
                    return None;
                }
                self.rest = rest;
                self.out.push('"');
                self.out.push_str(name);
                self.out.push('"');
                Some(())
            }
            _ => None,
        }
    }

    fn text(&mut self, quote: char) -> Option<()> {
        self.take(quote);
        self.out.push('"');
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.out.push('"');
                self.rest = &self.rest[at + 1..];
                return Some(());
            }
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => {
                    let (_, escaped) = chars.next()?;
                    match escaped {
                        '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' | 'u' => {
                            self.out.push('\\');
                            self.out.push(escaped);
                        }
                        '\'' if self.features.single_quotes => self.out.push('\''),
                        other if self.features.any_escape => self.out.push(other),
                        _ => return None,
                    }
                }
                c if (c as u32) < 0x20 => self.out.push_str(&format!("\\u{:04x}", c as u32)),
                c => self.out.push(c),
            }
        }
        None
    }

    /// A number or a literal.
    fn word(&mut self) -> Option<()> {
        let end = self
            .rest
            .find(|c: char| ",:{}[]\"'/#".contains(c) || c.is_whitespace())
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word {
            "true" | "false" | "null" => {
                self.out.push_str(word);
                return Some(());
            }
            // Java's words for what is no number; text reads as the same double.
            "NaN" | "INF" | "Infinity" | "+INF" | "+Infinity" | "-INF" | "-Infinity"
                if self.features.non_numbers =>
            {
                let text = match word {
                    "NaN" => "NaN",
                    "-INF" | "-Infinity" => "-Infinity",
                    _ => "Infinity",
                };
                self.out.push_str(&format!("\"{text}\""));
                return Some(());
            }
            _ => {}
        }
        let number = self.number(word)?;
        self.out.push_str(&number);
        Some(())
    }

    fn number(&self, word: &str) -> Option<String> {
        let features = self.features;
        let (sign, mut digits) = match word.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", word),
        };
        if sign.is_empty() && features.leading_plus {
            digits = digits.strip_prefix('+').unwrap_or(digits);
        }
        let mut number = digits.to_owned();
        if features.leading_zeros {
            let whole = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
            let kept = number[..whole].trim_start_matches('0').to_owned();
            let kept = if kept.is_empty() && whole > 0 {
                "0".to_owned()
            } else {
                kept
            };
            number = kept + &number[whole..];
        }
        if features.leading_point && number.starts_with('.') {
            number.insert(0, '0');
        }
        if features.trailing_point && number.ends_with('.') {
            number.push('0');
        }
        let number = format!("{sign}{number}");
        // Any size will do.
        (number_end(number.as_bytes(), 0) == Ok(number.len())).then_some(number)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn makes_json_of_what_is_allowed() {
        let cases = [
            (
                "ALLOW_UNQUOTED_FIELD_NAMES",
                r#"{a: 1, $b_2: {c:2}}"#,
                r#"{"a":1,"$b_2":{"c":2}}"#,
            ),
            (
                "ALLOW_SINGLE_QUOTES",
                r#"{'a': 'x"y\'z', "b": "q"}"#,
                r#"{"a":"x\"y'z","b":"q"}"#,
            ),
            ("ALLOW_COMMENTS", "{/* c */\"a\": 1} // end", r#"{"a":1}"#),
            ("ALLOW_YAML_COMMENTS", "{\"a\": 1} # end", r#"{"a":1}"#),
            ("ALLOW_TRAILING_COMMA", "[1, 2,]", "[1,2]"),
            ("ALLOW_MISSING_VALUES", "[1,,2]", "[1,null,2]"),
            (
                "ALLOW_NON_NUMERIC_NUMBERS",
                "[NaN, -INF, Infinity]",
                r#"["NaN","-Infinity","Infinity"]"#,
            ),
            (
                "ALLOW_NUMERIC_LEADING_ZEROS",
                "[007, 0, -00.5, 00]",
                "[7,0,-0.5,0]",
            ),
            ("ALLOW_LEADING_PLUS_SIGN_FOR_NUMBERS", "[+1]", "[1]"),
            ("ALLOW_LEADING_DECIMAL_POINT_FOR_NUMBERS", "[.5]", "[0.5]"),
            ("ALLOW_TRAILING_DECIMAL_POINT_FOR_NUMBERS", "[5.]", "[5.0]"),
            (
                "ALLOW_BACKSLASH_ESCAPING_ANY_CHARACTER",
                r#"["\q\n"]"#,
                r#"["q\n"]"#,
            ),
        ];
        for (feature, line, expected) in cases {
            let on = Features::parse(Some(&json!({feature: true}))).unwrap();
            assert_eq!(on.strict(line).as_deref(), Some(expected), "{feature}");
            assert!(!on.is_strict());
            let off = Features::parse(Some(&json!({feature: false}))).unwrap();
            assert!(off.is_strict());
            let kept = matches!(feature, "ALLOW_COMMENTS" | "ALLOW_YAML_COMMENTS");
            assert!(kept || off.strict(line).is_none(), "{feature}");
        }
        assert!(Features::parse(Some(&json!({"ALLOW_ALL": true}))).is_err());
    }
}
