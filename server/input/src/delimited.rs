//! CSV and TSV lines.

use crate::columns::Value;
use crate::format::Delimited;
use crate::json_columns::written;
use crate::number::cell_number;

/// What is between quoted cells.
const COMMA: char = ',';

/// The line is malformed.
pub(crate) struct Malformed;

/// One cell: its text, or null.
pub(crate) type Cell = Option<String>;

/// Cells of a line.
pub(crate) fn cells(line: &str, format: &Delimited) -> Result<Vec<Cell>, Malformed> {
    if !format.quoted {
        let cell = |cell: &str| (!cell.is_empty()).then(|| cell.to_owned());
        let delimiter = format.delimiter.as_str();
        let mut characters = delimiter.chars();
        // One character, the usual delimiter, is found faster than any text.
        return Ok(match (characters.next(), characters.next()) {
            (Some(one), None) => line.split(one).map(cell).collect(),
            _ => line.split(delimiter).map(cell).collect(),
        });
    }
    let mut cells = Vec::new();
    let mut rest = line;
    loop {
        let (cell, after) = match rest.strip_prefix('"') {
            Some(inside) => quoted(inside)?,
            None => {
                let end = rest.find(COMMA).unwrap_or(rest.len());
                let cell = &rest[..end];
                ((!cell.is_empty()).then(|| cell.to_owned()), &rest[end..])
            }
        };
        cells.push(cell);
        match after.strip_prefix(COMMA) {
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
    match cell {
        Some(text) => cell_value(text, &format.list_delimiter, format.parse_numbers, scratch),
        None => Value::Null,
    }
}

/// What a text means that is a list if it has the delimiter in it.
pub(crate) fn cell_value<'a>(
    text: &'a str,
    list_delimiter: &str,
    numbers: bool,
    scratch: &'a mut String,
) -> Value<'a> {
    if !list_delimiter.is_empty() && text.contains(list_delimiter) {
        let item = |item: &str| {
            let number = numbers.then(|| cell_number(item)).flatten();
            number.unwrap_or_else(|| serde_json::Value::from(item))
        };
        let items: serde_json::Value = text.split(list_delimiter).map(item).collect();
        *scratch = items.to_string();
        return Value::Nested(scratch);
    }
    match numbers.then(|| cell_number(text)).flatten() {
        Some(number) => written(Some(number), scratch),
        None => Value::Text(text),
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
