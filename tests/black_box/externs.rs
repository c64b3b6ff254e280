//! EXTERN and table functions from end to end: how they are written, what they read, what they refuse.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Server, extern_json};

/// EXTERN of any source and format.
fn extern_of(source: &Value, format: &Value, signature: &[(&str, &str)]) -> String {
    let columns: Vec<Value> = signature
        .iter()
        .map(|(name, kind)| json!({"name": name, "type": kind}))
        .collect();
    let quoted = |value: &Value| value.to_string().replace('\'', "''");
    format!(
        "TABLE(EXTERN('{}', '{}', '{}'))",
        quoted(source),
        quoted(format),
        quoted(&json!(columns))
    )
}

fn parquet_files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data/parquet")
        .canonicalize()
        .unwrap()
}

/// An HTTP server that wants a name, a password and a header. Returns its URL; ends with the process.
fn guarded_source(body: &'static str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/data.csv", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut wanted = 0;
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let line = line.unwrap_or_default().to_ascii_lowercase();
                // "u:it's" in base64.
                wanted += usize::from(line == "authorization: basic dtppdcdz" || line == "x-key: k1");
                if line.is_empty() {
                    break;
                }
            }
            let (status, body) = match wanted {
                2 => ("200 OK", body),
                _ => ("401 Unauthorized", ""),
            };
            let length = body.len();
            // The reader may have gone.
            let _gone = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    url
}

