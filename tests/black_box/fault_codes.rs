//! Fault codes, each by a real cause, with all fields of the fault.

use serde_json::{Value, json};

use crate::harness::{Server, inline};

/// Errors of tasks that fail: everything but the message, which must name what is wrong.
async fn check(server: &Server, sql: &str, context: Value, expected: Value, named: &[&str]) {
    let task = server.submit(sql, context).await;
    let status = server.wait(&task).await;
    assert_eq!(status["statusCode"], "FAILED", "{sql}");
    let report = server.report(&task).await;
    let mut error = report["status"]["errorReport"]["error"].clone();
    let error = error.as_object_mut().unwrap();
    let message = error.remove("errorMessage").unwrap();
    let message = message.as_str().unwrap();
    let code = error["errorCode"].as_str().unwrap();
    assert_eq!(status["errorMsg"], format!("{code}: {message}"));
    for name in named {
        assert!(message.contains(name), "[{name}] is not in [{message}]");
    }
    for word in ["Int64", "Utf8", "Interval(", "DataFusion", "Arrow", "::"] {
        assert!(!message.contains(word), "{message}");
    }
    assert_eq!(json!(error), expected, "{sql}");
}

fn replace(rows: &str, granularity: &str) -> String {
    format!("REPLACE INTO t OVERWRITE ALL SELECT {rows} PARTITIONED BY {granularity}")
}

