//! Processes are killed at seeded moments of fault-tolerant tasks. `TRILITH_TRIALS=n` plays more of them,
//! `TRILITH_TRIAL=n` one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    PATIENCE, Process, Server, edits, extern_json, files, gated_source, stalled_source, worker,
};

const TRIALS: u64 = 20;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What a trial runs, and what it must give.
struct Case {
    sql: String,
    context: Value,
    rows: Value,
}

/// Sums by channel, over each edit twice (two halves, each of them twice).
fn by_channel() -> BTreeMap<String, (i64, i64)> {
    let mut sums = BTreeMap::new();
    for edit in edits() {
        let sum: &mut (i64, i64) = sums
            .entry(edit["channel"].as_str().unwrap().to_owned())
            .or_default();
        sum.0 += 2;
        sum.1 += 2 * edit["added"].as_i64().unwrap();
    }
    sums
}

fn halves(server: &Server) -> Vec<PathBuf> {
    let edits = edits();
    let halves = edits.chunks(edits.len().div_ceil(2)).enumerate();
    halves
        .map(|(index, half)| {
            let text: String = half.iter().map(|edit| format!("{edit}\n")).collect();
            server.input(&format!("half{index}.json"), text.repeat(2).as_bytes())
        })
        .collect()
}

fn cases(source: &str) -> Vec<Case> {
    let sums = by_channel();
    let grouped: Vec<Value> = sums
        .iter()
        .map(|(channel, (n, added))| json!([channel, n, added]))
        .collect();
    let count: i64 = sums.values().map(|(n, _)| n).sum();
    let squares: i64 = sums.values().map(|(n, _)| n * n).sum();
    let mut large: Vec<i64> = edits()
        .iter()
        .map(|edit| edit["added"].as_i64().unwrap())
        .collect();
    large.retain(|added| *added > 20_000);
    large.extend(large.clone());
    large.sort_unstable();
    let large: Vec<Value> = large.into_iter().map(|added| json!([added])).collect();
    vec![
        Case {
            sql: format!("SELECT added FROM {source} WHERE added > 20000 ORDER BY 1"),
            context: json!({}),
            rows: json!(large),
        },
        Case {
            sql: format!("SELECT channel, COUNT(*), SUM(added) FROM {source} GROUP BY 1 ORDER BY 1"),
            context: json!({}),
            rows: json!(grouped),
        },
        Case {
            sql: format!(
                "SELECT COUNT(*), SUM(b.n) FROM {source} a JOIN (SELECT channel, COUNT(*) AS n FROM {source} \
                 GROUP BY 1) b ON a.channel = b.channel"
            ),
            context: json!({"sqlJoinAlgorithm": "sortMerge"}),
            rows: json!([[count, squares]]),
        },
        Case {
            sql: format!(
                "REPLACE INTO wiki OVERWRITE ALL SELECT TIME_PARSE(\"time\") AS __time, channel, added \
                 FROM {source} PARTITIONED BY HOUR CLUSTERED BY channel"
            ),
            context: json!({"rowsPerSegment": 2000}),
            rows: json!(grouped),
        },
    ]
}

/// Waits for a moment of a task, or its end.
async fn moment(server: &Server, task: &str, stage: usize, phase: &str) {
    let started = Instant::now();
    loop {
        let report = server.report(task).await;
        let now = &report["stages"][stage]["phase"];
        if now == phase || now == "FINISHED" || report["status"]["status"] != "RUNNING" {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{report}");
    }
}

/// What is killed.
const KILLS: [&str; 5] = [
    "first worker",
    "second worker",
    "all workers",
    "server",
    "server and all workers",
];

/// Returns whether a lost worker was replaced, and how long the task took after the kill.
async fn trial(seed: u64, case: &Case) -> (bool, Duration) {
    let mut server = Server::restartable(&["--worker-slots", "0"]);
    let files_of_case = halves(&server);
    assert_eq!(files_of_case.len(), 2);
    let sql = case.sql.replace(
        "{directory}",
        &server.directory.join("input").display().to_string(),
    );
    let mut workers: Vec<Process> = ["w1", "w2"].iter().map(|name| worker(&server, name)).collect();
    let mut context = case.context.clone();
    context["maxNumTasks"] = json!(3);
    context["faultTolerance"] = json!(true);
    let task = server.submit(&sql, context).await;
    let phases = ["READING_INPUT", "POST_READING", "RESULTS_READY"];
    let (stage, phase) = (seed as usize / 4 % 4, phases[seed as usize / 16 % 3]);
    moment(&server, &task, stage, phase).await;
    let killed = Instant::now();
    let kill = KILLS[seed as usize % KILLS.len()];
    match kill {
        "first worker" => workers[0].kill(),
        "second worker" => workers[1].kill(),
        "server" => server.restart(&["--worker-slots", "0"]),
        _ => {
            for worker in &mut workers {
                worker.kill();
            }
            if kill != "all workers" {
                server.restart(&["--worker-slots", "0"]);
            }
            workers.push(worker(&server, "w3"));
        }
    }
    let status = server.wait(&task).await;
    let took = killed.elapsed();
    let report = server.report(&task).await;
    assert_eq!(status["statusCode"], "SUCCESS", "{report}");
    let rows = if sql.starts_with("REPLACE") {
        json!(
            server
                .rows("SELECT channel, COUNT(*), SUM(added) FROM wiki GROUP BY 1 ORDER BY 1")
                .await
        )
    } else {
        report["results"]["results"].clone()
    };
    assert_eq!(rows, case.rows, "{report}");
    let attempts: usize = report["status"]["workers"]
        .as_object()
        .unwrap()
        .values()
        .map(|attempts| attempts.as_array().unwrap().len())
        .sum();
    let workers = report["status"]["workers"].as_object().unwrap().len();
    (attempts > workers, took)
}

#[tokio::test]
async fn killed_processes_cost_no_row_and_double_none() {
    let names = [0, 1].map(|index| PathBuf::from(format!("{{directory}}/half{index}.json")));
    let cases = cases(&files(&names, "time string, channel string, added long"));
    let seeds = match number("TRILITH_TRIAL") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TRILITH_TRIALS").unwrap_or(TRIALS),
    };
    let (all, mut replaced, mut longest) = (seeds.end - seeds.start, 0, Duration::ZERO);
    let mut kills: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds {
        let kill = KILLS[seed as usize % KILLS.len()];
        eprintln!("trial {seed}: {kill}");
        let (was_replaced, took) = trial(seed, &cases[seed as usize % 4]).await;
        replaced += u64::from(was_replaced);
        longest = longest.max(took);
        *kills.entry(kill).or_default() += 1;
    }
    eprintln!(
        "{all} trials, killed {kills:?}, {replaced} with replaced workers, longest {longest:.1?} after the kill, \
         losses = 0"
    );
    assert!(
        all < 8 || replaced > all / 8,
        "the kills came too late: {replaced} of {all}"
    );
}

