//! Why a job failed: Druid's fault codes with their fields.

use std::error::Error;
use std::fmt;

use serde_json::{Map, Value, json};

use crate::error::{ApiError, Category, Persona};
use crate::interval::Interval;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $persona:ident, $category:ident;)*) => {
        /// A fault code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub enum FaultCode { $($name,)* }

        impl FaultCode {
            /// Every code once.
            pub const ALL: &'static [FaultCode] = &[$(FaultCode::$name,)*];

            /// The code in reports.
            pub fn as_str(self) -> &'static str {
                match self { $(FaultCode::$name => $text,)* }
            }

            /// Addressee of the error.
            pub fn persona(self) -> Persona {
                match self { $(FaultCode::$name => Persona::$persona,)* }
            }

            /// Category of the error.
            pub fn category(self) -> Category {
                match self { $(FaultCode::$name => Category::$category,)* }
            }

            /// Reads a code.
            pub fn parse(text: &str) -> Option<FaultCode> {
                match text { $($text => Some(FaultCode::$name),)* _ => None }
            }
        }
    };
}

codes! {
    BroadcastTablesTooLarge = "BroadcastTablesTooLarge", User, CapacityExceeded;
    Canceled = "Canceled", User, Canceled;
    CannotParseExternalData = "CannotParseExternalData", User, InvalidInput;
    ColumnNameRestricted = "ColumnNameRestricted", User, InvalidInput;
    ColumnTypeNotSupported = "ColumnTypeNotSupported", User, InvalidInput;
    DruidException = "DruidException", User, RuntimeFailure;
    DurableStorageConfiguration = "DurableStorageConfiguration", Operator, InvalidInput;
    InsertCannotAllocateSegment = "InsertCannotAllocateSegment", User, RuntimeFailure;
    InsertCannotBeEmpty = "InsertCannotBeEmpty", User, InvalidInput;
    InsertLockPreempted = "InsertLockPreempted", User, Conflict;
    InsertTimeNull = "InsertTimeNull", User, InvalidInput;
    InsertTimeOutOfBounds = "InsertTimeOutOfBounds", User, InvalidInput;
    InvalidField = "InvalidField", Developer, InvalidInput;
    InvalidNullByte = "InvalidNullByte", User, InvalidInput;
    NotEnoughMemory = "NotEnoughMemory", Operator, CapacityExceeded;
    NotEnoughTemporaryStorage = "NotEnoughTemporaryStorageFault", Operator, CapacityExceeded;
    QueryNotSupported = "QueryNotSupported", Developer, Unsupported;
    QueryRuntimeError = "QueryRuntimeError", Developer, RuntimeFailure;
    RowTooLarge = "RowTooLarge", User, CapacityExceeded;
    TaskStartTimeout = "TaskStartTimeout", Operator, CapacityExceeded;
    TooManyAttemptsForJob = "TooManyAttemptsForJob", Operator, RuntimeFailure;
    TooManyAttemptsForWorker = "TooManyAttemptsForWorker", Operator, RuntimeFailure;
    TooManyBuckets = "TooManyBuckets", User, CapacityExceeded;
    TooManyClusteredByColumns = "TooManyClusteredByColumns", User, CapacityExceeded;
    TooManyColumns = "TooManyColumns", User, CapacityExceeded;
    TooManyInputFiles = "TooManyInputFiles", User, CapacityExceeded;
    TooManyPartitions = "TooManyPartitions", User, CapacityExceeded;
    TooManyRowsInAWindow = "TooManyRowsInAWindow", User, CapacityExceeded;
    TooManyRowsWithSameKey = "TooManyRowsWithSameKey", User, CapacityExceeded;
    TooManySegmentsInTimeChunk = "TooManySegmentsInTimeChunk", User, CapacityExceeded;
    TooManyWarnings = "TooManyWarnings", User, RuntimeFailure;
    TooManyWorkers = "TooManyWorkers", User, CapacityExceeded;
    UnknownError = "UnknownError", Developer, Uncategorized;
    WorkerFailed = "WorkerFailed", Operator, RuntimeFailure;
    WorkerRpcFailed = "WorkerRpcFailed", Operator, RuntimeFailure;
}

/// Why a job was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CancelReason {
    TaskShutdown,
    UserRequest,
    QueryTimeout,
    Unknown,
}

