//! Locks on time chunks, with sources that are held and released.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{HeldSource, PATIENCE, Server};

const DAYS: [&str; 3] = ["2000-01-01", "2000-01-02", "2000-01-03"];

fn start() -> Server {
    Server::start(&["--worker-slots", "4", "--allow-http", "127.0.0.1"])
}

/// One row of a day.
fn row(day: usize, x: i64) -> String {
    format!("{{\"t\":\"{}\",\"x\":{x}}}\n", DAYS[day])
}

fn select(source: &str) -> String {
    format!("SELECT TIME_PARSE(t) AS __time, x FROM {source} PARTITIONED BY DAY")
}

fn insert(source: &HeldSource) -> String {
    format!("INSERT INTO t {}", select(&source.table("t string, x long")))
}

fn insert_now(day: usize, x: i64) -> String {
    let source = crate::harness::inline(&row(day, x), "t string, x long");
    format!("INSERT INTO t {}", select(&source))
}

fn replace_day(day: usize, source: &HeldSource) -> String {
    format!(
        "REPLACE INTO t OVERWRITE WHERE __time >= TIMESTAMP '{}' AND __time < TIMESTAMP '{}' {}",
        DAYS[day],
        ["2000-01-02", "2000-01-03", "2000-01-04"][day],
        select(&source.table("t string, x long"))
    )
}

/// Days (from 0) and values, in order.
async fn content(server: &Server) -> Vec<(usize, i64)> {
    let rows = server.rows("SELECT __time, x FROM t ORDER BY 1, 2").await;
    let day = |row: &Vec<Value>| {
        DAYS.iter()
            .position(|day| row[0].as_str().unwrap().starts_with(day))
    };
    rows.iter()
        .map(|row| (day(row).unwrap(), row[1].as_i64().unwrap()))
        .collect()
}

