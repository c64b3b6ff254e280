//! Stage outputs and results in durable storage: a local directory, and a real S3 server.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightClient, FlightDescriptor, Ticket};
use futures::TryStreamExt;
use serde_json::{Value, json};

use crate::harness::{PATIENCE, Process, Server, worker};
use crate::source::{JOIN, Source, lines, waiting_join};

/// Files below a directory.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files_below(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

/// Waits until a task has left nothing for its stages.
async fn wait_until_clean(list: impl AsyncFn() -> Vec<String>) {
    let started = Instant::now();
    loop {
        let mut left = list().await;
        left.retain(|path| !path.contains("query-results"));
        if left.is_empty() {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{left:?}");
        tokio::task::yield_now().await;
    }
}

fn listed(directory: &Path) -> Vec<String> {
    let files = files_below(directory);
    files.iter().map(|file| file.display().to_string()).collect()
}

struct Durable {
    server: Server,
    directory: PathBuf,
    _temporary: tempfile::TempDir,
}

fn durable_server(args: &[&str]) -> Durable {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("durable");
    let url = format!("file://{}", directory.display());
    let mut all = vec!["--durable-storage", &url, "--allow-http", "127.0.0.1"];
    all.extend(args);
    Durable {
        server: Server::start(&all),
        directory,
        _temporary: temporary,
    }
}

fn storage_counters(report: &Value, name: &str) -> i64 {
    report["counters"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|workers| workers.as_object().unwrap().values())
        .filter_map(|counters| counters["storage"][name].as_i64())
        .sum()
}

fn context() -> Value {
    json!({"sqlJoinAlgorithm": "sortMerge", "maxNumTasks": 3, "faultTolerance": true})
}

/// Every worker is killed during the second stage; what the first one finished is not made again.
async fn finished_work_survives(server: &Server, mut workers: Vec<Process>) {
    let waiting = waiting_join();
    let task = server.submit(&waiting.sql, context()).await;
    waiting.source.wait_for("b", 1).await;
    let report = server.report(&task).await;
    assert_eq!(report["stages"][0]["output"], "durableStorage", "{report}");
    for process in &mut workers {
        process.kill();
    }
    workers.extend(["w3", "w4"].map(|name| worker(server, name)));
    waiting.source.wait_for("b", 2).await;
    waiting.source.open("b");
    let status = server.wait(&task).await;
    let report = server.report(&task).await;
    assert_eq!(status["statusCode"], "SUCCESS", "{report}");
    assert_eq!(report["results"]["results"], waiting.rows);
    for (file, reads) in [("a0", 1), ("a1", 1), ("b", 2)] {
        assert_eq!(waiting.source.reads(file), reads, "{file}");
    }
    let attempts = report["status"]["workers"]["0"].as_array().unwrap();
    // The second attempt may find the other worker before that is killed as well.
    assert!((2..=3).contains(&attempts.len()), "{report}");
    for stage in report["stages"].as_array().unwrap() {
        assert_eq!(stage["output"], "durableStorage");
    }
    assert!(storage_counters(&report, "durableFileCount") >= 4, "{report}");
    assert!(
        storage_counters(&report, "durableBytesWritten") > 10_000,
        "{report}"
    );
}

#[tokio::test]
async fn a_lost_worker_does_not_take_durable_outputs_along() {
    let durable = durable_server(&["--worker-slots", "0"]);
    let server = &durable.server;
    let workers = ["w1", "w2"].map(|name| worker(server, name)).into();
    finished_work_survives(server, workers).await;
    wait_until_clean(async || listed(&durable.directory)).await;
}

#[tokio::test]
async fn intermediate_files_go_with_their_task() {
    let durable = durable_server(&[]);
    let server = &durable.server;
    let rows = crate::harness::inline(&lines(0..500).replace('\n', "\\n"), "k long, n long");
    let source = Source::start(&[("a", lines(0..5000)), ("b", lines(0..10))]);
    let signature = "k long, n long";
    let table = source.extern_table(&["a"], signature);
    let durable_context = json!({"durableShuffleStorage": true, "rowsPerSegment": 1000, "maxNumTasks": 3});
    // Success, by ranges and by key.
    let report = server
        .run(
            &format!(
                "REPLACE INTO t OVERWRITE ALL SELECT TIMESTAMP '2020-01-01' AS __time, k, n FROM {table} \
                 PARTITIONED BY DAY CLUSTERED BY k"
            ),
            durable_context.clone(),
        )
        .await;
    assert_eq!(report["stages"][0]["partitionCount"], 5, "{report}");
    assert_eq!(
        report["counters"]["0"]["0"]["storage"]["durableFileCount"], 5,
        "{report}"
    );
    let found = server
        .rows("SELECT COUNT(*), SUM(n), COUNT(DISTINCT k) FROM t")
        .await;
    assert_eq!(json!(found), json!([[5000, 5000 * 4999 / 2, 100]]));
    wait_until_clean(async || listed(&durable.directory)).await;
    let report = server
        .run(
            &format!("SELECT k, COUNT(*) AS c FROM {table} GROUP BY k ORDER BY k"),
            durable_context.clone(),
        )
        .await;
    let expected: Vec<Value> = (0..100).map(|k| json!([k, 50])).collect();
    assert_eq!(report["results"]["results"], json!(expected));
    wait_until_clean(async || listed(&durable.directory)).await;
    // Failure in the second stage, and cancel during it.
    source.close("b");
    let waiting = JOIN
        .replace("{a}", &table)
        .replace("{b}", &source.extern_table(&["b"], "n long, k long"));
    let mut stopped = durable_context.clone();
    stopped["sqlJoinAlgorithm"] = json!("sortMerge");
    let task = server.submit(&waiting, stopped).await;
    source.wait_for("b", 1).await;
    assert!(!listed(&durable.directory).is_empty(), "nothing was written");
    let (code, _) = server
        .post(&format!("/druid/indexer/v1/task/{task}/shutdown"), json!({}))
        .await;
    assert_eq!(code, 200);
    assert_eq!(server.wait(&task).await["statusCode"], "FAILED");
    wait_until_clean(async || listed(&durable.directory)).await;
    let failing = format!(
        "SELECT COUNT(*) FROM (SELECT n FROM {table} ORDER BY n LIMIT 400) a JOIN {rows} b ON a.n = b.n \
         WHERE CAST(CONCAT('x', a.n) AS TIMESTAMP) > TIMESTAMP '2000-01-01' AND 1 / (a.n - 17) < 5"
    );
    let task = server.submit(&failing, durable_context).await;
    assert_eq!(server.wait(&task).await["statusCode"], "FAILED");
    wait_until_clean(async || listed(&durable.directory)).await;
}

#[tokio::test]
async fn without_durable_storage_the_fault_names_the_setting() {
    let server = Server::start(&[]);
    for key in [
        json!({"durableShuffleStorage": true}),
        json!({"selectDestination": "durableStorage"}),
    ] {
        let task = server.submit("SELECT 1 AS one FROM (VALUES (1)) t", key).await;
        assert_eq!(server.wait(&task).await["statusCode"], "FAILED");
        let report = server.report(&task).await;
        let error = &report["status"]["errorReport"]["error"];
        assert_eq!(error["errorCode"], "DurableStorageConfiguration", "{error}");
        for field in ["message", "errorMessage"] {
            assert!(
                error[field].as_str().unwrap().contains("--durable-storage"),
                "{error}"
            );
        }
    }
}

async fn flight(server: &Server) -> FlightClient {
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", server.grpc())).unwrap();
    FlightClient::new_from_inner(FlightServiceClient::new(channel.connect().await.unwrap()))
}

/// The column `n` behind a ticket.
async fn numbers(client: &mut FlightClient, ticket: Ticket) -> Vec<i64> {
    let batches: Vec<_> = client.do_get(ticket).await.unwrap().try_collect().await.unwrap();
    batches
        .iter()
        .flat_map(|batch| {
            let column = batch.column_by_name("n").unwrap();
            let values = column
                .as_any()
                .downcast_ref::<arrow::array::Int64Array>()
                .unwrap();
            values.values().to_vec()
        })
        .collect()
}

/// A sorted result of 10,000 rows as pages of 3,000.
async fn pages_of_a_result(server: &Server) -> String {
    let source = Source::start(&[("a", lines(0..10_000))]);
    let sql = format!(
        "SELECT n, k FROM {} ORDER BY n DESC",
        source.extern_table(&["a"], "k long, n long")
    );
    let context = json!({"selectDestination": "durableStorage", "rowsPerPage": 3000});
    let task = server.submit(&sql, context).await;
    assert_eq!(server.wait(&task).await["statusCode"], "SUCCESS");
    let report = server.report(&task).await;
    let last = report["stages"].as_array().unwrap().last().unwrap();
    assert_eq!(last["output"], "durableStorageQueryResults");
    let preview: Vec<Value> = (7000..10_000).rev().map(|n| json!([n, n % 100])).collect();
    assert_eq!(report["results"]["results"], json!(preview));
    assert_eq!(report["results"]["resultsTruncted"], true);
    assert_eq!(report["results"]["resultsTruncated"], true);
    assert_eq!(storage_counters(&report, "durableFileCount"), 4);
    let mut client = flight(server).await;
    let descriptor = FlightDescriptor::new_path(vec![task.clone()]);
    let info = client.get_flight_info(descriptor).await.unwrap();
    assert_eq!((info.total_records, info.endpoint.len()), (10_000, 4));
    assert!(
        info.total_bytes > 10_000 && info.total_bytes < 400_000,
        "{}",
        info.total_bytes
    );
    assert_eq!(info.clone().try_decode_schema().unwrap().field(0).name(), "n");
    let mut all = Vec::new();
    for (number, endpoint) in info.endpoint.into_iter().enumerate() {
        let page = numbers(&mut client, endpoint.ticket.unwrap()).await;
        assert_eq!(page.len(), if number < 3 { 3000 } else { 1000 });
        all.extend(page);
    }
    let expected: Vec<i64> = (0..10_000).rev().collect();
    assert_eq!(all, expected);
    let whole = Ticket::new(json!({"task": task}).to_string());
    assert_eq!(numbers(&mut client, whole).await, expected);
    let beyond = Ticket::new(json!({"page": [task, 4]}).to_string());
    let error = client.do_get(beyond).await.err().unwrap().to_string();
    assert!(error.contains("page id [4]"), "{error}");
    task
}

#[tokio::test]
async fn rows_of_a_select_are_kept_as_pages() {
    let durable = durable_server(&[]);
    let task = pages_of_a_result(&durable.server).await;
    wait_until_clean(async || listed(&durable.directory)).await;
    let kept = durable
        .directory
        .join("query-results")
        .join(format!("controller_{task}"));
    assert_eq!(files_below(&kept).len(), 4 + 3, "pages, and what names them");
    // Rows in the report: they have one endpoint.
    let server = &durable.server;
    let sql = "SELECT * FROM (VALUES (1), (2)) AS t (n)";
    let task = server.submit(sql, json!({})).await;
    server.wait(&task).await;
    let mut client = flight(server).await;
    let info = client
        .get_flight_info(FlightDescriptor::new_path(vec![task]))
        .await
        .unwrap();
    assert_eq!((info.total_records, info.endpoint.len()), (2, 1));
    let missing = FlightDescriptor::new_path(vec!["query-unknown".to_owned()]);
    assert!(client.get_flight_info(missing).await.is_err());
}

#[tokio::test]
async fn a_restart_sweeps_what_a_killed_server_left() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().canonicalize().unwrap();
    let storage = directory.join("durable");
    let url = format!("file://{}", storage.display());
    let args = ["--durable-storage", &url, "--allow-http", "127.0.0.1"];
    let mut server = Server::at(&directory, &args);
    let kept = pages_of_a_result(&server).await;
    let waiting = waiting_join();
    let mut stopped = context();
    stopped["durableShuffleStorage"] = json!(true);
    stopped["faultTolerance"] = json!(false);
    server.submit(&waiting.sql, stopped).await;
    waiting.source.wait_for("b", 1).await;
    let unknown = storage.join("query-results/controller_query-gone/stage_0");
    std::fs::create_dir_all(&unknown).unwrap();
    std::fs::write(unknown.join("part_0#1"), "half written").unwrap();
    server.process.kill();
    let left = files_below(&storage).len();
    assert!(left > 7 + 1, "{left} files");
    let server = Server::at(&directory, &args);
    wait_until_clean(async || listed(&storage)).await;
    let started = Instant::now();
    while unknown.exists() {
        assert!(started.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    }
    // What the killed task left goes file by file.
    while files_below(&storage).len() > 4 + 3 {
        assert!(started.elapsed() < PATIENCE, "{:?}", files_below(&storage));
        tokio::task::yield_now().await;
    }
    assert_eq!(files_below(&storage).len(), 4 + 3);
    let mut client = flight(&server).await;
    let rows = numbers(&mut client, Ticket::new(json!({"task": kept}).to_string())).await;
    assert_eq!(rows.len(), 10_000);
}

/// An S3 server in a process of its own: moto, from PyPI.
struct S3 {
    child: Child,
    endpoint: String,
}

const MOTO: &str = "
import sys, boto3
out, sys.stdout = sys.stdout, sys.stderr
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0)
server.start()
endpoint = 'http://%s:%d' % server.get_host_and_port()
s3 = boto3.client('s3', endpoint_url=endpoint, aws_access_key_id='key', aws_secret_access_key='secret',
                  region_name='us-east-1')
