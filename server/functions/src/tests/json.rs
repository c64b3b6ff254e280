use super::{check, fails};

#[tokio::test]
async fn values() {
    check(&[
        ("json_value('{\"a\":{\"b\":[5,6]}}', '$.a.b[1]')", "6"),
        ("json_value('{\"a\":{\"b\":[5,6]}}', '$.a.b[-1]')", "6"),
        // An array is its only element, or nothing.
        ("json_value('{\"a\":{\"b\":[5,6]}}', '$.a.b')", "NULL"),
        ("json_value('{\"a\":[\"x\"]}', '$.a')", "x"),
        ("json_value('{\"a\":[1.5]}', '$.a')", "1.5"),
        ("json_value('{\"a\":[]}', '$.a')", "NULL"),
        ("json_value('{\"a\":[null]}', '$.a')", "NULL"),
        ("json_value('{\"a\":[[1]]}', '$.a')", "NULL"),
        ("druid_json_value_bigint('{\"a\":[\"100\"]}', '$.a')", "100"),
        ("druid_json_value_double('{\"a\":[1,2]}', '$.a')", "NULL"),
        ("json_value('{\"a\":{\"b\":1}}', '$.a')", "NULL"),
        ("json_value('{\"a b\":1}', '$[''a b'']')", "1"),
        ("json_value('{\"a\":1.0}', '$.a')", "1.0"),
        ("json_value('{\"a\":null}', '$.a')", "NULL"),
        ("json_value('{\"a\":true}', '$.a')", "true"),
        ("json_value(NULL, '$.a')", "NULL"),
        ("json_value('{\"a\":1}', NULL)", "NULL"),
        (
            "json_value(j, array_offset(json_paths(j), 0)) FROM (VALUES ('{\"a\":{\"b\":7}}'), ('5')) AS t (j)",
            "7",
        ),
        ("druid_json_value_bigint('{\"a\":\"12\"}', '$.a')", "12"),
        ("druid_json_value_bigint('{\"a\":\"x\"}', '$.a')", "NULL"),
        ("druid_json_value_bigint('{\"a\":1.9}', '$.a')", "1"),
        ("druid_json_value_double('{\"a\":1}', '$.a')", "1.0"),
        ("druid_json_value_boolean('{\"a\":true}', '$.a')", "true"),
        (
            "druid_json_value_varchar_array('{\"a\":[1,\"x\",null]}', '$.a')",
            "[1, x, NULL]",
        ),
        (
            "druid_json_value_bigint_array('{\"a\":[1,\"2\",\"x\"]}', '$.a')",
            "[1, 2, NULL]",
        ),
        ("druid_json_value_double_array('{\"a\":7}', '$.a')", "[7.0]"),
        ("json_query('{\"a\":{\"b\":1}}', '$.a')", "{\"b\":1}"),
        ("json_query('{\"a\":{\"b\":1}}', '$.z')", "NULL"),
        ("json_query_array('{\"a\":{\"b\":1}}', '$.a')", "[{\"b\":1}]"),
        ("json_query_array('{\"a\":[1,2]}', '$.a')", "[1, 2]"),
        ("json_keys('{\"x\":1,\"y\":2}', '$')", "[x, y]"),
        ("json_keys('{\"x\":1}', '$.x')", "NULL"),
        ("json_keys('{\"x\":{\"y\":1}}', concat('$', '.x'))", "[y]"),
        ("json_paths(NULL)", "[$]"),
        ("json_paths('\"hello\"')", "[$]"),
        ("json_paths('{\"x\":1,\"y\":{\"z\":2}}')", "[$.x, $.y.z]"),
        (
            "json_paths('{\"a.b\":[1,2],\"c\":[{\"d\":1}]}')",
            "[$['a.b'], $.c[0].d]",
        ),
        (
            "json_object('k', 7, 'v', 'solo', 'n', NULL)",
            "{\"k\":7,\"v\":\"solo\",\"n\":null}",
        ),
        (
            "json_object('j', parse_json('{\"a\":1}'), 't', '{\"a\":1}')",
            "{\"j\":{\"a\":1},\"t\":\"{\\\"a\\\":1}\"}",
        ),
        ("json_object()", "{}"),
        (
            "json_merge('{\"a\":1}', parse_json('{\"a\":2,\"b\":3}'))",
            "{\"a\":2,\"b\":3}",
        ),
        ("json_merge('[1]', '[2]')", "[1,2]"),
        ("json_merge('{\"a\":1}', NULL)", "NULL"),
        ("parse_json('{ \"a\" : 1 }')", "{\"a\":1}"),
        ("try_parse_json('{')", "NULL"),
        ("try_parse_json(5)", "NULL"),
        ("to_json_string('a')", "\"a\""),
        ("to_json_string(1.5)", "1.5"),
        ("to_json_string(parse_json('[1]'))", "[1]"),
        ("to_json_string(make_array(1, NULL))", "[1,null]"),
        (
            "to_json_string(json_query_array('{\"a\":[{\"x\":1},\"y\"]}', '$.a'))",
            "[{\"x\":1},\"y\"]",
        ),
        ("to_json_string(NULL)", "NULL"),
    ])
    .await;
}

#[tokio::test]
async fn refusals() {
    fails(&[
        ("parse_json('{')", "Function[PARSE_JSON] bad string input [{]"),
        (
            "parse_json(5)",
            "Cannot apply 'PARSE_JSON' to arguments of type 'PARSE_JSON(<INTEGER>)'. Supported form(s): 'PARSE_JSON(<CHARACTER>)'",
        ),
        (
            "json_value('{}', 'a')",
            "JSONPath [a] is invalid, it must start with '$'",
        ),
        (
            "json_value('{}', '$[x]')",
            "array specifier [x] should be a number",
        ),
        ("json_merge('{\"a\":1}', '[1]')", "expected object but got array"),
        ("json_merge('{\"a\":1}', '5')", "bad string input [5]"),
        ("json_object('a')", "must have an even number of arguments"),
    ])
    .await;
}
