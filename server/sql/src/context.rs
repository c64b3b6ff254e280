//! The query context: known keys are checked, unknown ones kept.

use serde_json::{Map, Value};
use trilith_proto::error::{ApiError, Category, Persona};
use trilith_proto::interval::parse_instant;

use crate::index_spec;

/// A checked query context.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryContext {
    map: Map<String, Value>,
}

fn wrong(key: &str, value: &Value, expected: &str) -> ApiError {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    ApiError::invalid_input(format!(
        "Query context key [{key}] must be {expected}, but it is {kind}: {value}"
    ))
}

/// What a 64-bit integer holds, as doubles.
const LONG_MIN: f64 = -9_223_372_036_854_775_808.0;
const LONG_END: f64 = 9_223_372_036_854_775_808.0;

fn integer(key: &str, value: &Value) -> Result<i64, ApiError> {
    let number = match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let number = number.as_f64()?;
            (LONG_MIN..LONG_END).contains(&number).then_some(number as i64)
        }),
        Value::String(text) => {
            let text = text.trim();
            text.parse::<i64>().ok().or_else(|| {
                let whole = text.trim_end_matches('0').strip_suffix('.')?;
                whole.parse().ok()
            })
        }
        _ => None,
    };
    number.ok_or_else(|| wrong(key, value, "an integer"))
}

fn boolean(key: &str, value: &Value) -> Result<bool, ApiError> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::String(text) => Ok(text.eq_ignore_ascii_case("true")),
        _ => Err(wrong(key, value, "a boolean")),
    }
}

const INTEGERS: &[(&str, i64)] = &[
    ("maxNumTasks", i64::MIN),
    ("maxParseExceptions", -1),
    ("rowsPerSegment", 1),
    ("rowsPerPage", 1),
    ("maxRowsInMemory", 1),
    ("timeout", 0),
    ("sqlOuterLimit", 0),
    ("priority", i64::MIN),
    ("maxFrameSize", 1),
    ("maxNumSegments", 1),
    ("maxInputFilesPerWorker", 1),
    ("maxInputBytesPerWorker", 1),
    ("minInputRangeBytes", 1),
    ("maxPartitions", 1),
    ("maxClusteredByColumns", 1),
    ("maxConcurrentStages", 1),
    ("taskLockTimeout", 0),
    ("maxRowsMaterializedInWindow", 1),
    ("rowsInMemory", 1),
    ("maxThreads", i64::MIN),
    ("targetPartitionsPerWorker", i64::MIN),
    ("segmentLoadAheadCount", i64::MIN),
    ("vectorSize", i64::MIN),
    ("inSubQueryThreshold", i64::MIN),
    ("inFunctionThreshold", i64::MIN),
    ("inFunctionExprThreshold", i64::MIN),
    ("maxSubqueryRows", i64::MIN),
    ("sqlPlannerBloat", i64::MIN),
];

const BOOLEANS: &[&str] = &[
    "finalizeAggregations",
    "groupByEnableMultiValueUnnesting",
    "useApproximateCountDistinct",
    "failOnEmptyInsert",
    "removeNullBytes",
    "forceSegmentSortByTime",
    "durableShuffleStorage",
    "faultTolerance",
    "sqlFinalizeOuterSketches",
    "sqlStringifyArrays",
    "waitUntilSegmentsLoad",
    "includeAllCounters",
    "useConcurrentLocks",
    "secondaryPartitionPruning",
    "backgroundFetchExternalFiles",
    "useCombiner",
    "storeCompactionState",
    "useAutoColumnSchemas",
    "liveReportCounters",
];