#[tokio::test]
async fn a_paused_worker_that_wakes_up_after_it_was_replaced_changes_nothing() {
    let server = Server::start(&[
        "--worker-slots",
        "0",
        "--allow-http",
        "127.0.0.1",
        "--worker-lease",
        "1s",
    ]);
    let body: String = (0..1_000).map(|x| format!("{{\"x\":{x}}}\n")).collect();
    let (url, asked, gate) = gated_source(&body);
    let mut asked = Some(asked);
    let mut hear = async || {
        let hears = asked.take().unwrap();
        let hears = tokio::task::spawn_blocking(move || {
            hears.recv_timeout(PATIENCE).unwrap();
            hears
        });
        asked = Some(hears.await.unwrap());
    };
    let source = extern_json(&json!({"type": "http", "uris": [url]}), "x long");
    let sql = format!("REPLACE INTO t OVERWRITE ALL SELECT x FROM {source} PARTITIONED BY ALL");
    let paused = worker(&server, "w1");
    let task = server.submit(&sql, json!({"faultTolerance": true})).await;
    hear().await;
    let other = worker(&server, "w2");
    paused.signal("STOP");
    let stopped = Instant::now();
    // Once more, from the other one.
    hear().await;
    assert!(
        stopped.elapsed() < Duration::from_secs(10),
        "{:?}",
        stopped.elapsed()
    );
    gate.open();
    let status = server.wait(&task).await;
    let report = server.report(&task).await;
    assert_eq!(status["statusCode"], "SUCCESS", "{report}");
    let attempts = report["status"]["workers"]["0"].as_array().unwrap();
    let states: Vec<&str> = attempts
        .iter()
        .map(|attempt| attempt["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["FAILED", "SUCCESS"], "{report}");
    assert_eq!(server.count("t").await, 1_000);

    // It wakes up, finds its answer, and works on until it hears that it was given up; then it joins again.
    paused.signal("CONT");
    let joined = Instant::now();
    loop {
        let twice = format!(
            "SELECT COUNT(*) FROM {}",
            extern_json(&json!({"type": "http", "uris": [url, url]}), "x long")
        );
        let report = server.run(&twice, json!({"maxNumTasks": 3})).await;
        assert_eq!(report["results"]["results"], json!([[2_000]]));
        if report["stages"][0]["workerCount"] == 2 {
            break;
        }
        assert!(joined.elapsed() < PATIENCE, "{}", paused.log());
    }
    assert_eq!(server.count("t").await, 1_000);
    assert_eq!(server.rows("SELECT SUM(x) FROM t").await, [[json!(499_500)]]);
    assert_eq!(
        server.rows("SELECT COUNT(*) FROM sys.segments").await,
        [[json!(1)]]
    );
    paused.stop();
    other.stop();
}

#[tokio::test]
async fn a_worker_that_is_lost_again_and_again_ends_the_task() {
    let server = Server::start(&["--worker-slots", "0", "--allow-http", "127.0.0.1"]);
    let (url, asked) = stalled_source();
    let source = extern_json(&json!({"type": "http", "uris": [url]}), "x long");
    let sql = format!("INSERT INTO t SELECT x FROM {source} PARTITIONED BY ALL");
    let mut process = worker(&server, "w0");
    let task = server.submit(&sql, json!({"faultTolerance": true})).await;
    let mut asked = Some(asked);
    for attempt in 1..=3 {
        let hears = asked.take().unwrap();
        let hears = tokio::task::spawn_blocking(move || {
            hears.recv().unwrap();
            hears
        });
        asked = Some(hears.await.unwrap());
        process.kill();
        process = worker(&server, &format!("w{attempt}"));
    }
    let status = server.wait(&task).await;
    assert_eq!(status["statusCode"], "FAILED");
    let report = server.report(&task).await;
    let error = &report["status"]["errorReport"]["error"];
    assert_eq!(error["errorCode"], "TooManyAttemptsForWorker", "{error}");
    assert_eq!(error["maxPerWorkerRelaunchCount"], 2);
    let attempts = report["status"]["workers"]["0"].as_array().unwrap();
    let ids: Vec<&str> = attempts
        .iter()
        .map(|attempt| attempt["workerId"].as_str().unwrap())
        .collect();
    let expected: Vec<String> = (0..3)
        .map(|attempt| format!("{task}-worker0_{attempt}"))
        .collect();
    assert_eq!(ids, expected);
    assert_eq!(
        server.rows("SELECT COUNT(*) FROM sys.segments").await,
        [[json!(0)]]
    );
}
