//! Aggregates: one shape for all, a name, types, state and an accumulator.

mod any;
mod collect;
mod extremum;
mod total;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::functions_aggregate::variance::var_samp_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::physical_expr::expressions::Literal;

use crate::function::complex_metadata;
use crate::sketch;

pub(crate) fn functions() -> Vec<Arc<AggregateUDF>> {
    let variance = var_samp_udaf().as_ref().clone().with_aliases(["variance"]);
    own()
        .map(|aggregate| Arc::new(AggregateUDF::new_from_impl(aggregate)))
        .chain([Arc::new(variance)])
        .chain(total::functions())
        .collect()
}

/// Aggregates that are defined here.
pub(crate) fn own() -> impl Iterator<Item = Aggregate> {
    [
        extremum::functions(),
        any::functions(),
        collect::functions(),
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
    /// The result is COMPLEX of this name.
    pub complex: Option<&'static str>,
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
        let any = (arguments.0..=arguments.1).map(TypeSignature::Any).collect();
        Aggregate {
            name,
            aliases: Vec::new(),
            arguments,
            types,
            state,
            make,
            complex: None,
            empty: |data_type| ScalarValue::try_from(data_type),
            signature: Signature::one_of(any, Volatility::Immutable),
        }
    }

    pub(crate) fn alias(mut self, names: &[&str]) -> Aggregate {
        self.aliases = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    pub(crate) fn complex(mut self, name: &'static str) -> Aggregate {
        self.complex = Some(name);
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
        let (least, most) = self.arguments;
        if types.len() < least || types.len() > most {
            return plan_err!(
                "Invalid number of arguments to function '{}'",
                self.name.to_uppercase()
            );
        }
        (self.types)(types)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        let types: Vec<DataType> = fields.iter().map(|field| field.data_type().clone()).collect();
        let field = Field::new(self.name, self.return_type(&types)?, true);
        Ok(Arc::new(match self.complex {
            Some(name) => field.with_metadata(complex_metadata(name)),
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
            .map(|field| field.data_type().clone())
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

    /// Type of an argument.
    pub(crate) fn data_type(&self, index: usize) -> DataType {
        self.args
            .expr_fields
            .get(index)
            .map_or(DataType::Null, |field| field.data_type().clone())
    }

    /// An error in Druid's manner.
    pub(crate) fn wrong<T>(&self, what: impl std::fmt::Display) -> Result<T> {
        plan_err!("Aggregation [{}] {what}", self.name.to_uppercase())
    }

    /// A literal argument; none if it is left out.
    pub(crate) fn literal(&self, index: usize) -> Result<Option<ScalarValue>> {
        match self.args.exprs.get(index) {
            None => Ok(None),
            Some(expr) => match expr.downcast_ref::<Literal>() {
                Some(literal) => Ok(Some(literal.value().clone())),
                None => self.wrong(format!("needs a literal as argument {}", index + 1)),
            },
        }
    }

    /// A literal argument, where it has a meaning.
    pub(crate) fn literal_if(&self, has: bool, index: usize) -> Result<Option<ScalarValue>> {
        if has { self.literal(index) } else { Ok(None) }
    }

    /// A literal number; the default if it is left out.
    pub(crate) fn number(&self, index: usize, name: &str, default: i64) -> Result<i64> {
        match self.literal(index)? {
            None => Ok(default),
            Some(scalar) if scalar.data_type().is_integer() => match scalar.cast_to(&DataType::Int64)? {
                ScalarValue::Int64(Some(number)) => Ok(number),
                _ => self.wrong(format!("parameter `{name}` must be a numeric literal")),
            },
            Some(_) => self.wrong(format!("parameter `{name}` must be a numeric literal")),
        }
    }
}
