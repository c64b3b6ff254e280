//! Aggregates under Druid's names.

use std::sync::Arc;

use datafusion::functions_aggregate::approx_distinct::approx_distinct_udaf;
use datafusion::logical_expr::AggregateUDF;

/// Druid's approximate counts; the estimate is a HyperLogLog of 2^14 registers for all of them.
const APPROXIMATE_COUNTS: [&str; 4] = [
    "approx_count_distinct",
    "approx_count_distinct_builtin",
    "approx_count_distinct_ds_hll",
    "approx_count_distinct_ds_theta",
];

pub(crate) fn functions() -> Vec<Arc<AggregateUDF>> {
    vec![Arc::new(
        approx_distinct_udaf()
            .as_ref()
            .clone()
            .with_aliases(APPROXIMATE_COUNTS),
    )]
}
