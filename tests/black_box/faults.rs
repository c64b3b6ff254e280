use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{PATIENCE, Server, extern_json, gated_source, inline, stalled_source};

#[tokio::test]
async fn shutdown_stops_a_task_and_leaves_the_table_alone() {
    let server = Server::start(&["--worker-slots", "1", "--allow-http", "127.0.0.1"]);
    server
        .run(
            "REPLACE INTO t OVERWRITE ALL SELECT 1 AS x PARTITIONED BY ALL",
            json!({}),
        )
        .await;
    let (url, asked) = stalled_source();
    let source = extern_json(&json!({"type": "http", "uris": [url]}), "x long");
    let sql = format!("REPLACE INTO t OVERWRITE ALL SELECT x FROM {source} PARTITIONED BY ALL");
    let task = server.submit(&sql, json!({})).await;
    tokio::task::spawn_blocking(move || asked.recv().unwrap())
        .await
        .unwrap();
    let started = Instant::now();
    let (status, _) = server
        .post(&format!("/druid/indexer/v1/task/{task}/shutdown"), json!({}))
        .await;
    assert_eq!(status, 200);
    let status = server.wait(&task).await;
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(status["statusCode"], "FAILED");
    let error = &server.report(&task).await["status"]["errorReport"]["error"];
    assert_eq!(error["errorCode"], "Canceled");
    assert_eq!(server.rows("SELECT x FROM t").await, [[json!(1)]]);
    // Its only slot is free again.
    server
        .run("INSERT INTO t SELECT 2 AS x PARTITIONED BY ALL", json!({}))
        .await;
    assert_eq!(server.count("t").await, 2);
    server.process.stop();
}

