//! Locks on time chunks, for those who want to know what keeps a task waiting.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use trilith_client::ClientError;
use trilith_client::druid_json::task_lock_json;
use trilith_proto::interval::Interval;
use trilith_proto::pb::task as pb;

use crate::Gateway;
use crate::error::{HttpError, unreadable};
use crate::interval;

/// Locks of interest: those of a task that would want these intervals.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LockFilter {
    datasource: String,
    #[serde(default)]
    priority: i32,
    /// All of time when absent.
    #[serde(default)]
    intervals: Option<Vec<String>>,
    #[serde(default)]
    context: Option<Map<String, Value>>,
}

impl LockFilter {
    /// Held, overlapping, and of a priority that the task could not take it from.
    fn wants(&self, lock: &pb::Lock) -> bool {
        let overlaps = |text: &String| match (interval::parse(text), Interval::parse(&lock.interval)) {
            (Some(wanted), Some(locked)) => wanted.overlaps(&locked),
            _ => false,
        };
        let overlaps = match &self.intervals {
            Some(intervals) => intervals.iter().any(overlaps),
            None => true,
        };
        overlaps && !lock.revoked && lock.priority >= self.priority
    }

    /// A task of this context can run beside appends.
    fn shares_with_appends(&self) -> bool {
        let Some(context) = &self.context else {
            return false;
        };
        let concurrent = context.get("useConcurrentLocks");
        let concurrent = concurrent.is_some_and(|value| {
            value.as_bool().unwrap_or_default()
                || value
                    .as_str()
                    .is_some_and(|text| text.eq_ignore_ascii_case("true"))
        });
        let kind = context.get("taskLockType").and_then(Value::as_str);
        concurrent || kind.is_some_and(|kind| matches!(kind, "REPLACE" | "APPEND"))
    }
}

/// Reads the filters of a request.
fn filters(body: &[u8]) -> Result<Vec<LockFilter>, Response> {
    let filters: Option<Vec<LockFilter>> =
        serde_json::from_slice(body).map_err(|error| unreadable(&error.to_string()))?;
    let filters = filters.unwrap_or_default();
    let intervals = filters
        .iter()
        .flat_map(|filter| filter.intervals.iter().flatten());
    for text in intervals {
        if interval::parse(text).is_none() {
            return Err(unreadable(&format!(
                "[{text}] is no interval; use start/end in ISO 8601"
            )));
        }
    }
    if filters.is_empty() {
        return Err((StatusCode::BAD_REQUEST, "No filter provided").into_response());
    }
    Ok(filters)
}

/// Locks by datasource, each datasource's in the order of the grants.
async fn found(
    gateway: &Gateway,
    filters: &[LockFilter],
    wants: impl Fn(&LockFilter, &pb::Lock) -> bool,
) -> Result<BTreeMap<String, Vec<pb::Lock>>, ClientError> {
    let mut by_datasource: BTreeMap<String, Vec<pb::Lock>> = BTreeMap::new();
    for filter in filters {
        if by_datasource.contains_key(&filter.datasource) {
            continue;
        }
        let same = |other: &&LockFilter| other.datasource == filter.datasource;
        let mut locks = gateway.client.locks(&filter.datasource).await?;
        locks.retain(|lock| filters.iter().filter(same).any(|filter| wants(filter, lock)));
        by_datasource.insert(filter.datasource.clone(), locks);
    }
    by_datasource.retain(|_, locks| !locks.is_empty());
    Ok(by_datasource)
}

pub(crate) async fn active(State(gateway): State<Gateway>, body: Bytes) -> Response {
    let filters = match filters(&body) {
        Ok(filters) => filters,
        Err(answer) => return answer,
    };
    match found(&gateway, &filters, LockFilter::wants).await {
        Ok(locks) => {
            let locks: Map<String, Value> = locks
                .into_iter()
                .map(|(name, locks)| (name, locks.iter().map(task_lock_json).collect()))
                .collect();
            Json(json!({"datasourceToLocks": locks})).into_response()
        }
        Err(error) => HttpError::from(error).into_response(),
    }
}

pub(crate) async fn intervals(State(gateway): State<Gateway>, body: Bytes) -> Response {
    let filters = match filters(&body) {
        Ok(filters) => filters,
        Err(answer) => return answer,
    };
    let wants = |filter: &LockFilter, lock: &pb::Lock| {
        let shared = filter.shares_with_appends() && lock.r#type() == pb::LockType::Append;
        filter.wants(lock) && !shared
    };
    match found(&gateway, &filters, wants).await {
        Ok(locks) => {
            let intervals: Map<String, Value> = locks
                .into_iter()
                .map(|(name, locks)| (name, locks.into_iter().map(|lock| lock.interval).collect()))
                .collect();
            Json(Value::Object(intervals)).into_response()
        }
        Err(error) => HttpError::from(error).into_response(),
    }
}
