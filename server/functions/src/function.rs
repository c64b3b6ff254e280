//! One shape for all scalar functions: a name, a return type, a body.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

type Types = fn(&[DataType]) -> Result<DataType>;
type Body = fn(&Args) -> Result<ArrayRef>;

/// A scalar function.
#[derive(Debug)]
pub(crate) struct Function {
    name: &'static str,
    aliases: Vec<String>,
    least: usize,
    most: usize,
    types: Types,
    body: Body,
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

impl Function {
    /// A function of `least` to `most` arguments of any type.
    pub(crate) fn new(
        name: &'static str,
        (least, most): (usize, usize),
        types: Types,
        body: Body,
    ) -> Function {
        let any = (least..=most.min(least + 8))
            .map(|count| {
                if count == 0 {
                    TypeSignature::Nullary
                } else {
                    TypeSignature::Any(count)
                }
            })
            .collect();
        let signature = if most > least + 8 {
            Signature::variadic_any(Volatility::Immutable)
        } else {
            Signature::one_of(any, Volatility::Immutable)
        };
        Function {
            name,
            aliases: Vec::new(),
            least,
            most,
            types,
            body,
            signature,
        }
    }

    /// Other names.
    pub(crate) fn alias(mut self, names: &[&str]) -> Function {
        self.aliases = names.iter().map(|name| (*name).to_owned()).collect();
        self
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
        if types.len() < self.least || types.len() > self.most {
            return plan_err!(
                "Invalid number of arguments to function '{}'",
                self.name.to_uppercase()
            );
        }
        (self.types)(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args
            .args
            .iter()
            .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let args = Args {
            name: self.name,
            values: args.args,
            rows: if constant { 1 } else { args.number_rows },
        };
        let array = (self.body)(&args)?;
        if constant && array.len() == 1 {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
        }
        Ok(ColumnarValue::Array(array))
    }
}

/// Arguments of a call.
pub(crate) struct Args {
    pub name: &'static str,
    pub values: Vec<ColumnarValue>,
    pub rows: usize,
}

impl Args {
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Type of an argument.
    pub(crate) fn data_type(&self, index: usize) -> DataType {
        self.values
            .get(index)
            .map_or(DataType::Null, ColumnarValue::data_type)
    }

    /// An argument as an array.
    pub(crate) fn array(&self, index: usize) -> Result<ArrayRef> {
        match self.values.get(index) {
            Some(value) => value.to_array(self.rows),
            None => exec_err!(
                "argument {} of {} is missing",
                index + 1,
                self.name.to_uppercase()
            ),
        }
    }

    fn typed<T: Array + Clone + 'static>(&self, index: usize, data_type: &DataType) -> Result<T> {
        let array = self.array(index)?;
        let array = if array.data_type() == data_type {
            array
        } else {
            cast(&array, data_type)?
        };
        match array.as_any().downcast_ref::<T>() {
            Some(typed) => Ok(typed.clone()),
            None => exec_err!(
                "argument {} of {} has a wrong type",
                index + 1,
                self.name.to_uppercase()
            ),
        }
    }

    pub(crate) fn text(&self, index: usize) -> Result<StringArray> {
        self.typed(index, &DataType::Utf8)
    }

    pub(crate) fn long(&self, index: usize) -> Result<Int64Array> {
        self.typed(index, &DataType::Int64)
    }

    pub(crate) fn double(&self, index: usize) -> Result<Float64Array> {
        self.typed(index, &DataType::Float64)
    }

    /// Milliseconds: of a timestamp, a date, a number, or ISO text.
    pub(crate) fn time(&self, index: usize) -> Result<TimestampMillisecondArray> {
        let array = self.array(index)?;
        if matches!(
            array.data_type(),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
        ) {
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
            | DataType::Null => cast(&array, &DataType::Int64)?,
            _ => array,
        };
        let array = cast(&array, &time_type())?;
        match array.as_any().downcast_ref::<TimestampMillisecondArray>() {
            Some(times) => Ok(times.clone()),
            None => exec_err!(
                "argument {} of {} is no time",
                index + 1,
                self.name.to_uppercase()
            ),
        }
    }

    /// A literal text; none when it is NULL or left out.
    pub(crate) fn literal(&self, index: usize) -> Result<Option<String>> {
        match self.values.get(index) {
            None => Ok(None),
            Some(ColumnarValue::Scalar(scalar)) => match scalar {
                ScalarValue::Null => Ok(None),
                ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => {
                    Ok(text.clone())
                }
                other if other.is_null() => Ok(None),
                other => Ok(Some(other.to_string())),
            },
            Some(ColumnarValue::Array(_)) => {
                exec_err!(
                    "argument {} of {} must be a literal",
                    index + 1,
                    self.name.to_uppercase()
                )
            }
        }
    }

    /// A literal text that must be there.
    pub(crate) fn required(&self, index: usize) -> Result<String> {
        match self.literal(index)? {
            Some(text) => Ok(text),
            None => exec_err!(
                "argument {} of {} must not be NULL",
                index + 1,
                self.name.to_uppercase()
            ),
        }
    }
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