#[tokio::test]
async fn a_busy_join_is_stopped_and_leaves_no_thread_behind() {
    let server = Server::start(&["--worker-slots", "1"]);
    let data: String = (0..5000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    server
        .run(
            &format!(
                "REPLACE INTO n OVERWRITE ALL SELECT n FROM {} PARTITIONED BY ALL",
                inline(&data, "n long")
            ),
            json!({}),
        )
        .await;
    // 125 billion pairs.
    let task = server
        .submit(
            "SELECT COUNT(*) FROM n a, n b, n c WHERE a.n + b.n + c.n < 0",
            json!({}),
        )
        .await;
    let started = Instant::now();
    loop {
        let report = server.report(&task).await;
        let read = &report["counters"]["2"]["0"]["input0"]["rows"];
        if read.is_array() || report["stages"][2]["phase"] == "READING_INPUT" {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{report}");
    }
    let started = Instant::now();
    server
        .post(&format!("/druid/indexer/v1/task/{task}/shutdown"), json!({}))
        .await;
    assert_eq!(server.wait(&task).await["statusCode"], "FAILED");
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    // Pairs that are looked at and give no row are work as well; and so it is at once, when the client goes.
    let task = server.submit(PAIRS, json!({})).await;
    loop {
        let report = server.report(&task).await;
        if report["stages"][2]["phase"] == "READING_INPUT" {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{report}");
    }
    server
        .post(&format!("/druid/indexer/v1/task/{task}/shutdown"), json!({}))
        .await;
    assert_eq!(server.wait(&task).await["statusCode"], "FAILED");
    let query = json!({"query": PAIRS, "context": {"timeout": 200}});
    let (status, text) = server.post("/druid/v2/sql", query).await;
    assert!(status == 504 && text.contains("Query timeout"), "{status} {text}");
    let started = Instant::now();
    server.process.stop();
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}

/// 25 million pairs of one key, none of which passes.
const PAIRS: &str = "SELECT COUNT(*) FROM n a JOIN n b ON a.n / 100000 = b.n / 100000 \
                     WHERE STRLEN(CAST(a.n AS VARCHAR) || CAST(b.n AS VARCHAR)) > 1000";

#[tokio::test]
async fn a_restart_keeps_what_succeeded_and_ends_what_ran() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().canonicalize().unwrap();
    let args = ["--worker-slots", "1", "--allow-http", "127.0.0.1"];
    let mut server = Server::at(&directory, &args);
    let done = server
        .submit(
            "REPLACE INTO t OVERWRITE ALL SELECT 7 AS x PARTITIONED BY ALL",
            json!({}),
        )
        .await;
    server.wait(&done).await;
    let selected = server.submit("SELECT x FROM t", json!({})).await;
    server.wait(&selected).await;
    let before = server.report(&selected).await;
    let (url, asked) = stalled_source();
    let source = extern_json(&json!({"type": "http", "uris": [url]}), "x long");
    let sql = format!("REPLACE INTO t OVERWRITE ALL SELECT x FROM {source} PARTITIONED BY ALL");
    let running = server.submit(&sql, json!({})).await;
    tokio::task::spawn_blocking(move || asked.recv().unwrap())
        .await
        .unwrap();
    server.process.kill();

    let server = Server::at(&directory, &args);
    assert_eq!(server.wait(&done).await["statusCode"], "SUCCESS");
    assert_eq!(server.report(&selected).await, before);
    assert_eq!(before["results"]["results"], json!([[7]]));
    let status = server.wait(&running).await;
    assert_eq!(status["statusCode"], "FAILED");
    assert!(
        status["errorMsg"].as_str().unwrap().contains("server stopped"),
        "{status}"
    );
    assert_eq!(server.rows("SELECT x FROM t").await, [[json!(7)]]);
}

/// Files of segments below a server's directory.
fn segment_files(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    let count = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        if path.is_dir() { segment_files(&path) } else { 1 }
    };
    entries.map(count).sum()
}

#[tokio::test]
async fn a_fault_tolerant_task_runs_again_under_its_id_after_a_restart() {
    let args = ["--worker-slots", "1", "--allow-http", "127.0.0.1"];
    let mut server = Server::restartable(&args);
    let (url, asked, gate) = gated_source("{\"x\":1}\n{\"x\":2}\n");
    let hear = move || {
        asked.recv_timeout(PATIENCE).unwrap();
        asked
    };
    let source = extern_json(&json!({"type": "http", "uris": [url]}), "x long");
    let sql = format!("REPLACE INTO t OVERWRITE ALL SELECT x + ? AS x FROM {source} PARTITIONED BY ALL");
    let body = json!({
        "query": sql,
        "context": {"faultTolerance": true},
        "parameters": [{"type": "BIGINT", "value": 40}],
    });
    let (status, text) = server.post("/druid/v2/sql/task", body).await;
    assert_eq!(status, 202, "{text}");
    let task: serde_json::Value = serde_json::from_str(&text).unwrap();
    let task = task["taskId"].as_str().unwrap().to_owned();
    let secret = json!({
        "type": "http",
        "uris": [url],
        "httpAuthenticationUsername": "me",
        "httpAuthenticationPassword": "secret",
    });
    let secret = extern_json(&secret, "x long");
    let secret = format!("INSERT INTO u SELECT x FROM {secret} PARTITIONED BY ALL");
    let secret = server.submit(&secret, json!({"faultTolerance": true})).await;
    let asked = tokio::task::spawn_blocking(hear).await.unwrap();
    let created = server
        .get(&format!("/druid/indexer/v1/task/{task}/status"))
        .await
        .1;
    server.restart(&args);

    let now = server
        .get(&format!("/druid/indexer/v1/task/{task}/status"))
        .await
        .1;
    assert_eq!(now["status"]["statusCode"], "RUNNING", "{now}");
    assert_eq!(now["status"]["createdTime"], created["status"]["createdTime"]);
    let again = move || asked.recv_timeout(PATIENCE).unwrap();
    tokio::task::spawn_blocking(again).await.unwrap();
    gate.open();
    let status = server.wait(&task).await;
    assert_eq!(status["statusCode"], "SUCCESS", "{}", server.report(&task).await);
    assert_eq!(
        server.rows("SELECT x FROM t ORDER BY x").await,
        [[json!(41)], [json!(42)]]
    );
    // What cannot be known any more is not guessed.
    let status = server.wait(&secret).await;
    assert_eq!(status["statusCode"], "FAILED");
    let message = status["errorMsg"].as_str().unwrap();
    assert!(message.contains("passwords are not stored"), "{message}");
    // Once more: what has ended stays as it is.
    let before = server.report(&task).await;
    server.restart(&args);
    assert_eq!(server.report(&task).await, before);
    assert_eq!(server.count("t").await, 2);
    assert_eq!(segment_files(&server.directory.join("data/segments")), 1);
}

#[tokio::test]
async fn faults_of_the_data_are_named() {
    let server = Server::start(&["--worker-slots", "1"]);
    let broken = inline("{\"x\":1}\n{broken\n{\"x\":3}", "x long");
    let cases = [
        (
            format!("INSERT INTO t SELECT x FROM {broken} PARTITIONED BY ALL"),
            json!({}),
            "CannotParseExternalData",
        ),
        (
            format!("SELECT x FROM {broken}"),
            json!({}),
            "CannotParseExternalData",
        ),
        (
            format!(
                "INSERT INTO t SELECT TIME_PARSE(x) AS __time FROM {} PARTITIONED BY DAY",
                inline("{\"x\":\"no\"}", "x string")
            ),
            json!({}),
            "InsertTimeNull",
        ),
        (
            "INSERT INTO t SELECT 1 AS \"__bucket\" PARTITIONED BY ALL".to_owned(),
            json!({}),
            "ColumnNameRestricted",
        ),
        (
            "INSERT INTO t SELECT x FROM (SELECT 1 AS x) WHERE x > 1 PARTITIONED BY ALL".to_owned(),
            json!({"failOnEmptyInsert": true}),
            "InsertCannotBeEmpty",
        ),
    ];
    for (sql, context, code) in cases {
        let task = server.submit(&sql, context).await;
        assert_eq!(server.wait(&task).await["statusCode"], "FAILED", "{sql}");
        let report = server.report(&task).await;
        assert_eq!(
            report["status"]["errorReport"]["error"]["errorCode"], code,
            "{sql}"
        );
    }
    assert_eq!(
        server.rows("SELECT COUNT(*) FROM sys.segments").await,
        [[json!(0)]]
    );
    // With a tolerance the bad line is a warning, counted and shown.
    let sql = format!("INSERT INTO t SELECT x FROM {broken} PARTITIONED BY ALL");
    let report = server.run(&sql, json!({"maxParseExceptions": 2})).await;
    assert_eq!(
        report["counters"]["0"]["0"]["warnings"]["CannotParseExternalData"],
        1
    );
    let warning = &report["status"]["warnings"][0]["error"]["errorMessage"];
    assert_eq!(warning, "Unable to parse row [{broken] (Record: 2, Line: 2)");
    assert_eq!(server.count("t").await, 2);
}
