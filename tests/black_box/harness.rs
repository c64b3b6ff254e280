//! Starts processes and talks to them.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longer than anything may take; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A `trilith` process; killed when dropped.
pub struct Process {
    child: Child,
    /// What it logs; a file, because nobody reads while it runs.
    log: File,
    pub ready: Value,
}

impl Process {
    pub fn start(args: &[&str], environment: &[(&str, &str)]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trilith"));
        command.args(args);
        Process::spawn(command, environment)
    }

    /// A command that runs the program in some surroundings.
    pub fn spawn(mut command: Command, environment: &[(&str, &str)]) -> Process {
        let log = tempfile::tempfile().unwrap();
        let mut child = command
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log.try_clone().unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready = serde_json::from_str(&line);
        let mut process = Process {
            child,
            log,
            ready: Value::Null,
        };
        match ready {
            Ok(ready) => process.ready = ready,
            Err(_) => panic!("no ready line: {line}{}", process.log()),
        }
        process
    }

    /// Sends a signal: "STOP", "CONT".
    pub fn signal(&self, name: &str) {
        let (signal, pid) = (format!("-{name}"), self.child.id().to_string());
        assert!(
            Command::new("kill")
                .args([signal, pid])
                .status()
                .unwrap()
                .success()
        );
    }

    pub fn log(&self) -> String {
        let mut text = String::new();
        (&self.log).rewind().unwrap();
        (&self.log).read_to_string(&mut text).unwrap();
        text
    }

    /// The most memory that was resident, in MB.
    pub fn peak_mb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM: the exit must be clean, and soon. Returns what was logged.
    pub fn stop(mut self) -> String {
        self.terminate()
    }

    /// The same, for a process that starts again.
    pub fn terminate(&mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "the process does not stop: {}",
                self.log()
            );
            std::thread::yield_now();
        };
        let log = self.log();
        assert!(status.success(), "{log}");
        log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A server with a directory of its own.
pub struct Server {
    pub process: Process,
    pub directory: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Server {
    pub fn start(args: &[&str]) -> Server {
        Server::start_with(args, &[])
    }

    /// With environment variables.
    pub fn start_with(args: &[&str], environment: &[(&str, &str)]) -> Server {
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path().canonicalize().unwrap();
        let mut server = Server::with(&directory, args, environment);
        server._temporary = Some(temporary);
        server
    }

    /// Kills the server and starts another one on the same directory and addresses.
    pub fn restart(&mut self, args: &[&str]) {
        self.process.kill();
        self.start_again(args);
    }

    /// Starts a server that has ended.
    pub fn start_again(&mut self, args: &[&str]) {
        let address = |name: &str| self.process.ready[name].as_str().unwrap().to_owned();
        let all = Server::arguments(&self.directory, &address("http"), &address("grpc"), args);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        self.process = Process::start(&all, &[]);
    }

    /// A server that can be restarted: nobody else gets its ports, because nobody else uses its address.
    pub fn restartable(args: &[&str]) -> Server {
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path().canonicalize().unwrap();
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // The second byte keeps clear of 127.0.*.
        let address = format!("127.{}.{}.{}:0", 64 + (high % 128), low, number);
        let all = Server::arguments(&directory, &address, &address, args);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        Server {
            process: Process::start(&all, &[]),
            directory,
            _temporary: Some(temporary),
        }
    }

    fn arguments(directory: &Path, http: &str, grpc: &str, args: &[&str]) -> Vec<String> {
        let data = directory.join("data").display().to_string();
        let input = directory.join("input");
        std::fs::create_dir_all(&input).unwrap();
        let input = input.display().to_string();
        let own = [
            "server",
            "--data-dir",
            &data,
            "--http-address",
            http,
            "--grpc-address",
            grpc,
            "--allow-local",
            &input,
        ];
        own.iter().chain(args).map(|arg| (*arg).to_owned()).collect()
    }

    pub fn at(directory: &Path, args: &[&str]) -> Server {
        Server::with(directory, args, &[])
    }

    fn with(directory: &Path, args: &[&str], environment: &[(&str, &str)]) -> Server {
        let all = Server::arguments(directory, "127.0.0.1:0", "127.0.0.1:0", args);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        Server {
            process: Process::start(&all, environment),
            directory: directory.to_owned(),
            _temporary: None,
        }
    }

    pub fn grpc(&self) -> String {
        self.process.ready["grpc"].as_str().unwrap().to_owned()
    }

    /// A channel to the gRPC port.
    pub fn channel(&self) -> tonic::transport::Channel {
        tonic::transport::Endpoint::from_shared(format!("http://{}", self.grpc()))
            .unwrap()
            .connect_lazy()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.process.ready["http"].as_str().unwrap())
    }