fn numbers(count: usize) -> String {
    (0..count).map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

#[tokio::test]
async fn bad_data_is_named_by_file_row_and_column() {
    let server = Server::start(&["--worker-slots", "1"]);
    let broken = inline("{\"n\":1}\n{broken\n{\"n\":2}\n{more\n{most", "n long");
    check(
        &server,
        &format!("SELECT n FROM {broken}"),
        json!({"maxParseExceptions": 2}),
        json!({
            "errorCode": "TooManyWarnings",
            "maxWarnings": 2,
            "rootErrorCode": "CannotParseExternalData",
        }),
        &["maxParseExceptions"],
    )
    .await;
    let null_byte = inline("{\"s\":\"a\"}\n{\"s\":\"b\\u0000c\"}", "s string");
    let sql = format!("REPLACE INTO t OVERWRITE ALL SELECT s AS word FROM {null_byte} PARTITIONED BY ALL");
    let task = server.submit(&sql, json!({})).await;
    server.wait(&task).await;
    let report = server.report(&task).await;
    let error = &report["status"]["errorReport"]["error"];
    assert_eq!(error["errorCode"], "InvalidNullByte", "{error}");
    assert_eq!(error["rowNumber"], 2, "{error}");
    let message = error["errorMessage"].as_str().unwrap();
    assert!(message.contains("removeNullBytes"), "{message}");
    server.run(&sql, json!({"removeNullBytes": true})).await;
    assert_eq!(
        server.rows("SELECT word FROM t ORDER BY 1").await,
        [[json!("a")], [json!("bc")]]
    );
}

#[tokio::test]
async fn what_cannot_be_stored_is_named() {
    let server = Server::start(&["--worker-slots", "1"]);
    check(
        &server,
        &replace(
            "TIMESTAMP '2024-01-05' AS __time, INTERVAL '1' DAY AS span",
            "DAY",
        ),
        json!({}),
        json!({"errorCode": "ColumnTypeNotSupported", "columnName": "span", "columnType": "INTERVAL"}),
        &["span"],
    )
    .await;
    server
        .run(
            &replace("TIMESTAMP '2024-01-05' AS __time, 1 AS n", "MONTH"),
            json!({}),
        )
        .await;
    check(
        &server,
        "INSERT INTO t SELECT TIMESTAMP '2024-01-07 12:00:00' AS __time, 2 AS n PARTITIONED BY DAY",
        json!({}),
        json!({
            "errorCode": "InsertCannotAllocateSegment",
            "dataSource": "t",
            "interval": "2024-01-07T00:00:00.000Z/2024-01-08T00:00:00.000Z",
            "allocatedInterval": "2024-01-01T00:00:00.000Z/2024-02-01T00:00:00.000Z",
        }),
        &["PARTITIONED BY", "REPLACE"],
    )
    .await;
    check(
        &server,
        &replace(
            &format!(
                "TIMESTAMP '2024-01-05' AS __time, n FROM {}",
                inline(&numbers(1000), "n long")
            ),
            "DAY",
        ),
        json!({"maxNumSegments": 3, "rowsPerSegment": 100}),
        json!({
            "errorCode": "TooManySegmentsInTimeChunk",
            "timeChunk": "2024-01-05T00:00:00.000Z",
            "numSegments": 10,
            "maxNumSegments": 3,
            "segmentGranularity": "DAY",
        }),
        &["maxNumSegments"],
    )
    .await;
    check(
        &server,
        "REPLACE INTO t OVERWRITE WHERE __time >= TIMESTAMP '2024-01-01' AND __time < TIMESTAMP '2024-02-01' \
         SELECT TIMESTAMP '2024-03-05' AS __time, 1 AS n PARTITIONED BY MONTH",
        json!({}),
        json!({
            "errorCode": "InsertTimeOutOfBounds",
            "interval": "2024-03-01T00:00:00.000Z/2024-04-01T00:00:00.000Z",
            "intervalBounds": ["2024-01-01T00:00:00.000Z/2024-02-01T00:00:00.000Z"],
        }),
        &["OVERWRITE"],
    )
    .await;
    // Nothing of all that was published.
    assert_eq!(server.rows("SELECT n FROM t").await, [[json!(1)]]);
}

#[tokio::test]
async fn what_is_too_many_fails_the_task() {
    let server = Server::start(&["--worker-slots", "1"]);
    let names: Vec<String> = (0..1600).map(|n| format!("c{n}")).collect();
    let columns: Vec<String> = names.iter().map(|name| format!("1 AS {name}")).collect();
    check(
        &server,
        &format!(
            "REPLACE INTO t OVERWRITE ALL SELECT {} PARTITIONED BY ALL CLUSTERED BY {}",
            columns.join(", "),
            names.join(", ")
        ),
        json!({}),
        json!({"errorCode": "TooManyClusteredByColumns", "numColumns": 1601, "maxColumns": 1500, "stage": 0}),
        &["1601", "1500"],
    )
    .await;
    check(
        &server,
        &replace(
            "TIMESTAMP '2024-01-05' AS __time, 1 AS a, 2 AS b, 3 AS c",
            "DAY CLUSTERED BY a, b, c",
        ),
        json!({"maxClusteredByColumns": 4}),
        json!({"errorCode": "TooManyClusteredByColumns", "numColumns": 5, "maxColumns": 4, "stage": 0}),
        &["5", "4"],
    )
    .await;
    let wide: Vec<String> = (0..2000).map(|n| format!("1 AS c{n}")).collect();
    check(
        &server,
        &replace(
            &format!("TIMESTAMP '2024-01-05' AS __time, {}", wide[1..].join(", ")),
            "DAY",
        ),
        json!({}),
        json!({"errorCode": "TooManyColumns", "numColumns": 2002, "maxColumns": 2000}),
        &["2002", "2000"],
    )
    .await;
    check(
        &server,
        &format!("SELECT n FROM {}", inline("{\"n\":1}", "n long")),
        json!({"maxNumTasks": 1500}),
        json!({"errorCode": "TooManyWorkers", "workers": 1499, "maxWorkers": 1000}),
        &["1499", "1000"],
    )
    .await;
    check(
        &server,
        &replace(
            &format!(
                "TIMESTAMP '2024-01-05' AS __time, n FROM {}",
                inline(&numbers(50), "n long")
            ),
            "ALL",
        ),
        json!({"maxNumSegments": 1, "rowsPerSegment": 10}),
        json!({
            "errorCode": "TooManySegmentsInTimeChunk",
            "timeChunk": "1970-01-01T00:00:00.000Z",
            "numSegments": 5,
            "maxNumSegments": 1,
            "segmentGranularity": "ALL",
        }),
        &["maxNumSegments"],
    )
    .await;
    assert_eq!(
        server.rows("SELECT COUNT(*) FROM sys.segments").await,
        [[json!(0)]]
    );
}

#[tokio::test]
async fn what_the_settings_do_not_allow_is_refused() {
    let server = Server::start(&["--worker-slots", "1"]);
    let source = json!({"type": "local", "files": ["/etc/hostname"]}).to_string();
    check(
        &server,
        &format!("SELECT n FROM TABLE(EXTERN('{source}', '{{\"type\":\"json\"}}')) EXTEND (n BIGINT)"),
        json!({}),
        json!({"errorCode": "QueryNotSupported"}),
        &["/etc/hostname", "--allow-local"],
    )
    .await;
    let values = inline("{\"v\":[\"a\",\"b\"]}\n{\"v\":\"c\"}", "v string");
    check(
        &server,
        &format!("SELECT v, COUNT(*) AS n FROM {values} GROUP BY v"),
        json!({"groupByEnableMultiValueUnnesting": false}),
        json!({
            "errorCode": "DruidException",
            "druidErrorCode": "general",
            "persona": "USER",
            "category": "RUNTIME_FAILURE",
        }),
        &["[v]", "groupByEnableMultiValueUnnesting", "MV_TO_ARRAY"],
    )
    .await;
}