/// Key, allowed values, and whether their case matters.
const CHOICES: &[(&str, &[&str], bool)] = &[
    ("taskAssignment", &["max", "auto"], false),
    ("mode", &["strict", "nonStrict"], false),
    ("arrayIngestMode", &["array", "mvd", "none"], false),
    ("sqlJoinAlgorithm", &["broadcast", "sortMerge"], true),
    ("selectDestination", &["taskReport", "durableStorage"], false),
    (
        "taskLockType",
        &["EXCLUSIVE", "SHARED", "APPEND", "REPLACE"],
        false,
    ),
    (
        "clusterStatisticsMergeMode",
        &["SEQUENTIAL", "PARALLEL", "AUTO"],
        false,
    ),
    ("includeSegmentSource", &["NONE", "REALTIME"], false),
    ("engine", &["native", "msq-task"], false),
    ("sketchEncoding", &["OCTET_STREAM", "JSON"], false),
    ("vectorize", &["false", "true", "force"], false),
];

/// Keys that the planner sets itself.
const RESERVED: &[&str] = &[
    "sqlInsertSegmentGranularity",
    "sqlReplaceTimeChunks",
    "timestampResultField",
    "timestampResultFieldGranularity",
    "timestampResultFieldInOriginalDimensions",
    "minTimeArrayOutputName",
    "maxTimeArrayOutputName",
    "__timeColumn",
    "__exportFileFormat",
    "isReindex",
];

/// What becomes of arrays that are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrayIngestMode {
    /// They stay arrays.
    Array,
    /// Those of texts become multi-value strings, others are refused.
    Mvd,
    /// They are refused.
    None,
}

impl ArrayIngestMode {
    /// As the context has it.
    pub fn name(self) -> &'static str {
        match self {
            ArrayIngestMode::Array => "array",
            ArrayIngestMode::Mvd => "mvd",
            ArrayIngestMode::None => "none",
        }
    }
}

impl QueryContext {
    /// Checks the type of every known key.
    pub fn parse(map: Map<String, Value>) -> Result<QueryContext, ApiError> {
        if let Some(key) = RESERVED.iter().find(|key| map.contains_key(**key)) {
            return Err(ApiError::invalid_input(format!(
                "Query context parameter [{key}] is not allowed; the statement says it in its clauses"
            )));
        }
        for (key, least) in INTEGERS {
            if let Some(value) = map.get(*key).filter(|value| !value.is_null()) {
                let number = integer(key, value)?;
                if number < *least {
                    return Err(ApiError::invalid_input(format!(
                        "Query context key [{key}] must be at least [{least}], but it is [{number}]"
                    )));
                }
            }
        }
        for key in BOOLEANS {
            if let Some(value) = map.get(*key).filter(|value| !value.is_null()) {
                boolean(key, value)?;
            }
        }
        for (key, choices, exact) in CHOICES {
            let Some(value) = map.get(*key).filter(|value| !value.is_null()) else {
                continue;
            };
            let text = match value {
                Value::String(text) => text.as_str(),
                Value::Bool(true) if choices.contains(&"true") => "true",
                Value::Bool(false) if choices.contains(&"false") => "false",
                _ => return Err(wrong(key, value, "a string")),
            };
            let known = choices.iter().any(|choice| {
                if *exact {
                    *choice == text
                } else {
                    choice.eq_ignore_ascii_case(text)
                }
            });
            if !known {
                return Err(ApiError::invalid_input(format!(
                    "Query context key [{key}] must be one of {choices:?}, but it is [{text}]"
                )));
            }
        }
        if let Some(value) = map.get("indexSpec").filter(|value| !value.is_null()) {
            index_spec::check(
                &index_spec::read(value).ok_or_else(|| wrong("indexSpec", value, "a JSON object"))?,
            )?;
        }
        let context = QueryContext { map };
        let tasks = context.integer("maxNumTasks", 2);
        if tasks < 2 {
            return Err(ApiError::new(
                Category::InvalidInput,
                Persona::User,
                "invalidInput",
                format!(
                    "MSQ context maxNumTasks [{tasks}] cannot be less than 2, since at least 1 controller and 1 worker is necessary"
                ),
            ));
        }
        context.zone()?;
        context.current_timestamp()?;
        if let Some(value) = context.map.get("sqlQueryId") {
            let id = value
                .as_str()
                .ok_or_else(|| wrong("sqlQueryId", value, "a string"))?;
            let bad = id.is_empty()
                || id.starts_with('.')
                || id.contains(['/', '\\'])
                || id.chars().any(char::is_control);
            if bad {
                return Err(ApiError::invalid_input(format!(
                    "sqlQueryId [{id}] must not be empty, start with '.', or contain '/', '\\' or control characters"
                )));
            }
        }
        Ok(context)
    }

