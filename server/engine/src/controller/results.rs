//! Rows of a SELECT task: written once as an Arrow file, served as often as asked for.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use futures::StreamExt;
use tracing::warn;
use trilith_exchange::{ReadOrder, ReadRequest};
use trilith_proto::error::ApiError;
use trilith_proto::fault::Fault;
use trilith_proto::id::TaskId;
use trilith_proto::multi_value;
use trilith_proto::pb::task as pb;

use super::Controller;
use super::job::Job;
use super::pages::no_page;
use crate::stage::{self, OutputMode};

/// Ticket of the rows of a task.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ResultTicket {
    /// Rows of a finished SELECT task.
    Task(String),
    /// One page of them, by its number from 0.
    Page(String, u32),
    /// Rows of a statement that runs at once, under its query id. Can be read once.
    Query(String),
}

impl ResultTicket {
    /// As bytes for a Flight ticket.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// None for tickets of another kind.
    pub fn decode(bytes: &[u8]) -> Option<ResultTicket> {
        serde_json::from_slice(bytes).ok()
    }
}

fn io_fault(path: &Path, error: impl std::fmt::Display) -> Fault {
    Fault::unknown(format!(
        "cannot write query results to {}: {error}",
        path.display()
    ))
}

impl Controller {
    pub(super) fn results_path(&self, task: &TaskId) -> PathBuf {
        self.results_directory.join(format!("{task}.arrow"))
    }

    /// Keeps the output of the last stage.
    pub(crate) async fn write_results(&self, job: &Arc<Job>) -> Result<pb::ResultsReport, Fault> {
        let paged = job.graph.stages.last().map(|stage| stage.output);
        if let Some(OutputMode::QueryResults { .. }) = paged {
            return self.keep_pages(job).await;
        }
        self.write_file(job).await
    }

    /// Collects it into a file.
    async fn write_file(&self, job: &Arc<Job>) -> Result<pb::ResultsReport, Fault> {
        let last = job.graph.stages.len().saturating_sub(1);
        let schema = job
            .graph
            .stages
            .last()
            .and_then(|stage| stage.plan.as_ref())
            .map(|plan| plan.schema())
            .ok_or_else(|| Fault::unknown("a SELECT has a last stage"))?;
        let path = self.results_path(&job.id);
        let partial = path.with_extension("tmp");
        let sources = self.worker_config.localized(&job.state.lock().sources(job, last));
        let options = IpcWriteOptions::default()
            .try_with_compression(Some(CompressionType::LZ4_FRAME))
            .map_err(|error| io_fault(&path, error))?;
        let file = File::create(&partial).map_err(|error| io_fault(&partial, error))?;
        let mut writer = StreamWriter::try_new_with_options(file, &schema, options)
            .map_err(|error| io_fault(&partial, error))?;
        let context = stage::task_context(
            job.id.to_string(),
            self.worker_config.memory.session(schema.fields().len()),
            Arc::clone(&self.worker_config.runtime_env),
        );
        let mut row_count = 0;
        // Worker by worker: a worker's partition follows that of the worker before it.
        for source in sources {
            let request = ReadRequest {
                schema: Arc::clone(&schema),
                sources: vec![source],
                partition: 0,
                order: ReadOrder::Any,
                keys: Vec::new(),
                counters: Arc::default(),
            };
            let config = &self.worker_config;
            let mut rows = trilith_exchange::read(&config.exchange, &config.flight_pool, &context, request)
                .map_err(Fault::from)?;
            while let Some(batch) = rows.next().await {
                let batch = batch.map_err(|error| crate::worker::fault_of(&error, &config.memory))?;
                row_count += batch.num_rows() as i64;
                let batch = multi_value::shown(batch).map_err(|error| io_fault(&partial, error))?;
                writer = tokio::task::spawn_blocking(move || writer.write(&batch).map(|()| writer))
                    .await
                    .map_err(|error| io_fault(&partial, error))?
                    .map_err(|error| io_fault(&partial, error))?;
            }
        }
        let (from, to) = (partial.clone(), path.clone());
        tokio::task::spawn_blocking(move || {
            let file = writer.into_inner().map_err(|error| io_fault(&from, error))?;
            file.sync_all().map_err(|error| io_fault(&from, error))?;
            std::fs::rename(&from, &to).map_err(|error| io_fault(&to, error))
        })
        .await
        .map_err(|error| io_fault(&path, error))??;
        Ok(results_report(job, row_count, Vec::new()))
    }

    /// Removes what a SELECT that failed has written.
    pub(super) async fn remove_results(&self, job: &Job) {
        if job.ingest().is_some() {
            return;
        }
        let path = self.results_path(&job.id);
        let removed = tokio::task::spawn_blocking(move || {
            for path in [path.with_extension("tmp"), path] {
                match std::fs::remove_file(&path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    // It goes at the next start.
                    Err(error) => warn!(path = %path.display(), %error, "rows of a failed task stay"),
                }
            }
        });
        if let Err(error) = removed.await {
            warn!(task = %job.id, %error, "rows of a failed task stay");
        }
    }

    /// Rows of a finished SELECT task.
    pub async fn task_results(
        &self,
        task: &TaskId,
        page: Option<u32>,
    ) -> Result<SendableRecordBatchStream, ApiError> {
        let path = self.results_path(task);
        match (File::open(&path), page) {
            (Ok(file), None) => self.file_rows(&path, file),
            (Ok(_), Some(page)) => Err(no_page(page)),
            (Err(_), page) => self.page_rows(task, page).await,
        }
    }

    fn file_rows(&self, path: &Path, file: File) -> Result<SendableRecordBatchStream, ApiError> {
        let broken =
            |error: &dyn std::fmt::Display| ApiError::internal(format!("{}: {error}", path.display()));
        let reader = StreamReader::try_new(BufReader::new(file), None).map_err(|error| broken(&error))?;
        let schema: SchemaRef = reader.schema();
        let mut builder = RecordBatchReceiverStreamBuilder::new(schema, 2);
        let sender = builder.tx();
        let read = move || {
            for batch in reader {
                if sender.blocking_send(batch.map_err(Into::into)).is_err() {
                    break;
                }
            }
            Ok(())
        };
        builder.spawn_blocking_on(read, &self.worker_config.compute);
        Ok(builder.build())
    }
}

/// What the report says of the rows of a SELECT.
pub(super) fn results_report(job: &Job, row_count: i64, pages: Vec<pb::ResultPage>) -> pb::ResultsReport {
    let columns = job
        .planned
        .columns
        .iter()
        .map(|column| pb::ResultColumn {
            name: column.name.clone(),
            r#type: column.column_type.to_string(),
            sql_type: column.sql_type.clone(),
        })
        .collect();
    pb::ResultsReport {
        columns,
        row_count,
        results_truncated: false,
        ticket: ResultTicket::Task(job.id.to_string()).encode(),
        pages,
    }
}
