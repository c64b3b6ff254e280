//! Druid's column types and their Arrow form.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use serde::{Deserialize, Serialize};

/// Key in an Arrow field's metadata that holds the Druid type where the Arrow type does not say it.
pub const DRUID_TYPE_KEY: &str = "druid:type";
/// Key in an Arrow field's metadata that holds the SQL type where a timestamp is a DATE: the start of a day.
const SQL_TYPE_KEY: &str = "druid:sql-type";
const DATE: &str = "DATE";

/// Metadata of a timestamp that is a DATE.
pub fn date_metadata() -> HashMap<String, String> {
    [(SQL_TYPE_KEY.to_owned(), DATE.to_owned())].into()
}

/// True for a DATE, also when it is kept as the instant at which its day begins.
pub fn is_date(field: &Field) -> bool {
    match field.data_type() {
        DataType::Date32 | DataType::Date64 => true,
        DataType::Timestamp(..) => field
            .metadata()
            .get(SQL_TYPE_KEY)
            .is_some_and(|name| name == DATE),
        _ => false,
    }
}

/// A native type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum ColumnType {
    /// Text; a multi-value string has its values as [`crate::multi_value`] says.
    String,
    /// 64-bit integer, also times and booleans.
    Long,
    /// 64-bit float.
    Double,
    /// 32-bit float.
    Float,
    /// Array of an element type.
    Array(Box<ColumnType>),
    /// `COMPLEX<name>`, for example json or a sketch.
    Complex(String),
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ColumnType::String => f.write_str("STRING"),
            ColumnType::Long => f.write_str("LONG"),
            ColumnType::Double => f.write_str("DOUBLE"),
            ColumnType::Float => f.write_str("FLOAT"),
            ColumnType::Array(item) => write!(f, "ARRAY<{item}>"),
            ColumnType::Complex(name) => write!(f, "COMPLEX<{name}>"),
        }
    }
}

impl From<ColumnType> for String {
    fn from(column_type: ColumnType) -> String {
        column_type.to_string()
    }
}

impl TryFrom<String> for ColumnType {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        ColumnType::parse(&text).ok_or_else(|| format!("unknown column type [{text}]"))
    }
}

fn inner<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix)
        .then(|| text[prefix.len()..].strip_suffix('>'))
        .flatten()
}

impl ColumnType {
    /// The type that can hold values of both; none if there is none.
    pub fn least_restrictive(&self, other: &ColumnType) -> Option<ColumnType> {
        use ColumnType::{Array, Complex, Double, Float, Long, String};
        let json = |name: &str| name == "json";
        Some(match (self, other) {
            (one, same) if one == same => one.clone(),
            (Complex(name), _) | (_, Complex(name)) if json(name) => Complex(name.clone()),
            (Complex(_), _) | (_, Complex(_)) => return None,
            (Array(one), Array(two)) => Array(Box::new(one.least_restrictive(two)?)),
            (Array(item), one) | (one, Array(item)) => Array(Box::new(item.least_restrictive(one)?)),
            (String, _) | (_, String) => String,
            (Long, number) | (number, Long) => number.clone(),
            (Double | Float, Double | Float) => Double,
        })
    }

    /// Reads "string", "ARRAY<LONG>", "COMPLEX<json>", … in any case.
    pub fn parse(text: &str) -> Option<ColumnType> {
        let text = text.trim();
        if let Some(item) = inner(text, "ARRAY<") {
            return Some(ColumnType::Array(Box::new(ColumnType::parse(item)?)));
        }
        if let Some(name) = inner(text, "COMPLEX<") {
            return Some(ColumnType::Complex(name.to_owned()));
        }
        match text.to_ascii_uppercase().as_str() {
            "STRING" => Some(ColumnType::String),
            "LONG" => Some(ColumnType::Long),
            "DOUBLE" => Some(ColumnType::Double),
            "FLOAT" => Some(ColumnType::Float),
            "JSON" => Some(ColumnType::Complex("json".into())),
            _ => None,
        }
    }
}

/// Arrow type of Druid's TIMESTAMP.
pub fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some(Arc::from("UTC")))
}

/// The Arrow field of a column; `is_time` makes a LONG a timestamp.
pub fn to_field(name: &str, column_type: &ColumnType, is_time: bool) -> Field {
    let marked = |data_type| {
        let metadata = [(DRUID_TYPE_KEY.to_owned(), column_type.to_string())];
        Field::new(name, data_type, true).with_metadata(metadata.into())
    };
    match column_type {
        ColumnType::String => Field::new(name, DataType::Utf8, true),
        ColumnType::Long if is_time => Field::new(name, time_type(), true),
        ColumnType::Long => Field::new(name, DataType::Int64, true),
        ColumnType::Double => Field::new(name, DataType::Float64, true),
        ColumnType::Float => Field::new(name, DataType::Float32, true),
        ColumnType::Array(item) => {
            let item = to_field("item", item, false);
            Field::new(name, DataType::List(Arc::new(item)), true)
        }
        ColumnType::Complex(complex) if complex == "json" => marked(DataType::Utf8),
        ColumnType::Complex(_) => marked(DataType::Binary),
    }
}

/// The Druid type of an Arrow field; its metadata wins over its Arrow type.
pub fn of_field(field: &Field) -> ColumnType {
    match field
        .metadata()
        .get(DRUID_TYPE_KEY)
        .and_then(|text| ColumnType::parse(text))
    {
        Some(column_type) => column_type,
        None => of_type(field.data_type()),
    }
}

/// The Druid type of an Arrow type.
pub fn of_type(data_type: &DataType) -> ColumnType {
    match data_type {
        DataType::Float16 | DataType::Float32 => ColumnType::Float,
        DataType::Float64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => ColumnType::Double,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            ColumnType::Array(Box::new(of_field(item)))
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            ColumnType::Complex("binary".into())
        }
        DataType::Dictionary(_, value) => of_type(value),
        data_type if data_type.is_integer() || data_type.is_temporal() => ColumnType::Long,
        DataType::Boolean => ColumnType::Long,
        _ => ColumnType::String,
    }
}

/// The SQL type that results show for a field: "VARCHAR", "BIGINT", "TIMESTAMP", …
pub fn sql_type(field: &Field) -> String {
    if matches!(of_field(field), ColumnType::Complex(_)) {
        return "OTHER".to_owned();
    }
    if is_date(field) {
        return DATE.to_owned();
    }
    let name = match field.data_type() {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => "INTEGER",
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "BIGINT",
        DataType::Float16 | DataType::Float32 => "FLOAT",
        DataType::Float64 => "DOUBLE",
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => "DECIMAL",
        DataType::Timestamp(..) => "TIMESTAMP",
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => "ARRAY",
        _ => "VARCHAR",
    };
    name.to_owned()
}
