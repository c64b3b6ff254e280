//! Druid's functions that DataFusion does not have, or has with other rules.
//!
//! Every function can be found by its name alone, so that a plan can be rebuilt in another process.

mod aggregate;
mod array;
mod array_search;
mod bits;
mod cast;
mod complex;
mod format;
mod function;
mod ip;
mod json;
mod json_path;
mod make_array;
mod multi_value;
mod multiple;
mod number;
mod pattern;
mod period;
mod readable;
mod reduce;
mod regexp;
mod routines;
mod sketch;
mod string;
mod text;
mod time;
mod widen;
mod zone;

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, ScalarUDFImpl, WindowUDF};

pub use complex::is_binary_kind;
pub use regexp::{Captures, JavaPattern, PatternError};
pub use routines::{Routine, routines};
pub use text::json_text;
pub use time::{illegal_timestamp, parse_interval, parse_timestamp, time_bucket};
pub use widen::widened;
pub use zone::is_time_zone;

/// Scalar functions.
pub fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    let own = all().map(|function| Arc::new(ScalarUDF::new_from_impl(function)));
    own.chain([Arc::new(ScalarUDF::new_from_impl(make_array::Items::default()))])
        .collect()
}

fn all() -> impl Iterator<Item = function::Function> {
    [
        time::functions(),
        cast::functions(),
        string::functions(),
        regexp::functions(),
        format::functions(),
        number::functions(),
        bits::functions(),
        readable::functions(),
        reduce::functions(),
        ip::functions(),
        array::functions(),
        array_search::functions(),
        multi_value::functions(),
        json::functions(),
        sketch::functions(),
    ]
    .into_iter()
    .flatten()
}

/// When the result of a function is a multi-value string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MultiValue {
    /// Whatever the arguments are.
    Always,
    /// If an argument is one.
    OfArguments,
}

/// Whether the result of a function, by its name, may be a multi-value string; none if it cannot.
pub fn multi_value_result(name: &str) -> Option<MultiValue> {
    static MAPPING: OnceLock<HashSet<String>> = OnceLock::new();
    const MADE: [&str; 10] = [
        "array_to_mv",
        "string_to_mv",
        "mv_filter_only",
        "mv_filter_none",
        "mv_filter_regex",
        "mv_filter_prefix",
        "mv_prepend",
        "mv_append",
        "mv_concat",
        "mv_slice",
    ];
    const PASSED_ON: [&str; 4] = ["coalesce", "nvl", "nullif", "druid_cast_varchar"];
    if MADE.contains(&name) {
        return Some(MultiValue::Always);
    }
    let mapping = MAPPING.get_or_init(|| {
        let mapping = all().filter(function::Function::is_mapping);
        mapping
            .map(|function| ScalarUDFImpl::name(&function).to_owned())
            .collect()
    });
    (mapping.contains(name) || PASSED_ON.contains(&name)).then_some(MultiValue::OfArguments)
}

/// Whether a name, in lower case, is that of a function that statements are rewritten to, and cannot call themselves.
pub fn is_own(name: &str) -> bool {
    name.starts_with("druid_")
        && (all().any(|function| ScalarUDFImpl::name(&function) == name)
            || aggregate::own().any(|aggregate| aggregate.name == name))
}

/// Whether an aggregate, by its name, may have literals among its arguments.
pub fn takes_literals(name: &str) -> bool {
    aggregate::own().any(|aggregate| aggregate.name == name)
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