/// Waits until a task is WAITING, PENDING or RUNNING.
async fn becomes(server: &Server, task: &str, wanted: &str) {
    let started = Instant::now();
    loop {
        let (_, body) = server.get(&format!("/druid/indexer/v1/task/{task}/status")).await;
        if body["status"]["runnerStatusCode"] == wanted {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{task} is not {wanted}: {body}");
    }
}

async fn succeeds(server: &Server, task: &str) {
    let status = server.wait(task).await;
    assert_eq!(status["statusCode"], "SUCCESS", "{status}");
}

/// The fault of a task that fails.
async fn fails(server: &Server, task: &str) -> Value {
    let status = server.wait(task).await;
    assert_eq!(status["statusCode"], "FAILED", "{status}");
    server.report(task).await["status"]["errorReport"]["error"].clone()
}

async fn active_locks(server: &Server, filter: Value) -> Value {
    let (status, text) = server
        .post("/druid/indexer/v1/activeLocks", json!([filter]))
        .await;
    assert_eq!(status, 200, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["datasourceToLocks"].clone()
}

#[tokio::test]
async fn replaces_of_a_chunk_follow_each_other_and_of_two_chunks_run_together() {
    let server = start();
    let [first, second, other] = [(0, 1), (0, 2), (1, 3)].map(|(day, x)| HeldSource::new(&row(day, x)));
    let a = server.submit(&replace_day(0, &first), json!({})).await;
    first.is_read().await;
    let b = server
        .submit(&replace_day(0, &second), json!({"priority": 50}))
        .await;
    becomes(&server, &b, "WAITING").await;
    let (_, waiting) = server.get("/druid/indexer/v1/waitingTasks").await;
    assert_eq!(waiting[0]["id"], json!(b), "{waiting}");
    let c = server.submit(&replace_day(1, &other), json!({})).await;
    other.is_read().await;

    // Who holds what is listed; who waits is not.
    let locks = active_locks(&server, json!({"datasource": "t", "priority": 0})).await;
    let lock = |task: &str, interval: &str| {
        json!({"granularity": "timeChunk", "type": "EXCLUSIVE", "groupId": task, "dataSource": "t",
               "interval": interval, "priority": 50, "revoked": false})
    };
    let mut listed = locks["t"].clone();
    let mut versions = Vec::new();
    for lock in listed.as_array_mut().unwrap() {
        versions.push(lock.as_object_mut().unwrap().remove("version").unwrap());
    }
    let days = [
        "2000-01-01T00:00:00.000Z/2000-01-02T00:00:00.000Z",
        "2000-01-02T00:00:00.000Z/2000-01-03T00:00:00.000Z",
    ];
    assert_eq!(listed, json!([lock(&a, days[0]), lock(&c, days[1])]));
    assert!(versions[0].as_str() < versions[1].as_str(), "{versions:?}");
    let filters = [
        (json!({"datasource": "t", "priority": 51}), 0),
        (json!({"datasource": "other"}), 0),
        (
            json!({"datasource": "t", "priority": 50, "intervals": [days[1]]}),
            1,
        ),
    ];
    for (filter, count) in filters {
        let locks = active_locks(&server, filter.clone()).await;
        let found = locks["t"].as_array().map_or(0, Vec::len);
        assert_eq!(found, count, "{filter}: {locks}");
    }
    let body = json!([{"datasource": "t", "priority": 0}]);
    let (_, text) = server.post("/druid/indexer/v1/lockedIntervals/v2", body).await;
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({"t": days}));
    let (status, text) = server.post("/druid/indexer/v1/activeLocks", json!([])).await;
    assert_eq!((status, text.as_str()), (400, "No filter provided"));

    other.release();
    succeeds(&server, &c).await;
    assert_eq!(second.requests(), 0);
    first.release();
    succeeds(&server, &a).await;
    second.is_read().await;
    assert_eq!(content(&server).await, [(0, 1), (1, 3)]);
    second.release();
    succeeds(&server, &b).await;
    assert_eq!(content(&server).await, [(0, 2), (1, 3)]);
    assert_eq!(active_locks(&server, json!({"datasource": "t"})).await, json!({}));
    server.process.stop();
}

#[tokio::test]
async fn a_replace_that_waited_reads_what_it_waited_for() {
    let server = start();
    server.run(&insert_now(0, 1), json!({})).await;
    let source = HeldSource::new(&row(0, 10));
    let a = server.submit(&replace_day(0, &source), json!({})).await;
    source.is_read().await;
    let sql = "REPLACE INTO t OVERWRITE ALL SELECT __time, x + 1 AS x FROM t PARTITIONED BY DAY";
    let b = server.submit(sql, json!({})).await;
    becomes(&server, &b, "WAITING").await;
    source.release();
    succeeds(&server, &a).await;
    succeeds(&server, &b).await;
    assert_eq!(content(&server).await, [(0, 11)]);
}

#[tokio::test]
async fn inserts_run_together_and_wait_only_for_a_replace_of_their_chunk() {
    let server = start();
    let [one, two] = [1, 2].map(|x| HeldSource::new(&row(0, x)));
    let a = server.submit(&insert(&one), json!({})).await;
    let b = server.submit(&insert(&two), json!({})).await;
    one.is_read().await;
    two.is_read().await;
    two.release();
    succeeds(&server, &b).await;
    one.release();
    succeeds(&server, &a).await;
    assert_eq!(content(&server).await, [(0, 1), (0, 2)]);

    let (replaced, added) = (HeldSource::new(&row(0, 3)), HeldSource::new(&row(0, 4)));
    let replace = server.submit(&replace_day(0, &replaced), json!({})).await;
    replaced.is_read().await;
    // Another chunk is free, and the input of any INSERT can be read.
    server.run(&insert_now(1, 5), json!({})).await;
    let insert = server.submit(&insert(&added), json!({})).await;
    added.is_read().await;
    added.release();
    let started = Instant::now();
    loop {
        let report = server.report(&insert).await;
        if report["stages"][0]["phase"] == "RESULTS_READY" {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{report}");
    }
    becomes(&server, &insert, "RUNNING").await;
    assert_eq!(content(&server).await, [(0, 1), (0, 2), (1, 5)]);
    replaced.release();
    succeeds(&server, &replace).await;
    succeeds(&server, &insert).await;
    assert_eq!(content(&server).await, [(0, 3), (0, 4), (1, 5)]);
    server.process.stop();
}

#[tokio::test]
async fn a_replace_that_waits_for_a_slot_does_not_block_the_insert_that_holds_it() {
    let server = Server::start(&["--worker-slots", "1", "--allow-http", "127.0.0.1"]);
    let (added, replaced) = (HeldSource::new(&row(0, 1)), HeldSource::new(&row(0, 2)));
    let first = server.submit(&insert(&added), json!({})).await;
    added.is_read().await;
    let second = server.submit(&replace_day(0, &replaced), json!({})).await;
    becomes(&server, &second, "PENDING").await;
    added.release();
    succeeds(&server, &first).await;
    replaced.is_read().await;
    assert_eq!(content(&server).await, [(0, 1)]);
    replaced.release();
    succeeds(&server, &second).await;
    assert_eq!(content(&server).await, [(0, 2)]);
}

#[tokio::test]
async fn concurrent_locks_let_an_insert_into_a_chunk_that_is_being_replaced() {
    let server = start();
    let concurrent = || json!({"useConcurrentLocks": true});
    server.run(&insert_now(0, 1), concurrent()).await;
    let version = |rows: Vec<Vec<Value>>| rows[0][0].as_str().unwrap().to_owned();
    let versions = "SELECT DISTINCT \"version\" FROM sys.segments WHERE num_rows > 0 AND is_active = 1";
    assert_eq!(version(server.rows(versions).await), "1970-01-01T00:00:00.000Z");
    let source = HeldSource::new(&row(0, 2));
    let replace = server.submit(&replace_day(0, &source), concurrent()).await;
    source.is_read().await;
    server
        .run(&insert_now(0, 3), json!({"taskLockType": "append"}))
        .await;
    assert_eq!(content(&server).await, [(0, 1), (0, 3)]);
    // Plain locks do not mix with these.
    let plain = server.submit(&insert_now(0, 4), json!({})).await;
    source.release();
    succeeds(&server, &replace).await;
    succeeds(&server, &plain).await;
    assert_eq!(content(&server).await, [(0, 2), (0, 3), (0, 4)]);
    let rows = server.rows(versions).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    // To nothing, while something is added.
    let source = HeldSource::new("");
    let replace = server.submit(&replace_day(0, &source), concurrent()).await;
    source.is_read().await;
    server.run(&insert_now(0, 5), concurrent()).await;
    source.release();
    succeeds(&server, &replace).await;
    assert_eq!(content(&server).await, [(0, 5)]);
    server.run(&insert_now(0, 6), concurrent()).await;
    server.run(&insert_now(0, 7), json!({})).await;
    assert_eq!(content(&server).await, [(0, 5), (0, 6), (0, 7)]);
}

#[tokio::test]
async fn who_waits_can_time_out_or_be_cancelled_and_who_is_less_important_gives_way() {
    let server = start();
    server.run(&insert_now(0, 1), json!({})).await;
    let [held, late, important] = [2, 3, 4].map(|x| HeldSource::new(&row(0, x)));
    let holder = server.submit(&replace_day(0, &held), json!({})).await;
    held.is_read().await;
    let impatient = json!({"taskLockTimeout": 50, "priority": 50});
    for sql in [replace_day(0, &late), insert_now(0, 9)] {
        let task = server.submit(&sql, impatient.clone()).await;
        let error = fails(&server, &task).await;
        assert_eq!(error["errorCode"], "InsertLockPreempted", "{error}");
        let message = error["errorMessage"].as_str().unwrap();
        assert!(
            message.contains("[taskLockTimeout]") && message.contains(&holder),
            "{message}"
        );
    }
    let waiting = server.submit(&replace_day(0, &late), json!({})).await;
    becomes(&server, &waiting, "WAITING").await;
    server
        .post(&format!("/druid/indexer/v1/task/{waiting}/shutdown"), json!({}))
        .await;
    assert_eq!(fails(&server, &waiting).await["errorCode"], "Canceled");
    assert_eq!(late.requests(), 0);
    // While it reads; nothing of it is published.
    let winner = server
        .submit(&replace_day(0, &important), json!({"priority": 51}))
        .await;
    assert_eq!(fails(&server, &holder).await["errorCode"], "InsertLockPreempted");
    important.is_read().await;
    held.release();
    assert_eq!(content(&server).await, [(0, 1)]);
    important.release();
    succeeds(&server, &winner).await;
    assert_eq!(content(&server).await, [(0, 4)]);
    server.process.stop();
}

#[tokio::test]
async fn lock_types_that_make_no_sense_are_refused() {
    let server = start();
    let replace = replace_day(0, &HeldSource::new(""));
    let cases = [
        (
            insert_now(0, 1),
            json!({"taskLockType": "EXCLUSIVE"}),
            "[SHARED] or [APPEND] for INSERT",
        ),
        (
            insert_now(0, 1),
            json!({"taskLockType": "REPLACE"}),
            "[SHARED] or [APPEND] for INSERT",
        ),
        (
            replace.clone(),
            json!({"taskLockType": "SHARED"}),
            "[EXCLUSIVE] or [REPLACE] for REPLACE",
        ),
        (
            replace.clone(),
            json!({"taskLockType": "KILL"}),
            "[taskLockType] must be one of",
        ),
        (
            replace,
            json!({"taskLockTimeout": -1}),
            "[taskLockTimeout] must be at least [0]",
        ),
    ];
    for (sql, context, words) in cases {
        let body = json!({"query": sql, "context": context});
        let (status, text) = server.post("/druid/v2/sql/task", body).await;
        assert!(status == 400 && text.contains(words), "{status} {text}");
    }
    let ignored = json!({"taskLockType": "EXCLUSIVE", "useConcurrentLocks": true});
    server.run(&insert_now(0, 1), ignored).await;
}
