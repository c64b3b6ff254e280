//! Exchanges that were recorded on a Druid 27, played again in their order: status, headers, keys and their order,
//! types, words and determined values must be the same. `tests/data/golden/differences.json` lists what is not
//! determined, and what differs on purpose, with the reason.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::harness::{PATIENCE, Server, edits_file};

#[derive(Deserialize)]
struct Exchange {
    request: Request,
    status: u16,
    headers: BTreeMap<String, String>,
    body: Value,
}

#[derive(Deserialize)]
struct Request {
    method: String,
    path: String,
    body: Value,
}

/// What may differ.
#[derive(Deserialize)]
struct Differences {
    /// Exchanges that are not played, with the reason.
    skipped: BTreeMap<String, String>,
    /// Paths of values that differ from run to run.
    undetermined: Vec<String>,
    meant: Vec<Meant>,
}

/// A difference on purpose.
#[derive(Deserialize)]
struct Meant {
    /// Beginnings of file names; all when there are none.
    #[serde(default)]
    files: Vec<String>,
    /// "value", "type", "missing", "extra", "order", "length", "status" or "header".
    kind: String,
    path: String,
    reason: String,
    /// Not in every run.
    #[serde(default)]
    sometimes: bool,
}

/// Something that is not as it was recorded.
#[derive(Debug)]
struct Mismatch {
    kind: &'static str,
    path: String,
    detail: String,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/golden")
}

/// `*` is one part of a path, `**` any number of them.
fn fits(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.first(), path.first()) {
        (None, None) => true,
        (Some(&"**"), _) => fits(&pattern[1..], path) || (!path.is_empty() && fits(pattern, &path[1..])),
        (Some(part), Some(name)) => (*part == "*" || part == name) && fits(&pattern[1..], &path[1..]),
        _ => false,
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let path: Vec<&str> = path.split('.').collect();
    fits(&pattern, &path)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "double",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn compare(path: &str, expected: &Value, actual: &Value, found: &mut Vec<Mismatch>) {
    let mut add = |kind, path: &str, detail: String| {
        found.push(Mismatch {
            kind,
            path: path.to_owned(),
            detail,
        });
    };
    if kind(expected) != kind(actual) {
        add("type", path, format!("recorded {expected}, got {actual}"));
        return;
    }
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            for key in expected.keys().filter(|key| !actual.contains_key(*key)) {
                add("missing", &format!("{path}.{key}"), expected[key].to_string());
            }
            for key in actual.keys().filter(|key| !expected.contains_key(*key)) {
                add("extra", &format!("{path}.{key}"), actual[key].to_string());
            }
            let shared = |keys: Vec<&String>, other: &serde_json::Map<String, Value>| -> Vec<String> {
                keys.into_iter()
                    .filter(|key| other.contains_key(*key))
                    .cloned()
                    .collect()
            };
            let order = shared(expected.keys().collect(), actual);
            let got = shared(actual.keys().collect(), expected);
            if order != got {
                add("order", path, format!("recorded {order:?}, got {got:?}"));
            }
            for key in order {
                compare(&format!("{path}.{key}"), &expected[&key], &actual[&key], found);
            }
        }
        (Value::Array(expected), Value::Array(actual)) => {
            if expected.len() != actual.len() {
                add(
                    "length",
                    path,
                    format!("recorded {} items, got {}", expected.len(), actual.len()),
                );
            }
            for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                compare(&format!("{path}.{index}"), expected, actual, found);
            }
        }
        (expected, actual) if expected != actual => {
            add("value", path, format!("recorded {expected}, got {actual}"));
        }
        _ => {}
    }
}

/// Replaces texts everywhere in an exchange: ids of the recording become those of this run.
fn with(texts: &BTreeMap<String, String>, json: &str) -> Exchange {
    let mut json = json.to_owned();
    for (from, to) in texts {
        json = json.replace(from.as_str(), to);
    }
    serde_json::from_str(&json).unwrap()
}

/// The id that an answer gives to a task.
fn id(body: &Value) -> Option<&str> {
    let id = body.get("taskId").or_else(|| body.get("queryId"))?;
    id.as_str().filter(|id| id.starts_with("query-"))
}

/// A submission whose answer was recorded while the statement ran.
fn accepts(exchange: &Exchange) -> bool {
    exchange.request.method == "POST" && exchange.body["state"] == "ACCEPTED"
}

fn has_ended(answer: &str) -> bool {
    let answer: Value = serde_json::from_str(answer).unwrap_or_default();
    answer["state"] == "SUCCESS" || answer["state"] == "FAILED"
}

