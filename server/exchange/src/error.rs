//! What can go wrong in the exchange.

use std::path::PathBuf;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use trilith_proto::fault::{CancelReason, Fault};
use trilith_proto::id::WorkOrderId;

/// What can go wrong in the exchange.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The rows break a rule that the user must know of.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Released, lost with its process, or never finished.
    #[error("output {id} is not here: it was released or not finished")]
    OutputMissing {
        /// Whose output.
        id: WorkOrderId,
    },
    /// Two outputs of one name.
    #[error("output {id} exists already")]
    OutputExists {
        /// Whose output.
        id: WorkOrderId,
    },
    /// Sorted output that is not cut yet.
    #[error("output {id} has no boundaries yet")]
    NoBoundaries {
        /// Whose output.
        id: WorkOrderId,
    },
    /// No such partition.
    #[error("output {id} has {count} partitions, so there is no partition {partition}")]
    NoPartition {
        /// Whose output.
        id: WorkOrderId,
        /// The partition asked for.
        partition: u32,
        /// Partitions that exist.
        count: usize,
    },
    /// Sorted output with rows that no boundary takes.
    #[error(
        "{rows} rows of output {id} are outside of all partitions: the input has changed since an earlier attempt read it; submit the statement again"
    )]
    RowsOutside {
        /// Whose output.
        id: WorkOrderId,
        /// How many.
        rows: u64,
    },
    /// A column that is not in the schema, or of a type that cannot be a key.
    #[error("column {column} cannot be a key of this shuffle")]
    BadKeyColumn {
        /// Position in the schema.
        column: usize,
    },
    /// A boundary or key that this schema cannot have made.
    #[error("malformed key of {length} bytes")]
    BadKey {
        /// Size of what was given.
        length: usize,
    },
    /// Bytes that are no ticket.
    #[error("malformed ticket")]
    BadTicket(#[source] Option<serde_json::Error>),
    /// The disk failed.
    #[error("cannot {action} {}", path.display())]
    Disk {
        /// "create", "open" ...
        action: &'static str,
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Durable storage cannot be opened as configured.
    #[error("--durable-storage [{url}] cannot be used: {reason}")]
    DurableSettings {
        /// What was configured.
        url: String,
        /// Why not.
        reason: String,
    },
    /// Durable storage failed.
    #[error("cannot {action} durable storage {location}")]
    Durable {
        /// "write to", "read from" ...
        action: &'static str,
        /// As it is configured.
        location: String,
        /// Why.
        source: Box<object_store::Error>,
    },
    /// Durable storage is asked for, but there is none.
    #[error("there is no durable storage")]
    NoDurableStorage,
    /// Columns cannot be handled as asked.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// The query engine failed.
    #[error(transparent)]
    DataFusion(#[from] DataFusionError),
    /// No address of a process.
    #[error("not an address: {address}")]
    Address {
        /// What was given.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// A secret that no request can carry.
    #[error("the token has characters that a header cannot have")]
    BadToken,
    /// Another process did not give its output.
    #[error("{address} did not send partition {partition} of {id}")]
    Remote {
        /// Which process.
        address: String,
        /// Whose output.
        id: WorkOrderId,
        /// Which partition.
        partition: u32,
        /// Its answer.
        source: Box<tonic::Status>,
    },
    /// Fewer or more rows came than the other process says it sent.
    #[error("{address} sent {received} of {sent} rows of partition {partition} of {id}")]
    Incomplete {
        /// Which process.
        address: String,
        /// Whose output.
        id: WorkOrderId,
        /// Which partition.
        partition: u32,
        /// Rows received.
        received: u64,
        /// Rows sent.
        sent: u64,
    },
    /// A helper thread was stopped, because the process ends.
    #[error("a read was stopped")]
    Stopped,
}

/// The bucket is not there, or not ours. Writers wrap what the store said.
fn is_refusal(error: &object_store::Error) -> bool {
    use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        let told = error.downcast_ref::<object_store::Error>();
        if matches!(
            told,
            Some(NotFound { .. } | PermissionDenied { .. } | Unauthenticated { .. })
        ) {
            return true;
        }
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

impl From<ExchangeError> for Fault {
    fn from(error: ExchangeError) -> Fault {
        match &error {
            ExchangeError::Fault(fault) => fault.clone(),
            ExchangeError::NoDurableStorage => Fault::no_durable_storage(),
            ExchangeError::Stopped => Fault::canceled(CancelReason::Unknown),
            ExchangeError::Durable { source, .. } => {
                let text = format!("{error}: {}", object_store_text(source));
                match is_refusal(source.as_ref()) {
                    true => Fault::durable_storage_configuration(&text),
                    false => Fault::unknown(text),
                }
            }
            ExchangeError::OutputMissing { id }
            | ExchangeError::Remote { id, .. }
            | ExchangeError::Incomplete { id, .. } => {
                Fault::worker_rpc_failed(&id.worker_task_id(), &error_text(&error))
            }
            _ => match Fault::find(&error) {
                Some(fault) => fault.clone(),
                None => Fault::from_error(&error),
            },
        }
    }
}

impl From<ExchangeError> for DataFusionError {
    fn from(error: ExchangeError) -> DataFusionError {
        match error {
            ExchangeError::DataFusion(error) => error,
            error => DataFusionError::External(Box::new(Fault::from(error))),
        }
    }
}

fn error_text(error: &ExchangeError) -> String {
    match error {
        ExchangeError::Remote { source, .. } => format!("{error}: {}", source.message()),
        _ => error.to_string(),
    }
}

/// What an object store says, without what it repeats.
fn object_store_text(error: &object_store::Error) -> String {
    let text = error.to_string();
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(500)
        .collect()
}
