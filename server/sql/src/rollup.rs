//! What a rollup keeps of its aggregates, so that later ones can combine it.

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Select, SelectItem,
    Value,
};
use trilith_proto::interval::Granularity;

/// What a column of a GROUP BY keeps for later aggregates.
pub(crate) enum Kept {
    /// A sketch or moments, with the aggregator that combines them.
    Sketch(&'static str),
    /// A value of its own type, with the end of the aggregator's name.
    Value(&'static str),
    /// `__time`, floored to a period.
    Time(Option<Granularity>),
}

/// Makes the aggregates of a SELECT keep what later ones can combine. Returns the columns that do.
pub(crate) fn keep_combinable(select: &mut Select) -> Vec<(String, Kept)> {
    let mut kept = Vec::new();
    for item in &mut select.projection {
        let SelectItem::ExprWithAlias {
            expr: Expr::Function(function),
            alias,
        } = item
        else {
            continue;
        };
        let name = alias.value.clone();
        if let Some(sketch) = kept_combinable(function) {
            kept.push((name, Kept::Sketch(sketch)));
            continue;
        }
        let what = match function.name.to_string().to_ascii_uppercase().as_str() {
            "COUNT" | "SUM" => Kept::Value("Sum"),
            "MIN" => Kept::Value("Min"),
            "MAX" => Kept::Value("Max"),
            "EARLIEST_BY" => {
                function.name = renamed("druid_earliest_by_kept");
                Kept::Value("First")
            }
            "LATEST_BY" => {
                function.name = renamed("druid_latest_by_kept");
                Kept::Value("Last")
            }
            "ANY_VALUE" => Kept::Value("Any"),
            "TIME_FLOOR" if name == "__time" => Kept::Time(period_argument(function)),
            _ => continue,
        };
        kept.push((name, what));
    }
    kept
}

/// Makes an aggregate keep what later ones can combine. Returns the aggregator that combines it; none if the
/// aggregate's own result is enough.
fn kept_combinable(function: &mut Function) -> Option<&'static str> {
    let (builder, combine) = match function.name.to_string().to_ascii_lowercase().as_str() {
        "ds_hll" | "approx_count_distinct_ds_hll" => ("ds_hll", "HLLSketchMerge"),
        "approx_count_distinct" | "approx_count_distinct_builtin" | "druid_count_distinct" => {
            ("druid_hyper_unique_kept", "hyperUnique")
        }
        "ds_theta" | "approx_count_distinct_ds_theta" => ("ds_theta", "thetaSketch"),
        "ds_quantiles_sketch" => ("ds_quantiles_sketch", "quantilesDoublesSketch"),
        "var_pop" | "var_samp" | "variance" | "stddev_pop" | "stddev_samp" | "stddev" => {
            ("druid_variance_kept", "varianceFold")
        }
        _ => return None,
    };
    function.name = renamed(builder);
    Some(combine)
}

fn renamed(name: &str) -> ObjectName {
    ObjectName::from(vec![Ident::new(name)])
}

/// The period of TIME_FLOOR, as it was rewritten.
fn period_argument(function: &Function) -> Option<Granularity> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    match list.args.get(1)? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => match &value.value {
            Value::SingleQuotedString(period) => Granularity::from_period(period),
            _ => None,
        },
        _ => None,
    }
}
