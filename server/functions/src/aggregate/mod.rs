//! Aggregates: one shape for all, a name, types, state and an accumulator.

mod any;
mod bits;
mod collect;
mod extreme;
mod extremum;
mod total;
mod variance;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature};
use datafusion::physical_expr::expressions::Literal;
use trilith_proto::column::{self, ColumnType};
use trilith_proto::timed;

use crate::function::{any_arguments, cannot_apply, check_count, complex_metadata};
use crate::sketch;

pub(crate) fn functions() -> Vec<Arc<AggregateUDF>> {
    own()
        .map(|aggregate| Arc::new(AggregateUDF::new_from_impl(aggregate)))
        .chain(total::functions())
        .chain(extreme::functions())
        .collect()
}

/// Aggregates that are defined here.
pub(crate) fn own() -> impl Iterator<Item = Aggregate> {
    [
        extremum::functions(),
        any::functions(),
        bits::functions(),
        collect::functions(),
        variance::functions(),
        sketch::aggregates(),
    ]
    .into_iter()
    .flatten()
}

/// An aggregate.
#[derive(Debug)]
pub(crate) struct Aggregate {
    pub name: &'static str,
    pub aliases: Vec<String>,
    /// Fewest and most arguments.
    pub arguments: (usize, usize),
    pub types: fn(&[DataType]) -> Result<DataType>,
    /// Types of the state columns, from those of the arguments.
    pub state: fn(&[DataType]) -> Vec<DataType>,
    pub make: fn(&Call<'_>) -> Result<Box<dyn Accumulator>>,
    /// The result is COMPLEX of this name, which may depend on the types of the arguments.
    pub complex: Option<fn(&[DataType]) -> &'static str>,
    /// Combines values that a rollup keeps with their times.
    timed: bool,
    /// Counts what differs, which JSON has no order for.
    counts: bool,
    /// Value over no rows.
    pub empty: fn(&DataType) -> Result<ScalarValue>,
    signature: Signature,
}

impl Aggregate {
    pub(crate) fn new(
        name: &'static str,
        arguments: (usize, usize),
        types: fn(&[DataType]) -> Result<DataType>,
        state: fn(&[DataType]) -> Vec<DataType>,
        make: fn(&Call<'_>) -> Result<Box<dyn Accumulator>>,
    ) -> Aggregate {
        Aggregate {
            name,
            aliases: Vec::new(),
            arguments,
            types,
            state,
            make,
            complex: None,
            timed: false,
            counts: false,
            empty: |data_type| ScalarValue::try_from(data_type),
            signature: any_arguments(),
        }
    }

    pub(crate) fn alias(mut self, names: &[&str]) -> Aggregate {
        self.aliases = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    pub(crate) fn complex(mut self, name: fn(&[DataType]) -> &'static str) -> Aggregate {
        self.complex = Some(name);
        self
    }

    pub(crate) fn timed(mut self) -> Aggregate {
        self.timed = true;
        self
    }

    /// The type that an argument counts as.
    fn argument_type(&self, field: &FieldRef) -> DataType {
        let inside = if self.timed {
            timed::value_type(&column::of_field(field))
        } else {
            None
        };
        inside.unwrap_or_else(|| field.data_type().clone())
    }

    pub(crate) fn counts(mut self) -> Aggregate {
        self.counts = true;
        self
    }

    pub(crate) fn empty(mut self, empty: fn(&DataType) -> Result<ScalarValue>) -> Aggregate {
        self.empty = empty;
        self
    }
}

impl PartialEq for Aggregate {
    fn eq(&self, other: &Aggregate) -> bool {
        self.name == other.name
    }
}

impl Eq for Aggregate {}

impl Hash for Aggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl AggregateUDFImpl for Aggregate {
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
        check_count(&shown(self.name), types.len(), self.arguments)?;
        (self.types)(types)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        let types: Vec<DataType> = fields.iter().map(|field| self.argument_type(field)).collect();
        if self.counts
            && let Some(ColumnType::Complex(kind)) = fields.first().map(|field| column::of_field(field))
            && kind == "json"
        {
            return uncountable(self.name, &kind);
        }
        let field = Field::new(self.name, self.return_type(&types)?, true);
        let json = fields.first().map(|first| column::of_field(first))
            == Some(ColumnType::Complex("json".to_owned()));
        if json && matches!(self.name, "array_agg" | "druid_array_agg_distinct") {
            return Ok(Arc::new(
                field.with_metadata(complex_metadata("ARRAY<COMPLEX<json>>")),
            ));
        }
        let date = fields.first().is_some_and(|first| column::is_date(first));
        if date && matches!(field.data_type(), DataType::Timestamp(..)) {
            return Ok(Arc::new(field.with_metadata(column::date_metadata())));
        }
        Ok(Arc::new(match self.complex {
            Some(name) => field.with_metadata(complex_metadata(name(&types))),
            None => field,
        }))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        (self.make)(&Call {
            name: self.name,
            args: &args,
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let types: Vec<DataType> = args
            .input_fields
            .iter()
            .map(|field| self.argument_type(field))
            .collect();
        Ok((self.state)(&types)
            .into_iter()
            .enumerate()
            .map(|(index, data_type)| {
                Arc::new(Field::new(format!("{}[{index}]", args.name), data_type, true))
            })
            .collect())
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        (self.empty)(data_type)
    }
}

/// The name that a statement has for an aggregate.
fn shown(name: &str) -> String {
    let inner = name
        .strip_prefix("druid_")
        .and_then(|name| {
            name.strip_suffix("_distinct")
                .or_else(|| name.strip_suffix("_kept"))
        })
        .or_else(|| name.strip_suffix("_builtin"));
    inner.unwrap_or(name).to_uppercase()
}

fn uncountable<T>(name: &str, kind: &str) -> Result<T> {
    if name == "druid_count_distinct" {
        return plan_err!(
            "Using APPROX_COUNT_DISTINCT() or enabling approximation with COUNT(DISTINCT) is not supported for column \
             type [COMPLEX<{kind}>]. You can disable approximation by setting [useApproximateCountDistinct: false] in \
             the query context."
        );
    }
    let (name, kind) = (shown(name), kind.to_uppercase());
    let forms = forms(&name);
    plan_err!(
        "Cannot apply '{name}' to arguments of type '{name}(<COMPLEX<{kind}>>)'. Supported form(s): '{forms}'"
    )
}

/// A call of an aggregate.
pub(crate) struct Call<'a> {
    pub name: &'static str,
    args: &'a AccumulatorArgs<'a>,
}

impl Call<'_> {
    pub(crate) fn is_distinct(&self) -> bool {
        self.args.is_distinct
    }

    /// How many arguments there are.
    pub(crate) fn count(&self) -> usize {
        self.args.exprs.len()
    }

    /// True if an argument is a literal.
    pub(crate) fn is_literal(&self, index: usize) -> bool {
        let expr = self.args.exprs.get(index);
        expr.is_some_and(|expr| expr.downcast_ref::<Literal>().is_some())
    }

    /// The kind of an argument that is COMPLEX.
    pub(crate) fn complex(&self, index: usize) -> Option<String> {
        match column::of_field(self.args.expr_fields.get(index)?) {
            ColumnType::Complex(kind) => Some(kind),
            _ => None,
        }
    }

    /// Type of the values that an argument keeps with their times.
    pub(crate) fn timed(&self, index: usize) -> Option<DataType> {
        timed::value_type(&column::of_field(self.args.expr_fields.get(index)?))
    }

    /// Type of an argument.
    pub(crate) fn data_type(&self, index: usize) -> DataType {
        self.args
            .expr_fields
            .get(index)
            .map_or(DataType::Null, |field| field.data_type().clone())
    }

    /// An error in Druid's manner.
    pub(crate) fn wrong<T>(&self, what: impl std::fmt::Display) -> Result<T> {
        plan_err!("Aggregation [{}] {what}", shown(self.name))
    }

    /// An argument has the wrong type.
    pub(crate) fn cannot_apply<T>(&self) -> Result<T> {
        let types: Vec<DataType> = (0..self.count()).map(|index| self.data_type(index)).collect();
        let literals: Vec<Option<&ScalarValue>> = self
            .args
            .exprs
            .iter()
            .map(|expr| expr.downcast_ref::<Literal>().map(Literal::value))
            .collect();
        let name = shown(self.name);
        cannot_apply(&name, &types, &literals, &forms(&name))
    }

    /// A literal argument; none if it is left out.
    pub(crate) fn literal(&self, index: usize) -> Result<Option<ScalarValue>> {
        match self.args.exprs.get(index) {
            None => Ok(None),
            Some(expr) => match expr.downcast_ref::<Literal>() {
                Some(literal) if literal.value().is_null() => plan_err!("Illegal use of 'NULL'"),
                Some(literal) => Ok(Some(literal.value().clone())),
                None => plan_err!("Argument to function '{}' must be a literal", shown(self.name)),
            },
        }
    }

    /// A literal argument, where it has a meaning.
    pub(crate) fn literal_if(&self, has: bool, index: usize) -> Result<Option<ScalarValue>> {
        if has { self.literal(index) } else { Ok(None) }
    }

    /// A literal number; the default if it is left out.
    pub(crate) fn number(&self, index: usize, default: i64) -> Result<i64> {
        match self.literal(index)? {
            None => Ok(default),
            Some(scalar) if scalar.data_type().is_integer() => match scalar.cast_to(&DataType::Int64)? {
                ScalarValue::Int64(Some(number)) => Ok(number),
                _ => self.cannot_apply(),
            },
            Some(_) => self.cannot_apply(),
        }
    }
}

/// The forms of an aggregate, for messages.
fn forms(name: &str) -> String {
    let rest = match name {
        "ANY_VALUE" => "<expr>, [<maxBytesPerStringInt>, [<aggregateMultipleValuesBoolean>]]",
        "EARLIEST_BY" | "LATEST_BY" => "<expr>, <timeColumn>, [<maxBytesPerStringInt>]",
        "APPROX_QUANTILE_DS" => "<expr>, <probability>, [<kInt>]",
        "STRING_AGG" => "<expr>, <separator>, [<sizeInt>]",
        "VAR_POP" | "VAR_SAMP" | "VARIANCE" | "STDDEV_POP" | "STDDEV_SAMP" | "STDDEV" => "<expr>",
        _ => "<expr>, [<sizeInt>]",
    };
    format!("{name}({rest})")
}
