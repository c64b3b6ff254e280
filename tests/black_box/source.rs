//! An HTTP server for EXTERN that counts who reads what, and keeps readers waiting.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

use crate::harness::{PATIENCE, extern_json};

#[derive(Default)]
struct Shared {
    files: BTreeMap<String, Vec<u8>>,
    /// Downloads by file.
    reads: BTreeMap<String, usize>,
    /// Files that are not given out yet.
    closed: Vec<String>,
}

/// Serves files; ends with the process.
#[derive(Clone)]
pub struct Source {
    address: String,
    shared: Arc<(Mutex<Shared>, Condvar)>,
}

impl Source {
    pub fn start(files: &[(&str, String)]) -> Source {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Shared {
            files: files
                .iter()
                .map(|(name, text)| ((*name).to_owned(), text.clone().into_bytes()))
                .collect(),
            ..Shared::default()
        };
        let source = Source {
            address: listener.local_addr().unwrap().to_string(),
            shared: Arc::new((Mutex::new(shared), Condvar::new())),
        };
        let server = source.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let server = server.clone();
                std::thread::spawn(move || server.answer(stream));
            }
        });
        source
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let Some(Ok(request)) = lines.next() else { return };
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap_or_default());
        let name = path.trim_start_matches('/').to_owned();
        while lines
            .next()
            .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
        {}
        let (lock, changed) = &*self.shared;
        let mut shared = lock.lock().unwrap();
        let content = shared.files.get(&name).cloned().unwrap_or_default();
        if method == "GET" {
            *shared.reads.entry(name.clone()).or_default() += 1;
            changed.notify_all();
            while shared.closed.contains(&name) {
                shared = changed.wait(shared).unwrap();
            }
        }
        drop(shared);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            content.len()
        );
        // The reader may be dead by now.
        let _gone = stream.write_all(head.as_bytes());
        if method == "GET" {
            let _gone = stream.write_all(&content);
        }
    }

    /// Keeps readers of a file waiting.
    pub fn close(&self, name: &str) {
        self.shared.0.lock().unwrap().closed.push(name.to_owned());
    }

    pub fn open(&self, name: &str) {
        self.shared
            .0
            .lock()
            .unwrap()
            .closed
            .retain(|closed| closed != name);
        self.shared.1.notify_all();
    }

    /// Waits until somebody reads a file for the `count`th time.
    pub async fn wait_for(&self, name: &str, count: usize) {
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        let wait = tokio::task::spawn_blocking(move || {
            let (lock, changed) = &*shared;
            let reads = |shared: &Shared| shared.reads.get(&name).copied().unwrap_or(0);
            let (shared, _) = changed
                .wait_timeout_while(lock.lock().unwrap(), PATIENCE, |shared| reads(shared) < count)
                .unwrap();
            assert!(reads(&shared) >= count, "nobody reads {name}");
        });
        wait.await.unwrap();
    }

    pub fn reads(&self, name: &str) -> usize {
        self.shared
            .0
            .lock()
            .unwrap()
            .reads
            .get(name)
            .copied()
            .unwrap_or(0)
    }

    /// EXTERN of some of the files.
    pub fn extern_table(&self, names: &[&str], signature: &str) -> String {
        let uris: Vec<String> = names
            .iter()
            .map(|name| format!("http://{}/{name}", self.address))
            .collect();
        extern_json(&json!({"type": "http", "uris": uris}), signature)
    }
}

/// Lines `{"k": k, "n": n}` for n in a range; k = n modulo 100.
pub fn lines(range: std::ops::Range<i64>) -> String {
    range
        .map(|n| format!("{{\"k\":{},\"n\":{n}}}\n", n % 100))
        .collect()
}

pub const JOIN: &str = "SELECT COUNT(*), SUM(a.n), SUM(b.n) FROM {a} a JOIN {b} b ON a.n = b.n";

/// A join whose left side is read by two workers, and whose right side waits: its rows, and those of a join
/// without trouble.
pub struct Waiting {
    pub source: Source,
    pub sql: String,
    pub rows: Value,
}

pub fn waiting_join() -> Waiting {
    let source = Source::start(&[
        ("a0", lines(0..3000)),
        ("a1", lines(3000..6000)),
        ("b", lines(1000..5000)),
    ]);
    source.close("b");
    let signature = "k long, n long";
    let sql = JOIN
        .replace("{a}", &source.extern_table(&["a0", "a1"], signature))
        .replace("{b}", &source.extern_table(&["b"], signature));
    let sum: i64 = (1000..5000).sum();
    Waiting {
        source,
        sql,
        rows: json!([[4000, sum, sum]]),
    }
}