/// A fault: the code, the code's own fields in Druid's order, and a text for people.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(into = "Value", try_from = "Value")]
pub struct Fault {
    /// Code.
    pub code: FaultCode,
    /// Fields of that code.
    pub fields: Map<String, Value>,
    /// May be empty.
    pub message: String,
}

impl fmt::Display for Fault {
    /// "Code: message", or the code alone. This is a failed task's error message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message.is_empty() {
            true => f.write_str(self.code.as_str()),
            false => write!(f, "{}: {}", self.code.as_str(), self.message),
        }
    }
}

impl Error for Fault {}

impl From<Fault> for Value {
    fn from(fault: Fault) -> Value {
        fault.to_json()
    }
}

impl TryFrom<Value> for Fault {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let Value::Object(mut fields) = value else {
            return Err("a fault is an object".into());
        };
        let code = fields.shift_remove("errorCode");
        let code = code.as_ref().and_then(Value::as_str).and_then(FaultCode::parse);
        let message = fields.shift_remove("errorMessage");
        let message = message
            .as_ref()
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        match code {
            Some(code) => Ok(Fault {
                code,
                fields,
                message,
            }),
            None => Err("unknown fault code".into()),
        }
    }
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

impl Fault {
    /// A fault with fields given as a JSON object.
    pub fn new(code: FaultCode, own_fields: Value, message: impl Into<String>) -> Fault {
        Fault {
            code,
            fields: fields(own_fields),
            message: message.into(),
        }
    }

