//! Clients that do not take what they asked for: others, and the end of the process, do not wait for them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use serde_json::json;
use trilith_client::{Client, QueryResult, Statement};
use trilith_proto::error::Category;
use trilith_proto::pb::query::CancelQueryRequest;
use trilith_proto::pb::query::query_service_client::QueryServiceClient;

use crate::harness::{PATIENCE, Server, inline};

/// A million rows of 2,000 bytes, more than anything on the way holds.
const ENDLESS: &str = "SELECT REPEAT('0123456789', 200) AS x FROM t a, t b, t c";

async fn table(server: &Server) {
    let rows: String = (0..100).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let sql = format!(
        "INSERT INTO t SELECT MILLIS_TO_TIMESTAMP(0) AS __time, n FROM {} PARTITIONED BY ALL",
        inline(&rows, "n long")
    );
    server.run(&sql, json!({})).await;
}

/// Asks for rows over HTTP, and takes the first bytes only.
fn stalled(server: &Server) -> TcpStream {
    let body = json!({"query": ENDLESS, "resultFormat": "arrayLines"}).to_string();
    let address = server.process.ready["http"].as_str().unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST /druid/v2/sql HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut first = [0; 4_096];
    stream.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200"));
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_do_not_wait_and_the_process_ends() {
    let server = Server::start(&[]);
    table(&server).await;
    let mut readers: Vec<TcpStream> = (0..6).map(|_| stalled(&server)).collect();
    // All of them have the gateway's one connection full of rows by now, or soon; the same in a client of its own.
    let client = Client::connect(&server.grpc()).unwrap();
    let mut streams = Vec::new();
    for _ in 0..6 {
        let mut result = client.select(Statement::new(ENDLESS)).await.unwrap();
        assert!(result.rows.try_next().await.unwrap().unwrap().num_rows() > 0);
        streams.push(result);
    }
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        assert_eq!(server.count("t").await, 100);
        assert_eq!(client.list_datasources().await.unwrap().len(), 1);
    }
    // Each goes on when its reader does.
    for reader in &mut readers {
        let mut more = vec![0; 8 << 20];
        reader.read_exact(&mut more).unwrap();
    }
    for stream in &mut streams {
        assert!(stream.rows.try_next().await.unwrap().unwrap().num_rows() > 0);
    }
    server.process.stop();
}

/// A statement that may have to wait for its place.
async fn admitted(client: &Client, statement: Statement) -> QueryResult {
    let since = Instant::now();
    loop {
        let refused = match client.select(statement.clone()).await {
            Ok(result) => return result,
            Err(refused) => refused,
        };
        assert_eq!(refused.to_api().category, Category::CapacityExceeded, "{refused}");
        assert!(since.elapsed() < PATIENCE, "the place is still taken");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_takes_can_be_cancelled_and_leaves_its_place() {
    let server = Server::start(&["--max-queries", "1"]);
    table(&server).await;
    let client = Client::connect(&server.grpc()).unwrap();
    for stops in ["cancel", "timeout"] {
        let endless = Statement::new(ENDLESS).with_id(stops);
        let endless = match stops {
            "timeout" => endless.with("timeout", 500),
            _ => endless,
        };
        let mut result = admitted(&client, endless).await;
        assert!(result.rows.try_next().await.unwrap().unwrap().num_rows() > 0);
        if stops == "cancel" {
            let refused = client
                .select(Statement::new("SELECT 1 AS x"))
                .await
                .err()
                .unwrap();
            assert_eq!(refused.to_api().category, Category::CapacityExceeded, "{refused}");
            let request = CancelQueryRequest {
                query_id: stops.to_owned(),
            };
            let mut queries = QueryServiceClient::new(server.channel());
            queries.cancel_query(request).await.unwrap();
        }
        admitted(&client, Statement::new("SELECT 1 AS x")).await;
        // Its reader hears of it behind the rows that were on their way.
        let error = loop {
            match result.rows.try_next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{stops}: the rows seem to be complete"),
                Err(error) => break error,
            }
        };
        let (text, wanted) = (
            error.to_string(),
            if stops == "cancel" { "cancel" } else { "timed out" },
        );
        assert!(text.to_lowercase().contains(wanted), "{stops}: {text}");
    }
}
