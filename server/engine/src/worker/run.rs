//! Runs one work order from its inputs to its output.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use trilith_exchange::{DurableArea, PageWriter, PartitionRange, Shuffle};
use trilith_proto::fault::{CancelReason, Fault, FaultCode};
use trilith_proto::id::WorkOrderId;
use trilith_proto::multi_value;
use trilith_proto::pb::task as pb;

use super::held::OrderStatus;
use super::memory::fault_of;
use super::null_time::RowPath;
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
    services: Arc<WorkOrderServices>,
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
    config.memory.check_minimum()?;
    let counters = Arc::new(StageCounters::with_disk(config.exchange.disk(&order.id)));
    let warnings = Arc::new(ParseWarnings::new(order.settings.max_parse_exceptions));
    let services = services(config, &order, &counters, &warnings, cancel);
    let context = context(config, &order.id, &services, 1)?;
    let mut running = Running {
        config,
        id: order.id,
        events,
        status,
        cancel,
        counters,
        warnings,
        context,
        services,
        sequence: 0,
        reported: Instant::now(),
    };
    let result = match (order.sink, order.plan) {
        (Sink::Segments(sink), None) => ingest::write_segments(&mut running, *sink).await,
        (Sink::Pages { rows_per_page }, Some(plan)) => {
            let plan = running.decode(plan)?;
            running.widen(stage::widest(&plan))?;
            page_output(&mut running, plan, rows_per_page).await
        }
        (Sink::Exchange(shuffle), Some(plan)) => {
            let plan = running.decode(plan)?;
            running.widen(stage::widest(&plan))?;
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

fn services(
    config: &WorkerConfig,
    order: &WorkOrder,
    counters: &Arc<StageCounters>,
    warnings: &Arc<ParseWarnings>,
    cancel: &CancellationToken,
) -> Arc<WorkOrderServices> {
    Arc::new(WorkOrderServices {
        exchange: Arc::clone(&config.exchange),
        flight_pool: Arc::clone(&config.flight_pool),
        policy: Arc::clone(&config.policy),
        segment_directory: config.segment_directory.clone(),
        own_address: config.own_address.clone(),
        cancel: cancel.clone(),
        counters: Arc::clone(counters),
        warnings: Arc::clone(warnings),
        memory: config.memory,
        remove_null_bytes: order.settings.remove_null_bytes,
        max_frame_bytes: order.settings.max_frame_size_bytes,
    })
}

fn context(
    config: &WorkerConfig,
    id: &WorkOrderId,
    services: &Arc<WorkOrderServices>,
    columns: usize,
) -> Result<Arc<TaskContext>, Fault> {
    let session = config
        .memory
        .session(columns)
        .with_extension(Arc::clone(services));
    // Files of the operators count as the task's.
    let files = services.counters.disk().map(|disk| disk.operator_files());
    let runtime = match files {
        Some(files) => RuntimeEnvBuilder::from_runtime_env(&config.runtime_env)
            .with_disk_manager_builder(DiskManagerBuilder::default().with_temp_file_factory(files))
            .build_arc()
            .map_err(|error| fault_of(&error, &config.memory))?,
        None => Arc::clone(&config.runtime_env),
    };
    Ok(stage::task_context(id.to_string(), session, runtime))
}

async fn shuffle_output(
    running: &mut Running<'_>,
    plan: Arc<dyn ExecutionPlan>,
    shuffle: Shuffle,
    settings: &OrderSettings,
    boundaries: oneshot::Receiver<Arc<Vec<PartitionRange>>>,
) -> Result<WorkerEvent, Fault> {
    let plan = stage::make_cooperative(plan).map_err(|error| running.fault(&error))?;
    let gathers = shuffle.gathers_statistics();
    let time_column = shuffle.time_column();
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
            .map_err(|error| running.fault(&error))?;
        while let Some(batch) = running.cancellable(stream.next()).await? {
            let batch = batch.map_err(|error| running.fault(&error))?;
            running.counters.output(partition, &batch);
            let started = Instant::now();
            if let Err(error) = writer.write(partition as u32, batch) {
                let fault = running.warnings.explained(error.into());
                return Err(running.without_time(fault, &plan, time_column).await);
            }
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
    let plan = stage::make_cooperative(plan).map_err(|error| running.fault(&error))?;
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
            .map_err(|error| running.fault(&error))?;
        while let Some(batch) = running.cancellable(stream.next()).await? {
            let batch = batch.map_err(|error| running.fault(&error))?;
            running.counters.output(partition, &batch);
            let batch = multi_value::shown(batch).map_err(|error| Fault::from_error(&error))?;
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

    fn decode(&self, plan: PlanSource) -> Result<Arc<dyn ExecutionPlan>, Fault> {
        match plan {
            PlanSource::Local(plan) => Ok(plan),
            PlanSource::Encoded(bytes) => {
                stage::decode_plan(&bytes, &self.context).map_err(|error| self.fault(&error))
            }
        }
    }

    /// Wide rows come in smaller batches.
    pub(crate) fn widen(&mut self, columns: usize) -> Result<(), Fault> {
        self.context = context(self.config, &self.id, &self.services, columns)?;
        Ok(())
    }

    /// The fault that an error of the query engine stands for.
    pub(crate) fn fault(&self, error: &DataFusionError) -> Fault {
        fault_of(error, &self.config.memory)
    }

    /// Adds to `InsertTimeNull` which record it is, if rows come straight from files.
    async fn without_time(
        &self,
        mut fault: Fault,
        plan: &Arc<dyn ExecutionPlan>,
        time_column: Option<usize>,
    ) -> Fault {
        if fault.code != FaultCode::InsertTimeNull {
            return fault;
        }
        let Some(path) = time_column.and_then(|column| RowPath::of(plan, column)) else {
            return fault;
        };
        let (services, handle) = (Arc::clone(&self.services), tokio::runtime::Handle::current());
        let search = tokio::task::spawn_blocking(move || path.find(&services, &handle));
        if let Ok(Ok(Some(place))) = self.cancellable(search).await {
            fault.message = format!("{} The first such row: {place}.", fault.message);
        }
        fault
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
        let mut counters = self.counters.snapshot(&self.id, parse_errors);
        counters.extend(self.warnings.quality().map(|quality| pb::Counter {
            stage_number: self.id.stage.0,
            worker_number: self.id.worker.0,
            name: "dataQuality".to_owned(),
            value: Some(pb::counter::Value::DataQuality(quality)),
        }));
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
