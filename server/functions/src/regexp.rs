//! Functions with Java's regular expressions, as far as an automaton can run them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, StringArray, StringBuilder};
use datafusion::common::{DataFusionError, ScalarValue, plan_err};
use datafusion::error::Result;
use regex::Regex;

use crate::function::{Args, Call, Function, is_text, returns_boolean, returns_text, scalar_text};

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new("regexp_extract", (2, 3), returns_text, extract)
            .literals(&[1, 2])
            .check(check)
            .maps(),
        Function::new("regexp_like", (2, 2), returns_boolean, like)
            .literals(&[1])
            .check(check)
            .maps(),
        Function::new("regexp_replace", (3, 3), returns_text, replace)
            .check(check)
            .maps(),
    ]
}

/// A pattern that is none is found while the call is planned.
pub(crate) fn check(call: &Call<'_>, literals: &[Option<&ScalarValue>]) -> Result<()> {
    match literals.get(1).copied().flatten() {
        Some(pattern) if pattern.is_null() => return plan_err!("Illegal use of 'NULL'"),
        Some(pattern) if !is_text(&pattern.data_type()) => {
            let name = call.name.to_uppercase();
            return call.cannot_apply(literals, &format!("{name}(<CHARACTER>, <CHARACTER>)"));
        }
        _ => {}
    }
    match literals.get(1).copied().flatten().and_then(scalar_text) {
        Some(pattern) => match read(&pattern) {
            Ok(_) => Ok(()),
            Err(why) => plan_err!(
                "An invalid pattern [{pattern}] was provided for the [{}] function, error: [{why}]",
                call.name
            ),
        },
        None => Ok(()),
    }
}

/// A pattern of Java as one of ours; a message if there is none.
pub fn compile(pattern: &str) -> std::result::Result<Regex, String> {
    read(pattern).map_err(|why| format!("cannot use the regular expression [{pattern}]: {why}"))
}

/// The same, with the mere reason.
fn read(pattern: &str) -> std::result::Result<Regex, String> {
    Regex::new(&translate(pattern)).map_err(|error| {
        let text = error.to_string();
        let why = text.lines().last().unwrap_or_default();
        why.trim_start_matches("error: ").to_owned()
    })
}

/// Java's classes are of ASCII, and it quotes with \Q and \E.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    let mut depth = 0_usize;
    while let Some(c) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix("\\Q") {
            let (text, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            out.push_str(&regex::escape(text));
            rest = after;
            continue;
        }
        let mut taken = c.len_utf8();
        match c {
            '\\' => {
                let escaped = rest[1..].chars().next().unwrap_or('\\');
                taken += escaped.len_utf8().min(rest.len() - 1);
                let class = match escaped {
                    'd' => Some((false, "0-9")),
                    'D' => Some((true, "0-9")),
                    'w' => Some((false, "a-zA-Z_0-9")),
                    'W' => Some((true, "a-zA-Z_0-9")),
                    's' => Some((false, " \\t\\n\\x0B\\f\\r")),
                    'S' => Some((true, " \\t\\n\\x0B\\f\\r")),
                    'h' => Some((
                        false,
                        " \\t\\xA0\\u{1680}\\u{180e}\\u{2000}-\\u{200a}\\u{202f}\\u{205f}\\u{3000}",
                    )),
                    _ => None,
                };
                match class {
                    Some((false, set)) if depth > 0 => out.push_str(set),
                    Some((negated, set)) => {
                        out.push_str(if negated { "[^" } else { "[" });
                        out.push_str(set);
                        out.push(']');
                    }
                    None if escaped == 'Z' => out.push_str("\\z"),
                    None if escaped == 'e' => out.push_str("\\x1B"),
                    None => out.push_str(&rest[..taken]),
                }
            }
            '[' => {
                depth += 1;
                out.push('[');
                // A bracket at once behind is itself.
                for start in ["^]", "]"] {
                    if rest[1..].starts_with(start) {
                        out.push_str(&start.replace(']', "\\]"));
                        taken += start.len();
                        break;
                    }
                }
            }
            ']' => {
                depth = depth.saturating_sub(1);
                out.push(']');
            }
            other => out.push(other),
        }
        rest = &rest[taken..];
    }
    out
}

fn literal(args: &Args) -> Result<Option<Regex>> {
    args.literal(1)?
        .map(|pattern| compile(&pattern).or_else(|why| args.wrong(why)))
        .transpose()
}