    /// Puts a file where EXTERN may read it.
    pub fn input(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.directory.join("input").join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, String) {
        let request = reqwest::Client::new()
            .post(self.url(path))
            .header("Content-Type", "application/json")
            .body(body.to_string());
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let response = reqwest::get(self.url(path)).await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Submits a task and returns its id.
    pub async fn submit(&self, sql: &str, context: Value) -> String {
        let (status, text) = self
            .post("/druid/v2/sql/task", json!({"query": sql, "context": context}))
            .await;
        assert_eq!(status, 202, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        answer["taskId"].as_str().unwrap().to_owned()
    }

    /// Polls a task until its status is not RUNNING.
    pub async fn wait(&self, task: &str) -> Value {
        let started = Instant::now();
        loop {
            let (status, body) = self.get(&format!("/druid/indexer/v1/task/{task}/status")).await;
            assert_eq!(status, 200, "{body}");
            if body["status"]["statusCode"] != "RUNNING" {
                return body["status"].clone();
            }
            if started.elapsed() >= PATIENCE {
                let report = self.report(task).await;
                panic!(
                    "task {task} does not end: {body}\n{report}\n{}",
                    self.process.log()
                );
            }
            tokio::task::yield_now().await;
        }
    }

    /// Runs a task that must succeed, and returns its report.
    pub async fn run(&self, sql: &str, context: Value) -> Value {
        let task = self.submit(sql, context).await;
        let status = self.wait(&task).await;
        let log = || self.process.log();
        assert_eq!(status["statusCode"], "SUCCESS", "{sql}\n{status}\n{}", log());
        self.report(&task).await
    }

    /// Payload of a task's report.
    pub async fn report(&self, task: &str) -> Value {
        let (status, body) = self.get(&format!("/druid/indexer/v1/task/{task}/reports")).await;
        assert_eq!(status, 200, "{body}");
        body["multiStageQuery"]["payload"].clone()
    }

    /// Rows of a statement, as lists.
    pub async fn rows(&self, sql: &str) -> Vec<Vec<Value>> {
        let (status, text) = self
            .post("/druid/v2/sql", json!({"query": sql, "resultFormat": "array"}))
            .await;
        assert_eq!(status, 200, "{sql}\n{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// One number.
    pub async fn count(&self, table: &str) -> i64 {
        self.rows(&format!("SELECT COUNT(*) FROM \"{table}\"")).await[0][0]
            .as_i64()
            .unwrap()
    }
}

/// A worker process of a server.
pub fn worker(server: &Server, name: &str) -> Process {
    worker_with(server, name, &[])
}

/// A worker process with environment variables.
pub fn worker_with(server: &Server, name: &str, environment: &[(&str, &str)]) -> Process {
    let data = server.directory.join(name).display().to_string();
    let grpc = server.grpc();
    let args = ["worker", "--server", &grpc, "--data-dir", &data, "--slots", "1"];
    Process::start(&args, environment)
}

/// The bundled edits.
pub fn edits() -> Vec<Value> {
    let bytes: &[u8] = include_bytes!("../data/wikipedia-edits.json.gz");
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(bytes)
        .read_to_string(&mut text)
        .unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The bundled edits as they are.
pub fn edits_file() -> &'static [u8] {
    include_bytes!("../data/wikipedia-edits.json.gz")
}

/// EXTERN of JSON files.
pub fn files(paths: &[PathBuf], signature: &str) -> String {
    let source = json!({"type": "local", "files": paths});
    extern_json(&source, signature)
}

/// EXTERN of JSON text.
pub fn inline(data: &str, signature: &str) -> String {
    extern_json(&json!({"type": "inline", "data": data}), signature)
}

/// EXTERN of any source of JSON.
pub fn extern_json(source: &Value, signature: &str) -> String {
    let columns: Vec<Value> = signature
        .split(',')
        .map(|column| {
            let (name, kind) = column.trim().split_once(' ').unwrap();
            json!({"name": name, "type": kind})
        })
        .collect();
    let quote = |value: &Value| value.to_string().replace('\'', "''");
    format!(
        "TABLE(EXTERN('{}', '{{\"type\":\"json\"}}', '{}'))",
        quote(source),
        quote(&json!(columns))
    )
}

/// An HTTP server that accepts a request and never answers it. Returns its URL; ends with the process.
pub fn stalled_source() -> (String, std::sync::mpsc::Receiver<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/stalled.json", listener.local_addr().unwrap());
    let (asked, heard) = std::sync::mpsc::sync_channel(16);
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let mut first = [0; 1];
            let _closed = stream.read(&mut first);
            kept.push(stream);
            let _nobody_waits = asked.send(());
        }
    });
    (url, heard)
}

/// An HTTP source of JSON that answers when it is told to. A request that waits is answered then as well.
pub struct HeldSource {
    pub url: String,
    asked: std::sync::Arc<(std::sync::Mutex<(usize, bool)>, std::sync::Condvar)>,
}

impl HeldSource {
    pub fn new(body: &str) -> HeldSource {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/held.json", listener.local_addr().unwrap());
        let asked = std::sync::Arc::new((std::sync::Mutex::new((0, false)), std::sync::Condvar::new()));
        let source = HeldSource {
            url,
            asked: std::sync::Arc::clone(&asked),
        };
        let body = body.to_owned();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (asked, body) = (std::sync::Arc::clone(&asked), body.clone());
                std::thread::spawn(move || answer_when_told(stream, &asked, &body));
            }
        });
        source
    }

    /// EXTERN of this source.
    pub fn table(&self, signature: &str) -> String {
        extern_json(&json!({"type": "http", "uris": [self.url]}), signature)
    }

    /// How often it was asked so far.
    pub fn requests(&self) -> usize {
        self.asked.0.lock().unwrap().0
    }

    /// Waits until somebody reads it.
    pub async fn is_read(&self) {
        let started = Instant::now();
        while self.requests() == 0 {
            assert!(started.elapsed() < PATIENCE, "nobody reads {}", self.url);
            tokio::task::yield_now().await;
        }
    }

    pub fn release(&self) {
        self.asked.0.lock().unwrap().1 = true;
        self.asked.1.notify_all();
    }
}

