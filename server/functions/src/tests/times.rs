use super::{check, fails};

#[tokio::test]
async fn values() {
    check(&[
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
            "timestampdiff('MONTH', time_parse('2000-03-01T08:00:00'), time_parse('2000-05-01T07:00:00'), 'America/Los_Angeles')",
            "2",
        ),
        (
            "timestampdiff('MONTH', time_parse('2000-03-01T08:00:00'), time_parse('2000-05-01T07:00:00'))",
            "1",
        ),
        (
            "timestampdiff('MONTH', time_parse('2016-01-31'), time_parse('2016-02-29'))",
            "1",
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
        (
            "mv_to_array(array_to_mv(make_array('a', NULL, 'b')))",
            "[a, NULL, b]",
        ),
        ("mv_length('x')", "1"),
        ("array_to_mv(mv_to_array('x'))", "x"),
        ("strlen('😀a')", "3"),
        ("safe_divide(1, 0)", "NULL"),
        (
            "string_format('%05d|%-3s|%.1f%%', 42, 'a', 1.25)",
            "00042|a  |1.3%",
        ),
        ("json_value('{\"a\":{\"b\":[1,\"x\"]}}', '$.a.b[1]')", "x"),
        ("regexp_extract('ab12', '([a-z]+)([0-9]+)', 2)", "12"),
        ("time_parse('2000')", "2000-01-01T00:00:00Z"),
        ("time_parse('2000-02')", "2000-02-01T00:00:00Z"),
        ("time_parse('2000-060')", "2000-02-29T00:00:00Z"),
        ("time_parse('2000-W05-3')", "2000-02-02T00:00:00Z"),
        ("time_parse('2000-01-02T03')", "2000-01-02T03:00:00Z"),
        ("time_parse('2000-01-02 03:04')", "2000-01-02T03:04:00Z"),
        (
            "time_parse('2000-01-02T03:04:05.678+02:00')",
            "2000-01-02T01:04:05.678Z",
        ),
        ("time_parse('')", "NULL"),
        ("time_parse(' 2000-01-01')", "NULL"),
        ("time_parse('2000-01-01 ')", "2000-01-01T00:00:00Z"),
        ("time_parse('2000-01-01  ')", "NULL"),
        (
            "date_trunc('week', time_parse('2000-02-29T13:45:17'))",
            "2000-02-28T00:00:00Z",
        ),
        (
            "date_trunc('quarter', time_parse('2000-02-29T13:45:17'))",
            "2000-01-01T00:00:00Z",
        ),
        (
            "date_trunc('decade', time_parse('2000-02-29'))",
            "2000-01-01T00:00:00Z",
        ),
        (
            "date_trunc('DAY', time_parse('2000-02-29T01:00:00Z'), 'America/Los_Angeles')",
            "2000-02-28T08:00:00Z",
        ),
        ("time_extract(time_parse('2000-02-29'), 'DOW')", "2"),
        ("time_extract(time_parse('2000-03-05'), 'DOW')", "7"),
        ("time_extract(time_parse('2000-01-01'), 'ISOYEAR')", "2000"),
        ("time_extract(time_parse('2000-01-01'), 'WEEK')", "52"),
        (
            "time_extract(time_parse('2000-02-29T13:45:17.123'), 'MILLISECOND')",
            "123",
        ),
        ("time_extract(time_parse('2000-02-29'), 'CENTURY')", "20"),
        ("time_extract(time_parse('2001-02-28'), 'MILLENNIUM')", "3"),
        ("time_extract(time_parse('2001-02-28'), 'DECADE')", "200"),
        ("time_in_interval(time_parse('2000-01-01'), '2000/2001')", "true"),
        ("time_in_interval(time_parse('2001-01-01'), '2000/2001')", "false"),
        (
            "time_in_interval(time_parse('2000-01-01T12:00:00'), '2000-01-01/P1D')",
            "true",
        ),
        (
            "time_in_interval(time_parse('1999-12-31T12:00:00'), 'P1D/2000-01-01')",
            "true",
        ),
        (
            "time_ceil(time_parse('2000-01-01'), 'P1D')",
            "2000-01-01T00:00:00Z",
        ),
        (
            "timestampdiff('DAY', time_parse('2000-01-03'), time_parse('2000-01-01T12:00:00'))",
            "-1",
        ),
        (
            "timestampdiff('YEAR', time_parse('2000-02-29'), time_parse('2001-02-28'))",
            "1",
        ),
        ("time_format(NULL)", "NULL"),
        (
            "time_shift(time_parse('2000-03-12T00:00:00'), 'PT1H', -2)",
            "2000-03-11T22:00:00Z",
        ),
    ])
    .await;
}

#[tokio::test]
async fn refusals() {
    fails(&[
        (
            "date_trunc('fortnight', time_parse('2000'))",
            "Operator[DATE_TRUNC] cannot truncate to[fortnight]",
        ),
        (
            "time_floor(time_parse('2000'), 'P')",
            "Invalid period['P'] specified for expression[time_floor]",
        ),
        (
            "time_floor(time_parse('2000'), 'P1D', NULL, 'Mars')",
            "[Mars] is not a time zone",
        ),
        (
            "time_extract(time_parse('2000'), 'AEON')",
            "[AEON] is not a unit of time",
        ),
        ("time_parse('x', 'b')", "[b] is not a date pattern"),
        (
            "time_in_interval(time_parse('2000'), '2000')",
            "Function 'TIME_IN_INTERVAL' second argument is not a valid ISO8601 interval: [2000]",
        ),
        (
            "time_shift(time_parse('2000'), concat('P1', 'D'), 1)",
            "Argument to function 'TIME_SHIFT' must be a literal",
        ),
        (
            "time_floor()",
            "Invalid number of arguments to function 'TIME_FLOOR'. Was expecting 2 arguments",
        ),
        (
            "time_extract(time_parse('2000'))",
            "Invalid number of arguments to function 'TIME_EXTRACT'. Was expecting 2 arguments",
        ),
    ])
    .await;
}
