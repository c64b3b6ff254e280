//! Ingests the bundled edits and counts them. README.md shows this file.

use futures::TryStreamExt;
use trilith_client::{Client, Statement, parameter};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect(&std::env::var("TRILITH_ADDRESS")?)?;
    let ingest = r#"
        REPLACE INTO edits OVERWRITE ALL
        SELECT TIME_PARSE("time") AS __time, channel, page, added
        FROM TABLE(EXTERN('{"type":"local","baseDir":"DATA","filter":"wikipedia-edits.json.gz"}', '{"type":"json"}'))
             EXTEND ("time" VARCHAR, channel VARCHAR, page VARCHAR, added BIGINT)
        PARTITIONED BY DAY CLUSTERED BY channel"#
        .replace("DATA", &std::env::var("TRILITH_DATA")?);
    let task = client
        .run(Statement::new(ingest), |update| {
            if let Some(task) = &update.task {
                println!("{} {:?}", task.task_id, task.state());
            }
        })
        .await?;
    let report = client.report(&task.task_id).await?;
    println!("{} stages", report.stages.len());

    let count =
        "SELECT channel, COUNT(*) AS edits FROM edits WHERE added > ? GROUP BY 1 ORDER BY 2 DESC LIMIT 3";
    let top = client
        .select(Statement::new(count).with_parameters([parameter("BIGINT", 100)]))
        .await?;
    let batches: Vec<_> = top.rows.try_collect().await?;
    println!("{}", arrow::util::pretty::pretty_format_batches(&batches)?);
    Ok(())
}
