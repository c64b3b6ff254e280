use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Server, edits_file, extern_json, files, inline, stalled_source, worker};

/// A file whose lines have all lengths, with characters of several bytes.
fn lines(rows: usize) -> String {
    (0..rows)
        .map(|n| format!("{{\"n\":{n},\"word\":\"{}\"}}\n", "é€x".repeat(n % 11)))
        .collect()
}

/// EXTERN of one file in another format.
fn extern_file(path: &Path, format: &Value, signature: &str) -> String {
    let source = json!({"type": "local", "files": [path]});
    extern_json(&source, signature).replace("{\"type\":\"json\"}", &format.to_string())
}

/// Sum of a counter of an input over all workers of stage 0.
fn sum(report: &Value, counter: &str) -> i64 {
    let workers = report["counters"]["0"].as_object().unwrap();
    workers
        .values()
        .flat_map(|worker| worker["input0"][counter].as_array().cloned().unwrap_or_default())
        .map(|count| count.as_i64().unwrap())
        .sum()
}

async fn fault(server: &Server, sql: &str, context: Value) -> Value {
    let task = server.submit(sql, context).await;
    assert_eq!(server.wait(&task).await["statusCode"], "FAILED");
    server.report(&task).await["status"]["errorReport"]["error"].clone()
}

#[tokio::test]
async fn one_file_uses_all_slots_and_gives_the_same_rows_to_any_number_of_workers() {
    let server = Server::start(&["--worker-slots", "7"]);
    let text = lines(4_000);
    let file = server.input("one.json", text.as_bytes());
    let csv = {
        let rows = (0..4_000).map(|n| format!("{n},\"{}\"\r\n", "é€x".repeat(n % 11)));
        format!("skipped\nn,word\n{}", rows.collect::<String>())
    };
    let csv_file = server.input("one.csv", csv.as_bytes());
    let format = json!({"type": "csv", "findColumnsFromHeader": true, "skipHeaderRows": 1});
    let expected: Vec<Value> = (0..4_000)
        .map(|n| json!([n, "é€x".repeat(n % 11)]))
        .filter(|row| row[0].as_u64().unwrap() % 5 == 2)
        .collect();
    for (source, size) in [
        (
            files(std::slice::from_ref(&file), "n long, word string"),
            text.len(),
        ),
        (extern_file(&csv_file, &format, "n long, word string"), csv.len()),
    ] {
        for (workers, tasks) in [(1, 2), (2, 3), (7, 8)] {
            let context = json!({"maxNumTasks": tasks, "minInputRangeBytes": 1000});
            let sql = format!("SELECT n, word FROM {source} WHERE MOD(n, 5) = 2 ORDER BY n");
            let report = server.run(&sql, context.clone()).await;
            assert_eq!(report["results"]["results"], json!(expected), "{workers} workers");

            let sql = format!(
                "REPLACE INTO t OVERWRITE ALL SELECT n, word FROM {source} PARTITIONED BY ALL CLUSTERED BY n"
            );
            let report = server.run(&sql, context).await;
            assert_eq!(report["stages"][0]["workerCount"], workers);
            assert_eq!(sum(&report, "rows"), 4_000);
            assert_eq!(sum(&report, "bytes"), size as i64);
            // A file is counted once, however many read it.
            assert_eq!((sum(&report, "files"), sum(&report, "totalFiles")), (1, 1));
            let found = server
                .rows("SELECT n, word FROM t WHERE MOD(n, 5) = 2 ORDER BY n")
                .await;
            assert_eq!(json!(found), json!(expected), "{workers} workers");
        }
    }
    // Without the setting a small file has one reader.
    let sql = format!("SELECT COUNT(*) FROM {}", files(&[file], "n long"));
    let report = server.run(&sql, json!({"maxNumTasks": 8})).await;
    assert_eq!(report["stages"][0]["workerCount"], 1);
    assert_eq!(report["results"]["results"], json!([[4_000]]));
}

