//! Statements that run at once, in the server's own process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::compute::BatchCoalescer;
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;
use trilith_proto::error::{ApiError, Category, Persona};
use trilith_proto::fault::{CancelReason, Fault};
use trilith_proto::multi_value;
use trilith_sql::{Engine, OutputColumn, Statement};

use super::Controller;
use super::catalog::Snapshot;
use super::planning::planning_error;
use super::results::ResultTicket;
use super::room::{Place, Room};
use crate::stage::{self, StageCounters, WorkOrderServices};
use crate::worker::ParseWarnings;

/// Batches that wait for the reader.
const QUEUED_BATCHES: usize = 4;
/// Small batches are joined up to this many rows, as long as their first row does not wait for too long.
const JOINED_ROWS: usize = 8_192;
const JOINED_WAIT: Duration = Duration::from_millis(20);
/// How long a planned statement waits for somebody to read its rows.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);

struct PendingQuery {
    plan: Arc<dyn ExecutionPlan>,
    cancel: CancellationToken,
    /// None once it is being read.
    waiting_since: Option<Instant>,
    deadline: Option<Duration>,
    _place: Place,
}

/// Statements that wait to be read, or are being read, by query id.
pub(crate) struct Queries {
    pending: Mutex<HashMap<String, PendingQuery>>,
    room: Room,
}

impl Queries {
    pub(crate) fn new(max: u32) -> Queries {
        Queries {
            pending: Mutex::default(),
            room: Room::new(max),
        }
    }

    /// A place for one more statement, beside those that somebody still reads or may come to read.
    fn admit(&self) -> std::result::Result<Place, ApiError> {
        self.pending.lock().retain(|_, query| {
            query
                .waiting_since
                .is_none_or(|since| since.elapsed() < UNREAD_TIMEOUT)
        });
        self.room.take().ok_or_else(|| {
            let max = self.room.max();
            let message = format!(
                "Too many concurrent queries, total query capacity of {max} exceeded. Please try your query again later."
            );
            ApiError::new(
                Category::CapacityExceeded,
                Persona::Operator,
                "legacyQueryException",
                message,
            )
            .with(
                "errorClass",
                "org.apache.druid.query.QueryCapacityExceededException",
            )
            .with("legacyErrorCode", "Query capacity exceeded")
        })
    }
}

/// A statement that was planned, with the way to its rows.
pub struct RunningQuery {
    /// `sqlQueryId`.
    pub query_id: String,
    /// Output columns.
    pub columns: Vec<OutputColumn>,
    /// Arrow schema of the rows.
    pub schema: arrow::datatypes::SchemaRef,
    /// For `DoGet`.
    pub ticket: ResultTicket,
    /// It was an EXPLAIN: the one row tells the plan.
    pub explain: bool,
}

impl Controller {
    /// Plans a SELECT; its rows are computed while they are read.
    pub async fn run_query(
        self: &Arc<Self>,
        statement: Statement,
    ) -> std::result::Result<RunningQuery, ApiError> {
        let place = self.queries.admit()?;
        let controller = Arc::clone(self);
        self.computed(async move { controller.plan_query(statement, place).await })
            .await
    }

    async fn plan_query(
        self: &Arc<Self>,
        statement: Statement,
        place: Place,
    ) -> std::result::Result<RunningQuery, ApiError> {
        let catalog = Arc::new(Snapshot::new(self));
        let runtime = Arc::clone(&self.worker_config.runtime_env);
        let planned = trilith_sql::plan(statement, Engine::Native, catalog, runtime)?;
        let plan = planned
            .state
            .query_planner()
            .create_physical_plan(&planned.plan, &planned.state)
            .await
            .and_then(stage::by_reference)
            .map_err(|error| planning_error(&error))?;
        let (plan, columns) = if planned.explain {
            let query = stage::native_query_json(
                &plan,
                &planned
                    .columns
                    .iter()
                    .map(|column| column.name.clone())
                    .collect::<Vec<_>>(),
                &serde_json::Value::Object(planned.context.map().clone()),
            );
            super::explain::explain_rows(&planned, &query)?
        } else {
            (
                stage::assign_all(plan).map_err(|error| planning_error(&error))?,
                planned.columns.clone(),
            )
        };
        let schema = plan.schema();
        let mut pending = self.queries.pending.lock();
        if pending.contains_key(&planned.query_id) {
            return Err(ApiError::invalid_input(format!(
                "a query with the id [{}] is running; choose another sqlQueryId",
                planned.query_id
            )));
        }
        pending.insert(
            planned.query_id.clone(),
            PendingQuery {
                plan,
                cancel: CancellationToken::new(),
                waiting_since: Some(Instant::now()),
                deadline: planned.context.timeout_ms().map(Duration::from_millis),
                _place: place,
            },
        );
        let ticket = ResultTicket::Query(planned.query_id.clone());
        Ok(RunningQuery {
            query_id: planned.query_id,
            columns,
            schema,
            ticket,
            explain: planned.explain,
        })
    }

