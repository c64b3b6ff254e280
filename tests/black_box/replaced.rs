//! What a table was, and what is left of it: files of replaced segments, columns that came meanwhile, times without a
//! date.

use std::path::Path;

use serde_json::json;

use crate::harness::{HeldSource, PATIENCE, Server, inline};

/// Files below a folder.
fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path()),
            false => 1,
        })
        .sum()
}

#[tokio::test]
async fn files_of_replaced_segments_go() {
    let server = Server::start(&["--max-queries", "5"]);
    let segments = server.directory.join("data/segments");
    let replace = |value: i64| {
        let rows: String = (0..4)
            .map(|day| format!("{{\"t\":{},\"x\":{value}}}\n", day * 86_400_000_i64))
            .collect();
        format!(
            "REPLACE INTO t OVERWRITE ALL SELECT MILLIS_TO_TIMESTAMP(t) AS __time, x FROM {} PARTITIONED BY DAY",
            inline(&rows, "t long,x long")
        )
    };
    for value in 1..=3 {
        server.run(&replace(value), json!({})).await;
        assert_eq!(
            server.rows("SELECT SUM(x), COUNT(*) FROM t").await,
            [[json!(4 * value), json!(4)]]
        );
    }
    // The last task may still be putting things away.
    let since = std::time::Instant::now();
    while files(&segments) > 4 {
        assert!(since.elapsed() < PATIENCE, "{} files", files(&segments));
        tokio::task::yield_now().await;
    }
    assert_eq!(server.rows("SELECT SUM(x) FROM t").await, [[json!(12)]]);
}

#[tokio::test]
async fn a_delete_does_not_lose_columns_that_came_while_it_waited() {
    let server = Server::start(&["--allow-http", "127.0.0.1", "--worker-slots", "2"]);
    let first = inline(r#"{"x":1}"#, "x long");
    let insert =
        format!("INSERT INTO t SELECT MILLIS_TO_TIMESTAMP(0) AS __time, x FROM {first} PARTITIONED BY DAY");
    server.run(&insert, json!({})).await;
    // The REPLACE has the lock, and adds a column.
    let source = HeldSource::new(r#"{"x":2,"y":"kept"}"#);
    let replace = format!(
        "REPLACE INTO t OVERWRITE ALL SELECT MILLIS_TO_TIMESTAMP(0) AS __time, x, y FROM {} PARTITIONED BY DAY",
        source.table("x long,y string")
    );
    let replaces = server.submit(&replace, json!({})).await;
    source.is_read().await;
    let deletes = server.submit("DELETE FROM t WHERE x = 1", json!({})).await;
    source.release();
    assert_eq!(server.wait(&replaces).await["statusCode"], "SUCCESS");
    let status = server.wait(&deletes).await;
    assert_eq!(status["statusCode"], "FAILED", "{status}");
    let message = status["errorMsg"].as_str().unwrap();
    assert!(
        message.contains("[y]") && message.contains("Submit it again"),
        "{message}"
    );
    assert_eq!(
        server.rows("SELECT x, y FROM t").await,
        [[json!(2), json!("kept")]]
    );
    server.run("DELETE FROM t WHERE x = 2", json!({})).await;
    assert_eq!(server.rows("SELECT COUNT(*) FROM t").await, [[json!(0)]]);
}

#[tokio::test]
async fn a_time_without_a_date_is_refused_and_hurts_nobody() {
    let mut server = Server::restartable(&[]);
    // Nanoseconds taken for milliseconds, and the ends of what there is.
    for ms in [1_700_000_000_000_000_000_i64, i64::MAX, i64::MIN + 1] {
        let rows = inline(&format!("{{\"t\":{ms}}}"), "t long");
        for granularity in ["DAY", "MONTH", "WEEK", "YEAR"] {
            let sql = format!(
                "INSERT INTO far SELECT MILLIS_TO_TIMESTAMP(t) AS __time, 1 AS x FROM {rows} PARTITIONED BY {granularity}"
            );
            let task = server.submit(&sql, json!({})).await;
            let status = server.wait(&task).await;
            assert_eq!(status["statusCode"], "FAILED", "{ms} {granularity}");
            let message = status["errorMsg"].as_str().unwrap();
            assert!(
                message.starts_with("QueryRuntimeError") && message.contains(&format!("[{ms}]")),
                "{message}"
            );
        }
    }
    let rows = inline(r#"{"t":1700000000000000000}"#, "t long");
    let all = format!(
        "INSERT INTO all_of_it SELECT MILLIS_TO_TIMESTAMP(t) AS __time, 1 AS x FROM {rows} PARTITIONED BY ALL"
    );
    server.run(&all, json!({})).await;
    server.restart(&[]);
    assert_eq!(
        server
            .rows("SELECT TIMESTAMP_TO_MILLIS(__time) FROM all_of_it")
            .await,
        [[json!(1_700_000_000_000_000_000_i64)]]
    );
    // As clients say that there is no timeout.
    server.run(&all, json!({"timeout": i64::MAX})).await;
    assert_eq!(server.count("all_of_it").await, 2);
}
