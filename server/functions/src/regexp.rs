//! Functions with Java's regular expressions.

mod classes;
mod pattern;
mod translation;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, StringArray, StringBuilder};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::Result;

pub use pattern::{Captures, JavaPattern, PatternError};

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
        Some(pattern) => match compile(&pattern) {
            Err(PatternError::Invalid { why, .. }) => plan_err!(
                "An invalid pattern [{pattern}] was provided for the [{}] function, error: [{why}]",
                call.name
            ),
            _ => Ok(()),
        },
        None => Ok(()),
    }
}

/// A pattern of Java that is searched for anywhere in a text.
pub(crate) fn compile(pattern: &str) -> std::result::Result<JavaPattern, PatternError> {
    JavaPattern::new(pattern)
}

fn literal(args: &Args) -> Result<Option<JavaPattern>> {
    args.literal(1)?
        .map(|pattern| compile(&pattern).or_else(|why| args.wrong(why)))
        .transpose()
}

fn extract(args: &Args) -> Result<ArrayRef> {
    let Some(regex) = literal(args)? else {
        return Ok(Arc::new(StringArray::new_null(args.rows)));
    };
    let group = args.literal(2)?.unwrap_or_else(|| "0".to_owned());
    // A group that the pattern does not have matters once something matches.
    let number = group.parse().unwrap_or(usize::MAX);
    let texts = args.text(0)?;
    let mut builder = StringBuilder::new();
    for text in &texts {
        let Some(text) = text else {
            builder.append_null();
            continue;
        };
        if number == 0 {
            builder.append_option(regex.find(text).or_else(|why| args.wrong(why))?);
            continue;
        }
        let found = match regex.captures(text).or_else(|why| args.wrong(why))? {
            Some(_) if number >= regex.captures_len() => {
                return args.wrong(format!("group [{group}] is not in the pattern"));
            }
            Some(captures) => captures.get(number),
            None => None,
        };
        builder.append_option(found);
    }
    Ok(Arc::new(builder.finish()))
}

fn like(args: &Args) -> Result<ArrayRef> {
    let Some(regex) = literal(args)? else {
        return Ok(Arc::new(BooleanArray::new_null(args.rows)));
    };
    let texts = args.text(0)?;
    let found: std::result::Result<BooleanArray, PatternError> = texts
        .iter()
        .map(|text| text.map(|text| regex.matches(text)).transpose())
        .collect();
    Ok(Arc::new(found.or_else(|why| args.wrong(why))?))
}

/// Why a text is not replaced.
#[derive(Debug, thiserror::Error)]
enum ReplaceError {
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error("cannot use the replacement [{0}]: it names a group that the pattern does not have")]
    Template(String),
}

fn replace(args: &Args) -> Result<ArrayRef> {
    let (texts, patterns, by) = (args.text(0)?, args.text(1)?, args.text(2)?);
    let mut compiled: HashMap<&str, JavaPattern> = HashMap::new();
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
        let replaced = replaced(texts.value(row), regex, by.value(row)).or_else(|why| args.wrong(why))?;
        builder.append_value(replaced);
    }
    Ok(Arc::new(builder.finish()))
}

fn replaced<'t>(
    text: &'t str,
    regex: &JavaPattern,
    by: &str,
) -> std::result::Result<Cow<'t, str>, ReplaceError> {
    let mut parts: Option<Vec<Part>> = None;
    regex.replace_all(text, |captures, out| {
        // The replacement is read once something matches.
        let parts = match &mut parts {
            Some(parts) => parts,
            None => {
                let read = template(by, regex).ok_or_else(|| ReplaceError::Template(by.to_owned()))?;
                parts.insert(read)
            }
        };
        for part in parts.iter() {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Group(group) => out.push_str(captures.get(*group).unwrap_or_default()),
            }
        }
        Ok(())
    })
}

enum Part {
    Text(String),
    Group(usize),
}

/// Java's replacement: `$1`, `${name}`, and a backslash before what stands for itself.
fn template(text: &str, regex: &JavaPattern) -> Option<Vec<Part>> {
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
                    parts.push(Part::Group(regex.group(&name)?));
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
