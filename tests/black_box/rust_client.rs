//! The Rust client: its README, TLS, tokens, answers that are lost; the limits of a server that its clients meet.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use http::header::AUTHORIZATION;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{Service, ServiceExt};
use trilith_client::{Client, ClientError, ConnectOptions, Statement, parameter};
use trilith_proto::error::Category;
use trilith_proto::pb::query::RunQueryRequest;
use trilith_proto::pb::query::query_service_client::QueryServiceClient;
use trilith_proto::pb::task::ListTasksRequest;

use crate::harness::{HeldSource, PATIENCE, Server, edits, edits_file};

const TOKEN: &str = "open-sesame";
const NAME: &str = "trilith.internal";

/// TLS before a server. It lets in who has the token, and can lose an answer.
struct Gateway {
    port: u16,
    ca: PathBuf,
    /// The next submission reaches the server, but its answer does not come back.
    loses_submission: Arc<AtomicBool>,
    _serving: tokio::task::JoinSet<()>,
}

impl Gateway {
    async fn start(server: &Server) -> Gateway {
        let names = vec![NAME.to_owned(), "localhost".to_owned()];
        let own = rcgen::generate_simple_self_signed(names).unwrap();
        let ca = server.directory.join("ca.pem");
        std::fs::write(&ca, own.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let mut tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = server.channel();
        let loses_submission = Arc::new(AtomicBool::new(false));
        let loses = Arc::clone(&loses_submission);
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, server, loses) = (acceptor.clone(), server.clone(), Arc::clone(&loses));
                connections.spawn(async move {
                    // A client that does not trust the certificate goes away.
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service =
                        service_fn(move |request| forward(request, server.clone(), Arc::clone(&loses)));
                    let _closed = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Gateway {
            port,
            ca,
            loses_submission,
            _serving: serving,
        }
    }

    fn options(&self) -> ConnectOptions {
        ConnectOptions::new(format!("https://127.0.0.1:{}", self.port))
            .ca_file(&self.ca)
            .server_name(NAME)
            .deadline(Duration::from_secs(10))
    }
}

async fn forward(
    request: http::Request<Incoming>,
    mut server: Channel,
    loses: Arc<AtomicBool>,
) -> Result<http::Response<Body>, Infallible> {
    let wanted = format!("Bearer {TOKEN}");
    if request
        .headers()
        .get(AUTHORIZATION)
        .is_none_or(|given| given != &wanted)
    {
        return Ok(tonic::Status::unauthenticated("the token is missing or wrong").into_http());
    }
    let submission = request.uri().path().ends_with("/SubmitTask");
    let answer = server
        .ready()
        .await
        .unwrap()
        .call(request.map(Body::new))
        .await
        .unwrap();
    Ok(match submission && loses.swap(false, Ordering::SeqCst) {
        true => tonic::Status::unavailable("the connection broke").into_http(),
        false => answer,
    })
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// How many edits of each channel added more than so much, most first.
fn top(added: i64) -> Vec<(String, i64)> {
    let mut counts = std::collections::BTreeMap::<String, i64>::new();
    for edit in edits()
        .iter()
        .filter(|edit| edit["added"].as_i64().unwrap() > added)
    {
        *counts
            .entry(edit["channel"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| -count);
    counts
}

#[test]
fn the_example_of_the_readme_runs() {
    let code = std::fs::read_to_string(repository("client/rust/examples/edits.rs")).unwrap();
    let (_, code) = code.split_once("\n\n").unwrap();
    let readme = std::fs::read_to_string(repository("client/rust/README.md")).unwrap();
    assert!(
        readme.contains(&format!("```rust\n{code}```")),
        "README.md shows examples/edits.rs"
    );

    let server = Server::start(&[]);
    server.input("wikipedia-edits.json.gz", edits_file());
    // `cargo test --workspace` builds it.
    let program = Path::new(env!("CARGO_BIN_EXE_trilith")).with_file_name("examples/edits");
    let output = Command::new(program)
        .env("TRILITH_ADDRESS", server.grpc())
        .env("TRILITH_DATA", server.directory.join("input"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains(" Success\n"), "{text}");
    for (channel, count) in &top(100)[..3] {
        let row = text.lines().find(|line| line.contains(channel.as_str())).unwrap();
        assert!(row.contains(&format!("| {count} ")), "{row} {count}");
    }
}

#[tokio::test]
async fn tls_and_token_reach_every_call() {
    let server = Server::start(&[]);
    let gateway = Gateway::start(&server).await;
    let client = gateway.options().token(TOKEN).connect().unwrap();
    let insert = "REPLACE INTO t OVERWRITE ALL SELECT TIMESTAMP '2024-01-01' AS __time, x FROM (VALUES (1), (2)) AS v (x) PARTITIONED BY ALL";
    let mut updates = 0;
    client
        .run(Statement::new(insert), |_| updates += 1)
        .await
        .unwrap();
    assert!(updates > 0);
    let statement = Statement::new("SELECT SUM(x) + ? AS s FROM t").with_parameters([parameter("BIGINT", 4)]);
    let rows: Vec<_> = client
        .select(statement)
        .await
        .unwrap()
        .rows
        .try_collect()
        .await
        .unwrap();
    let sum = arrow::util::pretty::pretty_format_batches(&rows)
        .unwrap()
        .to_string();
    assert!(sum.contains("| 7 |"), "{sum}");

    for options in [gateway.options(), gateway.options().token("guessed")] {
        let error = options.connect().unwrap().task("query-x").await.unwrap_err();
        let ClientError::Api(error) = error else {
            panic!("{error}")
        };
        assert_eq!(error.category, Category::Unauthorized, "{error}");
    }
    // The system does not know the certificate; and it is not for this address.
    let unknown = ConnectOptions::new(format!("https://localhost:{}", gateway.port));
    let other_name = gateway.options().server_name("example.com");
    for options in [unknown, other_name] {
        let client = options
            .token(TOKEN)
            .deadline(Duration::from_millis(300))
            .connect()
            .unwrap();
        let error = client.task("query-x").await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
        assert!(
            error.to_string().to_lowercase().contains("certificate"),
            "{error}"
        );
    }
    let missing = gateway
        .options()
        .ca_file("/nowhere/ca.pem")
        .connect()
        .unwrap_err();
    assert!(missing.to_string().contains("/nowhere/ca.pem"), "{missing}");

    let address = format!("https://localhost:{}", gateway.port);
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_trilith"))
        .args(["sql", "--server", &address, "--token", TOKEN, "--ca-file"])
        .arg(&gateway.ca)
        .args(["-e", "SELECT COUNT(*) AS n FROM t"])
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains('2'),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Standard output of `trilith sql`.
async fn printed(server: &Server, args: &[&str]) -> String {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_trilith"))
        .args(["sql", "--server", &server.grpc()])
        .args(args)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[tokio::test]
async fn the_command_prints_json_and_explains_what_writes() {
    let server = Server::start(&[]);
    let sql = "SELECT ARRAY['x,y', NULL] AS a, TRUE AS b, 1.5 AS c, CAST(NULL AS VARCHAR) AS d, TIMESTAMP '2024-01-02 03:04:05' AS t";
    let text = printed(&server, &["--format", "json", "-e", sql]).await;
    let row: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = json!({"a": ["x,y", null], "b": true, "c": 1.5, "d": null, "t": "2024-01-02T03:04:05Z"});
    assert_eq!(row, expected);

    let given = [
        "-p",
        "VARCHAR=05",
        "-p",
        "bigint=5",
        "-p",
        "DOUBLE=null",
        "--format",
        "json",
        "-e",
        "SELECT ? AS a, ? + 1 AS b, ? AS c",
    ];
    let row: serde_json::Value = serde_json::from_str(&printed(&server, &given).await).unwrap();
    assert_eq!(row, json!({"a": "05", "b": 6, "c": null}));

    let explain = "-- of a task\nEXPLAIN PLAN FOR INSERT INTO t SELECT TIMESTAMP '2024-01-01' AS __time, 1 AS x PARTITIONED BY DAY";
    let text = printed(&server, &["-e", explain]).await;
    assert!(text.contains("\"type\":\"segmentGenerator\""), "{text}");
    assert_eq!(server.rows("SELECT COUNT(*) FROM sys.tasks").await, [[json!(0)]]);
}

#[tokio::test]
async fn a_submission_whose_answer_is_lost_runs_once() {
    let server = Server::start(&[]);
    let gateway = Gateway::start(&server).await;
    let client = gateway.options().token(TOKEN).connect().unwrap();
    let insert = "INSERT INTO once SELECT TIMESTAMP '2024-01-01' AS __time, 1 AS x PARTITIONED BY ALL";
    gateway.loses_submission.store(true, Ordering::SeqCst);
    let task = client.run(Statement::new(insert), |_| {}).await.unwrap();
    assert!(!gateway.loses_submission.load(Ordering::SeqCst));
    let tasks = client.list(ListTasksRequest::default()).await.unwrap().tasks;
    assert_eq!(
        tasks.iter().map(|task| &task.task_id).collect::<Vec<_>>(),
        [&task.task_id]
    );
    assert_eq!(server.count("once").await, 1);

    // An id that was taken before the first try is an error.
    let taken = task.task_id.strip_prefix("query-").unwrap();
    let error = client
        .submit_task(Statement::new(insert).with_id(taken))
        .await
        .unwrap_err();
    let ClientError::Api(error) = error else {
        panic!("{error}")
    };
    assert_eq!(error.error_code, "entryAlreadyExists");
}

#[tokio::test]
async fn a_server_that_has_enough_to_do_says_when_to_come_back() {
    let server = Server::start(&[
        "--max-tasks",
        "1",
        "--max-queries",
        "1",
        "--allow-http",
        "127.0.0.1",
    ]);
    let source = HeldSource::new(r#"{"x":1}"#);
    let held = format!("SELECT x FROM {}", source.table("x long"));
    let client = Client::connect(&server.grpc()).unwrap();
    let first = client.submit_task(Statement::new(&held)).await.unwrap();
    source.is_read().await;
    let error = client
        .submit_task(Statement::new("SELECT 1 AS x"))
        .await
        .unwrap_err();
    let ClientError::Api(refused) = &error else {
        panic!("{error}")
    };
    assert_eq!(refused.category, Category::CapacityExceeded, "{error}");
    assert!(
        error.to_string().contains("already contains [1] tasks"),
        "{error}"
    );
    let (status, body) = server
        .post("/druid/v2/sql/task", json!({"query": "SELECT 1 AS x"}))
        .await;
    assert_eq!(status, 429, "{body}");
    source.release();
    client.wait(&first, |_| {}).await.unwrap();
    // A task that has ended leaves its place a moment later.
    let since = Instant::now();
    while let Err(error) = client.run(Statement::new("SELECT 1 AS x"), |_| {}).await {
        let ClientError::Api(refused) = &error else {
            panic!("{error}")
        };
        assert_eq!(refused.category, Category::CapacityExceeded, "{error}");
        assert!(since.elapsed() < PATIENCE, "{error}");
    }

    // Planned, and its rows not read yet.
    let mut queries = QueryServiceClient::new(server.channel());
    let request = RunQueryRequest {
        sql: "SELECT 1 AS x".to_owned(),
        ..Default::default()
    };
    let planned = queries.run_query(request.clone()).await.unwrap().into_inner();
    let refused = queries.run_query(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    let hint = tonic_types::StatusExt::get_details_retry_info(&refused).unwrap();
    assert!(hint.retry_delay.unwrap() > Duration::ZERO);
    let (status, body) = server
        .post("/druid/v2/sql", json!({"query": "SELECT 1 AS x"}))
        .await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &body["error"]),
        (429, &json!("Query capacity exceeded")),
        "{body}"
    );
    assert_eq!(
        body["errorClass"],
        "org.apache.druid.query.QueryCapacityExceededException"
    );
    let rows: Vec<_> = client
        .rows(planned.ticket)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 1);
    queries.run_query(request).await.unwrap();
}

#[tokio::test]
async fn no_more_tasks_are_taken_on_than_there_is_room_for() {
    let server = Server::start(&["--max-tasks", "3", "--allow-http", "127.0.0.1"]);
    let source = HeldSource::new(r#"{"x":1}"#);
    let held = format!("SELECT x FROM {}", source.table("x long"));
    let client = Client::connect(&server.grpc()).unwrap();
    let submissions = (0..20).map(|_| client.submit_task(Statement::new(&held)));
    let answers = futures::future::join_all(submissions).await;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((accepted.len(), refused.len()), (3, 17));
    for error in refused {
        let error = error.unwrap_err();
        let ClientError::Api(api) = &error else {
            panic!("{error}")
        };
        assert_eq!(api.category, Category::CapacityExceeded, "{error}");
    }
    source.release();
    for task in accepted {
        client.wait(&task.unwrap(), |_| {}).await.unwrap();
    }
}
