//! Runs one work order from its inputs to its output.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use trilith_exchange::{DurableArea, PageWriter, PartitionRange, Shuffle};
use trilith_proto::fault::{CancelReason, Fault, FaultCode};
use trilith_proto::id::WorkOrderId;
use trilith_proto::pb::task as pb;

use super::held::OrderStatus;
use super::order::{OrderSettings, PlanSource, Sink, WorkOrder, WorkerEvent};
use super::runtime::WorkerConfig;
use super::warnings::ParseWarnings;
use crate::ingest;
use crate::stage::{self, StageCounters, WorkOrderServices};

/// How often counters travel to the controller.
const COUNTER_INTERVAL: Duration = Duration::from_millis(100);

/// What one running order holds.
pub(crate) struct Running<'a> {
    pub config: &'a WorkerConfig,
    pub id: WorkOrderId,
    pub events: &'a mpsc::Sender<WorkerEvent>,
    pub status: &'a OrderStatus,
    pub cancel: &'a CancellationToken,
    pub counters: Arc<StageCounters>,
    pub warnings: Arc<ParseWarnings>,
    pub context: Arc<TaskContext>,
    sequence: u64,
    reported: Instant,
}

/// Runs an order and reports its steps. A fault is returned, not reported.
pub(crate) async fn run(
    config: &WorkerConfig,
    order: WorkOrder,
    events: &mpsc::Sender<WorkerEvent>,
    status: &OrderStatus,
    boundaries: oneshot::Receiver<Arc<Vec<PartitionRange>>>,
    cancel: &CancellationToken,
) -> Result<(), Fault> {
    let counters = Arc::new(StageCounters::with_disk(config.exchange.disk(&order.id)));
    let warnings = Arc::new(ParseWarnings::new(order.settings.max_parse_exceptions));
    let context = task_context(config, &order, &counters, &warnings, cancel)?;
    let mut running = Running {
        config,
        id: order.id,
        events,
        status,
        cancel,
        counters,
        warnings,
        context,
        sequence: 0,
        reported: Instant::now(),
    };
    let result = match (order.sink, order.plan) {
        (Sink::Segments(sink), None) => ingest::write_segments(&mut running, *sink).await,
        (Sink::Pages { rows_per_page }, Some(plan)) => {
            let plan = decode(plan, &running.context)?;
            page_output(&mut running, plan, rows_per_page).await
        }
        (Sink::Exchange(shuffle), Some(plan)) => {
            let plan = decode(plan, &running.context)?;
            shuffle_output(&mut running, plan, shuffle, &order.settings, boundaries).await
        }
        _ => Err(Fault::unknown(
            "a work order must have either a plan or segments to write",
        )),
    };
    // The last counters of a failed order tell why and where, so they are sent in any case.
    running.report(true).await;
    let done = result?;
    running.send(done).await
}

fn task_context(
    config: &WorkerConfig,
    order: &WorkOrder,
    counters: &Arc<StageCounters>,
    warnings: &Arc<ParseWarnings>,
    cancel: &CancellationToken,
) -> Result<Arc<TaskContext>, Fault> {
    let services = WorkOrderServices {
        exchange: Arc::clone(&config.exchange),
        flight_pool: Arc::clone(&config.flight_pool),
        policy: Arc::clone(&config.policy),
        segment_directory: config.segment_directory.clone(),
        own_address: config.own_address.clone(),
        cancel: cancel.clone(),
        counters: Arc::clone(counters),
        warnings: Arc::clone(warnings) as _,
        remove_null_bytes: order.settings.remove_null_bytes,
    };
    let session = SessionConfig::new().with_extension(Arc::new(services));
    // Files of the operators count as the task's.
    let files = counters.disk().map(|disk| disk.operator_files());
    let runtime = match files {
        Some(files) => RuntimeEnvBuilder::from_runtime_env(&config.runtime_env)
            .with_disk_manager_builder(DiskManagerBuilder::default().with_temp_file_factory(files))
            .build_arc()
            .map_err(|error| fault_of(&error))?,
        None => Arc::clone(&config.runtime_env),
    };
    Ok(stage::task_context(order.id.to_string(), session, runtime))
}

fn decode(plan: PlanSource, context: &TaskContext) -> Result<Arc<dyn ExecutionPlan>, Fault> {
    match plan {
        PlanSource::Local(plan) => Ok(plan),
        PlanSource::Encoded(bytes) => stage::decode_plan(&bytes, context).map_err(|error| fault_of(&error)),
    }
}

/// The fault inside an error of DataFusion, or an unknown one with its text.
pub fn fault_of(error: &DataFusionError) -> Fault {
    if let Some(fault) = Fault::find(error) {
        return fault.clone();
    }
    if let DataFusionError::ResourcesExhausted(_) = error.find_root() {
        let message = "Not enough memory for the operators of this stage, although they spill to disk. \
                       Start the process with a larger --memory-limit, or with fewer slots.";
        return Fault::new(FaultCode::NotEnoughMemory, serde_json::json!({}), message);
    }
    Fault::unknown(trilith_sql::plain_message(error))
}

