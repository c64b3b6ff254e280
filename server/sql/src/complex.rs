//! Sketches and other COMPLEX values: only the functions of their kind take them.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator};
use trilith_proto::column::{self, ColumnType};

/// Functions, by the beginning of their names, and the kinds that their arguments may be.
const TAKERS: [(&str, &[&str]); 18] = [
    ("bloom_filter_test", &["bloom"]),
    ("bloom_filter", &["bloom"]),
    ("hll_sketch_", &["HLLSketch"]),
    ("theta_sketch_", &["thetaSketch"]),
    ("ds_tuple_", &["arrayOfDoublesSketch"]),
    ("ds_hll", &["HLLSketch"]),
    ("approx_count_distinct_ds_hll", &["HLLSketch"]),
    ("ds_theta", &["thetaSketch"]),
    ("approx_count_distinct_ds_theta", &["thetaSketch"]),
    (
        "approx_count_distinct_builtin",
        &["HLLSketch", "thetaSketch", "hyperUnique"],
    ),
    (
        "druid_count_distinct",
        &["HLLSketch", "thetaSketch", "hyperUnique"],
    ),
    ("ds_", &["quantilesDoublesSketch"]),
    ("approx_quantile_ds", &["quantilesDoublesSketch"]),
    ("earliest_by", &[]),
    ("latest_by", &[]),
    ("any_value", &[]),
    ("count", &[]),
    ("druid_", &[]),
];
/// Functions that hand on what they are given.
const CARRIERS: [&str; 6] = [
    "coalesce",
    "nvl",
    "nullif",
    "single_value",
    "grouping",
    "to_json_string",
];

/// Refuses operators and functions that cannot work with the COMPLEX values that they are given.
pub(crate) fn refuse_misuse(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let mut schema = DFSchema::empty();
        node.inputs().iter().for_each(|input| schema.merge(input.schema()));
        if let LogicalPlan::Aggregate(aggregate) = node {
            for key in &aggregate.group_expr {
                if let Some(kind) = kind(key, &schema) {
                    return plan_err!(
                        "Cannot group by [{key}] of type COMPLEX<{kind}>; aggregate it, or group by what it estimates"
                    );
                }
            }
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| check(expr, &schema).map(|()| TreeNodeRecursion::Continue))
        })
    })?;
    Ok(())
}

/// The kind of a COMPLEX value that is not JSON.
fn kind(expr: &Expr, schema: &DFSchema) -> Option<String> {
    let (_, field) = expr.to_field(schema).ok()?;
    match column::of_field(&field) {
        ColumnType::Complex(kind) if kind != "json" => Some(kind),
        _ => None,
    }
}