    /// What a statement looks like before its parameters have values.
    pub async fn describe(
        self: &Arc<Self>,
        statement: Statement,
    ) -> std::result::Result<trilith_sql::Description, ApiError> {
        let controller = Arc::clone(self);
        self.computed(async move {
            let catalog = Arc::new(Snapshot::new(&controller));
            let runtime = Arc::clone(&controller.worker_config.runtime_env);
            trilith_sql::describe(statement, catalog, runtime)
        })
        .await
    }

    /// Starts a planned statement and streams its rows.
    pub fn query_results(
        self: &Arc<Self>,
        query_id: &str,
    ) -> std::result::Result<SendableRecordBatchStream, ApiError> {
        let (plan, cancel, deadline) = {
            let mut pending = self.queries.pending.lock();
            let query = pending
                .get_mut(query_id)
                .filter(|query| query.waiting_since.is_some())
                .ok_or_else(|| {
                    ApiError::not_found(format!("no rows wait under the query id [{query_id}]"))
                })?;
            query.waiting_since = None;
            (Arc::clone(&query.plan), query.cancel.clone(), query.deadline)
        };
        let started = self.start_query(plan, &cancel);
        let rows = match started {
            Ok(rows) => rows,
            Err(error) => {
                self.queries.pending.lock().remove(query_id);
                return Err(planning_error(&error));
            }
        };
        let forget = Forget {
            controller: Arc::clone(self),
            query_id: query_id.to_owned(),
        };
        let until = deadline.map(|deadline| tokio::time::Instant::now() + deadline);
        let mut builder = RecordBatchReceiverStreamBuilder::new(rows.schema(), QUEUED_BATCHES);
        let sender = builder.tx();
        let work = async move {
            let controller = Arc::clone(&forget.controller);
            let ended = tokio::select! {
                biased;
                () = cancel.cancelled() => Some(CancelReason::UserRequest),
                () = at(until) => Some(CancelReason::QueryTimeout),
                () = deliver(rows, &sender) => None,
            };
            // A reader that takes nothing keeps no place once the statement is stopped.
            drop(forget);
            controller.remove_replaced().await;
            if let Some(reason) = ended {
                let _gone = sender.send(Err(canceled(reason))).await;
            }
            Ok(())
        };
        builder.spawn_on(work, &self.worker_config.compute);
        Ok(builder.build())
    }

    fn start_query(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        cancel: &CancellationToken,
    ) -> datafusion::error::Result<SendableRecordBatchStream> {
        let services = WorkOrderServices {
            exchange: Arc::clone(&self.worker_config.exchange),
            flight_pool: Arc::clone(&self.worker_config.flight_pool),
            policy: Arc::clone(&self.worker_config.policy),
            segment_directory: self.worker_config.segment_directory.clone(),
            own_address: self.worker_config.own_address.clone(),
            cancel: cancel.clone(),
            counters: Arc::new(StageCounters::default()),
            warnings: Arc::new(ParseWarnings::new(0)),
            memory: self.worker_config.memory,
            remove_null_bytes: false,
            max_frame_bytes: u64::MAX,
        };
        let session = self.worker_config.memory.session(stage::widest(&plan));
        let session = session.with_extension(Arc::new(services));
        let runtime = Arc::clone(&self.worker_config.runtime_env);
        let context = stage::task_context("query".to_owned(), session, runtime);
        let _compute = self.worker_config.compute.enter();
        execute_stream(stage::make_cooperative(plan)?, context)
    }

