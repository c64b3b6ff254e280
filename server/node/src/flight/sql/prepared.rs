//! Prepared statements: text, and the values that were bound last.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use trilith_proto::error::{ApiError, Category, Persona};
use trilith_sql::SqlParameter;

/// Statements that are prepared at a time, by all clients.
const STATEMENTS_MAX: usize = 10_000;
/// A statement that nobody uses for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3_600);

#[derive(Clone)]
pub(super) struct Prepared {
    pub sql: String,
    /// One list for each row of values; empty before any were bound.
    pub rows: Vec<Vec<SqlParameter>>,
}

struct Entry {
    prepared: Prepared,
    used: Instant,
}

/// The prepared statements of a server, by handle.
#[derive(Default)]
pub(super) struct PreparedStatements {
    entries: Mutex<HashMap<Bytes, Entry>>,
}

impl PreparedStatements {
    pub(super) fn add(&self, sql: String) -> Result<Bytes, ApiError> {
        let mut entries = self.entries.lock();
        if entries.len() >= STATEMENTS_MAX {
            entries.retain(|_, entry| entry.used.elapsed() < IDLE_TIMEOUT);
        }
        if entries.len() >= STATEMENTS_MAX {
            return Err(ApiError::new(
                Category::CapacityExceeded,
                Persona::User,
                "tooManyPreparedStatements",
                format!("{STATEMENTS_MAX} statements are prepared; close some"),
            ));
        }
        let handle = Bytes::from(uuid::Uuid::new_v4().to_string());
        let prepared = Prepared {
            sql,
            rows: Vec::new(),
        };
        let used = Instant::now();
        entries.insert(handle.clone(), Entry { prepared, used });
        Ok(handle)
    }

    pub(super) fn get(&self, handle: &Bytes) -> Result<Prepared, ApiError> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(handle).ok_or_else(unknown)?;
        entry.used = Instant::now();
        Ok(entry.prepared.clone())
    }

    pub(super) fn bind(&self, handle: &Bytes, rows: Vec<Vec<SqlParameter>>) -> Result<(), ApiError> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(handle).ok_or_else(unknown)?;
        entry.prepared.rows = rows;
        entry.used = Instant::now();
        Ok(())
    }

    /// Idempotent.
    pub(super) fn close(&self, handle: &Bytes) {
        self.entries.lock().remove(handle);
    }
}

fn unknown() -> ApiError {
    ApiError::not_found(
        "there is no such prepared statement: it was closed, not used for an hour, or prepared before the server started; prepare it again",
    )
}
