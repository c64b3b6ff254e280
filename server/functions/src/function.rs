//! One shape for all scalar functions: a name, a return type, a body.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use trilith_proto::column::{self, ColumnType, DRUID_TYPE_KEY};

use crate::{multiple, number, text};

type Types = fn(&[DataType]) -> Result<DataType>;
type Body = fn(&Args) -> Result<ArrayRef>;
/// The Druid type of the result where its Arrow type does not say it, from the fields of the arguments.
type Kind = fn(&[FieldRef]) -> Option<ColumnType>;
/// Looks at the literals of a call while it is planned; an argument that is no literal is none.
type Check = fn(&Call<'_>, &[Option<&ScalarValue>]) -> Result<()>;

/// A scalar function.
#[derive(Debug)]
pub(crate) struct Function {
    name: &'static str,
    aliases: Vec<String>,
    least: usize,
    most: usize,
    types: Types,
    body: Body,
    literals: &'static [usize],
    check: Option<Check>,
    complex: Option<&'static str>,
    complex_named: Option<usize>,
    kind: Option<Kind>,
    date: bool,
    /// The result is one of the arguments.
    chooses: bool,
    /// The result is a DATE if the first argument is one.
    keeps_date: bool,
    maps: bool,
    signature: Signature,
}

impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// The function that is called, for messages.
pub(crate) struct Call<'a> {
    pub name: &'static str,
    pub types: &'a [DataType],
}

impl Call<'_> {
    /// An error in Druid's manner.
    pub(crate) fn wrong<T>(&self, what: impl std::fmt::Display) -> Result<T> {
        plan_err!("Function[{}] {what}", self.name.to_uppercase())
    }

    /// The arguments have the wrong types; `forms` are those that fit.
    pub(crate) fn cannot_apply<T>(&self, literals: &[Option<&ScalarValue>], forms: &str) -> Result<T> {
        cannot_apply(self.name, self.types, literals, forms)
    }
}

/// Calcite's words for arguments of the wrong types.
pub(crate) fn cannot_apply<T>(
    name: &str,
    types: &[DataType],
    literals: &[Option<&ScalarValue>],
    forms: &str,
) -> Result<T> {
    let name = name.to_uppercase();
    let types: Vec<String> = types
        .iter()
        .enumerate()
        .map(|(index, data_type)| {
            format!(
                "<{}>",
                sql_type(data_type, literals.get(index).copied().flatten())
            )
        })
        .collect();
    let types = types.join(", ");
    plan_err!("Cannot apply '{name}' to arguments of type '{name}({types})'. Supported form(s): '{forms}'")
}

/// The name of a type in messages. A literal has the narrowest type that holds it.
fn sql_type(data_type: &DataType, literal: Option<&ScalarValue>) -> String {
    match literal {
        Some(ScalarValue::Utf8(Some(text))) => return format!("CHAR({})", text.chars().count()),
        Some(ScalarValue::Int64(Some(value))) if i32::try_from(*value).is_ok() => {
            return "INTEGER".to_owned();
        }
        _ => {}
    }
    match data_type {
        DataType::List(item) => format!("{} ARRAY", sql_type(item.data_type(), None)),
        DataType::Timestamp(..) => "TIMESTAMP(3)".to_owned(),
        DataType::Null => "NULL".to_owned(),
        other => column::sql_type(&Field::new("", other.clone(), true)),
    }
}

/// Refuses a call with too few or too many arguments.
pub(crate) fn check_count(name: &str, count: usize, (least, most): (usize, usize)) -> Result<()> {
    if (least..=most).contains(&count) {
        return Ok(());
    }
    plan_err!(
        "Invalid number of arguments to function '{}'. Was expecting {least} arguments",
        name.to_uppercase()
    )
}

/// How many arguments there may be is not left to the planner, which says it in its own words.
pub(crate) fn any_arguments() -> Signature {
    let any = vec![TypeSignature::VariadicAny, TypeSignature::Nullary];
    Signature::one_of(any, Volatility::Immutable)
}

impl Function {
    /// A function of `least` to `most` arguments of any type.
    pub(crate) fn new(
        name: &'static str,
        (least, most): (usize, usize),
        types: Types,
        body: Body,
    ) -> Function {
        Function {
            name,
            aliases: Vec::new(),
            least,
            most,
            types,
            body,
            literals: &[],
            check: None,
            complex: None,
            complex_named: None,
            kind: None,
            date: false,
            chooses: false,
            keeps_date: false,
            maps: false,
            signature: any_arguments(),
        }
    }

