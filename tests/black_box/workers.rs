use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Server, edits, extern_json, files, stalled_source, worker};

/// Rows that a process says it served to others.
fn served(log: &str) -> u64 {
    let plain: String = {
        // Logs may be coloured.
        let mut out = String::new();
        let mut chars = log.chars();
        while let Some(c) = chars.next() {
            if c == '\u{1b}' {
                for c in chars.by_ref() {
                    if c == 'm' {
                        break;
                    }
                }
            } else {
                out.push(c);
            }
        }
        out
    };
    let line = plain
        .lines()
        .find(|line| line.contains("Flight reads served"))
        .unwrap_or_else(|| panic!("{plain}"));
    let rows = line.split("rows=").nth(1).unwrap();
    rows.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn two_worker_processes_shuffle_over_sockets() {
    let server = Server::start(&["--worker-slots", "0"]);
    let (first, second) = (worker(&server, "w1"), worker(&server, "w2"));
    let edits = edits();
    let halves: Vec<_> = edits
        .chunks(edits.len().div_ceil(2))
        .enumerate()
        .map(|(index, half)| {
            let text: String = half.iter().map(|edit| format!("{edit}\n")).collect();
            server.input(&format!("half{index}.json"), text.as_bytes())
        })
        .collect();
    let source = files(&halves, "time string, channel string, added long");
    let sql = format!(
        "REPLACE INTO wiki OVERWRITE ALL SELECT TIME_PARSE(\"time\") AS __time, channel, added FROM {source} \
         PARTITIONED BY HOUR CLUSTERED BY channel"
    );
    let report = server.run(&sql, json!({"maxNumTasks": 3})).await;
    assert_eq!(report["stages"][0]["workerCount"], 2);
    assert_eq!(report["stages"][1]["workerCount"], 2);
    assert_eq!(server.count("wiki").await, edits.len() as i64);
    let added: i64 = edits.iter().map(|edit| edit["added"].as_i64().unwrap()).sum();
    assert_eq!(server.rows("SELECT SUM(added) FROM wiki").await, [[json!(added)]]);

    // A grouped SELECT as a task: its rows cross sockets as well, and come in the order asked for.
    let sql = "SELECT channel, COUNT(*) AS n FROM wiki GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 5";
    let report = server.run(sql, json!({"maxNumTasks": 3})).await;
    assert_eq!(report["stages"].as_array().unwrap().len(), 3);
    let expected = server.rows(sql).await;
    assert_eq!(report["results"]["results"], json!(expected));

    let (first, second) = (served(&first.stop()), served(&second.stop()));
    // Each reads what the other has of its partitions.
    assert!(first > 0 && second > 0, "{first} and {second} rows were served");
    assert!(
        first + second > edits.len() as u64 / 4,
        "{first} and {second} rows were served"
    );
}

#[tokio::test]
async fn a_killed_worker_fails_the_task_and_nothing_is_published() {
    let server = Server::start(&["--worker-slots", "0", "--allow-http", "127.0.0.1"]);
    let mut process = worker(&server, "w1");
    let (url, asked) = stalled_source();
    let source = extern_json(&json!({"type": "http", "uris": [url]}), "x long");
    let task = server
        .submit(
            &format!("INSERT INTO t SELECT x FROM {source} PARTITIONED BY ALL"),
            json!({}),
        )
        .await;
    tokio::task::spawn_blocking(move || asked.recv().unwrap())
        .await
        .unwrap();
    process.kill();
    let started = Instant::now();
    let status = server.wait(&task).await;
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(status["statusCode"], "FAILED");
    let error = &server.report(&task).await["status"]["errorReport"]["error"];
    assert_eq!(error["errorCode"], "WorkerFailed", "{error}");
    assert_eq!(
        server.rows("SELECT COUNT(*) FROM sys.segments").await,
        [[json!(0)]]
    );
    // A new worker takes over.
    let _second = worker(&server, "w2");
    server
        .run(
            "REPLACE INTO t OVERWRITE ALL SELECT 1 AS x PARTITIONED BY ALL",
            json!({}),
        )
        .await;
    assert_eq!(server.count("t").await, 1);
}
