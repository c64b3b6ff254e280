#![allow(clippy::unwrap_used, clippy::panic)]

use datafusion::prelude::SessionContext;

/// One value of SQL, as text.
async fn value(context: &SessionContext, sql: &str) -> String {
    let batches = context
        .sql(&format!("SELECT {sql} AS v"))
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    let options = arrow::util::display::FormatOptions::default().with_null("NULL");
    arrow::util::display::ArrayFormatter::try_new(batches[0].column(0), &options)
        .unwrap()
        .value(0)
        .to_string()
}

#[tokio::test]
async fn values_of_functions() {
    let context = SessionContext::new();
    let mut state = context.state();
    crate::register(&mut state).unwrap();
    let context = SessionContext::new_with_state(state);
    let cases = [
        (
            "time_parse('2015-09-12T00:46:58.771Z')",
            "2015-09-12T00:46:58.771Z",
        ),
        (
            "time_parse('2015-09-12 00:46:58', NULL, 'America/Los_Angeles')",
            "2015-09-12T07:46:58Z",
        ),
        ("time_parse('2015-09-12T00:46:58+01:00')", "2015-09-11T23:46:58Z"),
        ("time_parse('2015-09-12')", "2015-09-12T00:00:00Z"),
        ("time_parse('2015-13-12T00:00:00Z')", "NULL"),
        ("time_parse('not a time')", "NULL"),
        (
            "time_parse('12/09/2015 5pm', 'dd/MM/yyyy ha', 'UTC')",
            "2015-09-12T17:00:00Z",
        ),
        (
            "time_format(millis_to_timestamp(0), 'yyyy-MM-dd HH:mm', 'America/New_York')",
            "1969-12-31 19:00",
        ),
        (
            "time_floor(millis_to_timestamp(1442018818771), 'PT1H', NULL, 'UTC')",
            "2015-09-12T00:00:00Z",
        ),
        (
            "time_floor(millis_to_timestamp(1442018818771), 'P1W', NULL, 'UTC')",
            "2015-09-07T00:00:00Z",
        ),
        (
            "time_floor(millis_to_timestamp(1442018818771), 'P1M', NULL, 'America/Los_Angeles')",
            "2015-09-01T07:00:00Z",
        ),
        (
            "time_floor(millis_to_timestamp(1442018818771), 'P1Y')",
            "2015-01-01T00:00:00Z",
        ),
        (
            "time_ceil(millis_to_timestamp(1442018818771), 'P1D', NULL, 'UTC')",
            "2015-09-13T00:00:00Z",
        ),
        (
            "time_shift(time_parse('2016-01-31T00:00:00Z'), 'P1M', 1, 'UTC')",
            "2016-02-29T00:00:00Z",
        ),
        (
            "time_extract(millis_to_timestamp(1442018818771), 'HOUR', '+02:00')",
            "2",
        ),
        (
            "timestampdiff('HOUR', millis_to_timestamp(0), millis_to_timestamp(7200001))",
            "2",
        ),
        (
            "timestampdiff('MONTH', time_parse('2016-01-31'), time_parse('2016-02-29'))",
            "0",
        ),
        (
            "timestampadd('DAY', 2, millis_to_timestamp(0), 'UTC')",
            "1970-01-03T00:00:00Z",
        ),
        ("druid_cast_varchar(1e10)", "1.0E10"),
        (
            "druid_cast_varchar(millis_to_timestamp(0), 'UTC')",
            "1970-01-01 00:00:00",
        ),
        ("druid_cast_bigint('12.9')", "12"),
        ("druid_cast_bigint('x')", "NULL"),
        ("druid_cast_double('1e2')", "100.0"),
        (
            "druid_cast_timestamp('2000-01-01 00:00:00', 'UTC')",
            "2000-01-01T00:00:00Z",
        ),
        ("mv_to_array('[\"a\",null,\"b\"]')", "[a, NULL, b]"),
        ("mv_length('x')", "1"),
        ("array_to_mv(mv_to_array('x'))", "x"),
        ("strlen('😀a')", "3"),
        ("safe_divide(1, 0)", "NULL"),
        (
            "string_format('%05d|%-3s|%.1f%%', 42, 'a', 1.25)",
            "00042|a  |1.2%",
        ),
        ("json_value('{\"a\":{\"b\":[1,\"x\"]}}', '$.a.b[1]')", "x"),
        ("regexp_extract('ab12', '([a-z]+)([0-9]+)', 2)", "12"),
    ];
    for (sql, expected) in cases {
        assert_eq!(value(&context, sql).await, expected, "{sql}");
    }
}
