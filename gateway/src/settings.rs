//! The SET statements in front of a query, as far as the gateway needs their values before the server reads them.

use std::iter::Peekable;
use std::str::Chars;

use serde_json::{Map, Value};

/// Values of the leading SET statements; the last of a key wins. Reading ends where anything else begins, and at what
/// is no SET that the server would take: it tells what is wrong there.
pub(crate) fn leading(sql: &str) -> Map<String, Value> {
    let mut settings = Map::new();
    let mut reader = Reader {
        rest: sql.chars().peekable(),
    };
    while let Some((key, value)) = reader.setting() {
        settings.insert(key, value);
    }
    settings
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    fn setting(&mut self) -> Option<(String, Value)> {
        if !self.word()?.eq_ignore_ascii_case("SET") {
            return None;
        }
        self.space();
        let key = match self.rest.peek()? {
            '"' | '`' => self.quoted()?,
            _ => self.word()?,
        };
        self.mark('=')?;
        let value = self.literal()?;
        self.mark(';')?;
        Some((key, value))
    }

    /// Skips blanks and comments.
    fn space(&mut self) {
        loop {
            let mut ahead = self.rest.clone();
            match (ahead.next(), ahead.next()) {
                (Some(first), _) if first.is_whitespace() => {
                    self.rest.next();
                }
                (Some('-'), Some('-')) => while self.rest.next().is_some_and(|next| next != '\n') {},
                (Some('/'), Some('*')) => {
                    self.rest = ahead;
                    let mut last = ' ';
                    for next in self.rest.by_ref() {
                        if last == '*' && next == '/' {
                            break;
                        }
                        last = next;
                    }
                }
                _ => return,
            }
        }
    }

    fn mark(&mut self, mark: char) -> Option<()> {
        self.space();
        self.rest.next_if_eq(&mark).map(|_| ())
    }

    fn word(&mut self) -> Option<String> {
        self.space();
        let mut word = String::new();
        while let Some(next) = self.rest.next_if(|next| next.is_alphanumeric() || *next == '_') {
            word.push(next);
        }
        let starts = word.starts_with(|first: char| !first.is_ascii_digit());
        starts.then_some(word)
    }

    /// Text between two of the mark that comes next; two of them inside are one.
    fn quoted(&mut self) -> Option<String> {
        let mark = self.rest.next()?;
        let mut text = String::new();
        loop {
            let next = self.rest.next()?;
            if next == mark && self.rest.next_if_eq(&mark).is_none() {
                return Some(text);
            }
            text.push(next);
        }
    }

    fn literal(&mut self) -> Option<Value> {
        self.space();
        match self.rest.peek()? {
            '\'' => self.quoted().map(Value::String),
            '-' | '0'..='9' => self.number(),
            _ => match self.word()?.to_ascii_uppercase().as_str() {
                "TRUE" => Some(Value::Bool(true)),
                "FALSE" => Some(Value::Bool(false)),
                "NULL" => Some(Value::Null),
                "DATE" | "TIMESTAMP" => {
                    self.space();
                    self.rest.peek().filter(|next| **next == '\'')?;
                    self.quoted().map(Value::String)
                }
                "ARRAY" => self.items(),
                _ => None,
            },
        }
    }

    fn number(&mut self) -> Option<Value> {
        let mut text = String::new();
        if self.rest.next_if_eq(&'-').is_some() {
            text.push('-');
            self.space();
        }
        let mut last = ' ';
        while let Some(next) = self.rest.next_if(|next| {
            next.is_ascii_digit()
                || matches!(next, '.' | 'e' | 'E')
                || (*next == '-' && matches!(last, 'e' | 'E'))
        }) {
            text.push(next);
            last = next;
        }
        serde_json::from_str(&text).ok()
    }

    fn items(&mut self) -> Option<Value> {
        self.mark('[')?;
        let mut items = Vec::new();
        if self.mark(']').is_some() {
            return Some(Value::Array(items));
        }
        loop {
            items.push(self.literal()?);
            if self.mark(',').is_none() {
                self.mark(']')?;
                return Some(Value::Array(items));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_read_up_to_the_statement() {
        for (sql, expected) in [
            ("SELECT 1", json!({})),
            ("SELECT 'SET a = 1;'", json!({})),
            (
                " /* a */ set a = 'it''s'; -- b\nSET \"b c\" = - 5;SET `d`=1.5; SET a = TRUE; SELECT 1",
                json!({"a": true, "b c": -5, "d": 1.5}),
            ),
            (
                "SET a = ARRAY['x', 'y']; SET b = ARRAY[]; SET t = TIMESTAMP '2000-01-01'; SET n = NULL; SELECT 1",
                json!({"a": ["x", "y"], "b": [], "t": "2000-01-01", "n": null}),
            ),
            // The server refuses these.
            ("SET a = 1", json!({})),
            ("SET a = 1; SET b = 1 + 1; SELECT 1", json!({"a": 1})),
            ("SET a = 'x", json!({})),
        ] {
            assert_eq!(Value::Object(leading(sql)), expected, "{sql}");
        }
    }
}
