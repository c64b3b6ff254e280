//! Identifiers. Numbers count from 0.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Stage of a task.
    StageNumber
);
number!(
    /// Worker of a task.
    WorkerNumber
);
number!(
    /// Partition of a stage's output.
    PartitionNumber
);
number!(
    /// Attempt of a worker.
    AttemptNumber
);

/// Id of a controller task: "query-…".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub Arc<str>);

impl TaskId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for TaskId {
    fn from(text: &str) -> Self {
        TaskId(text.into())
    }
}

impl From<String> for TaskId {
    fn from(text: String) -> Self {
        TaskId(text.into())
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One attempt of one worker at one stage of a task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkOrderId {
    /// Controller task.
    pub task: TaskId,
    /// Stage.
    pub stage: StageNumber,
    /// Worker.
    pub worker: WorkerNumber,
    /// Attempt of the worker.
    pub attempt: AttemptNumber,
    /// How often a restarted server had taken the task up when it sent the order: attempts count from 0 again in
    /// each run.
    #[serde(default)]
    pub run: u32,
}

impl WorkOrderId {
    /// "<task>-worker<N>_<attempt>", the id of the worker task.
    pub fn worker_task_id(&self) -> String {
        format!("{}-worker{}_{}", self.task, self.worker, self.attempt)
    }
}

impl fmt::Display for WorkOrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_{}_{}", self.task, self.stage, self.worker, self.attempt)?;
        match self.run {
            0 => Ok(()),
            run => write!(f, "_r{run}"),
        }
    }
}