async fn shuffle_output(
    running: &mut Running<'_>,
    plan: Arc<dyn ExecutionPlan>,
    shuffle: Shuffle,
    settings: &OrderSettings,
    boundaries: oneshot::Receiver<Arc<Vec<PartitionRange>>>,
) -> Result<WorkerEvent, Fault> {
    let plan = stage::make_cooperative(plan).map_err(|error| fault_of(&error))?;
    let gathers = shuffle.gathers_statistics();
    let mut writer = running
        .config
        .exchange
        .create(
            running.id.clone(),
            plan.schema(),
            shuffle,
            settings.max_frame_size_bytes,
        )
        .map_err(Fault::from)?;
    let partitions = plan.properties().output_partitioning().partition_count();
    for partition in 0..partitions {
        let mut stream = plan
            .execute(partition, Arc::clone(&running.context))
            .map_err(|error| fault_of(&error))?;
        while let Some(batch) = running.cancellable(stream.next()).await? {
            let batch = batch.map_err(|error| fault_of(&error))?;
            running.counters.output(partition, &batch);
            let started = Instant::now();
            writer.write(partition as u32, batch).map_err(Fault::from)?;
            running.counters.cpu("sortOutput", started.elapsed());
            running.report(false).await;
        }
    }
    let summary = writer.finish().map_err(Fault::from)?;
    let mut partition_rows = summary.partition_rows;
    if gathers {
        let read = WorkerEvent::InputRead {
            id: running.id.clone(),
            buckets: summary.buckets,
            has_multiple_values: summary.has_multiple_values,
        };
        running.report(true).await;
        running.send(read).await?;
        let ranges = running
            .cancellable(boundaries)
            .await?
            .map_err(|_closed| Fault::canceled(CancelReason::Unknown))?;
        partition_rows = running
            .config
            .exchange
            .set_boundaries(&running.id, ranges.as_ref().clone())
            .map_err(Fault::from)?;
    }
    if let Some(output) = running.config.exchange.find(&running.id) {
        running.counters.shuffled(&output);
    }
    if settings.durable_output {
        let exchange = &running.config.exchange;
        let written = exchange.make_durable(&running.id, running.cancel).await;
        match written {
            Ok(written) => running.counters.made_durable(&written),
            Err(error) => {
                running.take_back(DurableArea::Intermediate).await;
                return Err(error.into());
            }
        }
    }
    Ok(WorkerEvent::OutputReady {
        id: running.id.clone(),
        partition_rows,
        segments: Vec::new(),
    })
}

/// Writes the rows of a SELECT as pages to durable storage.
async fn page_output(
    running: &mut Running<'_>,
    plan: Arc<dyn ExecutionPlan>,
    rows_per_page: u64,
) -> Result<WorkerEvent, Fault> {
    let plan = stage::make_cooperative(plan).map_err(|error| fault_of(&error))?;
    let storage = Arc::clone(running.config.exchange.durable().map_err(Fault::from)?);
    let mut pages = PageWriter::new(storage, running.id.clone(), plan.schema(), rows_per_page);
    if let Err(fault) = write_pages(running, &plan, &mut pages).await {
        pages.abort().await;
        return Err(fault);
    }
    let written = pages.finish().await.map_err(Fault::from)?;
    running.counters.paged(&written);
    Ok(WorkerEvent::OutputReady {
        id: running.id.clone(),
        partition_rows: written.parts.iter().map(|page| page.rows).collect(),
        segments: Vec::new(),
    })
}

async fn write_pages(
    running: &mut Running<'_>,
    plan: &Arc<dyn ExecutionPlan>,
    pages: &mut PageWriter,
) -> Result<(), Fault> {
    let partitions = plan.properties().output_partitioning().partition_count();
    for partition in 0..partitions {
        let mut stream = plan
            .execute(partition, Arc::clone(&running.context))
            .map_err(|error| fault_of(&error))?;
        while let Some(batch) = running.cancellable(stream.next()).await? {
            let batch = batch.map_err(|error| fault_of(&error))?;
            running.counters.output(partition, &batch);
            running
                .cancellable(pages.write(&batch))
                .await?
                .map_err(Fault::from)?;
            running.report(false).await;
        }
    }
    Ok(())
}

impl Running<'_> {
    /// Removes what a failed attempt wrote to durable storage.
    async fn take_back(&self, area: DurableArea) {
        if let Ok(storage) = self.config.exchange.durable()
            && let Err(error) = storage.remove_attempt(area, &self.id).await
        {
            warn!(id = %self.id, %error, "files of a failed attempt remain until the task ends");
        }
    }

    /// Waits for something unless the order is cancelled first.
    pub(crate) async fn cancellable<F: Future>(&self, future: F) -> Result<F::Output, Fault> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Fault::canceled(CancelReason::Unknown)),
            output = future => Ok(output),
        }
    }

    /// Sends counters if they are due, or in any case.
    pub(crate) async fn report(&mut self, force: bool) {
        if !force && self.reported.elapsed() < COUNTER_INTERVAL {
            return;
        }
        self.reported = Instant::now();
        self.sequence += 1;
        let parse_errors = self.warnings.count();
        let counters = self.counters.snapshot(&self.id, parse_errors);
        let warnings = self
            .warnings
            .take()
            .into_iter()
            .map(|fault| pb::ErrorReport {
                task_id: self.id.worker_task_id(),
                host: None,
                stage_number: Some(self.id.stage.0),
                fault: Some((&fault).into()),
            })
            .collect();
        let update = WorkerEvent::Counters {
            id: self.id.clone(),
            sequence: self.sequence,
            counters,
            warnings,
        };
        // Nobody listening means the job is over; the order is cancelled by its own token.
        let _closed = self.events.send(update).await;
    }

    async fn send(&self, event: WorkerEvent) -> Result<(), Fault> {
        self.status.note(&event);
        self.events
            .send(event)
            .await
            .map_err(|_closed| Fault::canceled(CancelReason::Unknown))
    }
}
