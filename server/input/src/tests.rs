#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parking_lot::Mutex;
use serde_json::{Value, json};
use trilith_proto::column::ColumnType;
use trilith_proto::fault::Fault;

use crate::*;

#[derive(Default)]
pub(crate) struct Kept(pub(crate) Mutex<Vec<String>>);

impl WarningSink for Kept {
    fn parse_error(&self, message: &dyn Fn() -> String) -> Result<(), Fault> {
        self.0.lock().push(message());
        Ok(())
    }
}

pub(crate) fn signature(columns: &[(&str, &str)]) -> Vec<(String, ColumnType)> {
    columns
        .iter()
        .map(|(name, kind)| ((*name).to_owned(), ColumnType::parse(kind).unwrap()))
        .collect()
}

pub(crate) fn rows(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        // As clients see it.
        let batch = trilith_proto::multi_value::shown(batch.clone()).unwrap();
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            rows.push(
                columns
                    .iter()
                    .map(|column| column.value(row).to_string())
                    .collect(),
            );
        }
    }
    rows
}

pub(crate) fn read(
    source: Value,
    format: Value,
    columns: &[(&str, &str)],
    policy: &Policy,
) -> (Vec<Vec<String>>, Vec<String>) {
    let spec = ExternSpec::parse(&source, &format, &signature(columns)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let splits = runtime.block_on(list_splits(&spec, policy)).unwrap();
    let projection: Vec<usize> = (0..columns.len()).collect();
    let (kept, counters) = (Kept::default(), ReadCounters::default());
    let mut batches = Vec::new();
    for split in &splits {
        read_split(
            &spec,
            split,
            &projection,
            policy,
            &ReadOptions {
                batch_rows: 3,
                ..ReadOptions::default()
            },
            &counters,
            &kept,
            runtime.handle(),
            &mut |batch| {
                batches.push(batch);
                ControlFlow::Continue(())
            },
        )
        .unwrap();
    }
    let found = rows(&batches);
    assert_eq!(found.len() as u64, counters.rows());
    (found, kept.0.into_inner())
}

pub(crate) fn inline(data: &str, format: Value, columns: &[(&str, &str)]) -> (Vec<Vec<String>>, Vec<String>) {
    read(
        json!({"type": "inline", "data": data}),
        format,
        columns,
        &Policy::default(),
    )
}

#[test]
fn converts_as_the_matrix_says() {
    let columns = &[
        ("v", "string"),
        ("l", "long"),
        ("d", "double"),
        ("a", "ARRAY<STRING>"),
        ("j", "COMPLEX<json>"),
    ];
    let cases: &[(&str, [&str; 5])] = &[
        ("null", ["NULL", "NULL", "NULL", "NULL", "NULL"]),
        (r#""""#, ["", "NULL", "NULL", "[]", r#""""#]),
        (
            r#"" +1,234 ""#,
            [" +1,234 ", "1234", "1234.0", "[ +1,234 ]", r#"" +1,234 ""#],
        ),
        (r#""1.9""#, ["1.9", "1", "1.9", "[1.9]", r#""1.9""#]),
        (r#""x\"\u00e9""#, ["x\"é", "NULL", "NULL", "[x\"é]", "\"x\\\"é\""]),
        ("7", ["7", "7", "7.0", "[7]", "7"]),
        (
            "9223372036854775808",
            [
                "9.223372036854776E18",
                "9223372036854775807",
                "9.223372036854776e18",
                "[9.223372036854776E18]",
                "9223372036854775808",
            ],
        ),
        ("1e2", ["100.0", "100", "100.0", "[100.0]", "100.0"]),
        ("-1.5", ["-1.5", "-1", "-1.5", "[-1.5]", "-1.5"]),
        ("true", ["true", "1", "1.0", "[true]", "true"]),
        (
            r#"["a", null, 1]"#,
            [
                r#"["a",null,"1"]"#,
                "NULL",
                "NULL",
                "[a, NULL, 1]",
                r#"["a",null,1]"#,
            ],
        ),
        (r#"["a"]"#, ["a", "NULL", "NULL", "[a]", r#"["a"]"#]),
        ("[]", ["NULL", "NULL", "NULL", "[]", "[]"]),
        (
            r#"{"b": 1, "a": "}"}"#,
            [r#"{"b":1,"a":"}"}"#, "NULL", "NULL", "NULL", r#"{"b":1,"a":"}"}"#],
        ),
    ];
    for (value, expected) in cases {
        let line = format!(
            r#"{{"v":{value},"skipped":[{{"x":"]"}}],"l":{value},"d":{value},"a":{value},"j":{value}}}"#
        );
        let (found, warnings) = inline(&line, json!({"type": "json"}), columns);
        assert!(warnings.is_empty(), "{value}: {warnings:?}");
        let mut expected: Vec<String> = expected.iter().map(|text| (*text).to_owned()).collect();
        if *value == r#""""# {
            expected[3] = "[]".to_owned();
        }
        assert_eq!(found, [expected], "{value}");
    }
}

#[test]
fn reads_the_first_value_of_each_line_and_reports_bad_ones() {
    let data = "{\"x\":1}{\"x\":2}\r\n\n  {\"x\": 3 } rest\n{\"x\":\n5\n{\"y\":1,\"x\":4}\n{\"x\":6";
    let (found, warnings) = inline(data, json!({"type": "json"}), &[("x", "long")]);
    assert_eq!(found, [["1"], ["3"], ["NULL"], ["4"]]);
    assert_eq!(
        warnings,
        [
            "Unable to parse row [{\"x\":] (Record: 3, Line: 4)",
            "Unable to parse row [{\"x\":6] (Record: 5, Line: 7)"
        ]
    );
}

#[test]
fn reads_csv_and_tsv() {
    let csv = "ignored\na,b,,b2\n1,\"x \"\"y\"\", z\",q,\n2,,\"\",\"open\n3,\"\",w\n";
    let format = json!({"type": "csv", "findColumnsFromHeader": true, "skipHeaderRows": 1});
    let (found, warnings) = inline(
        csv,
        format,
        &[
            ("b", "string"),
            ("a", "long"),
            ("column_3", "string"),
            ("b2", "string"),
        ],
    );
    assert_eq!(found, [["x \"y\", z", "1", "q", "NULL"], ["", "3", "w", "NULL"]]);
    assert_eq!(
        warnings,
        ["Unable to parse row [2,,\"\",\"open] (Record: 2, Line: 4)"]
    );

    let format = json!({"type": "tsv", "columns": ["a", "b"], "listDelimiter": "|"});
    let (found, _) = inline("x\ty|z\n\"q\t\n", format, &[("a", "string"), ("b", "string")]);
    assert_eq!(found, [["x", "[\"y\",\"z\"]"], ["\"q", "NULL"]]);
}

/// Blocks as Java's library writes them: one compressed, one stored, an empty one at the end.
fn java_lz4(content: &[u8]) -> Vec<u8> {
    let (first, second) = content.split_at(content.len() / 2);
    let compressed = lz4_flex::block::compress(first);
    let mut out = Vec::new();
    for (method, stored, length) in [
        (0x26, compressed.as_slice(), first.len()),
        (0x16, second, second.len()),
        (0x16, &[][..], 0),
    ] {
        out.extend_from_slice(b"LZ4Block");
        out.push(method);
        out.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        out.extend_from_slice(&(length as u32).to_le_bytes());
        // The checksum is not looked at.
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(stored);
    }
    out
}

fn compressed(directory: &Path) -> Vec<String> {
    let content = |n: i64| format!("{{\"x\":{n}}}\n").repeat(1000).into_bytes();
    let file = |name: &str| std::fs::File::create(directory.join(name)).unwrap();
    file("a.json").write_all(&content(1)).unwrap();
    // Members follow each other.
    let mut out = file("b.json.gz");
    for _ in 0..2 {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&content(2)).unwrap();
        out.write_all(&gz.finish().unwrap()).unwrap();
    }
    let mut zst = zstd::Encoder::new(file("c.json.zst"), 1).unwrap();
    zst.write_all(&content(3)).unwrap();
    zst.finish().unwrap();
    let mut bz = bzip2::write::BzEncoder::new(file("d.json.bz2"), bzip2::Compression::fast());
    bz.write_all(&content(4)).unwrap();
    bz.finish().unwrap();
    let mut xz = liblzma::write::XzEncoder::new(file("e.json.xz"), 1);
    xz.write_all(&content(5)).unwrap();
    xz.finish().unwrap();
    let mut zip = zip::ZipWriter::new(file("f.json.zip"));
    zip.start_file("inside.json", zip::write::SimpleFileOptions::default())
        .unwrap();
    zip.write_all(&content(6)).unwrap();
    zip.finish().unwrap();
    let mut sz = snap::write::FrameEncoder::new(file("g.json.sz"));
    sz.write_all(&content(7)).unwrap();
    sz.flush().unwrap();
    let mut frame = lz4_flex::frame::FrameEncoder::new(file("h.json.lz4"));
    frame.write_all(&content(8)).unwrap();
    frame.finish().unwrap();
    file("i.json.lz4").write_all(&java_lz4(&content(9))).unwrap();
    let sizes = [
        (1, 1000),
        (2, 2000),
        (3, 1000),
        (4, 1000),
        (5, 1000),
        (6, 1000),
        (7, 1000),
        (8, 1000),
        (9, 1000),
    ];
    sizes
        .iter()
        .flat_map(|(n, count)| std::iter::repeat_n(n.to_string(), *count))
        .collect()
}

#[test]
fn reads_every_compression() {
    let directory = tempfile::tempdir().unwrap();
    let expected = compressed(directory.path());
    let policy = Policy {
        allow_local: vec![directory.path().to_owned()],
        ..Policy::default()
    };
    let source = json!({"type": "local", "baseDir": directory.path(), "filter": "*.json*"});
    let (found, warnings) = read(source, json!({"type": "json"}), &[("x", "long")], &policy);
    assert!(warnings.is_empty());
    assert_eq!(found.into_iter().flatten().collect::<Vec<_>>(), expected);
}

#[test]
fn a_time_field_is_read_as_auto_and_a_bad_one_is_a_parse_error() {
    let data = "{\"__time\":\"2000-01-01T00:00:00.000Z\"}\n{\"__time\":\"x\"}\n{\"__time\":5}\n{}";
    let (found, warnings) = inline(data, json!({"type": "json"}), &[("__time", "long")]);
    let times = [
        "2000-01-01T00:00:00Z",
        "1970-01-01T00:00:00.005Z",
        "1970-01-01T00:00:00Z",
    ];
    assert_eq!(found, times.map(|time| [time]));
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("(Record: 2, Line: 2)"), "{}", warnings[0]);
}

#[test]
fn a_bad_time_that_nobody_reads_is_a_parse_error() {
    let path = json!({"fields": [{"type": "path", "name": "__time", "expr": "$.at.t"}]});
    let cases = [
        (
            "{\"a\":1,\"__time\":\"x\"}\n{\"a\":2,\"__time\":5}\n{\"a\":3}",
            json!({"type": "json"}),
        ),
        (
            "{\"a\":1,\"at\":{\"t\":\"x\"}}\n{\"a\":2,\"__time\":\"x\"}\n{\"a\":3}",
            json!({"type": "json", "flattenSpec": path}),
        ),
        (
            "1,x\n2,2024-01\n3,",
            json!({"type": "csv", "columns": ["a", "__time"]}),
        ),
        (
            "1\tx\n2\t5\n3",
            json!({"type": "tsv", "columns": ["a", "__time"]}),
        ),
        (
            "1:x\n2:5\n3:6",
            json!({"type": "regex", "pattern": "(.*):(.*)", "columns": ["a", "__time"]}),
        ),
    ];
    for (data, format) in cases {
        let (found, warnings) = inline(data, format, &[("a", "long")]);
        assert_eq!(found, [["2"], ["3"]], "{data}");
        assert_eq!(warnings.len(), 1, "{data}");
        assert!(
            warnings[0].starts_with("Timestamp[x] is unparseable!"),
            "{}",
            warnings[0]
        );
    }
}

#[test]
fn values_beyond_strict_json_are_read() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let data =
        format!(r#"{{"a":["ok","x\uD900"],"o":{{"k":1}},"n":[1e400],"deep":{deep},"other":"\uD900"}}"#);
    let flatten = json!({"fields": [{"type": "path", "name": "k", "expr": "$.o.k"}]});
    for format in [
        json!({"type": "json"}),
        json!({"type": "json", "flattenSpec": flatten}),
        json!({"type": "json", "featureSpec": {"ALLOW_SINGLE_QUOTES": true}}),
    ] {
        let columns = [
            ("a", "ARRAY<STRING>"),
            ("n", "ARRAY<DOUBLE>"),
            ("deep", "COMPLEX<json>"),
            ("other", "string"),
        ];
        let (found, warnings) = inline(&data, format, &columns);
        assert_eq!(found, [["[ok, x\u{fffd}]", "[inf]", deep.as_str(), "\u{fffd}"]]);
        assert!(warnings.is_empty());
    }
    // Deeper than a reader may go.
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    for features in [json!({}), json!({"ALLOW_SINGLE_QUOTES": true})] {
        let format = json!({"type": "json", "featureSpec": features});
        let (found, warnings) = inline(&deep, format, &[("a", "string")]);
        assert!(found.is_empty());
        assert_eq!(warnings.len(), 1);
    }
}

#[test]
fn sources_that_are_combined_are_all_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("one.json");
    std::fs::write(&path, "{\"a\":\"file\"}\n{\"a\":1,}\n").unwrap();
    let policy = Policy {
        allow_local: vec![directory.path().to_owned()],
        ..Policy::default()
    };
    let inline = |text: &str| json!({"type": "inline", "data": format!("{{\"a\":\"{text}\"}}")});
    let local = json!({"type": "local", "files": [path], "systemFields": ["__file_path"]});
    let source = json!({"type": "combining", "delegates": [
        inline("first"),
        {"type": "combining", "delegates": [local, inline("second")]},
    ]});
    let columns = [("a", "string"), ("__file_path", "string")];
    let (found, warnings) = read(source, json!({"type": "json"}), &columns, &policy);
    let path = path.canonicalize().unwrap().display().to_string();
    assert_eq!(
        found,
        [["first", "NULL"], ["file", path.as_str()], ["second", "NULL"]]
    );
    assert!(
        warnings[0].ends_with(&format!("(Path: file:{path}, Record: 2, Line: 2)")),
        "{}",
        warnings[0]
    );

    let http = json!({"type": "http", "uris": ["http://example.org/x"], "requestHeaders": {"X-Key": "k"},
        "httpAuthenticationPassword": "secret"});
    let source = json!({"type": "combining", "delegates": [inline("x"), http]});
    let spec = ExternSpec::parse(&source, &json!({"type": "json"}), &signature(&columns)).unwrap();
    assert_eq!(spec.refused_header(&[]), Some("X-Key"));
    let echo = spec.source_json().to_string();
    assert!(!echo.contains("secret") && echo.contains("<masked>"), "{echo}");
}

#[test]
fn wrong_arguments_are_named() {
    let columns = signature(&[("x", "long")]);
    let cases = [
        (
            json!({"type": "s3"}),
            json!({"type": "json"}),
            "input source type [s3]",
        ),
        (json!({"type": "inline"}), json!({"type": "json"}), "[data]"),
        (
            json!({"type": "http", "uris": ["ftp://x/y"]}),
            json!({"type": "json"}),
            "Only [http, https]",
        ),
        (
            json!({"type": "inline", "data": ""}),
            json!({"type": "csv"}),
            "[findColumnsFromHeader]",
        ),
        (
            json!({"type": "inline", "data": ""}),
            json!({"type": "orc"}),
            "input format type [orc]",
        ),
        (
            json!({"type": "druid"}),
            json!({"type": "json"}),
            "select FROM the datasource",
        ),
        (
            json!({"type": "sql"}),
            json!({"type": "json"}),
            "[sql] is not supported",
        ),
        (
            json!({"type": "delta"}),
            json!({"type": "json"}),
            "Parquet files of the table",
        ),
        (
            json!({"type": "iceberg"}),
            json!({"type": "json"}),
            "Parquet files of the table",
        ),
        (
            json!({"type": "nowhere"}),
            json!({"type": "json"}),
            "[nowhere] is unknown",
        ),
        (
            json!({"type": "inline", "data": "x"}),
            json!({"type": "kafka"}),
            "for streams",
        ),
        (
            json!({"type": "inline", "data": "x"}),
            json!({"type": "parquet"}),
            "inline data are text",
        ),
        (
            json!({"type": "inline", "data": "x"}),
            json!({"type": "regex"}),
            "[pattern]",
        ),
        (
            json!({"type": "inline", "data": "x"}),
            json!({"type": "regex", "pattern": "("}),
            "[pattern]",
        ),
        (
            json!({"type": "inline", "data": "x"}),
            json!({"type": "csv", "columns": ["a", "a"]}),
            "[a] appears twice",
        ),
        (
            json!({"type": "inline", "data": "x"}),
            json!({"type": "csv", "hasHeaderRow": true, "findColumnsFromHeader": true}),
            "Cannot accept both [findColumnsFromHeader] and [hasHeaderRow]",
        ),
        (
            json!({"type": "inline", "data": "x"}),
            json!({"type": "csv", "columns": ["a,"]}),
            "Column[a,] cannot have the delimiter[,] in its name",
        ),
        (
            json!({"type": "inline", "data": "x"}),
            json!({"type": "tsv", "columns": ["a"], "delimiter": ""}),
            "[delimiter] of a tsv format must not be empty",
        ),
        (
            json!({}),
            json!({"type": "json"}),
            "source of EXTERN lacks the field [type]",
        ),
        (
            json!({"type": "combining", "delegates": []}),
            json!({"type": "json"}),
            "at least one delegate",
        ),
        (
            json!({"type": "combining", "delegates": [{"type": "inline", "data": "x"}]}),
            json!({"type": "parquet"}),
            "inline data are text",
        ),
        (
            json!({"type": "local", "files": ["x"], "systemFields": ["__line"]}),
            json!({"type": "json"}),
            "[__line] is unknown",
        ),
        (
            json!({"type": "inline", "data": "x"}),
            json!({"type": "json", "flattenSpec": {"fields": ["a", {"type": "root", "name": "a"}]}}),
            "[a] twice",
        ),
        (
            json!({"type": "inline", "data": "x"}),
            json!({"type": "json", "flattenSpec": {"fields": [{"type": "path", "name": "a", "expr": "$.b["}]}}),
            "path [$.b[] is invalid",
        ),
        (
            json!({"type": "inline", "data": "x"}),
            json!({"type": "json", "flattenSpec": {"fields": [{"type": "jq", "name": "a", "expr": "map(.x)"}]}}),
            "jq [map(.x)]",
        ),
        (
            json!({"type": "local", "files": ["x"]}),
            json!({"type": "parquet", "flattenSpec": {"fields": [{"type": "jq", "name": "a", "expr": ".b"}]}}),
            "jq] is for json only",
        ),
        (
            json!({"type": "inline", "data": "x"}),
            json!({"type": "json", "featureSpec": {"ALLOW_ALL": true}}),
            "[ALLOW_ALL]",
        ),
    ];
    for (source, format, expected) in cases {
        let error = ExternSpec::parse(&source, &format, &columns).unwrap_err();
        assert!(error.message.contains(expected), "{}", error.message);
    }
}
