//! Runs work orders. The same code serves workers inside the server and `trilith worker` processes.

mod order;
mod run;
mod runtime;
mod warnings;

pub use order::{OrderSettings, PlanSource, SegmentSink, SegmentTarget, Sink, WorkOrder, WorkerCommand, WorkerEvent};
pub use runtime::{WorkerConfig, WorkerRuntime};
