//! Owns the work orders of one process.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::execution::runtime_env::RuntimeEnv;
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error, field, info_span, warn};
use trilith_exchange::{Exchange, FlightPool, PartitionRange, StageSource};
use trilith_input::Policy;
use trilith_proto::fault::Fault;
use trilith_proto::id::{TaskId, WorkOrderId};

use super::held::OrderStatus;
use super::memory::MemoryBounds;
use super::order::{HeldOrder, WorkOrder, WorkerCommand, WorkerEvent};
use super::run;
use crate::kernel::HeldStep;
use crate::trace;

/// What every work order of a process shares.
#[derive(Clone)]
pub struct WorkerConfig {
    /// Stage outputs of this process.
    pub exchange: Arc<Exchange>,
    /// Connections to other processes' exchanges.
    pub flight_pool: Arc<FlightPool>,
    /// Memory pool and spill directory of DataFusion's operators.
    pub runtime_env: Arc<RuntimeEnv>,
    /// How much memory the process may use.
    pub memory: MemoryBounds,
    /// What EXTERN may read.
    pub policy: Arc<Policy>,
    /// Root of deep storage.
    pub segment_directory: PathBuf,
    /// "host:port" under which other processes read this one's exchange.
    pub own_address: String,
    /// Where operators run, apart from what answers others.
    pub compute: tokio::runtime::Handle,
}

impl WorkerConfig {
    /// Sources as this process reaches them: its own outputs are read in place.
    pub fn localized(&self, sources: &[StageSource]) -> Vec<StageSource> {
        localized(&self.own_address, sources)
    }
}

pub(crate) fn localized(own_address: &str, sources: &[StageSource]) -> Vec<StageSource> {
    let address = |source: &StageSource| source.address.clone().filter(|address| address != own_address);
    sources
        .iter()
        .map(|source| StageSource {
            address: address(source),
            id: source.id.clone(),
            durable: source.durable,
        })
        .collect()
}

/// Runs work orders of this process until it is shut down.
pub struct WorkerRuntime {
    config: WorkerConfig,
    events: mpsc::Sender<WorkerEvent>,
    orders: Mutex<HashMap<WorkOrderId, OrderHandle>>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

/// Finished orders whose outputs a process still holds after it has lost its server.
#[derive(Default)]
pub struct FinishedOrders(Vec<(WorkOrderId, Arc<OrderStatus>)>);

impl FinishedOrders {
    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An order from its start until nobody wants its output any more.
struct OrderHandle {
    cancel: CancellationToken,
    boundaries: Option<oneshot::Sender<Arc<Vec<PartitionRange>>>>,
    status: Arc<OrderStatus>,
    /// It has a thread.
    runs: bool,
}

impl WorkerRuntime {
    /// A runtime that reports to `events`.
    pub fn new(
        config: WorkerConfig,
        events: mpsc::Sender<WorkerEvent>,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(WorkerRuntime {
            config,
            events,
            orders: Mutex::new(HashMap::new()),
            tracker: TaskTracker::new(),
            shutdown,
        })
    }

    /// Work orders that run now.
    pub fn running(&self) -> usize {
        self.orders.lock().values().filter(|order| order.runs).count()
    }

    /// True once it obeys no commands any more and nothing runs.
    pub fn has_stopped(&self) -> bool {
        self.tracker.is_closed() && self.tracker.is_empty()
    }

    /// Every order whose work or output this process holds.
    pub fn held(&self) -> Vec<HeldOrder> {
        self.orders
            .lock()
            .iter()
            .map(|(id, order)| HeldOrder {
                id: id.clone(),
                step: order.status.step(),
            })
            .collect()
    }

    /// Obeys one command. Returns at once; results come as events.
    pub fn command(self: &Arc<Self>, command: WorkerCommand) {
        match command {
            WorkerCommand::Start(order) => self.start(*order),
            WorkerCommand::SetBoundaries { id, ranges } => self.set_boundaries(&id, ranges),
            WorkerCommand::Release { id } => {
                // Work whose output nobody wants is not worth finishing.
                if let Some(order) = self.orders.lock().remove(&id) {
                    order.cancel.cancel();
                }
                self.config.exchange.release(&id);
            }
            WorkerCommand::Repeat { id } => {
                let last = self.orders.lock().get(&id).and_then(|order| order.status.last());
                // When the queue is full, the next heartbeat has it asked for again.
                if last.is_some_and(|event| self.events.try_send(event).is_err()) {
                    debug!(%id, "no room to repeat a status");
                }
            }
            WorkerCommand::CancelTask { task } => self.cancel_task(&task),
        }
    }

