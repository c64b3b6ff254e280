//! Rows of a SELECT that are kept as pages in durable storage.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use trilith_exchange::{DurableArea, DurableStorage};
use trilith_metadata::TaskState;
use trilith_proto::error::ApiError;
use trilith_proto::fault::Fault;
use trilith_proto::id::{TaskId, WorkOrderId};
use trilith_proto::pb::task as pb;

use super::job::Job;
use super::results::{ResultTicket, results_report};
use super::{Controller, StartError};
use crate::stage;

/// Name of the note that lists the pages of a result.
const PAGES: &str = "__pages";

/// All pages of a result, as they are noted beside them.
#[derive(Debug, Serialize, Deserialize)]
struct PageNote {
    /// IPC bytes of the Arrow schema, in base64.
    schema: String,
    pages: Vec<Page>,
}

/// Where a page is, and its size.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Page {
    id: WorkOrderId,
    part: u32,
    rows: u64,
    bytes: u64,
}

/// A page of a result.
#[derive(Debug, Clone)]
pub struct ResultPage {
    /// Rows.
    pub rows: u64,
    /// Bytes of its file, or of nothing in particular when the rows are not kept as pages.
    pub bytes: Option<u64>,
    /// For `DoGet`.
    pub ticket: ResultTicket,
}

/// The rows of a finished SELECT task.
#[derive(Debug, Clone)]
pub struct ResultInfo {
    /// Of all pages.
    pub schema: SchemaRef,
    /// In order; a single one when the rows are not kept as pages.
    pub pages: Vec<ResultPage>,
}

pub(super) fn no_page(page: u32) -> ApiError {
    ApiError::invalid_input(format!("Invalid page id [{page}] passed."))
}

fn no_results(task: &TaskId) -> ApiError {
    ApiError::not_found(format!("no results of task [{task}]; they may have been removed"))
}

fn storage_error(error: trilith_exchange::ExchangeError) -> ApiError {
    ApiError::from(&Fault::from(error))
}

impl Controller {
    /// Notes where the pages are that the workers of the last stage wrote.
    pub(super) async fn keep_pages(&self, job: &Arc<Job>) -> Result<pb::ResultsReport, Fault> {
        let storage = self.worker_config.exchange.durable().map_err(Fault::from)?;
        let last = job.graph.stages.last();
        let schema = last
            .and_then(|stage| stage.plan.as_ref())
            .map(|plan| plan.schema())
            .ok_or_else(|| Fault::unknown("a SELECT has a last stage"))?;
        let orders: Vec<WorkOrderId> = {
            let state = job.state.lock();
            let run = state.stages.last();
            run.map(|run| run.workers.values().cloned().collect())
                .unwrap_or_default()
        };
        // Worker by worker: a worker's rows follow those of the worker before it.
        let mut pages = Vec::new();
        for id in orders {
            let list = storage
                .parts(DurableArea::Results, &id)
                .await
                .map_err(Fault::from)?;
            let numbered = (0_u32..).zip(&list.parts).filter(|(_, part)| part.rows > 0);
            pages.extend(numbered.map(|(part, size)| Page {
                id: id.clone(),
                part,
                rows: size.rows,
                bytes: size.bytes,
            }));
        }
        let bytes = stage::encode_schema(&schema).map_err(|error| Fault::from_error(&error))?;
        let note = PageNote {
            schema: STANDARD.encode(bytes),
            pages,
        };
        let text = serde_json::to_string(&note).map_err(|error| Fault::from_error(&error))?;
        storage
            .put_result_note(&job.id, PAGES, text)
            .await
            .map_err(Fault::from)?;
        let rows: u64 = note.pages.iter().map(|page| page.rows).sum();
        let pages = (0_u32..)
            .zip(&note.pages)
            .map(|(number, page)| pb::ResultPage {
                row_count: page.rows as i64,
                size_bytes: page.bytes as i64,
                ticket: ResultTicket::Page(job.id.to_string(), number).encode(),
            })
            .collect();
        Ok(results_report(job, rows as i64, pages))
    }

