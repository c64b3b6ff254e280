//! A restarted server goes on with what its tasks had finished: the sources are not read again.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Process, Server, worker};
use crate::source::{JOIN, Source, Waiting, lines, waiting_join};

const HTTP: [&str; 2] = ["--allow-http", "127.0.0.1"];

fn two_workers(server: &Server) -> Vec<Process> {
    ["w1", "w2"].map(|name| worker(server, name)).into()
}

fn context() -> Value {
    json!({"sqlJoinAlgorithm": "sortMerge", "maxNumTasks": 3, "faultTolerance": true})
}

/// Waits until a stage can be read.
async fn ready(server: &Server, task: &str, stage: usize) {
    let started = Instant::now();
    loop {
        let report = server.report(task).await;
        if report["stages"][stage]["phase"] == "RESULTS_READY" {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{report}");
    }
}

/// A join whose first stage is finished, and whose second waits for its source.
async fn half_done(server: &Server) -> (Waiting, String) {
    let waiting = waiting_join();
    let task = server.submit(&waiting.sql, context()).await;
    ready(server, &task, 0).await;
    waiting.source.wait_for("b", 1).await;
    (waiting, task)
}

/// The rows are right, and every file of the first stage was read this often.
async fn check(server: &Server, task: &str, waiting: &Waiting, first_reads: usize) {
    waiting.source.wait_for("b", 2).await;
    waiting.source.open("b");
    let status = server.wait(task).await;
    let report = server.report(task).await;
    assert_eq!(status["statusCode"], "SUCCESS", "{report}");
    assert_eq!(report["results"]["results"], waiting.rows);
    for (file, reads) in [("a0", first_reads), ("a1", first_reads), ("b", 2)] {
        assert_eq!(waiting.source.reads(file), reads, "{file}: {report}");
    }
    let rows: u64 = report["counters"]["0"]
        .as_object()
        .unwrap()
        .values()
        .map(|counters| counters["input0"]["rows"][0].as_u64().unwrap())
        .sum();
    assert_eq!(rows, 6000, "{report}");
    for stage in report["stages"].as_array().unwrap() {
        assert_eq!(stage["phase"], "FINISHED", "{report}");
    }
}

#[tokio::test]
async fn workers_that_outlive_their_server_keep_what_is_finished() {
    let args = [&HTTP[..], &["--worker-slots", "0"]].concat();
    let mut server = Server::restartable(&args);
    let _workers = two_workers(&server);
    let (waiting, task) = half_done(&server).await;
    server.restart(&args);
    check(&server, &task, &waiting, 1).await;
}

#[tokio::test]
async fn a_worker_that_does_not_come_back_is_missed() {
    let args = [&HTTP[..], &["--worker-slots", "0", "--worker-lease", "1s"]].concat();
    let mut server = Server::restartable(&args);
    let mut workers = two_workers(&server);
    let (waiting, task) = half_done(&server).await;
    // The server first: it must not hear of the worker's end.
    server.process.kill();
    workers[0].kill();
    server.start_again(&args);
    workers.push(worker(&server, "w3"));
    check(&server, &task, &waiting, 2).await;
}

#[tokio::test]
async fn durable_outputs_are_kept_although_all_processes_are_killed() {
    let temporary = tempfile::tempdir().unwrap();
    let url = format!("file://{}", temporary.path().display());
    let durable = ["--durable-storage", &url, "--worker-slots", "0"];
    let args = [&HTTP[..], &durable].concat();
    let mut server = Server::restartable(&args);
    let mut workers = two_workers(&server);
    let (waiting, task) = half_done(&server).await;
    for worker in &mut workers {
        worker.kill();
    }
    server.restart(&args);
    // One worker reads what two have written.
    workers.push(worker(&server, "w3"));
    check(&server, &task, &waiting, 1).await;
}

#[tokio::test]
async fn a_server_that_is_asked_to_stop_leaves_the_task_to_the_next_one() {
    let args = [&HTTP[..], &["--worker-slots", "0"]].concat();
    let mut server = Server::restartable(&args);
    let _workers = two_workers(&server);
    let (waiting, task) = half_done(&server).await;
    let log = server.process.terminate();
    assert!(log.contains("stopping"), "{log}");
    server.start_again(&args);
    check(&server, &task, &waiting, 1).await;
}

#[tokio::test]
async fn a_table_that_changed_meanwhile_is_read_anew() {
    let args = [&HTTP[..], &["--worker-slots", "0"]].concat();
    let mut server = Server::restartable(&args);
    let _workers = [two_workers(&server), vec![worker(&server, "w3")]];
    let insert = |n: i64| format!("INSERT INTO t SELECT {n} AS n PARTITIONED BY ALL");
    for n in [1, 2] {
        server.run(&insert(n), json!({})).await;
    }
    let source = Source::start(&[("b", lines(0..10))]);
    source.close("b");
    let sql = JOIN
        .replace("{a}", "t")
        .replace("{b}", &source.extern_table(&["b"], "k long, n long"));
    let task = server.submit(&sql, context()).await;
    ready(&server, &task, 0).await;
    source.wait_for("b", 1).await;
    // The task reads the table as it was when it started; a run that starts anew reads what is there then.
    server.run(&insert(3), json!({})).await;
    server.restart(&args);
    source.wait_for("b", 2).await;
    source.open("b");
    server.wait(&task).await;
    let report = server.report(&task).await;
    assert_eq!(report["results"]["results"], json!([[3, 6, 6]]), "{report}");
}
