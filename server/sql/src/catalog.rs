//! What the planner asks of its surroundings.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use serde_json::Value;
use trilith_proto::column::ColumnType;
use trilith_proto::error::{ApiError, Position};

/// Tables that a statement may name.
pub trait Catalog: Send + Sync {
    /// A table of a schema ("druid", "sys", "INFORMATION_SCHEMA").
    fn table(&self, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>>;
    /// Tables of a schema.
    fn table_names(&self, schema: &str) -> Vec<String>;
    /// EXTERN as a table.
    fn external(&self, call: &ExternCall) -> Result<Arc<dyn TableProvider>, ApiError>;
    /// Columns of a datasource, `__time` first.
    fn datasource_columns(&self, name: &str) -> Option<Vec<(String, ColumnType)>>;
}

/// A call of EXTERN.
#[derive(Debug, Clone, PartialEq)]
pub struct ExternCall {
    /// First argument.
    pub input_source: Value,
    /// Second argument.
    pub input_format: Value,
    /// Third argument, or EXTEND.
    pub signature: Vec<(String, ColumnType)>,
    /// Where the call stands.
    pub position: Position,
}
