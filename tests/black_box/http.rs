//! What the HTTP API promises beyond single answers: running queries that are stopped, answers that are cut, pages,
//! segments that are put aside across a restart.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Server, files, inline};

async fn send(server: &Server, method: &str, path: &str) -> u16 {
    let method = method.parse().unwrap();
    let request = reqwest::Client::new().request(method, server.url(path));
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_running_query_is_stopped_by_its_id_once() {
    let server = Server::start(&["--worker-slots", "1"]);
    ones(&server, 20_000).await;
    // Far more pairs than anybody counts while this test runs.
    let query = json!({
        "query": "SELECT COUNT(*) FROM t a JOIN t b ON a.x = b.x JOIN t c ON b.x = c.x WHERE a.x + b.x + c.x > 5",
        "context": {"sqlQueryId": "long"},
    });
    let (answer, stopped) = tokio::join!(server.post("/druid/v2/sql", query), async {
        loop {
            match send(&server, "DELETE", "/druid/v2/sql/long").await {
                404 => tokio::task::yield_now().await,
                status => return status,
            }
        }
    });
    assert_eq!(stopped, 202);
    let body: Value = serde_json::from_str(&answer.1).unwrap();
    assert_eq!(answer.0, 500, "{body}");
    assert_eq!(
        (&body["error"], &body["errorCode"], &body["category"]),
        (
            &json!("Query cancelled"),
            &json!("legacyQueryException"),
            &json!("CANCELED")
        )
    );
    assert_eq!(send(&server, "DELETE", "/druid/v2/sql/long").await, 404);
}

/// A table `t` of one column `x`: ones, and a zero at the end.
async fn ones(server: &Server, count: usize) {
    let mut text = "{\"x\":1}\n".repeat(count);
    text.push_str("{\"x\":0}\n");
    let path = server.input("ones.json", text.as_bytes());
    let source = files(&[path], "x long");
    let sql = format!(
        "REPLACE INTO t OVERWRITE ALL SELECT x, CASE WHEN x = 0 THEN TIMESTAMP '2001-01-01' ELSE TIMESTAMP '2000-01-01' END AS __time FROM {source} PARTITIONED BY ALL"
    );
    server.run(&sql, json!({})).await;
}

/// An answer as it comes over the wire.
fn raw(server: &Server, query: &Value, te: &str) -> String {
    let address = server.process.ready["http"].as_str().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let body = query.to_string();
    write!(
        stream,
        "POST /druid/v2/sql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{te}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn trailers_tell_whether_all_rows_came() {
    let server = Server::start(&["--worker-slots", "1"]);
    let good = json!({"query": "SELECT 1 AS a", "resultFormat": "arrayLines"});
    let text = raw(&server, &good, "TE: trailers\r\n");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(
        text.to_lowercase()
            .contains("\r\ntrailer: x-druid-response-complete"),
        "{text}"
    );
    assert!(
        text.ends_with("0\r\nx-druid-response-complete: true\r\n\r\n"),
        "{text}"
    );
    // Who does not ask for trailers gets none.
    let text = raw(&server, &good, "");
    assert!(text.ends_with("0\r\n\r\n"), "{text}");
    // Fails behind its first rows: the zero comes last.
    ones(&server, 30_000).await;
    let bad = json!({"query": "SELECT 1 / x FROM t", "resultFormat": "arrayLines"});
    let text = raw(&server, &bad, "TE: trailers\r\n");
    assert!(text.starts_with("HTTP/1.1 200"), "{}", &text[..300]);
    let end = &text[text.len() - 300..];
    assert!(end.contains("x-druid-response-complete: false"), "{end}");
    assert!(end.contains("x-error-message: "), "{end}");
    assert!(
        !text.contains("\n\n\r\n"),
        "the empty line at the end says that all has come"
    );
    let mut as_row = bad.clone();
    as_row["context"] = json!({"writeExceptionBodyAsResponseRow": true});
    let text = raw(&server, &as_row, "");
    assert!(
        text.contains("[{\"error\":\"druidException\",\"errorCode\":"),
        "{}",
        &text[text.len() - 300..]
    );
}

#[tokio::test]
async fn pages_of_durable_results_are_read_one_by_one_and_all_together() {
    let durable = tempfile::tempdir().unwrap();
    let url = format!("file://{}", durable.path().display());
    let server = Server::start(&["--worker-slots", "1", "--durable-storage", &url]);
    let lines: String = (1..=5).map(|number| format!("{{\"n\":{number}}}\n")).collect();
    let body = json!({
        "query": format!("SELECT n FROM {} ORDER BY n", inline(&lines, "n long")),
        "resultFormat": "arrayLines",
        "context": {"executionMode": "ASYNC", "selectDestination": "durableStorage", "rowsPerPage": 2},
    });
    let (status, text) = server.post("/druid/v2/sql/statements", body).await;
    assert_eq!(status, 200, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    let id = answer["queryId"].as_str().unwrap();
    assert_eq!(server.wait(id).await["status"], "SUCCESS");
    let path = format!("/druid/v2/sql/statements/{id}");
    let (_, answer) = server.get(&path).await;
    let pages = answer["result"]["pages"].as_array().unwrap();
    assert_eq!(pages.len(), 3, "{answer}");
    let rows: Vec<i64> = pages
        .iter()
        .map(|page| page["numRows"].as_i64().unwrap())
        .collect();
    assert_eq!(rows.iter().sum::<i64>(), 5);
    let bytes: i64 = pages
        .iter()
        .map(|page| page["sizeInBytes"].as_i64().unwrap())
        .sum();
    assert_eq!(answer["result"]["totalSizeInBytes"], bytes);
    let mut all = String::new();
    for (page, rows) in rows.iter().enumerate() {
        let part = reqwest::get(server.url(&format!("{path}/results?page={page}")))
            .await
            .unwrap();
        let text = part.text().await.unwrap();
        let lines = text.strip_suffix("\n").unwrap();
        assert_eq!(lines.lines().count() as i64, *rows);
        all.push_str(lines);
    }
    assert_eq!(all, "[1]\n[2]\n[3]\n[4]\n[5]\n");
    let whole = reqwest::get(server.url(&format!("{path}/results")))
        .await
        .unwrap();
    assert_eq!(whole.text().await.unwrap(), all + "\n");
    assert_eq!(server.get(&format!("{path}/results?page=3")).await.0, 400);

    let body = json!({
        "query": format!("SELECT n FROM {} WHERE n > 5 ORDER BY n", inline(&lines, "n long")),
        "context": {"executionMode": "ASYNC", "selectDestination": "durableStorage"},
    });
    let (_, text) = server.post("/druid/v2/sql/statements", body).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    let id = answer["queryId"].as_str().unwrap();
    assert_eq!(server.wait(id).await["status"], "SUCCESS");
    let (_, answer) = server.get(&format!("/druid/v2/sql/statements/{id}")).await;
    assert_eq!(answer["result"]["pages"], json!([]), "{answer}");
}

fn parquet_files(directory: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        count += if path.is_dir() { parquet_files(&path) } else { 1 };
    }
    count
}

#[tokio::test]
async fn unused_segments_survive_a_restart_and_go_with_a_kill() {
    let mut server = Server::restartable(&["--worker-slots", "1"]);
    let lines = "{\"t\":\"2024-01-01\"}\n{\"t\":\"2024-01-02\"}\n";
    let sql = format!(
        "REPLACE INTO t OVERWRITE ALL SELECT TIME_PARSE(t) AS __time FROM {} PARTITIONED BY DAY",
        inline(lines, "t string")
    );
    server.run(&sql, json!({})).await;
    assert_eq!(
        send(&server, "DELETE", "/druid/indexer/v1/datasources/t").await,
        200
    );
    server.restart(&["--worker-slots", "1"]);
    let segments = server.directory.join("data/segments");
    assert_eq!(parquet_files(&segments), 2);
    let kill = "/druid/coordinator/v1/datasources/t/intervals/2024-01-01_2024-01-02";
    assert_eq!(send(&server, "DELETE", kill).await, 200);
    assert_eq!(parquet_files(&segments), 1);
    let (status, text) = server.post("/druid/indexer/v1/datasources/t", json!({})).await;
    assert_eq!(
        (status, text.as_str()),
        (200, "{\"numChangedSegments\":1,\"segmentStateChanged\":true}")
    );
    let rows = server.rows("SELECT __time FROM t").await;
    assert_eq!(rows, [[json!("2024-01-02T00:00:00.000Z")]]);
}

#[tokio::test]
async fn columns_of_system_tables_are_listed_as_they_are() {
    let server = Server::start(&["--worker-slots", "1"]);
    let listed = server
        .rows("SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME FROM INFORMATION_SCHEMA.COLUMNS ORDER BY 1, 2, ORDINAL_POSITION")
        .await;
    let mut tables: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
    for row in listed {
        let name = |index: usize| row[index].as_str().unwrap().to_owned();
        tables.entry((name(0), name(1))).or_default().push(row[2].clone());
    }
    assert!(tables.len() >= 9, "{tables:?}");
    for ((schema, table), columns) in tables {
        let query = json!({
            "query": format!("SELECT * FROM {schema}.{table} LIMIT 0"),
            "resultFormat": "array",
            "header": true,
        });
        let (status, text) = server.post("/druid/v2/sql", query).await;
        assert_eq!(status, 200, "{text}");
        let header: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(header[0], json!(columns), "{schema}.{table}");
    }
}
