//! Temporary files: bounded, counted, gone at the end; a full disk is named.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Server};

const ROWS: i64 = 120_000;

/// About 20 MB that a process of 16 MB cannot hold.
fn table(server: &Server) -> String {
    let text: String = (0..ROWS)
        .map(|n| {
            let key = n * 7919 % 1_000_003;
            let filler = key.wrapping_mul(2_654_435_761) as u64;
            format!("{{\"n\":{n},\"text\":\"{key:07}-{filler:064x}-{filler:064b}\"}}\n")
        })
        .collect();
    let path = server.input("wide.json", text.as_bytes());
    crate::harness::files(&[path], "n long, text string")
}

fn sql(table: &str) -> String {
    format!(
        "REPLACE INTO wide OVERWRITE ALL SELECT TIMESTAMP '2020-01-01' AS __time, n, text FROM {table} \
         PARTITIONED BY DAY CLUSTERED BY text"
    )
}

fn small(args: &[&str]) -> Server {
    let mut all = vec!["--memory-limit", "16MB", "--worker-slots", "1"];
    all.extend(args);
    Server::start(&all)
}

/// Bytes of temporary files that a process has.
fn spilled(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            // It may be gone by now.
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => spilled(&entry.path()),
                Ok(metadata) => metadata.len(),
                Err(_) => 0,
            }
        })
        .sum()
}

fn wait_until_empty(server: &Server) {
    let started = Instant::now();
    while spilled(&server.directory.join("data/spill")) > 0 {
        assert!(started.elapsed() < PATIENCE, "temporary files remain");
        std::thread::yield_now();
    }
}

async fn fault(server: &Server, sql: &str) -> Value {
    let task = server.submit(sql, json!({})).await;
    assert_eq!(server.wait(&task).await["statusCode"], "FAILED");
    server.report(&task).await["status"]["errorReport"]["error"].clone()
}

#[tokio::test]
async fn temporary_files_are_counted_and_go_with_the_task() {
    let server = small(&[]);
    let sql = sql(&table(&server));
    let report = server.run(&sql, json!({})).await;
    let storage = &report["counters"]["0"]["0"]["storage"];
    for counter in ["localFilesWritten", "localBytesWritten", "localBytesReserved"] {
        assert!(storage[counter].as_i64().unwrap() > 0, "{storage}");
    }
    assert_eq!(storage["durableFileCount"], 0);
    let found = server.rows("SELECT COUNT(*), SUM(n) FROM wide").await;
    assert_eq!(json!(found), json!([[ROWS, ROWS * (ROWS - 1) / 2]]));
    wait_until_empty(&server);
}

#[tokio::test]
async fn a_task_beyond_its_disk_limit_fails_by_name() {
    let server = small(&["--task-disk-limit", "2MB"]);
    let sql = sql(&table(&server));
    let error = fault(&server, &sql).await;
    assert_eq!(error["errorCode"], "NotEnoughTemporaryStorageFault", "{error}");
    assert_eq!(error["configuredTemporaryStorage"], 2 << 20);
    assert!(
        error["suggestedMinimumStorage"].as_i64().unwrap() > 2 << 20,
        "{error}"
    );
    let message = error["errorMessage"].as_str().unwrap();
    assert!(message.contains("--task-disk-limit"), "{error}");
    wait_until_empty(&server);
}

/// A file system of 3 MB; unmounted when dropped.
struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    fn mount(path: &Path) -> Option<SmallDisk<'_>> {
        std::fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"])
            .arg(path)
            .output();
        mounted
            .is_ok_and(|mounted| mounted.status.success())
            .then_some(SmallDisk(path))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_named() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().canonicalize().unwrap();
    let spill = directory.join("data/spill/exchange");
    let Some(_disk) = SmallDisk::mount(&spill) else {
        eprintln!("skipped: a small tmpfs cannot be mounted here");
        return;
    };
    let server = Server::at(&directory, &["--memory-limit", "16MB", "--worker-slots", "1"]);
    let sql = sql(&table(&server));
    let error = fault(&server, &sql).await;
    assert_eq!(error["errorCode"], "NotEnoughTemporaryStorageFault", "{error}");
    let message = error["errorMessage"].as_str().unwrap();
    for part in ["is full", "data/spill/exchange", "--data-dir"] {
        assert!(message.contains(part), "{error}");
    }
    wait_until_empty(&server);
    // The server goes on.
    assert_eq!(server.rows("SELECT 1").await, [[json!(1)]]);
    drop(server);
}