    /// Druid's object: `errorCode`, the fields, `errorMessage`.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("errorCode".into(), self.code.as_str().into());
        object.extend(self.fields.clone());
        if !self.message.is_empty() {
            object.insert("errorMessage".into(), self.message.clone().into());
        }
        Value::Object(object)
    }

    /// Category of the error.
    pub fn category(&self) -> Category {
        self.code.category()
    }

    /// Addressee of the error.
    pub fn persona(&self) -> Persona {
        self.code.persona()
    }

    /// The fault in a chain of errors, the outermost first.
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Fault> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(fault) = error.downcast_ref::<Fault>() {
                return Some(fault);
            }
            // An error of the operating system does not name what it was made of as its source.
            let inner = error.downcast_ref::<std::io::Error>();
            let inner = inner.and_then(|error| error.get_ref());
            if let Some(fault) = inner.and_then(|inner| inner.downcast_ref::<Fault>()) {
                return Some(fault);
            }
            next = error.source();
        }
        None
    }

    /// The fault in a chain of errors, or `UnknownError` with the chain's text.
    pub fn from_error(error: &(dyn Error + 'static)) -> Fault {
        Fault::find(error)
            .cloned()
            .unwrap_or_else(|| Fault::unknown(error.to_string()))
    }

    /// Anything else.
    pub fn unknown(message: impl Into<String>) -> Fault {
        let message = message.into();
        Fault::new(
            FaultCode::UnknownError,
            json!({"message": message}),
            message.clone(),
        )
    }

    /// Stopped on purpose.
    pub fn canceled(reason: CancelReason) -> Fault {
        let (word, message) = match reason {
            CancelReason::TaskShutdown => ("TASK_SHUTDOWN", "Query canceled due to task shutdown."),
            CancelReason::UserRequest => ("USER_REQUEST", "Query canceled."),
            CancelReason::QueryTimeout => ("QUERY_TIMEOUT", "Query timed out."),
            CancelReason::Unknown => ("UNKNOWN", "Query interrupted."),
        };
        Fault::new(FaultCode::Canceled, json!({"reason": word}), message)
    }

    /// Stopped by a user.
    pub fn is_shutdown(&self) -> bool {
        self.code == FaultCode::Canceled && self.to_json()["reason"] == "USER_REQUEST"
    }

    /// External data that cannot be read as its format says.
    pub fn cannot_parse(message: impl Into<String>) -> Fault {
        Fault::new(FaultCode::CannotParseExternalData, json!({}), message)
    }

    /// More warnings of one kind than allowed.
    pub fn too_many_warnings(max: i64, root: FaultCode) -> Fault {
        let message = format!(
            "More than {max} warnings of type {}. Raise maxParseExceptions or correct the data.",
            root.as_str()
        );
        let own = json!({"maxWarnings": max, "rootErrorCode": root.as_str()});
        Fault::new(FaultCode::TooManyWarnings, own, message)
    }

    /// An output column has a name that is kept for the engine.
    pub fn column_name_restricted(column: &str) -> Fault {
        let message = format!("[{column}] is a reserved column name. Give the column another name with AS.");
        Fault::new(
            FaultCode::ColumnNameRestricted,
            json!({"columnName": column}),
            message,
        )
    }

    /// A type that cannot be stored.
    pub fn column_type_not_supported(column: &str, column_type: Option<&str>) -> Fault {
        let message = format!(
            "Column [{column}] has the type [{}], which cannot be used here.",
            column_type.unwrap_or("unknown")
        );
        let mut own = fields(json!({"columnName": column}));
        if let Some(column_type) = column_type {
            own.insert("columnType".into(), column_type.into());
        }
        Fault {
            code: FaultCode::ColumnTypeNotSupported,
            fields: own,
            message,
        }
    }

    /// A row without time.
    pub fn insert_time_null() -> Fault {
        let message = "Null timestamp (__time) met while writing. Rows need a time: filter them with WHERE __time IS NOT NULL, or use COALESCE or another TIME_PARSE pattern.";
        Fault::new(FaultCode::InsertTimeNull, json!({}), message)
    }

    /// Data outside OVERWRITE WHERE.
    pub fn insert_time_out_of_bounds(interval: Interval, bounds: &[Interval]) -> Fault {
        let texts: Vec<String> = bounds.iter().map(Interval::to_string).collect();
        let message = format!(
            "The query generated data for time chunk [{interval}], which is outside of OVERWRITE WHERE [{}]. Widen OVERWRITE WHERE or filter the data.",
            texts.join(", ")
        );
        let own = json!({"interval": interval.to_string(), "intervalBounds": texts});
        Fault::new(FaultCode::InsertTimeOutOfBounds, own, message)
    }

    /// A segment of the wanted time chunk cannot be added to what is there.
    pub fn insert_cannot_allocate(
        datasource: &str,
        interval: Interval,
        allocated: Option<Interval>,
    ) -> Fault {
        let message = match allocated {
            Some(allocated) => format!(
                "Asked for a segment of [{datasource}] for [{interval}] but got [{allocated}]. Use the PARTITIONED BY of the existing data, or REPLACE it."
            ),
            None => format!(
                "No segment can be added to [{datasource}] for [{interval}]: existing segments have another granularity or cannot be extended. Use REPLACE to overwrite them."
            ),
        };
        let own = json!({
            "dataSource": datasource,
            "interval": interval.to_string(),
            "allocatedInterval": allocated.map(|interval| interval.to_string()),
        });
        Fault::new(FaultCode::InsertCannotAllocateSegment, own, message)
    }

    /// No rows although `failOnEmptyInsert` is set.
    pub fn insert_cannot_be_empty(datasource: &str) -> Fault {
        let message = format!(
            "No rows to insert for datasource [{datasource}]. Set failOnEmptyInsert to false to allow this."
        );
        Fault::new(
            FaultCode::InsertCannotBeEmpty,
            json!({"dataSource": datasource}),
            message,
        )
    }

    /// The lock was taken away.
    pub fn insert_lock_preempted() -> Fault {
        let message =
            "The lock on a time chunk was taken by a task of higher priority. Run the statement again.";
        Fault::new(FaultCode::InsertLockPreempted, json!({}), message)
    }

    /// The locks were not free in time.
    pub fn insert_lock_timeout(waited_ms: u64, holders: &[String]) -> Fault {
        let message = format!(
            "The task waited [{waited_ms}] ms for its locks on time chunks, which other tasks hold or asked for before: \
             [{}]. Run the statement again when they have ended, or raise [taskLockTimeout] (milliseconds) in the query context.",
            holders.join(", ")
        );
        Fault::new(FaultCode::InsertLockPreempted, json!({}), message)
    }

    /// A string holds byte 0. Unknown details are left out.
    pub fn invalid_null_byte(
        source: Option<&str>,
        row_number: Option<u64>,
        column: Option<&str>,
        value: Option<&str>,
        position: Option<u64>,
    ) -> Fault {
        let mut own = Map::new();
        for (key, entry) in [
            ("source", source.map(Value::from)),
            ("rowNumber", row_number.map(Value::from)),
            ("column", column.map(Value::from)),
            ("value", value.map(Value::from)),
            ("position", position.map(Value::from)),
        ] {
            if let Some(entry) = entry {
                own.insert(key.into(), entry);
            }
        }
        let message = format!(
            "A null byte was found in column [{}], row [{}] of [{}]. Set removeNullBytes to true, and such bytes are left out where external data is read.",
            column.unwrap_or("unknown"),
            row_number.map_or_else(|| "unknown".to_owned(), |row| row.to_string()),
            source.unwrap_or("unknown"),
        );
        Fault {
            code: FaultCode::InvalidNullByte,
            fields: own,
            message,
        }
    }

    /// A step needs more memory than it can have. `suggested`: bytes of a server that could do it, if known.
    pub fn not_enough_memory(
        suggested: Option<u64>,
        server_memory: u64,
        usable: u64,
        workers: u32,
        threads: u32,
        advice: &str,
    ) -> Fault {
        let mut own = Map::new();
        if let Some(suggested) = suggested {
            own.insert("suggestedServerMemory".to_owned(), suggested.into());
        }
        own.insert("serverMemory".to_owned(), server_memory.into());
        own.insert("usableMemory".to_owned(), usable.into());
        own.insert("serverWorkers".to_owned(), workers.into());
        own.insert("serverThreads".to_owned(), threads.into());
        Fault::new(
            FaultCode::NotEnoughMemory,
            Value::Object(own),
            format!("Not enough memory: {usable} of {server_memory} bytes are usable. {advice}"),
        )
    }

    /// Durable storage is configured wrongly; `reason` says how.
    pub fn durable_storage_configuration(reason: &str) -> Fault {
        let message = format!(
            "Durable storage must be configured and reachable: check --durable-storage and its credentials. {reason}"
        );
        Fault::new(
            FaultCode::DurableStorageConfiguration,
            json!({"message": reason}),
            message,
        )
    }

    /// Durable storage is asked for, but the server has none.
    pub fn no_durable_storage() -> Fault {
        Fault::durable_storage_configuration(
            "This server has no durable storage. Start it with --durable-storage file:///DIRECTORY or \
             s3://BUCKET/PREFIX, or leave out durableShuffleStorage and selectDestination.",
        )
    }

    /// The sides of joins that are kept in memory exceed what is set aside for them.
    pub fn broadcast_tables_too_large(max_bytes: u64, advice: &str) -> Fault {
        let own = json!({"maxBroadcastTablesSize": max_bytes});
        let message =
            format!("The side of a join that is kept in memory has more than {max_bytes} bytes. {advice}");
        Fault::new(FaultCode::BroadcastTablesTooLarge, own, message)
    }

    /// The task's temporary space is used up.
    pub fn not_enough_temporary_storage(suggested: u64, configured: u64) -> Fault {
        let own = json!({"suggestedMinimumStorage": suggested, "configuredTemporaryStorage": configured});
        let message = format!(
            "The task needs at least {suggested} bytes of temporary storage but may use {configured}. Start the \
             processes with a larger --task-disk-limit or --memory-limit, or let the task use more workers (maxNumTasks)."
        );
        Fault::new(FaultCode::NotEnoughTemporaryStorage, own, message)
    }

    /// The disk of a directory has no room left; the task has `used` bytes there.
    pub fn disk_full(directory: &str, used: u64, reason: &str) -> Fault {
        let own = json!({"suggestedMinimumStorage": used, "configuredTemporaryStorage": used});
        let message = format!(
            "The disk of [{directory}] is full; this task has {used} bytes there ({reason}). Free some of it, or start \
             the process with a --data-dir on a larger disk."
        );
        Fault::new(FaultCode::NotEnoughTemporaryStorage, own, message)
    }

    /// A statement that cannot be turned into stages.
    pub fn query_not_supported(message: impl Into<String>) -> Fault {
        Fault::new(FaultCode::QueryNotSupported, json!({}), message)
    }

    /// A partition of a window function has more rows than `maxRowsMaterializedInWindow`.
    pub fn too_many_rows_in_a_window(rows: u64, max: u64) -> Fault {
        let own = json!({"numRows": rows, "maxRows": max});
        let message = format!(
            "Too many rows in a window (requested = {rows}, max = {max}). Use a finer PARTITION BY, or raise maxRowsMaterializedInWindow."
        );
        Fault::new(FaultCode::TooManyRowsInAWindow, own, message)
    }

    /// GROUP BY met a row of several values where it takes none apart.
    pub fn unexpected_multi_value(column: &str) -> Fault {
        let own = json!({"druidErrorCode": "general", "persona": "USER", "category": "RUNTIME_FAILURE"});
        let message = format!(
            "Column [{column}] is a multi-value string, and groupByEnableMultiValueUnnesting is set to false. Wrap the column using MV_TO_ARRAY() to proceed further, or set groupByEnableMultiValueUnnesting to true."
        );
        Fault::new(FaultCode::DruidException, own, message)
    }

    /// A double that a function of integers cannot take.
    pub fn possible_truncation(function: &str, value: f64) -> Fault {
        let own = json!({"druidErrorCode": "invalidInput", "persona": "USER", "category": "INVALID_INPUT"});
        let message = format!(
            "Function[{function}] Possible data truncation, param [{value:.6}] is out of LONG value range"
        );
        Fault::new(FaultCode::DruidException, own, message)
    }

    /// PARTITIONED BY finds no time chunk for a row.
    pub fn time_without_date(ms: i64) -> Fault {
        let message = format!(
            "A row has the __time [{ms}], in milliseconds since 1970, which is more than 200,000 years away, so it is in no time chunk. Is the source in another unit, such as microseconds or nanoseconds? Divide it, or use PARTITIONED BY ALL."
        );
        Fault::new(FaultCode::QueryRuntimeError, json!({}), message)
    }

    /// One row is larger than a frame.
    pub fn row_too_large(max: u64) -> Fault {
        let message = format!("A row is larger than {max} bytes. Raise maxFrameSize.");
        Fault::new(FaultCode::RowTooLarge, json!({"maxFrameSize": max}), message)
    }

    /// No slots in time.
    pub fn task_start_timeout(pending: u32, total: u32, timeout_ms: u64) -> Fault {
        let message = format!(
            "{pending} of {total} workers could not start within {} seconds. Lower maxNumTasks, or add worker slots.",
            timeout_ms / 1_000
        );
        let own = json!({"pendingTasks": pending, "totalTasks": total, "timeout": timeout_ms});
        Fault::new(FaultCode::TaskStartTimeout, own, message)
    }

    /// Too many time chunks.
    pub fn too_many_buckets(max: u64) -> Fault {
        let message = format!("More than {max} time chunks. Use a wider PARTITIONED BY or a smaller query.");
        Fault::new(FaultCode::TooManyBuckets, json!({"maxBuckets": max}), message)
    }

    /// A worker was lost or failed too often.
    pub fn too_many_attempts_for_worker(max: u32, worker: u32, task_id: &str, reason: &str) -> Fault {
        let own = json!({
            "maxPerWorkerRelaunchCount": max,
            "workerNumber": worker,
            "taskId": task_id,
            "rootErrorMessage": reason,
        });
        let message = format!("Worker [{worker}] was relaunched {max} times and failed again: {reason}");
        Fault::new(FaultCode::TooManyAttemptsForWorker, own, message)
    }

    /// All workers together were lost or failed too often.
    pub fn too_many_attempts_for_job(max: u32, count: u32, task_id: &str, reason: &str) -> Fault {
        let own = json!({
            "maxRelaunchCount": max,
            "currentRelaunchCount": count,
            "taskId": task_id,
            "rootErrorMessage": reason,
        });
        let message =
            format!("More than {max} relaunches of workers of this job; the last one failed: {reason}");
        Fault::new(FaultCode::TooManyAttemptsForJob, own, message)
    }

    /// Too many CLUSTERED BY columns.
    pub fn too_many_clustered_by_columns(count: u64, max: u64, stage: u32) -> Fault {
        let own = json!({"numColumns": count, "maxColumns": max, "stage": stage});
        let message = format!("{count} cluster-by columns in stage {stage}; at most {max} are allowed.");
        Fault::new(FaultCode::TooManyClusteredByColumns, own, message)
    }

    /// Too many output columns.
    pub fn too_many_columns(count: u64, max: u64) -> Fault {
        let message = format!("{count} output columns; at most {max} are allowed.");
        Fault::new(
            FaultCode::TooManyColumns,
            json!({"numColumns": count, "maxColumns": max}),
            message,
        )
    }

    /// Too many files for one worker.
    pub fn too_many_input_files(files: u64, max: u64, min_workers: u64) -> Fault {
        let own = json!({"numInputFiles": files, "maxInputFiles": max, "minNumWorkers": min_workers});
        let message = format!(
            "{files} input files for one worker; at most {max} are allowed. Raise maxInputFilesPerWorker or use at least {min_workers} workers."
        );
        Fault::new(FaultCode::TooManyInputFiles, own, message)
    }

    /// Too many output partitions.
    pub fn too_many_partitions(max: u64) -> Fault {
        let message = format!("More than {max} partitions. Raise rowsPerSegment, or maxPartitions.");
        Fault::new(
            FaultCode::TooManyPartitions,
            json!({"maxPartitions": max}),
            message,
        )
    }

    /// A time chunk would get more segments than `maxNumSegments`.
    pub fn too_many_segments_in_time_chunk(
        chunk_start: &str,
        segments: u64,
        max: u64,
        granularity: &str,
    ) -> Fault {
        let own = json!({
            "timeChunk": chunk_start, "numSegments": segments, "maxNumSegments": max, "segmentGranularity": granularity,
        });
        let message = format!("{segments} segments in time chunk [{chunk_start}]; maxNumSegments is {max}.");
        Fault::new(FaultCode::TooManySegmentsInTimeChunk, own, message)
    }

    /// Too many workers.
    pub fn too_many_workers(workers: u64, max: u64) -> Fault {
        let message = format!("{workers} workers; at most {max} are allowed. Lower maxNumTasks.");
        Fault::new(
            FaultCode::TooManyWorkers,
            json!({"workers": workers, "maxWorkers": max}),
            message,
        )
    }

    /// A worker ended unexpectedly.
    pub fn worker_failed(worker_task_id: &str, reason: Option<&str>) -> Fault {
        let mut own = fields(json!({"workerTaskId": worker_task_id}));
        if let Some(reason) = reason {
            own.insert("errorMsg".into(), reason.into());
        }
        let message = format!(
            "Worker task [{worker_task_id}] failed: {}",
            reason.unwrap_or("unknown reason")
        );
        Fault {
            code: FaultCode::WorkerFailed,
            fields: own,
            message,
        }
    }

    /// A worker could not be reached.
    pub fn worker_rpc_failed(worker_task_id: &str, reason: &str) -> Fault {
        let own = json!({"workerTaskId": worker_task_id, "errorMsg": reason});
        let message = format!("RPC to worker task [{worker_task_id}] failed: {reason}");
        Fault::new(FaultCode::WorkerRpcFailed, own, message)
    }
}

