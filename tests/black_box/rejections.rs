//! Statements that are refused: at once, without a task, with Druid's category, status and words, and with the place
//! in the statement where there is one. `tests/data/rejections.json` is the table.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::harness::Server;

#[derive(Deserialize)]
struct Rejection {
    sql: String,
    /// "task", "sql" or "statements".
    #[serde(default = "task")]
    endpoint: String,
    #[serde(default)]
    context: Map<String, Value>,
    #[serde(default)]
    parameters: Vec<Value>,
    #[serde(default = "bad_request")]
    status: u16,
    #[serde(default = "invalid_input")]
    category: String,
    /// A part of the message.
    message: String,
    /// Line and column.
    at: Option<(u64, u64)>,
}

fn task() -> String {
    "task".to_owned()
}

fn bad_request() -> u16 {
    400
}

fn invalid_input() -> String {
    "INVALID_INPUT".to_owned()
}

/// Words of the libraries and of Rust, which tell nothing to whoever wrote the statement.
const FOREIGN: &[&str] = &[
    "DataFusion",
    "datafusion",
    "Arrow",
    "arrow",
    "sqlparser",
    "serde",
    "Utf8",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "UInt",
    "Float32",
    "Float64",
    "Timestamp(",
    "Boolean",
    "List(",
    "Some(",
    "None",
    "Ok(",
    "Err(",
    "::",
    "Literal(",
    "Ident",
    "Expr(",
    "LogicalPlan",
    "SchemaError",
    "NotImplemented",
    "Error during planning",
    "not yet implemented",
    "panicked",
    "unwrap",
    "Signature {",
    "Coercion",
    "TypeSignature",
    "DFSchema",
    "Schema {",
];

#[tokio::test]
async fn every_rejection_is_synchronous_and_says_what_and_where() {
    let server = Server::start(&["--worker-slots", "1"]);
    let wiki = "SELECT TIME_PARSE('2024-01-01') AS __time, 'a' AS channel, 'b' AS page, 1 AS added";
    server
        .run(
            &format!("REPLACE INTO wiki OVERWRITE ALL {wiki} PARTITIONED BY ALL"),
            json!({}),
        )
        .await;
    let table: Vec<Rejection> = serde_json::from_slice(include_bytes!("../data/rejections.json")).unwrap();
    assert!(table.len() > 150);
    let mut wrong = Vec::new();
    for case in &table {
        let path = match case.endpoint.as_str() {
            "task" => "/druid/v2/sql/task",
            "sql" => "/druid/v2/sql",
            _ => "/druid/v2/sql/statements",
        };
        let mut context = case.context.clone();
        if case.endpoint == "statements" {
            context.insert("executionMode".to_owned(), json!("ASYNC"));
        }
        let body = json!({"query": case.sql, "context": context, "parameters": case.parameters});
        let (status, text) = server.post(path, body).await;
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        let error = if case.endpoint == "task" {
            &body["error"]
        } else {
            &body
        };
        let message = error["errorMessage"].as_str().unwrap_or_default();
        let mut faults = Vec::new();
        if status != case.status {
            faults.push(format!("status {status}"));
        }
        if error["error"] != "druidException" || error["category"] != json!(case.category) {
            faults.push(format!("category {}", error["category"]));
        }
        if message.is_empty() || !message.contains(&case.message) {
            faults.push(format!("no [{}] in the message", case.message));
        }
        // Druid's name of a parameter.
        let ours = message.replace("<aggregateMultipleValuesBoolean>", "");
        if let Some(word) = FOREIGN.iter().find(|word| ours.contains(**word)) {
            faults.push(format!("the word [{word}]"));
        }
        let place = &error["context"];
        if let Some((line, column)) = case.at {
            let said = (place["line"].as_str(), place["column"].as_str());
            let (line, column) = (line.to_string(), column.to_string());
            if said != (Some(&line), Some(&column)) {
                faults.push(format!("place {said:?}, not {line}, {column}"));
            }
            if !message.contains(&format!("(line [{line}], column [{column}])")) {
                faults.push("no place in the message".to_owned());
            }
        }
        if !faults.is_empty() {
            wrong.push(format!(
                "{} {:?}: {}\n    {text}",
                case.sql,
                case.context,
                faults.join(", ")
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        table.len(),
        wrong.join("\n")
    );
    let (_, tasks) = server.get("/druid/indexer/v1/tasks").await;
    assert_eq!(
        tasks.as_array().unwrap().len(),
        1,
        "a refused statement left a task: {tasks}"
    );
}