#[tokio::test]
async fn all_ways_to_write_external_data_give_the_same_rows() {
    let url = guarded_source("skipped\na,1\nb,2\n");
    let args = [
        "--worker-slots",
        "1",
        "--allow-http",
        "127.0.0.1",
        "--allow-http-header",
        "X-Key",
    ];
    let server = Server::start(&args);
    let directory = server.directory.join("input");
    let place = directory.display();
    server.input("one.csv", b"a,1\n");
    server.input("two.csv", b"b,2\n");
    let source = r#"{"type":"inline","data":"a,1\nb,2"}"#;
    let format = r#"{"type":"csv","columns":["ch","n"]}"#;
    let signature = r#"[{"name":"ch","type":"string"},{"name":"n","type":"long"}]"#;
    let extend = "EXTEND (ch VARCHAR, n BIGINT)";
    let tables = [
        format!("TABLE(EXTERN('{source}', '{format}', '{signature}'))"),
        format!(
            "TABLE(EXTERN(inputFormat => '{format}', inputSource => '{source}', signature => '{signature}'))"
        ),
        format!("TABLE(EXTERN(inputSource => '{source}', inputFormat => '{format}')) {extend}"),
        format!("TABLE(EXTERN('{source}', '{format}')) (ch VARCHAR(10) NOT NULL, n INTEGER)"),
        format!("TABLE(INLINE(data => ARRAY['a,1', 'b,2'], format => 'csv')) {extend}"),
        format!("TABLE(inline(FORMAT => 'csv', data => 'h\na,1\nb,2', skipHeaderRows => TRUE)) {extend}"),
        format!("TABLE(INLINE(data => ARRAY['a;1', 'b;2'], format => 'tsv', delimiter => ';')) {extend}"),
        format!(
            "TABLE(INLINE(data => ARRAY['{{\"ch\":\"a\",\"n\":1}}', '{{\"ch\":\"b\",\"n\":2}}'], format => 'json')) {extend}"
        ),
        format!("TABLE(LOCALFILES(baseDir => '{place}', filter => '*.csv', format => 'csv')) {extend}"),
        format!(
            "TABLE(LOCALFILES(baseDir => '{place}', files => ARRAY['one.csv', 'two.csv'], format => 'csv')) {extend}"
        ),
        format!("TABLE(LOCALFILES(files => '{place}/one.csv, {place}/two.csv', format => 'csv')) {extend}"),
        format!(
            "TABLE(HTTP(uris => ARRAY['{url}'], userName => 'u', password => 'it''s', headers => '{{\"X-Key\":\"k1\"}}', \
             format => 'csv', skipHeaderRows => 1)) {extend}"
        ),
    ];
    let expected = [vec![json!("a"), json!(1)], vec![json!("b"), json!(2)]];
    for table in &tables {
        let report = server
            .run(&format!("SELECT * FROM {table} ORDER BY n"), json!({}))
            .await;
        assert_eq!(report["results"]["results"], json!(expected), "{table}");
    }
    let body = json!({
        "query": "SELECT t.n + ? FROM TABLE(INLINE(data => ?, format => ?)) EXTEND (ch VARCHAR, n BIGINT) AS t WHERE ch = ?",
        "parameters": [
            {"type": "BIGINT", "value": 10},
            {"type": "VARCHAR", "value": "a,1\nb,2"},
            {"type": "VARCHAR", "value": "csv"},
            {"type": "VARCHAR", "value": "b"},
        ],
    });
    let (status, text) = server.post("/druid/v2/sql/task", body).await;
    assert_eq!(status, 202, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    let task = answer["taskId"].as_str().unwrap();
    assert_eq!(server.wait(task).await["statusCode"], "SUCCESS");
    assert_eq!(server.report(task).await["results"]["results"], json!([[12]]));
    // The password is nowhere to be seen.
    let table = tables.last().unwrap();
    let task = server.submit(&format!("SELECT * FROM {table}"), json!({})).await;
    assert_eq!(server.wait(&task).await["statusCode"], "SUCCESS");
    let (_, payload) = server.get(&format!("/druid/indexer/v1/task/{task}")).await;
    let report = server.report(&task).await;
    assert_eq!(report["results"]["results"], json!(expected));
    for text in [payload.to_string(), report.to_string()] {
        assert!(text.contains("<masked>"), "{text}");
        assert!(
            !text.contains("it's") && !text.contains("it''s") && !text.contains("k1\""),
            "{text}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_at_once_with_a_remedy() {
    let server = Server::start(&["--worker-slots", "1"]);
    let inline = json!({"type": "inline", "data": "x"});
    let lines = json!({"type": "lines"});
    let column = [("line", "string")];
    let of = |source: &Value, format: &Value| extern_of(source, format, &column);
    let cases = [
        (of(&json!({"type": "druid", "dataSource": "w"}), &lines), "select FROM the datasource"),
        (of(&json!({"type": "s3", "uris": ["s3://b/k"]}), &lines), "[s3]"),
        (of(&json!({"type": "iceberg"}), &lines), "Parquet files of the table"),
        (of(&json!({"type": "sql"}), &lines), "[sql] is not supported"),
        (of(&inline, &json!({"type": "kafka"})), "for streams"),
        (of(&inline, &json!({"type": "orc"})), "[orc]"),
        (of(&inline, &json!({"type": "csv"})), "[findColumnsFromHeader]"),
        (of(&inline, &json!({"type": "tsv", "columns": ["a"], "delimiter": "|", "listDelimiter": "|"})), "[|]"),
        (of(&inline, &json!({"type": "json", "useJsonNodeReader": true, "assumeNewlineDelimited": true})), "at the same time"),
        (
            of(&json!({"type": "http", "uris": ["http://h/x"], "requestHeaders": {"Cookie": "c"}}), &lines),
            "--allow-http-header Cookie",
        ),
        (extern_of(&inline, &lines, &[("__time", "string")]), "__time column is of type long"),
        (extern_of(&inline, &lines, &[("x", "COMPLEX<nope>")]), "unsupported type"),
        ("TABLE(S3(uris => ARRAY['s3://b/k'], format => 'csv')) (a VARCHAR)".to_owned(), "[S3] is not available"),
        ("TABLE(INLINE(data => ARRAY['a'], format => 'csv'))".to_owned(), "EXTEND (<column> <type>"),
        ("TABLE(INLINE(data => ARRAY['a'], format => 'orc')) (a VARCHAR)".to_owned(), "[orc] for property [format]"),
        ("TABLE(INLINE(data => ARRAY['a'])) (a VARCHAR)".to_owned(), "[format]"),
        ("TABLE(INLINE(format => 'csv')) (a VARCHAR)".to_owned(), "[data]"),
        ("TABLE(INLINE(dat => 'a', format => 'csv')) (a VARCHAR)".to_owned(), "no argument [dat]; use data,"),
        ("TABLE(INLINE('a')) (a VARCHAR)".to_owned(), "<name> => <value>"),
        ("TABLE(INLINE(data => 'a', format => 'csv')) (a BOOLEAN)".to_owned(), "[a] has an unsupported type: [BOOLEAN]"),
        ("TABLE(INLINE(data => 'a', format => 'csv')) (a.b VARCHAR)".to_owned(), "simple name"),
        ("TABLE(LOCALFILES(filter => '*', format => 'csv')) (a VARCHAR)".to_owned(), "[baseDir]"),
        (
            "TABLE(HTTP(uris => 'http://h/x', password => 'a', passwordEnvVar => 'b', format => 'csv')) (a VARCHAR)".to_owned(),
            "passwordEnvVar are both given",
        ),
    ];
    for (table, expected) in cases {
        {
            let path = "/druid/v2/sql/task";
            let (status, text) = server
                .post(path, json!({"query": format!("SELECT *\nFROM {table}")}))
                .await;
            assert_eq!(status, 400, "{table}: {text}");
            let body: Value = serde_json::from_str(&text).unwrap();
            let error = body
                .get("error")
                .filter(|error| error.is_object())
                .unwrap_or(&body);
            let message = error["errorMessage"].as_str().unwrap();
            assert!(message.contains(expected), "{table}: {message}");
            for word in ["serde", "Utf8", "DataFusion", "arrow"] {
                assert!(!message.contains(word), "{message}");
            }
        }
    }
}

#[tokio::test]
async fn every_format_is_stored_and_read_back() {
    let files = parquet_files();
    let server = Server::start(&["--worker-slots", "2", "--allow-local", files.to_str().unwrap()]);
    let file = files.join("types-snappy.parquet");
    let format = json!({"type": "parquet", "flattenSpec": {"fields": [
        {"type": "path", "name": "deep", "expr": "$.nested.a.b"}
    ]}});
    let source = json!({"type": "local", "files": [file], "systemFields": ["__file_path"]});
    let table = extern_of(
        &source,
        &format,
        &[
            ("ts_us", "long"),
            ("dec64", "string"),
            ("list", "ARRAY<LONG>"),
            ("deep", "long"),
            ("texts", "string"),
            ("map", "COMPLEX<json>"),
            ("__file_path", "string"),
        ],
    );
    let report = server
        .run(
            &format!(
                "REPLACE INTO p OVERWRITE ALL SELECT MILLIS_TO_TIMESTAMP(ts_us) AS __time, dec64, list, deep, texts, map, \
                 __file_path AS file FROM {table} WHERE ts_us IS NOT NULL PARTITIONED BY YEAR"
            ),
            json!({}),
        )
        .await;
    let input = &report["counters"]["0"]["0"]["input0"];
    let size = std::fs::metadata(&file).unwrap().len();
    assert_eq!(
        (
            &input["rows"],
            &input["bytes"],
            &input["files"],
            &input["totalFiles"]
        ),
        (&json!([3]), &json!([size]), &json!([1]), &json!([1]))
    );
    let rows = server
        .rows("SELECT TIMESTAMP_TO_MILLIS(__time), dec64, list, deep, texts, JSON_VALUE(map, '$.l' RETURNING BIGINT), file FROM p WHERE deep = 7")
        .await;
    let path = file.display().to_string();
    let expected = json!([
        1_709_210_096_789_i64,
        "1.500",
        [1, null, 3],
        7,
        r#"["a","b"]"#,
        2,
        path
    ]);
    let rows: Vec<Vec<Value>> = rows
        .into_iter()
        .map(|mut row| {
            // Arrays may come as text.
            if let Some(text) = row[2].as_str() {
                row[2] = serde_json::from_str(text).unwrap();
            }
            row
        })
        .collect();
    assert_eq!(json!(rows), json!([expected]));
    assert_eq!(
        server.rows("SELECT COUNT(*) FROM p WHERE texts = 'b'").await,
        [[json!(1)]]
    );

    let log = "10.0.0.1 GET /a 200\n10.0.0.2 POST /b 404\n";
    let source = json!({"type": "inline", "data": log});
    let format = json!({"type": "regex", "pattern": r"(\S+) (\S+) (\S+) (\d+)", "columns": ["ip", "verb", "path", "status"]});
    let table = extern_of(&source, &format, &[("verb", "string"), ("status", "long")]);
    server
        .run(
            &format!("INSERT INTO log SELECT verb, status FROM {table} PARTITIONED BY ALL"),
            json!({}),
        )
        .await;
    let rows = server
        .rows("SELECT verb, status FROM log ORDER BY status DESC")
        .await;
    assert_eq!(rows, [[json!("POST"), json!(404)], [json!("GET"), json!(200)]]);
    let table = extern_of(&source, &json!({"type": "lines"}), &[("line", "string")]);
    let report = server.run(&format!("SELECT line FROM {table}"), json!({})).await;
    let lines: Vec<Value> = log.lines().map(|line| json!([line])).collect();
    assert_eq!(report["results"]["results"], json!(lines));

    let source = json!({"type": "inline", "data": r#"{"a": {"b": [1, 2]}, "t": {"u": {"v": "w"}}}"#});
    let format = json!({"type": "json", "flattenSpec": {"fields": [
        {"type": "path", "name": "second", "expr": "$.a.b[1]"},
        {"type": "jq", "name": "list", "expr": ".a.b"},
        {"type": "tree", "name": "leaf", "nodes": ["t", "u", "v"]},
    ]}});
    let table = extern_of(
        &source,
        &format,
        &[
            ("second", "long"),
            ("list", "string"),
            ("leaf", "string"),
            ("a", "COMPLEX<json>"),
        ],
    );
    let report = server
        .run(
            &format!("SELECT second, list, leaf, JSON_VALUE(a, '$.b[0]' RETURNING BIGINT) FROM {table}"),
            json!({}),
        )
        .await;
    assert_eq!(
        report["results"]["results"][0],
        json!([2, r#"["1","2"]"#, "w", 1])
    );
}

#[tokio::test]
async fn records_that_cannot_be_read_are_counted_and_placed() {
    let server = Server::start(&["--worker-slots", "1"]);
    let path = server.input("bad.json", b"{\"n\":1}\n{\"n\":\n\n{\"n\":2}\nnope\n{\"n\":3}\n");
    let source = json!({"type": "local", "files": [path]});
    let sql = format!(
        "REPLACE INTO t OVERWRITE ALL SELECT n FROM {} PARTITIONED BY ALL",
        extern_json(&source, "n long")
    );
    let place =
        |record: u64, line: u64| format!("(Path: file:{}, Record: {record}, Line: {line})", path.display());
    let failed = |max: i64| {
        let (server, sql) = (&server, &sql);
        async move {
            let task = server.submit(sql, json!({"maxParseExceptions": max})).await;
            assert_eq!(server.wait(&task).await["statusCode"], "FAILED");
            server.report(&task).await["status"]["errorReport"]["error"].clone()
        }
    };
    let error = failed(0).await;
    assert_eq!(error["errorCode"], "CannotParseExternalData");
    assert_eq!(
        error["errorMessage"],
        format!("Unable to parse row [{{\"n\":] {}", place(2, 2))
    );
    let error = failed(1).await;
    assert_eq!(
        (
            &error["errorCode"],
            &error["maxWarnings"],
            &error["rootErrorCode"]
        ),
        (
            &json!("TooManyWarnings"),
            &json!(1),
            &json!("CannotParseExternalData")
        )
    );
    for max in [2, -1] {
        let report = server.run(&sql, json!({"maxParseExceptions": max})).await;
        let counters = &report["counters"]["0"]["0"];
        assert_eq!(counters["warnings"]["CannotParseExternalData"], 2, "{counters}");
        assert_eq!(counters["input0"]["rows"], json!([3]));
        let warnings = report["status"]["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), 2);
        let worker = format!(
            "{}-worker0_0",
            report["stages"][0]["definition"]["id"]
                .as_str()
                .unwrap()
                .trim_end_matches("_0")
        );
        for (warning, expected) in warnings.iter().zip([place(2, 2), place(3, 5)]) {
            assert_eq!(
                (&warning["taskId"], &warning["stageNumber"]),
                (&json!(worker), &json!(0))
            );
            assert_eq!(warning["error"]["errorCode"], "CannotParseExternalData");
            let message = warning["error"]["errorMessage"].as_str().unwrap();
            assert!(message.ends_with(&expected), "{message}");
        }
        assert_eq!(
            server.rows("SELECT SUM(n), COUNT(*) FROM t").await,
            [[json!(6), json!(3)]]
        );
    }
    let (status, text) = server
        .post(
            "/druid/v2/sql/task",
            json!({"query": sql, "context": {"maxParseExceptions": -2}}),
        )
        .await;
    assert_eq!(status, 400, "{text}");
}

#[tokio::test]
async fn null_bytes_are_placed_or_removed() {
    let server = Server::start(&["--worker-slots", "1"]);
    let path = server.input("null.json", b"{\"s\":\"fine\"}\n{\"s\":\"a\\u0000b\"}\n");
    let source = json!({"type": "local", "files": [path]});
    let sql = format!(
        "REPLACE INTO t OVERWRITE ALL SELECT s FROM {} PARTITIONED BY ALL",
        extern_json(&source, "s string")
    );
    let task = server.submit(&sql, json!({})).await;
    assert_eq!(server.wait(&task).await["statusCode"], "FAILED");
    let error = server.report(&task).await["status"]["errorReport"]["error"].clone();
    let expected = json!({"errorCode": "InvalidNullByte", "source": format!("file:{}", path.display()), "rowNumber": 2,
        "column": "s", "value": "a\u{0}b", "position": 1, "errorMessage": error["errorMessage"]});
    assert_eq!(error, expected);
    server.run(&sql, json!({"removeNullBytes": true})).await;
    let rows = server.rows("SELECT s FROM t ORDER BY s").await;
    assert_eq!(rows, [[json!("ab")], [json!("fine")]]);
}

#[tokio::test]
async fn columns_that_nobody_names_are_those_of_a_sample() {
    let files = parquet_files();
    let server = Server::start(&["--worker-slots", "1", "--allow-local", files.to_str().unwrap()]);
    let lines = [
        json!({"ts": "2024-01-01", "n": 1, "x": 1, "tags": ["a"], "deep": {"k": 1}, "flag": true}),
        json!({"ts": "2024-01-02", "n": null, "x": 2.5, "tags": [], "late": [1, 2.5]}),
    ];
    let data: String = lines.iter().map(|line| format!("{line}\n")).collect();
    server.input("a.json", data.as_bytes());
    let local = json!({"type": "local", "baseDir": server.directory.join("input"), "filter": "a.json"});
    let cases = [
        (
            local.clone(),
            json!({"type": "json"}),
            vec![
                ("ts", "STRING"),
                ("n", "LONG"),
                ("x", "DOUBLE"),
                ("tags", "ARRAY<STRING>"),
                ("deep", "COMPLEX<json>"),
                ("flag", "LONG"),
                ("late", "ARRAY<DOUBLE>"),
            ],
            2,
        ),
        (
            local.clone(),
            json!({"type": "json", "flattenSpec": {"useFieldDiscovery": false, "fields": ["ts", {"type": "path", "name": "k", "expr": "$.deep.k"}]}}),
            vec![("ts", "STRING"), ("k", "LONG")],
            2,
        ),
        (
            json!({"type": "inline", "data": "a,b,c,d\n1,2.5,007,\n-3,4,x,\n"}),
            json!({"type": "csv", "findColumnsFromHeader": true}),
            vec![("a", "LONG"), ("b", "DOUBLE"), ("c", "STRING"), ("d", "STRING")],
            2,
        ),
        (
            json!({"type": "inline", "data": "GET 200\nPOST 404"}),
            json!({"type": "regex", "pattern": "(\\w+) (\\d+)", "columns": ["verb", "status"]}),
            vec![("verb", "STRING"), ("status", "LONG")],
            2,
        ),
        (
            json!({"type": "local", "files": [files.join("groups.parquet")], "systemFields": ["__file_uri"]}),
            json!({"type": "parquet"}),
            vec![("n", "LONG"), ("word", "STRING"), ("__file_uri", "STRING")],
            6,
        ),
    ];
    for (source, format, columns, records) in cases {
        let body = json!({"inputSource": source, "inputFormat": format});
        let (status, text) = server.post("/trilith/v1/infer", body).await;
        assert_eq!(status, 200, "{text}");
        let columns: Vec<Value> = columns
            .iter()
            .map(|(name, kind)| json!({"name": name, "type": kind}))
            .collect();
        let expected = json!({"signature": columns, "sampledRecords": records});
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    }
    // The same in a statement.
    let table = format!("TABLE(EXTERN('{local}', '{{\"type\":\"json\"}}'))");
    server
        .run(
            &format!("REPLACE INTO t OVERWRITE ALL SELECT TIME_PARSE(ts) AS __time, n, x, late FROM {table} PARTITIONED BY DAY"),
            json!({}),
        )
        .await;
    let expected = [[json!(1), json!(1.0)], [Value::Null, json!(2.5)]];
    assert_eq!(server.rows("SELECT n, x FROM t ORDER BY x").await, expected);
    let report = server
        .run(&format!("SELECT n, x FROM {table} ORDER BY x"), json!({}))
        .await;
    assert_eq!(report["results"]["results"], json!(expected));
    for (source, format, expected) in [
        (
            json!({"type": "inline", "data": ""}),
            json!({"type": "json"}),
            "no columns",
        ),
        (
            json!({"type": "druid"}),
            json!({"type": "json"}),
            "FROM the datasource",
        ),
    ] {
        let (status, text) = server
            .post(
                "/trilith/v1/infer",
                json!({"inputSource": source, "inputFormat": format}),
            )
            .await;
        assert_eq!(status, 400);
        assert!(text.contains(expected), "{text}");
    }
    let (status, text) = server.post("/trilith/v1/infer", json!({"inputSource": {}})).await;
    assert_eq!(status, 400);
    assert!(text.contains("[inputFormat]"), "{text}");
}

#[tokio::test]
async fn values_that_become_null_are_counted_with_examples() {
    let server = Server::start(&["--worker-slots", "2"]);
    let rows = |from: usize| -> String {
        (from..from + 8)
            .map(|n| format!("{}\n", json!({"n": if n % 2 == 0 { json!(n) } else { json!(format!("no{n}")) }, "s": n, "l": [n, "x"]})))
            .collect()
    };
    let one = server.input("one.json", rows(0).as_bytes());
    server.input("two.json", rows(8).as_bytes());
    let source = json!({"type": "local", "baseDir": server.directory.join("input")});
    let table = extern_of(
        &source,
        &json!({"type": "json"}),
        &[("n", "long"), ("s", "string"), ("l", "ARRAY<LONG>")],
    );
    let report = server
        .run(
            &format!("REPLACE INTO t OVERWRITE ALL SELECT n, s, l FROM {table} PARTITIONED BY ALL"),
            json!({"maxNumTasks": 3}),
        )
        .await;
    let quality = report["dataQuality"].as_array().unwrap();
    let counts: Vec<(&str, i64)> = quality
        .iter()
        .map(|column| {
            (
                column["column"].as_str().unwrap(),
                column["nullConversions"].as_i64().unwrap(),
            )
        })
        .collect();
    // Every second n, one element of every l, nothing of s.
    assert_eq!(counts, [("l", 16), ("n", 8)]);
    for column in quality {
        assert_eq!(column["examples"].as_array().unwrap().len(), 5);
    }
    let first = &quality[1]["examples"].as_array().unwrap();
    let expected = json!({"file": format!("file:{}", one.display()), "record": 2, "value": "no1"});
    assert!(first.contains(&expected), "{first:?}");
    assert!(report["counters"]["0"]["0"].get("dataQuality").is_none());
    assert_eq!(
        server.rows("SELECT COUNT(*), COUNT(n) FROM t").await,
        [[json!(16), json!(8)]]
    );
    // Nothing failed: no section.
    let report = server.run(&format!("SELECT s FROM {table}"), json!({})).await;
    assert!(report.get("dataQuality").is_none());
}

#[tokio::test]
async fn the_first_row_without_time_is_named() {
    let server = Server::start(&["--worker-slots", "1"]);
    let line = |n: i64, ts: &str| format!("{}\n", json!({"n": n, "ts": ts}));
    let text =
        line(1, "2024-01-01") + "broken\n" + &line(2, "skipped") + &line(3, "2024-01-02") + &line(4, "never");
    let path = server.input("times.json", text.as_bytes());
    let source = json!({"type": "local", "files": [path]});
    let table = extern_of(
        &source,
        &json!({"type": "json"}),
        &[("n", "long"), ("ts", "string")],
    );
    let sql = format!(
        "REPLACE INTO t OVERWRITE ALL SELECT TIME_PARSE(TRIM(ts)) AS __time, n FROM {table} WHERE n <> 2 PARTITIONED BY DAY"
    );
    let task = server.submit(&sql, json!({"maxParseExceptions": -1})).await;
    assert_eq!(server.wait(&task).await["statusCode"], "FAILED");
    let error = server.report(&task).await["status"]["errorReport"]["error"].clone();
    assert_eq!(error["errorCode"], "InsertTimeNull");
    let message = error["errorMessage"].as_str().unwrap();
    let expected = format!(
        "The first such row: file:{}, record 4, where \"ts\" is 'never'.",
        path.display()
    );
    assert!(message.ends_with(&expected), "{message}");
}