    /// Other names.
    pub(crate) fn alias(mut self, names: &[&str]) -> Function {
        self.aliases = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// Arguments that must be literals.
    pub(crate) fn literals(mut self, places: &'static [usize]) -> Function {
        self.literals = places;
        self
    }

    /// Checks literals while the call is planned.
    pub(crate) fn check(mut self, check: Check) -> Function {
        self.check = Some(check);
        self
    }

    /// The result is COMPLEX of this name, or the array type of it that is given.
    pub(crate) fn complex(mut self, name: &'static str) -> Function {
        self.complex = Some(name);
        self
    }

    /// The result is COMPLEX of the name that a literal argument is.
    pub(crate) fn complex_named(mut self, place: usize) -> Function {
        self.complex_named = Some(place);
        self
    }

    /// The result has a kind that depends on its arguments.
    pub(crate) fn kind(mut self, kind: Kind) -> Function {
        self.kind = Some(kind);
        self
    }

    /// The result is one of the arguments.
    pub(crate) fn chooses(mut self) -> Function {
        self.chooses = true;
        self
    }

    /// The result is a DATE if the first argument is one.
    pub(crate) fn keeps_date(mut self) -> Function {
        self.keeps_date = true;
        self
    }

    /// The result is a DATE.
    pub(crate) fn date(mut self) -> Function {
        self.date = true;
        self
    }

    /// Works on each value of a multi-value string.
    pub(crate) fn maps(mut self) -> Function {
        self.maps = true;
        self
    }

    /// True if a multi-value string among the arguments makes the result one.
    pub(crate) fn is_mapping(&self) -> bool {
        self.maps
    }

    /// Fewest and most arguments.
    pub(crate) fn arguments(&self) -> (usize, usize) {
        (self.least, self.most)
    }

    fn count(&self, count: usize) -> Result<()> {
        check_count(self.name, count, (self.least, self.most))
    }

    fn chooses_dates(&self, fields: &[FieldRef]) -> bool {
        let first = fields.first().is_some_and(|field| column::is_date(field));
        let all = fields.iter().all(|field| column::is_date(field));
        first && (self.keeps_date || self.chooses && all)
    }

    fn run(&self, args: &Args) -> Result<ArrayRef> {
        if self.maps
            && let Some(result) = multiple::mapped(args, self.body)?
        {
            return Ok(result);
        }
        (self.body)(args)
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.count(types.len())?;
        (self.types)(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args
            .arg_fields
            .iter()
            .map(|field| field.data_type().clone())
            .collect();
        let data_type = self.return_type(&types)?;
        let call = Call {
            name: self.name,
            types: &types,
        };
        for place in self.literals {
            let given = args.scalar_arguments.get(*place);
            if matches!(given, Some(None)) {
                return plan_err!(
                    "Argument to function '{}' must be a literal",
                    self.name.to_uppercase()
                );
            }
        }
        if let Some(check) = self.check {
            check(&call, args.scalar_arguments)?;
        }
        let field = Field::new(self.name, data_type, true);
        if let Some(kind) = self.kind.and_then(|kind| kind(args.arg_fields)) {
            return Ok(Arc::new(field.with_metadata(kind_metadata(&kind))));
        }
        let given = self
            .complex_named
            .and_then(|place| args.scalar_arguments.get(place).copied().flatten())
            .and_then(scalar_text);
        Ok(Arc::new(match given.as_deref().or(self.complex) {
            Some(name) => field.with_metadata(complex_metadata(name)),
            None if self.date || self.chooses_dates(args.arg_fields) => {
                field.with_metadata(column::date_metadata())
            }
            None => field,
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args
            .args
            .iter()
            .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let args = Args {
            name: self.name,
            values: args.args,
            fields: args.arg_fields,
            rows: if constant { 1 } else { args.number_rows },
        };
        let array = self.run(&args)?;
        if constant && array.len() == 1 {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
        }
        Ok(ColumnarValue::Array(array))
    }
}

/// Metadata of a field that is COMPLEX of a name, or of an array type.
pub(crate) fn complex_metadata(name: &str) -> HashMap<String, String> {
    let druid_type = if name.starts_with("ARRAY<") {
        name.to_owned()
    } else {
        ColumnType::Complex(name.to_owned()).to_string()
    };
    [(DRUID_TYPE_KEY.to_owned(), druid_type)].into()
}

/// Metadata of a field that has a Druid type which its Arrow type does not say.
pub(crate) fn kind_metadata(kind: &ColumnType) -> HashMap<String, String> {
    [(DRUID_TYPE_KEY.to_owned(), kind.to_string())].into()
}

/// Arguments of a call.
pub(crate) struct Args {
    pub name: &'static str,
    pub values: Vec<ColumnarValue>,
    pub fields: Vec<FieldRef>,
    pub rows: usize,
}

impl Args {
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// An error in Druid's manner.
    pub(crate) fn wrong<T>(&self, what: impl std::fmt::Display) -> Result<T> {
        exec_err!("Function[{}] {what}", self.name.to_uppercase())
    }

    /// Type of an argument.
    pub(crate) fn data_type(&self, index: usize) -> DataType {
        self.values
            .get(index)
            .map_or(DataType::Null, ColumnarValue::data_type)
    }

    /// True if an argument is COMPLEX<json>.
    pub(crate) fn is_json(&self, index: usize) -> bool {
        self.fields
            .get(index)
            .is_some_and(|field| column::of_field(field) == ColumnType::Complex("json".to_owned()))
    }

    /// True if an argument is a DATE.
    pub(crate) fn is_date(&self, index: usize) -> bool {
        self.fields.get(index).is_some_and(|field| column::is_date(field))
    }

    /// An argument as an array.
    pub(crate) fn array(&self, index: usize) -> Result<ArrayRef> {
        match self.values.get(index) {
            Some(value) => value.to_array(self.rows),
            None => self.wrong(format!("needs argument {}", index + 1)),
        }
    }

    /// Text as it is, numbers as Java prints them, times as SQL does, lists as JSON.
    pub(crate) fn text(&self, index: usize) -> Result<StringArray> {
        text::of(&self.array(index)?)
    }

    /// Integers; what is none is NULL.
    pub(crate) fn long(&self, index: usize) -> Result<Int64Array> {
        number::longs(&self.array(index)?)
    }

    /// Doubles; what is none is NULL.
    pub(crate) fn double(&self, index: usize) -> Result<Float64Array> {
        number::doubles(&self.array(index)?)
    }

    /// Milliseconds: of a timestamp, a date, a number, or ISO text.
    pub(crate) fn time(&self, index: usize) -> Result<TimestampMillisecondArray> {
        let array = self.array(index)?;
        if is_text(array.data_type()) {
            let text = self.text(index)?;
            return Ok(text
                .iter()
                .map(|text| text.and_then(|text| crate::time::parse_timestamp(text, "UTC")))
                .collect::<TimestampMillisecondArray>()
                .with_timezone("UTC"));
        }
        let array = match array.data_type() {
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::UInt32
            | DataType::UInt64
            | DataType::Float32
            | DataType::Float64
            | DataType::Null => cast(&array, &DataType::Int64)?,
            _ => array,
        };
        let array = cast(&array, &time_type())?;
        match array.as_any().downcast_ref::<TimestampMillisecondArray>() {
            Some(times) => Ok(times.clone()),
            None => self.wrong(format!("needs a time as argument {}", index + 1)),
        }
    }

    /// A literal text; none when it is NULL or left out.
    pub(crate) fn literal(&self, index: usize) -> Result<Option<String>> {
        match self.values.get(index) {
            None => Ok(None),
            Some(ColumnarValue::Scalar(scalar)) => Ok(scalar_text(scalar)),
            // A constant may have been spread over the rows.
            Some(ColumnarValue::Array(array)) if array.len() == 1 => {
                Ok(scalar_text(&ScalarValue::try_from_array(array, 0)?))
            }
            Some(ColumnarValue::Array(_)) => self.wrong(format!("argument {} must be a literal", index + 1)),
        }
    }

    /// A literal text that must be there.
    pub(crate) fn required(&self, index: usize) -> Result<String> {
        match self.literal(index)? {
            Some(text) => Ok(text),
            None => self.wrong(format!("argument {} must not be NULL", index + 1)),
        }
    }
}

/// The text of a literal; none if it is NULL.
pub(crate) fn scalar_text(scalar: &ScalarValue) -> Option<String> {
    match scalar {
        ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => text.clone(),
        other if other.is_null() => None,
        other => Some(other.to_string()),
    }
}

/// True for VARCHAR.
pub(crate) fn is_text(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

/// True for TIMESTAMP and DATE, and for NULL.
pub(crate) fn is_time(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null
    )
}

/// SQL TIMESTAMP.
pub(crate) fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// Times as an array.
pub(crate) fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMillisecondArray>().with_timezone("UTC"))
}

pub(crate) fn returns_time(_: &[DataType]) -> Result<DataType> {
    Ok(time_type())
}

pub(crate) fn returns_long(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Int64)
}

pub(crate) fn returns_double(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Float64)
}

pub(crate) fn returns_text(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Utf8)
}

pub(crate) fn returns_boolean(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Boolean)
}

/// VARCHAR ARRAY.
pub(crate) fn returns_texts(_: &[DataType]) -> Result<DataType> {
    Ok(list_of(DataType::Utf8))
}

/// An array of a type.
pub(crate) fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}
