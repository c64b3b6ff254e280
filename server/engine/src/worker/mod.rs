//! Runs work orders. The same code serves workers inside the server and `trilith worker` processes.

mod held;
mod memory;
mod null_time;
mod order;
mod run;
mod runtime;
mod warnings;
pub mod wire;

pub use memory::{MemoryBounds, fault_of};
pub use order::{
    HeldOrder, OrderSettings, PlanSource, SegmentSink, SegmentTarget, Sink, WorkOrder, WorkerCommand,
    WorkerEvent,
};
pub(crate) use run::Running;
pub(crate) use runtime::localized;
pub use runtime::{FinishedOrders, WorkerConfig, WorkerRuntime};
pub use warnings::ParseWarnings;