fn check(expr: &Expr, schema: &DFSchema) -> Result<()> {
    match expr {
        Expr::ScalarFunction(call) => check_call(call.func.name(), &call.args, schema),
        Expr::AggregateFunction(AggregateFunction { func, params }) => {
            check_call(func.name(), &params.args, schema)
        }
        Expr::BinaryExpr(binary) if !matches!(binary.op, Operator::And | Operator::Or) => {
            check_operands(&binary.op.to_string(), [&*binary.left, &*binary.right], schema)
        }
        Expr::Like(like) => check_operands("LIKE", [&*like.expr, &*like.pattern], schema),
        Expr::Between(between) => check_operands("BETWEEN", [&*between.expr, &*between.low], schema),
        Expr::InList(list) => match list.list.first() {
            Some(first) => check_operands("IN", [&*list.expr, first], schema),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

fn check_operands(operator: &str, operands: [&Expr; 2], schema: &DFSchema) -> Result<()> {
    if operands.iter().all(|operand| kind(operand, schema).is_none()) {
        return Ok(());
    }
    let [left, right] = operands.map(|operand| shown(operand, schema));
    plan_err!("Cannot apply '{operator}' to arguments of type '<{left}> {operator} <{right}>'")
}

/// Functions of texts, numbers and times, which take no arrays.
const PLAIN: [&str; 69] = [
    "abs",
    "acos",
    "asin",
    "atan",
    "atan2",
    "bitwise_and",
    "bitwise_complement",
    "bitwise_convert_double_to_long_bits",
    "bitwise_convert_long_bits_to_double",
    "bitwise_or",
    "bitwise_shift_left",
    "bitwise_shift_right",
    "bitwise_xor",
    "btrim",
    "ceil",
    "char_length",
    "contains_string",
    "cos",
    "cot",
    "date_trunc",
    "decode_base64_utf8",
    "degrees",
    "div",
    "exp",
    "floor",
    "human_readable_binary_byte_format",
    "human_readable_decimal_byte_format",
    "human_readable_decimal_format",
    "icontains_string",
    "ipv4_match",
    "ipv4_parse",
    "ipv4_stringify",
    "ipv6_match",
    "left",
    "ln",
    "log10",
    "lower",
    "lpad",
    "ltrim",
    "max",
    "millis_to_timestamp",
    "min",
    "mod",
    "parse_long",
    "position",
    "power",
    "radians",
    "regexp_extract",
    "regexp_like",
    "regexp_replace",
    "repeat",
    "replace",
    "reverse",
    "right",
    "round",
    "rpad",
    "rtrim",
    "safe_divide",
    "sin",
    "sqrt",
    "strlen",
    "strpos",
    "substring",
    "tan",
    "textcat",
    "time_ceil",
    "time_extract",
    "time_floor",
    "upper",
];
/// Aggregates of numbers, which take no times and no booleans.
const OF_NUMBERS: [&str; 6] = ["sum", "avg", "var_pop", "var_samp", "stddev_pop", "stddev_samp"];

fn check_call(name: &str, args: &[Expr], schema: &DFSchema) -> Result<()> {
    if CARRIERS.contains(&name) {
        return Ok(());
    }
    let of = |arg: &Expr| arg.get_type(schema).unwrap_or(DataType::Null);
    let array = |arg: &Expr| matches!(of(arg), DataType::List(_));
    let no_number = |arg: &Expr| matches!(of(arg), DataType::Timestamp(..) | DataType::Boolean);
    if PLAIN.contains(&name) && args.iter().any(array)
        || OF_NUMBERS.contains(&name) && args.iter().any(|arg| array(arg) || no_number(arg))
    {
        return refused(name, args, schema);
    }
    // A sketch is asked for, and there is none.
    let sketch = [
        "hll_sketch_",
        "theta_sketch_",
        "ds_tuple_",
        "ds_get_",
        "ds_histogram",
        "ds_cdf",
        "ds_rank",
        "ds_quantile_",
    ];
    let asks = sketch.iter().any(|start| name.starts_with(start)) && name != "ds_tuple_doubles";
    if asks && args.iter().all(|arg| is_plain(&of(arg))) {
        return refused(name, args, schema);
    }
    let kinds: Vec<Option<String>> = args.iter().map(|arg| kind(arg, schema)).collect();
    if kinds.iter().all(Option::is_none) {
        return Ok(());
    }
    let taken = TAKERS.iter().find(|(start, _)| name.starts_with(start));
    let fits = |kind: &str| match taken {
        Some((_, [])) => true,
        Some((_, families)) => families.iter().any(|family| kind.starts_with(family)),
        None => name.starts_with("var") || name.starts_with("stddev"),
    };
    if kinds.iter().flatten().all(|kind| fits(kind)) {
        return Ok(());
    }
    refused(name, args, schema)
}

fn is_plain(data_type: &DataType) -> bool {
    !matches!(data_type, DataType::Binary | DataType::Null)
}

fn refused(name: &str, args: &[Expr], schema: &DFSchema) -> Result<()> {
    let name = match name {
        "druid_count_distinct" => "COUNT".to_owned(),
        name => name.to_uppercase(),
    };
    let types: Vec<String> = args
        .iter()
        .map(|arg| format!("<{}>", shown(arg, schema)))
        .collect();
    plan_err!(
        "Cannot apply '{name}' to arguments of type '{name}({})'",
        types.join(", ")
    )
}

/// The SQL type of an operand, COMPLEX by its kind.
fn shown(expr: &Expr, schema: &DFSchema) -> String {
    match (kind(expr, schema), expr.to_field(schema)) {
        (Some(kind), _) => format!("COMPLEX<{}>", kind.to_uppercase()),
        (None, Ok((_, field))) => column::sql_type(&field),
        (None, Err(_)) => "ANY".to_owned(),
    }
}
