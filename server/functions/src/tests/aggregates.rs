use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::{rows, text};

/// Six rows in two batches, which several partial aggregates see.
fn table() -> SessionContext {
    let batch = |times: [i64; 3], longs: [Option<i64>; 3], texts: [Option<&str>; 3]| {
        let doubles: Float64Array = longs
            .iter()
            .map(|value| value.map(|value| value as f64 / 2.0))
            .collect();
        RecordBatch::try_from_iter_with_nullable([
            ("t", Arc::new(Int64Array::from(times.to_vec())) as ArrayRef, true),
            (
                "at",
                Arc::new(TimestampMillisecondArray::from(times.to_vec())) as ArrayRef,
                true,
            ),
            ("l", Arc::new(Int64Array::from(longs.to_vec())) as ArrayRef, true),
            ("d", Arc::new(doubles) as ArrayRef, true),
            ("s", Arc::new(StringArray::from(texts.to_vec())) as ArrayRef, true),
        ])
        .unwrap()
    };
    let several = trilith_proto::multi_value::joined(&["x", "y"].map(|value| Some(value.to_owned())));
    let first = batch(
        [3, 1, 2],
        [Some(7), Some(0), None],
        [Some("c"), Some(""), several.as_deref()],
    );
    let second = batch([6, 4, 5], [None, Some(3), Some(3)], [None, Some("d"), Some("c")]);
    let schema = first.schema();
    let table = MemTable::try_new(schema, vec![vec![first], vec![second]]).unwrap();
    let config = SessionConfig::new().with_target_partitions(2);
    let mut state = SessionContext::new_with_config(config).state();
    crate::register(&mut state).unwrap();
    let context = SessionContext::new_with_state(state);
    context.register_table("r", Arc::new(table)).unwrap();
    context
}