impl From<&Fault> for ApiError {
    fn from(fault: &Fault) -> ApiError {
        let mut error = ApiError::new(
            fault.category(),
            fault.persona(),
            fault.code.as_str(),
            fault.message.clone(),
        );
        for (key, value) in &fault.fields {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            error.context.insert(key.clone(), text.into());
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_druids_order_and_reads_back() {
        let fault = Fault::too_many_input_files(10_001, 10_000, 2);
        let text = fault.to_json().to_string();
        assert!(
            text.starts_with(
                r#"{"errorCode":"TooManyInputFiles","numInputFiles":10001,"maxInputFiles":10000,"minNumWorkers":2,"errorMessage":""#
            ),
            "{text}"
        );
        assert_eq!(Fault::try_from(fault.to_json()).unwrap(), fault);
        assert_eq!(FaultCode::ALL.len(), 35);
        for code in FaultCode::ALL {
            assert_eq!(FaultCode::parse(code.as_str()), Some(*code));
            assert!(!code.as_str().contains(": "));
        }
    }

    #[test]
    fn a_fault_is_found_through_wrappers() {
        let inner = Fault::insert_time_null();
        let wrapped = arrow::error::ArrowError::ExternalError(Box::new(inner.clone()));
        let twice = std::io::Error::other(wrapped);
        assert_eq!(Fault::find(&twice), Some(&inner));
        assert_eq!(
            Fault::from_error(&std::io::Error::other("x")).code,
            FaultCode::UnknownError
        );
    }
}