    /// Stops a statement; false if there is none with this id.
    pub fn cancel_query(&self, query_id: &str) -> bool {
        let pending = self.queries.pending.lock();
        let Some(query) = pending.get(query_id) else {
            return false;
        };
        // Whoever comes for its rows hears that it was stopped.
        let runs = !query.cancel.is_cancelled();
        query.cancel.cancel();
        runs
    }
}

/// Ends at a time, or never.
async fn at(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Hands over all rows, and then the error that ended them, if one did.
async fn deliver(rows: SendableRecordBatchStream, sender: &Sender<Result<RecordBatch>>) {
    let mut joined = Joined::new(&rows);
    let ended = pump(rows, &mut joined, sender).await;
    // Behind the rows that were computed before it.
    let rest = joined.rest(sender).await;
    if let Err(error) = ended.and(rest) {
        let _gone = sender.send(Err(error)).await;
    }
}

/// Hands rows over until they end or the reader goes away.
async fn pump(
    mut rows: SendableRecordBatchStream,
    joined: &mut Joined,
    sender: &Sender<Result<RecordBatch>>,
) -> Result<()> {
    loop {
        let next = tokio::select! {
            biased;
            () = sender.closed() => return Ok(()),
            () = at(joined.due) => {
                joined.rest(sender).await?;
                continue;
            }
            next = rows.next() => next,
        };
        match next {
            Some(batch) => joined.push(batch?, sender).await?,
            None => return Ok(()),
        }
    }
}

/// Joins small batches: some operators make them a few rows at a time, and each costs a message.
struct Joined {
    batches: BatchCoalescer,
    /// When the rows that wait must go.
    due: Option<tokio::time::Instant>,
}

impl Joined {
    fn new(rows: &SendableRecordBatchStream) -> Joined {
        let batches = BatchCoalescer::new(rows.schema(), JOINED_ROWS)
            .with_biggest_coalesce_batch_size(Some(JOINED_ROWS / 2));
        Joined { batches, due: None }
    }

    async fn push(&mut self, batch: RecordBatch, sender: &Sender<Result<RecordBatch>>) -> Result<()> {
        self.batches.push_batch(multi_value::shown(batch)?)?;
        self.send(sender).await;
        self.due = match self.batches.get_buffered_rows() {
            0 => None,
            _ => self
                .due
                .or_else(|| Some(tokio::time::Instant::now() + JOINED_WAIT)),
        };
        Ok(())
    }

    /// Sends what waits.
    async fn rest(&mut self, sender: &Sender<Result<RecordBatch>>) -> Result<()> {
        self.batches.finish_buffered_batch()?;
        self.due = None;
        self.send(sender).await;
        Ok(())
    }

    /// A reader that went away is noticed by `closed`.
    async fn send(&mut self, sender: &Sender<Result<RecordBatch>>) {
        while let Some(batch) = self.batches.next_completed_batch() {
            if sender.send(Ok(batch)).await.is_err() {
                return;
            }
        }
    }
}

fn canceled(reason: CancelReason) -> datafusion::error::DataFusionError {
    stage::fault_error(Fault::canceled(reason))
}

/// Forgets a query when its stream ends or is dropped.
struct Forget {
    controller: Arc<Controller>,
    query_id: String,
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.controller.queries.pending.lock().remove(&self.query_id);
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use datafusion::physical_plan::empty::EmptyExec;

    use super::*;

    #[test]
    fn statements_that_nobody_reads_leave_their_places() {
        let queries = Queries::new(2);
        let add = |id: &str, waiting_since| {
            let query = PendingQuery {
                plan: Arc::new(EmptyExec::new(Arc::new(Schema::empty()))),
                cancel: CancellationToken::new(),
                waiting_since,
                deadline: None,
                _place: queries.admit().unwrap(),
            };
            queries.pending.lock().insert(id.to_owned(), query);
        };
        add("read", None);
        add("just planned", Some(Instant::now()));
        let refused = queries.admit().unwrap_err();
        assert_eq!(refused.category, Category::CapacityExceeded);
        let long_ago = Instant::now().checked_sub(UNREAD_TIMEOUT).unwrap();
        queries
            .pending
            .lock()
            .get_mut("just planned")
            .unwrap()
            .waiting_since = Some(long_ago);
        let _place = queries.admit().unwrap();
        assert!(queries.admit().is_err());
        assert_eq!(queries.pending.lock().keys().collect::<Vec<_>>(), ["read"]);
    }
}