fn answer_when_told(
    mut stream: std::net::TcpStream,
    asked: &(std::sync::Mutex<(usize, bool)>, std::sync::Condvar),
    body: &str,
) {
    use std::io::Write;
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let mut state = asked.0.lock().unwrap();
    state.0 += 1;
    while !state.1 {
        state = asked.1.wait(state).unwrap();
    }
    drop(state);
    let length = body.len();
    // The reader may have gone.
    let _gone = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

/// An HTTP server that answers every request with the same text, once it is opened. Returns its URL, a receiver
/// that hears of each request, and what opens it; ends with the process.
pub fn gated_source(body: &str) -> (String, std::sync::mpsc::Receiver<()>, Gate) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/gated.json", listener.local_addr().unwrap());
    let (asked, heard) = std::sync::mpsc::sync_channel(64);
    let gate = Gate::default();
    let (opened, body) = (gate.clone(), body.to_owned());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let (asked, opened, body) = (asked.clone(), opened.clone(), body.clone());
            std::thread::spawn(move || {
                let _closed = stream.read(&mut [0; 4096]);
                let _nobody_waits = asked.send(());
                opened.wait();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                // The reader may have been killed.
                let _gone = std::io::Write::write_all(&mut stream, (head + &body).as_bytes());
            });
        }
    });
    (url, heard, gate)
}

/// Holds answers back.
#[derive(Clone, Default)]
pub struct Gate {
    shared: std::sync::Arc<(std::sync::Mutex<bool>, std::sync::Condvar)>,
}

impl Gate {
    /// Lets all answers out, now and later.
    pub fn open(&self) {
        *self.shared.0.lock().unwrap() = true;
        self.shared.1.notify_all();
    }

    fn wait(&self) {
        let opened = self
            .shared
            .1
            .wait_while(self.shared.0.lock().unwrap(), |open| !*open);
        drop(opened.unwrap());
    }
}