/// The task that a request asks for when the answer was recorded after its end.
fn ended_task(exchange: &Exchange) -> Option<String> {
    let running = [&exchange.body["status"]["status"], &exchange.body["state"]];
    if exchange.request.method != "GET" || exchange.status == 404 {
        return None;
    }
    if running
        .iter()
        .any(|state| ["RUNNING", "ACCEPTED"].iter().any(|word| *state == word))
    {
        return None;
    }
    let mut parts = exchange.request.path.split(['/', '?']);
    parts.find(|part| part.starts_with("query-")).map(str::to_owned)
}

async fn play(server: &Server, exchange: &Exchange) -> (u16, reqwest::header::HeaderMap, String) {
    let method = exchange.request.method.parse().unwrap();
    let mut request = reqwest::Client::new()
        .request(method, server.url(&exchange.request.path))
        .header("Content-Type", "application/json");
    if !exchange.request.body.is_null() {
        request = request.body(exchange.request.body.to_string());
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.text().await.unwrap())
}

fn compare_headers(exchange: &Exchange, headers: &reqwest::header::HeaderMap, found: &mut Vec<Mismatch>) {
    for (name, expected) in &exchange.headers {
        let text = headers.get(name).and_then(|value| value.to_str().ok());
        let value = text.map(|text| text.split(';').next().unwrap().trim());
        // Ids are new each time.
        let same = match value {
            None => false,
            Some(value) => name.ends_with("Query-Id") || value == expected,
        };
        if !same {
            found.push(Mismatch {
                kind: "header",
                path: name.clone(),
                detail: format!("recorded {expected}, got {value:?}"),
            });
        }
    }
}

#[tokio::test]
async fn recorded_answers_come_again() {
    let durable = tempfile::tempdir().unwrap();
    let url = format!("file://{}", durable.path().display());
    let server = Server::start(&["--worker-slots", "2", "--durable-storage", &url]);
    server.input("wikiticker-2015-09-12-sampled.json.gz", edits_file());
    let data = server.directory.join("input").display().to_string();
    let differences: Differences =
        serde_json::from_slice(&std::fs::read(directory().join("differences.json")).unwrap()).unwrap();
    assert!(differences.meant.iter().all(|meant| meant.reason.len() > 10));
    let mut used = vec![false; differences.meant.len()];
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.ends_with("differences.json"))
        .collect();
    files.sort();
    let mut texts = BTreeMap::from([("{{DATA}}".to_owned(), data)]);
    let (mut played, mut wrong) = (0, Vec::new());
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        if differences.skipped.contains_key(&name) {
            continue;
        }
        let json = std::fs::read_to_string(&file).unwrap();
        let recorded: Exchange = serde_json::from_str(&json).unwrap();
        let exchange = with(&texts, &json);
        if let Some(task) = ended_task(&exchange) {
            server.wait(&task).await;
        }
        let (mut status, mut headers, mut text) = play(&server, &exchange).await;
        let since = std::time::Instant::now();
        // Recorded in time; here the statement had ended before its submission was answered.
        while accepts(&exchange) && has_ended(&text) {
            assert!(
                since.elapsed() < PATIENCE,
                "{name}: always ended before its answer"
            );
            (status, headers, text) = play(&server, &exchange).await;
        }
        played += 1;
        let actual = match &exchange.body {
            Value::String(_) => Value::String(text),
            _ => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        };
        let exchange = match (id(&recorded.body), id(&actual)) {
            (Some(old), Some(new)) if recorded.request.method == "POST" => {
                for (old, new) in [(old, new), (&old[6..], &new[6..])] {
                    texts.insert(old.to_owned(), new.to_owned());
                }
                with(&texts, &json)
            }
            _ => exchange,
        };
        let mut found = Vec::new();
        if status != exchange.status {
            found.push(Mismatch {
                kind: "status",
                path: "status".to_owned(),
                detail: format!("recorded {}, got {status}: {actual}", exchange.status),
            });
        }
        compare_headers(&exchange, &headers, &mut found);
        compare("body", &exchange.body, &actual, &mut found);
        for mismatch in found {
            let free = matches!(mismatch.kind, "value" | "length")
                && differences
                    .undetermined
                    .iter()
                    .any(|path| matches(path, &mismatch.path));
            let meant = differences.meant.iter().position(|meant| {
                meant.kind == mismatch.kind
                    && matches(&meant.path, &mismatch.path)
                    && (meant.files.is_empty() || meant.files.iter().any(|start| name.starts_with(start)))
            });
            match meant {
                Some(index) => used[index] = true,
                None if free => {}
                None => wrong.push(format!(
                    "{name}: {} {}: {}",
                    mismatch.kind, mismatch.path, mismatch.detail
                )),
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(played >= 70, "only {played} exchanges were played");
    let stale = differences
        .meant
        .iter()
        .zip(&used)
        .filter(|(meant, used)| !meant.sometimes && !**used);
    let stale: Vec<String> = stale
        .map(|(meant, _)| format!("{:?} {} {}", meant.files, meant.kind, meant.path))
        .collect();
    assert!(stale.is_empty(), "listed, but not different: {stale:?}");
}
