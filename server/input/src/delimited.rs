//! CSV and TSV lines.

use crate::columns::Value;
use crate::spec::Delimited;

/// The line is malformed.
pub(crate) struct Malformed;

/// One cell: its text, or null.
pub(crate) type Cell = Option<String>;

/// Cells of a line.
pub(crate) fn cells(line: &str, format: &Delimited) -> Result<Vec<Cell>, Malformed> {
    if !format.quoted {
        return Ok(line
            .split(format.delimiter)
            .map(|cell| (!cell.is_empty()).then(|| cell.to_owned()))
            .collect());
    }
    let mut cells = Vec::new();
    let mut rest = line;
    loop {
        let (cell, after) = match rest.strip_prefix('"') {
            Some(inside) => quoted(inside)?,
            None => {
                let end = rest.find(format.delimiter).unwrap_or(rest.len());
                let cell = &rest[..end];
                ((!cell.is_empty()).then(|| cell.to_owned()), &rest[end..])
            }
        };
        cells.push(cell);
        match after.strip_prefix(format.delimiter) {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(cells),
            None => return Err(Malformed),
        }
    }
}

/// A quoted cell, and what follows its closing quote.
fn quoted(inside: &str) -> Result<(Cell, &str), Malformed> {
    let mut text = String::new();
    let mut rest = inside;
    loop {
        let end = rest.find('"').ok_or(Malformed)?;
        text.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                text.push('"');
                rest = more;
            }
            None => return Ok((Some(text), rest)),
        }
    }
}

/// What a cell means: null, a list, a number if numbers are asked for, or text. `scratch` holds a list.
pub(crate) fn value<'a>(cell: &'a Cell, format: &Delimited, scratch: &'a mut String) -> Value<'a> {
    let Some(text) = cell else { return Value::Null };
    if !format.list_delimiter.is_empty() && text.contains(&format.list_delimiter) {
        let items: Vec<Option<&str>> = text
            .split(format.list_delimiter.as_str())
            .map(|item| (!item.is_empty()).then_some(item))
            .collect();
        *scratch = serde_json::to_string(&items).unwrap_or_default();
        return Value::Nested(scratch);
    }
    let number = format.parse_numbers
        && (text.parse::<i64>().is_ok() || (text.parse::<f64>().is_ok_and(f64::is_finite)));
    if number {
        Value::Number(text)
    } else {
        Value::Text(text)
    }
}

/// Names of a header line; an empty one is numbered.
pub(crate) fn header(cells: Vec<Cell>) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::with_capacity(cells.len());
    for (index, cell) in cells.into_iter().enumerate() {
        let name = cell
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| format!("column_{}", index + 1));
        if names.contains(&name) {
            return Err(format!("column [{name}] appears twice in the header"));
        }
        names.push(name);
    }
    Ok(names)
}
