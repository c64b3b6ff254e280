//! Records, and how they become bytes: one version byte, then JSON.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::change::Change;
use crate::error::MetadataError;

const VERSION: u8 = 1;

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskState {
    /// Accepted, not ended.
    Running,
    /// Ended well.
    Success,
    /// Ended otherwise.
    Failed,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRecord {
    /// Task id.
    pub id: String,
    /// "SELECT", "INSERT" or "REPLACE".
    pub statement: String,
    /// Target, or "__query_select".
    pub datasource: String,
    /// SQL, secrets masked.
    pub sql: String,
    /// Query context as JSON.
    pub context: Value,
    /// Task payload as JSON.
    pub payload: Value,
    /// Milliseconds since the epoch.
    pub created_ms: i64,
    /// How far it is.
    pub state: TaskState,
    /// Milliseconds; -1 while it runs.
    pub duration_ms: i64,
    /// Fault as JSON, if it failed.
    #[serde(default)]
    pub fault: Option<Value>,
    /// "<code>: <message>", if it failed.
    #[serde(default)]
    pub error_message: Option<String>,
    /// Values of `?` as (SQL type, value), to plan the statement once more.
    #[serde(default)]
    pub parameters: Vec<(String, Value)>,
    /// How often a server has taken the task up again after a restart. Only the newest run may end it.
    #[serde(default)]
    pub run: u32,
}

/// Which tasks to list.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// Any of these; empty means all.
    pub states: Vec<TaskState>,
    /// Only this one.
    pub datasource: Option<String>,
    /// Most tasks to return; 0 means all.
    pub limit: usize,
    /// Continue after the task whose key this is.
    pub after: Option<String>,
}

/// Tasks, newest first.
#[derive(Debug, Clone, Default)]
pub struct TaskPage {
    /// The tasks.
    pub tasks: Vec<TaskRecord>,
    /// Key to continue after; none at the end.
    pub next: Option<String>,
}

/// Everything that ends a task, in one step.
#[derive(Debug, Clone)]
pub struct Publish {
    /// The task as it ends.
    pub task: TaskRecord,
    /// Its final report.
    pub report: Vec<u8>,
    /// What becomes of the segments of its datasource.
    pub change: Change,
}

pub(crate) fn other_run(known: &TaskRecord, run: u32) -> MetadataError {
    MetadataError::OtherRun {
        id: known.id.clone(),
        run,
        current: known.run,
    }
}

pub(crate) fn encode<T: Serialize>(key: &str, record: &T) -> Result<Vec<u8>, MetadataError> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, record).map_err(|source| MetadataError::Record {
        key: key.to_owned(),
        source,
    })?;
    Ok(bytes)
}

pub(crate) fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, MetadataError> {
    match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|source| MetadataError::Record {
            key: key.to_owned(),
            source,
        }),
        other => {
            let version = other.map_or(0, |(version, _)| *version);
            Err(MetadataError::Version {
                key: key.to_owned(),
                version,
            })
        }
    }
}

/// Sorts tasks by age, newest first.
pub(crate) fn age_key(record: &TaskRecord) -> String {
    let age = u64::MAX - (record.created_ms.max(0) as u64);
    format!("{age:020}/{}", record.id)
}

pub(crate) fn page(mut tasks: Vec<TaskRecord>, filter: &TaskFilter) -> TaskPage {
    tasks.retain(|task| {
        (filter.states.is_empty() || filter.states.contains(&task.state))
            && filter
                .datasource
                .as_ref()
                .is_none_or(|name| *name == task.datasource)
    });
    tasks.sort_by_cached_key(age_key);
    if let Some(after) = &filter.after {
        tasks.retain(|task| age_key(task) > *after);
    }
    let mut next = None;
    if filter.limit > 0 && tasks.len() > filter.limit {
        tasks.truncate(filter.limit);
        next = tasks.last().map(age_key);
    }
    TaskPage { tasks, next }
}
