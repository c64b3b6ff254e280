//! Druid's functions that DataFusion does not have, or has with other rules.
//!
//! Every function can be found by its name alone, so that a plan can be rebuilt in another process.

mod aggregate;
mod array;
mod cast;
mod function;
mod json;
mod number;
mod pattern;
mod period;
mod string;
mod time;
mod zone;

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};

pub use time::parse_timestamp;
pub use zone::is_time_zone;

/// Scalar functions.
pub fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    [
        time::functions(),
        cast::functions(),
        string::functions(),
        number::functions(),
        array::functions(),
        json::functions(),
    ]
    .into_iter()
    .flatten()
    .map(|function| Arc::new(ScalarUDF::new_from_impl(function)))
    .collect()
}

/// Aggregate functions.
pub fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    aggregate::functions()
}

/// Window functions.
pub fn window_functions() -> Vec<Arc<WindowUDF>> {
    Vec::new()
}

/// Adds all functions to a registry; they win over functions of the same name.
pub fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    for function in scalar_functions() {
        registry.register_udf(function)?;
    }
    for function in aggregate_functions() {
        registry.register_udaf(function)?;
    }
    for function in window_functions() {
        registry.register_udwf(function)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
