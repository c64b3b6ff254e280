use super::check;

/// Two values.
const AB: &str = "array_to_mv(make_array('a', 'b'))";

#[tokio::test]
async fn values() {
    let cases = [
        ("mv_to_array(AB)", "[a, b]"),
        ("mv_to_array('x')", "[x]"),
        // What only looks like a list is one value.
        ("length('[\"a\",\"b\"]')", "9"),
        ("mv_length('[\"a\",\"b\"]')", "1"),
        ("mv_to_array('[]')", "[[]]"),
        ("to_json_string(AB)", "[\"a\",\"b\"]"),
        ("to_json_string('[]')", "\"[]\""),
        ("mv_to_array(NULL)", "NULL"),
        ("array_to_mv(make_array('b', 'a'))", "[\"b\",\"a\"]"),
        ("array_to_mv(make_array('x'))", "x"),
        ("string_to_mv('a,b', ',')", "[\"a\",\"b\"]"),
        ("mv_to_string(AB, '-')", "a-b"),
        ("druid_coalesce(NULL, AB, 'x')", "[\"a\",\"b\"]"),
        // A list beside a value makes as many of it.
        ("druid_coalesce('q', AB)", "[\"q\",\"q\"]"),
        ("mv_filter_only(AB, make_array('b'))", "b"),
        ("mv_filter_only(AB, make_array('z'))", "NULL"),
        ("mv_filter_none(AB, make_array('b'))", "a"),
        ("mv_filter_regex(AB, '^[ab]$')", "[\"a\",\"b\"]"),
        ("mv_filter_prefix(AB, 'b')", "b"),
        ("mv_length(AB)", "2"),
        ("mv_length('x')", "1"),
        ("mv_length(NULL)", "NULL"),
        ("mv_offset(AB, 1)", "b"),
        ("mv_ordinal(AB, 1)", "a"),
        ("mv_ordinal(AB, 3)", "NULL"),
        ("mv_offset_of(AB, 'b')", "1"),
        ("mv_ordinal_of(AB, 'z')", "NULL"),
        ("mv_contains(AB, 'a')", "true"),
        ("mv_contains(AB, make_array('a', 'b'))", "true"),
        ("mv_contains(AB, make_array('a', 'c'))", "false"),
        ("mv_contains(NULL, make_array(NULL))", "true"),
        ("mv_overlap(AB, make_array('c', 'b'))", "true"),
        ("mv_overlap(AB, make_array('c'))", "false"),
        ("mv_overlap(NULL, make_array('c'))", "NULL"),
        ("mv_prepend('z', AB)", "[\"z\",\"a\",\"b\"]"),
        ("mv_append(AB, 'z')", "[\"a\",\"b\",\"z\"]"),
        ("mv_append(NULL, 'z')", "NULL"),
        ("mv_concat(AB, 'z')", "[\"a\",\"b\",\"z\"]"),
        ("mv_slice(AB, 1)", "b"),
        ("mv_slice('x', 1)", "NULL"),
        ("mv_slice(AB, 0, 1)", "a"),
        ("upper(AB)", "[\"A\",\"B\"]"),
        ("concat(AB, '-lol-', AB)", "[\"a-lol-a\",\"b-lol-b\"]"),
        (
            "concat(AB, string_to_mv('1,2', ','))",
            "[\"a1\",\"a2\",\"b1\",\"b2\"]",
        ),
        ("contains_string(AB, 'b')", "true"),
        ("druid_mv_equal(AB, 'b')", "true"),
        ("druid_mv_equal(AB, 'z')", "false"),
        ("druid_mv_equal(NULL, 'z')", "NULL"),
        ("druid_mv_in(AB, make_array('z', 'b'))", "true"),
        ("druid_mv_like(AB, 'b%')", "true"),
        ("druid_mv_greater(AB, 'a')", "true"),
        ("druid_mv_values('x')", "[x]"),
        ("druid_mv_values(NULL)", "[NULL]"),
        ("array_length(AB)", "2"),
        ("array_overlap(AB, make_array('b'))", "true"),
        ("upper('[not a list')", "[NOT A LIST"),
    ];
    let cases: Vec<(String, &str)> = cases
        .iter()
        .map(|(sql, expected)| (sql.replace("AB", AB), *expected))
        .collect();
    let cases: Vec<(&str, &str)> = cases
        .iter()
        .map(|(sql, expected)| (sql.as_str(), *expected))
        .collect();
    check(&cases).await;
}
