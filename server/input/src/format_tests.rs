#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, StructArray};
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::tests::{inline, read};
use crate::*;

fn texts(rows: &[&[&str]]) -> Vec<Vec<String>> {
    let row = |row: &&[&str]| row.iter().map(|text| (*text).to_owned()).collect();
    rows.iter().map(row).collect()
}

#[test]
fn values_of_each_kind_convert_to_each_type() {
    // What stands in the record; then string, long, double, float, ARRAY<STRING>, ARRAY<LONG>, ARRAY<DOUBLE>, json.
    let cases: &[(&str, [&str; 8])] = &[
        (
            "null",
            ["NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL"],
        ),
        (
            r#""1,234""#,
            [
                "1,234",
                "1234",
                "1234.0",
                "1234.0",
                "[1,234]",
                "[1234]",
                "[1234.0]",
                r#""1,234""#,
            ],
        ),
        (
            r#""+5""#,
            ["+5", "5", "5.0", "5.0", "[+5]", "[5]", "[5.0]", r#""+5""#],
        ),
        (
            r#"" 2.9 ""#,
            [
                " 2.9 ",
                "2",
                "2.9",
                "2.9",
                "[ 2.9 ]",
                "[2]",
                "[2.9]",
                r#"" 2.9 ""#,
            ],
        ),
        (
            r#""1e30""#,
            [
                "1e30",
                "9223372036854775807",
                "1e30",
                "1e30",
                "[1e30]",
                "[9223372036854775807]",
                "[1e30]",
                r#""1e30""#,
            ],
        ),
        (
            r#""x""#,
            ["x", "NULL", "NULL", "NULL", "[x]", "[NULL]", "[NULL]", r#""x""#],
        ),
        (
            "-42",
            ["-42", "-42", "-42.0", "-42.0", "[-42]", "[-42]", "[-42.0]", "-42"],
        ),
        (
            "1.0E10",
            [
                "1.0E10",
                "10000000000",
                "10000000000.0",
                "10000000000.0",
                "[1.0E10]",
                "[10000000000]",
                "[10000000000.0]",
                "1.0E10",
            ],
        ),
        (
            "-2.75",
            [
                "-2.75", "-2", "-2.75", "-2.75", "[-2.75]", "[-2]", "[-2.75]", "-2.75",
            ],
        ),
        (
            "false",
            ["false", "0", "0.0", "0.0", "[false]", "[0]", "[0.0]", "false"],
        ),
        (
            r#"[1, null, "2"]"#,
            [
                r#"["1",null,"2"]"#,
                "NULL",
                "NULL",
                "NULL",
                "[1, NULL, 2]",
                "[1, NULL, 2]",
                "[1.0, NULL, 2.0]",
                r#"[1,null,"2"]"#,
            ],
        ),
        // Elements of a multi-value string that are no scalars are written as Java does.
        (
            r#"[{"a":1,"b":["x",null]}, [2.0]]"#,
            [
                r#"["{a=1, b=[x, null]}","[2.0]"]"#,
                "NULL",
                "NULL",
                "NULL",
                "NULL",
                "NULL",
                "NULL",
                r#"[{"a":1,"b":["x",null]},[2.0]]"#,
            ],
        ),
        (
            r#"{"b":1,"a":2}"#,
            [
                r#"{"b":1,"a":2}"#,
                "NULL",
                "NULL",
                "NULL",
                "NULL",
                "NULL",
                "NULL",
                r#"{"b":1,"a":2}"#,
            ],
        ),
    ];
    let types = [
        "string",
        "long",
        "double",
        "float",
        "ARRAY<STRING>",
        "ARRAY<LONG>",
        "ARRAY<DOUBLE>",
        "COMPLEX<json>",
    ];
    for (value, expected) in cases {
        for (kind, expected) in types.iter().zip(expected) {
            let (found, warnings) = inline(
                &format!("{{\"x\":{value}}}"),
                json!({"type": "json"}),
                &[("x", kind)],
            );
            assert_eq!(found, texts(&[&[expected]]), "{value} as {kind}");
            assert!(warnings.is_empty(), "{warnings:?}");
        }
    }
}

#[test]
fn flatten_spec_reads_what_lies_deeper() {
    let format = json!({"type": "json", "flattenSpec": {"useFieldDiscovery": false, "fields": [
        "plain",
        {"type": "root", "name": "renamed", "expr": "plain"},
        {"type": "path", "name": "deep", "expr": "$.a.b[1]"},
        {"type": "path", "name": "all", "expr": "$..b"},
        {"type": "path", "name": "sum", "expr": "$.a.b.sum()"},
        {"type": "jq", "name": "walked", "expr": ".a | .c"},
        {"type": "tree", "name": "tree", "nodes": ["a", "c", "d"]},
        {"type": "path", "name": "missing", "expr": "$.no.where"},
    ]}});
    let line = r#"{"plain": 7, "a": {"b": [1, 2.5], "c": {"d": "x"}}, "other": {"k": [true]}}"#;
    let columns = [
        ("deep", "double"),
        ("plain", "long"),
        ("renamed", "string"),
        ("all", "COMPLEX<json>"),
        ("sum", "double"),
        ("walked", "COMPLEX<json>"),
        ("tree", "string"),
        ("missing", "string"),
        // Not in the spec: looked for in the record all the same.
        ("other", "COMPLEX<json>"),
    ];
    let (found, warnings) = inline(&format!("{line}\n{{\"a\":1\n"), format, &columns);
    let expected: &[&str] = &[
        "2.5",
        "7",
        "7",
        "[[1,2.5]]",
        "3.5",
        r#"{"d":"x"}"#,
        "x",
        "NULL",
        r#"{"k":[true]}"#,
    ];
    assert_eq!(found, texts(&[expected]));
    assert_eq!(warnings, ["Unable to parse row [{\"a\":1] (Record: 2, Line: 2)"]);
}

#[test]
fn feature_spec_allows_what_json_does_not() {
    let data = "{x: 'a', y: 007}\n{\"x\": \"b\", \"y\": 8}\n{x: }\n";
    let columns = [("x", "string"), ("y", "long")];
    let features = json!({"ALLOW_UNQUOTED_FIELD_NAMES": true, "ALLOW_SINGLE_QUOTES": true, "ALLOW_NUMERIC_LEADING_ZEROS": true});
    let (found, warnings) = inline(data, json!({"type": "json", "featureSpec": features}), &columns);
    assert_eq!(found, texts(&[&["a", "7"], &["b", "8"]]));
    assert_eq!(warnings, ["Unable to parse row [{x: }] (Record: 3, Line: 3)"]);
    let (found, warnings) = inline(data, json!({"type": "json"}), &columns);
    assert_eq!((found, warnings.len()), (texts(&[&["b", "8"]]), 2));
}

#[test]
fn lines_and_patterns_make_rows() {
    let data = "GET /a 200\r\n\nPOST /b x";
    let (found, warnings) = inline(
        data,
        json!({"type": "lines"}),
        &[("line", "string"), ("other", "long")],
    );
    assert_eq!(
        found,
        texts(&[&["GET /a 200", "NULL"], &["", "NULL"], &["POST /b x", "NULL"]])
    );
    assert!(warnings.is_empty());

    let pattern = r"(\w+) (/\S*) (\d+)?(?:x|)";
    let format = json!({"type": "regex", "pattern": pattern, "columns": ["verb", "path", "status"]});
    let columns = [("status", "long"), ("verb", "string"), ("nothing", "string")];
    let (found, warnings) = inline(data, format, &columns);
    assert_eq!(
        found,
        texts(&[&["200", "GET", "NULL"], &["NULL", "POST", "NULL"]])
    );
    assert_eq!(
        warnings,
        [format!(
            "Unable to parse row []: it does not match the pattern [{pattern}] (Record: 2, Line: 2)"
        )]
    );

    let format = json!({"type": "regex", "pattern": "([^;]*);(.*)", "listDelimiter": "|"});
    let (found, _) = inline(
        "a|b;1\n;\n",
        format,
        &[("column_1", "string"), ("column_2", "ARRAY<LONG>")],
    );
    assert_eq!(found, texts(&[&[r#"["a","b"]"#, "[1]"], &["", "[NULL]"]]));
}

#[test]
fn cells_become_numbers_only_when_asked() {
    let data = "1,1.50,007,1|2.5|x\n";
    let columns = [
        ("a", "COMPLEX<json>"),
        ("b", "COMPLEX<json>"),
        ("c", "COMPLEX<json>"),
        ("d", "COMPLEX<json>"),
    ];
    let format = |numbers: bool| json!({"type": "csv", "columns": ["a", "b", "c", "d"], "listDelimiter": "|", "tryParseNumbers": numbers});
    let (found, _) = inline(data, format(false), &columns);
    assert_eq!(
        found,
        texts(&[&[r#""1""#, r#""1.50""#, r#""007""#, r#"["1","2.5","x"]"#]])
    );
    let (found, _) = inline(data, format(true), &columns);
    assert_eq!(found, texts(&[&["1", "1.5", "7", r#"[1,2.5,"x"]"#]]));
}

#[test]
fn system_fields_tell_where_a_row_comes_from() {
    let directory = tempfile::tempdir().unwrap();
    let policy = Policy {
        allow_local: vec![directory.path().to_owned()],
        ..Policy::default()
    };
    for name in ["one", "two"] {
        let row = json!({"n": name, "__file_uri": "not this"});
        std::fs::write(directory.path().join(format!("{name}.json")), row.to_string()).unwrap();
    }
    let columns = [
        ("__file_uri", "string"),
        ("n", "string"),
        ("__file_path", "string"),
        ("__file_bucket", "string"),
    ];
    let source = json!({"type": "local", "baseDir": directory.path(), "systemFields": ["__file_uri", "__file_path", "__file_bucket"]});
    let (found, _) = read(source, json!({"type": "json"}), &columns, &policy);
    let real = directory.path().canonicalize().unwrap();
    let path = |name: &str| real.join(format!("{name}.json")).display().to_string();
    let expected = ["one", "two"].map(|name| {
        vec![
            format!("file:{}", path(name)),
            name.to_owned(),
            path(name),
            "NULL".to_owned(),
        ]
    });
    assert_eq!(found, expected);
    // Not asked for: a field of the record like any other.
    let source = json!({"type": "local", "files": [directory.path().join("one.json")]});
    let (found, _) = read(
        source,
        json!({"type": "json"}),
        &[("__file_uri", "string")],
        &policy,
    );
    assert_eq!(found, texts(&[&["not this"]]));
}

fn parquet(name: &str) -> (Value, Policy, PathBuf) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/parquet");
    let file = directory.join(name).canonicalize().unwrap();
    let policy = Policy {
        allow_local: vec![directory.clone()],
        ..Policy::default()
    };
    (json!({"type": "local", "files": [file]}), policy, directory)
}

#[test]
fn parquet_has_every_logical_type_of_expected_json() {
    for file in ["types-snappy.parquet", "types-gzip.parquet", "types-zstd.parquet"] {
        let (source, policy, directory) = parquet(file);
        let expected = std::fs::read_to_string(directory.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        let expected = expected.as_object().unwrap();
        assert_eq!(expected.len(), 28);
        for (name, values) in expected {
            let (found, warnings) = read(
                source.clone(),
                json!({"type": "parquet"}),
                &[(name, "COMPLEX<json>")],
                &policy,
            );
            assert!(warnings.is_empty());
            let wanted = values["json"].as_array().unwrap();
            assert_eq!(found.len(), wanted.len());
            for (found, wanted) in found.iter().zip(wanted) {
                let found: Value = match found[0].as_str() {
                    "NULL" => Value::Null,
                    text => serde_json::from_str(text).unwrap(),
                };
                assert_eq!(found, *wanted, "{file}: {name}");
            }
            // Numbers into numbers.
            if wanted[0].is_i64() || wanted[0].is_f64() {
                for (kind, whole) in [("double", false), ("long", true), ("float", false)] {
                    let (found, _) = read(
                        source.clone(),
                        json!({"type": "parquet"}),
                        &[(name, kind)],
                        &policy,
                    );
                    for (found, wanted) in found.iter().zip(wanted).take(2) {
                        let wanted = wanted.as_f64().unwrap();
                        let wanted = if whole { wanted.trunc() } else { wanted };
                        let found: f64 = found[0].parse().unwrap();
                        let close = (found - wanted).abs() <= wanted.abs() * 1e-6;
                        let beyond = wanted.abs() > 9.2e18 || (kind == "float" && wanted.abs() > 1e38);
                        assert!(
                            close || beyond,
                            "{file}: {name} as {kind}: {found} is not {wanted}"
                        );
                    }
                    assert_eq!(found[2], ["NULL"]);
                }
            }
            if let Some(wanted) = values["text"].as_array() {
                let (found, _) = read(
                    source.clone(),
                    json!({"type": "parquet"}),
                    &[(name, "string")],
                    &policy,
                );
                let found: Vec<&str> = found.iter().flatten().map(String::as_str).collect();
                let wanted: Vec<&str> = wanted.iter().filter_map(Value::as_str).chain(["NULL"]).collect();
                assert_eq!(found, wanted, "{file}: {name}");
            }
        }
    }
}

#[test]
fn parquet_columns_go_where_the_signature_wants_them() {
    let (source, policy, _) = parquet("types-snappy.parquet");
    let format = json!({"type": "parquet", "binaryAsString": true, "flattenSpec": {"fields": [
        {"type": "path", "name": "b", "expr": "$.nested.a.b"},
        {"type": "path", "name": "d", "expr": "$.nested.c[*].d"},
        {"type": "root", "name": "again", "expr": "text"},
    ]}});
    let columns = [
        ("b", "long"),
        ("d", "ARRAY<STRING>"),
        ("texts", "string"),
        ("list", "ARRAY<LONG>"),
        ("fixed", "string"),
        ("again", "string"),
        ("bool", "long"),
        ("missing", "double"),
        ("bool", "string"),
    ];
    let (found, _) = read(source.clone(), format, &columns[..8], &policy);
    assert_eq!(
        found,
        texts(&[
            &[
                "7",
                "[x, NULL]",
                r#"["a","b"]"#,
                "[1, NULL, 3]",
                "xyz",
                "grün",
                "1",
                "NULL"
            ],
            &["NULL", "[]", "only", "[]", "\u{1}\u{2}\u{3}", "", "0", "NULL"],
            &["NULL", "[]", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL"],
        ])
    );
    let (found, _) = read(
        source.clone(),
        json!({"type": "parquet"}),
        &[("bytes", "string"), ("bytes", "long")][..1],
        &policy,
    );
    assert_eq!(found, texts(&[&["AP8="], &["YWJj"], &["NULL"]]));
    let (found, _) = read(source, json!({"type": "parquet"}), &[("bytes", "long")], &policy);
    assert_eq!(found, texts(&[&["NULL"], &["NULL"], &["NULL"]]));

    let (source, policy, _) = parquet("duckdb.parquet");
    let columns = [
        ("j", "string"),
        ("e", "string"),
        ("span", "string"),
        ("id", "string"),
    ];
    let (found, _) = read(source, json!({"type": "parquet"}), &columns, &policy);
    assert_eq!(
        found,
        texts(&[&[r#"{"a": 1}"#, "yes", "PT86402.500S", "ASNFZ4mrze8BI0VniavN7w=="]])
    );

    let (source, policy, _) = parquet("groups.parquet");
    let (found, _) = read(
        source,
        json!({"type": "parquet"}),
        &[("word", "string"), ("n", "string")],
        &policy,
    );
    let expected: Vec<Vec<String>> = "abcdef"
        .chars()
        .enumerate()
        .map(|(n, word)| vec![word.to_string(), n.to_string()])
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn floats_of_parquet_are_short_as_text_and_exact_as_doubles() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("floats.parquet");
    let floats = Arc::new(Float32Array::from(vec![1.1_f32, 1e30])) as ArrayRef;
    let field = Arc::new(Field::new("f", DataType::Float32, true));
    let object = Arc::new(StructArray::from(vec![(field, Arc::clone(&floats))])) as ArrayRef;
    let batch = RecordBatch::try_from_iter([("f", floats), ("o", object)]).unwrap();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let policy = Policy {
        allow_local: vec![directory.path().to_owned()],
        ..Policy::default()
    };
    let exact = "1.100000023841858";
    let cases = [
        ("f", "string", "1.1", "1.0E30"),
        ("f", "ARRAY<STRING>", "[1.1]", "[1.0E30]"),
        ("f", "COMPLEX<json>", "1.1", "1.0E30"),
        ("o", "COMPLEX<json>", r#"{"f":1.1}"#, r#"{"f":1.0E30}"#),
        ("deep", "string", "1.1", "1.0E30"),
        ("f", "double", exact, "1.0000000150474662e30"),
        ("deep", "double", exact, "1.0000000150474662e30"),
        ("f", "float", "1.1", "1e30"),
    ];
    let format = json!({"type": "parquet", "flattenSpec": {"fields": [
        {"type": "path", "name": "deep", "expr": "$.o.f"},
    ]}});
    for (name, kind, first, second) in cases {
        let source = json!({"type": "local", "files": [path]});
        let (found, _) = read(source, format.clone(), &[(name, kind)], &policy);
        assert_eq!(found, texts(&[&[first], &[second]]), "{name} as {kind}");
    }
}