s3.create_bucket(Bucket='bucket')
print(endpoint, file=out, flush=True)
for _ in sys.stdin:
    pages = s3.get_paginator('list_objects_v2').paginate(Bucket='bucket')
    print(' '.join(item['Key'] for page in pages for item in page.get('Contents', [])),
          file=out, flush=True)
";

impl S3 {
    /// None when PyPI cannot be reached.
    fn start() -> Option<S3> {
        let target = Path::new(env!("CARGO_BIN_EXE_trilith"))
            .parent()
            .unwrap()
            .parent()
            .unwrap();
        let venv = target.join("moto-venv");
        let python = venv.join("bin/python");
        let has_moto = || {
            let found = Command::new(&python)
                .args(["-c", "import moto.server, boto3"])
                .output();
            found.is_ok_and(|found| found.status.success())
        };
        if !has_moto() {
            let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status();
            assert!(
                made.is_ok_and(|made| made.success()),
                "python3 with venv is needed"
            );
            let pip = [
                "-m",
                "pip",
                "install",
                "--quiet",
                "--retries",
                "1",
                "moto[server]",
            ];
            let installed = Command::new(&python).args(pip).status().unwrap();
            if !installed.success() {
                return None;
            }
        }
        let mut child = Command::new(&python)
            .args(["-c", MOTO])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut endpoint = String::new();
        let mut out = BufReader::new(child.stdout.as_mut().unwrap());
        out.read_line(&mut endpoint).unwrap();
        let endpoint = endpoint.trim().to_owned();
        Some(S3 { child, endpoint })
    }

