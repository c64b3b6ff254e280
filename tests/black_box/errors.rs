use serde_json::{Value, json};

use crate::harness::{Server, extern_json};

#[tokio::test]
async fn bad_requests_are_answered_at_once_and_say_where() {
    let server = Server::start(&["--worker-slots", "1"]);
    let (status, text) = server
        .post(
            "/druid/v2/sql/task",
            json!({"query": "SELECT nope\nFROM missing"}),
        )
        .await;
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 400);
    assert_eq!(body["state"], "FAILED");
    assert_eq!(
        body["error"]["errorMessage"],
        "Object 'missing' not found (line [2], column [6])"
    );
    let (status, text) = server
        .post("/druid/v2/sql", json!({"query": "SELECT * FROM"}))
        .await;
    assert_eq!(status, 400);
    assert!(text.contains("line [1], column"), "{text}");
    let (status, _) = server.post("/druid/v2/sql", json!({})).await;
    assert_eq!(status, 400);
    for path in ["status", "reports"] {
        let (status, body) = server
            .get(&format!("/druid/indexer/v1/task/query-unknown/{path}"))
            .await;
        assert_eq!(
            (status, body),
            (404, json!("Cannot find any task with id: [query-unknown]")),
            "{path}"
        );
    }
    let (status, _) = server
        .post("/druid/indexer/v1/task/query-unknown/shutdown", json!({}))
        .await;
    assert_eq!(status, 404);
    let id = json!({"sqlQueryId": "mine"});
    let task = server.submit("SELECT 1", id.clone()).await;
    assert_eq!(task, "query-mine");
    let (status, text) = server
        .post("/druid/v2/sql/task", json!({"query": "SELECT 1", "context": id}))
        .await;
    assert_eq!(status, 400);
    let error: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(error["error"]["errorCode"], "entryAlreadyExists", "{text}");
    assert_eq!(error["error"]["category"], "INVALID_INPUT", "{text}");
    assert!(text.contains("exists already"), "{text}");
}

#[tokio::test]
async fn refused_sources_name_the_flag_that_allows_them() {
    let server = Server::start(&["--worker-slots", "1"]);
    let cases = [
        (
            json!({"type": "local", "files": ["/etc/hostname"]}),
            "--allow-local",
        ),
        (
            json!({"type": "http", "uris": ["http://127.0.0.1:1/x.json"]}),
            "--allow-http 127.0.0.1",
        ),
        (
            json!({"type": "http", "uris": ["http://localhost:1/x.json"]}),
            "--allow-http localhost",
        ),
    ];
    for (source, flag) in cases {
        let task = server
            .submit(
                &format!("SELECT * FROM {}", extern_json(&source, "x string")),
                json!({}),
            )
            .await;
        let status = server.wait(&task).await;
        assert!(status["errorMsg"].as_str().unwrap().contains(flag), "{status}");
    }
}