    async fn page_note(&self, task: &TaskId) -> Result<(Arc<DurableStorage>, PageNote), ApiError> {
        let storage = self
            .worker_config
            .exchange
            .durable()
            .map_err(|_none| no_results(task))?;
        // What a task that has not succeeded left here is nobody's result.
        let record = self.task(task).await?;
        if record.state != TaskState::Success {
            return Err(no_results(task));
        }
        let text = storage
            .result_note(task, PAGES)
            .await
            .map_err(storage_error)?
            .ok_or_else(|| no_results(task))?;
        let note = serde_json::from_str(&text)
            .map_err(|error| ApiError::internal(format!("results of task [{task}]: {error}")))?;
        Ok((Arc::clone(storage), note))
    }

    /// Rows of one page, or of all.
    pub(super) async fn page_rows(
        &self,
        task: &TaskId,
        page: Option<u32>,
    ) -> Result<SendableRecordBatchStream, ApiError> {
        let (storage, note) = self.page_note(task).await?;
        let schema = note.schema()?;
        let pages = match page {
            Some(number) => vec![
                note.pages
                    .get(number as usize)
                    .cloned()
                    .ok_or_else(|| no_page(number))?,
            ],
            None => note.pages,
        };
        // One page after the other: the next one is opened when the last one is read.
        let rows = stream::iter(pages)
            .map(move |page| storage.read(DurableArea::Results, &page.id, page.part))
            .flatten()
            .map(|batch| batch.map_err(DataFusionError::from));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    /// How the rows of a finished SELECT task can be read.
    pub async fn result_info(&self, task: &TaskId) -> Result<ResultInfo, ApiError> {
        if self.results_path(task).exists() {
            let rows = self.task_results(task, None).await?;
            let report = self.report(task).await?;
            let count = report.results.map_or(0, |results| results.row_count);
            return Ok(ResultInfo {
                schema: rows.schema(),
                pages: vec![ResultPage {
                    rows: count as u64,
                    bytes: None,
                    ticket: ResultTicket::Task(task.to_string()),
                }],
            });
        }
        let (_, note) = self.page_note(task).await?;
        let pages = (0_u32..).zip(&note.pages).map(|(number, page)| ResultPage {
            rows: page.rows,
            bytes: Some(page.bytes),
            ticket: ResultTicket::Page(task.to_string(), number),
        });
        Ok(ResultInfo {
            schema: note.schema()?,
            pages: pages.collect(),
        })
    }

    /// Removes result files of tasks that are not known, and what was half written. Blocking.
    pub(super) fn sweep_results(&self) -> Result<(), StartError> {
        let broken = |source| StartError::Results {
            path: self.results_directory.clone(),
            source,
        };
        for entry in std::fs::read_dir(&self.results_directory).map_err(broken)? {
            let path: PathBuf = entry.map_err(broken)?.path();
            let kept = path.extension().is_some_and(|extension| extension == "arrow");
            let known = match path.file_stem().and_then(|stem| stem.to_str()) {
                Some(task) => self
                    .store
                    .task(task)?
                    .is_some_and(|task| task.state != TaskState::Failed),
                None => true,
            };
            if !kept || !known {
                std::fs::remove_file(&path).map_err(broken)?;
            }
        }
        Ok(())
    }
}

impl PageNote {
    fn schema(&self) -> Result<SchemaRef, ApiError> {
        let broken =
            |error: &dyn std::fmt::Display| ApiError::internal(format!("schema of a result: {error}"));
        let bytes = STANDARD.decode(&self.schema).map_err(|error| broken(&error))?;
        let schema = stage::decode_schema(&bytes).map_err(|error| broken(&error))?;
        Ok(Arc::new(schema))
    }
}