    fn set_boundaries(&self, id: &WorkOrderId, ranges: Arc<Vec<PartitionRange>>) {
        let mut orders = self.orders.lock();
        let Some(order) = orders.get_mut(id) else { return };
        match order.boundaries.take() {
            Some(sender) => {
                order.status.resume();
                // An order that has ended in between does not need them.
                let _ended = sender.send(ranges);
            }
            None => debug!(%id, "boundaries for an order that has them"),
        }
    }

    /// Obeys commands until the queue closes or the process shuts down.
    pub async fn serve(self: Arc<Self>, mut commands: mpsc::Receiver<WorkerCommand>) {
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
            }
        }
        self.stop().await;
    }

    /// Cancels everything and waits until it has stopped.
    pub async fn stop(&self) {
        for order in self.orders.lock().values() {
            order.cancel.cancel();
        }
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Finished orders, once all others have stopped.
    pub fn finished(&self) -> FinishedOrders {
        let orders = self.orders.lock();
        let finished = orders
            .iter()
            .filter(|(_, order)| order.status.step() == HeldStep::OutputReady);
        FinishedOrders(
            finished
                .map(|(id, order)| (id.clone(), Arc::clone(&order.status)))
                .collect(),
        )
    }

    /// Goes on holding outputs of an earlier session; whoever asks for them next decides what becomes of them.
    pub fn hold(&self, finished: FinishedOrders) {
        let mut orders = self.orders.lock();
        for (id, status) in finished.0 {
            let handle = OrderHandle {
                cancel: self.shutdown.child_token(),
                boundaries: None,
                status,
                runs: false,
            };
            orders.insert(id, handle);
        }
    }

    fn cancel_task(&self, task: &TaskId) {
        let cancelled: Vec<OrderHandle> = self
            .orders
            .lock()
            .extract_if(|id, _| id.task == *task)
            .map(|(_, order)| order)
            .collect();
        for order in &cancelled {
            order.cancel.cancel();
        }
        if !cancelled.is_empty() {
            debug!(%task, orders = cancelled.len(), "work orders cancelled");
        }
        self.config.exchange.release_task(task);
    }

    fn start(self: &Arc<Self>, order: WorkOrder) {
        let id = order.id.clone();
        let cancel = self.shutdown.child_token();
        let (boundaries, wait) = oneshot::channel();
        let status = Arc::new(OrderStatus::new());
        match self.orders.lock().entry(id.clone()) {
            Entry::Occupied(_) => {
                warn!(%id, "work order sent twice");
                return;
            }
            Entry::Vacant(vacant) => vacant.insert(OrderHandle {
                cancel: cancel.clone(),
                boundaries: Some(boundaries),
                status: Arc::clone(&status),
                runs: true,
            }),
        };
        let runtime = Arc::clone(self);
        let compute = self.config.compute.clone();
        let span = info_span!(
            "work_order",
            task = %id.task,
            stage = id.stage.0,
            worker = id.worker.0,
            attempt = id.attempt.0,
            otel.status_code = field::Empty,
            otel.status_description = field::Empty,
        );
        trace::continue_from(&span, &order.trace_parent);
        let thread = compute.clone();
        // Operators, sorting and encoding are CPU work: they get a thread of their own.
        let work = move || {
            let work = run::run(&runtime.config, order, &runtime.events, &status, wait, &cancel);
            let work = AssertUnwindSafe(work.instrument(span.clone())).catch_unwind();
            // A defect ends its work order, not the whole process, and the job hears of it.
            let result = compute.block_on(work).unwrap_or_else(|_panic| {
                error!(%id, "a work order panicked");
                Err(Fault::unknown(
                    "A work order stopped because of a defect; the log of its process says where.",
                ))
            });
            if let Err(fault) = &result {
                span.record("otel.status_code", "ERROR")
                    .record("otel.status_description", fault.to_string());
            }
            drop(span);
            let cancelled = cancel.is_cancelled();
            if result.is_err() || cancelled {
                runtime.config.exchange.release(&id);
            }
            if let Some(order) = runtime.orders.lock().get_mut(&id) {
                order.runs = false;
            }
            if let (Err(fault), false) = (result, cancelled) {
                let failed = WorkerEvent::Failed { id, fault };
                status.note(&failed);
                if compute.block_on(runtime.events.send(failed)).is_err() {
                    debug!("nobody listens to a failed work order");
                }
            }
        };
        self.tracker.spawn_blocking_on(work, &thread);
    }
}
