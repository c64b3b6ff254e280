//! SUM and AVG, which also take text and booleans: the planner casts them to numbers.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature, Volatility,
};

use crate::function::check_count;

pub(super) fn functions() -> Vec<Arc<AggregateUDF>> {
    let total = |inner: Arc<AggregateUDF>, whole| {
        Arc::new(AggregateUDF::new_from_impl(Total {
            inner,
            whole,
            signature: Signature::user_defined(Volatility::Immutable),
        }))
    };
    vec![total(sum_udaf(), true), total(avg_udaf(), false)]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Total {
    inner: Arc<AggregateUDF>,
    /// Integers stay integers.
    whole: bool,
    signature: Signature,
}

impl AggregateUDFImpl for Total {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        check_count(self.inner.name(), types.len(), (1, 1))?;
        let data_type = types.first().unwrap_or(&DataType::Null);
        let whole = data_type.is_integer() || matches!(data_type, DataType::Boolean | DataType::Null);
        Ok(vec![if data_type.is_decimal() {
            data_type.clone()
        } else if whole && self.whole {
            DataType::Int64
        } else {
            DataType::Float64
        }])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner.create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.create_sliding_accumulator(args)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }
}