    fn integer(&self, key: &str, default: i64) -> i64 {
        self.map
            .get(key)
            .and_then(|value| integer(key, value).ok())
            .unwrap_or(default)
    }

    fn boolean(&self, key: &str, default: bool) -> bool {
        self.map
            .get(key)
            .and_then(|value| boolean(key, value).ok())
            .unwrap_or(default)
    }

    fn choice(&self, key: &str, choice: &str) -> bool {
        self.map
            .get(key)
            .and_then(Value::as_str)
            .is_some_and(|text| text.eq_ignore_ascii_case(choice))
    }

    fn zone(&self) -> Result<String, ApiError> {
        match self.map.get("sqlTimeZone") {
            None | Some(Value::Null) => Ok("UTC".to_owned()),
            Some(Value::String(zone)) if trilith_functions::is_time_zone(zone) => Ok(zone.clone()),
            Some(Value::String(zone)) => Err(ApiError::invalid_input(format!(
                "Query context key [sqlTimeZone]: [{zone}] is not a time zone; use a name such as America/Los_Angeles or an offset such as +01:00"
            ))),
            Some(other) => Err(wrong("sqlTimeZone", other, "a string")),
        }
    }

    /// `sqlCurrentTimestamp`, in milliseconds.
    fn current_timestamp(&self) -> Result<Option<i64>, ApiError> {
        const KEY: &str = "sqlCurrentTimestamp";
        match self.map.get(KEY) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => parse_instant(text).map(Some).ok_or_else(|| {
                ApiError::invalid_input(format!(
                    "Query context key [{KEY}]: [{text}] is no time; use ISO text such as 2000-01-01T00:00:00Z"
                ))
            }),
            Some(other) => Err(wrong(KEY, other, "a string")),
        }
    }

    /// What CURRENT_TIMESTAMP is, in milliseconds, unless it is the time of the statement.
    pub fn current_timestamp_ms(&self) -> Option<i64> {
        self.current_timestamp().unwrap_or(None)
    }

    /// Every key as it was given.
    pub fn map(&self) -> &Map<String, Value> {
        &self.map
    }

    /// `maxNumTasks`: controller and workers, at least 2.
    pub fn max_num_tasks(&self) -> u32 {
        u32::try_from(self.integer("maxNumTasks", 2)).unwrap_or(u32::MAX)
    }

    /// Lost work runs again.
    pub fn fault_tolerance(&self) -> bool {
        self.boolean("faultTolerance", false)
    }

    /// `durableShuffleStorage`; none if the statement does not say.
    pub fn durable_shuffle_storage(&self) -> Option<bool> {
        let value = self.map.get("durableShuffleStorage")?;
        boolean("durableShuffleStorage", value).ok()
    }

    /// `selectDestination` is `durableStorage`.
    pub fn durable_results(&self) -> bool {
        self.choice("selectDestination", "durableStorage")
    }

    /// `rowsPerPage`.
    pub fn rows_per_page(&self) -> u64 {
        self.integer("rowsPerPage", 100_000) as u64
    }

    /// `taskAssignment` is `auto`.
    pub fn auto_assignment(&self) -> bool {
        self.choice("taskAssignment", "auto")
    }

    fn given(&self, key: &str) -> Option<u64> {
        let value = self.map.get(key).filter(|value| !value.is_null())?;
        integer(key, value)
            .ok()
            .and_then(|number| u64::try_from(number).ok())
    }

    /// `maxInputFilesPerWorker`, if given.
    pub fn max_input_files_per_worker(&self) -> Option<u64> {
        self.given("maxInputFilesPerWorker")
    }

    /// `maxInputBytesPerWorker` in weighted bytes, if given: what `auto` gives to one worker.
    pub fn max_input_bytes_per_worker(&self) -> Option<u64> {
        self.given("maxInputBytesPerWorker")
    }

    /// `minInputRangeBytes`, if given: bytes of text that a piece of a file has at least.
    pub fn min_input_range_bytes(&self) -> Option<u64> {
        self.given("minInputRangeBytes")
    }

    /// `maxPartitions` of a stage's output, if given.
    pub fn max_partitions(&self) -> Option<u64> {
        self.given("maxPartitions")
    }

    /// It came through the statements API, which keeps the format of its rows here.
    pub fn is_statement(&self) -> bool {
        self.map.contains_key("__resultFormat")
    }

    /// `maxClusteredByColumns`.
    pub fn max_clustered_by_columns(&self) -> Option<u64> {
        self.given("maxClusteredByColumns")
    }

    /// `maxConcurrentStages`: stages of the task that run at the same time, at least 1.
    pub fn max_concurrent_stages(&self) -> u32 {
        let count = self.given("maxConcurrentStages").unwrap_or(1);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// `storeCompactionState`.
    pub fn store_compaction_state(&self) -> bool {
        self.boolean("storeCompactionState", false)
    }

    /// `rowsPerSegment`.
    pub fn rows_per_segment(&self) -> u64 {
        self.integer("rowsPerSegment", 3_000_000) as u64
    }

    /// `maxParseExceptions`, whose default is 0 in strict and -1 in nonStrict mode.
    pub fn max_parse_exceptions(&self) -> i64 {
        let default = if self.choice("mode", "nonStrict") { -1 } else { 0 };
        self.integer("maxParseExceptions", default)
    }

    /// `sqlTimeZone`.
    pub fn sql_time_zone(&self) -> String {
        self.zone().unwrap_or_else(|_| "UTC".to_owned())
    }

    /// `timeout` in milliseconds; none when absent or 0.
    pub fn timeout_ms(&self) -> Option<u64> {
        u64::try_from(self.integer("timeout", 0))
            .ok()
            .filter(|timeout| *timeout > 0)
    }

    /// `arrayIngestMode`.
    pub fn array_ingest_mode(&self) -> ArrayIngestMode {
        if self.choice("arrayIngestMode", "mvd") {
            ArrayIngestMode::Mvd
        } else if self.choice("arrayIngestMode", "none") {
            ArrayIngestMode::None
        } else {
            ArrayIngestMode::Array
        }
    }

    /// `indexSpec` as an object, if given.
    pub fn index_spec(&self) -> Option<Value> {
        let given = self.map.get("indexSpec")?;
        index_spec::read(given).map(Value::Object)
    }

    /// `sqlStringifyArrays`: arrays among the results are JSON texts.
    pub fn stringify_arrays(&self) -> bool {
        self.boolean("sqlStringifyArrays", true)
    }

    /// `maxNumSegments` of a time chunk, if given.
    pub fn max_num_segments(&self) -> Option<u64> {
        self.given("maxNumSegments")
    }

    /// `maxRowsMaterializedInWindow`, if given: rows of one partition of a window function.
    pub fn max_window_rows(&self) -> Option<u64> {
        self.given("maxRowsMaterializedInWindow")
    }

    /// `secondaryPartitionPruning`: segments outside the ranges of a filter are not read.
    pub fn range_pruning(&self) -> bool {
        self.boolean("secondaryPartitionPruning", true)
    }

    /// `segmentSortOrder`. Fails if it is no list.
    pub fn segment_sort_order(&self) -> Result<Vec<String>, ApiError> {
        self.names("segmentSortOrder")
    }

    /// `skipTypeVerification`. Fails if it is no list.
    pub fn skip_type_verification(&self) -> Result<Vec<String>, ApiError> {
        self.names("skipTypeVerification")
    }

    /// Names as a JSON list, also inside a text, or separated by commas.
    fn names(&self, key: &str) -> Result<Vec<String>, ApiError> {
        let value = match self.map.get(key) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(value) => value,
        };
        let wrong = || wrong(key, value, "a list of column names");
        match value {
            Value::Array(_) => serde_json::from_value(value.clone()).map_err(|_| wrong()),
            Value::String(text) if text.trim_start().starts_with('[') => {
                serde_json::from_str(text).map_err(|_| wrong())
            }
            Value::String(text) => {
                let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
                Ok(names.map(str::to_owned).collect())
            }
            _ => Err(wrong()),
        }
    }

    /// `waitUntilSegmentsLoad`.
    pub fn wait_until_segments_load(&self) -> bool {
        self.boolean("waitUntilSegmentsLoad", false)
    }

    /// `finalizeAggregations`.
    pub fn finalize_aggregations(&self) -> bool {
        self.boolean("finalizeAggregations", true)
    }

    /// `sqlFinalizeOuterSketches`: sketches among the results show their estimates.
    pub fn finalize_outer_sketches(&self) -> bool {
        self.boolean("sqlFinalizeOuterSketches", false)
    }

    /// `sqlJoinAlgorithm` is `sortMerge`.
    pub fn sort_merge_join(&self) -> bool {
        self.choice("sqlJoinAlgorithm", "sortMerge")
    }

    /// `sqlOuterLimit`.
    pub fn sql_outer_limit(&self) -> Option<u64> {
        self.map
            .get("sqlOuterLimit")
            .filter(|value| !value.is_null())
            .map(|_| self.integer("sqlOuterLimit", 0) as u64)
    }

    /// `groupByEnableMultiValueUnnesting`.
    pub fn unnest_multi_values(&self) -> bool {
        self.boolean("groupByEnableMultiValueUnnesting", true)
    }

    /// `useApproximateCountDistinct`.
    pub fn approximate_count_distinct(&self) -> bool {
        self.boolean("useApproximateCountDistinct", true)
    }

    /// `priority` of locks.
    pub fn priority(&self) -> i32 {
        self.integer("priority", 50) as i32
    }

    /// `taskLockTimeout` in milliseconds; none when absent.
    pub fn task_lock_timeout_ms(&self) -> Option<u64> {
        let given = self.map.get("taskLockTimeout").filter(|value| !value.is_null())?;
        let timeout = integer("taskLockTimeout", given).ok()?;
        u64::try_from(timeout).ok()
    }

    /// Whether an INSERT or a REPLACE takes locks of the kind that lets both run at the same time, by
    /// `useConcurrentLocks` or else by `taskLockType`. Fails when that is of no use for the operation.
    pub fn concurrent_locks(&self, operation: &str) -> Result<bool, ApiError> {
        if self.boolean("useConcurrentLocks", false) {
            return Ok(true);
        }
        let (plain, concurrent) = match operation {
            "REPLACE" => ("EXCLUSIVE", "REPLACE"),
            _ => ("SHARED", "APPEND"),
        };
        match self.map.get("taskLockType").and_then(Value::as_str) {
            None => Ok(false),
            Some(_) if self.choice("taskLockType", plain) => Ok(false),
            Some(_) if self.choice("taskLockType", concurrent) => Ok(true),
            Some(given) => Err(ApiError::invalid_input(format!(
                "Query context key [taskLockType] must be [{plain}] or [{concurrent}] for {operation}, but it is [{given}]"
            ))),
        }
    }

    /// `failOnEmptyInsert`.
    pub fn fail_on_empty_insert(&self) -> bool {
        self.boolean("failOnEmptyInsert", false)
    }

    /// `removeNullBytes`.
    pub fn remove_null_bytes(&self) -> bool {
        self.boolean("removeNullBytes", false)
    }

    /// `maxFrameSize` in bytes: also the largest row.
    pub fn max_frame_size(&self) -> u64 {
        self.integer("maxFrameSize", 1_000_000) as u64
    }

    /// `forceSegmentSortByTime`.
    pub fn force_segment_sort_by_time(&self) -> bool {
        self.boolean("forceSegmentSortByTime", true)
    }

    /// `sqlQueryId`, or a new id.
    pub fn query_id(&self) -> String {
        let given = self.map.get("sqlQueryId").and_then(Value::as_str);
        given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
    }
}