#[tokio::test]
async fn a_bad_line_in_a_later_piece_is_named_by_its_place_in_the_file() {
    let server = Server::start(&["--worker-slots", "0"]);
    // Pieces cross processes.
    let _workers = [worker(&server, "w1"), worker(&server, "w2")];
    let text = format!("{}\n{{\"n\":\n{}", lines(700), lines(50));
    let file = server.input("bad.json", text.as_bytes());
    let source = files(std::slice::from_ref(&file), "n long");
    let sql = format!("SELECT COUNT(*) FROM {source}");
    let context = |max: i64| json!({"maxNumTasks": 3, "minInputRangeBytes": 2000, "maxParseExceptions": max});
    let place = format!(
        "Unable to parse row [{{\"n\":] (Path: file:{}, Record: 701, Line: 702)",
        file.display()
    );
    let error = fault(&server, &sql, context(0)).await;
    assert_eq!(error["errorCode"], "CannotParseExternalData");
    assert_eq!(error["errorMessage"], json!(place));
    let report = server.run(&sql, context(-1)).await;
    assert_eq!(report["stages"][0]["workerCount"], 2);
    assert_eq!(report["results"]["results"], json!([[750]]));
    let warnings = report["status"]["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0]["error"]["errorMessage"], json!(place));
}

#[tokio::test]
async fn files_are_assigned_as_max_and_auto_say() {
    let server = Server::start(&["--worker-slots", "4"]);
    let four: Vec<PathBuf> = (0..4)
        .map(|n| {
            server.input(
                &format!("f{n}.json"),
                format!("{{\"x\":{n}}}\n").repeat(100).as_bytes(),
            )
        })
        .collect();
    let sql = format!("SELECT COUNT(*) FROM {}", files(&four, "x long"));
    let cases = [
        (json!({"maxNumTasks": 3}), 2),
        (json!({"maxNumTasks": 5}), 4),
        (json!({"maxNumTasks": 5, "taskAssignment": "auto"}), 1),
        // 800 bytes each: two files fit.
        (
            json!({"maxNumTasks": 5, "taskAssignment": "auto", "maxInputBytesPerWorker": 1600}),
            2,
        ),
        (
            json!({"maxNumTasks": 3, "taskAssignment": "auto", "maxInputBytesPerWorker": 10}),
            2,
        ),
    ];
    for (context, workers) in cases {
        let report = server.run(&sql, context.clone()).await;
        assert_eq!(report["stages"][0]["workerCount"], workers, "{context}");
        assert_eq!(report["results"]["results"], json!([[400]]));
    }
    let (status, text) = server
        .post(
            "/druid/v2/sql/task",
            json!({"query": sql, "context": {"maxNumTasks": 1}}),
        )
        .await;
    assert_eq!(status, 400, "{text}");
    let task = server.submit(&sql, json!({"maxNumTasks": 1_002})).await;
    let status = server.wait(&task).await;
    assert_eq!(status["statusCode"], "FAILED", "{status}");
    let message = status["errorMsg"].as_str().unwrap();
    assert!(message.contains("1001 workers; at most 1000"), "{message}");
}

#[tokio::test]
async fn too_many_files_and_partitions_are_named_with_their_settings() {
    let server = Server::start(&["--worker-slots", "3"]);
    let seven: Vec<PathBuf> = (0..7)
        .map(|n| server.input(&format!("f{n}.json"), format!("{{\"x\":{n}}}\n").as_bytes()))
        .collect();
    let sql = format!("SELECT COUNT(*) FROM {}", files(&seven, "x long"));
    let error = fault(&server, &sql, json!({"maxInputFilesPerWorker": 3})).await;
    assert_eq!(error["errorCode"], "TooManyInputFiles");
    assert_eq!(
        (
            &error["numInputFiles"],
            &error["maxInputFiles"],
            &error["minNumWorkers"]
        ),
        (&json!(7), &json!(3), &json!(3)),
        "{error}"
    );
    let report = server
        .run(&sql, json!({"maxInputFilesPerWorker": 3, "maxNumTasks": 4}))
        .await;
    assert_eq!(report["results"]["results"], json!([[7]]));
    for key in ["maxInputFilesPerWorker", "maxPartitions"] {
        let (status, text) = server
            .post("/druid/v2/sql/task", json!({"query": sql, "context": {key: 0}}))
            .await;
        assert!(status == 400 && text.contains(key), "{text}");
    }

    let insert = format!(
        "INSERT INTO t SELECT x FROM {} PARTITIONED BY ALL CLUSTERED BY x",
        files(&seven, "x long")
    );
    let error = fault(&server, &insert, json!({"rowsPerSegment": 1, "maxPartitions": 5})).await;
    assert_eq!(error["errorCode"], "TooManyPartitions");
    assert_eq!(error["maxPartitions"], 5);
    server
        .run(&insert, json!({"rowsPerSegment": 1, "maxPartitions": 7}))
        .await;
    assert_eq!(
        server.rows("SELECT COUNT(*) FROM sys.segments").await,
        [[json!(7)]]
    );

    // More rows than keys are sampled: what was asked for counts, not what could be cut.
    let data: String = (0..25_001).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let many = format!(
        "REPLACE INTO t OVERWRITE ALL SELECT n FROM {} PARTITIONED BY ALL",
        inline(&data, "n long")
    );
    let error = fault(&server, &many, json!({"rowsPerSegment": 1})).await;
    assert_eq!(error["errorCode"], "TooManyPartitions");
    assert_eq!(error["maxPartitions"], 25_000);
}

#[tokio::test]
async fn rows_per_segment_sets_the_number_of_segments() {
    let server = Server::start(&["--worker-slots", "2"]);
    let data: String = (0..10_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let sql = format!(
        "REPLACE INTO t OVERWRITE ALL SELECT n FROM {} PARTITIONED BY ALL CLUSTERED BY n",
        inline(&data, "n long")
    );
    server
        .run(&sql, json!({"rowsPerSegment": 1000, "maxNumTasks": 3}))
        .await;
    let segments = server
        .rows("SELECT COUNT(*), SUM(num_rows) FROM sys.segments")
        .await;
    assert!(
        (9..=11).contains(&segments[0][0].as_i64().unwrap()),
        "{segments:?}"
    );
    assert_eq!(segments[0][1], 10_000);
}

/// A task that reads from sources that never answer, one for each worker.
async fn stalled(server: &Server, urls: &[String], context: Value) -> String {
    let source = extern_json(&json!({"type": "http", "uris": urls}), "x long");
    server.submit(&format!("SELECT x FROM {source}"), context).await
}

async fn heard(asked: std::sync::mpsc::Receiver<()>) -> std::sync::mpsc::Receiver<()> {
    tokio::task::spawn_blocking(move || {
        asked.recv_timeout(PATIENCE).unwrap();
        asked
    })
    .await
    .unwrap()
}

async fn cancel(server: &Server, task: &str) {
    let path = format!("/druid/indexer/v1/task/{task}/shutdown");
    assert_eq!(server.post(&path, json!({})).await.0, 200);
    assert_eq!(server.wait(task).await["statusCode"], "FAILED");
}

/// Waits until a task is in the queue for slots.
async fn pending(server: &Server, task: &str) {
    let started = Instant::now();
    loop {
        let (_, body) = server.get(&format!("/druid/indexer/v1/task/{task}/status")).await;
        if body["status"]["runnerStatusCode"] == "PENDING"
            && server.report(task).await["status"]["pendingTasks"] != 0
        {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{body}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn slots_are_shared_by_size_priority_and_arrival() {
    let server = Server::start(&["--worker-slots", "3", "--allow-http", "127.0.0.1"]);
    let small = "SELECT 1 AS x";
    let (url, asked) = stalled_source();
    // All slots but one.
    let large = stalled(
        &server,
        &[format!("{url}?1"), format!("{url}?2")],
        json!({"maxNumTasks": 3}),
    )
    .await;
    let asked = heard(heard(asked).await).await;
    server.run(small, json!({})).await;

    // Wants all three, waits, and holds nobody up who can run meanwhile.
    let uris: Vec<String> = (3..6).map(|n| format!("{url}?{n}")).collect();
    let waiting = stalled(&server, &uris, json!({"maxNumTasks": 4})).await;
    pending(&server, &waiting).await;
    server.run(small, json!({})).await;
    assert_eq!(server.report(&waiting).await["status"]["status"], "RUNNING");

    // One that waits is cancelled; its place is free for the next.
    cancel(&server, &waiting).await;
    let (low_url, low_asked) = stalled_source();
    let (high_url, high_asked) = stalled_source();
    let three = |url: &str| (0..3).map(|n| format!("{url}?{n}")).collect::<Vec<_>>();
    let low = stalled(
        &server,
        &three(&low_url),
        json!({"maxNumTasks": 4, "priority": 10}),
    )
    .await;
    pending(&server, &low).await;
    let high = stalled(
        &server,
        &three(&high_url),
        json!({"maxNumTasks": 4, "priority": 90}),
    )
    .await;
    pending(&server, &high).await;
    cancel(&server, &large).await;
    let _high_asked = heard(high_asked).await;
    pending(&server, &low).await;
    assert!(low_asked.try_recv().is_err(), "the low priority has a slot");
    cancel(&server, &high).await;
    let _low_asked = heard(low_asked).await;
    cancel(&server, &low).await;
    drop(asked);
    server.run(small, json!({})).await;
}

#[tokio::test]
async fn a_task_that_gets_no_slot_in_time_says_so() {
    let server = Server::start(&[
        "--worker-slots",
        "1",
        "--task-start-timeout-s",
        "1",
        "--allow-http",
        "127.0.0.1",
    ]);
    let (url, asked) = stalled_source();
    let holder = stalled(&server, &[url], json!({})).await;
    let _asked = heard(asked).await;
    let error = fault(&server, "SELECT 1 AS x", json!({})).await;
    assert_eq!(error["errorCode"], "TaskStartTimeout");
    assert_eq!(
        (&error["pendingTasks"], &error["totalTasks"], &error["timeout"]),
        (&json!(1), &json!(1), &json!(1000)),
        "{error}"
    );
    assert!(
        error["errorMessage"]
            .as_str()
            .unwrap()
            .contains("Lower maxNumTasks"),
        "{error}"
    );
    cancel(&server, &holder).await;
    // More than all slots is no reason to wait: it takes what there is.
    server.run("SELECT 1 AS x", json!({"maxNumTasks": 9})).await;
}

#[tokio::test]
async fn independent_stages_run_together_if_they_may() {
    let server = Server::start(&["--worker-slots", "1", "--allow-http", "127.0.0.1"]);
    let (left, left_asked) = stalled_source();
    let (right, right_asked) = stalled_source();
    let of = |url: &str| extern_json(&json!({"type": "http", "uris": [url]}), "x long");
    let join = format!(
        "SELECT a.x FROM {} a JOIN {} b ON a.x = b.x",
        of(&left),
        of(&right)
    );
    let context = |stages: u32| json!({"sqlJoinAlgorithm": "sortMerge", "maxConcurrentStages": stages});
    let task = server.submit(&join, context(2)).await;
    // Neither ends, and both have begun.
    let (left_asked, right_asked) = (heard(left_asked).await, heard(right_asked).await);
    cancel(&server, &task).await;

    let task = server.submit(&join, context(1)).await;
    let _left_asked = heard(left_asked).await;
    let stages = server.report(&task).await["stages"].clone();
    assert_eq!(stages[0]["phase"], "READING_INPUT", "{stages}");
    assert!(
        stages[1]["phase"].is_null() || stages[1]["phase"] == "NEW",
        "{stages}"
    );
    assert!(right_asked.try_recv().is_err());
    cancel(&server, &task).await;

    let rows = |factor: u32| {
        (0..200)
            .map(|n| format!("{{\"x\":{}}}\n", n * factor))
            .collect::<String>()
    };
    let sql = format!(
        "SELECT a.x FROM {} a JOIN {} b ON a.x = b.x ORDER BY 1",
        inline(&rows(2), "x long"),
        inline(&rows(3), "x long")
    );
    let expected: Vec<Value> = (0..400).step_by(6).map(|x| json!([x])).collect();
    for stages in [1, 2, 5] {
        let report = server.run(&sql, context(stages)).await;
        assert_eq!(report["results"]["results"], json!(expected));
    }
}

/// Statements whose stages differ in how many workers they may have.
const SHAPES: [&str; 14] = [
    "SELECT a.channel, COUNT(*) FROM (SELECT * FROM edits ORDER BY page LIMIT 50) AS a INNER JOIN edits AS b ON a.page = b.page GROUP BY a.channel",
    "SELECT a.page, b.added FROM (SELECT page FROM edits ORDER BY added DESC, page LIMIT 3) a INNER JOIN edits b ON a.page = b.page",
    "SELECT COUNT(*) FROM edits WHERE channel = (SELECT channel FROM edits ORDER BY __time DESC, page LIMIT 1 OFFSET 6)",
    "SELECT channel, COUNT(*) FROM edits WHERE channel IN (SELECT channel FROM edits WHERE added > 5000 GROUP BY channel ORDER BY channel DESC) GROUP BY 1",
    "SELECT channel, COUNT(*) FROM edits WHERE channel NOT IN (SELECT channel FROM edits WHERE added > 5000 AND channel IS NOT NULL) GROUP BY 1",
    "SELECT a.channel, a.n, b.m FROM (SELECT channel, COUNT(*) AS n FROM edits GROUP BY 1) a LEFT JOIN (SELECT channel, MAX(added) AS m FROM edits WHERE added > 5000 GROUP BY 1) b ON a.channel = b.channel",
    "SELECT COALESCE(a.channel, b.channel), a.n, b.n FROM (SELECT channel, COUNT(*) AS n FROM edits WHERE added > 5000 GROUP BY 1) a FULL JOIN (SELECT channel, COUNT(*) AS n FROM edits WHERE added < 20 GROUP BY 1) b ON a.channel = b.channel",
    "SELECT COUNT(*) FROM (SELECT DISTINCT page FROM edits LIMIT 7)",
    "SELECT COUNT(*) FROM (SELECT channel FROM edits GROUP BY channel LIMIT 4)",
    "SELECT COUNT(*), SUM(n) FROM (SELECT COUNT(*) AS n FROM edits UNION ALL SELECT SUM(added) FROM edits UNION ALL SELECT COUNT(*) FROM edits)",
    "SELECT COUNT(*) FROM (SELECT * FROM (SELECT COUNT(*) AS n FROM edits UNION ALL SELECT SUM(added) FROM edits UNION ALL SELECT COUNT(*) FROM edits) LIMIT 2)",
    "SELECT n FROM (SELECT COUNT(*) AS n FROM edits UNION ALL SELECT SUM(added) FROM edits) ORDER BY n",
    "SELECT COUNT(*) FROM (SELECT channel FROM edits UNION ALL SELECT page FROM edits LIMIT 3)",
    "SELECT channel, ROW_NUMBER() OVER (ORDER BY channel) FROM (SELECT channel FROM edits GROUP BY channel ORDER BY channel LIMIT 5)",
];

#[tokio::test]
async fn stages_of_one_worker_and_of_several_meet() {
    let server = Server::start(&["--worker-slots", "4"]);
    let path = server.input("edits.json.gz", edits_file());
    let table = files(&[path], "time string, channel string, page string, added long");
    let ingest = format!(
        "REPLACE INTO edits OVERWRITE ALL SELECT TIME_PARSE(\"time\") AS __time, channel, page, added FROM {table} \
         PARTITIONED BY HOUR CLUSTERED BY channel"
    );
    server.run(&ingest, json!({})).await;
    for sql in SHAPES {
        let mut expected = server.rows(sql).await;
        expected.sort_by_key(|row| json!(row).to_string());
        assert!(!expected.is_empty(), "{sql}");
        for workers in [1, 2, 3] {
            for join in ["broadcast", "sortMerge"] {
                let context = json!({"maxNumTasks": workers + 1, "sqlJoinAlgorithm": join});
                let report = server.run(sql, context).await;
                let mut rows: Vec<Vec<Value>> =
                    serde_json::from_value(report["results"]["results"].clone()).unwrap();
                rows.sort_by_key(|row| json!(row).to_string());
                assert_eq!(rows, expected, "{workers} workers, {join}: {sql}");
            }
        }
    }
}
