//! Where the columns of a statement are in JSON records.

use serde_json::Value as Json;

use crate::columns::Value;
use crate::flatten::{Expression, Flatten};
use crate::json_value;

/// For each column of the statement, its place in a record.
pub(crate) struct JsonColumns {
    /// Fields of the record that the scanner finds, each once.
    fields: Vec<String>,
    places: Vec<Place>,
    /// Column `i` is field `i`.
    direct: bool,
}

enum Place {
    /// Number of the field.
    Field(usize),
    Deeper(Expression),
}

impl JsonColumns {
    pub(crate) fn new(columns: &[String], flatten: &Flatten) -> JsonColumns {
        let mut fields: Vec<String> = Vec::new();
        let mut direct = true;
        let places = columns
            .iter()
            .enumerate()
            .map(|(index, column)| match flatten.column(column) {
                Expression::Root(name) => {
                    let field = fields.iter().position(|field| *field == name).unwrap_or_else(|| {
                        fields.push(name);
                        fields.len() - 1
                    });
                    direct &= field == index;
                    Place::Field(field)
                }
                deeper => {
                    direct = false;
                    Place::Deeper(deeper)
                }
            })
            .collect();
        JsonColumns {
            fields,
            places,
            direct,
        }
    }

    /// Names of the fields that the scanner must find.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(String::as_str)
    }

    /// How many fields.
    pub(crate) fn slots(&self) -> usize {
        self.fields.len()
    }

    /// The values of the scanner are the values of the columns.
    pub(crate) fn are_fields(&self) -> bool {
        self.direct
    }

    /// Values of the columns, from the fields and the whole record. `scratch` holds what was made for them.
    /// None if the record is malformed where the scanner did not look.
    pub(crate) fn evaluate<'v>(
        &self,
        record: &str,
        fields: &[Value<'v>],
        scratch: &'v mut Vec<String>,
    ) -> Option<Vec<Value<'v>>> {
        let json = json_value::read(record)?;
        scratch.resize(self.places.len(), String::new());
        let values = self
            .places
            .iter()
            .zip(scratch.iter_mut())
            .map(|(place, scratch)| match place {
                Place::Field(field) => fields.get(*field).copied().unwrap_or(Value::Null),
                Place::Deeper(expression) => written(expression.evaluate(&json), scratch),
            });
        Some(values.collect())
    }
}

/// A value that was computed, as one that was read. `scratch` holds its text.
pub(crate) fn written(value: Option<Json>, scratch: &mut String) -> Value<'_> {
    match value {
        None | Some(Json::Null) => Value::Null,
        Some(Json::Bool(value)) => Value::Bool(value),
        Some(Json::String(text)) => {
            *scratch = text;
            Value::Text(scratch)
        }
        Some(Json::Number(number)) => {
            *scratch = number.to_string();
            Value::Number(scratch)
        }
        Some(nested) => {
            *scratch = nested.to_string();
            Value::Nested(scratch)
        }
    }
}