    /// Names of all objects.
    fn list(&mut self) -> Vec<String> {
        self.child.stdin.as_mut().unwrap().write_all(b"list\n").unwrap();
        let mut line = String::new();
        BufReader::new(self.child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[tokio::test]
async fn outputs_and_results_in_s3() {
    let Some(s3) = S3::start() else {
        eprintln!("skipped: moto cannot be installed, because PyPI cannot be reached");
        return;
    };
    let secret = "the-secret-of-the-bucket";
    let environment = [
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let endpoint = format!("aws_endpoint={}", s3.endpoint);
    let url = "s3://bucket/some/prefix";
    let mut args = vec!["--durable-storage", url, "--durable-storage-option", &endpoint];
    args.extend(["--allow-http", "127.0.0.1", "--worker-slots", "0"]);
    let server = Server::start_with(&args, &environment);
    // Workers learn all of it from the server.
    let workers = ["w1", "w2"].map(|name| worker(&server, name)).into();
    finished_work_survives(&server, workers).await;
    let s3 = std::sync::Mutex::new(s3);
    wait_until_clean(async || s3.lock().unwrap().list()).await;
    let last = worker(&server, "w5");
    let task = pages_of_a_result(&server).await;
    wait_until_clean(async || s3.lock().unwrap().list()).await;
    let kept = s3.lock().unwrap().list();
    let prefix = format!("some/prefix/query-results/controller_{task}/");
    assert_eq!(kept.len(), 4 + 3, "{kept:?}");
    assert!(kept.iter().all(|key| key.starts_with(&prefix)), "{kept:?}");
    for log in [last.stop(), server.process.stop()] {
        assert!(!log.contains(secret), "the log has the secret");
    }
    // A bucket that is not there.
    args[1] = "s3://no-bucket";
    let server = Server::start_with(&args, &environment);
    let _worker = worker(&server, "w1");
    let task = server
        .submit("SELECT 1 AS n", json!({"selectDestination": "durableStorage"}))
        .await;
    server.wait(&task).await;
    let report = server.report(&task).await;
    let error = &report["status"]["errorReport"]["error"];
    assert_eq!(error["errorCode"], "DurableStorageConfiguration", "{error}");
    assert!(
        error["errorMessage"].as_str().unwrap().contains("s3://no-bucket"),
        "{error}"
    );
}
