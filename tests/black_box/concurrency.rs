//! Clients run random statements on two tables at the same time, readers watch, tasks are cancelled, workers
//! and the server are killed. What was seen must be explained by a plain model of the table.
//!
//! `TRILITH_HISTORIES=n` plays more histories, `TRILITH_HISTORY=seed` one. A history that has no explanation is
//! printed. The statements of a seed are always the same; how they interleave is up to the machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{PATIENCE, Process, Server, inline, worker};
use crate::table_model::{Content, DAYS, Effect, History, Operation, Row, Seen};

const HISTORIES: u64 = 3;
const CLIENTS: u64 = 3;
const STATEMENTS: u64 = 7;
const TABLES: [&str; 2] = ["t0", "t1"];
const DATES: [&str; DAYS] = ["2000-01-01", "2000-01-02", "2000-01-03"];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Numbers that depend on the seed only.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn days(&mut self) -> Vec<usize> {
        let chosen = 1 + self.below(7);
        (0..DAYS).filter(|day| chosen & (1 << day) != 0).collect()
    }
}

/// One statement of a client.
struct Statement {
    table: usize,
    number: i64,
    effect: Effect,
    context: Value,
    /// Cancelled so long after it was accepted.
    cancel: Option<Duration>,
}

impl Statement {
    fn random(dice: &mut Dice, number: i64) -> Statement {
        let concurrent = dice.one_in(2);
        let effect = match dice.below(8) {
            0..=2 => Effect::Insert { days: dice.days() },
            3 => Effect::Copy,
            4 => {
                let day = dice.below(DAYS as u64) as usize;
                let days = if dice.one_in(3) { Vec::new() } else { vec![day] };
                let over = vec![day];
                Effect::Replace {
                    over,
                    days,
                    concurrent,
                }
            }
            5 | 6 => {
                let days = if dice.one_in(4) { Vec::new() } else { dice.days() };
                let over = (0..DAYS).collect();
                Effect::Replace {
                    over,
                    days,
                    concurrent,
                }
            }
            _ => Effect::Rewrite { concurrent },
        };
        let mut context = json!({"sqlQueryId": format!("s{number}"), "priority": 40 + 10 * dice.below(3)});
        if concurrent {
            context["useConcurrentLocks"] = json!(true);
        }
        if dice.one_in(2) {
            context["faultTolerance"] = json!(true);
        }
        Statement {
            table: dice.below(TABLES.len() as u64) as usize,
            number,
            effect,
            context,
            cancel: dice.one_in(6).then(|| Duration::from_millis(dice.below(120))),
        }
    }

    fn sql(&self) -> String {
        let table = TABLES[self.table];
        let number = self.number;
        let target = match &self.effect {
            Effect::Insert { .. } | Effect::Copy => format!("INSERT INTO {table}"),
            Effect::Replace { over, .. } if over.len() == 1 => {
                let (from, to) = (
                    DATES[over[0]],
                    ["2000-01-02", "2000-01-03", "2000-01-04"][over[0]],
                );
                format!(
                    "REPLACE INTO {table} OVERWRITE WHERE __time >= TIMESTAMP '{from}' AND __time < TIMESTAMP '{to}'"
                )
            }
            Effect::Replace { .. } | Effect::Rewrite { .. } => format!("REPLACE INTO {table} OVERWRITE ALL"),
        };
        let rows = match &self.effect {
            Effect::Insert { days } | Effect::Replace { days, .. } => rows(number, days),
            Effect::Copy => format!(
                "SELECT TIME_FLOOR(__time, 'P1D') AS __time, {number} AS s, SUM(s) AS seen FROM {table} GROUP BY 1"
            ),
            Effect::Rewrite { .. } => format!("SELECT __time, s, seen FROM {table}"),
        };
        format!("{target} {rows} PARTITIONED BY DAY")
    }
}

/// One row for each day.
fn rows(number: i64, days: &[usize]) -> String {
    let mut data = format!("{{\"t\":\"{}\",\"s\":0}}\n", DATES[0]);
    for day in days {
        data.push_str(&format!("{{\"t\":\"{}\",\"s\":{number}}}\n", DATES[*day]));
    }
    let source = inline(&data, "t string, s long");
    format!("SELECT TIME_PARSE(t) AS __time, s, CAST(0 AS BIGINT) AS seen FROM {source} WHERE s > 0")
}