async fn check(cases: &[(&str, &str)]) {
    let context = table();
    let mut wrong = Vec::new();
    for (sql, expected) in cases {
        let found = match rows(&context, &format!("SELECT {sql}")).await {
            Ok(batches) => text(&batches, 0),
            Err(error) => error,
        };
        if found != *expected {
            wrong.push(format!("{sql}\n  gave {found}\n  not  {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn values() {
    check(&[
        ("earliest_by(l, at) FROM r", "0"),
        ("latest_by(l, at) FROM r", "NULL"),
        ("latest_by(l, at) FROM r WHERE l IS NOT NULL", "3"),
        ("earliest_by(s, at) FROM r", ""),
        ("latest_by(s, at, 1) FROM r WHERE t < 4", "c"),
        ("latest_by('hello', at, 2) FROM r", "he"),
        ("earliest_by(l, at) FROM r WHERE t > 9", "NULL"),
        ("any_value(l) FROM r WHERE t = 3", "7"),
        ("any_value(s, 10, false) FROM r WHERE t = 2", "x"),
        ("any_value(s) FROM r WHERE t = 2", "[x, y]"),
        ("any_value(s, 4) FROM r WHERE t = 2", "[x, "),
        ("earliest_by(s, at, 10) FROM r WHERE t = 2", "[x, y]"),
        ("array_agg(l) FROM (SELECT l FROM r WHERE t IN (1, 3))", "[7, 0]"),
        ("druid_array_agg_distinct(l) FROM r", "[NULL, 0, 3, 7]"),
        ("druid_array_agg_distinct(s) FROM r", "[NULL, , c, d, x, y]"),
        ("array_agg(l) FROM r WHERE t > 9", "NULL"),
        ("array_agg(make_array(l, t)) FROM r WHERE t = 3", "[[7, 3]]"),
        ("array_concat_agg(make_array(l, t)) FROM r WHERE t = 3", "[7, 3]"),
        (
            "druid_array_concat_agg_distinct(make_array(l, 3)) FROM r WHERE l IS NOT NULL",
            "[0, 3, 7]",
        ),
        ("druid_string_agg_distinct(s, '|') FROM r", "|c|d|x|y"),
        ("string_agg(s, ',') FROM r WHERE t = 2", "x,y"),
        ("string_agg(s, ',') FROM r WHERE t = 6", "NULL"),
        (
            "string_agg(CAST(d AS FLOAT) / 5, '|') FROM r WHERE t = 4",
            "0.30000001192092896",
        ),
        ("approx_count_distinct(l) FROM r", "3"),
        ("approx_count_distinct(s) FROM r", "5"),
        ("approx_count_distinct(l) FROM r WHERE t > 9", "0"),
        ("approx_count_distinct_ds_hll(s, 12, 'HLL_8') FROM r", "4"),
        ("approx_count_distinct_ds_theta(l) FROM r", "3"),
        ("approx_count_distinct_ds_theta(l, 32) FROM r WHERE t > 9", "0"),
        ("approx_quantile_ds(l, 0.5) FROM r", "3.0"),
        ("approx_quantile_ds(l, 0) FROM r", "0.0"),
        ("approx_quantile_ds(l, 0.5) FROM r WHERE t > 9", "NaN"),
        ("hll_sketch_estimate(ds_hll(l), true) FROM r", "3.0"),
        ("theta_sketch_estimate(ds_theta(l)) FROM r", "3.0"),
        (
            "theta_sketch_estimate(theta_sketch_union(ds_theta(l), ds_theta(t))) FROM r",
            "8.0",
        ),
        (
            "theta_sketch_estimate(theta_sketch_intersect(ds_theta(l), ds_theta(t))) FROM r",
            "1.0",
        ),
        (
            "theta_sketch_estimate(theta_sketch_not(ds_theta(t), ds_theta(l))) FROM r",
            "5.0",
        ),
        (
            "hll_sketch_estimate(hll_sketch_union(ds_hll(l), ds_hll(t)), true) FROM r",
            "8.0",
        ),
        (
            "hll_sketch_estimate_with_error_bounds(ds_hll(l), 1) FROM r WHERE l = 7",
            "[1.0,1.0,1.000049929250618]",
        ),
        (
            "theta_sketch_estimate_with_error_bounds(ds_theta(l), 10) FROM r",
            "{\"estimate\":3.0,\"highBound\":3.0,\"lowBound\":3.0,\"numStdDev\":10}",
        ),
        (
            "approx_count_distinct(x) FROM (SELECT ds_theta(l) AS x FROM r)",
            "3",
        ),
        (
            "approx_count_distinct(decode_base64_complex('thetaSketch', 'AQMDAAA6zJOQxkPsNomrZQ==')) FROM r",
            "1",
        ),
        ("approx_count_distinct_ds_hll_utf8(l) FROM r", "3"),
        (
            "approx_count_distinct(x) FROM (SELECT ds_hll(l) AS x FROM r)",
            "3",
        ),
        (
            "hll_sketch_to_string(ds_hll(l)) FROM r WHERE l = 7",
            "### HLL SKETCH SUMMARY: \n  Log Config K   : 12\n  Hll Target     : HLL_4\n  Current Mode   : LIST\n  Memory         : false\n  LB             : 1.0\n  Estimate       : 1.0\n  UB             : 1.000049929250618\n  OutOfOrder Flag: false\n  Coupon Count   : 1\n",
        ),
        ("druid_final_hll(ds_hll(l)) FROM r", "3"),
        ("druid_final_theta(ds_theta(l)) FROM r", "3.0"),
        ("druid_final_quantiles(ds_quantiles_sketch(t)) FROM r", "6"),
        ("ds_get_quantile(ds_quantiles_sketch(t), 0.5) FROM r", "3.0"),
        (
            "ds_get_quantiles(ds_quantiles_sketch(t), 0, 1) FROM r",
            "[1.0,6.0]",
        ),
        ("ds_rank(ds_quantiles_sketch(t), 3) FROM r", "0.5"),
        ("ds_cdf(ds_quantiles_sketch(t), 0.5, 3.5) FROM r", "[0.0,0.5,1.0]"),
        ("ds_histogram(ds_quantiles_sketch(t), 3.5) FROM r", "[3.0,3.0]"),
        (
            "ds_tuple_doubles_metrics_sum_estimate(ds_tuple_doubles(l, t, d)) FROM r",
            "[13.0, 6.5]",
        ),
        (
            "ds_tuple_doubles_metrics_sum_estimate(ds_tuple_doubles_intersect(ds_tuple_doubles(l, t), ds_tuple_doubles(t, l, 64))) FROM r",
            "[16.0]",
        ),
        ("sum(l) FROM r", "13"),
        ("avg(l) FROM r", "3.25"),
        ("sum(d) FROM r WHERE t > 9", "NULL"),
        ("var_pop(t) FROM r", "2.9166666666666665"),
        ("variance(t) FROM r", "3.5"),
        ("stddev(t) FROM r", "1.8708286933869707"),
        ("var_samp(d) FROM r", "2.0625"),
        ("stddev_pop(t) FROM r WHERE t > 9", "NULL"),
        ("variance(l) FROM r WHERE t = 3", "0.0"),
        ("stddev_samp(l) FROM r WHERE t = 3", "0.0"),
        ("var_pop(l) FROM r WHERE t = 2", "NULL"),
        (
            "var_samp(t) OVER (ORDER BY t ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS v FROM r ORDER BY t DESC",
            "0.5",
        ),
        // Folded from 0.
        ("bit_and(t) FROM r WHERE t IN (3, 6)", "0"),
        ("bit_and(l) FROM r WHERE t = 2", "NULL"),
        ("bit_and(l) FROM r WHERE t > 9", "NULL"),
        ("bit_or(t) FROM r", "7"),
        ("bit_xor(t) FROM r", "7"),
    ])
    .await;
}

/// A group's values are merged from all partial aggregates.
#[tokio::test]
async fn groups() {
    let context = table();
    let sql = "SELECT l, earliest_by(t, at), druid_array_agg_distinct(t), approx_count_distinct_ds_theta(t), \
               approx_quantile_ds(t, 1) FROM r GROUP BY l ORDER BY l";
    let batches = rows(&context, sql).await.unwrap();
    let batch = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    let earliest = batch.column(1).as_primitive::<arrow::datatypes::Int64Type>();
    assert_eq!(earliest.values(), &[1, 4, 3, 2]);
    let distinct = batch.column(3).as_primitive::<arrow::datatypes::Int64Type>();
    assert_eq!(distinct.values(), &[1, 2, 1, 2]);
    let last = batch.column(4).as_primitive::<arrow::datatypes::Float64Type>();
    assert_eq!(last.values(), &[1.0, 5.0, 3.0, 6.0]);
}

/// Estimates of many values from two halves are within the errors of the sketches.
#[tokio::test]
async fn estimates() {
    let context = table();
    let sql = "SELECT approx_count_distinct_ds_hll(value), approx_count_distinct_ds_theta(value), \
               approx_count_distinct(value), CAST(approx_quantile_ds(value, 0.5) AS BIGINT) \
               FROM (SELECT value % 50000 AS value FROM generate_series(1, 100000)) AS g";
    let batches = rows(&context, sql).await.unwrap();
    for (column, (expected, error)) in [
        (50_000.0, 0.05),
        (50_000.0, 0.03),
        (50_000.0, 0.03),
        (25_000.0, 0.1),
    ]
    .into_iter()
    .enumerate()
    {
        let found = batches[0]
            .column(column)
            .as_primitive::<arrow::datatypes::Int64Type>()
            .value(0) as f64;
        assert!(
            (found - expected).abs() <= expected * error,
            "column {column}: {found}"
        );
    }
}

#[tokio::test]
async fn refusals() {
    let context = table();
    for (sql, expected) in [
        (
            "array_agg(repeat('x', 2000)) FROM r",
            "more than its limit of [1024]",
        ),
        (
            "array_agg(s, 'abc') FROM r",
            "Cannot apply 'ARRAY_AGG' to arguments of type 'ARRAY_AGG(<VARCHAR>, <CHAR(3)>)'",
        ),
        (
            "druid_string_agg_distinct(s, s) FROM r",
            "Argument to function 'STRING_AGG' must be a literal",
        ),
        ("any_value(s, NULL) FROM r", "Illegal use of 'NULL'"),
        (
            "any_value(s, 10, 'true') FROM r",
            "Cannot apply 'ANY_VALUE' to arguments of type 'ANY_VALUE(<VARCHAR>, <INTEGER>, <CHAR(4)>)'",
        ),
        (
            "latest_by(l, t) FROM r",
            "Cannot apply 'LATEST_BY' to arguments of type 'LATEST_BY(<BIGINT>, <BIGINT>)'",
        ),
        (
            "approx_quantile_ds(l, '0.5') FROM r",
            "Cannot apply 'APPROX_QUANTILE_DS' to arguments of type 'APPROX_QUANTILE_DS(<BIGINT>, <CHAR(3)>)'",
        ),
        (
            "array_agg(s, 1, 2) FROM r",
            "Invalid number of arguments to function 'ARRAY_AGG'. Was expecting 1 arguments",
        ),
        (
            "druid_count_distinct(parse_json(s)) FROM r",
            "Using APPROX_COUNT_DISTINCT() or enabling approximation with COUNT(DISTINCT) is not supported for column type [COMPLEX<json>].",
        ),
        (
            "approx_count_distinct(parse_json(s)) FROM r",
            "Cannot apply 'APPROX_COUNT_DISTINCT' to arguments of type 'APPROX_COUNT_DISTINCT(<COMPLEX<JSON>>)'",
        ),
        (
            "approx_count_distinct_ds_theta(l, 100) FROM r",
            "needs a power of two as the size, not [100]",
        ),
        ("ds_hll(l, 30) FROM r", "lgK must be between 4 and 21, not [30]"),
        ("ds_hll(l, 12, 'HLL_5') FROM r", "not [HLL_5]"),
        (
            "approx_quantile_ds(l, 2) FROM r",
            "needs a probability between 0 and 1",
        ),
        (
            "theta_sketch_estimate(ds_hll(l)) FROM r",
            "a theta sketch cannot be read",
        ),
        (
            "hll_sketch_estimate('x') FROM r",
            "requires a HLL sketch as argument 1",
        ),
    ] {
        let error = rows(&context, &format!("SELECT {sql}")).await.unwrap_err();
        assert!(error.contains(expected), "{sql}: {error}");
    }
}