fn extract(args: &Args) -> Result<ArrayRef> {
    let Some(regex) = literal(args)? else {
        return Ok(Arc::new(StringArray::new_null(args.rows)));
    };
    let group = match args.literal(2)? {
        None => 0,
        Some(text) => match text.parse::<usize>() {
            Ok(group) if group < regex.captures_len() => group,
            _ => return args.wrong(format!("group [{text}] is not in the pattern")),
        },
    };
    let texts = args.text(0)?;
    let mut builder = StringBuilder::new();
    for text in &texts {
        let found = text.and_then(|text| match group {
            0 => regex.find(text),
            _ => regex.captures(text).and_then(|captures| captures.get(group)),
        });
        builder.append_option(found.map(|found| found.as_str()));
    }
    Ok(Arc::new(builder.finish()))
}

fn like(args: &Args) -> Result<ArrayRef> {
    let Some(regex) = literal(args)? else {
        return Ok(Arc::new(BooleanArray::new_null(args.rows)));
    };
    let found: BooleanArray = args
        .text(0)?
        .iter()
        .map(|text| text.map(|text| regex.is_match(text)))
        .collect();
    Ok(Arc::new(found))
}

fn replace(args: &Args) -> Result<ArrayRef> {
    let (texts, patterns, by) = (args.text(0)?, args.text(1)?, args.text(2)?);
    let mut compiled: HashMap<&str, Regex> = HashMap::new();
    let mut builder = StringBuilder::new();
    for row in 0..args.rows {
        if texts.is_null(row) || patterns.is_null(row) || by.is_null(row) {
            builder.append_null();
            continue;
        }
        let pattern = patterns.value(row);
        if !compiled.contains_key(pattern) {
            let regex = compile(pattern).or_else(|why| args.wrong(why))?;
            compiled.insert(pattern, regex);
        }
        let Some(regex) = compiled.get(pattern) else {
            continue;
        };
        let parts = template(by.value(row), regex)
            .ok_or_else(|| DataFusionError::Execution(format!(
                "Function[{}] cannot use the replacement [{}]: it names a group that the pattern does not have",
                args.name.to_uppercase(),
                by.value(row)
            )))?;
        let replaced = regex.replace_all(texts.value(row), |captures: &regex::Captures<'_>| {
            let mut out = String::new();
            for part in &parts {
                match part {
                    Part::Text(text) => out.push_str(text),
                    Part::Group(group) => {
                        out.push_str(captures.get(*group).map_or("", |found| found.as_str()));
                    }
                }
            }
            out
        });
        builder.append_value(replaced);
    }
    Ok(Arc::new(builder.finish()))
}

enum Part {
    Text(String),
    Group(usize),
}

/// Java's replacement: `$1`, `${name}`, and a backslash before what stands for itself.
fn template(text: &str, regex: &Regex) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.push(chars.next()?),
            '$' => {
                parts.push(Part::Text(std::mem::take(&mut plain)));
                if chars.peek() == Some(&'{') {
                    chars.next();
                    let name: String = chars.by_ref().take_while(|c| *c != '}').collect();
                    let group = regex.capture_names().position(|known| known == Some(&name))?;
                    parts.push(Part::Group(group));
                    continue;
                }
                let mut group = chars.next()?.to_digit(10)? as usize;
                // More digits belong to the number as long as there is such a group.
                while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                    let longer = group * 10 + digit as usize;
                    if longer >= regex.captures_len() {
                        break;
                    }
                    group = longer;
                    chars.next();
                }
                if group >= regex.captures_len() {
                    return None;
                }
                parts.push(Part::Group(group));
            }
            other => plain.push(other),
        }
    }
    parts.push(Part::Text(plain));
    Some(parts)
}

/// Java's `split`: no empty parts at the end, and none before a match of nothing at the start.
pub(crate) fn split(text: &str, regex: &Regex) -> Vec<String> {
    let mut parts = Vec::new();
    let mut at = 0;
    for found in regex.find_iter(text) {
        if found.end() == 0 || (found.is_empty() && found.start() == text.len()) {
            continue;
        }
        parts.push(text[at..found.start()].to_owned());
        at = found.end();
    }
    if parts.is_empty() {
        return vec![text.to_owned()];
    }
    parts.push(text[at..].to_owned());
    while parts.last().is_some_and(String::is_empty) {
        parts.pop();
    }
    parts
}
