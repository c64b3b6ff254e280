//! `trilith demo`: a throw-away server that ingests the bundled Wikipedia edits and queries them.

use std::process::ExitCode;

use futures::TryStreamExt;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trilith_client::cli::progress;
use trilith_client::{Client, druid_json};
use trilith_proto::pb::query::RunQueryRequest;
use trilith_proto::pb::task::SubmitTaskRequest;

use crate::config::ServerOptions;
use crate::parts::StartError;
use crate::server;

/// The edits, compiled in: the demo works from anywhere.
const EDITS: &[u8] = include_bytes!("../../../tests/data/wikipedia-edits.json.gz");
const QUERY: &str = "SELECT channel, COUNT(*) AS edits, SUM(added) AS added FROM wikipedia \
                     GROUP BY channel ORDER BY edits DESC LIMIT 10";

/// Runs the demo; fails unless every edit can be read back.
pub async fn run() -> Result<ExitCode, StartError> {
    let directory = tempfile::tempdir()?;
    let input = directory.path().join("input");
    std::fs::create_dir_all(&input)?;
    let input = input.canonicalize()?;
    let file = input.join("wikipedia-edits.json.gz");
    std::fs::write(&file, EDITS)?;
    let any_port = std::net::SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), 0);
    let options = ServerOptions {
        data_dir: Some(directory.path().join("data")),
        http_address: Some(any_port),
        grpc_address: Some(any_port),
        allow_local: vec![input],
        ..ServerOptions::default()
    };
    let stop = CancellationToken::new();
    let (ready, addresses) = oneshot::channel();
    let tracker = TaskTracker::new();
    let running = tracker.spawn(server::run(options, stop.clone(), move |addresses| {
        // The demo ended before the server was ready.
        let _gone = ready.send(addresses);
    }));
    tracker.close();
    let result = match addresses.await {
        Ok(addresses) => show(&format!("http://{}", addresses.grpc), &file).await,
        Err(_) => Err("the server did not start".into()),
    };
    stop.cancel();
    running.await??;
    result.map(|()| ExitCode::SUCCESS)
}

async fn show(address: &str, file: &std::path::Path) -> Result<(), StartError> {
    let client = Client::connect(address)?;
    let source = serde_json::json!({"type": "local", "files": [file]})
        .to_string()
        .replace('\'', "''");
    let sql = format!(
        r#"REPLACE INTO wikipedia OVERWRITE ALL
SELECT TIME_PARSE("time") AS __time, channel, page, "user", "comment", added, deleted, delta
FROM TABLE(EXTERN('{source}', '{{"type":"json"}}',
  '[{{"name":"time","type":"string"}},{{"name":"channel","type":"string"}},{{"name":"page","type":"string"}},{{"name":"user","type":"string"}},{{"name":"comment","type":"string"}},{{"name":"added","type":"long"}},{{"name":"deleted","type":"long"}},{{"name":"delta","type":"long"}}]'))
PARTITIONED BY DAY CLUSTERED BY channel"#
    );
    println!("{sql}\n");
    let request = SubmitTaskRequest {
        sql,
        ..Default::default()
    };
    let task = client.submit(request).await?.task_id;
    progress::follow(&client, &task).await?;
    let report = client.report(&task).await?;
    println!("report of {task}:");
    for stage in &report.stages {
        println!(
            "  stage {}: {}",
            stage.stage_number,
            progress::describe(stage, &report.counters)
        );
    }
    if let Some(status) = &report.status {
        println!("  {} in {} ms", status.status, status.duration_ms);
    }
    for segment in client.segments("wikipedia", false).await? {
        println!(
            "  segment {}: {} rows, {} bytes",
            segment.segment_id, segment.row_count, segment.size_bytes
        );
    }
    println!("\n{QUERY}\n");
    let result = client
        .query(RunQueryRequest {
            sql: QUERY.to_owned(),
            ..Default::default()
        })
        .await?;
    let batches: Vec<_> = result.rows.try_collect().await?;
    println!("{}", arrow::util::pretty::pretty_format_batches(&batches)?);
    let read: i64 = report
        .counters
        .iter()
        .filter(|counter| counter.name == "input0" && counter.stage_number == 0)
        .map(rows)
        .sum();
    let published: u64 = client
        .list_datasources()
        .await?
        .iter()
        .map(|datasource| datasource.row_count)
        .sum();
    if read <= 0 || read as u64 != published {
        return Err(format!("{read} rows were read, but {published} are published").into());
    }
    println!(
        "{published} rows published; {}",
        druid_json::state_code(client.task(&task).await?.state())
    );
    Ok(())
}

fn rows(counter: &trilith_proto::pb::task::Counter) -> i64 {
    match &counter.value {
        Some(trilith_proto::pb::task::counter::Value::Channel(channel)) => channel.rows.iter().sum(),
        _ => 0,
    }
}
