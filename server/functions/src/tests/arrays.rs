use super::{check, fails};

#[tokio::test]
async fn values() {
    check(&[
        ("array_length(make_array('a', 'b'))", "2"),
        ("array_length(make_array())", "0"),
        ("array_length(NULL)", "NULL"),
        ("array_offset(make_array('a', 'b'), 1)", "b"),
        ("array_offset(make_array('a', 'b'), 2)", "NULL"),
        ("array_offset(make_array('a', 'b'), -1)", "NULL"),
        ("array_ordinal(make_array(1, 2), 1)", "1"),
        ("array_ordinal(make_array(1, 2), 0)", "NULL"),
        ("array_contains(make_array('a', 'b'), 'a')", "true"),
        (
            "array_contains(make_array('a', 'b'), make_array('a', 'b'))",
            "true",
        ),
        (
            "array_contains(make_array('a', 'b'), make_array('a', 'z'))",
            "false",
        ),
        ("array_contains(make_array('a', NULL), NULL)", "true"),
        ("array_contains(make_array('a'), NULL)", "false"),
        ("array_contains(make_array(1, 2), '2')", "true"),
        ("array_contains(make_array(1, 2), 'x')", "false"),
        ("array_contains(NULL, 1)", "NULL"),
        ("array_overlap(make_array(1, 2), make_array(2, 3))", "true"),
        ("array_overlap(make_array(1, 2), make_array(3, 4))", "false"),
        ("array_overlap(make_array(1, NULL), make_array(NULL, 4))", "true"),
        ("array_overlap(make_array(1), NULL)", "false"),
        ("scalar_in_array(2, make_array(1, 2))", "true"),
        ("scalar_in_array(3, make_array(1, 2))", "false"),
        ("scalar_in_array(NULL, make_array(1, NULL))", "true"),
        ("scalar_in_array(NULL, make_array(1))", "NULL"),
        ("array_offset_of(make_array('a', 'b', 'c'), 'c')", "2"),
        ("array_ordinal_of(make_array('a', 'b', 'c'), 'c')", "3"),
        ("array_offset_of(make_array('a'), 'z')", "NULL"),
        ("array_prepend('1', make_array(2, 3))", "[1, 2, 3]"),
        ("array_append(make_array(1, 2), 3)", "[1, 2, 3]"),
        ("array_append(make_array('a'), NULL)", "[a, NULL]"),
        ("array_append(NULL, 1)", "NULL"),
        ("array_concat(make_array(1), make_array(2, 3))", "[1, 2, 3]"),
        ("array_concat(make_array(1), NULL)", "NULL"),
        ("array_concat(NULL, make_array(1))", "NULL"),
        ("array_concat(make_array('a'), make_array(1))", "[a, 1]"),
        ("array_slice(make_array(0, 1, 2), 1)", "[1, 2]"),
        ("array_slice(make_array(0, 1, 2), 1, 2)", "[1]"),
        ("array_slice(make_array(0, 1), 1, 4)", "[1, NULL, NULL]"),
        ("array_slice(make_array(0, 1), 2)", "[]"),
        ("array_slice(make_array(0, 1), 3)", "NULL"),
        ("array_slice(make_array(0, 1), -1)", "NULL"),
        ("array_to_string(make_array('a', NULL, 'b'), ',')", "a,null,b"),
        ("array_to_string(make_array(1, 2), '-')", "1-2"),
        ("array_to_string(make_array(1.5), '-')", "1.5"),
        ("string_to_array('a,b,,c,,', ',')", "[a, b, , c]"),
        ("string_to_array('a1b22c', '[0-9]+')", "[a, b, c]"),
        ("string_to_array('abc', '')", "[a, b, c]"),
        ("string_to_array('', ',')", "[]"),
        ("string_to_array(NULL, ',')", "NULL"),
        ("array_quantile(make_array(1, 2, 3, 4), 0.5)", "2.5"),
        ("array_quantile(make_array(3, NULL, 1), 1)", "3.0"),
        ("druid_cast_bigint_array(make_array('1', 'x'))", "[1, NULL]"),
        ("druid_cast_varchar_array(make_array(1, 2))", "[1, 2]"),
    ])
    .await;
}

#[tokio::test]
async fn refusals() {
    fails(&[
        (
            "string_to_array('x', '(')",
            "An invalid pattern [(] was provided for the [string_to_array] function, error: [",
        ),
        (
            "array_length()",
            "Invalid number of arguments to function 'ARRAY_LENGTH'. Was expecting 1 arguments",
        ),
    ])
    .await;
}