/// The cluster as the clients know it: it may be down, or elsewhere than before.
struct Cluster {
    address: Mutex<String>,
    client: reqwest::Client,
    started: Instant,
    stopping: AtomicBool,
}

impl Cluster {
    fn now(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// None when nobody answers.
    async fn call(&self, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let url = format!("http://{}{path}", self.address.lock());
        let request = match body {
            Some(body) => self
                .client
                .post(url)
                .header("Content-Type", "application/json")
                .body(body.to_string()),
            None => self.client.get(url),
        };
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let text = response.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Repeats a call until somebody answers.
    async fn answer(&self, path: &str) -> (u16, Value) {
        let started = Instant::now();
        loop {
            if let Some(answer) = self.call(path, None).await {
                return answer;
            }
            assert!(started.elapsed() < PATIENCE, "nobody answers {path}");
            tokio::task::yield_now().await;
        }
    }

    /// Runs a statement, whatever happens to it; none when it was never accepted.
    async fn run(&self, statement: &Statement) -> Option<Operation> {
        let submitted = self.now();
        let body = json!({"query": statement.sql(), "context": statement.context});
        let task = format!("query-s{}", statement.number);
        if let Some((status, answer)) = self.call("/druid/v2/sql/task", Some(&body)).await
            && status != 202
        {
            // A table of which nothing is left has no columns that could be read.
            let reads = matches!(statement.effect, Effect::Copy | Effect::Rewrite { .. });
            assert!(reads && status == 400, "{body}: {answer}");
            return None;
        }
        if let Some(delay) = statement.cancel {
            tokio::time::sleep(delay).await;
            self.call(
                &format!("/druid/indexer/v1/task/{task}/shutdown"),
                Some(&json!({})),
            )
            .await;
        }
        let started = Instant::now();
        let status = loop {
            let (status, answer) = self
                .answer(&format!("/druid/indexer/v1/task/{task}/status"))
                .await;
            if status == 404 {
                // The server was killed before it accepted the task.
                return None;
            }
            let task_status = &answer["status"];
            if task_status["statusCode"] != "RUNNING" {
                break task_status.clone();
            }
            assert!(started.elapsed() < PATIENCE, "{task} does not end: {answer}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        Some(Operation {
            number: statement.number,
            effect: statement.effect.clone(),
            submitted,
            ended: self.now(),
            fault: status["errorMsg"].as_str().map(str::to_owned),
        })
    }

    /// What is visible of a table; none when nobody answers.
    async fn read(&self, table: usize) -> Option<Seen> {
        let began = self.now();
        let sql = format!("SELECT __time, s, seen FROM {}", TABLES[table]);
        let body = json!({"query": sql, "resultFormat": "array"});
        let (status, answer) = self.call("/druid/v2/sql", Some(&body)).await?;
        let rows = match (status, answer.as_array()) {
            (200, Some(rows)) => rows.iter().map(row).collect(),
            // Only tombstones are left, and they have no columns.
            (400, _) => Vec::new(),
            _ => panic!("{status} {answer}"),
        };
        let ended = self.now();
        Some(Seen::new(began, ended, rows))
    }
}

fn row(row: &Value) -> Row {
    let time = row[0].as_str().unwrap();
    let day = DATES.iter().position(|date| time.starts_with(date)).unwrap();
    (day, row[1].as_i64().unwrap(), row[2].as_i64().unwrap())
}

async fn client(cluster: Arc<Cluster>, seed: u64, client: u64) -> Vec<(usize, Operation)> {
    let mut dice = Dice(seed * 1_000 + client);
    let mut done = Vec::new();
    for index in 0..STATEMENTS {
        let number = 1 + client * STATEMENTS + index;
        let statement = Statement::random(&mut dice, number as i64);
        if let Some(operation) = cluster.run(&statement).await {
            done.push((statement.table, operation));
        }
    }
    done
}

/// Reads a table again and again until the clients have ended.
async fn reader(cluster: Arc<Cluster>, table: usize) -> (usize, Vec<Seen>) {
    let mut seen: Vec<Seen> = Vec::new();
    while !cluster.stopping.load(Ordering::Relaxed) {
        match cluster.read(table).await {
            // Of the same rows, the first and the last time matter.
            Some(next) => match seen.as_slice() {
                [.., before, last] if before.rows == last.rows && last.rows == next.rows => {
                    if let Some(last) = seen.last_mut() {
                        *last = next;
                    }
                }
                _ => seen.push(next),
            },
            None => tokio::task::yield_now().await,
        }
    }
    (table, seen)
}

/// Kills a worker and the server while the clients are at work.
async fn disturb(cluster: &Cluster, mut server: Server, seed: u64, clients_end: &AtomicBool) -> Server {
    let mut dice = Dice(seed);
    let args = ["--worker-slots", "2"];
    let mut workers: Vec<Process> = vec![worker(&server, "w0")];
    for kill in 0..2 {
        tokio::time::sleep(Duration::from_millis(200 + dice.below(800))).await;
        if clients_end.load(Ordering::Relaxed) {
            break;
        }
        if (kill + seed).is_multiple_of(2) {
            workers.clear();
        } else {
            server.process.kill();
            server = Server::at(&server.directory, &args);
            *cluster.address.lock() = server.process.ready["http"].as_str().unwrap().to_owned();
        }
        workers.push(worker(&server, &format!("w{}", kill + 1)));
    }
    while !clients_end.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server
}

/// Plays one history; returns how the statements ended, by fault code.
async fn play(seed: u64) -> BTreeMap<String, u64> {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().canonicalize().unwrap();
    let server = Server::at(&directory, &["--worker-slots", "2"]);
    for table in TABLES {
        let sql = format!(
            "REPLACE INTO {table} OVERWRITE ALL {} PARTITIONED BY DAY",
            rows(1_000, &[0, 1, 2])
        );
        server.run(&sql, json!({})).await;
    }
    let cluster = Arc::new(Cluster {
        address: Mutex::new(server.process.ready["http"].as_str().unwrap().to_owned()),
        client: reqwest::Client::new(),
        started: Instant::now(),
        stopping: AtomicBool::new(false),
    });
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client(Arc::clone(&cluster), seed, number));
    }
    let mut readers = JoinSet::new();
    for table in 0..TABLES.len() {
        readers.spawn(reader(Arc::clone(&cluster), table));
        readers.spawn(reader(Arc::clone(&cluster), table));
    }
    let ended = AtomicBool::new(false);
    let all = async {
        let done: Vec<(usize, Operation)> = clients.join_all().await.into_iter().flatten().collect();
        ended.store(true, Ordering::Relaxed);
        done
    };
    let (_server, done) = tokio::join!(disturb(&cluster, server, seed, &ended), all);
    cluster.stopping.store(true, Ordering::Relaxed);
    let mut seen = readers.join_all().await;
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for (_, operation) in &done {
        let code = operation
            .fault
            .as_ref()
            .map_or("SUCCESS", |fault| fault.split(':').next().unwrap());
        *ends.entry(code.to_owned()).or_default() += 1;
    }
    for (table, _) in TABLES.iter().enumerate() {
        seen.push((table, vec![cluster.read(table).await.unwrap()]));
        let start: Content = (0..DAYS).map(|day| (day, 1_000, 0)).collect();
        let of_table = done.iter().filter(|(of, _)| *of == table);
        let history = History {
            start,
            operations: of_table.map(|(_, operation)| operation.clone()).collect(),
            readers: seen
                .iter()
                .filter(|(of, _)| *of == table)
                .map(|(_, seen)| seen.clone())
                .collect(),
        };
        assert!(
            history.is_explained(),
            "nothing explains what was seen of {}; TRILITH_HISTORY={seed} plays these statements again\n{history}",
            TABLES[table]
        );
    }
    ends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_seen_is_explained_by_a_plain_model() {
    let seeds = match number("TRILITH_HISTORY") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TRILITH_HISTORIES").unwrap_or(HISTORIES),
    };
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for seed in seeds {
        let started = Instant::now();
        let ends = play(seed).await;
        eprintln!(
            "history {seed}: {ends:?} in {:.1} s",
            started.elapsed().as_secs_f64()
        );
        for (code, count) in ends {
            *all.entry(code).or_default() += count;
        }
    }
    eprintln!("all histories are explained: {all:?}");
    let statements: u64 = all.values().sum();
    assert!(
        all["SUCCESS"] > statements / 3,
        "too little was published to see anything: {all:?}"
    );
}
